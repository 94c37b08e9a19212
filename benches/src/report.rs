//! What was measured, as a table and as JSON.

use std::fmt;
use std::io::{IsTerminal, stderr};

use serde::Serialize;

use crate::machine::Machine;

/// One number.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    case: String,
    subject: String,
    metric: String,
    value: f64,
    unit: &'static str,
}

/// One number divided by another of the same case, metric and run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    case: String,
    metric: String,
    subject: String,
    against: String,
    value: f64,
}

/// Everything measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    /// What others are compared with.
    #[serde(skip)]
    yardsticks: &'static [&'static str],
}

impl Report {
    /// An empty report.
    pub(crate) const fn new(machine: Machine) -> Self {
        Self { machine, rows: Vec::new(), ratios: Vec::new(), yardsticks: &[] }
    }

    /// Names the subjects that all others are to be compared with.
    pub(crate) const fn against(&mut self, subjects: &'static [&'static str]) {
        self.yardsticks = subjects;
    }

    /// Notes a version of something measured.
    pub(crate) fn version(&mut self, of: &'static str, version: impl Into<String>) {
        self.machine.versions.insert(of, version.into());
    }

    /// Adds a number; says so on a terminal.
    pub(crate) fn add(&mut self, case: &str, subject: &str, metric: &str, value: f64, unit: &'static str) {
        progress(&format!("{case}: {subject}: {metric} {} {unit}", short(value)));
        let (case, subject, metric) = (case.to_owned(), subject.to_owned(), metric.to_owned());
        self.rows.push(Row { case, subject, metric, value, unit });
    }

    /// Works out all ratios to the yardsticks.
    pub(crate) fn compare(&mut self) {
        let of = |row: &Row, against: &str| {
            let same = |other: &&Row| {
                other.case == row.case && other.metric == row.metric && other.subject == against
            };
            let base = self.rows.iter().find(same).filter(|base| base.value != 0.0)?;
            Some(Ratio {
                case: row.case.clone(),
                metric: row.metric.clone(),
                subject: row.subject.clone(),
                against: against.to_owned(),
                value: row.value / base.value,
            })
        };
        let others = |row: &Row| self.yardsticks.iter().filter(|y| **y != row.subject).collect::<Vec<_>>();
        self.ratios =
            self.rows.iter().flat_map(|row| others(row).into_iter().filter_map(|y| of(row, y))).collect();
    }

    fn ratio(&self, row: &Row, against: &str) -> Option<f64> {
        let same = |ratio: &&Ratio| {
            (&ratio.case, &ratio.metric, &ratio.subject) == (&row.case, &row.metric, &row.subject)
                && ratio.against == against
        };
        self.ratios.iter().find(same).map(|ratio| ratio.value)
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let mut head: Vec<String> =
            ["case", "metric", "subject", "value", "unit"].map(str::to_owned).to_vec();
        head.extend(self.yardsticks.iter().map(|y| format!("x {y}")));
        let mut lines = vec![head];
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        let first = |row: &Row| {
            let case = self.rows.iter().position(|r| r.case == row.case);
            let metric = self.rows.iter().position(|r| r.case == row.case && r.metric == row.metric);
            (case, metric)
        };
        rows.sort_by_key(|row| first(row));
        for row in rows {
            let mut line = vec![
                row.case.clone(),
                row.metric.clone(),
                row.subject.clone(),
                short(row.value),
                row.unit.to_owned(),
            ];
            let ratio = |y: &&str| self.ratio(row, y).map_or(String::new(), ratio_text);
            line.extend(self.yardsticks.iter().map(ratio));
            lines.push(line);
        }
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let lines = self.lines();
        let columns = lines.first().map_or(0, Vec::len);
        let width = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in &lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                3 | 5.. => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Says on a terminal what is going on.
pub(crate) fn progress(what: &str) {
    if stderr().is_terminal() {
        eprintln!("  {what}");
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Two digits after the point, or as many as tell small ones from nothing.
fn ratio_text(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.4}") } else { format!("{ratio:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_compared_with_the_yardsticks_of_its_own_case_and_metric() {
        let mut report = Report::new(Machine::here());
        report.against(&["direct", "pgbouncer"]);
        report.add("select", "direct", "rate", 100.0, "tps");
        report.add("copy", "direct", "rate", 7.0, "MB/s");
        report.add("select", "pgbouncer", "rate", 50.0, "tps");
        report.add("select", "gateway", "rate", 25.0, "tps");
        report.compare();
        let ratios: Vec<_> = report
            .ratios
            .iter()
            .map(|r| (r.case.as_str(), r.subject.as_str(), r.against.as_str(), r.value))
            .collect();
        let expected = [
            ("select", "direct", "pgbouncer", 2.0),
            ("select", "pgbouncer", "direct", 0.5),
            ("select", "gateway", "direct", 0.25),
            ("select", "gateway", "pgbouncer", 0.5),
        ];
        assert_eq!(ratios, expected);
        let table = report.to_string();
        let lines: Vec<_> = table.lines().filter(|l| l.starts_with("select")).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].ends_with("0.25         0.50"), "{}", lines[2]);
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let mut report = Report::new(Machine::here());
        report.against(&["direct"]);
        report.add("select", "direct", "cpu", 0.0, "us");
        report.add("select", "gateway", "cpu", 3.0, "us");
        report.compare();
        assert!(report.ratios.is_empty());
    }
}
