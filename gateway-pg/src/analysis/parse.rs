//! The one place that calls the C parser, here or in [a process of its own](process).

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_query::ParserOptions;
use pg_query::protobuf::{ParseResult, RawStmt};

use super::{AnalysisError, LexSettings, process};

/// Parses a text that passed the scan.
pub(super) fn parse(text: &str, settings: &LexSettings) -> Result<ParseResult, AnalysisError> {
    process::parse(text, settings).unwrap_or_else(|| parse_here(text, settings))
}

/// Writes a tree as PostgreSQL's own deparser does.
pub(super) fn deparse(tree: &ParseResult) -> Result<String, AnalysisError> {
    process::deparse(tree).unwrap_or_else(|| deparse_here(tree))
}

pub(super) fn deparse_here(tree: &ParseResult) -> Result<String, AnalysisError> {
    pg_query::deparse(tree, pg_query::DeparseOptions::default()).map_err(parse_error)
}

/// A tree that came from another process.
pub(super) fn decoded(tree: Result<ParseResult, prost::DecodeError>) -> Result<ParseResult, AnalysisError> {
    tree.map_err(|error| parse_error(pg_query::Error::Decode(error)))
}

/// Parses in this process.
pub(super) fn parse_here(text: &str, settings: &LexSettings) -> Result<ParseResult, AnalysisError> {
    // `pg_query::parse` also gathers summaries through macros that panic on a tree they do not expect. No text is
    // known to do it; should one, it is refused like any other that is not understood.
    let parsed = catch_unwind(AssertUnwindSafe(|| pg_query::parse(text, options(settings))));
    match parsed {
        Ok(Ok(result)) => Ok(result.protobuf),
        Ok(Err(error)) => Err(parse_error(error)),
        Err(_) => Err(AnalysisError::NotUnderstood { what: "statement".to_owned(), offset: 0 }),
    }
}

fn options(settings: &LexSettings) -> ParserOptions {
    let mut options = ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    if !settings.standard_conforming_strings {
        options |= ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    }
    if !settings.backslash_quote {
        options |= ParserOptions::DISABLE_BACKSLASH_QUOTE;
    }
    options
}

fn parse_error(error: pg_query::Error) -> AnalysisError {
    match error {
        pg_query::Error::Decode(cause) if cause.to_string().contains("recursion limit") => {
            AnalysisError::TooDeep { what: "expressions or queries", offset: 0 }
        }
        pg_query::Error::Parse(message)
            if message.contains("stack depth limit") || message.contains("memory exhausted") =>
        {
            AnalysisError::TooDeep { what: "expressions or queries", offset: 0 }
        }
        pg_query::Error::Parse(message) => AnalysisError::Syntax { message },
        other => AnalysisError::Syntax { message: other.to_string() },
    }
}

/// Where a statement stands in the text, trimmed.
pub(super) fn range(text: &str, raw: &RawStmt) -> Range<usize> {
    let start = usize::try_from(raw.stmt_location).unwrap_or(0).min(text.len());
    let end = match usize::try_from(raw.stmt_len) {
        // Zero means up to the end of the text (`RawStmt` in parsenodes.h).
        Ok(0) | Err(_) => text.len(),
        Ok(length) => start.saturating_add(length).min(text.len()),
    };
    let written = text.get(start..end).unwrap_or_default();
    let lead = written.len() - written.trim_ascii_start().len();
    start + lead..start + lead + written.trim_ascii().len()
}
