//! An SSH session as an asciicast: <https://docs.asciinema.org/manual/asciicast/v2/>
//!
//! Commands without a terminal are shown behind `$ `, with what they printed; a refusal as the line the agent was told. Commands observed
//! in a shell are markers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gateway_core::clock::Timestamp;
use gateway_core::operation::OperationId;
use gateway_core::recording::file::ReadRecord;
use gateway_core::recording::{Header, Record, RecordedOperation};
use serde_json::{Value, json};

use super::replay::UNPROVEN;
use super::replay::channels::{STDERR, STDOUT, TERMINAL, is_raw};
use super::sessions::{Place, exported};
use super::utf8::Utf8;
use crate::output::{Failure, Outcome, json_line};

/// The size of a session without a terminal, or of a terminal that did not say.
const DEFAULT_SIZE: Size = Size { columns: 80, rows: 24 };

/// Writes the cast; with `only`, of that operation.
pub(super) fn export(place: &Place, path: &Path, only: Option<OperationId>) -> Outcome {
    let mut reader = place.open(path)?.reader;
    if reader.header().protocol != gateway_ssh::PROTOCOL {
        let message = format!(
            "an asciicast shows SSH sessions, this one is {}; export it as `jsonl`",
            reader.header().protocol
        );
        return Err(Failure::new(message));
    }
    // The header needs the terminal's size, which stands further down.
    let first = reader.by_ref().find_map(|read| match read.record {
        Record::Presented { operations, .. } => operations.iter().find_map(Terminal::of),
        _ => None,
    });
    let mut reader = place.open(path)?.reader;
    json_line(&header(reader.header(), first.as_ref()).to_string())?;
    let mut cast = Cast::new(reader.header().started, only, first.map(|terminal| terminal.size));
    for read in reader.by_ref() {
        for event in cast.mark(&read).into_iter().chain(cast.events(&read)) {
            json_line(&event.to_string())?;
        }
    }
    for event in cast.rest() {
        json_line(&event.to_string())?;
    }
    exported(reader.end())
}

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    columns: u16,
    rows: u16,
}

/// What a recorded `pty` operation says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terminal {
    name: String,
    size: Size,
}

impl Terminal {
    fn of(operation: &RecordedOperation) -> Option<Self> {
        if operation.kind != "pty" {
            return None;
        }
        let (name, size) = operation.statement.rsplit_once(' ')?;
        let (columns, rows) = size.split_once('x')?;
        let side = |text: &str, default| match text.parse::<u32>() {
            Ok(0) | Err(_) => default,
            Ok(n) => u16::try_from(n).unwrap_or(u16::MAX),
        };
        let size = Size { columns: side(columns, DEFAULT_SIZE.columns), rows: side(rows, DEFAULT_SIZE.rows) };
        Some(Self { name: name.to_owned(), size })
    }
}

fn header(header: &Header, terminal: Option<&Terminal>) -> Value {
    let size = terminal.map_or(DEFAULT_SIZE, |terminal| terminal.size);
    let mut value = json!({
        "version": 2,
        "width": size.columns,
        "height": size.rows,
        "timestamp": header.started.as_seconds(),
        "title": format!("{} at {}, session {}", header.principal.actor.subject, header.target, header.session),
    });
    if let (Some(terminal), Some(fields)) = (terminal, value.as_object_mut()) {
        fields.insert("env".to_owned(), json!({ "TERM": terminal.name }));
    }
    value
}

/// Turns records into events.
struct Cast {
    start: Timestamp,
    only: Option<OperationId>,
    size: Option<Size>,
    unproven: bool,
    /// Times never go back.
    now: f64,
    streams: BTreeMap<(OperationId, String), Utf8>,
    raw: BTreeSet<OperationId>,
    asked: BTreeMap<OperationId, Asked>,
}

/// What waits for its decision.
enum Asked {
    Command(String),
    Terminal(Size),
}

impl Cast {
    fn new(start: Timestamp, only: Option<OperationId>, size: Option<Size>) -> Self {
        let (streams, raw, asked) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { start, only, size, unproven: false, now: 0.0, streams, raw, asked }
    }

