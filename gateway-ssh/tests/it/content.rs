//! What recordings keep of content: hashes always, what is sent and what is released by rule; files judged by their size.

use std::path::{Path, PathBuf};

use gateway_core::pipeline::Tally;
use gateway_core::recording::Record;
use testkit::{Finished, run, wait_until};

use crate::support::{ALL, DEADLINE, Gateway, gateway, keys, masking, server};

const CARD: &str = "4111111111111111";

fn sha256(bytes: &[u8]) -> String {
    let mut tally = Tally::default();
    tally.add(bytes);
    tally.sha256()
}

/// The length and hash recorded under this name, once they are.
fn digest(gateway: &Gateway, name: &str) -> (u64, String) {
    let find = || {
        gateway.records().into_iter().find_map(|record| match record {
            Record::Digested { content, bytes, sha256, .. } if content == name => Some((bytes, sha256)),
            _ => None,
        })
    };
    assert!(wait_until(|| find().is_some(), DEADLINE), "no {name}: {:?}", gateway.records());
    find().unwrap()
}

/// What was recorded as sent, and as released.
fn recorded(gateway: &Gateway) -> (Vec<u8>, Vec<u8>) {
    let (mut sent, mut released) = (Vec::new(), Vec::new());
    for record in gateway.records() {
        match record {
            Record::Received { bytes, .. } => sent.extend_from_slice(&bytes),
            Record::Released { bytes, .. } => released.extend_from_slice(&bytes),
            _ => {}
        }
    }
    (sent, released)
}

fn policy(annotation: &str) -> String {
    format!("@id(\"recorded\") {annotation} {ALL}")
}

#[test]
fn input_is_hashed_and_by_rule_recorded_with_values_masked() {
    let text = format!("pay with {CARD}, and then go on until the whole of it is long enough to be hashed\n");
    for (annotation, kept) in [("", false), ("@record(\"all\")", true)] {
        let gateway = masking(&policy(annotation));
        let done = gateway.ssh_with_input(&["wc -c"], &text);
        assert_eq!(done.stdout.trim(), text.len().to_string(), "{}", done.stderr);
        assert_eq!(digest(&gateway, "ssh/input"), (text.len() as u64, sha256(text.as_bytes())));
        let (sent, released) = recorded(&gateway);
        let sent = String::from_utf8(sent).unwrap();
        assert_eq!(sent.starts_with("pay with "), kept, "{sent}");
        assert!(!sent.contains(CARD), "{sent}");
        assert!(!released.is_empty());
    }
}

#[test]
fn what_passed_is_hashed_also_when_the_connection_is_cut() {
    let gateway = gateway(&policy("@record(\"digest\")"));
    let mut ssh = gateway.client("ssh");
    ssh.args(["agent-7@127.0.0.1", "seq 1000; sleep 600"]).stdout(std::process::Stdio::piped());
    let mut ssh = testkit::Guard::spawn(&mut ssh).unwrap();
    let mut out = std::io::BufReader::new(ssh.child().stdout.take().unwrap());
    let mut line = String::new();
    while line != "1000\n" {
        line.clear();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    }
    drop(ssh);
    let whole: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(digest(&gateway, "released"), (whole.len() as u64, sha256(whole.as_bytes())));
}

/// A password that is piped in could be found by trying all of them.
#[test]
fn short_input_is_only_counted() {
    let gateway = gateway(ALL);
    gateway.ssh_with_input(&["cat"], "hunter2\n");
    assert_eq!(digest(&gateway, "ssh/input"), (8, String::new()));
}

#[test]
fn by_rule_only_the_hash_of_what_was_released_is_kept() {
    let gateway = gateway(&policy("@record(\"digest\")"));
    let done = gateway.ssh(&["seq 10000"]);
    assert!(done.stdout.ends_with("\n10000\n"), "{}", done.stderr);
    let length = done.stdout.len() as u64;
    assert_eq!(digest(&gateway, "released"), (length, sha256(done.stdout.as_bytes())));
    assert!(recorded(&gateway).1.is_empty());
}

fn sftp(gateway: &Gateway, batch: &str) -> Finished {
    let mut sftp = gateway.client("sftp");
    run(sftp.args(["-b", "-", "agent-7@127.0.0.1"]), batch, DEADLINE).unwrap()
}

