//! A recorder that keeps the index of sessions current.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::clock::Timestamp;
use gateway_core::recording::{Header, Position, Record, RecordError, Recorder, SessionRecorder};
use gateway_core::session::{CloseReason, SessionId};

use super::{SessionCounts, SessionIndex};

/// How old the counts of a busy session may get in the index. 10 s: a glance at live sessions is current, and a thousand
/// busy sessions cost a hundred small updates a second.
const COUNTS_INTERVAL: Duration = Duration::from_secs(10);
/// Classes counted by name in one session; further ones are counted together as `other`. Far more than are configured.
const MAX_CLASSES: usize = 256;

type PathOf = dyn Fn(&Header) -> Option<PathBuf> + Send + Sync;

/// Records with another recorder, and notes each session's begin, counts and end in the index.
///
/// A session that cannot be indexed is refused. Counts are kept in memory and written at the end and every 10 s of a busy
/// session; they come from `Allowed`, `Denied`, `Held` and `Completed` records.
pub struct IndexedRecorder {
    inner: Arc<dyn Recorder>,
    index: SessionIndex,
    path_of: Box<PathOf>,
}

impl fmt::Debug for IndexedRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexedRecorder").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl IndexedRecorder {
    /// Records with `inner`; the index names no recording files.
    pub fn new(inner: Arc<dyn Recorder>, index: SessionIndex) -> Self {
        Self { inner, index, path_of: Box::new(|_| None) }
    }

    /// With the file that `inner` writes a session to, as `path_of` tells from its header.
    #[must_use]
    pub fn with_path(mut self, path_of: impl Fn(&Header) -> Option<PathBuf> + Send + Sync + 'static) -> Self {
        self.path_of = Box::new(path_of);
        self
    }
}

#[async_trait]
impl Recorder for IndexedRecorder {
    async fn open(&self, header: Header) -> Result<Arc<dyn SessionRecorder>, RecordError> {
        let recording = self.inner.open(header.clone()).await?;
        let path = (self.path_of)(&header);
        if let Err(error) = self.index.opened(&header, path.as_deref()).await {
            recording.close(header.started, CloseReason::RecorderFailed).await?;
            return Err(error.into());
        }
        let tally = Tally { counts: SessionCounts::default(), indexed: header.started, ended: false };
        let (id, index) = (header.session, self.index.clone());
        Ok(Arc::new(IndexedSession { inner: recording, index, id, tally: Mutex::new(tally) }))
    }
}

#[derive(Debug)]
struct IndexedSession {
    inner: Arc<dyn SessionRecorder>,
    index: SessionIndex,
    id: SessionId,
    tally: Mutex<Tally>,
}

#[derive(Debug)]
struct Tally {
    counts: SessionCounts,
    /// When the counts were last sent to the index.
    indexed: Timestamp,
    ended: bool,
}

impl IndexedSession {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_counts(&self, tally: &mut Tally, at: Timestamp) {
        let due = at.since(tally.indexed) >= COUNTS_INTERVAL;
        if due && self.index.post_counts(self.id, tally.counts.clone()) {
            tally.indexed = at;
        }
    }
}

#[async_trait]
impl SessionRecorder for IndexedSession {
    fn append(&self, at: Timestamp, record: Record) -> Result<Position, RecordError> {
        let increment = Increment::of(&record);
        let position = self.inner.append(at, record)?;
        if let Some(increment) = increment {
            let mut tally = self.tally();
            increment.add_to(&mut tally.counts);
            self.index_counts(&mut tally, at);
        }
        Ok(position)
    }

    async fn durable(&self, position: Position) -> Result<(), RecordError> {
        self.inner.durable(position).await
    }

    async fn ready(&self) -> Result<(), RecordError> {
        self.inner.ready().await
    }

    fn has_room(&self) -> bool {
        self.inner.has_room()
    }

    fn strict(&self) -> bool {
        self.inner.strict()
    }

    async fn close(&self, at: Timestamp, reason: CloseReason) -> Result<(), RecordError> {
        self.inner.close(at, reason.clone()).await?;
        let counts = self.tally().counts.clone();
        self.index.closed(self.id, at, &reason, &counts).await?;
        self.tally().ended = true;
        Ok(())
    }
}

impl Drop for IndexedSession {
    fn drop(&mut self) {
        let tally = self.tally();
        if !tally.ended {
            self.index.post_unsealed(self.id, tally.counts.clone());
        }
    }
}

/// What one record adds to the counts. Taken before the record is given away, counted once it was accepted.
enum Increment {
    Allowed(usize),
    Denied(usize),
    Held(usize),
    Completed { rows: u64, bytes: u64, masked: Vec<(String, u64)> },
}

impl Increment {
    fn of(record: &Record) -> Option<Self> {
        Some(match record {
            Record::Allowed { operations, .. } => Self::Allowed(operations.len()),
            Record::Denied { operations, .. } => Self::Denied(operations.len()),
            Record::Held { operations, .. } => Self::Held(operations.len()),
            Record::Completed { rows, bytes, masked, .. } => {
                Self::Completed { rows: *rows, bytes: *bytes, masked: masked.clone() }
            }
            _ => return None,
        })
    }

    fn add_to(self, counts: &mut SessionCounts) {
        match self {
            Self::Allowed(n) => add(&mut counts.allowed, n as u64),
            Self::Denied(n) => add(&mut counts.denied, n as u64),
            Self::Held(n) => add(&mut counts.held, n as u64),
            Self::Completed { rows, bytes, masked } => {
                add(&mut counts.rows, rows);
                add(&mut counts.bytes, bytes);
                masked.into_iter().for_each(|(class, n)| count_masked(counts, class, n));
            }
        }
    }
}

fn count_masked(counts: &mut SessionCounts, class: String, n: u64) {
    let known = counts.masked.contains_key(&class) || counts.masked.len() < MAX_CLASSES;
    let class = if known { class } else { "other".to_owned() };
    add(counts.masked.entry(class).or_default(), n);
}

fn add(count: &mut u64, n: u64) {
    *count = count.saturating_add(n);
}
