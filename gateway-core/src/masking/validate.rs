//! Checks on candidates that a pattern alone cannot make.

use std::net::Ipv6Addr;
use std::ops::Range;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};

use super::text::{distinct, is_word, word_can_start};

/// A candidate: `range` within one record, `text` cut a fixed number of bytes after it.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) text: &'a [u8],
    pub(super) low: usize,
    pub(super) range: Range<usize>,
}

impl Candidate<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        self.text.get(self.range.clone()).unwrap_or_default()
    }

    fn before(&self) -> &[u8] {
        self.text.get(self.low..self.range.start).unwrap_or_default()
    }

    fn after(&self) -> &[u8] {
        self.text.get(self.range.end..).unwrap_or_default()
    }

    fn whole_if(&self, yes: bool) -> Option<Range<usize>> {
        yes.then(|| self.range.clone())
    }
}

/// The digits of `bytes` as numbers; other bytes are skipped.
fn digits(bytes: &[u8]) -> impl DoubleEndedIterator<Item = u32> {
    bytes.iter().filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0'))
}

fn number(bytes: &[u8]) -> u64 {
    digits(bytes).fold(0, |n, d| n.saturating_mul(10).saturating_add(u64::from(d)))
}

/// The check digit of ISO/IEC 7812-1 annex B.
pub(super) fn luhn(bytes: &[u8]) -> bool {
    let double = |d: u32| if d > 4 { 2 * d - 9 } else { 2 * d };
    let sum: u32 = digits(bytes).rev().enumerate().map(|(i, d)| if i % 2 == 1 { double(d) } else { d }).sum();
    sum.is_multiple_of(10)
}

pub(super) fn payment_card(c: &Candidate<'_>) -> Option<Range<usize>> {
    let count = digits(c.bytes()).count();
    let issuer = digits(c.bytes()).take(6).fold(0, |n, d| n * 10 + u64::from(d));
    let repeated = digits(c.bytes()).all(|d| u64::from(d) == issuer % 10);
    c.whole_if(issuer_has_length(issuer, count) && luhn(c.bytes()) && !repeated && !is_fraction(c))
}

/// Most digits of a decimal number before its point: more are no everyday number.
const MAX_INTEGER_DIGITS: usize = 15;

/// Whether the candidate is the fraction of a decimal number: averages and floating-point numbers have many digits after the point.
/// What stands before the point must itself be nothing but a number.
fn is_fraction(c: &Candidate<'_>) -> bool {
    let Some(before) = c.before().strip_suffix(b".") else { return false };
    let integer = before.iter().rev().take(MAX_INTEGER_DIGITS + 1).take_while(|b| b.is_ascii_digit()).count();
    let outside = before.iter().rev().nth(integer);
    (1..=MAX_INTEGER_DIGITS).contains(&integer)
        && c.bytes().iter().all(u8::is_ascii_digit)
        && !outside.is_some_and(|b| is_word(*b) || *b == b'.')
}

/// Issuer identification numbers and their lengths, from the networks' published ranges.
fn issuer_has_length(issuer: u64, length: usize) -> bool {
    match issuer {
        340_000..=349_999 | 370_000..=379_999 => length == 15,
        300_000..=305_999 | 309_500..=309_599 | 360_000..=369_999 | 380_000..=399_999 => {
            (14..=19).contains(&length)
        }
        352_800..=358_999 => (16..=19).contains(&length),
        400_000..=499_999 => length == 16 || length == 19,
        510_000..=559_999 | 222_100..=272_099 | 220_000..=220_499 | 979_200..=979_299 => length == 16,
        508_000..=508_999 | 601_100..=601_199 | 620_000..=629_999 | 640_000..=659_999 => {
            (16..=19).contains(&length)
        }
        500_000..=507_999 | 509_000..=509_999 | 560_000..=589_999 | 600_000..=619_999 | 630_000..=639_999 => {
            (16..=19).contains(&length)
        }
        670_000..=679_999 | 810_000..=829_999 => (16..=19).contains(&length),
        _ => false,
    }
}

