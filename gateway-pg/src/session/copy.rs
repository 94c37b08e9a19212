//! COPY TO STDOUT in text and csv: lines and fields masked by column.
//!
//! PostgreSQL documentation, COPY, "Text Format" and "CSV Format". A CopyData message may hold any piece of the stream, so lines are put
//! together before they are looked at. The binary format is in `tuples`.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::error::Denial;
use gateway_core::masking::{CellFinding, Finding};
use gateway_core::pipeline::Masker;

use super::cells::Cells;
use super::rows::{Chunk, Edit};
use super::shape::{self, Column, Encoding, Shape};
use super::tuples::Tuples;
use crate::analysis::{Copy, CopyFormat};
use crate::codec::ProtocolError;

/// Longest line that is put together, in bytes: as long as the longest row that is held.
pub(super) const MAX_LINE_BYTES: usize = crate::codec::DEFAULT_MAX_FRAME_BYTES;

/// How values are written in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Syntax {
    /// `\\` escapes; null is `\\N` unless the statement says otherwise.
    Text { null: Vec<u8> },
    /// Quoted where needed; within quotes `escape` stands before a quote or itself.
    Csv { quote: u8, escape: u8, null: Vec<u8> },
}

impl Syntax {
    /// The byte without which a line is nothing but values and delimiters.
    const fn special(&self) -> u8 {
        match self {
            Self::Text { .. } => b'\\',
            Self::Csv { quote, .. } => *quote,
        }
    }

    fn plain_text() -> Self {
        Self::Text { null: NULL.to_vec() }
    }

    /// Whether what stands for null never stands for a value: csv quotes such a value, text escapes the default. A null of the
    /// statement's own choice in text looks like a value that is the same, and could be a guess at one.
    fn null_is_certain(&self) -> bool {
        !matches!(self, Self::Text { null } if null != NULL)
    }

    fn null(&self) -> &[u8] {
        match self {
            Self::Text { null } | Self::Csv { null, .. } => null,
        }
    }
}

/// How the lines of a copy are laid out.
#[derive(Debug)]
pub(super) struct Lines {
    delimiter: u8,
    syntax: Syntax,
    columns: Vec<Column>,
    /// Every column is scanned or passes: a line in which nothing is escaped needs no look at its single fields.
    plain: bool,
}

/// A copy on its way out.
#[derive(Debug)]
pub(super) enum CopyOut {
    /// Text or csv, and the beginning of a line whose end has not come.
    Lines(Arc<Lines>, BytesMut),
    /// Binary.
    Tuples(Tuples),
}

impl Lines {
    fn new(delimiter: u8, syntax: Syntax, columns: Vec<Column>) -> Self {
        let plain = columns.iter().all(|c| *c == Column::Pass || c.is_scanned());
        Self { delimiter, syntax, columns, plain }
    }

    /// As the statement's options say.
    fn of(copy: &Copy, columns: Vec<Column>) -> Result<Self, ProtocolError> {
        let csv = copy.format == CopyFormat::Csv;
        let delimiter = single(copy, "delimiter", if csv { b',' } else { b'\t' })?;
        let syntax = if csv {
            let quote = single(copy, "quote", b'"')?;
            let null = option(copy, "null").unwrap_or_default().as_bytes().to_vec();
            Syntax::Csv { quote, escape: single(copy, "escape", quote)?, null }
        } else {
            option(copy, "null")
                .map_or_else(Syntax::plain_text, |null| Syntax::Text { null: null.as_bytes().to_vec() })
        };
        Ok(Self::new(delimiter, syntax, columns))
    }

