//! Attacks as data: `cases/*.toml`. The fields are those of [`Case`] and [`Step`].

use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use testkit::{client_options, run};

use crate::arena::{Arena, Door};
use testkit::bypass::{Attack, Outcome};

/// A file of cases of one class.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    class: u8,
    /// The twin of cases that name none.
    benign: Step,
    expect: String,
    case: Vec<Case>,
}

/// The classes that files of cases are about.
pub const CLASSES: [u8; FILES.len()] = [22, 23, 24, 25, 26, 27];

/// One attack and its harmless twin.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// What it is a variant of: numbers in `techniques.toml`.
    #[serde(default)]
    techniques: Vec<u8>,
    /// A command line, the commonest attack.
    run: Option<String>,
    #[serde(default)]
    steps: Vec<Step>,
    /// What proves directly that the payload is harmful, where the real server refuses its wrapping.
    control: Option<String>,
    /// Through the gateway that judges lines, one at a time.
    #[serde(default)]
    lines: bool,
    /// Whether only luck tells that it does harm: it is then tried directly until it does, and as often through the gateway.
    #[serde(default)]
    races: bool,
    /// What must not be received, besides the vault's secret.
    leak: Option<String>,
    benign: Option<Step>,
    /// What the twin's standard output must contain.
    expect: Option<String>,
}

/// One thing a client does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// A command line for `ssh`.
    #[serde(default)]
    ssh: Option<String>,
    /// Further options of it.
    #[serde(default)]
    options: Vec<String>,
    /// What is typed into a shell with a terminal.
    #[serde(default)]
    shell: Option<String>,
    /// A batch for `sftp`; every command is tried whatever the one before did.
    #[serde(default)]
    sftp: Option<String>,
    /// Arguments of `scp`; `@` is the server.
    #[serde(default)]
    scp: Vec<String>,
    /// A script for Python with `client`, a connected paramiko client.
    #[serde(default)]
    python: Option<String>,
    /// Standard input of `ssh`.
    #[serde(default)]
    input: String,
}

const FILES: [&str; 6] = [
    include_str!("cases/22-commands.toml"),
    include_str!("cases/23-files.toml"),
    include_str!("cases/24-terminals.toml"),
    include_str!("cases/25-output.toml"),
    include_str!("cases/26-tunnels.toml"),
    include_str!("cases/27-requests.toml"),
];

pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for text in FILES {
        let file: File = toml::from_str(text).unwrap_or_else(|e| panic!("{}", e.message()));
        for mut case in file.case {
            case.benign.get_or_insert_with(|| file.benign.clone());
            case.expect.get_or_insert_with(|| file.expect.clone());
            let (name, techniques) = (case.name.clone(), case.techniques.clone());
            attacks.push(Attack::new(file.class, &name, move || case.attempt()).by(&techniques));
        }
    }
    attacks
}

impl Case {
    fn attempt(&self) -> Outcome {
        let tries = if self.races { RACES } else { 1 };
        let mut received = String::new();
        let harmful = (1..=tries).find(|_| {
            let arena = Arena::new();
            received = self.play(&arena, &Door::direct());
            self.damage(&arena, &received).or_else(|| self.control(&arena)).is_some()
        });
        let Some(tries) = harmful else {
            return Outcome::Invalid(format!("no damage without the gateway: {received}"));
        };
        let door = if self.lines { Door::lines() } else { Door::gateway() };
        let mut arena = Arena::new();
        for _ in 0..tries {
            arena = Arena::new();
            let received = self.play(&arena, &door);
            if let Some(how) = self.damage(&arena, &received) {
                return Outcome::Passed(format!("{how}; received {received}"));
            }
        }
        let said = self.benign.clone().unwrap_or_default().play(&arena, &door) + &arena.fetched();
        let expect = arena.fill(self.expect.as_deref().unwrap_or_default());
        if said.contains(&expect) {
            Outcome::Held
        } else {
            Outcome::TwinFailed(format!("`{said}` is without `{expect}`"))
        }
    }

    /// The damage that is done by what the attack wraps, if the case names it.
    fn control(&self, arena: &Arena) -> Option<String> {
        let step = Step { ssh: Some(self.control.clone()?), ..Step::default() };
        arena.damage(&step.play(arena, &Door::direct()))
    }

    fn damage(&self, arena: &Arena, received: &str) -> Option<String> {
        let leaked = |leak: &&String| received.contains(*leak) || arena.fetched().contains(*leak);
        let leak = self.leak.as_ref().filter(leaked).map(|leak| format!("received `{leak}`"));
        leak.or_else(|| arena.damage(received))
    }

    fn play(&self, arena: &Arena, door: &Door) -> String {
        let first = self.run.clone().map(|command| Step { ssh: Some(command), ..Step::default() });
        first.iter().chain(&self.steps).map(|step| step.play(arena, door)).collect()
    }
}

/// How often a race is lost before it counts as no attack.
const RACES: usize = 10;

/// Longer than anything here takes; attacks that wait for what never comes are cut off by it.
const DEADLINE: Duration = Duration::from_secs(60);

