//! A log that panics, as the usual one does when standard error is full, leaves nobody waiting.
//!
//! A binary of its own: the log is the whole process's.

// Helpers of a test are tests too; the lints exempt only the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway_core::clock::Timestamp;
use gateway_core::identity::{Principal, PrincipalKind};
use gateway_core::policy::Revision;
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey, verify};
use gateway_core::recording::{Header, Recorder};
use gateway_core::session::{CloseReason, SessionId};

static PANICKED: AtomicBool = AtomicBool::new(false);

struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        PANICKED.store(true, Ordering::SeqCst);
        panic!("failed printing to stderr: no space left on device");
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn header(n: u8) -> Header {
    Header {
        session: SessionId::from_bytes([n; 16]),
        principal: Principal::new(PrincipalKind::Agent, "https://issuer", "agent", Timestamp::MAX),
        protocol: "test".to_owned(),
        target: "target".to_owned(),
        scope: None,
        peer: "peer".to_owned(),
        policy: Revision("r1".into()),
        started: Timestamp::from_micros(0),
    }
}

#[tokio::test]
async fn sessions_go_on_when_the_log_panics() {
    tracing_subscriber::fmt().with_writer(|| Full).init();
    let dir = tempfile::tempdir().unwrap();
    let mut options = FileOptions::default();
    options.writers = 1;
    let recorder = FileRecorder::open(dir.path(), RecordingKey::generate().unwrap(), options).unwrap();
    let all = async {
        for n in 1..4 {
            let open = recorder.open(header(n)).await.unwrap();
            open.close(Timestamp::from_micros(1), CloseReason::Downstream).await.unwrap();
            // Its file exists, so this one fails, in the writer's thread, which says so in the log.
            recorder.open(header(n)).await.unwrap_err();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("somebody waits for ever");
    assert!(PANICKED.load(Ordering::SeqCst));
    let path = recorder.path(SessionId::from_bytes([3; 16]));
    assert!(verify(&path, &recorder.public_key(), None).unwrap().is_intact());
}
