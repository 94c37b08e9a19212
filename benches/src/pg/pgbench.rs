//! Running pgbench and reading what it says.

use std::fs;
use std::process::Command;
use std::time::Duration;

use testkit::Postgres;

use super::subject::{DATABASE, Subject};
use crate::Result;

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    /// Without the time to connect.
    pub(super) transactions_per_second: f64,
    pub(super) transactions: f64,
    /// Mean, milliseconds.
    pub(super) latency: f64,
    /// Mean time to connect in milliseconds, where every transaction has its own connection.
    pub(super) connect: Option<f64>,
}

/// Runs pgbench against a subject with these arguments.
///
/// # Errors
/// It fails, a transaction fails, or its words are not understood.
pub(super) fn run(server: &Postgres, subject: &Subject, arguments: &[&str]) -> Result<Run> {
    let text = pgbench(server, subject, arguments)?;
    let transactions =
        number(&text, "number of transactions actually processed: ").ok_or_else(|| strange(&text))?;
    if number(&text, "number of failed transactions: ").is_some_and(|failed| failed > 0.0) {
        return Err(format!("{}: transactions failed: {text}", subject.name).into());
    }
    Ok(Run {
        transactions_per_second: number(&text, "tps = ").ok_or_else(|| strange(&text))?,
        transactions,
        latency: number(&text, "latency average = ").ok_or_else(|| strange(&text))?,
        connect: number(&text, "average connection time = "),
    })
}

fn strange(text: &str) -> crate::Error {
    format!("pgbench is not understood: {text}").into()
}

/// Loads pgbench's tables.
///
/// # Errors
/// It fails.
pub(super) fn load(server: &Postgres, scale: u32) -> Result<()> {
    let direct = Subject::direct(server, false);
    pgbench(server, &direct, &["-i", "-q", "-s", &scale.to_string()]).map(drop)
}

/// Runs at a fixed rate and returns every transaction's time in milliseconds, sorted, from when it was *due*: a stall is
/// not hidden by the requests it kept from being sent. The first [`WARM_UP`] microseconds do not count: each session's first
/// statement costs more (preparing it; in the gateway, asking the server what its names mean), and what is due meanwhile waits.
///
/// # Errors
/// As [`run`], and when its log cannot be read.
pub(super) fn latencies(server: &Postgres, subject: &Subject, arguments: &[&str]) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let prefix = format!("--log-prefix={}", folder.path().join("log").display());
    run(server, subject, &[arguments, &["--log", &prefix]].concat())?;
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder.path())? {
        let text = fs::read_to_string(entry?.path())?;
        lines.extend(text.lines().filter_map(micros));
    }
    let first = lines.iter().map(|(end, _)| *end).min().unwrap_or_default();
    let counted = lines.iter().filter(|(end, _)| *end >= first + WARM_UP);
    let mut times: Vec<f64> = counted.map(|(_, micros)| micros / 1000.0).collect();
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// One second.
const WARM_UP: u64 = 1_000_000;

/// When a transaction ended and how long it took, both in microseconds. A line is
/// `client transaction time script epoch micros lag` (PostgreSQL documentation, pgbench, "Per-Transaction Logging").
fn micros(line: &str) -> Option<(u64, f64)> {
    let mut fields = line.split(' ').skip(2);
    let took = fields.next()?.parse().ok()?;
    let seconds: u64 = fields.nth(1)?.parse().ok()?;
    let end = seconds * 1_000_000 + fields.next()?.parse::<u64>().ok()?;
    Some((end, took))
}

fn pgbench(server: &Postgres, subject: &Subject, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(server.program("pgbench"));
    command.args(arguments).args(["-h", "127.0.0.1", "-p", &subject.port.to_string()]);
    command.args(["-U", &subject.user, DATABASE]);
    let mode = if subject.tls { "require" } else { "disable" };
    command.env("PGPASSWORD", &subject.password).env("PGSSLMODE", mode).env("PGGSSENCMODE", "disable");
    command.env("LC_ALL", "C").env("HOME", "/nonexistent");
    let finished = testkit::run(&mut command, "", DEADLINE)?;
    let said = finished.stderr.clone();
    finished.success().map_err(|error| format!("{}: pgbench: {error}: {said}", subject.name).into())
}

/// The number behind the label.
fn number(text: &str, label: &str) -> Option<f64> {
    let (_, rest) = text.split_once(label)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// Longer than any one run, loading included.
const DEADLINE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_labels() {
        let text = "number of transactions actually processed: 1234\nnumber of failed transactions: 0 (0.000%)\n\
                    latency average = 0.123 ms\ntps = 8123.456 (without initial connection time)\n";
        assert_eq!(number(text, "processed: "), Some(1234.0));
        assert_eq!(number(text, "number of failed transactions: "), Some(0.0));
        assert_eq!(number(text, "tps = "), Some(8123.456));
        assert_eq!(number(text, "average connection time = "), None);
    }

    #[test]
    fn the_log_tells_ends_and_times() {
        assert_eq!(micros("0 199 2241 0 1175850568 995598 12"), Some((1_175_850_568_995_598, 2241.0)));
        assert_eq!(micros("0 199 skipped 0 1175850568 995598 12"), None);
    }
}
