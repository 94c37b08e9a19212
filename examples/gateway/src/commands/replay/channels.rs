//! What was released in SSH channels, in lines.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::operation::OperationId;
use gateway_core::recording::RecordedOperation;
use gateway_ssh::sftp::{FrameDecoder, Response, ServerMessage};

use super::screen::plain;
use crate::commands::utf8::Utf8;
use crate::output::Escaped;

/// A line that does not end is shown in pieces of so many bytes. 16 KiB: far beyond what people read in one line.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Entries of one listing that are shown.
const MAX_NAMES: usize = 100;

/// The streams of a program.
pub(crate) const STDOUT: &str = "ssh/stdout";
pub(crate) const STDERR: &str = "ssh/stderr";
pub(crate) const TERMINAL: &str = "ssh/terminal";
pub(crate) const SFTP: &str = "ssh/sftp";

/// Operations whose channels carry another protocol's bytes: connections that either side opened, agents and screens.
const FORWARDS: [&str; 6] =
    ["direct_tcpip", "direct_streamlocal", "tcpip_forward", "streamlocal_forward", "agent_forward", "x11"];

/// Whether its bytes passed without being text: forwarded connections and the servers of `rsync`, `git` and the like.
pub(crate) fn is_raw(operation: &RecordedOperation) -> bool {
    FORWARDS.contains(&&*operation.kind)
        || operation.accesses.iter().any(|access| access.action.as_str() == "serve")
}

/// The open channels of a session.
#[derive(Debug, Default)]
pub(super) struct Channels {
    lines: BTreeMap<(OperationId, bool), Line>,
    files: BTreeMap<OperationId, FrameDecoder>,
    raw: BTreeSet<OperationId>,
}

#[derive(Debug, Default)]
struct Line {
    utf8: Utf8,
    text: String,
}

impl Channels {
    /// Remembers what the bytes of an operation will be.
    pub(super) fn presented(&mut self, operations: &[RecordedOperation]) {
        self.raw
            .extend(operations.iter().filter(|operation| is_raw(operation)).map(|operation| operation.id));
    }

    /// The lines that these bytes complete.
    pub(super) fn read(&mut self, operation: OperationId, encoding: &str, bytes: &[u8]) -> Vec<String> {
        match encoding {
            STDOUT if self.raw.contains(&operation) => {
                vec![format!("               ({} bytes passed as they were)", bytes.len())]
            }
            STDOUT | STDERR | TERMINAL => self.text(operation, encoding == STDERR, bytes),
            SFTP => self.frames(operation, bytes),
            _ => vec![format!("               ({} bytes in `{}`)", bytes.len(), Escaped(encoding))],
        }
    }

    fn text(&mut self, operation: OperationId, stderr: bool, bytes: &[u8]) -> Vec<String> {
        let line = self.lines.entry((operation, stderr)).or_default();
        let text = line.utf8.push(bytes);
        line.text.push_str(&text);
        let mut shown = Vec::new();
        if let Some(end) = line.text.rfind('\n') {
            let rest = line.text.split_off(end + 1);
            shown.extend(line.text.split_terminator('\n').map(|whole| written(whole, stderr)));
            line.text = rest;
        }
        if line.text.len() > MAX_LINE_BYTES {
            shown.push(written(&std::mem::take(&mut line.text), stderr));
        }
        shown
    }

    /// The files that a listing shows, and how much of a file was read; other answers have no content.
    fn frames(&mut self, operation: OperationId, bytes: &[u8]) -> Vec<String> {
        let decoder = self.files.entry(operation).or_default();
        let mut shown = Vec::new();
        if decoder.push(bytes).is_err() {
            return shown;
        }
        while let Ok(Some(frame)) = decoder.next_frame() {
            match ServerMessage::decode(&frame) {
                Ok(ServerMessage::Response(_, Response::Name { entries })) => {
                    let names = entries.iter().take(MAX_NAMES);
                    shown.extend(names.map(|entry| {
                        format!("               {}", Escaped(&String::from_utf8_lossy(&entry.filename)))
                    }));
                    if entries.len() > MAX_NAMES {
                        shown.push(format!("               and {} more", entries.len() - MAX_NAMES));
                    }
                }
                Ok(ServerMessage::Response(_, Response::Data { data })) => {
                    shown.push(format!("               ({} bytes of the file)", data.len()));
                }
                _ => {}
            }
        }
        shown
    }