    /// Whether `body` is one whole line of plain fields, not more than there are columns, for which the scan of the whole chunk is enough.
    fn is_plain_line(&self, body: &[u8]) -> bool {
        let Some(line) = body.strip_suffix(b"\n").filter(|_| self.plain) else { return false };
        // Behind a backslash a value may be coded (`shape::scanned`), whatever the format escapes with.
        if memchr::memchr3(b'\n', b'\\', self.syntax.special(), line).is_none() {
            return memchr::memchr_iter(self.delimiter, line).count() < self.columns.len();
        }
        if !matches!(self.syntax, Syntax::Text { .. }) {
            return false;
        }
        let unescaped = |field: &[u8]| field == self.syntax.null() || memchr::memchr(b'\\', field).is_none();
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
            let (field, after) = self.field(line, next?);
            next = after;
            Some(field)
        })
    }

    /// The number and the range of the field of a plain line that contains byte `at`. `cells`: begun at 0 for this line.
    pub(super) fn cell(&self, cells: &mut Cells, body: &[u8], at: usize) -> Option<(usize, Range<usize>)> {
        let line = body.strip_suffix(b"\n")?;
        cells.find(at, |start| Some(self.field(line, start)))
    }

    /// The column of a field, if it is scanned.
    pub(super) fn scanned(&self, number: usize) -> Option<&Column> {
        self.columns.get(number).filter(|column| column.is_scanned())
    }

    /// The field that begins at `start`, and where the next one begins.
    fn field(&self, line: &[u8], start: usize) -> (Range<usize>, Option<usize>) {
        let end = self.field_end(line, start);
        (start..end, (end < line.len()).then_some(end + 1))
    }

    /// Where the field that begins at `start` ends: at a delimiter that is not part of the value.
    fn field_end(&self, text: &[u8], start: usize) -> usize {
        let rest = |from: usize| text.get(from..).unwrap_or_default();
        match &self.syntax {
            Syntax::Text { .. } => self.text_field_end(text, start),
            Syntax::Csv { quote, escape, .. } => {
                let value = quoted_end(rest(start), *quote, *escape).map_or(start, |end| start + end);
                memchr::memchr(self.delimiter, rest(value)).map_or(text.len(), |n| value + n)
            }
        }
    }

    fn text_field_end(&self, text: &[u8], start: usize) -> usize {
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

impl Lines {
    /// The end of the first line of `text`, its newline included; `None` if it has not come.
    fn line_end(&self, text: &[u8]) -> Option<usize> {
        let Syntax::Csv { quote, escape, .. } = &self.syntax else {
            return memchr::memchr(b'\n', text).map(|end| end + 1);
        };
        let mut position = 0;
        loop {
            let rest = text.get(position..)?;
            let found = memchr::memchr2(b'\n', *quote, rest)?;
            if rest.get(found) == Some(&b'\n') {
                return Some(position + found + 1);
            }
            position += found + quoted_end(rest.get(found..)?, *quote, *escape)?;
        }
    }

    /// The end of the last whole line of `text`.
    fn lines_end(&self, text: &[u8]) -> usize {
        let mut end = 0;
        while let Some(line) = self.line_end(text.get(end..).unwrap_or_default()) {
            end += line;
        }
        end
    }

    /// Whether a field's text is its value, and only its content counts.
    fn is_scanned_as_it_is(&self, raw: &[u8], column: &Column) -> bool {
        column.is_scanned() && memchr::memchr2(b'\\', self.syntax.special(), raw).is_none()
    }

    /// A value as it stands in a line; null if there is none.
    pub(super) fn encode(&self, value: Option<&[u8]>) -> Vec<u8> {
        match (&self.syntax, value) {
            (syntax, None) => syntax.null().to_vec(),
            (Syntax::Text { .. }, Some(value)) => encode_text(value, self.delimiter),
            (Syntax::Csv { quote, escape, .. }, Some(value)) => encode_csv(value, *quote, *escape),
        }
    }

    fn decode<'a>(&self, raw: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        match &self.syntax {
            Syntax::Text { .. } => decode_text(raw),
            Syntax::Csv { quote, escape, .. } => decode_csv(raw, *quote, *escape),
        }
    }

    /// A field as it may be seen, or `None` if it may pass as it is.
    fn masked(
        &self,
        masker: &mut Masker<'_>,
        raw: &[u8],
        column: &Column,
    ) -> Result<Option<Vec<u8>>, Denial> {
        let harmless = matches!(column, Column::Pass | Column::Scan(_));
        let withheld = matches!(column, Column::Withhold(_));
        if raw == self.syntax.null() && !withheld && (harmless || self.syntax.null_is_certain()) {
            return Ok(None);
        }
        let value = self.decode(raw);
        let mut found = Vec::new();
        if column.is_scanned() {
            masker.within(&value, |_| Some(0..value.len()), &mut found)?;
        }
        let masked = shape::masked(masker, column, &value, &found);
        Ok(masked.map(|masked| self.encode(masked.as_deref())))
    }
}

