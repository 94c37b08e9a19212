//! Programs whose arguments are another command, by exact grammar. An option that is not in the grammar makes the wrapper
//! unresolved: guessing where the inner command starts would name the wrong program.

/// What a wrapper does with the rest of its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inner {
    /// The command starts at this index of the wrapper's argv. Names of variables it sets may precede it.
    Command {
        /// Index of the inner program in the wrapper's argv; equal to its length if there is none.
        at: usize,
        /// Whether variables are set, or the environment is passed in an unusual way.
        environment: bool,
    },
    /// The word at this index is shell code.
    Code(usize),
    /// The words from this index on, joined by blanks, are shell code.
    JoinedCode(usize),
    /// Only prints or checks; runs nothing else.
    Nothing,
    /// Starts a shell that reads commands or start-up files.
    Shell,
    /// Not in the grammar.
    Unknown,
}

/// The grammar of one wrapper's options.
struct Grammar {
    name: &'static str,
    /// Short options without a value, `-abc` clusters allowed.
    flags: &'static str,
    /// Short options with a value, attached or in the next word.
    values: &'static str,
    /// Short options that have a word of their own: a letter behind them would be their value.
    alone: &'static [&'static str],
    /// Long options without a value.
    long_flags: &'static [&'static str],
    /// Long options with a value, `--x=v` or in the next word.
    long_values: &'static [&'static str],
    /// Words before the command (a duration, a lock file, a root).
    operands: usize,
    /// Whether `NAME=value` words may precede the command.
    assignments: bool,
}

/// Finds what a wrapper runs. `argv` starts with the wrapper; a computed word is `None`.
pub(super) fn inner(name: &str, argv: &[Option<&str>]) -> Inner {
    match name {
        "busybox" | "toybox" => applet(argv),
        "su" => su(argv),
        "nice" => nice(argv),
        "command" if has_flag(argv, "vV") => Inner::Nothing,
        "sudo" | "doas" if has_flag(argv, "is") || has_long(argv, &["--login", "--shell"]) => Inner::Shell,
        "sudo" if has_flag(argv, "lvVkKe") && argv.len() == 2 => Inner::Nothing,
        "flock" => flock(argv),
        "watch" => watch(argv),
        // Without a command, a shell.
        _ if is_machine(name) => match command(&MACHINE, argv) {
            Inner::Command { at, .. } if at >= argv.len() => Inner::Shell,
            inner => inner,
        },
        _ => GRAMMARS.iter().find(|g| g.name == name).map_or(Inner::Unknown, |g| command(g, argv)),
    }
}

/// Whether it is another name of `setarch`, which takes no operand then.
pub(super) fn is_machine(name: &str) -> bool {
    MACHINES.contains(&name)
}

fn command(grammar: &Grammar, argv: &[Option<&str>]) -> Inner {
    let Some((mut at, _)) = options(grammar, argv) else { return Inner::Unknown };
    let mut environment = false;
    while grammar.assignments && word(argv, at).is_some_and(is_assignment) {
        environment = true;
        at += 1;
    }
    for _ in 0..grammar.operands {
        match word(argv, at) {
            // What is no time is the command to a busybox before 1.30.
            Some(time) if grammar.name == "timeout" && !is_duration(time) => return Inner::Unknown,
            Some(_) => at += 1,
            None => return Inner::Unknown,
        }
    }
    if argv.get(at) == Some(&None) {
        return Inner::Unknown;
    }
    Inner::Command { at, environment }
}

/// Walks the options; gives the index behind them and the letters seen. `None`: an option outside the grammar or a computed word.
fn options(grammar: &Grammar, argv: &[Option<&str>]) -> Option<(usize, String)> {
    let mut at = 1;
    let mut seen = String::new();
    while let Some(word) = argv.get(at) {
        let word = (*word)?;
        if word == "--" {
            return Some((at + 1, seen));
        }
        if !word.starts_with('-') || word == "-" {
            break;
        }
        at += match word.strip_prefix("--") {
            Some(_) => long(grammar, word)?,
            None if grammar.alone.contains(&word) => 1,
            None => short(grammar, word, &mut seen)?,
        };
        if at > argv.len() {
            return None;
        }
    }
    Some((at, seen))
}

