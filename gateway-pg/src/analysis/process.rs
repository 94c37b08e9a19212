//! The C parser in processes of its own: should one crash, only the statement that crashed it is refused.
//!
//! A request is `kind:u8 flags:u8 length:u32` and so many bytes, an answer `status:u8 length:u32` and so many bytes; numbers are
//! little-endian. One request is under way in a process at a time.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pg_query::protobuf::ParseResult;
use prost::Message;

use super::{AnalysisError, LexSettings, parse};

/// Processes at once; each parses one text at a time. 8: texts that are parsed at all are those seen for the first time.
const MAX_PROCESSES: usize = 8;

/// How long one text may take. 10 s; the longest that the scan lets through takes well under one.
const ANSWER: Duration = Duration::from_secs(10);

/// The longest text or tree either way. 256 MiB: a tree takes up to some hundred times as much as its text.
const MAX_BYTES: usize = 256 << 20;

static PROCESSES: OnceLock<Processes> = OnceLock::new();

/// The parser runs in processes already.
#[derive(Debug, thiserror::Error)]
#[error("the parser has been moved into processes already; do it once, at the start")]
pub struct AlreadyIsolated;

/// From now on has every text of this process parsed by processes that `program` starts, up to 8 of them, each when it is needed: a
/// program that calls [`serve_parser`] with its standard input and output. It gets no environment.
///
/// # Errors
/// It was called before.
pub fn isolate_parser(program: impl Fn() -> Command + Send + Sync + 'static) -> Result<(), AlreadyIsolated> {
    let start = move || start(program());
    PROCESSES.set(Processes::new(Box::new(start), ANSWER)).map_err(|_| AlreadyIsolated)
}

/// The other side of [`isolate_parser`]: parses what comes until there is no more.
///
/// # Errors
/// Either stream fails, or what comes is no request.
pub fn serve_parser(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        match input.read(&mut head[..1])? {
            0 => return Ok(()),
            _ => input.read_exact(&mut head[1..])?,
        }
        let [kind, flags] = head;
        let asked = read_bytes(&mut input)?;
        let (status, answer) = answer(kind, flags, &asked);
        output.write_all(&[status])?;
        write_bytes(&mut output, &answer)?;
        output.flush()?;
    }
}

const PARSE: u8 = 0;
const DEPARSE: u8 = 1;

const DONE: u8 = 0;
const SYNTAX: u8 = 1;
const TOO_DEEP: u8 = 2;
const FAILED: u8 = 3;

fn answer(kind: u8, flags: u8, asked: &[u8]) -> (u8, Vec<u8>) {
    let done = match (kind, std::str::from_utf8(asked)) {
        (PARSE, Ok(text)) => parse::parse_here(text, &settings(flags)).map(|tree| tree.encode_to_vec()),
        (DEPARSE, _) => ParseResult::decode(asked)
            .map_err(|_| not_understood())
            .and_then(|tree| parse::deparse_here(&tree))
            .map(String::into_bytes),
        _ => Err(not_understood()),
    };
    match done {
        Ok(bytes) => (DONE, bytes),
        Err(AnalysisError::Syntax { message }) => (SYNTAX, message.into_bytes()),
        Err(AnalysisError::TooDeep { .. }) => (TOO_DEEP, Vec::new()),
        Err(_) => (FAILED, Vec::new()),
    }
}

fn flags(settings: &LexSettings) -> u8 {
    u8::from(settings.standard_conforming_strings) | u8::from(settings.backslash_quote) << 1
}

fn settings(flags: u8) -> LexSettings {
    LexSettings {
        standard_conforming_strings: flags & 1 != 0,
        backslash_quote: flags & 2 != 0,
        ..LexSettings::default()
    }
}

fn not_understood() -> AnalysisError {
    AnalysisError::NotUnderstood { what: "statement".to_owned(), offset: 0 }
}

fn read_bytes(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    let read = input.take(length as u64).read_to_end(&mut bytes)?;
    if read == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn write_bytes(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length as usize <= MAX_BYTES);
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(bytes)
}

