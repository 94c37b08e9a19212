//! Messages from the upstream.

use super::{ProtocolError, Reader, SMALL_FRAME_BYTES};

/// Most columns a row can have: the count is 16 bits, the server's own limit is 1,664.
pub const MAX_COLUMNS: usize = 1_664;

/// The length limit for each backend message type.
pub fn limit(tag: u8, large: usize) -> usize {
    match tag {
        b'D' | b'd' | b'T' | b'E' | b'N' | b'A' | b't' | b'V' | b'S' => large,
        _ => SMALL_FRAME_BYTES,
    }
}

/// One column of a RowDescription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The column's name.
    pub name: String,
    /// The table it comes from, or 0.
    pub table: u32,
    /// Its attribute number there, or 0.
    pub attribute: i16,
    /// Its type.
    pub type_oid: u32,
    /// 0 text, 1 binary (or not yet known, in a statement's description).
    pub format: i16,
}

/// RowDescription.
///
/// # Errors
/// Malformed bodies.
pub fn row_description(body: &[u8]) -> Result<Vec<Field>, ProtocolError> {
    let mut reader = Reader::new(body, "RowDescription");
    let count = usize::from(reader.u16()?);
    if count > MAX_COLUMNS {
        return Err(ProtocolError::Limit("columns of a row"));
    }
    let fields = (0..count).map(|_| field(&mut reader)).collect::<Result<_, _>>()?;
    reader.finish().map(|()| fields)
}

fn field(reader: &mut Reader<'_>) -> Result<Field, ProtocolError> {
    let name = reader.c_str()?.to_owned();
    let table = reader.u32()?;
    let attribute = reader.i16()?;
    let type_oid = reader.u32()?;
    reader.take(6)?; // type size and modifier
    let format = reader.i16()?;
    Ok(Field { name, table, attribute, type_oid, format })
}

/// The name in a (well-formed) RowDescription's body whose field begins at `start`, and where the next field begins; the first does at 2.
pub fn name_from(body: &[u8], start: usize) -> Option<(std::ops::Range<usize>, usize)> {
    /// Table, attribute, type, size, modifier, format.
    const FIXED_BYTES: usize = 18;
    let length = memchr::memchr(0, body.get(start..)?)?;
    Some((start..start + length, start + length + 1 + FIXED_BYTES))
}

/// The transaction status in ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: not in a transaction.
    Idle,
    /// `T`: in a transaction.
    Open,
    /// `E`: in a failed transaction.
    Failed,
}

