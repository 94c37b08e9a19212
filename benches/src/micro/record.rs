//! Appending to a recording that is written, compressed, chained and signed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway_core::clock::{Clock, SystemClock};
use gateway_core::identity::{Principal, PrincipalKind};
use gateway_core::operation::OperationId;
use gateway_core::policy::Revision;
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey, verify};
use gateway_core::recording::{Header, Record, Recorder};
use gateway_core::session::{CloseReason, SessionId};
use tokio::runtime::Builder;

use crate::corpus;
use crate::machine::cpu_seconds;
use crate::report::Report;
use crate::sample::thread_time;
use crate::{Result, Size};

pub(super) fn run(size: Size, report: &mut Report) -> Result<()> {
    let small = size.pick(200_000, 2_000_000);
    one(report, "record of 200 bytes", 200, small)?;
    one(report, "record of 64 KiB", 64 * 1024, small / 100)
}

fn one(report: &mut Report, case: &str, bytes: usize, count: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let recorder = FileRecorder::open(folder.path(), RecordingKey::generate()?, FileOptions::default())?;
    let header = header()?;
    let session = header.session;
    let text = Bytes::from(corpus::all(8 << 20).into_iter().next().map(|c| c.text).unwrap_or_default());
    let pieces = (text.len() / bytes).max(1);
    let runtime = Builder::new_current_thread().build()?;
    let (cpu, start) = (cpu_seconds(std::process::id())?, Instant::now());
    let appending = runtime.block_on(async {
        let recording = recorder.open(header).await?;
        let mut appending = Duration::ZERO;
        let mut left = count;
        while left > 0 {
            recording.ready().await?;
            // A batch per look at the clock, far below the queue's room.
            let batch = left.min((256 * 1024 / bytes).max(1));
            let records: Vec<_> = (0..batch).map(|i| released(&text, (left + i) % pieces, bytes)).collect();
            let at = SystemClock.now();
            let start = thread_time();
            for record in records {
                recording.append(at, record)?;
            }
            appending += thread_time() - start;
            left -= batch;
        }
        recording.close(SystemClock.now(), CloseReason::Downstream).await?;
        Ok::<_, crate::Error>(appending)
    })?;
    let (wall, cpu) = (start.elapsed(), cpu_seconds(std::process::id())? - cpu);
    let path = recorder.path(session);
    if !verify(&path, &recorder.public_key(), None)?.is_intact() {
        return Err(format!("{case}: the recording does not verify").into());
    }
    let each = |seconds: f64| seconds * 1e9 / count as f64;
    report.add(case, "file recorder", "append, cpu", each(appending.as_secs_f64()), "ns");
    report.add(case, "file recorder", "written and sealed, wall", each(wall.as_secs_f64()), "ns");
    report.add(case, "file recorder", "cpu, all threads", each(cpu), "ns");
    let packed = path.metadata()?.len() as f64 / (count * bytes) as f64;
    report.add(case, "file recorder", "file size per byte", packed, "B/B");
    Ok(())
}

fn released(text: &Bytes, piece: usize, bytes: usize) -> Record {
    Record::Released {
        operation: OperationId(1),
        encoding: "postgres/3.0".into(),
        bytes: text.slice(piece * bytes..(piece + 1) * bytes),
        masked: 0,
    }
}

fn header() -> Result<Header> {
    let now = SystemClock.now();
    let mut agent = Principal::new(
        PrincipalKind::Agent,
        "https://idp.test",
        "agent-7",
        now.plus(Duration::from_secs(3600)),
    );
    agent.groups = BTreeSet::from(["agents".to_owned()]);
    Ok(Header {
        session: SessionId::random()?,
        principal: agent,
        protocol: "postgres".to_owned(),
        target: "bench".to_owned(),
        scope: Some("bench".to_owned()),
        peer: "127.0.0.1:50000".to_owned(),
        policy: Revision("bench".into()),
        started: now,
    })
}
