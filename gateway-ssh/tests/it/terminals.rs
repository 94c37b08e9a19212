//! Shells and terminals: off unless permitted; then recorded and masked.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use gateway_core::recording::Record;
use testkit::run;

use crate::support::{ALL, DEADLINE, gateway, masking};

const NO_SHELL: &str = r#"
permit (principal, action, resource) unless { [Action::"reveal", Action::"shell", Action::"pty", Action::"env"].contains(action) };
"#;

#[test]
fn shells_and_terminals_are_refused_in_words() {
    let gateway = gateway(NO_SHELL);
    for options in [&["-T"][..], &["-tt"][..]] {
        let mut ssh = gateway.client("ssh");
        let done = run(ssh.args(options).arg("agent-7@127.0.0.1"), "id\n", DEADLINE).unwrap();
        assert_eq!((done.stdout.as_str(), done.status.code()), ("", Some(126)), "{}", done.stderr);
        assert!(done.stderr.contains("denied: "), "{}", done.stderr);
    }
    let done = gateway.ssh(&["-tt", "echo x"]);
    assert!(done.stdout.is_empty() && done.stderr.contains("denied: "), "{done:?}");
}

#[test]
fn a_permitted_shell_is_masked_and_recorded_with_its_size() {
    let gateway = masking(ALL);
    let mut ssh = gateway.client("ssh");
    ssh.args(["-tt", "agent-7@127.0.0.1"]);
    let done = run(&mut ssh, "stty size; echo 4111 1111 1111 \"1111\" end; exit 5\n", DEADLINE).unwrap();
    assert_eq!(done.status.code(), Some(5), "{}", done.stderr);
    assert!(!done.stdout.contains("1111 1111 1111 1111") && done.stdout.contains(" end"), "{}", done.stdout);
    let mut released = Vec::new();
    let mut pty = 0;
    for record in gateway.records() {
        match record {
            Record::Released { bytes, encoding, .. } if encoding == "ssh/terminal" => {
                released.extend_from_slice(&bytes)
            }
            Record::Presented { operations, .. } => {
                pty += operations.iter().filter(|o| o.kind == "pty").count()
            }
            _ => {}
        }
    }
    assert_eq!(String::from_utf8_lossy(&released), done.stdout);
    assert_eq!(pty, 1);
}

#[test]
fn variables_are_dropped_unless_permitted() {
    let set = ["-o", "SetEnv=PLAN=blue", "echo \"[$PLAN]\""];
    assert_eq!(gateway(NO_SHELL).ssh(&set).stdout, "[]\n");
    assert_eq!(gateway(ALL).ssh(&set).stdout, "[blue]\n");
}

/// A shell at a terminal, and somebody who waits for what it shows before typing on.
struct Typist {
    ssh: Child,
    shown: Receiver<Vec<u8>>,
    all: String,
}

impl Typist {
    fn new(mut ssh: Command) -> Self {
        let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, shown) = channel();
        let mut stdout = ssh.stdout.take().unwrap();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut piece) {
                if sender.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { ssh, shown, all: String::new() }
    }

    /// Types a line and waits until `mark` is shown behind it.
    fn line(&mut self, line: &str, mark: &str) {
        let from = self.all.len();
        writeln!(self.ssh.stdin.as_ref().unwrap(), "{line}").unwrap();
        while !self.all[from..].contains(mark) {
            let piece =
                self.shown.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no `{mark}` in {}", self.all));
            self.all.push_str(&String::from_utf8_lossy(&piece));
        }
    }
}

#[test]
fn commands_in_a_shell_are_observed_and_what_is_typed_unseen_is_not() {
    let gateway = masking(ALL);
    let mut ssh = gateway.client("ssh");
    ssh.args(["-tt", "agent-7@127.0.0.1"]);
    let mut typist = Typist::new(ssh);
    typist.line("echo sum-$((40+2))", "sum-42");
    typist.line("stty -echo; echo off-$((1+1))", "off-2");
    typist.line(": hunter2-unseen; echo done-$((1+1))", "done-2");
    typist.line("stty echo; echo on-$((1+1))", "on-2");
    typist.line("echo card 4111 1111 1111 1111 end-$((1+1))", "end-2");
    typist.line("exit 5", "exit 5");
    assert_eq!(typist.ssh.wait().unwrap().code(), Some(5));
    let observed: Vec<String> = gateway
        .records()
        .into_iter()
        .filter_map(|record| match record {
            Record::Observed { statement, .. } => Some(statement),
            _ => None,
        })
        .collect();
    let find = |text: &str| observed.iter().any(|line| line.contains(text));
    assert!(find("echo sum-$((40+2))") && find("stty -echo") && find("exit 5"), "{observed:?}");
    assert!(!find("hunter2") && !find("4111 1111 1111 1111"), "{observed:?}");
}
