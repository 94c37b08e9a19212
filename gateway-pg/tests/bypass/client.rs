//! An attacker's connection: it sends what a case says and keeps all it received.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use testkit::RawPg;
use testkit::raw_pg::{self, Answer, Frame};
use tokio::net::TcpStream;

use crate::arena::{TOKEN, ask, runtime};

/// One thing the attacker does: a simple query, or a message by itself. The words `sync`, `flush`,
/// `ready`, `closed`, `copy done` and `again` (another login) stand for themselves.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Step {
    Query(String),
    Message(Message),
}

/// A message of the extended protocol, or raw bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    Parse {
        #[serde(default)]
        name: String,
        sql: String,
        /// Names of parameter types, asked for as superuser.
        #[serde(default)]
        types: Vec<String>,
    },
    Bind {
        #[serde(default)]
        portal: String,
        #[serde(default)]
        statement: String,
        #[serde(default)]
        values: Vec<String>,
        /// Formats of the results.
        #[serde(default)]
        results: Vec<u16>,
    },
    Describe {
        kind: char,
        #[serde(default)]
        name: String,
    },
    Execute {
        #[serde(default)]
        portal: String,
        #[serde(default)]
        rows: u32,
    },
    Close {
        kind: char,
        #[serde(default)]
        name: String,
    },
    CopyData(String),
    /// A function by its name, arguments as text, result as text.
    Call {
        function: String,
        arguments: Vec<String>,
    },
    /// A simple query as bytes, `\xNN` for any.
    Bytes(String),
    /// Pieces put together: see [`Client::piece`].
    Raw(Vec<String>),
    /// SQL run by the superuser meanwhile.
    Admin(String),
    /// A simple query on a second connection of the attacker.
    Other(String),
    /// A simple query sent without waiting for its answer.
    Send(String),
}

type Connection = RawPg<gateway_pg::BoxedStream>;

/// Where an attacker connects and as whom.
#[derive(Clone, Debug)]
pub struct Door {
    pub address: SocketAddr,
    pub user: String,
    pub database: String,
    pub startup: Vec<(String, String)>,
    pub token: String,
}

impl Door {
    pub fn new(address: SocketAddr, user: &str, database: &str) -> Self {
        let (user, database) = (user.to_owned(), database.to_owned());
        Self { address, user, database, startup: Vec::new(), token: TOKEN.to_owned() }
    }
}

/// A connection and all that came out of it.
pub struct Client {
    door: Door,
    connection: Option<Connection>,
    other: Option<Box<Self>>,
    pub received: Vec<u8>,
    pub last: Answer,
    status: u8,
    /// Answers that are due before anything else.
    due: usize,
    /// The server drops everything up to the next Sync.
    failed: bool,
    /// What cancels this session.
    pub key: Option<(u32, Vec<u8>)>,
}

