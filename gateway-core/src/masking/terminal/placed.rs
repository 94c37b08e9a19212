//! The readings of a whole text at once, for answers that must keep their length.

use std::ops::Range;

use super::has_controls;
use super::sequence::{Control, Effect, Parser, Tokens};

/// One way to read a text, and where in the text each byte of it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placed {
    pub(crate) text: Vec<u8>,
    places: Vec<usize>,
}

impl Placed {
    fn push(&mut self, byte: u8, at: usize) {
        self.text.push(byte);
        self.places.push(at);
    }

    fn take_back(&mut self) {
        while let Some(byte) = self.text.pop_if(|byte| *byte != b'\n') {
            self.places.pop();
            // Bytes of a character behind its first (RFC 3629 section 3).
            if byte & 0xc0 != 0x80 {
                return;
            }
        }
    }

    /// The bytes of the text from the first to the last of this part of the reading, controls between them included.
    pub(crate) fn hull(&self, part: &Range<usize>) -> Range<usize> {
        // Made-up bytes stand where their control does: places ascend.
        let places = self.places.get(part.clone()).unwrap_or_default();
        places.first().copied().unwrap_or(0)..places.last().map_or(0, |last| last + 1)
    }
}

/// A text without its controls, and as a terminal would show its lines; `None` if it has no controls.
pub(crate) fn readings(text: &[u8]) -> Option<[Placed; 2]> {
    if !has_controls(text) {
        return None;
    }
    let mut both = Both::default();
    let mut parser = Parser::default();
    parser.parse(text, &mut both);
    parser.finish(&mut both);
    Some([both.joined, both.drawn])
}

#[derive(Debug, Default)]
struct Both {
    at: usize,
    joined: Placed,
    drawn: Placed,
}

impl Tokens for Both {
    fn text(&mut self, bytes: &[u8]) {
        for (byte, at) in bytes.iter().zip(self.at..) {
            self.joined.push(*byte, at);
            self.drawn.push(*byte, at);
        }
        self.at += bytes.len();
    }

    fn control(&mut self, control: Control<'_>) {
        let at = self.at;
        self.at += control.bytes.len();
        let drawn = &mut self.drawn;
        match control.effect {
            Effect::None => {}
            Effect::Back(count) => (0..count).for_each(|_| drawn.take_back()),
            Effect::Forward(count) => (0..count).for_each(|_| drawn.push(b' ', at)),
            Effect::Repeat(count) => {
                let last = drawn.text.last().copied().filter(u8::is_ascii);
                last.into_iter().for_each(|last| (0..count).for_each(|_| drawn.push(last, at)));
            }
            Effect::Break => drawn.push(b'\n', at),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_without_controls_has_no_readings() {
        assert!(readings(b"plain\ttext\r\nof lines\n").is_none());
    }

    #[test]
    fn what_stands_between_controls_is_joined_and_found_again() {
        let text = b"a 41\x1b[31m11\x1b[0m z";
        let [joined, drawn] = readings(text).unwrap();
        assert_eq!(joined.text, b"a 4111 z");
        assert_eq!(drawn.text, joined.text);
        assert_eq!(joined.hull(&(2..6)), 2..11);
    }

    #[test]
    fn backspaces_take_back_within_their_line() {
        let [joined, drawn] = readings(b"x\n4\x08\x0851").unwrap();
        assert_eq!(joined.text, b"x\n451");
        assert_eq!(drawn.text, b"x\n51");
        let [_, drawn] = readings("4\u{e9}\u{8}1\u{20ac}\u{8}1".as_bytes()).unwrap();
        assert_eq!(drawn.text, b"411");
    }

    proptest! {
        #[test]
        fn every_part_stands_within_the_text(text in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(0x08), Just(b'b'), Just(b'9')], 0..200)) {
            for reading in readings(&text).into_iter().flatten() {
                prop_assert_eq!(reading.text.len(), reading.places.len());
                prop_assert!(reading.places.is_sorted());
                for start in 0..reading.text.len() {
                    let hull = reading.hull(&(start..reading.text.len()));
                    prop_assert!(hull.start < hull.end && hull.end <= text.len(), "{:?}", hull);
                }
            }
        }
    }
}