/// A process, and the way to it. Dropped, it is killed.
#[derive(Debug)]
struct Process {
    /// `None` where a thread stands in for it.
    child: Option<Child>,
    stream: UnixStream,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(mut program: Command) -> io::Result<Process> {
    let (ours, theirs) = UnixStream::pair()?;
    let (input, output) = (OwnedFd::from(theirs.try_clone()?), OwnedFd::from(theirs));
    program.env_clear().current_dir("/").stdin(input).stdout(output).stderr(Stdio::null());
    Ok(Process { child: Some(program.spawn()?), stream: ours })
}

impl Process {
    fn ask(&mut self, kind: u8, flags: u8, asked: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        self.stream.write_all(&[kind, flags])?;
        write_bytes(&mut self.stream, asked)?;
        let mut status = [0];
        self.stream.read_exact(&mut status)?;
        Ok((status[0], read_bytes(&mut self.stream)?))
    }
}

/// The processes there are.
struct Processes {
    start: Box<dyn Fn() -> io::Result<Process> + Send + Sync>,
    patience: Duration,
    state: Mutex<State>,
    returned: Condvar,
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Process>,
    /// Those that parse, and those that are being started.
    busy: usize,
}

/// A place among the processes, given back when it is dropped, also after a panic.
struct Place<'a>(&'a Processes);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
        self.0.returned.notify_one();
    }
}

