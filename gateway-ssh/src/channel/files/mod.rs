//! The sftp subsystem: every request judged on the path that the server itself resolves, every answer masked and recorded.
//!
//! A path is judged when it is named. What is then done with an open handle (reads, writes, listings) belongs to the operation that
//! opened it, and is judged anew when the policies change. Requests that name paths are judged in the order they came.

mod answer;
mod content;
mod lane;
mod limits;
mod read;
mod request;

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::masking::Controls;
use gateway_core::operation::Operation;
use gateway_core::pipeline::{Released, ResultStream, Results};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Error, client};

use self::content::FileContent;
pub(super) use self::content::WRITTEN;
use self::lane::Lane;
use self::read::Window;
use super::output::{Exit, Stream};
use super::{Ended, Event, Gone, STDERR, Task};
use crate::names::{Awaited, Hold};
use crate::sftp::{
    Answered, Asked, FileOperation, FrameDecoder, Limits, OwnId, Request, Response, Session, SftpError,
    StatusCode,
};
use crate::upstream::Leased;

/// How released frames are encoded in recordings: SFTP version 3, as they were sent to the client.
pub(super) const SFTP: &str = "ssh/sftp";

/// Requests under way at the server, the gateway's own questions included, and open handles.
const LIMITS: Limits = Limits { requests: 2048, handles: 256 };

/// Path requests and reads that wait for an answer to the gateway's own questions before no more requests are taken.
const MAX_WAITING: usize = 512;

/// Extensions announced to the client, where the server has them; the others are refused.
const EXTENSIONS: [&[u8]; 7] = [
    b"posix-rename@openssh.com",
    b"statvfs@openssh.com",
    b"fstatvfs@openssh.com",
    b"hardlink@openssh.com",
    b"fsync@openssh.com",
    b"lsetstat@openssh.com",
    b"limits@openssh.com",
];

/// What goes to the server.
enum ToServer {
    Frame(Bytes),
    Eof,
}

/// Why it ended.
enum Stop {
    Closed,
    Lost,
    NotStarted,
    Denied(Denial),
    Broken(SftpError),
}

impl From<SftpError> for Stop {
    fn from(error: SftpError) -> Self {
        Self::Broken(error)
    }
}

impl From<Denial> for Stop {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// A request about paths, waiting for the server to resolve them.
struct Waiting {
    serial: u64,
    operation: Box<FileOperation>,
    unanswered: usize,
    /// How large a file to be read is, if it has a size.
    size: Option<u64>,
    /// What a link that is made or moved says.
    link: Option<Bytes>,
    /// What that leads to from where the link will stand, once that is known.
    leads: Option<Bytes>,
    /// The server's answer where a path could not be resolved: the operation would fail as well.
    failed: Option<Response>,
}

/// What the gateway itself asked.
enum Question {
    /// Where relative paths start.
    Start,
    /// What the path with this index of that request really is; asked for so much of it.
    Real(u64, usize, Bytes),
    /// How large the file of that request is.
    Size(u64),
    /// Whether what that request moves is a link, and to where.
    Link(u64),
    /// What the link of that request leads to; asked for so much of the path.
    Leads { serial: u64, path: Bytes, asked: Bytes },
    /// How much may be asked for at once.
    Limits(Box<FileOperation>),
    /// File content around a client's read.
    Read { operation: Box<FileOperation>, handle: Bytes, window: Window, got: BytesMut },
}

/// A judged request that the server has not answered yet.
struct Running {
    results: Results,
    /// For those that open a handle.
    opens: Option<Opening>,
}

struct Opening {
    operation: Operation,
    size: Option<u64>,
    revealed: bool,
    path: gateway_core::operation::Resource,
}

/// An open file or folder.
struct OpenFile {
    results: Results,
    opening: Opening,
    /// The policies changed and do not permit it any more.
    revoked: Option<Denial>,
    /// The client's CLOSE was sent on.
    closing: bool,
    content: FileContent,
}

/// A request about an open file that the server has not answered yet.
struct OnFile {
    handle: Bytes,
    /// Where it reads.
    offset: u64,
}

/// One sftp session.
struct Files<'a> {
    task: &'a Task,
    /// Of the subsystem itself: its standard error.
    results: Results,
    stderr: Option<ResultStream>,
    wire: Session,
    client: FrameDecoder,
    server: FrameDecoder,
    /// `Some` after the client's INIT: the directory that relative paths start from, once known.
    begun: bool,
    ready: bool,
    /// The client has said that its input ends; the server hears of it once everything is answered.
    ended: bool,
    told_end: bool,
    serial: u64,
    waiting: VecDeque<Waiting>,
    /// Names in use for all of `waiting` and `running`.
    hold: Option<Hold>,
    /// What `postponed` waits for, besides the answers to those before it.
    awaited: Option<Awaited>,
    /// `hold` came by waiting, and nothing has used it yet.
    turn: bool,
    /// Bytes in `questions` that wait for the rest of a read.
    held: usize,
    questions: HashMap<OwnId, Question>,
    running: HashMap<u32, Running>,
    /// A path request that came while names may change, here or in another session of the same identity, or one that changes them
    /// and came while they are looked at: what its path leads to is asked only afterwards, else something could be judged on one
    /// file and done to another. Nothing more is taken before it, so there is never a second.
    postponed: Option<Box<FileOperation>>,
    by_handle: HashMap<u32, OnFile>,
    open: HashMap<Bytes, OpenFile>,
    exit: Option<Exit>,
}

