//! Reading back: everything that was recorded, also while it is recorded.

use std::time::{Duration, Instant};

use gateway_core::approval::Digest;
use gateway_core::clock::Timestamp;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Access, Action, Effect, Fact, Facts, OperationId, Resource, Stage};
use gateway_core::policy::{ApprovalRule, Obligation};
use gateway_core::recording::file::{
    End, FileOptions, FileRecorder, MAX_RECORD_BYTES, ReadRecord, RecordJson, RecordingKey, RecordingReader,
    verify,
};
use gateway_core::recording::{Record, RecordedDenial, RecordedOperation, Recorder};
use gateway_core::session::CloseReason;

use crate::common::{START, at, completed, header, key, recorder, released, run, run_and_close, session};

fn one_of_each() -> Vec<Record> {
    let operations = vec![OperationId(1)];
    let table = Resource::target("shop").child("Table", "orders").with("volatile", true);
    vec![
        Record::Presented {
            digest: Digest::from_bytes([9; 32]),
            operations: vec![RecordedOperation {
                id: OperationId(1),
                kind: "delete".into(),
                stage: Stage::Execute,
                statement: "DELETE FROM orders WHERE note = '\u{1b}[2J\n***'".into(),
                statement_bytes: 40,
                arguments: 2,
                effect: Effect::Write,
                accesses: [Access::new(Action::new("write"), table)].into(),
                facts: Facts::from([
                    ("where".into(), Fact::Bool(true)),
                    ("rows".into(), Fact::Long(-3)),
                    ("tables".into(), Fact::Set(["a".to_owned(), "b".to_owned()].into())),
                ])
                .into(),
            }],
        },
        Record::Rewritten { operations: operations.clone(), rewrites: vec!["limit:10".to_owned()] },
        Record::Held {
            operations: operations.clone(),
            request: "00112233445566778899aabbccddeeff".parse().unwrap(),
            rules: vec![ApprovalRule {
                name: "dba".to_owned(),
                reviewers: "dba".to_owned(),
                quorum: 2,
                ttl: Duration::from_secs(900),
                rules: vec!["hold-writes".to_owned()],
            }],
            expires: START.plus(Duration::from_secs(900)),
        },
        Record::Allowed {
            operations: operations.clone(),
            rules: ["p".to_owned()].into(),
            obligations: [Obligation::LimitRows(10)].into(),
            approval: None,
        },
        Record::Denied {
            operations,
            denial: RecordedDenial::from(&Denial::new(DenialCode::Forbidden, "`orders` may not be read")),
        },
        released(1, vec![0, 255, 1, 254]),
        completed(1),
    ]
}

fn read(reader: &mut RecordingReader) -> Vec<ReadRecord> {
    reader.by_ref().collect()
}

#[tokio::test]
async fn every_kind_of_record_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let open = recorder.open(header(1)).await.unwrap();
    for (i, record) in one_of_each().into_iter().enumerate() {
        assert_eq!(open.append(at(i as u64), record).unwrap().0, i as u64 + 1);
    }
    open.close(at(99), CloseReason::LimitExceeded("rows".to_owned())).await.unwrap();
    let mut reader = RecordingReader::open(&recorder.path(session(1))).unwrap();
    assert_eq!(reader.header(), &header(1));
    assert_eq!(reader.end(), None);
    let records = read(&mut reader);
    let reason = CloseReason::LimitExceeded("rows".to_owned());
    assert_eq!(reader.end(), Some(&End::Sealed(reason.clone())));
    let mut expected = one_of_each();
    expected.push(Record::Closed { reason });
    assert_eq!(records.iter().map(|r| r.record.clone()).collect::<Vec<_>>(), expected);
    assert!(records.iter().enumerate().all(|(i, r)| r.position.0 == i as u64 + 1));
    assert_eq!((records[3].at, records[7].at), (at(3), at(99)));
}

#[tokio::test]
async fn a_clock_set_back_does_not_disturb_order_or_proof() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let open = recorder.open(header(1)).await.unwrap();
    let times = [at(5), Timestamp::from_micros(i64::MIN), at(1), Timestamp::MAX, at(2)];
    for (i, time) in times.into_iter().enumerate() {
        let position = open.append(time, completed(i as u64)).unwrap();
        open.durable(position).await.unwrap();
    }
    open.close(at(0), CloseReason::Shutdown).await.unwrap();
    let path = recorder.path(session(1));
    assert!(verify(&path, &recorder.public_key(), None).unwrap().is_intact());
    let records = read(&mut RecordingReader::open(&path).unwrap());
    assert_eq!(records[..5].iter().map(|r| r.at).collect::<Vec<_>>(), times);
    assert!(records.is_sorted_by_key(|r| r.written_after));
}

