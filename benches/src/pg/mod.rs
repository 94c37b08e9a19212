//! PostgreSQL end to end: the same clients against the server, pgbouncer and the gateway.
//!
//! The gateway runs as a process of its own with everything on: Cedar policies, analysis of every statement, masking by
//! content, file recording with responses. A second one throws its records away, to tell what recording costs.
//! Client, proxy and server share the machine's cores.

mod data;
mod drain;
mod pgbench;
pub(crate) mod serve;
mod subject;

use testkit::{Durability, Postgres};

use self::data::Wide;
use self::drain::Client;
use self::subject::{DATABASE, DIRECT, GATEWAY, Gateway, PGBOUNCER, Pgbouncer, Subject, Tls};
use crate::check::{self, Recorded};
use crate::machine::resident_kib;
use crate::report::{Report, progress};
use crate::rounds::{Per, Run, measure};
use crate::sample::percentile;
use crate::{Error, Result, Size};

/// Measures all cases; one that fails does not keep the others from being measured.
///
/// # Errors
/// The servers cannot be started, or cases failed, or a check did not hold.
pub(crate) fn run(size: Size, only: &str, report: &mut Report) -> Result<()> {
    report.against(&[subject::DIRECT, PGBOUNCER]);
    report.version("pgbouncer", Pgbouncer::version());
    let mut failures = Vec::new();
    reads(size, only, report, &mut failures)?;
    encrypted(size, only, report, &mut failures)?;
    writes(size, only, report, &mut failures)?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n       ").into()) }
}

fn reads(size: Size, only: &str, report: &mut Report, failures: &mut Vec<String>) -> Result<()> {
    progress("starting PostgreSQL and loading tables");
    let stage = Stage::new(Durability::None, size, only)?;
    report.version("postgresql", stage.server.version());
    let wide = Wide::load(&stage.server, size.pick(100_000, 1_000_000))?;
    for clients in [8, 1] {
        for mode in ["simple", "prepared"] {
            let case = format!("pgbench -S, {mode}, {clients} clients");
            stage.case(report, failures, &case, |report, subjects| {
                stage.transactions(report, &case, subjects, &["-S", "-M", mode], clients)
            });
        }
    }
    for (name, sql) in [("select", "SELECT * FROM wide"), ("copy out", "COPY wide TO STDOUT")] {
        let case = format!("{name}, {} rows of 10 columns", wide.rows);
        stage.case(report, failures, &case, |report, subjects| {
            stage.drains(report, &case, subjects, &wide, sql)
        });
    }
    let case = "pgbench -S, prepared, 8 clients, fixed rate";
    stage.case(report, failures, case, |report, subjects| stage.fixed_rate(report, case, subjects));
    stage.case(report, failures, "connect", |report, subjects| stage.connects(report, subjects));
    stage.case(report, failures, "idle sessions", idle);
    Ok(())
}

/// The same with TLS on both sides of whatever is in between.
fn encrypted(size: Size, only: &str, report: &mut Report, failures: &mut Vec<String>) -> Result<()> {
    let cases = ["simple", "prepared"].map(|mode| (mode, format!("pgbench -S, {mode}, 8 clients, TLS")));
    if !cases.iter().any(|(_, case)| case.contains(only)) {
        return Ok(());
    }
    let stage = Stage::start(Durability::None, size, only, Some(Tls::new()?))?;
    for (mode, case) in &cases {
        stage.case(report, failures, case, |report, subjects| {
            stage.transactions(report, case, subjects, &["-S", "-M", mode], 8)
        });
    }
    Ok(())
}

/// Every commit waits for the disk, and the gateway's recording of a write does before the write is forwarded.
fn writes(size: Size, only: &str, report: &mut Report, failures: &mut Vec<String>) -> Result<()> {
    let case = "pgbench tpc-b, simple, 8 clients, fsync on";
    if !case.contains(only) {
        return Ok(());
    }
    let stage = Stage::new(Durability::Full, size, only)?;
    stage.case(report, failures, case, |report, subjects| {
        stage.transactions(report, case, subjects, &["-M", "simple"], 8)
    });
    Ok(())
}

