//! The ledger of all recordings in a directory: makes the removal of a whole recording evident.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use super::format::{
    ENTRY_BYTES, ENTRY_SIGNED_BYTES, Entry, EntryKind, Head, LEDGER_MAGIC, PREAMBLE_BYTES, Preamble,
};
use super::keys::{PublicKey, RecordingKey};
use super::session::{Session, Signed};
use super::storage::{Storage, StorageFile, private_options, sync_parent, write_all};
use super::verify::Problem;
use crate::session::SessionId;

/// The ledger's name in its directory.
pub(super) const LEDGER_NAME: &str = "ledger";
/// The ending of the name of what was set aside from a recording.
const UNPROVEN: &str = "unproven";
/// A ledger never grows beyond this: about 3.9 million entries, two for each session. 512 MiB; a larger one takes too long to
/// check at start.
const MAX_LEDGER_BYTES: u64 = 512 * 1024 * 1024;
/// How many notes one sync may cover. 256: more would only make the first wait.
const MAX_NOTES_PER_SYNC: usize = 256;

/// What the ledger has to learn, and who waits for it.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) kind: EntryKind,
    pub(super) session: Arc<Session>,
    pub(super) signed: Signed,
}

/// What the ledger says of one session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listed {
    /// The head of its header.
    pub(super) opened: Option<Head>,
    /// How it ended: the kind, its last signed head, and the number of records that stands for.
    pub(super) ended: Option<(EntryKind, Head, u64)>,
}

/// A ledger as read and checked.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) sessions: BTreeMap<SessionId, Listed>,
    pub(super) entries: u64,
    pub(super) head: Head,
    /// Bytes up to the end of the last good entry.
    pub(super) good_bytes: u64,
    /// Bytes of an incomplete entry after it.
    pub(super) torn_bytes: u64,
    /// Whether the expected head was passed.
    pub(super) expected: bool,
    pub(super) problem: Option<Problem>,
}

/// Reads and checks a ledger. `expect`: a head it must have had at some time.
pub(super) fn scan(path: &Path, key: &PublicKey, expect: Option<&Head>) -> io::Result<Scan> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut input = BufReader::new(file).take(MAX_LEDGER_BYTES);
    let mut preamble = [0; PREAMBLE_BYTES];
    let whole = read_whole(&mut input, &mut preamble)?;
    let head = Head::genesis(&preamble);
    let mut scan = Scan {
        sessions: BTreeMap::new(),
        entries: 0,
        head,
        good_bytes: 0,
        torn_bytes: 0,
        expected: expect.is_none_or(|expect| *expect == head),
        problem: (length > MAX_LEDGER_BYTES).then_some(Problem::LedgerTooLarge(length)),
    };
    if whole {
        scan.good_bytes = PREAMBLE_BYTES as u64;
        let known = Preamble::decode(&preamble).is_some_and(|p| p.magic == LEDGER_MAGIC);
        if known { scan.entries(&mut input, key, expect)? } else { scan.problem = Some(Problem::NotALedger) }
    }
    if scan.problem.is_none() {
        scan.torn_bytes = length.saturating_sub(scan.good_bytes);
    }
    Ok(scan)
}

impl Scan {
    fn entries(&mut self, input: &mut impl Read, key: &PublicKey, expect: Option<&Head>) -> io::Result<()> {
        let mut bytes = [0; ENTRY_BYTES];
        while read_whole(input, &mut bytes)? {
            let (signed, signature) = bytes.split_at(ENTRY_SIGNED_BYTES);
            let entry = Entry::decode(signed).filter(|entry| {
                entry.sequence == self.entries && key.proves(&entry.message(&self.head), signature)
            });
            let Some(entry) = entry else {
                self.problem = Some(Problem::LedgerEntry(self.entries));
                return Ok(());
            };
            self.note(&entry);
            self.head = self.head.after(&bytes, &[]);
            self.expected |= expect.is_some_and(|expect| *expect == self.head);
            self.entries += 1;
            self.good_bytes += ENTRY_BYTES as u64;
        }
        Ok(())
    }

    fn note(&mut self, entry: &Entry) {
        let listed = self.sessions.entry(entry.session).or_default();
        match entry.kind {
            EntryKind::Opened => listed.opened = Some(entry.head),
            kind => listed.ended = Some((kind, entry.head, entry.records)),
        }
    }
}

