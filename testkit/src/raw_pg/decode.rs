//! Backend messages read strictly: each read is checked, and bytes left over are an error.

use std::fmt;

use crate::error::{Error, Result};

/// One message from the peer.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type, such as `Z` for ReadyForQuery.
    pub tag: u8,
    /// What stands behind the length.
    pub body: Vec<u8>,
}

/// One column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The column's name in the result.
    pub name: String,
    /// OID of the table it comes from, 0 when it is computed.
    pub table: u32,
    /// Attribute number in that table, 0 when it is computed.
    pub attribute: i16,
    /// OID of the type.
    pub type_oid: u32,
    /// Size of the type in bytes, negative when it varies.
    pub type_size: i16,
    /// Type modifier.
    pub modifier: i32,
    /// 0 for text, 1 for binary.
    pub format: i16,
}

/// An ErrorResponse or NoticeResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Field type and value, in the order sent.
    pub fields: Vec<(u8, String)>,
}

/// An authentication request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authentication {
    /// Logged in.
    Ok,
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password, with its salt.
    Md5Password([u8; 4]),
    /// AuthenticationSASL, with the mechanisms offered.
    Sasl(Vec<String>),
    /// Any other request, by its number.
    Other(u32),
}

impl Frame {
    /// This frame as an authentication request.
    ///
    /// # Errors
    /// When it is another message (the text of an ErrorResponse is in the message then), or malformed.
    pub fn authentication(&self) -> Result<Authentication> {
        if self.tag == b'E' {
            return Err(Error::new(self.fault()?.to_string()));
        }
        self.expect(b'R')?;
        let mut reader = Reader(&self.body);
        let request = match reader.u32()? {
            0 => Authentication::Ok,
            3 => Authentication::CleartextPassword,
            5 => Authentication::Md5Password(reader.array()?),
            10 => Authentication::Sasl(reader.texts()?),
            other => return Ok(Authentication::Other(other)),
        };
        reader.end()?;
        Ok(request)
    }

    /// This frame as an ErrorResponse or NoticeResponse.
    ///
    /// # Errors
    /// When it is another message, or malformed.
    pub fn fault(&self) -> Result<Fault> {
        if self.tag != b'N' {
            self.expect(b'E')?;
        }
        let mut reader = Reader(&self.body);
        let mut fields = Vec::new();
        loop {
            match reader.u8()? {
                0 => break,
                field => fields.push((field, reader.text()?)),
            }
        }
        reader.end()?;
        Ok(Fault { fields })
    }

    /// The transaction status of a ReadyForQuery: `I`, `T` or `E`.
    ///
    /// # Errors
    /// When it is another message, or malformed.
    pub fn transaction_status(&self) -> Result<u8> {
        self.expect(b'Z')?;
        let mut reader = Reader(&self.body);
        let status = reader.u8()?;
        reader.end()?;
        Ok(status)
    }

    /// Process and secret of a BackendKeyData; the secret is 4 bytes in protocol 3.0, up to 256 in 3.2.
    ///
    /// # Errors
    /// When it is another message, or malformed.
    pub fn cancel_key(&self) -> Result<(u32, Vec<u8>)> {
        self.expect(b'K')?;
        let mut reader = Reader(&self.body);
        let process = reader.u32()?;
        match reader.0.len() {
            4..=256 => Ok((process, reader.0.to_vec())),
            other => Err(Error::new(format!("a cancel key of {other} bytes"))),
        }
    }

    /// The tag of a CommandComplete, such as `SELECT 3`.
    ///
    /// # Errors
    /// When it is another message, or malformed.
    pub fn command(&self) -> Result<String> {
        self.expect(b'C')?;
        let mut reader = Reader(&self.body);
        let command = reader.text()?;
        reader.end()?;
        Ok(command)
    }

