//! Masking of streams: correct wherever the chunks are cut, in bounded memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::CAP;
use super::class::ClassSet;
use super::known::KnownLiterals;
use super::scan::{Bounds, KNOWN_RULE, Raw, Scan, merge};
use super::scanner::Scanner;
use super::text::LOOK_BEHIND;
use super::transform::Transform;

/// Most bytes of a chunk that are scanned at once; bounds the buffer whatever the caller pushes.
const PIECE: usize = 16 * 1024;

/// Masks one stream of bytes chunk by chunk.
///
/// Output is, byte for byte, what [`Scanner::mask_into`] gives for the whole stream. A byte is held back only while some
/// match that begins at or before it is still possible: at most about a kilobyte, more only for long injected
/// credentials. Values without a length limit are replaced as soon as they are certain, a few
/// hundred bytes in at most, and then swallowed.
///
/// There is no timer: what is held back is released by more bytes, [`record_boundary`](Self::record_boundary) or
/// [`finish`](Self::finish).
#[derive(Clone, Debug)]
pub struct StreamMasker {
    scanner: Arc<Scanner>,
    skip: ClassSet,
    known: Option<Arc<KnownLiterals>>,
    /// Bytes already given out, for looking behind, then bytes held back.
    buffer: Vec<u8>,
    /// Where the bytes held back begin.
    pos: usize,
    /// Spans whose candidate lies behind `pos` and that do not end there.
    active: Vec<Raw>,
    until: Vec<Range<usize>>,
    open: Option<Open>,
    spans: usize,
    /// Spans by rule since they were last asked for.
    by_rule: BTreeMap<u16, u64>,
}

/// Where decided bytes go, in the order of the stream.
pub(super) trait Sink {
    /// Bytes that pass as they are.
    fn pass(&mut self, bytes: &[u8]);

    /// The next `taken` bytes belong to a value and are replaced by what `write` appends. `fresh`: a value begins here; else they
    /// are the rest of the one before.
    fn replace(&mut self, rule: u16, fresh: bool, taken: usize, write: impl FnOnce(&mut Vec<u8>));
}

impl Sink for Vec<u8> {
    fn pass(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn replace(&mut self, _: u16, _: bool, _: usize, write: impl FnOnce(&mut Self)) {
        write(self);
    }
}

/// A span under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    rule: u16,
    start: usize,
    until: usize,
    /// Whether its replacement is out already.
    written: bool,
    mixed: bool,
}

impl StreamMasker {
    /// A masker for one stream. Standard output and standard error are two streams.
    pub fn new(scanner: Arc<Scanner>, skip: ClassSet) -> Self {
        let (buffer, active, until) = (Vec::new(), Vec::new(), Vec::new());
        let by_rule = BTreeMap::new();
        Self { scanner, skip, known: None, buffer, pos: 0, active, until, open: None, spans: 0, by_rule }
    }

    /// Also masks a session's injected credentials.
    #[must_use]
    pub fn beside(mut self, known: Arc<KnownLiterals>) -> Self {
        self.known = Some(known);
        self
    }

