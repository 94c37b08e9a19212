//! Other stock clients than OpenSSH's.

use std::process::Command;

use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_core::recording::Record;
use testkit::{Sshd, run};

use crate::support::{ALL, DEADLINE, Gateway, Setup, gateway, keys, public, server};

/// Runs a Python script that gets port, key file and a folder on the server.
fn python(script: &str) -> String {
    python_through(&gateway(ALL), script)
}

/// The same through this gateway.
fn python_through(gateway: &Gateway, script: &str) -> String {
    let folder = tempfile::tempdir_in(server().home()).unwrap();
    let mut python = Command::new("/usr/bin/python3");
    python.arg("-").arg(gateway.address.port().to_string()).arg(keys().agent.private()).arg(folder.path());
    let done = run(&mut python, script, DEADLINE).unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    done.stdout
}

/// A paramiko client that is logged in; what came last in the arguments is its `folder`.
pub const PARAMIKO: &str = r#"
import paramiko, sys
port, key, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "agent-7", pkey=paramiko.Ed25519Key.from_private_key_file(key), allow_agent=False, look_for_keys=False)
transport = client.get_transport()
"#;

/// Runs a script with that client.
pub fn paramiko_through(gateway: &Gateway, script: &str) -> String {
    python_through(gateway, &format!("{PARAMIKO}{script}"))
}

#[test]
fn paramiko() {
    let said = paramiko_through(
        &gateway(ALL),
        r#"
stdin, stdout, stderr = client.exec_command("cat; echo problem >&2; exit 9")
stdin.write("input"); stdin.channel.shutdown_write()
print(stdout.read().decode(), stderr.read().decode().strip(), stdout.channel.recv_exit_status())
sftp = client.open_sftp()
with sftp.open(folder + "/f", "w") as file:
    file.write("line\n" * 100000)
with sftp.open(folder + "/f") as file:
    file.prefetch()
    print(len(file.read()), sftp.stat(folder + "/f").st_size, sftp.listdir(folder))
print([client.exec_command(f"echo {n}")[1].read().decode().strip() for n in range(5)])
"#,
    );
    assert_eq!(said, "input problem 9\n500000 500000 ['f']\n['0', '1', '2', '3', '4']\n");
}

#[test]
fn asyncssh() {
    let said = python(
        r#"
import asyncio, asyncssh, sys
port, key, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
async def main():
    async with asyncssh.connect("127.0.0.1", port, username="agent-7", client_keys=[key], known_hosts=None, agent_path=None) as client:
        done = await client.run("cat; exit 4", input="input")
        print(done.stdout, done.exit_status)
        several = await asyncio.gather(*[client.run(f"sleep 0.2; echo {n}") for n in range(8)])
        print([one.stdout.strip() for one in several])
        async with client.start_sftp_client() as sftp:
            async with sftp.open(folder + "/f", "w") as file:
                await file.write("line\n" * 1000)
            await sftp.rename(folder + "/f", folder + "/g")
            print(await sftp.getsize(folder + "/g"))
asyncio.run(main())
"#,
    );
    assert_eq!(said, "input 4\n['0', '1', '2', '3', '4', '5', '6', '7']\n5000\n");
}

#[test]
fn a_target_that_allows_one_session_per_connection_serves_many_channels() {
    let host = Sshd::builder().setting("MaxSessions 1").start().unwrap();
    let mut setup = Setup::new(ALL);
    setup.target =
        gateway_ssh::Target::new("web1", "127.0.0.1", host.port()).host_key(public(host.host_key()));
    setup.credential = UpstreamCredential::Key {
        username: host.user().to_owned(),
        key: Secret::new(host.client_key().pem().unwrap()),
        certificate: None,
    };
    let said = python_through(
        &setup.start(),
        r#"
import asyncio, asyncssh, sys
port, key = int(sys.argv[1]), sys.argv[2]
async def main():
    async with asyncssh.connect("127.0.0.1", port, username="agent-7", client_keys=[key], known_hosts=None, agent_path=None) as client:
        for n in range(12):
            assert (await client.run(f"echo {n}")).stdout == f"{n}\n"
        several = await asyncio.gather(*[client.run(f"sleep 0.3; echo {n}") for n in range(4)])
        print([one.stdout.strip() for one in several])
asyncio.run(main())
"#,
    );
    assert_eq!(said, "['0', '1', '2', '3']\n");
    // Those at the same time need several connections; most of the sixteen take one over. A host that has not yet forgotten the
    // session before refuses the next, and that one gets a connection of its own.
    let logins = host.log().matches("Accepted publickey").count();
    assert!((4..16).contains(&logins), "{logins}");
}

#[test]
fn signals_are_judged_and_window_sizes_reach_the_program() {
    let gateway = gateway(ALL);
    let said = python_through(
        &gateway,
        r#"
import asyncio, asyncssh, sys
port, key = int(sys.argv[1]), sys.argv[2]
async def main():
    async with asyncssh.connect("127.0.0.1", port, username="agent-7", client_keys=[key], known_hosts=None, agent_path=None) as client:
        process = await client.create_process("cat")
        process.send_signal("USR1")
        process.stdin.write_eof()
        await process.wait()
        process = await client.create_process("stty -echo; stty size; read x; stty size", term_type="xterm", term_size=(80, 24))
        print((await process.stdout.readline()).strip())
        process.change_terminal_size(100, 40)
        process.stdin.write("\n")
        done = await process.wait()
        print(done.stdout.strip())
asyncio.run(main())
"#,
    );
    assert_eq!(said, "24 80\n40 100\n");
    let mut presented = Vec::new();
    for record in gateway.records() {
        if let Record::Presented { operations, .. } = record {
            presented.extend(operations.into_iter().map(|o| format!("{} {}", o.kind, o.statement)));
        }
    }
    for wanted in ["signal USR1", "pty xterm 80x24", "pty xterm 100x40"] {
        assert!(presented.iter().any(|said| said == wanted), "{wanted}: {presented:?}");
    }
}
