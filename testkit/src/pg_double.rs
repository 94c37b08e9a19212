//! What the servers installed here do not speak yet: protocol 3.2 and TLS from the first byte.
//!
//! A double, not a server: it knows one query, [`WAIT`], which ends when it is cancelled with the right key, and answers every other
//! simple query with the row `42`. It follows the documents of PostgreSQL 18 ("Frontend/Backend Protocol", "SSL Session Encryption").

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::ca::Ca;
use crate::canary::random_text;
use crate::error::{Context, Result};
use crate::raw_pg;

/// Runs until it is cancelled.
pub const WAIT: &str = "SELECT 'until cancelled'";

/// A server that speaks what is newer than the installed ones. Its threads end with the process.
#[derive(Debug)]
pub struct PgDouble {
    address: SocketAddr,
    state: Arc<State>,
}

/// What a double saw of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The version asked for, as in the StartupMessage.
    pub version: u32,
    /// It came over TLS.
    pub tls: bool,
    /// TLS began with the first byte.
    pub direct: bool,
}

#[derive(Debug)]
struct State {
    tls: Arc<ServerConfig>,
    /// The newest version it speaks.
    newest: u32,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    arrived: Vec<Arrived>,
    /// The keys it gave out, and whether they were used to cancel.
    keys: Vec<(Vec<u8>, bool)>,
    /// A session runs [`WAIT`].
    waiting: bool,
}

impl PgDouble {
    /// Starts one that speaks versions up to `newest` and confirms these application protocols.
    ///
    /// # Errors
    /// When it cannot listen, or its certificate cannot be made.
    pub fn start(ca: &Ca, newest: u32, alpn: &[&[u8]]) -> Result<Self> {
        let tls = ca.server()?.server_config(alpn)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
        let address = listener.local_addr().context("listen")?;
        let state = State { tls, newest, seen: Mutex::default(), changed: Condvar::new() };
        let double = Self { address, state: Arc::new(state) };
        let state = Arc::clone(&double.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A peer that breaks off, or that it cannot follow, is left alone: the test sees that nothing comes.
                thread::spawn(move || state.serve(stream));
            }
        });
        Ok(double)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sessions so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.state.seen().arrived.clone()
    }

    /// The length of each cancel key given out so far, and whether it was used.
    pub fn keys(&self) -> Vec<(usize, bool)> {
        self.state.seen().keys.iter().map(|(key, used)| (key.len(), *used)).collect()
    }
}

