//! Cut, spliced and mangled text never panics, and what is accepted still says where its statements are.

use gateway_pg::analysis::{
    AnalysisCache, LexSettings, Limits, analyse, analyse_bytes, fingerprint, limit, mask_literals, normalise,
};
use proptest::prelude::*;

use crate::corpus::{cases, settings};

fn texts() -> Vec<String> {
    cases().into_iter().map(|case| case.sql).collect()
}

/// A case of the corpus with a few bytes cut out, put in, or replaced by a piece of another case.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let texts = texts();
    let piece = proptest::sample::select(vec![
        "(",
        ")",
        "'",
        "\"",
        "$$",
        "/*",
        "*/",
        "--",
        "\n",
        ";",
        ",",
        "\\",
        "$1",
        "*",
        ".",
        "::",
        "select ",
        " from ",
        " where ",
        "with a as (",
        "\u{e9}",
        "\0",
        "e'",
        "u&'",
        "1_0",
        "case ",
        " end",
        "[",
        "]",
    ]);
    let edits = proptest::collection::vec((any::<proptest::sample::Index>(), 0usize..12, piece), 0..4);
    (proptest::sample::select(texts.clone()), proptest::sample::select(texts), any::<bool>(), edits).prop_map(
        |(mut text, other, join, edits)| {
            if join {
                text.push(' ');
                text.push_str(&other);
            }
            let mut bytes = text.into_bytes();
            for (at, cut, piece) in edits {
                let at = at.index(bytes.len() + 1);
                let end = (at + cut).min(bytes.len());
                bytes.splice(at..end, piece.bytes());
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn mangled_text_never_panics(bytes in mangled(), conforming in any::<bool>(), quote in any::<bool>()) {
        let settings = LexSettings { standard_conforming_strings: conforming, backslash_quote: quote, ..settings() };
        if let Ok(analysis) = analyse_bytes(&bytes, &settings, &Limits::default()) {
            let mut end = 0;
            for statement in &analysis.statements {
                prop_assert!(statement.range.start >= end && statement.range.end <= bytes.len());
                prop_assert!(!statement.range.is_empty());
                end = statement.range.end;
            }
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = limit(text, 10, &settings, &Limits::default());
            let _ = mask_literals(text, &settings, &Limits::default());
            let _ = normalise(text, &settings, &Limits::default());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = analyse_bytes(&bytes, &settings(), &Limits::default());
    }
}

#[test]
fn every_prefix_of_the_corpus_is_answered() {
    for text in texts() {
        for (end, _) in text.char_indices().step_by(7) {
            let _ = analyse(&text[..end], &settings(), &Limits::default());
        }
    }
}

#[test]
fn the_cache_answers_as_the_analysis_does() {
    let cache = AnalysisCache::default();
    for text in texts() {
        for _ in 0..2 {
            let direct = analyse(&text, &settings(), &Limits::default());
            let cached = cache.analyse(text.as_bytes(), &settings()).map(|found| found.to_analysis());
            assert_eq!(direct, cached, "{text}");
        }
    }
}

#[test]
fn masked_and_normal_texts_do_not_keep_strings() {
    for text in texts() {
        let Ok(normal) = normalise(&text, &settings(), &Limits::default()) else { continue };
        assert!(!normal.contains('\'') || normal.contains('"'), "{text}: {normal}");
        if analyse(&text, &settings(), &Limits::default()).is_ok() {
            assert!(fingerprint(&text, &settings(), &Limits::default()).is_ok(), "{text}");
        }
    }
}
