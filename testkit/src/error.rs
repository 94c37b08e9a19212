//! The one error of this crate: a message for the person whose test did not start.

use std::fmt;

/// What went wrong, in words, with what to do about it where that is known.
///
/// Tests do not branch on it; they return it or unwrap it, so it carries no kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this message: lower case, no full stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Names what was being done when a foreign error came up.
pub(crate) trait Context<T> {
    fn context(self, doing: &str) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: &str) -> Result<T> {
        self.map_err(|error| Error(format!("could not {doing}: {error}")))
    }
}
