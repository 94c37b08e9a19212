//! What is known about programs by name: which run code, start other programs, or offer a shell.
//!
//! These tables add facts and take certainty away; a program that is not in them is *not* thereby harmless. Only a rule that
//! names programs, or better exact arguments, is a wall.

mod table;

use self::table::TABLE;
use super::{forms, wrappers};

/// The last component of a path.
pub(super) fn basename(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// How a program treats its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Reads POSIX shell code: `-c TEXT`, a script, or its input.
    Shell,
    /// A shell of another dialect.
    OtherShell,
    /// Runs code of a language that is not analysed.
    Interpreter,
    /// awk: its text may run commands.
    Awk,
    /// sed: its text may run commands or write files.
    Sed,
    /// `find`.
    Find,
    /// `xargs`.
    Xargs,
    /// `tar`.
    Tar,
    /// `git`.
    Git,
    /// `rsync`.
    Rsync,
    /// Runs its arguments as shell code in the same shell: `eval`, `trap`.
    Eval,
    /// Runs a file in the same shell: `.`, `source`.
    Source,
    /// Changes the shell's own state.
    State,
    /// Starts programs by rules of its own (build tools, containers, schedulers, database clients, editors).
    Launcher,
    /// Connects to other hosts and runs or moves things there.
    Remote,
    /// Does what it is told over its input, which nobody judges unless it is recognised as a whole.
    Server,
    /// Offers a shell escape to a person at its terminal.
    Pager,
    /// Starts other programs but in some forms, see [`super::forms`].
    Manager,
    /// A wrapper with an exact grammar, see [`super::wrappers`].
    Wrapper,
    /// Nothing special known.
    Plain,
}

/// Classifies a program by the last component of its path.
pub(super) fn classify(name: &str) -> Class {
    if forms::is_known(name) {
        return Class::Manager;
    }
    if wrappers::is_machine(name) {
        return Class::Wrapper;
    }
    listed(name).unwrap_or_else(|| named_after(name))
}

fn listed(name: &str) -> Option<Class> {
    let stem = without_version(name);
    let found = TABLE.iter().find(|(_, names)| names.contains(&name) || names.contains(&stem));
    found.map(|(class, _)| *class)
}

/// Many builds are called by what they are a form of: `mksh-static`, `vim.tiny`, `perl5.36-x86_64-linux-gnu`, `ld-musl-x86_64.so.1`.
fn named_after(name: &str) -> Class {
    match name.split_once(['.', '-']).and_then(|(first, _)| listed(first)) {
        Some(
            class @ (Class::Shell
            | Class::OtherShell
            | Class::Interpreter
            | Class::Awk
            | Class::Sed
            | Class::Launcher),
        ) => class,
        Some(Class::Git) => Class::Launcher,
        _ if STARTERS.iter().any(|starter| name.starts_with(starter)) && name != "dpkg-query" => {
            Class::Launcher
        }
        // Compilers for another machine: `x86_64-linux-gnu-gcc-12`, `x86_64-linux-gnu-ld.bfd`.
        _ => {
            match without_version(name).rsplit_once('-').and_then(|(_, last)| listed(last.split('.').next()?))
            {
                Some(Class::Launcher | Class::Interpreter) => Class::Launcher,
                _ => Class::Plain,
            }
        }
    }
}

/// Families of programs most of which start others.
const STARTERS: &[&str] = &["apt-", "dpkg-", "update-", "deb-", "grub-"];

/// Whether it keeps running after the session.
pub(super) fn is_detaching(name: &str) -> bool {
    DETACHING.contains(&name)
}

/// Whether an interpreter with this one word tells about itself and no more. Others, like `tclsh`, hand it to the code they read.
pub(super) fn only_tells(name: &str, word: &str) -> bool {
    let name = without_version(name);
    match word {
        "--version" | "--help" => {
            ["python", "pypy", "perl", "ruby", "node", "nodejs", "php", "java"].contains(&name)
        }
        "-V" => ["python", "pypy", "perl"].contains(&name),
        _ => false,
    }
}

/// Whether a builtin of a shell may evaluate what it is given: a word of its own, or one that is computed.
pub(super) fn evaluates(name: &str, argv: &[Option<&str>]) -> bool {
    let words = argv.get(1..).unwrap_or_default();
    if words.iter().any(|word| word.map_or_else(|| is_evaluating(name), |word| is_evaluated(name, word))) {
        return true;
    }
    // mksh takes a name for the expression that is its value.
    let compares = |word: &Option<&str>| matches!(word, Some("-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge"));
    matches!(name, "test" | "[")
        && words.iter().enumerate().filter(|(_, word)| compares(word)).any(|(at, _)| {
            let sides = [at.checked_sub(1), Some(at + 1)];
            sides
                .iter()
                .flatten()
                .any(|side| words.get(*side).copied().flatten().is_none_or(|word| !is_number(word)))
        })
}

fn is_evaluating(name: &str) -> bool {
    matches!(name, "printf" | "test" | "[") || BUILTINS.contains(&name)
}

fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a shell evaluates this quoted word all the same: `printf -v 'a[$(id)]'` and `test -v 'a[$(id)]'` of bash run the command
/// in the subscript; ksh and zsh evaluate numbers that their builtins are given.
fn is_evaluated(name: &str, word: &str) -> bool {
    let names_a_variable = match name {
        "printf" => word.starts_with("-v"),
        "test" | "[" => matches!(word, "-v" | "-R"),
        _ if BUILTINS.contains(&name) => false,
        _ => return false,
    };
    names_a_variable || (word.contains('[') && word.contains(['$', '`']))
}

/// Builtins of shells that take numbers, those in the class [`Class::State`] aside.
const BUILTINS: &[&str] = &["break", "continue", "exit", "kill", "print", "return", "sleep"];

/// Whether it runs with other rights.
pub(super) fn is_privileged(name: &str) -> bool {
    PRIVILEGED.contains(&name)
}

/// Whether it opens network connections.
pub(super) fn is_network(name: &str) -> bool {
    NETWORK.contains(&name) || classify(name) == Class::Remote
}

/// `python3.11` is `python`, `perl5.36.0` is `perl`.
fn without_version(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'))
}

const DETACHING: &[&str] = &[
    "nohup",
    "setsid",
    "at",
    "batch",
    "crontab",
    "systemd-run",
    "screen",
    "tmux",
    "daemonize",
    "daemon",
    "disown",
    "start-stop-daemon",
    "byobu",
    "dtach",
    "abduco",
    "zellij",
];

const PRIVILEGED: &[&str] = &[
    "sudo",
    "su",
    "doas",
    "pkexec",
    "runuser",
    "sudoedit",
    "gosu",
    "su-exec",
    "setpriv",
    "capsh",
    "sg",
    "newgrp",
    "machinectl",
    "run0",
    "dzdo",
    "pfexec",
];

const NETWORK: &[&str] = &[
    "nc",
    "ncat",
    "netcat",
    "socat",
    "curl",
    "wget",
    "aria2c",
    "ftp",
    "tftp",
    "lftp",
    "telnet",
    "nmap",
    "openssl",
    "dig",
    "nslookup",
    "host",
    "smbclient",
    "rclone",
    "mail",
    "sendmail",
    "nsenter",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_paths_do_not_hide_a_program() {
        assert_eq!(classify(basename("/usr/bin/python3.11")), Class::Interpreter);
        assert_eq!(classify("perl5.36.0"), Class::Interpreter);
        assert_eq!(classify("ksh93"), Class::Shell);
        assert_eq!(classify("ls"), Class::Plain);
        for (name, class) in [
            ("perl5.36-x86_64-linux-gnu", Class::Interpreter),
            ("python3.11-dbg", Class::Interpreter),
            ("mksh-static", Class::Shell),
            ("bash-static", Class::Shell),
            ("bsd-csh", Class::OtherShell),
            ("vim.tiny", Class::Launcher),
            ("ld-linux-aarch64.so.1", Class::Launcher),
            ("ld-musl-x86_64.so.1", Class::Launcher),
            ("x86_64-linux-gnu-gcc-12", Class::Launcher),
            ("x86_64-linux-gnu-ld.bfd", Class::Launcher),
            ("llvm-nm-14", Class::Launcher),
            ("rmksh", Class::Shell),
            ("gcc-nm", Class::Launcher),
            ("clang++-15", Class::Launcher),
            ("dpkg-architecture", Class::Launcher),
            ("dpkg-query", Class::Plain),
            ("apt-ftparchive", Class::Launcher),
            ("x86_64", Class::Wrapper),
            ("git-grep", Class::Launcher),
            ("git-upload-pack", Class::Server),
            ("apt-get", Class::Manager),
            ("ssh-keygen", Class::Plain),
            ("sha256sum", Class::Plain),
        ] {
            assert_eq!(classify(name), class, "{name}");
        }
    }

    #[test]
    fn interpreters_that_do_not_know_an_option_are_not_trusted_with_it() {
        for (name, word) in [("python3.11", "--version"), ("perl", "-V"), ("node", "--help")] {
            assert!(only_tells(name, word), "{name} {word}");
        }
        for (name, word) in
            [("tclsh8.6", "--version"), ("erl", "-V"), ("php", "-V"), ("wish", "--help"), ("python", "-h")]
        {
            assert!(!only_tells(name, word), "{name} {word}");
        }
    }

    #[test]
    fn builtins_that_evaluate() {
        let evaluates = |line: &str| {
            let argv: Vec<Option<&str>> = line.split(' ').map(|w| (w != "$x").then_some(w)).collect();
            evaluates(argv[0].unwrap(), &argv)
        };
        for line in
            ["test LC_X -eq 1", "[ 1 -lt LC_X ]", "test $x = y", "exit $x", "printf $x", "test 1 -eq a[0]"]
        {
            assert!(evaluates(line), "{line}");
        }
        for line in ["test -f x", "[ 1 -eq -2 ]", "test a = b", "echo $x", "printf %s x", "ls -eq"] {
            assert!(!evaluates(line), "{line}");
        }
    }

    #[test]
    fn no_program_is_listed_twice() {
        let mut all: Vec<&str> = TABLE.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let length = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), length);
    }
}
