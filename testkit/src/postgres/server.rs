//! One run of the server process: its supervisor, its log, its end.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};

/// A running server; dropping it is an immediate shutdown.
///
/// A shell stands between us and the server, reading from a pipe that only we hold. When this process dies, however
/// it dies, the pipe ends: the shell then stops the server and removes the folder, because nobody else will.
pub(super) struct Server {
    supervisor: Child,
    log: Arc<Log>,
}

/// The last lines the server wrote, and whoever waits for one.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: VecDeque<String>,
    bytes: usize,
    /// Set by the first line that says so.
    ready: bool,
    /// The server has closed its log: it is gone.
    ended: bool,
    /// Where all of it goes too.
    copy: Option<File>,
}

impl Server {
    /// Runs the command under a supervisor and waits until the server accepts connections.
    pub(super) fn start(command: &Command, shell: Command, folder: &Path) -> Result<Self> {
        let mut supervisor = supervise(command, shell, folder).spawn().context("start `sh`")?;
        let log = Arc::new(Log::default());
        let source =
            supervisor.stderr.take().ok_or_else(|| Error::new("the server's log is not connected"))?;
        let (writer, server) = (Arc::clone(&log), Self { supervisor, log });
        thread::spawn(move || writer.fill(source));
        server.log.wait(START_DEADLINE, |state| state.ready || state.ended);
        if server.log.lock().ready {
            return Ok(server);
        }
        Err(Error::new(format!("PostgreSQL did not start, its log says:\n{}", server.log())))
    }

    /// The last lines of the log, at most a mebibyte.
    pub(super) fn log(&self) -> String {
        self.log.lock().lines.iter().map(String::as_str).collect()
    }

    /// Writes the log into this file too from now on.
    pub(super) fn copy_log(&self, to: File) {
        self.log.lock().copy = Some(to);
    }

    /// Waits until the log holds the text; false at the deadline or when the server ends without writing it.
    pub(super) fn wait_for_log(&self, text: &str, deadline: Duration) -> bool {
        let found = |state: &LogState| state.lines.iter().any(|line| line.contains(text));
        self.log.wait(deadline, |state| state.ended || found(state));
        found(&self.log.lock())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.supervisor.stdin.take() {
            // Without the word it would take us for dead and remove the folder; either way it stops the server.
            let _ = pipe.write_all(b"stop\n");
        }
        // It ends once the server has, so that the folder and the port are free after this.
        let _ = self.supervisor.wait();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("supervisor", &self.supervisor.id()).finish_non_exhaustive()
    }
}

impl Log {
    fn fill(&self, source: impl Read) {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        // A line without end is cut; a server that writes one is not in a state to be tested.
        while matches!(source.by_ref().take(LOG_BYTES).read_until(b'\n', &mut line), Ok(1..)) {
            if let Some(copy) = &mut self.lock().copy {
                // A file that takes no more ends short, which whoever reads it sees.
                let _ = copy.write_all(&line);
            }
            self.push(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn push(&self, line: String) {
        let mut state = self.lock();
        state.ready |= line.contains(READY_LINE);
        state.bytes += line.len();
        state.lines.push_back(line);
        while state.bytes as u64 > LOG_BYTES {
            let Some(oldest) = state.lines.pop_front() else { break };
            state.bytes -= oldest.len();
        }
        self.changed.notify_all();
    }

    fn wait(&self, deadline: Duration, enough: impl Fn(&LogState) -> bool) {
        let end = Instant::now() + deadline;
        let mut state = self.lock();
        while !enough(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `shell` becomes the supervisor of `command`; its standard error is the server's log alone.
fn supervise(command: &Command, mut shell: Command, folder: &Path) -> Command {
    shell.args(["-c", SUPERVISOR, "supervisor"]).arg(folder);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A Ctrl-C in the terminal goes to our group; the supervisor has to outlive us to clean up.
    shell.process_group(0);
    shell
}

/// `$1` is the folder, the rest the server. SIGQUIT is an immediate shutdown: it drops the connections and frees the
/// shared memory, which SIGKILL would leave behind; SIGCONT first, for a test that had the server stopped.
const SUPERVISOR: &str = r#"
folder=$1; shift
"$@" </dev/null &
server=$!
exec 2>/dev/null
read -r word || word=abandoned
kill -CONT "$server"
kill -QUIT "$server"
wait "$server"
if [ "$word" = abandoned ]; then rm -rf -- "$folder"; fi
"#;
const READY_LINE: &str = "database system is ready to accept connections";
/// Enough for the statements of any one test, and nothing beside the server's own memory.
const LOG_BYTES: u64 = 1 << 20;
/// A start takes 0.1 s; recovery after a hard stop on a loaded machine, a few seconds.
const START_DEADLINE: Duration = Duration::from_secs(60);
