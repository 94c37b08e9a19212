//! Commands as a person would read them off a terminal: what a line showed when the client ended it. They are observed, not proven: a
//! program may show one thing and do another, and what an editor of lines does is followed only roughly.
//!
//! A line is taken from what the target showed, masked like the rest, never from what was typed: what is typed without being shown,
//! such as a password, stays out.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longest line that is followed, in bytes.
const MAX_LINE_BYTES: usize = 4096;

/// Lines typed and not yet shown; beyond, the oldest is given up.
const MAX_TYPED: usize = 64;

/// Lines shown since one was typed, after which it is given up: it was typed unseen.
const MAX_LINES_WAITED: usize = 64;

/// Watches one terminal.
#[derive(Debug, Default)]
pub(super) struct Observer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    typing: Typed,
    typed: VecDeque<Typed>,
    shown: Line,
}

/// A line being typed, or typed.
#[derive(Debug, Default)]
struct Typed {
    /// Its characters without blanks, up to the first key that is none.
    text: Vec<u8>,
    /// Some key was pressed, if only to fetch a line typed before.
    touched: bool,
    /// What follows a key that is no character is not known.
    unknown: bool,
    waited: usize,
}

impl Typed {
    fn key(&mut self, byte: u8) {
        self.touched = true;
        match byte {
            BACKSPACE | DELETE if !self.unknown => drop(self.text.pop()),
            b' ' => {}
            0..0x20 | DELETE => self.unknown = true,
            _ if self.unknown || self.text.len() >= MAX_LINE_BYTES => {}
            _ => self.text.push(byte),
        }
    }

    /// Whether the line, without its blanks, has it.
    fn is_in(&self, line: &[u8]) -> bool {
        self.text.is_empty() || memchr::memmem::find(line, &self.text).is_some()
    }
}

const BACKSPACE: u8 = 0x08;
const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;
const DELETE: u8 = 0x7f;

impl Observer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys that the client sent.
    pub(super) fn typed(&self, bytes: &[u8]) {
        let mut state = self.state();
        for byte in bytes {
            if !matches!(byte, b'\r' | b'\n') {
                state.typing.key(*byte);
                continue;
            }
            let line = std::mem::take(&mut state.typing);
            if line.touched {
                if state.typed.len() >= MAX_TYPED {
                    state.typed.pop_front();
                }
                state.typed.push_back(line);
            }
        }
    }

    /// How wide the terminal is, in columns; what is longer is drawn over the margin.
    pub(super) fn is_wide(&self, columns: u32) {
        self.state().shown.width = match usize::try_from(columns) {
            // What editors of lines take where nobody says.
            Ok(0) => 80,
            Ok(columns) => columns,
            Err(_) => MAX_LINE_BYTES,
        };
    }

    /// What the terminal showed, after masking; gives the lines that look like commands.
    pub(super) fn shown(&self, bytes: &[u8]) -> Vec<String> {
        let mut state = self.state();
        let lines: Vec<String> = bytes.iter().filter_map(|byte| state.shown.take(*byte)).collect();
        lines.into_iter().filter(|line| state.was_typed(line)).collect()
    }
}

impl State {
    /// Whether the line shows what was typed; what was typed before that was not shown.
    fn was_typed(&mut self, line: &str) -> bool {
        let bare: Vec<u8> = line.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if let Some(at) = self.typed.iter().position(|typed| typed.is_in(&bare)) {
            self.typed.drain(..=at);
            return !line.is_empty();
        }
        self.typed.iter_mut().for_each(|typed| typed.waited += 1);
        self.typed.retain(|typed| typed.waited <= MAX_LINES_WAITED);
        false
    }
}

/// The line the cursor is in, as far as the usual editors of lines draw one.
#[derive(Debug, Default)]
struct Line {
    /// All rows that the line takes, one behind the other.
    text: Vec<u8>,
    column: usize,
    /// Columns of a row; 0 for no end of it.
    width: usize,
    reading: Reading,
}

#[derive(Debug, Default)]
enum Reading {
    #[default]
    Text,
    Escape,
    /// A control sequence, and its first number.
    Sequence(usize),
    /// A string for the terminal itself.
    String,
    StringEscape,
}

impl Line {
    /// Takes a byte; gives the line that it ends.
    fn take(&mut self, byte: u8) -> Option<String> {
        self.reading = match (&self.reading, byte) {
            (Reading::Text, b'\n') => return Some(self.end()),
            (Reading::Text, byte) => self.text(byte),
            (Reading::Escape, b'[') => Reading::Sequence(0),
            (Reading::Escape, b']' | b'P' | b'^' | b'_' | b'X') => Reading::String,
            (Reading::Escape, 0x20..0x30) => Reading::Escape,
            (Reading::Sequence(n), b'0'..=b'9') => {
                Reading::Sequence((n * 10 + usize::from(byte - b'0')).min(MAX_LINE_BYTES))
            }
            (Reading::Sequence(n), 0x20..0x40) => Reading::Sequence(*n),
            (Reading::Sequence(n), byte) => self.sequence(*n, byte),
            (Reading::String, ESCAPE) => Reading::StringEscape,
            (Reading::String, BELL) | (Reading::StringEscape, b'\\') | (Reading::Escape, _) => Reading::Text,
            (Reading::String | Reading::StringEscape, _) => Reading::String,
        };
        None
    }

    fn text(&mut self, byte: u8) -> Reading {
        match byte {
            ESCAPE => return Reading::Escape,
            b'\r' => self.column = self.row(),
            BACKSPACE => self.column = self.column.saturating_sub(1),
            b'\t' => self.put(b' '),
            0..0x20 | DELETE => {}
            byte => self.put(byte),
        }
        Reading::Text
    }