/// Country and total length (SWIFT IBAN registry, release 99).
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// Takes as many characters as the country's length asks for, then checks them.
pub(super) fn iban(c: &Candidate<'_>) -> Option<Range<usize>> {
    let bytes = c.bytes();
    let (_, wanted) = IBAN_LENGTHS.iter().find(|(country, _)| bytes.starts_with(*country))?;
    let mut kept = bytes.iter().enumerate().filter(|(_, b)| b.is_ascii_alphanumeric());
    let (last, _) = kept.nth(wanted - 1)?;
    let end = c.range.start + last + 1;
    let cut = c.text.get(end).is_some_and(u8::is_ascii_alphanumeric);
    (!cut && mod_97(bytes.get(..=last)?)).then_some(c.range.start..end)
}

/// ISO 7064 MOD 97-10 over an account number with its first four characters moved to the end (ISO 13616-1).
pub(super) fn mod_97(bytes: &[u8]) -> bool {
    let kept: Vec<u8> = bytes.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    let Some((head, rest)) = kept.split_at_checked(4) else { return false };
    let add = |n: u32, b: &u8| match b {
        b'0'..=b'9' => (n * 10 + u32::from(b - b'0')) % 97,
        _ => (n * 100 + u32::from(b.to_ascii_uppercase() - b'A') + 10) % 97,
    };
    rest.iter().chain(head).fold(0, add) == 1
}

/// Area, group and serial as the Social Security Administration assigns them; `9xx` as the IRS assigns taxpayer numbers.
pub(super) fn us_ssn(c: &Candidate<'_>) -> Option<Range<usize>> {
    let all = number(c.bytes());
    let (area, group, serial) = (all / 1_000_000, all / 10_000 % 100, all % 10_000);
    let taxpayer = area >= 900 && matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99);
    let person = area != 0 && area != 666 && area < 900 && group != 0 && serial != 0;
    c.whole_if(person || taxpayer)
}

/// Area and exchange of the North American plan begin with 2 to 9.
pub(super) fn phone_us(c: &Candidate<'_>) -> Option<Range<usize>> {
    let all: Vec<u32> = digits(c.bytes()).collect();
    let plan = match all.as_slice() {
        [1, rest @ ..] if rest.len() == 10 => rest,
        rest => rest,
    };
    let valid = matches!(plan, [2..=9, _, _, 2..=9, ..]) && plan.len() == 10;
    c.whole_if(valid && !runs_on_in_number(c))
}

/// ITU-T E.164: country code and number are 8 to 15 digits; no country code begins with 0. Groups that are too many are not part of it:
/// a date may follow.
pub(super) fn phone_international(c: &Candidate<'_>) -> Option<Range<usize>> {
    let bytes = c.bytes();
    let between = |end: &usize| bytes.get(*end).is_none_or(|b| !b.is_ascii_digit());
    let fits = |end: &usize| {
        let number = bytes.get(..*end).unwrap_or_default();
        number.last().is_some_and(u8::is_ascii_digit) && (8..=15).contains(&digits(number).count())
    };
    let end = (0..=bytes.len()).rev().filter(between).find(fits)?;
    (digits(bytes).next() != Some(0)).then_some(c.range.start..c.range.start + end)
}

fn runs_on_in_number(c: &Candidate<'_>) -> bool {
    matches!(c.after(), [b'.', b'0'..=b'9', ..])
}

/// A host address: no version string, netmask, network, loopback or wildcard.
pub(super) fn ipv4(c: &Candidate<'_>) -> Option<Range<usize>> {
    let octets: Vec<u64> = c.bytes().split(|b| *b == b'.').map(number).collect();
    let before = c.before();
    let dotted = matches!(before, [.., b'0'..=b'9', b'.']) || matches!(c.after(), [b'.', b'0'..=b'9', ..]);
    let tail = before.get(before.len().saturating_sub(16)..).unwrap_or_default().to_ascii_lowercase();
    let version = [&b"version "[..], b"version: ", b"version=", b"version\":\"", b"version\": \"", b"ver "]
        .iter()
        .any(|word| tail.ends_with(word));
    let host = match octets.as_slice() {
        [0 | 127 | 255, ..] | [_, 0, 0, 0] => false,
        all => all.len() == 4 && all.iter().all(|o| *o < 256),
    };
    c.whole_if(host && !dotted && !version)
}

