//! What SQL text does, told by PostgreSQL's own grammar (libpg_query), without a server, I/O or waiting.
//!
//! [`analyse`] first runs a token scan that enforces [`Limits`] and refuses what server versions lex differently,
//! then parses, then walks the whole tree into an [`Analysis`]. A node the walk does not know is an error, never a
//! gap. Names are not resolved: which relation `t` is, whether `f` is the built-in function and whether `a.b` is a
//! column or a call depends on catalog and search_path, which the caller knows.
//!
//! It does not decide anything, does not read the bodies of functions, views, rules and triggers, and does not look
//! into SQL that travels inside strings.
//!
//! # Depth
//! The parser's tree is decoded by prost, which stops at 100 nested messages, two or more per tree level: 45 chained
//! `||` or casts, 46 nested calls, 22 `CASE` in `THEN` (44 in `ELSE`), 92 `UNION`s, 47 joins, 23 subqueries inside
//! each other. `AND` and `OR` written in a row, lists and `VALUES` are flat. What
//! is deeper is refused as [`AnalysisError::TooDeep`]. prost's `no-recursion-limit` would lift that for every
//! user of prost in the embedder's program, so it stays off. The same bound keeps the walk's recursion short; the C
//! parser checks its own stack.

mod cache;
mod functions;
mod literals;
mod model;
mod parse;
mod process;
mod restrict;
mod rewrite;
mod scan;
mod variants;
mod walk;

pub use cache::{AnalysisCache, CacheLimits, Understood};
pub use functions::{
    FunctionClass, Volatility, classify_function, is_builtin_operator, is_builtin_type, reads_anything,
};
pub use literals::{fingerprint, mask_literals, normalise};
pub use model::{
    Access, Analysis, Change, Code, ColumnUse, Copy, CopyDirection, CopyEndpoint, CopyFormat, Cte, Cursor,
    Explain, Filter, Flags, ForeignKey, FunctionRole, FunctionUse, Modification, ObjectChange, Output,
    OutputKind, Place, Prepared, QualifiedName, RelationUse, SettingChange, SettingKind, SettingScope,
    Source, SourceKind, Statement, Transaction,
};
pub use process::{AlreadyIsolated, isolate_parser, serve_parser};
pub(crate) use restrict::{Restriction, limit_inside, restrict};
pub use rewrite::{RewriteError, limit};

/// Session settings that change how text is read, from ParameterStatus or pinned by the gateway.
///
/// `client_encoding` must be UTF8: every other encoding is refused before text gets here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LexSettings {
    /// `standard_conforming_strings`: off makes `\` an escape in plain strings.
    pub standard_conforming_strings: bool,
    /// `backslash_quote` is `on` or `safe_encoding` (which allows `\'` in UTF8); false when it is `off`.
    pub backslash_quote: bool,
    /// `server_version_num`, for example 150018; 0 when unknown, which is treated as old.
    pub server_version_num: u32,
    /// The database's own encoding is another one than UTF8. Where it has one byte for each character, the server also folds letters
    /// beyond ASCII of names that are not quoted, by its locale (`downcase_identifier`); and everywhere it cuts names after 63 bytes of
    /// its own encoding. Such names are refused.
    pub other_encoding: bool,
}

impl Default for LexSettings {
    /// PostgreSQL's own defaults and an unknown server version.
    fn default() -> Self {
        Self {
            standard_conforming_strings: true,
            backslash_quote: true,
            server_version_num: 0,
            other_encoding: false,
        }
    }
}

/// Upper bounds of what is analysed; more is refused before the C parser sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the text. Default 1 MiB: larger texts are data loads, for which `COPY` is there.
    pub statement_bytes: usize,
    /// Open `(`, `[` and `CASE` at a time. Default 128: the decoder stops at 22 to 46 that mean something.
    pub nesting: usize,
    /// Nested `/* */`. Default 32.
    pub comment_depth: usize,
    /// Tokens. Default 262,144: an `IN` list of 65,535 parameters has half of that.
    pub tokens: usize,
    /// Operators in one chain, or joins and set operations in one query. Default 256: well above what is decoded.
    pub chain: usize,
    /// Statements in one text. Default 1,024.
    pub statements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_bytes: 1 << 20,
            nesting: 128,
            comment_depth: 32,
            tokens: 1 << 18,
            chain: 256,
            statements: 1 << 10,
        }
    }
}

