//! Who gets in, and who does not.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::clock::{Clock, ManualClock, Timestamp};
use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_core::recording::Record;
use testkit::{CertificateRequest, Finished, SshKeyPair, Sshd, run};

use crate::support::{ALL, DEADLINE, Gateway, Setup, TOKEN, gateway, keys, public};

/// Logs in with a fresh key that the authority signed like this.
fn certified(gateway: &Gateway, request: &CertificateRequest, user: &str, command: &str) -> Finished {
    certified_by(gateway, &keys().authority, request, user, &[], command)
}

fn certified_by(
    gateway: &Gateway,
    authority: &SshKeyPair,
    request: &CertificateRequest,
    user: &str,
    options: &[&str],
    command: &str,
) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let key = SshKeyPair::generate(folder.path(), "user").unwrap();
    let certificate = request.sign(authority, &key).unwrap();
    let mut ssh = gateway.client_with("ssh", key.private());
    ssh.arg("-o").arg(format!("CertificateFile={}", certificate.display())).args(options);
    run(ssh.arg(format!("{user}@127.0.0.1")).arg(command), "", DEADLINE).unwrap()
}

fn agent() -> CertificateRequest {
    CertificateRequest::new("agent-7@ci").principal("agent-7")
}

#[test]
fn a_certificate_names_its_principal_and_the_target() {
    let gateway = gateway(ALL);
    for user in ["agent-7", "agent-7%web1"] {
        let done = certified(&gateway, &agent(), user, "echo in");
        assert_eq!(done.stdout, "in\n", "{}", done.stderr);
    }
    let (header, _) = gateway.recorder.sessions().pop().unwrap();
    assert_eq!(header.principal.actor.to_string(), "ssh-ca|agent-7");
    assert_eq!((header.protocol.as_str(), header.target.as_str()), ("ssh", "web1"));
}

#[test]
fn certificates_that_do_not_hold_are_refused() {
    let gateway = gateway(ALL);
    let refused = [
        (CertificateRequest::new("nobody"), "agent-7"),
        (CertificateRequest::new("other").principal("agent-8"), "agent-7"),
        (agent(), "root"),
        (agent().validity("-2h:-1h"), "agent-7"),
        (agent().validity("+1h:+2h"), "agent-7"),
        (agent().option("source-address=192.0.2.0/24"), "agent-7"),
        (agent().option("critical:unknown@example.com=x"), "agent-7"),
        (agent().option("verify-required"), "agent-7"),
        (agent().host(), "agent-7"),
    ];
    for (request, user) in refused {
        let done = certified(&gateway, &request, user, "echo in");
        assert_eq!(done.status.code(), Some(255), "{request:?}");
        assert!(done.stderr.contains("Permission denied"), "{request:?}: {}", done.stderr);
    }
    let folder = tempfile::tempdir().unwrap();
    let stranger = SshKeyPair::generate(folder.path(), "stranger").unwrap();
    assert!(!certified_by(&gateway, &stranger, &agent(), "agent-7", &[], "echo in").status.success());
    assert!(gateway.recorder.sessions().is_empty());
    let good = agent().option("source-address=127.0.0.0/8");
    assert!(certified(&gateway, &good, "agent-7", "echo in").status.success());
}

#[test]
fn a_certificate_forces_its_command_and_withholds_what_it_does_not_extend() {
    let gateway = gateway(ALL);
    let forced = agent().option("force-command=echo forced");
    assert_eq!(certified(&gateway, &forced, "agent-7", "echo other").stdout, "forced\n");
    let bare = agent().option("clear");
    let done = certified_by(&gateway, &keys().authority, &bare, "agent-7", &["-tt"], "echo x");
    assert!(done.stderr.contains("the certificate does not permit a terminal"), "{done:?}");
    let full = certified_by(&gateway, &keys().authority, &agent(), "agent-7", &["-tt"], "tty");
    assert!(full.stdout.starts_with("/dev/pts/"), "{} {}", full.stdout, full.stderr);
}

