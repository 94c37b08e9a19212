//! Masking a chunk of backend frames: what passes is forwarded as it came, what does not is rebuilt.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::error::Denial;
use gateway_core::masking::{CellFinding, Finding};
use gateway_core::pipeline::Masker;

use super::flow::unreadable;
use super::shape::{self, Column, Encoding, Masked, Shape};
use crate::codec::backend;
use crate::codec::{HEADER_BYTES, ProtocolError, encode};

/// What has to happen to one frame.
#[derive(Debug)]
pub(super) enum Edit {
    /// Not for the client.
    Drop,
    /// An error or notice: its texts are masked.
    Fault { error: bool },
    /// A notification: its payload is masked.
    Notification,
    /// A RowDescription: its column names are masked.
    Names,
    /// Copied lines: masked by column.
    Lines { lines: Bytes, fields: Vec<(Range<usize>, Column)> },
}

/// A DataRow that has columns to look at.
#[derive(Debug)]
struct Row {
    at: Range<usize>,
    shape: Arc<Shape>,
    /// Its values within `Chunk::values`.
    values: Range<usize>,
}

/// A run of frames and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) edits: Vec<(Range<usize>, Edit)>,
    pub(super) rows: u64,
    looked_at: Vec<Row>,
    /// Every value of the rows in `looked_at`, as ranges of the chunk.
    values: Vec<Option<(usize, usize)>>,
    /// Values whose text is scanned in bulk: ranges of the chunk, and for each its row and column.
    cells: Vec<Range<usize>>,
    owners: Vec<(usize, usize)>,
}

impl Chunk {
    /// Notes a row that has columns to look at.
    pub(super) fn row(
        &mut self,
        shape: &Arc<Shape>,
        body: &[u8],
        at: Range<usize>,
    ) -> Result<(), ProtocolError> {
        let first = self.values.len();
        backend::row_cells(body, shape.columns.len(), &mut self.values)?;
        let offset = at.start + HEADER_BYTES;
        for (i, value) in self.values.iter_mut().skip(first).enumerate() {
            let Some((start, end)) = value else { continue };
            (*start, *end) = (*start + offset, *end + offset);
            if matches!(
                shape.columns.get(i),
                Some(Column::Scan(
                    Encoding::Text | Encoding::Json | Encoding::NumberText | Encoding::JsonbBinary
                ))
            ) {
                self.cells.push(*start..*end);
                self.owners.push((self.looked_at.len(), i));
            }
        }
        self.looked_at.push(Row { at, shape: Arc::clone(shape), values: first..self.values.len() });
        Ok(())
    }

    /// The chunk as it may be released, or `None` if it may pass as it is.
    pub(super) fn apply(
        self,
        masker: &mut Masker<'_>,
        raw: &Bytes,
        withhold: bool,
    ) -> Result<Option<Bytes>, Denial> {
        let mut found = Vec::new();
        masker.cells(raw, &self.cells, &mut found)?;
        let mut replaced: Vec<(Range<usize>, Bytes)> = Vec::new();
        for (at, edit) in &self.edits {
            let body = raw.get(at.start + HEADER_BYTES..at.end).unwrap_or_default();
            if let Some(frame) = edit.apply(masker, body, withhold)? {
                replaced.push((at.clone(), frame));
            }
        }
        self.rows(masker, raw, &found, &mut replaced);
        if replaced.is_empty() {
            return Ok(None);
        }
        replaced.sort_by_key(|(at, _)| at.start);
        Ok(Some(splice(raw, &replaced)))
    }

    /// Rebuilds the rows in which anything has to change.
    fn rows(
        &self,
        masker: &mut Masker<'_>,
        raw: &[u8],
        found: &[CellFinding],
        replaced: &mut Vec<(Range<usize>, Bytes)>,
    ) {
        let mut found = found.iter().peekable();
        for (index, row) in self.looked_at.iter().enumerate() {
            let mut cells: Vec<(usize, Vec<Finding>)> = Vec::new();
            while let Some(finding) = found.next_if(|f| self.owners.get(f.cell).is_some_and(|o| o.0 == index))
            {
                let column = self.owners.get(finding.cell).map_or(0, |o| o.1);
                let cell = self.cells.get(finding.cell).map_or(0, |c| c.start);
                let local = Finding {
                    range: finding.range.start - cell..finding.range.end - cell,
                    class: finding.class.clone(),
                };
                match cells.last_mut() {
                    Some((last, findings)) if *last == column => findings.push(local),
                    _ => cells.push((column, vec![local])),
                }
            }
            if let Some(frame) = self.rebuild(masker, raw, row, &cells) {
                replaced.push((row.at.clone(), frame));
            }
        }
    }

