//! The bytes of recordings (version 2) and ledgers (version 1). `docs/recording-format.md` is the specification.

use super::compact::{self, Read, Shape};
use super::keys::KeyId;
use crate::clock::Timestamp;
use crate::recording::{Header, Record};
use crate::session::SessionId;

/// First bytes of a recording; the last one is the version.
pub(super) const RECORDING_MAGIC: [u8; 8] = *b"\x93GWREC\n\x02";
/// First bytes of a ledger; the last one is the version.
pub(super) const LEDGER_MAGIC: [u8; 8] = *b"\x93GWLED\n\x01";
/// Magic, session or ledger id, key id.
pub(super) const PREAMBLE_BYTES: usize = 32;
/// Kind, stored, raw, count, sequence, first, time, elapsed.
pub(super) const BLOCK_HEADER_BYTES: usize = 45;
/// Kind, purpose, blocks, records, time, head.
pub(super) const CHECKPOINT_SIGNED_BYTES: usize = 58;
/// The signed part and its signature.
pub(super) const CHECKPOINT_BYTES: usize = CHECKPOINT_SIGNED_BYTES + SIGNATURE_BYTES;
/// Kind, sequence, time, session, records, head.
pub(super) const ENTRY_SIGNED_BYTES: usize = 73;
/// The signed part and its signature.
pub(super) const ENTRY_BYTES: usize = ENTRY_SIGNED_BYTES + SIGNATURE_BYTES;
/// A BLAKE3 hash.
pub(super) const HASH_BYTES: usize = 32;
/// An Ed25519 signature, RFC 8032 section 5.1.6.
pub(super) const SIGNATURE_BYTES: usize = 64;

/// One encoded record may take at most this. 16 MiB: far above any frame an adapter releases in one piece.
pub const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;
/// A block is written once it holds this much. 256 KiB: enough for compression, little to lose and to hold in memory.
pub(super) const BLOCK_TARGET_BYTES: usize = 256 * 1024;
/// No block may claim to unpack to more, which bounds what a reader allocates: a nearly full block and one largest record.
pub const MAX_BLOCK_BYTES: usize = MAX_RECORD_BYTES + BLOCK_TARGET_BYTES + 64;
/// No block may take more in the file. zstd's worst case is its input, 1/256th and a frame header (RFC 8878).
pub(super) const MAX_STORED_BYTES: usize = MAX_BLOCK_BYTES + MAX_BLOCK_BYTES / 256 + 1024;

/// Marks a block.
pub(super) const BLOCK: u8 = b'B';
/// Marks a checkpoint.
pub(super) const CHECKPOINT: u8 = b'C';

/// What is signed begins with one of these, so that a signature for one purpose is good for no other.
pub(super) const CHECKPOINT_CONTEXT: &[u8] = b"gateway recording checkpoint v1\0";
/// See [`CHECKPOINT_CONTEXT`].
pub(super) const LEDGER_CONTEXT: &[u8] = b"gateway recording ledger v1\0";

/// The state of a hash chain: it stands for every byte of the file before a certain place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head([u8; HASH_BYTES]);

impl Head {
    /// From raw bytes.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// The head of a file that consists of its preamble only.
    pub(super) fn genesis(preamble: &[u8; PREAMBLE_BYTES]) -> Self {
        Self(blake3::hash(preamble).into())
    }

    /// The head after `header` and `parts`, taken together.
    pub(super) fn after(&self, header: &[u8], parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(header);
        parts.iter().for_each(|part| {
            hasher.update(part);
        });
        Self(hasher.finalize().into())
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        blake3::Hash::from(self.0).to_hex().fmt(f)
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chain head is 64 hexadecimal digits")]
pub struct BadHead;

impl std::str::FromStr for Head {
    type Err = BadHead;

    fn from_str(text: &str) -> Result<Self, BadHead> {
        blake3::Hash::from_hex(text).map(|hash| Self(hash.into())).map_err(|_| BadHead)
    }
}

/// Reads fixed-size fields, little-endian, from the front of a slice.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.take().map(|bytes| Timestamp::from_micros(i64::from_le_bytes(bytes)))
    }

    /// LEB128, at most ten bytes; longer or overflowing encodings are refused.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn slice(&mut self, len: u64) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(slice)
    }

    /// Everything that was not taken yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The first bytes of a file: what it is, whose, and (a hint only) which key signs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    pub(super) magic: [u8; 8],
    pub(super) id: [u8; 16],
    pub(super) key: KeyId,
}

