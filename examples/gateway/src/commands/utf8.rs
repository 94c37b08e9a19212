//! Text out of bytes that were cut anywhere.

/// Puts together characters that were cut between two pieces; what is no UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character: at most 3 bytes.
    rest: Vec<u8>,
}

impl Utf8 {
    /// The text that these bytes complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(bytes);
        let (mut text, mut left) = (String::new(), whole.as_slice());
        loop {
            let error = match std::str::from_utf8(left) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => error,
            };
            let (valid, after) = left.split_at_checked(error.valid_up_to()).unwrap_or((left, &[]));
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(wrong) = error.error_len() else {
                self.rest = after.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            left = after.get(wrong..).unwrap_or_default();
        }
    }

    /// What is left when nothing more comes.
    pub(super) fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.rest).is_empty() { "" } else { "\u{fffd}" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_whole_however_they_were_cut() {
        let text = "aé漢🦀z";
        for cut in 0..=text.len() {
            let mut utf8 = Utf8::default();
            let mut got = utf8.push(&text.as_bytes()[..cut]);
            got.push_str(&utf8.push(&text.as_bytes()[cut..]));
            assert_eq!((got.as_str(), utf8.finish()), (text, ""), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"a\xffb\xe6\xbc"), "a\u{fffd}b");
        assert_eq!(utf8.push(b"x\xf0\x9f"), "\u{fffd}x");
        assert_eq!((utf8.finish(), utf8.finish()), ("\u{fffd}", ""));
    }

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(bytes: Vec<u8>, cut: proptest::sample::Index) {
            let at = cut.index(bytes.len() + 1);
            let mut whole = Utf8::default();
            let mut expected = whole.push(&bytes);
            expected.push_str(whole.finish());
            let mut utf8 = Utf8::default();
            let mut got = utf8.push(&bytes[..at]);
            got.push_str(&utf8.push(&bytes[at..]));
            got.push_str(utf8.finish());
            proptest::prop_assert_eq!(got, expected);
        }
    }
}
