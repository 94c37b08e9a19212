//! The server's data types, as far as masking must know them: what a value is made of, and what may stand for it.
//!
//! A value that may not be shown is replaced by another one of its type, in the format it came in, so that clients read it as they would
//! the real one. What cannot be taken apart is replaced by NULL, never shown. Forms are those of the `*_in`/`*_out` and
//! `*_recv`/`*_send` functions (PostgreSQL source, `src/backend/utils/adt`).

mod array;
mod builtin;
mod json;
mod leaf;
mod range;
mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Buf;
use gateway_core::pipeline::Masker;

pub(crate) use builtin::{builtin, is_record, record};
use json::masked as masked_json;
use leaf::scannable as leaf_scannable;
use record::Fields;

#[cfg(test)]
mod tests;

/// Deepest nesting of types inside types that is followed; what is deeper counts as not understood.
pub(crate) const MAX_DEPTH: usize = 16;

/// Parts a value may be taken apart into. 1,048,576: more than a value of 64 MiB usefully has.
const MAX_PARTS: usize = 1 << 20;

/// What a value of a type is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `text`, `varchar`, `bpchar`, `unknown`, `citext`: any text.
    Text,
    /// `"char"`: one byte.
    Char,
    /// `name`: at most 63 bytes.
    Name,
    Xml,
    Json,
    Jsonb,
    Bytea,
    Bool,
    /// An integer of so many bytes.
    Integer(usize),
    /// `regclass` and the like: an object id, a name in text.
    ObjectName,
    /// A floating point number of so many bytes.
    Float(usize),
    Numeric,
    Money,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Inet,
    Cidr,
    /// A hardware address of so many bytes.
    Macaddr(usize),
    /// Bits of a fixed length.
    Bit,
    /// Bits of any length.
    VarBit,
    /// A log position.
    Lsn,
    TsVector,
    TsQuery,
    JsonPath,
    Hstore,
    /// An enum, with one of its labels.
    Enum(Option<Arc<str>>),
    /// An array of any dimensions; `None`: elements of a type that only the value tells (`anyarray`).
    Array(Option<Arc<Self>>),
    /// A row of a named type.
    Composite(Arc<[Arc<Self>]>),
    /// A row of no named type: only its binary form tells of what, maybe of these types of users.
    Record(Known),
    Range(Arc<Self>),
    Multirange(Arc<Self>),
    /// Not known, but in text.
    Unknown,
    /// Anything else.
    Opaque,
}

/// What user types are made of, by object id.
pub(crate) type Known = Arc<BTreeMap<u32, Arc<Kind>>>;

/// How a value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

impl Format {
    /// By the protocol's format code.
    pub(crate) const fn of(code: i16) -> Self {
        if code == 0 { Self::Text } else { Self::Binary }
    }
}

/// The value cannot be taken apart: not as its type wants it, or too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// A value as it may be seen; `None` is NULL.
pub(crate) type Masked = Option<Vec<u8>>;

/// Looks at a part of a value that has no parts itself: `None` leaves it as it is.
pub(crate) type Look<'a> = dyn FnMut(&Kind, Format, &[u8]) -> Option<Masked> + 'a;

/// How texts and labelled values are masked.
pub(crate) trait Masking {
    /// The text with sensitive content masked, or `None` if there is none in it.
    fn text(&mut self, text: &[u8]) -> Option<Vec<u8>>;

    /// The labelled text masked by its label's rule; `None` is NULL.
    fn field(&mut self, text: &[u8]) -> Option<Vec<u8>>;

    /// Counts a labelled value that is replaced by a fixed one; false if the rule wants NULL.
    fn fixed(&mut self) -> bool;
}

/// The pipeline's masker for a column, with the column's label if it has one.
pub(crate) struct By<'a, 'm> {
    pub(crate) masker: &'a mut Masker<'m>,
    pub(crate) label: Option<usize>,
}

impl Masking for By<'_, '_> {
    fn text(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        match self.label {
            None => self.masker.text(text),
            // The label's own class may be seen.
            Some(label) => self.masker.text_revealing(label, text),
        }
    }

    fn field(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        self.masker.field(self.label?, text)
    }

    fn fixed(&mut self) -> bool {
        self.label.is_some_and(|label| self.masker.number(label))
    }
}

