//! What stands for a value that has no parts, and how its content is looked at.

use super::{Format, Kind, Masked, Masking};

/// numeric 0: no digits, weight 0, positive, no decimals.
pub(crate) const NUMERIC_ZERO: [u8; 8] = [0; 8];

/// Whether content that a scan could find can be in a value: text, a name, an address, or a number long enough to be a card.
pub(crate) const fn scannable(kind: &Kind) -> bool {
    use Kind::{
        Bytea, Char, Cidr, Enum, Float, Hstore, Inet, Integer, Json, JsonPath, Jsonb, Name, Numeric,
        ObjectName, Opaque, Text, TsQuery, TsVector, Unknown, Xml,
    };
    matches!(
        kind,
        Text | Char
            | Name
            | Xml
            | Json
            | Jsonb
            | Bytea
            | Integer(8)
            // Fifteen digits are shown without an exponent.
            | Float(8)
            | Numeric
            | ObjectName
            | Inet
            | Cidr
            | TsVector
            | TsQuery
            | JsonPath
            | Hstore
            | Enum(_)
            | Unknown
            | Opaque
    )
}

/// The value with sensitive content masked, or `None` if there is none in it.
pub(crate) fn scan(masker: &mut dyn Masking, kind: &Kind, format: Format, value: &[u8]) -> Option<Masked> {
    match (kind, format) {
        _ if !scannable(kind) => None,
        (Kind::Text, _) => masker.text(value).map(Some),
        (Kind::Char | Kind::Name, _) => masker.text(value).map(|text| fitted(kind, text)),
        (Kind::Xml, _) => masker.text(value).map(|text| Some(xml(text, value))),
        (Kind::Json, _) | (Kind::Jsonb, Format::Text) => super::masked_json(masker, value).map(Some),
        (Kind::Jsonb, Format::Binary) => {
            let (version, text) = value.split_first()?;
            super::masked_json(masker, text).map(|text| Some([&[*version], text.as_slice()].concat()))
        }
        (Kind::Bytea, Format::Binary) => masker.text(value).map(Some),
        (Kind::Bytea, Format::Text) => match from_hex(value) {
            Some(bytes) => masker.text(&bytes).map(|masked| Some(to_hex(&masked))),
            // The escape format is nearly the text itself.
            None => masker.text(value).map(|_| Some(b"\\x".to_vec())),
        },
        (Kind::Integer(_) | Kind::Float(_) | Kind::Numeric, Format::Text) => {
            masker.text(value).map(|_| Some(b"0".to_vec()))
        }
        (Kind::ObjectName | Kind::Inet | Kind::Cidr, Format::Text) => {
            masker.text(value).map(|_| neutral(kind, format, value))
        }
        (Kind::Float(size), Format::Binary) => {
            let Ok(bytes) = value.try_into() else { return Some(None) };
            let number = f64::from_be_bytes(bytes);
            masker.text(number.to_string().as_bytes()).map(|_| Some(vec![0; *size]))
        }
        (Kind::Integer(size), Format::Binary) => {
            // An integer of another length is not understood, not shown.
            let Ok(bytes) = value.try_into() else { return Some(None) };
            let number = i64::from_be_bytes(bytes);
            masker.text(number.to_string().as_bytes()).map(|_| Some(vec![0; *size]))
        }
        (Kind::Numeric, Format::Binary) => match numeric_digits(value) {
            Some(digits) => masker.text(digits.as_bytes()).map(|_| Some(NUMERIC_ZERO.to_vec())),
            // Not a number as PostgreSQL sends it: not understood, not shown.
            None => Some(None),
        },
        // It may be bytea or JSON, or made of such.
        (Kind::Unknown, _) => match from_hex(value) {
            Some(bytes) => masker.text(&bytes).map(|masked| Some(to_hex(&masked))),
            None => unknown(masker, value),
        },
        (Kind::Hstore, Format::Text) => masker.text(value).map(Some),
        // In the text form of anything else content is text to the reader.
        (Kind::Opaque, Format::Text) => masker.text(value).map(Some),
        // Of anything else nothing is left: a part of it could not be replaced.
        _ => masker.text(value).map(|_| None),
    }
}

