//! A PostgreSQL client that sends exactly the bytes it is told to, for adversarial tests.
//!
//! It knows no rules: it sends messages out of order, cut short or made up, and shows what comes back frame by
//! frame. What it decodes it decodes strictly, so that a peer's malformed answer is an error here and not a guess.
//!
//! ```no_run
//! # async fn example() -> testkit::Result<()> {
//! use testkit::raw_pg::{self, RawPg};
//!
//! let mut client = RawPg::connect("127.0.0.1:5432").await?;
//! client.startup(&[("user", "app"), ("database", "shop")]).await?;
//! client.password("secret").await?;
//! client.until_ready().await?;
//! client.send(&[raw_pg::parse("", "SELECT $1", &[]), raw_pg::flush()].concat()).await?;
//! assert_eq!(client.frame().await?.tag, b'1');
//! # Ok(())
//! # }
//! ```

mod decode;
mod encode;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use decode::{Authentication, Fault, Field, Frame, data_row, parameter_status, row_description};
pub use encode::{
    Bind, cancel_request, close, copy_data, copy_done, copy_fail, describe, execute, flush, frame,
    gssenc_request, parse, password, query, ssl_request, startup, startup_version, sync, terminate,
};

use crate::error::{Context, Error, Result};

/// A connection to something that speaks PostgreSQL, over any stream.
///
/// Every read ends at a deadline, ten seconds unless told otherwise, so that a peer that says nothing fails the test
/// instead of stopping it.
#[derive(Debug)]
pub struct RawPg<S> {
    stream: S,
    patience: Duration,
}

/// All that came up to and including ReadyForQuery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Every frame in order, ReadyForQuery included.
    pub frames: Vec<Frame>,
}

impl RawPg<TcpStream> {
    /// Connects, and sends nothing.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(address: impl ToSocketAddrs) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true).context("turn off delays")?;
        Ok(Self::new(stream))
    }

    /// Sends SSLRequest and returns the byte that answers it: `S` or `N` from an honest server.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn ask_for_tls(&mut self) -> Result<u8> {
        self.send(&ssl_request()).await?;
        Ok(self.bytes(1).await?[0])
    }

    /// Starts the TLS handshake here and now; the peer has agreed, or expects TLS from the first byte.
    ///
    /// # Errors
    /// When the handshake fails, such as for a certificate that is not trusted.
    pub async fn into_tls(
        self,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> Result<RawPg<TlsStream<TcpStream>>> {
        let name =
            ServerName::try_from(name.to_owned()).context(&format!("use `{name}` as a server name"))?;
        let handshake = TlsConnector::from(config).connect(name, self.stream);
        let stream = timeout_at(Instant::now() + self.patience, handshake)
            .await
            .context("finish the TLS handshake")?
            .context("finish the TLS handshake")?;
        Ok(RawPg { stream, patience: self.patience })
    }
}

