//! Byte tests shared by triggers, rules and validators.

/// How far back any left-hand test looks, in bytes: escapes, terminal sequences, e-mail names, keywords.
pub(super) const LOOK_BEHIND: usize = 64;

/// A letter, a digit or `_`, as `\w` in ASCII.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `byte` can stand in the part of an e-mail address before the `@` (RFC 5321 and 6531, the usual subset).
pub(super) fn is_local_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte) || !byte.is_ascii()
}

/// Where the run of e-mail name bytes before `at` begins: at most 64 bytes back (RFC 5321 section 4.5.3.1.1), not
/// before `low`, on a character boundary.
pub(super) fn local_part_start(text: &[u8], low: usize, at: usize) -> usize {
    let window = text.get(low.max(at.saturating_sub(64))..at).unwrap_or_default();
    let run = window.iter().rev().take_while(|b| is_local_part(**b)).count();
    let start = at - run;
    let cut = text.get(start..at).unwrap_or_default().iter().take_while(|b| **b & 0xC0 == 0x80).count();
    if start > low { start + cut } else { start }
}

/// Whether a word may begin at `at`: after a byte that is no word byte, or after an escape that only looks like one.
///
/// `\n` in JSON, `%3D` in URLs and `ESC [31m` in terminal output end in a letter or digit and would hide a key from `\b`.
pub(super) fn word_can_start(text: &[u8], low: usize, at: usize) -> bool {
    let before = text.get(low.max(at.saturating_sub(LOOK_BEHIND))..at).unwrap_or_default();
    match before.last() {
        Some(last) if is_word(*last) => ends_in_escape(before),
        _ => true,
    }
}

fn ends_in_escape(before: &[u8]) -> bool {
    let hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    match before {
        [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f' | b'v'] => true,
        [.., b'%', a, b] if hex(&[*a, *b]) => true,
        [.., b'\\', b'u', a, b, c, d] if hex(&[*a, *b, *c, *d]) => true,
        [.., b'\\', b'x', a, b] if hex(&[*a, *b]) => true,
        [rest @ .., b'A'..=b'Z' | b'a'..=b'z'] => ends_in_control_sequence(rest),
        _ => false,
    }
}

/// Whether `before`, a final letter removed, ends in `ESC [` and parameters (ECMA-48 section 5.4), raw or escaped.
fn ends_in_control_sequence(before: &[u8]) -> bool {
    let parameters =
        before.iter().rev().take(16).take_while(|b| b.is_ascii_digit() || b";:?".contains(b)).count();
    let head = before.get(..before.len() - parameters).unwrap_or_default();
    [&b"\x1b["[..], b"x1b[", b"x1B[", b"u001b[", b"u001B[", b"\\033[", b"\\e["]
        .iter()
        .any(|i| head.ends_with(i))
}

/// How many different bytes there are in `bytes`.
pub(super) fn distinct(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    bytes.iter().for_each(|b| {
        if let Some(slot) = seen.get_mut(usize::from(*b)) {
            *slot = true;
        }
    });
    seen.iter().filter(|s| **s).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_do_not_hide_what_follows() {
        for open in ["", " ", "\\n", "%3D", "\x1b[31m", "\x1b[1;31m", "\\u0022", "\\u001b[0m", "=", "é"] {
            assert!(word_can_start(open.as_bytes(), 0, open.len()), "{open:?}");
        }
        for closed in ["a", "_", "n", "3D", "[31m", "9"] {
            assert!(!word_can_start(closed.as_bytes(), 0, closed.len()), "{closed:?}");
        }
    }

    #[test]
    fn a_record_start_is_a_boundary() {
        assert!(word_can_start(b"abc", 2, 2));
    }

    #[test]
    fn local_parts_are_bounded_and_whole_characters() {
        assert_eq!(local_part_start("x josé@".as_bytes(), 0, 7), 2);
        assert_eq!(local_part_start(&[b'a'; 100], 0, 100), 36);
        let text = "aé".repeat(40);
        assert!(text.is_char_boundary(local_part_start(text.as_bytes(), 0, text.len())));
    }
}
