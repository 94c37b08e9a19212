//! Who does not read or write holds up nobody else, and nothing grows without end.

use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::{Guard, run, wait_until};

use crate::support::{ALL, DEADLINE, Gateway, Setup, gateway, keys, server};

/// More than all windows, pipes and queues on the way from a client's pipe to a program take together: sockets of several MiB on both
/// sides, two windows of 2 MiB, the gate's 4 MiB.
const BOUND: usize = 48 << 20;

/// A connection that further clients share.
struct Shared {
    option: String,
    _master: Guard,
}

impl Shared {
    fn new(gateway: &Gateway) -> Self {
        let control = gateway.path("control");
        let option = format!("ControlPath={}", control.display());
        let mut master = gateway.client("ssh");
        master.args(["-o", &option, "-o", "ControlMaster=yes", "-N", "agent-7@127.0.0.1"]);
        let master = Guard::spawn(&mut master).unwrap();
        assert!(wait_until(|| control.exists(), DEADLINE));
        Self { option, _master: master }
    }

    fn client(&self, gateway: &Gateway, program: &str) -> Command {
        let mut client = gateway.client(program);
        client.args(["-o", &self.option]);
        client
    }

    fn says(&self, gateway: &Gateway, command: &str, input: &str) -> String {
        gateway.ssh_with_input(&["-o", &self.option, command], input).stdout
    }
}

/// Writes into the pipe without end; counts what it took.
fn pour(mut pipe: ChildStdin) -> Arc<AtomicUsize> {
    let poured = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&poured);
    std::thread::spawn(move || {
        while let Ok(written) = pipe.write(&[b'x'; 64 * 1024]) {
            count.fetch_add(written, Ordering::Relaxed);
        }
    });
    poured
}

/// Waits until the number has not changed for a while.
fn settled(number: impl Fn() -> usize) -> usize {
    let mut last = (number(), Instant::now());
    let rests = || {
        let now = number();
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0 && last.1.elapsed() > Duration::from_secs(2)
    };
    assert!(wait_until(rests, Duration::from_secs(90)), "{} and growing", number());
    number()
}

#[test]
fn an_upload_to_a_program_that_does_not_read_is_pushed_back() {
    let gateway = gateway(ALL);
    let shared = Shared::new(&gateway);
    let mut stalled = shared.client(&gateway, "ssh");
    stalled.args(["agent-7@127.0.0.1", "sleep 600"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut stalled = Guard::spawn(&mut stalled).unwrap();
    let poured = pour(stalled.child().stdin.take().unwrap());
    let taken = settled(|| poured.load(Ordering::Relaxed));
    assert!(taken < BOUND, "{taken}");
    // Its siblings go on: their output at once, their input at last.
    assert_eq!(shared.says(&gateway, "echo sibling", ""), "sibling\n");
    assert_eq!(shared.says(&gateway, "head -c 300000 /dev/zero | wc -c", ""), "300000\n");
    assert_eq!(shared.says(&gateway, "cat", "some input\n"), "some input\n");
    assert!(poured.load(Ordering::Relaxed) < BOUND);
}

#[test]
fn an_upload_to_a_slow_program_arrives_whole() {
    let gateway = gateway(ALL);
    let text = "0123456789abcdef".repeat(512 * 1024);
    let slow = "sleep 1; head -c 1000000 | wc -c; sleep 1; wc -c";
    let done = gateway.ssh_with_input(&[slow], &text);
    assert_eq!(done.stdout, format!("1000000\n{}\n", text.len() - 1_000_000), "{}", done.stderr);
}

#[test]
fn an_sftp_upload_to_a_file_that_takes_nothing_is_pushed_back() {
    let gateway = gateway(ALL);
    let shared = Shared::new(&gateway);
    // A pipe with a reader that never reads: its writes stop once it is full.
    let pipe = server().home().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _reader =
        Guard::spawn(Command::new("sh").arg("-c").arg(format!("exec sleep 600 <>{}", pipe.display())))
            .unwrap();
    let big = gateway.path("big");
    std::fs::write(&big, vec![b'x'; 64 << 20]).unwrap();
    let mut put = shared.client(&gateway, "sftp");
    let batch = gateway.path("batch");
    std::fs::write(&batch, format!("put {} {}\n", big.display(), pipe.display())).unwrap();
    put.arg("-b").arg(&batch).arg("agent-7@127.0.0.1").stdout(Stdio::null()).stderr(Stdio::null());
    let _put = Guard::spawn(&mut put).unwrap();
    let sent = || {
        let opened =
            gateway.records().iter().filter(|record| format!("{record:?}").contains("home/pipe")).count();
        usize::from(opened > 0)
    };
    assert!(wait_until(|| sent() > 0, DEADLINE));
    assert_eq!(shared.says(&gateway, "echo sibling", ""), "sibling\n");
    let mut list = shared.client(&gateway, "sftp");
    std::fs::write(&batch, "pwd\n").unwrap();
    let done = testkit::run(list.arg("-b").arg(&batch).arg("agent-7@127.0.0.1"), "", DEADLINE).unwrap();
    assert!(done.status.success(), "{}", done.stderr);
}

/// While the way to the target is full, what the target says must be heard all the same: among it is that more may be sent.
#[test]
fn a_large_file_goes_up_by_sftp_and_comes_back() {
    let gateway = gateway(ALL);
    let (large, back) = (gateway.path("large"), gateway.path("back"));
    let line = b"2026-01-05 a line of a log, with nothing in it to mask\n";
    std::fs::write(&large, line.repeat((32 << 20) / line.len())).unwrap();
    let there = tempfile::tempdir_in(server().home()).unwrap();
    let there = there.path().join("large");
    let batch =
        format!("put {} {there}\nget {there} {}\n", large.display(), back.display(), there = there.display());
    let mut sftp = gateway.client("sftp");
    sftp.args(["-b", "-", "agent-7@127.0.0.1"]);
    let done = testkit::run(&mut sftp, &batch, DEADLINE).unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    assert!(std::fs::read(&large).unwrap() == std::fs::read(&back).unwrap(), "it came back otherwise");
}

#[test]
fn channels_left_behind_end_the_connection_with_words() {
    let mut setup = Setup::new("permit (principal, action == Action::\"connect\", resource);");
    setup.limits.channels = 5;
    let gateway = setup.start();
    let script = r#"
import paramiko, sys
port, key = int(sys.argv[1]), sys.argv[2]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "agent-7", pkey=paramiko.Ed25519Key.from_private_key_file(key),
               allow_agent=False, look_for_keys=False)
transport = client.get_transport()
# Those that their client closes are forgotten.
for _ in range(20):
    transport.open_session().close()
    transport.global_request("x", wait=True)
ran = 0
try:
    for _ in range(20):
        channel = transport.open_session()
        channel.exec_command("x")
        assert channel.recv_exit_status() == 126
        ran += 1
except Exception as error:
    print(error)
transport.join(10)
print("ran", ran, "lives", transport.is_active())
"#;
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-", &gateway.address.port().to_string()]).arg(keys().agent.private());
    let done = run(&mut python, script, DEADLINE).unwrap();
    assert!(done.stdout.contains("ran 5 lives False"), "{done:?}");
    assert_eq!(gateway.ssh(&["x"]).status.code(), Some(126), "another connection runs");
}
