//! What is wrong with a set of policies, where, and what to do about it.

use std::fmt;

use serde::Serialize;

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The set is not loaded.
    Error,
    /// The set is loaded, but something in it is probably not what was meant.
    Warning,
}

/// One finding of the load-time checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// Whether it prevents loading.
    pub severity: Severity,
    /// The name the file was given under.
    pub file: String,
    /// Line in the file, from 1; 0 if it concerns the whole file.
    pub line: usize,
    /// Column in characters, from 1; 0 if it concerns the whole file.
    pub column: usize,
    /// The rule's id, if it is about one.
    pub rule: Option<String>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(super) fn error(place: &Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, place, message)
    }

    pub(super) fn warning(place: &Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, place, message)
    }

    fn new(severity: Severity, place: &Place, message: impl Into<String>) -> Self {
        Self {
            severity,
            file: place.file.clone(),
            line: place.line,
            column: place.column,
            rule: place.rule.clone(),
            message: message.into(),
            help: None,
        }
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": rule `{rule}`")?;
        }
        write!(f, ": {}", self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " (help: {help})"))
    }
}

/// The policies were not loaded; the set in force, if any, stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Everything found, errors first. Holds at least one error.
    pub diagnostics: Vec<Diagnostic>,
}

impl LoadError {
    pub(super) fn of(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic] }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policies are not loaded")?;
        self.diagnostics.iter().try_for_each(|d| write!(f, "\n{d}"))
    }
}

impl std::error::Error for LoadError {}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) rule: Option<String>,
}

impl Place {
    pub(super) fn whole(file: &str) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, rule: None }
    }

    /// The place of the byte at `offset` of `text`; past the end counts as the end.
    pub(super) fn at(file: &str, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
            rule: None,
        }
    }

    pub(super) fn of_rule(mut self, rule: &str) -> Self {
        self.rule = Some(rule.to_owned());
        self
    }
}

/// The candidate nearest to `word`, if one is near enough to be a likely typing error.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.chars().count().div_ceil(2).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            left = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
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
    fn distances_are_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn the_nearest_word_is_found_and_far_ones_are_not() {
        assert_eq!(nearest("aproval", ["approval", "reason", "id"]), Some("approval"));
        assert_eq!(nearest("zzzzzz", ["approval", "reason"]), None);
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let place = Place::at("f", "ab\nü x", 6);
        assert_eq!((place.line, place.column), (2, 3));
    }
}