    /// A marker before the first record that nobody signed.
    fn mark(&mut self, read: &ReadRecord) -> Option<Value> {
        let first = read.unproven && !std::mem::replace(&mut self.unproven, true);
        self.now = self.now.max(read.at.since(self.start).as_secs_f64());
        first.then(|| self.event("m", UNPROVEN))
    }

    fn events(&mut self, read: &ReadRecord) -> Vec<Value> {
        self.now = self.now.max(read.at.since(self.start).as_secs_f64());
        match &read.record {
            Record::Presented { operations, .. } => {
                operations.iter().for_each(|operation| self.presented(operation));
                Vec::new()
            }
            Record::Allowed { operations, .. } => {
                operations.iter().filter_map(|id| self.allowed(*id)).collect()
            }
            Record::Denied { operations, denial } => {
                operations.iter().filter_map(|id| self.denied(*id, &denial.message)).collect()
            }
            Record::Released { operation, encoding, bytes, .. } if self.shows(*operation) => {
                let text = self.released(*operation, encoding, bytes);
                self.output(&text).into_iter().collect()
            }
            Record::Observed { operation, statement } if self.shows(*operation) => {
                vec![self.event("m", &format!("observed: {statement}"))]
            }
            Record::Completed { operation, .. } => self.completed(*operation),
            _ => Vec::new(),
        }
    }

    fn shows(&self, operation: OperationId) -> bool {
        self.only.is_none_or(|only| only == operation)
    }

    fn presented(&mut self, operation: &RecordedOperation) {
        if is_raw(operation) {
            self.raw.insert(operation.id);
        }
        if let Some(terminal) = Terminal::of(operation) {
            self.asked.insert(operation.id, Asked::Terminal(terminal.size));
        } else if matches!(&*operation.kind, "exec" | "subsystem") && self.shows(operation.id) {
            self.asked.insert(operation.id, Asked::Command(operation.statement.to_string()));
        }
    }

    fn allowed(&mut self, operation: OperationId) -> Option<Value> {
        match self.asked.remove(&operation)? {
            Asked::Command(line) => self.output(&format!("$ {}\r\n", crlf(&line))),
            Asked::Terminal(size) => {
                let changed = self.size.replace(size) != Some(size);
                changed.then(|| self.event("r", &format!("{}x{}", size.columns, size.rows)))
            }
        }
    }

    fn denied(&mut self, operation: OperationId, message: &str) -> Option<Value> {
        match self.asked.remove(&operation)? {
            Asked::Command(line) => {
                self.output(&format!("$ {}\r\ndenied: {}\r\n", crlf(&line), crlf(message)))
            }
            Asked::Terminal(_) => None,
        }
    }

    fn released(&mut self, operation: OperationId, encoding: &str, bytes: &[u8]) -> String {
        if self.raw.contains(&operation) {
            return String::new();
        }
        let text = match encoding {
            STDOUT | STDERR | TERMINAL => {
                self.streams.entry((operation, encoding.to_owned())).or_default().push(bytes)
            }
            _ => return String::new(),
        };
        // A terminal ends its lines itself.
        if encoding == TERMINAL { text } else { crlf(&text) }
    }

    fn completed(&mut self, operation: OperationId) -> Vec<Value> {
        self.raw.remove(&operation);
        let of_it = (operation, String::new())..(OperationId(operation.0.saturating_add(1)), String::new());
        let keys: Vec<_> = self.streams.range(of_it).map(|(key, _)| key.clone()).collect();
        let left: Vec<_> = keys.iter().filter_map(|key| self.streams.remove(key)).collect();
        left.into_iter().filter_map(|mut utf8| self.output(utf8.finish())).collect()
    }

    /// What is left when the recording ends, also in the middle of a program.
    fn rest(&mut self) -> Vec<Value> {
        let left = std::mem::take(&mut self.streams);
        left.into_values().filter_map(|mut utf8| self.output(utf8.finish())).collect()
    }

