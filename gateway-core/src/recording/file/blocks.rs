//! Turns items into the bytes of one recording: blocks, chain and checkpoints.

use std::io;
use std::time::Instant;

use super::format::{
    BLOCK_TARGET_BYTES, BlockHeader, Checkpoint, Head, Item, Preamble, RECORDING_MAGIC, encode_item,
};
use super::keys::RecordingKey;
use super::storage::{StorageFile, write_all};
use crate::clock::Timestamp;
use crate::session::SessionId;

/// A checkpoint is written after at most this many blocks. 64: 16 MiB of records, and signing costs nothing beside them.
const MAX_BLOCKS_PER_CHECKPOINT: u64 = 64;
/// Encoded bytes go to the file once there are this many. 1 MiB: few system calls, little memory.
const WRITE_BYTES: usize = 1024 * 1024;
/// A working buffer that grew beyond this is given back. 2 MiB.
const KEEP_BYTES: usize = 2 * 1024 * 1024;

/// A writer thread's working memory, shared by all its sessions.
pub(super) struct Scratch {
    compressor: zstd::bulk::Compressor<'static>,
    raw: Vec<u8>,
    stored: Vec<u8>,
    out: Vec<u8>,
}

impl Scratch {
    pub(super) fn new(level: i32) -> io::Result<Self> {
        let compressor = zstd::bulk::Compressor::new(level)?;
        Ok(Self { compressor, raw: Vec::new(), stored: Vec::new(), out: Vec::new() })
    }

    fn reset(&mut self) {
        for buffer in [&mut self.raw, &mut self.stored, &mut self.out] {
            buffer.clear();
            buffer.shrink_to(KEEP_BYTES);
        }
    }

    fn pack(&mut self, packing: Packing) -> Result<(), String> {
        self.stored.clear();
        if packing == Packing::AsItIs {
            store(&self.raw, &mut self.stored);
            return Ok(());
        }
        self.stored.reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
        let packed = self.compressor.compress_to_buffer(&self.raw, &mut self.stored);
        packed.map(|_| ()).map_err(|e| format!("compression failed: {e}"))
    }
}

/// Whether blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Compressed,
    /// The same frame format, without the work: for a session that releases much.
    AsItIs,
}

/// Most bytes of one raw block in a zstd frame (RFC 8878 section 3.1.1.2.4: 128 KiB).
const RAW_BLOCK_BYTES: usize = 128 * 1024;

/// A zstd frame that holds `raw` uncompressed (RFC 8878 section 3.1.1): one segment, its size in four bytes, no checksum; then raw blocks.
fn store(raw: &[u8], out: &mut Vec<u8>) {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    const SINGLE_SEGMENT_SIZE_IN_4: u8 = 0b1010_0000;
    let blocks = raw.len().div_ceil(RAW_BLOCK_BYTES).max(1);
    out.reserve(raw.len() + 9 + 3 * blocks);
    out.extend_from_slice(&MAGIC);
    out.push(SINGLE_SEGMENT_SIZE_IN_4);
    // A block has at most `MAX_BLOCK_BYTES`, which fits.
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    for index in 0..blocks {
        let start = index * RAW_BLOCK_BYTES;
        let part = raw.get(start..raw.len().min(start + RAW_BLOCK_BYTES)).unwrap_or_default();
        let last = u32::from(index + 1 == blocks);
        let header = (part.len() as u32) << 3 | last;
        out.extend(header.to_le_bytes().iter().take(3));
        out.extend_from_slice(part);
    }
}

/// A block being filled.
struct Open {
    count: u32,
    time: Timestamp,
    last: Timestamp,
}

/// One recording's file, as far as it is written.
#[derive(Debug)]
pub(super) struct RecordingFile {
    file: Box<dyn StorageFile>,
    session: SessionId,
    started: Instant,
    head: Head,
    /// Blocks so far.
    blocks: u64,
    /// Records so far; the position of the next.
    records: u64,
    /// Time of the last record.
    time: Timestamp,
    signed_blocks: u64,
    /// The preamble, until it is written.
    preamble: Option<[u8; super::format::PREAMBLE_BYTES]>,
}

impl RecordingFile {
    pub(super) fn new(
        file: Box<dyn StorageFile>,
        session: SessionId,
        started: Instant,
        key: &RecordingKey,
    ) -> Self {
        let preamble =
            Preamble { magic: RECORDING_MAGIC, id: *session.as_bytes(), key: key.public_key().id() }.encode();
        Self {
            file,
            session,
            started,
            head: Head::genesis(&preamble),
            blocks: 0,
            records: 0,
            time: Timestamp::from_micros(0),
            signed_blocks: 0,
            preamble: Some(preamble),
        }
    }