/// Why a text was not analysed. Each one is a reason to refuse the text as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// The text is longer than [`Limits::statement_bytes`].
    #[error("statement of {bytes} bytes is over the limit of {limit}; send it in parts")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More tokens than [`Limits::tokens`].
    #[error("statement has more than {limit} tokens; send it in parts")]
    TooManyTokens {
        /// The limit.
        limit: usize,
    },
    /// More statements than [`Limits::statements`].
    #[error("more than {limit} statements in one text; send them apart")]
    TooManyStatements {
        /// The limit.
        limit: usize,
        /// Where the first one too many ends.
        offset: usize,
    },
    /// Nested or chained deeper than the limits or the decoder allow.
    #[error(
        "too deeply nested: {what} at byte {offset}; split the statement or use lists, arrays or concat()"
    )]
    TooDeep {
        /// What is nested.
        what: &'static str,
        /// Where it went too far, 0 if not known.
        offset: usize,
    },
    /// Names so many things that telling which belongs to which would take too long or too much memory.
    #[error("too many columns, tables or names in one statement; split it")]
    TooComplex,
    /// Not UTF-8.
    #[error("text is not valid utf-8 at byte {offset}; set client_encoding to UTF8")]
    NotUtf8 {
        /// The first invalid byte.
        offset: usize,
    },
    /// A zero byte, which ends the text for the server.
    #[error("zero byte at byte {offset}; remove it")]
    ZeroByte {
        /// Where it is.
        offset: usize,
    },
    /// A string, identifier or comment that does not end.
    #[error("unterminated {what} at byte {offset}; close it")]
    Unterminated {
        /// What does not end.
        what: &'static str,
        /// Where it starts.
        offset: usize,
    },
    /// A character no token starts with.
    #[error("unexpected character {:?} at byte {offset}; remove it or quote it", char::from(*.byte))]
    Unexpected {
        /// Its first byte.
        byte: u8,
        /// Where it is.
        offset: usize,
    },
    /// Read differently by other server versions or settings.
    #[error(
        "{what} at byte {offset} is read differently by other server versions or settings; write it another way"
    )]
    VersionDependent {
        /// What it is.
        what: &'static str,
        /// Where it is.
        offset: usize,
    },
    /// PostgreSQL's grammar refuses it.
    #[error("not valid PostgreSQL: {message}")]
    Syntax {
        /// The parser's words; may quote the text.
        message: String,
    },
    /// Valid, but this code does not know what it does.
    #[error("`{what}` at byte {offset} is not understood; write the statement another way")]
    NotUnderstood {
        /// The construct.
        what: String,
        /// Start of its statement.
        offset: usize,
    },
}

/// Analyses a query text as it came off the wire, without its terminating zero byte.
///
/// # Errors
/// Every error means that the text was not understood in full and must not be forwarded.
pub fn analyse_bytes(
    text: &[u8],
    settings: &LexSettings,
    limits: &Limits,
) -> Result<Analysis, AnalysisError> {
    if text.len() > limits.statement_bytes {
        return Err(AnalysisError::TooLong { bytes: text.len(), limit: limits.statement_bytes });
    }
    let text =
        std::str::from_utf8(text).map_err(|error| AnalysisError::NotUtf8 { offset: error.valid_up_to() })?;
    analyse(text, settings, limits)
}

/// Analyses a query text: one statement or several, separated by semicolons.
///
/// # Errors
/// Every error means that the text was not understood in full and must not be forwarded.
pub fn analyse(text: &str, settings: &LexSettings, limits: &Limits) -> Result<Analysis, AnalysisError> {
    scan::scan(text, settings, limits, |_| {})?;
    analyse_scanned(text, settings)
}

/// Analyses a text that passed the scan.
fn analyse_scanned(text: &str, settings: &LexSettings) -> Result<Analysis, AnalysisError> {
    let tree = parse::parse(text, settings)?;
    let statements =
        tree.stmts.iter().map(|raw| walk::statement(text, raw)).collect::<Result<Vec<_>, _>>()?;
    Ok(Analysis { statements })
}
