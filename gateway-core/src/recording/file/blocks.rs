//! Turns filled blocks into the bytes of one recording: packed, chained, signed.

use std::io;
use std::time::Instant;

use super::format::{BlockHeader, Checkpoint, Head, Preamble, RECORDING_MAGIC};
use super::keys::RecordingKey;
use super::raw::RawBlock;
use super::storage::{StorageFile, write_all};
use crate::clock::Timestamp;
use crate::session::SessionId;

/// A checkpoint is written after at most this many blocks. 64: 16 MiB of records, and signing costs nothing beside them.
const MAX_BLOCKS_PER_CHECKPOINT: u64 = 64;
/// Encoded bytes go to the file once there are this many. 1 MiB: few system calls, little memory.
const WRITE_BYTES: usize = 1024 * 1024;
/// What is written as it lies is not copied first from this many bytes on. 4 KiB: a system call costs as much.
const DIRECT_BYTES: usize = 4 * 1024;
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

    fn compress(&mut self, block: &RawBlock) -> Result<(), String> {
        self.raw.clear();
        block.slices().for_each(|slice| self.raw.extend_from_slice(slice));
        self.stored.clear();
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

/// What stands in a zstd frame of raw blocks beside their bytes (RFC 8878 section 3.1.1): one segment, its size in four bytes, no checksum.
struct Marks {
    frame: [u8; 9],
    /// The header of a raw block, but the last, and of the last.
    full: [u8; 3],
    last: [u8; 3],
}

impl Marks {
    fn new(raw: u32) -> Self {
        const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
        const SINGLE_SEGMENT_SIZE_IN_4: u8 = 0b1010_0000;
        let mut frame = [SINGLE_SEGMENT_SIZE_IN_4; 9];
        frame[..4].copy_from_slice(&MAGIC);
        frame[5..].copy_from_slice(&raw.to_le_bytes());
        let rest = raw.checked_sub(1).map_or(0, |most| most % RAW_BLOCK_BYTES as u32 + 1);
        Self { frame, full: Self::block(RAW_BLOCK_BYTES as u32, false), last: Self::block(rest, true) }
    }

    fn block(length: u32, last: bool) -> [u8; 3] {
        let [a, b, c, _] = (length << 3 | u32::from(last)).to_le_bytes();
        [a, b, c]
    }

    /// A zstd frame that holds `raw` uncompressed, in pieces; `length` is that of all of `raw`.
    fn store<'a>(&'a self, raw: impl Iterator<Item = &'a [u8]>, length: usize) -> Vec<&'a [u8]> {
        let mut out: Vec<&[u8]> = vec![&self.frame];
        let mut left = length;
        let mut room = 0;
        if left == 0 {
            out.push(&self.last);
        }
        for mut slice in raw {
            while !slice.is_empty() {
                if room == 0 {
                    out.push(if left > RAW_BLOCK_BYTES { &self.full } else { &self.last });
                    room = RAW_BLOCK_BYTES;
                }
                let (part, rest) = slice.split_at(slice.len().min(room));
                out.push(part);
                slice = rest;
                room -= part.len();
                left = left.saturating_sub(part.len());
            }
        }
        out
    }
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

    /// Writes blocks, in order, and a checkpoint after them. Returns the head the checkpoint signs.
    pub(super) fn write(
        &mut self,
        blocks: &[RawBlock],
        (seal, packing): (bool, Packing),
        key: &RecordingKey,
        scratch: &mut Scratch,
    ) -> Result<Head, String> {
        scratch.reset();
        scratch.out.extend(self.preamble.take().iter().flatten());
        for block in blocks {
            self.block(block, packing, scratch)?;
            self.spill(key, scratch)?;
        }
        let head = self.checkpoint(seal, key, &mut scratch.out)?;
        self.flush(&mut scratch.out)?;
        Ok(head)
    }

    pub(super) fn sync(&mut self) -> Result<(), String> {
        self.file.sync().map_err(|e| e.to_string())
    }

    fn block(&mut self, block: &RawBlock, packing: Packing, scratch: &mut Scratch) -> Result<(), String> {
        match packing {
            Packing::Compressed => {
                scratch.compress(block)?;
                self.chain(block, &[&scratch.stored], &mut scratch.out)
            }
            Packing::AsItIs => {
                let marks = Marks::new(length(block.len())?);
                let stored = marks.store(block.slices(), block.len());
                self.chain(block, &stored, &mut scratch.out)
            }
        }
    }

    /// Writes a block whose packed bytes are `stored`, and what chains it.
    fn chain(&mut self, block: &RawBlock, stored: &[&[u8]], out: &mut Vec<u8>) -> Result<(), String> {
        let header = BlockHeader {
            stored: length(stored.iter().map(|part| part.len()).sum())?,
            raw: length(block.len())?,
            count: block.count,
            sequence: self.blocks,
            first: self.records,
            time: block.time,
            elapsed: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
        .encode();
        self.head = self.head.after(&header, stored);
        out.extend_from_slice(&header);
        for part in stored {
            if part.len() < DIRECT_BYTES {
                out.extend_from_slice(part);
            } else {
                self.flush(out)?;
                write_all(self.file.as_mut(), part).map_err(|e| e.to_string())?;
            }
        }
        out.extend_from_slice(self.head.as_bytes());
        self.blocks += 1;
        self.records += u64::from(block.count);
        self.time = block.last;
        Ok(())
    }

    /// Between blocks: signs when enough stand unsigned, and writes when enough was encoded.
    fn spill(&mut self, key: &RecordingKey, scratch: &mut Scratch) -> Result<(), String> {
        if self.blocks - self.signed_blocks >= MAX_BLOCKS_PER_CHECKPOINT {
            self.checkpoint(false, key, &mut scratch.out)?;
        }
        if scratch.out.len() >= WRITE_BYTES {
            self.flush(&mut scratch.out)?;
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
        self.head = self.head.after(&signed, &[&signature]);
        self.signed_blocks = self.blocks;
        Ok(point.head)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        write_all(self.file.as_mut(), out).map_err(|e| e.to_string())?;
        out.clear();
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
            for cut in [1, 9, RAW_BLOCK_BYTES - 7, raw.len().max(1)] {
                let marks = Marks::new(raw.len() as u32);
                let stored = marks.store(raw.chunks(cut.max(length / 1000)), raw.len()).concat();
                assert!(stored.len() <= super::super::format::MAX_STORED_BYTES);
                assert_eq!(zstd::bulk::decompress(&stored, length).unwrap(), raw, "{length} {cut}");
            }
        }
    }
}
