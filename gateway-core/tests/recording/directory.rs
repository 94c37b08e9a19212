//! The ledger: attacks on a whole directory, and what a restart settles.

use std::path::Path;

use gateway_core::recording::Recorder;
use gateway_core::recording::file::{
    DirectoryVerification, FileOptions, FileRecorder, Head, Problem, PublicKey, RecordJson, RecordingKey,
    RecordingReader, recordings, verify, verify_directory,
};
use gateway_core::session::CloseReason;
use tempfile::TempDir;

use crate::common::{at, completed, header, key, recorder, run, run_and_close, session};

const PREAMBLE: usize = 32;
const ENTRY: usize = 137;
const CHECKPOINT: usize = 122;

struct Sample {
    dir: TempDir,
    key: PublicKey,
    head: Head,
}

impl Sample {
    /// Three closed sessions, in order.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recorder = recorder(dir.path(), key(dir.path()));
        for n in 1..=3 {
            run_and_close(&recorder, n, 2).await;
        }
        Self { key: recorder.public_key(), head: recorder.ledger_head(), dir }
    }

    fn file(&self, n: u8) -> std::path::PathBuf {
        self.dir.path().join(format!("{}.rec", session(n)))
    }

    fn check(&self) -> DirectoryVerification {
        check(self.dir.path(), &self.key)
    }
}

fn check(dir: &Path, key: &PublicKey) -> DirectoryVerification {
    verify_directory(dir, key, None).unwrap()
}

#[tokio::test]
async fn an_untouched_directory_is_sound() {
    let sample = Sample::new().await;
    let found = verify_directory(sample.dir.path(), &sample.key, Some(&sample.head)).unwrap();
    assert!(found.is_sound(), "{found:?}");
    assert!(found.recordings.iter().all(|(_, one)| one.is_intact()));
    assert_eq!((found.recordings.len(), found.ledger_entries), (3, 6));
    assert_eq!(found.ledger_head, Some(sample.head));
    let listed = recordings(sample.dir.path()).unwrap();
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3].map(session));
}

#[tokio::test]
async fn removed_added_and_swapped_recordings_are_caught() {
    let sample = Sample::new().await;
    let second = std::fs::read(sample.file(2)).unwrap();
    std::fs::remove_file(sample.file(2)).unwrap();
    assert_eq!(sample.check().problems, [Problem::Removed(session(2))]);
    std::fs::copy(sample.file(1), sample.file(2)).unwrap();
    let found = sample.check();
    assert!(found.problems.contains(&Problem::Replaced(session(2))), "{found:?}");
    assert!(found.recordings[1].1.problems.contains(&Problem::Renamed(session(1))));
    std::fs::write(sample.file(2), second).unwrap();
    assert!(sample.check().is_sound());
    std::fs::copy(sample.file(1), sample.file(9)).unwrap();
    let found = sample.check();
    assert_eq!(found.problems, [Problem::Unlisted(session(9))]);
    assert!(!found.is_sound());
}

#[tokio::test]
async fn a_genuine_recording_from_elsewhere_does_not_pass_for_another() {
    let sample = Sample::new().await;
    // The same gateway recorded a session of the same id in another directory.
    let other = tempfile::tempdir().unwrap();
    let elsewhere = recorder(other.path(), key(sample.dir.path()));
    run_and_close(&elsewhere, 2, 1).await;
    std::fs::copy(elsewhere.path(session(2)), sample.file(2)).unwrap();
    let cut_back = Problem::CutBack { session: session(2), records: 6 };
    assert_eq!(sample.check().problems, [Problem::Replaced(session(2)), cut_back]);
}

#[tokio::test]
async fn a_recording_cut_back_at_any_byte_is_caught() {
    let sample = Sample::new().await;
    let whole = std::fs::read(sample.file(2)).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(sample.file(2), &whole[..cut]).unwrap();
        let found = sample.check();
        assert!(
            found.problems.contains(&Problem::CutBack { session: session(2), records: 6 }),
            "{cut}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a_ledger_cut_back_shows_as_unlisted_recordings_or_by_its_head() {
    let sample = Sample::new().await;
    let path = sample.dir.path().join("ledger");
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len(), PREAMBLE + 6 * ENTRY);
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let found = verify_directory(sample.dir.path(), &sample.key, Some(&sample.head)).unwrap();
        assert!(found.problems.contains(&Problem::HeadMissing(sample.head)), "{cut}");
        let opened = cut.saturating_sub(PREAMBLE).div_ceil(ENTRY).min(6);
        let without_head = sample.check();
        if cut < PREAMBLE + 4 * ENTRY {
            assert!(without_head.problems.contains(&Problem::Unlisted(session(3))), "{cut} {opened}");
        }
    }
    std::fs::remove_file(&path).unwrap();
    assert!(sample.check().problems.contains(&Problem::NoLedger));
}