fn option<'a>(copy: &'a Copy, name: &str) -> Option<&'a str> {
    copy.options.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// An option of one byte.
fn single(copy: &Copy, name: &str, otherwise: u8) -> Result<u8, ProtocolError> {
    match option(copy, name).map(str::as_bytes) {
        None => Ok(otherwise),
        Some([one]) => Ok(*one),
        Some(_) => Err(ProtocolError::Malformed("COPY option of one byte")),
    }
}

/// Where a quoted value that `text` begins with ends, after its closing quote; `None` if it is not quoted or not closed.
fn quoted_end(text: &[u8], quote: u8, escape: u8) -> Option<usize> {
    let mut position = 1;
    if text.first() != Some(&quote) {
        return None;
    }
    loop {
        position += memchr::memchr2(quote, escape, text.get(position..)?)?;
        let escapes = text.get(position) == Some(&escape)
            && matches!(text.get(position + 1), Some(next) if *next == quote || *next == escape);
        if escapes {
            position += 2;
        } else if text.get(position) == Some(&quote) {
            return Some(position + 1);
        } else {
            position += 1;
        }
    }
}

impl CopyOut {
    pub(super) fn new(copy: &Copy, columns: Vec<Column>) -> Result<Self, ProtocolError> {
        match copy.format {
            CopyFormat::Binary => Ok(Self::Tuples(Tuples::new(Shape::new(columns)))),
            CopyFormat::Text | CopyFormat::Csv => {
                Ok(Self::Lines(Arc::new(Lines::of(copy, columns)?), BytesMut::new()))
            }
            CopyFormat::Unknown => Err(ProtocolError::Malformed("COPY format")),
        }
    }

    /// Takes in a piece of the stream; what is whole of it becomes one message.
    pub(super) fn data(
        &mut self,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        let (lines, partial) = match self {
            Self::Tuples(tuples) => return tuples.data(body, at, chunk),
            Self::Lines(lines, partial) => (lines, partial),
        };
        // What the server sends: a message is a line.
        if partial.is_empty() && lines.is_plain_line(body) {
            chunk.line(lines, at);
            chunk.rows += 1;
            return Ok(());
        }
        if partial.len() + body.len() > MAX_LINE_BYTES {
            return Err(ProtocolError::Limit("bytes of a copied line"));
        }
        partial.extend_from_slice(body);
        let end = lines.lines_end(partial);
        if end == 0 {
            chunk.edits.push((at, Edit::Drop));
            return Ok(());
        }
        let whole = partial.split_to(end).freeze();
        masked_later(lines, whole, at, chunk);
        Ok(())
    }

    /// The end of the stream: what is left is a line too. The CopyDone frame stands at `at`.
    ///
    /// # Errors
    /// A binary stream that ends in the middle of a tuple.
    pub(super) fn finish(self, at: Range<usize>, chunk: &mut Chunk) -> Result<(), ProtocolError> {
        match self {
            Self::Tuples(tuples) => tuples.finish(),
            Self::Lines(lines, partial) => {
                if !partial.is_empty() {
                    // The remaining line goes out in place of an empty range before CopyDone.
                    masked_later(&lines, partial.freeze(), at.start..at.start, chunk);
                }
                Ok(())
            }
        }
    }
}

