//! What the gateway costs, measured beside what it is compared with, in one run.
//!
//! ```text
//! cargo run --release -p benches -- <micro|pg|ssh|http|k8s> [--quick] [--only TEXT] [--json FILE]
//! ```
//! `micro` measures the parts in this process. `pg` runs real clients against a direct connection, pgbouncer and the gateway
//! with everything on, round by round in turn, and takes medians; `ssh` does so with a direct connection and the gateway. What
//! counts are the ratios of one run, not its absolute numbers. Exit status: 0 measured, 1 something failed or a check did not hold, 2 not built yet or wrong usage.

mod check;
mod child;
mod corpus;
mod machine;
mod micro;
mod pg;
mod recorder;
mod report;
mod rounds;
mod sample;
mod ssh;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::machine::Machine;
use crate::report::Report;

/// Anything that stops a bench; its text goes to the terminal.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
/// Whatever a bench may fail at.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(about = "Measure what the gateway costs")]
struct Arguments {
    /// What to measure.
    suite: Suite,
    /// Smaller sizes and fewer rounds, for a look within two minutes.
    #[arg(long)]
    quick: bool,
    /// Measure only cases (of `pg` and `ssh`) whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write machine, rows and ratios to this file as JSON as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Suite {
    /// The parts: scanner, policy, SQL analysis, recorder, approvals.
    Micro,
    /// PostgreSQL end to end: direct, pgbouncer, gateway.
    Pg,
    /// SSH end to end.
    Ssh,
    /// HTTP end to end.
    Http,
    /// Kubernetes end to end.
    K8s,
    /// The gateway as a process of its own, so that its time can be told from the client's; started by `pg`.
    #[value(hide = true)]
    ServeGateway,
    /// The same for `ssh`.
    #[value(hide = true)]
    ServeSshGateway,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Within two minutes; small differences mean nothing.
    Quick,
    /// Within a quarter of an hour.
    Full,
}

impl Size {
    /// One of two values.
    pub(crate) fn pick<T>(self, quick: T, full: T) -> T {
        if self == Self::Quick { quick } else { full }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let size = if arguments.quick { Size::Quick } else { Size::Full };
    let only = arguments.only.unwrap_or_default();
    let measured = match arguments.suite {
        Suite::Micro => measure(size, arguments.json, micro::run),
        Suite::Pg => measure(size, arguments.json, |size, report| pg::run(size, &only, report)),
        Suite::Ssh => measure(size, arguments.json, |size, report| ssh::run(size, &only, report)),
        Suite::ServeGateway => pg::serve::run(),
        Suite::ServeSshGateway => ssh::serve::run(),
        Suite::Http | Suite::K8s => {
            eprintln!("not built yet");
            return ExitCode::from(2);
        }
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a suite and shows its report, also of what was measured before something failed.
fn measure(
    size: Size,
    json: Option<PathBuf>,
    suite: impl FnOnce(Size, &mut Report) -> Result<()>,
) -> Result<()> {
    // Opened first: a wrong path is better known before a quarter of an hour than after it.
    let file = json.map(|path| File::create(&path).map_err(|e| format!("`{}`: {e}", path.display())));
    let file = file.transpose()?;
    let mut report = Report::new(Machine::here());
    let ran = suite(size, &mut report);
    report.compare();
    print!("{report}");
    if let Some(mut file) = file {
        serde_json::to_writer_pretty(&mut file, &report)?;
        writeln!(file)?;
    }
    ran
}
