//! Secrets the gateway itself sent to a target, looked for in everything that comes back.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zeroize::Zeroizing;

use super::trigger::{MAX_PACK, Pack};

/// The injected credentials of one session, in every usual encoding.
///
/// Raw, base64 at each of the three alignments in both alphabets, hexadecimal in both cases, percent-encoded,
/// JSON-escaped and UTF-16 in both byte orders. At base64's inner alignments up to six bits of the first and last byte
/// stay in letters shared with the neighbours. Never printed; wiped when dropped, but for the first six bytes of each
/// encoding that the search holds.
pub struct KnownLiterals {
    literals: Vec<Zeroizing<Vec<u8>>>,
    packs: Vec<Pack>,
    first: Box<[bool; 256]>,
    hits: AtomicU64,
}

/// Shortest value that is looked for, in bytes: shorter ones could be guessed by what gets masked.
pub const MIN_KNOWN_BYTES: usize = 16;
/// Longest value, in bytes: a stream holds back up to about three times as much.
pub const MAX_KNOWN_BYTES: usize = 4096;
/// Most values of one session; each has about fourteen encodings.
pub const MAX_KNOWN_VALUES: usize = 32;

/// A value that cannot be looked for. Injecting it would let it come back unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KnownLiteralsError {
    /// Under [`MIN_KNOWN_BYTES`].
    #[error("an injected secret has {0} bytes, under {MIN_KNOWN_BYTES}; use a longer one")]
    TooShort(usize),
    /// Over [`MAX_KNOWN_BYTES`].
    #[error("an injected secret has {0} bytes, over {MAX_KNOWN_BYTES}; use a shorter one")]
    TooLong(usize),
    /// Over [`MAX_KNOWN_VALUES`].
    #[error("more than {MAX_KNOWN_VALUES} injected secrets in one session; inject fewer")]
    TooMany,
}

/// How much of each literal the vector search looks for.
const PREFIX: usize = 6;

impl KnownLiterals {
    /// Prepares the search for `values`.
    ///
    /// # Errors
    /// [`KnownLiteralsError`] if a value is too short or too long, or there are too many.
    pub fn new<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Result<Self, KnownLiteralsError> {
        let mut literals = Vec::new();
        for (count, value) in values.into_iter().enumerate() {
            let value = value.as_ref();
            match value.len() {
                _ if count >= MAX_KNOWN_VALUES => return Err(KnownLiteralsError::TooMany),
                short if short < MIN_KNOWN_BYTES => return Err(KnownLiteralsError::TooShort(short)),
                long if long > MAX_KNOWN_BYTES => return Err(KnownLiteralsError::TooLong(long)),
                _ => literals.extend(encodings(value)),
            }
        }
        literals.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
        literals.dedup_by(|a, b| a.as_slice() == b.as_slice());
        let mut first = Box::new([false; 256]);
        let heads = literals.iter().filter_map(|literal| literal.first());
        heads.for_each(|b| first.iter_mut().skip(usize::from(*b)).take(1).for_each(|slot| *slot = true));
        let mut prefixes: Vec<Vec<u8>> =
            literals.iter().filter_map(|l| l.get(..PREFIX)).map(<[u8]>::to_ascii_lowercase).collect();
        prefixes.dedup();
        let packs = prefixes.chunks(MAX_PACK).filter_map(Pack::new).collect();
        Ok(Self { literals, packs, first, hits: AtomicU64::new(0) })
    }

    /// How often a known value was masked. More than the target's own habits explain is a sign of guessing.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, hits: usize) {
        self.hits.fetch_add(hits as u64, Ordering::Relaxed);
    }

    /// The searches for the beginnings of all literals.
    pub(super) fn packs(&self) -> &[Pack] {
        &self.packs
    }

    /// Where the longest literal that begins at `start` ends.
    pub(super) fn end(&self, text: &[u8], start: usize) -> Option<usize> {
        let rest = text.get(start..)?;
        let matching = self.literals.iter().filter(|literal| rest.starts_with(literal));
        matching.map(|l| start + l.len()).max()
    }

    /// The first place at or after `from` where `text` ends within a literal.
    pub(super) fn unfinished(&self, text: &[u8], from: usize) -> usize {
        let longest = self.literals.iter().map(|l| l.len()).max().unwrap_or(0);
        let window = from.max(text.len().saturating_sub(longest));
        let begins =
            |at: &usize| text.get(*at).is_some_and(|b| self.first.get(usize::from(*b)) == Some(&true));
        let open = |at: &usize| text.get(*at..).is_some_and(|rest| self.goes_on(rest));
        (window..text.len()).filter(begins).find(open).unwrap_or(text.len())
    }

    /// Whether a literal begins with `rest` and is longer.
    fn goes_on(&self, rest: &[u8]) -> bool {
        // They are sorted: those that begin with `rest` stand together, `rest` itself first.
        let from = self.literals.partition_point(|literal| literal.as_slice() < rest);
        let beginning = self.literals.iter().skip(from).take_while(|literal| literal.starts_with(rest));
        beginning.take(2).any(|literal| literal.len() > rest.len())
    }
}

impl fmt::Debug for KnownLiterals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownLiterals").field("hits", &self.hits()).finish_non_exhaustive()
    }
}

