//! Child processes that end with their owner, free ports, and waiting.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{Context, Error, Result};

/// A child process that is killed and reaped when this is dropped.
///
/// Only the process itself is killed, not its children. When the owning process is killed, nothing runs: a server
/// that must not outlive even that needs a supervisor, as [`crate::Postgres`] has one.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Starts the command.
    ///
    /// # Errors
    /// When the program cannot be started; the message names it.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.spawn().map(Self).context(&format!("start `{program}`"))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The child, to take its pipes or to wait for it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Kills the process now, as `SIGKILL` does, and waits until it is gone.
    pub fn kill(&mut self) {
        // An error means it is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a command that [`run`] waited for ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// All it wrote to standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// All it wrote to standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Finished {
    /// Standard output without its last newline, or standard error as the error when the command failed.
    ///
    /// # Errors
    /// When the exit status is not zero.
    pub fn success(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout.trim_end_matches('\n').to_owned());
        }
        Err(Error::new(format!("{}: {}", self.status, self.stderr.trim_end())))
    }
}

/// Runs a command to its end with this standard input, and kills it at the deadline.
///
/// # Errors
/// When it cannot be started, or is still running `deadline` after the start.
pub fn run(command: &mut Command, input: &str, deadline: Duration) -> Result<Finished> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_string_lossy().into_owned();
    let mut guard = Guard::spawn(command)?;
    let (done, wait) = mpsc::channel();
    let stdout = collect(guard.child().stdout.take(), done.clone());
    let stderr = collect(guard.child().stderr.take(), done);
    feed(guard.child().stdin.take(), input.to_owned());
    let end = Instant::now() + deadline;
    for _ in 0..2 {
        if wait.recv_timeout(end.saturating_duration_since(Instant::now())).is_err() {
            return Err(Error::new(format!("`{program}` did not end within {deadline:?}")));
        }
    }
    // Both outputs are closed, so the process is ending; it is not killed any more.
    let status = guard.child().wait().context(&format!("wait for `{program}`"))?;
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    Ok(Finished { status, stdout: text(stdout), stderr: text(stderr) })
}

fn collect(
    source: Option<impl Read + Send + 'static>,
    done: mpsc::Sender<()>,
) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut source) = source {
            // A broken pipe ends the output like its end does; the exit status tells.
            let _ = source.read_to_end(&mut all);
        }
        let _ = done.send(());
        all
    })
}

fn feed(sink: Option<impl Write + Send + 'static>, input: String) {
    thread::spawn(move || {
        if let Some(mut sink) = sink {
            // A program that stops reading early says why with its exit status.
            let _ = sink.write_all(input.as_bytes());
        }
    });
}

/// Losing one race for a port is bad luck; losing five is something else.
pub(crate) const PORT_ATTEMPTS: usize = 5;

/// A TCP port on 127.0.0.1 that nobody listened on a moment ago.
///
/// Another process may take it before you do: prefer binding port 0 yourself, and retry where that is impossible.
///
/// # Errors
/// When the system has no free port.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A temporary folder that only its owner can enter: what is in it is secret for as long as it lasts.
pub(crate) fn private_folder(place: &Path, prefix: &str) -> Result<TempDir> {
    let mode = fs::Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix(prefix).permissions(mode).tempdir_in(place);
    folder.context(&format!("make a folder in `{}`", place.display()))
}

/// Polls until the condition holds; tells whether it did before the deadline.
///
/// A last resort, for effects that announce themselves nowhere (a file appearing, a row in another process's
/// database). Where there is an event, a log line, a channel or a readable socket, wait for that instead.
#[must_use]
pub fn wait_until(mut condition: impl FnMut() -> bool, deadline: Duration) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Short beside any deadline, long beside the cost of one check.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[test]
    fn run_passes_input_and_collects_output() {
        let finished = run(&mut Command::new("cat"), "hello\n", DEADLINE).unwrap();
        assert_eq!(finished.success().unwrap(), "hello");
    }

    #[test]
    fn run_reports_failure_with_standard_error() {
        let finished = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), "", DEADLINE).unwrap();
        assert!(finished.success().unwrap_err().to_string().contains("why"));
    }

    #[test]
    fn run_kills_at_the_deadline() {
        let started = Instant::now();
        let error = run(Command::new("sleep").arg("60"), "", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end"));
        assert!(started.elapsed() < DEADLINE);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Guard::spawn(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().contains("`no-such-program`"));
    }

    #[test]
    fn a_dropped_guard_leaves_no_process() {
        let mut guard = Guard::spawn(Command::new("sleep").arg("60").stdout(Stdio::piped())).unwrap();
        let mut output = guard.child().stdout.take().unwrap();
        drop(guard);
        // The pipe closes only with the process.
        assert_eq!(output.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn wait_until_tells_both_outcomes() {
        let mut left = 3;
        assert!(wait_until(
            || {
                left -= 1;
                left == 0
            },
            DEADLINE
        ));
        assert!(!wait_until(|| false, Duration::from_millis(1)));
    }
}
