//! Finds the few places in a text where a match could begin, many bytes at a time.
//!
//! A trigger may fire where nothing is, but never stays silent where an automaton would match; a test compares both.

use std::cell::Cell;

use aho_corasick::packed;
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

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

/// Colons between hexadecimal digits in an address without `::`, the last two groups written as IPv4 (RFC 4291 section 2.2).
const LINKS: u32 = 6;

/// Calls `found` with every place that has a shape, in ascending order for each shape but [`Shape::Colon`].
pub(super) fn shapes(text: &[u8], mut found: impl FnMut(Shape, usize)) {
    let found: &mut dyn FnMut(Shape, usize) = &mut found;
    dispatch!(Level::new(), simd => shapes_by(simd, text, found));
}

/// With the widest vectors that this processor has: `dispatch` compiles it for each kind.
#[inline(always)]
fn shapes_by<S: Simd>(simd: S, text: &[u8], found: &mut dyn FnMut(Shape, usize)) {
    let mut colons_before = 0;
    let mut here = Classes::of(simd, text, 0);
    for base in (0..text.len()).step_by(BLOCK) {
        let next = Classes::of(simd, text, base + BLOCK);
        let pair = Pair { here: &here, next: &next };
        let hits = pair.hits();
        if hits.any() != 0 {
            hits.report(base, found);
        }
        let colons = pair.links_at_most();
        if colons + colons_before >= LINKS {
            report_links(text, base, colons_before > 0, found);
        }
        colons_before = colons;
        here = next;
    }
}

/// Reports the colons between hexadecimal digits in a block (and the one before it), if they are enough for an address.
fn report_links(text: &[u8], base: usize, with_previous: bool, found: &mut dyn FnMut(Shape, usize)) {
    let from = base - if with_previous { BLOCK } else { 0 };
    let hex = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
    let links = || {
        memchr::memchr_iter(b':', text.get(from..(base + BLOCK + 1).min(text.len())).unwrap_or_default())
            .map(|i| from + i)
            .filter(|at| hex(at.wrapping_sub(1)) && hex(at + 1))
    };
    if links().nth(LINKS as usize - 1).is_some() {
        links().for_each(|at| found(Shape::Colon, at));
    }
}

/// A block's bytes by class: bit `i` is byte `i`.
#[derive(Clone, Copy, Debug, Default)]
struct Classes {
    digit: u64,
    /// Space and `-`.
    separator: u64,
    dot: u64,
    upper: u64,
    at: u64,
    colon: u64,
    /// `+` and `(`.
    opening: u64,
}

impl Classes {
    /// Of the block that begins at `base`; what lies beyond the text is in no class.
    #[inline(always)]
    fn of<S: Simd>(simd: S, text: &[u8], base: usize) -> Self {
        let rest = text.get(base..).unwrap_or_default();
        if let Some(block) = rest.first_chunk() {
            return Self::of_block(simd, block);
        }
        if rest.is_empty() {
            return Self::default();
        }
        let mut block = [0; BLOCK];
        block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Self::of_block(simd, &block)
    }

    #[inline(always)]
    fn of_block<S: Simd>(simd: S, block: &[u8; BLOCK]) -> Self {
        let block = u8x64::from_slice(simd, block);
        let equal = |byte: u8| block.simd_eq(byte);
        let within = |low: u8, span: u8| (block - low).simd_le(span).to_bitmask();
        Self {
            digit: within(b'0', 9),
            separator: (equal(b' ') | equal(b'-')).to_bitmask(),
            dot: equal(b'.').to_bitmask(),
            upper: within(b'A', 25),
            at: equal(b'@').to_bitmask(),
            colon: equal(b':').to_bitmask(),
            opening: (equal(b'+') | equal(b'(')).to_bitmask(),
        }
    }
}

/// Where shapes are in a block.
#[derive(Clone, Copy, Debug)]
struct Hits {
    number: u64,
    dotted: u64,
    account: u64,
    at: u64,
    colons: u64,
}

impl Hits {
    #[inline(always)]
    fn any(&self) -> u64 {
        self.number | self.dotted | self.account | self.at | self.colons
    }

    fn report(&self, base: usize, found: &mut dyn FnMut(Shape, usize)) {
        let mut hits = self.any();
        while hits != 0 {
            let bit = hits & hits.wrapping_neg();
            let place = base + hits.trailing_zeros() as usize;
            let shapes = [
                (self.number, Shape::Number),
                (self.dotted, Shape::Dotted),
                (self.account, Shape::Account),
                (self.at, Shape::At),
                (self.colons, Shape::Colon),
            ];
            shapes.iter().filter(|(hit, _)| hit & bit != 0).for_each(|(_, shape)| found(*shape, place));
            hits ^= bit;
        }
    }
}

