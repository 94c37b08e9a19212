//! Disks that fail: nothing may pass, and what is there stays provable.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway_core::recording::file::{
    FileOptions, FileRecorder, FileSystem, RecordingKey, Storage, StorageFile, verify, verify_directory,
};
use gateway_core::recording::{Recorder, SessionRecorder};
use gateway_core::session::CloseReason;

use crate::common::{at, completed, header, released, session};

/// A disk with room for so many bytes, that fails so many syncs from now, and writes so few bytes at a time.
#[derive(Debug)]
struct Disk {
    room: AtomicU64,
    syncs: AtomicU64,
    piece: usize,
    /// Only recordings are hit, not the ledger.
    spare_ledger: bool,
}

impl Disk {
    fn new(room: u64, syncs: u64, piece: usize) -> Arc<Self> {
        Arc::new(Self { room: room.into(), syncs: syncs.into(), piece, spare_ledger: true })
    }
}

#[derive(Debug)]
struct Handle {
    file: Box<dyn StorageFile>,
    disk: Option<Arc<Disk>>,
}

#[derive(Debug)]
struct Faulty(Arc<Disk>);

impl Faulty {
    fn handle(&self, path: &Path, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        let spared = self.0.spare_ledger && path.file_name().is_some_and(|name| name == "ledger");
        Box::new(Handle { file, disk: (!spared).then(|| Arc::clone(&self.0)) })
    }
}

impl Storage for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.handle(path, FileSystem.create(path)?))
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.handle(path, FileSystem.append_to(path)?))
    }
}

impl StorageFile for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(disk) = &self.disk else { return self.file.write(bytes) };
        let room = disk.room.load(Ordering::SeqCst) as usize;
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let n = bytes.len().min(disk.piece).min(room);
        disk.room.fetch_sub(n as u64, Ordering::SeqCst);
        self.file.write(&bytes[..n])
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(disk) = &self.disk else { return self.file.sync() };
        if disk.syncs.load(Ordering::SeqCst) == 0 {
            return Err(io::Error::other("medium error"));
        }
        disk.syncs.fetch_sub(1, Ordering::SeqCst);
        self.file.sync()
    }
}

fn open(dir: &Path, disk: &Arc<Disk>) -> FileRecorder {
    let key = RecordingKey::generate().unwrap();
    FileRecorder::open_with(dir, key, FileOptions::default(), Arc::new(Faulty(Arc::clone(disk)))).unwrap()
}

/// After the first error every call fails, and with the same cause.
async fn assert_poisoned(open: &dyn SessionRecorder, cause: &str) {
    let errors = [
        open.append(at(1), completed(1)).map(|_| ()),
        open.durable(gateway_core::recording::Position(0)).await,
        open.ready().await,
        open.close(at(2), CloseReason::RecorderFailed).await,
    ];
    for error in errors {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(cause), "{error}");
    }
    assert!(!open.has_room());
}

#[tokio::test]
async fn short_writes_are_completed() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = open(dir.path(), &Disk::new(u64::MAX, u64::MAX, 7));
    crate::common::run_and_close(&recorder, 1, 3).await;
    assert!(verify(&recorder.path(session(1)), &recorder.public_key(), None).unwrap().is_intact());
}

#[tokio::test]
async fn a_disk_full_at_any_byte_refuses_and_what_was_promised_is_there() {
    for room in (0..3000).step_by(97) {
        let dir = tempfile::tempdir().unwrap();
        let recorder = open(dir.path(), &Disk::new(room, u64::MAX, 64));
        let Ok(open) = recorder.open(header(1)).await else {
            assert!(room < 1000, "the header alone takes less");
            assert!(verify_directory(dir.path(), &recorder.public_key(), None).unwrap().is_sound());
            continue;
        };
        let mut durable = 0;
        let error = loop {
            let appended = open.append(at(durable), released(durable, format!("{durable}").repeat(100)));
            match appended {
                Err(error) => break error,
                Ok(position) => match open.durable(position).await {
                    Ok(()) => durable = position.0,
                    Err(error) => break error,
                },
            }
            assert!(durable < 100);
        };
        assert!(error.to_string().contains("storage space"), "{error}");
        assert_poisoned(open.as_ref(), "storage space").await;
        let found = verify(&recorder.path(session(1)), &recorder.public_key(), None).unwrap();
        assert_eq!((found.proven_records, found.problems.len()), (durable + 1, 0), "room {room}");
        assert_eq!(found.sealed, None);
    }
}

#[tokio::test]
async fn a_failed_sync_promises_nothing_and_is_never_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(u64::MAX, 2, usize::MAX);
    let recorder = open(dir.path(), &disk);
    let open = recorder.open(header(1)).await.unwrap();
    let first = open.append(at(1), completed(1)).unwrap();
    open.durable(first).await.unwrap();
    let second = open.append(at(2), completed(2)).unwrap();
    let error = open.durable(second).await.unwrap_err();
    assert!(error.to_string().contains("medium error"), "{error}");
    disk.syncs.store(100, Ordering::SeqCst);
    assert_poisoned(open.as_ref(), "medium error").await;
    let other = recorder.open(header(2)).await.unwrap();
    other.close(at(3), CloseReason::Downstream).await.unwrap();
}

