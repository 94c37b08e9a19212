//! What can go wrong with the store, and what to do about it.

use std::path::PathBuf;

use gateway_core::approval::ApprovalError;
use gateway_core::recording::RecordError;
use rusqlite::ErrorCode;

/// The store failed. Whatever was asked did not happen: nothing is granted, no session goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be opened.
    #[error("cannot open the store `{}`: {cause}", .path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// Why.
        cause: Box<Self>,
    },
    /// A file beside the database cannot be read or made.
    #[error("`{}`: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        cause: String,
    },
    /// Others than the gateway's user may read or change a file.
    #[error("others may read or change `{}` (mode {mode:o}); run `chmod 600 {}`", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The database exists but its key is gone.
    #[error("the key `{}` of this database is missing; restore it, or move the database away to begin anew", .0.display())]
    KeyMissing(PathBuf),
    /// The key is not the one the database was made with.
    #[error("the key `{}` is not the one of this database; restore the right one, or move the database away to begin anew", .0.display())]
    KeyMismatch(PathBuf),
    /// The file is an SQLite database of something else.
    #[error("the file is a database of another program; name another file")]
    NotAStore,
    /// A newer version of the gateway wrote it.
    #[error(
        "the database has schema version {found}, this gateway knows up to {known}; upgrade the gateway or restore an older copy"
    )]
    NewerSchema {
        /// The version found.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// The file is damaged.
    #[error(
        "the database is damaged ({0}); stop the gateway, keep a copy, then restore a backup or move it away"
    )]
    Damaged(String),
    /// There is no room on the disk.
    #[error("the disk of the database is full; free some space")]
    Full,
    /// The file or its directory cannot be written.
    #[error("the database cannot be written; check the owner and permissions of the file and its directory")]
    ReadOnly,
    /// Another process held the database too long.
    #[error("another process kept the database locked for too long; find and stop it")]
    Busy,
    /// The store was closed, or its thread ended.
    #[error("the store is closed; restart the gateway")]
    Closed,
    /// The operating system gave no randomness for keys or ids.
    #[error(transparent)]
    NoRandomness(#[from] gateway_core::random::NoRandomness),
    /// No session with this id.
    #[error("there is no session `{0}`; list them with `sessions list`")]
    UnknownSession(String),
    /// The beginning of a session id fits several.
    #[error("`{0}` is the beginning of several session ids; give more digits")]
    AmbiguousSession(String),
    /// Any other failure of the database.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(text),
            Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Self::ReadOnly,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Failed(text),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        // The position, not the text: an error may quote what it could not read.
        Self::Damaged(format!("unreadable row, {:?} error at column {}", error.classify(), error.column()))
    }
}

impl From<StoreError> for ApprovalError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<StoreError> for RecordError {
    fn from(error: StoreError) -> Self {
        Self(format!("the index of sessions: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn failures_of_the_disk_say_what_to_do() {
        let of = |code| StoreError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert_eq!(of(ffi::SQLITE_FULL), StoreError::Full);
        assert_eq!(of(ffi::SQLITE_READONLY), StoreError::ReadOnly);
        assert_eq!(of(ffi::SQLITE_BUSY), StoreError::Busy);
        assert!(matches!(of(ffi::SQLITE_CORRUPT), StoreError::Damaged(_)));
        assert!(matches!(of(ffi::SQLITE_NOTADB), StoreError::Damaged(_)));
        let full = ApprovalError::from(StoreError::Full).to_string();
        assert_eq!(full, "the approval store failed: the disk of the database is full; free some space");
    }
}