/// Longer than any answer takes; a peer that is silent this long fails the trial.
const PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    /// Connects; sends nothing.
    pub async fn connect(door: &Door) -> Self {
        let stream = TcpStream::connect(door.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream: gateway_pg::BoxedStream = Box::new(stream);
        Self {
            door: door.clone(),
            connection: Some(RawPg::new(stream).patience(PATIENCE)),
            other: None,
            received: Vec::new(),
            last: Answer { frames: Vec::new() },
            status: b'I',
            due: 0,
            failed: false,
            key: None,
        }
    }

    /// Connects and logs in, as far as it gets.
    pub async fn log_in(door: &Door) -> Self {
        let mut client = Self::connect(door).await;
        let startup = client.startup_packet();
        client.send(&startup).await;
        client.answer_login().await;
        client
    }

    async fn answer_login(&mut self) {
        while let Some(frame) = self.frame().await {
            match (frame.tag, frame.authentication()) {
                (b'R', Ok(raw_pg::Authentication::CleartextPassword)) => {
                    self.send(&raw_pg::password(&self.door.token.clone())).await;
                }
                (b'Z', _) => return,
                _ => {}
            }
        }
    }

    /// Ends the session and begins another one through the same door.
    async fn log_in_again(&mut self) {
        self.send(&raw_pg::terminate()).await;
        self.drain().await;
        let again = Self::log_in(&self.door).await;
        let received = std::mem::take(&mut self.received);
        *self = Self { received: [received, again.received].concat(), ..again };
    }

    fn startup_packet(&self) -> Vec<u8> {
        let mut parameters =
            vec![("user", self.door.user.as_str()), ("database", self.door.database.as_str())];
        parameters.extend(self.door.startup.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        raw_pg::startup(&parameters)
    }

    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        if let Some(connection) = &mut self.connection
            && connection.send(bytes).await.is_err()
        {
            self.drain().await;
        }
    }

    /// Keeps what the peer sent before it closed.
    async fn drain(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && let Ok(answer) = connection.until_closed().await
        {
            answer.frames.iter().for_each(|f| self.note(f));
        }
    }

    fn note(&mut self, frame: &Frame) {
        self.received.push(frame.tag);
        self.received.extend_from_slice(&frame.body);
        if frame.tag == b'K' {
            self.key = frame.cancel_key().ok();
        }
        self.last.frames.push(frame.clone());
    }

    async fn frame(&mut self) -> Option<Frame> {
        let connection = self.connection.as_mut()?;
        match connection.frame().await {
            Ok(frame) => {
                self.note(&frame);
                if frame.tag == b'Z' {
                    self.status = frame.transaction_status().unwrap();
                    (self.due, self.failed) = (0, false);
                }
                Some(frame)
            }
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains("in time"), "no answer in time, after {}", self.last);
                self.connection = None;
                None
            }
        }
    }

    /// Reads up to ReadyForQuery or the end.
    pub async fn ready(&mut self) {
        while let Some(frame) = self.frame().await {
            if frame.tag == b'Z' {
                return;
            }
            if frame.tag == b'G' {
                // Nothing more is known to come: whoever copies has sent its data already or gives up.
                self.send(&raw_pg::copy_fail("nothing to copy")).await;
            }
        }
    }

    /// Reads what is due without a ReadyForQuery, or up to an error.
    async fn flushed(&mut self) {
        while self.due > 0 && !self.failed {
            let Some(frame) = self.frame().await else { return };
            match frame.tag {
                b'1' | b'2' | b'3' | b'C' | b's' | b'I' | b'n' | b'T' => self.due -= 1,
                b'E' => self.failed = true,
                _ => {}
            }
        }
    }

    /// A simple query and all that answers it.
    pub async fn query(&mut self, sql: &str) -> &Answer {
        self.last.frames.clear();
        self.send(&raw_pg::query(sql)).await;
        self.ready().await;
        &self.last
    }

    pub async fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step).await;
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Query(word) if word == "sync" => {
                self.send(&raw_pg::sync()).await;
                self.ready().await;
            }
            Step::Query(word) if word == "flush" => {
                self.send(&raw_pg::flush()).await;
                self.flushed().await;
            }
            Step::Query(word) if word == "copy done" => self.send(&raw_pg::copy_done()).await,
            Step::Query(word) if word == "ready" => self.ready().await,
            Step::Query(word) if word == "closed" => self.drain().await,
            Step::Query(word) if word == "again" => self.log_in_again().await,
            Step::Query(sql) => {
                let sql = expand(&self.filled(sql));
                self.query(&sql).await;
            }
            Step::Message(message) => self.message(message).await,
        }
    }

    async fn message(&mut self, message: &Message) {
        let bytes = match message {
            Message::Parse { name, sql, types } => {
                let oids: Vec<u32> = types.iter().map(|t| self.type_oid(t)).collect();
                self.due += 1;
                raw_pg::parse(name, &expand(sql), &oids)
            }
            Message::Bind { portal, statement, values, results } => {
                self.due += 1;
                let values: Vec<_> = values.iter().map(|v| Some(v.as_bytes())).collect();
                raw_pg::Bind {
                    portal,
                    statement,
                    values: &values,
                    result_formats: results,
                    ..Default::default()
                }
                .encode()
            }
            Message::Describe { kind, name } => {
                self.due += 1;
                raw_pg::describe(*kind as u8, name)
            }
            Message::Execute { portal, rows } => {
                self.due += 1;
                raw_pg::execute(portal, *rows)
            }
            Message::Close { kind, name } => {
                self.due += 1;
                raw_pg::close(*kind as u8, name)
            }
            Message::CopyData(text) => raw_pg::copy_data(text.as_bytes()),
            Message::Call { function, arguments } => {
                let oid = ask(&self.door.database, &format!("SELECT '{function}'::regproc::oid")).unwrap();
                function_call(oid.parse().unwrap(), arguments)
            }
            Message::Bytes(text) => raw_pg::frame(b'Q', &[unescape(text), vec![0]].concat()),
            Message::Raw(pieces) => {
                let mut bytes = Vec::new();
                for piece in pieces {
                    bytes.extend(self.piece(piece));
                }
                bytes
            }
            Message::Send(sql) => raw_pg::query(&expand(sql)),
            Message::Admin(sql) => {
                ask(&self.door.database, sql).unwrap();
                return;
            }
            Message::Other(sql) => return Box::pin(self.other(sql)).await,
        };
        self.last.frames.clear();
        self.send(&bytes).await;
    }

    async fn other(&mut self, sql: &str) {
        if self.other.is_none() {
            self.other = Some(Box::new(Self::log_in(&self.door).await));
        }
        let other = self.other.as_mut().unwrap();
        other.query(&expand(sql)).await;
        let received = std::mem::take(&mut other.received);
        self.received.extend(received);
    }

    /// `{told}` is the first value that the second connection last received.
    fn filled(&self, sql: &str) -> String {
        let rows = self.other.as_ref().and_then(|other| other.last.text_rows().ok()).unwrap_or_default();
        let told = rows.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or_default();
        sql.replace("{told}", &told)
    }

    fn type_oid(&self, name: &str) -> u32 {
        ask(&self.door.database, &format!("SELECT '{name}'::regtype::oid")).unwrap().parse().unwrap()
    }

    /// A piece of raw bytes: `startup`, `password`, `ssl`, `gssenc`, `terminate`, `query SQL`, `text ...`, `len N` (32 bits), `hex ...`,
    /// `tag X BODY` (a frame with the right length).
    fn piece(&self, piece: &str) -> Vec<u8> {
        let (word, rest) = piece.split_once(' ').unwrap_or((piece, ""));
        match word {
            "startup" => self.startup_packet(),
            "startup_as" => raw_pg::startup(&[("user", rest), ("database", &self.door.database)]),
            "password" => raw_pg::password(&self.door.token),
            "ssl" => raw_pg::ssl_request(),
            "gssenc" => raw_pg::gssenc_request(),
            "sync" => raw_pg::sync(),
            "query" => raw_pg::query(rest),
            "text" => unescape(rest),
            "len" => rest.parse::<i64>().map(|n| (n as u32).to_be_bytes().to_vec()).unwrap(),
            "tag" => {
                let (tag, body) = rest.split_once(' ').unwrap_or((rest, ""));
                raw_pg::frame(tag.as_bytes()[0], &unescape(body))
            }
            other => panic!("unknown piece `{other}`"),
        }
    }

    /// Asks for a cancel on a connection of its own, and waits until the peer has closed it.
    pub async fn cancel(address: SocketAddr, (pid, secret): (u32, &[u8])) {
        let mut connection = RawPg::connect(address).await.unwrap().patience(PATIENCE);
        connection.send(&raw_pg::cancel_request(pid, secret)).await.unwrap();
        let _ = connection.until_closed().await;
    }

    /// Leaves a failed or open transaction.
    pub async fn leave_transaction(&mut self) {
        if self.is_open() && self.status != b'I' {
            self.query("ROLLBACK").await;
        }
    }
}

