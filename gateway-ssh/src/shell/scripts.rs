//! Small languages inside arguments: which awk, sed and git invocations only read and print.

/// Whether an awk invocation only computes and prints: no command, pipe, file, loaded code or indirect call in its text.
pub(super) fn awk_is_plain(argv: &[Option<&str>]) -> bool {
    let mut at = 1;
    loop {
        match argv.get(at).copied().flatten() {
            Some("--") => return argv.get(at + 1).copied().flatten().is_some_and(is_plain_awk_text),
            Some("-F" | "-v") => at += 2,
            Some(word) if word.starts_with("-F") || word.starts_with("-v") => at += 1,
            Some(word) if word.starts_with('-') => return false,
            Some(text) => return is_plain_awk_text(text),
            None => return false,
        }
    }
}

/// XCU awk: `system(`, `|`, `>`, `getline` are the ways out; gawk adds `@load`, `@include`, `@indirect()` and `|&`.
fn is_plain_awk_text(text: &str) -> bool {
    !text.contains(['|', '>', '@', '\\']) && !text.contains("system") && !text.contains("getline")
}

/// Whether a sed invocation only edits text, and whether it writes the files it names (`-i`).
pub(super) fn sed(argv: &[Option<&str>]) -> (bool, bool) {
    let mut scripts = Vec::new();
    let mut in_place = false;
    let mut explicit = false;
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        match *word {
            Some("-e" | "--expression") => {
                explicit = true;
                at += 1;
                scripts.push(argv.get(at).copied().flatten());
            }
            Some(
                "-n" | "-E" | "-r" | "-u" | "-z" | "-s" | "-nE" | "-nr" | "-En" | "-rn" | "--quiet"
                | "--posix",
            ) => {}
            Some(word) if word.starts_with("-i") || word.starts_with("--in-place") => in_place = true,
            Some(word) if word.starts_with('-') && word.len() > 1 => return (false, in_place),
            _ if !explicit => {
                explicit = true;
                scripts.push(*word);
            }
            _ => {}
        }
        at += 1;
    }
    let plain = !scripts.is_empty() && scripts.into_iter().all(|script| script.is_some_and(is_plain_sed));
    (plain, in_place)
}

/// A list of `[address[,address]][!]command`, separated by `;`: print, delete, quit and substitute only.
fn is_plain_sed(script: &str) -> bool {
    script.split(';').all(|command| is_plain_sed_command(command.trim()))
}

fn is_plain_sed_command(command: &str) -> bool {
    let Some(rest) = behind_address(command) else { return false };
    let rest = rest.trim_start().trim_start_matches('!').trim_start();
    match rest.strip_prefix('s') {
        Some(rest) => is_plain_substitution(rest),
        None => {
            matches!(rest, "" | "p" | "d" | "q" | "n" | "N" | "g" | "G" | "h" | "H" | "x" | "D" | "P" | "=")
        }
    }
}

/// What follows `1`, `$`, `1,5`, `/re/` or `/a/,/b/`.
fn behind_address(command: &str) -> Option<&str> {
    let rest = behind_one_address(command)?;
    rest.strip_prefix(',').map_or(Some(rest), behind_one_address)
}

fn behind_one_address(command: &str) -> Option<&str> {
    if let Some(rest) = command.strip_prefix('/') {
        return behind_delimiter(rest, '/');
    }
    let rest = command.trim_start_matches(|c: char| c.is_ascii_digit());
    Some(rest.strip_prefix('$').unwrap_or(rest))
}

/// `/re/text/flags`: without the flags `e` (runs the result) and `w` (writes a file).
fn is_plain_substitution(rest: &str) -> bool {
    let Some(delimiter) = rest.chars().next().filter(|c| matches!(c, '/' | '|' | '#' | ',' | '@' | ':'))
    else {
        return false;
    };
    let flags = rest
        .get(1..)
        .and_then(|rest| behind_delimiter(rest, delimiter))
        .and_then(|rest| behind_delimiter(rest, delimiter));
    flags.is_some_and(|flags| flags.chars().all(|c| matches!(c, 'g' | 'p' | 'i' | 'I' | '0'..='9')))
}

/// Behind the next delimiter. A bracket expression may hide one from sed but not from this search: not plain.
fn behind_delimiter(text: &str, delimiter: char) -> Option<&str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()?),
            '[' | '\n' => return None,
            _ if c == delimiter => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

/// What a git invocation does. Even reading commands obey the repository's own configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Git {
    /// Reads the repository.
    Reads,
    /// Talks to a remote.
    Connects,
    /// An option names a command to run, or configuration that can.
    RunsCode,
    /// Changes the repository (hooks run), or is an alias or an external command.
    Other,
}

