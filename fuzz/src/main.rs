//! Feeds broken input to everything in the gateway that reads the bytes of a stranger.
//!
//! ```sh
//! cargo run --release --manifest-path fuzz/Cargo.toml -- all --seconds 30
//! cargo run --release --manifest-path fuzz/Cargo.toml -- framing fuzz/findings/framing-0123456789abcdef
//! ```
//! Needs no nightly compiler: instead of coverage, each target tells what came of an input, and inputs with a new outcome are
//! mutated further. Seeds are in `corpus/`; what is worth keeping of a run is added there with `--keep`. A panic or a hang is a
//! finding: the input is written to `findings/` and the exit code is 1.

mod engine;
mod mutate;
mod random;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use targets::Target;

struct Options {
    targets: Vec<&'static Target>,
    files: Vec<PathBuf>,
    seconds: u64,
    seed: u64,
    keep: bool,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            let names: Vec<_> = targets::ALL.iter().map(|t| t.name).collect();
            eprintln!(
                "fuzz: {problem}\nusage: fuzz TARGET|all [FILE...] [--seconds N] [--seed N] [--keep]\ntargets: {}",
                names.join(", ")
            );
            return ExitCode::from(2);
        }
    };
    let mut found = 0;
    for target in &options.targets {
        found += if options.files.is_empty() {
            engine::run(target, Duration::from_secs(options.seconds), options.seed, options.keep)
        } else {
            engine::replay(target, &options.files)
        };
    }
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let name = arguments.next().ok_or("which target?")?;
    let targets: Vec<_> = targets::ALL.iter().filter(|t| name == "all" || t.name == name).collect();
    if targets.is_empty() {
        return Err(format!("there is no target `{name}`"));
    }
    let mut options = Options { targets, files: Vec::new(), seconds: 10, seed: 1, keep: false };
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().and_then(|n| n.parse().ok()).ok_or(format!("{argument} needs a number"));
        match argument.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            "--keep" => options.keep = true,
            file => options.files.push(file.into()),
        }
    }
    Ok(options)
}
