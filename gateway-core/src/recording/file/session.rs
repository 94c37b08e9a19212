//! One session's queue between the pipeline and its writer thread, and how far it got.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::QueueLimits;
use super::blocks::RecordingFile;
use super::format::{Head, Item};
use super::raw::RawBlock;
use crate::clock::Timestamp;
use crate::recording::{Record, RecordError};
use crate::session::SessionId;

/// How soon the writer thread must come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Nothing to do.
    #[default]
    None,
    /// At the next tick.
    Tick,
    /// As soon as possible: write, so that the queue empties.
    Write,
    /// As soon as possible: write and sync; somebody waits.
    Commit,
}

/// What is queued bytes over all sessions.
#[derive(Debug, Default)]
pub(super) struct Total {
    bytes: AtomicUsize,
    /// Told when bytes are given back.
    pub(super) freed: Notify,
}

impl Total {
    fn add(&self, bytes: usize) -> usize {
        self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// Saturates: a total that wrapped would fail every session.
    fn sub(&self, bytes: usize) {
        let less = |total: usize| Some(total.saturating_sub(bytes));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.freed.notify_waiters();
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// Encoded, in order; the last one may take more.
    blocks: Vec<RawBlock>,
    /// How many records are in them.
    records: usize,
    /// Of everything accepted and not yet written.
    bytes: usize,
    /// The part of it that the writer thread has not taken yet.
    fresh: usize,
    /// Positions below this are accepted, written, on disk.
    accepted: u64,
    written: u64,
    durable: u64,
    urgency: Urgency,
    /// It is on the writer thread's list of what is to be synced later.
    lazy: bool,
    /// The last record is accepted.
    closing: bool,
    /// The ledger has the opening, the closing.
    listed: bool,
    closed: bool,
    failed: Option<Arc<str>>,
}

/// What the writer thread took over.
pub(super) struct Work {
    pub(super) blocks: Vec<RawBlock>,
    pub(super) bytes: usize,
    /// One past the last position in `blocks`.
    pub(super) until: u64,
    pub(super) urgency: Urgency,
    /// These are the last ones.
    pub(super) seal: bool,
}

/// Shared by the session's handle, its writer thread and the ledger thread.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) started: Instant,
    /// Touched by the writer thread only.
    file: Mutex<Option<RecordingFile>>,
    queue: Mutex<Queue>,
    /// Told whenever a waiter might have to look again.
    changed: Notify,
    limits: QueueLimits,
    total: Arc<Total>,
}

impl Session {
    /// A session whose header is already accepted, at position 0.
    ///
    /// # Errors
    /// The header is too large.
    pub(super) fn new(
        id: SessionId,
        limits: QueueLimits,
        total: Arc<Total>,
        at: Timestamp,
        header: &Item,
    ) -> Result<Self, String> {
        let mut queue = Queue::default();
        let bytes = queue.encode(at, header)?;
        (queue.bytes, queue.accepted) = (bytes, 1);
        total.add(bytes);
        Ok(Self {
            id,
            started: Instant::now(),
            file: Mutex::default(),
            queue: Mutex::new(queue),
            changed: Notify::new(),
            limits,
            total,
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, for the writer thread; `None` before it is created and after it is done with.
    pub(super) fn file(&self) -> MutexGuard<'_, Option<RecordingFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the file: it is sealed, or failed.
    pub(super) fn drop_file(&self) {
        *self.file() = None;
    }

    /// Accepts a record; `last` closes the queue after it. Returns its position and, if the writer thread must be told, how
    /// soon it has to come.
    pub(super) fn push(
        &self,
        at: Timestamp,
        record: Record,
        last: bool,
        strict: bool,
    ) -> Result<(u64, Option<Urgency>), RecordError> {
        let mut queue = self.queue();
        queue.check()?;
        if queue.closing {
            return Err(RecordError("the recording is closed".to_owned()));
        }
        let expected = at_least(&record);
        let total = self.total.add(expected);
        let over = if last { None } else { self.over_limit(&queue, expected, total) };
        let encoded = over.map_or_else(|| queue.encode(at, &Item::Record(record)), Err);
        let bytes = match encoded {
            Ok(bytes) => bytes,
            Err(cause) => {
                self.total.sub(expected);
                return Err(self.fail_locked(queue, &cause));
            }
        };
        self.total.add(bytes.saturating_sub(expected));
        queue.bytes += bytes;
        queue.fresh += bytes;
        queue.closing = last;
        let position = queue.accepted;
        queue.accepted += 1;
        let urgency = if last || strict {
            Urgency::Commit
        } else if queue.fresh >= self.limits.write_bytes || queue.records >= self.limits.session_records / 8 {
            Urgency::Write
        } else {
            Urgency::Tick
        };
        Ok((position, queue.raise(urgency)))
    }

    /// Whether a record of so many bytes, or a little more, is too much; `total` counts it already.
    fn over_limit(&self, queue: &Queue, bytes: usize, total: usize) -> Option<String> {
        let limits = &self.limits;
        if queue.records >= limits.session_records {
            return Some(format!("{} records wait to be written", queue.records));
        }
        if queue.bytes.saturating_add(bytes) > limits.session_bytes {
            return Some(format!("{} bytes of this session wait to be written", queue.bytes));
        }
        (total > limits.total_bytes).then(|| format!("{total} bytes of all sessions wait to be written"))
    }

    /// Asks for a commit; says if the writer thread must be told.
    pub(super) fn want_commit(&self) -> Option<Urgency> {
        self.queue().raise(Urgency::Commit)
    }

    /// Hands everything accepted to the writer thread.
    pub(super) fn take(&self) -> Work {
        let mut queue = self.queue();
        queue.fresh = 0;
        queue.records = 0;
        Work {
            blocks: std::mem::take(&mut queue.blocks),
            bytes: queue.bytes,
            until: queue.accepted,
            urgency: std::mem::take(&mut queue.urgency),
            seal: queue.closing && queue.written < queue.accepted,
        }
    }

    /// The writer thread has written up to `until`, which gives `bytes` of room back.
    pub(super) fn wrote(&self, until: u64, bytes: usize) {
        let mut queue = self.queue();
        queue.written = until;
        // A session that failed meanwhile has given its bytes back already.
        let freed = bytes.min(queue.bytes);
        queue.bytes -= freed;
        drop(queue);
        self.total.sub(freed);
        self.changed.notify_waiters();
    }

    /// Notes whether it is on the list of what is to be synced later; says whether it was.
    pub(super) fn set_lazy(&self, lazy: bool) -> bool {
        std::mem::replace(&mut self.queue().lazy, lazy)
    }

    /// Everything below `until` is on disk.
    pub(super) fn synced(&self, until: u64) {
        let mut queue = self.queue();
        queue.durable = queue.durable.max(until);
        drop(queue);
        self.changed.notify_waiters();
    }

    /// Positions below this are written; and those below the second are on disk.
    pub(super) fn progress(&self) -> (u64, u64) {
        let queue = self.queue();
        (queue.written, queue.durable)
    }

    /// The ledger has the session's opening.
    pub(super) fn set_listed(&self) {
        self.queue().listed = true;
        self.changed.notify_waiters();
    }

    /// The ledger has the session's closing.
    pub(super) fn set_closed(&self) {
        self.queue().closed = true;
        self.changed.notify_waiters();
    }

    /// Nothing more may pass: every later call fails with `cause`. What is queued is given up.
    pub(super) fn fail(&self, cause: &str) -> RecordError {
        let mut queue = self.queue();
        queue.blocks = Vec::new();
        let bytes = std::mem::take(&mut queue.bytes);
        self.total.sub(bytes);
        self.fail_locked(queue, cause)
    }

    /// As [`fail`](Self::fail), but what was accepted before is still written.
    fn fail_locked(&self, mut queue: MutexGuard<'_, Queue>, cause: &str) -> RecordError {
        let first = queue.failed.is_none();
        let error = RecordError(queue.failed.get_or_insert_with(|| cause.into()).to_string());
        drop(queue);
        self.changed.notify_waiters();
        // Somebody may wait for room in all queues together.
        self.total.freed.notify_waiters();
        // Last: a log that panics must not leave anybody waiting.
        if first {
            tracing::error!(session.id = %self.id, cause, "recording failed");
        }
        error
    }

    pub(super) fn has_room(&self) -> bool {
        let queue = self.queue();
        queue.failed.is_none() && self.is_roomy(&queue) && self.total.bytes() < self.limits.total_room_bytes
    }

    /// Small records take room too: far fewer than may never be exceeded.
    const fn is_roomy(&self, queue: &Queue) -> bool {
        queue.bytes < self.limits.session_room_bytes && queue.records <= self.limits.session_records / 2
    }

    /// Waits until everything up to `position` is on disk; `commit` is called if the writer thread must be told.
    pub(super) async fn durable(&self, position: u64, commit: impl Fn()) -> Result<(), RecordError> {
        if position >= self.queue().accepted {
            return Err(RecordError(format!("there is no record {position} yet")));
        }
        if self.queue().durable <= position {
            commit();
        }
        self.wait(|queue| queue.durable > position).await
    }

    pub(super) async fn listed(&self) -> Result<(), RecordError> {
        self.wait(|queue| queue.listed).await
    }

    pub(super) async fn closed(&self) -> Result<(), RecordError> {
        self.wait(|queue| queue.closed).await
    }

    /// Waits until there is room, in this session's queue and in all together.
    pub(super) async fn room(&self) -> Result<(), RecordError> {
        loop {
            let freed = self.total.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            self.wait(|queue| self.is_roomy(queue)).await?;
            if self.total.bytes() < self.limits.total_room_bytes {
                return Ok(());
            }
            freed.await;
        }
    }

    async fn wait(&self, done: impl Fn(&Queue) -> bool) -> Result<(), RecordError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that a change in between is not missed.
            changed.as_mut().enable();
            {
                let queue = self.queue();
                queue.check()?;
                if done(&queue) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }
}

impl Queue {
    /// Encodes an item into the last block, or a new one. Says how many bytes it takes.
    fn encode(&mut self, at: Timestamp, item: &Item) -> Result<usize, String> {
        if self.blocks.last().is_none_or(RawBlock::is_full) {
            self.blocks.push(RawBlock::new(at));
        }
        let Some(block) = self.blocks.last_mut() else { return Ok(0) };
        let encoded = block.push(at, item);
        if block.count == 0 {
            self.blocks.pop();
        } else {
            self.records += usize::from(encoded.is_ok());
        }
        encoded
    }

    fn check(&self) -> Result<(), RecordError> {
        self.failed.as_deref().map_or(Ok(()), |cause| Err(RecordError(cause.to_owned())))
    }

    /// Notes the urgency; `Some` if it is news to the writer thread.
    fn raise(&mut self, urgency: Urgency) -> Option<Urgency> {
        let news = urgency > self.urgency;
        self.urgency = self.urgency.max(urgency);
        news.then_some(urgency)
    }
}

/// What the session's last signed state was, for the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed {
    pub(super) head: Head,
    pub(super) records: u64,
    pub(super) time: Timestamp,
}

/// What a record takes at least, without encoding it: what it releases.
const fn at_least(record: &Record) -> usize {
    match record {
        Record::Released { bytes, .. } | Record::Received { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(total: &Arc<Total>, n: u8) -> Session {
        let record = Item::Record(Record::Closed { reason: crate::session::CloseReason::Downstream });
        let (id, at) = (SessionId::from_bytes([n; 16]), Timestamp::from_micros(0));
        Session::new(id, QueueLimits::default(), Arc::clone(total), at, &record).unwrap()
    }

    #[test]
    fn a_session_that_fails_while_it_is_written_gives_its_room_back_once() {
        let total = Arc::new(Total::default());
        let (failing, other) = (session(&total, 1), session(&total, 2));
        let each = total.bytes() / 2;
        let work = failing.take();
        failing.fail("the ledger: no space");
        failing.wrote(work.until, work.bytes);
        assert!(each > 0);
        assert_eq!(total.bytes(), each);
        assert!(other.has_room());
    }
}
