//! Tools that start a server of their own on the target: off, unless a permit says which and on what.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gateway_core::recording::Record;
use testkit::{Finished, client_options, run};

use crate::documented::{CONNECT, policy};
use crate::support::{ALL, DEADLINE, Gateway, gateway, keys, server};

/// A fresh folder on the server.
fn folder() -> PathBuf {
    let folder = tempfile::tempdir_in(server().home()).unwrap().keep();
    fs::canonicalize(folder).unwrap()
}

/// A gateway under one documented block, whose example path is this one here.
fn under(id: &str, example: &str, path: &Path) -> Gateway {
    gateway(&format!("{CONNECT}{}", policy(id, &[(example, path.to_str().unwrap())])))
}

/// The command line with which tools start `ssh`.
fn transport(gateway: &Gateway) -> String {
    format!("ssh {}", client_options(keys().agent.private(), gateway.address.port()).join(" "))
}

fn denied(done: &Finished) -> bool {
    !done.status.success() && done.stderr.contains("denied: ")
}

/// Bytes of which the recording has length and hash: what passed unmasked is not kept itself unless a rule asks for it.
fn recorded(gateway: &Gateway) -> u64 {
    let pieces = gateway.records().into_iter().map(|record| match record {
        Record::Digested { content, bytes, .. } if content == "released" => bytes,
        _ => 0,
    });
    pieces.sum()
}

#[test]
fn the_old_copy_protocol_needs_a_permit_of_its_own() {
    let there = folder();
    let copy = |gateway: &Gateway, from: &str, to: &str| {
        let mut scp = gateway.client("scp");
        run(scp.args(["-O", from, to]), "", DEADLINE).unwrap()
    };
    let file = there.join("copy");
    let remote = format!("agent-7@127.0.0.1:{}", file.display());
    let without = gateway(&ALL.replace("==", "in [Action::\"serve\"] || action =="));
    let local = without.path("local");
    fs::write(&local, [0, 1, 2, 255]).unwrap();
    assert!(denied(&copy(&without, local.to_str().unwrap(), &remote)));
    assert!(!file.exists());
    let documented = under("old-scp", "/srv/inbox/report", &file);
    let done = copy(&documented, local.to_str().unwrap(), &remote);
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(fs::read(&file).unwrap(), [0, 1, 2, 255]);
    // Neither another file nor the other direction.
    assert!(denied(&copy(&documented, local.to_str().unwrap(), &format!("{remote}2"))));
    let back = documented.path("back");
    assert!(denied(&copy(&documented, &remote, back.to_str().unwrap())));
    let done = copy(&gateway(ALL), &remote, back.to_str().unwrap());
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(fs::read(&back).unwrap(), [0, 1, 2, 255]);
}

#[test]
fn rsync_copies_trees_both_ways_on_the_permitted_path_only() {
    let there = folder();
    let gateway = under("rsync", "/srv/inbox", &there);
    let tree = gateway.path("tree");
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    for n in 0..50 {
        fs::write(tree.join(format!("deep/er/{n}")), vec![n; 1000]).unwrap();
    }
    let rsync = |from: &str, to: &str| {
        let mut rsync = Command::new("rsync");
        run(rsync.args(["-a", "--delete", "-e", &transport(&gateway), from, to]), "", DEADLINE).unwrap()
    };
    let here = |folder: &Path| format!("{}/", folder.display());
    let remote = format!("agent-7@127.0.0.1:{}/", there.display());
    fs::write(there.join("stale"), "x").unwrap();
    let done = rsync(&here(&tree), &remote);
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(fs::read(there.join("deep/er/49")).unwrap(), vec![49; 1000]);
    assert!(!there.join("stale").exists());
    let back = gateway.path("back");
    let done = rsync(&remote, &here(&back));
    assert!(done.status.success(), "{}", done.stderr);
    for n in 0..50 {
        assert_eq!(fs::read(back.join(format!("deep/er/{n}"))).unwrap(), vec![n; 1000]);
    }
    assert!(recorded(&gateway) > 50_000, "{}", recorded(&gateway));
    // A folder beside it, one below it, one above it, two at once.
    for other in ["other/", "deep/er/", "../"] {
        assert!(denied(&rsync(&format!("{remote}{other}"), &here(&back))), "{other}");
        assert!(denied(&rsync(&here(&tree), &format!("{remote}{other}"))), "{other}");
    }
    let two = gateway.ssh(&[&format!("rsync --server -logDtpre.iLsfxCIvu . /etc/ {}/", there.display())]);
    assert!(denied(&two), "{two:?}");
}

#[test]
fn git_fetches_and_pushes_where_it_is_permitted() {
    let there = folder();
    let repository = there.join("app.git");
    server().ssh(&format!("git init -q --bare -b main {}", repository.display())).unwrap();
    let both = under("git-fetch", "/srv/git/app.git", &repository);
    let git = |gateway: &Gateway, words: &[&str]| {
        let mut git = Command::new("git");
        git.env("GIT_SSH_COMMAND", transport(gateway)).env("GIT_CONFIG_GLOBAL", "/dev/null");
        git.args(["-c", "user.name=t", "-c", "user.email=t@t"]);
        run(git.args(words), "", DEADLINE).unwrap()
    };
    let url = format!("ssh://agent-7@127.0.0.1{}", repository.display());
    let clone = both.path("clone");
    let place = clone.to_str().unwrap();
    let fine = |done: Finished| assert!(done.status.success(), "{}", done.stderr);
    fine(git(&both, &["clone", "-q", &url, place]));
    fs::write(clone.join("f"), "hi\n").unwrap();
    fine(git(&both, &["-C", place, "add", "f"]));
    fine(git(&both, &["-C", place, "commit", "-qm", "one"]));
    fine(git(&both, &["-C", place, "push", "-q", "origin", "HEAD:main"]));
    let again = both.path("again");
    fine(git(&both, &["clone", "-q", &url, again.to_str().unwrap()]));
    assert_eq!(fs::read_to_string(again.join("f")).unwrap(), "hi\n");
    let other = there.join("other.git");
    server().ssh(&format!("git init -q --bare -b main {}", other.display())).unwrap();
    let refused = format!("ssh://agent-7@127.0.0.1{}", other.display());
    assert!(denied(&git(&both, &["clone", "-q", &refused, both.path("x").to_str().unwrap()])));
    // Fetching alone does not permit pushing.
    let text = policy("git-fetch", &[("/srv/git/app.git", repository.to_str().unwrap())]);
    let fetch = gateway(&format!("{CONNECT}{}", text.split("@id(\"git-push\")").next().unwrap()));
    fine(git(&fetch, &["-C", place, "fetch", "-q", "origin"]));
    let url = format!("ssh://agent-7@127.0.0.1{}", repository.display());
    assert!(denied(&git(&fetch, &["-C", place, "push", "-q", &url, "HEAD:x"])));
}
