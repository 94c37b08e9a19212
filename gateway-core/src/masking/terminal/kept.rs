//! The part of a stream that is not released yet, and how it is.

use std::collections::VecDeque;

use super::lane::Span;

/// Bytes kept back, from which offset, and which of them are controls.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    base: u64,
    controls: VecDeque<Control>,
}

/// A control among the bytes: passes or is dropped as a whole.
#[derive(Clone, Copy, Debug)]
struct Control {
    start: u64,
    end: u64,
    clean: bool,
}

/// Whether two ranges have a byte in common.
const fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

impl Kept {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// The offset of what comes next.
    pub(super) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn has_controls(&self) -> bool {
        !self.controls.is_empty()
    }

    pub(super) fn text(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn control(&mut self, bytes: &[u8], clean: bool) {
        let start = self.end();
        self.bytes.extend_from_slice(bytes);
        self.controls.push_back(Control { start, end: self.end(), clean });
    }

    /// Where the control begins that `limit` would cut.
    pub(super) fn cut(&self, limit: u64) -> Option<u64> {
        self.controls.iter().find(|c| c.start < limit && limit < c.end).map(|control| control.start)
    }

    /// Writes what stands before `limit`, which cuts no control, with `spans`, which are in order and apart, replaced; returns which
    /// of them were written.
    pub(super) fn release(&mut self, limit: u64, spans: &[Span], out: &mut Vec<u8>) -> Vec<bool> {
        let mut written = vec![false; spans.len()];
        let mut at = self.base;
        while at < limit {
            match self.controls.front().copied().filter(|control| control.start < limit) {
                Some(control) if control.start <= at => {
                    self.write_control(control, spans, &mut written, out);
                    self.controls.pop_front();
                    at = control.end;
                }
                control => {
                    let stop = control.map_or(limit, |control| control.start);
                    self.write_text(at, stop, spans, &mut written, out);
                    at = stop;
                }
            }
        }
        let done = usize::try_from(limit.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.bytes.drain(..done.min(self.bytes.len()));
        self.base = limit.max(self.base);
        written
    }

    fn slice(&self, from: u64, to: u64) -> &[u8] {
        let index = |offset: u64| usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.bytes.get(index(from)..index(to)).unwrap_or_default()
    }

    /// Controls in a value stay, so that what follows looks as it should; those that a value was found inside go.
    fn write_control(&self, control: Control, spans: &[Span], written: &mut [bool], out: &mut Vec<u8>) {
        let range = (control.start, control.end);
        let inside = |span: &Span| span.raw.is_some_and(|raw| overlap(raw, range));
        let mut dropped = false;
        for (span, written) in spans.iter().zip(written).filter(|(span, _)| !control.clean && inside(span)) {
            write_once(span, written, out);
            dropped = true;
        }
        if !dropped {
            out.extend_from_slice(self.slice(control.start, control.end));
        }
    }

    fn write_text(&self, mut at: u64, stop: u64, spans: &[Span], written: &mut [bool], out: &mut Vec<u8>) {
        let first = spans.partition_point(|span| span.end <= at);
        let reached = spans.iter().zip(written).skip(first).take_while(|(span, _)| span.start < stop);
        for (span, written) in reached {
            out.extend_from_slice(self.slice(at, span.start.max(at)));
            write_once(span, written, out);
            at = span.end.min(stop);
        }
        out.extend_from_slice(self.slice(at, stop));
    }
}

fn write_once(span: &Span, written: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(written, true) {
        out.extend_from_slice(&span.text);
    }
}
