//! Files: each request judged on the path the target resolves, content masked, with the stock `sftp` and `scp`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_core::approval::{Approver, RequestState, Verdict};
use gateway_core::policy::cedar::PolicyFile;
use gateway_core::recording::Record;
use testkit::{Finished, run};

use crate::support::{ALL, DEADLINE, Gateway, gateway, keys, masking, server};

/// A fresh folder on the server.
fn folder() -> PathBuf {
    let folder = tempfile::tempdir_in(server().home()).unwrap().keep();
    std::fs::canonicalize(folder).unwrap()
}

/// Runs a batch of `sftp` commands; stops at the first that fails.
fn sftp(gateway: &Gateway, batch: &str) -> Finished {
    let mut sftp = gateway.client("sftp");
    run(sftp.args(["-b", "-", "agent-7@127.0.0.1"]), batch, DEADLINE).unwrap()
}

/// Everything about files is permitted below this folder, and looking everywhere.
fn below(folder: &std::path::Path) -> String {
    let id = format!("web1{}", folder.display());
    format!(
        r#"
permit (principal, action == Action::"connect", resource);
permit (principal, action == Action::"subsystem", resource == Subsystem::"web1/sftp");
permit (principal, action == Action::"stat_file", resource);
permit (principal, action in [Action::"read_file", Action::"write_file", Action::"list_files", Action::"make_directory",
    Action::"remove_file", Action::"rename_file"], resource in Path::"{id}");
"#
    )
}

#[test]
fn files_go_both_ways_and_every_request_is_recorded_with_its_real_path() {
    let (gateway, there) = (gateway(ALL), folder());
    let (local, back) = (gateway.path("local"), gateway.path("back"));
    let text = "just a line of text\n".repeat(20_000);
    std::fs::write(&local, &text).unwrap();
    let there = there.display();
    let batch = format!(
        "put {} {there}/a\nrename {there}/a {there}/b\nmkdir {there}/d\nls -l {there}\nget {there}/b {}\nrm {there}/b\n",
        local.display(),
        back.display()
    );
    let done = sftp(&gateway, &batch);
    assert!(done.status.success(), "{} {}", done.stdout, done.stderr);
    assert_eq!(std::fs::read_to_string(&back).unwrap(), text);
    let mut said = Vec::new();
    for record in gateway.records() {
        if let Record::Presented { operations, .. } = record {
            said.extend(operations.into_iter().map(|o| o.statement.to_string()));
        }
    }
    for wanted in [
        format!("open {there}/a"),
        format!("posix_rename {there}/a {there}/b"),
        format!("mkdir {there}/d"),
        format!("opendir {there}"),
        format!("open {there}/b"),
        format!("remove {there}/b"),
    ] {
        assert!(said.contains(&wanted), "{wanted}: {said:?}");
    }
}

