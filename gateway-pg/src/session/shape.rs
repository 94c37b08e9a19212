//! What has to happen to each column of a result, decided once per RowDescription.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::pipeline::Masker;

use crate::codec::backend::Field;

/// How a column's values are encoded, as far as masking must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Text bytes, in text format or a binary format that is the same bytes.
    Text,
    /// A number as text.
    NumberText,
    /// JSON text: a replacement must be JSON too.
    Json,
    /// jsonb in binary: one version byte, then JSON text (`jsonb_recv`).
    JsonbBinary,
    /// A big-endian integer of 2, 4 or 8 bytes.
    Integer(usize),
    /// numeric in binary (`numeric_recv`).
    NumericBinary,
    /// Anything else: replaced by NULL when it must not be seen.
    Opaque,
}

/// What to do with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Nothing can be in it that must not be seen.
    Pass,
    /// Look at the content of each value.
    Scan(Encoding),
    /// Mask every value by its label (a position in the label list).
    Label(usize, Encoding),
    /// Labelled, and this principal may see it: content of other classes is still masked.
    Reveal(usize, Encoding),
    /// Computed from protected values in a way that is not known: nothing of it may be seen.
    Withhold(Encoding),
}

/// The columns of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) columns: Vec<Column>,
    /// True if every column passes: rows are not even looked into.
    pub(crate) passes: bool,
    /// True if values of some column are looked at one by one; else rows in which the scan finds nothing pass as they are.
    pub(crate) looks_at_every_value: bool,
}

impl Column {
    /// Whether the bytes of its values are scanned as they come.
    pub(crate) const fn is_scanned(&self) -> bool {
        use Encoding::{Json, JsonbBinary, NumberText, Text};
        matches!(self, Self::Scan(Text | Json | NumberText | JsonbBinary))
    }
}

impl Shape {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        let passes = columns.iter().all(|c| *c == Column::Pass);
        let looks_at_every_value = columns.iter().any(|c| *c != Column::Pass && !c.is_scanned());
        Self { columns, passes, looks_at_every_value }
    }
}

/// Shapes made lately, by the body of their RowDescription. For sessions without labels: there nothing else counts.
#[derive(Debug, Default)]
pub(crate) struct Shapes(VecDeque<(Bytes, Arc<Shape>)>);

/// Shapes remembered for a session, each with a description of at most [`MAX_DESCRIPTION`] bytes.
const MAX_SHAPES: usize = 16;

/// A longer description is not remembered: bytes.
const MAX_DESCRIPTION: usize = 4 * 1024;

impl Shapes {
    /// The shape of what is described so.
    ///
    /// # Errors
    /// As `make`.
    pub(crate) fn of<E>(
        &mut self,
        description: &[u8],
        make: impl FnOnce() -> Result<Shape, E>,
    ) -> Result<Arc<Shape>, E> {
        if let Some((_, known)) = self.0.iter().find(|(known, _)| known == description) {
            return Ok(Arc::clone(known));
        }
        let shape = Arc::new(make()?);
        if description.len() <= MAX_DESCRIPTION {
            self.0.truncate(MAX_SHAPES - 1);
            self.0.push_front((Bytes::copy_from_slice(description), Arc::clone(&shape)));
        }
        Ok(shape)
    }
}

const TEXT: u32 = 25;
const JSON: u32 = 114;
const JSONB: u32 = 3802;
const INT2: u32 = 21;
const INT4: u32 = 23;
const INT8: u32 = 20;
const NUMERIC: u32 = 1700;

/// Types whose binary form is their text (PostgreSQL: `textsend`, `bpcharsend`, `varcharsend`, `namesend`, `unknownsend`, `xml_send`).
const TEXTUAL: [u32; 7] = [TEXT, 1043, 1042, 19, 705, 142, 18];

