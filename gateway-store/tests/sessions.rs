//! The index of sessions and the recorder that keeps it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests: a failure must show at once")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::approval::RequestId;
use gateway_core::clock::{ManualClock, Timestamp};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::{Actor, Phase, Principal, PrincipalKind};
use gateway_core::operation::OperationId;
use gateway_core::policy::Revision;
use gateway_core::recording::{
    Header, MemoryRecorder, Position, Record, RecordError, Recorder, SessionRecorder,
};
use gateway_core::session::{CloseReason, SessionId};
use gateway_store::{SessionCounts, SessionFilter, SessionRow, SessionStatus, Store, StoreError};

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn seconds(n: u64) -> Timestamp {
    START.plus(Duration::from_secs(n))
}

async fn open(directory: &Path) -> Store {
    Store::open(directory.join("gateway.db"), Arc::new(ManualClock::new(START))).await.unwrap()
}

fn header(first_byte: u8, subject: &str, target: &str, started: Timestamp) -> Header {
    let mut id = [0; 16];
    id[0] = first_byte;
    id[15] = subject.len() as u8;
    let mut principal = Principal::new(PrincipalKind::Agent, "https://idp.example", subject, Timestamp::MAX);
    principal.phase = Phase::Execute;
    principal.task = Some(format!("task-of-{subject}"));
    principal.actor_chain =
        vec![Actor { issuer: "https://idp.example".to_owned(), subject: "owner".to_owned() }];
    Header {
        session: SessionId::from_bytes(id),
        principal,
        protocol: "postgres".to_owned(),
        target: target.to_owned(),
        scope: Some("shop".to_owned()),
        peer: "10.0.0.1:5000".to_owned(),
        policy: Revision("r1".into()),
        started,
    }
}

fn all() -> SessionFilter {
    SessionFilter { limit: 100, ..SessionFilter::default() }
}

fn completed(masked: &[(&str, u64)]) -> Record {
    Record::Completed {
        operation: OperationId(1),
        outcome: "SELECT 2".to_owned(),
        rows: 2,
        bytes: 100,
        masked: masked.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect(),
    }
}

fn of_everything() -> Vec<Record> {
    let ids = |n| (1..=n).map(OperationId).collect::<Vec<_>>();
    let denial = Denial::new(DenialCode::Forbidden, "no");
    vec![
        Record::Allowed { operations: ids(3), rules: [].into(), obligations: [].into(), approval: None },
        Record::Denied { operations: ids(2), denial: (&denial).into() },
        Record::Held {
            operations: ids(1),
            request: RequestId::random().unwrap(),
            rules: vec![],
            expires: START,
        },
        completed(&[("email", 2), ("payment_card", 1)]),
        completed(&[("email", 1)]),
    ]
}

async fn row(store: &Store, id: SessionId) -> SessionRow {
    store.sessions().show(&id.to_string()).await.unwrap()
}

#[tokio::test]
async fn a_session_is_indexed_from_begin_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let recorder = store
        .recorder(Arc::new(MemoryRecorder::default()))
        .with_path(|header| Some(PathBuf::from(format!("/recordings/{}", header.session))));
    let header = header(1, "agent", "shop", START);
    let id = header.session;
    let session = recorder.open(header).await.unwrap();
    let begun = row(&store, id).await;
    assert_eq!((begun.status, begun.ended), (SessionStatus::Open, None));
    assert_eq!(begun.counts, SessionCounts::default());
    for record in of_everything() {
        session.append(seconds(1), record).unwrap();
    }
    session.close(seconds(9), CloseReason::LimitExceeded("rows".to_owned())).await.unwrap();
    drop(session);
    store.close().await;

    let ended = row(&open(directory.path()).await, id).await;
    assert_eq!(ended.status, SessionStatus::Closed);
    assert_eq!((ended.started, ended.ended), (START, Some(seconds(9))));
    assert_eq!(ended.reason, Some(CloseReason::LimitExceeded("rows".to_owned())));
    assert_eq!(ended.principal.subject, "agent");
    assert_eq!((ended.kind, ended.phase), (PrincipalKind::Agent, Phase::Execute));
    assert_eq!(ended.task.as_deref(), Some("task-of-agent"));
    assert_eq!(ended.chain[0].subject, "owner");
    assert_eq!(ended.recording, Some(PathBuf::from(format!("/recordings/{id}"))));
    let counts = ended.counts;
    assert_eq!((counts.allowed, counts.denied, counts.held), (3, 2, 1));
    assert_eq!((counts.rows, counts.bytes), (4, 200));
    assert_eq!((counts.masked["email"], counts.masked["payment_card"]), (3, 1));
}

#[tokio::test]
async fn busy_sessions_are_counted_while_they_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let header = header(1, "agent", "shop", START);
    let id = header.session;
    let session = store.recorder(Arc::new(MemoryRecorder::default())).open(header).await.unwrap();
    session.append(seconds(9), completed(&[])).unwrap();
    assert_eq!(row(&store, id).await.counts.rows, 0, "not at every record");
    session.append(seconds(10), completed(&[])).unwrap();
    assert_eq!(row(&store, id).await.counts.rows, 4);
    session.append(seconds(11), completed(&[])).unwrap();
    assert_eq!(row(&store, id).await.counts.rows, 4);
}

