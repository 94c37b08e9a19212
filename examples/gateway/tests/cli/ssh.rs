//! SSH beside PostgreSQL in one process: from `ssh` through the gateway to replay and export.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use testkit::{CertificateRequest, Finished, SshKeyPair, Sshd, client_options, run, wait_until};

use crate::stage::{DEADLINE, Serving, Stage};

fn host() -> &'static Sshd {
    static HOST: OnceLock<Sshd> = OnceLock::new();
    HOST.get_or_init(|| {
        let host = Sshd::start().unwrap();
        fs::write(host.home().join("notes.txt"), "card 4111 1111 1111 1111 end\n").unwrap();
        host
    })
}

/// Commands start in the account's own home, not in the server's.
fn notes() -> String {
    host().home().join("notes.txt").display().to_string()
}

const POLICY: &str = r#"
@id("ssh-connect") permit (principal in Group::"shop-agents", action == Action::"connect", resource == Target::"web1");
@id("ssh-run") permit (principal in Group::"shop-agents", action == Action::"exec", resource)
when { context.resolved && ["cat", "echo", "printf", "false"].contains(resource.name) };
@id("ssh-terminal") permit (principal, action == Action::"pty", resource in Target::"web1");
@id("ssh-files") permit (principal, action in [Action::"subsystem", Action::"list_files", Action::"stat_file"], resource in Target::"web1");
@id("never-rm") @reason("files are removed by the cleanup job only")
forbid (principal, action == Action::"exec", resource) when { resource.name == "rm" };
"#;

/// A gateway in front of a host, too, and the agent's key.
struct Hosts {
    stage: Stage,
    key: SshKeyPair,
    authority: SshKeyPair,
}

impl Hosts {
    fn new() -> Self {
        let stage = Stage::new();
        let make = |name| SshKeyPair::generate(stage.folder.path(), name).unwrap();
        let (key, authority) = (make("agent"), make("authority"));
        stage.write("web1.key", &host().client_key().pem().unwrap());
        stage.write("ssh.cedar", POLICY);
        let hosts = Self { stage, key, authority };
        let text = fs::read_to_string(hosts.stage.path("gateway.toml")).unwrap();
        let text = text.replace("\"policies/reveal.cedar\"", "\"policies/reveal.cedar\", \"ssh.cedar\"");
        hosts.stage.write("gateway.toml", &(text + &hosts.config(&host().host_key().public_line().unwrap())));
        hosts
    }

