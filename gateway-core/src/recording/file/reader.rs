//! Reads recordings back, also while they are written and after a crash.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::Duration;

use super::format::Item;
use super::frames::{Block, Frame, Frames, Stop};
use crate::clock::Timestamp;
use crate::recording::{Header, Position, Record};
use crate::session::CloseReason;

/// How a recording ends, as far as its reader can tell. Only [`verify`](super::verify) can say whether it is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It was closed for this reason.
    Sealed(CloseReason),
    /// It is still being written, or its gateway died between two writes.
    Unsealed,
    /// It is being written right now, or its gateway died while writing: the frame at byte `at` is incomplete.
    Torn {
        /// Where the incomplete frame begins.
        at: u64,
    },
    /// What begins at byte `at` is wrong.
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file cannot be read further.
    Unreadable(String),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Torn(at) => Self::Torn { at },
            Stop::Damaged(at, what) => Self::Damaged { at, what },
            Stop::Io(error) => Self::Unreadable(error.to_string()),
        }
    }
}

/// Nothing can be read: the file does not get as far as a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recording has no readable header: {0:?}")]
pub struct NoHeader(pub End);

/// One record as read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReadRecord {
    /// Its position; the header has position 0.
    pub position: Position,
    /// When, by the wall clock, as given to the recorder. May go back if the clock was set.
    pub at: Timestamp,
    /// Monotonic time from the session's start to the writing of this record's block. Never goes back.
    pub written_after: Duration,
    /// What.
    pub record: Record,
    /// It stands behind what [`RecordingReader::proven`] was told: anybody may have written it. Never set without that.
    pub unproven: bool,
}

/// Iterates over the records of one recording. Ends early at the first byte that is missing or wrong;
/// [`end`](Self::end) says how.
///
/// Checks the hash chain but no signature: use [`verify`](super::verify) to know whether to believe it.
/// Memory is bounded by [`MAX_BLOCK_BYTES`](super::MAX_BLOCK_BYTES), whatever the file says.
pub struct RecordingReader<R = BufReader<File>> {
    frames: Frames<R>,
    header: Header,
    block: Option<Block>,
    last: Option<CloseReason>,
    end: Option<End>,
    /// Positions from here on are marked.
    proven: Option<u64>,
}

impl<R> fmt::Debug for RecordingReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingReader").field("session", &self.header.session).finish_non_exhaustive()
    }
}

impl RecordingReader {
    /// Opens the recording at `path` and reads its header.
    ///
    /// # Errors
    /// There is no file, or no complete header in it (it may be in the making).
    pub fn open(path: &Path) -> Result<Self, NoHeader> {
        let file =
            File::open(path).map_err(|e| NoHeader(End::Unreadable(format!("`{}`: {e}", path.display()))))?;
        Self::new(BufReader::new(file))
    }
}

impl<R: Read> RecordingReader<R> {
    /// Reads the header from any source of bytes, which should be buffered.
    ///
    /// # Errors
    /// There is no complete header.
    pub fn new(input: R) -> Result<Self, NoHeader> {
        Self::begin(input).map_err(|stop| NoHeader(stop.into()))
    }

    fn begin(input: R) -> Result<Self, Stop> {
        let mut frames = Frames::new(input)?;
        let at = frames.offset();
        let damaged = Stop::Damaged(at, "the first record is not the header of this session");
        let mut block = match frames.next()? {
            Some(Frame::Block(block)) => block,
            Some(Frame::Checkpoint { .. }) => return Err(damaged),
            None => return Err(Stop::Torn(at)),
        };
        let header = match block.next()? {
            Some((_, Item::Header(header))) if header.session == frames.session() => *header,
            _ => return Err(damaged),
        };
        Ok(Self { frames, header, block: Some(block), last: None, end: None, proven: None })
    }

    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Marks every record behind the first `records` as unproven: [`Verification::proven_records`](super::Verification::proven_records)
    /// of the same file, verified before. What is written meanwhile is marked too.
    #[must_use]
    pub const fn proven(mut self, records: u64) -> Self {
        self.proven = Some(records);
        self
    }

    /// How the recording ends; `None` before the iteration has ended.
    pub const fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn advance(&mut self) -> Result<ReadRecord, End> {
        loop {
            if let Some(record) = self.in_block()? {
                return Ok(record);
            }
            match self.frames.next()? {
                Some(Frame::Block(block)) => self.block = Some(block),
                Some(Frame::Checkpoint { point, at, .. }) if point.sealed => {
                    return Err(self.sealed(at));
                }
                Some(Frame::Checkpoint { .. }) => {}
                None => return Err(End::Unsealed),
            }
        }
    }

    fn in_block(&mut self) -> Result<Option<ReadRecord>, End> {
        let Some(block) = &mut self.block else { return Ok(None) };
        let position = Position(block.position());
        let Some((at, item)) = block.next()? else { return Ok(None) };
        let Item::Record(record) = item else {
            return Err(End::Damaged { at: self.frames.offset(), what: "a second header" });
        };
        self.last = match &record {
            Record::Closed { reason } => Some(reason.clone()),
            _ => None,
        };
        let written_after = Duration::from_micros(block.header.elapsed);
        let unproven = self.proven.is_some_and(|until| position.0 >= until);
        Ok(Some(ReadRecord { position, at, written_after, record, unproven }))
    }

    /// At the sealing checkpoint: nothing may follow, and a close must stand before.
    fn sealed(&mut self, at: u64) -> End {
        match (self.frames.next(), self.last.take()) {
            (Err(stop), _) => stop.into(),
            (Ok(_), Some(reason)) => End::Sealed(reason),
            (Ok(_), None) => End::Damaged { at, what: "sealed without a reason" },
        }
    }
}

impl<R: Read> Iterator for RecordingReader<R> {
    type Item = ReadRecord;

    fn next(&mut self) -> Option<ReadRecord> {
        if self.end.is_some() {
            return None;
        }
        self.advance().map_err(|end| self.end = Some(end)).ok()
    }
}
