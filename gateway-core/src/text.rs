//! Text that people read before they decide.

/// Changes what a reader sees without being seen: control characters, line separators, the bidirectional controls (Unicode Standard
/// Annex 9), and characters without a width or a shape (Annex 44: `Cf`, fillers, variation selectors, tags). Names with them are not
/// taken; statements and names are shown with them escaped, so that what is shown is what runs.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        || matches!(c, '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{110bd}' | '\u{110cd}')
        || matches!(c, '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_deceptive() {
        let hidden = "\0\n\u{7f}\u{85}\u{ad}\u{202e}\u{200b}\u{2066}\u{feff}\u{fe0f}\u{115f}\u{3164}\u{ffa0}\u{e0041}\u{2800}\u{1d173}\u{1bca0}\u{13430}\u{110bd}\u{605}\u{6dd}\u{70f}\u{8e2}";
        assert!(hidden.chars().all(is_deceptive));
        assert!(!"aé€漢 字🙂~".chars().any(is_deceptive));
    }
}
