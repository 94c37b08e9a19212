//! Texts to be masked: whole, in pieces, as cells.

use std::sync::{Arc, OnceLock};

use gateway_core::masking::{ClassSet, RuleSet, Scanner, StreamMasker};

use super::{Target, outcome};

pub const TARGET: Target = Target {
    name: "masking",
    run,
    words: &[
        b"4111 1111 1111 1111",
        b"DE89 3704 0044 0532 0130 00",
        b"a@example.com",
        b"password=",
        b"-----BEGIN PRIVATE KEY-----",
        b"-----END PRIVATE KEY-----",
        b"AKIAIOSFODNN7EXAMPLE",
        b"ghp_",
        b"eyJhbGciOiJIUzI1NiJ9.",
        b"://u:p@",
        b"192.168.0.1",
        b"::1",
        b"\x1b[31m",
        b"\\n",
        b"+49 30 1234567",
        b"[REDACTED:EMAIL]",
        b"536-22-8726",
        b"'",
        b"\"",
    ],
};

fn run(input: &[u8]) -> u64 {
    static SCANNER: OnceLock<Arc<Scanner>> = OnceLock::new();
    let scanner =
        SCANNER.get_or_init(|| Arc::new(Scanner::new(RuleSet::builtin()).expect("the built-in rules")));
    let (cut, text) = input.split_first().map_or((0, input), |(cut, text)| (usize::from(*cut), text));
    let skip = ClassSet::default();
    let mut whole = Vec::new();
    let found = scanner.mask_into(text, &skip, &mut whole);
    let mut pieces = Vec::new();
    let mut stream = StreamMasker::new(Arc::clone(scanner), skip);
    for piece in text.chunks(cut.max(1)) {
        stream.push(piece, &mut pieces);
    }
    stream.finish(&mut pieces);
    assert!(whole == pieces, "pieces of {} bytes are masked otherwise", cut.max(1));
    let mut findings = Vec::new();
    scanner.find(text, &skip, &mut findings);
    let classes: Vec<_> = findings
        .iter()
        .take(4)
        .map(|f| format!("{f:?}").chars().filter(|c| !c.is_ascii_digit()).collect::<String>())
        .collect();
    outcome((found.min(4), classes, whole.len() == text.len()))
}