impl Step {
    /// Everything received.
    fn play(&self, arena: &Arena, door: &Door) -> String {
        let mut said = String::new();
        let mut play = |command: &mut Command, input: &str| match run(command, input, DEADLINE) {
            Ok(done) => said.push_str(&format!("{}{}", done.stdout, done.stderr)),
            Err(error) => said.push_str(&error.to_string()),
        };
        let options = client_options(&door.key, door.port);
        let place = format!("{}@127.0.0.1", door.user);
        if let Some(line) = &self.ssh {
            let mut ssh = Command::new("ssh");
            ssh.args(self.options.iter().map(|o| arena.fill(o))).args(&options);
            play(ssh.arg(&place).arg(arena.fill(line)), &arena.fill(&self.input));
        }
        if let Some(typed) = &self.shell {
            let mut ssh = Command::new("ssh");
            play(ssh.arg("-tt").args(&options).arg(&place), &arena.fill(typed));
        }
        if let Some(batch) = &self.sftp {
            let batch: String = arena.fill(batch).lines().map(|line| format!("-{}\n", line.trim())).collect();
            play(Command::new("sftp").args(&options).args(["-b", "-", &place]), &batch);
        }
        if !self.scp.is_empty() {
            let words = self.scp.iter().map(|word| arena.fill(word).replace('@', &format!("{place}:")));
            play(Command::new("scp").args(&options).args(words), "");
        }
        if let Some(script) = &self.python {
            let script = format!("{PRELUDE}\n{}", arena.fill(script));
            let key = door.key.display().to_string();
            play(
                Command::new("/usr/bin/python3").args(["-", &door.user, &door.port.to_string(), &key]),
                &script,
            );
        }
        said
    }
}

const PRELUDE: &str = r##"
import paramiko, sys, time
user, port, key = sys.argv[1], int(sys.argv[2]), sys.argv[3]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, user, pkey=paramiko.Ed25519Key.from_private_key_file(key), timeout=10,
               allow_agent=False, look_for_keys=False)
transport = client.get_transport()
def attempt(what):
    try:
        result = what()
        if result is not None:
            print(result)
    except Exception as error:
        print(type(error).__name__, error)
def inner(port, key, command, user="root"):
    """Logs in to a server on this port of the target, through a forward, and runs a command there."""
    channel = transport.open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=5)
    second = paramiko.SSHClient()
    second.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    second.connect("127.0.0.1", port, user, pkey=paramiko.Ed25519Key.from_private_key_file(key), sock=channel,
                   timeout=10, allow_agent=False, look_for_keys=False)
    return second.exec_command(command)[1].read()
def send(kind, *fields):
    message = paramiko.Message()
    message.add_byte(bytes([kind]))
    for field in fields:
        {int: message.add_int, bool: message.add_boolean, str: message.add_string}[type(field)](field)
    transport._send_user_message(message)
def rsync(*words):
    """Runs rsync; `@` at the beginning of a word is the server."""
    import subprocess
    ssh = f"ssh -i {key} -p {port} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    words = [word.replace("@", f"{user}@127.0.0.1:", 1) if word.startswith("@") else word for word in words]
    done = subprocess.run(["rsync", "-e", ssh, *words], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr
def pushes(line, folder):
    """Runs rsync to send a folder to whatever this line starts."""
    import os, tempfile
    wrapper = os.path.join(tempfile.mkdtemp(), "wrapper")
    with open(wrapper, "w") as file:
        file.write(f"#!/bin/sh\nexec ssh -i {key} -p {port} -o BatchMode=yes -o StrictHostKeyChecking=no "
                   f"-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {user}@127.0.0.1 '{line}'\n")
    os.chmod(wrapper, 0o755)
    import subprocess
    done = subprocess.run(["rsync", "-a", "-e", wrapper, folder + "/", "server:/"], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr
def drawn(command):
    """Runs a program at a terminal for a second."""
    channel = transport.open_session(timeout=5)
    channel.settimeout(5)
    channel.get_pty("vt220")
    channel.exec_command("timeout --signal=KILL --foreground 1 " + command)
    return channel.makefile("rb").read()
def signalled(command, name):
    channel = transport.open_session(timeout=5)
    channel.exec_command(command)
    time.sleep(0.5)
    send(98, channel.remote_chanid, "signal", False, name)
    return "was killed" if channel.recv_exit_status() == -1 else "lived on"
def narrow(window):
    """A channel on which nothing may be sent to us before it is widened."""
    transport._sanitize_window_size = lambda size: window
    return transport.open_session(timeout=5)
def widen(channel, window):
    send(93, channel.remote_chanid, window)
def blind(line, path):
    """Reads a file by sftp without waiting for an answer: nothing is held back once the server has ended."""
    from struct import pack
    def frame(kind, body):
        return pack(">IB", len(body) + 1, kind) + body
    def text(value):
        return pack(">I", len(value)) + value
    handle = text(pack(">I", 0))
    channel = transport.open_session(timeout=5)
    channel.settimeout(5)
    channel.exec_command(line)
    channel.sendall(frame(1, pack(">I", 3)) + frame(3, pack(">I", 1) + text(path.encode()) + pack(">II", 1, 0)))
    channel.sendall(frame(5, pack(">I", 2) + handle + pack(">QI", 0, 1000)))
    time.sleep(0.5)    # at the end of its input it drops what it has not written
    channel.shutdown_write()
    return channel.makefile("rb").read()
"##;
