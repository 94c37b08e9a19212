//! One way to read a stream: its text, masked, and where in the stream each byte of it stands.

use std::collections::VecDeque;

use super::super::stream::{Sink, StreamMasker};

/// A value in the stream, or the rest of one.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// Offsets in the stream.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) rule: u16,
    /// A value begins here.
    pub(super) fresh: bool,
    /// What is written instead.
    pub(super) text: Vec<u8>,
    /// Which way of reading found it, in the order of preference.
    pub(super) reading: Reading,
    /// What of it was found in the bytes as they are, controls included.
    pub(super) raw: Option<(u64, u64)>,
}

impl Span {
    /// Takes over what stands for the beginning of the value whose rest this is.
    pub(super) fn go_on_from(&mut self, begin: Self) {
        if !self.fresh {
            self.fresh = true;
            self.rule = begin.rule;
            self.text.splice(..0, begin.text);
        }
    }
}

/// A way to read a stream with control sequences in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reading {
    /// The bytes as they are, controls included.
    Raw,
    /// The text without any control.
    Joined,
    /// The text as a line of a terminal shows it, as far as its end may still change.
    Drawn,
}

/// Bytes of the text that stand in a row in the stream.
#[derive(Clone, Copy, Debug)]
struct Run {
    at: u64,
    len: usize,
    /// All of them stand for the control at `at`.
    made_up: bool,
}

/// A masker and the places of what it has not decided yet.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    reading: Reading,
    masker: StreamMasker,
    /// Text that the masker has not seen yet.
    text: Vec<u8>,
    places: VecDeque<Run>,
}

/// What was decided of the text.
struct Decided<'a> {
    places: &'a mut VecDeque<Run>,
    spans: &'a mut Vec<Span>,
    reading: Reading,
}

impl Lane {
    /// Goes on from where `masker` is; what it holds back stands at `at`.
    pub(super) fn new(reading: Reading, masker: StreamMasker, at: u64) -> Self {
        let held = masker.held();
        let mut lane = Self { reading, masker, text: Vec::new(), places: VecDeque::new() };
        lane.place(Run { at, len: held, made_up: false });
        lane
    }

    pub(super) const fn masker(&self) -> &StreamMasker {
        &self.masker
    }

    pub(super) const fn masker_mut(&mut self) -> &mut StreamMasker {
        &mut self.masker
    }

    /// The next bytes of the text.
    pub(super) fn push(&mut self, at: u64, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        self.place(Run { at, len: bytes.len(), made_up: false });
    }

    /// Text that a control stands for.
    pub(super) fn make_up(&mut self, at: u64, byte: u8, count: usize) {
        self.text.resize(self.text.len() + count, byte);
        self.place(Run { at, len: count, made_up: true });
    }

    fn place(&mut self, run: Run) {
        match self.places.back_mut() {
            Some(last) if !last.made_up && !run.made_up && last.at + last.len as u64 == run.at => {
                last.len += run.len;
            }
            _ if run.len > 0 => self.places.push_back(run),
            _ => {}
        }
    }

    /// The last byte of the text.
    pub(super) fn last(&self) -> Option<u8> {
        self.text.last().copied().or_else(|| self.masker.last())
    }

    /// Takes back the last character if it came in this piece or is not decided yet.
    pub(super) fn take_back(&mut self) {
        while let Some(byte) = self.text.pop().or_else(|| self.masker.take_back()) {
            if let Some(last) = self.places.back_mut() {
                last.len = last.len.saturating_sub(1);
                if last.len == 0 {
                    self.places.pop_back();
                }
            }
            // Bytes of a character behind its first (RFC 3629 section 3).
            if byte & 0xc0 != 0x80 {
                return;
            }
        }
    }

    /// Has the text masked as far as it is certain.
    pub(super) fn decide(&mut self, spans: &mut Vec<Span>) {
        let text = std::mem::take(&mut self.text);
        let reading = self.reading;
        self.masker.feed(&text, &mut Decided { places: &mut self.places, spans, reading });
    }

    /// Nothing follows: all is decided.
    pub(super) fn finish(&mut self, spans: &mut Vec<Span>) {
        self.decide(spans);
        let reading = self.reading;
        self.masker.end_record(&mut Decided { places: &mut self.places, spans, reading });
    }

    /// Up to where the stream is decided; `None`: all of it.
    pub(super) fn undecided(&self) -> Option<u64> {
        self.places.front().map(|run| run.at)
    }
}

impl Decided<'_> {
    /// Where the next `count` bytes of the text stand.
    fn take(&mut self, mut count: usize) -> Option<(u64, u64)> {
        let mut hull: Option<(u64, u64)> = None;
        while count > 0 {
            let run = self.places.front_mut()?;
            let taken = run.len.min(count);
            let advance = if run.made_up { 0 } else { taken as u64 };
            let end = run.at + advance.max(1);
            // Text that a later control took back stands before what follows it: the hull has both.
            hull = Some(hull.map_or((run.at, end), |(start, _)| (start, end)));
            run.at += advance;
            run.len -= taken;
            count -= taken;
            if run.len == 0 {
                self.places.pop_front();
            }
        }
        hull
    }
}

impl Sink for Decided<'_> {
    fn pass(&mut self, bytes: &[u8]) {
        self.take(bytes.len());
    }

    fn replace(&mut self, rule: u16, fresh: bool, taken: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let Some((start, end)) = self.take(taken) else { return };
        let mut text = Vec::new();
        write(&mut text);
        let reading = self.reading;
        let raw = (reading == Reading::Raw).then_some((start, end));
        self.spans.push(Span { start, end, rule, fresh, text, reading, raw });
    }
}
