//! COPY TO STDOUT in text format: lines and fields masked by column.
//!
//! PostgreSQL documentation, COPY, "Text Format". A CopyData message may hold any piece of the stream, so lines are put together
//! before they are looked at.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use gateway_core::pipeline::Masker;

use super::rows::{Chunk, Edit};
use super::shape::Column;
use crate::analysis::{Copy, CopyFormat};
use crate::codec::ProtocolError;

/// Longest line that is put together, in bytes: as long as the longest row that is held.
const MAX_LINE_BYTES: usize = crate::codec::DEFAULT_MAX_FRAME_BYTES;

/// A copy on its way out.
#[derive(Debug)]
pub(super) struct CopyOut {
    delimiter: u8,
    columns: Vec<Column>,
    partial: BytesMut,
}

impl CopyOut {
    pub(super) fn new(copy: &Copy, columns: Vec<Column>) -> Result<Self, ProtocolError> {
        let delimiter = copy
            .options
            .iter()
            .rev()
            .find(|(name, _)| name == "delimiter")
            .map(|(_, value)| value.as_bytes());
        let delimiter = match delimiter {
            None => b'\t',
            Some([one]) => *one,
            Some(_) => return Err(ProtocolError::Malformed("COPY delimiter")),
        };
        if copy.format != CopyFormat::Text {
            return Err(ProtocolError::Malformed("COPY format"));
        }
        Ok(Self { delimiter, columns, partial: BytesMut::new() })
    }

    /// Takes in a piece of the stream; whole lines in it become one message.
    pub(super) fn data(
        &mut self,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        if self.partial.len() + body.len() > MAX_LINE_BYTES {
            return Err(ProtocolError::Limit("bytes of a copied line"));
        }
        self.partial.extend_from_slice(body);
        let Some(end) = memchr::memrchr(b'\n', &self.partial) else {
            chunk.edits.push((at, Edit::Drop));
            return Ok(());
        };
        let lines = self.partial.split_to(end + 1).freeze();
        self.lines(lines, at, chunk);
        Ok(())
    }

    /// The end of the stream: what is left is a line too. The CopyDone frame stands at `at`.
    pub(super) fn finish(mut self, at: Range<usize>, chunk: &mut Chunk) {
        if !self.partial.is_empty() {
            let lines = self.partial.split().freeze();
            // The remaining line goes out in place of an empty range before CopyDone.
            self.lines(lines, at.start..at.start, chunk);
        }
    }

    fn lines(&mut self, lines: Bytes, at: Range<usize>, chunk: &mut Chunk) {
        let mut fields = Vec::new();
        let mut start = 0;
        while start < lines.len() {
            let rest = lines.get(start..).unwrap_or_default();
            let end = memchr::memchr(b'\n', rest).map_or(lines.len(), |n| start + n);
            // A header line is masked like any other: whether there is one is the statement's word, and not worth trusting.
            self.fields(&lines, start..end, &mut fields);
            chunk.rows += 1;
            start = end + 1;
        }
        chunk.edits.push((at, Edit::Lines { lines, fields }));
    }

    /// The fields of one line; more fields than columns are not understood and withheld.
    fn fields(&self, lines: &[u8], line: Range<usize>, out: &mut Vec<(Range<usize>, Column)>) {
        let text = lines.get(line.clone()).unwrap_or_default();
        let mut start = 0;
        for i in 0.. {
            let end = self.field_end(text, start);
            let column =
                self.columns.get(i).cloned().unwrap_or(Column::Withhold(super::shape::Encoding::Text));
            out.push((line.start + start..line.start + end, column));
            if end >= text.len() {
                return;
            }
            start = end + 1;
        }
    }

    /// Where the field that begins at `start` ends: at a delimiter that no backslash escapes.
    fn field_end(&self, text: &[u8], start: usize) -> usize {
        let mut position = start;
        while let Some(found) =
            memchr::memchr2(self.delimiter, b'\\', text.get(position..).unwrap_or_default())
        {
            position += found;
            if text.get(position) == Some(&self.delimiter) {
                return position;
            }
            position += 2;
        }
        text.len()
    }
}

/// The lines as a CopyData message, masked.
pub(super) fn mask_lines(
    masker: &mut Masker<'_>,
    lines: &Bytes,
    fields: &[(Range<usize>, Column)],
) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(lines.len() + 64);
    out.extend_from_slice(b"d\0\0\0\0");
    let mut position = 0;
    for (range, column) in fields {
        let raw = lines.get(range.clone()).unwrap_or_default();
        if let Some(masked) = mask_field(masker, raw, column) {
            out.extend_from_slice(lines.get(position..range.start).unwrap_or_default());
            out.extend_from_slice(&masked);
            position = range.end;
        }
    }
    out.extend_from_slice(lines.get(position..).unwrap_or_default());
    let length = u32::try_from(out.len() - 1).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(1..5) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Some(out.freeze())
}

const NULL: &[u8] = b"\\N";

fn mask_field(masker: &mut Masker<'_>, raw: &[u8], column: &Column) -> Option<Vec<u8>> {
    if raw == NULL || *column == Column::Pass {
        return None;
    }
    let decoded = decode(raw);
    let masked = match column {
        Column::Label(label, _) => masker.field(*label, &decoded),
        Column::Reveal(label, _) => Some(masker.text_revealing(*label, &decoded)?),
        Column::Withhold(encoding) => super::shape::withheld(masker, *encoding),
        Column::Scan(_) | Column::Pass => Some(masker.text(&decoded)?),
    };
    Some(masked.map_or_else(|| NULL.to_vec(), |text| encode(&text)))
}

/// A field's value without its escapes.
fn decode(raw: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return raw.into();
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        // COPY TO writes these and a backslash before a delimiter or backslash; it never writes octal or hex escapes.
        out.extend(bytes.next().map(|escaped| match escaped {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            other => other,
        }));
    }
    out.into()
}

/// A value with the escapes of the text format. Every ASCII punctuation could be the delimiter; masked text holds brackets,
/// letters, digits and what was left of the value, so backslash, line ends and tabs are what must be escaped.
fn encode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_survive_a_round_trip() {
        for value in [&b"a\tb\nc\\d"[..], b"", b"plain"] {
            assert_eq!(&*decode(&encode(value)), value);
        }
    }

    #[test]
    fn escaped_delimiters_do_not_end_a_field() {
        let copy = CopyOut { delimiter: b'|', columns: vec![], partial: BytesMut::new() };
        assert_eq!(copy.field_end(b"a\\|b|c", 0), 4);
        assert_eq!(copy.field_end(b"a\\\\|b", 0), 3);
    }
}