fn encodings(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut all =
        vec![value.to_vec(), hex(value, u8::to_ascii_lowercase), hex(value, u8::to_ascii_uppercase)];
    for lead in 0..3 {
        all.push(base64_inside(&STANDARD, lead, value));
        all.push(base64_inside(&URL_SAFE, lead, value));
    }
    all.push(percent(value, false, u8::to_ascii_uppercase));
    all.push(percent(value, false, u8::to_ascii_lowercase));
    all.push(percent(value, true, u8::to_ascii_uppercase));
    if let Ok(text) = std::str::from_utf8(value) {
        let json = serde_json::to_vec(text).unwrap_or_default();
        all.extend(json.get(1..json.len().saturating_sub(1)).map(<[u8]>::to_vec));
        all.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        all.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
    }
    all.into_iter().filter(|l| l.len() >= MIN_KNOWN_BYTES).map(Zeroizing::new).collect()
}

/// The letters that `value` alone decides when `lead` bytes stand before it (RFC 4648 section 4).
fn base64_inside(engine: &impl Engine, lead: usize, value: &[u8]) -> Vec<u8> {
    let padded = Zeroizing::new([&[0; 2][..lead.min(2)], value].concat());
    let encoded = engine.encode(padded.as_slice()).into_bytes();
    let whole = (lead + value.len()) * 8 / 6;
    encoded.get((lead * 8).div_ceil(6)..whole).unwrap_or_default().to_vec()
}

fn hex(value: &[u8], case: fn(&u8) -> u8) -> Vec<u8> {
    value.iter().flat_map(|b| hex_digits(*b)).map(|b| case(&b)).collect()
}

fn hex_digits(byte: u8) -> [u8; 2] {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
    [digit(byte >> 4), digit(byte & 15)]
}

/// RFC 3986 section 2.1; with `plus`, a space becomes `+` as in forms.
fn percent(value: &[u8], plus: bool, case: fn(&u8) -> u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 3);
    for &byte in value {
        match byte {
            b' ' if plus => out.push(b'+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ => out.extend([b'%'].into_iter().chain(hex_digits(byte).iter().map(case))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{ClassSet, RuleSet, Scanner, StreamMasker};
    use super::*;

    const SECRET: &str = "s3cr\"t /value+ that is long";

    fn views() -> Vec<Vec<u8>> {
        let b = SECRET.as_bytes();
        let around = |lead: &str, engine: &dyn Fn(&[u8]) -> String| {
            engine(format!("{lead}{SECRET}tail").as_bytes()).into_bytes()
        };
        let mut all = vec![
            b.to_vec(),
            hex(b, u8::to_ascii_lowercase),
            hex(b, u8::to_ascii_uppercase),
            percent(b, false, u8::to_ascii_uppercase),
        ];
        for lead in ["", "a", "ab", "abc"] {
            all.push(around(lead, &|bytes| STANDARD.encode(bytes)));
            all.push(around(lead, &|bytes| URL_SAFE.encode(bytes)));
        }
        all.push(serde_json::to_vec(SECRET).unwrap());
        all.push(SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect());
        all.push(SECRET.encode_utf16().flat_map(u16::to_be_bytes).collect());
        all
    }

    #[test]
    fn every_encoding_is_masked_whole_and_in_streams() {
        let scanner = Arc::new(Scanner::new(RuleSet::empty()).unwrap());
        let known = Arc::new(KnownLiterals::new([SECRET]).unwrap());
        for (i, view) in views().iter().enumerate() {
            let text = [b"x ", view.as_slice(), b" y"].concat();
            let mut whole = Vec::new();
            assert_eq!(
                scanner.beside(&known).mask_into(&text, &ClassSet::default(), &mut whole),
                1,
                "view {i}"
            );
            assert!(whole.len() < 48, "{}", whole.escape_ascii());
            let hits = known.hits();
            let mut masker = StreamMasker::new(scanner.clone(), ClassSet::default()).beside(known.clone());
            let mut out = Vec::new();
            text.chunks(1).for_each(|byte| masker.push(byte, &mut out));
            assert_eq!(masker.finish(&mut out), 1);
            assert_eq!((out, known.hits()), (whole, hits + 1), "view {i}");
        }
    }

    #[test]
    fn text_that_ends_within_a_literal_is_held_from_where_it_begins() {
        let known = KnownLiterals::new([SECRET, "s3cr\"t /value+ that is long and longer"]).unwrap();
        for view in views() {
            let literal = known.literals.iter().find(|l| view.windows(l.len()).any(|w| w == l.as_slice()));
            let literal = literal.unwrap();
            for cut in 1..literal.len() {
                let text = [b"x ", literal.get(..cut).unwrap()].concat();
                assert_eq!(known.unfinished(&text, 0), 2, "{}", text.escape_ascii());
            }
        }
        // The longer of two that begin alike is still under way, and nothing is once it is over.
        let whole = |text: &str| known.unfinished(text.as_bytes(), 0);
        assert_eq!(whole(&format!("x {SECRET}")), 2);
        let over = format!("x {SECRET}.");
        assert_eq!(whole(&over), over.len());
    }

    #[test]
    fn a_known_value_cannot_be_revealed() {
        let scanner = Scanner::new(RuleSet::empty()).unwrap();
        let known = KnownLiterals::new([SECRET]).unwrap();
        let skip = scanner.reveal(scanner.classes());
        assert!(scanner.beside(&known).mask(SECRET.as_bytes(), &skip).is_some());
    }

    #[test]
    fn values_that_could_be_guessed_are_refused() {
        assert_eq!(KnownLiterals::new(["short"]).unwrap_err(), KnownLiteralsError::TooShort(5));
        assert_eq!(KnownLiterals::new([vec![b'x'; 5000]]).unwrap_err(), KnownLiteralsError::TooLong(5000));
        assert_eq!(KnownLiterals::new(vec![SECRET; 33]).unwrap_err(), KnownLiteralsError::TooMany);
    }

    #[test]
    fn values_are_not_printed() {
        assert!(!format!("{:?}", KnownLiterals::new([SECRET]).unwrap()).contains("s3cr"));
    }
}
