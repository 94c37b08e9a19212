//! The scanner against copying the same bytes, and against one regular expression.

use std::ops::Range;
use std::sync::Arc;

use gateway_core::masking::{ClassSet, RuleSet, Scanner, StreamMasker};
use regex_automata::meta::Regex;

use crate::corpus::{self, Corpus};
use crate::report::Report;
use crate::sample::nanoseconds;
use crate::{Result, Size};

/// What adapters read at once.
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) fn run(size: Size, report: &mut Report) -> Result<()> {
    let scanner = Arc::new(Scanner::new(RuleSet::builtin())?);
    let regex = Regex::new(&ALTERNATION.map(|pattern| format!("(?:{pattern})")).join("|"))?;
    for corpus in corpus::all(size.pick(4 << 20, 32 << 20)) {
        one(size, report, &corpus, &scanner, &regex)?;
    }
    Ok(())
}

fn one(
    size: Size,
    report: &mut Report,
    corpus: &Corpus,
    scanner: &Arc<Scanner>,
    regex: &Regex,
) -> Result<()> {
    let text = corpus.text.as_slice();
    let chunks = chunks(text);
    let skip = ClassSet::default();
    let mut out = Vec::with_capacity(2 * text.len());
    let found: usize = chunks.iter().map(|chunk| scanner.mask_into(chunk, &skip, &mut out)).sum();
    if found < corpus.planted {
        return Err(format!("{}: {found} of {} values were masked", corpus.name, corpus.planted).into());
    }
    let case = format!("scan: {}", corpus.name);
    report.add(&case, "scanner", "values masked", found as f64, "values");
    report.add(&case, "planted", "values masked", corpus.planted as f64, "values");
    let mut add = |subject: &str, nanoseconds: f64| {
        report.add(&case, subject, "speed", text.len() as f64 / nanoseconds, "GB/s");
    };
    add("memcpy", nanoseconds(size, || out_of(&mut out, |out| out.extend_from_slice(text))));
    add("regex", nanoseconds(size, || regex.find_iter(text).count()));
    let mask = |out: &mut Vec<u8>| {
        chunks.iter().for_each(|chunk| {
            scanner.mask_into(chunk, &skip, out);
        })
    };
    add("scanner", nanoseconds(size, || out_of(&mut out, mask)));
    let cells: Vec<Vec<Range<usize>>> = chunks.iter().map(|chunk| cells(chunk)).collect();
    let mut findings = Vec::new();
    add(
        "scanner, cells",
        nanoseconds(size, || {
            findings.clear();
            let both = chunks.iter().zip(&cells);
            both.filter(|(chunk, cells)| scanner.find_cells(chunk, cells, &skip, &mut findings).is_ok())
                .count()
        }),
    );
    let mut stream = StreamMasker::new(Arc::clone(scanner), skip);
    add(
        "scanner, stream",
        nanoseconds(size, || {
            out_of(&mut out, |out| text.chunks(CHUNK_BYTES).for_each(|chunk| stream.push(chunk, out)))
        }),
    );
    Ok(())
}

fn out_of(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) -> usize {
    out.clear();
    fill(out);
    out.len()
}

/// Whole rows, as many as fit into [`CHUNK_BYTES`].
fn chunks(text: &[u8]) -> Vec<&[u8]> {
    let mut rest = text;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let window = rest.get(..CHUNK_BYTES).unwrap_or(rest);
        let end = memchr::memrchr(b'\n', window).map_or(window.len(), |newline| newline + 1);
        let (chunk, after) = rest.split_at(end);
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

fn cells(chunk: &[u8]) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut cells = Vec::new();
    for end in memchr::memchr2_iter(b'\t', b'\n', chunk) {
        cells.push(start..end);
        start = end + 1;
    }
    cells
}

/// The classes of the built-in rules as one would write them down at first: what the scanner is compared with.
const ALTERNATION: [&str; 20] = [
    r"(?-u)[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    r"(?-u)\b(?:\d[ -]?){12,18}\d\b",
    r"(?-u)\b\d{3}-\d{2}-\d{4}\b",
    r"(?-u)(?:\+?1[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}\b",
    r"(?-u)\+\d{8,15}\b",
    r"(?-u)\b[A-Z]{2}\d{2}[ ]?(?:[A-Z0-9]{4}[ ]?){2,7}[A-Z0-9]{1,4}\b",
    r"(?-u)\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b",
    r"(?-u)\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b",
    r"(?-u)eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",
    r"(?-u)\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    r"(?-u)\bgh[pousr]_[A-Za-z0-9]{36}\b",
    r"(?-u)github_pat_[A-Za-z0-9_]{82}",
    r"(?-u)glpat-[A-Za-z0-9_-]{20}",
    r"(?-u)xox[abprs]-[A-Za-z0-9-]{10,}",
    r"(?-u)\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"(?-u)AIza[A-Za-z0-9_-]{35}",
    r"(?-u)-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r#"(?i-u)\b(?:password|passwd|pwd|secret|api_?key|token)["']?\s*[:=]\s*["']?[a-z0-9!#$%&()*+./<>?@^_~-]{4,}"#,
    r"(?-u)[a-z][a-z0-9+.-]*://[a-z0-9._~%+-]+:[a-z0-9._~%+-]+@",
    r"(?i-u)bearer\s+[A-Za-z0-9._~+/=-]{16,}",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_rows_and_cells_leave_nothing_out() {
        let corpus = &corpus::all(300_000)[1];
        let chunks = chunks(&corpus.text);
        assert_eq!(chunks.concat(), corpus.text);
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES && chunk.ends_with(b"\n")));
        let inside: usize = chunks.iter().flat_map(|chunk| cells(chunk)).map(|cell| cell.len() + 1).sum();
        assert_eq!(inside, corpus.text.len());
    }
}
