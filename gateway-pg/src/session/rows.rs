//! Masking a chunk of backend frames: what passes is forwarded as it came, what does not is rebuilt.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::error::Denial;
use gateway_core::masking::Finding;
use gateway_core::pipeline::Masker;

use super::cells::Cells;
use super::copy::Lines;
use super::flow::unreadable;
use super::shape::{self, Column, Shape};
use crate::codec::backend;
use crate::codec::{HEADER_BYTES, ProtocolError, encode};
use crate::types::Masked;

/// What has to happen to one frame.
#[derive(Debug)]
pub(super) enum Edit {
    /// Not for the client.
    Drop,
    /// An error or notice: its texts are masked.
    /// `early`: it comes from reading a statement, before anything ran.
    Fault { error: bool, early: bool },
    /// A notification: its payload is masked.
    Notification,
    /// A RowDescription: its column names are masked.
    Names,
    /// Copied lines: masked by column.
    Lines { layout: Arc<Lines>, lines: Bytes, fields: Vec<(Range<usize>, Column)> },
    /// Copied tuples, and what stands around them: masked by column.
    Tuples { shape: Arc<Shape>, bytes: Bytes, tuples: Vec<Range<usize>> },
    /// The result of a call outside SQL.
    Value(Column),
}

/// How a frame with values is laid out.
#[derive(Clone, Debug)]
enum Layout {
    /// A DataRow.
    Row(Arc<Shape>),
    /// A CopyData message that holds one whole line, in which only NULL is escaped.
    Line(Arc<Lines>),
    /// A RowDescription, whose names are scanned: a query can turn data into names.
    Names,
}

/// A frame with values to look at.
#[derive(Debug)]
struct Piece {
    start: usize,
    end: usize,
    /// Position in `Chunk::layouts`.
    layout: usize,
}

/// A run of frames and what is known of them. Most rows have nothing to mask, so nothing is kept of a row but where it is: its cells are
/// found again where a match could begin.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// In order, apart from `pieces`.
    pub(super) edits: Vec<(Range<usize>, Edit)>,
    pub(super) rows: u64,
    layouts: Vec<Layout>,
    /// In order, not overlapping.
    pieces: Vec<Piece>,
}

impl Chunk {
    /// Notes a row that has columns to look at.
    pub(super) fn row(
        &mut self,
        shape: &Arc<Shape>,
        body: &[u8],
        at: Range<usize>,
    ) -> Result<(), ProtocolError> {
        backend::check_row(body, shape.columns.len())?;
        if !matches!(self.layouts.last(), Some(Layout::Row(last)) if Arc::ptr_eq(last, shape)) {
            self.layouts.push(Layout::Row(Arc::clone(shape)));
        }
        self.piece(at);
        Ok(())
    }

    /// Notes a copied line whose fields are all plain or NULL, and are only to be scanned.
    pub(super) fn line(&mut self, lines: &Arc<Lines>, at: Range<usize>) {
        if !matches!(self.layouts.last(), Some(Layout::Line(last)) if Arc::ptr_eq(last, lines)) {
            self.layouts.push(Layout::Line(Arc::clone(lines)));
        }
        self.piece(at);
    }

    /// Notes a RowDescription that goes to the client.
    pub(super) fn names(&mut self, at: Range<usize>) {
        self.layouts.push(Layout::Names);
        self.piece(at);
    }

    fn piece(&mut self, at: Range<usize>) {
        self.pieces.push(Piece { start: at.start, end: at.end, layout: self.layouts.len() - 1 });
    }

