//! `gateway sessions replay`: a recording as a person would have seen it.

pub(super) mod channels;
mod rows;
mod screen;

use std::process::ExitCode;
use std::time::Duration;

use gateway_core::clock::Timestamp;
use gateway_core::operation::OperationId;
use gateway_core::recording::file::{ReadRecord, RecordJson};
use gateway_core::recording::{Header, Record, RecordedOperation};

use gateway_ssh::RECORD_ENCODINGS;

use self::channels::{Channels, TERMINAL};
use self::rows::Decoder;
use self::screen::Screen;
use super::sessions::{Opened, end_words, header_facts};
use super::utf8::Utf8;
use crate::output::{Escaped, EscapedLines, Failure, Outcome, json_line, line, raw, to_terminal};

/// Longest pause between two records: nobody waits for a night between two statements.
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Said before the first record that nobody signed.
pub(super) const UNPROVEN: &str = "NOT PROVEN from here on: nobody signed what follows";

/// Plays a recording back.
pub(super) async fn run(opened: Opened, speed: Option<f64>, as_json: bool) -> Outcome {
    let words = opened.words();
    let mut reader = opened.reader;
    if as_json {
        RecordJson::new(&mut reader).try_for_each(|record| json_line(&record))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut pace = Pace::new(speed, reader.header().started)?;
    line(header_facts(reader.header()))?;
    line(words)?;
    let mut unproven = false;
    let mut digest = Digest::new(reader.header());
    let mut player = Player::default();
    for record in reader.by_ref() {
        pace.wait_for(record.at).await;
        if record.unproven && !std::mem::replace(&mut unproven, true) {
            player.lines(&[UNPROVEN.to_owned()])?;
        }
        player.play(&record.record, digest.line(&record))?;
    }
    player.stop()?;
    line(end_words(reader.end()))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what was released: rows and lines, and at a terminal what a recorded terminal showed, as it did.
#[derive(Default)]
struct Player {
    rows: Decoder,
    channels: Channels,
    screen: Screen,
    utf8: Utf8,
    /// Something was drawn since the last line.
    drawing: bool,
}

impl Player {
    fn play(&mut self, record: &Record, words: Option<String>) -> Result<(), Failure> {
        match record {
            Record::Released { encoding, bytes, .. } if encoding == TERMINAL && to_terminal() => {
                let drawn = self.screen.draw(&self.utf8.push(bytes));
                self.drawing |= !drawn.is_empty();
                return Ok(raw(&drawn)?);
            }
            Record::Released { operation, encoding, bytes, .. } => {
                let lines = if RECORD_ENCODINGS.contains(&&**encoding) {
                    self.channels.read(*operation, encoding, bytes)
                } else {
                    self.rows.read(encoding, bytes)
                };
                self.lines(&lines)?;
            }
            // The terminal that is drawn shows it.
            Record::Observed { .. } if to_terminal() => return Ok(()),
            Record::Presented { operations, .. } => {
                // A sequence that one operation left open does not swallow what the next one shows.
                self.stop()?;
                self.screen = Screen::default();
                self.channels.presented(operations);
            }
            Record::Completed { operation, .. } => {
                let left = self.channels.ended(*operation);
                self.lines(&left)?;
            }
            _ => {}
        }
        words.map_or(Ok(()), |words| self.lines(&[words]))
    }

    fn lines(&mut self, lines: &[String]) -> Result<(), Failure> {
        if !lines.is_empty() {
            self.stop()?;
        }
        Ok(lines.iter().try_for_each(line)?)
    }

    /// Ends what is drawn; lines follow.
    fn stop(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.drawing) {
            raw(self.screen.restore())?;
            line("")?;
        }
        Ok(())
    }
}

/// How fast time passes.
struct Pace {
    speed: Option<f64>,
    last: Timestamp,
}

impl Pace {
    fn new(speed: Option<f64>, start: Timestamp) -> Result<Self, Failure> {
        let speed = speed.or_else(|| to_terminal().then_some(1.0));
        if speed.is_some_and(|speed| !(speed.is_finite() && speed > 0.0)) {
            return Err(Failure::new("`--speed` is a number above 0, such as 2 for twice as fast"));
        }
        Ok(Self { speed, last: start })
    }

    async fn wait_for(&mut self, at: Timestamp) {
        if let Some(speed) = self.speed {
            // A tiny speed makes the pause too long to express; it is cut anyway.
            let pause = Duration::try_from_secs_f64(at.since(self.last).as_secs_f64() / speed);
            tokio::time::sleep(pause.unwrap_or(MAX_PAUSE).min(MAX_PAUSE)).await;
        }
        self.last = at;
    }
}

/// Turns records into lines: when, what was asked, what was decided.
pub(super) struct Digest {
    start: Timestamp,
    /// Only results of databases come in rows.
    rows: bool,
}

impl Digest {
    pub(super) fn new(header: &Header) -> Self {
        Self { start: header.started, rows: header.protocol != gateway_ssh::PROTOCOL }
    }

    /// The line, or lines, of one record; none for released bytes.
    pub(super) fn line(&mut self, read: &ReadRecord) -> Option<String> {
        let after = read.at.since(self.start).as_secs_f64();
        let mark = if read.unproven { "NOT PROVEN " } else { "" };
        words(&read.record, self.rows).map(|words| format!("{after:>10.3}s  {mark}{words}"))
    }
}

fn words(record: &Record, in_rows: bool) -> Option<String> {
    Some(match record {
        Record::Presented { operations, .. } => {
            operations.iter().map(presented).collect::<Vec<_>>().join("\n             ")
        }
        Record::Allowed { operations, rules, approval, .. } => {
            let approval = approval.map(|id| format!(", approved by request {id}")).unwrap_or_default();
            format!("{} allowed{}{approval}", ids(operations), by(rules))
        }
        Record::Rewritten { operations, rewrites } => {
            format!("{} rewritten: {}", ids(operations), Escaped(&rewrites.join("; ")))
        }
        Record::Denied { operations, denial } => format!(
            "{} DENIED ({}): {}{}",
            ids(operations),
            denial.code,
            Escaped(&denial.message),
            by(&denial.rules)
        ),
        Record::Held { operations, request, rules, expires } => {
            let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
            let names = names.join(", ");
            format!("{} HELD for {} until {expires}, request {request}", ids(operations), Escaped(&names))
        }
        Record::Estimated { operations, estimates, .. } => {
            let notes = estimates.iter().flat_map(|estimate| &estimate.notes);
            let notes: Vec<String> = notes.map(|note| Escaped(note).to_string()).collect();
            format!("{} expected: {}", ids(operations), notes.join("; "))
        }
        Record::Decided { request, state } => format!("request {request} is {}", state.as_str()),
        Record::Completed { operation, outcome, rows, bytes, masked } => {
            let masked: Vec<String> = masked.iter().map(|(class, n)| format!("{class} {n}")).collect();
            let masked = if masked.is_empty() { "nothing".to_owned() } else { masked.join(", ") };
            let rows = if in_rows { format!("{rows} rows, ") } else { String::new() };
            format!("#{operation} {}: {rows}{bytes} bytes, masked {}", Escaped(outcome), Escaped(&masked))
        }
        Record::Received { operation, encoding, bytes, .. } => {
            format!("#{operation} {encoding} < {}", Escaped(&String::from_utf8_lossy(bytes)))
        }
        Record::Observed { operation, statement } => {
            format!("#{operation} observed, not proven: {}", Escaped(statement))
        }
        Record::Digested { operation, content, bytes, sha256 } => {
            format!("#{operation} {}: {bytes} bytes, sha256 {}", Escaped(content), Escaped(sha256))
        }
        Record::Viewed { viewer, what } => {
            format!("{} looked at {}", Escaped(&viewer.to_string()), Escaped(what))
        }
        Record::Closed { reason } => format!("closed: {}", Escaped(&format!("{reason:?}"))),
        // Its rows are shown instead.
        Record::Released { .. } => return None,
        other => format!("{}", Escaped(&format!("{other:?}"))),
    })
}

fn presented(operation: &RecordedOperation) -> String {
    let text = EscapedLines { text: &operation.statement, indent: "               " };
    let statement = if operation.statement.is_empty() { String::new() } else { format!("\n{text}") };
    let arguments = match operation.arguments {
        0 => String::new(),
        n => format!(", {n} arguments"),
    };
    let effect = match operation.effect {
        gateway_core::operation::Effect::Read => "read",
        gateway_core::operation::Effect::Write => "write",
    };
    format!("#{} {} ({effect}{arguments}){statement}", operation.id, Escaped(&operation.kind))
}

fn ids(operations: &[OperationId]) -> String {
    operations.iter().map(|id| format!("#{id}")).collect::<Vec<_>>().join(", ")
}

fn by(rules: &[String]) -> String {
    if rules.is_empty() { String::new() } else { format!(" by {}", Escaped(&rules.join(", "))) }
}
