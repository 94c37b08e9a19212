//! Recordings as JSON lines, for tools that know nothing of the file format.

use std::io::Read;

use serde_json::{Map, Value};

use super::reader::RecordingReader;
use crate::clock::Timestamp;
use crate::recording::{Header, Position, Record};

/// Fields that hold a [`Timestamp`] in a header or a record, wherever they stand.
const TIME_FIELDS: [&str; 3] = ["expires", "expires_at", "started"];

/// The whole recording: its header first, then every record, one JSON object each, without line ends.
///
/// Every object has `position`, `at` (RFC 3339, microseconds, UTC) and `event`. Released bytes are base64. Line ends and
/// control characters inside text are escaped, so a line is a record whatever was recorded. Records that the reader marks as
/// [`unproven`](super::ReadRecord::unproven) have `"proven": false`.
#[derive(Debug)]
pub struct RecordJson<'a, R> {
    reader: &'a mut RecordingReader<R>,
    header_done: bool,
}

impl<'a, R: Read> RecordJson<'a, R> {
    /// Exports what `reader` has yet to read; ask the reader for its [`end`](RecordingReader::end) afterwards.
    pub const fn new(reader: &'a mut RecordingReader<R>) -> Self {
        Self { reader, header_done: false }
    }
}

impl<R: Read> Iterator for RecordJson<'_, R> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if !self.header_done {
            self.header_done = true;
            return Some(header_json(self.reader.header()));
        }
        self.reader.next().map(|read| {
            let value = serde_json::to_value(&read.record);
            object(read.position, read.at, value, None, !read.unproven)
        })
    }
}

/// A header as a JSON object with `event` `header`.
pub fn header_json(header: &Header) -> String {
    object(Position(0), header.started, serde_json::to_value(header), Some("header"), true)
}

/// One record as a JSON object.
pub fn record_json(position: Position, at: Timestamp, record: &Record) -> String {
    object(position, at, serde_json::to_value(record), None, true)
}

fn object(
    position: Position,
    at: Timestamp,
    value: serde_json::Result<Value>,
    event: Option<&str>,
    proven: bool,
) -> String {
    let mut object = match value {
        Ok(Value::Object(object)) => object,
        // Records are maps with text keys, which always become objects.
        _ => Map::new(),
    };
    if let Some(principal) = object.get_mut("principal").and_then(Value::as_object_mut) {
        readable_times(principal);
    }
    readable_times(&mut object);
    object.insert("position".to_owned(), position.0.into());
    object.insert("at".to_owned(), at.to_string().into());
    if let Some(event) = event {
        object.insert("event".to_owned(), event.into());
    }
    if !proven {
        object.insert("proven".to_owned(), false.into());
    }
    Value::Object(object).to_string()
}

fn readable_times(object: &mut Map<String, Value>) {
    for name in TIME_FIELDS {
        if let Some(value) = object.get_mut(name)
            && let Some(micros) = value.as_i64()
        {
            *value = Timestamp::from_micros(micros).to_string().into();
        }
    }
}