/// A block's classes and those of the one after it, into which its shapes reach.
struct Pair<'a> {
    here: &'a Classes,
    next: &'a Classes,
}

impl Pair<'_> {
    /// The class of the byte `n` (1 to 63) after each.
    #[inline(always)]
    fn after(&self, n: u32, class: impl Fn(&Classes) -> u64) -> u64 {
        (class(self.here) >> n) | (class(self.next) << (u64::BITS - n))
    }

    #[inline(always)]
    fn hits(&self) -> Hits {
        let digits = self.here.digit != 0 || self.next.digit & 3 != 0;
        let (number, dotted, account) = if digits { self.numbers() } else { (0, 0, 0) };
        let colons = self.here.colon & self.after(1, |c| c.colon);
        Hits { number, dotted, account, at: self.here.at, colons }
    }

    /// Where numbers, dotted numbers and accounts may begin.
    #[inline(always)]
    fn numbers(&self) -> (u64, u64, u64) {
        let here = self.here;
        let digit = |n: u32| self.after(n, |c| c.digit);
        let two = here.digit & digit(1);
        let opening = here.opening & digit(1);
        let account =
            if here.upper == 0 { 0 } else { here.upper & self.after(1, |c| c.upper) & digit(2) & digit(3) };
        let dot = |n: u32| self.after(n, |c| c.dot);
        let dotted = if here.dot | self.next.dot == 0 {
            0
        } else {
            here.digit & dot(1) & digit(2) & (dot(3) | dot(4) | dot(5))
        };
        let three = two & digit(2);
        (if three == 0 { opening } else { opening | self.long_numbers(three) }, dotted, account)
    }

    /// Where numbers of three digits and more may begin. `three`: there are three digits.
    #[inline(always)]
    fn long_numbers(&self, three: u64) -> u64 {
        let digit = |n: u32| self.after(n, |c| c.digit);
        let separator = |n: u32| self.after(n, |c| c.separator);
        let any = |n: u32| self.after(n, |c| c.separator | c.dot);
        let (d4, d5, d6) = (digit(4), digit(5), digit(6));
        let (d7, d8, d9, d10, d11) = (digit(7), digit(8), digit(9), digit(10), digit(11));
        let four = three & digit(3);
        // 1234-5678..., of four or six after the separator.
        let parted = four & separator(4) & d5 & d6 & d7 & d8;
        // Eight digits, then eight more with or without separators; ten digits, then a separator.
        let eight = four & d4 & d5 & d6 & d7;
        let joined = eight & (d8 | separator(8)) & d9 & d10 & d11 & (digit(12) | separator(12));
        let tens = eight & d8 & d9 & separator(10) & d11;
        let social = three & separator(3) & d4 & d5 & separator(6) & d7 & d8 & d9 & d10;
        let phone = three & any(3) & d4 & d5 & d6 & any(7) & d8 & d9 & d10 & d11;
        parted | joined | tens | social | phone
    }

    /// At least as many as there are colons between hexadecimal digits whose first digit lies in this block.
    #[inline(always)]
    fn links_at_most(&self) -> u32 {
        self.after(1, |c| c.colon).count_ones()
    }
}

/// Bytes judged at once by the shape test: one bit each in a word.
const BLOCK: usize = 64;

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

#[inline(always)]
fn fold(source: &[u8], folded: &mut [u8]) {
    folded.iter_mut().zip(source).for_each(|(to, from)| *to = from.to_ascii_lowercase());
}

/// Zero bytes searched beyond the text's end: the vector search needs so many to begin at all.
const PADDING: usize = 64;

/// A window folded to lower case.
type Folded = Box<[u8; WINDOW + MAX_LITERAL + PADDING]>;

thread_local! {
    /// Kept from call to call: texts are often shorter than it would take to clear a new one.
    static FOLDED: Cell<Option<Folded>> = const { Cell::new(None) };
}

