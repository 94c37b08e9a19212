//! Shells and terminals: off unless permitted; then recorded and masked.

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

#[test]
fn commands_in_a_shell_are_observed_and_what_is_typed_unseen_is_not() {
    let gateway = masking(ALL);
    let mut ssh = gateway.client("ssh");
    ssh.args(["-tt", "agent-7@127.0.0.1"]);
    let typed = "echo sum-$((40+2))\nread -s secret\nhunter2-unseen\necho card 4111 1111 1111 1111\nexit 5\n";
    let done = run(&mut ssh, typed, DEADLINE).unwrap();
    assert_eq!(done.status.code(), Some(5), "{}", done.stderr);
    let records = gateway.records();
    let observed: Vec<String> = records
        .into_iter()
        .filter_map(|record| match record {
            Record::Observed { statement, .. } => Some(statement),
            _ => None,
        })
        .collect();
    let find = |text: &str| observed.iter().any(|line| line.contains(text));
    assert!(find("echo sum-$((40+2))") && find("read -s secret") && find("exit 5"), "{observed:?}");
    assert!(find("echo card") && !find("4111 1111 1111 1111"), "{observed:?}");
}