/// RFC 4291 section 2.2, by the standard library's parser; unspecified and loopback addresses name no host.
pub(super) fn ipv6(c: &Candidate<'_>) -> Option<Range<usize>> {
    let text = std::str::from_utf8(c.bytes()).ok()?;
    // A colon may follow an address in a sentence: `2001:db8::1: no route`.
    let sentence = text.strip_suffix(':').filter(|rest| !rest.ends_with(':'));
    let address: Ipv6Addr = sentence.unwrap_or(text).parse().ok()?;
    let runs_on = matches!(c.after(), [b, ..] if is_word(*b) || *b == b':');
    let digit = text.bytes().any(|b| b.is_ascii_digit());
    let end = c.range.end - usize::from(sentence.is_some());
    let host = digit && !runs_on && !address.is_unspecified() && !address.is_loopback();
    host.then_some(c.range.start..end)
}

/// RFC 5321: the domain's last label has letters; a file name such as `logo@2x.png` is no address. What follows a domain that does is not
/// part of it: `ada@example.com-2024`, `ada@example.com.mp4`.
pub(super) fn email(c: &Candidate<'_>) -> Option<Range<usize>> {
    let bytes = c.bytes();
    let at = memchr::memchr(b'@', bytes)?;
    let domain = bytes.get(at + 1..)?;
    let retina = matches!(domain, [b'1'..=b'9', b'x', b'.', ..]);
    let between = |end: &usize| domain.get(*end).is_none_or(|b| matches!(b, b'.' | b'-'));
    let end = (0..=domain.len()).rev().filter(between).find(|end| is_domain(domain.get(..*end)))?;
    (at > 0 && !retina).then_some(c.range.start..c.range.start + at + 1 + end)
}

fn is_domain(name: Option<&[u8]>) -> bool {
    let name = name.unwrap_or_default();
    let Some(dot) = memchr::memrchr(b'.', name) else { return false };
    let last = name.get(dot + 1..).unwrap_or_default();
    dot > 0 && last.len() >= 2 && (last.iter().all(|b| !b.is_ascii_digit()) || last.starts_with(b"xn--"))
}

/// Base 62 with six digits of CRC-32 at the end, as GitHub documents; without a word boundary only if that holds.
pub(super) fn github_token(c: &Candidate<'_>) -> Option<Range<usize>> {
    let secret = c.bytes().get(4..).unwrap_or_default();
    c.whole_if(
        github_checksum(secret) || (word_can_start(c.text, c.low, c.range.start) && distinct(secret) > 4),
    )
}

fn github_checksum(secret: &[u8]) -> bool {
    let Some((random, check)) = secret.split_at_checked(30) else { return false };
    let digit = |b: &u8| match b {
        b'0'..=b'9' => u64::from(b - b'0'),
        b'A'..=b'Z' => u64::from(b - b'A') + 10,
        _ => u64::from(b.saturating_sub(b'a')) + 36,
    };
    check.iter().fold(0u64, |n, b| n.wrapping_mul(62).wrapping_add(digit(b))) == u64::from(crc32(random))
}

/// CRC-32 of ISO 3309, bit by bit: it runs on thirty bytes of a candidate.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, b| (0..8).fold(crc ^ u32::from(*b), step))
}

/// A token that is not one letter over and over, as in documentation.
pub(super) fn random_token(c: &Candidate<'_>) -> Option<Range<usize>> {
    c.whole_if(distinct(c.bytes()) > 8)
}

/// RFC 7519 section 5: the part before the first dot is JSON in base64url and names an algorithm.
pub(super) fn jwt(c: &Candidate<'_>) -> Option<Range<usize>> {
    // Cut values have left-over bits that a strict decoder would refuse.
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = c.bytes();
    let Some(header) = bytes.strip_suffix(b".") else {
        let whole = bytes.get(..bytes.len() & !3)?;
        let decoded = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT).decode(whole).ok()?;
        return c
            .whole_if(memchr::memmem::find(&decoded, b"\"alg\"").is_some() || decoded.starts_with(b"{\""));
    };
    let json: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    c.whole_if(json.get("alg").is_some_and(serde_json::Value::is_string))
}

/// The password between the first colon of the authority and its `@` (RFC 3986 section 3.2.1).
pub(super) fn url_password(c: &Candidate<'_>) -> Option<Range<usize>> {
    let colon = memchr::memchr(b':', c.bytes().get(3..)?)? + 3;
    Some(c.range.start + colon + 1..c.range.end - 1)
}

/// Text instead of a value: an unset or referenced secret.
const NO_SECRETS: &[&[u8]] = &[
    b"null",
    b"none",
    b"true",
    b"false",
    b"undefined",
    b"string",
    b"varchar",
    b"text",
    b"required",
    b"optional",
    b"nil",
    b"bytea",
    b"empty",
    b"unset",
    b"missing",
    b"invalid",
    b"expired",
    b"boolean",
];

