//! The labelled corpus: recall and false findings per class, and agreement of every way to scan it.

#![allow(clippy::unwrap_used, reason = "a broken corpus must fail the tests")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use gateway_core::masking::{CellFinding, ClassSet, Finding, RuleSet, Scanner, StreamMasker};
use proptest::prelude::*;

const POSITIVES: &str = include_str!("masking/positives.tsv");
const NEGATIVES: &str = include_str!("masking/negatives.txt");

/// Key prefixes, in parts, so that no file holds what looks like a live key.
const PREFIXES: &[(&str, &str, &str)] = &[
    ("{akia}", "AK", "IA"),
    ("{asia}", "AS", "IA"),
    ("{ghpat}", "github", "_pat_"),
    ("{ghp}", "gh", "p_"),
    ("{gho}", "gh", "o_"),
    ("{ghu}", "gh", "u_"),
    ("{ghs}", "gh", "s_"),
    ("{ghr}", "gh", "r_"),
    ("{glpat}", "gl", "pat-"),
    ("{xoxb}", "xo", "xb-"),
    ("{xoxp}", "xo", "xp-"),
    ("{sklive}", "sk", "_live_"),
    ("{rklive}", "rk", "_live_"),
    ("{sktest}", "sk", "_test_"),
    ("{aiza}", "AI", "za"),
    ("{gocspx}", "GOC", "SPX-"),
    ("{skproj}", "sk", "-proj-"),
    ("{skant}", "sk", "-ant-"),
    ("{pembegin}", "-----BE", "GIN"),
];

struct Sample {
    class: String,
    text: Vec<u8>,
    span: Range<usize>,
}

fn expand(line: &str) -> String {
    let text = line.replace('␤', "\n").replace('␛', "\x1b");
    PREFIXES.iter().fold(text, |text, (name, a, b)| text.replace(name, &format!("{a}{b}")))
}

fn lines(file: &str) -> impl Iterator<Item = &str> {
    file.lines().filter(|line| !line.is_empty() && !line.starts_with("# "))
}

fn positives() -> Vec<Sample> {
    let parse = |line: &str| {
        let (class, text) = line.split_once('\t').unwrap();
        let text = expand(text);
        let (before, rest) = text.split_once('«').unwrap();
        let (value, after) = rest.split_once('»').unwrap();
        let span = before.len()..before.len() + value.len();
        Sample { class: class.to_owned(), text: [before, value, after].concat().into_bytes(), span }
    };
    lines(POSITIVES).map(parse).collect()
}

fn texts() -> Vec<Vec<u8>> {
    let negatives = lines(NEGATIVES).map(|line| expand(line).into_bytes());
    positives().into_iter().map(|sample| sample.text).chain(negatives).collect()
}

fn scanner() -> Arc<Scanner> {
    static SCANNER: std::sync::OnceLock<Arc<Scanner>> = std::sync::OnceLock::new();
    Arc::clone(SCANNER.get_or_init(|| Arc::new(Scanner::new(RuleSet::builtin()).unwrap())))
}

fn find(text: &[u8]) -> Vec<Finding> {
    let mut out = Vec::new();
    scanner().find(text, &ClassSet::default(), &mut out);
    out
}

fn mask(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    scanner().mask_into(text, &ClassSet::default(), &mut out);
    out
}

fn stream<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut masker = StreamMasker::new(scanner(), ClassSet::default());
    let mut out = Vec::new();
    for part in parts {
        masker.push(part, &mut out);
        assert!(masker.held() < 1200, "holds back {} bytes", masker.held());
    }
    masker.finish(&mut out);
    out
}

#[derive(Default)]
struct Score {
    samples: usize,
    covered: usize,
    false_in_positives: usize,
    false_in_negatives: usize,
}

fn show(text: &[u8]) -> String {
    text.escape_ascii().to_string()
}