    /// Writes items, in order, and a checkpoint after them. Returns the head the checkpoint signs.
    pub(super) fn write(
        &mut self,
        items: Vec<(Timestamp, Item)>,
        (seal, packing): (bool, Packing),
        key: &RecordingKey,
        scratch: &mut Scratch,
    ) -> Result<Head, String> {
        scratch.reset();
        scratch.out.extend(self.preamble.take().iter().flatten());
        let mut open = None;
        for (at, item) in items {
            self.add(&mut open, at, &item, scratch)?;
            if scratch.raw.len() >= BLOCK_TARGET_BYTES {
                self.end_block(&mut open, packing, scratch)?;
                self.spill(key, scratch)?;
            }
        }
        self.end_block(&mut open, packing, scratch)?;
        let head = self.checkpoint(seal, key, &mut scratch.out)?;
        self.flush(scratch)?;
        Ok(head)
    }

    pub(super) fn sync(&mut self) -> Result<(), String> {
        self.file.sync().map_err(|e| e.to_string())
    }

    fn add(
        &mut self,
        open: &mut Option<Open>,
        at: Timestamp,
        item: &Item,
        scratch: &mut Scratch,
    ) -> Result<(), String> {
        let block = open.get_or_insert(Open { count: 0, time: at, last: at });
        encode_item(&mut scratch.raw, block.last, at, item)?;
        block.last = at;
        block.count += 1;
        Ok(())
    }

    fn end_block(
        &mut self,
        open: &mut Option<Open>,
        packing: Packing,
        scratch: &mut Scratch,
    ) -> Result<(), String> {
        let Some(block) = open.take() else { return Ok(()) };
        scratch.pack(packing)?;
        let header = BlockHeader {
            stored: length(scratch.stored.len())?,
            raw: length(scratch.raw.len())?,
            count: block.count,
            sequence: self.blocks,
            first: self.records,
            time: block.time,
            elapsed: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
        .encode();
        self.head = self.head.after(&[&header, &scratch.stored]);
        scratch.out.extend_from_slice(&header);
        scratch.out.extend_from_slice(&scratch.stored);
        scratch.out.extend_from_slice(self.head.as_bytes());
        scratch.raw.clear();
        self.blocks += 1;
        self.records += u64::from(block.count);
        self.time = block.last;
        Ok(())
    }

    /// Within a long run of blocks: sign now and then, and do not let the output grow.
    fn spill(&mut self, key: &RecordingKey, scratch: &mut Scratch) -> Result<(), String> {
        if self.blocks - self.signed_blocks >= MAX_BLOCKS_PER_CHECKPOINT {
            self.checkpoint(false, key, &mut scratch.out)?;
        }
        if scratch.out.len() >= WRITE_BYTES {
            self.flush(scratch)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, sealed: bool, key: &RecordingKey, out: &mut Vec<u8>) -> Result<Head, String> {
        let point = Checkpoint {
            sealed,
            blocks: self.blocks,
            records: self.records,
            time: self.time,
            head: self.head,
        };
        let signature = key.sign(&point.message(self.session))?;
        let signed = point.encode();
        out.extend_from_slice(&signed);
        out.extend_from_slice(&signature);
        self.head = self.head.after(&[&signed, &signature]);
        self.signed_blocks = self.blocks;
        Ok(point.head)
    }

    fn flush(&mut self, scratch: &mut Scratch) -> Result<(), String> {
        write_all(self.file.as_mut(), &scratch.out).map_err(|e| e.to_string())?;
        scratch.out.clear();
        Ok(())
    }
}

fn length(len: usize) -> Result<u32, String> {
    u32::try_from(len).map_err(|_| format!("a block of {len} bytes is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_as_it_is_unpacks_as_any_other_frame() {
        for length in [0, 1, RAW_BLOCK_BYTES - 1, RAW_BLOCK_BYTES, RAW_BLOCK_BYTES + 1, 3 * RAW_BLOCK_BYTES] {
            let raw: Vec<u8> = (0..length).map(|i| (i * 7 % 251) as u8).collect();
            let mut stored = Vec::new();
            store(&raw, &mut stored);
            assert!(stored.len() <= super::super::format::MAX_STORED_BYTES);
            assert_eq!(zstd::bulk::decompress(&stored, length).unwrap(), raw, "{length}");
        }
    }
}