/// Asks for what the script does with a certificate that has these extensions only.
fn extended(gateway: &Gateway, extensions: &[&str], script: &str) -> String {
    let request = extensions.iter().fold(agent().option("clear"), |request, name| request.option(name));
    let key = SshKeyPair::generate(gateway.folder.path(), &testkit::random_text(12)).unwrap();
    request.sign(&keys().authority, &key).unwrap();
    let mut python = Command::new("/usr/bin/python3");
    python.arg("-").arg(gateway.address.port().to_string()).arg(key.private());
    let done = run(&mut python, &format!("{CERTIFIED}\n{script}"), DEADLINE).unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    done.stdout
}

const CERTIFIED: &str = r#"
import paramiko, sys
from paramiko.agent import AgentRequestHandler
port, path = int(sys.argv[1]), sys.argv[2]
key = paramiko.Ed25519Key.from_private_key_file(path)
key.load_certificate(path + "-cert.pub")
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "agent-7", pkey=key, allow_agent=False, look_for_keys=False)
transport = client.get_transport()
def attempt(what):
    try: print(what())
    except paramiko.SSHException as refused: print("refused")
"#;

#[test]
fn a_certificate_that_does_not_permit_forwarding_withholds_it() {
    let ports = r#"
attempt(lambda: transport.open_channel("direct-tcpip", ("127.0.0.1", PORT), ("127.0.0.1", 1), timeout=20).recv(4))
attempt(lambda: transport.request_port_forward("127.0.0.1", 0) > 0)
"#
    .replace("PORT", &crate::support::server().port().to_string());
    let session = |ask: &str| {
        format!(
            "channel = transport.open_session()\n\
             attempt(lambda: {ask})\n\
             channel.exec_command('echo $DISPLAY | wc -w; echo $SSH_AUTH_SOCK | wc -w')\n\
             print(channel.makefile('rb').read(), channel.makefile_stderr('rb').read().decode())"
        )
    };
    let agent = session("AgentRequestHandler(channel) is not None");
    let screen = session("len(channel.request_x11()) > 0");
    let gateway = gateway(ALL);
    // Everything but what is asked for.
    let but = |without: &str| -> Vec<&'static str> {
        let all =
            ["permit-port-forwarding", "permit-agent-forwarding", "permit-X11-forwarding", "permit-pty"];
        all.into_iter().filter(|name| *name != without).collect()
    };
    assert_eq!(extended(&gateway, &but("permit-port-forwarding"), &ports), "refused\nrefused\n");
    assert_eq!(extended(&gateway, &["permit-port-forwarding"], &ports), "b'SSH-'\nTrue\n");
    let said = extended(&gateway, &but("permit-agent-forwarding"), &agent);
    assert!(said.contains("b'0\\n0\\n'"), "{said}");
    assert!(said.contains("the certificate does not permit agent forwarding"), "{said}");
    let said = extended(&gateway, &["permit-agent-forwarding"], &agent);
    assert!(said.contains("b'0\\n1\\n'"), "{said}");
    // This client closes the channel after the refusal.
    let alone = "attempt(lambda: transport.open_session().request_x11())";
    assert_eq!(extended(&gateway, &but("permit-X11-forwarding"), alone), "refused\n");
    let said = extended(&gateway, &["permit-X11-forwarding"], &screen);
    assert!(said.contains("b'1\\n0\\n'"), "{said}");
    let refused: Vec<String> = gateway
        .records()
        .into_iter()
        .filter_map(|record| match record {
            Record::Denied { denial, .. } => Some(denial.message.to_string()),
            _ => None,
        })
        .collect();
    for what in ["port forwarding", "agent forwarding", "X11 forwarding"] {
        let words = format!("the certificate does not permit {what}");
        assert!(refused.iter().any(|reason| reason.contains(&words)), "{words}: {refused:?}");
    }
}

