//! What a denied agent is told.
//!
//! It names a thing only if the agent named it: in the statement, or as its target. What a view or a `*` led to stays
//! unnamed, and names are escaped and cut.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::judge::Outcome;
use super::load::{Loaded, Rule};
use super::request::Question;
use crate::error::{Denial, DenialCode};
use crate::operation::{Access, Resource};

/// A longer name is cut: characters. PostgreSQL's own names have at most 63 bytes.
const MAX_NAME: usize = 80;
/// Reasons told of one denial; the rule ids are all there.
const MAX_REASONS: usize = 4;

/// Some policies could not be evaluated.
pub(super) fn failed(loaded: &Loaded, failures: &[&(usize, String)]) -> Denial {
    let mut cause = String::new();
    for (index, message) in failures {
        let id = loaded.rules.get(*index).map_or("", |rule| &rule.id);
        let _infallible = write!(cause, "rule `{id}`: {message}; ");
    }
    let positions: BTreeSet<usize> = failures.iter().map(|(index, _)| *index).collect();
    Denial::new(DenialCode::PolicyError, "the policies for this operation cannot be evaluated")
        .with_hint("report the named rules to the gateway's operators; nothing was run")
        .with_rules(positions.iter().filter_map(|index| loaded.rules.get(*index)).map(|rule| rule.id.clone()))
        .with_cause(cause.trim_end_matches("; "))
}

/// Forbidden, or not permitted: words for the first refused access, the rules of all.
pub(super) fn denied(question: &Question<'_>, refused: &[(&Access, &Outcome)]) -> Denial {
    // What is forbidden outright says more than what merely lacks a permit.
    let first =
        refused.iter().find(|(_, outcome)| matches!(outcome, Outcome::Forbid(_))).or_else(|| refused.first());
    let Some((access, outcome)) = first else {
        return Denial::new(DenialCode::Forbidden, "the operation is forbidden");
    };
    let what = format!("`{}` on {}", shown(access.action.as_str()), thing(question, &access.resource));
    let positions: BTreeSet<usize> =
        refused.iter().flat_map(|(_, outcome)| forbidding(outcome)).copied().collect();
    let rules = || positions.iter().filter_map(|index| question.loaded.rules.get(*index));
    let ids: Vec<String> = rules().map(|rule| rule.id.clone()).collect();
    if !matches!(outcome, Outcome::Forbid(_)) {
        let target = shown(&question.input.session.target);
        return Denial::new(DenialCode::Forbidden, format!("no rule permits {what}")).with_hint(format!(
            "do without it, or ask the operators of `{target}` for a rule that permits it"
        ));
    }
    let reasons = joined(rules(), |rule| rule.annotations.reason.as_deref());
    let message = match reasons {
        Some(reasons) => format!("{what} is forbidden: {reasons}"),
        None => format!("{what} is forbidden"),
    };
    let denial = Denial::new(DenialCode::Forbidden, message).with_rules(ids);
    match joined(rules(), |rule| rule.annotations.hint.as_deref()) {
        Some(hints) => denial.with_hint(hints),
        None => denial,
    }
}

fn forbidding(outcome: &Outcome) -> &[usize] {
    match outcome {
        Outcome::Forbid(rules) => rules,
        _ => &[],
    }
}

fn joined<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    text: impl Fn(&'a Rule) -> Option<&'a str>,
) -> Option<String> {
    let mut texts: Vec<&str> = Vec::new();
    for text in rules.filter_map(text) {
        if texts.len() < MAX_REASONS && !texts.contains(&text) {
            texts.push(text);
        }
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn thing(question: &Question<'_>, resource: &Resource) -> String {
    let kind = resource.kind();
    let kind = kind.rsplit_once("::").map_or(kind, |(_, last)| last).to_lowercase();
    if named(question, resource.name()) {
        format!("{kind} `{}`", shown(resource.name()))
    } else {
        format!("a {kind} that it touches")
    }
}

/// Whether the agent itself named it.
fn named(question: &Question<'_>, name: &str) -> bool {
    let session = question.input.session;
    let known = name == session.target || session.scope.as_deref() == Some(name);
    known || contains(&question.input.operation.statement, name.as_bytes())
}

fn contains(statement: &[u8], name: &[u8]) -> bool {
    !name.is_empty() && statement.windows(name.len()).any(|part| part.eq_ignore_ascii_case(name))
}

/// `name`, cut, with what could break out of a line or of the backticks escaped.
fn shown(name: &str) -> String {
    let mut out = String::new();
    for (index, c) in name.chars().enumerate() {
        if index == MAX_NAME {
            out.push('…');
            break;
        }
        match c {
            '`' => out.push('\''),
            c if c.is_alphanumeric() || c == ' ' || c.is_ascii_punctuation() => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_cannot_break_out() {
        assert_eq!(shown("a`b\nc"), "a'b\\u{a}c");
        assert_eq!(shown("\u{202e}x"), "\\u{202e}x");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), MAX_NAME + 1);
    }

    #[test]
    fn only_what_was_written_is_named() {
        assert!(contains(b"delete from Orders", b"orders"));
        assert!(!contains(b"delete from v", b"orders") && !contains(b"ab", b"abc"));
    }
}
