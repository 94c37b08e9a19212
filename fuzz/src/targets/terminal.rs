//! What is shown at a terminal: text with control sequences in it, whole and in pieces.

use std::sync::{Arc, OnceLock};

use gateway_core::masking::{ClassSet, Controls, RuleSet, Scanner, TerminalMasker};

use super::{Target, outcome};

pub const TARGET: Target = Target {
    name: "terminal",
    run,
    words: &[
        b"4111 1111 1111 1111",
        b"ada@example.com",
        b"password=hunter2",
        b"\x1b[31m",
        b"\x1b[0m",
        b"\x1b[K",
        b"\x1b[3C",
        b"\x1b[2D",
        b"\x1b[H",
        b"\x1b]0;t\x07",
        b"\x1b]52;c;aGk=\x07",
        b"\x1b]8;;http://h/p\x1b\\",
        b"\x1bPq\x1b\\",
        b"\x1b[?1049h",
        b"\x1b[99999999m",
        b"\xc2\x9b1m",
        b"\x1b\x1b",
        b"\x18",
        b"\r",
        b"\x08",
        b"\0",
        b"\x7f",
        b"\r\n",
    ],
};

/// The most that may wait: 256 KiB of text and controls, as the masker documents.
const MAX_HELD: usize = 256 * 1024;

fn run(input: &[u8]) -> u64 {
    let (cut, text) = input.split_first().map_or((0, input), |(cut, text)| (usize::from(*cut), text));
    let told = [Controls::AsSent, Controls::Drawing].map(|controls| {
        let (whole, found) = mask(controls, text, text.len());
        let (pieces, counted) = mask(controls, text, cut);
        for shown in [&whole, &pieces] {
            check(controls, shown);
        }
        (found.min(4), counted.min(4), whole.len().cmp(&text.len()), whole == pieces)
    });
    outcome(told)
}

/// What writes the clipboard is never shown, nor at a terminal anything that is for the terminal itself.
fn check(controls: Controls, shown: &[u8]) {
    let has = |sequence: &[u8]| shown.windows(sequence.len()).any(|window| window == sequence);
    assert!(!has(b"\x1b]52;"), "the clipboard is written");
    if controls == Controls::Drawing {
        assert!(!has(b"\x1b]") && !has(b"\x1bP"), "a string for the terminal itself is let through");
    }
}

fn mask(controls: Controls, text: &[u8], piece: usize) -> (Vec<u8>, usize) {
    static SCANNER: OnceLock<Arc<Scanner>> = OnceLock::new();
    let scanner =
        SCANNER.get_or_init(|| Arc::new(Scanner::new(RuleSet::builtin()).expect("the built-in rules")));
    let mut masker = TerminalMasker::new(Arc::clone(scanner), ClassSet::default(), controls);
    let mut out = Vec::new();
    for chunk in text.chunks(piece.max(1)) {
        masker.push(chunk, &mut out);
        assert!(masker.held() <= MAX_HELD + chunk.len(), "{} bytes are held back", masker.held());
    }
    let found = masker.finish(&mut out);
    (out, found)
}
