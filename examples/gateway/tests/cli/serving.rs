//! From psql through the gateway to a recording that is proven.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use testkit::{psql_command, psql_script};

use crate::stage::{Stage, example, gateway, server};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_session_is_masked_recorded_replayed_and_proven() {
    let stage = Stage::new();
    let serving = stage.serve();
    let row = serving.psql("SELECT id, email, ssn FROM customers WHERE id = 1");
    assert!(row.starts_with("1|") && !row.contains('@') && row.contains("US_SSN_"), "{row}");
    let denied = serving.psql("DROP TABLE customers");
    assert!(denied.contains("ERROR"), "{denied}");
    assert_eq!(server().psql(&stage.database, "SELECT count(*) FROM customers").unwrap(), "200");
    serving.stop();

    let rows = json(&stage.command(&["sessions", "list", "--json"]).success().unwrap());
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in rows {
        assert_eq!(row["principal"]["subject"], "agent-7");
        assert_eq!(row["status"], "closed");
        assert_eq!(row["task"], "T-1");
    }
    let (read, refused) = (&rows[1], &rows[0]);
    assert_eq!((&read["counts"]["rows"], &refused["counts"]["denied"]), (&1.into(), &1.into()), "{rows:?}");

    let id = read["id"].as_str().unwrap();
    let replay = stage.command(&["sessions", "replay", &id[..12]]).success().unwrap();
    for words in
        ["SELECT id, email, ssn FROM customers", "agents-read", "id | email | ssn", "US_SSN_", "closed"]
    {
        assert!(replay.contains(words), "no `{words}` in {replay}");
    }
    let email = server().psql(&stage.database, "SELECT email FROM customers WHERE id = 1").unwrap();
    assert!(!replay.contains(&email), "{replay}");
    let shown = stage.command(&["sessions", "show", refused["id"].as_str().unwrap()]).success().unwrap();
    assert!(shown.contains("DENIED") && shown.contains("DROP TABLE customers"), "{shown}");
    let exported = stage.command(&["sessions", "export", id]).success().unwrap();
    let events: Vec<Value> = exported.lines().map(json).collect();
    assert_eq!(events[0]["event"], "header");
    assert_eq!(events.last().unwrap()["event"], "closed");

    let (recordings, key) = (stage.arg("data/recordings"), stage.arg("data/recording.pub"));
    let folder = gateway(&["sessions", "verify", &recordings, "--key", &key]).success().unwrap();
    assert!(folder.contains("SOUND") && folder.contains("2 recordings, 2 of them complete"), "{folder}");
    let file = read["recording"].as_str().unwrap();
    let proven = json(&gateway(&["sessions", "verify", file, "--key", &key, "--json"]).success().unwrap());
    assert_eq!((&proven["intact"], &proven["session"]), (&true.into(), &read["id"]));
    let head = proven["head"].as_str().unwrap();
    gateway(&["sessions", "verify", file, "--key", &key, "--expect-head", head]).success().unwrap();

    // Without its last signature, 122 bytes, the end is somebody's word.
    let whole = fs::read(file).unwrap();
    fs::write(stage.path("cut.rec"), &whole[..whole.len() - 122]).unwrap();
    let cut = stage.arg("cut.rec");
    let exported = stage.command(&["sessions", "export", &cut]).success().unwrap();
    let last = json(exported.lines().last().unwrap());
    assert_eq!((&last["event"], &last["proven"]), (&"closed".into(), &false.into()), "{exported}");
    for command in ["show", "replay"] {
        let shown = stage.command(&["sessions", command, &cut]).success().unwrap();
        assert!(shown.contains("NOT PROVEN closed"), "{shown}");
    }

    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    let changed = gateway(&["sessions", "verify", file, "--key", &key]);
    assert!(!changed.status.success() && changed.stdout.contains("NOT INTACT"), "{changed:?}");
    let folder = gateway(&["sessions", "verify", &recordings, "--key", &key]);
    assert!(!folder.status.success() && folder.stdout.contains("PROBLEM"), "{folder:?}");
}

