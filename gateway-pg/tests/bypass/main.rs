//! Attacks on the gateway, one after the other, against a real PostgreSQL behind a real gateway.
//!
//! An attack is held if its damage is not done, whatever the error said: what counts is the state of the database and the
//! bytes received. Each one is first tried without the gateway, where the damage must happen; else it proves nothing and the
//! suite fails. Each one has a harmless twin, which must work through the gateway, on the same connection where that lives on.
//! Each known way past a gateway (`ways.toml`) and each class must be tried in at least three variants.
//! `cargo test -p gateway-pg --test bypass -- WORD` tries those with the word in their name only.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod approvals;
mod arena;
mod case;
mod client;
mod coverage;
mod records;
mod tokens;
mod trial;
mod wire;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use trial::{Attack, Outcome};

/// Attacks tried at once: each one waits for processes and sockets most of the time.
const WORKERS: usize = 6;

fn main() -> ExitCode {
    let word = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let started = Instant::now();
    // A panic makes its trial invalid, and is told there.
    std::panic::set_hook(Box::new(|_| {}));
    let attacks =
        [case::attacks(), tokens::attacks(), approvals::attacks(), records::attacks(), wire::attacks()];
    let attacks: Vec<_> = attacks.into_iter().flatten().filter(|a| a.name.contains(&word)).collect();
    let tried = attacks.len();
    arena::start();
    let outcomes = try_all(attacks);
    let held = outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Held)).count();
    for (Attack { name, .. }, outcome) in &outcomes {
        match outcome {
            Outcome::Held => {}
            Outcome::Passed(how) => println!("NOT HELD  {name}: {how}"),
            Outcome::Invalid(why) => println!("INVALID   {name}: {why}"),
            Outcome::TwinFailed(why) => println!("TWIN      {name}: {why}"),
        }
    }
    let thin = coverage::report(&outcomes);
    println!("({:.1} s)", started.elapsed().as_secs_f32());
    println!("bypass gateway-pg: tried {tried}, held {held}");
    // With a word only some are tried, which says nothing of what is covered.
    let covered = thin == 0 || !word.is_empty();
    if tried == held && covered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn try_all(attacks: Vec<Attack>) -> Vec<(Attack, Outcome)> {
    let queue = Mutex::new(VecDeque::from(attacks));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(attack) = next() {
                    let outcome = attack.attempt();
                    arena::clear();
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((attack, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    outcomes
}
