//! File transfer frames of both directions: cut, decoded, and followed through a session.
//!
//! The input is `length of the client's part (2 bytes) | the client's frames | the server's frames`.

use std::collections::VecDeque;

use bytes::Bytes;
use gateway_ssh::sftp::{
    Answered, Asked, ClientMessage, FrameDecoder, Limits, ServerMessage, Session, SftpError,
};

use super::{Target, kind, outcome};

pub const TARGET: Target = Target {
    name: "sftp",
    run,
    words: &[
        b"\0\0\0\x05\x01\0\0\0\x03",
        b"\0\0\0\x05\x02\0\0\0\x03",
        b"\0\0\0\x11\x03\0\0\0\x01\0\0\0\x04/etc\0\0\0\x01\0\0\0\0",
        b"\0\0\0\x09\x04\0\0\0\x01\0\0\0\0",
        b"\0\0\0\x15\x05\0\0\0\x01",
        b"\x12\0\0\0\x01",
        b"\xc8\0\0\0\x01",
        b"\0\0\0\x18posix-rename@openssh.com",
        b"\0\0\0\x14hardlink@openssh.com",
        b"\0\0\0\x09copy-data",
        b"\0\0\0\x13limits@openssh.com",
        b"\0\0\0\x0d\x66\0\0\0\x01\0\0\0\x04\0\0\0\0",
        b"\0\0\0\x11\x65\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x68\0\0\0\x01\0\0\0\x01",
        b"\0\0\0\x02..",
        b"/",
        b"\x80\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\x04\x04\0",
    ],
};

/// Few enough that a short input meets them.
const LIMITS: Limits = Limits { requests: 8, handles: 4 };

/// Answers told in the outcome.
const TOLD: usize = 12;

fn run(input: &[u8]) -> u64 {
    let (length, rest) = input.split_first_chunk::<2>().unwrap_or((&[0, 0], input));
    let (client, server) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let (asked, answers) = (frames(client, client.len()), frames(server, server.len()));
    assert_eq!(asked, frames(client, 1), "cuts change the client's frames");
    assert_eq!(answers, frames(server, 3), "cuts change the server's frames");
    for frame in asked.0.iter().chain(&answers.0) {
        read_back(frame);
    }
    outcome((follow(&asked.0, &answers.0), asked.1.is_some(), answers.1.is_some()))
}

fn frames(stream: &[u8], piece: usize) -> (Vec<Bytes>, Option<SftpError>) {
    let (mut decoder, mut found) = (FrameDecoder::new(), Vec::new());
    for chunk in stream.chunks(piece.max(1)) {
        if let Err(error) = decoder.push(chunk) {
            return (found, Some(error));
        }
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// What is understood can be written, and then means the same: the target gets what was judged.
fn read_back(frame: &Bytes) {
    if let Ok(message) = ClientMessage::decode(frame) {
        assert_eq!(ClientMessage::decode(&message.encode()), Ok(message), "a request changes");
    }
    if let Ok(message) = ServerMessage::decode(frame) {
        assert_eq!(ServerMessage::decode(&message.encode()), Ok(message), "an answer changes");
    }
}

/// Every request is forwarded or refused, and the server's frames answer what was forwarded, in turn.
fn follow(asked: &[Bytes], answers: &[Bytes]) -> Vec<String> {
    let (mut session, mut told) = (Session::new(LIMITS), Vec::new());
    let (mut answers, mut open) = (answers.iter(), VecDeque::new());
    for frame in asked {
        match session.request(frame.clone()) {
            Ok(Asked::Init(_)) => {
                if let Some(answer) = answers.next() {
                    told.push(said(&session.response(answer.clone())));
                }
            }
            Ok(Asked::File(operation)) => {
                assert!(
                    operation.paths().iter().all(|path| is_clean(path.path.as_deref())),
                    "a path is not clean"
                );
                told.push(format!("{:?}", operation.kind()));
                let Ok(forwarded) = session.forward(*operation) else { continue };
                assert!(ClientMessage::decode(&forwarded).is_ok(), "what is forwarded cannot be read");
                open.push_back(id(&forwarded));
            }
            Ok(Asked::Refused(answer)) => {
                assert!(ServerMessage::decode(&answer).is_ok(), "a refusal cannot be read");
                told.push("refused".to_owned());
            }
            Err(error) => {
                told.push(kind(&error));
                if error.answerable().is_none() {
                    break;
                }
            }
        }
        while open.len() > LIMITS.requests / 2
            && let (Some(id), Some(answer)) = (open.pop_front(), answers.next())
        {
            told.push(answer_with(&mut session, answer, id));
        }
    }
    while let (Some(id), Some(answer)) = (open.pop_front(), answers.next()) {
        told.push(answer_with(&mut session, answer, id));
    }
    told.truncate(TOLD);
    told
}

/// Absolute, without empty, `.` and `..` components.
fn is_clean(path: Option<&[u8]>) -> bool {
    let Some(path) = path else { return true };
    let Some(rest) = path.strip_prefix(b"/") else { return false };
    rest.is_empty() || rest.split(|b| *b == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
}

fn id(frame: &Bytes) -> [u8; 4] {
    frame.get(5..9).and_then(|id| id.try_into().ok()).unwrap_or_default()
}

/// The same answer, to this request.
fn answer_with(session: &mut Session, answer: &Bytes, id: [u8; 4]) -> String {
    let mut answer = answer.to_vec();
    if let Some(place) = answer.get_mut(5..9) {
        place.copy_from_slice(&id);
    }
    said(&session.response(answer.into()))
}

fn said(answered: &Result<Answered, SftpError>) -> String {
    match answered {
        Ok(Answered::Version(extensions)) => format!("version {}", extensions.len().min(2)),
        Ok(Answered::Own(..)) => panic!("an answer to what was not asked"),
        Ok(Answered::Reply(reply)) => {
            format!("{:?}", reply.response).chars().take_while(|c| c.is_ascii_alphabetic()).collect()
        }
        Err(error) => kind(error),
    }
}
