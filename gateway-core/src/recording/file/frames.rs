//! Walks the frames of a recording: bounds, order and chain are checked here, signatures by whoever has the key.

use std::io::{self, Read};

use super::compact::Read as Heard;
use super::format::{
    BLOCK, BLOCK_HEADER_BYTES, BlockHeader, CHECKPOINT, CHECKPOINT_BYTES, CHECKPOINT_SIGNED_BYTES,
    Checkpoint, HASH_BYTES, Head, Item, MAX_BLOCK_BYTES, MAX_STORED_BYTES, PREAMBLE_BYTES, Preamble,
    RECORDING_MAGIC, SIGNATURE_BYTES, decode_item,
};
use crate::clock::Timestamp;
use crate::session::SessionId;

/// Why the walk ended before the end of the file.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file ends inside the frame (or preamble) that begins at this byte.
    Torn(u64),
    /// What begins at this byte is complete but wrong.
    Damaged(u64, &'static str),
    /// The file cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One frame.
#[derive(Debug)]
pub(super) enum Frame {
    Block(Block),
    Checkpoint { at: u64, point: Checkpoint, signature: [u8; SIGNATURE_BYTES] },
}

/// A recording's frames in order.
pub(super) struct Frames<R> {
    input: R,
    pub(super) preamble: Preamble,
    /// Where the next frame begins.
    offset: u64,
    head: Head,
    blocks: u64,
    records: u64,
    sealed: bool,
    unpacker: zstd::bulk::Decompressor<'static>,
}

impl<R: Read> Frames<R> {
    /// Reads the preamble.
    pub(super) fn new(mut input: R) -> Result<Self, Stop> {
        let bytes: [u8; PREAMBLE_BYTES] = read_array(&mut input, 0)?;
        let damaged = |what| Stop::Damaged(0, what);
        let preamble = Preamble::decode(&bytes).ok_or(damaged("no preamble"))?;
        if preamble.magic[..7] != RECORDING_MAGIC[..7] {
            return Err(damaged("not a recording"));
        }
        if preamble.magic != RECORDING_MAGIC {
            return Err(damaged("a version of the format this program does not know"));
        }
        Ok(Self {
            input,
            preamble,
            offset: PREAMBLE_BYTES as u64,
            head: Head::genesis(&bytes),
            blocks: 0,
            records: 0,
            sealed: false,
            unpacker: zstd::bulk::Decompressor::new()?,
        })
    }

    /// Whose recording the preamble says it is.
    pub(super) const fn session(&self) -> SessionId {
        SessionId::from_bytes(self.preamble.id)
    }

    /// Where the next frame begins.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next frame; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Stop> {
        let mut kind = Vec::with_capacity(1);
        if self.input.by_ref().take(1).read_to_end(&mut kind)? == 0 {
            return Ok(None);
        }
        match kind.first() {
            _ if self.sealed => Err(self.damaged("bytes after the seal")),
            Some(&BLOCK) => self.block().map(Some),
            Some(&CHECKPOINT) => self.checkpoint().map(Some),
            _ => Err(self.damaged("neither a block nor a checkpoint")),
        }
    }

    const fn damaged(&self, what: &'static str) -> Stop {
        Stop::Damaged(self.offset, what)
    }

    fn block(&mut self) -> Result<Frame, Stop> {
        let bytes: [u8; BLOCK_HEADER_BYTES - 1] = read_array(&mut self.input, self.offset)?;
        let header = BlockHeader::decode(&bytes).ok_or(self.damaged("no block header"))?;
        let (stored_len, raw_len) = (header.stored as usize, header.raw as usize);
        if stored_len > MAX_STORED_BYTES || raw_len > MAX_BLOCK_BYTES {
            return Err(self.damaged("a block larger than any writer makes"));
        }
        let stored = read_vec(&mut self.input, stored_len, self.offset)?;
        let written: [u8; HASH_BYTES] = read_array(&mut self.input, self.offset)?;
        let head = self.head.after(&header.encode(), &[&stored]);
        if head.as_bytes() != &written {
            return Err(self.damaged("the block does not continue the chain"));
        }
        if header.sequence != self.blocks || header.first != self.records || header.count == 0 {
            return Err(self.damaged("the block's numbers do not follow the one before"));
        }
        let mut raw = Vec::with_capacity(raw_len);
        if self.unpacker.decompress_to_buffer(&stored, &mut raw).ok() != Some(raw_len) {
            return Err(self.damaged("the block cannot be unpacked"));
        }
        let block = Block {
            at: self.offset,
            header,
            raw,
            used: 0,
            left: header.count,
            last: header.time,
            heard: Heard::default(),
        };
        self.head = head;
        self.blocks += 1;
        self.records = self.records.saturating_add(u64::from(header.count));
        self.offset += (BLOCK_HEADER_BYTES + stored_len + HASH_BYTES) as u64;
        Ok(Frame::Block(block))
    }

    fn checkpoint(&mut self) -> Result<Frame, Stop> {
        let bytes: [u8; CHECKPOINT_SIGNED_BYTES - 1] = read_array(&mut self.input, self.offset)?;
        let signature: [u8; SIGNATURE_BYTES] = read_array(&mut self.input, self.offset)?;
        let point = Checkpoint::decode(&bytes).ok_or(self.damaged("not a checkpoint"))?;
        if point.head != self.head || point.blocks != self.blocks || point.records != self.records {
            return Err(self.damaged("the checkpoint is not of what stands before it"));
        }
        let frame = Frame::Checkpoint { at: self.offset, point, signature };
        self.head = self.head.after(&point.encode(), &[&signature]);
        self.sealed = point.sealed;
        self.offset += CHECKPOINT_BYTES as u64;
        Ok(frame)
    }
}

/// An unpacked block and how far it is read.
#[derive(Debug)]
pub(super) struct Block {
    at: u64,
    pub(super) header: BlockHeader,
    raw: Vec<u8>,
    used: usize,
    left: u32,
    last: Timestamp,
    /// What its records may refer to.
    heard: Heard,
}

impl Block {
    /// The next item; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<(Timestamp, Item)>, Stop> {
        let rest = self.raw.get(self.used..).unwrap_or_default();
        if self.left == 0 && rest.is_empty() {
            return Ok(None);
        }
        let damaged = Stop::Damaged(self.at, "the block's records cannot be read");
        if self.left == 0 {
            return Err(damaged);
        }
        let (at, item, after) = decode_item(rest, self.last, &mut self.heard).ok_or(damaged)?;
        self.used = self.raw.len() - after.len();
        self.left -= 1;
        self.last = at;
        Ok(Some((at, item)))
    }

    /// Where the block begins in the file.
    pub(super) const fn start(&self) -> u64 {
        self.at
    }

    /// Position of the item that [`next`](Self::next) gives next.
    pub(super) fn position(&self) -> u64 {
        self.header.first + u64::from(self.header.count - self.left)
    }
}

fn read_array<const N: usize>(input: &mut impl Read, frame: u64) -> Result<[u8; N], Stop> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(|e| torn_or_io(e, frame))?;
    Ok(bytes)
}

/// Grows with what is there, not with what is claimed.
fn read_vec(input: &mut impl Read, len: usize, frame: u64) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    input.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() < len { Err(Stop::Torn(frame)) } else { Ok(bytes) }
}

fn torn_or_io(error: io::Error, frame: u64) -> Stop {
    if error.kind() == io::ErrorKind::UnexpectedEof { Stop::Torn(frame) } else { Stop::Io(error) }
}
