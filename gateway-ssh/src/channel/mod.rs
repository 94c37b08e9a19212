//! One channel: its requests are judged, its program runs on the target, both ways are pumped until it ends.

mod files;
mod inbox;
mod lines;
mod observed;
mod opened;
mod output;
mod pump;

use std::sync::Arc;

use bytes::Bytes;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::Operation;
use gateway_core::pipeline::{Judged, NoRewrites, Permit, Results};
use russh::ChannelWriteHalf;
use russh::server::Msg;

pub(crate) use inbox::{Event, Inbox};
pub(crate) use opened::{Opened, listen};
use output::Output;

use crate::command::Command;
use crate::denial;
use crate::operation::{self, MAX_COMMAND_BYTES, Setting};
use crate::session::SshSession;
use crate::upstream::{Leased, Purpose, UpstreamError};

/// The encodings of released pieces in recordings: the bytes as they were sent to the client.
pub const RECORD_ENCODINGS: [&str; 4] = [STDOUT, STDERR, TERMINAL, files::SFTP];

/// The encodings of what clients sent, where a rule asks for it: the bytes as they were sent, masked.
pub const INPUT_ENCODINGS: [&str; 2] = [INPUT, files::WRITTEN];

const STDOUT: &str = "ssh/stdout";
const STDERR: &str = "ssh/stderr";
/// A program's standard input, what is typed at a terminal, and what a client sends into a forward.
const INPUT: &str = "ssh/input";
/// Standard output and error of a terminal are one stream.
const TERMINAL: &str = "ssh/terminal";

/// Actions whose permit lets bytes pass unmasked; they are recorded all the same.
const RAW: [&str; 3] = ["serve", "direct_tcpip", "direct_streamlocal"];

/// What was permitted, as the target is to get it.
struct Permitted {
    statement: Bytes,
    setting: Setting,
    raw: bool,
}

impl Permitted {
    /// A channel that the target opened.
    fn raw() -> Self {
        Self { statement: Bytes::new(), setting: Setting::default(), raw: true }
    }
}

/// What is to run, and in which setting.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) program: Program,
    pub(crate) setting: Setting,
}

/// What a channel is for.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Exec(Bytes),
    Shell,
    /// What the gateway offers in a shell's place: [`lines`].
    Commands,
    Subsystem(String),
    /// A forwarded TCP connection, permitted when it was opened.
    DirectTcpip(String, u32),
    /// A forwarded connection to a socket in the target's file system, permitted when it was opened.
    DirectStreamlocal(String),
    /// A channel that the target opened.
    Opened,
}

impl Program {
    /// How long what the client sent is.
    fn bytes(&self) -> usize {
        match self {
            Self::Exec(line) => line.len(),
            Self::Shell | Self::Commands | Self::Opened => 0,
            Self::Subsystem(name) | Self::DirectTcpip(name, _) | Self::DirectStreamlocal(name) => name.len(),
        }
    }
}

/// The task of one channel.
#[derive(Debug)]
pub(crate) struct Task {
    session: Arc<SshSession>,
    inbox: Arc<Inbox>,
    output: Output,
}

/// How a program came to its end.
#[derive(Debug)]
enum Ended {
    /// In good order; the client was told how.
    Done,
    Refused(Denial),
}

impl Task {
    pub(crate) fn new(session: Arc<SshSession>, inbox: Arc<Inbox>, write: ChannelWriteHalf<Msg>) -> Self {
        let output = Output::new(write, Arc::clone(&session));
        Self { session, inbox, output }
    }

    /// Serves the channel until its program ends or the client closes it.
    pub(crate) async fn run(self) {
        if let Some(start) = self.started().await {
            match self.serve(*start).await {
                Ok(Ended::Done) => {}
                Ok(Ended::Refused(denial)) => self.tell(&denial).await,
                // The client is gone: there is nobody to tell.
                Err(Gone) => {}
            }
        }
    }

    async fn started(&self) -> Option<Box<Start>> {
        let wait = async {
            loop {
                match self.inbox.next().await {
                    Event::Start(start) => return Some(start),
                    Event::Say(line) => self.output.say(line).await.ok()?,
                    // Data before there is a program has no reader.
                    _ => {}
                }
            }
        };
        tokio::select! {
            start = wait => start,
            () = self.inbox.closed() => None,
        }
    }