impl Processes {
    fn new(start: Box<dyn Fn() -> io::Result<Process> + Send + Sync>, patience: Duration) -> Self {
        Self { start, patience, state: Mutex::default(), returned: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that waits for work, or a place for a new one; waits until there is one of them.
    fn take(&self) -> (Place<'_>, Option<Process>) {
        let full = |state: &mut State| state.busy >= MAX_PROCESSES;
        let waited = self.returned.wait_while(self.state(), full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.busy += 1;
        let idle = state.idle.pop();
        drop(state);
        (Place(self), idle)
    }

    fn ask(&self, kind: u8, flags: u8, asked: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        let (place, idle) = self.take();
        let mut process = match idle {
            Some(process) => process,
            None => (self.start)()?,
        };
        process.stream.set_read_timeout(Some(self.patience))?;
        process.stream.set_write_timeout(Some(self.patience))?;
        // One that failed, whatever the reason, is killed: an answer of it that comes later would be another text's.
        let answer = process.ask(kind, flags, asked)?;
        self.state().idle.push(process);
        drop(place);
        Ok(answer)
    }

    fn asked(&self, kind: u8, flags: u8, asked: &[u8]) -> Result<Vec<u8>, AnalysisError> {
        match self.ask(kind, flags, asked) {
            Ok((DONE, bytes)) => Ok(bytes),
            Ok((SYNTAX, message)) => {
                Err(AnalysisError::Syntax { message: String::from_utf8_lossy(&message).into_owned() })
            }
            Ok((TOO_DEEP, _)) => Err(AnalysisError::TooDeep { what: "expressions or queries", offset: 0 }),
            Ok(_) => Err(not_understood()),
            Err(error) => {
                tracing::error!(%error, bytes = asked.len(), "the parser's process failed on a statement, which is refused");
                Err(not_understood())
            }
        }
    }

    fn parse(&self, text: &str, settings: &LexSettings) -> Result<ParseResult, AnalysisError> {
        let tree = self.asked(PARSE, flags(settings), text.as_bytes())?;
        parse::decoded(ParseResult::decode(&*tree))
    }

    fn deparse(&self, tree: &ParseResult) -> Result<String, AnalysisError> {
        let text = self.asked(DEPARSE, 0, &tree.encode_to_vec())?;
        String::from_utf8(text).map_err(|_| not_understood())
    }
}

/// Parses in a process, if the parser was moved there.
pub(super) fn parse(text: &str, settings: &LexSettings) -> Option<Result<ParseResult, AnalysisError>> {
    PROCESSES.get().map(|processes| processes.parse(text, settings))
}

/// Deparses in a process, if the parser was moved there.
pub(super) fn deparse(tree: &ParseResult) -> Option<Result<String, AnalysisError>> {
    PROCESSES.get().map(|processes| processes.deparse(tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread in a process's place that answers so many requests.
    fn stand_in(requests: usize) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        std::thread::spawn(move || {
            // What a request takes of the stream is not known before it is read: each is served as a stream of its own.
            let (mut input, mut output) = (theirs.try_clone().unwrap(), theirs);
            for _ in 0..requests {
                let mut head = [0; 2];
                if input.read_exact(&mut head).is_err() {
                    return;
                }
                let asked = read_bytes(&mut input).unwrap();
                let mut request = head.to_vec();
                write_bytes(&mut request, &asked).unwrap();
                serve_parser(&*request, &mut output).unwrap();
            }
        });
        Ok(Process { child: None, stream: ours })
    }

    fn processes(requests: usize) -> Processes {
        Processes::new(Box::new(move || stand_in(requests)), Duration::from_secs(5))
    }

    const TEXTS: [&str; 6] = [
        "SELECT 'a\\'b'",
        "SELECT a, count(*) FROM t WHERE b = $1 GROUP BY a; DELETE FROM u",
        "WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x",
        "SELEC 1",
        "",
        "SELECT 'ä', E'\\n', $$x$$",
    ];

    #[test]
    fn a_process_says_what_the_parser_here_says() {
        let processes = processes(usize::MAX);
        for text in TEXTS {
            for flags in 0..4 {
                let settings = settings(flags);
                let (there, here) = (processes.parse(text, &settings), parse::parse_here(text, &settings));
                assert_eq!(format!("{there:?}"), format!("{here:?}"), "{text}");
                if let Ok(tree) = here {
                    assert_eq!(processes.deparse(&tree).ok(), parse::deparse_here(&tree).ok());
                }
            }
        }
        assert_eq!(processes.state().idle.len(), 1);
    }

    #[test]
    fn a_process_that_dies_takes_one_statement_along() {
        let processes = processes(2);
        let mut refused = 0;
        for _ in 0..9 {
            match processes.parse("SELECT 1", &settings(1)) {
                Ok(tree) => assert_eq!(tree.stmts.len(), 1),
                Err(AnalysisError::NotUnderstood { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(refused, 3);
        assert_eq!(processes.state().busy, 0);
    }

    #[test]
    fn a_process_that_does_not_answer_is_given_up() {
        let silent = || {
            let (ours, theirs) = UnixStream::pair()?;
            std::mem::forget(theirs);
            Ok(Process { child: None, stream: ours })
        };
        let processes = Processes::new(Box::new(silent), Duration::from_millis(50));
        assert!(matches!(
            processes.parse("SELECT 1", &settings(1)),
            Err(AnalysisError::NotUnderstood { .. })
        ));
        assert!(processes.state().idle.is_empty());
    }

    #[test]
    fn no_more_processes_than_the_limit() {
        let started = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&started);
        let start = move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            stand_in(usize::MAX)
        };
        let processes = Processes::new(Box::new(start), Duration::from_secs(20));
        std::thread::scope(|scope| {
            for _ in 0..4 * MAX_PROCESSES {
                scope.spawn(|| processes.parse("SELECT 1", &settings(1)).unwrap());
            }
        });
        assert!(started.load(std::sync::atomic::Ordering::Relaxed) <= MAX_PROCESSES);
    }

    #[test]
    fn a_broken_request_ends_the_service() {
        assert!(serve_parser(&[PARSE, 0, 255, 255, 255, 255][..], Vec::new()).is_err());
        assert!(serve_parser(&[PARSE, 0, 9, 0, 0, 0, b'x'][..], Vec::new()).is_err());
        serve_parser(&[][..], Vec::new()).unwrap();
    }
}
