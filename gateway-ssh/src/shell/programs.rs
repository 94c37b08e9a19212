//! What is known about programs by name: which run code, start other programs, or offer a shell.
//!
//! These tables add facts and take certainty away; a program that is not in them is *not* thereby harmless. Only a rule that
//! names programs, or better exact arguments, is a wall.

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
    /// A wrapper with an exact grammar, see [`super::wrappers`].
    Wrapper,
    /// Nothing special known.
    Plain,
}

/// Classifies a program by the last component of its path.
pub(super) fn classify(name: &str) -> Class {
    let stem = without_version(name);
    TABLE
        .iter()
        .find(|(_, names)| names.contains(&name) || names.contains(&stem))
        .map_or(Class::Plain, |(class, _)| *class)
}

/// Whether it keeps running after the session.
pub(super) fn is_detaching(name: &str) -> bool {
    DETACHING.contains(&name)
}

/// Whether a shell evaluates this quoted word all the same: `printf -v 'a[$(id)]'` and `test -v 'a[$(id)]'` of bash run the command
/// in the subscript; ksh and zsh evaluate numbers that `printf` and `test` are given.
pub(super) fn is_evaluated(name: &str, word: &str) -> bool {
    let names_a_variable = match name {
        "printf" => word.starts_with("-v"),
        "test" | "[" => matches!(word, "-v" | "-R"),
        _ => return false,
    };
    names_a_variable || (word.contains('[') && word.contains(['$', '`']))
}

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

/// Whether an option of `name` hands it a command to run. GNU programs take any unambiguous beginning of a long option.
pub(super) fn is_command_option(name: &str, argument: &str) -> bool {
    let Some((_, options)) = COMMAND_OPTIONS.iter().find(|(names, _)| names.contains(&name)) else {
        return false;
    };
    let given = argument.split_once('=').map_or(argument, |(option, _)| option);
    options.iter().any(|option| {
        if option.starts_with("--") {
            given.len() > 2 && given.starts_with("--") && option.starts_with(given)
        } else {
            argument.starts_with(option) && !argument.starts_with("--")
        }
    })
}

/// Options that name a command, by program. Short ones match as a beginning, so that an attached value does not hide them.
const COMMAND_OPTIONS: &[(&[&str], &[&str])] = &[
    (&["sort"], &["--compress-program"]),
    (&["split"], &["--filter"]),
    (&["zip"], &["-T", "--test", "--unzip-command"]),
    (&["install"], &["--strip-program"]),
    (&["ip"], &["netns", "vrf", "-b", "-batch"]),
    (
        &["apt", "apt-get", "aptitude", "dpkg"],
        &["-o", "--option", "-c", "--config-file", "--pre-invoke", "--post-invoke"],
    ),
    (&["man"], &["-P", "--pager", "-H", "--html", "-C", "--config-file"]),
    (&["less", "more", "most"], &["+", "-k", "--lesskey-file"]),
    (&["curl"], &["-K", "--config"]),
    (
        &["tar"],
        &[
            "--checkpoint-action",
            "--to-command",
            "--use-compress-program",
            "--rsh-command",
            "--rmt-command",
            "--info-script",
            "--new-volume-script",
        ],
    ),
    (&["rsync"], &["--rsh", "--rsync-path", "--config", "--write-batch", "--read-batch", "--files-from"]),
    (&["wget"], &["--use-askpass", "-e", "--execute", "--config"]),
];

