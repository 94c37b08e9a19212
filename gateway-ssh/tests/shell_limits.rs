//! The parser behind the analysis recurses and retries; the limits in front of it must hold whatever comes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use gateway_ssh::shell::{Analysis, MAX_LINE_BYTES};

/// Far more than any line takes in an unoptimised build on a busy machine; exponential work takes hours.
const PATIENCE: Duration = Duration::from_secs(120);

/// What nests: an opening and a closing part.
const NESTS: &[(&str, &str)] = &[
    ("{ ", "; }"),
    ("( ", " )"),
    ("((", "))"),
    ("$(", ")"),
    ("$((", "))"),
    ("${x:-", "}"),
    ("`", "`"),
    ("\"$(", ")\""),
    ("<(", ")"),
    ("cat <(", ")"),
    ("if x; then ", "; fi"),
    ("while x; do ", "; done"),
    ("for i in a; do ", "; done"),
    ("for ((;;)) do ", "; done"),
    ("case x in a) ", ";; esac"),
    ("case x in a) ", "\nesac"),
    ("f() { ", "; }"),
    ("function f { ", "; }"),
    ("coproc { ", "; }"),
    ("coproc x { ", "; }"),
    ("[[ ( ", " ) ]]"),
    ("! ", ""),
    ("time ", ""),
    ("a[", "]=1"),
    ("a=(", ")"),
    ("$[", "]"),
    ("{a,", "}"),
    ("@(", ")"),
    ("a[$((", "))]=x"),
    ("x=$(($((", "))))"),
    ("sh -c '", "'"),
    ("eval ", ""),
    ("env ", ""),
    ("sudo ", ""),
    ("busybox ", ""),
    ("find . -exec ", " ;"),
    ("xargs ", ""),
    ("cat <<E\n", "\nE\n"),
    ("$(cat <<E\n", "\nE\n)"),
    ("\"", "\""),
    ("\\", ""),
    ("~", ""),
    ("> ", ""),
    ("<<", ""),
    ("a | ", ""),
    ("a && ", ""),
    ("a;", ""),
    ("&", ""),
];

fn in_time(line: &str) {
    let start = Instant::now();
    let analysis = Analysis::of(line.as_bytes());
    assert!(start.elapsed() < PATIENCE, "{} bytes: {:?}", line.len(), line.get(..60));
    assert!(analysis.canonical.is_some() || !analysis.resolved());
}

#[test]
fn nesting_of_any_kind_is_cheap_and_bounded() {
    for (open, close) in NESTS {
        for depth in [1, 2, 3, 5, 8, 12, 16, 20, 24, 30, 40, 60, 64, 65, 100, 1000, 5000] {
            let line = format!("{}x{}", open.repeat(depth), close.repeat(depth));
            in_time(&line);
            in_time(&open.repeat(depth));
            in_time(&format!("{}x", open.repeat(depth)));
            in_time(&format!("{}x{}", open.repeat(depth), close.repeat(depth.saturating_sub(1))));
        }
    }
}

#[test]
fn mixtures_of_nesting_are_cheap_and_bounded() {
    for (a, (open_a, close_a)) in NESTS.iter().enumerate() {
        for (open_b, close_b) in NESTS.iter().skip(a + 1) {
            for depth in [3, 12, 30] {
                let open = format!("{open_a}{open_b}").repeat(depth);
                in_time(&open);
                in_time(&format!("{open}x{}", format!("{close_b}{close_a}").repeat(depth)));
            }
        }
    }
}

/// What a stack overflow does cannot be caught: the process would end here.
#[test]
fn long_tests_do_not_fill_the_stack() {
    for line in [
        format!("[[ {}x ]]", "! ".repeat(8000)),
        format!("[[ {}a ]]", "a&&".repeat(8000)),
        format!("[[ {}a ]]", "a || ".repeat(6000)),
        format!("if {}[[ {}x ]]; then y; fi", "x; ".repeat(10), "! ".repeat(8000)),
        format!("{}x", "! ".repeat(16_000)),
        format!("x | {}y", "! ".repeat(8000)),
    ] {
        let analysis = Analysis::of(line.as_bytes());
        assert!(!analysis.resolved(), "{:?}", line.get(..60));
    }
}

#[test]
fn odd_numbers_and_long_lines_do_not_stop_it() {
    for line in [
        "99999999999999999999>x",
        "x 99999999999999999999<y",
        "2147483648>x",
        "~99999999999999999999999",
        "{1..99999999999999999999}",
    ] {
        in_time(line);
    }
    for part in ["a ", "a;", "'a' ", "a|", "a\n", "$x ", "\"", "a=b ", "# "] {
        in_time(&part.repeat(MAX_LINE_BYTES / part.len()));
        in_time(&part.repeat(1 + MAX_LINE_BYTES / part.len()));
    }
}