#[tokio::test]
async fn every_edited_byte_of_the_ledger_is_caught() {
    let sample = Sample::new().await;
    let path = sample.dir.path().join("ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    // The last byte of the preamble's key id is a hint, but it is chained like the rest.
    for i in 0..bytes.len() {
        bytes[i] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        assert!(!sample.check().is_sound(), "byte {i}");
        bytes[i] ^= 0x20;
    }
    std::fs::write(&path, &bytes).unwrap();
    assert!(sample.check().is_sound());
    let entries: Vec<_> = bytes[PREAMBLE..].chunks(ENTRY).collect();
    let without = [&bytes[..PREAMBLE], entries[0], entries[2], entries[3]].concat();
    std::fs::write(&path, without).unwrap();
    assert!(sample.check().problems.contains(&Problem::LedgerEntry(1)));
}

#[tokio::test]
async fn a_restart_settles_what_was_left_open() {
    let dir = tempfile::tempdir().unwrap();
    let first = recorder(dir.path(), key(dir.path()));
    drop(run(&first, 1, 2).await);
    let path = first.path(session(1));
    drop(first);
    let second = recorder(dir.path(), key(dir.path()));
    let public = second.public_key();
    let found = check(dir.path(), &public);
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.recordings[0].1.proven_records, found.ledger_entries), (5, 2));
    // From now on the unsealed recording cannot be cut back unnoticed.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(check(dir.path(), &public).problems, [Problem::CutBack { session: session(1), records: 5 }]);
}

/// Whoever may write the file can continue the chain, but not sign it.
#[tokio::test]
async fn what_is_added_behind_a_recovered_end_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    let first = recorder(dir.path(), key(dir.path()));
    drop(run(&first, 1, 2).await);
    let (path, public) = (first.path(session(1)), first.public_key());
    drop(first);
    // As a crash in the middle of writing leaves it: the last block without its checkpoint.
    let whole = std::fs::read(&path).unwrap();
    let crashed = &whole[..whole.len() - CHECKPOINT];
    std::fs::write(&path, crashed).unwrap();
    let before = check(dir.path(), &public);
    assert!(before.is_sound(), "{before:?}");
    assert_eq!((before.unended, before.recordings[0].1.unproven_records), (vec![session(1)], 2));
    drop(recorder(dir.path(), key(dir.path())));
    let settled = std::fs::read(&path).unwrap();
    let behind = &crashed[settled.len()..];
    assert!(!behind.is_empty());
    assert_eq!(std::fs::read(path.with_extension("unproven")).unwrap(), behind, "it is evidence");
    let found = check(dir.path(), &public);
    assert!(found.is_sound() && found.unended.is_empty(), "{found:?}");
    assert_eq!((found.recordings[0].1.proven_records, found.unproven_records()), (3, 0));
    for (added, records, bytes) in [(behind, 2, 0), (b"B", 0, 1)] {
        std::fs::write(&path, [&settled, added].concat()).unwrap();
        let found = check(dir.path(), &public);
        assert_eq!(found.problems, [Problem::BehindEnd { session: session(1), records, bytes }]);
        assert!(!found.is_sound());
        // What is settled is not touched again.
        drop(recorder(dir.path(), key(dir.path())));
        assert_eq!(check(dir.path(), &public).problems, found.problems);
    }
}

