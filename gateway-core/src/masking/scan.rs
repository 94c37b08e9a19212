//! One pass over a text: triggers, automata, checks, tails. Whole buffers and streams both go through here, which is why
//! they agree.

use std::ops::Range;

use super::CAP;
use super::automaton::Outcome;
use super::builtin::Family;
use super::class::ClassSet;
use super::compile::{Check, Group, Left, Program};
use super::known::KnownLiterals;
use super::tail::{Live, Step};
use super::text::{LOOK_BEHIND, local_part_start, word_can_start};
use super::transform::starts_with_tag;
use super::trigger::{self, Shape};
use super::validate::Candidate;

/// The rule number of injected credentials; they come first and cannot be revealed.
pub(super) const KNOWN_RULE: u16 = 0;

/// A sensitive span before merging.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// Where its candidate was triggered.
    pub(super) at: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) rule: u16,
    /// The value may go on after `end`, which is the end of the text so far.
    pub(super) live: Option<Live>,
    /// Merged from spans of different classes.
    pub(super) mixed: bool,
}

/// The bytes of one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) low: usize,
    pub(super) high: usize,
    /// Whether nothing follows `high`.
    pub(super) complete: bool,
}

/// The work of one pass.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) program: &'a Program,
    pub(super) skip: &'a ClassSet,
    pub(super) text: &'a [u8],
    pub(super) raws: Vec<Raw>,
    /// Per rule, the last open-ended value: what begins inside is part of it. Places do not always ascend, as a rule's literals may lie in
    /// several packs, so where it began counts too.
    pub(super) until: Vec<Range<usize>>,
    /// Bytes read by automata and tails.
    pub(super) steps: u64,
    /// Candidates before this place were judged in an earlier pass.
    floor: usize,
    last_address: Option<usize>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(program: &'a Program, skip: &'a ClassSet, text: &'a [u8]) -> Self {
        Self {
            program,
            skip,
            text,
            raws: Vec::new(),
            until: Vec::new(),
            steps: 0,
            floor: 0,
            last_address: None,
        }
    }

    /// Finds everything that begins at or after `from`. `bounds` names the record a place is in.
    pub(super) fn run(
        &mut self,
        from: usize,
        known: Option<&KnownLiterals>,
        mut bounds: impl FnMut(usize) -> Option<Bounds>,
    ) {
        self.floor = from;
        let text = self.text.get(from..).unwrap_or_default();
        if self.program.has_shapes() {
            trigger::shapes(text, |shape, at| self.shape(shape, from + at, &mut bounds));
        }
        let rules = self.program.packs.as_slice();
        let secrets = known.map(KnownLiterals::packs).unwrap_or_default();
        trigger::literals(text, [rules, secrets], |pack, at| {
            let Some(record) = bounds(from + at) else { return };
            match known.filter(|_| pack >= rules.len()) {
                Some(known) => self.known(known, from + at, record),
                None => {
                    self.program.pack_groups(pack).for_each(|group| self.verify(group, from + at, record));
                }
            }
        });
        self.words(from, &mut bounds);
    }

    fn shape(&mut self, shape: Shape, at: usize, bounds: &mut impl FnMut(usize) -> Option<Bounds>) {
        let Some(record) = bounds(at) else { return };
        let (family, start) = match shape {
            Shape::Number => (Family::Digits, at),
            Shape::Dotted => (Family::Digits, self.back(at, record.low, 2, |b| b.is_ascii_digit())),
            Shape::Account => (Family::Account, at),
            Shape::At => (Family::Email, at),
            Shape::Colon => {
                (Family::Address, self.back(at, record.low, 48, |b| b.is_ascii_hexdigit() || b == b':'))
            }
        };
        if family == Family::Address && self.last_address.replace(start) == Some(start) {
            return;
        }
        let Some(group) = self.program.family(family) else { return };
        self.verify(group, start, record);
        // `%3D2001:...`: the escape's digits look like part of the address; or one of its two places does, if they are no digits.
        for behind in (1..=2).filter(|_| family == Family::Address) {
            let sign = start.checked_sub(behind).filter(|sign| *sign >= record.low);
            if sign.is_some_and(|sign| self.text.get(sign) == Some(&b'%')) {
                self.verify(group, start + 3 - behind, record);
            }
        }
    }

    fn back(&self, at: usize, low: usize, most: usize, test: fn(u8) -> bool) -> usize {
        let before = self.text.get(low.max(at.saturating_sub(most))..at).unwrap_or_default();
        at - before.iter().rev().take_while(|b| test(**b)).count()
    }

    /// Custom rules without a literal: tried at the start of every word.
    fn words(&mut self, from: usize, bounds: &mut impl FnMut(usize) -> Option<Bounds>) {
        for group in self.program.word_groups() {
            for at in from..self.text.len() {
                if self.text.get(at).is_some_and(|b| self.program.begins(group, *b)) {
                    bounds(at).into_iter().for_each(|record| self.verify(group, at, record));
                }
            }
        }
    }

    fn known(&mut self, known: &KnownLiterals, start: usize, record: Bounds) {
        if let Some(end) = known.end(self.text, start).filter(|end| *end <= record.high) {
            self.raws.push(Raw { at: start, start, end, rule: KNOWN_RULE, live: None, mixed: false });
        }
    }

    /// Whether a candidate of the group may begin at `at`.
    fn may_begin(&self, group: &Group, at: usize, low: usize) -> bool {
        let first = self.text.get(at).is_some_and(|b| group.machine.begins_with(*b));
        first
            && match group.left {
                Left::Any => true,
                Left::Word => word_can_start(self.text, low, at),
                Left::WordIfWord => {
                    !self.text.get(at).is_some_and(|b| super::text::is_word(*b))
                        || word_can_start(self.text, low, at)
                }
                Left::LocalPart => local_part_start(self.text, low, at) < at,
                Left::Address => {
                    let before = self.text.get(low..at).unwrap_or_default();
                    let runs_on =
                        before.last().is_some_and(|b| b.is_ascii_hexdigit() || b == &b':' || b == &b'.');
                    let encoded = matches!(before, [.., b'%', _, _]);
                    (!runs_on || encoded) && word_can_start(self.text, low, at)
                }
            }
    }

    /// Judges the candidate of `group` at `at`. Returns whether bytes after the record's known end could change the verdict.
    fn judge(&mut self, index: usize, at: usize, record: Bounds) -> bool {
        let Some(group) = self.program.groups.get(index) else { return false };
        let Some(text) = self.text.get(..record.high) else { return false };
        if at < self.floor || !self.may_begin(group, at, record.low) {
            return false;
        }
        let (ends, outcome) = group.machine.walk(text, record.low, at, record.complete, &mut self.steps);
        if outcome == Outcome::Alive {
            return true;
        }
        let open = |end: usize, lookahead: usize| !record.complete && end + lookahead > record.high;
        let rule_of = |pattern: usize| {
            group
                .rules
                .get(pattern)
                .and_then(|rule| Some((*rule, self.program.rules.get(usize::from(*rule))?)))
        };
        if ends
            .iter()
            .any(|(pattern, end)| rule_of(pattern).is_some_and(|(_, rule)| open(end, rule.lookahead)))
        {
            return true;
        }
        let start =
            if group.left == Left::LocalPart { local_part_start(self.text, record.low, at) } else { at };
        for (pattern, end) in ends.iter() {
            let Some((number, rule)) = rule_of(pattern) else { continue };
            if self.skip.contains(usize::from(rule.class)) {
                continue;
            }
            let cut = text.get(..record.high.min(end + rule.lookahead)).unwrap_or_default();
            let candidate = Candidate { text: cut, low: record.low, range: start..end };
            let value = match &rule.check {
                Check::BuiltIn(check) => check(&candidate),
                Check::Custom(check) => check.accepts(&candidate).then_some(start..end),
            };
            if let Some(value) = value.filter(|v| !starts_with_tag(cut.get(v.start..).unwrap_or_default())) {
                self.accept(index, number, at, value, outcome, record);
            }
        }
        false
    }

    fn verify(&mut self, group: usize, at: usize, record: Bounds) {
        self.judge(group, at, record);
    }

    fn accept(
        &mut self,
        group: usize,
        number: u16,
        at: usize,
        value: Range<usize>,
        outcome: Outcome,
        record: Bounds,
    ) {
        let Some(rule) = self.program.rules.get(usize::from(number)) else { return };
        let live = match outcome {
            Outcome::Capped(state) if rule.open_ended => Some(Live::Automaton { group, state }),
            _ => rule.tail.begin(self.text.get(value.end.saturating_sub(1)).copied().unwrap_or_default()),
        };
        let Some(live) = live else {
            self.raws.push(Raw {
                at,
                start: value.start,
                end: value.end,
                rule: number,
                live: None,
                mixed: false,
            });
            return;
        };
        if self.until.get(usize::from(number)).is_some_and(|last| last.contains(&value.start)) {
            return;
        }
        let from = if matches!(live, Live::Automaton { .. }) { at + CAP } else { value.end };
        let mut raw = Raw { at, start: value.start, end: from, rule: number, live: Some(live), mixed: false };
        self.follow(&mut raw, record);
        self.covers(&raw);
        self.raws.push(raw);
    }

    /// Remembers an open-ended value as the last one of its rule.
    pub(super) fn covers(&mut self, raw: &Raw) {
        if self.until.is_empty() {
            self.until = vec![0..0; self.program.rules.len()];
        }
        if let Some(slot) = self.until.get_mut(usize::from(raw.rule)) {
            *slot = raw.start..if raw.live.is_some() { usize::MAX } else { raw.end };
        }
    }

    /// Follows an open-ended value to its end or the end of the text.
    pub(super) fn follow(&mut self, raw: &mut Raw, record: Bounds) {
        let Some(mut live) = raw.live.take() else { return };
        let rest = self.text.get(raw.end..record.high).unwrap_or_default();
        for (i, byte) in rest.iter().enumerate() {
            let step = match &mut live {
                Live::Automaton { group, state } => match self.program.follow(*group, *state, *byte) {
                    Some(next) => {
                        *state = next;
                        Step::Take
                    }
                    None => Step::End,
                },
                other => other.step(*byte),
            };
            if step != Step::Take {
                raw.end += i + usize::from(step == Step::TakeAndEnd);
                self.steps += i as u64;
                return;
            }
        }
        self.steps += rest.len() as u64;
        raw.end = record.high;
        raw.live = (!record.complete).then_some(live);
    }

    /// The first place at or after `from` where a match could begin that bytes to come would decide.
    pub(super) fn undecided(&mut self, from: usize, low: usize, known: Option<&KnownLiterals>) -> usize {
        let high = self.text.len();
        let record = Bounds { low, high, complete: false };
        let name = if self.program.family(Family::Email).is_some() {
            local_part_start(self.text, low, high)
        } else {
            high
        };
        let mut hold = name.max(from);
        if let Some(known) = known {
            hold = hold.min(known.unfinished(self.text, from));
        }
        // Before the last `CAP` bytes every walk has ended; look-ahead adds a little.
        let window = from.max(high.saturating_sub(CAP + LOOK_BEHIND));
        let found = self.raws.len();
        for at in window..hold.max(window) {
            let pair = (self.text.get(at).copied().unwrap_or_default(), self.text.get(at + 1).copied());
            if !self.program.may_hold(pair, high - at) {
                continue;
            }
            let reaches = |group: &Group| group.reach >= high - at && group.machine.pairs().allows(pair);
            let alive = (0..self.program.groups.len()).any(|group| {
                self.program.groups.get(group).is_some_and(reaches) && self.is_alive(group, at, record)
            });
            if alive {
                hold = at;
                break;
            }
        }
        self.raws.truncate(found);
        self.addresses_begin(hold, low, from)
    }

    /// `hold`, or where an address begins whose `@` behind it is undecided: what stands before an `@` belongs to it.
    fn addresses_begin(&mut self, hold: usize, low: usize, from: usize) -> usize {
        let Some(group) = self.program.family(Family::Email) else { return hold };
        let (found, high) = (self.raws.len(), self.text.len());
        let record = Bounds { low, high, complete: false };
        let ats = (hold..high.min(hold + LOOK_BEHIND + 1)).filter(|at| self.text.get(*at) == Some(&b'@'));
        let ats: Vec<_> = ats.collect();
        let text = self.text;
        let alive = ats.into_iter().filter(|at| self.is_alive(group, *at, record));
        let begin = alive.map(|at| local_part_start(text, low, at)).min();
        self.raws.truncate(found);
        begin.map_or(hold, |begin| begin.clamp(from, hold))
    }

    fn is_alive(&mut self, group: usize, at: usize, record: Bounds) -> bool {
        let until = std::mem::take(&mut self.until);
        let alive = self.judge(group, at, record);
        self.until = until;
        alive
    }
}

