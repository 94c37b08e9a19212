//! The C parser keeps its state per thread: many threads get the same answers as one.

use gateway_pg::analysis::{AnalysisCache, Limits, analyse};

use crate::corpus::{cases, settings};

#[test]
fn threads_agree() {
    let texts: Vec<String> = cases().into_iter().map(|case| case.sql).collect();
    let expected: Vec<_> = texts.iter().map(|text| analyse(text, &settings(), &Limits::default())).collect();
    let cache = AnalysisCache::default();
    std::thread::scope(|scope| {
        for start in 0..8 {
            let (texts, expected, cache) = (&texts, &expected, &cache);
            scope.spawn(move || {
                for offset in 0..texts.len() {
                    let index = (start * 31 + offset) % texts.len();
                    let found =
                        cache.analyse(texts[index].as_bytes(), &settings()).map(|found| found.to_analysis());
                    assert_eq!(found, expected[index], "{}", texts[index]);
                }
            });
        }
    });
}
