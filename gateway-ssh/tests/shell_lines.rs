//! Benign and hostile lines with exactly what is to be said about each: `shell/lines.jsonl`, one object a line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use gateway_ssh::shell::Analysis;
use serde::{Deserialize, Serialize};

/// One line and its expected classification. Sets are sorted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Case {
    line: String,
    /// `exact`: strict grammar; `literal`: has a canonical form; `opaque`: neither.
    form: String,
    programs: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    writes: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    risks: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    unresolved: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

fn classify(line: &str) -> Case {
    let analysis = Analysis::of(line.as_bytes());
    let form = match (&analysis.argv, &analysis.canonical) {
        (Some(_), _) => "exact",
        (None, Some(_)) => "literal",
        (None, None) => "opaque",
    };
    Case {
        line: line.to_owned(),
        form: form.to_owned(),
        programs: analysis.names(),
        writes: analysis.writes(),
        risks: analysis.risks.iter().map(|risk| risk.as_str().to_owned()).collect(),
        unresolved: analysis.reasons().iter().map(|reason| reason.as_str().to_owned()).collect(),
        server: analysis.server.as_ref().map(|server| server.name().to_owned()),
    }
}

#[test]
fn every_line_is_classified_exactly() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (number, text) in include_str!("shell/lines.jsonl").lines().enumerate() {
        let expected: Case =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("line {}: {e}", number + 1));
        let got = classify(&expected.line);
        count += 1;
        if got != expected {
            wrong.push(serde_json::to_string(&got).unwrap());
        }
    }
    assert!(count >= 150, "{count} lines");
    assert!(wrong.is_empty(), "classified otherwise:\n{}", wrong.join("\n"));
}

/// A resolved line names whatever it runs or writes: `EVIL` stands for that in the hostile lines.
#[test]
fn nothing_hostile_hides_in_a_resolved_line() {
    for text in include_str!("shell/lines.jsonl").lines() {
        let case: Case = serde_json::from_str(text).unwrap();
        let named = case.programs.iter().any(|program| program.contains("EVIL"));
        let shown = named || !case.writes.is_empty() || !case.unresolved.is_empty();
        assert!(shown || !case.line.contains("EVIL"), "{}", case.line);
    }
}