    /// The chunk as it may be released, or `None` if it may pass as it is.
    pub(super) fn apply(
        self,
        masker: &mut Masker<'_>,
        raw: &Bytes,
        withhold: bool,
    ) -> Result<Option<Bytes>, Denial> {
        let found = self.findings(masker, raw)?;
        let mut out = Splice { raw, out: BytesMut::new(), position: 0 };
        let mut found = found.as_slice();
        let mut edits = self.edits.iter().peekable();
        for piece in &self.pieces {
            while let Some((at, edit)) = edits.next_if(|(at, _)| at.start < piece.start) {
                edit.apply_to(masker, &mut out, at, withhold)?;
            }
            let (here, later) = found.split_at(found.partition_point(|f| f.range.start < piece.end));
            found = later;
            match self.layouts.get(piece.layout) {
                Some(Layout::Row(shape)) => row(masker, &mut out, piece, shape, here)?,
                Some(Layout::Line(lines)) => line(masker, &mut out, piece, lines, here),
                Some(Layout::Names) if !here.is_empty() => {
                    let at = piece.start..piece.end;
                    Edit::Names.apply_to(masker, &mut out, &at, withhold)?;
                }
                Some(Layout::Names) | None => {}
            }
        }
        for (at, edit) in edits {
            edit.apply_to(masker, &mut out, at, withhold)?;
        }
        Ok(out.finish())
    }

    /// What must be masked in the cells that are scanned, in order: one pass over the whole chunk.
    fn findings(&self, masker: &Masker<'_>, raw: &[u8]) -> Result<Vec<Finding>, Denial> {
        let mut found = Vec::new();
        if !self.pieces.is_empty() {
            let mut place = Place::default();
            masker.within(raw, |at| self.cell_at(raw, at, &mut place), &mut found)?;
        }
        Ok(found)
    }

    /// The cell to be scanned that contains a place.
    fn cell_at(&self, raw: &[u8], at: usize, place: &mut Place) -> Option<Range<usize>> {
        let known = place.piece.and_then(|known| self.pieces.get(known));
        if !known.is_some_and(|piece| (piece.start..piece.end).contains(&at)) {
            place.piece = Some(self.pieces.partition_point(|piece| piece.end <= at));
            place.begun = false;
        }
        let piece = self.pieces.get(place.piece?).filter(|piece| piece.start + HEADER_BYTES <= at)?;
        let offset = piece.start + HEADER_BYTES;
        let cell = self.layouts.get(piece.layout)?.cell(place, raw.get(offset..piece.end)?, at - offset)?;
        Some(cell.start + offset..cell.end + offset)
    }
}

/// Where the scanner is: places come in clusters.
#[derive(Debug, Default)]
struct Place {
    /// The piece looked at last.
    piece: Option<usize>,
    cells: Cells,
    /// They are that piece's.
    begun: bool,
}

impl Layout {
    /// The cell of a frame with this body that contains `at` and is scanned.
    fn cell(&self, place: &mut Place, body: &[u8], at: usize) -> Option<Range<usize>> {
        if !std::mem::replace(&mut place.begun, true) {
            place.cells.begin(if matches!(self, Self::Line(_)) { 0 } else { COUNT_BYTES });
        }
        let (number, cell) = match self {
            Self::Row(_) => place.cells.find(at, |start| with_next(backend::cell_from(body, start)))?,
            Self::Names => place.cells.find(at, |start| with_next(backend::name_from(body, start)))?,
            Self::Line(lines) => lines.cell(&mut place.cells, body, at)?,
        };
        let scanned = match self {
            Self::Row(shape) => shape.columns.get(number).is_some_and(Column::is_scanned),
            Self::Line(lines) => lines.scanned(number).is_some(),
            Self::Names => true,
        };
        scanned.then_some(cell)
    }
}

/// The number of columns stands before the first one in DataRow and RowDescription.
const COUNT_BYTES: usize = 2;

fn with_next(found: Option<(Range<usize>, usize)>) -> Option<(Range<usize>, Option<usize>)> {
    found.map(|(cell, next)| (cell, Some(next)))
}

/// A chunk with frames replaced. Nothing is copied until the first one is.
struct Splice<'a> {
    raw: &'a [u8],
    out: BytesMut,
    /// What is copied up to here, or replaced.
    position: usize,
}