/// How many words a long option takes. Abbreviations are not in the grammar.
fn long(grammar: &Grammar, word: &str) -> Option<usize> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    match value {
        None if grammar.long_flags.contains(&name) => Some(1),
        None if grammar.long_values.contains(&name) => Some(2),
        Some(_) if grammar.long_values.contains(&name) => Some(1),
        _ => None,
    }
}

/// How many words a cluster of short options takes.
fn short(grammar: &Grammar, word: &str, seen: &mut String) -> Option<usize> {
    let mut letters = word.chars().skip(1);
    while let Some(letter) = letters.next() {
        seen.push(letter);
        if grammar.values.contains(letter) {
            return Some(if letters.next().is_some() { 1 } else { 2 });
        }
        if !grammar.flags.contains(letter) {
            return None;
        }
    }
    Some(1)
}

fn applet(argv: &[Option<&str>]) -> Inner {
    match word(argv, 1) {
        None if argv.len() == 1 => Inner::Nothing,
        Some("--list" | "--help") => Inner::Nothing,
        Some(applet) if !applet.starts_with('-') => Inner::Command { at: 1, environment: false },
        _ => Inner::Unknown,
    }
}

/// `su [-l|-|-m|-p] [user] [-c text]`: with `-c` shell code, without it a shell.
fn su(argv: &[Option<&str>]) -> Inner {
    let mut at = 1;
    let mut code = None;
    let mut user = false;
    while let Some(word) = argv.get(at) {
        match *word {
            Some("-" | "-l" | "-m" | "-p" | "--login" | "--preserve-environment") => at += 1,
            Some("-c" | "--command") if code.is_none() && argv.len() > at + 1 => {
                code = Some(at + 1);
                at += 2;
            }
            Some(name) if !name.starts_with('-') && !user => {
                user = true;
                at += 1;
            }
            _ => return Inner::Unknown,
        }
    }
    code.map_or(Inner::Shell, Inner::Code)
}

/// `nice [-n N | -N | --adjustment=N] command`
fn nice(argv: &[Option<&str>]) -> Inner {
    let at = match word(argv, 1) {
        Some("-n" | "--adjustment") if word(argv, 2).is_some_and(is_number) => 3,
        Some(first) if first.strip_prefix("-n").is_some_and(is_number) => 2,
        Some(first) if first.strip_prefix("--adjustment=").is_some_and(is_number) => 2,
        Some(first) if first.strip_prefix('-').is_some_and(is_number) => 2,
        Some(first) if first.starts_with('-') => return Inner::Unknown,
        _ => 1,
    };
    found(argv, at)
}

/// `flock [options] file command…` or `flock [options] file -c text`
fn flock(argv: &[Option<&str>]) -> Inner {
    let Some((at, _)) = options(&FLOCK, argv) else { return Inner::Unknown };
    match (word(argv, at), word(argv, at + 1)) {
        (Some(_), Some("-c" | "--command")) if argv.len() == at + 3 => Inner::Code(at + 2),
        (Some(_), Some(program)) if !program.starts_with('-') => {
            Inner::Command { at: at + 1, environment: false }
        }
        _ => Inner::Unknown,
    }
}

/// `watch [options] words…` hands its words, joined, to `sh -c`; with `-x` it runs them.
fn watch(argv: &[Option<&str>]) -> Inner {
    match options(&WATCH, argv) {
        Some((at, seen)) if seen.contains('x') => found(argv, at),
        Some((at, _)) if at < argv.len() => Inner::JoinedCode(at),
        _ => Inner::Unknown,
    }
}

fn found(argv: &[Option<&str>], at: usize) -> Inner {
    match argv.get(at) {
        Some(None) => Inner::Unknown,
        _ => Inner::Command { at, environment: false },
    }
}

