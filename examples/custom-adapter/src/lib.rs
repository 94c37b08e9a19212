//! A complete adapter for a small line protocol: what a new protocol has to bring, and what it gets for it.
//!
//! ```text
//! client: AUTH <token>       gateway: OK | DENIED ...
//! client: GET <key>          answer:  VALUE <text> | NONE
//! client: SET <key> <text>   answer:  OK
//! client: DEL <key>          answer:  OK | NONE
//! client: KEYS               answer:  KEY <key> ... END
//! ```
//! In under 150 lines of code it brings the wire, the meaning of a line, its policy schema and its words for a refusal. Identity,
//! policy, holds, masking and recording are the core's, and cannot be left out: the store is sent what has a permit, the client what
//! was released. Loopback only: no TLS.

mod store;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::Presented;
use gateway_core::operation::{Batch, Effect, Operation, Resource, Stage};
use gateway_core::pipeline::{Guard, Hold, Masker, NoRewrites, Permit, Pipeline, Released, SessionRequest};
use gateway_core::session::CloseReason;
pub use store::KvServer;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::{net::TcpListener, net::TcpStream, sync::Semaphore, time::timeout};

/// The policy schema fragment of this protocol.
pub const SCHEMA: &str = include_str!("../schema/keyvalue.cedarschema");
/// The longest line of either side, in bytes with its end: bounds the memory of a session.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// Connections at once; more wait to be accepted. Each needs two descriptors.
const MAX_CONNECTIONS: usize = 400;
/// How long a client may take to log in: nothing is known of it yet.
const LOGIN: Duration = Duration::from_secs(10);

/// A gateway for one key-value store.
#[derive(Clone, Debug)]
pub struct KvGateway {
    /// Identity, policy, approval, recording and credentials.
    pub pipeline: Pipeline,
    /// What policies and credentials call the store.
    pub target: &'static str,
    /// Where the store is.
    pub upstream: SocketAddr,
}

/// A client that is logged in on both sides.
struct Session<'a> {
    guard: &'a Guard,
    client: Lines,
    store: Lines,
}

impl KvGateway {
    /// Serves clients until the future is dropped.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            let ((tcp, peer), gateway) = (listener.accept().await?, self.clone());
            tokio::spawn(async move {
                let mut client = Lines(BufReader::new(tcp));
                match gateway.log_in(&mut client, peer).await {
                    Ok((guard, store)) => {
                        let Err(reason) = (Session { guard: &guard, client, store }).run().await;
                        let _ = guard.close(reason).await;
                    }
                    Err(denial) => drop(client.write(refusal(&denial)).await),
                }
                drop(slot);
            });
        }
    }

    async fn log_in(&self, client: &mut Lines, peer: SocketAddr) -> Result<(Guard, Lines), Denial> {
        let line = timeout(LOGIN, client.next()).await.unwrap_or(Ok(None)).ok().flatten().unwrap_or_default();
        let token = std::str::from_utf8(&line).ok().and_then(|l| l.strip_prefix("AUTH ")).unwrap_or_default();
        let principal = self.pipeline.authenticate(&Presented::Token(Secret::from(token))).await?;
        let request = SessionRequest::new(principal, "keyvalue", self.target, peer.to_string());
        self.pipeline.enter(request, async |credential| self.connect(credential).await).await
    }

    async fn connect(&self, credential: &UpstreamCredential) -> io::Result<Lines> {
        let password = credential.secrets().next().map(Secret::expose).ok_or(io::ErrorKind::InvalidInput)?;
        let mut store = Lines(BufReader::new(TcpStream::connect(self.upstream).await?));
        store.write(format!("AUTH {} {password}\n", credential.username())).await?;
        let welcome = store.next().await?.is_some_and(|answer| answer == "OK");
        welcome.then_some(store).ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }
}