/// The value with sensitive content masked, or `None` if there is none in it. A value that cannot be taken apart is looked at as it is;
/// if there is anything in it, nothing of it is shown.
pub(crate) fn scan(masker: &mut dyn Masking, kind: &Kind, format: Format, value: &[u8]) -> Option<Masked> {
    if !kind.has_parts() {
        return leaf::scan(masker, kind, format, value);
    }
    let plain = format == Format::Text && kind.is_plain_text();
    if plain && masker.text(value).is_none() {
        return None;
    }
    let mut look = |kind: &Kind, format: Format, value: &[u8]| leaf::scan(masker, kind, format, value);
    match kind.map(format, value, Parts::All, &mut look) {
        Ok(Some(masked)) => Some(masked),
        // What was found is in no single part: nothing of the value is shown.
        Ok(None) => plain.then_some(None),
        Err(Unreadable) => masker.text(value).map(|_| None),
    }
}

/// What stands for a value with a label: of an array and a row each part is replaced, of a range nothing is left.
pub(crate) fn label(masker: &mut dyn Masking, kind: &Kind, format: Format, value: &[u8]) -> Masked {
    let mut look = |kind: &Kind, format: Format, value: &[u8]| Some(leaf::label(masker, kind, format, value));
    match kind.map(format, value, Parts::ButOfRanges, &mut look) {
        Ok(Some(masked)) => masked,
        // It has no part that is a value: an empty array, or one of NULLs.
        Ok(None) => Some(value.to_vec()),
        Err(Unreadable) => {
            masker.fixed();
            None
        }
    }
}

/// What is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    All,
    /// Everything but ranges, whose bounds must keep their order.
    ButOfRanges,
}

impl Kind {
    /// Whether content that a scan could find can be in a value.
    pub(crate) fn is_scannable(&self) -> bool {
        match self {
            Self::Array(Some(element)) | Self::Range(element) | Self::Multirange(element) => {
                element.is_scannable()
            }
            Self::Composite(fields) => fields.iter().any(|field| field.is_scannable()),
            Self::Array(None) | Self::Record(_) | Self::Opaque => true,
            leaf => leaf_scannable(leaf),
        }
    }

    /// Whether what a value says stands in its text form as it is: nothing in it is coded in another way.
    pub(crate) fn is_plain_text(&self) -> bool {
        match self {
            Self::Array(Some(element)) | Self::Range(element) | Self::Multirange(element) => {
                element.is_plain_text()
            }
            Self::Composite(fields) => fields.iter().all(|field| field.is_plain_text()),
            Self::Bytea | Self::Json | Self::Array(None) | Self::Record(_) => false,
            _ => true,
        }
    }

    const fn is_range(&self) -> bool {
        matches!(self, Self::Range(_) | Self::Multirange(_))
    }

    /// Whether values are made of other values.
    const fn has_parts(&self) -> bool {
        matches!(self, Self::Array(_) | Self::Composite(_) | Self::Record(_)) || self.is_range()
    }

    /// The value with every part replaced that `look` replaces; `None` if that is none of them.
    ///
    /// # Errors
    /// The value is not as its type wants it, or nested too deep.
    pub(crate) fn map(
        &self,
        format: Format,
        value: &[u8],
        parts: Parts,
        look: &mut Look<'_>,
    ) -> Result<Option<Masked>, Unreadable> {
        self.map_at(format, value, (parts, 0), look)
    }

    fn map_at(
        &self,
        format: Format,
        value: &[u8],
        (how, depth): (Parts, usize),
        look: &mut Look<'_>,
    ) -> Result<Option<Masked>, Unreadable> {
        if depth > MAX_DEPTH {
            return Err(Unreadable);
        }
        if how == Parts::ButOfRanges && self.is_range() {
            return Ok(look(self, format, value));
        }
        let mut parts = match (self, format) {
            (Self::Array(element), Format::Text) => array::read_text(element.as_ref(), value)?,
            (Self::Array(element), Format::Binary) => array::read_binary(element.as_ref(), value)?,
            (Self::Composite(fields), Format::Text) => record::read_text(Some(fields), value)?,
            (Self::Record(_), Format::Text) => record::read_text(None, value)?,
            (Self::Composite(fields), Format::Binary) => record::read_binary(Fields::Of(fields), value)?,
            (Self::Record(known), Format::Binary) => record::read_binary(Fields::By(known), value)?,
            (Self::Range(bound), Format::Text) => range::read_text(bound, value)?,
            (Self::Range(bound), Format::Binary) => range::read_binary(bound, value)?,
            (Self::Multirange(bound), Format::Text) => range::read_many_text(bound, value)?,
            (Self::Multirange(bound), Format::Binary) => range::read_many_binary(bound, value)?,
            (leaf, _) => return Ok(look(leaf, format, value)),
        };
        let mut changed = false;
        for part in &mut parts {
            let Part::Value { kind, value, .. } = part else { continue };
            match kind.map_at(format, value, (how, depth + 1), look)? {
                None => continue,
                Some(Some(masked)) => *value = masked,
                // A bound cannot be NULL, so the whole is.
                Some(None) if self.is_range() => return Ok(Some(None)),
                Some(None) => part.nullify(),
            }
            changed = true;
        }
        Ok(changed.then(|| Some(write(&parts))))
    }
}

