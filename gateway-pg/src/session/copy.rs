//! COPY TO STDOUT in text format: lines and fields masked by column.
//!
//! PostgreSQL documentation, COPY, "Text Format". A CopyData message may hold any piece of the stream, so lines are put together
//! before they are looked at.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::error::Denial;
use gateway_core::masking::{CellFinding, Finding};
use gateway_core::pipeline::Masker;

use super::rows::{Chunk, Edit};
use super::shape::Column;
use crate::analysis::{Copy, CopyFormat};
use crate::codec::ProtocolError;

/// Longest line that is put together, in bytes: as long as the longest row that is held.
const MAX_LINE_BYTES: usize = crate::codec::DEFAULT_MAX_FRAME_BYTES;

/// How the lines of a copy are laid out.
#[derive(Debug)]
pub(super) struct Lines {
    delimiter: u8,
    columns: Vec<Column>,
    /// Every column is scanned or passes: a line in which nothing is escaped needs no look at its single fields.
    plain: bool,
}

/// A copy on its way out.
#[derive(Debug)]
pub(super) struct CopyOut {
    lines: Arc<Lines>,
    partial: BytesMut,
}

impl Lines {
    fn new(delimiter: u8, columns: Vec<Column>) -> Self {
        let plain = columns.iter().all(|c| *c == Column::Pass || c.is_scanned());
        Self { delimiter, columns, plain }
    }

    /// Whether `body` is one whole line of plain fields, not more than there are columns, for which the scan of the whole chunk is enough.
    fn is_plain_line(&self, body: &[u8]) -> bool {
        let Some(line) = body.strip_suffix(b"\n").filter(|_| self.plain) else { return false };
        if memchr::memchr2(b'\n', b'\\', line).is_none() {
            return memchr::memchr_iter(self.delimiter, line).count() < self.columns.len();
        }
        let unescaped = |field: &[u8]| field == NULL || memchr::memchr(b'\\', field).is_none();
        let mut fields = 0;
        let plain = self.fields(line).all(|field| {
            fields += 1;
            line.get(field).is_some_and(unescaped)
        });
        plain && fields <= self.columns.len() && memchr::memchr(b'\n', line).is_none()
    }

    /// The fields of a line, in order.
    fn fields<'a>(&'a self, line: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let start = next?;
            let end = self.field_end(line, start);
            next = (end < line.len()).then_some(end + 1);
            Some(start..end)
        })
    }

    /// The field that contains byte `at` of a plain line, if its column is scanned.
    pub(super) fn cell_at(&self, body: &[u8], at: usize) -> Option<Range<usize>> {
        let line = body.strip_suffix(b"\n")?;
        let mut fields = self.fields(line).zip(&self.columns).skip_while(|(field, _)| field.end <= at);
        let (field, column) = fields.next()?;
        (field.contains(&at) && column.is_scanned()).then_some(field)
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
        Ok(Self { lines: Arc::new(Lines::new(delimiter, columns)), partial: BytesMut::new() })
    }

    /// Takes in a piece of the stream; whole lines in it become one message.
    pub(super) fn data(
        &mut self,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        // What the server sends: a message is a line.
        if self.partial.is_empty() && self.lines.is_plain_line(body) {
            chunk.line(&self.lines, at);
            chunk.rows += 1;
            return Ok(());
        }
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
        for (i, field) in self.lines.fields(text).enumerate() {
            let column = self.lines.columns.get(i).cloned();
            let column = column.unwrap_or(Column::Withhold(super::shape::Encoding::Text));
            out.push((line.start + field.start..line.start + field.end, column));
        }
    }
}

