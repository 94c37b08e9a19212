//! Options with which programs that otherwise start nothing are handed a command, a library to load, or a file that names one.

/// Whether an option of `name` hands it a command to run. GNU programs take any unambiguous beginning of a long option, and `less` in
/// letters of either case; a short one may stand anywhere in a word with others.
pub(super) fn is_command_option(name: &str, argument: &str) -> bool {
    let Some(options) = COMMAND_OPTIONS.iter().find(|options| options.names.contains(&name)) else {
        return false;
    };
    if options.beginnings.iter().any(|beginning| argument.starts_with(beginning)) {
        return true;
    }
    if !argument.starts_with("--") {
        return argument.starts_with('-') && argument.contains(|c| options.letters.contains(c));
    }
    let given = argument.split_once('=').map_or(argument, |(option, _)| option);
    let begins = |option: &&str| option.get(..given.len()).is_some_and(|o| o.eq_ignore_ascii_case(given));
    given.len() > 2 && options.long.iter().any(begins)
}

struct Options {
    names: &'static [&'static str],
    /// Short ones, looked for anywhere in a word with one `-`: what may be the value of another one is doubted with them.
    letters: &'static str,
    long: &'static [&'static str],
    /// Beginnings of other words.
    beginnings: &'static [&'static str],
}

const fn options(
    names: &'static [&'static str],
    letters: &'static str,
    long: &'static [&'static str],
) -> Options {
    Options { names, letters, long, beginnings: &[] }
}

const COMMAND_OPTIONS: &[Options] = &[
    options(&["sort"], "", &["--compress-program"]),
    options(&["split"], "", &["--filter"]),
    options(&["diff3", "sdiff"], "", &["--diff-program"]),
    options(&["zip"], "T", &["--test", "--unzip-command"]),
    options(&["install"], "", &["--strip-program"]),
    options(&["man"], "PHC", &["--pager", "--html", "--config-file"]),
    Options {
        beginnings: &["+"],
        ..options(
            &[
                "less", "more", "most", "zless", "bzless", "xzless", "zmore", "bzmore", "lzless", "zstdless",
                "lzmore",
            ],
            "k",
            &["--lesskey-file", "--lesskey-src", "--lesskey-content"],
        )
    },
    options(&["curl"], "K", &["--config", "--engine"]),
    options(&["wget"], "e", &["--use-askpass", "--execute", "--config"]),
    // Libraries to load.
    options(&["ssh-keygen"], "Dw", &[]),
    options(&["ssh-add"], "sS", &[]),
    // They reach other machines by `ssh`, and containers.
    options(
        &["loginctl", "hostnamectl", "timedatectl", "localectl", "systemd-analyze"],
        "HM",
        &["--host", "--machine"],
    ),
    options(
        &["tar"],
        "",
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
    options(
        &["rsync"],
        "",
        &["--rsh", "--rsync-path", "--config", "--write-batch", "--read-batch", "--files-from"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_seen_in_any_form() {
        for (name, argument) in [
            ("zip", "-TT"),
            ("zip", "-qT"),
            ("less", "-Xk/w/lk"),
            ("less", "--lesskey-src=/w/lk"),
            ("less", "--LESSKEY-C=x"),
            ("less", "+!id"),
            ("curl", "-sK"),
            ("wget", "-qe"),
            ("man", "-aP"),
            ("sort", "--comp=x"),
            ("loginctl", "-H"),
        ] {
            assert!(is_command_option(name, argument), "{name} {argument}");
        }
        for (name, argument) in
            [("zip", "-r"), ("less", "file+k"), ("curl", "https://K"), ("sort", "--"), ("ls", "-K")]
        {
            assert!(!is_command_option(name, argument), "{name} {argument}");
        }
    }
}
