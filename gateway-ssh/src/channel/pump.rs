//! A running program: its input to the target, its output through the masks to the client, its end exactly as it was.

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::masking::Controls;
use gateway_core::pipeline::{Input, Released, ResultStream, Results};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Error, Sig, client};
use tokio::time::timeout;

use super::observed::Observer;
use super::output::{Exit, Stream};
use super::{Ended, Event, Gone, INPUT, Permitted, Program, STDERR, STDOUT, TERMINAL, Task};
use super::{lines, opened};
use crate::operation::{self, Screen, Setting, Size, Terminal};
use crate::upstream::Leased;

type ToTarget = ChannelWriteHalf<client::Msg>;

/// Runs the permitted statement on a fresh channel of the target until it ends.
pub(super) async fn run(
    task: &Task,
    leased: Leased,
    results: Results,
    program: &Program,
    permitted: Permitted,
) -> Result<Ended, Gone> {
    let Permitted { statement, setting, raw } = permitted;
    let Leased { connection, channel } = leased;
    let (from_target, to_target) = channel.split();
    let expected = setting.expected();
    let knocks = connection.as_ref().filter(|_| !expected.is_empty()).map(|c| c.door.expect(expected));
    let observer = (matches!(program, Program::Shell) && setting.terminal.is_some()).then(Observer::default);
    if let (Some(observer), Some(terminal)) = (&observer, &setting.terminal) {
        observer.is_wide(terminal.size.columns);
    }
    let mut input = results.input(INPUT);
    let mut answer = Answer::new(task, results, setting.terminal.is_some(), raw);
    answer.observer = observer.as_ref();
    let outcome = match start(&to_target, program, statement, &setting).await {
        Err(_) => Outcome::Lost,
        Ok(replies) => {
            answer.replies = replies;
            answer.has_status = replies != Replies::None;
            tokio::select! {
                biased;
                () = task.inbox.closed() => Outcome::Gone,
                outcome = answer.follow(from_target) => outcome,
                denial = feed(task, &to_target, &setting, &mut input, observer.as_ref()) => Outcome::Denied(denial),
                never = opened::take(&task.session, knocks) => match never {},
            }
        }
    };
    match (&outcome, connection) {
        (Outcome::Closed, connection) => task.session.upstreams.keep(connection),
        // Others use its connection: it has to be closed by itself.
        (_, None) => drop(to_target.close().await),
        // Ends with its connection.
        (_, Some(_)) => {}
    }
    match input.finish() {
        Ok(()) => answer.finish(outcome).await,
        Err(denial) => answer.finish(Outcome::Denied(denial)).await,
    }
}

/// How a line of a command-at-a-time session is run.
pub(super) struct Line<'a> {
    /// The client has a terminal, which the line does not know of.
    pub(super) terminal: bool,
    pub(super) input: &'a mut lines::Input,
}

/// Runs one permitted line of a session that goes on afterwards: without input, until it ends or is interrupted. Gives its status.
pub(super) async fn run_line(
    task: &Task,
    leased: Leased,
    results: Results,
    permitted: Permitted,
    line: Line<'_>,
) -> Result<Result<u32, Denial>, Gone> {
    let Permitted { statement, setting, raw } = permitted;
    let Leased { connection, channel } = leased;
    let (from_target, to_target) = channel.split();
    let mut answer = Answer::new(task, results, line.terminal, raw);
    answer.line = true;
    let outcome = match start(&to_target, &Program::Exec(Bytes::new()), statement, &setting).await {
        Err(_) => Outcome::Lost,
        Ok(replies) => {
            answer.replies = replies;
            // If it fails the other direction finds out why.
            let _ = to_target.eof().await;
            tokio::select! {
                biased;
                () = task.inbox.closed() => Outcome::Gone,
                outcome = answer.follow(from_target) => outcome,
                outcome = interrupted(task, &to_target, line.input) => outcome,
            }
        }
    };
    if matches!(outcome, Outcome::Closed) {
        task.session.upstreams.keep(connection);
    }
    answer.finish_line(outcome).await
}

/// Passes the client's signals on; a second Ctrl-C gives the line up.
async fn interrupted(task: &Task, to: &ToTarget, input: &mut lines::Input) -> Outcome {
    let mut before = false;
    loop {
        let Ok(signal) = input.signal(task).await else { return Outcome::Gone };
        let interrupt = matches!(signal, Sig::INT);
        if interrupt && before {
            return Outcome::Interrupted;
        }
        before |= interrupt;
        // If it fails the other direction finds out why.
        let _ = deliver(task, to, signal).await;
    }
}

