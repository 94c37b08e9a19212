//! Typed bytes to lines. Pure: bytes in, lines and echo out.

/// The longest line that can be typed, in bytes: what is analysed at most. 16 KiB.
pub(super) const MAX_LINE_BYTES: usize = crate::shell::MAX_LINE_BYTES;

const BELL: u8 = 0x07;
const BACKSPACE: u8 = 0x08;
const END: u8 = 0x04;
pub(super) const INTERRUPT: u8 = 0x03;
const KILL_WORD: u8 = 0x17;
const KILL_LINE: u8 = 0x15;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

/// What came of a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Line(Vec<u8>),
    /// The line was longer than [`MAX_LINE_BYTES`] and is dropped.
    TooLong,
    /// Ctrl-C: the line is dropped.
    Interrupt,
    /// Ctrl-D on an empty line.
    End,
}

/// How far a key that sends a sequence has come; such keys do nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Single,
    Escape,
    Sequence,
    Function,
}

/// The line under way.
#[derive(Debug)]
pub(super) struct Editor {
    line: Vec<u8>,
    /// Typed at a terminal in raw mode: echoed, and edited by a few keys.
    terminal: bool,
    key: Key,
    too_long: bool,
    after_return: bool,
}

impl Editor {
    pub(super) const fn new(terminal: bool) -> Self {
        Self { line: Vec::new(), terminal, key: Key::Single, too_long: false, after_return: false }
    }

    /// Takes the next byte; what is to be shown is appended to `echo`.
    pub(super) fn push(&mut self, byte: u8, echo: &mut Vec<u8>) -> Option<Typed> {
        if !self.terminal {
            return if byte == b'\n' { Some(self.submit()) } else { self.insert(byte, &mut Vec::new()) };
        }
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match (self.key, byte) {
            (Key::Single, ESCAPE) => self.key = Key::Escape,
            (Key::Single, b'\n') if after_return => {}
            (Key::Single, b'\r' | b'\n') => {
                echo.extend_from_slice(b"\r\n");
                return Some(self.submit());
            }
            (Key::Single, _) => return self.edit(byte, echo),
            (Key::Escape, b'[') => self.key = Key::Sequence,
            (Key::Escape, b'O') => self.key = Key::Function,
            (Key::Sequence, 0x20..0x40) => {}
            _ => self.key = Key::Single,
        }
        None
    }

    /// The input ends: what was typed without a line end.
    pub(super) fn rest(&mut self) -> Option<Typed> {
        (!self.line.is_empty() || self.too_long).then(|| self.submit())
    }

    fn edit(&mut self, byte: u8, echo: &mut Vec<u8>) -> Option<Typed> {
        match byte {
            INTERRUPT => {
                echo.extend_from_slice(b"^C\r\n");
                self.clear();
                return Some(Typed::Interrupt);
            }
            END if self.line.is_empty() => {
                echo.extend_from_slice(b"\r\n");
                return Some(Typed::End);
            }
            BACKSPACE | DELETE => self.erase(1, echo),
            KILL_LINE => self.erase(self.characters(), echo),
            KILL_WORD => {
                let blanks = self.line.iter().rev().take_while(|b| **b == b' ').count();
                let word = self.line.iter().rev().skip(blanks).take_while(|b| **b != b' ');
                let characters = word.filter(|b| starts_character(**b)).count();
                self.erase(blanks + characters, echo);
            }
            // Completion and the like are not offered; a control character in a line would only confuse who reads it.
            0..0x20 => echo.push(BELL),
            byte => return self.insert(byte, echo),
        }
        None
    }

    fn insert(&mut self, byte: u8, echo: &mut Vec<u8>) -> Option<Typed> {
        if self.line.len() >= MAX_LINE_BYTES {
            self.too_long = true;
            echo.push(BELL);
        } else {
            self.line.push(byte);
            echo.push(byte);
        }
        None
    }

    fn characters(&self) -> usize {
        self.line.iter().filter(|b| starts_character(**b)).count()
    }

    fn erase(&mut self, characters: usize, echo: &mut Vec<u8>) {
        for _ in 0..characters {
            while let Some(byte) = self.line.pop() {
                if starts_character(byte) {
                    echo.extend_from_slice(b"\x08 \x08");
                    break;
                }
            }
        }
    }

    fn clear(&mut self) {
        self.line.clear();
        self.too_long = false;
    }

    fn submit(&mut self) -> Typed {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) { Typed::TooLong } else { Typed::Line(line) }
    }
}

/// Whether a byte is not one of those behind a character's first (RFC 3629 section 3).
const fn starts_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(terminal: bool, bytes: &[u8]) -> (Vec<Typed>, String) {
        let (mut editor, mut echo) = (Editor::new(terminal), Vec::new());
        let typed = bytes.iter().filter_map(|byte| editor.push(*byte, &mut echo)).collect();
        (typed, String::from_utf8_lossy(&echo).into_owned())
    }

    fn line(text: &str) -> Typed {
        Typed::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn keys_edit_and_only_the_edited_line_counts() {
        for (keys, text) in [
            ("ls\r", "ls"),
            ("lss\x7f\n", "ls"),
            ("echo x\x15ls\r", "ls"),
            ("echo one two\x17three\r", "echo one three"),
            ("\x1b[Al\x1bOPs\x1b[200~\x1b[1;5D\r", "ls"),
            ("é\x08ls\r", "ls"),
            ("l\ts\x00\r", "ls"),
            ("ls\r\n", "ls"),
        ] {
            assert_eq!(typed(true, keys.as_bytes()).0, [line(text)], "{keys:?}");
        }
        assert_eq!(typed(true, b"rm x\x03ls\r").0, [Typed::Interrupt, line("ls")]);
        assert_eq!(typed(true, b"\x04x\x04\r").0, [Typed::End, line("x")]);
        assert_eq!(typed(true, b"ab\x7f\r").1, "ab\x08 \x08\r\n");
    }

    #[test]
    fn without_a_terminal_every_byte_counts() {
        assert_eq!(typed(false, b"a\x7f\x03\x1b[A\r\nb\n").0, [line("a\x7f\x03\x1b[A\r"), line("b")]);
        assert_eq!(typed(false, b"a\n").1, "");
        let mut editor = Editor::new(false);
        assert_eq!(
            (editor.rest(), editor.push(b'x', &mut Vec::new()), editor.rest()),
            (None, None, Some(line("x")))
        );
    }

    #[test]
    fn a_line_over_the_limit_is_dropped_whole() {
        let long = [vec![b'x'; MAX_LINE_BYTES + 1], b"\rls\r".to_vec()].concat();
        assert_eq!(typed(true, &long).0, [Typed::TooLong, line("ls")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        /// At a terminal a line holds what stands on it: no control characters, never more than the limit.
        #[test]
        fn lines_hold_no_control_characters(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for typed in typed(true, &bytes).0 {
                if let Typed::Line(line) = typed {
                    prop_assert!(line.iter().all(|b| *b >= 0x20 && *b != DELETE));
                }
            }
        }
    }
}