    /// Takes the next bytes and appends to `out` what is certain.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.feed(chunk, out);
    }

    /// The same for any kind of sink.
    pub(super) fn feed(&mut self, chunk: &[u8], out: &mut impl Sink) {
        for piece in chunk.chunks(PIECE) {
            self.buffer.extend_from_slice(piece);
            self.advance(false, out);
        }
    }

    /// Ends a record: appends everything held back, masked, and starts anew, so that no match crosses this place.
    pub fn record_boundary(&mut self, out: &mut Vec<u8>) {
        self.end_record(out);
    }

    /// The same for any kind of sink.
    pub(super) fn end_record(&mut self, out: &mut impl Sink) {
        self.advance(true, out);
        self.buffer.clear();
        self.active.clear();
        self.until.clear();
        self.open = None;
        self.pos = 0;
    }

    /// Ends the stream; returns how many spans were masked in all.
    pub fn finish(mut self, out: &mut Vec<u8>) -> usize {
        self.record_boundary(out);
        self.spans
    }

    /// How many bytes are held back now.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.pos
    }

    /// How many spans were masked so far.
    pub fn spans(&self) -> usize {
        self.spans
    }

    /// Which classes are shown from the next bytes on.
    pub(crate) const fn set_skip(&mut self, skip: ClassSet) {
        self.skip = skip;
    }

    /// The bytes held back now.
    pub(super) fn held_bytes(&self) -> &[u8] {
        self.buffer.get(self.pos..).unwrap_or_default()
    }

    /// The last byte of the stream so far, as far as it is remembered.
    pub(super) fn last(&self) -> Option<u8> {
        self.buffer.last().copied()
    }

    /// Takes back the last byte, as if it had never come; `None` if it is decided already or a value is under way.
    pub(super) fn take_back(&mut self) -> Option<u8> {
        let free = self.active.is_empty() && self.open.is_none() && self.held() > 0;
        if free { self.buffer.pop() } else { None }
    }

    /// Whether both will treat every continuation alike: no value is under way and what is remembered is the same.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let idle = |m: &Self| {
            m.active.is_empty() && m.open.is_none() && m.until.iter().all(|last| last.end <= m.pos)
        };
        idle(self) && idle(other) && self.held() == other.held() && self.remembered() == other.remembered()
    }

    /// What is held back and what stands before it, as far as it is looked at.
    fn remembered(&self) -> &[u8] {
        self.buffer.get(self.pos.saturating_sub(LOOK_BEHIND)..).unwrap_or_default()
    }

    /// The spans masked since this was last asked for, by rule.
    pub(super) fn take_rules(&mut self) -> BTreeMap<u16, u64> {
        std::mem::take(&mut self.by_rule)
    }

    fn note(&mut self, rule: u16) {
        self.spans += 1;
        *self.by_rule.entry(rule).or_default() += 1;
    }

    fn advance(&mut self, complete: bool, out: &mut impl Sink) {
        let decided = self.scan(complete);
        self.pos = self.release(decided, out);
        let pos = self.pos;
        self.active.retain(|raw| raw.end > pos || raw.live.is_some());
        self.forget();
    }

    /// Scans what is held back; returns up to where everything is known.
    fn scan(&mut self, complete: bool) -> usize {
        let scanner = Arc::clone(&self.scanner);
        let known = self.known.clone();
        let record = Bounds { low: 0, high: self.buffer.len(), complete };
        let mut scan = Scan::new(&scanner.program, &self.skip, &self.buffer);
        scan.until = std::mem::take(&mut self.until);
        for raw in self.active.iter_mut().filter(|raw| raw.live.is_some()) {
            scan.follow(raw, record);
            if raw.live.is_none() {
                scan.covers(raw);
            }
        }
        let until = scan.until.clone();
        scan.run(self.pos, known.as_deref(), |_| Some(record));
        let decided = if complete { record.high } else { scan.undecided(self.pos, 0, known.as_deref()) };
        let found = std::mem::take(&mut scan.raws);
        // What begins after the decided part is found again next time.
        scan.until = until;
        let settled: Vec<Raw> =
            found.into_iter().filter(|raw| raw.at < decided || raw.start < decided).collect();
        for raw in &settled {
            if scanner.program.swallows(raw.rule) {
                scan.covers(raw);
            }
        }
        self.until = scan.until;
        if let Some(known) = known {
            known.count(settled.iter().filter(|raw| raw.rule == KNOWN_RULE && raw.at < decided).count());
        }
        self.active.extend(settled);
        decided
    }

    /// Writes the decided part; returns up to where.
    fn release(&mut self, decided: usize, out: &mut impl Sink) -> usize {
        let mut spans: Vec<Raw> = self.active.iter().filter(|raw| raw.start < decided).cloned().collect();
        let live = spans.iter().any(|raw| raw.live.is_some());
        merge(&mut spans, &self.scanner.program);
        let mut at = self.pos;
        let mut open = self.open.take();
        for span in spans {
            if let Some(current) = &mut open {
                if span.start < current.until {
                    current.until = current.until.max(span.end);
                    current.mixed = true;
                    continue;
                }
                at = self.close(*current, at, out);
            }
            self.copy(at, span.start, out);
            at = span.start;
            open = Some(Open {
                rule: span.rule,
                start: span.start,
                until: span.end,
                written: false,
                mixed: span.mixed,
            });
        }
        let Some(current) = open else {
            self.copy(at, decided, out);
            return decided;
        };
        if current.until <= decided && !live {
            at = self.close(current, at, out);
            self.copy(at, decided, out);
            return decided;
        }
        self.keep_open(current, at, decided, out)
    }

    fn keep_open(&mut self, mut current: Open, at: usize, decided: usize, out: &mut impl Sink) -> usize {
        let transform = self.scanner.program.transform(current.rule);
        let early = transform.streams() || decided - current.start.min(decided) > CAP;
        if !current.written && !early {
            return current.start;
        }
        if !current.written {
            self.note(current.rule);
        }
        let class = self.scanner.class_of(current.rule);
        out.replace(current.rule, !current.written, decided - at, |out| {
            if transform == Transform::SameLength {
                out.resize(out.len() + (decided - at), b'*');
            } else if !current.written {
                super::transform::tag(&class, out);
            }
        });
        current.written = true;
        self.open = Some(current);
        decided
    }

    /// Writes the rest of a span that ends; returns its end.
    fn close(&mut self, span: Open, at: usize, out: &mut impl Sink) -> usize {
        let end = span.until.max(at);
        if !span.written {
            self.note(span.rule);
        }
        let value = self.buffer.get(span.start..end).unwrap_or_default();
        let same_length = self.scanner.program.transform(span.rule) == Transform::SameLength;
        out.replace(span.rule, !span.written, end - at, |out| {
            if !span.written {
                self.scanner.replace_span(span.rule, span.mixed, value, out);
            } else if same_length {
                out.resize(out.len() + (end - at), b'*');
            }
        });
        end
    }

    fn copy(&self, from: usize, to: usize, out: &mut impl Sink) {
        out.pass(self.buffer.get(from..to).unwrap_or_default());
    }

    /// Drops bytes too far back to be looked at and moves every offset along.
    fn forget(&mut self) {
        let drop = self.pos.saturating_sub(LOOK_BEHIND);
        if drop == 0 {
            return;
        }
        self.buffer.drain(..drop);
        self.pos -= drop;
        for raw in &mut self.active {
            raw.at = raw.at.saturating_sub(drop);
            raw.start = raw.start.saturating_sub(drop);
            raw.end = raw.end.saturating_sub(drop);
        }
        for last in &mut self.until {
            last.start = last.start.saturating_sub(drop);
            last.end = if last.end == usize::MAX { usize::MAX } else { last.end.saturating_sub(drop) };
        }
        if let Some(open) = &mut self.open {
            open.start = open.start.saturating_sub(drop);
            open.until = open.until.saturating_sub(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DataClass, Rule, RuleSet};
    use super::*;

    fn masker(rules: RuleSet) -> StreamMasker {
        StreamMasker::new(Arc::new(Scanner::new(rules).unwrap()), ClassSet::default())
    }

    #[test]
    fn records_do_not_run_together() {
        let mut masker = masker(RuleSet::builtin());
        let mut out = Vec::new();
        masker.push(b"536-22-", &mut out);
        masker.record_boundary(&mut out);
        masker.push(b"8726", &mut out);
        assert_eq!((masker.finish(&mut out), out.as_slice()), (0, &b"536-22-8726"[..]));
    }

    #[test]
    fn open_ended_values_are_swallowed_in_constant_memory() {
        let mut masker = masker(RuleSet::builtin());
        let mut out = Vec::new();
        masker.push(b"password=abcd", &mut out);
        masker.push(&[b'e'; 100], &mut out);
        assert_eq!(out, b"password=[REDACTED:PASSWORD_ASSIGNMENT]");
        for _ in 0..100 {
            masker.push(&[b'x'; 10_000], &mut out);
            assert!(masker.buffer.len() < 2 * PIECE && masker.active.len() < 8);
        }
        masker.push(b" end", &mut out);
        assert_eq!(masker.finish(&mut out), 1);
        assert_eq!(out, b"password=[REDACTED:PASSWORD_ASSIGNMENT] end");
    }

    #[test]
    fn an_address_whose_name_ends_like_another_value_is_held_back_whole() {
        for text in [
            "see KEY-----1111111111111111@example.com",
            "see abc-536-22-8726@example.com",
            "see a.10.1.2.3@b.example.org",
        ] {
            let mut masker = masker(RuleSet::builtin());
            let mut out = Vec::new();
            text.as_bytes().chunks(1).for_each(|byte| masker.push(byte, &mut out));
            masker.finish(&mut out);
            assert_eq!(out.escape_ascii().to_string(), "see [REDACTED:EMAIL]", "{text}");
        }
    }

    #[test]
    fn every_transform_and_custom_rule_streams_as_it_masks_whole() {
        let class = DataClass::new("blob").unwrap();
        let text = format!(
            "a blob:{} b 4111-1111-1111-1111 c blob:xy d a@example.com bob@example.com@example.org",
            "q z".repeat(400)
        );
        for transform in
            [Transform::Redact, Transform::SameLength, Transform::Partial { keep_last: 4 }, Transform::Null]
        {
            let rules = RuleSet::builtin()
                .with_rule(Rule::new("blob", "blob:[a-z ]+", class.clone()))
                .with_rule(Rule::new("word", "q[a-z]+", class.clone()))
                .with_transform(class.clone(), transform)
                .with_transform(DataClass::EMAIL, transform);
            let scanner = Arc::new(Scanner::new(rules).unwrap());
            let mut whole = Vec::new();
            let spans = scanner.mask_into(text.as_bytes(), &ClassSet::default(), &mut whole);
            for size in [1, 2, 5, 64, 333, 600] {
                let mut masker = StreamMasker::new(scanner.clone(), ClassSet::default());
                let mut out = Vec::new();
                text.as_bytes().chunks(size).for_each(|chunk| masker.push(chunk, &mut out));
                assert_eq!(masker.finish(&mut out), spans);
                assert_eq!(
                    out.escape_ascii().to_string(),
                    whole.escape_ascii().to_string(),
                    "{transform:?} {size}"
                );
            }
        }
    }
}