impl Preamble {
    pub(super) fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut out = [0; PREAMBLE_BYTES];
        out[..8].copy_from_slice(&self.magic);
        out[8..24].copy_from_slice(&self.id);
        out[24..].copy_from_slice(self.key.as_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self { magic: fields.take()?, id: fields.take()?, key: KeyId::from_bytes(fields.take()?) })
    }
}

/// What stands before a block's compressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    /// Length of the compressed bytes.
    pub(super) stored: u32,
    /// Length once unpacked.
    pub(super) raw: u32,
    /// How many records.
    pub(super) count: u32,
    /// This block's number, from 0.
    pub(super) sequence: u64,
    /// Position of its first record.
    pub(super) first: u64,
    /// Time of its first record.
    pub(super) time: Timestamp,
    /// Microseconds of monotonic time from the session's start to the writing of this block.
    pub(super) elapsed: u64,
}

impl BlockHeader {
    pub(super) fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut out = [0; BLOCK_HEADER_BYTES];
        out[0] = BLOCK;
        out[1..5].copy_from_slice(&self.stored.to_le_bytes());
        out[5..9].copy_from_slice(&self.raw.to_le_bytes());
        out[9..13].copy_from_slice(&self.count.to_le_bytes());
        out[13..21].copy_from_slice(&self.sequence.to_le_bytes());
        out[21..29].copy_from_slice(&self.first.to_le_bytes());
        out[29..37].copy_from_slice(&self.time.as_micros().to_le_bytes());
        out[37..].copy_from_slice(&self.elapsed.to_le_bytes());
        out
    }

    /// The fields after the kind.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self {
            stored: fields.u32()?,
            raw: fields.u32()?,
            count: fields.u32()?,
            sequence: fields.u64()?,
            first: fields.u64()?,
            time: fields.time()?,
            elapsed: fields.u64()?,
        })
    }
}

/// The signed part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The recording is complete; nothing may follow.
    pub(super) sealed: bool,
    /// How many blocks stand before it.
    pub(super) blocks: u64,
    /// How many records stand before it.
    pub(super) records: u64,
    /// Time of the last of them.
    pub(super) time: Timestamp,
    /// The chain before it.
    pub(super) head: Head,
}

impl Checkpoint {
    pub(super) fn encode(&self) -> [u8; CHECKPOINT_SIGNED_BYTES] {
        let mut out = [0; CHECKPOINT_SIGNED_BYTES];
        out[0] = CHECKPOINT;
        out[1] = u8::from(self.sealed);
        out[2..10].copy_from_slice(&self.blocks.to_le_bytes());
        out[10..18].copy_from_slice(&self.records.to_le_bytes());
        out[18..26].copy_from_slice(&self.time.as_micros().to_le_bytes());
        out[26..].copy_from_slice(self.head.as_bytes());
        out
    }

    /// The fields after the kind.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let sealed = match fields.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self {
            sealed,
            blocks: fields.u64()?,
            records: fields.u64()?,
            time: fields.time()?,
            head: Head(fields.take()?),
        })
    }

    /// What the signature covers.
    pub(super) fn message(&self, session: SessionId) -> Vec<u8> {
        [CHECKPOINT_CONTEXT, session.as_bytes(), &self.encode()].concat()
    }
}

/// What a ledger entry says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// A recording was begun; the head is that of its header.
    Opened,
    /// A recording was sealed; the head is its last.
    Closed,
    /// A recording was found without its seal when the gateway started again; the head is its last signed one. What stood behind that
    /// was left in the file: by versions before [`Settled`](Self::Settled).
    Recovered,
    /// As `Recovered`, but what stood behind the last signed head was set aside: nothing may stand there any more.
    Settled,
}

/// The signed part of a ledger entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    /// Its number in the ledger, from 0.
    pub(super) sequence: u64,
    pub(super) time: Timestamp,
    pub(super) session: SessionId,
    /// How many records the recording's `head` stands for.
    pub(super) records: u64,
    pub(super) head: Head,
}

