//! Opening: what is made, what is refused, and in which words.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests: a failure must show at once")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_core::clock::SystemClock;
use gateway_store::{Store, StoreError};
use tokio::task::JoinSet;

async fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, Arc::new(SystemClock)).await
}

/// Why the store does not open.
async fn cause(path: &Path) -> StoreError {
    match open(path).await {
        Err(StoreError::Open { cause, .. }) => *cause,
        other => panic!("{other:?}"),
    }
}

async fn made(directory: &Path) -> PathBuf {
    let path = directory.join("gateway.db");
    open(&path).await.unwrap().close().await;
    path
}

fn key_of(path: &Path) -> PathBuf {
    path.with_extension("db.key")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn everything_made_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new").join("gateway.db");
    let store = open(&path).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file) & 0o077, 0, "{}", file.display());
    }
    let instances = path.with_extension("db.instances");
    assert_eq!(std::fs::read_dir(&instances).unwrap().count(), 1);
    store.close().await;
    assert_eq!(std::fs::read_dir(&instances).unwrap().count(), 0);
    assert_eq!(std::fs::metadata(key_of(&path)).unwrap().len(), 32);
}

#[tokio::test]
async fn files_that_others_may_read_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = made(directory.path()).await;
    for file in [path.clone(), key_of(&path)] {
        set_mode(&file, 0o640);
        let refused = cause(&path).await;
        assert_eq!(refused, StoreError::Exposed { path: file.clone(), mode: 0o640 });
        assert!(refused.to_string().ends_with(&format!("run `chmod 600 {}`", file.display())));
        set_mode(&file, 0o600);
    }
    open(&path).await.unwrap();
}

#[tokio::test]
async fn another_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = made(directory.path()).await;
    let key = std::fs::read(key_of(&path)).unwrap();
    std::fs::remove_file(key_of(&path)).unwrap();
    assert_eq!(cause(&path).await, StoreError::KeyMissing(key_of(&path)));
    assert!(!key_of(&path).exists(), "no new key is made for an old database");
    std::fs::write(key_of(&path), [7; 32]).unwrap();
    set_mode(&key_of(&path), 0o600);
    assert_eq!(cause(&path).await, StoreError::KeyMismatch(key_of(&path)));
    std::fs::write(key_of(&path), &key[..31]).unwrap();
    assert!(matches!(cause(&path).await, StoreError::File { .. }));
    std::fs::write(key_of(&path), key).unwrap();
    open(&path).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = made(directory.path()).await;
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(cause(&path).await, StoreError::NewerSchema { found: 99, known: 1 });
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    set_mode(&path, 0o600);
    assert_eq!(cause(&path).await, StoreError::NotAStore);
}

#[tokio::test]
async fn damaged_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = made(directory.path()).await;
    let good = std::fs::read(&path).unwrap();
    let mut torn = good.clone();
    torn[..100].fill(0x55);
    std::fs::write(&path, torn).unwrap();
    let refused = cause(&path).await;
    assert!(matches!(refused, StoreError::Damaged(_)), "{refused:?}");
    let mut zeroed = good;
    zeroed[100..].fill(0);
    std::fs::write(&path, zeroed).unwrap();
    let refused = cause(&path).await;
    assert!(matches!(refused, StoreError::Damaged(_)), "{refused:?}");
}

#[tokio::test]
async fn a_directory_is_no_database() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(cause(directory.path()).await, StoreError::File { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_new_file_at_once() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.db");
        let mut opening = JoinSet::new();
        for _ in 0..8 {
            let path = path.clone();
            opening.spawn(async move { open(&path).await.unwrap() });
        }
        let stores = opening.join_all().await;
        let key = stores[0].digest_key().bytes(b"");
        assert!(stores.iter().all(|store| store.digest_key().bytes(b"") == key));
    }
}
