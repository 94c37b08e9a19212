//! Well-known servers that clients start with an `exec` request.

use serde::{Deserialize, Serialize};

/// A server command, recognised from an exact argv. Anything unusual in the arguments means it is not recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ServerCommand {
    /// `scp -t`: receives files from the client (the rcp protocol) and writes them at or under `path`.
    ScpSink {
        /// Target file or directory.
        path: String,
        /// `-r`: directories may follow.
        recursive: bool,
        /// `-d`: the target must be a directory.
        directory: bool,
        /// `-p`: times and modes are set from the client's.
        preserve: bool,
    },
    /// `scp -f`: reads files and sends them to the client.
    ScpSource {
        /// Files or directories; no shell has expanded them, as the argv is exact.
        paths: Vec<String>,
        /// `-r`: directories are sent whole.
        recursive: bool,
    },
    /// `rsync --server`: writes under `paths` (or, with `sender`, reads from there).
    Rsync {
        /// `--sender`: the server sends.
        sender: bool,
        /// Whether the server may delete: `--delete…`, `--remove-source-files`.
        deletes: bool,
        /// All options as given.
        options: Vec<String>,
        /// The paths behind the `.`.
        paths: Vec<String>,
    },
    /// A git transport service on a repository.
    Git {
        /// Which one.
        service: GitService,
        /// The repository.
        repository: String,
    },
    /// An SFTP server; its frames are what to judge.
    Sftp {
        /// The program as written, or `internal-sftp`.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// A service of the git transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitService {
    /// `git-upload-pack`: fetch, clone.
    UploadPack,
    /// `git-receive-pack`: push; may run hooks.
    ReceivePack,
    /// `git-upload-archive`: `git archive --remote`.
    UploadArchive,
}

impl ServerCommand {
    /// Recognises an exact argv. A program elsewhere than where systems have theirs may be anything that was put there.
    pub fn of(argv: &[String]) -> Option<Self> {
        let (program, arguments) = argv.split_first()?;
        match servers_name(program)? {
            "scp" => scp(arguments),
            "rsync" => rsync(arguments),
            "git" => {
                let (service, rest) = arguments.split_first()?;
                git(service, rest)
            }
            "sftp-server" | "internal-sftp" => {
                Some(Self::Sftp { program: program.clone(), arguments: arguments.to_vec() })
            }
            name => git(name.strip_prefix("git-")?, arguments),
        }
    }

    /// Short name for facts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ScpSink { recursive: false, .. } => "scp_sink",
            Self::ScpSink { recursive: true, .. } => "scp_sink_tree",
            Self::ScpSource { recursive: false, .. } => "scp_source",
            Self::ScpSource { recursive: true, .. } => "scp_source_tree",
            Self::Rsync { sender: true, .. } => "rsync_sender",
            Self::Rsync { sender: false, .. } => "rsync_receiver",
            Self::Git { service: GitService::UploadPack, .. } => "git_upload_pack",
            Self::Git { service: GitService::ReceivePack, .. } => "git_receive_pack",
            Self::Git { service: GitService::UploadArchive, .. } => "git_upload_archive",
            Self::Sftp { .. } => "sftp",
        }
    }

    /// Whether the server may change files.
    pub const fn writes(&self) -> bool {
        match self {
            Self::ScpSink { .. } | Self::Sftp { .. } => true,
            Self::Rsync { sender, deletes, .. } => !*sender || *deletes,
            Self::Git { service, .. } => matches!(service, GitService::ReceivePack),
            Self::ScpSource { .. } => false,
        }
    }

    /// The paths it is started on; empty for SFTP, whose requests name them.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::ScpSink { path, .. } | Self::Git { repository: path, .. } => vec![path],
            Self::ScpSource { paths, .. } | Self::Rsync { paths, .. } => {
                paths.iter().map(String::as_str).collect()
            }
            Self::Sftp { .. } => Vec::new(),
        }
    }
}