    fn rebuild(
        &self,
        masker: &mut Masker<'_>,
        raw: &[u8],
        row: &Row,
        found: &[(usize, Vec<Finding>)],
    ) -> Option<Bytes> {
        let mut changed: Vec<(usize, Masked)> = Vec::new();
        for (i, column) in row.shape.columns.iter().enumerate() {
            let Some(Some((start, end))) = self.values.get(row.values.start + i) else { continue };
            let value = raw.get(*start..*end).unwrap_or_default();
            let masked = match column {
                Column::Pass => None,
                Column::Scan(encoding) => match (encoding, found.iter().find(|(c, _)| *c == i)) {
                    (Encoding::Text | Encoding::Json, Some((_, findings))) => {
                        Some(Some(masker.replace(value, findings)))
                    }
                    (Encoding::NumberText | Encoding::JsonbBinary, Some(_))
                    | (Encoding::Integer(_) | Encoding::NumericBinary, None) => {
                        shape::scan(masker, *encoding, value)
                    }
                    _ => None,
                },
                Column::Label(label, encoding) => Some(shape::label(masker, *label, *encoding, value)),
                Column::Reveal(label, encoding) => shape::reveal(masker, *label, *encoding, value),
                Column::Withhold(encoding) => Some(shape::withheld(masker, *encoding)),
            };
            changed.extend(masked.map(|m| (i, m)));
        }
        (!changed.is_empty()).then(|| self.encode(raw, row, &changed))
    }

    /// A DataRow with some values replaced.
    fn encode(&self, raw: &[u8], row: &Row, changed: &[(usize, Masked)]) -> Bytes {
        let mut out = BytesMut::with_capacity(row.at.len() + 64);
        out.extend_from_slice(b"D\0\0\0\0");
        let columns = u16::try_from(row.shape.columns.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&columns.to_be_bytes());
        let values = self.values.get(row.values.clone()).unwrap_or_default();
        for (i, value) in values.iter().enumerate() {
            let original = value.and_then(|(start, end)| raw.get(start..end));
            let value = match changed.iter().find(|(c, _)| *c == i) {
                Some((_, masked)) => masked.as_deref(),
                None => original,
            };
            put_value(&mut out, value);
        }
        finish_frame(&mut out, 0);
        out.freeze()
    }
}

fn put_value(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.extend_from_slice(&(-1i32).to_be_bytes()),
        Some(bytes) => {
            let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(bytes);
        }
    }
}

/// Writes the length of the frame that begins at `start` and ends at the end of `out`.
fn finish_frame(out: &mut BytesMut, start: usize) {
    let length = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start + 1..start + HEADER_BYTES) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// `raw` with these frames replaced (in order, not overlapping).
fn splice(raw: &[u8], replaced: &[(Range<usize>, Bytes)]) -> Bytes {
    let mut out = BytesMut::with_capacity(raw.len() + 64 * replaced.len());
    let mut position = 0;
    for (at, frame) in replaced {
        out.extend_from_slice(raw.get(position..at.start).unwrap_or_default());
        out.extend_from_slice(frame);
        position = at.end;
    }
    out.extend_from_slice(raw.get(position..).unwrap_or_default());
    out.freeze()
}

impl Edit {
    /// The frame to send instead, or `None` to leave it.
    fn apply(&self, masker: &mut Masker<'_>, body: &[u8], withhold: bool) -> Result<Option<Bytes>, Denial> {
        match self {
            Self::Drop => Ok(Some(Bytes::new())),
            Self::Fault { error } => fault(masker, body, *error, withhold),
            Self::Notification => notification(masker, body),
            Self::Names => names(masker, body),
            Self::Lines { lines, fields } => Ok(super::copy::mask_lines(masker, lines, fields)),
        }
    }
}

