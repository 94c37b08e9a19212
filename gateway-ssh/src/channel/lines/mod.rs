//! Command at a time: a session like a shell in which the gateway itself reads every line, has it judged as an `exec` and runs it by
//! itself. No shell of the target ever reads what is typed, so what is recorded is what ran.
//!
//! Between lines the gateway remembers the folder and exported variables, both judged when they are set, and sends them in front of
//! each line. What is typed goes to the prompt, never to a running program: its input is empty. There is no job control, no
//! completion, no history.

mod builtin;
mod editor;
mod place;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Fact, Operation};
use gateway_core::pipeline::Results;
use russh::Sig;
use tokio::time::timeout;

use self::builtin::Builtin;
use self::editor::{Editor, INTERRUPT, Typed};
use self::place::{Place, enter};
use super::output::Stream;
use super::pump::{self, Line};
use super::{Ended, Event, Gone, Permitted, RAW, STDERR, TERMINAL, Task, unavailable};
use crate::command::Command;
use crate::denial;
use crate::operation::{self, Setting};
use crate::upstream::{Leased, Purpose};

/// What may be typed while a line runs, in bytes; more waits in the connection's own queue. 64 KiB.
const MAX_TYPED_AHEAD: usize = 64 * 1024;

/// The longest path the host may answer with, in bytes: Linux' own limit.
const MAX_PATH_BYTES: usize = 4096;

/// How long the host may take to say where a folder is. 20 s, as for opening a channel.
const RESOLVE: Duration = Duration::from_secs(20);

/// Lines of one command: with each the whole is read again to see whether it is finished.
const MAX_LINES: usize = 200;

/// A shell's status for a line that was interrupted, not understood, refused.
const INTERRUPTED_STATUS: u32 = 130;
const WRONG_STATUS: u32 = 2;

/// The client's input, taken apart.
#[derive(Debug)]
pub(super) struct Input {
    ahead: BytesMut,
    ended: bool,
    terminal: bool,
    signal: Option<Sig>,
}

impl Input {
    fn take(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Data(bytes) => self.ahead.extend_from_slice(&bytes),
            Event::Eof => self.ended = true,
            Event::Signal(signal) => self.signal = Some(signal),
            Event::Say(line) => return Some(line),
            Event::Start(_) | Event::Resize(_) => {}
        }
        None
    }

    /// The next signal for the running line: Ctrl-C, or one that the client sends. What else is typed is kept for the prompt.
    pub(super) async fn signal(&mut self, task: &Task) -> Result<Sig, Gone> {
        loop {
            if let Some(signal) = self.signal.take() {
                return Ok(signal);
            }
            let interrupt = self.ahead.iter().rposition(|byte| self.terminal && *byte == INTERRUPT);
            if let Some(at) = interrupt {
                // What was typed before it is dropped, as by a terminal (POSIX XBD 11.1.9).
                self.ahead.advance(at + 1);
                return Ok(Sig::INT);
            }
            if self.ahead.len() >= MAX_TYPED_AHEAD {
                std::future::pending::<()>().await;
            }
            let said = self.take(task.inbox.next().await);
            if let Some(line) = said {
                task.output.say(line).await?;
            }
        }
    }
}

/// The session.
struct Lines<'a> {
    task: &'a Task,
    setting: Setting,
    terminal: bool,
    input: Input,
    editor: Editor,
    place: Place,
    /// The folder as the prompt shows it: masked.
    shown: String,
    status: u32,
}

/// What the next line is.
enum Next {
    Line(String),
    End,
}

/// Runs the session until the client or `exit` ends it.
pub(super) async fn run(task: &Task, results: Results, mut setting: Setting) -> Result<Ended, Gone> {
    let terminal = setting.terminal.take().is_some();
    // Lines run one by one, on connections on which the target may open nothing.
    (setting.agent, setting.screen) = (false, None);
    let input = Input { ahead: BytesMut::new(), ended: false, terminal, signal: None };
    let (editor, shown) = (Editor::new(terminal), "~".to_owned());
    let mut lines =
        Lines { task, setting, terminal, input, editor, place: Place::default(), shown, status: 0 };
    let ended = tokio::select! {
        biased;
        // First: a line under way sees the end itself, and closes its record.
        ended = lines.converse() => ended,
        () = task.inbox.closed() => Err(Gone),
    };
    let how = ended.map_or_else(|Gone| "closed by the client".to_owned(), |status| format!("exit {status}"));
    if let Err(denial) = results.complete(&how) {
        return Ok(Ended::Refused(denial));
    }
    task.output.exit(ended?).await?;
    task.output.eof().await?;
    task.output.close().await?;
    Ok(Ended::Done)
}

