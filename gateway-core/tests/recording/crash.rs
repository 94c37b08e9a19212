//! Killed at any moment: what was promised is there and proven.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gateway_core::recording::Recorder;
use gateway_core::recording::file::{End, RecordingReader, verify, verify_directory};

use crate::common::{at, completed, header, key, recorder, released, session};

const CHILD: &str = "GATEWAY_TEST_RECORDING_CHILD";

/// Records for ever and says on standard output how far it is durable.
async fn record_until_killed(dir: &Path) {
    let recorder = recorder(dir, key(dir));
    let open = recorder.open(header(1)).await.unwrap();
    println!("durable 0");
    for i in 0.. {
        let reads = i % 5;
        for j in 0..reads {
            open.append(at(i), released(i, vec![j as u8; 700 * (j as usize + 1)])).unwrap();
        }
        let position = open.append(at(i), completed(i)).unwrap();
        open.durable(position).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "durable {}", position.0).unwrap();
        out.flush().unwrap();
    }
}

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["crash::killed_at_any_moment", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what the child promised: `lines` lines, then kills it and reads the rest.
fn kill_after(mut child: Child, lines: usize) -> u64 {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut last = None;
    let mut seen = 0;
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        // A line without its end was cut by the kill.
        if let Some(position) = line.split("durable ").nth(1).and_then(|rest| rest.strip_suffix('\n')) {
            last = Some(position.parse().unwrap());
            seen += 1;
        }
        if seen == lines {
            child.kill().unwrap();
        }
        line.clear();
    }
    let status = child.wait().unwrap();
    assert!(!status.success(), "it was killed, it did not end");
    last.expect("the child got as far as its header")
}

#[test]
fn killed_at_any_moment() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        return runtime.block_on(record_until_killed(Path::new(&dir)));
    }
    for lines in [1, 2, 3, 5, 17, 40, 111, 200] {
        let dir = tempfile::tempdir().unwrap();
        let promised = kill_after(start(dir.path()), lines);
        let key = key(dir.path());
        let public = key.public_key();
        let path = dir.path().join(format!("{}.rec", session(1)));
        let found = verify(&path, &public, None).unwrap();
        assert!(found.proven_records > promised, "{promised} was promised: {found:?}");
        assert_eq!(found.problems, []);
        let mut reader = RecordingReader::open(&path).unwrap();
        let records = reader.by_ref().count() as u64;
        assert_eq!(records + 1, found.proven_records + found.unproven_records);
        assert!(matches!(reader.end(), Some(End::Unsealed | End::Torn { .. })), "{:?}", reader.end());
        // The next start finds a sound directory and leaves one.
        drop(recorder(dir.path(), key));
        let found = verify_directory(dir.path(), &public, None).unwrap();
        assert!(found.is_sound() && found.ledger_entries == 2, "{found:?}");
    }
}