impl Splice<'_> {
    /// Copies what stands before `at`, which is to be replaced by what the caller appends.
    fn replace(&mut self, at: &Range<usize>) -> &mut BytesMut {
        if self.out.capacity() == 0 {
            self.out.reserve(self.raw.len() + self.raw.len() / 16 + 64);
        }
        self.out.extend_from_slice(self.raw.get(self.position..at.start).unwrap_or_default());
        self.position = at.end;
        &mut self.out
    }

    /// The whole, or `None` if nothing was replaced.
    fn finish(mut self) -> Option<Bytes> {
        if self.position == 0 && self.out.is_empty() {
            return None;
        }
        let end = self.raw.len();
        self.replace(&(end..end));
        Some(self.out.freeze())
    }
}

/// Rebuilds a row if anything in it has to change.
fn row(
    masker: &mut Masker<'_>,
    out: &mut Splice<'_>,
    piece: &Piece,
    shape: &Shape,
    mut found: &[Finding],
) -> Result<(), Denial> {
    if found.is_empty() && !shape.looks_at_every_value {
        return Ok(());
    }
    let raw = out.raw;
    let offset = piece.start + HEADER_BYTES;
    let mut values = Vec::with_capacity(shape.columns.len());
    let body = raw.get(offset..piece.end).unwrap_or_default();
    backend::row_cells(body, shape.columns.len(), &mut values).map_err(|e| unreadable(&e.to_string()))?;
    let mut changed: Vec<(usize, Masked)> = Vec::new();
    for (i, (column, value)) in shape.columns.iter().zip(&values).enumerate() {
        let Some((start, end)) = *value else {
            changed.extend(shape::masked_null(masker, column).map(|m| (i, m)));
            continue;
        };
        let value = body.get(start..end).unwrap_or_default();
        let here = local(&mut found, start + offset..end + offset);
        changed.extend(shape::masked(masker, column, value, &here).map(|m| (i, m)));
    }
    if !changed.is_empty() {
        let out = out.replace(&(piece.start..piece.end));
        encode_row(out, body, &values, &changed);
    }
    Ok(())
}

/// Takes the findings of a cell off those of its frame, which are in order, and counts them from the cell's beginning.
fn local(found: &mut &[Finding], cell: Range<usize>) -> Vec<Finding> {
    let (inside, later) = found.split_at(found.partition_point(|f| f.range.start < cell.end));
    *found = later;
    let moved = |f: &Finding| f.range.start - cell.start..f.range.end - cell.start;
    let inside = inside.iter().filter(|f| f.range.start >= cell.start);
    inside.map(|f| Finding { range: moved(f), ..f.clone() }).collect()
}

/// Replaces the fields of a copied line in which something was found.
fn line(masker: &mut Masker<'_>, out: &mut Splice<'_>, piece: &Piece, lines: &Lines, mut found: &[Finding]) {
    if found.is_empty() {
        return;
    }
    let raw = out.raw;
    let offset = piece.start + HEADER_BYTES;
    let body = raw.get(offset..piece.end).unwrap_or_default();
    let out = out.replace(&(piece.start..piece.end));
    let start = out.len();
    out.extend_from_slice(b"d\0\0\0\0");
    let mut position = 0;
    let mut cells = Cells::default();
    cells.begin(0);
    while let Some(first) = found.first() {
        let cell = lines.cell(&mut cells, body, first.range.start.saturating_sub(offset));
        let scanned = cell.and_then(|(number, cell)| Some((lines.scanned(number)?, cell)));
        let Some((column, cell)) = scanned else {
            found = found.get(1..).unwrap_or_default();
            continue;
        };
        let here = local(&mut found, cell.start + offset..cell.end + offset);
        let value = body.get(cell.clone()).unwrap_or_default();
        if let Some(masked) = shape::masked(masker, column, value, &here) {
            out.extend_from_slice(body.get(position..cell.start).unwrap_or_default());
            out.extend_from_slice(&lines.encode(masked.as_deref()));
            position = cell.end;
        }
    }
    out.extend_from_slice(body.get(position..).unwrap_or_default());
    finish_frame(out, start);
}

/// A DataRow with some values replaced.
fn encode_row(
    out: &mut BytesMut,
    body: &[u8],
    values: &[Option<(usize, usize)>],
    changed: &[(usize, Masked)],
) {
    let start = out.len();
    out.extend_from_slice(b"D\0\0\0\0");
    encode_values(out, body, values, changed);
    finish_frame(out, start);
}