/// The two ways out.
struct Lanes {
    up: Lane<ToServer>,
    down: Lane<(Stream, Released)>,
}

/// Runs the permitted subsystem on a fresh channel of the target until it ends.
pub(super) async fn run(task: &Task, leased: Leased, results: Results) -> Result<Ended, Gone> {
    let Leased { connection, channel } = leased;
    let (from, to) = channel.split();
    let lanes = Lanes { up: Lane::new(), down: Lane::new() };
    let mut files = Files::new(task, results);
    let stop = if to.request_subsystem(true, "sftp").await.is_err() {
        Some(Stop::Lost)
    } else {
        tokio::select! {
            biased;
            () = task.inbox.closed() => None,
            stop = files.serve(from, &lanes) => Some(stop),
            Gone = write_down(task, &lanes.down) => None,
            never = write_up(task, &to, &lanes.up) => match never {},
        }
    };
    if matches!(stop, Some(Stop::Closed)) {
        task.session.upstreams.keep(connection);
    }
    files.finish(stop).await
}

enum Never {}

/// When its turn comes or is given up, if there is something to wait for.
async fn awaited(turn: &mut Option<Awaited>) -> Option<Hold> {
    match turn {
        Some(turn) => turn.await,
        None => std::future::pending().await,
    }
}

/// Where nothing may happen before it is on disk, waits for that. A recorder that fails ends the session by the next release.
async fn settled(task: &Task) -> Result<(), Denial> {
    let guard = &task.session.guard;
    if guard.is_strict() { guard.settle().await } else { Ok(()) }
}

async fn write_up(task: &Task, to: &ChannelWriteHalf<client::Msg>, lane: &Lane<ToServer>) -> Never {
    loop {
        let (item, bytes) = lane.next().await;
        if settled(task).await.is_err() {
            return std::future::pending().await;
        }
        let sent: Result<(), Error> = match item {
            ToServer::Frame(frame) => to.data_bytes(frame).await,
            ToServer::Eof => to.eof().await,
        };
        lane.done(bytes);
        if sent.is_err() {
            // The other direction finds out why and ends it all.
            return std::future::pending().await;
        }
    }
}

async fn write_down(task: &Task, lane: &Lane<(Stream, Released)>) -> Gone {
    loop {
        let ((stream, released), bytes) = lane.next().await;
        if settled(task).await.is_err() {
            return Gone;
        }
        if let Err(gone) = task.output.send(stream, released).await {
            return gone;
        }
        lane.done(bytes);
    }
}

impl Lanes {
    fn up(&self, frame: Bytes) {
        let bytes = frame.len();
        self.up.push(ToServer::Frame(frame), bytes);
    }

