//! Programs that start others by rules of their own, but not in the forms listed here.

/// What such a program may be asked for.
struct Forms {
    names: &'static [&'static str],
    /// What the first word that is no option may be, exactly: some programs take beginnings, which are not listed.
    verbs: &'static [&'static str],
    /// The only options, without a value or, where they end with `=`, with one behind it.
    flags: &'static [&'static str],
    /// Further ones behind the verb, whose value may be the next word.
    valued: &'static [&'static str],
}

/// Whether `name` is one of these programs.
pub(super) fn is_known(name: &str) -> bool {
    FORMS.iter().any(|forms| forms.names.contains(&name))
}

/// Whether this invocation starts nothing but what the host's own configuration has it start. A computed word may be anything.
pub(super) fn starts_nothing(name: &str, argv: &[Option<&str>]) -> bool {
    let words: Option<Vec<&str>> = argv.iter().skip(1).copied().collect();
    let forms = FORMS.iter().find(|forms| forms.names.contains(&name));
    forms.zip(words).is_some_and(|(forms, words)| forms.hold(&words))
}

impl Forms {
    fn hold(&self, words: &[&str]) -> bool {
        let verb = words.iter().position(|word| !self.is_flag(word));
        let Some((verb, rest)) = verb.and_then(|at| words.get(at..)).and_then(<[&str]>::split_first) else {
            return words.is_empty();
        };
        let fine = |word: &&str| !word.starts_with('-') || self.is_flag(word) || self.valued.contains(word);
        self.verbs.contains(verb) && rest.iter().all(fine)
    }

    fn is_flag(&self, word: &str) -> bool {
        self.flags.iter().any(|flag| *flag == word || flag.ends_with('=') && word.starts_with(flag))
    }
}

/// Whether this applet of busybox or toybox runs nothing else. Those not listed are not known to.
pub(super) fn is_plain_applet(name: &str) -> bool {
    APPLETS.contains(&name)
}

/// dpkg 1.21, apt 2.6, systemd 252, iproute2 6.1.
const FORMS: &[Forms] = &[
    Forms {
        names: &["dpkg"],
        verbs: &[
            "-l",
            "-L",
            "-s",
            "-S",
            "-p",
            "-V",
            "-C",
            "--list",
            "--listfiles",
            "--status",
            "--search",
            "--print-avail",
            "--verify",
            "--audit",
            "--get-selections",
            "--print-architecture",
            "--print-foreign-architectures",
            "--compare-versions",
            "--version",
            "--help",
        ],
        flags: &[],
        valued: &[],
    },
    Forms {
        names: &["apt", "apt-get", "apt-cache", "apt-mark", "aptitude"],
        verbs: &[
            "list",
            "show",
            "showpkg",
            "showsrc",
            "search",
            "policy",
            "madison",
            "depends",
            "rdepends",
            "pkgnames",
            "stats",
            "showhold",
            "showauto",
            "showmanual",
            "--version",
            "--help",
        ],
        flags: &[
            "-q",
            "-qq",
            "-a",
            "-n",
            "--installed",
            "--upgradable",
            "--all-versions",
            "--names-only",
            "--full",
        ],
        valued: &[],
    },
    // What is restarted is a unit of the host's. Not `--user`: those are the account's own.
    Forms {
        names: &["systemctl"],
        verbs: &[
            "status",
            "show",
            "cat",
            "list-units",
            "list-unit-files",
            "list-timers",
            "list-sockets",
            "list-jobs",
            "list-dependencies",
            "is-active",
            "is-enabled",
            "is-failed",
            "is-system-running",
            "get-default",
            "start",
            "stop",
            "restart",
            "try-restart",
            "reload",
            "reload-or-restart",
            "reset-failed",
            "--version",
            "--help",
        ],
        flags: &[
            "-a",
            "-l",
            "-q",
            "--all",
            "--full",
            "--quiet",
            "--no-pager",
            "--no-legend",
            "--no-block",
            "--plain",
            "--failed",
            "--value",
            "--type=",
            "--state=",
            "--property=",
            "--lines=",
            "--output=",
        ],
        valued: &["-n", "-p", "-t", "-o"],
    },
    // Not `netns` and `vrf`, which run commands, `-batch`, and beginnings of any of them.
    Forms {
        names: &["ip"],
        verbs: &[
            "a",
            "addr",
            "address",
            "l",
            "link",
            "r",
            "ro",
            "route",
            "n",
            "neigh",
            "neighbor",
            "neighbour",
            "ru",
            "rule",
            "maddress",
            "mroute",
            "tunnel",
        ],
        flags: &[
            "-4",
            "-6",
            "-0",
            "-s",
            "-d",
            "-j",
            "-p",
            "-o",
            "-br",
            "-brief",
            "-stats",
            "-statistics",
            "-details",
            "-json",
            "-pretty",
            "-oneline",
            "-c",
            "-color",
            "-V",
        ],
        valued: &[],
    },
];