/// Orders spans and merges those that overlap: nothing of any span survives, the first one gives the name.
pub(super) fn merge(raws: &mut Vec<Raw>, program: &Program) {
    raws.sort_unstable_by_key(|raw| (raw.start, raw.rule, raw.at));
    raws.dedup_by(|next, kept| {
        let overlaps = next.start < kept.end;
        if overlaps {
            kept.end = kept.end.max(next.end);
            kept.mixed |= next.mixed || program.class(next.rule) != program.class(kept.rule);
        }
        overlaps
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::masking::rule::RuleSet;

    /// All spans, found by judging every group at every place.
    fn exhaustive(program: &Program, text: &[u8]) -> Vec<(usize, usize, u16)> {
        let skip = ClassSet::default();
        let record = Bounds { low: 0, high: text.len(), complete: true };
        let mut raws = Vec::new();
        for group in 0..program.groups.len() {
            let mut scan = Scan::new(program, &skip, text);
            (0..text.len()).for_each(|at| scan.verify(group, at, record));
            raws.append(&mut scan.raws);
        }
        merge(&mut raws, program);
        raws.iter().map(|raw| (raw.start, raw.end, raw.rule)).collect()
    }

    fn triggered(program: &Program, text: &[u8]) -> Vec<(usize, usize, u16)> {
        let skip = ClassSet::default();
        let mut scan = Scan::new(program, &skip, text);
        scan.run(0, None, |_| Some(Bounds { low: 0, high: text.len(), complete: true }));
        merge(&mut scan.raws, program);
        scan.raws.iter().map(|raw| (raw.start, raw.end, raw.rule)).collect()
    }

    fn pieces() -> impl Strategy<Value = Vec<String>> {
        let piece = prop_oneof![
            "[0-9]{1,5}",
            "[ .:@+(-]",
            "[)a-fA-F%=]",
            prop::sample::select(vec![
                "4111111111111111",
                "4111 1111",
                "5555-5555-5555-4444",
                "378282246310005",
                "3782 822463 10005",
                "536-22-8726",
                "(415) 555-0132",
                "415.555.0132",
                "+44 20 7946 0958",
                "10.1.2.3",
                "2001:db8::1",
                "fe80:",
                "1:2:3:4:5:6:7:8",
                "GB82 WEST 1234 5698 7654 32",
                "DE89370400440532013000",
                "bob",
                "@example.com",
                "password",
                "=",
                "secret: ",
                "token=\"",
                "\"",
                "Bearer ",
                "abcdefghijklmnop",
                "://u:pw@h",
                "https",
                "\\n",
                "%3D",
                "\u{1b}[31m",
                "é",
            ])
            .prop_map(str::to_owned),
            (60..70usize).prop_map(|n| "x ".repeat(n / 2)),
        ];
        prop::collection::vec(piece, 1..16)
    }

    /// Found by the property below: what stands behind a percent sign counts as an escape, whatever two bytes it is.
    #[test]
    fn an_address_begins_behind_an_escape() {
        let program = Program::new(RuleSet::builtin()).unwrap();
        for (text, found) in
            [("% :1:2:3:4:5:6:7:8+", true), ("%3D1:2:3:4:5:6:7:8+", true), ("%:a1:2:3:4:5:6:7:8+", false)]
        {
            assert_eq!(triggered(&program, text.as_bytes()), exhaustive(&program, text.as_bytes()), "{text}");
            assert_eq!(!triggered(&program, text.as_bytes()).is_empty(), found, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn triggers_miss_nothing(pieces in pieces()) {
            static PROGRAM: std::sync::OnceLock<Program> = std::sync::OnceLock::new();
            let program = PROGRAM.get_or_init(|| Program::new(RuleSet::builtin()).unwrap());
            let text = pieces.concat();
            prop_assert_eq!(triggered(program, text.as_bytes()), exhaustive(program, text.as_bytes()), "{:?}", text);
        }
    }
}