fn masked_later(layout: &Arc<Lines>, lines: Bytes, at: Range<usize>, chunk: &mut Chunk) {
    let mut fields = Vec::new();
    let mut start = 0;
    while start < lines.len() {
        let rest = lines.get(start..).unwrap_or_default();
        let end = layout.line_end(rest).map_or(lines.len(), |end| start + end);
        // A header line is masked like any other: whether there is one is the statement's word, and not worth trusting.
        let newline = usize::from(lines.get(end.wrapping_sub(1)) == Some(&b'\n'));
        layout.note_fields(&lines, start..end - newline, &mut fields);
        chunk.rows += 1;
        start = end;
    }
    chunk.edits.push((at, Edit::Lines { layout: Arc::clone(layout), lines, fields }));
}

impl Lines {
    /// The fields of one line; more fields than columns are not understood and withheld.
    fn note_fields(&self, lines: &[u8], line: Range<usize>, out: &mut Vec<(Range<usize>, Column)>) {
        let text = lines.get(line.clone()).unwrap_or_default();
        for (i, field) in self.fields(text).enumerate() {
            let column = self.columns.get(i).cloned().unwrap_or(Column::Withhold(Encoding::Text));
            out.push((line.start + field.start..line.start + field.end, column));
        }
    }
}

/// The lines as a CopyData message, masked.
pub(super) fn mask_lines(
    masker: &mut Masker<'_>,
    layout: &Lines,
    lines: &Bytes,
    fields: &[(Range<usize>, Column)],
) -> Result<Bytes, Denial> {
    let mut found = Vec::new();
    masker.cells(lines, &scanned(layout, lines, fields), &mut found)?;
    let mut found = found.as_slice();
    let mut out = BytesMut::with_capacity(lines.len() + 64);
    out.extend_from_slice(b"d\0\0\0\0");
    let mut position = 0;
    for (range, column) in fields {
        let raw = lines.get(range.clone()).unwrap_or_default();
        let (here, later) = found.split_at(found.partition_point(|f| f.range.start < range.end));
        found = later;
        let masked = match (layout.is_scanned_as_it_is(raw, column), here) {
            (true, []) => None,
            (true, _) => shape::masked(masker, column, raw, &within(here, range.start))
                .map(|masked| layout.encode(masked.as_deref())),
            (false, _) => layout.masked(masker, raw, column)?,
        };
        if let Some(masked) = masked {
            out.extend_from_slice(lines.get(position..range.start).unwrap_or_default());
            out.extend_from_slice(&masked);
            position = range.end;
        }
    }
    out.extend_from_slice(lines.get(position..).unwrap_or_default());
    super::rows::finish_frame(&mut out, 0);
    Ok(out.freeze())
}

fn scanned(layout: &Lines, lines: &[u8], fields: &[(Range<usize>, Column)]) -> Vec<Range<usize>> {
    let raw = |range: &Range<usize>| lines.get(range.clone()).unwrap_or_default();
    let scanned = fields.iter().filter(|(range, column)| layout.is_scanned_as_it_is(raw(range), column));
    scanned.map(|(range, _)| range.clone()).collect()
}

fn within(found: &[CellFinding], start: usize) -> Vec<Finding> {
    let moved = |f: &CellFinding| f.range.start - start..f.range.end - start;
    found.iter().map(|f| Finding { range: moved(f), class: f.class.clone(), mixed: f.mixed }).collect()
}

const NULL: &[u8] = b"\\N";

/// A field's value without its escapes.
fn decode_text(raw: &[u8]) -> std::borrow::Cow<'_, [u8]> {
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

/// A value with the escapes of the text format. `\\` before any other byte stands for that byte, so it keeps a delimiter in a value.
fn encode_text(value: &[u8], delimiter: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte if *byte == b'\\' || *byte == delimiter => out.extend_from_slice(&[b'\\', *byte]),
            byte => out.push(*byte),
        }
    }
    out
}

/// A quoted value: right for any value, and never null.
fn encode_csv(value: &[u8], quote: u8, escape: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 2);
    out.push(quote);
    for byte in value {
        if *byte == quote || *byte == escape {
            out.push(escape);
        }
        out.push(*byte);
    }
    out.push(quote);
    out
}