/// What stands for a labelled value: masked by the label's rule where that gives a value of its type, else nothing of it.
pub(crate) fn label(masker: &mut dyn Masking, kind: &Kind, format: Format, value: &[u8]) -> Masked {
    match (kind, format) {
        (Kind::Text | Kind::Unknown, _) => masker.field(value),
        (Kind::Char | Kind::Name, _) => masker.field(value).and_then(|text| fitted(kind, text)),
        (Kind::Xml, _) => masker.field(value).map(|text| xml(text, b"")),
        (Kind::Json, _) | (Kind::Jsonb, Format::Text) => masker.field(value).map(|t| json_string(&t)),
        (Kind::Jsonb, Format::Binary) => masker
            .field(value.get(1..).unwrap_or_default())
            .map(|text| [&[1][..], &json_string(&text)].concat()),
        (Kind::Bytea, Format::Binary) => masker.field(value),
        (Kind::Bytea, Format::Text) => {
            let bytes = from_hex(value).unwrap_or_default();
            masker.field(&bytes).map(|masked| to_hex(&masked))
        }
        (Kind::Hstore, _) => masker.field(value).map(|text| hstore(&text, format)),
        _ => masker.fixed().then(|| neutral(kind, format, value)).flatten(),
    }
}

/// A value of the type that says nothing; `None` if there is none for all of the type's values.
fn neutral(kind: &Kind, format: Format, value: &[u8]) -> Masked {
    let (text, binary): (&str, &[u8]) = match kind {
        Kind::Bool => ("f", &[0]),
        Kind::Integer(size) => ("0", [0; 8].get(..*size)?),
        Kind::ObjectName => ("-", &[0; 4]),
        Kind::Float(size) => ("0", [0; 8].get(..*size)?),
        Kind::Numeric => ("0", &NUMERIC_ZERO),
        // `cash_in` takes a plain number in every locale.
        Kind::Money => ("0.00", &[0; 8]),
        // Days and microseconds count from 2000-01-01; in this form no DateStyle reads it otherwise.
        Kind::Date => ("2000-01-01", &[0; 4]),
        Kind::Time => ("00:00:00", &[0; 8]),
        Kind::TimeTz => ("00:00:00+00", &[0; 12]),
        Kind::Timestamp => ("2000-01-01 00:00:00", &[0; 8]),
        Kind::TimestampTz => ("2000-01-01 00:00:00+00", &[0; 8]),
        Kind::Interval => ("00:00:00", &[0; 16]),
        Kind::Uuid => ("00000000-0000-0000-0000-000000000000", &[0; 16]),
        // Family, bits, whether it is a cidr, bytes of the address (`network_send`).
        Kind::Inet => ("0.0.0.0", &[2, 32, 0, 4, 0, 0, 0, 0]),
        Kind::Cidr => ("0.0.0.0/32", &[2, 32, 1, 4, 0, 0, 0, 0]),
        Kind::Macaddr(6) => ("00:00:00:00:00:00", &[0; 6]),
        Kind::Macaddr(_) => ("00:00:00:00:00:00:00:00", &[0; 8]),
        Kind::Bit => return zero_bits(format, value),
        // No bits.
        Kind::VarBit => ("", &[0; 4]),
        Kind::Lsn => ("0/0", &[0; 8]),
        // No lexemes.
        Kind::TsVector | Kind::TsQuery => ("", &[0; 4]),
        Kind::JsonPath => ("$", b"\x01$"),
        Kind::Enum(first) => {
            let first = first.as_deref()?;
            (first, first.as_bytes())
        }
        Kind::Range(_) => ("empty", &[1]),
        Kind::Multirange(_) => ("{}", &[0; 4]),
        _ => return None,
    };
    Some(if format == Format::Text { text.as_bytes().to_vec() } else { binary.to_vec() })
}

/// As many bits as the value has, which its type says; all zero (`bit_send`: the number of bits, then the bits).
fn zero_bits(format: Format, value: &[u8]) -> Masked {
    if format == Format::Text {
        return Some(vec![b'0'; value.len()]);
    }
    let (count, bits) = value.split_first_chunk::<4>()?;
    Some([count.as_slice(), &vec![0; bits.len()]].concat())
}

/// Cut to the length that the type allows, at a character's border.
fn fitted(kind: &Kind, text: Vec<u8>) -> Masked {
    let limit = match kind {
        Kind::Char => 1,
        Kind::Name => 63,
        _ => return Some(text),
    };
    let text = String::from_utf8(text).ok()?;
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Some(text.get(..end).unwrap_or_default().as_bytes().to_vec())
}

/// Masked text as the content of XML: where the rule's own choice of characters would be markup it is none of the rule's.
/// `original`: the XML it was made of by replacing parts, or nothing.
fn xml(text: Vec<u8>, original: &[u8]) -> Vec<u8> {
    let markup = |b: &u8| matches!(b, b'<' | b'>' | b'&');
    if original.is_empty() && text.iter().any(markup) { b"[REDACTED]".to_vec() } else { text }
}