/// The lines as a CopyData message, masked.
pub(super) fn mask_lines(
    masker: &mut Masker<'_>,
    lines: &Bytes,
    fields: &[(Range<usize>, Column)],
) -> Result<Bytes, Denial> {
    let mut found = Vec::new();
    masker.cells(lines, &scanned(lines, fields), &mut found)?;
    let mut found = found.as_slice();
    let mut out = BytesMut::with_capacity(lines.len() + 64);
    out.extend_from_slice(b"d\0\0\0\0");
    let mut position = 0;
    for (range, column) in fields {
        let raw = lines.get(range.clone()).unwrap_or_default();
        let (here, later) = found.split_at(found.partition_point(|f| f.range.start < range.end));
        found = later;
        let masked = match (is_scanned_as_it_is(raw, column), here) {
            (true, []) => None,
            (true, _) => Some(encode(&masker.replace(raw, &within(here, range.start)))),
            (false, _) => mask_field(masker, raw, column),
        };
        if let Some(masked) = masked {
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
    Ok(out.freeze())
}

/// Whether a field's text is its value, and only its content counts.
fn is_scanned_as_it_is(raw: &[u8], column: &Column) -> bool {
    column.is_scanned() && memchr::memchr(b'\\', raw).is_none()
}

fn scanned(lines: &[u8], fields: &[(Range<usize>, Column)]) -> Vec<Range<usize>> {
    let raw = |range: &Range<usize>| lines.get(range.clone()).unwrap_or_default();
    let scanned = fields.iter().filter(|(range, column)| is_scanned_as_it_is(raw(range), column));
    scanned.map(|(range, _)| range.clone()).collect()
}

fn within(found: &[CellFinding], start: usize) -> Vec<Finding> {
    let moved = |f: &CellFinding| f.range.start - start..f.range.end - start;
    found.iter().map(|f| Finding { range: moved(f), class: f.class.clone() }).collect()
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
pub(super) fn encode(value: &[u8]) -> Vec<u8> {
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_survive_a_round_trip() {
        for value in [&b"a\tb\nc\\d"[..], b"", b"plain"] {
            assert_eq!(&*decode(&encode(value)), value);
        }
    }

    #[test]
    fn escaped_delimiters_do_not_end_a_field() {
        let lines = Lines::new(b'|', vec![]);
        assert_eq!(lines.field_end(b"a\\|b|c", 0), 4);
        assert_eq!(lines.field_end(b"a\\\\|b", 0), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn a_plain_line_has_the_fields_that_taking_it_apart_gives(
            fields in prop::collection::vec(prop_oneof!["[a-z0-9@]{0,6}", Just("\\N".to_owned())], 1..6),
            columns in 1..7usize,
        ) {
            let text = super::super::shape::Encoding::Text;
            let lines = Lines::new(b'|', vec![Column::Scan(text); columns]);
            let line = format!("{}\n", fields.join("|"));
            prop_assert_eq!(lines.is_plain_line(line.as_bytes()), fields.len() <= columns);
            let mut start = 0;
            for field in &fields {
                let range = start..start + field.len();
                for at in range.clone() {
                    let expected = (fields.len() <= columns).then_some(range.clone());
                    prop_assert_eq!(lines.cell_at(line.as_bytes(), at).filter(|_| fields.len() <= columns), expected);
                }
                prop_assert_eq!(lines.cell_at(line.as_bytes(), range.end), None);
                start = range.end + 1;
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_taken_apart() {
        let text = super::super::shape::Encoding::Text;
        let plain = Lines::new(b'\t', vec![Column::Scan(text); 2]);
        for line in ["a\\tb\tc\n", "a\tb\tc\n", "a\tb", "a\nb\n", "a\t\\Nb\n", ""] {
            assert!(!plain.is_plain_line(line.as_bytes()), "{line:?}");
        }
        assert!(plain.is_plain_line(b"a\t\\N\n") && plain.is_plain_line(b"\n"));
        let labelled = Lines::new(b'\t', vec![Column::Scan(text), Column::Label(0, text)]);
        assert!(!labelled.is_plain_line(b"a\tb\n"));
        let passing = Lines::new(b'\t', vec![Column::Scan(text), Column::Pass]);
        assert_eq!(passing.cell_at(b"ab\tcd\n", 1), Some(0..2));
        assert_eq!(passing.cell_at(b"ab\tcd\n", 4), None);
    }
}