#[test]
fn what_lasts_is_private() {
    let stage = Stage::new();
    let serving = stage.serve();
    serving.psql("SELECT 1");
    let mode = |name: &str| fs::metadata(stage.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/recordings"), mode("data/admin")), (0o700, 0o700, 0o700));
    for name in ["data/gateway.sqlite", "data/recording.key", "data/audit.log", "data/admin/gateway.sock"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let second = stage.command(&["serve"]);
    assert!(!second.status.success() && second.stderr.contains("another gateway"), "{second:?}");
    let log = serving.log();
    serving.stop();
    assert!(!log.contains(server().password("app")) && !log.contains(&stage.agent()), "{log}");
    assert!(!stage.path("data/admin/gateway.sock").exists());

    fs::set_permissions(stage.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    let open = stage.command(&["serve"]);
    assert!(!open.status.success() && open.stderr.contains("chmod 700"), "{open:?}");
}

#[test]
fn only_good_tokens_get_in() {
    let stage = Stage::new();
    let serving = stage.serve();
    let stranger = stage.idp.token().subject("agent-8").audience("gateway").sign();
    let other_audience = stage.idp.token().subject("agent-7").audience("mail").group("shop-agents").sign();
    for token in ["", "nonsense", &other_audience, &stranger] {
        let refused = psql_command(&serving.url(token), "SELECT 1").unwrap_err().to_string();
        assert!(refused.contains("FATAL") || refused.contains("no password supplied"), "{refused}");
    }
    assert_eq!(serving.psql("SELECT count(*) FROM orders"), "500");
}

#[test]
fn policies_are_reloaded_or_stay() {
    let stage = Stage::new();
    let mut serving = stage.serve();
    assert_eq!(serving.psql("SELECT count(*) FROM orders"), "500");
    let policy = fs::read_to_string(stage.path("policies/shop.cedar")).unwrap();
    let stricter = policy.clone()
        + &stage.localised("@id(\"no-orders\") @reason(\"orders are closed today\") forbid (principal, action, resource == Table::\"shop/shop/public/orders\");");
    stage.write("policies/shop.cedar", &stricter);
    serving.signal("HUP");
    let reloaded = serving.next_event("reloaded");
    assert_ne!(reloaded["before"], reloaded["after"]);
    let denied = serving.psql("SELECT count(*) FROM orders");
    assert!(denied.contains("orders are closed today"), "{denied}");

    stage.write("policies/shop.cedar", &policy.replace("Action::\"read\"", "Action::\"reed\""));
    serving.signal("HUP");
    let failed = serving.next_event("reload_failed");
    assert_eq!(failed["in_force"], reloaded["after"]);
    assert!(failed["error"].as_str().unwrap().contains("reed"), "{failed}");
    let denied = serving.psql("SELECT count(*) FROM orders");
    assert!(denied.contains("orders are closed today"), "{denied}");

    stage.write("policies/reveal.cedar", "");
    stage.write("policies/shop.cedar", &policy);
    serving.signal("HUP");
    let failed = serving.next_event("reload_failed");
    assert!(failed["error"].as_str().unwrap().contains("there is no policy in this file"), "{failed}");
    stage.write(
        "policies/reveal.cedar",
        &stage.localised(&fs::read_to_string(example("policies/reveal.cedar")).unwrap()),
    );
    serving.signal("HUP");
    let reloaded = serving.next_event("reloaded");
    assert!(reloaded["permits"].as_u64().unwrap() > 0 && reloaded["forbids"].is_u64(), "{reloaded}");
    assert_eq!(serving.psql("SELECT count(*) FROM orders"), "500");
    serving.stop();
}

/// How many processes this one has started that still run.
fn children(parent: u32) -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats
        .filter(|stat| stat.rsplit(") ").next().unwrap().split(' ').nth(1) == Some(&parent.to_string()))
        .count()
}

#[test]
fn a_parser_that_dies_costs_no_session() {
    let stage = Stage::new();
    let config = fs::read_to_string(stage.path("gateway.toml")).unwrap();
    stage.write("gateway.toml", &config.replace("# parser = \"process\"", "parser = \"process\""));
    let mut serving = stage.serve();
    let gateway = serving.process.child().id();
    assert_eq!(serving.psql("SELECT id FROM orders WHERE id = 1"), "1");
    assert_eq!(children(gateway), 1, "one text at a time was parsed");
    let kill = format!(
        "for stat in /proc/[0-9]*/stat; do read -r pid name state parent rest <$stat; [ \"$parent\" != {gateway} ] || kill -9 $pid; done"
    );
    let script = format!(
        "\\set ON_ERROR_STOP 0\nSELECT id, 7 FROM orders WHERE id = 2;\n\\! {kill}\n\
         SELECT 'lost' FROM orders WHERE id = 3;\nSELECT 'goes on' FROM orders WHERE id = 4;\n"
    );
    let said = psql_script(&serving.url(&stage.agent()), &script).unwrap();
    assert_eq!(said.trim(), "2|7\ngoes on");
    assert_eq!(children(gateway), 1);
}
