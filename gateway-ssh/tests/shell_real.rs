//! What the gateway believes about a line against what real shells do with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};

use gateway_ssh::shell::{Analysis, Word, simple};
use proptest::prelude::*;

/// Shells that a login may have, with what makes them read no start-up files. The first two must be there.
const SHELLS: &[(&str, &[&str])] = &[
    ("dash", &["-c"]),
    ("bash", &["--norc", "--noprofile", "-c"]),
    ("sh", &["-c"]),
    ("zsh", &["-f", "-c"]),
    ("ksh93", &["-c"]),
    ("mksh", &["-c"]),
    ("busybox", &["sh", "-c"]),
    ("fish", &["--no-config", "-c"]),
    ("tcsh", &["-f", "-c"]),
];
const REQUIRED: usize = 2;

/// What `line` prints in a shell; `None` if the shell is not installed.
fn run(shell: &str, options: &[&str], line: &str, home: &std::path::Path) -> Option<Vec<u8>> {
    let output = Command::new(shell)
        .args(options)
        .arg(line)
        .current_dir(home)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    Some(output.stdout)
}

/// The argv joined as `printf '%s\0'` prints it.
fn printed(argv: &[String]) -> Vec<u8> {
    argv.iter().flat_map(|word| word.bytes().chain([0])).collect()
}

fn every_shell(count: usize, line: &str, expected: &[u8]) {
    let home = tempfile::tempdir().unwrap();
    for (index, (shell, options)) in SHELLS.iter().take(count).enumerate() {
        match run(shell, options, line, home.path()) {
            Some(output) => assert_eq!(output, expected, "{shell}: {line}"),
            None => assert!(index >= REQUIRED, "`{shell}` is needed for this test: install it"),
        }
    }
}

/// A word of any printable characters, the dangerous ones often.
fn word() -> impl Strategy<Value = String> {
    let special = prop::sample::select(r#" '"\!$`*?[]{}~#;&|<>()^=%@-+,.:/_"#.chars().collect::<Vec<_>>());
    let character = prop_oneof![2 => special, 1 => (b' '..=b'~').prop_map(char::from)];
    prop::collection::vec(character, 0..12).prop_map(String::from_iter)
}

/// A line that is often, not always, in the strict grammar.
fn strict_line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[A-Za-z0-9_@%+=:,./-]{1,6}",
        "'[ -&(-~]{0,8}'",
        r#""[ #%-\[\]^_a-~]{0,8}""#,
        " {1,2}",
        r#"[!#$&'()*;<>?\[\\\]^`{|}~]"#,
    ];
    let weighted = prop::collection::vec(piece, 1..8);
    weighted.prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn canonical_words_arrive_unchanged_in_every_shell(words in prop::collection::vec(word(), 1..5)) {
        let mut argv = vec!["printf".to_owned(), "%s\\0".to_owned()];
        argv.extend(words.clone());
        let line = simple::canonical(&argv).unwrap();
        every_shell(SHELLS.len(), &line, &printed(&words));
    }

    #[test]
    fn canonical_words_with_newlines_arrive_in_posix_shells(words in prop::collection::vec("[ -~\t\n]{0,8}", 1..4)) {
        let mut argv = vec!["printf".to_owned(), "%s\\0".to_owned()];
        argv.extend(words.clone());
        let line = simple::canonical(&argv).unwrap();
        every_shell(7, &line, &printed(&words));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn the_strict_grammar_reads_as_shells_do(rest in strict_line()) {
        let line = format!("x {rest}");
        let argv = simple::parse(line.as_bytes());
        prop_assume!(argv.is_some());
        let argv = argv.unwrap();
        let set = format!("set -- {line}; printf '%s\\0' \"$@\"");
        every_shell(7, &set, &printed(&argv));
    }
}

