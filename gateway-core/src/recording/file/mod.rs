//! Recordings as files: compressed, chained, signed while they are written.
//!
//! One file per session and one ledger of all sessions in a directory; `docs/recording-format.md` has every byte and says
//! what [`verify`] proves and what it does not. The pipeline's thread only queues; threads of the recorder encode,
//! compress, sign, write and sync.

mod blocks;
mod compact;
mod format;
mod frames;
mod json;
mod keys;
mod ledger;
mod raw;
mod reader;
mod session;
mod storage;
mod verify;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;

pub use format::{BadHead, Head, MAX_BLOCK_BYTES, MAX_RECORD_BYTES};
pub use json::{RecordJson, header_json, record_json};
pub use keys::{KeyError, KeyId, PublicKey, RecordingKey};
pub use reader::{End, NoHeader, ReadRecord, RecordingReader};
pub use storage::{FileSystem, Storage, StorageFile};
pub use verify::{
    DirectoryVerification, Problem, Proven, Verification, verify, verify_bytes, verify_directory,
};

use super::{Header, Position, Record, RecordError, Recorder, SessionRecorder};
use crate::clock::Timestamp;
use crate::session::{CloseReason, SessionId};
use blocks::Scratch;
use format::Item;
use ledger::Ledger;
use session::{Session, Total, Urgency};
use writer::{Context, Writer};

/// The ending of a recording's file name.
const EXTENSION: &str = "rec";
/// The file that one recorder holds locked while it writes to its directory.
const LOCK_NAME: &str = "lock";
/// No more writer threads than this make sense: they wait for one disk. 64.
const MAX_WRITERS: usize = 64;
/// How many notes may wait for the ledger before writers wait. 1024: more sessions than begin during one sync.
const MAX_LEDGER_NOTES: usize = 1024;

/// How much may wait to be written. "Room" limits are what [`SessionRecorder::ready`] waits for; exceeding one of the others
/// fails the session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLimits {
    /// A session's queue is written at once, without waiting for the tick, from this many bytes on. 256 KiB: one block.
    pub write_bytes: usize,
    /// A session has room below this many bytes. 1 MiB: a few blocks.
    pub session_room_bytes: usize,
    /// A session may never have more bytes than this. 32 MiB: two of the largest records.
    pub session_bytes: usize,
    /// A session may never have more records than this. 65,536: small ones cost more than their bytes.
    pub session_records: usize,
    /// There is room for everybody below this many bytes over all sessions. 64 MiB.
    pub total_room_bytes: usize,
    /// All sessions together may never have more bytes than this. 256 MiB.
    pub total_bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            write_bytes: 256 * 1024,
            session_room_bytes: 1024 * 1024,
            session_bytes: 32 * 1024 * 1024,
            session_records: 65_536,
            total_room_bytes: 64 * 1024 * 1024,
            total_bytes: 256 * 1024 * 1024,
        }
    }
}

/// How a [`FileRecorder`] works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileOptions {
    /// Every record is committed at once, and [`SessionRecorder::strict`] tells the pipeline to wait for it. Default: off.
    pub strict: bool,
    /// How many threads write; as many sessions can sync at the same time. Default: 8: file systems commit together what is synced
    /// at the same time, and threads that wait cost nothing. At least 1, at most 64.
    pub writers: usize,
    /// The zstd level. Default: 1; negative levels are faster and pack less.
    pub level: i32,
    /// Compress also what a session records faster than it can be left for the next tick (more than [`QueueLimits::write_bytes`] in
    /// 70 ms: large results). Default: off, because compressing costs more than everything else that is done to such bytes.
    pub always_compress: bool,
    /// How much may wait.
    pub limits: QueueLimits,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { strict: false, writers: 8, level: 1, always_compress: false, limits: QueueLimits::default() }
    }
}

/// Records into a directory, one file per session. Cheap to clone.
///
/// Sessions that are dropped without [`close`](SessionRecorder::close) stay unsealed; the next recorder of the directory
/// notes in the ledger how far they are proven. Dropping the last clone and the last session waits until what was accepted is
/// written.
#[derive(Clone)]
pub struct FileRecorder(Arc<Inner>);

impl fmt::Debug for FileRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRecorder").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

struct Inner {
    directory: PathBuf,
    key: Arc<RecordingKey>,
    options: FileOptions,
    total: Arc<Total>,
    writers: Vec<Arc<Writer>>,
    next_writer: AtomicUsize,
    ledger_head: Arc<Mutex<Head>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held as long as this recorder may write.
    _lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writers.iter().for_each(|writer| writer.stop());
        // Writers first: the ledger thread ends when the last of them has.
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

impl FileRecorder {
    /// Records into `directory`, which is created if need be. Settles what a crash left there. Blocks; call it at start.
    ///
    /// # Errors
    /// The directory cannot be used, another recorder uses it, its ledger is damaged or of another key, or it has recordings
    /// but no ledger: one begun anew would vouch for what may have been removed.
    pub fn open(directory: &Path, key: RecordingKey, options: FileOptions) -> Result<Self, RecordError> {
        Self::open_with(directory, key, options, Arc::new(FileSystem))
    }

