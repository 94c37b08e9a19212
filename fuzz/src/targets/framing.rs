//! Messages of both sides, cut into frames and decoded.

use bytes::BytesMut;
use gateway_pg::codec::{Frame, backend, frontend, next_frame};

use super::{Target, kind, outcome};

pub const TARGET: Target = Target {
    name: "framing",
    run,
    words: &[
        b"Q\0\0\0\x0d",
        b"P\0\0\0",
        b"B\0\0\0",
        b"D\0\0\0\x06S\0",
        b"E\0\0\0\x09\0\0\0\0\0",
        b"S\0\0\0\x04",
        b"T\0\0\0",
        b"\0\0\0\x04",
        b"\xff\xff\xff\xff",
        b"\0\x01",
        b"SELECT 1\0",
    ],
};

/// The largest frame taken, small enough to be met.
const LARGE: usize = 4 * 1024;

fn run(input: &[u8]) -> u64 {
    outcome((client(input), server(input)))
}

/// Frames are the same however they come; decoding never reads past one.
fn client(input: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    let mut whole = BytesMut::from(input);
    loop {
        match next_frame(&mut whole, |tag| frontend::limit(tag, LARGE)) {
            Ok(Some(frame)) => told.push(match frontend::decode(&frame) {
                Ok(message) => format!("{}{}", frame.tag(), variant(&message)),
                Err(error) => kind(&error),
            }),
            Ok(None) => break,
            Err(error) => {
                told.push(kind(&error));
                break;
            }
        }
    }
    assert_eq!(frames(input, 1), frames(input, input.len().max(1)), "cuts change the frames");
    told.truncate(12);
    told
}

fn variant(message: &frontend::Message) -> String {
    format!("{message:?}").chars().take_while(|c| c.is_ascii_alphabetic()).collect()
}

fn frames(input: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for chunk in input.chunks(piece) {
        buffer.extend_from_slice(chunk);
        loop {
            match next_frame(&mut buffer, |tag| frontend::limit(tag, LARGE)) {
                Ok(Some(frame)) => found.push(raw(&frame)),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fn raw(frame: &Frame) -> Vec<u8> {
    [&[frame.tag()], frame.body()].concat()
}

fn server(input: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    let mut buffer = BytesMut::from(input);
    while let Ok(Some(frame)) = next_frame(&mut buffer, |tag| backend::limit(tag, LARGE)) {
        let body = frame.body();
        told.push(match frame.tag() {
            b'T' => told_of(backend::row_description(body).map(|f| f.len())),
            b'Z' => told_of(backend::ready_for_query(body)),
            b'S' => told_of(backend::parameter_status(body).map(|(n, _)| n.len())),
            b'E' | b'N' => told_of(backend::fields(body).map(|f| f.len())),
            b'A' => told_of(backend::notification(body).map(|(_, c, _)| c.len())),
            b'C' => told_of(backend::command_tag(body).map(str::len)),
            b'G' | b'H' => told_of(backend::copy_response(body)),
            b'K' => told_of(backend::key_data(body).map(|(_, k)| k.len())),
            tag => char::from(tag).to_string(),
        });
    }
    told.truncate(12);
    told
}

fn told_of<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| kind(&error), |value| format!("{value:?}").chars().take(6).collect())
}
