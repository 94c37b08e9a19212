//! Bytes to messages: framing and strict decoding. No state beyond framing; nothing here encodes.
//!
//! PostgreSQL documentation, "Frontend/Backend Protocol", section "Message Formats". Every read is bounded by its frame and
//! bytes left over inside a frame are an error, as in the server (`pq_getmsgend`).

pub mod backend;
pub mod encode;
pub mod frontend;
pub mod startup;

use bytes::{Bytes, BytesMut};

/// A frame's header: one tag byte and a 4-byte length that counts itself.
pub const HEADER_BYTES: usize = 5;

/// The largest frame either side may send, in bytes: PostgreSQL's own `PQ_LARGE_MESSAGE_LIMIT` is 1 GiB - 1, but a frame is held
/// whole while it is judged and masked, so the default here is 64 MiB.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// Frames without bulk content (Sync, Close, Describe...) may have at most this many bytes, as in the server
/// (`PQ_SMALL_MESSAGE_LIMIT`).
pub const SMALL_FRAME_BYTES: usize = 10_000;

/// One side broke the protocol. The session ends; nothing of the offending frame is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The length field is impossible or over the limit.
    #[error("a `{}` message of {length} bytes is outside 4..={limit}", char::from(*.tag))]
    BadLength {
        /// The message type.
        tag: u8,
        /// What the length field says.
        length: i64,
        /// What is allowed.
        limit: usize,
    },
    /// The body does not have the shape its type demands.
    #[error("malformed {0} message")]
    Malformed(&'static str),
    /// A message type that is unknown or not allowed here.
    #[error("unexpected message type 0x{tag:02x} {during}")]
    Unexpected {
        /// The message type.
        tag: u8,
        /// In which state.
        during: &'static str,
    },
    /// Text that is not valid UTF-8, the only encoding spoken here.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(&'static str),
    /// A limit of the session.
    #[error("limit exceeded: {0}")]
    Limit(&'static str),
}

/// One whole message: tag, length and body, exactly as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
}

impl Frame {
    /// The message type.
    pub fn tag(&self) -> u8 {
        self.bytes.first().copied().unwrap_or(0)
    }

    /// Everything after the length.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// The body, sharing this frame's memory.
    pub fn body_bytes(&self) -> Bytes {
        if self.bytes.len() < HEADER_BYTES { Bytes::new() } else { self.bytes.slice(HEADER_BYTES..) }
    }

    /// Header and body, exactly as received.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// How text is read must not change under the gateway's feet.
///
/// # Errors
/// The value of this setting makes the server read text otherwise than it was understood here.
pub(crate) fn reads_as_understood(setting: &str, value: &str) -> Result<(), ProtocolError> {
    match setting {
        // The server reports the old name `UNICODE` as it was written (commands/variable.c, `check_client_encoding`).
        "client_encoding" if !["UTF8", "UNICODE"].iter().any(|name| value.eq_ignore_ascii_case(name)) => {
            Err(ProtocolError::NotUtf8("the session's client_encoding"))
        }
        "standard_conforming_strings" if value != "on" => {
            Err(ProtocolError::Limit("standard_conforming_strings must stay on"))
        }
        _ => Ok(()),
    }
}

/// What the header at the start of `buffer` says: (tag, total frame bytes), if it is all there.
///
/// # Errors
/// [`ProtocolError::BadLength`], before anything is allocated for the frame.
pub fn peek(buffer: &[u8], limit: impl Fn(u8) -> usize) -> Result<Option<(u8, usize)>, ProtocolError> {
    let Some((&[tag, a, b, c, d], _)) = buffer.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = i32::from_be_bytes([a, b, c, d]);
    let limit = limit(tag);
    match usize::try_from(length) {
        Ok(n) if (4..=limit).contains(&n) => Ok(Some((tag, n + 1))),
        _ => Err(ProtocolError::BadLength { tag, length: length.into(), limit }),
    }
}

/// Takes the next whole frame off `buffer`, a large one without copying; `None` until it is complete.
///
/// # Errors
/// [`ProtocolError::BadLength`].
pub fn next_frame(
    buffer: &mut BytesMut,
    limit: impl Fn(u8) -> usize,
) -> Result<Option<Frame>, ProtocolError> {
    match peek(buffer, limit)? {
        Some((_, total)) if buffer.len() >= total => {
            Ok(Some(Frame { bytes: gateway_core::intake::take(buffer, total) }))
        }
        _ => Ok(None),
    }
}

/// Reads fields from one message body and cannot leave it.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `body`; errors name `what`.
    pub const fn new(body: &'a [u8], what: &'static str) -> Self {
        Self { rest: body, what }
    }

    /// The error for this message.
    pub const fn malformed(&self) -> ProtocolError {
        ProtocolError::Malformed(self.what)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 16-bit count or number.
    pub fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A signed 16-bit number.
    pub fn i16(&mut self) -> Result<i16, ProtocolError> {
        self.array().map(i16::from_be_bytes)
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self) -> Result<i32, ProtocolError> {
        self.array().map(i32::from_be_bytes)
    }

    /// Bytes up to a NUL, which is consumed.
    pub fn c_bytes(&mut self) -> Result<&'a [u8], ProtocolError> {
        let end = memchr::memchr(0, self.rest).ok_or_else(|| self.malformed())?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    /// A NUL-terminated UTF-8 string.
    pub fn c_str(&mut self) -> Result<&'a str, ProtocolError> {
        std::str::from_utf8(self.c_bytes()?).map_err(|_| ProtocolError::NotUtf8(self.what))
    }

    /// A value with a 32-bit length, where -1 is null.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, ProtocolError> {
        match self.i32()? {
            -1 => Ok(None),
            n => usize::try_from(n).map_err(|_| self.malformed()).and_then(|n| self.take(n)).map(Some),
        }
    }

    /// Exactly `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the message; bytes left over are an error.
    pub const fn finish(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(*array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: fn(u8) -> usize = |_| 100;

    #[test]
    fn splits_frames_at_any_cut() {
        let wire = b"Q\0\0\0\x06a\0S\0\0\0\x04";
        for cut in 0..=wire.len() {
            let mut buffer = BytesMut::from(&wire[..cut]);
            let mut frames = Vec::new();
            while let Some(frame) = next_frame(&mut buffer, LIMIT).unwrap() {
                frames.push(frame);
            }
            buffer.extend_from_slice(&wire[cut..]);
            while let Some(frame) = next_frame(&mut buffer, LIMIT).unwrap() {
                frames.push(frame);
            }
            let tags: Vec<_> = frames.iter().map(Frame::tag).collect();
            assert_eq!(tags, b"QS", "cut at {cut}");
            assert_eq!(frames[0].body(), b"a\0");
        }
    }

    #[test]
    fn impossible_lengths_are_refused_before_the_body_arrives() {
        for length in [0i32, 3, -1, i32::MIN, i32::MAX, 101] {
            let mut wire = vec![b'Q'];
            wire.extend_from_slice(&length.to_be_bytes());
            assert!(matches!(peek(&wire, LIMIT), Err(ProtocolError::BadLength { .. })), "{length}");
        }
    }

    #[test]
    fn a_reader_cannot_leave_its_frame() {
        let mut reader = Reader::new(b"ab\0\0\0\0\x09x", "Test");
        assert_eq!(reader.c_bytes(), Ok(&b"ab"[..]));
        assert_eq!(reader.value(), Err(ProtocolError::Malformed("Test")));
        assert!(Reader::new(b"x", "Test").finish().is_err());
    }
}