/// What can be had with effort proves nothing, whoever listed or signed it.
#[test]
fn short_rsa_keys_prove_nothing() {
    let gateway = gateway(ALL);
    let folder = tempfile::tempdir().unwrap();
    let with = |bits: &str| {
        let key = SshKeyPair::generate_as(folder.path(), bits, &["-t", "rsa", "-b", bits]).unwrap();
        let certificate = agent().sign(&keys().authority, &key).unwrap();
        let mut ssh = gateway.client_with("ssh", key.private());
        ssh.arg("-o").arg(format!("CertificateFile={}", certificate.display()));
        run(ssh.args(["agent-7@127.0.0.1", "echo in"]), "", DEADLINE).unwrap()
    };
    let short = with("1024");
    assert!(short.stderr.contains("Permission denied"), "{short:?}");
    assert_eq!(with("2048").stdout, "in\n");
}

#[test]
fn a_listed_key_gets_in_under_its_own_name_only() {
    let gateway = gateway(ALL);
    assert_eq!(gateway.ssh(&["echo in"]).stdout, "in\n");
    let mut other = gateway.client("ssh");
    let done = run(other.args(["root@127.0.0.1", "echo in"]), "", DEADLINE).unwrap();
    assert!(done.stderr.contains("Permission denied"), "{}", done.stderr);
}

/// Answers the client's question through the helper program that OpenSSH asks.
fn with_answer(gateway: &Gateway, method: &str, answer: &str) -> Finished {
    let helper = gateway.path("askpass");
    let seen = gateway.path("prompt");
    let script =
        format!("#!/bin/sh\nprintf '%s' \"$1\" >> '{}'\nprintf '%s\\n' '{answer}'\n", seen.display());
    std::fs::write(&helper, script).unwrap();
    assert!(Command::new("chmod").arg("700").arg(&helper).status().unwrap().success());
    let options = testkit::client_options(keys().agent.private(), gateway.address.port());
    let mut ssh = Command::new("ssh");
    ssh.args(options.iter().map(|option| option.replace("BatchMode=yes", "NumberOfPasswordPrompts=1")));
    ssh.arg("-o").arg(format!("PreferredAuthentications={method}"));
    ssh.env("SSH_ASKPASS", helper).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", "none");
    run(ssh.args(["agent-7%web1@127.0.0.1", "echo in"]), "", DEADLINE).unwrap()
}

#[test]
fn a_token_is_taken_as_password_and_as_an_answer() {
    let gateway = gateway(ALL);
    for method in ["password", "keyboard-interactive"] {
        let done = with_answer(&gateway, method, TOKEN);
        assert_eq!(done.stdout, "in\n", "{method}: {}", done.stderr);
        let refused = with_answer(&gateway, method, "wrong");
        assert!(refused.stderr.contains("Permission denied"), "{method}: {}", refused.stderr);
    }
    assert!(std::fs::read_to_string(gateway.path("prompt")).unwrap().contains("Token: "));
}

#[test]
fn an_unknown_target_and_a_forbidden_one_are_told_and_not_reached() {
    let everywhere = gateway(ALL);
    let mut ssh = everywhere.client("ssh");
    let done = run(ssh.args(["agent-7%db9@127.0.0.1", "echo in"]), "", DEADLINE).unwrap();
    assert!(done.stderr.contains("denied: there is no such target for you"), "{}", done.stderr);
    let nowhere = gateway("permit (principal, action == Action::\"exec\", resource);");
    let done = nowhere.ssh(&["echo in"]);
    assert!(done.stderr.contains("denied: ") && done.status.code() == Some(255), "{}", done.stderr);
}

#[test]
fn a_changed_host_key_refuses_and_the_log_of_the_host_has_no_login() {
    let other = SshKeyPair::generate(keys().folder.path(), "other-host").unwrap();
    let host = Sshd::start().unwrap();
    let mut setup = Setup::new(ALL);
    setup.target = gateway_ssh::Target::new("web1", "127.0.0.1", host.port()).host_key(public(&other));
    let done = setup.start().ssh(&["echo in"]);
    assert!(done.stderr.contains("denied: target `web1` is not available"), "{}", done.stderr);
    assert!(!host.log().contains("Accepted"), "{}", host.log());
}