const APPLETS: &[&str] = &[
    "[",
    "arch",
    "base32",
    "base64",
    "basename",
    "bunzip2",
    "bzcat",
    "bzip2",
    "cal",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cksum",
    "clear",
    "cmp",
    "comm",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "dos2unix",
    "du",
    "echo",
    "egrep",
    "expand",
    "expr",
    "factor",
    "false",
    "fgrep",
    "fold",
    "free",
    "grep",
    "groups",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "hostid",
    "hostname",
    "id",
    "install",
    "kill",
    "killall",
    "link",
    "ln",
    "logger",
    "logname",
    "ls",
    "lsof",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mv",
    "netstat",
    "nl",
    "nproc",
    "od",
    "paste",
    "pgrep",
    "pidof",
    "pkill",
    "printenv",
    "printf",
    "ps",
    "pstree",
    "pwd",
    "readlink",
    "realpath",
    "rev",
    "rm",
    "rmdir",
    "seq",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "shred",
    "shuf",
    "sleep",
    "sort",
    "split",
    "stat",
    "strings",
    "stty",
    "sum",
    "sync",
    "tac",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "truncate",
    "tty",
    "uname",
    "unexpand",
    "uniq",
    "unix2dos",
    "unlink",
    "unxz",
    "uptime",
    "usleep",
    "wc",
    "who",
    "whoami",
    "xxd",
    "xz",
    "xzcat",
    "yes",
    "zcat",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(line: &str) -> bool {
        let argv: Vec<Option<&str>> = line.split(' ').map(|w| (w != "$x").then_some(w)).collect();
        starts_nothing(argv[0].unwrap(), &argv)
    }

    #[test]
    fn forms_that_read_or_have_the_host_restart_its_own() {
        for line in [
            "dpkg -l",
            "dpkg -S /bin/ls",
            "apt list --installed",
            "apt-cache policy bash",
            "systemctl",
            "systemctl status nginx",
            "systemctl --no-pager -l status nginx",
            "systemctl show -p ActiveState --value nginx",
            "systemctl restart nginx",
            "ip a",
            "ip -br addr show dev eth0",
        ] {
            assert!(plain(line), "{line}");
        }
    }

    #[test]
    fn all_others_may_start_anything() {
        for line in [
            "dpkg -i x.deb",
            "dpkg --status-logger=id --configure -a",
            "dpkg -l --status-logger=id",
            "apt-get install ./x.deb",
            "apt-get -qo A::B=x update",
            "apt-cache -o Dir::Bin::dpkg=/w/x policy",
            "systemctl -H host status",
            "systemctl enable --now /w/x.service",
            "systemctl edit nginx",
            "systemctl -p status edit nginx",
            "systemctl --user start x",
            "systemctl $x nginx",
            "ip netns exec n id",
            "ip netn exec n id",
            "ip --batch f",
            "ip -b f",
            "ip -br -b f",
            "ip addr -batch f",
        ] {
            assert!(!plain(line), "{line}");
        }
    }
}
