//! Attacks on the gateway, one after the other, against a real OpenSSH server behind a real gateway.
//!
//! An attack is held if its damage is not done, whatever the error said: what counts is the state of the vault and the bytes
//! received. Each one is first tried without the gateway, where the damage must happen; else it proves nothing and the suite
//! fails. Each one has a harmless twin, which must work through the gateway.
//! Each class of attacks, and each technique in `cases/techniques.toml`, has three cases at least, or the suite fails.
//! `cargo test -p gateway-ssh --test bypass -- WORD` tries those with the word in their name only.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arena;
mod case;
mod coverage;
mod trial;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use coverage::Coverage;
use trial::{Attack, Outcome};

/// Attacks tried at once: each one waits for processes and sockets most of the time.
const WORKERS: usize = 4;

fn main() -> ExitCode {
    let word = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let started = Instant::now();
    // A panic makes its trial invalid, and is told there.
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    let attacks: Vec<_> = case::attacks().into_iter().filter(|a| a.name.contains(&word)).collect();
    let tried = attacks.len();
    let coverage = Coverage::of(&attacks);
    arena::start();
    let outcomes = try_all(attacks);
    let held = outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Held)).count();
    // A part of the suite covers what it covers.
    let covered = !word.is_empty() || coverage.report(&outcomes);
    // Last, so that they are read: whoever sees only the end of a log sees why.
    for (name, outcome) in &outcomes {
        if let Some(why) = outcome.why() {
            println!("{name}: {why}");
        }
    }
    println!("({:.1} s)", started.elapsed().as_secs_f32());
    println!("bypass gateway-ssh: tried {tried}, held {held}");
    if tried == held && covered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn try_all(attacks: Vec<Attack>) -> Vec<(String, Outcome)> {
    let queue = Mutex::new(VecDeque::from(attacks));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(attack) = next() {
                    let outcome = attack.attempt();
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((attack.name, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by(|a, b| a.0.cmp(&b.0));
    outcomes
}