/// Runs a program of the gateway's own and gives what it wrote, if it ended well and wrote no more than `most` bytes.
pub(super) async fn ask(channel: Channel<client::Msg>, question: &str, most: usize) -> Option<Vec<u8>> {
    let (mut from, to) = channel.split();
    to.exec(true, question).await.ok()?;
    to.eof().await.ok()?;
    let (mut answer, mut good) = (Vec::new(), false);
    loop {
        match from.wait().await? {
            ChannelMsg::Data { data } if answer.len() + data.len() > most => return None,
            ChannelMsg::Data { data } => answer.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => good = exit_status == 0,
            ChannelMsg::Failure => return None,
            ChannelMsg::Close => return good.then_some(answer),
            _ => {}
        }
    }
}

/// Asks the target to start the program; tells how many answers are to come.
async fn start(
    to: &ToTarget,
    program: &Program,
    statement: Bytes,
    setting: &Setting,
) -> Result<Replies, Error> {
    for (name, value) in &setting.environment {
        to.set_env(false, name, value).await?;
    }
    if setting.agent {
        to.agent_forward(false).await?;
    }
    if let Some(Screen { single, protocol, cookie, number }) = &setting.screen {
        to.request_x11(false, *single, &**protocol, &**cookie, *number).await?;
    }
    if let Some(Terminal { term, size: Size { columns, rows, width, height }, modes }) = &setting.terminal {
        to.request_pty(true, term, *columns, *rows, *width, *height, modes).await?;
    }
    match program {
        Program::Exec(_) => to.exec(true, statement).await?,
        Program::Shell | Program::Commands => to.request_shell(true).await?,
        Program::Subsystem(name) => to.request_subsystem(true, name).await?,
        Program::DirectTcpip(..) | Program::DirectStreamlocal(_) | Program::Opened => {
            return Ok(Replies::None);
        }
    }
    Ok(if setting.terminal.is_some() { Replies::Terminal } else { Replies::Program })
}

/// Which answer of the target comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replies {
    Terminal,
    Program,
    None,
}

/// How far the end of the program's output has got.
///
/// Clients on a shared connection close their channel once both directions have ended, and a closed channel takes no exit status
/// any more (RFC 4254 section 5.3). So the end of file waits for the status, which stands right behind it; if the client's input
/// goes on, it waits no longer than [`STATUS_WAIT`], since the client may be waiting for it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputEnd {
    Open,
    Waits,
    Told,
}

/// Output is joined up to so many bytes: two packets of the largest size. 64 KiB.
const GATHERED_BYTES: usize = 64 * 1024;

/// A program that closes its output commonly ends within milliseconds. 1 s.
const STATUS_WAIT: Duration = Duration::from_secs(1);

/// Moves the client's input to the target at the target's pace; ends only if it cannot be recorded.
async fn feed(
    task: &Task,
    to: &ToTarget,
    setting: &Setting,
    input: &mut Input,
    observer: Option<&Observer>,
) -> Denial {
    let mut terminal = setting.terminal.clone();
    loop {
        let sent = match task.inbox.next().await {
            Event::Data(bytes) => match noted(task, input, &bytes).await {
                Ok(()) => {
                    observer.into_iter().for_each(|observer| observer.typed(&bytes));
                    to.data_bytes(bytes.freeze()).await
                }
                Err(denial) => return denial,
            },
            Event::Eof => to.eof().await,
            Event::Signal(signal) => deliver(task, to, signal).await,
            Event::Resize(size) => match &mut terminal {
                Some(terminal) => resize(task, to, terminal, size, observer).await,
                None => Ok(()),
            },
            Event::Say(line) => task.output.say(line).await.map_err(|Gone| Error::SendError),
            Event::Start(_) => Ok(()),
        };
        if sent.is_err() {
            // The other direction finds out why and ends it all.
            return std::future::pending().await;
        }
    }
}

/// Has input recorded, if a rule asks for it, no faster than the recorder takes it.
async fn noted(task: &Task, input: &mut Input, bytes: &[u8]) -> Result<(), Denial> {
    let guard = &task.session.guard;
    if input.is_recorded() && !guard.has_room() {
        guard.catch_up().await?;
    }
    input.take(bytes)?;
    if input.is_recorded() && guard.is_strict() { guard.settle().await } else { Ok(()) }
}

async fn deliver(task: &Task, to: &ToTarget, signal: Sig) -> Result<(), Error> {
    let name = signal_name(&signal);
    match task.session.permit(operation::signal(&task.session.target, &name)).await {
        Ok(()) => to.signal(signal).await,
        Err(denial) => {
            let said = task.output.say(crate::denial::line(&denial)).await;
            said.map_err(|Gone| Error::SendError)
        }
    }
}

