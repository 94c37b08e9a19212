//! Text like what targets send, the same in every run.
//!
//! `clean`: tab-separated rows of id, time, words, price, a quarter with a UUID. `dirty`: the same, one row in a hundred with a
//! sensitive value of one of twelve kinds. `json`: log lines, two in a thousand with one.

use std::fmt::Write as _;

/// A small generator of fixed numbers (xorshift64*): not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Starts where the seed says.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    fn of<'a>(&mut self, alphabet: &'a str, length: usize) -> impl Iterator<Item = char> + use<'a> {
        let picks: Vec<u64> = (0..length).map(|_| self.below(alphabet.len() as u64)).collect();
        picks.into_iter().filter_map(|i| alphabet.chars().nth(i as usize))
    }

    fn text(&mut self, alphabet: &str, length: usize) -> String {
        self.of(alphabet, length).collect()
    }

    /// A card number of the Visa range that satisfies its check digit.
    pub(crate) fn card(&mut self) -> String {
        let mut digits = format!("4{}", self.text("0123456789", 14));
        let check = check_digit(&digits);
        digits.push(check);
        digits
    }
}

/// ISO/IEC 7812-1, annex B.
fn check_digit(digits: &str) -> char {
    let double = |d: u32| if d > 4 { 2 * d - 9 } else { 2 * d };
    let sum: u32 = digits
        .chars()
        .rev()
        .filter_map(|c| c.to_digit(10))
        .enumerate()
        .map(|(i, d)| if i % 2 == 0 { double(d) } else { d })
        .sum();
    char::from_digit((10 - sum % 10) % 10, 10).unwrap_or('0')
}

/// A text and where its rows and cells are.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub(crate) name: &'static str,
    pub(crate) text: Vec<u8>,
    /// How many sensitive values were put in.
    pub(crate) planted: usize,
}

/// The three corpora, each of about `bytes` bytes.
pub(crate) fn all(bytes: usize) -> [Corpus; 3] {
    [rows("clean rows", 0, bytes), rows("rows, 1 % sensitive", 100, bytes), json(bytes)]
}

/// Every `every`-th row has a sensitive value; none if 0.
fn rows(name: &'static str, every: usize, bytes: usize) -> Corpus {
    let mut numbers = Numbers::new(7);
    let mut text = String::with_capacity(bytes + 512);
    let mut planted = 0;
    let mut row = 0;
    while text.len() < bytes {
        row += 1;
        let (day, second) = (1 + numbers.below(28), numbers.below(60));
        let _ = write!(text, "{}\t2026-03-{day:02} 11:42:{second:02}\t", 100_000 + row);
        words(&mut numbers, 6, &mut text);
        if every > 0 && row % every == 0 {
            planted += 1;
            text.push(' ');
            text.push_str(&sensitive(&mut numbers, row / every));
            text.push(' ');
        }
        let _ = write!(text, "\t{}.{:02}\t", numbers.below(900), numbers.below(100));
        if row % 4 == 0 {
            uuid(&mut numbers, &mut text);
        }
        text.push_str("\tshipped\n");
    }
    Corpus { name, text: text.into_bytes(), planted }
}

fn json(bytes: usize) -> Corpus {
    let mut numbers = Numbers::new(11);
    let mut text = String::with_capacity(bytes + 512);
    let mut planted = 0;
    let mut row = 0;
    while text.len() < bytes {
        row += 1;
        let level = if row % 9 == 0 { "warn" } else { "info" };
        let _ = write!(text, "{{\"ts\":\"2026-03-11T10:{:02}:02Z\",\"level\":\"{level}\",", row % 60);
        let _ = write!(text, "\"trace\":\"{}\",\"msg\":\"", numbers.text("0123456789abcdef", 32));
        words(&mut numbers, 7, &mut text);
        if row % 500 == 0 {
            planted += 1;
            text.push(' ');
            text.push_str(&sensitive(&mut numbers, row / 500));
        }
        let _ = writeln!(text, "\",\"ms\":{},\"ok\":true}}", numbers.below(4000));
    }
    Corpus { name: "json, 0.2 % sensitive", text: text.into_bytes(), planted }
}

fn words(numbers: &mut Numbers, count: usize, text: &mut String) {
    for i in 0..count {
        if i > 0 {
            text.push(' ');
        }
        let word = numbers.below(WORDS.len() as u64) as usize;
        text.push_str(WORDS.get(word).copied().unwrap_or_default());
    }
}

fn uuid(numbers: &mut Numbers, text: &mut String) {
    for (i, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if i > 0 {
            text.push('-');
        }
        text.extend(numbers.of("0123456789abcdef", length));
    }
}

fn sensitive(numbers: &mut Numbers, turn: usize) -> String {
    const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const ALL: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut digits = |n| numbers.text("123456789", n);
    match turn % 12 {
        0 | 6 => numbers.card(),
        1 | 7 => format!("{}.{}@mail.test.org", numbers.text(&ALL[..26], 5), numbers.text(&ALL[..26], 7)),
        2 => format!("523-{}-{}", digits(2), digits(4)),
        3 => format!("+1 415-{}-{}", digits(3), digits(4)),
        4 => "DE89370400440532013000".to_owned(),
        5 => "GB82WEST12345698765432".to_owned(),
        8 => format!("AKIA{}", numbers.text(UPPER, 16)),
        9 => format!("glpat-{}", numbers.text(ALL, 20)),
        10 => format!("sk_live_{}", numbers.text(ALL, 24)),
        _ => format!("password={}", numbers.text(ALL, 14)),
    }
}

const WORDS: [&str; 24] = [
    "order",
    "parcel",
    "blue",
    "window",
    "return",
    "express",
    "north",
    "garden",
    "invoice",
    "paper",
    "silver",
    "cable",
    "morning",
    "delay",
    "partial",
    "quality",
    "stock",
    "warehouse",
    "bottle",
    "light",
    "customer",
    "review",
    "large",
    "second",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_satisfy_the_check_digit() {
        assert_eq!(check_digit("411111111111111"), '1');
        assert_eq!(check_digit("7992739871"), '3');
    }

    #[test]
    fn corpora_are_the_same_each_time_and_as_large_as_asked() {
        for (one, other) in all(10_000).iter().zip(&all(10_000)) {
            assert_eq!(one.text, other.text);
            assert!((10_000..10_512).contains(&one.text.len()));
        }
        assert_eq!(all(100_000)[0].planted, 0);
        assert!(all(100_000)[1].planted > 5);
    }
}