/// False if the input ends before `bytes` is full.
fn read_whole(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(bytes) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

/// The ledger being written.
#[derive(Debug)]
pub(super) struct Ledger {
    file: Box<dyn StorageFile>,
    key: Arc<RecordingKey>,
    entries: u64,
    bytes: u64,
    /// The head after the last durable entry, for whoever ships it off the host.
    head: Arc<Mutex<Head>>,
}

impl Ledger {
    /// Opens the directory's ledger or begins one. An incomplete last entry (a crash while writing, so nobody was told it is
    /// there) is cut off; anything else that is wrong refuses. So do recordings without a ledger: it is on disk before the
    /// first of them.
    pub(super) fn open(
        directory: &Path,
        key: Arc<RecordingKey>,
        storage: &dyn Storage,
    ) -> Result<(Self, Scan), String> {
        let path = directory.join(LEDGER_NAME);
        let at = |e: io::Error| format!("`{}`: {e}", path.display());
        if !path.try_exists().map_err(at)? {
            refuse_recordings(directory)?;
            storage.create(&path).map_err(at)?;
        }
        let scan = scan(&path, &key.public_key(), None).map_err(at)?;
        if let Some(problem) = &scan.problem {
            return Err(format!(
                "`{}`: {problem}; keep the directory as evidence and record into a new one",
                path.display()
            ));
        }
        if scan.good_bytes == 0 {
            refuse_recordings(directory)?;
        }
        if scan.torn_bytes > 0 {
            cut(&path, scan.good_bytes).map_err(at)?;
        }
        let file = storage.append_to(&path).map_err(at)?;
        let head = Arc::new(Mutex::new(scan.head));
        let mut ledger = Self { file, key, entries: scan.entries, bytes: scan.good_bytes, head };
        if scan.good_bytes == 0 {
            ledger.begin().map_err(|cause| format!("`{}`: {cause}", path.display()))?;
        }
        Ok((ledger, scan))
    }

    fn begin(&mut self) -> Result<(), String> {
        let id = crate::random::bytes().map_err(|e| e.to_string())?;
        let preamble = Preamble { magic: LEDGER_MAGIC, id, key: self.key.public_key().id() }.encode();
        self.set_head(Head::genesis(&preamble));
        self.put(&preamble)
    }

    /// The current head, shared.
    pub(super) fn head(&self) -> Arc<Mutex<Head>> {
        Arc::clone(&self.head)
    }

    fn set_head(&self, head: Head) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_LEDGER_BYTES {
            return Err(format!(
                "the ledger would exceed {MAX_LEDGER_BYTES} bytes; record into a new directory"
            ));
        }
        write_all(self.file.as_mut(), bytes).map_err(|e| e.to_string())?;
        self.file.sync().map_err(|e| e.to_string())
    }

    /// Adds entries; they are durable when this returns.
    pub(super) fn append(&mut self, facts: &[(EntryKind, SessionId, Signed)]) -> Result<(), String> {
        let mut head = *self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::with_capacity(facts.len() * ENTRY_BYTES);
        for (kind, session, Signed { head: recording, records, time }) in facts {
            let entry = Entry {
                kind: *kind,
                sequence: self.entries,
                time: *time,
                session: *session,
                records: *records,
                head: *recording,
            };
            let (signed, signature) = (entry.encode(), self.key.sign(&entry.message(&head))?);
            head = head.after(&signed, &[&signature]);
            out.extend_from_slice(&signed);
            out.extend_from_slice(&signature);
            self.entries += 1;
        }
        self.put(&out)?;
        self.set_head(head);
        Ok(())
    }

    /// The ledger thread's body: one sync for all notes that wait. After a failure every session that begins or ends fails.
    pub(super) fn run(mut self, notes: &Receiver<Note>) {
        let mut failed = None;
        while let Ok(first) = notes.recv() {
            let mut batch = vec![first];
            batch.extend(notes.try_iter().take(MAX_NOTES_PER_SYNC - 1));
            if failed.is_none() {
                let facts: Vec<_> = batch.iter().map(|n| (n.kind, n.session.id, n.signed)).collect();
                failed = self.append(&facts).err();
            }
            // The application's log is told, and may panic when it cannot be written; others wait for their answer.
            batch.iter().for_each(|note| {
                let _ = catch_unwind(AssertUnwindSafe(|| self.answer(note, failed.as_deref())));
            });
        }
    }

    fn answer(&self, note: &Note, failed: Option<&str>) {
        match (failed, note.kind) {
            (Some(cause), _) => {
                note.session.fail(&format!("the ledger: {cause}"));
            }
            (None, EntryKind::Opened) => note.session.set_listed(),
            (None, _) => {
                let ledger = *self.head.lock().unwrap_or_else(PoisonError::into_inner);
                let Signed { head, records, .. } = note.signed;
                note.session.set_closed();
                tracing::info!(session.id = %note.session.id, %head, records, %ledger, "recording sealed");
            }
        }
    }
}

