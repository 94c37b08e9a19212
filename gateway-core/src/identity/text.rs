//! Limits on texts that come out of tokens and certificates.

use crate::text::is_deceptive;

/// Longest subject, in bytes: room for a SPIFFE ID (2048); OpenID Connect's own limit is 255.
pub(super) const MAX_SUBJECT_BYTES: usize = 2048;
/// Longest group, task, plan or further claim, in bytes: names, not documents.
#[cfg(feature = "oidc")]
pub(super) const MAX_CLAIM_BYTES: usize = 1024;

/// True if `text` may stand as a name in policies, logs and records: not empty, at most `max_bytes`, and without
/// control characters or invisible direction marks, which would let one name look like another or forge a log line. For the same reason
/// the only blank (Unicode's `Zs`) is the space, and none stands at either end.
pub(super) fn is_name(text: &str, max_bytes: usize) -> bool {
    !text.is_empty()
        && text.len() <= max_bytes
        && text.trim() == text
        && !text.chars().any(|c| is_deceptive(c) || (c.is_whitespace() && c != ' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(is_name("repo:acme/app:ref:refs/heads/main", 64));
        assert!(is_name("Zoë", 4));
        for bad in [
            "",
            "12345",
            "a\n",
            "a\0",
            "a\u{202e}",
            "\u{200b}",
            "a ",
            " a",
            "a\u{a0}b",
            "\u{3000}",
            "\u{1d173}",
        ] {
            assert!(!is_name(bad, 4), "{bad:?}");
        }
    }
}