#[tokio::test]
async fn a_live_recording_can_be_read_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let path = recorder.path(session(1));
    let open = run(&recorder, 1, 3).await;
    let mut reader = RecordingReader::open(&path).unwrap();
    assert_eq!(read(&mut reader).len(), 6);
    assert_eq!(reader.end(), Some(&End::Unsealed));
    let found = verify(&path, &recorder.public_key(), None).unwrap();
    assert_eq!((found.proven_records, found.problems.len()), (7, 0));
    // Read all the time while a flood is written: never an error, only a tail that is still on its way.
    let writer = tokio::spawn(async move {
        for i in 0..2000 {
            open.ready().await.unwrap();
            open.append(at(i), released(i, vec![i as u8; 3000])).unwrap();
            if i % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        open.close(at(9999), CloseReason::Upstream).await.unwrap();
    });
    loop {
        let mut reader = RecordingReader::open(&path).unwrap();
        let records = read(&mut reader).len();
        match reader.end().unwrap() {
            End::Sealed(CloseReason::Upstream) => {
                assert_eq!(records, 2007);
                break;
            }
            End::Unsealed | End::Torn { .. } => {}
            other => panic!("{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert!(verify(&path, &recorder.public_key(), None).unwrap().is_intact());
}

#[tokio::test]
async fn reads_reach_the_file_though_nobody_waits_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let open = recorder.open(header(1)).await.unwrap();
    open.append(at(1), completed(1)).unwrap();
    let path = recorder.path(session(1));
    let deadline = Instant::now() + Duration::from_secs(10);
    while verify(&path, &recorder.public_key(), None).unwrap().proven_records < 2 {
        assert!(Instant::now() < deadline, "never written");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn large_records_and_many_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let open = recorder.open(header(1)).await.unwrap();
    let big: Vec<u8> =
        (0..MAX_RECORD_BYTES as u32 - 1000).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    open.append(at(1), released(1, big.clone())).unwrap();
    assert!(!open.has_room());
    open.ready().await.unwrap();
    assert!(open.has_room());
    for i in 2..200 {
        open.ready().await.unwrap();
        open.append(at(i), released(i, big[..100_000].to_vec())).unwrap();
    }
    open.close(at(300), CloseReason::Downstream).await.unwrap();
    let path = recorder.path(session(1));
    let found = verify(&path, &recorder.public_key(), None).unwrap();
    assert!(found.is_intact(), "{found:?}");
    let mut reader = RecordingReader::open(&path).unwrap();
    assert_eq!(reader.next().unwrap().record, released(1, big));
}

#[tokio::test]
async fn strict_commits_every_record_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = FileOptions::default();
    options.strict = true;
    let recorder = FileRecorder::open(dir.path(), RecordingKey::generate().unwrap(), options).unwrap();
    let open = recorder.open(header(1)).await.unwrap();
    assert!(open.strict());
    let position = open.append(at(1), completed(1)).unwrap();
    open.durable(position).await.unwrap();
    assert!(open.durable(gateway_core::recording::Position(2)).await.is_err(), "no such record");
}

#[tokio::test]
async fn json_lines_are_complete_and_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let open = recorder.open(header(1)).await.unwrap();
    for record in one_of_each() {
        open.append(at(1), record).unwrap();
    }
    open.close(at(2), CloseReason::Downstream).await.unwrap();
    let mut reader = RecordingReader::open(&recorder.path(session(1))).unwrap();
    let lines: Vec<String> = RecordJson::new(&mut reader).collect();
    assert_eq!(lines.len(), one_of_each().len() + 2);
    assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "no raw line ends or escapes");
    let values: Vec<serde_json::Value> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(values[0]["event"], "header");
    assert_eq!(values[0]["principal"]["subject"], "agent-1");
    assert_eq!(values[0]["principal"]["expires_at"], "never");
    assert_eq!(values[1]["at"], "2026-02-25T06:13:20.001000Z");
    assert_eq!(values[3]["expires"], "2026-02-25T06:28:20.000000Z");
    let bytes = values.iter().find(|v| v["event"] == "released").unwrap();
    assert_eq!((bytes["bytes"].as_str(), bytes["position"].as_u64()), (Some("AP8B/g=="), Some(6)));
    assert_eq!(values.last().unwrap()["event"], "closed");
}

#[tokio::test]
async fn small_recordings_of_many_sessions_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=40 {
        let recorder = recorder.clone();
        tasks.spawn(async move { run_and_close(&recorder, n, 3).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for n in 1..=40 {
        assert!(verify(&recorder.path(session(n)), &recorder.public_key(), None).unwrap().is_intact());
    }
}