fn score() -> BTreeMap<String, Score> {
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    for sample in positives() {
        let found = find(&sample.text);
        let covers = |f: &Finding| f.range.start <= sample.span.start && f.range.end >= sample.span.end;
        let covered = found.iter().any(covers);
        if !covered {
            println!("missed {}: {} found {found:?}", sample.class, show(&sample.text));
        }
        let touches = |f: &Finding| f.range.start < sample.span.end && f.range.end > sample.span.start;
        for finding in found.iter().filter(|f| !touches(f)) {
            println!("false {}: {}", finding.class, show(&sample.text));
            scores.entry(finding.class.name().to_owned()).or_default().false_in_positives += 1;
        }
        let score = scores.entry(sample.class).or_default();
        score.samples += 1;
        score.covered += usize::from(covered);
    }
    for line in lines(NEGATIVES) {
        for finding in find(expand(line).as_bytes()) {
            println!("false {}: {line}", finding.class);
            scores.entry(finding.class.name().to_owned()).or_default().false_in_negatives += 1;
        }
    }
    scores
}

#[test]
fn every_class_is_found_and_little_else() {
    let scores = score();
    println!(
        "| Class | Samples | Found | False, {} samples | False, {} clean lines |",
        positives().len(),
        lines(NEGATIVES).count()
    );
    for (class, s) in &scores {
        println!(
            "| {class} | {} | {} | {} | {} |",
            s.samples, s.covered, s.false_in_positives, s.false_in_negatives
        );
    }
    for (class, s) in &scores {
        assert!(s.samples >= 12, "{class} has only {} samples", s.samples);
        assert_eq!(s.covered, s.samples, "{class}");
        assert!(s.false_in_positives + s.false_in_negatives <= 1, "{class}");
    }
}

#[test]
fn masked_text_has_nothing_to_mask_and_no_value_left() {
    for sample in positives() {
        let masked = mask(&sample.text);
        assert_eq!(show(&mask(&masked)), show(&masked));
        if sample.class != "payment_card" {
            let value = &sample.text[sample.span.clone()];
            assert!(!masked.windows(value.len()).any(|w| w == value), "{}", show(&masked));
        }
    }
}

#[test]
fn a_stream_cut_anywhere_gives_what_the_whole_gives() {
    // Every cut of every text in optimised builds; without optimisation every 13th, a different one for each text.
    let step = if cfg!(debug_assertions) { 13 } else { 1 };
    for (i, text) in texts().into_iter().enumerate() {
        let whole = mask(&text);
        for cut in (i % step..=text.len()).step_by(step) {
            let (left, right) = text.split_at(cut);
            assert_eq!(show(&stream([left, right])), show(&whole), "cut at {cut}");
        }
        assert_eq!(show(&stream(text.chunks(1))), show(&whole), "byte by byte");
    }
}

#[test]
fn a_long_stream_cut_at_packet_sizes_gives_what_the_whole_gives() {
    let all = texts().join(&b"\n"[..]);
    let whole = mask(&all);
    for size in [1, 2, 3, 7, 16, 61, 333, 1460, 4096, 70_000] {
        assert!(stream(all.chunks(size)) == whole, "chunks of {size}");
    }
}

#[test]
fn cells_are_scanned_as_if_alone() {
    let texts = texts();
    // Row headers whose length bytes look like digits, letters and `@`.
    let headers: [&[u8]; 4] = [b"\0\0\0\x34", b"", b"\0\0\0@", b"akia"];
    let mut buffer = Vec::new();
    let mut cells = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        buffer.extend_from_slice(headers[i % 4]);
        cells.push(buffer.len()..buffer.len() + text.len());
        buffer.extend_from_slice(text);
    }
    let mut found = Vec::new();
    scanner().find_cells(&buffer, &cells, &ClassSet::default(), &mut found).unwrap();
    let mut expected = Vec::new();
    for (cell, text) in texts.iter().enumerate() {
        let low = cells[cell].start;
        expected.extend(find(text).into_iter().map(|Finding { range, class, mixed }| CellFinding {
            cell,
            range: range.start + low..range.end + low,
            class,
            mixed,
        }));
    }
    assert_eq!(found, expected);
}

