//! The approver of the store does what every approver must do, and survives what memory does not.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests: a failure must show at once")]

#[path = "../../gateway-core/tests/approval_suite/mod.rs"]
mod approval_suite;

use std::path::Path;
use std::sync::Arc;

use approval_suite::{START, Subject};
use gateway_core::clock::ManualClock;
use gateway_store::Store;

async fn make() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let store = open(directory.path(), &clock).await;
    Subject { approver: store.approver(), clock, keep: Box::new(directory) }
}

async fn open(directory: &Path, clock: &Arc<ManualClock>) -> Store {
    Store::open(directory.join("gateway.db"), clock.clone()).await.unwrap()
}

approver_suite!(make);

mod restart;
