//! Connections through the gateway to elsewhere.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use gateway_core::recording::Record;
use gateway_ssh::Served;
use testkit::{Guard, client_options, free_port, run, wait_until};

use crate::clients::paramiko_through;
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

/// Everything, except what programs of the target might open towards the client.
const NOTHING_BACK: &str = r#"permit (principal, action, resource)
unless { [Action::"reveal", Action::"tcpip_forward", Action::"streamlocal_forward", Action::"agent_forward", Action::"x11"].contains(action) };"#;

/// A client that has the target forward this to it; gone with the guard.
fn reverse(gateway: &Gateway, forward: &str) -> Guard {
    let mut ssh = gateway.client("ssh");
    ssh.args(["-o", "ExitOnForwardFailure=yes", "-N", "-R", forward, "agent-7@127.0.0.1"]);
    Guard::spawn(&mut ssh).unwrap()
}

fn greeting(mut stream: impl Read) -> String {
    let mut came = String::new();
    let _ = stream.read_to_string(&mut came);
    came
}

/// The length of what clients sent, by the records.
fn sent(gateway: &Gateway) -> Option<u64> {
    gateway.records().into_iter().find_map(|record| match record {
        Record::Digested { content, bytes, .. } if content == "ssh/input" => Some(bytes),
        _ => None,
    })
}

#[test]
fn a_permitted_reverse_forward_brings_connections_to_the_client() {
    let gateway = gateway(ALL);
    let (port, greeter) = (free_port().unwrap(), greeter());
    let ssh = reverse(&gateway, &format!("127.0.0.1:{port}:127.0.0.1:{greeter}"));
    let connect = || TcpStream::connect(("127.0.0.1", port));
    assert!(wait_until(|| connect().is_ok_and(|stream| greeting(stream) == "hello\n"), DEADLINE));
    assert!(wait_until(|| sent(&gateway) == Some(6), DEADLINE), "{:?}", gateway.records());
    // Several at once, and they end by themselves.
    let several: Vec<_> = (0..5).map(|_| connect().unwrap()).collect();
    assert!(several.into_iter().all(|stream| greeting(stream) == "hello\n"));
    // The target listens no longer than the client is there.
    drop(ssh);
    assert!(wait_until(|| connect().is_err(), DEADLINE));
}

#[test]
fn a_permitted_reverse_forward_of_a_socket_brings_connections_to_the_client() {
    let gateway = gateway(ALL);
    let folder = tempfile::tempdir_in(server().home()).unwrap();
    let socket = folder.path().join("back");
    let _ssh = reverse(&gateway, &format!("{}:127.0.0.1:{}", socket.display(), greeter()));
    let connect = || UnixStream::connect(&socket);
    assert!(wait_until(|| connect().is_ok_and(|stream| greeting(stream) == "hello\n"), DEADLINE));
}

#[test]
fn the_target_chooses_a_port_and_stops_listening_when_told() {
    let gateway = gateway(ALL);
    let said = paramiko_through(
        &gateway,
        r#"
import socket
chosen = transport.request_port_forward("127.0.0.1", 0)
outside = socket.create_connection(("127.0.0.1", chosen))
channel = transport.accept(20)
channel.sendall(b"in")
outside.sendall(b"out")
print(chosen > 0, outside.recv(9), channel.recv(9))
channel.close()
print(outside.recv(9))
transport.cancel_port_forward("127.0.0.1", chosen)
while True:
    try: socket.create_connection(("127.0.0.1", chosen)).close()
    except ConnectionRefusedError: break
print("ended")
"#,
    );
    assert_eq!(said, "True b'in' b'out'\nb''\nended\n");
}

