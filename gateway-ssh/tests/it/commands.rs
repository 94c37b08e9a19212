//! Commands: judged, run exactly, masked, recorded.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gateway_core::recording::Record;
use testkit::{run, wait_until};

use crate::support::{ALL, DEADLINE, gateway, masking, server};

/// `id`, `echo` and `cat` are permitted, everything else is denied.
const SOME: &str = r#"
permit (principal, action == Action::"connect", resource);
@id("look")
permit (principal, action == Action::"exec", resource) when { ["id", "echo", "cat"].contains(resource.name) };
"#;

#[test]
fn a_permitted_command_runs_with_its_streams_and_status() {
    let gateway = gateway(ALL);
    let done = gateway.ssh_with_input(&["cat; echo problem >&2; exit 7"], "some input\n");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("some input\n", "problem\n"));
    assert_eq!(done.status.code(), Some(7));
}

#[test]
fn a_denied_command_says_why_and_never_reaches_the_target() {
    let gateway = gateway(SOME);
    let file = server().home().join("denied");
    let done = gateway.ssh(&[&format!("touch {}", file.display())]);
    assert_eq!(done.status.code(), Some(126));
    assert!(done.stderr.starts_with("denied: "), "{}", done.stderr);
    assert!(done.stderr.contains("[forbidden]"), "{}", done.stderr);
    assert!(!file.exists());
    assert_eq!(gateway.ssh(&["echo fine"]).stdout, "fine\n");
}

#[test]
fn the_connection_stays_usable_after_a_denial() {
    let gateway = gateway(SOME);
    let control = gateway.path("control");
    let shared = ["-o", &format!("ControlPath={}", control.display()), "-o", "ControlMaster=auto"];
    let mut master = gateway.client("ssh");
    master.args(shared).args(["-N", "agent-7@127.0.0.1"]);
    let _master = testkit::Guard::spawn(&mut master).unwrap();
    assert!(wait_until(|| control.exists(), DEADLINE));
    let ask = |command: &str| gateway.ssh(&[&shared[..2], &[command]].concat());
    assert_eq!(ask("uname").status.code(), Some(126));
    assert_eq!(ask("echo again").stdout, "again\n");
    assert_eq!(gateway.recorder.sessions().len(), 1);
}

#[test]
fn what_the_target_says_is_masked_on_both_streams_and_recorded_masked() {
    let gateway = masking(ALL);
    let done =
        gateway.ssh(&["printf 'card 4111 1111 '; sleep 0.2; echo 1111 1111 end; echo a@example.com >&2"]);
    assert!(!done.stdout.contains("1111 1111"), "{}", done.stdout);
    assert!(done.stdout.starts_with("card ") && done.stdout.ends_with(" end\n"), "{}", done.stdout);
    assert!(!done.stderr.contains("a@example.com"), "{}", done.stderr);
    let mut released = Vec::new();
    let mut completed = None;
    for record in gateway.records() {
        match record {
            Record::Released { bytes, encoding, .. } if encoding == "ssh/stdout" => {
                released.extend_from_slice(&bytes)
            }
            Record::Completed { outcome, masked, .. } if outcome.starts_with("exit") => {
                completed = Some((outcome, masked))
            }
            _ => {}
        }
    }
    assert_eq!(String::from_utf8(released).unwrap(), done.stdout);
    let (outcome, masked) = completed.unwrap();
    assert_eq!(outcome, "exit 0");
    assert_eq!(masked.iter().map(|(_, count)| count).sum::<u64>(), 2, "{masked:?}");
}

#[test]
fn the_gateways_credential_is_masked_even_if_the_target_prints_it() {
    let gateway = gateway(ALL);
    let key = server().client_key().private();
    let pem = server().client_key().pem().unwrap();
    let done = gateway.ssh(&[&format!("base64 -w0 {}", key.display())]);
    assert!(done.status.success());
    assert!(!done.stdout.contains(&pem[40..80]), "{}", done.stdout);
    assert!(done.stdout.len() < pem.len(), "{}", done.stdout);
}

#[test]
fn signals_that_end_a_command_are_passed_on() {
    let gateway = gateway(ALL);
    let done = gateway.ssh(&["kill -TERM $$"]);
    // The stock client has no exit status to give and says 255.
    assert_eq!(done.status.code(), Some(255));
    assert!(
        gateway
            .records()
            .iter()
            .any(|r| matches!(r, Record::Completed { outcome, .. } if outcome == "signal TERM"))
    );
}