    async fn serve(&self, start: Start) -> Result<Ended, Gone> {
        let Start { program, mut setting } = start;
        if let Some(denial) = setting.refused.take() {
            return Ok(Ended::Refused(denial));
        }
        let permit = tokio::select! {
            permit = self.admit(&program, &setting) => permit?,
            // A hold is dropped, and with it its request.
            () = self.inbox.closed() => return Err(Gone),
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(denial) => return Ok(Ended::Refused(denial)),
        };
        let (batch, results) = permit.consume();
        if matches!(program, Program::Commands) {
            return lines::run(self, results, setting).await;
        }
        let leased = tokio::select! {
            leased = self.lease(&program) => leased,
            () = self.inbox.closed() => return self.unused(results, "closed by the client"),
        };
        let leased = match leased {
            Ok(leased) => leased,
            Err(cause) => {
                self.unused(results, "the target is not available").ok();
                return Ok(Ended::Refused(unavailable(&self.session, &cause)));
            }
        };
        let operation = batch.operations().first();
        // Its protocol would break if bytes in it were held back or replaced; the permit says so.
        let raw = operation.is_some_and(|o| o.accesses.iter().any(|a| RAW.contains(&a.action.as_str())));
        let statement = operation.map(|o| o.statement.clone()).unwrap_or_default();
        match &program {
            Program::Subsystem(name) if name == "sftp" => files::run(self, leased, results).await,
            _ => pump::run(self, leased, results, &program, Permitted { statement, setting, raw }).await,
        }
    }

    async fn lease(&self, program: &Program) -> Result<Leased, UpstreamError> {
        match program {
            Program::DirectTcpip(host, port) => {
                self.session.upstreams.open(Purpose::DirectTcpip(host, *port)).await
            }
            Program::DirectStreamlocal(path) => {
                self.session.upstreams.open(Purpose::DirectStreamlocal(path)).await
            }
            _ => self.session.upstreams.open(Purpose::Session).await,
        }
    }

    /// Closes the record of what was permitted and never ran.
    fn unused(&self, results: Results, how: &str) -> Result<Ended, Gone> {
        results.complete(how).map_or_else(|denial| Ok(Ended::Refused(denial)), |()| Err(Gone))
    }

    /// Has the program judged; waits for people if a rule wants it.
    async fn admit(&self, program: &Program, setting: &Setting) -> Result<Result<Permit, Denial>, Gone> {
        let operation = match self.operation(program, setting) {
            Ok(operation) => operation,
            Err(denial) => return Ok(Err(denial)),
        };
        self.judged(operation).await
    }

    /// The same for any operation.
    async fn judged(&self, operation: Operation) -> Result<Result<Permit, Denial>, Gone> {
        let mut judged = self.session.guard.judge(self.session.pending(operation), &NoRewrites).await;
        if let Judged::Held(held) = judged {
            let reviewers: Vec<_> = held.reviewers().collect();
            let line = format!(
                "held: request {} waits for approval by {} until {}\r\n",
                held.request(),
                reviewers.join(", "),
                held.expires()
            );
            self.output.say(line).await?;
            judged = held.wait().await;
        }
        Ok(match judged {
            Judged::Permit(permit) => Ok(*permit),
            Judged::Refused(refused) => Err(refused.denial),
            Judged::Held(held) => Err(held.cancel().await),
        })
    }

    fn operation(&self, program: &Program, setting: &Setting) -> Result<Operation, Denial> {
        let target = &self.session.target;
        match program {
            Program::Exec(line) if line.len() > MAX_COMMAND_BYTES => {
                let message = format!("a command line of more than {MAX_COMMAND_BYTES} bytes is refused");
                let denial = Denial::new(DenialCode::LimitExceeded, message)
                    .with_hint("put the data on standard input");
                Err(self.session.refuse(Operation::new("exec", line.clone()), denial))
            }
            Program::Exec(line) => Ok(operation::exec(target, &Command::parse(line), setting)),
            Program::Shell => Ok(operation::shell(target, setting)),
            Program::Commands => Ok(operation::command_shell(target, setting)),
            Program::Subsystem(name) => Ok(operation::subsystem(target, name, setting)),
            // Judged where it comes in, by what it is.
            Program::Opened => Err(crate::session::unsupported("this channel")),
            Program::DirectTcpip(host, port) => Ok(operation::tcp(target, "direct_tcpip", host, *port)),
            Program::DirectStreamlocal(path) => Ok(operation::socket(target, "direct_streamlocal", path)),
        }
    }

    /// Tells a refusal and closes the channel. The request itself was answered with success before: after a failure stock clients
    /// print their own words and drop standard error, and the agent would not learn what to do.
    async fn tell(&self, denial: &Denial) {
        if let Some(cause) = denial.cause() {
            tracing::warn!(session = %self.session.guard.info().id, code = %denial.code, cause, "refused");
        }
        let told = async {
            self.output.say(denial::line(denial)).await?;
            self.output.exit(denial::REFUSED_STATUS).await?;
            self.output.close().await
        };
        tokio::select! {
            _ = told => {}
            () = self.inbox.closed() => {}
        }
    }
}

impl Drop for Task {
    /// Also after a panic: what waits must not press on the connection for ever.
    fn drop(&mut self) {
        self.inbox.finish();
    }
}

/// The client or its connection is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

fn unavailable(session: &SshSession, cause: &UpstreamError) -> Denial {
    let target = &session.guard.info().target;
    Denial::new(DenialCode::UpstreamUnavailable, format!("target `{target}` is not available"))
        .with_hint("try again later, or tell the gateway's operator")
        .with_cause(cause)
}