async fn resize(
    task: &Task,
    to: &ToTarget,
    terminal: &mut Terminal,
    size: Size,
    observer: Option<&Observer>,
) -> Result<(), Error> {
    terminal.size = size;
    // The same question as for the terminal itself; its record keeps the size for replay.
    match task.session.permit(operation::pty(&task.session.target, terminal)).await {
        Ok(()) => {
            observer.into_iter().for_each(|observer| observer.is_wide(size.columns));
            to.window_change(size.columns, size.rows, size.width, size.height).await
        }
        Err(_) => Ok(()),
    }
}

pub(crate) fn signal_name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

/// How the target's side ended.
enum Outcome {
    /// The channel was closed in good order.
    Closed,
    /// The connection broke.
    Lost,
    /// The target did not start the program.
    NotStarted,
    /// The client closed the channel, or its connection is gone.
    Gone,
    /// The client gave a line up; its channel stays.
    Interrupted,
    /// Nothing more may be released.
    Denied(Denial),
}

impl From<Gone> for Outcome {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Denial> for Outcome {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// The program's output on its way to the client.
struct Answer<'a> {
    task: &'a Task,
    results: Results,
    stdout: Option<ResultStream>,
    stderr: Option<ResultStream>,
    terminal: bool,
    raw: bool,
    /// One line of a session: the channel goes on after it.
    line: bool,
    replies: Replies,
    /// Forwards end without one.
    has_status: bool,
    exit: Option<Exit>,
    output: OutputEnd,
    /// Taken from the channel, and not yet looked at.
    ahead: Option<ChannelMsg>,
    /// Of a shell with a terminal.
    observer: Option<&'a Observer>,
}

impl<'a> Answer<'a> {
    fn new(task: &'a Task, results: Results, terminal: bool, raw: bool) -> Self {
        let controls = if terminal { Controls::Drawing } else { Controls::AsSent };
        let results = if raw { results.only_passing() } else { results };
        let (stdout, stderr) = (Some(results.stream(controls)), Some(results.stream(controls)));
        let (replies, exit, output) = (Replies::None, None, OutputEnd::Open);
        let (line, has_status, ahead, observer) = (false, false, None, None);
        Self {
            task,
            results,
            stdout,
            stderr,
            terminal,
            raw,
            line,
            replies,
            has_status,
            exit,
            output,
            ahead,
            observer,
        }
    }

    async fn follow(&mut self, mut from: ChannelReadHalf) -> Outcome {
        loop {
            if let Err(denial) = self.catch_up().await {
                return Outcome::Denied(denial);
            }
            let message = match self.next(&mut from).await {
                Ok(Some(message)) => message,
                Ok(None) => return Outcome::Lost,
                Err(gone) => return gone.into(),
            };
            let taken = match message {
                ChannelMsg::Data { data } => {
                    let data = self.gather(data, &mut from);
                    self.release(Stream::Stdout, &data).await
                }
                ChannelMsg::ExtendedData { data, ext: 1 } => self.release(Stream::Stderr, &data).await,
                ChannelMsg::Success => self.answered(true),
                ChannelMsg::Failure => self.answered(false),
                ChannelMsg::ExitStatus { exit_status } => {
                    self.exit = Some(Exit::Status(exit_status));
                    Ok(())
                }
                ChannelMsg::ExitSignal { signal_name, core_dumped, .. } => {
                    self.exit = Some(Exit::Signal { name: signal_name, core_dumped });
                    Ok(())
                }
                ChannelMsg::Eof => self.end().await,
                ChannelMsg::Close => return Outcome::Closed,
                _ => Ok(()),
            };
            if let Err(outcome) = taken {
                return outcome;
            }
        }
    }

    /// Joins output with what else of it is there already: masks, records and packets cost less for fewer pieces.
    fn gather(&mut self, data: Bytes, from: &mut ChannelReadHalf) -> Bytes {
        let mut all: Option<BytesMut> = None;
        while self.ahead.is_none() {
            let gathered = all.as_ref().map_or(data.len(), BytesMut::len);
            match there(from) {
                Some(ChannelMsg::Data { data: more }) if gathered + more.len() <= GATHERED_BYTES => {
                    all.get_or_insert_with(|| BytesMut::from(data.as_ref())).extend_from_slice(&more);
                }
                Some(other) => self.ahead = Some(other),
                None => break,
            }
        }
        all.map_or(data, BytesMut::freeze)
    }