/// Only a directory without recordings may begin a ledger.
fn refuse_recordings(directory: &Path) -> Result<(), String> {
    let at = |cause: &dyn std::fmt::Display| format!("`{}`: {cause}", directory.display());
    match recordings(directory).map_err(|e| at(&e))?.len() {
        0 => Ok(()),
        count => Err(at(&format_args!(
            "{count} recordings but no ledger of them: it was lost or removed; restore the file `{LEDGER_NAME}` from a \
             backup, or keep the directory as evidence and record into a new one"
        ))),
    }
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Sessions whose recordings lie in `directory`, by their file names.
pub(super) fn recordings(directory: &Path) -> io::Result<Vec<(SessionId, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if let Some(session) = super::session_of(&path) {
            found.push((session, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Moves what stands behind the first `proven` bytes into a file beside: it is no part of the recording from now on, but evidence all
/// the same. It is on disk there before it is cut off here; a start that is interrupted between the two does it again.
fn set_aside(path: &Path, proven: u64) -> io::Result<()> {
    let mut recording = File::options().read(true).write(true).open(path)?;
    let bytes = recording.metadata()?.len().saturating_sub(proven);
    if bytes == 0 {
        return Ok(());
    }
    let beside = path.with_extension(UNPROVEN);
    recording.seek(SeekFrom::Start(proven))?;
    let mut aside = private_options().create(true).open(&beside)?;
    aside.set_len(0)?;
    io::copy(&mut recording, &mut aside)?;
    aside.sync_all()?;
    sync_parent(&beside)?;
    tracing::warn!(bytes, file = %beside.display(), "the unproven end of a recording was set aside");
    recording.set_len(proven)?;
    recording.sync_all()
}

/// Settles what the last run left open, so that it cannot be cut back or added to unnoticed from now on: recordings without their
/// seal lose what is not proven of them and get an entry with what is, and a header that was durable before it was listed is listed.
pub(super) fn recover(directory: &Path, ledger: &mut Ledger, scan: &Scan) -> Result<(), String> {
    let key = ledger.key.public_key();
    let present = recordings(directory).map_err(|e| format!("`{}`: {e}", directory.display()))?;
    for (session, path) in present {
        let listed = scan.sessions.get(&session).copied().unwrap_or_default();
        if listed.ended.is_some() {
            continue;
        }
        let at = |e: io::Error| format!("`{}`: {e}", path.display());
        let verified = super::verify(&path, &key, None).map_err(at)?;
        let Some((head, until)) = verified.head.zip(verified.proven_until) else { continue };
        let signed = Signed { head, records: verified.proven_records, time: until.at };
        let genuine = verified.problems.is_empty() && verified.session == Some(session);
        let settle = || set_aside(&path, verified.proven_bytes).map_err(at);
        match (listed.opened, verified.opening) {
            (Some(_), _) if genuine => {
                settle()?;
                ledger.append(&[(EntryKind::Settled, session, signed)])?;
            }
            (None, Some(head)) if genuine && verified.proven_records == 1 => {
                settle()?;
                let opened = Signed { head, ..signed };
                ledger
                    .append(&[(EntryKind::Opened, session, opened), (EntryKind::Settled, session, signed)])?;
            }
            _ => tracing::error!(session.id = %session, "recording cannot be accounted for; run verify"),
        }
    }
    Ok(())
}