#[test]
fn clean_text_is_not_copied() {
    let texts: Vec<String> = lines(NEGATIVES).map(expand).map(|text| text.to_string()).collect();
    let untouched = |text: &&String| scanner().mask(text.as_bytes(), &ClassSet::default()).is_none();
    let clean = texts.iter().filter(untouched).count();
    assert_eq!(clean, texts.iter().filter(|text| find(text.as_bytes()).is_empty()).count());
    assert!(
        clean * 100 >= texts.len() * 99,
        "{clean} of {} lines without a value are left as they are",
        texts.len()
    );
}

/// Pieces of values, so that random joins make near misses, overlaps and nested values.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<String> = [
        "password=",
        "\"",
        "'",
        ": ",
        "token",
        "\\",
        "\\n",
        "@",
        "a.b",
        "example.com",
        ".",
        "-",
        " ",
        "4111",
        "1111",
        "+1 ",
        "415",
        "555",
        "0132",
        "2001:db8",
        "::",
        ":",
        "1",
        "://u:",
        "bearer ",
        "eyJhbGciOiJIUzI1NiJ9.",
        "GB82WEST",
        "12345698765432",
        "\n",
        "{akia}",
        "ABCDEFGHIJKLMNOP",
        "{pembegin} PRIVATE KEY-----",
        "-----END",
        "-----",
        "[REDACTED:",
        "\u{1b}[31m",
        "é",
        "{ghp}",
    ]
    .iter()
    .map(|p| expand(p))
    .collect();
    prop_oneof![
        6 => prop::sample::select(pieces).prop_map(String::into_bytes),
        1 => prop::sample::select(texts()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
        1 => (prop::sample::select(&b"a1@.- =/"[..]), 1..700usize).prop_map(|(b, n)| vec![b; n]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn streams_of_random_pieces_cut_at_random_agree(
        pieces in prop::collection::vec(fragment(), 1..24),
        cuts in prop::collection::vec(1..200usize, 1..20),
    ) {
        let text = pieces.concat();
        let mut parts = Vec::new();
        let mut rest = text.as_slice();
        for size in cuts.iter().cycle() {
            let (part, tail) = rest.split_at(rest.len().min(*size));
            parts.push(part);
            rest = tail;
            if rest.is_empty() { break; }
        }
        prop_assert_eq!(show(&stream(parts)), show(&mask(&text)));
    }
}

#[test]
fn the_worst_input_costs_a_bounded_number_of_steps_for_each_byte() {
    let size = 1 << 16;
    let patterns = [
        "1",
        "1 ",
        "1-",
        "1.",
        "4111 ",
        "4111-1111-1111-1111-",
        "123-45-",
        "+1",
        "(415) 555-",
        "1.2.3.4.",
        "a@",
        "a@a.aa@",
        "@",
        ":",
        "::",
        "a:",
        "1:2:",
        "AKIA",
        "{akia}ABCDEFGHIJKLMNOP",
        "eyJ",
        " eyJ",
        "eyJhbGciOiJIUzI1NiJ9.",
        "password=",
        "password=a ",
        "password=\"",
        "password='\\",
        "token token ",
        "-----BEGIN ",
        "{pembegin} PRIVATE KEY-----",
        "-----END",
        "://",
        "://a:",
        "://a:a@",
        "bearer ",
        "GB82WEST",
        "GB82 ",
        "a",
        "é",
        "sk-",
        "{ghp}",
        "xoxb-",
        "basic ",
    ];
    for pattern in patterns {
        let text = expand(pattern).repeat(size / pattern.len());
        let steps = scanner().verification_steps(text.as_bytes(), &ClassSet::default());
        let ratio = steps as f64 / text.len() as f64;
        println!("{pattern:30} {ratio:.2}");
        assert!(ratio < 16.0, "{pattern}: {ratio} steps for each byte");
    }
}
