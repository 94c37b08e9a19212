//! Command at a time: every line judged, run by itself, recorded as what ran; with stock `ssh`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gateway_core::approval::{Approver, Verdict};
use gateway_core::recording::{Record, RecordedOperation};
use gateway_ssh::ShellMode;
use testkit::{Finished, run, wait_until};

use crate::support::{ALL, DEADLINE, Gateway, Setup, server};

fn lines(policy: &str) -> Gateway {
    let mut setup = Setup::new(policy);
    setup.target = setup.target.shell(ShellMode::CommandAtATime);
    setup.start()
}

/// A few programs, one variable, and the folders below this one; no terminal.
fn some(folder: &Path) -> String {
    format!(
        r#"
permit (principal, action in [Action::"connect", Action::"command_shell"], resource);
permit (principal, action == Action::"exec", resource)
when {{ context.resolved && ["echo", "cat", "pwd", "printenv", "false", "sleep", "rm", "printf"].contains(resource.name) }};
permit (principal, action == Action::"env", resource == Variable::"web1/PLAN");
permit (principal, action == Action::"change_directory", resource in Path::"web1{}");
permit (principal, action == Action::"signal", resource);
@id("hold-rm")
@approval("reviewers=ops; quorum=1; ttl=1m")
forbid (principal, action == Action::"exec", resource == Command::"web1/rm") unless {{ context.approvals.contains("ops") }};
"#,
        folder.display()
    )
}

/// A fresh folder on the server with a note in it.
fn folder() -> PathBuf {
    let folder = tempfile::tempdir_in(server().home()).unwrap().keep();
    let folder = std::fs::canonicalize(folder).unwrap();
    std::fs::write(folder.join("note"), "text of the note\n").unwrap();
    folder
}

fn talk(gateway: &Gateway, options: &[&str], typed: &str) -> Finished {
    let mut ssh = gateway.client("ssh");
    run(ssh.args(options).arg("agent-7@127.0.0.1"), typed, DEADLINE).unwrap()
}

fn presented(gateway: &Gateway) -> Vec<RecordedOperation> {
    let operations = gateway.records().into_iter().filter_map(|record| match record {
        Record::Presented { operations, .. } => Some(operations),
        _ => None,
    });
    operations.flatten().collect()
}

#[test]
fn lines_share_folder_variables_and_status_and_each_is_judged() {
    let there = folder();
    let gateway = lines(&some(&there));
    let typed = format!(
        "echo one\n# a note\n\ncd {0}\npwd\ncat note\nexport PLAN='b l'\nprintenv PLAN\nfalse\necho status $?\nuname\n\
         export LD_PRELOAD=/x\nunset PLAN\nprintenv PLAN\ncd -\ncat\necho last\nexit 7\necho never\n",
        there.display()
    );
    let done = talk(&gateway, &["-T"], &typed);
    let expected = format!("one\n{}\ntext of the note\nb l\nstatus 1\nlast\n", there.display());
    assert_eq!(done.stdout, expected, "{}", done.stderr);
    assert_eq!(done.status.code(), Some(7), "{}", done.stderr);
    assert_eq!(done.stderr.matches("denied: ").count(), 2, "{}", done.stderr);
    assert!(done.stderr.contains(&format!("web1:{}$ ", there.display())), "{}", done.stderr);
    assert!(done.stderr.contains("[1] web1:") && done.stderr.contains("[126] web1:"), "{}", done.stderr);
    let operations = presented(&gateway);
    let ran = |kind: &str| {
        operations.iter().filter(|o| o.kind == kind).map(|o| o.statement.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ran("command_shell"), [""]);
    assert!(ran("pty").is_empty());
    assert!(
        ran("exec").contains(&format!("cd -P -- '{}' || exit 125\n'cat' 'note'", there.display())),
        "{operations:?}"
    );
    assert!(ran("env").contains(&"LD_PRELOAD=/x".to_owned()), "{operations:?}");
    let note = operations.iter().find(|o| o.statement.ends_with("'cat' 'note'")).unwrap();
    assert_eq!(note.facts.get("directory"), Some(&there.to_str().unwrap().into()));
    let ended = gateway
        .records()
        .into_iter()
        .any(|r| matches!(r, Record::Completed { outcome, .. } if outcome == "exit 7"));
    assert!(ended);
}

#[test]
fn at_a_terminal_lines_are_echoed_edited_and_masked() {
    let there = folder();
    let gateway = lines(&some(&there));
    let typed = format!(
        "echo onn\x7fe\rcd {}\rcat note\rprintf '4111\\033[1m 1111 1111 1111\\n'\runame\r\x04",
        there.display()
    );
    let done = talk(&gateway, &["-tt"], &typed);
    assert_eq!(done.status.code(), Some(126), "{done:?}");
    for shown in
        ["web1:~$ echo onn\x08 \x08e\r\none\r\n", "text of the note\r\n", "**** **** **** 1111\x1b[1m\r\n"]
    {
        assert!(done.stdout.contains(shown), "{shown:?} in {:?}", done.stdout);
    }
    assert!(done.stderr.contains("denied: "), "{done:?}");
    assert!(presented(&gateway).iter().all(|o| o.kind != "pty"));
    let terminal = |r: &Record| matches!(r, Record::Released { encoding, .. } if encoding == "ssh/terminal");
    assert!(gateway.records().iter().any(terminal));
}

#[test]
fn a_command_of_several_lines_is_one_command() {
    let gateway = lines(ALL);
    let typed =
        "echo 'a\nb'\necho c \\\nd\nfor x in 1 2; do\necho $x\ndone\ncat <<E\nhere\nE\necho )\necho 'open";
    let done = talk(&gateway, &["-T"], typed);
    assert_eq!(done.stdout, "a\nb\nc d\n1\n2\nhere\n", "{}", done.stderr);
    assert!(!presented(&gateway).iter().any(|o| o.statement.contains("open")));
}

#[test]
fn folders_are_judged_where_they_are_named_and_where_they_lead() {
    let there = folder();
    std::os::unix::fs::symlink("/etc", there.join("link")).unwrap();
    let gateway = lines(&some(&there));
    let typed = format!(
        "cd {0}\ncd /etc\npwd\ncd /no-such-folder\ncd link\npwd\ncd nowhere\npwd\ncd ..\npwd\ncd '{0}/a;b'\npwd\n",
        there.display()
    );
    let done = talk(&gateway, &["-T"], &typed);
    assert_eq!(done.stdout, format!("{}\n", there.display()).repeat(5), "{}", done.stderr);
    // Absent and forbidden read alike.
    assert_eq!(done.stderr.matches("denied: ").count(), 4, "{}", done.stderr);
    assert_eq!(done.stderr.matches("there is no such folder").count(), 2, "{}", done.stderr);
}

#[test]
fn a_held_line_waits_and_runs_once_it_is_approved() {
    let there = folder();
    let gateway = lines(&some(&there));
    let mut events = gateway.approver.subscribe();
    let typed = format!("cd {}\nrm note\necho gone $?\n", there.display());
    let done = std::thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&gateway, &["-T"], &typed));
        gateway.block_on(gateway.review(&mut events, Verdict::Approve));
        talking.join().unwrap()
    });
    assert_eq!(done.stdout, "gone 0\n", "{}", done.stderr);
    assert!(done.stderr.contains("held: request "), "{}", done.stderr);
    assert!(!there.join("note").exists());
}

