//! Anchored automata: one walk from a candidate's first byte finds where every pattern of a group ends.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};

/// Most bytes one candidate is followed before it must have matched: what a stream holds back at most.
pub const CAP: usize = 512;

/// Most patterns that may match from one start at once; the built-in groups have fewer, custom rules one each.
const MAX_ENDS: usize = 8;

/// The automaton of a group of patterns.
#[derive(Debug)]
pub(super) struct Machine {
    dfa: dense::DFA<Vec<u32>>,
    first: Box<[bool; 256]>,
    pairs: Pairs,
}

/// The first two bytes of anything that may match: a bit for each.
#[derive(Clone, Debug)]
pub(super) struct Pairs(Box<[u64; 1024]>);

impl Default for Pairs {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl Pairs {
    fn insert(&mut self, first: u8, second: u8) {
        if let Some(word) = self.0.get_mut(usize::from(first) * 4 + usize::from(second >> 6)) {
            *word |= 1 << (second & 63);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(to, from)| *to |= from);
    }

    /// Whether a match may begin so; without a second byte, by the first alone.
    pub(super) fn allows(&self, (first, second): (u8, Option<u8>)) -> bool {
        let row = usize::from(first) * 4;
        match second {
            Some(byte) => {
                self.0.get(row + usize::from(byte >> 6)).is_some_and(|word| word >> (byte & 63) & 1 == 1)
            }
            None => self.0.iter().skip(row).take(4).any(|word| *word != 0),
        }
    }
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

/// The longest end of each pattern that matched, small enough to be passed around.
#[derive(Debug)]
pub(super) struct Ends {
    at: usize,
    /// Pattern and length.
    list: [(u16, u16); MAX_ENDS],
    len: usize,
}

impl Ends {
    fn new(at: usize) -> Self {
        Self { at, list: [(0, 0); MAX_ENDS], len: 0 }
    }

    fn set(&mut self, pattern: usize, end: usize) {
        // Groups have under a hundred patterns and matches at most `CAP` bytes, so both fit.
        let (Ok(pattern), Ok(length)) = (u16::try_from(pattern), u16::try_from(end - self.at)) else {
            return;
        };
        let used = self.list.get_mut(..self.len).unwrap_or_default();
        if let Some(slot) = used.iter_mut().find(|slot| slot.0 == pattern) {
            slot.1 = length;
        } else if let Some(slot) = self.list.get_mut(self.len) {
            *slot = (pattern, length);
            self.len += 1;
        }
    }

    /// Pattern and end of each match.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.list
            .iter()
            .take(self.len)
            .map(|(pattern, length)| (usize::from(*pattern), self.at + usize::from(*length)))
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
        let mut machine = Self { dfa, first: Box::new([false; 256]), pairs: Pairs::default() };
        machine.learn_first_bytes();
        Ok(machine)
    }

    fn learn_first_bytes(&mut self) {
        let behind = [None, Some(b'a'), Some(b' '), Some(b'\n'), Some(b'\r'), Some(0xFF)];
        let starts: Vec<StateID> = behind.iter().filter_map(|b| self.start(*b)).collect();
        let dfa = &self.dfa;
        for (byte, slot) in (0..=255).zip(self.first.iter_mut()) {
            let next = starts.iter().map(|s| dfa.next_state(*s, byte)).filter(|s| !dfa.is_dead_state(*s));
            for state in next {
                *slot = true;
                (0..=255)
                    .filter(|b| !dfa.is_dead_state(dfa.next_state(state, *b)))
                    .for_each(|b| self.pairs.insert(byte, b));
            }
        }
    }

    fn start(&self, behind: Option<u8>) -> Option<StateID> {
        self.dfa.start_state(&start::Config::new().look_behind(behind).anchored(Anchored::Yes)).ok()
    }

    pub(super) fn pairs(&self) -> &Pairs {
        &self.pairs
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
        let mut ends = Ends::new(at);
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
        Some(self.dfa.next_state(state, byte)).filter(|next| !self.is_over(*next) && !self.ends_here(*next))
    }
}

impl Machine {
    /// Whether the match reported by `state` ended before its last byte and nothing goes on from there.
    fn ends_here(&self, state: StateID) -> bool {
        let goes_on = |byte: u8| !self.is_over(self.dfa.next_state(state, byte));
        self.dfa.is_match_state(state)
            && !self.dfa.byte_classes().representatives(0..=255).filter_map(|unit| unit.as_u8()).any(goes_on)
    }
}

fn reason(error: &dense::BuildError) -> String {
    use std::error::Error;
    let source = error.source().map(ToString::to_string).unwrap_or_else(|| error.to_string());
    source.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_lowercase()
}
