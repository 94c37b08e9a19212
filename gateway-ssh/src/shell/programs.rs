//! What is known about programs by name: which run code, start other programs, or offer a shell.
//!
//! These tables add facts and take certainty away; a program that is not in them is *not* thereby harmless. Only a rule that
//! names programs, or better exact arguments, is a wall.

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
        // Compilers for another machine: `x86_64-linux-gnu-gcc-12`.
        _ => match without_version(name).rsplit_once('-').and_then(|(_, last)| listed(last)) {
            Some(Class::Launcher | Class::Interpreter) => Class::Launcher,
            _ => Class::Plain,
        },
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

/// First match wins; names without their version suffix.
const TABLE: &[(Class, &[&str])] = &[
    (
        Class::Shell,
        &[
            "sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "lksh", "pdksh", "rbash", "yash", "rksh",
            "hush", "posh",
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
            "bsd-csh",
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
            "shift",
            "argparse",
            "integer",
            "float",
            "private",
            "nameref",
            "global",
            "compound",
            "enum",
            "redirect",
            "sched",
            "vared",
            "funced",
            "funcsave",
            "emit",
            "zle",
            "zstyle",
            "zparseopts",
            "zformat",
            "zregexparse",
            "zcompile",
            "compctl",
            "bindkey",
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
            "setarch",
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
            "journalctl",
            "loginctl",
            "lesspipe",
            "zless",
            "bzless",
            "xzless",
            "zmore",
            "bzmore",
            "nmon",
            "pager",
            "sensible-pager",
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
            "rename",
            "prename",
            "file-rename",
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
            "w3m",
            "lynx",
            "links",
            "elinks",
            "tig",
            "editor",
            "sensible-editor",
            "www-browser",
            "x-www-browser",
            "xdg-open",
            "open",
            "see",
            "edit",
            "run-mailcap",
            "ssh-agent",
            "ssh-copy-id",
            "cttyhack",
            "openvt",
            "tcpsvd",
            "udpsvd",
            "run-init",
            "switch_root",
            "pivot_root",
            "runsv",
            "runsvdir",
            "svlogd",
            "inetd",
            "telnetd",
            "httpd",
            "ftpd",
            "crond",
            "uevent",
            "mdev",
            "acpid",
            "zcip",
            "ifplugd",
            "udhcpc",
            "udhcpc6",
            "popmaildir",
            "reformime",
            "makemime",
            "bootchartd",
            "getty",
            "login",
            "sulogin",
            "linuxrc",
            "distcc",
            "ccache",
            "msgfilter",
            "msgexec",
            "setlock",
            "torsocks",
            "torify",
            "proxychains",
            "proxychains4",
            "tsocks",
            "pexec",
            "grc",
            "tmate",
            "certbot",
            "exiftool",
            "pandoc",
            "rpmquery",
            "rpmverify",
            "rpmdb",
            "rpmbuild",
            "rpmspec",
            "smbclient",
            "c89",
            "c99",
            "gfortran",
            "apt-config",
            "apt-key",
            "apt-file",
            "add-apt-repository",
            "dpkg-reconfigure",
            "dpkg-deb",
            "dpkg-source",
            "debconf",
            "coredumpctl",
            "portablectl",
            "gpg",
            "gpgsm",
            "gpgv2",
            "patch",
            "rcs",
            "ctags",
            "indent",
            "envuidgid",
            "envsetuidgid",
            "pgrphack",
            "fghack",
            "argv0",
            "s6-setuidgid",
            "execlineb",
            "with-contenv",
            "tini",
            "dumb-init",
            "catatonit",
            "systemd-inhibit",
            "systemd-cat",
            "systemd-socket-activate",
            "savelog",
            "prove",
            "debugfs",
            "uclampset",
            "coresched",
            "scriptlive",
            "instmodsh",
            "perldoc",
            "perlbug",
            "perlthanks",
            "perlivp",
            "enc2xs",
            "h2xs",
            "xsubpp",
            "libnetcfg",
            "pydoc",
            "pdb",
            "ncdu",
            "tdbtool",
            "bat",
            "batcat",
            "neofetch",
            "scrot",
            "latexmk",
            "slsh",
            "troff",
            "nroff",
            "pic",
            "nm",
            "ranlib",
            "strip",
            "objcopy",
            "pkcs11-tool",
            "p11tool",
            "modutil",
            "cpp",
            "clang++",
            "javac",
            "kotlinc",
            "ghc",
            "cobc",
            "dotnet",
            "zig",
            "alpine",
            "bconsole",
            "cabal",
            "cdist",
            "check_by_ssh",
            "check_cups",
            "crash",
            "csvtool",
            "dstat",
            "dvips",
            "easyrsa",
            "eb",
            "facter",
            "gcloud",
            "aws",
            "az",
            "gh",
            "glab",
            "genie",
            "gimp",
            "ginsh",
            "gtester",
            "hping3",
            "iftop",
            "ispell",
            "jtag",
            "knife",
            "lualatex",
            "luatex",
            "pdftex",
            "xetex",
            "minicom",
            "msfconsole",
            "ncftp",
            "opkg",
            "rtorrent",
            "scanmem",
            "sshuttle",
            "tasksh",
            "wireshark",
            "yelp",
            "zathura",
            "exim",
            "exim4",
            "postfix",
            "dovecot",
            "nginx",
            "apache2",
            "apachectl",
            "apache2ctl",
            "php-fpm",
            "uwsgi",
            "gunicorn",
            "supervisord",
            "supervisorctl",
            "monit",
            "fzf",
            "rg",
            "fd",
            "fdfind",
            "ag",
            "ack",
            "lazygit",
            "watchexec",
            "nodemon",
            "pm2",
            "foreman",
            "honcho",
            "direnv",
            "asdf",
            "pyenv",
            "rbenv",
            "mise",
            "nix",
            "nix-shell",
            "guix",
            "brew",
            "opam",
            "stack",
            "sbt",
            "lein",
            "rustup",
            "bazel",
            "tox",
            "nox",
            "pytest",
            "coverage",
            "celery",
            "flask",
            "jupyter",
            "rspec",
            "jest",
            "mocha",
            "phpunit",
            "drush",
            "unison",
            "rdiff-backup",
            "duplicity",
            "rsnapshot",
            "iptables",
            "ip6tables",
            "ebtables",
            "arptables",
            "wpa_cli",
            "wpa_supplicant",
            "dhcpcd",
            "mdadm",
            "smartd",
            "mkfs",
            "fsck",
            "ssh-argv0",
            "invoke-rc.d",
            "mkinitramfs",
            "needrestart",
            "unattended-upgrade",
            "unattended-upgrades",
            "x-terminal-emulator",
            "xterm",
            "uxterm",
            "rxvt",
            "urxvt",
            "konsole",
            "gnome-terminal",
            "alacritty",
            "kitty",
            "foot",
            "xinit",
            "startx",
            "Xorg",
            "agetty",
            "mingetty",
            "mgetty",
            "systemd-notify",
            "udevadm",
            "dnsmasq",
            "sash",
            "adduser",
            "deluser",
            "varlinkctl",
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
