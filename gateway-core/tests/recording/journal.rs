//! Sessions that commit share syncs: what was promised survives a crash of the machine that took everything unsynced.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gateway_core::recording::file::{
    FileOptions, FileRecorder, FileSystem, RecordingKey, Storage, StorageFile, verify, verify_directory,
};
use gateway_core::recording::{Recorder, SessionRecorder};

use crate::common::{at, completed, header, key, released, run, run_and_close, session};

/// How much of each file survives a crash. Of recordings only what their first sync covers, as if it came before their later ones.
#[derive(Debug, Default)]
struct Machine {
    synced: Mutex<HashMap<PathBuf, u64>>,
    journal_fails: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Unreliable(Arc<Machine>);

#[derive(Debug)]
struct Handle {
    file: Box<dyn StorageFile>,
    path: PathBuf,
    length: u64,
    machine: Arc<Machine>,
}

impl Unreliable {
    fn handle(&self, path: &Path, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        let length = std::fs::metadata(path).map_or(0, |meta| meta.len());
        Box::new(Handle { file, path: path.to_owned(), length, machine: Arc::clone(&self.0) })
    }

    /// The directory as it is after the crash.
    fn crash(&self, directory: &Path) -> tempfile::TempDir {
        let after = tempfile::tempdir().unwrap();
        let synced = self.0.synced.lock().unwrap();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let copy = after.path().join(path.file_name().unwrap());
            let length = std::fs::copy(&path, &copy).unwrap();
            let kept = synced.get(&path).copied().unwrap_or(length);
            std::fs::File::options().write(true).open(&copy).unwrap().set_len(kept).unwrap();
        }
        after
    }
}

impl Storage for Unreliable {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = FileSystem.create(path)?;
        self.0.synced.lock().unwrap().insert(path.to_owned(), 0);
        Ok(self.handle(path, file))
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.handle(path, FileSystem.append_to(path)?))
    }
}

fn is_journal(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-"))
}

impl StorageFile for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.length += n as u64;
        Ok(n)
    }

    fn sync(&mut self) -> io::Result<()> {
        if is_journal(&self.path) && self.machine.journal_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("medium error"));
        }
        self.file.sync()?;
        let mut synced = self.machine.synced.lock().unwrap();
        let known = synced.entry(self.path.clone()).or_default();
        if *known == 0 || self.path.extension().is_none_or(|ending| ending != "rec") {
            *known = self.length;
        }
        Ok(())
    }
}

fn open(directory: &Path, key: RecordingKey, storage: &Unreliable) -> FileRecorder {
    FileRecorder::open_with(directory, key, FileOptions::default(), Arc::new(storage.clone())).unwrap()
}

fn journals(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().filter(|entry| is_journal(&entry.as_ref().unwrap().path())).count()
}

/// Two records for each commit, the last of them at this position.
const COMMITS: u64 = 7;
const SESSIONS: u8 = 8;

async fn run_all(recorder: &FileRecorder) -> Vec<Arc<dyn SessionRecorder>> {
    let mut running = tokio::task::JoinSet::new();
    for n in 1..=SESSIONS {
        let recorder = recorder.clone();
        running.spawn(async move { run(&recorder, n, COMMITS).await });
    }
    running.join_all().await
}

#[tokio::test]
async fn what_was_promised_survives_a_crash_that_took_what_the_sessions_files_had_not_synced() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Unreliable::default();
    let recorder = open(dir.path(), key(dir.path()), &storage);
    let open_sessions = run_all(&recorder).await;
    let after = storage.crash(dir.path());
    let public = recorder.public_key();
    let path = |n| after.path().join(recorder.path(session(n)).file_name().unwrap());
    for n in 1..=SESSIONS {
        let found = verify(&path(n), &public, None).unwrap();
        assert_eq!(found.proven_records, 1, "the crash took everything after the header");
    }
    drop(FileRecorder::open(after.path(), key(after.path()), FileOptions::default()).unwrap());
    for n in 1..=SESSIONS {
        let found = verify(&path(n), &public, None).unwrap();
        assert_eq!((found.proven_records, found.problems.len()), (2 * COMMITS + 1, 0));
    }
    assert!(verify_directory(after.path(), &public, None).unwrap().is_sound());
    assert_eq!(journals(after.path()), 0);
    drop(open_sessions);
}