impl TransactionStatus {
    /// The byte on the wire.
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// ReadyForQuery.
///
/// # Errors
/// Malformed bodies.
pub fn ready_for_query(body: &[u8]) -> Result<TransactionStatus, ProtocolError> {
    match body {
        b"I" => Ok(TransactionStatus::Idle),
        b"T" => Ok(TransactionStatus::Open),
        b"E" => Ok(TransactionStatus::Failed),
        _ => Err(ProtocolError::Malformed("ReadyForQuery")),
    }
}

/// ParameterStatus: name and value.
///
/// # Errors
/// Malformed bodies.
pub fn parameter_status(body: &[u8]) -> Result<(&str, &str), ProtocolError> {
    let mut reader = Reader::new(body, "ParameterStatus");
    let pair = (reader.c_str()?, reader.c_str()?);
    reader.finish().map(|()| pair)
}

/// The fields of an ErrorResponse or NoticeResponse: (field type, text) in order.
///
/// Text is bytes: before login ends, and in `lc_messages` of another encoding, it need not be UTF-8.
///
/// # Errors
/// Malformed bodies.
pub fn fields(body: &[u8]) -> Result<Vec<(u8, &[u8])>, ProtocolError> {
    let mut reader = Reader::new(body, "ErrorResponse");
    let mut fields = Vec::with_capacity(8);
    loop {
        match reader.u8()? {
            0 => return reader.finish().map(|()| fields),
            kind => fields.push((kind, reader.c_bytes()?)),
        }
    }
}

/// The text of one field of an error, by type (`C` SQLSTATE, `M` message).
pub fn error_field(body: &[u8], kind: u8) -> Option<String> {
    let fields = fields(body).ok()?;
    let (_, text) = fields.into_iter().find(|(k, _)| *k == kind)?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

/// NotificationResponse: process id, channel, payload.
///
/// # Errors
/// Malformed bodies.
pub fn notification(body: &[u8]) -> Result<(u32, &str, &str), ProtocolError> {
    let mut reader = Reader::new(body, "NotificationResponse");
    let parts = (reader.u32()?, reader.c_str()?, reader.c_str()?);
    reader.finish().map(|()| parts)
}

/// FunctionCallResponse: the value, `None` for NULL.
///
/// # Errors
/// Malformed bodies.
pub fn function_result(body: &[u8]) -> Result<Option<&[u8]>, ProtocolError> {
    let mut reader = Reader::new(body, "FunctionCallResponse");
    let value = reader.value()?;
    reader.finish().map(|()| value)
}

/// CommandComplete's tag.
///
/// # Errors
/// Malformed bodies.
pub fn command_tag(body: &[u8]) -> Result<&str, ProtocolError> {
    let mut reader = Reader::new(body, "CommandComplete");
    let tag = reader.c_str()?;
    reader.finish().map(|()| tag)
}

/// CopyInResponse, CopyOutResponse: overall format and number of columns.
///
/// # Errors
/// Malformed bodies.
pub fn copy_response(body: &[u8]) -> Result<(u8, usize), ProtocolError> {
    let mut reader = Reader::new(body, "CopyResponse");
    let format = reader.u8()?;
    let columns = reader.u16()?;
    for _ in 0..columns {
        reader.i16()?;
    }
    reader.finish().map(|()| (format, usize::from(columns)))
}

/// The byte ranges of a DataRow's values within the frame's body, appended to `out`; `None` is null.
///
/// # Errors
/// Malformed bodies, or another number of columns than `columns`.
pub fn row_cells(
    body: &[u8],
    columns: usize,
    out: &mut Vec<Option<(usize, usize)>>,
) -> Result<(), ProtocolError> {
    let mut reader = Reader::new(body, "DataRow");
    if usize::from(reader.u16()?) != columns {
        return Err(ProtocolError::Malformed("DataRow"));
    }
    for _ in 0..columns {
        let start = body.len() - reader.remaining() + 4;
        out.push(reader.value()?.map(|value| (start, start + value.len())));
    }
    reader.finish()
}

/// Checks a DataRow as [`row_cells`] does, without keeping anything.
///
/// # Errors
/// As [`row_cells`].
pub fn check_row(body: &[u8], columns: usize) -> Result<(), ProtocolError> {
    let mut reader = Reader::new(body, "DataRow");
    if usize::from(reader.u16()?) != columns {
        return Err(ProtocolError::Malformed("DataRow"));
    }
    for _ in 0..columns {
        reader.value()?;
    }
    reader.finish()
}

/// The range of the value in a (well-formed) DataRow's body whose length stands at `start`, empty for NULL, and where the next one's
/// length stands; the first does at 2.
pub fn cell_from(body: &[u8], start: usize) -> Option<(std::ops::Range<usize>, usize)> {
    let length = i32::from_be_bytes(*body.get(start..)?.first_chunk()?);
    let (first, length) = (start + 4, usize::try_from(length).unwrap_or(0));
    Some((first..first + length, first + length))
}

/// BackendKeyData: process id and secret key (4 bytes in protocol 3.0, up to 256 in 3.2).
///
/// # Errors
/// Malformed bodies.
pub fn key_data(body: &[u8]) -> Result<(u32, &[u8]), ProtocolError> {
    let mut reader = Reader::new(body, "BackendKeyData");
    let pid = reader.u32()?;
    let key = reader.rest();
    if (4..=256).contains(&key.len()) { Ok((pid, key)) } else { Err(reader.malformed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_in_place() {
        let body = b"\0\x03\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\0";
        let mut cells = Vec::new();
        row_cells(body, 3, &mut cells).unwrap();
        assert_eq!(cells, [Some((6, 8)), None, Some((16, 16))]);
        assert_eq!(check_row(body, 3), Ok(()));
        let places = [2, 8, 12, 16].map(|start| cell_from(body, start));
        assert_eq!(places, [Some((6..8, 8)), Some((12..12, 12)), Some((16..16, 16)), None]);
        for cut in 0..body.len() {
            let cut = body.get(..cut).unwrap();
            assert_eq!(check_row(cut, 3), row_cells(cut, 3, &mut Vec::new()));
        }
        for cut in 0..body.len() {
            assert!(row_cells(&body[..cut], 3, &mut Vec::new()).is_err(), "cut at {cut}");
        }
        assert!(row_cells(body, 2, &mut Vec::new()).is_err());
    }

    #[test]
    fn errors_without_terminator_are_refused() {
        assert_eq!(fields(b"SERROR\0C42501\0\0").unwrap().len(), 2);
        assert!(fields(b"SERROR\0").is_err());
        assert!(fields(b"SERROR\0\0x").is_err());
    }
}
