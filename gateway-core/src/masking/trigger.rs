//! Finds the few places in a text where a match could begin, many bytes at a time.
//!
//! A trigger may fire where nothing is, but never stays silent where an automaton would match; a test compares both.

use aho_corasick::packed;
use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// Bytes judged at once by the shape test.
const BLOCK: usize = 64;
/// Bytes after a block that its shapes reach into.
const REACH: usize = 16;

const DIGIT: u8 = 1;
const SEPARATOR: u8 = 2;
const DOT: u8 = 4;
const UPPER: u8 = 8;
const AT: u8 = 16;
const COLON: u8 = 32;
const OPENING: u8 = 64;

/// What a place looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Card, social security or telephone number.
    Number,
    /// Two numbers with a dot between, and one more dot.
    Dotted,
    Account,
    At,
    /// A colon among enough others, or a pair of colons.
    Colon,
}

/// Calls `found` with every place that has a shape, in ascending order for each shape but [`Shape::Colon`].
pub(super) fn shapes(text: &[u8], mut found: impl FnMut(Shape, usize)) {
    let mut colons_before = 0;
    let mut base = 0;
    while base < text.len() {
        let block = load(text, base);
        let classes = classify(&block);
        let colons = count_colons(&classes);
        let hits = judge(&classes);
        if hits.iter().fold(0, |all, hit| all | hit) != 0 {
            report(&hits, base, &mut found);
        }
        if colons + colons_before >= 7 {
            let from = base - if colons_before > 0 { BLOCK } else { 0 };
            memchr::memchr_iter(b':', text.get(from..(base + BLOCK).min(text.len())).unwrap_or_default())
                .for_each(|i| found(Shape::Colon, from + i));
        }
        colons_before = colons;
        base += BLOCK;
    }
}

fn load(text: &[u8], base: usize) -> [u8; BLOCK + REACH] {
    let rest = text.get(base..).unwrap_or_default();
    if let Some(full) = rest.first_chunk() {
        return *full;
    }
    let mut block = [0; BLOCK + REACH];
    block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    block
}

// The three functions below have no branch and constant bounds, so that they compile to vector instructions.

fn classify(block: &[u8; BLOCK + REACH]) -> [u8; BLOCK + REACH] {
    let when = |yes: bool, class: u8| if yes { class } else { 0 };
    block.map(|b| {
        when(b.wrapping_sub(b'0') < 10, DIGIT)
            | when((b == b' ') | (b == b'-'), SEPARATOR)
            | when(b == b'.', DOT)
            | when(b.wrapping_sub(b'A') < 26, UPPER)
            | when(b == b'@', AT)
            | when(b == b':', COLON)
            | when((b == b'+') | (b == b'('), OPENING)
    })
}

fn count_colons(classes: &[u8; BLOCK + REACH]) -> usize {
    let mut count = 0u8;
    for class in classes.iter().take(BLOCK) {
        count += (class & COLON) >> 5;
    }
    usize::from(count)
}

const HIT_NUMBER: u8 = 1;
const HIT_DOTTED: u8 = 2;
const HIT_ACCOUNT: u8 = 4;
const HIT_AT: u8 = AT;
const HIT_COLONS: u8 = COLON;

#[allow(
    clippy::indexing_slicing,
    reason = "constant bounds: `i + 12 < BLOCK + REACH`; `get` would not vectorise"
)]
fn judge(c: &[u8; BLOCK + REACH]) -> [u8; BLOCK] {
    let mut hits = [0; BLOCK];
    for i in 0..BLOCK {
        // Bit 0 of each operand is "digit"; separators and dots are shifted down to it.
        let sep = |n: usize| c[i + n] >> 1;
        let any = |n: usize| (c[i + n] >> 1) | (c[i + n] >> 2);
        let edge = c[i] & c[i + 3];
        let bare = edge & c[i + 5] & c[i + 7] & c[i + 9] & c[i + 11] & c[i + 12];
        let fours = edge & sep(4) & c[i + 5] & c[i + 8];
        let social = c[i] & c[i + 2] & sep(3) & c[i + 4] & sep(6) & c[i + 7] & c[i + 10];
        let phone = c[i] & c[i + 2] & any(3) & c[i + 4] & c[i + 6] & any(7) & c[i + 8] & c[i + 11];
        // "4 digits without a separator, then one": 12345678-1234 and the like.
        let uneven = edge & c[i + 4] & c[i + 7] & (c[i + 8] | sep(8)) & c[i + 11] & (c[i + 12] | sep(12));
        let mixed = edge & c[i + 4] & c[i + 6] & c[i + 9] & sep(10) & c[i + 11];
        let opening = (c[i] >> 6) & (c[i + 1]);
        let dotted = c[i] & (c[i + 1] >> 2) & c[i + 2] & ((c[i + 3] | c[i + 4] | c[i + 5]) >> 2);
        let account = (c[i] >> 3) & (c[i + 1] >> 3) & c[i + 2] & c[i + 3];
        let colons = c[i] & c[i + 1] & COLON;
        hits[i] = ((bare | fours | social | phone | uneven | mixed | opening) & 1)
            | ((dotted & 1) << 1)
            | ((account & 1) << 2)
            | (c[i] & AT)
            | colons;
    }
    hits
}

