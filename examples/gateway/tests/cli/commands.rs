//! Commands that need no running gateway.

use serde_json::Value;

use crate::stage::{Stage, example, gateway, server};

fn example_arg(name: &str) -> String {
    example(name).to_str().unwrap().to_owned()
}

#[test]
fn typing_errors_get_suggestions() {
    let wrong = gateway(&["aprovals", "list"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stderr.contains("approvals"), "{wrong:?}");
    let wrong = gateway(&["serve", "--confg", "x"]);
    assert!(wrong.stderr.contains("--config"), "{wrong:?}");
}

#[test]
fn help_has_examples() {
    for (command, words) in [
        (&["--help"][..], "gateway check --config"),
        (&["serve", "--help"], "[[listener]]"),
        (&["approvals", "--help"], "--token-stdin"),
        (&["sessions", "--help"], "sessions replay"),
        (&["policy", "test", "--help"], "[[case]]"),
    ] {
        let help = gateway(command).success().unwrap();
        assert!(help.contains(words), "{command:?}: {help}");
    }
}

#[test]
fn the_examples_policies_pass_their_tests() {
    let policies = [example_arg("policies/shop.cedar"), example_arg("policies/reveal.cedar")];
    let cases = example_arg("policies/shop.cases.toml");
    let of = ["--policy", &policies[0], "--policy", &policies[1]];
    let checked = gateway(&[&["policy", "check"], &of[..]].concat()).success().unwrap();
    assert!(checked.contains("2 files, 0 errors"), "{checked}");
    let tested = gateway(&[&["policy", "test"], &of[..], &[&cases]].concat()).success().unwrap();
    assert!(tested.contains("8 of 8 cases passed"), "{tested}");
    let fails = gateway(&["policy", "test", "--json", "--policy", &policies[1], &cases]);
    assert!(!fails.status.success(), "{fails:?}");
    let results: Value = serde_json::from_str(&fails.stdout).unwrap();
    assert_eq!(results[0]["passed"], false);

    let case = "an executor's delete waits for a dba";
    let explained =
        gateway(&[&["policy", "explain", "--case", case], &of[..], &[&cases]].concat()).success().unwrap();
    for words in ["answer: hold", "deletes-need-a-dba", "shop.cedar:", "1 of group `dba`"] {
        assert!(explained.contains(words), "no `{words}` in {explained}");
    }
    let unnamed = gateway(&[&["policy", "explain"], &of[..], &[&cases]].concat());
    assert!(unnamed.stderr.contains("--case") && unnamed.stderr.contains(case), "{unnamed:?}");
}

#[test]
fn mistakes_in_policies_are_placed() {
    let stage = Stage::new();
    stage.write("bad.cedar", "permit (principal, action == Action::\"slect\", resource);\n");
    let checked = gateway(&["policy", "check", "--policy", &stage.arg("bad.cedar")]);
    assert!(!checked.status.success());
    assert!(checked.stdout.contains("bad.cedar:1:") && checked.stdout.contains("slect"), "{checked:?}");
    let serve = gateway(&["serve", "--config", "/nonexistent/gateway.toml"]);
    assert!(!serve.status.success() && serve.stderr.contains("--config"), "{serve:?}");
}

#[test]
fn check_asks_the_target() {
    let stage = Stage::new();
    let good = stage.command(&["check", "--strict"]);
    assert!(good.status.success() && good.stdout.contains("all 3 labelled columns exist"), "{good:?}");

    let config = std::fs::read_to_string(stage.path("gateway.toml")).unwrap();
    stage.write("gateway.toml", &config.replace("customers.email", "customers.mail"));
    let mistyped = stage.command(&["check"]);
    assert!(!mistyped.status.success() && mistyped.stdout.contains("public.customers.mail"), "{mistyped:?}");
    let serve = stage.command(&["serve"]);
    assert!(!serve.status.success() && serve.stderr.contains("public.customers.mail"), "{serve:?}");

    let port = testkit::free_port().unwrap();
    stage.write(
        "gateway.toml",
        &config.replace(&format!("port = {}", server().port()), &format!("port = {port}")),
    );
    let away = stage.command(&["check"]);
    assert!(
        away.status.success() && away.stdout.contains("warning: target `shop` cannot be checked"),
        "{away:?}"
    );
    assert!(!stage.command(&["check", "--strict"]).status.success());

    stage.write("gateway.toml", &config);
    std::fs::set_permissions(
        stage.path("shop.password"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    let open = stage.command(&["check", "--json"]);
    let findings: Value = serde_json::from_str(&open.stdout).unwrap();
    assert!(
        !open.status.success() && findings["errors"][0].as_str().unwrap().contains("chmod 600"),
        "{open:?}"
    );
}

#[test]
fn sessions_need_a_place() {
    let nowhere = gateway(&["sessions", "list"]);
    assert!(nowhere.stderr.contains("--data-dir"), "{nowhere:?}");
    let stage = Stage::new();
    let unused = stage.command(&["sessions", "list"]);
    assert!(unused.stderr.contains("has a gateway with this data folder run yet"), "{unused:?}");
    let missing = gateway(&["sessions", "replay", "absent.rec"]);
    assert!(missing.stderr.contains("there is no file `absent.rec`"), "{missing:?}");
}