#[test]
fn what_is_not_permitted_is_refused_in_words_and_the_session_goes_on() {
    let there = folder();
    let gateway = gateway(&below(&there));
    std::fs::write(there.join("fine"), "fine\n").unwrap();
    let outside = server().home().join("outside");
    std::fs::write(&outside, "secret\n").unwrap();
    let got = gateway.path("got");
    let batch = format!(
        "-get {} {g}\n-chmod 777 {t}/fine\n-symlink {t}/fine {t}/link\nget {t}/fine {g}\n",
        outside.display(),
        g = got.display(),
        t = there.display(),
    );
    let done = sftp(&gateway, &batch);
    assert!(done.status.success(), "{} {}", done.stdout, done.stderr);
    assert!(done.stderr.matches("denied: ").count() >= 3, "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(&got).unwrap(), "fine\n");
    assert!(!there.join("link").exists());
}

#[test]
fn a_link_leads_to_the_file_that_is_judged() {
    let there = folder();
    let gateway = gateway(&below(&there));
    let secret = server().home().join("behind-the-link");
    std::fs::write(&secret, "secret\n").unwrap();
    std::os::unix::fs::symlink(&secret, there.join("file")).unwrap();
    std::os::unix::fs::symlink(server().home(), there.join("folder")).unwrap();
    let got = gateway.path("got");
    for path in ["file", "folder/behind-the-link", "../behind-the-link", "./x/../../behind-the-link"] {
        let done = sftp(&gateway, &format!("get {}/{path} {}\n", there.display(), got.display()));
        assert!(!done.status.success(), "{path}");
        assert!(!got.exists(), "{path}");
    }
    let done = sftp(
        &gateway,
        &format!("put {} {}/file\n", server().client_key().private().display(), there.display()),
    );
    assert!(!done.status.success());
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret\n");
}

#[test]
fn content_is_masked_at_its_length_wherever_a_read_cuts_it() {
    let (gateway, there) = (masking(ALL), folder());
    let card = "4111 1111 1111 1111";
    // Reads are of 32 KiB; the numbers lie across, before and behind their edges, and at the end.
    let mut text = String::new();
    for edge in [32_768, 65_536, 98_304] {
        for at in [edge - 10, edge + 40] {
            text.push_str(&"x ".repeat((at - text.len()) / 2));
            text.push_str(card);
            text.push(' ');
            text.push_str(if text.len().is_multiple_of(2) { "" } else { "y" });
        }
    }
    text.push_str(card);
    std::fs::write(there.join("cards"), &text).unwrap();
    let got = gateway.path("got");
    let done = sftp(&gateway, &format!("get {}/cards {}\n", there.display(), got.display()));
    assert!(done.status.success(), "{}", done.stderr);
    let shown = std::fs::read_to_string(&got).unwrap();
    assert_eq!(shown.len(), text.len());
    assert_eq!(shown, text.replace(card, &"*".repeat(card.len())));
    let mut cat = gateway.client("scp");
    let copied = gateway.path("copied");
    let from = format!("agent-7@127.0.0.1:{}/cards", there.display());
    assert!(run(cat.arg("-s").arg(from).arg(&copied), "", DEADLINE).unwrap().status.success());
    assert_eq!(std::fs::read_to_string(&copied).unwrap(), shown);
}

#[test]
fn what_is_not_text_is_shown_only_where_a_policy_reveals_it() {
    let there = folder();
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(there.join("image"), &bytes).unwrap();
    let hidden = gateway(ALL);
    let got = hidden.path("got");
    let batch = format!("get {}/image {}\n", there.display(), got.display());
    let done = sftp(&hidden, &batch);
    assert!(!done.status.success());
    assert!(done.stderr.contains("`reveal`"), "{}", done.stderr);
    let id = format!("web1{}", there.display());
    let open = gateway(&format!(
        "{ALL}\npermit (principal, action == Action::\"reveal\", resource in Path::\"{id}\");"
    ));
    let done = sftp(&open, &batch);
    assert!(done.status.success(), "{}", done.stderr);
    assert!(std::fs::read(&got).unwrap() == bytes);
}

#[test]
fn large_files_come_through_exactly() {
    let (gateway, there) = (gateway(ALL), folder());
    let (local, back) = (gateway.path("local"), gateway.path("back"));
    let text: String = (0..400_000).map(|n| format!("{n:08}\n")).collect();
    std::fs::write(&local, &text).unwrap();
    let batch =
        format!("put {} {t}/big\nget {t}/big {}\n", local.display(), back.display(), t = there.display());
    let mut sftp = gateway.client("sftp");
    let done = run(sftp.args(["-b", "-", "agent-7@127.0.0.1"]), &batch, Duration::from_secs(180)).unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    assert!(std::fs::read_to_string(there.join("big")).unwrap() == text);
    assert!(std::fs::read_to_string(&back).unwrap() == text);
}

/// A request of sftp version 3 with short strings only, so that it is UTF-8 as well.
fn frame(kind: u8, id: Option<u8>, strings: &[&str], tail: &[u8]) -> String {
    let mut body = vec![kind];
    body.extend(id.into_iter().flat_map(|id| [0, 0, 0, id]));
    for text in strings {
        body.extend([0, 0, 0, u8::try_from(text.len()).unwrap()]);
        body.extend(text.as_bytes());
    }
    body.extend(tail);
    let mut frame = vec![0, 0, 0, u8::try_from(body.len()).unwrap()];
    frame.extend(body);
    String::from_utf8(frame).unwrap()
}

const MKDIR: u8 = 14;
const RENAME: u8 = 18;
const OPEN: u8 = 3;
/// SSH_FXP_INIT, whose version stands where others have their id.
fn init() -> String {
    frame(1, Some(3), &[], &[])
}

/// Sends all frames at once, and the end of the input right behind them.
fn send(gateway: &Gateway, frames: &[String]) -> Finished {
    let mut ssh = gateway.client("ssh");
    run(ssh.args(["-s", "agent-7@127.0.0.1", "sftp"]), &(init() + &frames.concat()), DEADLINE).unwrap()
}

#[test]
fn nothing_that_was_sent_before_the_end_of_the_input_is_lost() {
    let (gateway, there) = (gateway(ALL), folder());
    // Each may change what the next one's path leads to, so that each waits for the one before.
    let folders: Vec<_> = (0..5).map(|n| there.join(format!("d{n}"))).collect();
    let frames: Vec<_> =
        (1..).zip(&folders).map(|(id, f)| frame(MKDIR, Some(id), &[f.to_str().unwrap()], &[0; 4])).collect();
    let done = send(&gateway, &frames);
    assert!(folders.iter().all(|folder| folder.is_dir()), "{done:?}");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
}

#[test]
fn a_path_is_judged_as_it_is_once_the_renames_before_it_are_done() {
    let (there, other) = (folder(), folder());
    std::fs::create_dir(there.join("d")).unwrap();
    std::fs::write(there.join("d/f"), "fine\n").unwrap();
    std::fs::write(other.join("f"), "secret\n").unwrap();
    std::os::unix::fs::symlink(&other, there.join("link")).unwrap();
    let gateway = gateway(&below(&there));
    let at = |name: &str| there.join(name).to_str().unwrap().to_owned();
    let read = [0, 0, 0, 1, 0, 0, 0, 0];
    let frames = [
        frame(RENAME, Some(1), &[&at("d"), &at("old")], &[]),
        frame(RENAME, Some(2), &[&at("link"), &at("d")], &[]),
        frame(OPEN, Some(3), &[&at("d/f")], &read),
        frame(OPEN, Some(4), &[&at("old/f")], &read),
    ];
    let done = send(&gateway, &frames);
    assert!(there.join("d").is_symlink(), "{done:?}");
    assert_eq!(done.stderr.matches("denied: ").count(), 1, "{done:?}");
    let mut opened = Vec::new();
    for record in gateway.records() {
        if let Record::Presented { operations, .. } = record {
            opened
                .extend(operations.into_iter().filter(|o| o.kind == "open").map(|o| o.statement.to_string()));
        }
    }
    assert_eq!(opened, [format!("open {}/f", other.display()), format!("open {}", at("old/f"))]);
}

#[test]
fn behind_a_link_to_what_is_forbidden_absent_and_present_read_alike() {
    let (there, other) = (folder(), folder());
    std::fs::create_dir(other.join("d")).unwrap();
    std::os::unix::fs::symlink(&other, there.join("link")).unwrap();
    let read = [0, 0, 0, 1, 0, 0, 0, 0];
    let gateway = gateway(&below(&there));
    for path in ["link/d/f", "link/absent/f", "link/absent/x/y/f", "link/f"] {
        let path = there.join(path);
        let done = send(&gateway, &[frame(OPEN, Some(1), &[path.to_str().unwrap()], &read)]);
        assert!(
            done.stderr.contains("denied: ") && !done.stdout.contains("no such file"),
            "{path:?}: {done:?}"
        );
    }
    let absent = there.join("absent/f");
    let done = send(&gateway, &[frame(OPEN, Some(1), &[absent.to_str().unwrap()], &read)]);
    assert!(done.stdout.contains("no such file"), "{done:?}");
}

#[test]
fn a_link_is_judged_by_what_it_would_lead_to() {
    let (there, other) = (folder(), folder());
    std::os::unix::fs::symlink(&other, there.join("way")).unwrap();
    let id = format!("web1{}", there.display());
    let links = format!("permit (principal, action == Action::\"link_file\", resource in Path::\"{id}\");");
    let gateway = gateway(&(below(&there) + &links));
    let there = there.display();
    let done = sftp(&gateway, &format!("-ln -s {there}/way/f {there}/bad\nln -s {there}/f {there}/good\n"));
    assert!(done.status.success() && done.stderr.contains("denied: "), "{done:?}");
    assert!(std::fs::read_link(format!("{there}/bad")).is_err());
    assert!(std::fs::read_link(format!("{there}/good")).is_ok());
}

#[test]
fn an_open_file_is_taken_away_when_the_policies_are() {
    let there = folder();
    let file = there.join("long");
    std::fs::write(&file, "text ".repeat(40_000)).unwrap();
    let (before, after) = (below(&there), format!("{NO_READING}\n"));
    let gateway = gateway(&before);
    let script = r#"
path = folder
file = client.open_sftp().open(path)
print(file.read(4).decode(), flush=True)
sys.stdin.readline()
file.seek(150000)
try:
    print("read", file.read(4))
except Exception as error:
    print("refused", error)
"#;
    let mut python = std::process::Command::new("/usr/bin/python3");
    let script = format!("{}{script}", crate::clients::PARAMIKO);
    python.args(["-c", &script, &gateway.address.port().to_string()]);
    python.arg(crate::support::keys().agent.private()).arg(&file);
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "text\n");
    gateway.engine.reload(&[PolicyFile::new("policy.cedar", &after)]).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("refused"), "{line}");
    assert!(child.wait().unwrap().success());
}