#[test]
fn ctrl_c_ends_a_line_and_not_the_session() {
    let there = folder();
    let gateway = lines(&some(&there));
    let mut ssh = gateway.client("ssh");
    ssh.args(["-tt", "agent-7@127.0.0.1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"sleep 60\r").unwrap();
    let allowed = || {
        let sleeps = presented(&gateway).into_iter().find(|o| o.statement.contains("sleep"));
        sleeps.is_some_and(|sleep| {
            gateway
                .records()
                .iter()
                .any(|r| matches!(r, Record::Allowed { operations, .. } if operations.contains(&sleep.id)))
        })
    };
    assert!(wait_until(allowed, DEADLINE));
    // Twice: the first may come before the program is there.
    input.write_all(b"\x03\x03").unwrap();
    let over = |r: &Record| matches!(r, Record::Completed { outcome, .. } if outcome == "signal INT" || outcome == "interrupted");
    let interrupted = || {
        input.write_all(b"\x03").unwrap();
        gateway.records().iter().any(over)
    };
    assert!(wait_until(interrupted, DEADLINE));
    input.write_all(b"\recho after\rexit 3\r").unwrap();
    drop(input);
    let done = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(shown.contains("[130] web1:~$ ") && shown.contains("\nafter\r\n"), "{shown:?}");
    assert_eq!(done.status.code(), Some(3), "{shown:?}");
}

#[test]
fn without_the_permit_there_is_no_prompt() {
    let gateway = lines(
        r#"permit (principal, action in [Action::"connect", Action::"exec", Action::"shell", Action::"pty"], resource);"#,
    );
    for options in ["-T", "-tt"] {
        let done = talk(&gateway, &[options], "echo x\n");
        assert_eq!((done.stdout.as_str(), done.status.code()), ("", Some(126)), "{}", done.stderr);
        assert!(done.stderr.contains("denied: "), "{}", done.stderr);
    }
    // What is not a shell is as everywhere, and its terminal is judged.
    assert_eq!(gateway.ssh(&["echo direct"]).stdout, "direct\n");
    assert!(gateway.ssh(&["-tt", "tty"]).stdout.contains("/dev/"));
    let no_terminal =
        lines(r#"permit (principal, action in [Action::"connect", Action::"exec"], resource);"#);
    let done = no_terminal.ssh(&["-tt", "echo x"]);
    assert!(done.stdout.is_empty() && done.stderr.contains("denied: "), "{done:?}");
}

#[test]
fn a_command_of_too_many_lines_ends_the_session_and_none_of_its_lines_runs() {
    let gateway = lines(ALL);
    let done = talk(&gateway, &["-T"], &format!("echo '\n{}'\necho after\n", "echo inside\n".repeat(300)));
    assert_eq!((done.stdout.as_str(), done.status.code()), ("", Some(2)), "{}", done.stderr);
    assert!(done.stderr.contains("too many lines"), "{}", done.stderr);
}
