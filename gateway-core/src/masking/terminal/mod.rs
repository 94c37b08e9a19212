//! Masking of what is meant for terminals: values are found although control sequences stand between their characters.
//!
//! As long as a stream has no control but tabs and line ends, it goes through a [`StreamMasker`] alone. From the first one on it
//! is read in three ways at once, until nothing tells them apart any more: the bytes as they are, the text without any
//! control, and the text as its line shows it (backspaces take back, the cursor's way over cells leaves blanks, a carriage return
//! or another jump begins anew). What any of them takes for a value is masked.
//!
//! **What is written.** A value's characters are replaced by what the rule says. Controls between them stay, in their order,
//! behind it: colours that end there end. A control with a value inside itself (a title, a link) is dropped whole. See [`Controls`] for
//! what is dropped in any case.
//!
//! **What is not found.** A value that is drawn in pieces out of order, or over characters that were released already: there is no
//! screen here.

mod kept;
mod lane;
mod placed;
mod sequence;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::kept::Kept;
use self::lane::{Lane, Reading, Span};
pub(crate) use self::placed::readings;
use self::sequence::{CANCELLATION, Control, Effect, Kind, LEAD, Parser, Tokens, is_special};
use super::class::{ClassSet, DataClass};
use super::known::KnownLiterals;
use super::scanner::Scanner;
use super::stream::StreamMasker;
use super::transform::{Transform, tag};

/// Most bytes of a chunk that are looked at at once. 16 KiB.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes kept back beyond which no more controls are, since no text decides what stands between them: they are dropped. 256 KiB.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// Which control sequences are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Controls {
    /// All but those that write or ask for the clipboard (OSC 52): for programs without a terminal, whose output may be anything.
    AsSent,
    /// Those that draw, move, colour and switch modes. Strings for the terminal itself (titles, links, device strings, the
    /// clipboard), moves of its window, questions that it answers with a text of its own, and sequences with numbers of more than
    /// four digits are dropped.
    Drawing,
}

/// Masks one stream for a terminal, chunk by chunk.
///
/// What is masked does not depend on how the stream is cut, but for one thing: a backspace takes back whatever came in the same
/// piece, and of earlier pieces only what is still held back. At most some kilobytes of text are held back and 256 KiB in all.
///
/// ```
/// use std::sync::Arc;
/// use gateway_core::masking::{ClassSet, Controls, RuleSet, Scanner, TerminalMasker};
///
/// let scanner = Arc::new(Scanner::new(RuleSet::builtin())?);
/// let mut masker = TerminalMasker::new(scanner, ClassSet::default(), Controls::Drawing);
/// let mut out = Vec::new();
/// masker.push(b"write to ada\x1b[31m@exa", &mut out);
/// masker.push(b"mple\x1b[0m.com\n", &mut out);
/// masker.finish(&mut out);
/// assert_eq!(out, b"write to [REDACTED:EMAIL]\x1b[31m\x1b[0m\n");
/// # Ok::<(), gateway_core::masking::RuleError>(())
/// ```
#[derive(Debug)]
pub struct TerminalMasker {
    scanner: Arc<Scanner>,
    controls: Controls,
    mode: Mode,
    spans: usize,
    by_rule: BTreeMap<u16, u64>,
}

#[derive(Debug)]
enum Mode {
    /// There was no control for a while.
    Plain(StreamMasker),
    Full(Box<Readings>),
}

impl TerminalMasker {
    /// A masker for one stream.
    pub fn new(scanner: Arc<Scanner>, skip: ClassSet, controls: Controls) -> Self {
        let mode = Mode::Plain(StreamMasker::new(Arc::clone(&scanner), skip));
        Self { scanner, controls, mode, spans: 0, by_rule: BTreeMap::new() }
    }

    /// Also masks a session's injected credentials.
    #[must_use]
    pub fn beside(mut self, known: Arc<KnownLiterals>) -> Self {
        if let Mode::Plain(masker) = self.mode {
            self.mode = Mode::Plain(masker.beside(known));
        }
        self
    }

