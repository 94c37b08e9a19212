//! What the tests share.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::clock::Timestamp;
use gateway_core::identity::{Principal, PrincipalKind};
use gateway_core::operation::OperationId;
use gateway_core::policy::Revision;
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey};
use gateway_core::recording::{Header, Position, Record, Recorder, SessionRecorder};
use gateway_core::session::{CloseReason, SessionId};

/// Noon on a day in 2026.
pub(crate) const START: Timestamp = Timestamp::from_seconds(1_772_000_000);

pub(crate) fn session(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

pub(crate) fn header(n: u8) -> Header {
    Header {
        session: session(n),
        principal: Principal::new(
            PrincipalKind::Agent,
            "https://issuer",
            format!("agent-{n}"),
            Timestamp::MAX,
        ),
        protocol: "postgres".to_owned(),
        target: "shop".to_owned(),
        scope: Some("shop".to_owned()),
        peer: "192.0.2.1:5000".to_owned(),
        policy: Revision("r1".into()),
        started: START,
    }
}

pub(crate) fn released(n: u64, payload: impl Into<Bytes>) -> Record {
    Record::Released {
        operation: OperationId(n),
        encoding: "postgres/3.0".into(),
        bytes: payload.into(),
        masked: 1,
    }
}

pub(crate) fn completed(n: u64) -> Record {
    Record::Completed {
        operation: OperationId(n),
        outcome: "SELECT 1".to_owned(),
        rows: 1,
        bytes: 10,
        masked: vec![("payment_card".to_owned(), 1)],
    }
}

pub(crate) fn at(n: u64) -> Timestamp {
    Timestamp::from_micros(START.as_micros() + n as i64 * 1000)
}

pub(crate) fn recorder(directory: &Path, key: RecordingKey) -> FileRecorder {
    FileRecorder::open(directory, key, FileOptions::default()).unwrap()
}

/// A key in a file, so that the same one can be opened again.
pub(crate) fn key(directory: &Path) -> RecordingKey {
    RecordingKey::open_or_create(&directory.join("recording.key")).unwrap()
}

/// Records `commits` times two records, each pair made durable, and leaves the session open.
pub(crate) async fn run(recorder: &FileRecorder, n: u8, commits: u64) -> Arc<dyn SessionRecorder> {
    let open = recorder.open(header(n)).await.unwrap();
    for i in 0..commits {
        let position = open.append(at(2 * i), released(i, format!("row {i} of {n}"))).unwrap();
        assert_eq!(position, Position(2 * i + 1));
        let position = open.append(at(2 * i + 1), completed(i)).unwrap();
        open.durable(position).await.unwrap();
    }
    open
}

/// As [`run`], and closes it: `2 * commits + 2` records.
pub(crate) async fn run_and_close(recorder: &FileRecorder, n: u8, commits: u64) {
    run(recorder, n, commits).await.close(at(2 * commits), CloseReason::Downstream).await.unwrap();
}