/// Types that cannot carry text or a number long enough to be a card: bool, small integers, object ids, floats, dates and
/// times, uuid, money, bytea, network addresses, bit strings, log positions, geometric types.
const NEVER_SCANNED: [u32; 38] = [
    16, 17, INT2, INT4, 24, 26, 27, 28, 29, 600, 601, 602, 603, 604, 628, 650, 700, 701, 718, 774, 790, 829,
    869, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 2202, 2205, 2206, 2278, 2950, 3220, 5069,
];

/// How values of a column are encoded in the format they will come in.
pub(crate) fn encoding(type_oid: u32, format: i16) -> Encoding {
    match (type_oid, format) {
        (t, _) if TEXTUAL.contains(&t) => Encoding::Text,
        (JSON, _) | (JSONB, 0) => Encoding::Json,
        (JSONB, _) => Encoding::JsonbBinary,
        (INT2 | INT4 | INT8 | NUMERIC, 0) => Encoding::NumberText,
        (INT2, _) => Encoding::Integer(2),
        (INT4, _) => Encoding::Integer(4),
        (INT8, _) => Encoding::Integer(8),
        (NUMERIC, _) => Encoding::NumericBinary,
        _ => Encoding::Opaque,
    }
}

/// What to do with a column that carries no label.
pub(crate) fn unlabelled(field: &Field) -> Column {
    unlabelled_type(field.type_oid, field.format)
}

/// What to do with an unlabelled column of a type in a format.
pub(crate) fn unlabelled_type(type_oid: u32, format: i16) -> Column {
    match encoding(type_oid, format) {
        _ if NEVER_SCANNED.contains(&type_oid) => Column::Pass,
        // In text format every other type, arrays and composites too, is text to the reader.
        Encoding::Opaque if format == 0 => Column::Scan(Encoding::Text),
        Encoding::Opaque => Column::Pass,
        encoding => Column::Scan(encoding),
    }
}

/// A masked value: `None` is NULL.
pub(crate) type Masked = Option<Vec<u8>>;

/// The value with sensitive content masked, or `None` if there is none in it.
pub(crate) fn scan(masker: &mut Masker<'_>, encoding: Encoding, value: &[u8]) -> Option<Masked> {
    match encoding {
        Encoding::Text | Encoding::Json => masker.text(value).map(Some),
        Encoding::NumberText => masker.text(value).map(|_| Some(b"0".to_vec())),
        Encoding::JsonbBinary => {
            let (version, text) = value.split_first()?;
            let masked = masker.text(text)?;
            Some(Some([&[*version], masked.as_slice()].concat()))
        }
        Encoding::Integer(8) => {
            // An integer of another length is not understood, not shown.
            let Ok(bytes) = value.try_into() else { return Some(None) };
            let number = i64::from_be_bytes(bytes);
            masker.text(number.to_string().as_bytes()).map(|_| Some(vec![0; 8]))
        }
        Encoding::NumericBinary => match numeric_digits(value) {
            Some(digits) => masker.text(digits.as_bytes()).map(|_| Some(NUMERIC_ZERO.to_vec())),
            // Not a number as PostgreSQL sends it: not understood, not shown.
            None => Some(None),
        },
        Encoding::Integer(_) | Encoding::Opaque => None,
    }
}

/// numeric 0: no digits, weight 0, positive, no decimals.
const NUMERIC_ZERO: [u8; 8] = [0; 8];

/// The decimal text of a binary numeric (`numeric_recv`: digits in base 10,000, weight of the first, sign, display scale). Scale is
/// not applied beyond the digits: it is read for content only. NaN and infinities have no digits.
pub(crate) fn numeric_digits(value: &[u8]) -> Option<String> {
    let (head, digits) = value.split_first_chunk::<8>()?;
    let count = usize::from(u16::from_be_bytes([head[0], head[1]]));
    let weight = i16::from_be_bytes([head[2], head[3]]);
    if digits.len() != count * 2 {
        return None;
    }
    let mut text = String::with_capacity(count * 4 + 1);
    for (i, pair) in digits.chunks_exact(2).enumerate() {
        if i64::try_from(i).ok()? == i64::from(weight) + 1 && i > 0 {
            text.push('.');
        }
        let digit = u16::from_be_bytes([*pair.first()?, *pair.get(1)?]);
        text.push_str(&if i == 0 { digit.to_string() } else { format!("{digit:04}") });
    }
    // Trailing groups of zeros before the point are not sent.
    let missing = (i64::from(weight) + 1 - i64::try_from(count).ok()?).clamp(0, 16);
    (0..missing).for_each(|_| text.push_str("0000"));
    Some(text)
}

