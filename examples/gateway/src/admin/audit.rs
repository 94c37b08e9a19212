//! The log of what reviewers did: JSON lines, appended, on disk before the answer.
//!
//! A session's recording has the outcome of every request; this has who looked, and who was turned away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use gateway_core::approval::RequestId;
use gateway_core::clock::Timestamp;
use gateway_core::identity::Actor;
use serde::Serialize;

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    /// RFC 3339.
    pub(super) at: String,
    pub(super) event: Event,
    /// Who; absent if nobody could be verified.
    pub(super) who: Option<&'a Actor>,
    pub(super) request: Option<RequestId>,
    /// How it went, or why not.
    pub(super) detail: Option<&'a str>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    Listed,
    Viewed,
    /// Written before the verdict takes effect.
    Approving,
    /// Written before the verdict takes effect.
    Rejecting,
    /// The verdict took effect.
    Reviewed,
    /// Nothing was done.
    Refused,
}

impl<'a> Entry<'a> {
    pub(super) fn new(at: Timestamp, event: Event, who: Option<&'a Actor>) -> Self {
        Self { at: at.to_string(), event, who, request: None, detail: None }
    }

    pub(super) const fn about(mut self, request: Option<RequestId>) -> Self {
        self.request = request;
        self
    }

    pub(super) const fn detail(mut self, detail: Option<&'a str>) -> Self {
        self.detail = detail;
        self
    }
}

/// The open log.
#[derive(Debug)]
pub(crate) struct AuditLog(Mutex<File>);

impl AuditLog {
    /// Opens or makes the file, readable by its owner only. Its name survives a crash of the machine from then on.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Self(Mutex::new(file)))
    }

    /// Appends a line; it is on disk when this returns. Blocks.
    pub(super) fn append(&self, entry: &Entry<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)?;
        file.sync_data()
    }
}