    /// What the target says next; tells the client of the end of the output when that cannot wait any longer.
    async fn next(&mut self, from: &mut ChannelReadHalf) -> Result<Option<ChannelMsg>, Gone> {
        if let Some(message) = self.ahead.take() {
            return Ok(Some(message));
        }
        while self.output == OutputEnd::Waits && !self.task.inbox.has_ended() {
            match timeout(STATUS_WAIT, from.wait()).await {
                Ok(message) => return Ok(message),
                Err(_) if self.task.inbox.has_ended() => {}
                Err(_) => self.tell_eof().await?,
            }
        }
        Ok(from.wait().await)
    }

    async fn tell_eof(&mut self) -> Result<(), Gone> {
        self.output = OutputEnd::Told;
        self.task.output.eof().await
    }

    /// Releases no faster than the recorder takes it, and under the masks of the policies in force.
    async fn catch_up(&mut self) -> Result<(), Denial> {
        let guard = &self.task.session.guard;
        if self.results.is_stale() || !guard.has_room() {
            guard.catch_up().await?;
            self.results.adopt_masks();
        }
        Ok(())
    }

    fn answered(&mut self, success: bool) -> Result<(), Outcome> {
        match (self.replies, success) {
            (Replies::Program, false) => return Err(Outcome::NotStarted),
            (Replies::Terminal, false) => {
                let line = "gateway: the target did not give a terminal\r\n".to_owned();
                self.task.inbox.push(Event::Say(line));
                self.replies = Replies::Program;
            }
            (Replies::Terminal, true) => self.replies = Replies::Program,
            _ => self.replies = Replies::None,
        }
        Ok(())
    }

    async fn release(&mut self, stream: Stream, data: &Bytes) -> Result<(), Outcome> {
        let encoding = self.encoding(stream);
        // There is no terminal on the target to do so.
        let lines = if self.line && self.terminal { with_returns(data) } else { None };
        let data = lines.as_ref().unwrap_or(data);
        let masked = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        // After its end of file a stream has no data (RFC 4254 section 5.3).
        let Some(masked) = masked else { return Ok(()) };
        let released = if self.raw && stream == Stream::Stdout {
            Some(self.results.release(encoding, data.clone(), 0, |_, _| Ok(None))?)
        } else {
            self.results.release_stream(masked, encoding, data)?
        };
        if let Some(released) = released {
            self.observe(&released)?;
            self.settled().await?;
            self.task.output.send(stream, released).await?;
        }
        Ok(())
    }

    /// Records what looks like a command in what a terminal is about to show.
    fn observe(&self, released: &Released) -> Result<(), Denial> {
        let lines = self.observer.map(|observer| observer.shown(released.as_ref())).unwrap_or_default();
        lines.into_iter().try_for_each(|line| self.results.observed(line))
    }

    const fn encoding(&self, stream: Stream) -> &'static str {
        match stream {
            _ if self.terminal => TERMINAL,
            Stream::Stdout => STDOUT,
            Stream::Stderr => STDERR,
        }
    }

    async fn settled(&self) -> Result<(), Denial> {
        let guard = &self.task.session.guard;
        if guard.is_strict() { guard.settle().await } else { Ok(()) }
    }