impl Entry {
    pub(super) fn encode(&self) -> [u8; ENTRY_SIGNED_BYTES] {
        let mut out = [0; ENTRY_SIGNED_BYTES];
        out[0] = match self.kind {
            EntryKind::Opened => b'O',
            EntryKind::Closed => b'C',
            EntryKind::Recovered => b'R',
            EntryKind::Settled => b'S',
        };
        out[1..9].copy_from_slice(&self.sequence.to_le_bytes());
        out[9..17].copy_from_slice(&self.time.as_micros().to_le_bytes());
        out[17..33].copy_from_slice(self.session.as_bytes());
        out[33..41].copy_from_slice(&self.records.to_le_bytes());
        out[41..].copy_from_slice(self.head.as_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let kind = match fields.u8()? {
            b'O' => EntryKind::Opened,
            b'C' => EntryKind::Closed,
            b'R' => EntryKind::Recovered,
            b'S' => EntryKind::Settled,
            _ => return None,
        };
        Some(Self {
            kind,
            sequence: fields.u64()?,
            time: fields.time()?,
            session: SessionId::from_bytes(fields.take()?),
            records: fields.u64()?,
            head: Head(fields.take()?),
        })
    }

    /// What the signature covers; `before` is the ledger's own chain before this entry.
    pub(super) fn message(&self, before: &Head) -> Vec<u8> {
        [LEDGER_CONTEXT, before.as_bytes(), &self.encode()].concat()
    }
}

/// What a recording holds at one position: the header at position 0, records after it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Header(Box<Header>),
    Record(Record),
}

/// What stands first in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Header = 0,
    Event = 1,
    Released = 2,
    Presented = 3,
    Allowed = 4,
    Completed = 5,
    Received = 6,
}

impl Tag {
    pub(super) fn of(item: &Item) -> Self {
        match item {
            Item::Header(_) => Self::Header,
            Item::Record(record) => match Shape::of(record) {
                Shape::Json => Self::Event,
                Shape::Released => Self::Released,
                Shape::Presented => Self::Presented,
                Shape::Allowed => Self::Allowed,
                Shape::Completed => Self::Completed,
                Shape::Received => Self::Received,
            },
        }
    }
}

/// Takes the first item off a block's unpacked bytes. `heard`: what the block has said so far. `None`: not an item.
pub(super) fn decode_item<'a>(
    bytes: &'a [u8],
    before: Timestamp,
    heard: &mut Read,
) -> Option<(Timestamp, Item, &'a [u8])> {
    let mut fields = Fields(bytes);
    let tag = fields.u8()?;
    let delta = unzigzag(fields.varint()?);
    let at = Timestamp::from_micros(before.as_micros().wrapping_add(delta));
    let length = fields.u32()?;
    let body = fields.slice(u64::from(length))?;
    let shape = match tag {
        0 => return Some((at, Item::Header(serde_json::from_slice(body).ok()?), fields.0)),
        1 => Shape::Json,
        2 => Shape::Released,
        3 => Shape::Presented,
        4 => Shape::Allowed,
        5 => Shape::Completed,
        6 => Shape::Received,
        _ => return None,
    };
    let record = compact::decode(shape, Fields(body), heard)?;
    Some((at, Item::Record(record), fields.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_arbitrary_bytes_never_panics(bytes: Vec<u8>) {
            let mut heard = Read::default();
            let _ = decode_item(&bytes, Timestamp::from_micros(0), &mut heard);
            for shape in [
                Shape::Released,
                Shape::Presented,
                Shape::Allowed,
                Shape::Completed,
                Shape::Received,
            ] {
                let _ = compact::decode(shape, Fields(&bytes), &mut heard);
            }
            let _ = BlockHeader::decode(&bytes);
            let _ = Checkpoint::decode(&bytes);
            let _ = Entry::decode(&bytes);
        }

        #[test]
        fn fixed_parts_come_back_as_they_were(a: u32, b: u32, c: u32, d: u64, e: u64, t: i64, h: [u8; 32]) {
            let time = Timestamp::from_micros(t);
            let block =
                BlockHeader { stored: a, raw: b, count: c, sequence: d, first: e, time, elapsed: d ^ e };
            prop_assert_eq!(BlockHeader::decode(&block.encode()[1..]), Some(block));
            let point = Checkpoint { sealed: a % 2 == 0, blocks: d, records: e, time, head: Head(h) };
            prop_assert_eq!(Checkpoint::decode(&point.encode()[1..]), Some(point));
            let session = SessionId::from_bytes([b as u8; 16]);
            let entry = Entry {
                kind: EntryKind::Recovered, sequence: d, time, session, records: e, head: Head(h),
            };
            prop_assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }
    }

    #[test]
    fn overlong_numbers_are_refused() {
        assert_eq!(Fields(&[0xff; 11]).varint(), None);
        assert_eq!(
            Fields(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).varint(),
            Some(u64::MAX)
        );
        assert_eq!(Fields(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint(), None);
    }
}