/// Files wait for nobody in the middle of a session: the request is refused, and passes once when it comes again after approval.
#[test]
fn a_held_file_request_passes_once_when_it_is_sent_again() {
    let there = folder();
    let gateway = gateway(&(below(&there) + HELD));
    let file = there.join("held");
    let remove = || sftp(&gateway, &format!("rm {}\n", file.display()));
    std::fs::write(&file, "x").unwrap();
    let mut events = gateway.approver.subscribe();
    let done = remove();
    let request = gateway.block_on(gateway.review(&mut events, Verdict::Approve));
    assert!(!done.status.success() && file.exists());
    assert!(done.stderr.contains(&request.to_string()), "{}", done.stderr);
    let done = remove();
    assert!(done.status.success() && !file.exists(), "{}", done.stderr);
    assert_eq!(gateway.state(request), RequestState::Used);
    std::fs::write(&file, "x").unwrap();
    assert!(!remove().status.success() && file.exists());
}

/// A relative link leads elsewhere from another folder.
#[test]
fn a_link_that_is_moved_is_judged_by_what_it_leads_to_there() {
    let there = folder();
    let id = format!("web1{}", there.display());
    let links = format!("permit (principal, action == Action::\"link_file\", resource in Path::\"{id}\");");
    for name in ["a", "b"] {
        std::fs::create_dir(there.join(name)).unwrap();
    }
    for name in ["one", "two", "three", "four"] {
        std::os::unix::fs::symlink("../x", there.join("a").join(name)).unwrap();
    }
    let gateway = gateway(&(below(&there) + &links));
    let batch =
        "-rename T/a/one T/one\n-ln T/a/two T/two\nrename T/a/three T/b/three\nrename T/b/three T/b/3\n";
    let done = sftp(&gateway, &batch.replace('T', &there.display().to_string()));
    assert!(done.status.success() && done.stderr.contains("denied: "), "{done:?}");
    let is = |name: &str| std::fs::symlink_metadata(there.join(name)).is_ok();
    assert!(is("a/one") && !is("one") && !is("two") && is("b/3"));
}