    /// Takes the next bytes and appends to `out` what is certain.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        for piece in chunk.chunks(PIECE_BYTES) {
            match &mut self.mode {
                Mode::Plain(masker) if !has_controls(piece) => masker.push(piece, out),
                Mode::Plain(masker) => {
                    count(masker.take_rules(), &mut self.by_rule, &mut self.spans);
                    let mut readings = Readings::new(masker, self.controls);
                    readings.push(piece);
                    self.mode = Mode::Full(Box::new(readings));
                }
                Mode::Full(readings) => readings.push(piece),
            }
            self.release(false, out);
        }
    }

    /// Ends a record: appends everything held back, masked, and starts anew.
    pub fn record_boundary(&mut self, out: &mut Vec<u8>) {
        match &mut self.mode {
            Mode::Plain(masker) => masker.record_boundary(out),
            Mode::Full(readings) => readings.finish(),
        }
        self.release(true, out);
    }

    /// Ends the stream; returns how many values were masked in all.
    pub fn finish(mut self, out: &mut Vec<u8>) -> usize {
        self.record_boundary(out);
        self.spans
    }

    /// How many bytes are held back now, those of a control sequence under way aside.
    pub fn held(&self) -> usize {
        match &self.mode {
            Mode::Plain(masker) => masker.held(),
            Mode::Full(readings) => readings.kept.len(),
        }
    }

    /// Which classes are shown from the next bytes on.
    pub(crate) fn set_skip(&mut self, skip: ClassSet) {
        match &mut self.mode {
            Mode::Plain(masker) => masker.set_skip(skip),
            Mode::Full(readings) => readings.lanes().for_each(|lane| lane.masker_mut().set_skip(skip)),
        }
    }

    /// The values masked since this was last asked for, by class.
    pub(crate) fn take_classes(&mut self) -> Vec<(DataClass, u64)> {
        let counts = std::mem::take(&mut self.by_rule);
        counts.into_iter().map(|(rule, count)| (self.scanner.class_of(rule), count)).collect()
    }

    /// Writes what is certain; goes back to the plain way once all readings agree.
    fn release(&mut self, all: bool, out: &mut Vec<u8>) {
        match &mut self.mode {
            Mode::Plain(masker) => count(masker.take_rules(), &mut self.by_rule, &mut self.spans),
            Mode::Full(readings) => {
                count(readings.release(&self.scanner, out), &mut self.by_rule, &mut self.spans);
                if all || readings.agree() {
                    let mut masker = readings.raw.masker().clone();
                    masker.take_rules();
                    self.mode = Mode::Plain(masker);
                }
            }
        }
    }
}

fn count(masked: BTreeMap<u16, u64>, by_rule: &mut BTreeMap<u16, u64>, spans: &mut usize) {
    for (rule, count) in masked {
        *by_rule.entry(rule).or_default() += count;
        *spans += usize::try_from(count).unwrap_or(usize::MAX);
    }
}

/// Whether anything in `piece` may be a control: not a line end of either kind, not a character.
fn has_controls(piece: &[u8]) -> bool {
    let any = |bytes: &[u8]| bytes.iter().fold(false, |found, byte| found | is_special(*byte));
    // Without a branch for each byte, so that it is done many bytes at once.
    if !piece.chunks(64).any(any) {
        return false;
    }
    let control = |(at, byte): (usize, &u8)| match (byte, piece.get(at + 1)) {
        (b'\r', next) => next != Some(&b'\n'),
        (0xc2, Some(next)) => (0x80..0xa0).contains(next),
        (byte, _) => is_special(*byte),
    };
    piece.iter().enumerate().any(control)
}

/// The three readings of a stream and what of it is not released.
#[derive(Clone, Debug)]
struct Readings {
    controls: Controls,
    parser: Parser,
    raw: Lane,
    joined: Lane,
    drawn: Lane,
    kept: Kept,
    spans: Vec<Span>,
    /// A value that began with a control, which passed: its replacement is written where its text begins.
    owed: Option<Span>,
    /// What passed last is a part of a control: what comes next could complete it.
    open: bool,
}

impl Readings {
    fn new(masker: &StreamMasker, controls: Controls) -> Self {
        let lane = |reading| Lane::new(reading, masker.clone(), 0);
        Self {
            controls,
            parser: Parser::default(),
            raw: lane(Reading::Raw),
            joined: lane(Reading::Joined),
            drawn: lane(Reading::Drawn),
            kept: Kept::new(masker.held_bytes().to_vec()),
            spans: Vec::new(),
            owed: None,
            open: false,
        }
    }

    fn lanes(&mut self) -> impl Iterator<Item = &mut Lane> {
        [&mut self.raw, &mut self.joined, &mut self.drawn].into_iter()
    }

    fn push(&mut self, piece: &[u8]) {
        let mut parser = std::mem::take(&mut self.parser);
        parser.parse(piece, self);
        self.parser = parser;
        for lane in [&mut self.raw, &mut self.joined, &mut self.drawn] {
            lane.decide(&mut self.spans);
        }
    }

    fn finish(&mut self) {
        let mut parser = std::mem::take(&mut self.parser);
        parser.finish(self);
        for lane in [&mut self.raw, &mut self.joined, &mut self.drawn] {
            lane.finish(&mut self.spans);
        }
    }

