//! No room left: statements are refused, nothing passes unrecorded, and the process goes on.
//!
//! The limit on the size of a file stands for the full disk: a write beyond it fails, and afterwards the space is "back" in a
//! process without the limit. What is beside the recordings (the log, the audit log) goes to a device that is always full.

use std::process::{Command, Stdio};

use gateway_core::recording::file::PublicKey;
use testkit::raw_pg::query;
use testkit::{RawPg, Result};
use tokio::net::TcpStream;

use crate::evidence::Evidence;
use crate::kills::make_starts_cheap;
use crate::load::TABLE;
use crate::stage::{Serving, Stage, gateway, server};

/// Largest file, in the shell's units of 512 or 1024 bytes: room for hundreds of statements, not for thousands.
const LIMIT: &str = "700";
/// More statements, or sessions, than there is room for.
const TOO_MANY: u64 = 3000;

/// The gateway with a limit on the size of its files, the log not being one of them.
fn limited(stage: &Stage) -> Serving<'_> {
    let serve = stage.to_serve();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {LIMIT}; exec \"$@\""), "sh"]);
    shell.arg(serve.get_program()).args(serve.get_args());
    shell.stdout(Stdio::piped()).stderr(Stdio::null());
    Serving::start(stage, shell)
}

fn stage() -> Stage {
    let stage = Stage::new();
    server().psql(&stage.database, TABLE).unwrap();
    make_starts_cheap(&stage);
    // Made without the limit, as by a gateway that has run before.
    stage.serve().stop();
    stage
}

fn evidence(stage: &Stage) -> Evidence {
    let key = PublicKey::load(&stage.path("data/recording.pub")).unwrap();
    Evidence::new(&stage.path("data/recordings"), key)
}

/// What is in the database must be in the record; returns how many writes that are.
fn compare(stage: &Stage, evidence: &mut Evidence) -> usize {
    evidence.look();
    let rows = server().psql(&stage.database, "SELECT tag FROM writes").unwrap();
    let committed = rows.lines().map(|tag| (tag.to_owned(), 1)).collect();
    assert_eq!(evidence.missing(&committed), Vec::<&str>::new(), "committed without a record");
    committed.len()
}

async fn log_in(stage: &Stage, serving: &Serving<'_>) -> Result<RawPg<TcpStream>> {
    let mut pg = RawPg::connect(&serving.address).await?;
    pg.log_in("agent", &stage.database, &stage.agent()).await?;
    Ok(pg)
}

fn insert(tag: &str) -> String {
    format!("INSERT INTO writes VALUES ('{tag}', 1, 0)")
}

#[tokio::test]
async fn a_session_without_room_is_refused_and_others_go_on() {
    let stage = stage();
    let (mut evidence, serving) = (evidence(&stage), limited(&stage));
    let mut other = log_in(&stage, &serving).await.unwrap();
    let mut pg = log_in(&stage, &serving).await.unwrap();
    let mut written = 0;
    let refused = loop {
        assert!(written < TOO_MANY, "the limit was never met");
        pg.send(&query(&insert(&format!("LfullN{written}")))).await.unwrap();
        let frame = pg.frame().await.unwrap();
        if frame.tag == b'E' {
            break frame.fault().unwrap();
        }
        assert_eq!(frame.tag, b'C');
        assert_eq!(pg.frame().await.unwrap().tag, b'Z');
        written += 1;
    };
    assert!(written > 20, "{written}");
    assert!(refused.to_string().contains("record"), "{refused}");
    println!("after {written} writes: {refused}");
    // It may refuse one statement or end the session; either way nothing more of it reaches the table.
    if pg.send(&query(&insert("LafterN1"))).await.is_ok() {
        pg.until_closed().await.unwrap();
    }
    assert!(other.query(&insert("LotherN1")).await.unwrap().error().is_none());
    assert!(log_in(&stage, &serving).await.unwrap().query("SELECT 1").await.unwrap().error().is_none());
    assert_eq!(compare(&stage, &mut evidence) as u64, written + 1);
    drop((other, serving));
    serves_again(&stage);
    compare(&stage, &mut evidence);
}

#[tokio::test]
async fn sessions_are_refused_when_they_cannot_be_listed() {
    let stage = stage();
    let (mut evidence, serving) = (evidence(&stage), limited(&stage));
    let mut early = log_in(&stage, &serving).await.unwrap();
    let mut sessions = 0;
    let refused = loop {
        assert!(sessions < TOO_MANY, "the limit was never met");
        let tag = format!("LmanyN{sessions}");
        match log_in(&stage, &serving).await {
            Err(error) => break error.to_string(),
            Ok(mut pg) => assert!(pg.query(&insert(&tag)).await.unwrap().error().is_none()),
        }
        sessions += 1;
    };
    assert!(sessions > 3 && refused.contains("record"), "after {sessions}: {refused}");
    println!("after {sessions} sessions: {refused}");
    assert!(early.query(&insert("LearlyN1")).await.unwrap().error().is_none());
    assert_eq!(compare(&stage, &mut evidence), sessions as usize + 1);
    drop((early, serving));
    serves_again(&stage);
    compare(&stage, &mut evidence);
}

/// A new process without the limit: as if the space were back.
fn serves_again(stage: &Stage) {
    let serving = stage.serve();
    assert_eq!(serving.psql(&insert("LagainN1")), "");
    serving.stop();
    let (recordings, key) = (stage.arg("data/recordings"), stage.arg("data/recording.pub"));
    gateway(&["sessions", "verify", &recordings, "--key", &key]).success().unwrap();
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let stage = stage();
    let mut command = stage.to_serve();
    command
        .env("GATEWAY_LOG", "trace")
        .stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let serving = Serving::start(&stage, command);
    assert_eq!(serving.psql(&insert("LlogN1")), "");
    assert!(serving.psql("DROP TABLE writes").contains("ERROR"));
    assert_eq!(serving.psql("SELECT count(*) FROM writes"), "1");
    serving.signal("HUP");
    assert_eq!(serving.psql("SELECT 1"), "1");
    serving.stop();
    assert_eq!(compare(&stage, &mut evidence(&stage)), 1);
}

#[test]
fn reviewers_are_refused_when_the_audit_log_is_full() {
    let stage = Stage::new();
    let alice = stage.person("alice", "dba");
    stage.serve().stop();
    std::fs::remove_file(stage.path("data/audit.log")).unwrap();
    std::os::unix::fs::symlink("/dev/full", stage.path("data/audit.log")).unwrap();
    let _serving = stage.serve();
    let refused = stage.command(&["approvals", "list", "--token-file", &alice]);
    assert!(!refused.status.success() && refused.stderr.contains("audit log"), "{refused:?}");
}