#[test]
fn input_may_end_before_output_and_output_before_the_command() {
    let gateway = gateway(ALL);
    let done = gateway.ssh_with_input(&["wc -c; sleep 0.2; echo later"], "12345");
    assert_eq!(done.stdout, "5\nlater\n");
    let done = gateway.ssh(&["exec >&- 2>&-; sleep 0.2; exit 3"]);
    assert_eq!(done.status.code(), Some(3));
}

#[test]
fn large_streams_both_ways_come_through_exactly() {
    let gateway = gateway(ALL);
    // More than all windows and queues on the way hold, through a filter that stops reading when nobody reads from it.
    let line = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ hello\n";
    let text = line.repeat(12 * 1024 * 1024 / line.len());
    let done = run(gateway.client("ssh").args(["agent-7@127.0.0.1", "cat"]), &text, Duration::from_secs(180))
        .unwrap();
    assert!(done.stdout == text, "{} of {} bytes; {}", done.stdout.len(), text.len(), done.stderr);
}

#[test]
fn a_client_that_does_not_read_stops_its_target_and_nobody_else() {
    let gateway = gateway(ALL);
    let control = gateway.path("control");
    let shared = format!("ControlPath={}", control.display());
    let mut endless = gateway.client("ssh");
    endless.args(["-o", &shared, "-o", "ControlMaster=yes", "agent-7@127.0.0.1", "yes nothing"]);
    // Nobody ever reads from this pipe.
    let _endless = testkit::Guard::spawn(endless.stdout(Stdio::piped()).stdin(Stdio::null())).unwrap();
    assert!(wait_until(|| control.exists(), DEADLINE));
    let released = || {
        let pieces = gateway.records().into_iter().filter_map(|record| match record {
            Record::Released { bytes, .. } => Some(bytes.len()),
            _ => None,
        });
        pieces.sum::<usize>()
    };
    // It comes to rest once every buffer on the way is full.
    let mut last = (0, Instant::now());
    assert!(wait_until(
        || {
            let now = released();
            if now != last.0 {
                last = (now, Instant::now());
            }
            now > 0 && last.1.elapsed() > Duration::from_secs(1)
        },
        DEADLINE
    ));
    assert!(released() < 16 << 20, "{}", released());
    assert_eq!(gateway.ssh(&["-o", &shared, "echo sibling"]).stdout, "sibling\n");
}

#[test]
fn a_command_that_does_not_read_does_not_lose_its_output() {
    let gateway = gateway(ALL);
    let mut ssh = gateway.client("ssh");
    ssh.args(["agent-7@127.0.0.1", "echo first; sleep 1; echo last"]);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || while input.write_all(&[b'x'; 65536]).is_ok() {});
    let done = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "first\nlast\n");
    assert!(done.status.success() && done.status.signal().is_none());
}

#[test]
fn the_status_reaches_clients_that_close_first() {
    // A shared connection's client closes the channel once both directions have ended; the status comes before that.
    let gateway = gateway(ALL);
    let control = gateway.path("control");
    let shared = format!("ControlPath={}", control.display());
    let mut master = gateway.client("ssh");
    master.args(["-o", &shared, "-o", "ControlMaster=yes", "-N", "agent-7@127.0.0.1"]);
    let _master = testkit::Guard::spawn(&mut master).unwrap();
    assert!(wait_until(|| control.exists(), DEADLINE));
    for command in ["exec >&- 2>&-; sleep 0.3; exit 3", "cat; exec >&- 2>&-; sleep 0.1; exit 3", "exit 3"] {
        let done = gateway.ssh_with_input(&["-o", &shared, command], "input");
        assert_eq!(done.status.code(), Some(3), "{command}: {}", done.stderr);
    }
}

#[test]
fn the_end_of_the_output_reaches_a_client_that_waits_for_it() {
    let gateway = gateway(ALL);
    let mut ssh = gateway.client("ssh");
    ssh.args(["agent-7@127.0.0.1", "exec >&- 2>&-; cat >/dev/null; exit 4"]);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = Vec::new();
    std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut output).unwrap();
    assert!(output.is_empty());
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(4));
}
