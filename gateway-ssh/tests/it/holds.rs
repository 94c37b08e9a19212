//! What waits for people.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use gateway_core::approval::{Approver, RequestState, Verdict};
use gateway_core::recording::Record;
use testkit::{Finished, client_options, run, wait_until};

use crate::support::{DEADLINE, Gateway, Setup, gateway, keys, server};

/// `rm` needs approval.
const HELD: &str = r#"
permit (principal, action in [Action::"connect", Action::"exec"], resource);
@id("hold-rm")
@approval("reviewers=ops; quorum=1; ttl=1m")
forbid (principal, action == Action::"exec", resource == Command::"web1/rm") unless { context.approvals.contains("ops") };
"#;

/// Starts `rm` of this file; it will wait.
fn removing(gateway: &Gateway, victim: &Path) -> JoinHandle<Finished> {
    let mut ssh = gateway.client("ssh");
    ssh.arg("agent-7@127.0.0.1").arg(format!("rm {}", victim.display()));
    std::thread::spawn(move || run(&mut ssh, "", DEADLINE).unwrap())
}

#[test]
fn a_held_command_runs_once_it_is_approved_and_only_once() {
    let gateway = gateway(HELD);
    let victim = server().home().join("victim");
    std::fs::write(&victim, "x").unwrap();
    let mut events = gateway.approver.subscribe();
    let waiting = removing(&gateway, &victim);
    let request = gateway.block_on(gateway.review(&mut events, Verdict::Approve));
    let done = waiting.join().unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    assert!(
        done.stderr.starts_with(&format!("held: request {request} waits for approval by ops until ")),
        "{}",
        done.stderr
    );
    assert!(!victim.exists());
    assert_eq!(gateway.state(request), RequestState::Used);
    // The same once more is another request.
    std::fs::write(&victim, "x").unwrap();
    let waiting = removing(&gateway, &victim);
    let second = gateway.block_on(gateway.review(&mut events, Verdict::Reject));
    let done = waiting.join().unwrap();
    assert_ne!(request, second);
    assert!(done.stderr.starts_with(&format!("held: request {second} ")), "{}", done.stderr);
    assert!(done.stderr.contains("denied: ") && done.status.code() == Some(126), "{done:?}");
    assert!(victim.exists());
}

#[test]
fn a_client_that_leaves_withdraws_its_request() {
    let gateway = gateway(HELD);
    let victim = server().home().join("spared");
    std::fs::write(&victim, "x").unwrap();
    let mut ssh = gateway.client("ssh");
    ssh.arg("agent-7@127.0.0.1").arg(format!("rm {}", victim.display())).stderr(Stdio::null());
    let waiting = testkit::Guard::spawn(&mut ssh).unwrap();
    let held = || {
        gateway.records().into_iter().find_map(|record| match record {
            Record::Held { request, .. } => Some(request),
            _ => None,
        })
    };
    assert!(wait_until(|| held().is_some(), DEADLINE));
    drop(waiting);
    let state = || gateway.state(held().unwrap());
    assert!(wait_until(|| state() != RequestState::Pending, DEADLINE), "{:?}", state());
    assert!(victim.exists());
}

/// A gateway that gives up on clients that answer nothing for so long, and asks them so often.
fn asking(keepalive: Duration, silence: Duration) -> Gateway {
    let mut setup = Setup::new(HELD);
    setup.content = false;
    (setup.limits.keepalive, setup.limits.silence) = (keepalive, silence);
    setup.start()
}

/// The questions that fill the time of silence and more.
const ASKED: usize = 80;

#[test]
fn a_client_that_waits_is_kept_by_the_questions_whether_it_lives() {
    let gateway = asking(Duration::from_millis(50), Duration::from_secs(3));
    let victim = server().home().join("kept");
    std::fs::write(&victim, "x").unwrap();
    let mut events = gateway.approver.subscribe();
    let mut ssh = Command::new("ssh");
    let options = client_options(keys().agent.private(), gateway.address.port());
    ssh.args(options.iter().map(|option| option.replace("LogLevel=ERROR", "LogLevel=DEBUG1")));
    ssh.arg("agent-7@127.0.0.1").arg(format!("rm {}", victim.display()));
    let mut child = ssh.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let asked = |line: &String| line.contains("rtype keepalive@openssh.com want_reply 1");
    let mut questions = said.skip_while(|line| !line.starts_with("held: ")).filter(asked);
    assert_eq!(questions.by_ref().take(ASKED).count(), ASKED);
    gateway.block_on(gateway.review(&mut events, Verdict::Approve));
    questions.for_each(drop);
    assert!(child.wait().unwrap().success());
    assert!(!victim.exists());
}

#[test]
fn a_client_that_waits_unasked_is_given_up() {
    let gateway = asking(Duration::from_secs(3600), Duration::from_secs(1));
    let spared = server().home().join("unasked");
    std::fs::write(&spared, "x").unwrap();
    let done = removing(&gateway, &spared).join().unwrap();
    assert_eq!(done.status.code(), Some(255), "{done:?}");
    assert!(done.stderr.starts_with("held: ") && spared.exists(), "{done:?}");
}
