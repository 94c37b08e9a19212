//! Messages from the downstream.

use bytes::Bytes;

use super::{DEFAULT_MAX_FRAME_BYTES, Frame, ProtocolError, Reader, SMALL_FRAME_BYTES};

/// The length limit for each frontend message type once login is over.
pub fn limit(tag: u8, large: usize) -> usize {
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' => large.min(DEFAULT_MAX_FRAME_BYTES.max(large)),
        _ => SMALL_FRAME_BYTES,
    }
}

/// What a Describe or Close names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

/// Parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parse {
    /// The prepared statement's name; empty is the unnamed one.
    pub name: String,
    /// The exact text, without its terminator.
    pub statement: Bytes,
    /// Type OIDs given for the parameters.
    pub types: Vec<u32>,
}

/// Bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The portal's name; empty is the unnamed one.
    pub portal: String,
    /// The prepared statement's name.
    pub statement: String,
    /// Format codes of the parameters: none, one for all, or one each.
    pub parameter_formats: Vec<i16>,
    /// The parameter values.
    pub parameters: Vec<Option<Bytes>>,
    /// Format codes of the results: none, one for all, or one each.
    pub result_formats: Vec<i16>,
}

/// FunctionCall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCall {
    /// The function's object id.
    pub function: u32,
    /// Its arguments and the format of its result, as Bind has them; without names.
    pub bind: Bind,
}

/// A message from the downstream, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Simple query, text without its terminator.
    Query(Bytes),
    /// Parse.
    Parse(Parse),
    /// Bind.
    Bind(Bind),
    /// Describe.
    Describe(Named),
    /// Execute: portal and row limit (0 for none).
    Execute {
        /// The portal.
        portal: String,
        /// At most this many rows; 0 is no limit.
        max_rows: u32,
    },
    /// Close.
    Close(Named),
    /// Flush.
    Flush,
    /// Sync.
    Sync,
    /// CopyData.
    CopyData,
    /// CopyDone.
    CopyDone,
    /// CopyFail with its message.
    CopyFail,
    /// FunctionCall.
    FunctionCall(FunctionCall),
    /// Terminate.
    Terminate,
}

/// Decodes one frame strictly.
///
/// # Errors
/// Malformed bodies, text that is not UTF-8, unknown types.
pub fn decode(frame: &Frame) -> Result<Message, ProtocolError> {
    let body = frame.body();
    match frame.tag() {
        b'Q' => query(frame),
        b'P' => parse(frame),
        b'B' => bind(frame),
        b'D' => named(body, "Describe").map(Message::Describe),
        b'C' => named(body, "Close").map(Message::Close),
        b'E' => execute(body),
        b'H' => empty(body, "Flush", Message::Flush),
        b'S' => empty(body, "Sync", Message::Sync),
        b'd' => Ok(Message::CopyData),
        b'c' => empty(body, "CopyDone", Message::CopyDone),
        b'f' => copy_fail(body),
        b'F' => function_call(frame),
        b'X' => empty(body, "Terminate", Message::Terminate),
        tag => Err(ProtocolError::Unexpected { tag, during: "from the client" }),
    }
}

fn empty(body: &[u8], what: &'static str, message: Message) -> Result<Message, ProtocolError> {
    Reader::new(body, what).finish().map(|()| message)
}

fn query(frame: &Frame) -> Result<Message, ProtocolError> {
    let mut reader = Reader::new(frame.body(), "Query");
    let text = reader.c_str()?.len();
    reader.finish()?;
    Ok(Message::Query(frame.body_bytes().slice(..text)))
}

fn parse(frame: &Frame) -> Result<Message, ProtocolError> {
    let mut reader = Reader::new(frame.body(), "Parse");
    let name = reader.c_str()?.to_owned();
    let length = reader.c_str()?.len();
    let start = name.len() + 1;
    let count = reader.u16()?;
    let types = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(Message::Parse(Parse { name, statement: frame.body_bytes().slice(start..start + length), types }))
}

fn formats(reader: &mut Reader<'_>) -> Result<Vec<i16>, ProtocolError> {
    let count = reader.u16()?;
    let formats: Vec<_> = (0..count).map(|_| reader.i16()).collect::<Result<_, _>>()?;
    if formats.iter().all(|f| matches!(f, 0 | 1)) { Ok(formats) } else { Err(reader.malformed()) }
}

fn bind(frame: &Frame) -> Result<Message, ProtocolError> {
    let mut reader = Reader::new(frame.body(), "Bind");
    let portal = reader.c_str()?.to_owned();
    let statement = reader.c_str()?.to_owned();
    let (parameter_formats, parameters) = parameters(&mut reader, frame)?;
    let result_formats = formats(&mut reader)?;
    reader.finish()?;
    Ok(Message::Bind(Bind { portal, statement, parameter_formats, parameters, result_formats }))
}

