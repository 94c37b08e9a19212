//! Anchored automata: one walk from a candidate's first byte finds where every pattern of a group ends.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};

/// Most bytes one candidate is followed before it must have matched: what a stream holds back at most.
pub const CAP: usize = 512;

/// Most patterns that may match from one start at once; the built-in groups have fewer, custom rules one each.
const MAX_ENDS: usize = 16;

/// The automaton of a group of patterns.
#[derive(Debug)]
pub(super) struct Machine {
    dfa: dense::DFA<Vec<u32>>,
    first: Box<[bool; 256]>,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No pattern can match any further.
    Dead,
    /// Some pattern could go on with bytes that have not come yet.
    Alive,
    /// [`CAP`] bytes were read and some pattern could go on.
    Capped(StateID),
}

/// The longest end of each pattern that matched.
#[derive(Debug, Default)]
pub(super) struct Ends {
    list: [(usize, usize); MAX_ENDS],
    len: usize,
}

impl Ends {
    fn set(&mut self, pattern: usize, end: usize) {
        let used = self.list.get_mut(..self.len).unwrap_or_default();
        if let Some(slot) = used.iter_mut().find(|slot| slot.0 == pattern) {
            slot.1 = end;
        } else if let Some(slot) = self.list.get_mut(self.len) {
            *slot = (pattern, end);
            self.len += 1;
        }
    }

    /// Pattern and end of each match.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.list.iter().take(self.len).copied()
    }
}

/// Why there is no automaton.
#[derive(Debug)]
pub(super) enum BuildFailure {
    TooLarge,
    Unsupported(String),
}

impl Machine {
    /// Compiles `patterns`, at most `limit` bytes large.
    pub(super) fn new(patterns: &[&str], limit: usize) -> Result<Self, BuildFailure> {
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(limit))
            .determinize_size_limit(Some(4 * limit));
        let dfa = dense::Builder::new()
            .configure(config)
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(
                regex_automata::nfa::thompson::Config::new().utf8(false).nfa_size_limit(Some(4 * limit)),
            )
            .build_many(patterns)
            .map_err(|e| {
                if e.is_size_limit_exceeded() {
                    BuildFailure::TooLarge
                } else {
                    BuildFailure::Unsupported(reason(&e))
                }
            })?;
        let mut machine = Self { dfa, first: Box::new([false; 256]) };
        machine.learn_first_bytes();
        Ok(machine)
    }

    fn learn_first_bytes(&mut self) {
        let behind = [None, Some(b'a'), Some(b' '), Some(b'\n'), Some(b'\r'), Some(0xFF)];
        let starts: Vec<StateID> = behind.iter().filter_map(|b| self.start(*b)).collect();
        let dfa = &self.dfa;
        for (byte, slot) in (0..=255).zip(self.first.iter_mut()) {
            *slot = starts.iter().any(|s| !dfa.is_dead_state(dfa.next_state(*s, byte)));
        }
    }

    fn start(&self, behind: Option<u8>) -> Option<StateID> {
        self.dfa.start_state(&start::Config::new().look_behind(behind).anchored(Anchored::Yes)).ok()
    }

    pub(super) fn size(&self) -> usize {
        self.dfa.memory_usage()
    }

    /// Whether any match begins with `byte`.
    pub(super) fn begins_with(&self, byte: u8) -> bool {
        self.first.get(usize::from(byte)).copied().unwrap_or(false)
    }

    /// Walks from `at` over a record that spans `low..` and, if `complete`, ends with `text`. Adds the bytes read to `steps`.
    pub(super) fn walk(
        &self,
        text: &[u8],
        low: usize,
        at: usize,
        complete: bool,
        steps: &mut u64,
    ) -> (Ends, Outcome) {
        let mut ends = Ends::default();
        let behind = at.checked_sub(1).filter(|b| *b >= low).and_then(|b| text.get(b)).copied();
        let Some(mut state) = self.start(behind) else { return (ends, Outcome::Dead) };
        let rest = text.get(at..).unwrap_or_default();
        for (read, &byte) in rest.iter().take(CAP).enumerate() {
            state = self.dfa.next_state(state, byte);
            if self.dfa.is_special_state(state) {
                // Matches are reported one byte late, so that `\b` can see that byte.
                self.note(state, at + read, &mut ends);
                if self.is_over(state) {
                    *steps += read as u64 + 1;
                    return (ends, Outcome::Dead);
                }
            }
        }
        *steps += rest.len().min(CAP) as u64;
        if rest.len() > CAP {
            return (ends, Outcome::Capped(state));
        }
        if !complete {
            return (ends, Outcome::Alive);
        }
        self.note(self.dfa.next_eoi_state(state), text.len(), &mut ends);
        (ends, Outcome::Dead)
    }

    fn note(&self, state: StateID, end: usize, ends: &mut Ends) {
        if self.dfa.is_match_state(state) {
            (0..self.dfa.match_len(state))
                .for_each(|i| ends.set(self.dfa.match_pattern(state, i).as_usize(), end));
        }
    }

    fn is_over(&self, state: StateID) -> bool {
        self.dfa.is_dead_state(state) || self.dfa.is_quit_state(state)
    }

    /// One more byte of a capped walk; `None` when no pattern can go on.
    pub(super) fn follow(&self, state: StateID, byte: u8) -> Option<StateID> {
        Some(self.dfa.next_state(state, byte)).filter(|next| !self.is_over(*next))
    }
}

fn reason(error: &dense::BuildError) -> String {
    use std::error::Error;
    let source = error.source().map(ToString::to_string).unwrap_or_else(|| error.to_string());
    source.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_lowercase()
}