/// A piece of a value: what is copied as it stands, or a value in it. Put together in order they are the value.
#[derive(Debug)]
enum Part {
    /// Syntax.
    Fixed(Vec<u8>),
    Value {
        kind: Arc<Kind>,
        value: Vec<u8>,
        frame: Frame,
    },
    /// A value that has become NULL.
    Null(Frame),
}

/// How a value stands in the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// With its length before it (32 bits; -1 is NULL).
    Length,
    /// An element of an array's text; NULL is the word.
    Element,
    /// A field of a row's text; NULL is nothing.
    Field,
    /// A bound of a range's text; NULL is nothing, which is no bound.
    Bound,
}

impl Part {
    fn nullify(&mut self) {
        if let Self::Value { frame, .. } = self {
            *self = Self::Null(*frame);
        }
    }
}

fn fixed(bytes: &[u8]) -> Part {
    Part::Fixed(bytes.to_vec())
}

fn write(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        match part {
            Part::Fixed(bytes) => out.extend_from_slice(bytes),
            Part::Null(Frame::Length) => out.extend_from_slice(&(-1i32).to_be_bytes()),
            Part::Null(Frame::Element) => out.extend_from_slice(b"NULL"),
            Part::Null(Frame::Field | Frame::Bound) => {}
            Part::Value { value, frame, .. } => write_value(&mut out, value, *frame),
        }
    }
    out
}

fn write_value(out: &mut Vec<u8>, value: &[u8], frame: Frame) {
    match frame {
        Frame::Length => {
            let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(value);
        }
        // Quotes are always allowed; backslashes escape in all three (`array_in`, `record_in`, `range_parse_bound`).
        Frame::Element | Frame::Field | Frame::Bound => {
            out.push(b'"');
            for byte in value {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'"');
        }
    }
}

/// Text being read from the front.
struct Text<'a> {
    rest: &'a [u8],
}

/// Where an item of text ends, and how it escapes.
struct Ends<'a> {
    /// Bytes that end an item outside quotes.
    ends: &'a [u8],
    /// `""` inside quotes is one quote (rows and ranges).
    doubled: bool,
}

impl<'a> Text<'a> {
    const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.rest.split_first().ok_or(Unreadable)?;
        self.rest = rest;
        Ok(*first)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unreadable> {
        if self.take()? == byte { Ok(()) } else { Err(Unreadable) }
    }

    fn finish(&self) -> Result<(), Unreadable> {
        if self.rest.is_empty() { Ok(()) } else { Err(Unreadable) }
    }

    /// An item up to one of `ends`, which stays, without its quotes and escapes; and whether any of it was quoted.
    fn item(&mut self, how: &Ends<'_>) -> Result<(Vec<u8>, bool), Unreadable> {
        let (mut out, mut quoted, mut inside) = (Vec::new(), false, false);
        loop {
            match self.peek() {
                None => return Err(Unreadable),
                Some(byte) if !inside && how.ends.contains(&byte) => return Ok((out, quoted)),
                Some(_) => {}
            }
            match self.take()? {
                b'\\' => out.push(self.take()?),
                b'"' if inside && how.doubled && self.peek() == Some(b'"') => out.push(self.take()?),
                b'"' => {
                    inside = !inside;
                    quoted = true;
                }
                byte => out.push(byte),
            }
        }
    }
}

/// A value with its length before it; `None` is NULL.
fn sized<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Unreadable> {
    let length = rest.try_get_i32().map_err(|_| Unreadable)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Unreadable)?;
    let (value, after) = rest.split_at_checked(length).ok_or(Unreadable)?;
    *rest = after;
    Ok(Some(value))
}

/// A sized value as a part.
fn sized_part(kind: &Arc<Kind>, value: Option<&[u8]>) -> Part {
    value.map_or(Part::Null(Frame::Length), |value| Part::Value {
        kind: Arc::clone(kind),
        value: value.to_vec(),
        frame: Frame::Length,
    })
}

/// A count that a value gives of its parts.
fn count(rest: &mut &[u8]) -> Result<usize, Unreadable> {
    let count = rest.try_get_i32().map_err(|_| Unreadable)?;
    usize::try_from(count).ok().filter(|n| *n <= MAX_PARTS).ok_or(Unreadable)
}