impl Lines<'_> {
    async fn converse(&mut self) -> Result<u32, Gone> {
        loop {
            let line = match self.next().await? {
                Next::Line(line) => line,
                Next::End => return Ok(self.status),
            };
            match builtin::parse(&line) {
                Some(Builtin::Exit(status)) => return Ok(status.unwrap_or(self.status)),
                Some(builtin) => self.status = self.builtin(builtin).await?,
                None => self.status = self.line(&line).await?,
            }
        }
    }

    /// Shows a prompt and reads lines until they are a whole command.
    async fn next(&mut self) -> Result<Next, Gone> {
        let target = &self.task.session.guard.info().target;
        let status = if self.status == 0 { String::new() } else { format!("[{}] ", self.status) };
        self.show(format!("{status}{target}:{}$ ", self.shown)).await?;
        let mut whole = String::new();
        for _ in 0..MAX_LINES {
            let Some(typed) = self.read().await? else {
                // An unfinished command is not run.
                return Ok(Next::End);
            };
            let line = match typed {
                Typed::Line(line) => line,
                Typed::Interrupt => return self.nothing(INTERRUPTED_STATUS),
                Typed::End => return Ok(Next::End),
                Typed::TooLong => {
                    self.wrong("the line is too long; put the data into a file").await?;
                    return self.nothing(WRONG_STATUS);
                }
            };
            let Ok(line) = String::from_utf8(line) else {
                self.wrong("the line is not UTF-8").await?;
                return self.nothing(WRONG_STATUS);
            };
            whole.push_str(&line);
            if whole.len() > editor::MAX_LINE_BYTES || !crate::shell::is_unfinished(&whole) {
                return Ok(Next::Line(builtin::with_status(&whole, self.status)));
            }
            whole.push('\n');
            self.show("> ".to_owned()).await?;
        }
        // What follows is the rest of its text, not commands.
        self.wrong("the command has too many lines; put the data into a file").await?;
        self.status = WRONG_STATUS;
        Ok(Next::End)
    }

    /// As if an empty line had been typed, but for the status.
    fn nothing(&mut self, status: u32) -> Result<Next, Gone> {
        self.status = status;
        Ok(Next::Line(String::new()))
    }

    /// What is typed next; `None` at the end of the input.
    async fn read(&mut self) -> Result<Option<Typed>, Gone> {
        loop {
            let mut echo = Vec::new();
            let mut typed = None;
            while let (None, Some(byte)) = (&typed, self.input.ahead.first().copied()) {
                self.input.ahead.advance(1);
                typed = self.editor.push(byte, &mut echo);
            }
            if typed.is_none() && self.input.ended {
                typed = self.editor.rest();
                if typed.is_none() {
                    return Ok(None);
                }
            }
            self.echo(echo).await?;
            if typed.is_some() {
                return Ok(typed);
            }
            let event = self.task.inbox.next().await;
            if let Some(line) = self.input.take(event) {
                self.task.output.say(line).await?;
            }
            // There is nothing it could be for.
            self.input.signal = None;
        }
    }

    /// The prompt: on standard error where standard output is not a terminal, so that it is all output of commands.
    async fn show(&self, text: String) -> Result<(), Gone> {
        if self.terminal { self.echo(text.into_bytes()).await } else { self.task.output.say(text).await }
    }

    /// What the client typed, or the gateway's own words.
    async fn echo(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
        let released = self.task.session.guard.originate(bytes);
        self.task.output.send(Stream::Stdout, released).await
    }

    async fn wrong(&self, words: &str) -> Result<(), Gone> {
        self.task.output.say(format!("gateway: {words}\r\n")).await
    }

    async fn refused(&self, denial: &Denial) -> Result<u32, Gone> {
        self.task.output.say(denial::line(denial)).await?;
        Ok(denial::REFUSED_STATUS)
    }

    /// Judges a line and runs it; gives its status.
    async fn line(&mut self, line: &str) -> Result<u32, Gone> {
        let command = Command::parse(line.as_bytes());
        let Some(operation) = self.operation(&command) else {
            self.wrong("the folder's name cannot be sent with a line; `cd` elsewhere").await?;
            return Ok(WRONG_STATUS);
        };
        let permit = match self.judged(operation).await? {
            Ok(permit) => permit,
            Err(None) => return Ok(INTERRUPTED_STATUS),
            Err(Some(denial)) => return self.refused(&denial).await,
        };
        let (batch, results) = permit.consume();
        let judged = batch.operations().first();
        let statement = judged.map(|o| o.statement.clone()).unwrap_or_default();
        let raw = judged.is_some_and(|o| o.accesses.iter().any(|a| RAW.contains(&a.action.as_str())));
        let leased = match self.task.session.upstreams.open(Purpose::Session).await {
            Ok(leased) => leased,
            Err(cause) => {
                let recorded = results.complete("the target is not available").err();
                let denial = recorded.unwrap_or_else(|| unavailable(&self.task.session, &cause));
                return self.refused(&denial).await;
            }
        };
        let permitted = Permitted { statement, setting: self.setting.clone(), raw };
        let run = Line { terminal: self.terminal, input: &mut self.input };
        match pump::run_line(self.task, leased, results, permitted, run).await? {
            Ok(status) => Ok(status),
            Err(denial) => self.refused(&denial).await,
        }
    }

    /// A line with what it runs in: both are what is sent, shown to reviewers and bound to an approval.
    fn operation(&self, command: &Command) -> Option<Operation> {
        let mut bound = self.setting.clone();
        bound.environment.extend(self.place.exports().iter().cloned());
        let mut exec = operation::exec(&self.task.session.target, command, &bound);
        let prelude = self.place.prelude()?;
        if !prelude.is_empty() {
            exec.statement = [prelude.as_bytes(), &command.line].concat().into();
        }
        if let Some(folder) = &self.place.folder {
            let mut facts = (*exec.facts).clone();
            facts.insert("directory".into(), Fact::from(folder.as_str()));
            exec.facts = facts.into();
        }
        Some(exec)
    }

    /// Has an operation judged. `Err(None)`: it was held, and the client interrupted it.
    async fn judged(
        &mut self,
        operation: Operation,
    ) -> Result<Result<gateway_core::pipeline::Permit, Option<Denial>>, Gone> {
        tokio::select! {
            biased;
            judged = self.task.judged(operation) => Ok(judged?.map_err(Some)),
            // A hold is dropped, and with it its request.
            interrupted = self.input.signal(self.task) => interrupted.map(|_| Err(None)),
        }
    }

    async fn builtin(&mut self, builtin: Builtin) -> Result<u32, Gone> {
        match builtin {
            Builtin::Nothing => Ok(self.status),
            Builtin::Exit(_) => Ok(0),
            Builtin::Wrong(what) => {
                self.wrong(what).await?;
                Ok(WRONG_STATUS)
            }
            Builtin::Folder(None) => Ok(self.go_to_start()),
            Builtin::Folder(Some(folder)) => self.change_folder(&folder).await,
            Builtin::FolderBefore => match self.place.before.clone() {
                Some(folder) => self.change_folder(&folder).await,
                None => Ok(self.go_to_start()),
            },
            Builtin::Export(pairs) => self.export(&pairs).await,
            Builtin::Unset(names) => {
                names.iter().for_each(|name| self.place.unset(name));
                Ok(0)
            }
        }
    }

    fn go_to_start(&mut self) -> u32 {
        self.place.go(None);
        self.shown = "~".to_owned();
        0
    }

    /// Each variable is judged as if the client had asked for it before a command.
    async fn export(&mut self, pairs: &[(String, String)]) -> Result<u32, Gone> {
        for (name, value) in pairs {
            let session = &self.task.session;
            let operation = operation::env(&session.target, name, value);
            let judged = if self.place.has_room(name, value) {
                session.permit(operation).await
            } else {
                let denial = Denial::new(DenialCode::LimitExceeded, "too many variables are exported");
                Err(session.refuse(operation, denial.with_hint("`unset` some")))
            };
            if let Err(denial) = judged {
                return self.refused(&denial).await;
            }
            self.place.export(name, value);
        }
        Ok(0)
    }

    /// Judges the folder as it is named before the host is asked about it, and as the host resolves it before it is gone to.
    async fn change_folder(&mut self, folder: &str) -> Result<u32, Gone> {
        if !folder.starts_with('/') && self.place.folder.is_none() && self.place.start.is_none() {
            self.place.start = self.ask("pwd -P").await?;
        }
        let from = self.place.folder.as_ref().or(self.place.start.as_ref());
        let named = crate::sftp::normalise(folder.as_bytes(), from.map(String::as_bytes));
        let named = named.and_then(|named| String::from_utf8(named).ok());
        let Some((named, enter)) = named.and_then(|named| Some((named.clone(), enter(&named)?))) else {
            self.wrong("the folder's name cannot be sent; use an absolute path in ASCII").await?;
            return Ok(WRONG_STATUS);
        };
        let mut results = match self.permit_folder(&named).await? {
            Ok(results) => results,
            Err(status) => return Ok(status),
        };
        let Some(real) = self.ask(&format!("{enter} && pwd -P")).await? else {
            self.wrong("there is no such folder").await?;
            return self.completed(results, "no such folder", 1).await;
        };
        if real != named {
            if let Err(denial) = results.complete("leads elsewhere") {
                return self.refused(&denial).await;
            }
            results = match self.permit_folder(&real).await? {
                Ok(results) => results,
                Err(status) => return Ok(status),
            };
        }
        self.arrive(real, results).await
    }

    /// Tells where the client is now. Names may hold values as contents do.
    async fn arrive(&mut self, real: String, mut results: Results) -> Result<u32, Gone> {
        let (encoding, stream) =
            if self.terminal { (TERMINAL, Stream::Stdout) } else { (STDERR, Stream::Stderr) };
        let safe: String = real.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let told = Bytes::from(format!("{safe}\r\n"));
        match results.release(encoding, told, 1, |masker, raw| Ok(masker.text(raw).map(Bytes::from))) {
            Ok(told) => {
                self.shown = String::from_utf8_lossy(told.as_ref()).trim_end().to_owned();
                self.place.go(Some(real));
                self.task.output.send(stream, told).await?;
                self.completed(results, "ok", 0).await
            }
            Err(denial) => self.refused(&denial).await,
        }
    }

    async fn completed(&self, results: Results, how: &str, status: u32) -> Result<u32, Gone> {
        match results.complete(how) {
            Ok(()) => Ok(status),
            Err(denial) => self.refused(&denial).await,
        }
    }

    /// Has a folder judged. `Err`: the status of the refusal.
    async fn permit_folder(&mut self, folder: &str) -> Result<Result<Results, u32>, Gone> {
        let session = &self.task.session;
        let judged = match operation::change_directory(&session.target, folder) {
            Some(operation) => self.judged(operation).await?,
            None => {
                Err(Some(session.refuse(Operation::new("change_directory", folder.to_owned()), unclear())))
            }
        };
        match judged {
            Ok(permit) => Ok(Ok(permit.consume().1)),
            Err(None) => Ok(Err(INTERRUPTED_STATUS)),
            Err(Some(denial)) => self.refused(&denial).await.map(Err),
        }
    }

    /// Asks the host for one path, in a program of the gateway's own. `None`: it has no good answer.
    async fn ask(&self, question: &str) -> Result<Option<String>, Gone> {
        let asked = async {
            let Leased { connection, channel } =
                self.task.session.upstreams.open(Purpose::Session).await.ok()?;
            let answer = pump::ask(channel, question, MAX_PATH_BYTES + 1).await?;
            self.task.session.upstreams.keep(connection);
            String::from_utf8(answer).ok()
        };
        let answer = timeout(RESOLVE, asked).await.ok().flatten();
        // One line, and a path.
        let path = answer.and_then(|text| text.strip_suffix('\n').map(str::to_owned));
        Ok(path.filter(|path| path.starts_with('/') && !path.contains(char::is_control)))
    }
}

fn unclear() -> Denial {
    Denial::new(DenialCode::NotUnderstood, "the folder's path is too deep").with_hint("use a shorter path")
}