fn report(hits: &[u8; BLOCK], base: usize, found: &mut impl FnMut(Shape, usize)) {
    let (words, _) = hits.as_chunks::<8>();
    for (at, word) in words.iter().enumerate().filter(|(_, word)| **word != [0; 8]) {
        for (i, hit) in word.iter().enumerate().filter(|(_, hit)| **hit != 0) {
            let place = base + at * 8 + i;
            let shapes = [
                (HIT_NUMBER, Shape::Number),
                (HIT_DOTTED, Shape::Dotted),
                (HIT_ACCOUNT, Shape::Account),
                (HIT_AT, Shape::At),
                (HIT_COLONS, Shape::Colon),
            ];
            shapes.iter().filter(|(bit, _)| hit & bit != 0).for_each(|(_, shape)| found(*shape, place));
        }
    }
}

/// Bytes folded to lower case and searched at once: small enough to stay in the nearest cache.
const WINDOW: usize = 4096;
/// Longest literal, in bytes; windows overlap by as much.
pub(super) const MAX_LITERAL: usize = 32;

/// A search for a few literals in any case.
#[derive(Debug)]
pub(super) enum Pack {
    /// With vector instructions.
    Vector(packed::Searcher),
    /// On processors without them.
    Plain(AhoCorasick),
}

/// Most literals the vector search takes at full speed.
pub(super) const MAX_PACK: usize = 16;

impl Pack {
    /// A search for `literals`, which are in lower case and up to [`MAX_LITERAL`] bytes long.
    pub(super) fn new<L: AsRef<[u8]>>(literals: &[L]) -> Option<Self> {
        if let Some(searcher) = packed::Searcher::new(literals) {
            return Some(Self::Vector(searcher));
        }
        AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(literals).ok().map(Self::Plain)
    }

    fn next(&self, window: &[u8], from: usize) -> Option<usize> {
        match self {
            Self::Vector(searcher) => {
                searcher.find_in(window, (from..window.len()).into()).map(|m| m.start())
            }
            Self::Plain(searcher) => {
                searcher.find(aho_corasick::Input::new(window).range(from..)).map(|m| m.start())
            }
        }
    }
}

/// Calls `found` with the pack and place of every literal. Places ascend for each pack within a window and over windows.
pub(super) fn literals(text: &[u8], packs: &[Pack], mut found: impl FnMut(usize, usize)) {
    let mut folded = [0; WINDOW + MAX_LITERAL];
    for base in (0..text.len()).step_by(WINDOW) {
        let source = text.get(base..text.len().min(base + WINDOW + MAX_LITERAL)).unwrap_or_default();
        folded.iter_mut().zip(source).for_each(|(to, from)| *to = from.to_ascii_lowercase());
        let window = folded.get(..source.len()).unwrap_or_default();
        for (pack, searcher) in packs.iter().enumerate() {
            let mut from = 0;
            while let Some(start) = searcher.next(window, from).filter(|start| *start < WINDOW) {
                found(pack, base + start);
                from = start + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found_once_across_windows_and_in_any_case() {
        let pack = Pack::new(&["needle", "eedl"]).unwrap();
        for at in [0, WINDOW - 6, WINDOW - 3, WINDOW, WINDOW + 1, 2 * WINDOW - 1] {
            let mut text = vec![b'.'; 3 * WINDOW];
            text[at..at + 6].copy_from_slice(b"NeeDle");
            let mut places = Vec::new();
            literals(&text, std::slice::from_ref(&pack), |_, place| places.push(place));
            assert_eq!(places, [at, at + 1]);
        }
    }

    #[test]
    fn everyday_numbers_have_no_shape() {
        let mut places = Vec::new();
        shapes(b"2026-07-15 10:11:12.345678+00\t12.50\t1200\tv1.2\t987654321\n", |s, at| {
            places.push((s, at))
        });
        assert_eq!(places, []);
    }
}