    /// The program has no more output: what was held back follows, and the end of file, unless a status is to come before it.
    async fn end(&mut self) -> Result<(), Outcome> {
        self.flush().await?;
        if self.line {
            return Ok(());
        }
        self.output = OutputEnd::Waits;
        if !self.has_status || self.exit.is_some() {
            self.tell_eof().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Outcome> {
        let rest = [(Stream::Stdout, self.stdout.take()), (Stream::Stderr, self.stderr.take())];
        for (stream, masked) in rest {
            let Some(masked) = masked else { continue };
            let encoding = self.encoding(stream);
            if let Some(released) = self.results.finish_stream(masked, encoding)? {
                self.observe(&released)?;
                self.settled().await?;
                self.task.output.send(stream, released).await?;
            }
        }
        Ok(())
    }

    /// Tells the client how it ended, closes the channel and the operation's record.
    async fn finish(mut self, outcome: Outcome) -> Result<Ended, Gone> {
        let (said, told) = match outcome {
            Outcome::Gone | Outcome::Interrupted => ("closed by the client".to_owned(), Ok(())),
            Outcome::Denied(denial) => return self.denied(denial),
            Outcome::NotStarted => {
                let denial =
                    Denial::new(DenialCode::UpstreamUnavailable, "the target did not start the program");
                return self.denied(denial);
            }
            Outcome::Lost => ("the connection to the target broke".to_owned(), self.tell(true).await),
            Outcome::Closed => {
                (self.exit.as_ref().map_or_else(|| "closed".to_owned(), describe), self.tell(false).await)
            }
        };
        let told = match told {
            Err(Outcome::Denied(denial)) => return self.denied(denial),
            Err(_) => Err(Gone),
            Ok(()) => Ok(Ended::Done),
        };
        match self.results.complete(&said) {
            Ok(()) => told,
            Err(denial) => Ok(Ended::Refused(denial)),
        }
    }

    /// The same for a line: the client is told by the next prompt.
    async fn finish_line(mut self, outcome: Outcome) -> Result<Result<u32, Denial>, Gone> {
        let (said, status) = match outcome {
            Outcome::Gone => {
                self.results.complete("closed by the client").ok();
                return Err(Gone);
            }
            Outcome::Denied(denial) => return Ok(Err(self.refusal(denial))),
            Outcome::NotStarted => {
                let words = "the target did not start the program";
                return Ok(Err(self.refusal(Denial::new(DenialCode::UpstreamUnavailable, words))));
            }
            Outcome::Lost => ("the connection to the target broke".to_owned(), LOST_STATUS),
            Outcome::Interrupted => ("interrupted".to_owned(), INTERRUPTED_STATUS),
            Outcome::Closed => {
                let said = self.exit.as_ref().map_or_else(|| "closed".to_owned(), describe);
                (said, self.exit.as_ref().map_or(LOST_STATUS, status))
            }
        };
        match self.flush().await {
            Err(Outcome::Denied(denial)) => return Ok(Err(self.refusal(denial))),
            Err(_) => return Err(Gone),
            Ok(()) if status == LOST_STATUS => self.task.output.say(format!("gateway: {said}\r\n")).await?,
            Ok(()) => {}
        }
        Ok(self.results.complete(&said).map(|()| status))
    }

    /// Closes the record of what was refused half way.
    fn refusal(self, denial: Denial) -> Denial {
        self.results.complete(denial.code.as_str()).err().unwrap_or(denial)
    }

    fn denied(self, denial: Denial) -> Result<Ended, Gone> {
        Ok(Ended::Refused(self.refusal(denial)))
    }

    async fn tell(&mut self, lost: bool) -> Result<(), Outcome> {
        let task = self.task;
        tokio::select! {
            told = self.tell_end(lost) => told,
            () = task.inbox.closed() => Err(Outcome::Gone),
        }
    }

    /// The rest of the output, the exit status, the end of file, the close: in the order of OpenSSH's server.
    async fn tell_end(&mut self, lost: bool) -> Result<(), Outcome> {
        self.flush().await?;
        let output = &self.task.output;
        if lost {
            output.say("gateway: the connection to the target broke\r\n".to_owned()).await?;
        } else if let Some(exit) = &self.exit {
            output.ended(exit).await?;
        }
        if self.output != OutputEnd::Told {
            output.eof().await?;
        }
        Ok(output.close().await?)
    }
}

/// The next message, if it is there already; the end is found by whoever waits.
fn there(from: &mut ChannelReadHalf) -> Option<ChannelMsg> {
    let mut waiting = std::pin::pin!(from.wait());
    match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(message) => message,
        Poll::Pending => None,
    }
}

/// How a program ended, for the record.
pub(super) fn describe(exit: &Exit) -> String {
    match exit {
        Exit::Status(status) => format!("exit {status}"),
        Exit::Signal { name, .. } => format!("signal {}", signal_name(name)),
    }
}

/// What a shell shows for a program that ended unknown, or by a signal (POSIX XCU 2.8.2, and what shells make of it).
const LOST_STATUS: u32 = 255;
const INTERRUPTED_STATUS: u32 = 130;
const SIGNAL_STATUS: u32 = 128;

fn status(exit: &Exit) -> u32 {
    match exit {
        Exit::Status(status) => *status,
        Exit::Signal { name, .. } => SIGNAL_STATUS + number(name),
    }
}

/// The signals' numbers on Linux; 0 for those that have none everywhere.
const fn number(signal: &Sig) -> u32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        _ => 0,
    }
}

/// Line ends as a terminal in raw mode needs them; `None` if there are none.
fn with_returns(data: &Bytes) -> Option<Bytes> {
    if !data.contains(&b'\n') {
        return None;
    }
    let mut out = Vec::with_capacity(data.len() + data.len() / 16 + 1);
    for piece in data.split_inclusive(|byte| *byte == b'\n') {
        match piece.split_last() {
            Some((b'\n', rest)) => {
                out.extend_from_slice(rest);
                out.extend_from_slice(b"\r\n");
            }
            _ => out.extend_from_slice(piece),
        }
    }
    Some(out.into())
}