/// First match wins; names without their version suffix.
const TABLE: &[(Class, &[&str])] = &[
    (
        Class::Shell,
        &[
            "sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "lksh", "pdksh", "rbash", "posh", "yash",
            "rksh",
        ],
    ),
    (
        Class::OtherShell,
        &[
            "zsh",
            "fish",
            "csh",
            "tcsh",
            "rc",
            "es",
            "elvish",
            "nu",
            "xonsh",
            "pwsh",
            "powershell",
            "rzsh",
            "scsh",
        ],
    ),
    (Class::Awk, &["awk", "gawk", "mawk", "nawk", "original-awk"]),
    (Class::Sed, &["sed", "gsed"]),
    (Class::Find, &["find", "gfind"]),
    (Class::Xargs, &["xargs", "gxargs"]),
    (Class::Tar, &["tar", "gtar", "bsdtar"]),
    (Class::Git, &["git"]),
    (Class::Rsync, &["rsync"]),
    (
        Class::Server,
        &[
            "sftp-server",
            "internal-sftp",
            "git-upload-pack",
            "git-receive-pack",
            "git-upload-archive",
            "git-shell",
            "git-http-backend",
        ],
    ),
    (Class::Eval, &["eval", "trap"]),
    (Class::Source, &[".", "source"]),
    (
        Class::State,
        &[
            "alias",
            "unalias",
            "export",
            "set",
            "unset",
            "readonly",
            "declare",
            "typeset",
            "local",
            "hash",
            "enable",
            "shopt",
            "umask",
            "ulimit",
            "bind",
            "complete",
            "compgen",
            "mapfile",
            "readarray",
            "read",
            "getopts",
            "let",
            "history",
            "fc",
            "bg",
            "fg",
            "jobs",
            "wait",
            "suspend",
            "logout",
            "setenv",
            "unsetenv",
            "rehash",
            "limit",
            "abbr",
            "functions",
            "emulate",
            "zmodload",
            "autoload",
            "setopt",
            "unsetopt",
            "pushd",
            "popd",
        ],
    ),
    (
        Class::Wrapper,
        &[
            "env", "nohup", "nice", "ionice", "timeout", "stdbuf", "setsid", "time", "command", "builtin",
            "exec", "sudo", "doas", "su", "busybox", "toybox", "watch", "flock", "chroot", "taskset",
            "setarch", "linux64", "linux32",
        ],
    ),
    (
        Class::Remote,
        &[
            "ssh",
            "slogin",
            "rsh",
            "rlogin",
            "rexec",
            "remsh",
            "scp",
            "sftp",
            "mosh",
            "autossh",
            "sshpass",
            "dbclient",
            "plink",
            "pscp",
            "psftp",
            "sshfs",
            "pdsh",
            "clush",
            "pssh",
            "parallel-ssh",
            "dsh",
        ],
    ),
    (
        Class::Pager,
        &[
            "less",
            "more",
            "most",
            "pg",
            "man",
            "info",
            "pinfo",
            "top",
            "htop",
            "atop",
            "btop",
            "systemctl",
            "journalctl",
            "loginctl",
            "lesspipe",
            "zless",
            "bzless",
            "xzless",
            "zmore",
            "bzmore",
            "w3m",
            "lynx",
            "links",
            "elinks",
            "nmon",
            "tig",
            "dpkg",
            "apt",
            "apt-get",
            "aptitude",
        ],
    ),
    (
        Class::Interpreter,
        &[
            "python",
            "pypy",
            "ipython",
            "python-config",
            "perl",
            "ruby",
            "jruby",
            "irb",
            "erb",
            "node",
            "nodejs",
            "deno",
            "bun",
            "ts-node",
            "php",
            "php-cgi",
            "lua",
            "luajit",
            "tclsh",
            "wish",
            "expect",
            "R",
            "Rscript",
            "java",
            "jshell",
            "jrunscript",
            "groovy",
            "scala",
            "kotlin",
            "clojure",
            "ghci",
            "runghc",
            "runhaskell",
            "ocaml",
            "erl",
            "elixir",
            "iex",
            "swift",
            "osascript",
            "guile",
            "racket",
            "sbcl",
            "clisp",
            "julia",
            "octave",
            "gdb",
            "lldb",
            "dc",
            "bc",
            "m4",
            "qjs",
            "mujs",
            "js",
            "raku",
            "gnuplot",
            "gst",
            "picolisp",
            "rustc",
            "cpan",
            "pry",
            "xsltproc",
        ],
    ),
    (
        Class::Launcher,
        &[
            "vi",
            "vim",
            "nvim",
            "view",
            "vimdiff",
            "rvim",
            "rview",
            "ex",
            "ed",
            "red",
            "emacs",
            "emacsclient",
            "nano",
            "rnano",
            "pico",
            "joe",
            "jed",
            "mcedit",
            "micro",
            "kak",
            "hx",
            "vipw",
            "vigr",
            "visudo",
            "sudoedit",
            "mc",
            "ranger",
            "nnn",
            "mutt",
            "pine",
            "psql",
            "mysql",
            "mariadb",
            "mysqldump",
            "sqlite",
            "mongo",
            "mongosh",
            "redis-cli",
            "sqlplus",
            "isql",
            "ftp",
            "lftp",
            "telnet",
            "make",
            "gmake",
            "cmake",
            "ninja",
            "meson",
            "scons",
            "rake",
            "bundle",
            "bundler",
            "gem",
            "cargo",
            "go",
            "npm",
            "npx",
            "yarn",
            "pnpm",
            "pip",
            "pipx",
            "uv",
            "poetry",
            "conda",
            "easy_install",
            "mvn",
            "gradle",
            "ant",
            "gcc",
            "g++",
            "cc",
            "c++",
            "clang",
            "ld",
            "as",
            "tcc",
            "composer",
            "docker",
            "podman",
            "nerdctl",
            "ctr",
            "crictl",
            "runc",
            "crun",
            "kubectl",
            "oc",
            "helm",
            "lxc",
            "lxc-attach",
            "lxc-execute",
            "virsh",
            "machinectl",
            "systemd-nspawn",
            "systemd-run",
            "run0",
            "ansible",
            "ansible-playbook",
            "salt",
            "salt-call",
            "puppet",
            "chef-client",
            "vagrant",
            "terraform",
            "packer",
            "crontab",
            "at",
            "batch",
            "screen",
            "tmux",
            "byobu",
            "dtach",
            "abduco",
            "zellij",
            "script",
            "scriptreplay",
            "unshare",
            "nsenter",
            "setpriv",
            "capsh",
            "prlimit",
            "bwrap",
            "firejail",
            "proot",
            "fakeroot",
            "fakechroot",
            "gosu",
            "su-exec",
            "runuser",
            "sg",
            "newgrp",
            "pkexec",
            "dzdo",
            "pfexec",
            "chrt",
            "numactl",
            "strace",
            "ltrace",
            "valgrind",
            "perf",
            "rr",
            "parallel",
            "run-parts",
            "start-stop-daemon",
            "daemonize",
            "daemon",
            "xvfb-run",
            "dbus-run-session",
            "dbus-launch",
            "dbus-send",
            "busctl",
            "gdbus",
            "chpst",
            "softlimit",
            "envdir",
            "setuidgid",
            "cpulimit",
            "eatmydata",
            "entr",
            "inotifywait",
            "incron",
            "socat",
            "nc",
            "ncat",
            "netcat",
            "openssl",
            "csplit",
            "unzip",
            "7z",
            "7za",
            "rar",
            "cpio",
            "ar",
            "pax",
            "logrotate",
            "logsave",
            "tcpdump",
            "tshark",
            "nmap",
            "rpm",
            "yum",
            "dnf",
            "zypper",
            "apk",
            "pacman",
            "snap",
            "flatpak",
            "update-alternatives",
            "ldconfig",
            "ld.so",
            "ld-linux",
            "ld-linux-x86-64.so",
            "ldd",
            "mount",
            "umount",
            "modprobe",
            "insmod",
            "sysctl",
            "service",
            "rc-service",
            "init",
            "telinit",
            "initctl",
            "chsh",
            "chfn",
            "rlwrap",
            "unbuffer",
            "ts",
            "pee",
            "ifne",
            "chronic",
            "mispipe",
            "bpftrace",
            "stap",
            "choom",
            "wine",
            "restic",
            "borg",
            "rclone",
            "svn",
            "hg",
            "bzr",
            "cvs",
            "darcs",
            "mail",
            "mailx",
            "sendmail",
            "procmail",
            "aria2c",
            "xdotool",
            "latex",
            "pdflatex",
            "tex",
            "xelatex",
            "groff",
            "ghostscript",
            "gs",
            "convert",
            "ffmpeg",
            "enscript",
            "a2ps",
            "dialog",
            "dmsetup",
            "lvm",
            "iptables-restore",
            "wg-quick",
            "openvpn",
            "pppd",
            "tc",
            "nft",
            "dhclient",
            "ifup",
            "ifdown",
            "aa-exec",
            "runcon",
            "catchsegv",
            "coreutils",
            "multitime",
            "hyperfine",
            "cowsay",
            "cowthink",
            "jjs",
            "pidstat",
            "sar",
            "whiptail",
            "zsoelim",
        ],
    ),
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