    fn expect(&self, tag: u8) -> Result<()> {
        if self.tag == tag {
            return Ok(());
        }
        Err(Error::new(format!("expected message `{}`, got {self:?}", tag as char)))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` \"{}\"", self.tag as char, self.body.escape_ascii())
    }
}

impl Fault {
    /// The value of a field, such as `D` for the detail.
    pub fn field(&self, field: u8) -> Option<&str> {
        self.fields.iter().find(|(tag, _)| *tag == field).map(|(_, value)| value.as_str())
    }

    /// The SQLSTATE code, empty when there is none.
    pub fn code(&self) -> &str {
        self.field(b'C').unwrap_or_default()
    }

    /// The message, empty when there is none.
    pub fn message(&self) -> &str {
        self.field(b'M').unwrap_or_default()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.field(b'S').unwrap_or_default(), self.code(), self.message())
    }
}

/// The columns of a RowDescription, from its body.
///
/// # Errors
/// When it is cut short, has bytes left over, or a name is not UTF-8.
pub fn row_description(body: &[u8]) -> Result<Vec<Field>> {
    let mut reader = Reader(body);
    let count = reader.u16()?;
    let fields = (0..count)
        .map(|_| {
            Ok(Field {
                name: reader.text()?,
                table: reader.u32()?,
                attribute: i16::from_be_bytes(reader.array()?),
                type_oid: reader.u32()?,
                type_size: i16::from_be_bytes(reader.array()?),
                modifier: i32::from_be_bytes(reader.array()?),
                format: i16::from_be_bytes(reader.array()?),
            })
        })
        .collect::<Result<_>>()?;
    reader.end()?;
    Ok(fields)
}

/// The values of a DataRow, from its body; `None` is NULL.
///
/// # Errors
/// When it is cut short, has bytes left over, or a length is negative and not -1.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut reader = Reader(body);
    let count = reader.u16()?;
    let values = (0..count)
        .map(|_| match i32::from_be_bytes(reader.array()?) {
            -1 => Ok(None),
            length => {
                let length =
                    usize::try_from(length).map_err(|_| Error::new(format!("a value of {length} bytes")))?;
                Ok(Some(reader.bytes(length)?.to_vec()))
            }
        })
        .collect::<Result<_>>()?;
    reader.end()?;
    Ok(values)
}

/// Name and value of a ParameterStatus, from its body.
///
/// # Errors
/// When it is cut short, has bytes left over, or is not UTF-8.
pub fn parameter_status(body: &[u8]) -> Result<(String, String)> {
    let mut reader = Reader(body);
    let pair = (reader.text()?, reader.text()?);
    reader.end()?;
    Ok(pair)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) =
            self.0.split_at_checked(count).ok_or_else(|| Error::new("the message is cut short"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Text up to a zero byte.
    fn text(&mut self) -> Result<String> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or_else(|| Error::new("a text has no end"))?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        String::from_utf8(text.to_vec()).map_err(|_| Error::new("a text is not UTF-8"))
    }

    /// Texts up to an empty one.
    fn texts(&mut self) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        loop {
            let text = self.text()?;
            if text.is_empty() {
                return Ok(texts);
            }
            texts.push(text);
        }
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Error::new(format!("the message has {} bytes left over", self.0.len())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_survive_and_nothing_else_passes(row in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..9),
                                                extra in 1_usize..4) {
            let mut body = (row.len() as u16).to_be_bytes().to_vec();
            for value in &row {
                body.extend(value.as_ref().map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
                body.extend(value.iter().flatten());
            }
            prop_assert_eq!(data_row(&body).unwrap(), row);
            prop_assert!(data_row(&body[..body.len() - 1]).is_err());
            body.extend(vec![0; extra]);
            prop_assert!(data_row(&body).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..64), tag in any::<u8>()) {
            let frame = Frame { tag, body };
            let _ = (frame.authentication(), frame.fault(), frame.cancel_key(), frame.command());
            let _ = (frame.transaction_status(), row_description(&frame.body), parameter_status(&frame.body));
        }
    }

    #[test]
    fn a_negative_length_is_an_error() {
        assert!(data_row(&[0, 1, 255, 255, 255, 254]).is_err());
    }

    #[test]
    fn a_fault_shows_severity_code_and_message() {
        let frame = Frame { tag: b'E', body: b"SERROR\0C42501\0Mno\0Dmore\0\0".to_vec() };
        let fault = frame.fault().unwrap();
        assert_eq!(fault.to_string(), "ERROR 42501: no");
        assert_eq!(fault.field(b'D'), Some("more"));
        let authentication = frame.authentication().unwrap_err();
        assert!(authentication.to_string().contains("42501"));
    }
}