/// One pair that stands for them all (`hstore_send`: the number of pairs, then each key and value with its length).
fn hstore(text: &[u8], format: Format) -> Vec<u8> {
    if format == Format::Text {
        let escaped: Vec<u8> = text
            .iter()
            .flat_map(|b| if matches!(b, b'"' | b'\\') { vec![b'\\', *b] } else { vec![*b] })
            .collect();
        return [b"\"masked\"=>\"", escaped.as_slice(), b"\""].concat();
    }
    let length = i32::try_from(text.len()).unwrap_or(i32::MAX).to_be_bytes();
    [&1i32.to_be_bytes(), &6i32.to_be_bytes(), b"masked".as_slice(), &length, text].concat()
}

/// What bytea's hexadecimal form begins with (PostgreSQL documentation, "bytea Hex Format").
const HEX: &[u8] = b"\\x";

/// The bytes of bytea's hexadecimal form.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    text.strip_prefix(HEX).and_then(from_digits)
}

fn from_digits(digits: &[u8]) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    digits.chunks_exact(2).map(pair).collect()
}

fn to_hex(bytes: &[u8]) -> Vec<u8> {
    let mut out = HEX.to_vec();
    out.extend(digits(bytes));
    out
}

fn digits(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| DIGITS.get(usize::from(n & 15)).copied().unwrap_or(b'0');
    bytes.iter().flat_map(move |b| [digit(b >> 4), digit(*b)])
}

/// Text that may be anything. Where content is found behind the escapes of JSON nothing of it is left.
fn unknown(masker: &mut dyn Masking, value: &[u8]) -> Option<Masked> {
    let masked = text_and_hex(masker, value);
    let plain = without_escapes(masked.as_deref().unwrap_or(value));
    if plain.is_some_and(|plain| masker.text(&plain).is_some()) {
        return Some(None);
    }
    masked.map(Some)
}

/// Text with the escapes of JSON that may stand for letters resolved (RFC 8259 section 7), however often their backslash is escaped
/// itself; `None` if there are no backslashes. Surrogates become U+FFFD: nothing that is looked for is made of them.
pub(super) fn without_escapes(text: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', text)?;
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = memchr::memchr(b'\\', rest).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(plain);
        let backslashes = escaped.iter().take_while(|b| **b == b'\\').count();
        let (backslashes, after) = escaped.split_at_checked(backslashes)?;
        let letter = after.strip_prefix(b"u").and_then(|digits| digits.get(..4)).and_then(from_digits);
        rest = match letter.as_deref() {
            Some([high, low]) => {
                let letter = char::from_u32(u32::from(u16::from_be_bytes([*high, *low])));
                out.extend_from_slice(letter.unwrap_or('\u{fffd}').encode_utf8(&mut [0; 4]).as_bytes());
                after.get(5..)?
            }
            _ => {
                // `\/` is a slash.
                out.extend_from_slice(if after.first() == Some(&b'/') { b"" } else { backslashes });
                after
            }
        };
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// Text in which the hexadecimal form of bytea may stand anywhere: in arrays and rows, at any depth. Digits are replaced by digits, so
/// quotes and escapes around them stay right.
fn text_and_hex(masker: &mut dyn Masking, value: &[u8]) -> Option<Vec<u8>> {
    let decoded = within_hex(masker, value);
    masker.text(decoded.as_deref().unwrap_or(value)).or(decoded)
}

fn within_hex(masker: &mut dyn Masking, value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut position = 0;
    for found in memchr::memmem::find_iter(value, HEX) {
        let start = found + HEX.len();
        let run = value.get(start..).unwrap_or_default();
        let length = run.iter().take_while(|b| b.is_ascii_hexdigit()).count() & !1;
        let bytes = run.get(..length).and_then(from_digits).unwrap_or_default();
        if let Some(masked) = masker.text(&bytes) {
            out.extend_from_slice(value.get(position..start).unwrap_or_default());
            out.extend(digits(&masked));
            position = start + length;
        }
    }
    if position == 0 {
        return None;
    }
    out.extend_from_slice(value.get(position..).unwrap_or_default());
    Some(out)
}

/// A text as a JSON string.
pub(crate) fn json_string(text: &[u8]) -> Vec<u8> {
    serde_json::Value::from(String::from_utf8(text.to_vec()).unwrap_or_else(|_| "[REDACTED]".to_owned()))
        .to_string()
        .into_bytes()
}

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
