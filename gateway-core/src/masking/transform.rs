//! What a masked value turns into.

use super::class::{DataClass, MAX_CLASS_NAME};
use super::key::MaskKey;
use super::text::is_word;

/// How a sensitive value is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transform {
    /// A constant tag, `[REDACTED:EMAIL]`. No rule matches it again.
    Redact,
    /// Letters and digits become `*` except the last `keep_last` of them; separators stay. A value with no more letters
    /// and digits than that is masked whole.
    Partial {
        /// How many letters and digits stay readable at the end.
        keep_last: u8,
    },
    /// One `*` for each byte: framing stays, the length shows.
    SameLength,
    /// A keyed hash, 32 hexadecimal digits. Only for fields: in free text it would answer guesses.
    Hash,
    /// A keyed, deterministic token, `EMAIL_` and 26 base-32 letters. Only for fields, as [`Hash`](Self::Hash).
    Token,
    /// Null where the carrier has one; a tag in free text.
    Null,
}

/// How every tag begins.
const TAG_START: &[u8] = b"[REDACTED:";

/// Bytes that decide whether a text starts with a tag: the longest tag and the byte after it.
pub(super) const TAG_LOOKAHEAD: usize = TAG_START.len() + MAX_CLASS_NAME + 2;

/// Whether `text` starts with a whole tag and no word goes on after it. A tag is not taken for a secret, so that masking twice
/// changes nothing; what only begins like a tag is.
pub(super) fn starts_with_tag(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(TAG_START) else { return false };
    let plain = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_';
    let name = rest.iter().take_while(|b| plain(b)).count();
    let after = rest.get(name..).and_then(|rest| rest.strip_prefix(b"]"));
    (1..=MAX_CLASS_NAME).contains(&name)
        && after.is_some_and(|after| !after.first().is_some_and(|b| is_word(*b)))
}

impl Transform {
    /// Whether it works on spans found in free text.
    pub(super) fn fits_content(self) -> bool {
        !matches!(self, Self::Hash | Self::Token)
    }

    /// Whether the replacement can be written before the end of the value is known.
    pub(super) fn streams(self) -> bool {
        !matches!(self, Self::Partial { .. })
    }

    /// Appends the replacement of `value`, found in free text. Keyed transforms never get here and redact.
    pub(super) fn apply_content(self, class: &DataClass, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Partial { keep_last } if value.len() <= super::CAP => partial(value, keep_last, out),
            Self::SameLength => out.resize(out.len() + value.len(), b'*'),
            _ => tag(class, out),
        }
    }

    /// Appends the replacement of a whole field; `None` for [`Null`](Self::Null).
    pub(super) fn apply_field(self, class: &DataClass, value: &[u8], key: &MaskKey) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Null => return None,
            Self::Hash => hex(&key.digest("hash", class, value), &mut out),
            Self::Token => token(class, &key.digest("token", class, value), &mut out),
            Self::Partial { keep_last } => partial(value, keep_last, &mut out),
            Self::Redact | Self::SameLength => self.apply_content(class, value, &mut out),
        }
        Some(out)
    }
}

/// Appends the class's constant tag.
pub(super) fn tag(class: &DataClass, out: &mut Vec<u8>) {
    out.extend_from_slice(TAG_START);
    upper(class, out);
    out.push(b']');
}

fn upper(class: &DataClass, out: &mut Vec<u8>) {
    out.extend(class.name().bytes().map(|b| b.to_ascii_uppercase()));
}

fn partial(value: &[u8], keep_last: u8, out: &mut Vec<u8>) {
    // Bytes of multi-byte characters count as letters and are never kept: half a character is not valid text.
    let letter = |b: u8| b.is_ascii_alphanumeric() || !b.is_ascii();
    let total = value.iter().filter(|b| letter(**b)).count();
    let kept_from = total.saturating_sub(usize::from(keep_last));
    if kept_from == 0 {
        return out.resize(out.len() + value.len(), b'*');
    }
    let mut seen = 0;
    for &byte in value {
        let hide = letter(byte) && (seen < kept_from || !byte.is_ascii());
        seen += usize::from(letter(byte));
        out.push(if hide { b'*' } else { byte });
    }
}

fn hex(digest: &[u8; 32], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| DIGITS.get(usize::from(n & 15)).copied().unwrap_or(b'0');
    // 128 bits: no accidental collisions among any number of rows.
    out.extend(digest.iter().take(16).flat_map(|b| [digit(b >> 4), digit(*b)]));
}

fn token(class: &DataClass, digest: &[u8; 32], out: &mut Vec<u8>) {
    upper(class, out);
    out.push(b'_');
    // Five bits a letter from the low bits of separate bytes: 130 bits. Lower case only, so no key rule can match.
    out.extend(digest.iter().take(26).map(|b| match b & 31 {
        n @ 0..=25 => b'a' + n,
        n => b'2' + (n - 26),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(transform: Transform, value: &str) -> Option<String> {
        let out =
            transform.apply_field(&DataClass::PAYMENT_CARD, value.as_bytes(), &MaskKey::new([1; 32]))?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn partial_keeps_the_last_digits_and_the_separators() {
        let four = Transform::Partial { keep_last: 4 };
        assert_eq!(field(four, "4111-1111 1111-1234").unwrap(), "****-**** ****-1234");
        assert_eq!(field(four, "1234").unwrap(), "****");
        assert_eq!(field(four, "1-2").unwrap(), "***");
        assert_eq!(field(four, "josé müller").unwrap(), "***** ***ller");
    }

    #[test]
    fn hashes_and_tokens_are_deterministic_and_differ() {
        let hash = field(Transform::Hash, "4111").unwrap();
        assert_eq!(hash.len(), 32);
        assert_eq!(field(Transform::Hash, "4111").unwrap(), hash);
        assert_ne!(field(Transform::Hash, "4112").unwrap(), hash);
        assert!(field(Transform::Token, "4111").unwrap().starts_with("PAYMENT_CARD_"));
    }

    #[test]
    fn null_has_no_text() {
        assert_eq!(field(Transform::Null, "x"), None);
    }
}
