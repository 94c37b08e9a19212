//! One file that is synced for all sessions together: N sessions that wait for the disk share one sync.
//!
//! What a session commits is written to its own file and, if it is little, to the journal too; once the journal is synced it is durable.
//! The session's own file is synced later, with what nobody waits for. After a crash of the machine the next start writes what the
//! journal has back to where it belongs. The journal proves nothing: what is written back stands under its recording's chain and
//! signatures as if it had never been lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use super::ledger::read_whole;
use super::session::Session;
use super::storage::{Storage, StorageFile, sync_parent, write_all};
use crate::session::SessionId;

/// What the names of journals begin with; a number follows.
const NAME: &str = "journal-";
/// How a journal begins.
const MAGIC: &[u8; 16] = b"gateway journal1";
/// Most bytes of one entry. 64 KiB: who commits more waits for a disk that is busy anyway, and syncs its own file.
pub(super) const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// Entries that share one sync. 256: more than commit while a disk syncs.
const MAX_ENTRIES_PER_SYNC: usize = 256;
/// Entries that may wait before writers wait. 1024: 64 MiB at most, and usually less than one.
pub(super) const MAX_WAITING_ENTRIES: usize = 1024;
/// A new journal is begun once one has so many bytes. 4 MiB: some seconds of many small commits.
const JOURNAL_BYTES: u64 = 4 * 1024 * 1024;
/// Journals that are kept because some session's own file is not synced. 8: sessions are synced four times a second, so more means that
/// they fail, and then each syncs for itself.
const MAX_JOURNALS: usize = 8;

/// Session, offset and length stand before an entry's bytes.
const ENTRY_HEAD_BYTES: usize = 16 + 8 + 4;
/// Its BLAKE3 hash stands after them.
const ENTRY_HASH_BYTES: usize = 32;

/// What one session committed.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: Arc<Session>,
    /// Where it stands in the session's file.
    pub(super) offset: u64,
    /// At most [`MAX_ENTRY_BYTES`].
    pub(super) bytes: Vec<u8>,
    /// Positions below this are durable with it.
    pub(super) until: u64,
}

/// How many bytes of a session's own file are synced.
pub(super) type Settled = Arc<AtomicU64>;

impl Entry {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.session.id.as_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.bytes);
        let hash = blake3::hash(out.get(start..).unwrap_or_default());
        out.extend_from_slice(hash.as_bytes());
    }
}

/// Where writers hand in what they commit.
#[derive(Debug)]
pub(super) struct Inbox {
    entries: SyncSender<Entry>,
    open: Arc<AtomicBool>,
}

impl Inbox {
    /// Whether the journal takes entries; if not, sessions sync their own files.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Has it synced, with what others hand in; the session is told.
    pub(super) fn commit(&self, entry: Entry) -> Result<(), String> {
        self.entries.send(entry).map_err(|_| "the journal has stopped".to_owned())
    }
}

/// The journal being written, and those before it that may still be needed.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    storage: Arc<dyn Storage>,
    open: Arc<AtomicBool>,
    current: Option<(Box<dyn StorageFile>, Kept)>,
    kept: Vec<Kept>,
    next: u64,
}

/// A journal's file, and how far the sessions in it have to be synced before it may go.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    bytes: u64,
    needs: BTreeMap<SessionId, (Settled, u64)>,
}

impl Kept {
    fn is_needed(&self) -> bool {
        self.needs.values().any(|(settled, end)| settled.load(Ordering::Acquire) < *end)
    }
}

impl Journal {
    pub(super) fn new(directory: &Path, storage: Arc<dyn Storage>) -> Self {
        let open = Arc::new(AtomicBool::new(true));
        Self { directory: directory.to_owned(), storage, open, current: None, kept: Vec::new(), next: 0 }
    }

    pub(super) fn inbox(&self, entries: SyncSender<Entry>) -> Inbox {
        Inbox { entries, open: Arc::clone(&self.open) }
    }

    /// The journal thread's body: one sync for all entries that wait. After a failure every session that commits here fails.
    pub(super) fn run(mut self, entries: &Receiver<Entry>) {
        let mut failed = None;
        let mut out = Vec::new();
        while let Ok(first) = entries.recv() {
            let mut batch = vec![first];
            batch.extend(entries.try_iter().take(MAX_ENTRIES_PER_SYNC - 1));
            if failed.is_none() {
                failed = self.append(&batch, &mut out).err();
                if failed.is_some() {
                    self.open.store(false, Ordering::Release);
                }
            }
            for entry in batch {
                // The application's log is told, and may panic when it cannot be written; others wait for their answer.
                let _ = catch_unwind(AssertUnwindSafe(|| match &failed {
                    None => entry.session.synced(entry.until),
                    Some(cause) => drop(entry.session.fail(&format!("the journal: {cause}"))),
                }));
            }
        }
        self.kept.extend(self.current.take().map(|(_, kept)| kept));
        self.discard();
    }