/// Fields that are neither code, severity, position nor source location: they may quote values.
const QUOTING: &[u8] = b"MDHWqstcdn";

/// An error or notice with its texts masked. Where protected values are near, texts that may quote them are not shown at all;
/// syntax and naming errors (SQLSTATE class 42) arise before any row is read and keep their text, scanned.
fn fault(masker: &mut Masker<'_>, body: &[u8], error: bool, withhold: bool) -> Result<Option<Bytes>, Denial> {
    let fields = backend::fields(body).map_err(|e| unreadable(&e.to_string()))?;
    let code = fields.iter().find(|(k, _)| *k == b'C').map(|(_, c)| *c).unwrap_or_default();
    let withhold = withhold && !matches!(code, [b'4', b'2', rest @ ..] if rest != b"846");
    let mut changed = false;
    let mut out = Vec::with_capacity(fields.len());
    for (kind, text) in fields {
        let text_is = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| "(not shown: not UTF-8)".to_owned())
        };
        if !QUOTING.contains(&kind) {
            out.push((kind, text_is(text)));
        } else if withhold {
            changed = true;
            if kind == b'M' {
                masker.withheld();
                out.push((
                    kind,
                    "the server's message is withheld: the operation touches protected columns".to_owned(),
                ));
            }
        } else {
            let masked = masker.text(text);
            changed |= masked.is_some();
            out.push((kind, text_is(masked.as_deref().unwrap_or(text))));
        }
    }
    if !changed {
        return Ok(None);
    }
    let mut frame = BytesMut::new();
    if error {
        encode::error(&mut frame, out)
    } else {
        encode::notice(&mut frame, out)
    }
    Ok(Some(frame.freeze()))
}

/// An error of which only the code is known to be harmless.
pub(super) fn bare_error(code: &str) -> encode::Fields {
    let text = "the server reported an error whose text is not shown";
    vec![
        (b'S', "ERROR".to_owned()),
        (b'V', "ERROR".to_owned()),
        (b'C', code.to_owned()),
        (b'M', text.to_owned()),
    ]
}

fn notification(masker: &mut Masker<'_>, body: &[u8]) -> Result<Option<Bytes>, Denial> {
    let (pid, channel, payload) = backend::notification(body).map_err(|e| unreadable(&e.to_string()))?;
    let Some(masked) = masker.text(payload.as_bytes()) else { return Ok(None) };
    let mut out = BytesMut::from(&b"A\0\0\0\0"[..]);
    out.extend_from_slice(&pid.to_be_bytes());
    out.extend_from_slice(channel.as_bytes());
    out.extend_from_slice(b"\0");
    out.extend_from_slice(&masked);
    out.extend_from_slice(b"\0");
    finish_frame(&mut out, 0);
    Ok(Some(out.freeze()))
}

/// A RowDescription whose column names are masked: a query can turn data into names.
fn names(masker: &mut Masker<'_>, body: &[u8]) -> Result<Option<Bytes>, Denial> {
    let fields = backend::row_description(body).map_err(|e| unreadable(&e.to_string()))?;
    let masked: Vec<_> = fields.iter().map(|f| masker.text(f.name.as_bytes())).collect();
    if masked.iter().all(Option::is_none) {
        return Ok(None);
    }
    /// Table, attribute, type, size, modifier, format.
    const FIXED_BYTES: usize = 18;
    let mut out = BytesMut::from(&b"T\0\0\0\0"[..]);
    out.extend_from_slice(body.get(..2).unwrap_or_default());
    let mut position = 2;
    for (field, masked) in fields.iter().zip(masked) {
        let fixed = position + field.name.len() + 1;
        out.extend_from_slice(masked.as_deref().unwrap_or(field.name.as_bytes()));
        out.extend_from_slice(b"\0");
        out.extend_from_slice(body.get(fixed..fixed + FIXED_BYTES).unwrap_or_default());
        position = fixed + FIXED_BYTES;
    }
    finish_frame(&mut out, 0);
    Ok(Some(out.freeze()))
}