    fn down(&self, released: Released) {
        let bytes = released.as_bytes().len();
        self.down.push((Stream::Stdout, released), bytes);
    }

    fn say(&self, released: Released) {
        let bytes = released.as_bytes().len();
        self.down.push((Stream::Stderr, released), bytes);
    }

    fn have_room(&self) -> bool {
        self.up.has_room() && self.down.has_room()
    }
}

impl<'a> Files<'a> {
    fn new(task: &'a Task, results: Results) -> Self {
        let stderr = Some(results.stream(Controls::AsSent));
        Self {
            task,
            results,
            stderr,
            wire: Session::new(LIMITS),
            client: FrameDecoder::new(),
            server: FrameDecoder::new(),
            begun: false,
            ready: false,
            ended: false,
            told_end: false,
            serial: 0,
            waiting: VecDeque::new(),
            hold: None,
            awaited: None,
            turn: false,
            held: 0,
            questions: HashMap::new(),
            running: HashMap::new(),
            postponed: None,
            by_handle: HashMap::new(),
            open: HashMap::new(),
            exit: None,
        }
    }

    /// Whether another request may be taken now.
    fn takes(&self, lanes: &Lanes) -> bool {
        // After INIT nothing until it is known where relative paths start.
        (!self.begun || self.ready)
            && lanes.have_room()
            && self.wire.has_room()
            && self.waiting.len() + self.questions.len() < MAX_WAITING
            && self.postponed.is_none()
    }

    /// Whether a request may go on, or has to wait for those that it must not meet.
    fn may_name(&mut self, operation: &FileOperation) -> bool {
        if operation.paths().iter().all(|path| path.by_handle) {
            return true;
        }
        let changes = operation.changes_names();
        let held = self.hold.as_ref().is_some_and(|hold| hold.is_for(changes));
        let names = &self.task.session.names;
        if !self.names_idle() {
            return held && !changes && !names.is_awaited();
        }
        if self.awaited.is_some() {
            return false;
        }
        // With nothing under way it goes back to the end of the queue, unless its turn has just come.
        if std::mem::take(&mut self.turn) && held {
            return true;
        }
        self.hold = None;
        self.hold = names.hold_now(changes);
        if self.hold.is_none() {
            self.awaited = Some(names.hold(changes));
        }
        self.hold.is_some()
    }

    /// The turn of the request that waits for other sessions came, or did not come in time.
    fn turned(&mut self, hold: Option<Hold>, lanes: &Lanes) {
        self.awaited = None;
        self.turn = hold.is_some();
        self.hold = hold;
        if !self.turn
            && let Some(operation) = self.postponed.take()
        {
            let message = "other sessions of this identity use the names on the target";
            let denial = Denial::new(DenialCode::LimitExceeded, message)
                .with_hint("try again; end sessions that hang");
            let kind = operation.kind().as_str();
            let denial = self.task.session.refuse(Operation::new(kind, kind), denial);
            self.refuse(&operation, StatusCode::FAILURE, &denial, lanes);
        }
    }

    /// Whether no request about paths is under way.
    fn names_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Lets other sessions at the names as soon as this one has no question about them.
    fn release_names(&mut self) {
        if self.names_idle() && self.postponed.is_none() {
            self.hold = None;
        }
    }

    /// Tells the server that the input ends. Not before all that was asked is answered: servers leave at once, and what was still to
    /// be sent to them, or by them, would be lost.
    fn end_input(&mut self, lanes: &Lanes) {
        let all_taken = self.ended && self.takes(lanes);
        let all_answered = self.waiting.is_empty()
            && self.questions.is_empty()
            && self.running.is_empty()
            && self.by_handle.is_empty();
        if all_taken && all_answered && !self.told_end {
            self.told_end = true;
            lanes.up.push(ToServer::Eof, 1);
        }
    }