/// What a session takes that has run one statement and waits for nothing.
fn idle(report: &mut Report, subjects: &[Subject]) -> Result<Least> {
    for subject in subjects {
        let Some(pid) = subject.pid else { continue };
        let used = || {
            let mut client = Client::log_in(subject)?;
            client.drain("SELECT abalance FROM pgbench_accounts WHERE aid = 1", None).map(|_| client)
        };
        // What is made once, for the first statement of all.
        drop(used()?);
        let before = resident_kib(pid)?;
        let sessions = (0..IDLE_SESSIONS).map(|_| used()).collect::<Result<Vec<_>>>()?;
        let each = (resident_kib(pid)? - before) / IDLE_SESSIONS as f64;
        report.add("idle sessions", subject.name, "memory per idle session", each, "KiB");
        drop(sessions);
    }
    Ok(Least { operations: IDLE_SESSIONS as u64, masked: 0 })
}

/// What the recording of a case must hold at least.
#[derive(Debug)]
struct Least {
    operations: u64,
    /// Values masked.
    masked: u64,
}

impl Least {
    fn check(&self, case: &str, recorded: &Recorded) -> Result<()> {
        if recorded.masked >= self.masked && recorded.operations >= self.operations {
            return Ok(());
        }
        Err(format!("{case}: at least {self:?} had to be recorded, and not {recorded:?}").into())
    }
}

/// A server with pgbouncer in front of it.
struct Stage {
    pgbouncer: Pgbouncer,
    server: Postgres,
    size: Size,
    /// Cases whose names do not contain it are left out.
    only: String,
    tls: Option<Tls>,
}

impl Stage {
    fn new(durability: Durability, size: Size, only: &str) -> Result<Self> {
        Self::start(durability, size, only, None)
    }

    fn start(durability: Durability, size: Size, only: &str, tls: Option<Tls>) -> Result<Self> {
        let builder = Postgres::builder();
        let builder = match &tls {
            Some(tls) => builder.tls_with(&tls.ca, &tls.certificate),
            None => builder,
        };
        let server = builder
            .durability(durability)
            .setting("shared_buffers", "512MB")
            .setting("max_connections", "400")
            // Neither may fall into one subject's turn.
            .setting("autovacuum", "off")
            .setting("checkpoint_timeout", "1h")
            .setting("max_wal_size", "8GB")
            .start()?;
        server.psql("postgres", &format!("CREATE DATABASE {DATABASE} OWNER {}", subject::ACCOUNT))?;
        pgbench::load(&server, size.pick(5, 20))?;
        let pgbouncer = Pgbouncer::start(&server, tls.as_ref())?;
        Ok(Self { pgbouncer, server, size, only: only.to_owned(), tls })
    }

    /// Runs one case with gateways of its own, so that memory and recordings are this case's alone; then checks what was recorded.
    fn case(
        &self,
        report: &mut Report,
        failures: &mut Vec<String>,
        case: &str,
        body: impl FnOnce(&mut Report, &[Subject]) -> Result<Least>,
    ) {
        if !case.contains(&self.only) {
            return;
        }
        if let Err(error) = self.with_gateways(report, case, body) {
            progress(&format!("{case}: {error}"));
            failures.push(error.to_string());
        }
    }

    fn with_gateways(
        &self,
        report: &mut Report,
        case: &str,
        body: impl FnOnce(&mut Report, &[Subject]) -> Result<Least>,
    ) -> Result<()> {
        let folder = tempfile::Builder::new().prefix("bench-recordings-").tempdir()?;
        let recording = Gateway::start(&self.server, Some(folder.path()), self.tls.as_ref())?;
        let unrecorded = Gateway::start(&self.server, None, self.tls.as_ref())?;
        let direct = Subject::direct(&self.server, self.tls.is_some());
        let subjects = [&direct, self.pgbouncer.subject(), recording.subject(), unrecorded.subject()];
        let least = body(report, &subjects.map(Clone::clone))?;
        unrecorded.stop()?;
        let key = recording.key.ok_or("the gateway tells no key")?;
        let recorded =
            check::recorded(folder.path(), &key).map_err(|e| Error::from(format!("{case}: {e}")))?;
        recording.stop()?;
        least.check(case, &recorded)?;
        report.add(case, GATEWAY, "recordings verified", recorded.sessions as f64, "sessions");
        report.add(case, GATEWAY, "recorded", recorded.operations as f64, "operations");
        report.add(case, GATEWAY, "recordings", recorded.bytes as f64 / 1e6, "MB");
        report.add(case, GATEWAY, "masked", recorded.masked as f64, "values");
        for (class, count) in &recorded.classes {
            report.add(case, GATEWAY, &format!("masked, {class}"), *count as f64, "values");
        }
        Ok(())
    }

