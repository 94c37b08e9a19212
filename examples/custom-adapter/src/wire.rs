//! Bytes and lines. No meaning, but the two doors: what may go up and what may go down.

use std::io;

use bytes::Bytes;
use gateway_core::credentials::UpstreamCredential;
use gateway_core::error::Denial;
use gateway_core::pipeline::{Permit, Released, Results};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, ToSocketAddrs};

/// The longest line of either side, in bytes with its end: bounds the memory of a session.
pub(crate) const MAX_LINE_BYTES: u64 = 64 * 1024;

/// A connection that speaks lines.
pub(crate) struct Lines(BufReader<TcpStream>);

impl Lines {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self(BufReader::new(tcp))
    }

    /// The next line without its end; `None` once the peer has gone.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut line = Vec::new();
        (&mut self.0).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line.into())),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long or cut off")),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes).await
    }
}

/// The client. Once it has a session, it is sent only what was released.
pub(crate) struct Downstream(Lines);

impl Downstream {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self(Lines::new(tcp))
    }

    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0.next().await
    }

    pub(crate) async fn send(&mut self, released: Released) -> io::Result<()> {
        self.0.write(released.as_bytes()).await
    }

    /// Tells a client that it gets no session.
    pub(crate) async fn refuse(&mut self, denial: &Denial) -> io::Result<()> {
        self.0.write(refusal(denial).as_bytes()).await
    }

    /// Waits until the client goes away, or sends something although it still waits for an answer.
    pub(crate) async fn gives_up(&mut self) {
        let _ = self.0.0.fill_buf().await;
    }
}

/// The server. It is sent its login, and then only what has a permit.
pub(crate) struct Upstream(Lines);

impl Upstream {
    pub(crate) async fn log_in(address: impl ToSocketAddrs, as_: &UpstreamCredential) -> io::Result<Self> {
        let mut lines = Lines::new(TcpStream::connect(address).await?);
        let UpstreamCredential::Password { username, password } = as_ else {
            return Err(io::Error::other("the store knows only passwords"));
        };
        lines.write(format!("AUTH {username} {}\n", password.expose()).as_bytes()).await?;
        match lines.next().await? {
            Some(answer) if answer == "OK" => Ok(Self(lines)),
            _ => Err(io::Error::other("the store refused the login")),
        }
    }

    pub(crate) async fn forward(&mut self, permit: Permit) -> io::Result<Results> {
        let (batch, results) = permit.consume();
        for operation in batch.operations() {
            self.0.write(&[&operation.statement, &b"\n"[..]].concat()).await?;
        }
        Ok(results)
    }

    pub(crate) async fn next(&mut self) -> io::Result<Bytes> {
        self.0.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A denial in this protocol's words, on one line whatever it says.
pub(crate) fn refusal(denial: &Denial) -> String {
    let hint = denial.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("DENIED {} {denial}{hint}", denial.code).replace(char::is_control, " ") + "\n"
}