    async fn serve(&mut self, mut from: ChannelReadHalf, lanes: &Lanes) -> Stop {
        loop {
            let taken = match self.take_frames(lanes).await {
                Ok(()) => {
                    self.release_names();
                    self.end_input(lanes);
                    self.hear(&mut from, lanes).await
                }
                stop => stop,
            };
            if let Err(stop) = taken {
                // A frame must not be cut: what was released goes out whole.
                while !lanes.down.is_idle() {
                    lanes.down.relieved().await;
                }
                return stop;
            }
        }
    }

    /// Waits for either side, as far as there is room for what it says.
    async fn hear(&mut self, from: &mut ChannelReadHalf, lanes: &Lanes) -> Result<(), Stop> {
        let takes = self.takes(lanes) && !self.ended;
        // Also while the way up is full: the server's window adjustments come by the same way as its answers. What answers add to the way up
        // are short questions, one for each at most, and requests about paths that waited for them, of which there are `MAX_WAITING`.
        let hears = lanes.down.has_room();
        tokio::select! {
            event = self.task.inbox.next(), if takes => self.event(event, lanes).await,
            message = from.wait(), if hears => match message {
                Some(message) => self.message(message, lanes).await,
                None => Err(Stop::Lost),
            },
            hold = awaited(&mut self.awaited) => {
                self.turned(hold, lanes);
                Ok(())
            }
            () = lanes.up.relieved() => Ok(()),
            () = lanes.down.relieved() => Ok(()),
        }
    }

    async fn event(&mut self, event: Event, lanes: &Lanes) -> Result<(), Stop> {
        match event {
            Event::Data(data) => self.client.push(&data).map_err(Stop::Broken),
            Event::Eof => {
                self.ended = true;
                Ok(())
            }
            Event::Say(line) => {
                lanes.say(self.task.session.guard.originate(line));
                Ok(())
            }
            // Signals and sizes mean nothing to a file server.
            _ => Ok(()),
        }
    }

    /// Takes the client's requests as long as there is room for what they cause.
    async fn take_frames(&mut self, lanes: &Lanes) -> Result<(), Stop> {
        // The policies may have changed while nothing came from the server. What is judged below is judged by those in force.
        self.adopt_policies().await?;
        if self.wire.has_room()
            && let Some(operation) = self.postponed.take()
        {
            if !self.may_name(&operation) {
                self.postponed = Some(operation);
                return Ok(());
            }
            self.task.session.wait_for_recorder().await?;
            self.asked(operation, lanes).await?;
        }
        while self.takes(lanes) {
            let Some(frame) = self.client.next_frame()? else { return Ok(()) };
            match self.wire.request(frame) {
                Ok(Asked::Init(frame)) => {
                    self.begun = true;
                    lanes.up(frame);
                }
                Ok(Asked::Refused(frame)) => lanes.down(self.task.session.guard.originate(frame)),
                Ok(Asked::File(operation)) => {
                    if !self.may_name(&operation) {
                        self.postponed = Some(operation);
                        return Ok(());
                    }
                    self.task.session.wait_for_recorder().await?;
                    self.asked(operation, lanes).await?;
                }
                Err(error) => match error.answerable() {
                    Some(id) => {
                        let frame = Session::reject(id, &error.to_string());
                        lanes.down(self.task.session.guard.originate(frame));
                    }
                    None => return Err(Stop::Broken(error)),
                },
            }
        }
        Ok(())
    }

    async fn message(&mut self, message: ChannelMsg, lanes: &Lanes) -> Result<(), Stop> {
        match message {
            ChannelMsg::Data { data } => {
                self.server.push(&data)?;
                self.adopt_policies().await?;
                while let Some(frame) = self.server.next_frame()? {
                    self.task.session.wait_for_recorder().await?;
                    match self.wire.response(frame)? {
                        Answered::Version(extensions) => self.version(&extensions, lanes)?,
                        Answered::Own(id, response) => self.told(id, response, lanes).await?,
                        Answered::Reply(reply) => self.reply(*reply, lanes)?,
                    }
                }
                Ok(())
            }
            ChannelMsg::ExtendedData { data, ext: 1 } => self.complain(&data, lanes),
            ChannelMsg::Failure => Err(Stop::NotStarted),
            ChannelMsg::ExitStatus { exit_status } => {
                self.exit = Some(Exit::Status(exit_status));
                Ok(())
            }
            ChannelMsg::Close => Err(Stop::Closed),
            _ => Ok(()),
        }
    }

