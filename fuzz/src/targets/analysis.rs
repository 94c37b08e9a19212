//! Statements.

use std::sync::OnceLock;

use gateway_pg::analysis::{AnalysisCache, CacheLimits, LexSettings, Limits, analyse, limit, mask_literals};

use super::{Target, kind, outcome};

pub const TARGET: Target = Target {
    name: "analysis",
    run,
    words: &[
        b"SELECT ",
        b"'",
        b"\"",
        b"$$",
        b"$a$",
        b"E'\\",
        b"U&'",
        b"--",
        b"/*",
        b"*/",
        b";",
        b"(",
        b")",
        b"WITH x AS (",
        b" RETURNING *",
        b"COPY ",
        b" TO STDOUT",
        b"::",
        b" UNION ",
        b"\xc3\xa9",
        b"0x1F",
        b"1_000",
        b" INTO ",
        b"EXPLAIN ANALYZE ",
    ],
};

fn run(input: &[u8]) -> u64 {
    static CACHE: OnceLock<AnalysisCache> = OnceLock::new();
    let cache = CACHE.get_or_init(|| AnalysisCache::new(CacheLimits::default(), Limits::default()));
    let (settings, limits) = (LexSettings::default(), Limits::default());
    let cached = cache.analyse(input, &settings).map(|_| ()).map_err(|e| e.to_string());
    let Ok(text) = std::str::from_utf8(input) else {
        assert!(cached.is_err(), "bytes that are no text were understood");
        return outcome("no text");
    };
    let fresh = analyse(text, &settings, &limits);
    assert_eq!(
        cached,
        fresh.as_ref().map(|_| ()).map_err(ToString::to_string),
        "the cache says something else"
    );
    let Ok(analysis) = fresh else {
        return outcome(fresh.map(|_| ()).map_err(|e| kind(&e)));
    };
    for statement in &analysis.statements {
        assert!(text.get(statement.range.clone()).is_some(), "a statement lies outside its text");
    }
    let masked = mask_literals(text, &settings, &limits).expect("what is understood can be recorded");
    let again = analyse(&masked, &settings, &limits).map(|a| a.statements.len());
    let limited = limit(text, 10, &settings, &limits).is_ok();
    let kinds: Vec<_> = analysis
        .statements
        .iter()
        .take(4)
        .map(|s| (s.kind.to_string(), s.read_only(), s.relations.len().min(3), s.functions.len().min(3)))
        .collect();
    outcome((kinds, again.map_err(|e| kind(&e)), limited))
}