    fn config(&self, host_key: &str) -> String {
        let of = |key: &SshKeyPair| key.public_line().unwrap().trim().to_owned();
        format!(
            "
[[ssh_login.authority]]
public_key = \"{}\"
issuer = \"ssh-ca\"
kind = \"agent\"
groups = [\"shop-agents\"]
phase = \"plan\"
[[ssh_login.key]]
public_key = \"{}\"
issuer = \"ssh-keys\"
user = \"agent-7\"
kind = \"agent\"
groups = [\"shop-agents\"]
task = \"T-9\"
[[target]]
name = \"web1\"
protocol = \"ssh\"
host = \"127.0.0.1\"
port = {}
host_keys = [\"{}\"]
credential = {{ username = \"{}\", key_file = \"web1.key\" }}
[[listener]]
address = \"127.0.0.1:0\"
targets = [\"web1\"]
",
            of(&self.authority),
            of(&self.key),
            host().port(),
            host_key.trim(),
            host().user()
        )
    }

    /// Runs `ssh` as the agent; options and the command follow.
    fn ssh(&self, serving: &Serving<'_>, words: &[&str]) -> Finished {
        self.ssh_with(serving, self.key.private(), "agent-7%web1", words)
    }

    fn ssh_with(&self, serving: &Serving<'_>, key: &std::path::Path, user: &str, words: &[&str]) -> Finished {
        let (options, command) = words.split_at(words.len().saturating_sub(1));
        let mut ssh = Command::new("ssh");
        ssh.args(client_options(key, ssh_port(serving))).args(options);
        run(ssh.arg(format!("{user}@127.0.0.1")).args(command), "", DEADLINE).unwrap()
    }

    /// The ids of the recorded SSH sessions once they are closed, newest first.
    fn sessions(&self) -> Vec<String> {
        let list = self.stage.command(&["sessions", "list", "--json", "--target", "web1"]).success().unwrap();
        let rows: Value = serde_json::from_str(&list).unwrap();
        rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn events(serving: &Serving<'_>) -> Vec<Value> {
    serving.heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ssh_port(serving: &Serving<'_>) -> u16 {
    let events = events(serving);
    let listening = events.iter().find(|event| event["protocol"] == "ssh").unwrap();
    listening["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn check_logs_in_and_knows_the_host() {
    let hosts = Hosts::new();
    let stage = &hosts.stage;
    let good = stage.command(&["check", "--strict"]);
    assert!(
        good.status.success() && good.stdout.contains("target `web1`: its host key is pinned"),
        "{good:?}"
    );
    assert!(!stage.path("data/ssh_host_ed25519_key").exists());

    let text = fs::read_to_string(stage.path("gateway.toml")).unwrap();
    let pinned = host().host_key().public_line().unwrap();
    let other = hosts.authority.public_line().unwrap();
    let changed = text.replace(
        &format!("host_keys = [\"{}\"]", pinned.trim()),
        &format!("host_keys = [\"{}\"]", other.trim()),
    );
    stage.write("gateway.toml", &changed);
    let refused = stage.command(&["check"]);
    assert!(!refused.status.success() && refused.stdout.contains("which is not pinned"), "{refused:?}");

    let known = format!("[127.0.0.1]:{} {pinned}", host().port());
    stage.write("known_hosts", &known);
    stage.write(
        "gateway.toml",
        &text.replace(&format!("host_keys = [\"{}\"]", pinned.trim()), "known_hosts = \"known_hosts\""),
    );
    stage.command(&["check", "--strict"]).success().unwrap();

    stage.write("web1.key", &hosts.key.pem().unwrap());
    let stranger = stage.command(&["check"]);
    assert!(
        !stranger.status.success() && stranger.stdout.contains("does not accept the gateway's credential"),
        "{stranger:?}"
    );

    let port = testkit::free_port().unwrap();
    stage.write(
        "gateway.toml",
        &text.replace(&format!("port = {}\n", host().port()), &format!("port = {port}\n")),
    );
    let away = stage.command(&["check"]);
    assert!(
        away.status.success() && away.stdout.contains("warning: target `web1` cannot be reached"),
        "{away:?}"
    );
}

#[test]
fn both_protocols_are_served_judged_recorded_and_replayed() {
    let hosts = Hosts::new();
    let serving = hosts.stage.serve();
    assert_eq!(serving.psql("SELECT count(*) FROM orders"), "500");
    let cat = hosts.ssh(&serving, &[&format!("cat {}", notes())]);
    assert_eq!(cat.stdout, "card **** **** **** 1111 end\n", "{}", cat.stderr);
    assert_eq!(hosts.ssh(&serving, &["echo a; false"]).status.code(), Some(1));
    let denied = hosts.ssh(&serving, &["rm -rf orders"]);
    assert!(denied.stderr.contains("files are removed by the cleanup job only"), "{denied:?}");
    let certificate =
        CertificateRequest::new("a").principal("agent-8").sign(&hosts.authority, &hosts.key).unwrap();
    let option = format!("CertificateFile={}", certificate.display());
    let certified = hosts.ssh_with(&serving, hosts.key.private(), "agent-8", &["-o", &option, "echo in"]);
    assert_eq!(certified.stdout, "in\n", "{}", certified.stderr);
    let nowhere = hosts.ssh_with(&serving, hosts.key.private(), "agent-7%shop", &["echo in"]);
    assert!(nowhere.stderr.contains("there is no such target for you"), "{nowhere:?}");
    serving.stop();

    let sessions = hosts.sessions();
    assert_eq!(sessions.len(), 4, "{sessions:?}");
    let replay = |id: &String| hosts.stage.command(&["sessions", "replay", id]).success().unwrap();
    let first = replay(&sessions[3]);
    for words in [
        "ssh-keys|agent-7",
        "web1 (ssh)",
        "T-9",
        "#2 exec (write)",
        "'cat' '/",
        "ssh-run",
        "\n               card **** **** **** 1111 end\n",
        "#2 exit 0: ",
    ] {
        assert!(first.contains(words), "no `{words}` in {first}");
    }
    assert!(!first.contains(" rows"), "{first}");
    assert!(replay(&sessions[2]).contains("exit 1"));
    assert!(replay(&sessions[1]).contains("DENIED") && replay(&sessions[0]).contains("ssh-ca|agent-8"));
    let jsonl = hosts.stage.command(&["sessions", "export", &sessions[3]]).success().unwrap();
    assert!(jsonl.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{jsonl}");
}

#[test]
fn a_listener_for_one_target_needs_no_target_in_the_user_name() {
    let hosts = Hosts::new();
    let other = Sshd::start().unwrap();
    hosts.stage.write("web2.key", &other.client_key().pem().unwrap());
    let second = format!(
        "
[[target]]
name = \"web2\"
protocol = \"ssh\"
host = \"127.0.0.1\"
port = {}
host_keys = [\"{}\"]
credential = {{ username = \"{}\", key_file = \"web2.key\" }}
[[listener]]
address = \"127.0.0.1:0\"
targets = [\"web2\"]
",
        other.port(),
        other.host_key().public_line().unwrap().trim(),
        other.user()
    );
    let text = fs::read_to_string(hosts.stage.path("gateway.toml")).unwrap();
    hosts.stage.write("gateway.toml", &(text + &second));
    let web2 = "permit (principal, action in [Action::\"connect\", Action::\"exec\"], resource) when { resource in Target::\"web2\" };";
    hosts.stage.write("ssh.cedar", &format!("{POLICY}\n{web2}"));
    let serving = hosts.stage.serve();
    let ports: Vec<u16> = events(&serving)
        .iter()
        .filter(|event| event["protocol"] == "ssh")
        .map(|event| event["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap())
        .collect();
    let [first, second] = ports[..] else { panic!("{ports:?}") };
    let ssh = |port: u16, user: &str, command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.args(client_options(hosts.key.private(), port));
        run(ssh.arg(format!("{user}@127.0.0.1")).arg(command), "", DEADLINE).unwrap()
    };
    // Each way leads to its host: only on the second one may look at the settings.
    let home = ssh(second, "agent-7", "printenv HOME");
    assert_eq!(home.stdout.trim(), other.home().display().to_string(), "{}", home.stderr);
    assert_eq!(ssh(first, "agent-7", "echo first").stdout, "first\n");
    assert!(!ssh(first, "agent-7", "printenv HOME").status.success());
    let before = logins(&other);
    assert_eq!(ssh(second, "agent-7", "echo second").stdout, "second\n");
    assert_eq!(logins(&other), before + 1);
    // Neither leads to the other's, also if it is named.
    for (port, user) in [(first, "agent-7%web2"), (second, "agent-7%web1")] {
        let done = ssh(port, user, "echo in");
        assert!(done.stderr.contains("there is no such target for you"), "{user}: {done:?}");
    }
    assert_eq!(logins(&other), before + 1);
    serving.stop();
}

fn logins(host: &Sshd) -> usize {
    host.log().matches("Accepted publickey").count()
}

#[test]
fn file_operations_are_listed() {
    let hosts = Hosts::new();
    let serving = hosts.stage.serve();
    let batch = hosts.stage.path("batch");
    fs::write(&batch, "ls notes.txt\nls -1\n-rm notes.txt\n").unwrap();
    let mut sftp = Command::new("sftp");
    sftp.arg("-q").args(client_options(hosts.key.private(), ssh_port(&serving))).arg("-b").arg(&batch);
    let done = run(sftp.arg("agent-7%web1@127.0.0.1"), "", DEADLINE).unwrap();
    assert!(done.stdout.contains("notes.txt") && done.stderr.contains("denied"), "{done:?}");
    serving.stop();
    let replay = hosts.stage.command(&["sessions", "replay", &hosts.sessions()[0]]).success().unwrap();
    let home = fs::canonicalize(host().home()).unwrap();
    for words in [
        "subsystem",
        "sftp",
        &format!("opendir {}", home.display()),
        &format!("remove {}/notes.txt", home.display()),
        "               notes.txt",
        "DENIED",
    ] {
        assert!(replay.contains(words), "no `{words}` in {replay}");
    }
    assert!(host().home().join("notes.txt").exists());
}

/// Parses a cast as strictly as its definition: the header, then events of three, times that never go back.
fn cast(text: &str) -> (Value, Vec<(f64, String, String)>) {
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header["version"], 2);
    for side in ["width", "height"] {
        assert!(header[side].as_u64().is_some_and(|n| n > 0 && n <= 65_535), "{header}");
    }
    assert!(header["timestamp"].is_u64(), "{header}");
    let events: Vec<(f64, String, String)> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut last = 0.0;
    for (time, kind, data) in &events {
        assert!(
            *time >= last && matches!(kind.as_str(), "o" | "r") && !data.is_empty(),
            "{time} {kind} {data}"
        );
        if kind == "r" {
            let (columns, rows) = data.split_once('x').unwrap();
            assert!(columns.parse::<u16>().is_ok() && rows.parse::<u16>().is_ok(), "{data}");
        }
        last = *time;
    }
    (header, events)
}

#[test]
fn a_terminal_becomes_an_asciicast() {
    let hosts = Hosts::new();
    let serving = hosts.stage.serve();
    let shown = hosts.ssh(
        &serving,
        &[
            "-tt",
            &format!(
                "printf 'caf\\303\\251 \\033[1mbold\\033[0m \\033]0;title\\007\\377\\n'; cat {}",
                notes()
            ),
        ],
    );
    assert!(shown.stdout.contains("café"), "{shown:?}");
    hosts.ssh(&serving, &["printf 'a\\nb\\n'"]);
    serving.psql("SELECT 1");
    serving.stop();
    let export = |id: &str, more: &[&str]| {
        hosts.stage.command(&[&["sessions", "export", id, "--format", "asciicast"], more].concat())
    };
    let sessions = hosts.sessions();
    let (header, events) = cast(&export(&sessions[1], &[]).success().unwrap());
    assert!(header["env"]["TERM"].is_string(), "{header}");
    let output: String =
        events.iter().filter(|(_, kind, _)| kind == "o").map(|(_, _, data)| data.as_str()).collect();
    // A title is a string for the terminal, not for who looks at it: it did not pass.
    assert!(output.contains("café \u{1b}[1mbold\u{1b}[0m \u{fffd}\r\n"), "{output:?}");
    assert!(output.contains("card **** **** **** 1111 end") && !output.contains("4111"), "{output:?}");
    let (_, only) = cast(&export(&sessions[1], &["--operation", "1"]).success().unwrap());
    assert!(only.iter().all(|(_, kind, _)| kind != "o"), "{only:?}");

    let (header, events) = cast(&export(&sessions[0], &[]).success().unwrap());
    assert_eq!((&header["width"], &header["height"]), (&80.into(), &24.into()));
    let output: Vec<&str> = events.iter().map(|(_, _, data)| data.as_str()).collect();
    assert!(output[0].starts_with("$ 'printf'") && output[1..].concat() == "a\r\nb\r\n", "{output:?}");

    // A reader that is no terminal gets the text without what drives terminals.
    let replay = hosts.stage.command(&["sessions", "replay", &sessions[1]]).success().unwrap();
    assert!(
        replay.contains("               caf\u{e9} bold \u{fffd}\n") && !replay.contains('\u{1b}'),
        "{replay:?}"
    );
    // At a terminal it is drawn as it was, without what does more than draw.
    let mut script = Command::new("script");
    let (binary, config) = (env!("CARGO_BIN_EXE_gateway"), hosts.stage.arg("gateway.toml"));
    let line = format!("{binary} sessions replay {} --config {config} --speed 1000", sessions[1]);
    let drawn = run(script.args(["-qec", &line, "/dev/null"]), "", DEADLINE).unwrap();
    assert!(drawn.stdout.contains("caf\u{e9} \u{1b}[1mbold\u{1b}[0m \u{fffd}\r"), "{drawn:?}");
    assert!(drawn.stdout.contains("sealed") && !drawn.stdout.contains("\u{1b}]0"), "{drawn:?}");
    let list = hosts.stage.command(&["sessions", "list", "--json", "--target", "shop"]).success().unwrap();
    let rows: Value = serde_json::from_str(&list).unwrap();
    let database = export(rows[0]["id"].as_str().unwrap(), &[]);
    assert!(!database.status.success() && database.stderr.contains("jsonl"), "{database:?}");
}

#[test]
fn the_host_key_is_made_once_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let hosts = Hosts::new();
    let told =
        |serving: &Serving<'_>| events(serving).into_iter().find(|e| e["event"] == "host_key").unwrap();
    let serving = hosts.stage.serve();
    let first = told(&serving);
    serving.stop();
    let path = hosts.stage.path("data/ssh_host_ed25519_key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let public = fs::read_to_string(hosts.stage.path("data/ssh_host_ed25519_key.pub")).unwrap();
    assert_eq!(first["public_key"], public.trim());
    let serving = hosts.stage.serve();
    let second = told(&serving);
    assert_eq!((&first["made"], &second["made"]), (&true.into(), &false.into()));
    assert_eq!(first["fingerprint"], second["fingerprint"]);
    // Clients that pin it get in, others do not.
    let known = hosts.stage.path("pinned");
    let strict = |line: String| {
        fs::write(&known, line).unwrap();
        let file = format!("UserKnownHostsFile={}", known.display());
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", &file, "-o", "StrictHostKeyChecking=yes"]);
        ssh.args(client_options(hosts.key.private(), ssh_port(&serving)));
        run(ssh.args(["agent-7%web1@127.0.0.1", "echo in"]), "", DEADLINE).unwrap()
    };
    let name = format!("[127.0.0.1]:{}", ssh_port(&serving));
    let done = strict(format!("{name} {public}"));
    assert_eq!(done.stdout, "in\n", "{}", done.stderr);
    assert!(!strict(format!("{name} {}", hosts.authority.public_line().unwrap())).status.success());
    serving.stop();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let open = hosts.stage.command(&["check"]);
    assert!(!open.status.success() && open.stdout.contains("chmod 600"), "{open:?}");
}

#[test]
fn a_reload_counts_for_live_ssh_sessions() {
    let hosts = Hosts::new();
    let mut serving = hosts.stage.serve();
    let socket = hosts.stage.path("master");
    let control = format!("ControlPath={}", socket.display());
    let master = hosts
        .ssh(&serving, &["-o", &control, "-o", "ControlMaster=yes", "-o", "ControlPersist=60", "echo in"]);
    assert_eq!(master.stdout, "in\n", "{}", master.stderr);
    assert!(wait_until(|| socket.exists(), DEADLINE));
    let again =
        || hosts.ssh_with(&serving, hosts.key.private(), "agent-7%web1", &["-o", &control, "echo in"]);
    assert_eq!(again().stdout, "in\n");
    hosts.stage.write(
        "ssh.cedar",
        &format!(
            "{POLICY}\n@reason(\"closed today\") forbid (principal, action == Action::\"exec\", resource);"
        ),
    );
    serving.signal("HUP");
    serving.next_event("reloaded");
    let denied = hosts.ssh_with(&serving, hosts.key.private(), "agent-7%web1", &["-o", &control, "echo in"]);
    assert!(denied.stderr.contains("closed today") && denied.stdout.is_empty(), "{denied:?}");
    let mut exit = Command::new("ssh");
    exit.args(["-F", "none", "-o", &control, "-O", "exit", "agent-7%web1@127.0.0.1"]);
    run(&mut exit, "", DEADLINE).unwrap();
    serving.stop();
}

#[test]
fn a_forward_to_the_database_is_sent_to_its_listener() {
    let hosts = Hosts::new();
    let forward = "permit (principal, action == Action::\"direct_tcpip\", resource in Target::\"web1\");";
    hosts.stage.write("ssh.cedar", &format!("{POLICY}\n{forward}"));
    let serving = hosts.stage.serve();
    let through = |port: u16| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", "LogLevel=DEBUG"]).args(client_options(hosts.key.private(), ssh_port(&serving)));
        ssh.arg("-W").arg(format!("localhost:{port}")).arg("agent-7%web1@127.0.0.1");
        run(&mut ssh, "", DEADLINE).unwrap()
    };
    let refused = through(crate::stage::server().port());
    assert!(refused.stdout.is_empty() && !refused.status.success(), "{refused:?}");
    assert!(
        refused.stderr.contains("connect to the listener `127.0.0.1:0` of this gateway, for `shop`"),
        "{refused:?}"
    );
    assert!(through(host().port()).stdout.starts_with("SSH-2.0-OpenSSH"));
    serving.stop();
}
