//! A client that reads results as fast as they come: it counts rows and bytes and looks at nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::subject::{DATABASE, Subject};
use crate::Result;

/// A connection that is logged in.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What a query returned.
#[derive(Debug, Default)]
pub(super) struct Drained {
    /// DataRow and CopyData messages.
    pub(super) rows: u64,
    /// All bytes of the answer.
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

impl Client {
    /// Connects and logs in, without TLS: by SCRAM, cleartext password or nothing, as asked for.
    ///
    /// # Errors
    /// It is refused.
    pub(super) fn log_in(subject: &Subject) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", subject.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, buffer: vec![0; READ_BYTES] };
        let mut out = BytesMut::new();
        frontend::startup_message([("user", subject.user.as_str()), ("database", DATABASE)], &mut out)?;
        client.stream.write_all(&out)?;
        client.authenticate(&subject.password).map_err(|error| format!("{}: {error}", subject.name))?;
        Ok(client)
    }

    fn authenticate(&mut self, password: &str) -> Result<()> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (tag, body) = self.message()?;
            let mut out = BytesMut::new();
            match (tag, body.first_chunk().map(|kind| i32::from_be_bytes(*kind))) {
                (b'Z', _) => return Ok(()),
                (b'E', _) => return Err(words(&body).into()),
                (b'R', Some(3)) => frontend::password_message(password.as_bytes(), &mut out)?,
                (b'R', Some(10)) => {
                    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?
                }
                (b'R', Some(11)) => {
                    scram.update(body.get(4..).unwrap_or_default())?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                (b'R', Some(12)) => scram.finish(body.get(4..).unwrap_or_default())?,
                (b'R', Some(0)) | (b'S' | b'K' | b'N', _) => {}
                (tag, kind) => {
                    return Err(format!("unexpected message `{}` {kind:?}", char::from(tag)).into());
                }
            }
            self.stream.write_all(&out)?;
        }
    }

    /// One message, read without reading ahead.
    fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; HEAD_BYTES];
        self.stream.read_exact(&mut head)?;
        let (tag, length) = header(head)?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((tag, body))
    }

    /// Runs one simple query and reads its answer to the end. `keep` gets a copy of all of it.
    ///
    /// # Errors
    /// The server refuses it, or the connection breaks.
    pub(super) fn drain(&mut self, sql: &str, mut keep: Option<&mut Vec<u8>>) -> Result<Drained> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        let start = Instant::now();
        self.stream.write_all(&out)?;
        let mut frames = Frames::default();
        let mut drained = Drained::default();
        while !frames.ready {
            let read = self.stream.read(&mut self.buffer)?;
            let chunk = self.buffer.get(..read).filter(|chunk| !chunk.is_empty());
            let chunk = chunk.ok_or("the connection ended within an answer")?;
            drained.bytes += chunk.len() as u64;
            if let Some(keep) = &mut keep {
                keep.extend_from_slice(chunk);
            }
            frames.feed(chunk)?;
        }
        drained.seconds = start.elapsed().as_secs_f64();
        drained.rows = frames.rows;
        if frames.error.is_empty() { Ok(drained) } else { Err(words(&frames.error).into()) }
    }
}

/// Follows the frames of an answer through chunks cut anywhere.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    /// How much of `head` is there.
    filled: usize,
    /// How much of the current body is still to come.
    left: usize,
    tag: u8,
    rows: u64,
    ready: bool,
    /// The bodies of ErrorResponses.
    error: Vec<u8>,
}

impl Frames {
    fn feed(&mut self, mut chunk: &[u8]) -> Result<()> {
        while !chunk.is_empty() {
            if self.left > 0 {
                let (body, rest) = chunk.split_at(self.left.min(chunk.len()));
                if self.tag == b'E' {
                    self.error.extend_from_slice(body);
                }
                self.left -= body.len();
                chunk = rest;
            } else {
                let (head, rest) = chunk.split_at((HEAD_BYTES - self.filled).min(chunk.len()));
                self.head.iter_mut().skip(self.filled).zip(head).for_each(|(to, from)| *to = *from);
                self.filled += head.len();
                chunk = rest;
                if self.filled == HEAD_BYTES {
                    self.begin()?;
                }
            }
            self.ready = self.tag == b'Z' && self.left == 0 && self.filled == 0;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        (self.tag, self.left) = header(self.head)?;
        self.filled = 0;
        self.rows += u64::from(matches!(self.tag, b'D' | b'd'));
        Ok(())
    }
}

/// Tag and length of the body; the length on the wire counts itself (PostgreSQL documentation, "Message Formats").
fn header([tag, a, b, c, d]: [u8; HEAD_BYTES]) -> Result<(u8, usize)> {
    let length = u32::from_be_bytes([a, b, c, d]).checked_sub(4).ok_or("a frame shorter than its length")?;
    Ok((tag, usize::try_from(length)?))
}

/// An ErrorResponse's fields in one line.
fn words(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let known = fields.filter_map(|field| field.split_first().filter(|(tag, _)| b"CMDH".contains(tag)));
    known.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).collect::<Vec<_>>().join("; ")
}

const HEAD_BYTES: usize = 5;
/// As much as a socket's buffer holds.
const READ_BYTES: usize = 256 * 1024;
/// Nothing measured is silent for so long, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_however_the_answer_is_cut() {
        let mut answer = Vec::new();
        for (tag, body) in [
            (b'T', vec![0; 30]),
            (b'D', vec![1; 300]),
            (b'D', Vec::new()),
            (b'd', vec![9]),
            (b'Z', vec![b'I']),
        ] {
            answer.push(tag);
            answer.extend((body.len() as u32 + 4).to_be_bytes());
            answer.extend(body);
        }
        for size in [1, 2, 3, 7, 100, answer.len()] {
            let mut frames = Frames::default();
            for chunk in answer.chunks(size) {
                assert!(!frames.ready);
                frames.feed(chunk).unwrap();
            }
            assert!(frames.ready, "chunks of {size}");
            assert_eq!(frames.rows, 3);
        }
        assert!(Frames::default().feed(&[b'D', 0, 0, 0, 3]).is_err());
    }

    #[test]
    fn errors_are_told_in_words() {
        assert_eq!(words(b"SERROR\0C42501\0Mno\0Hask\0\0"), "42501; no; ask");
    }
}