fn function_call(oid: u32, arguments: &[String]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
        body.extend_from_slice(argument.as_bytes());
    }
    body.extend([0, 0]);
    raw_pg::frame(b'F', &body)
}

/// `<<TEXT*COUNT>>` is the text so many times.
pub fn expand(text: &str) -> String {
    let Some((before, rest)) = text.split_once("<<") else { return text.to_owned() };
    let (inner, after) = rest.split_once(">>").unwrap();
    let (what, count) = inner.rsplit_once('*').unwrap();
    format!("{before}{}{}", what.repeat(count.parse().unwrap()), expand(after))
}

/// `\xNN` is a byte, `\0` the byte zero.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        rest = match after.as_bytes().first() {
            Some(b'x') => {
                out.push(u8::from_str_radix(&after[1..3], 16).unwrap());
                &after[3..]
            }
            Some(b'0') => {
                out.push(0);
                &after[1..]
            }
            _ => {
                out.push(b'\\');
                after
            }
        };
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Runs to the end on the suite's runtime; what takes far too long fails the trial.
pub fn block<F: Future>(future: F) -> F::Output {
    let limited = async { tokio::time::timeout(3 * PATIENCE, future).await };
    runtime().block_on(limited).expect("it ended in time")
}

impl Step {
    /// Every text in it, to be filled in.
    pub fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Self::Query(sql) => vec![sql],
            Self::Message(
                Message::Parse { sql, .. }
                | Message::Bytes(sql)
                | Message::Admin(sql)
                | Message::Other(sql)
                | Message::Send(sql),
            ) => vec![sql],
            Self::Message(Message::Raw(pieces)) => pieces.iter_mut().collect(),
            Self::Message(_) => Vec::new(),
        }
    }
}