    /// As [`open`](Self::open), with other means to write.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        directory: &Path,
        key: RecordingKey,
        options: FileOptions,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, RecordError> {
        let at = |e: std::io::Error| RecordError(format!("`{}`: {e}", directory.display()));
        create_private(directory).map_err(at)?;
        let lock = lock(directory)?;
        let key = Arc::new(key);
        let (mut ledger, scan) =
            Ledger::open(directory, Arc::clone(&key), storage.as_ref()).map_err(RecordError)?;
        ledger::recover(directory, &mut ledger, &scan).map_err(RecordError)?;
        let ledger_head = ledger.head();
        let count = options.writers.clamp(1, MAX_WRITERS);
        let inner = Inner {
            directory: directory.to_owned(),
            key,
            options,
            total: Arc::default(),
            writers: (0..count).map(|_| Arc::default()).collect(),
            next_writer: AtomicUsize::new(0),
            ledger_head,
            threads: Mutex::default(),
            _lock: lock,
        };
        inner.start(ledger, storage).map_err(|e| RecordError(format!("no writer thread: {e}")))?;
        Ok(Self(Arc::new(inner)))
    }

    /// The public half of the signing key, to be kept by whoever verifies.
    pub fn public_key(&self) -> PublicKey {
        self.0.key.public_key()
    }

    /// The ledger's current head. Noted off this host, it proves later that nothing before it was removed.
    pub fn ledger_head(&self) -> Head {
        *self.0.ledger_head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the recording of `session` lies, or would.
    pub fn path(&self, session: SessionId) -> PathBuf {
        self.0.directory.join(file_name(session))
    }
}

impl Inner {
    fn start(&self, ledger: Ledger, storage: Arc<dyn Storage>) -> std::io::Result<()> {
        let (notes, received) = sync_channel(MAX_LEDGER_NOTES);
        let context = Arc::new(Context {
            directory: self.directory.clone(),
            key: Arc::clone(&self.key),
            storage,
            ledger: notes,
            always_compress: self.options.always_compress,
        });
        for writer in &self.writers {
            let (writer, context) = (Arc::clone(writer), Arc::clone(&context));
            let mut scratch = Scratch::new(self.options.level)?;
            self.spawn("recording", move || writer.run(&context, &mut scratch))?;
        }
        self.spawn("recording-ledger", move || ledger.run(&received))
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

#[async_trait]
impl Recorder for FileRecorder {
    async fn open(&self, header: Header) -> Result<Arc<dyn SessionRecorder>, RecordError> {
        let (id, at) = (header.session, header.started);
        let inner = &self.0;
        let (limits, total) = (inner.options.limits.clone(), Arc::clone(&inner.total));
        let header = Item::Header(Box::new(header));
        let session = Arc::new(Session::new(id, limits, total, at, &header).map_err(RecordError)?);
        let turn = inner.next_writer.fetch_add(1, Ordering::Relaxed);
        let Some(writer) = inner.writers.get(turn % inner.writers.len().max(1)) else {
            return Err(RecordError("there is no writer thread".to_owned()));
        };
        let handle = FileSession { session, writer: Arc::clone(writer), recorder: Arc::clone(inner) };
        handle.commit();
        handle.session.listed().await?;
        Ok(Arc::new(handle))
    }
}

/// The pipeline's handle to one recording.
struct FileSession {
    session: Arc<Session>,
    writer: Arc<Writer>,
    recorder: Arc<Inner>,
}

impl fmt::Debug for FileSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSession").field("session", &self.session.id).finish_non_exhaustive()
    }
}

impl FileSession {
    fn push(&self, at: Timestamp, record: Record, last: bool) -> Result<Position, RecordError> {
        let (position, news) = self.session.push(at, record, last, self.strict())?;
        self.tell(news);
        Ok(Position(position))
    }

    fn commit(&self) {
        self.tell(self.session.want_commit());
    }

    fn tell(&self, news: Option<Urgency>) {
        if let Some(urgency) = news {
            self.writer.schedule(&self.session, urgency);
        }
    }
}

#[async_trait]
impl SessionRecorder for FileSession {
    fn append(&self, at: Timestamp, record: Record) -> Result<Position, RecordError> {
        self.push(at, record, false)
    }

    async fn durable(&self, position: Position) -> Result<(), RecordError> {
        self.session.durable(position.0, || self.commit()).await
    }

    async fn ready(&self) -> Result<(), RecordError> {
        self.session.room().await
    }

    fn has_room(&self) -> bool {
        self.session.has_room()
    }

    fn strict(&self) -> bool {
        self.recorder.options.strict
    }

    async fn close(&self, at: Timestamp, reason: CloseReason) -> Result<(), RecordError> {
        self.push(at, Record::Closed { reason }, true)?;
        self.session.closed().await
    }
}

fn file_name(session: SessionId) -> String {
    format!("{session}.{EXTENSION}")
}

/// The session whose recording the file is, by its name.
fn session_of(path: &Path) -> Option<SessionId> {
    let stem = path.file_stem()?.to_str()?;
    (path.extension()? == EXTENSION).then(|| stem.parse().ok()).flatten()
}

/// Sessions with a recording in `directory`, and its path. In order of session id. For lists; proves nothing.
///
/// # Errors
/// The directory cannot be read.
pub fn recordings(directory: &Path) -> std::io::Result<Vec<(SessionId, PathBuf)>> {
    ledger::recordings(directory)
}

/// Makes the directory and those above it that are missing, so that their names survive a crash of the machine.
fn create_private(directory: &Path) -> std::io::Result<()> {
    let missing: Vec<_> =
        directory.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    missing.into_iter().try_for_each(storage::sync_parent)
}

fn lock(directory: &Path) -> Result<File, RecordError> {
    let path = directory.join(LOCK_NAME);
    let at = |cause: &dyn fmt::Display| RecordError(format!("`{}`: {cause}", path.display()));
    let file = storage::private_options().create(true).open(&path).map_err(|e| at(&e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(at(&"another gateway records into this directory; give each its own"))
        }
        Err(std::fs::TryLockError::Error(e)) => Err(at(&e)),
    }
}