/// The name of a program that is found by its name alone or lies in a folder of the system's own.
fn servers_name(program: &str) -> Option<&str> {
    match program.rsplit_once('/') {
        None => Some(program),
        Some((folder, name)) => SYSTEM_FOLDERS.contains(&folder).then_some(name),
    }
}

const SYSTEM_FOLDERS: &[&str] = &[
    "/bin",
    "/usr/bin",
    "/usr/local/bin",
    "/usr/lib/git-core",
    "/usr/libexec/git-core",
    "/usr/lib/openssh",
    "/usr/lib/ssh",
    "/usr/lib64/ssh",
    "/usr/libexec",
    "/usr/libexec/openssh",
];

/// OpenSSH scp.c, `main`: the remote end is started with `-t` or `-f` and any of `-d -p -r -q -v`.
fn scp(arguments: &[String]) -> Option<ServerCommand> {
    let end = arguments
        .iter()
        .position(|a| a == "--" || !a.starts_with('-') || a == "-")
        .unwrap_or(arguments.len());
    let (options, mut operands) = arguments.split_at_checked(end)?;
    if operands.first().is_some_and(|a| a == "--") {
        operands = operands.get(1..)?;
    }
    let letters: String = options.iter().flat_map(|o| o.chars().skip(1)).collect();
    if operands.is_empty() || letters.contains(|c| !"tfdprqv".contains(c)) {
        return None;
    }
    let has = |letter| letters.contains(letter);
    match (has('t'), has('f'), operands) {
        (true, false, [path]) => Some(ServerCommand::ScpSink {
            path: path.clone(),
            recursive: has('r'),
            directory: has('d'),
            preserve: has('p'),
        }),
        (false, true, paths) => Some(ServerCommand::ScpSource { paths: paths.to_vec(), recursive: has('r') }),
        _ => None,
    }
}

/// rsync options.c, `server_options`: `--server [--sender] -flags [--long…] . path…`.
fn rsync(arguments: &[String]) -> Option<ServerCommand> {
    let rest = arguments.strip_prefix(["--server".to_owned()].as_slice())?;
    // Where clients write it, and nowhere else: behind an option that takes a value it would be that value.
    let (sender, rest) = match rest.strip_prefix(["--sender".to_owned()].as_slice()) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let dot = rest.iter().position(|a| !a.starts_with('-'))?;
    let (options, operands) = rest.split_at_checked(dot)?;
    let (separator, paths) = operands.split_first()?;
    let known = options.iter().all(|o| is_rsync_option(o));
    // A path that looks like an option would be read as one: popt permutes.
    if separator != "." || !known || paths.is_empty() || paths.iter().any(|p| p.starts_with('-')) {
        return None;
    }
    let deletes = options.iter().any(|o| o.starts_with("--delete") || o.starts_with("--remove-"));
    Some(ServerCommand::Rsync { sender, deletes, options: options.to_vec(), paths: paths.to_vec() })
}

/// Options that name neither a file, a program nor a second set of paths, and none with which it goes through links out of those it
/// has: `L`, `k`, `K`, and `R`, which takes paths from the client that begin anywhere. Each is whole in its own word: popt takes the
/// next one for a value that is missing, whatever it looks like.
fn is_rsync_option(option: &str) -> bool {
    match option.split_once('=') {
        Some((name, value)) if option.starts_with("--") => !value.is_empty() && RSYNC_VALUED.contains(&name),
        _ if option.starts_with("--") => RSYNC_LONG.contains(&option),
        _ => option.strip_prefix('-').is_some_and(are_rsync_flags),
    }
}