impl Session<'_> {
    /// Serves the client until it leaves, its identity ends, or something fails.
    async fn run(&mut self) -> Result<Infallible, CloseReason> {
        self.send(self.guard.originate("OK\n")).await?;
        loop {
            let next = self.guard.while_valid(self.client.next()).await?;
            let line = next.map_err(|error| CloseReason::ProtocolViolation(error.to_string()))?;
            match self.judge(&line.ok_or(CloseReason::Downstream)?).await {
                Ok(permit) => self.answer(permit).await?,
                Err(denial) => self.send(self.guard.originate(refusal(&denial))).await?,
            }
        }
    }

    async fn send(&mut self, released: Released) -> Result<(), CloseReason> {
        self.client.write(released).await.map_err(|_| CloseReason::Downstream)
    }

    async fn judge(&mut self, line: &Bytes) -> Result<Permit, Denial> {
        let pending = |operation| self.guard.pending(Batch::one(Stage::Execute, operation));
        let operation = parse(&Resource::target(&self.guard.info().target), line)
            .map_err(|denial| self.guard.refuse(&pending(Operation::new("unknown", line.clone())), denial))?;
        // What cannot be told is a client that has gone; a held client that says anything gives up.
        let waiting = async |hold: Hold| {
            let _ = self.client.write(self.guard.originate(format!("HELD {hold}\n"))).await;
            let _ = self.client.0.fill_buf().await;
        };
        self.guard.decide(pending(operation), &NoRewrites, waiting).await
    }

    /// Forwards what is permitted, byte for byte, and releases the answer line by line: all after its verb is masked.
    async fn answer(&mut self, permit: Permit) -> Result<(), CloseReason> {
        let (batch, mut results) = permit.consume();
        for operation in batch.operations() {
            let line = [&operation.statement, &b"\n"[..]].concat();
            self.store.write(line).await.map_err(|_| CloseReason::Upstream)?;
        }
        loop {
            let line = self.store.next().await.ok().flatten().ok_or(CloseReason::Upstream)?;
            let verb = line.split(|byte| *byte == b' ').next().map_or(0, <[u8]>::len);
            let mask = |masker: &mut Masker<'_>, line: &Bytes| {
                let (verb, text) = line.split_at_checked(verb).unwrap_or((line, &[]));
                Ok(Some([verb, masker.text(text).as_deref().unwrap_or(text), b"\n"].concat().into()))
            };
            let released = self.guard.release(&mut results, "keyvalue", line.clone(), 1, mask).await?;
            self.send(released).await?;
            if !line.starts_with(b"KEY ") {
                let outcome = String::from_utf8_lossy(line.get(..verb).unwrap_or_default());
                return Ok(results.complete(&outcome)?);
            }
        }
    }
}

/// What a line does to what. Values are recorded by length only; what is not exactly a command is refused.
fn parse(target: &Resource, line: &Bytes) -> Result<Operation, Denial> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let mut words = text.splitn(3, ' ');
    let (verb, key, value) = (words.next().unwrap_or_default(), words.next(), words.next());
    let clean = !text.contains(char::is_control) && key != Some("");
    let (action, effect) = match (verb, key, value) {
        ("GET", Some(_), None) if clean => ("get_key", Effect::Read),
        ("DEL", Some(_), None) if clean => ("delete_key", Effect::Write),
        ("SET", Some(_), Some(_)) if clean => ("set_key", Effect::Write),
        ("KEYS", None, None) if clean => ("list_keys", Effect::Read),
        _ => return Err(Denial::new(DenialCode::NotUnderstood, "send GET, SET, DEL or KEYS, in one line")),
    };
    let resource = key.map_or_else(|| target.clone(), |key| target.child("Key", key));
    let mut operation = Operation::on(action, effect, resource, line.clone());
    if let Some(value) = value {
        Arc::make_mut(&mut operation.facts)
            .insert("value_bytes".into(), i64::try_from(value.len()).unwrap_or(i64::MAX).into());
        operation.recorded = Some(format!("SET {} ({} bytes)", key.unwrap_or_default(), value.len()));
    }
    Ok(operation)
}

/// A denial in this protocol's words, on one line whatever it says.
fn refusal(denial: &Denial) -> String {
    let hint = denial.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("DENIED {} {denial}{hint}", denial.code).replace(char::is_control, " ") + "\n"
}

/// A connection that speaks lines.
struct Lines(BufReader<TcpStream>);

impl Lines {
    /// The next line without its end; `None` once the peer has gone.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut line = Vec::new();
        (&mut self.0).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line.into())),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long or cut off")),
        }
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref()).await
    }
}
