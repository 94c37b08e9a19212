//! Rows out of recorded protocol messages.

use bytes::BytesMut;
use gateway_pg::RECORD_ENCODING;
use gateway_pg::codec::backend::{self, Field};
use gateway_pg::codec::{DEFAULT_MAX_FRAME_BYTES, Frame, next_frame};

use crate::output::Escaped;

/// Reads what was released to the client, message by message. Messages may be cut anywhere between records.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    fields: Vec<Field>,
    /// Nothing more can be told apart once a frame was wrong.
    lost: bool,
}

impl Decoder {
    /// The lines that these bytes complete.
    pub(super) fn read(&mut self, encoding: &str, bytes: &[u8]) -> Vec<String> {
        if encoding != RECORD_ENCODING {
            return vec![format!("               ({} bytes in `{}`)", bytes.len(), Escaped(encoding))];
        }
        if self.lost {
            return Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
        let mut lines = Vec::new();
        loop {
            match next_frame(&mut self.buffer, |tag| backend::limit(tag, DEFAULT_MAX_FRAME_BYTES)) {
                Ok(Some(frame)) => lines.extend(self.frame(&frame)),
                Ok(None) => return lines,
                Err(error) => {
                    self.lost = true;
                    lines
                        .push(format!("               (the released bytes cannot be read further: {error})"));
                    return lines;
                }
            }
        }
    }

    fn frame(&mut self, frame: &Frame) -> Option<String> {
        let body = frame.body();
        let text = match frame.tag() {
            b'T' => {
                self.fields = backend::row_description(body).ok()?;
                let names: Vec<String> = self.fields.iter().map(|f| Escaped(&f.name).to_string()).collect();
                names.join(" | ")
            }
            b'D' => self.row(body)?,
            b'd' => cell(None, body.strip_suffix(b"\n").unwrap_or(body)),
            b'E' | b'N' => message(body)?,
            _ => return None,
        };
        Some(format!("               {text}"))
    }

    fn row(&self, body: &[u8]) -> Option<String> {
        let columns = usize::from(u16::from_be_bytes(*body.first_chunk::<2>()?));
        let mut cells = Vec::new();
        backend::row_cells(body, columns, &mut cells).ok()?;
        // A prepared statement may have been described long before, or another one since.
        let known = self.fields.len() == columns;
        let shown = cells.iter().enumerate().map(|(i, range)| match range {
            None => "null".to_owned(),
            Some((start, end)) => {
                let field = self.fields.get(i).filter(|_| known);
                cell(field, body.get(*start..*end).unwrap_or_default())
            }
        });
        Some(shown.collect::<Vec<_>>().join(" | "))
    }
}

/// One value: text as text, the commonest binary types as numbers, other bytes in hexadecimal (as PostgreSQL's `\x...`).
fn cell(field: Option<&Field>, value: &[u8]) -> String {
    if let Some(field) = field.filter(|field| field.format == 1)
        && let Some(number) = binary_number(field.type_oid, value)
    {
        return number;
    }
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Escaped(text).to_string(),
        _ => value.iter().fold("\\x".to_owned(), |out, byte| format!("{out}{byte:02x}")),
    }
}

/// `pg_type.oid` of bool, int8, int2, int4, float4, float8: fixed for all servers.
fn binary_number(type_oid: u32, value: &[u8]) -> Option<String> {
    Some(match type_oid {
        16 => (value == [1]).to_string(),
        20 => i64::from_be_bytes(value.try_into().ok()?).to_string(),
        21 => i16::from_be_bytes(value.try_into().ok()?).to_string(),
        23 => i32::from_be_bytes(value.try_into().ok()?).to_string(),
        700 => f32::from_be_bytes(value.try_into().ok()?).to_string(),
        701 => f64::from_be_bytes(value.try_into().ok()?).to_string(),
        _ => return None,
    })
}

/// An error or a notice, as psql shows it.
fn message(body: &[u8]) -> Option<String> {
    let field = |kind| backend::error_field(body, kind).unwrap_or_default();
    let (severity, code, text) = (field(b'S'), field(b'C'), field(b'M'));
    Some(format!("{} {}: {}", Escaped(&severity), Escaped(&code), Escaped(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn wire() -> Vec<u8> {
        let description = b"\0\x02a\x1b\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0b\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01";
        let row = b"\0\x02\0\0\0\x05x\x1b[2J\0\0\0\x04\0\0\0\x2a";
        let nulls = b"\0\x02\xff\xff\xff\xff\0\0\0\x00";
        [frame(b'T', description), frame(b'D', row), frame(b'D', nulls), frame(b'C', b"SELECT 2\0")].concat()
    }

    #[test]
    fn rows_are_readable_however_they_were_cut() {
        let whole: Vec<String> = Decoder::default().read(RECORD_ENCODING, &wire());
        let trimmed: Vec<&str> = whole.iter().map(|line| line.trim()).collect();
        assert_eq!(trimmed, ["a\\u{1b} | b", "x\\u{1b}[2J | 42", "null |"]);
        for cut in 0..wire().len() {
            let mut decoder = Decoder::default();
            let mut lines = decoder.read(RECORD_ENCODING, &wire()[..cut]);
            lines.extend(decoder.read(RECORD_ENCODING, &wire()[cut..]));
            assert_eq!(lines, whole, "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_ends_the_decoding_and_nothing_else() {
        let mut decoder = Decoder::default();
        let lines = decoder.read(RECORD_ENCODING, b"D\xff\xff\xff\xff");
        assert!(lines[0].contains("cannot be read further"), "{lines:?}");
        assert!(decoder.read(RECORD_ENCODING, &wire()).is_empty());
        assert!(Decoder::default().read("ssh/2", b"abc")[0].contains("3 bytes in `ssh/2`"));
    }

    #[test]
    fn errors_are_shown_and_bytes_are_hexadecimal() {
        let error = frame(b'E', b"SERROR\0C42501\0Mno \x1b\0\0");
        let lines = Decoder::default().read(RECORD_ENCODING, &error);
        assert_eq!(lines[0].trim(), "ERROR 42501: no \\u{1b}");
        assert_eq!(cell(None, b"\0\xff"), "\\x00ff");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            Decoder::default().read(RECORD_ENCODING, &bytes);
        }

        #[test]
        fn no_body_panics(tag in proptest::sample::select(&b"TDdENCZ"[..]), body: Vec<u8>) {
            Decoder::default().read(RECORD_ENCODING, &frame(tag, &body));
        }
    }
}
