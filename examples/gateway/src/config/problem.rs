//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One mistake in the configuration or in a file it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    file: PathBuf,
    /// From 1; 0 if the whole file is meant.
    line: usize,
    /// In characters, from 1; 0 if the whole file is meant.
    column: usize,
    /// The dotted key, as `target.labels`.
    key: Option<String>,
    message: String,
    help: String,
}

impl Problem {
    /// About a file as a whole.
    pub(crate) fn whole(file: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            key: None,
            message: message.into(),
            help: help.into(),
        }
    }

    /// At a place in a file.
    pub(super) fn at(
        file: &Path,
        text: &str,
        at: Range<usize>,
        key: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (line, column) = place(text, at.start);
        let key = (!key.is_empty()).then(|| key.to_owned());
        Self { file: file.to_owned(), line, column, key, message: message.into(), help: help.into() }
    }

    /// What the TOML reader found.
    pub(super) fn syntax(file: &Path, text: &str, mut error: toml::de::Error) -> Self {
        let at = error.span().unwrap_or(0..0);
        let message = plain(error.message());
        error.set_input(None);
        let key = named_key(&error.to_string());
        let help = remedy(&message);
        Self::at(file, text, at, &key, message, help)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if let Some(key) = &self.key {
            write!(f, ": `{key}`")?;
        }
        write!(f, ": {}\n  help: {}", self.message, self.help)
    }
}

impl std::error::Error for Problem {}

/// At least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Line and column of a byte, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

/// Serde says `field`, people who write TOML say key.
fn plain(message: &str) -> String {
    let message = message.trim_end().replace('\n', "; ");
    for (serde, ours) in [
        ("unknown field", "unknown key"),
        ("missing field", "missing key"),
        ("duplicate field", "repeated key"),
    ] {
        if let Some(rest) = message.strip_prefix(serde) {
            return format!("{ours}{rest}");
        }
    }
    without_text(&message).unwrap_or(message)
}

/// A text where something else belongs may be a password in the wrong place: it is not repeated, line and column say which it is.
fn without_text(message: &str) -> Option<String> {
    let (what, rest) = message.split_once(": string \"")?;
    let (_, expected) = rest.rsplit_once("\", expected ")?;
    Some(format!("{what}: a text, expected {expected}"))
}

/// The path of keys, which the reader prints only without its input: `... in `a.b``.
fn named_key(shown: &str) -> String {
    let path = shown.lines().rev().find_map(|line| line.strip_prefix("in `"));
    path.and_then(|path| path.strip_suffix('`')).unwrap_or_default().to_owned()
}

/// What to do about a message of the TOML reader.
fn remedy(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let first = quoted.next().unwrap_or_default();
    if message.starts_with("unknown key") || message.starts_with("unknown variant") {
        return match nearest(first, quoted) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "remove it, or use one of those expected".to_owned(),
        };
    }
    if message.starts_with("missing key") {
        return format!("add `{first} = ...`; the example configuration shows it");
    }
    if message.starts_with("invalid type") {
        return "change the value to the expected type; texts stand in double quotes, lists in square brackets"
            .to_owned();
    }
    "correct the value here; the example configuration shows every key".to_owned()
}

/// The candidate that is most likely meant by a mistyped word, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.chars().count().div_ceil(3).max(1);
    let near = candidates.map(|candidate| (distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            left = (diagonal + usize::from(x != *y)).min(*cell + 1).min(left + 1);
            diagonal = std::mem::replace(cell, left);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_words_are_recognised() {
        let words = || ["audiences", "algorithms", "issuer"].into_iter();
        assert_eq!(nearest("audience", words()), Some("audiences"));
        assert_eq!(nearest("isuer", words()), Some("issuer"));
        assert_eq!(nearest("zzz", words()), None);
    }

    #[test]
    fn a_text_in_the_wrong_place_is_not_repeated() {
        for text in ["hunter2", "with \", expected in it", "'"] {
            let message = format!("invalid type: string {text:?}, expected a boolean");
            assert_eq!(plain(&message), "invalid type: a text, expected a boolean");
        }
        assert_eq!(
            plain("invalid type: integer `7`, expected a string"),
            "invalid type: integer `7`, expected a string"
        );
    }

    #[test]
    fn places_count_from_one() {
        assert_eq!(place("a\nüb = 1", 4), (2, 2));
        assert_eq!(place("", 0), (1, 1));
    }
}