impl PgDouble {
    /// Waits until a session runs [`WAIT`]; false if none does in time.
    pub fn runs(&self) -> bool {
        let idle = |seen: &mut Seen| !seen.waiting;
        let (seen, _) = self
            .state
            .changed
            .wait_timeout_while(self.state.seen(), PATIENCE, idle)
            .unwrap_or_else(PoisonError::into_inner);
        seen.waiting
    }
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut first = [0];
        stream.peek(&mut first)?;
        if first == [TLS_HANDSHAKE] {
            return self.talk(self.protect(stream)?, true, true);
        }
        let asks = u32::from_be_bytes(peeked::<8>(&stream)?[4..].try_into().unwrap_or_default());
        if asks != SSL_REQUEST {
            return self.talk(stream, false, false);
        }
        stream.read_exact(&mut [0; 8])?;
        stream.write_all(b"S")?;
        self.talk(self.protect(stream)?, true, false)
    }

    fn protect(&self, stream: TcpStream) -> io::Result<StreamOwned<ServerConnection, TcpStream>> {
        let connection = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, stream))
    }

    fn talk(&self, mut stream: impl Read + Write, tls: bool, direct: bool) -> io::Result<()> {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let packet = body(&mut stream, length)?;
        let code = number(&packet);
        if code == CANCEL_REQUEST {
            return self.cancel(packet.get(4..).unwrap_or_default());
        }
        self.seen().arrived.push(Arrived { version: code, tls, direct });
        let key = self.greet(&mut stream, code)?;
        loop {
            let mut head = [0; 5];
            stream.read_exact(&mut head)?;
            let text = body(&mut stream, [head[1], head[2], head[3], head[4]])?;
            match head[0] {
                b'Q' if text == [WAIT.as_bytes(), b"\0"].concat() => {
                    self.wait(&key);
                    stream.write_all(&error("57014", "canceling statement due to user request"))?;
                    stream.write_all(&raw_pg::frame(b'Z', b"I"))?;
                }
                b'Q' => stream.write_all(&answer())?,
                _ => return Ok(()),
            }
            stream.flush()?;
        }
    }

    /// Everything from the version to the first ReadyForQuery; gives the process id and key that cancel.
    fn greet(&self, stream: &mut impl Write, asked: u32) -> io::Result<Vec<u8>> {
        if asked > self.newest {
            let body = [self.newest.to_be_bytes(), 0u32.to_be_bytes()].concat();
            stream.write_all(&raw_pg::frame(b'v', &body))?;
        }
        stream.write_all(&raw_pg::frame(b'R', &0u32.to_be_bytes()))?;
        let parameters =
            [("client_encoding", "UTF8"), ("standard_conforming_strings", "on"), ("server_version", "18.0")];
        for (name, value) in parameters {
            stream.write_all(&raw_pg::frame(b'S', format!("{name}\0{value}\0").as_bytes()))?;
        }
        // From 3.2 on a key may have up to 256 bytes (BackendKeyData).
        let length = if asked.min(self.newest) >= PROTOCOL_3_2 { LONG_KEY } else { 4 };
        let key = [&7u32.to_be_bytes(), random_text(length).as_bytes()].concat();
        self.seen().keys.push((key.clone(), false));
        stream.write_all(&raw_pg::frame(b'K', &key))?;
        stream.write_all(&raw_pg::frame(b'Z', b"I"))?;
        stream.flush()?;
        Ok(key)
    }

    fn cancel(&self, key: &[u8]) -> io::Result<()> {
        self.seen().keys.iter_mut().filter(|(known, _)| known == key).for_each(|(_, used)| *used = true);
        self.changed.notify_all();
        Ok(())
    }

    fn wait(&self, key: &[u8]) {
        self.seen().waiting = true;
        self.changed.notify_all();
        let waiting = |seen: &mut Seen| !seen.keys.iter().any(|(known, used)| known == key && *used);
        drop(self.changed.wait_timeout_while(self.seen(), PATIENCE, waiting));
    }
}

/// The first bytes, which stay to be read.
fn peeked<const N: usize>(stream: &TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    while stream.peek(&mut bytes)? < N {
        thread::yield_now();
    }
    Ok(bytes)
}

fn body(stream: &mut impl Read, length: [u8; 4]) -> io::Result<Vec<u8>> {
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let length = length.checked_sub(4).filter(|length| *length <= MAX_BODY_BYTES);
    let mut body = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn number(packet: &[u8]) -> u32 {
    packet.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// One row with one column: 42.
fn answer() -> Vec<u8> {
    let mut description = b"\0\x01answer\0".to_vec();
    description.extend([0, 0, 0, 0, 0, 0]);
    description.extend(25u32.to_be_bytes());
    description.extend([0xff; 6]);
    description.extend([0, 0]);
    [
        raw_pg::frame(b'T', &description),
        raw_pg::frame(b'D', b"\0\x01\0\0\0\x0242"),
        raw_pg::frame(b'C', b"SELECT 1\0"),
        raw_pg::frame(b'Z', b"I"),
    ]
    .concat()
}

fn error(code: &str, message: &str) -> Vec<u8> {
    raw_pg::frame(b'E', format!("SERROR\0VERROR\0C{code}\0M{message}\0\0").as_bytes())
}

/// The first byte of a TLS record with a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;
const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
const PROTOCOL_3_2: u32 = 3 << 16 | 2;
/// As long as PostgreSQL 18 makes it.
const LONG_KEY: usize = 32;
/// Far over what a test sends.
const MAX_BODY_BYTES: usize = 1 << 20;
/// No test waits longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