#[test]
fn a_host_authority_is_believed_for_the_host_it_names() {
    let host = Sshd::builder().host_certificate().start().unwrap();
    let set = |name: &str| {
        let mut setup = Setup::new(ALL);
        setup.target = gateway_ssh::Target::new("web1", name, host.port())
            .host_authority(public(&host.host_authority()));
        setup.credential = UpstreamCredential::Key {
            username: host.user().to_owned(),
            key: Secret::new(host.client_key().pem().unwrap()),
            certificate: None,
        };
        setup.start().ssh(&["echo in"])
    };
    assert_eq!(set("127.0.0.1").stdout, "in\n");
    let done = set("localhost");
    assert!(done.stderr.contains("is not available"), "{}", done.stderr);
}

#[test]
fn the_gateway_logs_in_with_a_certificate_too() {
    let folder = tempfile::tempdir().unwrap();
    let authority = SshKeyPair::generate(folder.path(), "ca").unwrap();
    let key = SshKeyPair::generate(folder.path(), "gateway").unwrap();
    let trusted = folder.path().join("ca.pub");
    let host = Sshd::builder().setting(format!("TrustedUserCAKeys {}", trusted.display())).start().unwrap();
    let certificate =
        CertificateRequest::new("gateway").principal(host.user()).sign(&authority, &key).unwrap();
    let mut setup = Setup::new(ALL);
    setup.target =
        gateway_ssh::Target::new("web1", "127.0.0.1", host.port()).host_key(public(host.host_key()));
    setup.credential = UpstreamCredential::Key {
        username: host.user().to_owned(),
        key: Secret::new(key.pem().unwrap()),
        certificate: Some(std::fs::read_to_string(certificate).unwrap()),
    };
    assert_eq!(setup.start().ssh(&["echo in"]).stdout, "in\n");
}

#[test]
fn a_session_ends_with_its_identity() {
    let clock = Arc::new(ManualClock::new(Timestamp::from(std::time::SystemTime::now())));
    let mut setup = Setup::new(ALL);
    setup.principal.expires_at = clock.now().plus(Duration::from_secs(600));
    setup.clock = Arc::clone(&clock) as _;
    let gateway = setup.start();
    let mut ssh = gateway.client("ssh");
    ssh.args(["agent-7@127.0.0.1", "echo started; sleep 600"]);
    let running = std::thread::spawn(move || run(&mut ssh, "", DEADLINE).unwrap());
    let started = || gateway.records().iter().any(|r| matches!(r, Record::Released { .. }));
    assert!(testkit::wait_until(started, DEADLINE));
    clock.advance(Duration::from_secs(700));
    let done = running.join().unwrap();
    assert!(done.stderr.contains("the identity expired"), "{}", done.stderr);
    assert_eq!(done.status.code(), Some(255));
}

#[test]
fn weak_algorithms_are_not_spoken_and_compression_is_declined() {
    let gateway = gateway(ALL);
    for weak in [
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "KexAlgorithms=ecdh-sha2-nistp256",
        "Ciphers=aes128-cbc",
        "Ciphers=3des-cbc",
        "HostKeyAlgorithms=ssh-rsa",
    ] {
        let done = gateway.ssh(&["-o", weak, "echo in"]);
        assert_eq!((done.stdout.as_str(), done.status.code()), ("", Some(255)), "{weak}");
    }
    // With a cipher that needs a code of its own, only encrypt-then-MAC is left.
    let cipher = ["-o", "Ciphers=aes256-ctr"];
    let with = |mac: &str| gateway.ssh(&[&cipher[..], &["-o", mac, "echo in"]].concat()).stdout;
    assert_eq!(with("MACs=hmac-sha1,hmac-md5,hmac-sha2-256"), "");
    assert_eq!(with("MACs=hmac-sha2-256-etm@openssh.com"), "in\n");
    for strong in ["KexAlgorithms=curve25519-sha256", "Ciphers=aes256-gcm@openssh.com", "Compression=yes"] {
        assert_eq!(gateway.ssh(&["-o", strong, "echo in"]).stdout, "in\n", "{strong}");
    }
}