    fn transactions(
        &self,
        report: &mut Report,
        case: &str,
        subjects: &[Subject],
        arguments: &[&str],
        clients: u32,
    ) -> Result<Least> {
        // One client is dominated by idle wake-ups: it is compared, and not worth more time.
        let seconds = self.size.pick(if clients > 1 { 2 } else { 1 }, 8).to_string();
        let (count, threads) = (clients.to_string(), clients.min(2).to_string());
        let common = ["-n", "-c", &count, "-j", &threads, "-T", &seconds];
        let arguments = [&common, arguments].concat();
        let done = measure(report, case, (subjects, self.size.pick(2, 3)), Per::Million, |subject| {
            let run = pgbench::run(&self.server, subject, &arguments)?;
            Ok(Run {
                metrics: vec![
                    ("rate", run.transactions_per_second, "tps"),
                    ("latency, mean", run.latency * 1000.0, "us"),
                ],
                work: run.transactions,
            })
        })?;
        Ok(Least { operations: done as u64, masked: 0 })
    }

    fn drains(
        &self,
        report: &mut Report,
        case: &str,
        subjects: &[Subject],
        wide: &Wide,
        sql: &str,
    ) -> Result<Least> {
        for subject in subjects.iter().filter(|subject| subject.name != PGBOUNCER) {
            wide.check_masked(subject)?;
        }
        // CPU time is counted in ticks of 10 ms: a quick round is too short for one reading.
        let (rounds, readings): (usize, u32) = self.size.pick((3, 4), (5, 1));
        measure(report, case, (subjects, rounds), Per::Gigabyte, |subject| {
            let mut client = Client::log_in(subject)?;
            let (mut seconds, mut bytes) = (0.0, 0);
            for _ in 0..readings {
                let drained = client.drain(sql, None)?;
                if drained.rows != wide.rows {
                    return Err(format!("{} rows came instead of {}", drained.rows, wide.rows).into());
                }
                seconds += drained.seconds;
                bytes += drained.bytes;
            }
            let rows = wide.rows as f64 * f64::from(readings);
            let metrics = vec![
                ("rate", rows / seconds / 1e6, "million rows/s"),
                ("throughput", bytes as f64 / seconds / 1e6, "MB/s"),
            ];
            Ok(Run { metrics, work: bytes as f64 })
        })?;
        let readings = u64::from(readings) * rounds as u64;
        Ok(Least { operations: readings, masked: (readings + 1) * wide.planted() })
    }

    fn fixed_rate(&self, report: &mut Report, case: &str, subjects: &[Subject]) -> Result<Least> {
        let seconds = self.size.pick(4, 9).to_string();
        let direct = subjects.iter().find(|subject| subject.name == DIRECT).ok_or("nothing is direct")?;
        let common = ["-n", "-S", "-M", "prepared", "-c", "8", "-j", "2"];
        let fastest = pgbench::run(&self.server, direct, &[&common[..], &["-T", "2"]].concat())?;
        let rate = (fastest.transactions_per_second * RATE_SHARE).round();
        report.add(case, DIRECT, "fixed rate", rate, "tps");
        let rate = rate.to_string();
        let arguments = [&common[..], &["-R", &rate, "-T", &seconds]].concat();
        let done = measure(report, case, (subjects, self.size.pick(1, 3)), Per::Million, |subject| {
            let times = pgbench::latencies(&self.server, subject, &arguments)?;
            let micros = |share: f64| percentile(&times, share) * 1000.0;
            let metrics = vec![
                ("latency, p50", micros(0.5), "us"),
                ("latency, p99", micros(0.99), "us"),
                ("latency, p99.9", micros(0.999), "us"),
            ];
            Ok(Run { metrics, work: times.len() as f64 })
        })?;
        Ok(Least { operations: done as u64, masked: 0 })
    }

    /// A connection for every transaction: what logging in costs.
    fn connects(&self, report: &mut Report, subjects: &[Subject]) -> Result<Least> {
        let count = self.size.pick("50", "200");
        let arguments = ["-n", "-S", "-C", "-c", "1", "-t", count];
        let done = measure(report, "connect", (subjects, self.size.pick(1, 3)), Per::Million, |subject| {
            let run = pgbench::run(&self.server, subject, &arguments)?;
            let connect = run.connect.ok_or("pgbench does not tell the time to connect")?;
            Ok(Run { metrics: vec![("time to connect, mean", connect, "ms")], work: run.transactions })
        })?;
        Ok(Least { operations: done as u64, masked: 0 })
    }
}

/// The share of what the direct connection can do at which latencies are compared: well below what any subject can do, so that what is
/// measured is not a queue.
const RATE_SHARE: f64 = 0.1;

/// Sessions that wait for nothing: enough that what one takes can be told.
const IDLE_SESSIONS: usize = 100;