/// Calls `found` with the pack and place of every literal, packs counted through both lists. Places ascend for each pack within a
/// window and over windows.
pub(super) fn literals(text: &[u8], packs: [&[Pack]; 2], mut found: impl FnMut(usize, usize)) {
    let [first, second] = packs;
    if text.is_empty() || (first.is_empty() && second.is_empty()) {
        return;
    }
    let mut folded = FOLDED.take().unwrap_or_else(|| Box::new([0; _]));
    for base in (0..text.len()).step_by(WINDOW) {
        let source = text.get(base..text.len().min(base + WINDOW + MAX_LITERAL)).unwrap_or_default();
        dispatch!(Level::new(), _simd => fold(source, folded.as_mut_slice()));
        // What an earlier text left there could look like a literal that begins in this one.
        folded.iter_mut().skip(source.len()).take(PADDING).for_each(|byte| *byte = 0);
        let window = folded.get(..source.len() + PADDING).unwrap_or_default();
        let end = source.len().min(WINDOW);
        for (pack, searcher) in first.iter().chain(second).enumerate() {
            let mut from = 0;
            while let Some(start) = searcher.next(window, from).filter(|start| *start < end) {
                found(pack, base + start);
                from = start + 1;
            }
        }
    }
    FOLDED.set(Some(folded));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_are_found_once_across_windows_and_in_any_case() {
        let pack = Pack::new(&["needle", "eedl"]).unwrap();
        for at in [0, WINDOW - 6, WINDOW - 3, WINDOW, WINDOW + 1, 2 * WINDOW - 1] {
            let mut text = vec![b'.'; 3 * WINDOW];
            text[at..at + 6].copy_from_slice(b"NeeDle");
            let mut places = Vec::new();
            literals(&text, [std::slice::from_ref(&pack), &[]], |_, place| places.push(place));
            assert_eq!(places, [at, at + 1]);
        }
    }

    /// The shapes at each place, byte by byte.
    fn plainly(text: &[u8]) -> Vec<(Shape, usize)> {
        let byte = |at: usize| text.get(at).copied().unwrap_or(0);
        let digits = |from: usize, n: usize| (from..from + n).all(|at| byte(at).is_ascii_digit());
        let sep = |at: usize| matches!(byte(at), b' ' | b'-');
        let any = |at: usize| sep(at) || byte(at) == b'.';
        let one = |at: usize| digits(at, 1);
        let mut places = Vec::new();
        for i in 0..text.len() {
            let parted = digits(i, 4) && sep(i + 4) && digits(i + 5, 4);
            let joined = digits(i, 8)
                && (one(i + 8) || sep(i + 8))
                && digits(i + 9, 3)
                && (one(i + 12) || sep(i + 12));
            let tens = digits(i, 10) && sep(i + 10) && one(i + 11);
            let social = digits(i, 3) && sep(i + 3) && digits(i + 4, 2) && sep(i + 6) && digits(i + 7, 4);
            let phone = digits(i, 3) && any(i + 3) && digits(i + 4, 3) && any(i + 7) && digits(i + 8, 4);
            let opening = matches!(byte(i), b'+' | b'(') && one(i + 1);
            if parted || joined || tens || social || phone || opening {
                places.push((Shape::Number, i));
            }
            if one(i) && byte(i + 1) == b'.' && one(i + 2) && (3..6).any(|n| byte(i + n) == b'.') {
                places.push((Shape::Dotted, i));
            }
            if (0..2).all(|n| byte(i + n).is_ascii_uppercase()) && digits(i + 2, 2) {
                places.push((Shape::Account, i));
            }
            if byte(i) == b'@' {
                places.push((Shape::At, i));
            }
            if byte(i) == b':' && byte(i + 1) == b':' {
                places.push((Shape::Colon, i));
            }
        }
        places
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn vectors_see_what_bytes_show(text in "[0-9]{0,3}([0-9]{1,12}[- .@:+(AZaf]{0,3}){0,24}") {
            let text = text.as_bytes();
            let mut places = Vec::new();
            shapes(text, |shape, at| places.push((shape, at)));
            // A colon between digits counts only among others: those places are looked at below.
            let pairs = |places: &[(Shape, usize)]| -> Vec<(u8, usize)> {
                let double = |at: usize| text.get(at..at + 2) == Some(b"::");
                let mut kept: Vec<_> = places
                    .iter()
                    .filter(|(shape, at)| *shape != Shape::Colon || double(*at))
                    .map(|(shape, at)| (*shape as u8, *at))
                    .collect();
                kept.sort_unstable();
                kept.dedup();
                kept
            };
            prop_assert_eq!(pairs(&places), pairs(&plainly(text)));
        }

        #[test]
        fn colons_of_an_address_are_seen_wherever_they_stand(before in 0..200usize, after in 0..80usize) {
            let address = "2001:db8:1:2:3:4:5:6";
            let text = format!("{}{address}{}", "x".repeat(before), " ".repeat(after));
            let mut first = None;
            shapes(text.as_bytes(), |shape, at| {
                first = first.or((shape == Shape::Colon).then_some(at));
            });
            prop_assert_eq!(first, Some(before + 4));
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
