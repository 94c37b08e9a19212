//! What is fuzzed. A target returns a number that says what came of the input: error kinds, counts, decisions.

mod analysis;
mod framing;
mod masking;
mod recording;
mod session;
mod sftp;
mod shell;
mod startup;
mod terminal;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> u64,
    /// Words of the format, for mutations.
    pub words: &'static [&'static [u8]],
}

pub const ALL: &[Target] = &[
    framing::TARGET,
    startup::TARGET,
    session::TARGET,
    analysis::TARGET,
    masking::TARGET,
    recording::TARGET,
    sftp::TARGET,
    shell::TARGET,
    terminal::TARGET,
];

/// One number for an outcome.
fn outcome(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What kind of error it is: its first words, without numbers and names.
fn kind(error: &impl std::fmt::Display) -> String {
    error.to_string().chars().take_while(|c| !c.is_ascii_digit() && *c != '`').take(60).collect()
}