fn decode_csv(raw: &[u8], quote: u8, escape: u8) -> std::borrow::Cow<'_, [u8]> {
    let inner = raw.strip_prefix(&[quote]).and_then(|rest| rest.strip_suffix(&[quote]));
    let Some(inner) = inner else { return raw.into() };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escapes =
            byte == escape && matches!(bytes.peek(), Some(next) if *next == quote || *next == escape);
        out.extend(if escapes { bytes.next() } else { Some(byte) });
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn csv(quote: u8, escape: u8) -> Lines {
        Lines::new(b',', Syntax::Csv { quote, escape, null: Vec::new() }, vec![Column::Pass; 3])
    }

    #[test]
    fn escapes_survive_a_round_trip() {
        let text = Lines::new(b':', Syntax::plain_text(), vec![]);
        for value in [&b"a\tb\nc\\d"[..], b"", b"plain", b"a:b", b"[X:Y]", b"\"\"", b"x,\"y"] {
            for lines in [&text, &csv(b'"', b'"'), &csv(b'"', b'\\'), &csv(b'\'', b'|')] {
                let field = lines.encode(Some(value));
                assert_eq!(&*lines.decode(&field), value);
                assert_eq!(lines.field_end(&field, 0), field.len(), "{field:?}");
            }
        }
    }

    #[test]
    fn escaped_delimiters_do_not_end_a_field() {
        let lines = Lines::new(b'|', Syntax::plain_text(), vec![]);
        assert_eq!(lines.field_end(b"a\\|b|c", 0), 4);
        assert_eq!(lines.field_end(b"a\\\\|b", 0), 3);
    }

    #[test]
    fn quotes_keep_delimiters_and_line_ends_in_a_field() {
        let lines = csv(b'"', b'"');
        let text = b"1,\"a,\"\"b\n\",c\n2,,\n\"open\n";
        assert_eq!(lines.lines_end(text), 17);
        assert_eq!(lines.fields(&text[..12]).collect::<Vec<_>>(), [0..1, 2..10, 11..12]);
        assert!(!lines.is_plain_line(b"1,\"a\",c\n") && lines.is_plain_line(b"1,a,c\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn a_plain_line_has_the_fields_that_taking_it_apart_gives(
            fields in prop::collection::vec(prop_oneof!["[a-z0-9@]{0,6}", Just("\\N".to_owned())], 1..6),
            columns in 1..7usize,
        ) {
            let text = super::super::shape::Encoding::Text;
            let lines = Lines::new(b'|', Syntax::plain_text(), vec![Column::Scan(text); columns]);
            let line = format!("{}\n", fields.join("|"));
            prop_assert_eq!(lines.is_plain_line(line.as_bytes()), fields.len() <= columns);
            let mut cells = Cells::default();
            cells.begin(0);
            let mut start = 0;
            for (number, field) in fields.iter().enumerate() {
                let range = start..start + field.len();
                for at in range.clone() {
                    prop_assert_eq!(lines.cell(&mut cells, line.as_bytes(), at), Some((number, range.clone())));
                }
                prop_assert_eq!(lines.cell(&mut cells, line.as_bytes(), range.end), None);
                start = range.end + 1;
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_taken_apart() {
        let text = super::super::shape::Encoding::Text;
        let plain = Lines::new(b'\t', Syntax::plain_text(), vec![Column::Scan(text.clone()); 2]);
        for line in ["a\\tb\tc\n", "a\tb\tc\n", "a\tb", "a\nb\n", "a\t\\Nb\n", ""] {
            assert!(!plain.is_plain_line(line.as_bytes()), "{line:?}");
        }
        assert!(plain.is_plain_line(b"a\t\\N\n") && plain.is_plain_line(b"\n"));
        let labelled = Lines::new(
            b'\t',
            Syntax::plain_text(),
            vec![Column::Scan(text.clone()), Column::Label(0, text.clone())],
        );
        assert!(!labelled.is_plain_line(b"a\tb\n"));
        let passing = Lines::new(b'\t', Syntax::plain_text(), vec![Column::Scan(text), Column::Pass]);
        assert!(passing.scanned(0).is_some() && passing.scanned(1).is_none() && passing.scanned(2).is_none());
    }
}
