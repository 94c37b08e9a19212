//! A held write, and the people who may and may not let it run.

use std::fs;

use serde_json::Value;
use testkit::wait_until;

use crate::stage::{DEADLINE, Stage, server};

const DELETE: &str = "DELETE FROM order_items WHERE order_id = 7";

/// The id of the one request that waits.
fn waiting(stage: &Stage, token: &str) -> Option<String> {
    let list = stage.command(&["approvals", "list", "--json", "--token-file", token]).success().unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let pending = list.as_array().unwrap().iter().find(|request| request["state"] == "pending");
    pending.map(|request| request["id"].as_str().unwrap().to_owned())
}

fn left(stage: &Stage) -> String {
    server().psql(&stage.database, "SELECT count(*) FROM order_items WHERE order_id = 7").unwrap()
}

#[test]
fn a_person_decides_and_the_agent_does_not() {
    let stage = Stage::new();
    let serving = stage.serve();
    let (alice, bob) = (stage.person("alice", "dba"), stage.person("bob", "support"));
    stage.write("agent.jwt", &stage.agent());
    let agent = stage.arg("agent.jwt");
    std::thread::scope(|scope| {
        let held = scope.spawn(|| serving.psql(DELETE));
        let mut id = None;
        assert!(
            wait_until(
                || {
                    id = waiting(&stage, &alice);
                    id.is_some()
                },
                DEADLINE
            ),
            "nothing is held: {}",
            serving.log()
        );
        let id = id.unwrap();

        for command in [&["list"][..], &["show", &id], &["approve", &id], &["reject", &id]] {
            let refused = stage.command(&[&["approvals"], command, &["--token-file", &agent]].concat());
            assert!(!refused.status.success(), "{command:?}");
            assert!(refused.stderr.contains("only people review"), "{refused:?}");
        }
        let outsider = stage.command(&["approvals", "approve", &id, "--token-file", &bob]);
        assert!(!outsider.status.success(), "{outsider:?}");
        assert_ne!(left(&stage), "0");

        let shown = stage.command(&["approvals", "show", &id, "--token-file", &alice]).success().unwrap();
        for words in [
            DELETE,
            "agent-7",
            "(agent)",
            "T-1",
            "shop",
            "order_items",
            "deletes-need-a-dba",
            "until",
            "expected (an estimate",
            "delete on order_items: about",
        ] {
            assert!(shown.contains(words), "no `{words}` in {shown}");
        }
        let approve = ["approvals", "approve", &id, "--comment", "change 4711", "--token-file", &alice];
        let approved = stage.command(&approve).success().unwrap();
        assert!(approved.contains("approved") || approved.contains("used"), "{approved}");
        assert_eq!(held.join().unwrap(), "");
    });
    assert_eq!(left(&stage), "0");
    let log = fs::read_to_string(stage.path("data/audit.log")).unwrap();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |event: &str, who: &str| {
        events.iter().any(|line| line["event"] == event && line["who"]["subject"] == who)
    };
    assert!(has("refused", "agent-7") && has("viewed", "alice") && has("approving", "alice"), "{log}");
    assert!(has("refused", "bob") && !has("viewed", "agent-7"), "{log}");
    serving.stop();
}

#[test]
fn a_rejected_write_does_not_run() {
    let stage = Stage::new();
    let serving = stage.serve();
    let alice = stage.person("alice", "dba");
    let before = left(&stage);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| serving.psql(DELETE));
        let mut id = None;
        assert!(wait_until(
            || {
                id = waiting(&stage, &alice);
                id.is_some()
            },
            DEADLINE
        ));
        let reject = ["approvals", "reject", &id.unwrap(), "--token-file", &alice];
        stage.command(&reject).success().unwrap();
        assert!(held.join().unwrap().contains("rejected"));
    });
    assert_eq!(left(&stage), before);
}

#[test]
fn a_reviewer_must_say_who_and_where() {
    let stage = Stage::new();
    let alice = stage.person("alice", "dba");
    let nobody = stage.command(&["approvals", "list"]);
    assert!(nobody.stderr.contains("--token-file"), "{nobody:?}");
    let away = stage.command(&["approvals", "list", "--token-file", &alice]);
    assert!(away.stderr.contains("is it running"), "{away:?}");
    let nowhere = crate::stage::gateway(&["approvals", "list", "--token-file", &alice]);
    assert!(nowhere.stderr.contains("--socket"), "{nowhere:?}");
    let open = stage.path("alice.jwt");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let _serving = stage.serve();
    let exposed = stage.command(&["approvals", "list", "--token-file", &alice]);
    assert!(exposed.stderr.contains("chmod 600"), "{exposed:?}");
    stage.write("forged.jwt", "a.b.c");
    let forged = stage.command(&["approvals", "list", "--token-file", &stage.arg("forged.jwt")]);
    assert!(forged.stderr.contains("was not accepted"), "{forged:?}");
}