/// Bytes that are no text, longer than one request.
fn binary() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn on_server(name: &str, content: &[u8]) -> PathBuf {
    let folder = std::fs::canonicalize(tempfile::tempdir_in(server().home()).unwrap().keep()).unwrap();
    let file = folder.join(name);
    std::fs::write(&file, content).unwrap();
    file
}

#[test]
fn files_are_hashed_both_ways() {
    let gateway = masking("permit (principal, action, resource);");
    let file = on_server("image", &binary());
    let (got, put) = (gateway.path("got"), file.with_file_name("put"));
    let done = sftp(&gateway, &format!("get {} {}\n", file.display(), got.display()));
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(std::fs::read(&got).unwrap(), binary());
    let expected = (binary().len() as u64, sha256(&binary()));
    assert_eq!(digest(&gateway, "ssh/read"), expected);
    let done = sftp(&gateway, &format!("put {} {}\n", got.display(), put.display()));
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(digest(&gateway, "ssh/written"), expected);
    assert!(recorded(&gateway).0.is_empty());
}

#[test]
fn what_is_written_is_recorded_by_rule() {
    let gateway = masking(&policy("@record(\"all\")"));
    let file = on_server("notes", b"");
    let local = gateway.path("local");
    std::fs::write(&local, format!("card {CARD}\n").repeat(5_000)).unwrap();
    let done = sftp(&gateway, &format!("put {} {}\n", local.display(), file.display()));
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&local).unwrap());
    digest(&gateway, "ssh/written");
    let sent = String::from_utf8(recorded(&gateway).0).unwrap();
    assert_eq!(sent.matches("card ").count(), 5_000);
    assert!(!sent.contains(CARD));
}

/// Reads, without masks, files of less than a kilobyte.
const SMALL: &str = r#"
permit (principal, action in [Action::"connect", Action::"subsystem", Action::"stat_file"], resource);
permit (principal, action == Action::"read_file", resource) when { resource has size && resource.size < 1000 };
permit (principal, action == Action::"reveal", resource is Path) when { resource has size && resource.size < 1000 };
"#;

/// A file that grows after it was judged: the client gets as much of it as was judged.
#[test]
fn a_file_ends_where_it_ended_when_it_was_judged() {
    let gateway = masking(SMALL);
    let file = on_server("growing", &binary()[..900]);
    let script = r#"
path = folder
file = client.open_sftp().open(path, "rb")
with open(path, "ab") as more:
    more.write(b"x" * 100000)
# A write that the server refuses, since the file is open for reading only.
file._flags |= file.FLAG_WRITE
file.seek(1 << 40)
try:
    file.write(b"y")
    file.flush()
except OSError: print("refused")
file.seek(0)
first = file.read(32768)
file.seek(5000)
print(len(first), len(file.read(10)))
client.close()
"#;
    let mut python = std::process::Command::new("/usr/bin/python3");
    python.arg("-").arg(gateway.address.port().to_string()).arg(keys().agent.private()).arg(&file);
    let script = format!("{}{script}", crate::clients::PARAMIKO);
    let done = run(&mut python, &script, DEADLINE).unwrap();
    assert_eq!(done.stdout, "refused\n900 0\n", "{}", done.stderr);
}

fn fetches(gateway: &Gateway, file: &Path) -> bool {
    let got = gateway.path("got");
    let done = sftp(gateway, &format!("get {} {}\n", file.display(), got.display()));
    done.status.success() && std::fs::read(got).unwrap() == std::fs::read(file).unwrap()
}

#[test]
fn files_are_judged_by_their_size() {
    let gateway = masking(SMALL);
    assert!(fetches(&gateway, &on_server("small", &binary()[..999])));
    assert!(!fetches(&gateway, &on_server("large", &binary()[..1000])));
    // What has no size is not small.
    let endless = server().home().join("endless");
    std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
    assert!(!fetches(&gateway, &endless));
}

#[test]
fn the_documented_rules_load() {
    let rules = crate::documented::policy("deploys-are-recorded", &[]);
    let gateway = gateway(&format!("{}{rules}", crate::documented::CONNECT));
    assert!(!gateway.ssh(&["true"]).status.success());
}
