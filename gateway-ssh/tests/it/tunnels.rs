//! Connections through the gateway to elsewhere.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use gateway_core::recording::Record;
use gateway_ssh::Served;
use testkit::{Guard, client_options, free_port, run, wait_until};

use crate::support::{ALL, DEADLINE, Gateway, Setup, gateway, keys, server};

/// `ssh -W` to this port; gives what came back.
fn through(gateway: &Gateway, port: u16) -> testkit::Finished {
    let mut ssh = gateway.client("ssh");
    ssh.arg("-W").arg(format!("127.0.0.1:{port}")).arg("agent-7@127.0.0.1");
    run(&mut ssh, "", DEADLINE).unwrap()
}

/// Says hello to whoever connects.
fn greeter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"hello\n");
        }
    });
    port
}

fn denied(gateway: &Gateway, kind: &str) -> bool {
    let mut ids = Vec::new();
    for record in gateway.records() {
        match record {
            Record::Presented { operations, .. } => {
                ids.extend(operations.iter().filter(|o| o.kind == kind).map(|o| o.id));
            }
            Record::Denied { operations, .. } if operations.iter().any(|id| ids.contains(id)) => return true,
            _ => {}
        }
    }
    false
}

#[test]
fn a_forward_needs_its_endpoint_permitted() {
    let (open, other) = (greeter(), greeter());
    let gateway = gateway(&format!(
        r#"permit (principal, action == Action::"connect", resource);
permit (principal, action == Action::"direct_tcpip", resource == Endpoint::"web1/127.0.0.1:{open}");"#
    ));
    let done = through(&gateway, open);
    assert_eq!(done.stdout, "hello\n", "{}", done.stderr);
    let done = through(&gateway, other);
    assert!(done.stdout.is_empty() && !done.status.success());
    assert!(done.stderr.contains("forwarding failed"), "{}", done.stderr);
    assert!(denied(&gateway, "direct_tcpip"));
    let own = through(&gateway, server().port());
    assert!(own.stdout.is_empty() && !own.status.success());
}

#[test]
fn reverse_forwards_and_agents_are_refused_whatever_is_permitted() {
    let gateway = gateway(ALL);
    let port = free_port().unwrap();
    let forward = format!("127.0.0.1:{port}:127.0.0.1:1");
    let done = gateway.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", &forward, "echo in"]);
    assert!(!done.status.success() && done.stdout.is_empty(), "{done:?}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let agent = gateway.path("agent");
    let _agent =
        Guard::spawn(Command::new("ssh-agent").args(["-D", "-a"]).arg(&agent).stdout(Stdio::null())).unwrap();
    assert!(wait_until(|| agent.exists(), DEADLINE));
    let options = client_options(keys().agent.private(), gateway.address.port());
    let with_agent = format!("IdentityAgent={}", agent.display());
    let mut ssh = Command::new("ssh");
    ssh.args(options.iter().map(|option| option.replace("IdentityAgent=none", &with_agent)));
    let done = run(ssh.args(["-A", "agent-7@127.0.0.1", "echo [$SSH_AUTH_SOCK]"]), "", DEADLINE).unwrap();
    assert_eq!(done.stdout, "[]\n");
    assert!(done.stderr.contains("agent forwarding is not offered"), "{}", done.stderr);
}

/// Says hello to whoever connects to this socket.
fn greeter_at(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"hello\n");
        }
    });
}

/// What comes through a forward of a local port to this socket of the target.
fn through_socket(gateway: &Gateway, socket: &str) -> String {
    let local = free_port().unwrap();
    let mut ssh = gateway.client("ssh");
    ssh.arg("-N").arg("-L").arg(format!("127.0.0.1:{local}:{socket}")).arg("agent-7@127.0.0.1");
    let _ssh = Guard::spawn(&mut ssh).unwrap();
    assert!(wait_until(|| TcpStream::connect(("127.0.0.1", local)).is_ok(), DEADLINE));
    let mut stream = TcpStream::connect(("127.0.0.1", local)).unwrap();
    let mut came = [0; 6];
    let read = stream.read(&mut came).unwrap_or(0);
    String::from_utf8_lossy(&came[..read]).into_owned()
}

