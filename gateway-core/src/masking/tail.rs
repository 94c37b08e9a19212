//! The open end of values that have no length limit: swallowed byte by byte, in constant memory.

use regex_automata::util::primitives::StateID;

/// What may follow the fixed head of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tail {
    /// Nothing.
    None,
    /// All bytes for which the test holds.
    While(fn(u8) -> bool),
    /// Up to the closing quote; a backslash takes the next byte along.
    Quoted(u8),
    /// Up to the end marker of a PEM block (RFC 7468), or a byte that no such block has.
    Pem,
}

/// A tail under way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Live {
    While(fn(u8) -> bool),
    Quoted {
        quote: u8,
        escaped: bool,
    },
    Pem(Pem),
    /// A custom rule's own automaton, as long as it lives.
    Automaton {
        group: usize,
        state: StateID,
    },
}

/// Progress through a PEM body: bytes of the end marker seen, then bytes since it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pem {
    marker: usize,
    since: usize,
    dashes: usize,
}

/// Whether the value goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Take,
    TakeAndEnd,
    End,
}

const END_MARKER: &[u8] = b"-----END";
/// Longest text between `-----END` and the closing dashes, in bytes.
const MAX_LABEL: usize = 64;

impl Tail {
    /// Begins after a head whose last byte is `last`.
    pub(super) fn begin(self, last: u8) -> Option<Live> {
        match self {
            Self::None => None,
            Self::While(test) => Some(Live::While(test)),
            Self::Quoted(quote) => Some(Live::Quoted { quote, escaped: last == b'\\' }),
            Self::Pem => Some(Live::Pem(Pem::default())),
        }
    }
}

impl Live {
    /// Judges one byte; automata are stepped by their group instead.
    pub(super) fn step(&mut self, byte: u8) -> Step {
        match self {
            Self::While(test) => go_on(test(byte)),
            Self::Quoted { quote, escaped } => {
                let closes = byte == *quote && !*escaped || byte == b'\n' || byte == 0;
                *escaped = byte == b'\\' && !*escaped;
                go_on(!closes)
            }
            Self::Pem(pem) => pem.step(byte),
            Self::Automaton { .. } => Step::End,
        }
    }
}

fn go_on(yes: bool) -> Step {
    if yes { Step::Take } else { Step::End }
}

impl Pem {
    fn step(&mut self, byte: u8) -> Step {
        if b"\"'`{}[];<\0".contains(&byte) {
            return Step::End;
        }
        if self.marker < END_MARKER.len() { self.seek(byte) } else { self.close(byte) }
    }

    fn seek(&mut self, byte: u8) -> Step {
        self.marker = match byte {
            b if END_MARKER.get(self.marker) == Some(&b) => self.marker + 1,
            // A sixth dash still leaves five before it.
            b'-' if self.marker == 5 => 5,
            b'-' => 1,
            _ => 0,
        };
        Step::Take
    }

    fn close(&mut self, byte: u8) -> Step {
        self.since += 1;
        self.dashes = if byte == b'-' { self.dashes + 1 } else { 0 };
        if self.dashes == 5 || self.since > MAX_LABEL { Step::TakeAndEnd } else { Step::Take }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(tail: Tail, text: &str) -> usize {
        let mut live = tail.begin(b'x').unwrap();
        for (i, byte) in text.bytes().enumerate() {
            match live.step(byte) {
                Step::Take => {}
                Step::TakeAndEnd => return i + 1,
                Step::End => return i,
            }
        }
        text.len()
    }

    #[test]
    fn a_quoted_value_ends_at_its_quote() {
        assert_eq!(length(Tail::Quoted(b'"'), r#"a\"b\\" c"#), 6);
        assert_eq!(length(Tail::Quoted(b'"'), "abc\ndef"), 3);
    }

    #[test]
    fn a_pem_block_ends_after_its_marker() {
        let body = "MIIB\nAAAA==\n------END RSA PRIVATE KEY-----";
        assert_eq!(length(Tail::Pem, &format!("{body} and more")), body.len());
        assert_eq!(length(Tail::Pem, "MIIB\\nAA\", \"x\""), 8);
    }
}