    /// Writes entries and syncs them.
    fn append(&mut self, batch: &[Entry], out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        batch.iter().for_each(|entry| entry.encode(out));
        let (file, kept) = match &mut self.current {
            Some(current) if current.1.bytes < JOURNAL_BYTES => current,
            _ => self.begin()?,
        };
        write_all(file.as_mut(), out).and_then(|()| file.sync()).map_err(|e| e.to_string())?;
        kept.bytes += out.len() as u64;
        for entry in batch {
            let needed = kept.needs.entry(entry.session.id);
            let (_, end) = needed.or_insert_with(|| (Arc::clone(&entry.session.settled), 0));
            *end = entry.end().max(*end);
        }
        Ok(())
    }

    /// Begins the next journal, and lets go of those that are not needed any more.
    fn begin(&mut self) -> Result<&mut (Box<dyn StorageFile>, Kept), String> {
        self.kept.extend(self.current.take().map(|(_, kept)| kept));
        self.discard();
        self.open.store(self.kept.len() < MAX_JOURNALS, Ordering::Release);
        let path = self.directory.join(format!("{NAME}{}", self.next));
        self.next += 1;
        let at = |e: io::Error| format!("`{}`: {e}", path.display());
        let mut file = self.storage.create(&path).map_err(at)?;
        write_all(file.as_mut(), MAGIC).map_err(at)?;
        Ok(self.current.insert((file, Kept { path, bytes: MAGIC.len() as u64, needs: BTreeMap::new() })))
    }

    /// Removes what every session has in its own file by now. What cannot be removed does no harm: it says what is there already.
    fn discard(&mut self) {
        self.kept.retain(|kept| kept.is_needed() || std::fs::remove_file(&kept.path).is_err());
    }
}

/// Writes back what sessions committed and a crash of the machine kept from their own files, then removes the journals.
///
/// # Errors
/// A file cannot be read, written or synced: what was promised would be lost.
pub(super) fn recover(directory: &Path) -> io::Result<()> {
    let journals = journals(directory)?;
    let mut touched = BTreeSet::new();
    for path in &journals {
        replay(path, directory, &mut touched)?;
    }
    for path in &touched {
        File::open(path)?.sync_all()?;
    }
    journals.iter().try_for_each(std::fs::remove_file)?;
    journals.first().map_or(Ok(()), |any| sync_parent(any))
}

/// In the order in which they were written.
fn journals(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(NAME)?.parse::<u64>().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    Ok(found.into_values().collect())
}

fn replay(path: &Path, directory: &Path, touched: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut input = BufReader::new(File::open(path)?);
    let mut magic = [0; MAGIC.len()];
    if !read_whole(&mut input, &mut magic)? || magic != *MAGIC {
        return Ok(());
    }
    // What is incomplete was promised to nobody.
    while let Some((session, offset, bytes)) = read_entry(&mut input)? {
        let target = directory.join(super::file_name(session));
        if !target.try_exists()? {
            tracing::warn!(session.id = %session, "the journal has records of a recording that is not there");
        } else if restore(&target, offset, &bytes)? {
            touched.insert(target);
        }
    }
    Ok(())
}

/// Writes `bytes` where they belong, unless they stand there. Says whether it wrote.
fn restore(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() < offset {
        tracing::error!(path = %path.display(), "records before those in the journal are missing; run verify");
        return Ok(false);
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut present = Vec::with_capacity(bytes.len());
    (&mut file).take(bytes.len() as u64).read_to_end(&mut present)?;
    if present == bytes {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)?;
    Ok(true)
}

/// The next entry; `None` at the end, or where one is incomplete.
fn read_entry(input: &mut impl Read) -> io::Result<Option<(SessionId, u64, Vec<u8>)>> {
    let mut head = [0; ENTRY_HEAD_BYTES];
    if !read_whole(input, &mut head)? {
        return Ok(None);
    }
    let (session, rest) = head.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    let (offset, length) = rest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let length = length.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
    if length > MAX_ENTRY_BYTES {
        return Ok(None);
    }
    let mut rest = vec![0; length + ENTRY_HASH_BYTES];
    if !read_whole(input, &mut rest)? {
        return Ok(None);
    }
    let hash = rest.split_off(length);
    let expected = blake3::Hasher::new().update(&head).update(&rest).finalize();
    let entry = (SessionId::from_bytes(*session), u64::from_le_bytes(*offset), rest);
    Ok((expected.as_bytes().as_slice() == hash).then_some(entry))
}