#[test]
fn what_is_not_permitted_is_not_opened_towards_the_client() {
    let gateway = gateway(NOTHING_BACK);
    let (port, greeter) = (free_port().unwrap(), greeter());
    let forward = format!("127.0.0.1:{port}:127.0.0.1:{greeter}");
    let done = gateway.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", &forward, "echo in"]);
    assert!(!done.status.success() && done.stdout.is_empty(), "{done:?}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(denied(&gateway, "tcpip_forward"));
    let done = with_agent(&gateway, "echo [$SSH_AUTH_SOCK]");
    assert_eq!(done.stdout, "[]\n");
    assert!(denied(&gateway, "agent_forward"));
}

/// Runs a command with a client that lends its agent, which holds one key.
fn with_agent(gateway: &Gateway, command: &str) -> testkit::Finished {
    let agent = gateway.path("agent.sock");
    let _agent =
        Guard::spawn(Command::new("ssh-agent").args(["-D", "-a"]).arg(&agent).stdout(Stdio::null())).unwrap();
    assert!(wait_until(|| agent.exists(), DEADLINE));
    let mut add = Command::new("ssh-add");
    let done = run(add.arg(keys().agent.private()).env("SSH_AUTH_SOCK", &agent), "", DEADLINE).unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    let options = client_options(keys().agent.private(), gateway.address.port());
    let with_agent = format!("IdentityAgent={}", agent.display());
    let mut ssh = Command::new("ssh");
    ssh.args(options.iter().map(|option| option.replace("IdentityAgent=none", &with_agent)));
    run(ssh.args(["-A", "agent-7@127.0.0.1", command]), "", DEADLINE).unwrap()
}

#[test]
fn a_permitted_agent_answers_programs_of_the_target() {
    let gateway = gateway(ALL);
    let done = with_agent(&gateway, "ssh-add -l; ssh-add -l | wc -l");
    assert!(done.stdout.contains("ED25519") && done.stdout.ends_with("\n1\n"), "{done:?}");
    // Without the client's wish there is none.
    assert_eq!(gateway.ssh(&["echo [$SSH_AUTH_SOCK]"]).stdout, "[]\n");
}

#[test]
fn a_permitted_screen_is_drawn_on() {
    let ask = r#"
channel = transport.open_session()
try:
    channel.request_x11()
    channel.exec_command("exec 3<>/dev/tcp/127.0.0.1/$((6000 + $(echo $DISPLAY | sed 's/.*:\\([0-9]*\\).*/\\1/'))); echo drawing >&3; read answer <&3; echo $answer")
    screen = transport.accept(20)
    print(screen.recv(100))
    screen.sendall(b"drawn\n")
    print(channel.recv(100))
except paramiko.SSHException as refused:
    print(refused)
"#;
    let said = paramiko_through(&gateway(ALL), ask);
    assert_eq!(said, "b'drawing\\n'\nb'drawn\\n'\n");
    let said = paramiko_through(&gateway(NOTHING_BACK), ask);
    assert!(!said.contains("drawing"), "{said}");
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
    let passed = gateway.records().into_iter().find_map(|record| match record {
        Record::Digested { content, bytes, .. } if content == "released" => Some(bytes),
        _ => None,
    });
    assert_eq!(passed, Some(b"hello\n".len() as u64), "how much passed is recorded");
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

/// A client must not replace what the gateway knows of a channel by saying that it took it.
#[test]
fn a_channel_that_nobody_asked_for_is_not_taken() {
    let gateway = gateway(ALL);
    let said = paramiko_through(
        &gateway,
        r#"
from paramiko.common import cMSG_CHANNEL_OPEN_SUCCESS
channel = transport.open_session()
channel.exec_command("cat")
message = paramiko.Message()
message.add_byte(cMSG_CHANNEL_OPEN_SUCCESS)
for number in (channel.remote_chanid, channel.chanid, 100000, 30000): message.add_int(number)
transport._send_message(message)
print(channel.recv(1), transport.join(20), transport.is_active())
"#,
    );
    assert_eq!(said, "b'' None False\n");
}

/// Numbers beyond the last port, which some systems cut to other ports.
#[test]
fn large_numbers_are_no_ports() {
    let gateway = gateway(ALL);
    let greeter = greeter();
    let ports = [65536 + u32::from(greeter), 70_968];
    for port in ports {
        let done = paramiko_through(
            &gateway,
            &r#"
for attempt in (lambda: transport.open_channel("direct-tcpip", ("127.0.0.1", PORT), ("127.0.0.1", 1), timeout=20),
                lambda: transport.request_port_forward("127.0.0.1", PORT)):
    try: print("open", attempt())
    except paramiko.SSHException: print("refused")
"#
            .replace("PORT", &port.to_string()),
        );
        assert_eq!(done, "refused\nrefused\n");
    }
}