#[tokio::test]
async fn sessions_without_an_end_are_unsealed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let recorder = store.recorder(Arc::new(MemoryRecorder::default()));
    let (dropped, running) = (header(1, "a", "shop", START), header(2, "b", "shop", START));
    let ids = [dropped.session, running.session];
    let session = recorder.open(dropped).await.unwrap();
    let kept = recorder.open(running).await.unwrap();
    session.append(START, completed(&[("email", 1)])).unwrap();
    drop(session);
    let row_of_dropped = row(&store, ids[0]).await;
    assert_eq!(row_of_dropped.status, SessionStatus::Unsealed);
    assert_eq!(row_of_dropped.counts.rows, 2);
    assert_eq!(row(&store, ids[1]).await.status, SessionStatus::Open);
    store.close().await;
    assert!(kept.close(START, CloseReason::Shutdown).await.is_err(), "the index is closed");
    let row_of_running = row(&open(directory.path()).await, ids[1]).await;
    assert_eq!((row_of_running.status, row_of_running.ended), (SessionStatus::Unsealed, None));
}

#[tokio::test]
async fn many_classes_are_counted_together() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let header = header(1, "agent", "shop", START);
    let id = header.session;
    let session = store.recorder(Arc::new(MemoryRecorder::default())).open(header).await.unwrap();
    for n in 0..300 {
        session.append(START, completed(&[(&format!("class-{n}"), 1)])).unwrap();
    }
    session.close(START, CloseReason::Downstream).await.unwrap();
    let masked = row(&store, id).await.counts.masked;
    assert_eq!((masked.len(), masked["other"]), (257, 44));
}

/// Refuses or accepts to open; remembers how its recordings were closed.
#[derive(Debug, Default)]
struct Spy(Arc<std::sync::Mutex<Vec<CloseReason>>>);

#[async_trait]
impl Recorder for Spy {
    async fn open(&self, _header: Header) -> Result<Arc<dyn SessionRecorder>, RecordError> {
        Ok(Arc::new(Self(self.0.clone())))
    }
}

#[async_trait]
impl SessionRecorder for Spy {
    fn append(&self, _at: Timestamp, _record: Record) -> Result<Position, RecordError> {
        Err(RecordError("full".to_owned()))
    }

    async fn durable(&self, _position: Position) -> Result<(), RecordError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), RecordError> {
        Ok(())
    }

    fn has_room(&self) -> bool {
        true
    }

    async fn close(&self, _at: Timestamp, reason: CloseReason) -> Result<(), RecordError> {
        self.0.lock().unwrap().push(reason);
        Ok(())
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_indexed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let spy = Spy::default();
    let reasons = spy.0.clone();
    let recorder = store.recorder(Arc::new(spy));
    let session = recorder.open(header(1, "agent", "shop", START)).await.unwrap();
    assert!(session.append(START, completed(&[])).is_err(), "its recorder's failure is passed on");
    assert!(recorder.open(header(1, "agent", "shop", START)).await.is_err(), "the id is taken");
    assert_eq!(*reasons.lock().unwrap(), [CloseReason::RecorderFailed]);
    store.close().await;
    assert!(recorder.open(header(2, "agent", "shop", START)).await.is_err());
}

#[tokio::test]
async fn lists_are_filtered_newest_first() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let index = store.sessions();
    let sessions = [("a", "shop", 0), ("b", "shop", 10), ("a", "bank", 20), ("a'; --", "shop", 30)];
    for (n, (subject, target, at)) in (1..).zip(sessions) {
        index.opened(&header(n, subject, target, seconds(at)), None).await.unwrap();
    }
    let list = async |filter: SessionFilter| {
        let rows = index.list(filter).await.unwrap();
        rows.iter().map(|row| row.id.as_bytes()[0]).collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(list(all()).await, [4, 3, 2, 1]);
    assert_eq!(list(SessionFilter { limit: 2, ..all() }).await, [4, 3]);
    assert!(list(SessionFilter::default()).await.is_empty());
    assert_eq!(list(SessionFilter { principal: text("a"), ..all() }).await, [3, 1]);
    assert_eq!(list(SessionFilter { principal: text("https://idp.example|b"), ..all() }).await, [2]);
    assert_eq!(list(SessionFilter { principal: text("a'; --"), ..all() }).await, [4]);
    assert_eq!(list(SessionFilter { target: text("shop"), ..all() }).await, [4, 2, 1]);
    assert_eq!(list(SessionFilter { task: text("task-of-b"), ..all() }).await, [2]);
    assert_eq!(
        list(SessionFilter { since: Some(seconds(10)), until: Some(seconds(30)), ..all() }).await,
        [3, 2]
    );
    assert!(list(SessionFilter { principal: text("b"), target: text("bank"), ..all() }).await.is_empty());
}

#[tokio::test]
async fn a_session_is_found_by_the_beginning_of_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let index = store.sessions();
    for (first_byte, subject) in [(0xab, "a"), (0xab, "bb"), (0xff, "c")] {
        index.opened(&header(first_byte, subject, "shop", START), None).await.unwrap();
    }
    assert_eq!(index.show("f").await.unwrap().principal.subject, "c");
    assert_eq!(index.show("FF00").await.unwrap().principal.subject, "c");
    assert_eq!(index.show("ab000000000000000000000000000002").await.unwrap().principal.subject, "bb");
    assert_eq!(index.show("ab").await, Err(StoreError::AmbiguousSession("ab".to_owned())));
    for unknown in ["", "aa", "a%", "g", "ab0000000000000000000000000000021"] {
        assert_eq!(index.show(unknown).await, Err(StoreError::UnknownSession(unknown.to_owned())));
    }
}