/// Code that only prints, made of what has a canonical form.
fn printing_code() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z0-9.,:/_@%+-]{1,5}",
        "'[ -&(-~]{0,6}'",
        r#""[ #%-\[\]^_a-~]{0,6}""#,
        r#""a\\\$b\\\\c\\"d""#,
        r"a\\[ $'*;&|<>(){}~#!]b",
        "''",
        "a=b",
        "\\{\\}",
        "\\[",
    ];
    let command = prop_oneof![
        5 => prop::collection::vec(word, 0..4).prop_map(|words| format!("printf '%s,' {}", words.join(" "))),
        1 => Just("true".to_owned()),
        1 => Just("false".to_owned()),
        1 => Just("cat".to_owned()),
    ];
    let tail = prop_oneof![
        3 => Just(""),
        1 => Just(" >out"),
        1 => Just(" 2>&1"),
        1 => Just(" >>'out'; cat out"),
        1 => Just(" <in"),
        1 => Just(" 2>/dev/null >&2"),
        1 => Just(" # comment"),
    ];
    let leaf = (command, tail).prop_map(|(command, tail)| command + tail);
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}\n{b}")),
            (inner.clone(), "(&&|\\|\\||;)", inner.clone())
                .prop_map(|(a, op, b)| format!("{{ {a}\n}} {op} {b}")),
            // One side only writes: what two wrote at once would differ from run to run.
            inner.clone().prop_map(|a| format!("{{ {a}\n}} | cat | tr a b")),
            inner.clone().prop_map(|a| format!("( {a}\n)")),
            inner.clone().prop_map(|a| format!("! {{ {a}\n}}")),
            inner.clone().prop_map(|a| format!("sh -c '{}'", a.replace('\'', "'\\''"))),
            inner.prop_map(|a| format!("eval '{}'", a.replace('\'', "'\\''"))),
        ]
    })
}

/// What a line prints and leaves behind, in a fresh directory.
fn effect(shell: &str, options: &[&str], line: &str) -> (Vec<u8>, Vec<u8>) {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("in"), "input").unwrap();
    let printed = run(shell, options, line, home.path()).unwrap();
    (printed, std::fs::read(home.path().join("out")).unwrap_or_default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn the_canonical_form_does_what_the_line_does(line in printing_code()) {
        let analysis = Analysis::of(line.as_bytes());
        let canonical = analysis.canonical.clone();
        prop_assert!(canonical.is_some(), "{line:?}: {:?}", analysis.unresolved);
        let canonical = canonical.unwrap();
        for (shell, options) in SHELLS.iter().take(REQUIRED) {
            prop_assert_eq!(effect(shell, options, &line), effect(shell, options, &canonical), "{} {}", line, canonical);
        }
    }

    #[test]
    fn the_canonical_form_is_read_as_the_same_commands(line in printing_code()) {
        let first = Analysis::of(line.as_bytes());
        let canonical = first.canonical.clone().unwrap();
        // The parser takes `( (` for `((`, an arithmetic command: unresolved, which is the safe mistake.
        prop_assume!(!canonical.contains("( ("));
        let again = Analysis::of(canonical.as_bytes());
        prop_assert_eq!(&again.canonical, &first.canonical);
        prop_assert_eq!(again.names(), first.names());
        prop_assert_eq!(again.files, first.files);
    }
}

proptest! {
    #[test]
    fn anything_is_analysed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let analysis = Analysis::of(&bytes);
        prop_assert!(analysis.canonical.is_some() || !analysis.resolved());
    }

    #[test]
    fn shell_like_soup_is_analysed_without_panic(pieces in prop::collection::vec(
        prop::sample::select(vec!["a", " ", "'", "\"", "\\", "$", "`", "(", ")", "{", "}", "[", "]", "<", ">", "|", "&", ";", "\n", "#",
            "=", "!", "if ", "then ", "fi", "case ", "in ", "esac", "do ", "done", "for ", "<<E\n", "E\n", "$'", "2>&1", "~", "*",
            "sh -c ", "eval ", "env ", "find . -exec ", "xargs ", "9", "\u{e4}", "\0", "\r"]), 0..30)) {
        let line = pieces.concat();
        let analysis = Analysis::of(line.as_bytes());
        prop_assert!(analysis.canonical.is_some() || !analysis.resolved());
        prop_assert!(analysis.argv.is_none() || analysis.canonical.is_some());
        if analysis.resolved() {
            let literal = analysis.commands.iter().all(|c| c.argv.iter().all(|w| matches!(w, Word::Static(_))));
            prop_assert!(literal, "{line:?}");
        }
    }
}