/// A crash in the middle of writing an entry: it was promised to nobody, what stands before it was.
#[tokio::test]
async fn a_journal_that_was_cut_is_used_up_to_there() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Unreliable::default();
    let recorder = open(dir.path(), key(dir.path()), &storage);
    let open_session = run(&recorder, 1, COMMITS).await;
    let after = storage.crash(dir.path());
    let public = recorder.public_key();
    let journal = after.path().join("journal-0");
    let whole = std::fs::read(&journal).unwrap();
    let recording = after.path().join(recorder.path(session(1)).file_name().unwrap());
    let header = std::fs::read(&recording).unwrap();
    let mut proven = Vec::new();
    for cut in (0..=whole.len()).step_by(13).chain([whole.len()]) {
        std::fs::write(&journal, &whole[..cut]).unwrap();
        std::fs::write(&recording, &header).unwrap();
        drop(FileRecorder::open(after.path(), key(after.path()), FileOptions::default()).unwrap());
        let found = verify(&recording, &public, None).unwrap();
        assert_eq!((found.problems.len(), found.torn_bytes), (0, 0), "{found:?}");
        proven.push(found.proven_records);
        // The ledger has noted how far it was proven; the next cut begins anew.
        std::fs::copy(dir.path().join("ledger"), after.path().join("ledger")).unwrap();
    }
    assert!(proven.is_sorted());
    assert_eq!((proven.first(), proven.last()), (Some(&1), Some(&(2 * COMMITS + 1))));
    drop(open_session);
}

#[tokio::test]
async fn a_journal_with_changed_bytes_changes_no_recording() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Unreliable::default();
    let recorder = open(dir.path(), key(dir.path()), &storage);
    let open_session = run(&recorder, 1, 1).await;
    let after = storage.crash(dir.path());
    let public = recorder.public_key();
    let journal = after.path().join("journal-0");
    let whole = std::fs::read(&journal).unwrap();
    let recording = after.path().join(recorder.path(session(1)).file_name().unwrap());
    let header = std::fs::read(&recording).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&journal, &changed).unwrap();
        drop(FileRecorder::open(after.path(), key(after.path()), FileOptions::default()).unwrap());
        assert!(std::fs::read(&recording).unwrap() == header, "byte {at}");
        std::fs::copy(dir.path().join("ledger"), after.path().join("ledger")).unwrap();
    }
    assert!(verify(&recording, &public, None).unwrap().problems.is_empty());
    drop(open_session);
}

#[tokio::test]
async fn nothing_is_left_of_journals_when_a_recorder_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = open(dir.path(), key(dir.path()), &Unreliable::default());
    run_and_close(&recorder, 1, COMMITS).await;
    let open_session = run(&recorder, 2, COMMITS).await;
    assert_eq!(journals(dir.path()), 1);
    drop(open_session);
    drop(recorder);
    assert_eq!(journals(dir.path()), 0);
}

/// What is committed needs no more journals than a few, however much it is.
#[tokio::test]
async fn journals_that_are_not_needed_go() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = open(dir.path(), key(dir.path()), &Unreliable::default());
    let open = recorder.open(header(1)).await.unwrap();
    let mut noise = 1_u64;
    let mut made = 0;
    for n in 0..600 {
        // Does not shrink when it is compressed.
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        })
        .take(32 * 1024)
        .collect();
        let position = open.append(at(n), released(n, payload)).unwrap();
        open.durable(position).await.unwrap();
        made = made.max(journals(dir.path()));
    }
    assert!((1..=8).contains(&made), "{made}");
    drop(open);
    drop(recorder);
    assert_eq!(journals(dir.path()), 0);
}

#[tokio::test]
async fn a_journal_that_fails_promises_nothing_and_others_sync_for_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Unreliable::default();
    let recorder = open(dir.path(), key(dir.path()), &storage);
    let (failing, other) = (run(&recorder, 1, 1).await, run(&recorder, 2, 1).await);
    storage.0.journal_fails.store(true, Ordering::SeqCst);
    let position = failing.append(at(3), completed(3)).unwrap();
    let error = failing.durable(position).await.unwrap_err().to_string();
    assert!(error.contains("the journal: medium error"), "{error}");
    assert!(failing.append(at(4), completed(4)).is_err());
    let position = other.append(at(3), completed(3)).unwrap();
    other.durable(position).await.unwrap();
    drop((failing, other));
    let (first, public) = (recorder.path(session(1)), recorder.public_key());
    drop(recorder);
    let found = verify(&first, &public, None).unwrap();
    assert!(found.proven_records >= 3 && found.problems.is_empty(), "{found:?}");
}