    /// Where the row of the cursor begins. Behind its last column the cursor waits there for the next character.
    const fn row(&self) -> usize {
        match self.column.saturating_sub(1).checked_div(self.width) {
            Some(rows) => rows * self.width,
            None => 0,
        }
    }

    fn put(&mut self, byte: u8) {
        if self.column >= MAX_LINE_BYTES {
            return;
        }
        if self.text.len() <= self.column {
            self.text.resize(self.column + 1, b' ');
        }
        self.text.get_mut(self.column).into_iter().for_each(|cell| *cell = byte);
        self.column += 1;
    }

    /// ECMA-48 section 8.3: cursor, deletion, insertion, erasure.
    fn sequence(&mut self, number: usize, last: u8) -> Reading {
        let count = number.max(1);
        let (column, length) = (self.column.min(self.text.len()), self.text.len());
        match last {
            b'C' => self.column = (self.column + count).min(MAX_LINE_BYTES),
            b'D' => self.column = self.column.saturating_sub(count),
            b'A' => self.column = self.column.saturating_sub(count.saturating_mul(self.width)),
            b'B' => self.column = (self.column + count.saturating_mul(self.width)).min(MAX_LINE_BYTES),
            b'G' => self.column = (self.row() + count - 1).min(MAX_LINE_BYTES),
            b'K' if number == 0 => self.text.truncate(column),
            b'K' => self.text.iter_mut().for_each(|cell| *cell = b' '),
            b'P' => drop(self.text.drain(column..(column + count).min(length))),
            b'@' if length + count <= MAX_LINE_BYTES => {
                self.text.splice(column..column, std::iter::repeat_n(b' ', count)).for_each(drop);
            }
            _ => {}
        }
        Reading::Text
    }

    fn end(&mut self) -> String {
        self.column = 0;
        String::from_utf8_lossy(&std::mem::take(&mut self.text)).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn observed(steps: &[(&str, &str)]) -> Vec<String> {
        let observer = Observer::default();
        let mut lines = Vec::new();
        for (typed, shown) in steps {
            observer.typed(typed.as_bytes());
            lines.extend(observer.shown(shown.as_bytes()));
        }
        lines
    }

    #[test]
    fn a_line_typed_and_shown_is_observed_with_its_prompt() {
        let steps = [("", "$ "), ("l", "l"), ("s", "s"), ("\r", "\r\nfile\r\n$ ")];
        assert_eq!(observed(&steps), ["$ ls"]);
    }

    #[test]
    fn lines_sent_at_once_are_found_when_they_are_shown() {
        let shown = "\x1b[?2004h$ id; date\r\n\x1b[?2004luid=0\r\nMon\r\n$ exit 5\r\n";
        assert_eq!(observed(&[("id; date\nexit 5\n", ""), ("", shown)]), ["$ id; date", "$ exit 5"]);
    }

    #[test]
    fn lines_wider_than_the_terminal_are_observed_whole() {
        // As readline and zsh write at the margin of 20 columns.
        for shown in [
            "$ echo aaaaaaaaaabbb \rbbbbbbbcc\r\n",
            "$ echo aaaaaaaaaabbb\x1b[K \r\x1b[Kbbbbbbbcc\r\n",
            "$ echo aaaaaaaaaabbb \rbbbbbbbcx\x1b[A\x1b[B\x08c\r\n",
        ] {
            let observer = Observer::default();
            observer.is_wide(20);
            observer.typed(b"echo aaaaaaaaaabbbbbbbbbbcc\r");
            let lines = observer.shown(shown.as_bytes());
            assert!(lines.iter().any(|line| line.ends_with("aaabbbbbbbbbbcc")), "{lines:?}");
        }
        let observer = Observer::default();
        observer.is_wide(20);
        observer.typed(b"ls\r");
        assert_eq!(observer.shown(b"12345678901234567890\rx\r$ ls\x1b[K\r\n"), ["$ ls"]);
    }

    #[test]
    fn what_is_typed_unseen_is_not_observed() {
        let steps =
            [("sudo id\r", "$ sudo id\r\n"), ("hunter2\r", "Password: \r\nuid=0\r\n"), ("w\r", "$ w\r\n")];
        assert_eq!(observed(&steps), ["$ sudo id", "$ w"]);
        assert!(observed(&[("\r", "$ \r\n")]).is_empty());
    }

    #[test]
    fn edited_and_fetched_lines_are_observed_as_they_were_shown() {
        let steps = [
            ("lx\x7fs\r", "$ lx\x08\x1b[Ks\r\n"),
            ("\x1b[A\r", "$ ls\r\n"),
            ("cat /et\t\r", "$ cat /etc/\r\n"),
        ];
        assert_eq!(observed(&steps), ["$ ls", "$ ls", "$ cat /etc/"]);
        assert_eq!(observed(&[("abc\r", "$ ac\x1b[D\x1b[1@bc\r\n")]), ["$ abc"]);
    }

    #[test]
    fn titles_are_no_text() {
        assert_eq!(observed(&[("id\r", "\x1b]0;me: ~\x07$ id\r\n")]), ["$ id"]);
    }

    proptest! {
        #[test]
        fn memory_is_bounded(typed in proptest::collection::vec(any::<u8>(), 0..3000),
                             shown in proptest::collection::vec(prop_oneof![any::<u8>(), Just(ESCAPE), Just(b'['), Just(b'9'), Just(b'@'), Just(b'C')], 0..3000)) {
            let observer = Observer::default();
            observer.typed(&typed);
            observer.shown(&shown);
            let state = observer.state();
            prop_assert!(state.typed.len() <= MAX_TYPED && state.shown.text.len() <= MAX_LINE_BYTES + 1);
        }
    }
}