impl RawPg<TlsStream<TcpStream>> {
    /// Connects, asks for TLS and makes the handshake; application protocols are as in the settings.
    ///
    /// # Errors
    /// When the server refuses TLS or the handshake fails.
    pub async fn connect_tls(address: impl ToSocketAddrs, config: Arc<ClientConfig>) -> Result<Self> {
        let mut plain = RawPg::connect(address).await?;
        match plain.ask_for_tls().await? {
            b'S' => plain.into_tls(config, "localhost").await,
            other => {
                Err(Error::new(format!("the server answered `{}` to the request for TLS", other as char)))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawPg<S> {
    /// A client over this stream; nothing is sent.
    pub fn new(stream: S) -> Self {
        Self { stream, patience: PATIENCE }
    }

    /// How long each call may wait from now on.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The stream, for what this client has no call for.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Sends these bytes as they are and flushes.
    ///
    /// # Errors
    /// When the peer has closed the connection, or takes nothing until the deadline.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = &mut self.stream;
        let sending = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        timeout_at(Instant::now() + self.patience, sending).await.context("send in time")?.context("send")
    }

    /// Sends a StartupMessage of version 3.0 with these parameters, however odd.
    ///
    /// # Errors
    /// As [`RawPg::send`].
    pub async fn startup(&mut self, parameters: &[(&str, &str)]) -> Result<()> {
        self.send(&startup(parameters)).await
    }

    /// Answers a request for a cleartext password; any other request, or a refusal, is an error.
    ///
    /// # Errors
    /// As said, and as [`RawPg::send`].
    pub async fn password(&mut self, secret: &str) -> Result<()> {
        match self.frame().await?.authentication()? {
            Authentication::CleartextPassword => self.send(&password(secret)).await,
            other => Err(Error::new(format!("the server asked for {other:?}, not for a cleartext password"))),
        }
    }

    /// Logs in as this user with a cleartext password and waits until the session is ready.
    ///
    /// # Errors
    /// When the server refuses, or asks for anything else.
    pub async fn log_in(&mut self, user: &str, database: &str, secret: &str) -> Result<Answer> {
        self.startup(&[("user", user), ("database", database)]).await?;
        self.password(secret).await?;
        let answer = self.until_ready().await?;
        answer.error().map_or(Ok(answer.clone()), |fault| Err(Error::new(fault.to_string())))
    }

    /// Sends a simple query and returns all that answers it; an ErrorResponse is part of the answer.
    ///
    /// # Errors
    /// When the session ends, or is not ready until the deadline.
    pub async fn query(&mut self, sql: &str) -> Result<Answer> {
        self.send(&query(sql)).await?;
        self.until_ready().await
    }

    /// Sends these bytes and returns everything up to ReadyForQuery.
    ///
    /// # Errors
    /// As [`RawPg::query`].
    pub async fn exchange(&mut self, bytes: &[u8]) -> Result<Answer> {
        self.send(bytes).await?;
        self.until_ready().await
    }

    /// The next frame.
    ///
    /// # Errors
    /// When the connection ends, the length is less than its own four bytes or over 64 MiB, or the deadline passes.
    pub async fn frame(&mut self) -> Result<Frame> {
        self.frame_by(Instant::now() + self.patience).await
    }

    /// Everything up to and including ReadyForQuery, within one deadline for all of it.
    ///
    /// # Errors
    /// As [`RawPg::frame`]; the message names the frames that did arrive.
    pub async fn until_ready(&mut self) -> Result<Answer> {
        let end = Instant::now() + self.patience;
        let mut frames: Vec<Frame> = Vec::new();
        while frames.last().is_none_or(|frame| frame.tag != b'Z') {
            match self.frame_by(end).await {
                Ok(frame) => frames.push(frame),
                Err(error) => return Err(Error::new(format!("{error}, after {}", Answer { frames }))),
            }
        }
        Ok(Answer { frames })
    }

    /// Everything up to the end of the connection, for a session that the peer closes.
    ///
    /// # Errors
    /// When the peer keeps it open until the deadline, or ends it within a frame.
    pub async fn until_closed(&mut self) -> Result<Answer> {
        let end = Instant::now() + self.patience;
        let mut frames = Vec::new();
        loop {
            let mut tag = [0];
            match timeout_at(end, self.stream.read(&mut tag)).await {
                Err(_) => return Err(Error::new(format!("still open, after {}", Answer { frames }))),
                // A peer that still has our bytes unread resets the connection: it is closed all the same.
                Ok(Ok(0) | Err(_)) => return Ok(Answer { frames }),
                Ok(Ok(_)) => frames.push(self.body(tag[0], end).await?),
            }
        }
    }

    /// Exactly this many bytes, whatever they mean.
    ///
    /// # Errors
    /// When the connection ends or the deadline passes first.
    pub async fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        self.bytes_by(count, Instant::now() + self.patience).await
    }

    async fn frame_by(&mut self, end: Instant) -> Result<Frame> {
        let tag = self.bytes_by(1, end).await?[0];
        self.body(tag, end).await
    }

    /// The length counts itself but not the tag (PostgreSQL documentation, "Message Formats").
    async fn body(&mut self, tag: u8, end: Instant) -> Result<Frame> {
        let mut length = [0; 4];
        length.copy_from_slice(&self.bytes_by(4, end).await?);
        let length = u32::from_be_bytes(length);
        let body = length.checked_sub(4).filter(|&body| body <= MAX_FRAME_BYTES);
        let body = body.ok_or_else(|| Error::new(format!("frame `{}` has length {length}", tag as char)))?;
        Ok(Frame { tag, body: self.bytes_by(body as usize, end).await? })
    }

    async fn bytes_by(&mut self, count: usize, end: Instant) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        timeout_at(end, self.stream.read_exact(&mut bytes)).await.context("read in time")?.context("read")?;
        Ok(bytes)
    }
}

impl Answer {
    /// The tags in order, such as `TDDCZ`.
    pub fn tags(&self) -> String {
        self.frames.iter().map(|frame| frame.tag as char).collect()
    }

    /// The first ErrorResponse, if there is a well-formed one.
    pub fn error(&self) -> Option<Fault> {
        self.frames.iter().filter(|frame| frame.tag == b'E').find_map(|frame| frame.fault().ok())
    }

    /// The rows of all results, in order.
    ///
    /// # Errors
    /// When a DataRow is malformed.
    pub fn rows(&self) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
        self.frames.iter().filter(|frame| frame.tag == b'D').map(|frame| data_row(&frame.body)).collect()
    }

    /// The rows as text, NULL as `∅`, invalid UTF-8 replaced; handy in comparisons.
    ///
    /// # Errors
    /// When a DataRow is malformed.
    pub fn text_rows(&self) -> Result<Vec<Vec<String>>> {
        let text = |value: Option<Vec<u8>>| {
            value.map_or("∅".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(self.rows()?.into_iter().map(|row| row.into_iter().map(text).collect()).collect())
    }

    /// All bytes of all bodies, one after the other, to search for what must not be there.
    pub fn bytes(&self) -> Vec<u8> {
        self.frames.iter().flat_map(|frame| frame.body.iter().copied()).collect()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "frames `{}`", self.tags())?;
        self.error().map_or(Ok(()), |fault| write!(formatter, " ({fault})"))
    }
}

/// No answer to a test takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);
/// Far over what any test asks for; a length beyond it is nonsense to be reported, not memory to be taken.
const MAX_FRAME_BYTES: u32 = 64 << 20;