const HELD: &str = r#"
@id("removal-needs-ops") @approval("reviewers=ops; quorum=1; ttl=15m")
forbid (principal, action == Action::"remove_file", resource) unless { context.approvals.contains("ops") };
"#;

const NO_READING: &str = r#"permit (principal, action in [Action::"connect", Action::"subsystem", Action::"stat_file"], resource);"#;

#[test]
fn a_request_that_hangs_holds_up_other_sessions_for_a_while_only() {
    let there = folder();
    let gateway = gateway(ALL);
    // Opening it to read waits for somebody who writes.
    assert!(Command::new("mkfifo").arg(there.join("fifo")).status().unwrap().success());
    let script = r#"
import paramiko, sys, threading
port, key, there = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "agent-7", pkey=paramiko.Ed25519Key.from_private_key_file(key),
               allow_agent=False, look_for_keys=False)
one, two = client.open_sftp(), client.open_sftp()
one._async_request(type(None), paramiko.sftp.CMD_OPEN, there + "/fifo", 1, paramiko.SFTPAttributes())
# The first may come before that is judged.
for n in range(500):
    try:
        two.mkdir(f"{there}/{n}")
    except Exception as error:
        print(error)
        break
print("then", "fifo" in two.listdir(there))
"#;
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-", &gateway.address.port().to_string()]).arg(keys().agent.private()).arg(&there);
    let done = run(&mut python, script, DEADLINE).unwrap();
    // Both ends: it goes on.
    drop(std::fs::OpenOptions::new().read(true).write(true).open(there.join("fifo")).unwrap());
    assert!(done.stdout.contains("other sessions of this identity use the names"), "{done:?}");
    assert!(done.stdout.contains("then True"), "{done:?}");
}
