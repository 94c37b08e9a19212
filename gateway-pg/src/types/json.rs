//! JSON text with sensitive content masked, still JSON.

use super::Masking;
use super::leaf::{json_string, without_escapes};

/// The text with sensitive content masked, or `None` if there is none in it. What becomes of it is JSON again: strings and keys are
/// looked at without their escapes, numbers become 0.
pub(crate) fn masked(masker: &mut dyn Masking, text: &[u8]) -> Option<Vec<u8>> {
    let whole = masker.text(text);
    let escapes = memchr::memchr(b'\\', text).is_some();
    match whole {
        None if !escapes => None,
        Some(whole) if is_json(&whole) && !escapes => Some(whole),
        whole => {
            let tokens = by_token(masker, text);
            match (tokens, whole) {
                (None, None) => None,
                (Some(tokens), _) if is_json(&tokens) && masker.text(&tokens).is_none() => Some(tokens),
                // A finding that no single token shows, or text that is no JSON.
                (_, Some(whole)) if is_json(&whole) => Some(whole),
                _ => Some(json_string(b"[REDACTED]")),
            }
        }
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Each string and number masked by itself; `None` if none had to be.
fn by_token(masker: &mut dyn Masking, text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let (mut position, mut changed) = (0, false);
    while let Some(first) = text.get(position) {
        let end = position + token_length(text.get(position..).unwrap_or_default());
        let token = text.get(position..end).unwrap_or_default();
        let masked = match first {
            b'"' => string(masker, token),
            b'-' | b'0'..=b'9' => masker.text(token).map(|_| b"0".to_vec()),
            _ => None,
        };
        changed |= masked.is_some();
        out.extend_from_slice(masked.as_deref().unwrap_or(token));
        position = end;
    }
    changed.then_some(out)
}

/// A string with its quotes masked. One that is none here, for half of a surrogate pair (which type json takes), is withheld if anything is
/// found in it.
fn string(masker: &mut dyn Masking, token: &[u8]) -> Option<Vec<u8>> {
    match serde_json::from_slice::<String>(token) {
        Ok(value) => masker.text(value.as_bytes()).map(|masked| json_string(&masked)),
        Err(_) => {
            let plain = without_escapes(token)?;
            masker.text(&plain).map(|_| json_string(b"[REDACTED]"))
        }
    }
}

/// The length of a string with its quotes, of a number, else 1. At least 1.
fn token_length(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"') => {
            let mut position = 1;
            while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(position..).unwrap_or_default()) {
                position += found;
                if text.get(position) == Some(&b'"') {
                    return position + 1;
                }
                position = (position + 2).min(text.len());
            }
            text.len()
        }
        Some(b'-' | b'0'..=b'9') => {
            let number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
            text.iter().take_while(|b| number(b)).count()
        }
        _ => 1,
    }
}