/// Values as a DataRow's body and a copied tuple have them, some replaced: those `changed`, in order.
pub(super) fn encode_values(
    out: &mut BytesMut,
    body: &[u8],
    values: &[Option<(usize, usize)>],
    changed: &[(usize, Masked)],
) {
    let columns = u16::try_from(values.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&columns.to_be_bytes());
    let mut changed = changed.iter().peekable();
    for (i, value) in values.iter().enumerate() {
        let original = value.and_then(|(start, end)| body.get(start..end));
        let value = match changed.next_if(|(c, _)| *c == i) {
            Some((_, masked)) => masked.as_deref(),
            None => original,
        };
        put_value(out, value);
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
pub(super) fn finish_frame(out: &mut BytesMut, start: usize) {
    let length = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start + 1..start + HEADER_BYTES) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

impl Edit {
    /// Replaces the frame at `at`, if that is needed.
    fn apply_to(
        &self,
        masker: &mut Masker<'_>,
        out: &mut Splice<'_>,
        at: &Range<usize>,
        withhold: bool,
    ) -> Result<(), Denial> {
        let body = out.raw.get(at.start + HEADER_BYTES..at.end).unwrap_or_default();
        if let Some(frame) = self.apply(masker, body, withhold)? {
            out.replace(at).extend_from_slice(&frame);
        }
        Ok(())
    }

    /// The frame to send instead, or `None` to leave it.
    fn apply(&self, masker: &mut Masker<'_>, body: &[u8], withhold: bool) -> Result<Option<Bytes>, Denial> {
        match self {
            Self::Drop => Ok(Some(Bytes::new())),
            Self::Fault { error, early } => {
                let shown = match (withhold, *early) {
                    (false, _) => Shown::Masked,
                    (true, true) => Shown::IfNaming,
                    (true, false) => Shown::Withheld,
                };
                fault(masker, body, *error, shown)
            }
            Self::Notification => notification(masker, body),
            Self::Names => names(masker, body),
            Self::Value(column) => function_result(masker, column, body),
            Self::Lines { layout, lines, fields } => {
                super::copy::mask_lines(masker, layout, lines, fields).map(Some)
            }
            Self::Tuples { shape, bytes, tuples } => {
                super::tuples::mask_tuples(masker, shape, bytes, tuples).map(Some)
            }
        }
    }
}

/// What of an error's texts is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// All, masked.
    Masked,
    /// None, unless it is an error of syntax or naming.
    IfNaming,
    /// None.
    Withheld,
}

/// Fields that are neither code, severity, position nor source location: they may quote values.
const QUOTING: &[u8] = b"MDHWqstcdn";

/// An error or notice with its texts masked. Where protected values are near, texts that may quote them are not shown at all;
/// syntax and naming errors (SQLSTATE class 42) that point into the statement arise before any row is read and keep their text, scanned.
fn fault(masker: &mut Masker<'_>, body: &[u8], error: bool, shown: Shown) -> Result<Option<Bytes>, Denial> {
    let fields = backend::fields(body).map_err(|e| unreadable(&e.to_string()))?;
    let code = fields.iter().find(|(k, _)| *k == b'C').map(|(_, c)| *c).unwrap_or_default();
    let names = code.starts_with(b"42") && fields.iter().any(|(kind, _)| *kind == b'P');
    let withhold = shown == Shown::Withheld || (shown == Shown::IfNaming && !names);
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

/// A FunctionCallResponse whose value is masked.
fn function_result(masker: &mut Masker<'_>, column: &Column, body: &[u8]) -> Result<Option<Bytes>, Denial> {
    let value = backend::function_result(body).map_err(|e| unreadable(&e.to_string()))?;
    let Some(masked) = shape::masked_alone(masker, column, value)? else { return Ok(None) };
    let mut out = BytesMut::from(&b"V\0\0\0\0"[..]);
    put_value(&mut out, masked.as_deref());
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
