//! The gateway's own connection for estimates: to the database of the session, as the same role, reading only.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Bytes, BytesMut};
use gateway_core::identity::VerifiedPrincipal;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::codec::{Reader, backend, encode};
use crate::io::{BoxedStream, read_frame};
use crate::server::PgGateway;

/// Connections for estimates that a gateway has at once. 4: a server has few to give, and whoever waits for people can wait for this.
pub(crate) const MAX_CONNECTIONS: usize = 4;

/// Longest single message of an answer, in bytes: a plan of some thousand partitions.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of all answers to one statement's questions. 16 MiB for each of [`MAX_CONNECTIONS`].
const MAX_ANSWERS_BYTES: usize = 16 * 1024 * 1024;

/// Everything is undone; nothing may write; nothing takes long or waits for locks. Names of the gateway's own questions are built-in ones.
const BEGIN: &str = "BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '500ms'; \
    SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL search_path = ''";

/// Why there is no estimate, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble(pub(super) String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Trouble {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// The server's answer, without its words: they may repeat values.
    fn answered(code: &str) -> Self {
        Self(match code {
            "57014" => "the server took too long to plan it".to_owned(),
            "55P03" => "a table that it touches is locked".to_owned(),
            "42501" => "the session's role may not do this".to_owned(),
            code => format!("the server refuses to plan it (SQLSTATE {code})"),
        })
    }

    fn broken(error: impl fmt::Display) -> Self {
        tracing::info!(%error, "the connection for an estimate failed");
        Self::new("the gateway's own connection to the server failed")
    }
}

/// How to log in as a session did.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) gateway: PgGateway,
    pub(crate) principal: VerifiedPrincipal,
    pub(crate) database: String,
    /// What the client asked for at startup.
    pub(crate) settings: BTreeMap<String, String>,
}

impl Side {
    /// Logs in. The connection ends when it is dropped.
    pub(super) async fn connect(&self) -> Result<Connection, Trouble> {
        let connected = self.gateway.connect_aside(&self.principal, &self.database, &self.settings).await;
        let connected = connected.map_err(Trouble::broken)?;
        Ok(Connection { stream: connected.stream, left: MAX_ANSWERS_BYTES })
    }

    /// Waits for its turn.
    pub(super) fn turns(&self) -> &Semaphore {
        self.gateway.estimates()
    }
}

/// A statement with its parameters, as a client binds them.
#[derive(Debug, Default)]
pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    pub(super) types: &'a [u32],
    pub(super) formats: Vec<i16>,
    pub(super) parameters: Vec<Option<Bytes>>,
}

/// A row as text.
pub(super) type Row = Vec<Option<String>>;

/// A logged-in connection.
pub(super) struct Connection {
    stream: BoxedStream,
    left: usize,
}

impl Connection {
    /// Begins a transaction for one statement's questions, whatever became of the one before.
    pub(super) async fn begin(&mut self) -> Result<(), Trouble> {
        self.left = MAX_ANSWERS_BYTES;
        self.simple("ROLLBACK").await?;
        self.simple(BEGIN).await
    }

    async fn simple(&mut self, text: &str) -> Result<(), Trouble> {
        let mut out = BytesMut::new();
        encode::query(&mut out, text);
        self.exchange(&out).await.map(drop)
    }

    /// Sets a setting to the end of the transaction.
    pub(super) async fn set(&mut self, name: &str, value: &str) -> Result<(), Trouble> {
        let text = "SELECT pg_catalog.set_config($1, $2, true)";
        let parameters = [name, value].map(|t| Some(Bytes::copy_from_slice(t.as_bytes()))).to_vec();
        self.bodies(Question { text, parameters, ..Question::default() }).await.map(drop)
    }

    /// Prepares a text under a name, as a client's Parse does.
    pub(super) async fn prepare(&mut self, name: &str, text: &str, types: &[u32]) -> Result<(), Trouble> {
        let mut out = BytesMut::new();
        encode::parse_typed(&mut out, name, text, types);
        encode::sync(&mut out);
        self.exchange(&out).await.map(drop)
    }

    /// The rows of an answer, as bodies of DataRow.
    pub(super) async fn bodies(&mut self, question: Question<'_>) -> Result<Vec<Bytes>, Trouble> {
        let mut out = BytesMut::new();
        encode::parse_typed(&mut out, "", question.text, question.types);
        encode::bind_formatted(&mut out, question.formats, question.parameters);
        encode::execute(&mut out, "");
        encode::sync(&mut out);
        self.exchange(&out).await
    }

    /// The rows of an answer.
    pub(super) async fn rows(
        &mut self,
        text: &str,
        parameters: Vec<Option<Bytes>>,
    ) -> Result<Vec<Row>, Trouble> {
        let bodies = self.bodies(Question { text, parameters, ..Question::default() }).await?;
        bodies
            .iter()
            .map(|body| cells(body).ok_or_else(|| Trouble::new("the server's answer is malformed")))
            .collect()
    }

    /// Sends messages and reads up to ReadyForQuery; the bodies of all rows.
    async fn exchange(&mut self, messages: &[u8]) -> Result<Vec<Bytes>, Trouble> {
        self.stream.write_all(messages).await.map_err(Trouble::broken)?;
        self.stream.flush().await.map_err(Trouble::broken)?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            let limit = MAX_MESSAGE_BYTES.min(self.left);
            let frame = read_frame(&mut self.stream, limit).await.map_err(Trouble::broken)?;
            self.left = self.left.saturating_sub(frame.bytes().len());
            match frame.tag() {
                b'D' => rows.push(frame.body_bytes()),
                b'E' => {
                    failed = failed.or(Some(backend::error_field(frame.body(), b'C').unwrap_or_default()))
                }
                b'Z' => break,
                // COPY would need an answer; nothing here asks for one.
                b'G' | b'H' | b'W' => return Err(Trouble::broken("a copy was begun")),
                _ => {}
            }
        }
        failed.map_or(Ok(rows), |code| Err(Trouble::answered(&code)))
    }
}

/// The cells of a DataRow; `None` if it is malformed.
pub(super) fn cells(body: &[u8]) -> Option<Row> {
    let mut reader = Reader::new(body, "DataRow");
    let count = reader.u16().ok()?;
    let text =
        |value: Option<&[u8]>| value.map(|v| std::str::from_utf8(v).map(str::to_owned)).transpose().ok();
    (0..count).map(|_| text(reader.value().ok()?)).collect()
}