    /// What was left of an operation that ended.
    pub(super) fn ended(&mut self, operation: OperationId) -> Vec<String> {
        self.files.remove(&operation);
        self.raw.remove(&operation);
        let mut shown = Vec::new();
        for stderr in [false, true] {
            let Some(mut line) = self.lines.remove(&(operation, stderr)) else { continue };
            line.text.push_str(line.utf8.finish());
            if !line.text.is_empty() {
                shown.push(written(&line.text, stderr));
            }
        }
        shown
    }
}

fn written(line: &str, stderr: bool) -> String {
    let margin = if stderr { "          err: " } else { "               " };
    format!("{margin}{}", Escaped(&plain(line))).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: OperationId = OperationId(1);
    const TWO: OperationId = OperationId(2);

    #[test]
    fn lines_are_whole_and_channels_stay_apart() {
        let mut channels = Channels::default();
        assert!(channels.read(ONE, STDOUT, b"a\xc3").is_empty());
        assert_eq!(channels.read(TWO, STDOUT, b"x\ny\n"), ["               x", "               y"]);
        assert_eq!(channels.read(ONE, STDERR, b"no\n"), ["          err: no"]);
        assert_eq!(channels.read(ONE, STDOUT, b"\xa9\n\x1b[1mb"), ["               a\u{e9}"]);
        assert_eq!(channels.ended(ONE), ["               b"]);
        assert!(channels.ended(ONE).is_empty() && channels.ended(TWO).is_empty());
    }

    /// As it is recorded, with an access of this action.
    fn recorded(kind: &'static str, action: &'static str) -> RecordedOperation {
        use gateway_core::operation::{Access, Action, Effect, Facts, Resource, Stage};
        RecordedOperation {
            id: ONE,
            kind: kind.into(),
            stage: Stage::Execute,
            statement: kind.into(),
            statement_bytes: 0,
            arguments: 0,
            effect: Effect::Write,
            accesses: [Access::new(Action::new(action), Resource::target("web1"))].into(),
            facts: Facts::default().into(),
        }
    }

    #[test]
    fn what_passes_through_forwards_and_servers_is_counted_and_not_shown() {
        let shown = |operation: RecordedOperation| {
            let mut channels = Channels::default();
            channels.presented(&[operation]);
            channels.read(ONE, STDOUT, b"bytes\n").concat()
        };
        for kind in FORWARDS {
            assert!(shown(recorded(kind, kind)).contains("(6 bytes passed as they were)"), "{kind}");
        }
        assert!(shown(recorded("exec", "serve")).contains("(6 bytes passed as they were)"));
        for kind in ["exec", "shell", "pty"] {
            assert_eq!(shown(recorded(kind, kind)), "               bytes", "{kind}");
        }
    }

    #[test]
    fn listings_are_names() {
        let entry = |name: &'static str| gateway_ssh::sftp::NameEntry {
            filename: name.into(),
            longname: "long".into(),
            attributes: gateway_ssh::sftp::Attributes::default(),
        };
        let frame = Response::Name { entries: vec![entry("a.txt"), entry("b\x1b[2J")] }.encode(7);
        let (first, rest) = frame.split_at(5);
        let mut channels = Channels::default();
        assert!(channels.read(ONE, SFTP, first).is_empty());
        assert_eq!(channels.read(ONE, SFTP, rest), ["               a.txt", "               b\\u{1b}[2J"]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, which in 0..4usize) {
            let mut channels = Channels::default();
            channels.read(ONE, gateway_ssh::RECORD_ENCODINGS[which], &bytes);
            channels.ended(ONE);
        }
    }
}
