//! What the adapters' suites of attacks have in common: what an attack is, how it ends, what all of them cover.
//!
//! An attack is held if its damage is not done, whatever the error said: what counts is the state of the target and the bytes
//! received. Each one is first tried without the gateway, where the damage must happen; else it proves nothing and the suite
//! fails. Each one has a harmless twin, which must work through the gateway.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Deserialize;

/// Variants that every class and every technique needs: one or two could be held by chance.
const VARIANTS: usize = 3;

/// Characters of an explanation that are told: what was received can be long.
const TOLD: usize = 2000;

/// How a trial ended.
#[derive(Debug)]
pub enum Outcome {
    /// No damage, and the harmless twin works.
    Held,
    /// The damage was done.
    Passed(String),
    /// It proves nothing: without the gateway no damage happens either, or the trial itself broke.
    Invalid(String),
    /// No damage, but the harmless twin does not work.
    TwinFailed(String),
}

impl Outcome {
    const fn held(&self) -> bool {
        matches!(self, Self::Held)
    }

    /// What is wrong, unless it held.
    fn why(&self) -> Option<String> {
        let (what, why) = match self {
            Self::Held => return None,
            Self::Passed(how) => ("NOT HELD", how),
            Self::Invalid(why) => ("INVALID", why),
            Self::TwinFailed(why) => ("TWIN FAILED", why),
        };
        Some(format!("{what}: {}", why.chars().take(TOLD).collect::<String>()))
    }
}

/// One attack.
pub struct Attack {
    name: String,
    class: u8,
    /// What it is a variant of, by numbers in the adapter's catalogue.
    techniques: Vec<u8>,
    run: Box<dyn Fn() -> Outcome + Send>,
}

impl Attack {
    /// One of this class, which is no variant of anything yet.
    pub fn new(class: u8, name: &str, run: impl Fn() -> Outcome + Send + 'static) -> Self {
        Self { name: format!("{class:02} {name}"), class, techniques: Vec::new(), run: Box::new(run) }
    }

    /// The same attack, as a variant of these techniques.
    #[must_use]
    pub fn by(self, techniques: &[u8]) -> Self {
        Self { techniques: techniques.to_vec(), ..self }
    }

    /// Runs it; a panic makes the trial invalid.
    fn attempt(&self) -> Outcome {
        catch_unwind(AssertUnwindSafe(|| (self.run)())).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
            Outcome::Invalid(format!("panicked: {}", text.unwrap_or_default()))
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    technique: Vec<Technique>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Technique {
    number: u8,
    text: String,
}

impl fmt::Debug for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A suite of attacks on one adapter.
#[derive(Debug)]
pub struct Suite<'a> {
    /// The adapter's name.
    pub adapter: &'a str,
    /// Classes of which there must be attacks.
    pub classes: &'a [u8],
    /// The catalogue of known ways past a gateway, of which there must be variants: TOML, `technique = [{ number = 1, text = "..." }]`.
    pub techniques: &'a str,
    /// Attacks tried at once: each one waits for processes and sockets most of the time.
    pub workers: usize,
    /// Starts the servers, before the first attack.
    pub start: fn(),
    /// Clears up in the worker's thread, after each attack.
    pub clear: fn(),
}

impl Suite<'_> {
    /// Tries those attacks that have the command line's word in their name, all of them without one, and prints what was held.
    /// A failure unless all were, and, when all were tried, there are variants enough of everything.
    ///
    /// # Panics
    /// If the catalogue is not what it should be.
    #[must_use]
    pub fn run(&self, attacks: impl IntoIterator<Item = Attack>) -> ExitCode {
        let word = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
        let started = Instant::now();
        // A panic makes its trial invalid, and is told there.
        std::panic::set_hook(Box::new(|_| {}));
        let attacks: VecDeque<_> = attacks.into_iter().filter(|a| a.name.contains(&word)).collect();
        (self.start)();
        let outcomes = self.try_all(attacks);
        let covered = self.report_coverage(&outcomes);
        // Last, so that whoever sees only the end of a log sees why.
        for (attack, outcome) in &outcomes {
            if let Some(why) = outcome.why() {
                println!("{}: {why}", attack.name);
            }
        }
        let held = outcomes.iter().filter(|(_, outcome)| outcome.held()).count();
        println!("({:.1} s)", started.elapsed().as_secs_f32());
        println!("bypass {}: tried {}, held {held}", self.adapter, outcomes.len());
        // A part of the suite covers what it covers.
        if held == outcomes.len() && (covered || !word.is_empty()) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn try_all(&self, attacks: VecDeque<Attack>) -> Vec<(Attack, Outcome)> {
        let queue = Mutex::new(attacks);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let outcomes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.workers {
                scope.spawn(|| {
                    while let Some(attack) = next() {
                        let outcome = attack.attempt();
                        (self.clear)();
                        outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((attack, outcome));
                    }
                });
            }
        });
        let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        outcomes
    }

    /// Prints what was tried and held of each class and technique; whether there is enough of all.
    fn report_coverage(&self, outcomes: &[(Attack, Outcome)]) -> bool {
        let mut enough = true;
        let mut line = |what: String, belongs: &dyn Fn(&Attack) -> bool| {
            let of = || outcomes.iter().filter(|(attack, _)| belongs(attack));
            let (tried, held) = (of().count(), of().filter(|(_, outcome)| outcome.held()).count());
            let few = if tried < VARIANTS { "  TOO FEW" } else { "" };
            println!("tried {tried:3}, held {held:3}  {what}{few}");
            enough &= tried >= VARIANTS;
        };
        for class in self.classes {
            line(format!("class {class}"), &|attack| attack.class == *class);
        }
        let catalogue: Catalogue =
            toml::from_str(self.techniques).unwrap_or_else(|e| panic!("{}", e.message()));
        let known: BTreeSet<u8> = catalogue.technique.iter().map(|t| t.number).collect();
        for Technique { number, text } in &catalogue.technique {
            line(format!("technique {number}: {text}"), &|attack| attack.techniques.contains(number));
        }
        let named: BTreeSet<u8> = outcomes.iter().flat_map(|(a, _)| a.techniques.iter().copied()).collect();
        for number in named.difference(&known) {
            println!("technique {number} is not in the catalogue");
            enough = false;
        }
        enough
    }
}
