//! Denials in SSH's words: the only place that does so.

use gateway_core::error::Denial;

/// Exit status of a command that was refused: that of a shell for "found but cannot be executed".
pub(crate) const REFUSED_STATUS: u32 = 126;

/// The line on standard error for a refused request. The target's words never come here.
pub(crate) fn line(denial: &Denial) -> String {
    format!("{}\r\n", text(denial))
}

/// The same without line end, as the reason of a disconnect.
pub(crate) fn text(denial: &Denial) -> String {
    let mut text = format!("denied: {}", denial.message);
    if !denial.rules.is_empty() {
        text.push_str(&format!("; rule: {}", denial.rules.join(", ")));
    }
    if let Some(request) = &denial.approval {
        text.push_str(&format!("; approval request: {request}"));
    }
    if let Some(hint) = &denial.hint {
        text.push_str(&format!("; hint: {hint}"));
    }
    text.push_str(&format!(" [{}]", denial.code));
    // What an agent named may stand in it: no terminal sequence may come back that way.
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::error::DenialCode;

    #[test]
    fn a_line_names_rule_and_hint_and_carries_no_control_characters() {
        let denial = Denial::new(DenialCode::Forbidden, "`a\u{1b}]0;x` is forbidden")
            .with_rules(["no-rm".to_owned()])
            .with_hint("ask\nops");
        let said = line(&denial);
        assert_eq!(said, "denied: `a?]0;x` is forbidden; rule: no-rm; hint: ask?ops [forbidden]\r\n");
    }
}
