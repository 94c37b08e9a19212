//! Frames and fields: lengths checked before anything is read, nothing left over.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{MAX_FRAME_BYTES, MAX_HANDLE_BYTES, MAX_PATH_BYTES, SftpError};

/// Bytes of the length field.
pub(super) const LENGTH_BYTES: usize = 4;
/// Most bytes a decoder keeps: one whole frame and another that came with its end.
const MAX_BUFFERED_BYTES: usize = 2 * (MAX_FRAME_BYTES + LENGTH_BYTES);

/// Cuts one direction's bytes into frames. Split anywhere, the frames are the same.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes. Take all frames out before adding more.
    ///
    /// # Errors
    /// [`SftpError::Buffered`] if more than two frames' worth would wait.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SftpError> {
        if self.buffer.len().saturating_add(bytes.len()) > MAX_BUFFERED_BYTES {
            return Err(SftpError::Buffered);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// How many bytes [`Self::push`] takes now.
    pub fn room(&self) -> usize {
        MAX_BUFFERED_BYTES.saturating_sub(self.buffer.len())
    }

    /// The next whole frame, its length field included. `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`SftpError::FrameLength`]; the stream cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, SftpError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let announced = u32::from_be_bytes(*prefix);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length == 0 || length > MAX_FRAME_BYTES {
            return Err(SftpError::FrameLength(announced));
        }
        let whole = length + LENGTH_BYTES;
        Ok((self.buffer.len() >= whole).then(|| self.buffer.split_to(whole).freeze()))
    }

    /// Whether part of a frame waits: at the end of the stream, a truncated frame.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Reads the fields of one frame. Cannot leave it.
pub(super) struct Reader {
    rest: Bytes,
    /// For errors, once it is known.
    pub(super) id: Option<u32>,
}

impl Reader {
    /// The fields behind the length, after a check that the length is the frame's.
    pub(super) fn new(frame: &Bytes) -> Result<Self, SftpError> {
        let mut rest = frame.clone();
        let announced = rest.try_get_u32().map_err(|_| malformed(None, "length"))?;
        if usize::try_from(announced) != Ok(rest.len()) || rest.len() > MAX_FRAME_BYTES {
            return Err(malformed(None, "length"));
        }
        Ok(Self { rest, id: None })
    }

    pub(super) fn error(&self, what: &'static str) -> SftpError {
        malformed(self.id, what)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, SftpError> {
        self.rest.try_get_u8().map_err(|_| self.error(what))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, SftpError> {
        self.rest.try_get_u32().map_err(|_| self.error(what))
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, SftpError> {
        self.rest.try_get_u64().map_err(|_| self.error(what))
    }

    /// Reads the request id and keeps it for errors.
    pub(super) fn id(&mut self) -> Result<u32, SftpError> {
        let id = self.u32("id")?;
        self.id = Some(id);
        Ok(id)
    }

    /// A string of at most `limit` bytes.
    pub(super) fn string(&mut self, limit: usize, what: &'static str) -> Result<Bytes, SftpError> {
        let length = usize::try_from(self.u32(what)?).unwrap_or(usize::MAX);
        if length > limit || length > self.rest.len() {
            return Err(self.error(what));
        }
        Ok(self.rest.split_to(length))
    }

    /// A path: any bytes but NUL, which would end it early in the server's C strings.
    pub(super) fn path(&mut self) -> Result<Bytes, SftpError> {
        let path = self.string(MAX_PATH_BYTES, "path")?;
        if path.contains(&0) { Err(self.error("NUL in path")) } else { Ok(path) }
    }

    pub(super) fn handle(&mut self) -> Result<Bytes, SftpError> {
        self.string(MAX_HANDLE_BYTES, "handle")
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    pub(super) fn remainder(&mut self) -> Bytes {
        self.rest.split_to(self.rest.len())
    }

    /// Refuses bytes behind the last field.
    pub(super) fn end(&self) -> Result<(), SftpError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("trailing bytes")) }
    }
}

/// Writes one frame; the length is filled in at the end.
pub(super) struct Writer {
    frame: BytesMut,
}

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        let mut frame = BytesMut::with_capacity(64);
        frame.put_u32(0);
        frame.put_u8(kind);
        Self { frame }
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.frame.put_u32(value);
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.frame.put_u64(value);
        self
    }

    /// A string. Everything written came from a frame or is the gateway's own short text, so its length fits.
    pub(super) fn string(&mut self, bytes: &[u8]) -> &mut Self {
        self.frame.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.frame.put_slice(bytes);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.frame.put_slice(bytes);
        self
    }

    pub(super) fn finish(mut self) -> Bytes {
        let length = u32::try_from(self.frame.len().saturating_sub(LENGTH_BYTES)).unwrap_or(u32::MAX);
        if let Some(prefix) = self.frame.first_chunk_mut::<LENGTH_BYTES>() {
            *prefix = length.to_be_bytes();
        }
        self.frame.freeze()
    }
}

/// The same frame with another id; in place if nobody else holds it.
pub(super) fn with_id(frame: Bytes, id: u32) -> Bytes {
    let mut frame = frame.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    if let Some(place) = frame.get_mut(LENGTH_BYTES + 1..LENGTH_BYTES + 5) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    frame.freeze()
}

const fn malformed(id: Option<u32>, what: &'static str) -> SftpError {
    SftpError::Malformed { id, what }
}