/// The value of which the last `N` bytes of the head are the beginning.
pub(super) fn assigned<const N: usize>(c: &Candidate<'_>) -> Option<Range<usize>> {
    let start = c.range.end.checked_sub(N)?;
    let value = c.text.get(start..)?;
    let word_len = value.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    let word = value.get(..word_len)?.to_ascii_lowercase();
    let reference =
        [&b"${"[..], b"$(", b"{{", b"<%", b"%s", b"&&"].iter().any(|open| value.starts_with(open));
    let path = c.bytes().starts_with(b"PWD") && value.starts_with(b"/");
    let placeholder =
        NO_SECRETS.contains(&word.as_slice()) && !matches!(value.get(word_len), Some(b) if !ends_value(*b));
    (!reference && !path && !placeholder).then_some(start..c.range.end)
}

/// The argument after a command-line option, `--password value`.
pub(super) fn option_value(c: &Candidate<'_>) -> Option<Range<usize>> {
    if c.before().ends_with(b"-") { assigned::<4>(c) } else { None }
}

/// What follows `Basic` in an authorization header (RFC 7617): base64 of text has both cases, a word has not.
pub(super) fn basic_credential(c: &Candidate<'_>) -> Option<Range<usize>> {
    let range = assigned::<12>(c)?;
    let value = c.text.get(range.clone())?;
    let mixed = value.iter().any(u8::is_ascii_lowercase) && value.iter().skip(1).any(u8::is_ascii_uppercase);
    mixed.then_some(range)
}

/// Whether an unquoted value ends before `byte`.
pub(super) fn ends_value(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"\"'`,;&|)}]\\<>\0".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(f: fn(&Candidate<'_>) -> Option<Range<usize>>, text: &str) -> bool {
        f(&Candidate { text: text.as_bytes(), low: 0, range: 0..text.len() }).is_some()
    }

    #[test]
    fn cards_need_issuer_length_and_check_digit() {
        for good in [
            "4111111111111111",
            "4111-1111-1111-1111",
            "378282246310005",
            "5555 5555 5555 4444",
            "2223003122003222",
        ] {
            assert!(check(payment_card, good), "{good}");
        }
        for bad in ["4111111111111112", "1111111111111117", "0000000000000000", "41111111111111"] {
            assert!(!check(payment_card, bad), "{bad}");
        }
    }

    #[test]
    fn the_fraction_of_a_decimal_number_is_no_card() {
        let card = |text: &str| {
            let start = text.find("4111").unwrap();
            let candidate = Candidate { text: text.as_bytes(), low: 0, range: start..start + 16 };
            payment_card(&candidate).is_some()
        };
        for decimal in ["79.4111111111111111", "-0.4111111111111111,", "[1,2.4111111111111111]"] {
            assert!(!card(decimal), "{decimal}");
        }
        for hidden in [
            "4111111111111111",
            ".4111111111111111",
            "v1.4111111111111111",
            "1.2.4111111111111111",
            "card no.4111111111111111",
            "1234567890123456.4111111111111111",
        ] {
            assert!(card(hidden), "{hidden}");
        }
    }

    #[test]
    fn account_numbers_need_country_length_and_remainder() {
        for good in ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "NO9386011117947"] {
            assert!(check(iban, good), "{good}");
        }
        for bad in ["DE88370400440532013000", "XX89370400440532013000", "DE8937040044053201300"] {
            assert!(!check(iban, bad), "{bad}");
        }
    }

    #[test]
    fn social_security_numbers_have_forbidden_ranges() {
        assert!(check(us_ssn, "536-22-8726") && check(us_ssn, "912-70-1234"));
        for bad in ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000"] {
            assert!(!check(us_ssn, bad), "{bad}");
        }
    }

    #[test]
    fn the_checksum_is_the_documented_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        // A token published as an example of the format, in two parts.
        assert!(github_checksum(&[&b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"[..], b"0mLq17"].concat()));
        assert!(!github_checksum(&[&b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"[..], b"0mLq18"].concat()));
    }

    #[test]
    fn a_token_header_must_decode() {
        assert!(check(jwt, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."));
        assert!(!check(jwt, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ."));
        assert!(!check(jwt, "eyJ0eXAiOiJKV1QifQ."));
    }
}
