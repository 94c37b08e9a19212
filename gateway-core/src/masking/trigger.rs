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
/// `a` to `f` in either case.
const HEX_LETTER: u8 = 128;

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
        let hits = judge(&classes);
        let colons = count_links(&hits);
        if hits.iter().fold(0, |all, hit| all | hit) & !HIT_LINK != 0 {
            report(&hits, base, &mut found);
        }
        if colons + colons_before >= LINKS {
            let from = base - if colons_before > 0 { BLOCK } else { 0 };
            let hex = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
            memchr::memchr_iter(b':', text.get(from..(base + BLOCK + 1).min(text.len())).unwrap_or_default())
                .map(|i| from + i)
                .filter(|at| hex(at.wrapping_sub(1)) && hex(at + 1))
                .for_each(|at| found(Shape::Colon, at));
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
    let when = |yes: bool, class: u8| u8::from(yes) * class;
    let mut classes = [0; BLOCK + REACH];
    for (class, &b) in classes.iter_mut().zip(block) {
        *class = when(b.wrapping_sub(b'0') < 10, DIGIT)
            | when((b == b' ') | (b == b'-'), SEPARATOR)
            | when(b == b'.', DOT)
            | when(b.wrapping_sub(b'A') < 26, UPPER)
            | when(b == b'@', AT)
            | when(b == b':', COLON)
            | when((b == b'+') | (b == b'('), OPENING)
            | when((b | 0x20).wrapping_sub(b'a') < 6, HEX_LETTER);
    }
    classes
}

fn count_links(hits: &[u8; BLOCK]) -> usize {
    let mut count = 0u8;
    for hit in hits {
        count += (hit & HIT_LINK) >> 3;
    }
    usize::from(count)
}

/// Colons between hexadecimal digits in an address without `::`, the last two groups written as IPv4 (RFC 4291 section 2.2).
const LINKS: usize = 6;

const HIT_NUMBER: u8 = 1;
const HIT_DOTTED: u8 = 2;
const HIT_ACCOUNT: u8 = 4;
/// A colon between two hexadecimal digits, reported where there are enough of them.
const HIT_LINK: u8 = 8;
const HIT_AT: u8 = AT;
const HIT_COLONS: u8 = COLON;

#[allow(
    clippy::indexing_slicing,
    reason = "constant bounds: `i + 12 < BLOCK + REACH`; `get` would not vectorise"
)]
fn judge(c: &[u8; BLOCK + REACH]) -> [u8; BLOCK] {
    let mut hits = [0; BLOCK];
    let (mut two, mut four) = ([0; BLOCK + REACH - 1], [0; BLOCK + REACH - 3]);
    (0..two.len()).for_each(|i| two[i] = c[i] & c[i + 1] & DIGIT);
    (0..four.len()).for_each(|i| four[i] = two[i] & two[i + 2]);
    for i in 0..BLOCK {
        // Bit 0 of each operand is "digit"; separators and dots are shifted down to it.
        let sep = |n: usize| c[i + n] >> 1;
        let any = |n: usize| (c[i + n] >> 1) | (c[i + n] >> 2);
        // 1234-5678..., of four or six after the separator.
        let parted = four[i] & sep(4) & four[i + 5];
        // Eight digits, then eight more with or without separators; ten digits, then a separator.
        let eight = four[i] & four[i + 4];
        let joined = eight & (c[i + 8] | sep(8)) & two[i + 9] & c[i + 11] & (c[i + 12] | sep(12));
        let tens = eight & two[i + 8] & sep(10) & c[i + 11];
        let three = two[i] & c[i + 2];
        let social = three & sep(3) & two[i + 4] & sep(6) & four[i + 7];
        let phone = three & any(3) & two[i + 4] & c[i + 6] & any(7) & four[i + 8];
        let opening = (c[i] >> 6) & (c[i + 1]);
        let dotted = c[i] & (c[i + 1] >> 2) & c[i + 2] & ((c[i + 3] | c[i + 4] | c[i + 5]) >> 2);
        let account = (c[i] >> 3) & (c[i + 1] >> 3) & c[i + 2] & c[i + 3];
        let colons = c[i] & c[i + 1] & COLON;
        let hex = |n: usize| c[i + n] | (c[i + n] >> 7);
        let link = hex(0) & (c[i + 1] >> 5) & hex(2);
        hits[i] = ((parted | joined | tens | social | phone | opening) & 1)
            | ((dotted & 1) << 1)
            | ((account & 1) << 2)
            | ((link & 1) << 3)
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
        // The zone's `+00` might begin a telephone number.
        shapes(b"2026-07-15 10:11:12.345678+00\t12.50\t1200\tv1.2\t987654321\n", |s, at| {
            places.push((s, at))
        });
        assert_eq!(places, [(Shape::Number, 26)]);
    }
}