    fn output(&self, text: &str) -> Option<Value> {
        (!text.is_empty()).then(|| self.event("o", text))
    }

    fn event(&self, kind: &str, data: &str) -> Value {
        // Microseconds, as recorded.
        let time = (self.now * 1e6).round() / 1e6;
        json!([time, kind, data])
    }
}

/// A terminal that plays it wants both characters of a line end.
fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::operation::{Effect, Stage};
    use std::sync::Arc;

    fn operation(id: u64, kind: &str, statement: &str) -> RecordedOperation {
        RecordedOperation {
            id: OperationId(id),
            kind: kind.to_owned().into(),
            stage: Stage::Execute,
            statement: statement.into(),
            statement_bytes: 0,
            arguments: 0,
            effect: Effect::Write,
            accesses: Arc::from([]),
            facts: Arc::default(),
        }
    }

    fn cast() -> Cast {
        Cast::new(Timestamp::from_seconds(0), None, None)
    }

    fn released(encoding: &str, bytes: &'static [u8]) -> String {
        let mut cast = cast();
        cast.released(OperationId(1), encoding, bytes)
    }

    #[test]
    fn terminals_say_their_size() {
        let of = |statement: &str| Terminal::of(&operation(1, "pty", statement)).map(|t| t.size);
        assert_eq!(of("xterm-256color 120x40"), Some(Size { columns: 120, rows: 40 }));
        assert_eq!(of("xterm 0x0"), Some(DEFAULT_SIZE));
        assert_eq!(of("xterm 99999x1"), Some(Size { columns: u16::MAX, rows: 1 }));
        assert_eq!(of("xterm"), None);
        assert_eq!(Terminal::of(&operation(1, "exec", "xterm 80x24")), None);
    }

    #[test]
    fn a_permitted_size_that_differs_is_an_event() {
        let mut cast = cast();
        cast.size = Some(DEFAULT_SIZE);
        for (id, size, event) in [(1, "80x24", None), (2, "100x30", Some(json!([0.0, "r", "100x30"])))] {
            cast.presented(&operation(id, "pty", &format!("xterm {size}")));
            assert_eq!(cast.allowed(OperationId(id)), event);
        }
        cast.presented(&operation(3, "pty", "xterm 10x10"));
        assert_eq!(cast.denied(OperationId(3), "no"), None);
        assert_eq!(cast.allowed(OperationId(3)), None);
    }

    #[test]
    fn lines_of_programs_end_as_terminals_do() {
        assert_eq!(released(STDOUT, b"a\nb"), "a\r\nb");
        assert_eq!(released(TERMINAL, b"a\r\nb"), "a\r\nb");
        assert_eq!(released("ssh/sftp", b"a"), "");
    }

    #[test]
    fn cut_characters_wait_and_forwards_are_not_text() {
        let mut cast = cast();
        let one = OperationId(1);
        assert_eq!(cast.released(one, STDOUT, b"\xc3"), "");
        assert_eq!(cast.released(one, STDERR, b"e"), "e");
        assert_eq!(cast.released(one, STDOUT, b"\xa9"), "\u{e9}");
        cast.released(one, STDOUT, b"\xe6");
        assert_eq!(cast.completed(one), [json!([0.0, "o", "\u{fffd}"])]);
        cast.presented(&operation(2, "direct_tcpip", "h:1"));
        assert_eq!(cast.released(OperationId(2), STDOUT, b"x"), "");
    }

    #[test]
    fn commands_and_refusals_are_lines() {
        let mut cast = cast();
        cast.presented(&operation(1, "exec", "'id'"));
        assert_eq!(cast.allowed(OperationId(1)), Some(json!([0.0, "o", "$ 'id'\r\n"])));
        cast.presented(&operation(2, "exec", "'rm'"));
        let refused = json!([0.0, "o", "$ 'rm'\r\ndenied: no\r\n"]);
        assert_eq!(cast.denied(OperationId(2), "no"), Some(refused));
    }
}