/// Classifies a git invocation.
pub(super) fn git(argv: &[Option<&str>]) -> Git {
    let mut at = 1;
    let subcommand = loop {
        match argv.get(at).copied().flatten() {
            Some("--no-pager" | "--no-replace-objects" | "--literal-pathspecs" | "--no-optional-locks") => {
                at += 1
            }
            Some("-C") => at += 2,
            Some("--version" | "--help" | "version") => return Git::Reads,
            Some(word) if word.starts_with('-') => return Git::RunsCode,
            Some(word) => break word,
            None => return if argv.len() == 1 { Git::Reads } else { Git::Other },
        }
    };
    let rest = argv.get(at + 1..).unwrap_or_default();
    if rest.iter().flatten().any(|word| is_git_command_option(word)) {
        return Git::RunsCode;
    }
    match subcommand {
        "status" | "log" | "diff" | "show" | "rev-parse" | "rev-list" | "ls-files" | "ls-tree"
        | "cat-file" | "describe" | "blame" | "shortlog" | "merge-base" | "name-rev" | "diff-tree"
        | "for-each-ref" | "grep" | "show-ref" | "count-objects" | "whatchanged" => Git::Reads,
        "fetch" | "pull" | "push" | "clone" | "ls-remote" | "remote" | "submodule" | "send-email" => {
            Git::Connects
        }
        _ => Git::Other,
    }
}

/// Options of subcommands that run a command or write a file; git takes unambiguous beginnings.
fn is_git_command_option(word: &str) -> bool {
    const LONG: &[&str] = &[
        "--ext-diff",
        "--textconv",
        "--open-files-in-pager",
        "--upload-pack",
        "--receive-pack",
        "--exec",
        "--output",
        "--extcmd",
        "--tool",
        "--config",
        "--template",
        "--paginate",
        "--filters",
    ];
    let given = word.split_once('=').map_or(word, |(name, _)| name);
    let long =
        given.len() > 2 && given.starts_with("--") && LONG.iter().any(|option| option.starts_with(given));
    // `git grep -nOprogram` runs a pager; `-O` may stand behind other letters.
    let pager = word.starts_with('-') && !word.starts_with("--") && word.contains('O');
    long || pager || word == "-x" || word == "-u" || word == "-c" || word.contains("ext::")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&'static str]) -> Vec<Option<&'static str>> {
        words.iter().copied().map(Some).collect()
    }

    #[test]
    fn plain_awk_prints() {
        for text in ["{print $1}", "NR==2", "/x/ {n++} END {print n}"] {
            assert!(awk_is_plain(&argv(&["awk", "-F:", text, "/etc/passwd"])), "{text}");
        }
        for text in [
            "BEGIN{system(\"id\")}",
            "{print | \"sh\"}",
            "{print > \"/x\"}",
            "{\"id\"|getline x}",
            "@load \"x\"",
            "BEGIN{f=\"sy\" \"stem\"; @f(\"id\")}",
        ] {
            assert!(!awk_is_plain(&argv(&["awk", text])), "{text}");
        }
        assert!(!awk_is_plain(&argv(&["awk", "-f", "x"])));
        assert!(!awk_is_plain(&[Some("awk"), None]));
    }

    #[test]
    fn plain_sed_edits() {
        for text in
            ["1,10p", "$p", "/error/p", "s/a/b/g", "s|a|b|;p", "5q", "/a/,/b/d", "/x/!d", "s/a\\/b/c/"]
        {
            assert_eq!(sed(&argv(&["sed", "-n", text, "f"])), (true, false), "{text}");
        }
        for text in [
            "1e id",
            "e",
            "s/a/id/e",
            "w /etc/x",
            "s/a/b/w /etc/x",
            "r /etc/shadow",
            "1!e id",
            "s/[/]/x/;e id/",
            "s/a/b/ge",
            "s,a,b,w/x",
            "y/a/b/",
            "a\\\ntext",
            "$!{e id\n}",
            "s/a/b/;1e",
            "/a/e id",
            "1~2e id",
        ] {
            assert!(!sed(&argv(&["sed", text])).0, "{text}");
        }
        assert_eq!(sed(&argv(&["sed", "-i.bak", "s/a/b/", "f"])), (true, true));
        assert!(!sed(&argv(&["sed", "-f", "x"])).0);
        assert!(!sed(&argv(&["sed", "-e", "p", "-e", "e id"])).0);
    }

    #[test]
    fn git_reads_connects_or_runs_code() {
        assert_eq!(git(&argv(&["git", "status"])), Git::Reads);
        assert_eq!(git(&argv(&["git", "-C", "/r", "--no-pager", "log", "-1"])), Git::Reads);
        assert_eq!(git(&argv(&["git", "-c", "core.pager=id", "log"])), Git::RunsCode);
        assert_eq!(git(&argv(&["git", "--exec-path=/x", "log"])), Git::RunsCode);
        assert_eq!(git(&argv(&["git", "grep", "-Oid", "x"])), Git::RunsCode);
        assert_eq!(git(&argv(&["git", "diff", "--ext", "x"])), Git::RunsCode);
        assert_eq!(git(&argv(&["git", "fetch"])), Git::Connects);
        assert_eq!(git(&argv(&["git", "evil"])), Git::Other);
    }
}
