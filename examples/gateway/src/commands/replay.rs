//! `gateway sessions replay`: a recording as a person would have seen it.

mod rows;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use gateway_core::clock::Timestamp;
use gateway_core::operation::OperationId;
use gateway_core::recording::file::{ReadRecord, RecordJson};
use gateway_core::recording::{Record, RecordedOperation};

use self::rows::Decoder;
use super::sessions::{end_words, header_facts, open};
use crate::output::{Escaped, EscapedLines, Failure, Outcome, json_line, line, to_terminal};

/// Longest pause between two records: nobody waits for a night between two statements.
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Plays a recording back.
pub(super) async fn run(path: PathBuf, speed: Option<f64>, as_json: bool) -> Outcome {
    let mut reader = open(&path)?;
    if as_json {
        RecordJson::new(&mut reader).try_for_each(|record| json_line(&record))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut pace = Pace::new(speed, reader.header().started)?;
    line(header_facts(reader.header()))?;
    let mut digest = Digest::new(reader.header().started);
    let mut decoder = Decoder::default();
    for record in reader.by_ref() {
        pace.wait_for(record.at).await;
        if let Some(text) = digest.line(&record) {
            line(text)?;
        }
        if let Record::Released { encoding, bytes, .. } = &record.record {
            decoder.read(encoding, bytes).iter().try_for_each(line)?;
        }
    }
    line(end_words(reader.end()))?;
    Ok(ExitCode::SUCCESS)
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
}

impl Digest {
    pub(super) const fn new(start: Timestamp) -> Self {
        Self { start }
    }

    /// The line, or lines, of one record; none for released bytes.
    pub(super) fn line(&mut self, read: &ReadRecord) -> Option<String> {
        let after = read.at.since(self.start).as_secs_f64();
        words(&read.record).map(|words| format!("{after:>10.3}s  {words}"))
    }
}

fn words(record: &Record) -> Option<String> {
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
        Record::Decided { request, state } => format!("request {request} is {}", state.as_str()),
        Record::Completed { operation, outcome, rows, bytes, masked } => {
            let masked: Vec<String> = masked.iter().map(|(class, n)| format!("{class} {n}")).collect();
            let masked = if masked.is_empty() { "nothing".to_owned() } else { masked.join(", ") };
            format!(
                "#{operation} {}: {rows} rows, {bytes} bytes, masked {}",
                Escaped(outcome),
                Escaped(&masked)
            )
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
    let statement = EscapedLines { text: &operation.statement, indent: "               " }.to_string();
    let arguments = match operation.arguments {
        0 => String::new(),
        n => format!(", {n} arguments"),
    };
    let effect = match operation.effect {
        gateway_core::operation::Effect::Read => "read",
        gateway_core::operation::Effect::Write => "write",
    };
    format!("#{} {} ({effect}{arguments})\n{statement}", operation.id, Escaped(&operation.kind))
}

fn ids(operations: &[OperationId]) -> String {
    operations.iter().map(|id| format!("#{id}")).collect::<Vec<_>>().join(", ")
}

fn by(rules: &[String]) -> String {
    if rules.is_empty() { String::new() } else { format!(" by {}", Escaped(&rules.join(", "))) }
}
