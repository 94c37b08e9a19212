//! Measuring subjects in turn: round by round, so that what else the machine does meets all of them.

use crate::machine::{cpu_time, forget_peak, peak_kib};
use crate::report::{Report, progress};
use crate::sample::median;
use crate::{Error, Result};

/// Names of subjects, as in reports.
pub(crate) const DIRECT: &str = "direct";
pub(crate) const GATEWAY: &str = "gateway";
pub(crate) const UNRECORDED: &str = "gateway, recording off";

/// What is measured.
pub(crate) trait Subject {
    /// As in reports.
    fn name(&self) -> &'static str;
    /// The process in between, if there is one.
    fn pid(&self) -> Option<u32>;
}

/// What one run of one subject gave.
#[derive(Debug)]
pub(crate) struct Run {
    /// Name, value, unit: always the same ones for a case.
    pub(crate) metrics: Vec<(&'static str, f64, &'static str)>,
    /// How much was done, in what CPU time is counted by.
    pub(crate) work: f64,
}

/// What CPU time of the process in between is divided by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Per {
    /// A million transactions.
    Million,
    /// 10^9 bytes.
    Gigabyte,
}

#[derive(Debug, Default)]
struct Total {
    runs: Vec<Run>,
    user: f64,
    kernel: f64,
    peak_kib: f64,
}

/// Runs every subject in every round, each round beginning with another one, and reports medians; CPU time over all rounds,
/// memory as the highest of them. Returns how much work the recording gateway did.
///
/// # Errors
/// A run fails.
pub(crate) fn measure<S: Subject>(
    report: &mut Report,
    case: &str,
    (subjects, rounds): (&[S], usize),
    per: Per,
    mut run: impl FnMut(&S) -> Result<Run>,
) -> Result<f64> {
    let mut totals: Vec<Total> = subjects.iter().map(|_| Total::default()).collect();
    for round in 0..rounds {
        for turn in 0..subjects.len() {
            let index = (round + turn) % subjects.len();
            if let (Some(subject), Some(total)) = (subjects.get(index), totals.get_mut(index)) {
                progress(&format!("{case}: round {} of {rounds}: {}", round + 1, subject.name()));
                one(subject, total, &mut run).map_err(|error| named(case, subject, &error))?;
            }
        }
    }
    for (subject, total) in subjects.iter().zip(&totals) {
        total.add_to(report, case, subject, per);
    }
    let recording = subjects.iter().zip(&totals).find(|(subject, _)| subject.name() == GATEWAY);
    Ok(recording.map_or(0.0, |(_, total)| total.work()))
}

fn named(case: &str, subject: &impl Subject, error: &Error) -> Error {
    format!("{case}: {}: {error}", subject.name()).into()
}

fn one<S: Subject>(subject: &S, total: &mut Total, run: &mut impl FnMut(&S) -> Result<Run>) -> Result<()> {
    let before = subject.pid().map(cpu_time).transpose()?;
    subject.pid().inspect(|pid| forget_peak(*pid));
    total.runs.push(run(subject)?);
    if let (Some(pid), Some(before)) = (subject.pid(), before) {
        let after = cpu_time(pid)?;
        total.user += after.0 - before.0;
        total.kernel += after.1 - before.1;
        total.peak_kib = total.peak_kib.max(peak_kib(pid)?);
    }
    Ok(())
}

impl Total {
    fn work(&self) -> f64 {
        self.runs.iter().map(|run| run.work).sum()
    }

    fn add_to(&self, report: &mut Report, case: &str, subject: &impl Subject, per: Per) {
        let metrics = self.runs.first().map(|run| run.metrics.as_slice()).unwrap_or_default();
        for (index, (metric, _, unit)) in metrics.iter().enumerate() {
            let values =
                self.runs.iter().filter_map(|run| run.metrics.get(index).map(|(_, value, _)| *value));
            report.add(case, subject.name(), metric, median(values.collect()), unit);
        }
        if subject.pid().is_some() {
            let (scale, unit) = match per {
                Per::Million => (1e6, "s/million"),
                Per::Gigabyte => (1e9, "s/GB"),
            };
            let each = |seconds: f64| seconds / self.work() * scale;
            report.add(case, subject.name(), "proxy cpu", each(self.user + self.kernel), unit);
            report.add(case, subject.name(), "proxy cpu, user mode", each(self.user), unit);
            report.add(case, subject.name(), "proxy memory, peak", self.peak_kib / 1024.0, "MiB");
        }
    }
}