fn word<'a>(argv: &[Option<&'a str>], at: usize) -> Option<&'a str> {
    argv.get(at).copied().flatten()
}

/// Whether a leading option cluster holds one of these letters.
fn has_flag(argv: &[Option<&str>], letters: &str) -> bool {
    let options = argv.iter().skip(1).map_while(|w| w.filter(|w| w.starts_with('-')));
    options.filter(|w| !w.starts_with("--")).any(|w| w.contains(|c| letters.contains(c)))
}

fn has_long(argv: &[Option<&str>], names: &[&str]) -> bool {
    argv.iter().flatten().any(|w| names.contains(w))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// `10`, `0.5s`
fn is_duration(text: &str) -> bool {
    let number = text.strip_suffix(['s', 'm', 'h', 'd']).unwrap_or(text);
    number.starts_with(|c: char| c.is_ascii_digit())
        && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Whether a word is `NAME=value` with a shell name before the `=`.
pub(super) fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

const fn grammar(name: &'static str, flags: &'static str, values: &'static str) -> Grammar {
    Grammar {
        name,
        flags,
        values,
        alone: &[],
        long_flags: &[],
        long_values: &[],
        operands: 0,
        assignments: false,
    }
}

const FLOCK: Grammar = Grammar {
    long_flags: &["--shared", "--exclusive", "--unlock", "--nonblock", "--no-fork", "--close", "--verbose"],
    long_values: &["--timeout", "--wait", "--conflict-exit-code"],
    ..grammar("flock", "sexunoF", "wE")
};

/// procps `watch`: `-d` takes a value, but only in the same word.
const WATCH: Grammar = Grammar {
    alone: &["-d"],
    long_flags: &["--differences", "--no-title", "--beep", "--errexit", "--chgexit", "--color", "--precise"],
    long_values: &["--interval"],
    ..grammar("watch", "tbegcpx", "n")
};

/// GNU coreutils 9, util-linux 2.38, sudo 1.9, OpenDoas 6.8, bash 5.2.
const GRAMMARS: &[Grammar] = &[
    Grammar {
        long_flags: &["--ignore-environment", "--debug", "--null"],
        long_values: &["--unset", "--chdir"],
        assignments: true,
        ..grammar("env", "i0v", "uC")
    },
    Grammar {
        long_flags: &["--null", "--no-run-if-empty", "--verbose", "--exit"],
        long_values: &["--arg-file", "--delimiter", "--max-args", "--max-procs", "--max-chars"],
        ..grammar("xargs", "0rtx", "nPLIdsaE")
    },
    grammar("nohup", "", ""),
    grammar("ionice", "t", "cn"),
    Grammar {
        long_flags: &["--foreground", "--preserve-status", "--verbose"],
        long_values: &["--kill-after", "--signal"],
        operands: 1,
        ..grammar("timeout", "fpv", "ks")
    },
    Grammar { long_values: &["--input", "--output", "--error"], ..grammar("stdbuf", "", "ioe") },
    Grammar { long_flags: &["--ctty", "--fork", "--wait"], ..grammar("setsid", "cfw", "") },
    grammar("time", "pvqa", ""),
    grammar("command", "p", ""),
    grammar("builtin", "", ""),
    // Not `-l` and `-a`: an inner shell whose name begins with `-` reads the start-up files of a login.
    grammar("exec", "c", ""),
    Grammar {
        long_flags: &["--non-interactive", "--set-home", "--stdin", "--background", "--reset-timestamp"],
        long_values: &[
            "--user",
            "--group",
            "--prompt",
            "--close-from",
            "--command-timeout",
            "--host",
            "--chdir",
        ],
        assignments: true,
        ..grammar("sudo", "nHSbkPA", "ugpCThD")
    },
    grammar("doas", "n", "u"),
    Grammar {
        long_flags: &["--skip-chdir"],
        long_values: &["--userspec", "--groups"],
        operands: 1,
        ..grammar("chroot", "", "")
    },
    Grammar { operands: 1, ..grammar("taskset", "ac", "") },
];

/// Names of `setarch` that say which machine the command sees, and its options.
const MACHINE: Grammar = grammar("setarch", "R", "");

/// util-linux 2.38, sys-utils/setarch.c.
const MACHINES: &[&str] = &[
    "linux32",
    "linux64",
    "uname26",
    "i386",
    "i486",
    "i586",
    "i686",
    "athlon",
    "x86_64",
    "ia64",
    "alpha",
    "alphaev5",
    "alphaev56",
    "alphaev6",
    "alphaev67",
    "arm",
    "armh",
    "armv6l",
    "armv7b",
    "armv7h",
    "armv7hl",
    "armv7hnl",
    "armv7l",
    "armv8l",
    "aarch64",
    "mips",
    "mips32",
    "mips64",
    "parisc",
    "parisc32",
    "parisc64",
    "ppc",
    "ppc32",
    "ppc32le",
    "ppc64",
    "ppc64le",
    "ppcle",
    "riscv32",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc32",
    "sparc32bash",
    "sparc64",
    "loongarch64",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Inner {
        let argv: Vec<Option<&str>> = line.split(' ').map(|w| (w != "$x").then_some(w)).collect();
        inner(argv[0].unwrap(), &argv)
    }

    #[test]
    fn the_inner_command_is_found_behind_options() {
        for (line, at) in [
            ("env ls", 1),
            ("env -i -u HOME ls", 4),
            ("env -C/tmp ls", 2),
            ("nice -n 5 ls", 3),
            ("nice -19 ls", 2),
            ("nice ls", 1),
            ("timeout -k 5 10 ls", 4),
            ("timeout --signal=KILL 10s ls", 3),
            ("stdbuf -oL ls", 2),
            ("sudo -n -u root -- ls", 5),
            ("sudo ls", 1),
            ("doas -u www ls", 3),
            ("flock -n /tmp/l ls", 3),
            ("busybox ls", 1),
            ("exec -c ls", 2),
            ("chroot /srv ls", 2),
        ] {
            assert_eq!(of(line), Inner::Command { at, environment: false }, "{line}");
        }
        assert_eq!(of("env A=1 B=2 ls"), Inner::Command { at: 3, environment: true });
        assert_eq!(of("sudo A=1 ls"), Inner::Command { at: 2, environment: true });
    }

    #[test]
    fn code_and_shells_are_told_apart() {
        assert_eq!(of("su -c id"), Inner::Code(2));
        assert_eq!(of("su - root -c id"), Inner::Code(4));
        assert_eq!(of("su - root"), Inner::Shell);
        assert_eq!(of("sudo -i"), Inner::Shell);
        assert_eq!(of("sudo -su root"), Inner::Shell);
        assert_eq!(of("watch -n 1 ls -l"), Inner::JoinedCode(3));
        assert_eq!(of("watch -d -n1 ls -l"), Inner::JoinedCode(3));
        assert_eq!(of("watch -x ls -l"), Inner::Command { at: 2, environment: false });
        assert_eq!(of("flock /tmp/l -c id"), Inner::Code(3));
        assert_eq!(of("command -v ls"), Inner::Nothing);
        for line in ["linux64", "linux32 -R", "x86_64", "uname26"] {
            assert_eq!(of(line), Inner::Shell, "{line}");
        }
        assert_eq!(of("i386 -R ls"), Inner::Command { at: 2, environment: false });
    }

    #[test]
    fn unknown_options_and_computed_words_are_not_guessed() {
        for line in [
            "env -S ls",
            "env --split-string=ls",
            "env -P /x ls",
            "nice --foo ls",
            "timeout ls",
            "timeout ./evil ls",
            "timeout $x ls",
            "env $x",
            "sudo -E ls",
            "sudo $x ls",
            "su --shell /bin/x",
            "busybox $x",
            "taskset",
            "unshare ls",
            "env --uns HOME ls",
            "watch -dx ls",
            "watch -xd ls",
            "exec -a -sh sh",
            "exec -l bash",
        ] {
            assert_eq!(of(line), Inner::Unknown, "{line}");
        }
    }
}