    /// The server's standard error, masked like a command's.
    fn complain(&mut self, data: &Bytes, lanes: &Lanes) -> Result<(), Stop> {
        let Some(stderr) = &mut self.stderr else { return Ok(()) };
        if let Some(released) = self.results.release_stream(stderr, STDERR, data)? {
            lanes.say(released);
        }
        Ok(())
    }

    fn version(&mut self, extensions: &[(Bytes, Bytes)], lanes: &Lanes) -> Result<(), Stop> {
        let frame = Session::version(extensions, |name| EXTENSIONS.contains(&name));
        lanes.down(self.task.session.guard.originate(frame));
        let (id, frame) = self.wire.ask(&Request::Realpath { path: Bytes::from_static(b".") })?;
        self.questions.insert(id, Question::Start);
        lanes.up(frame);
        Ok(())
    }

    /// After a change of the policies: masks and open files are decided anew.
    async fn adopt_policies(&mut self) -> Result<(), Denial> {
        if self.results.is_stale() {
            self.task.session.guard.catch_up().await?;
            self.results.adopt_masks();
            self.judge_again().await?;
        }
        Ok(())
    }

    async fn finish(self, stop: Option<Stop>) -> Result<Ended, Gone> {
        let task = self.task;
        let (said, ended) = match stop {
            None => ("closed by the client".to_owned(), Err(Gone)),
            Some(stop) => self.stopped(stop),
        };
        let told = tokio::select! {
            told = tell_end(task, matches!(ended, Ok(Ended::Done)), self.exit.as_ref()) => told,
            () = task.inbox.closed() => Err(Gone),
        };
        match self.close_records(&said) {
            Ok(()) => ended.and_then(|ended| match ended {
                Ended::Done => told.map(|()| Ended::Done),
                refused @ Ended::Refused(_) => Ok(refused),
            }),
            Err(denial) => Ok(Ended::Refused(denial)),
        }
    }

    fn stopped(&self, stop: Stop) -> (String, Result<Ended, Gone>) {
        use gateway_core::error::DenialCode as Code;
        let denial = match stop {
            Stop::Closed => {
                let status = self.exit.as_ref().map_or_else(|| "closed".to_owned(), super::pump::describe);
                return (status, Ok(Ended::Done));
            }
            Stop::Lost => Denial::new(Code::UpstreamUnavailable, "the connection to the target broke"),
            Stop::NotStarted => Denial::new(Code::UpstreamUnavailable, "the target did not start `sftp`"),
            Stop::Denied(denial) => denial,
            Stop::Broken(error) => Denial::new(Code::NotUnderstood, "the sftp session broke the protocol")
                .with_hint("use a client that speaks version 3")
                .with_cause(error),
        };
        (denial.code.to_string(), Ok(Ended::Refused(denial)))
    }

    /// Completes what is still open: the client is told nothing more about it.
    fn close_records(mut self, said: &str) -> Result<(), Denial> {
        for (_, running) in self.running.drain() {
            running.results.complete("unanswered")?;
        }
        for (_, file) in self.open.drain() {
            file.complete("left open")?;
        }
        if let Some(stderr) = self.stderr.take() {
            // Nobody hears it any more.
            let _ = self.results.finish_stream(stderr, STDERR)?;
        }
        self.results.complete(said)
    }
}

impl OpenFile {
    fn complete(self, how: &str) -> Result<(), Denial> {
        self.content.complete(self.results, how)
    }
}

/// How the server ended, if that is what there is to tell.
async fn tell_end(task: &Task, tell: bool, exit: Option<&Exit>) -> Result<(), Gone> {
    if !tell {
        return Ok(());
    }
    if let Some(exit) = exit {
        task.output.ended(exit).await?;
    }
    task.output.eof().await?;
    task.output.close().await
}
