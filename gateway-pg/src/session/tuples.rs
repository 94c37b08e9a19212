//! COPY TO STDOUT in binary: tuples masked by column.
//!
//! PostgreSQL documentation, COPY, "Binary Format". A tuple is laid out as the body of a DataRow.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use gateway_core::error::Denial;
use gateway_core::pipeline::Masker;

use super::copy::MAX_LINE_BYTES;
use super::flow::unreadable;
use super::rows::{Chunk, Edit, encode_values, finish_frame};
use super::shape::{self, Shape};
use crate::codec::{ProtocolError, backend};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Signature, flags, length of the header's extension.
const HEADER: usize = SIGNATURE.len() + 8;

/// A binary copy on its way out.
#[derive(Debug)]
pub(super) struct Tuples {
    shape: Arc<Shape>,
    partial: BytesMut,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Tuples,
    /// The trailer has come.
    Over,
}

impl Tuples {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape: Arc::new(shape), partial: BytesMut::new(), stage: Stage::Header }
    }

    /// Takes in a piece of the stream; the header and whole tuples in it become one message.
    pub(super) fn data(
        &mut self,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        if self.partial.len() + body.len() > MAX_LINE_BYTES {
            return Err(ProtocolError::Limit("bytes of a copied tuple"));
        }
        self.partial.extend_from_slice(body);
        let mut tuples = Vec::new();
        let mut end = 0;
        while let Some(part) = self.part(end)? {
            if self.stage == Stage::Tuples && part.1 {
                tuples.push(end..end + part.0);
                chunk.rows += 1;
            }
            end += part.0;
        }
        let bytes = self.partial.split_to(end).freeze();
        chunk.edits.push((at, Edit::Tuples { bytes, tuples, shape: Arc::clone(&self.shape) }));
        Ok(())
    }

    /// The length of the part that begins at `start`, and whether it is a tuple; `None` if it has not come whole.
    fn part(&mut self, start: usize) -> Result<Option<(usize, bool)>, ProtocolError> {
        let rest = self.partial.get(start..).unwrap_or_default();
        match self.stage {
            Stage::Header if rest.len() < HEADER => Ok(None),
            Stage::Header => {
                // Flags other than 0 change the layout (object ids); an extension is nothing this server sends.
                let plain = rest.starts_with(SIGNATURE)
                    && rest.get(SIGNATURE.len()..HEADER).is_some_and(|b| b.iter().all(|byte| *byte == 0));
                self.stage = Stage::Tuples;
                if plain { Ok(Some((HEADER, false))) } else { Err(ProtocolError::Malformed("COPY header")) }
            }
            Stage::Tuples => match tuple_length(rest, self.shape.columns.len())? {
                Some(2) if rest.starts_with(&[0xff, 0xff]) => {
                    self.stage = Stage::Over;
                    Ok(Some((2, false)))
                }
                length => Ok(length.map(|length| (length, true))),
            },
            Stage::Over if rest.is_empty() => Ok(None),
            Stage::Over => Err(ProtocolError::Malformed("COPY after its trailer")),
        }
    }

    /// The end of the stream.
    ///
    /// # Errors
    /// It ends in the middle of a tuple.
    pub(super) fn finish(self) -> Result<(), ProtocolError> {
        if self.partial.is_empty() { Ok(()) } else { Err(ProtocolError::Malformed("COPY tuple")) }
    }
}

/// The length of the tuple or trailer at the beginning of `bytes`; `None` if it has not come whole.
fn tuple_length(bytes: &[u8], columns: usize) -> Result<Option<usize>, ProtocolError> {
    const CUT: ProtocolError = ProtocolError::Malformed("COPY tuple");
    let mut rest = bytes;
    let Ok(count) = rest.try_get_i16() else { return Ok(None) };
    if count == -1 {
        return Ok(Some(2));
    }
    if usize::try_from(count).map_err(|_| CUT)? != columns {
        return Err(CUT);
    }
    for _ in 0..count {
        let Ok(length) = rest.try_get_i32() else { return Ok(None) };
        // -1 is null.
        let length = if length == -1 { 0 } else { usize::try_from(length).map_err(|_| CUT)? };
        if rest.len() < length {
            return Ok(None);
        }
        rest.advance(length);
    }
    Ok(Some(bytes.len() - rest.len()))
}

/// The bytes as a CopyData message, the tuples in them masked.
pub(super) fn mask_tuples(
    masker: &mut Masker<'_>,
    shape: &Shape,
    bytes: &Bytes,
    tuples: &[Range<usize>],
) -> Result<Bytes, Denial> {
    if bytes.is_empty() {
        return Ok(Bytes::new());
    }
    let mut out = BytesMut::with_capacity(bytes.len() + 64);
    out.extend_from_slice(b"d\0\0\0\0");
    let mut position = 0;
    for tuple in tuples {
        out.extend_from_slice(bytes.get(position..tuple.start).unwrap_or_default());
        mask_tuple(masker, shape, bytes.get(tuple.clone()).unwrap_or_default(), &mut out)?;
        position = tuple.end;
    }
    out.extend_from_slice(bytes.get(position..).unwrap_or_default());
    finish_frame(&mut out, 0);
    Ok(out.freeze())
}

fn mask_tuple(
    masker: &mut Masker<'_>,
    shape: &Shape,
    tuple: &[u8],
    out: &mut BytesMut,
) -> Result<(), Denial> {
    let mut values = Vec::with_capacity(shape.columns.len());
    backend::row_cells(tuple, shape.columns.len(), &mut values).map_err(|e| unreadable(&e.to_string()))?;
    let mut changed = Vec::new();
    for (i, (column, value)) in shape.columns.iter().zip(&values).enumerate() {
        let value = value.and_then(|(start, end)| tuple.get(start..end));
        changed.extend(shape::masked_alone(masker, column, value)?.map(|masked| (i, masked)));
    }
    encode_values(out, tuple, &values, &changed);
    Ok(())
}
