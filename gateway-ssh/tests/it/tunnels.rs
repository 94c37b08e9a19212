//! Connections through the gateway to elsewhere.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use gateway_core::recording::Record;
use testkit::{Guard, client_options, free_port, run, wait_until};

use crate::support::{ALL, DEADLINE, Gateway, gateway, keys, server};

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
fn reverse_forwards_agents_and_sockets_are_refused_whatever_is_permitted() {
    let gateway = gateway(ALL);
    let port = free_port().unwrap();
    let forward = format!("127.0.0.1:{port}:127.0.0.1:1");
    let done = gateway.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", &forward, "echo in"]);
    assert!(!done.status.success() && done.stdout.is_empty(), "{done:?}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let socket = gateway.path("socket");
    let local = free_port().unwrap();
    let mut ssh = gateway.client("ssh");
    ssh.arg("-N").arg("-L").arg(format!("127.0.0.1:{local}:{}", socket.display())).arg("agent-7@127.0.0.1");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let _ssh = Guard::spawn(&mut ssh).unwrap();
    assert!(wait_until(|| TcpStream::connect(("127.0.0.1", local)).is_ok(), DEADLINE));
    let mut stream = TcpStream::connect(("127.0.0.1", local)).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
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