    /// Writes what all readings have decided; returns the values masked, by rule.
    fn release(&mut self, scanner: &Scanner, out: &mut Vec<u8>) -> BTreeMap<u16, u64> {
        let undecided = [&self.raw, &self.joined, &self.drawn].into_iter().filter_map(Lane::undecided).min();
        merge(&mut self.spans, scanner);
        let limit = self.whole(undecided.unwrap_or(self.kept.end()));
        let ready = self.spans.partition_point(|span| span.start < limit);
        let mut ready: Vec<Span> = self.spans.drain(..ready).collect();
        if let Some(next) = ready.first_mut()
            && let Some(owed) = self.owed.take()
        {
            next.go_on_from(owed);
        }
        let written = self.kept.release(limit, &ready, out);
        let mut counts = BTreeMap::new();
        for (span, _) in ready.iter().zip(&written).filter(|(span, written)| **written && span.fresh) {
            *counts.entry(span.rule).or_default() += 1;
        }
        if let Some(last) = ready.pop() {
            self.owed = Some(last).filter(|span| span.fresh && written.last() == Some(&false));
        }
        counts
    }

    /// `limit`, or what stands before it if it cuts a value or a control: those are written whole.
    fn whole(&self, mut limit: u64) -> u64 {
        loop {
            let cut = self.spans.iter().find(|s| s.start < limit && limit < s.end).map(|s| s.start);
            match cut.or_else(|| self.kept.cut(limit)) {
                Some(start) => limit = start,
                None => return limit,
            }
        }
    }

    /// Whether from here on one reading does for all.
    fn agree(&self) -> bool {
        let raw = self.raw.masker();
        self.parser.is_idle()
            && !self.open
            && !self.kept.has_controls()
            && self.spans.is_empty()
            && self.owed.is_none()
            && self.kept.len() == raw.held()
            && raw.agrees_with(self.joined.masker())
            && raw.agrees_with(self.drawn.masker())
    }

    fn passes(&self, control: &Control<'_>) -> bool {
        let permitted = match self.controls {
            Controls::AsSent => control.kind != Kind::Clipboard,
            Controls::Drawing => control.kind == Kind::Plain && control.clean,
        };
        permitted && self.kept.len() < MAX_KEPT_BYTES
    }
}

impl Tokens for Readings {
    fn text(&mut self, bytes: &[u8]) {
        self.open = bytes.last() == Some(&LEAD);
        let at = self.kept.end();
        self.kept.text(bytes);
        self.lanes().for_each(|lane| lane.push(at, bytes));
    }

    fn control(&mut self, control: Control<'_>) {
        let passes = self.passes(&control);
        let control = match (passes, self.open) {
            (true, _) => control,
            // Without it what was broken off would go on behind it.
            (false, true) => CANCELLATION,
            (false, false) => return,
        };
        self.open = control.unfinished;
        let at = self.kept.end();
        self.kept.control(control.bytes, control.clean);
        self.raw.push(at, control.bytes);
        match control.effect {
            Effect::None => {}
            Effect::Back(count) => (0..count).for_each(|_| self.drawn.take_back()),
            Effect::Forward(count) => self.drawn.make_up(at, b' ', count),
            Effect::Repeat(count) => {
                if let Some(last) = self.drawn.last().filter(u8::is_ascii) {
                    self.drawn.make_up(at, last, count);
                }
            }
            Effect::Break => self.drawn.make_up(at, b'\n', 1),
        }
    }
}

/// Puts spans in order and joins those that overlap: nothing of any of them survives, the first one gives the replacement.
fn merge(spans: &mut Vec<Span>, scanner: &Scanner) {
    // The rest of a value comes before what begins at the same place: that is inside it.
    spans.sort_by_key(|span| (span.start, span.fresh, span.reading, span.end));
    spans.dedup_by(|next, kept| {
        let overlap = next.start < kept.end;
        if overlap {
            let same = (next.start, next.end, next.rule) == (kept.start, kept.end, kept.rule);
            if !same
                && kept.fresh
                && matches!(scanner.program.transform(kept.rule), Transform::Partial { .. })
            {
                kept.text.clear();
                tag(&scanner.class_of(kept.rule), &mut kept.text);
            }
            kept.end = kept.end.max(next.end);
            let hull = |a: (u64, u64), b: (u64, u64)| (a.0.min(b.0), a.1.max(b.1));
            kept.raw = match (kept.raw, next.raw) {
                (Some(a), Some(b)) => Some(hull(a, b)),
                (a, b) => a.or(b),
            };
        }
        overlap
    });
}

#[cfg(test)]
mod tests;