/// Format codes and values.
fn parameters(
    reader: &mut Reader<'_>,
    frame: &Frame,
) -> Result<(Vec<i16>, Vec<Option<Bytes>>), ProtocolError> {
    let formats = formats(reader)?;
    let count = reader.u16()?;
    let body = frame.body_bytes();
    let values = (0..count)
        .map(|_| reader.value().map(|value| value.map(|v| body.slice_ref(v))))
        .collect::<Result<Vec<_>, _>>()?;
    if formats.len() > 1 && formats.len() != values.len() {
        return Err(reader.malformed());
    }
    Ok((formats, values))
}

fn function_call(frame: &Frame) -> Result<Message, ProtocolError> {
    let mut reader = Reader::new(frame.body(), "FunctionCall");
    let function = reader.u32()?;
    let (parameter_formats, parameters) = parameters(&mut reader, frame)?;
    let result = reader.i16()?;
    if !matches!(result, 0 | 1) {
        return Err(reader.malformed());
    }
    reader.finish()?;
    let (portal, statement, result_formats) = (String::new(), String::new(), vec![result]);
    let bind = Bind { portal, statement, parameter_formats, parameters, result_formats };
    Ok(Message::FunctionCall(FunctionCall { function, bind }))
}

fn named(body: &[u8], what: &'static str) -> Result<Named, ProtocolError> {
    let mut reader = Reader::new(body, what);
    let kind = reader.u8()?;
    let name = reader.c_str()?.to_owned();
    let named = match kind {
        b'S' => Named::Statement(name),
        b'P' => Named::Portal(name),
        _ => return Err(reader.malformed()),
    };
    reader.finish().map(|()| named)
}

fn execute(body: &[u8]) -> Result<Message, ProtocolError> {
    let mut reader = Reader::new(body, "Execute");
    let portal = reader.c_str()?.to_owned();
    // The server treats any value <= 0 as no limit (exec_execute_message).
    let max_rows = u32::try_from(reader.i32()?).unwrap_or(0);
    reader.finish().map(|()| Message::Execute { portal, max_rows })
}

fn copy_fail(body: &[u8]) -> Result<Message, ProtocolError> {
    let mut reader = Reader::new(body, "CopyFail");
    reader.c_str()?;
    reader.finish().map(|()| Message::CopyFail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::next_frame;
    use bytes::BytesMut;

    fn frame(tag: u8, body: &[u8]) -> Frame {
        let mut wire = BytesMut::from(&[tag][..]);
        wire.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        wire.extend_from_slice(body);
        next_frame(&mut wire, |_| 1 << 20).unwrap().unwrap()
    }

    #[test]
    fn one_frame_is_never_two_queries() {
        // A server answers 08P01; a lax decoder sees a second statement.
        let smuggled = frame(b'Q', b"select 1\0Q\0\0\0\x10drop table t\0");
        assert_eq!(decode(&smuggled), Err(ProtocolError::Malformed("Query")));
        assert_eq!(decode(&frame(b'Q', b"select 1")), Err(ProtocolError::Malformed("Query")));
        assert_eq!(decode(&frame(b'Q', b"select \xff\0")), Err(ProtocolError::NotUtf8("Query")));
    }

    #[test]
    fn bind_is_bounded_by_its_frame() {
        let good = frame(b'B', b"\0s\0\0\0\0\x01\0\0\0\x02hi\0\0");
        let Ok(Message::Bind(bind)) = decode(&good) else { panic!() };
        assert_eq!(bind.parameters, [Some(Bytes::from_static(b"hi"))]);
        for cut in 0..good.body().len() {
            assert!(decode(&frame(b'B', &good.body()[..cut])).is_err(), "cut at {cut}");
        }
        assert!(decode(&frame(b'B', b"\0s\0\0\x01\0\x02\0\0\0\0")).is_err(), "format code 2 does not exist");
    }

    #[test]
    fn function_calls_are_bounded_by_their_frame() {
        let good = frame(b'F', b"\0\0\x03\xba\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07\0\x01");
        let Ok(Message::FunctionCall(call)) = decode(&good) else { panic!() };
        assert_eq!((call.function, call.bind.result_formats.as_slice()), (954, &[1][..]));
        assert_eq!(call.bind.parameters, [Some(Bytes::from_static(b"\0\0\0\x07"))]);
        for cut in 0..good.body().len() {
            assert!(decode(&frame(b'F', &good.body()[..cut])).is_err(), "cut at {cut}");
        }
        let more = [good.body(), b"x"].concat();
        assert!(decode(&frame(b'F', &more)).is_err());
    }

    #[test]
    fn unknown_types_and_trailing_bytes_are_refused() {
        assert!(decode(&frame(b'W', b"")).is_err());
        assert!(decode(&frame(b'S', b"x")).is_err());
        assert!(decode(&frame(b'C', b"Xname\0")).is_err());
    }
}