/// The value of a labelled column, masked by its label's rule and still valid for its type.
pub(crate) fn label(masker: &mut Masker<'_>, index: usize, encoding: Encoding, value: &[u8]) -> Masked {
    match encoding {
        Encoding::Text => masker.field(index, value),
        Encoding::NumberText => masker.number(index).then(|| b"0".to_vec()),
        Encoding::Integer(size) => masker.number(index).then(|| vec![0; size]),
        Encoding::NumericBinary => masker.number(index).then(|| NUMERIC_ZERO.to_vec()),
        Encoding::Json => masker.field(index, value).map(|text| json_string(&text)),
        Encoding::JsonbBinary => masker
            .field(index, value.get(1..).unwrap_or_default())
            .map(|text| [&[1][..], &json_string(&text)].concat()),
        Encoding::Opaque => {
            masker.number(index);
            None
        }
    }
}

/// A labelled value this principal may see: only content of classes other than the label's is masked.
pub(crate) fn reveal(
    masker: &mut Masker<'_>,
    label: usize,
    encoding: Encoding,
    value: &[u8],
) -> Option<Masked> {
    match encoding {
        Encoding::Text | Encoding::Json => masker.text_revealing(label, value).map(Some),
        _ => None,
    }
}

/// What stands for a value that must not be seen at all.
pub(crate) fn withheld(masker: &mut Masker<'_>, encoding: Encoding) -> Masked {
    masker.withheld();
    match encoding {
        Encoding::Text => Some(WITHHELD.to_vec()),
        Encoding::Json => Some(json_string(WITHHELD)),
        _ => None,
    }
}

const WITHHELD: &[u8] = b"[REDACTED:PROTECTED]";

fn json_string(text: &[u8]) -> Vec<u8> {
    serde_json::Value::from(String::from_utf8(text.to_vec()).unwrap_or_else(|_| "[REDACTED]".to_owned()))
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(weight: i16, digits: &[u16]) -> Vec<u8> {
        let mut value = (digits.len() as u16).to_be_bytes().to_vec();
        value.extend_from_slice(&weight.to_be_bytes());
        value.extend_from_slice(&[0; 4]);
        digits.iter().for_each(|d| value.extend_from_slice(&d.to_be_bytes()));
        value
    }

    #[test]
    fn binary_numerics_read_as_decimal() {
        assert_eq!(numeric_digits(&numeric(3, &[4111, 1111, 1111, 1111])).unwrap(), "4111111111111111");
        assert_eq!(numeric_digits(&numeric(0, &[12, 5000])).unwrap(), "12.5000");
        assert_eq!(numeric_digits(&numeric(1, &[7])).unwrap(), "70000");
        assert_eq!(numeric_digits(b"\0\x01\0\0"), None);
    }

    #[test]
    fn small_and_fixed_types_are_not_scanned() {
        let field =
            |type_oid, format| Field { name: String::new(), table: 0, attribute: 0, type_oid, format };
        assert_eq!(unlabelled(&field(INT4, 0)), Column::Pass);
        assert_eq!(unlabelled(&field(TEXT, 1)), Column::Scan(Encoding::Text));
        assert_eq!(unlabelled(&field(1009, 0)), Column::Scan(Encoding::Text));
        assert_eq!(unlabelled(&field(1009, 1)), Column::Pass);
        assert_eq!(unlabelled(&field(INT8, 1)), Column::Scan(Encoding::Integer(8)));
    }
}