/// What is not proven shows as that wherever it is read.
#[tokio::test]
async fn records_behind_the_last_signature_are_marked() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let open = run(&recorder, 1, 2).await;
    let path = recorder.path(session(1));
    let bytes = std::fs::read(&path).unwrap();
    let copy = dir.path().join("copy");
    std::fs::write(&copy, &bytes[..bytes.len() - CHECKPOINT]).unwrap();
    let proven = verify(&copy, &recorder.public_key(), None).unwrap().proven_records;
    let read = || RecordingReader::open(&copy).unwrap().proven(proven);
    let marks: Vec<bool> = read().map(|record| record.unproven).collect();
    assert_eq!(marks, [false, false, true, true]);
    let lines: Vec<bool> =
        RecordJson::new(&mut read()).map(|line| line.contains(r#""proven":false"#)).collect();
    assert_eq!(lines, [false, false, false, true, true]);
    drop(open);
}

#[tokio::test]
async fn a_start_interrupted_before_the_ledger_knew_is_settled_too() {
    let sample = Sample::new().await;
    let ledger = sample.dir.path().join("ledger");
    // Session 4's header is on disk, its entry is not: as after a kill between the two.
    let other = tempfile::tempdir().unwrap();
    let elsewhere = recorder(other.path(), key(sample.dir.path()));
    let open = elsewhere.open(header(4)).await.unwrap();
    std::fs::copy(elsewhere.path(session(4)), sample.file(4)).unwrap();
    // And a file without a complete header, and half a ledger entry.
    let mut header = std::fs::read(sample.file(4)).unwrap();
    header[8..24].copy_from_slice(session(5).as_bytes());
    std::fs::write(sample.file(5), &header[..50]).unwrap();
    let whole = std::fs::read(&ledger).unwrap();
    std::fs::write(&ledger, [&whole[..], &[b'O'; 99]].concat()).unwrap();
    let found = sample.check();
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.interrupted, found.ledger_torn_bytes), ([4, 5].map(session).to_vec(), 99));
    let again = recorder(sample.dir.path(), key(sample.dir.path()));
    let found = sample.check();
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.interrupted, found.ledger_entries, found.ledger_torn_bytes), (vec![session(5)], 8, 0));
    drop((open, again));
}

#[tokio::test]
async fn refuses_a_damaged_ledger_another_key_and_a_second_writer() {
    let sample = Sample::new().await;
    let open = |key| FileRecorder::open(sample.dir.path(), key, FileOptions::default());
    let error = open(RecordingKey::generate().unwrap()).unwrap_err().to_string();
    assert!(error.contains("new one"), "{error}");
    let first = open(key(sample.dir.path())).unwrap();
    let error = open(key(sample.dir.path())).unwrap_err().to_string();
    assert!(error.contains("another gateway"), "{error}");
    drop(first);
    let path = sample.dir.path().join("ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[PREAMBLE + 40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = open(key(sample.dir.path())).unwrap_err().to_string();
    assert!(error.contains("entry 0"), "{error}");
}

#[tokio::test]
async fn a_lost_ledger_is_not_begun_anew_beside_recordings() {
    let sample = Sample::new().await;
    let path = sample.dir.path().join("ledger");
    let whole = std::fs::read(&path).unwrap();
    for cut in [None, Some(0), Some(PREAMBLE - 1)] {
        match cut {
            None => std::fs::remove_file(&path).unwrap(),
            Some(cut) => std::fs::write(&path, &whole[..cut]).unwrap(),
        }
        let open = FileRecorder::open(sample.dir.path(), key(sample.dir.path()), FileOptions::default());
        let error = open.unwrap_err().to_string();
        assert!(error.contains("3 recordings but no ledger") && error.contains("backup"), "{error}");
        assert_eq!(std::fs::read(&path).ok().map(|bytes| bytes.len()), cut, "it is left as it was");
    }
    std::fs::write(&path, whole).unwrap();
    drop(recorder(sample.dir.path(), key(sample.dir.path())));
    assert!(sample.check().is_sound());
}

#[tokio::test]
async fn the_same_session_cannot_be_recorded_twice() {
    let sample = Sample::new().await;
    let recorder = recorder(sample.dir.path(), key(sample.dir.path()));
    let error = recorder.open(header(2)).await.unwrap_err().to_string();
    assert!(error.contains("exists"), "{error}");
    assert!(sample.check().is_sound());
}

#[tokio::test]
async fn nothing_is_accepted_after_the_close() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let open = run(&recorder, 1, 1).await;
    open.close(at(9), CloseReason::Terminated).await.unwrap();
    assert!(open.append(at(10), completed(1)).is_err());
    assert!(open.close(at(11), CloseReason::Downstream).await.is_err());
}