#[tokio::test]
async fn a_failed_tick_poisons_though_nobody_waited() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(u64::MAX, u64::MAX, usize::MAX);
    let recorder = open(dir.path(), &disk);
    let open = recorder.open(header(1)).await.unwrap();
    disk.room.store(0, Ordering::SeqCst);
    // Waiting for room keeps the queue from being full before the writer gets a turn at the disk.
    while open.append(at(1), completed(1)).is_ok() && open.ready().await.is_ok() {}
    assert_poisoned(open.as_ref(), "storage space").await;
}

#[tokio::test]
async fn a_failed_sync_poisons_though_nobody_waited() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(u64::MAX, u64::MAX, usize::MAX);
    let recorder = open(dir.path(), &disk);
    let open = recorder.open(header(1)).await.unwrap();
    disk.syncs.store(1, Ordering::SeqCst);
    let mut records = 0;
    // What nobody waits for is synced all the same: the first sync passes, the second does not.
    while open.append(at(1), completed(1)).is_ok() {
        records += 1;
        open.ready().await.ok();
        tokio::task::yield_now().await;
        assert!(records < 100_000_000);
    }
    assert_eq!(disk.syncs.load(Ordering::SeqCst), 0);
    assert_poisoned(open.as_ref(), "medium error").await;
}

#[tokio::test]
async fn many_small_records_take_room_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = FileOptions::default();
    options.limits.session_records = 64;
    let recorder = FileRecorder::open(dir.path(), RecordingKey::generate().unwrap(), options).unwrap();
    let open = recorder.open(header(1)).await.unwrap();
    for n in 0..1000 {
        open.ready().await.unwrap();
        open.append(at(n), completed(n)).unwrap();
    }
    open.close(at(1000), CloseReason::Downstream).await.unwrap();
    let (path, key) = (recorder.path(session(1)), recorder.public_key());
    assert_eq!(verify(&path, &key, None).unwrap().proven_records, 1002);
}

#[tokio::test]
async fn a_failed_ledger_refuses_new_sessions_and_seals() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk {
        room: u64::MAX.into(),
        syncs: u64::MAX.into(),
        piece: usize::MAX,
        spare_ledger: false,
    });
    let recorder = open(dir.path(), &disk);
    let open = recorder.open(header(1)).await.unwrap();
    disk.syncs.store(1, Ordering::SeqCst);
    // The recording's own sync passes, the ledger's does not.
    let error = open.close(at(1), CloseReason::Downstream).await.unwrap_err().to_string();
    assert!(error.contains("ledger: medium error"), "{error}");
    disk.syncs.store(100, Ordering::SeqCst);
    let error = recorder.open(header(2)).await.unwrap_err().to_string();
    assert!(error.contains("ledger: medium error"), "{error}");
}

#[tokio::test]
async fn a_full_queue_fails_the_session_but_keeps_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = FileOptions::default();
    options.limits.session_bytes = 100_000;
    options.limits.session_room_bytes = 50_000;
    // Nothing is written before the tick.
    options.limits.write_bytes = usize::MAX;
    let recorder = FileRecorder::open(dir.path(), RecordingKey::generate().unwrap(), options).unwrap();
    let open = recorder.open(header(1)).await.unwrap();
    let mut accepted = 0;
    let mut room = true;
    // No await in between: the queue fills faster than any disk.
    let error = loop {
        match open.append(at(accepted), released(accepted, vec![7; 20_000])) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        room &= open.has_room();
    };
    assert!(!room, "the soft limit came first");
    assert!(error.to_string().contains("wait to be written"), "{error}");
    assert_poisoned(open.as_ref(), "wait to be written").await;
    drop(open);
    let (path, key) = (recorder.path(session(1)), recorder.public_key());
    drop(recorder);
    let found = verify(&path, &key, None).unwrap();
    assert_eq!((found.proven_records, found.problems.len()), (accepted + 1, 0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn dev_full_refuses_the_session() {
    /// The recordings' bytes go to the device that is always full.
    #[derive(Debug)]
    struct Full;

    impl Storage for Full {
        fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
            let file = FileSystem.create(path)?;
            let ledger = path.file_name().is_some_and(|name| name == "ledger");
            if ledger { Ok(file) } else { FileSystem.append_to(Path::new("/dev/full")) }
        }

        fn append_to(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
            FileSystem.append_to(path)
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let key = RecordingKey::generate().unwrap();
    let recorder = FileRecorder::open_with(dir.path(), key, FileOptions::default(), Arc::new(Full)).unwrap();
    let error = recorder.open(header(1)).await.unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
}