/// Letters, and at their end `e` with what the client can do (`maybe_add_e_option`): without that, the next word would be the value of `e`.
fn are_rsync_flags(flags: &str) -> bool {
    let (letters, abilities) =
        flags.split_once('e').map_or((flags, ".i"), |(before, behind)| (before, behind));
    let Some((version, abilities)) = abilities.split_once('.') else { return false };
    !flags.is_empty()
        && letters.chars().all(|c| RSYNC_FLAGS.contains(c))
        && version.bytes().all(|b| b.is_ascii_digit())
        && abilities.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Whether rsync's flags say that the real arguments come over the wire (`-s`, `--secluded-args`).
pub(super) fn has_hidden_arguments(option: &str) -> bool {
    let flags = option.strip_prefix('-').filter(|flags| !flags.starts_with('-')).unwrap_or_default();
    flags.split_once('e').map_or(flags, |(before, _)| before).contains('s')
}

/// Short options without a value that clients send: rsync's, and openrsync's one for each word.
const RSYNC_FLAGS: &str = "vqbunldmOJyWHogDtUNpEAXrcCIxSz";

/// Long options without a value, by the table `long_options` of rsync 3.5.
const RSYNC_LONG: &[&str] = &[
    "--delete",
    "--delete-before",
    "--delete-during",
    "--delete-delay",
    "--delete-after",
    "--delete-excluded",
    "--remove-source-files",
    "--numeric-ids",
    "--ignore-existing",
    "--existing",
    "--inplace",
    "--append",
    "--partial",
    "--size-only",
    "--checksum",
    "--safe-links",
    "--munge-links",
    "--force",
    "--ignore-errors",
    "--ignore-times",
    "--omit-dir-times",
    "--omit-link-times",
    "--no-r",
    "--no-relative",
    "--no-dirs",
    "--list-only",
    "--stats",
    "--preallocate",
    "--delay-updates",
    "--prune-empty-dirs",
    "--no-W",
    "--no-motd",
    "--new-compress",
    "--old-compress",
    "--open-noatime",
    "--mkpath",
    "--itemize-changes",
    "--fake-super",
    "--sparse",
    "--specials",
    "--no-specials",
    "--fsync",
    "--msgs2stderr",
    "--no-msgs2stderr",
    "--no-implied-dirs",
    "--ignore-missing-args",
];

/// Long options that take a value, which must stand in the same word.
const RSYNC_VALUED: &[&str] = &[
    "--timeout",
    "--bwlimit",
    "--max-delete",
    "--max-size",
    "--min-size",
    "--modify-window",
    "--compress-level",
    "--compress-choice",
    "--checksum-choice",
    "--checksum-seed",
    "--block-size",
    "--skip-compress",
    "--log-format",
    "--stderr",
    "--iconv",
    "--usermap",
    "--groupmap",
    "--stop-at",
];

/// git transports start `git-upload-pack 'path'`; options other than `--strict` and `--timeout` are not recognised.
fn git(service: &str, arguments: &[String]) -> Option<ServerCommand> {
    let service = match service {
        "upload-pack" => GitService::UploadPack,
        "receive-pack" => GitService::ReceivePack,
        "upload-archive" => GitService::UploadArchive,
        _ => return None,
    };
    let (repository, options) = arguments.split_last()?;
    let known = options.iter().all(|o| o == "--strict" || o.starts_with("--timeout="));
    (known && !repository.starts_with('-'))
        .then(|| ServerCommand::Git { service, repository: repository.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<ServerCommand> {
        ServerCommand::of(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn both_ends_of_scp() {
        assert_eq!(
            of("scp -v -r -p -t -- /srv/x"),
            Some(ServerCommand::ScpSink {
                path: "/srv/x".into(),
                recursive: true,
                directory: false,
                preserve: true
            })
        );
        assert_eq!(
            of("scp -rf /a /b"),
            Some(ServerCommand::ScpSource { paths: vec!["/a".into(), "/b".into()], recursive: true })
        );
        assert_eq!(of("scp -r -t /srv/x").unwrap().name(), "scp_sink_tree");
        assert_eq!(of("/usr/bin/scp -t /srv/x").unwrap().name(), "scp_sink");
        for line in [
            "scp -t",
            "scp -t -f /x",
            "scp -S prog -t /x",
            "scp -o x -t /x",
            "scp /a host:/b",
            "scp -t /a /b",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn rsync_servers() {
        let line = "rsync --server --sender -vlogDtpre.iLsfxCIvu . /srv/data";
        let Some(ServerCommand::Rsync { sender, deletes, paths, .. }) = of(line) else { panic!("{line}") };
        assert!(sender && !deletes);
        assert_eq!(paths, ["/srv/data"]);
        assert!(of("rsync --server -logDtpre.iLsfxCIvu --delete . /x").unwrap().writes());
        // Of clients before 3.0, of 3.5 with options, of openrsync.
        for line in [
            "rsync --server --sender -vlogDtpr . /x",
            "rsync --server -vvbunlHogDtUNpAXXrcCIxSzye32.0iLsfxCIvu --timeout=5 --log-format=%i --partial . /x /y",
            "rsync --server --sender -D -g -l -o -p -r -t -v . /x",
        ] {
            assert!(of(line).is_some(), "{line}");
        }
        for line in [
            "rsync --server -slogDtpre.iLsfxCIvu . /x",
            "rsync --server --rsync-path=evil -e.x . /x",
            "rsync --server --log-file=/etc/x -e.x . /x",
            "rsync --server --daemon .",
            "rsync --daemon",
            "rsync --server -e.x . /x --rsh=evil",
            "rsync -e evil a b:",
            "/srv/inbox/rsync --server -e.x . /x",
            "./rsync --server -e.x . /x",
            "bin/rsync --server -e.x . /x",
            "/usr/bin/../../srv/rsync --server -e.x . /x",
            "//srv/inbox/rsync --server -e.x . /x",
            "rsync --server -logDtprKe.x . /x",
            "rsync --server --sender -Lre.x . /x",
            "rsync --server --sender -kre.x . /x",
            "rsync --server -Rre.x . /x",
            "rsync --server --sender -re.x --copy-unsafe-links . /x",
            // What popt reads `--sender` as the value of: these would receive.
            "rsync --server -logDtpre --sender . /x",
            "rsync --server --log-format --sender -logDtpre.x . /x",
            "rsync --server --iconv --sender -re.x . /x",
            "rsync --server -re.x --sender . /x",
            "rsync --server --sender -re . /x",
            "rsync --server --sender --timeout -re.x . /x",
            "rsync --server --sender=x -re.x . /x",
            "rsync --server --sender --delete=x -re.x . /x",
            "rsync --server --sender --timeout= -re.x . /x",
            "rsync --server --sender -ree.x . /x",
            "rsync --server --sender -B --delete . /x",
            "rsync --server --sender -@ --delete . /x",
            // The option word `-` is a path to popt.
            "rsync --server -re.x - . /x",
            "rsync --server -- . /x",
            "rsync --server -Fre.x . /x",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn git_and_sftp() {
        let fetch = ServerCommand::Git { service: GitService::UploadPack, repository: "/r.git".into() };
        assert_eq!(of("git-upload-pack /r.git"), Some(fetch.clone()));
        assert_eq!(of("git upload-pack --strict /r.git"), Some(fetch));
        assert_eq!(of("git-receive-pack -x"), None);
        assert_eq!(of("git -c a=b upload-pack /r"), None);
        assert_eq!(of("/usr/lib/git-core/git-upload-pack /r.git").unwrap().name(), "git_upload_pack");
        for line in
            ["/srv/git-upload-pack /r", "./git upload-pack /r", "/tmp/x/sftp-server", "/srv/scp -t /x"]
        {
            assert_eq!(of(line), None, "{line}");
        }
        assert_eq!(of("/usr/lib/openssh/sftp-server -R").unwrap().name(), "sftp");
    }
}