#[test]
fn a_socket_needs_a_permit_of_its_own() {
    let folder = tempfile::tempdir_in(server().home()).unwrap();
    let folder = folder.path().to_str().unwrap();
    let (open, other) = (format!("{folder}/open"), format!("{folder}/other"));
    greeter_at(Path::new(&open));
    greeter_at(Path::new(&other));
    let gateway = gateway(&format!(
        r#"permit (principal, action == Action::"connect", resource);
permit (principal, action == Action::"direct_streamlocal", resource)
when {{ ["{open}", "{folder}/open/../other", "{folder}//other"].contains(resource.name) }};"#
    ));
    assert_eq!(through_socket(&gateway, &open), "hello\n");
    // Another socket, and spellings of it that a permit was written for by mistake.
    for socket in [other.clone(), format!("{folder}/open/../other"), format!("{folder}//other")] {
        assert_eq!(through_socket(&gateway, &socket), "", "{socket}");
    }
    assert!(denied(&gateway, "direct_streamlocal"));
    let released = gateway
        .records()
        .into_iter()
        .any(|record| matches!(record, Record::Released { bytes, .. } if *bytes == *b"hello\n"));
    assert!(released, "what passed is recorded");
}

#[test]
fn nothing_is_forwarded_past_another_listener() {
    let port = greeter();
    let mut setup = Setup::new(ALL);
    setup.served = vec![Served::at("127.0.0.1", port, "the listener `0.0.0.0:6432`")];
    let gateway = setup.start();
    for host in ["127.0.0.1", "localhost", "127.1", "0", "::ffff:127.0.0.1"] {
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", "LogLevel=DEBUG"])
            .args(client_options(keys().agent.private(), gateway.address.port()));
        let done = run(ssh.arg("-W").arg(format!("[{host}]:{port}")).arg("agent-7@127.0.0.1"), "", DEADLINE)
            .unwrap();
        assert!(done.stdout.is_empty() && !done.status.success(), "{host}: {done:?}");
        assert!(done.stderr.contains("connect to the listener `0.0.0.0:6432`"), "{host}: {}", done.stderr);
    }
    assert!(denied(&gateway, "direct_tcpip"));
    assert_eq!(through(&gateway, greeter()).stdout, "hello\n");
}

/// Logs in to the server itself with the gateway as its jump host.
fn jump(gateway: &Gateway) -> testkit::Finished {
    let common = "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nIdentitiesOnly yes\nLogLevel ERROR\nBatchMode yes\n";
    let config = format!(
        "Host gateway\nHostName 127.0.0.1\nPort {}\nUser agent-7\nIdentityFile {}\n\
         Host inner\nHostName 127.0.0.1\nPort {}\nUser {}\nIdentityFile {}\nProxyJump gateway\nHost *\n{common}",
        gateway.address.port(),
        keys().agent.private().display(),
        server().port(),
        server().user(),
        server().client_key().private().display(),
    );
    let file = gateway.path("config");
    std::fs::write(&file, config).unwrap();
    run(Command::new("ssh").arg("-F").arg(&file).args(["inner", "echo inside"]), "", DEADLINE).unwrap()
}

#[test]
fn a_jump_through_the_gateway_needs_a_permit() {
    let connect = r#"permit (principal, action in [Action::"connect", Action::"exec"], resource);"#;
    let done = jump(&gateway(connect));
    assert!(!done.status.success() && done.stdout.is_empty(), "{done:?}");
    let endpoint = format!("web1/127.0.0.1:{}", server().port());
    let permit = format!(
        r#"permit (principal, action == Action::"direct_tcpip", resource == Endpoint::"{endpoint}");"#
    );
    let done = jump(&gateway(&format!("{connect}\n{permit}")));
    assert_eq!(done.stdout, "inside\n", "{}", done.stderr);
}
