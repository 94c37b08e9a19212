//! What the gateway does itself, because it outlives a line: the folder, the variables, the end.

use crate::shell::simple;

/// Most variables exported in one session, and bytes of their names and values together. 32 KiB.
pub(super) const MAX_EXPORTS: usize = 64;
pub(super) const MAX_EXPORT_BYTES: usize = 32 * 1024;

/// A line that is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Builtin {
    Nothing,
    /// To a folder; to where the account starts; to the one before (`-`).
    Folder(Option<String>),
    FolderBefore,
    Export(Vec<(String, String)>),
    Unset(Vec<String>),
    Exit(Option<u32>),
    /// Not as it is understood here; what to do instead.
    Wrong(&'static str),
}

/// Reads a line. `None`: it is for the target.
pub(super) fn parse(line: &str) -> Option<Builtin> {
    if line.trim().is_empty() || line.trim_start().starts_with('#') && !line.contains('\n') {
        return Some(Builtin::Nothing);
    }
    let first = line.split_whitespace().next()?;
    let known = ["cd", "export", "unset", "exit", "logout"].contains(&first);
    let argv = simple::parse(line.trim().as_bytes());
    let Some((name, arguments)) = argv.as_deref().and_then(<[String]>::split_first) else {
        // `cd x && ls` is a line like any other: the target's shell changes its own folder, for this line.
        let alone = !line.contains([';', '&', '|', '\n']);
        return (known && alone)
            .then_some(Builtin::Wrong("write its words without `$`, `*`, `~`, `\\` and the like"));
    };
    Some(match name.as_str() {
        "cd" => folder(arguments),
        "export" => export(arguments),
        "unset" if arguments.iter().all(|name| is_name(name)) => Builtin::Unset(arguments.to_vec()),
        "unset" => Builtin::Wrong("name the variables only"),
        "exit" | "logout" => exit(arguments),
        _ => return None,
    })
}

fn folder(arguments: &[String]) -> Builtin {
    match arguments {
        [] => Builtin::Folder(None),
        [dash] if dash == "-" => Builtin::FolderBefore,
        [dashes, folder] if dashes == "--" => Builtin::Folder(Some(folder.clone())),
        [folder] if !folder.starts_with('-') && !folder.is_empty() => Builtin::Folder(Some(folder.clone())),
        _ => Builtin::Wrong("name one folder"),
    }
}

fn export(arguments: &[String]) -> Builtin {
    let pair = |word: &String| {
        let (name, value) = word.split_once('=')?;
        is_name(name).then(|| (name.to_owned(), value.to_owned()))
    };
    let pairs: Option<Vec<_>> = arguments.iter().map(pair).collect();
    pairs.filter(|p| !p.is_empty()).map_or(Builtin::Wrong("write `export NAME=value`"), Builtin::Export)
}

fn exit(arguments: &[String]) -> Builtin {
    match arguments {
        [] => Builtin::Exit(None),
        [status] => status.parse::<u8>().map_or(Builtin::Wrong("write a status from 0 to 255"), |status| {
            Builtin::Exit(Some(status.into()))
        }),
        _ => Builtin::Wrong("write one status"),
    }
}

/// A variable's name (POSIX XBD 3.216).
fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(word) && name.chars().next().is_some_and(|c| !c.is_ascii_digit()) && name.len() <= 255
}

/// `$?` written as the number it stands for, where it stands for nothing else: in a single simple command. Elsewhere it may be the
/// status of something in the line itself.
pub(super) fn with_status(line: &str, status: u32) -> String {
    if !line.contains("$?") || line.contains(['\'', '\\']) {
        return line.to_owned();
    }
    let replaced = line.replace("$?", &status.to_string());
    if simple::parse(replaced.trim().as_bytes()).is_some() { replaced } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlives_a_line_is_read_exactly_or_not_at_all() {
        let folder = |path: &str| Some(Builtin::Folder(Some(path.to_owned())));
        for (line, builtin) in [
            ("", Some(Builtin::Nothing)),
            ("  # note", Some(Builtin::Nothing)),
            ("cd", Some(Builtin::Folder(None))),
            ("cd /srv", folder("/srv")),
            (" cd '/a b' ", folder("/a b")),
            ("cd -- -x", folder("-x")),
            ("cd -", Some(Builtin::FolderBefore)),
            ("'cd' x", folder("x")),
            ("exit 3", Some(Builtin::Exit(Some(3)))),
            ("logout", Some(Builtin::Exit(None))),
            (
                "export A=b C='d e'",
                Some(Builtin::Export(vec![("A".into(), "b".into()), ("C".into(), "d e".into())])),
            ),
            ("unset A B", Some(Builtin::Unset(vec!["A".into(), "B".into()]))),
            ("ls cd", None),
            ("cd x && ls", None),
            ("cd x; ls", None),
            ("A=b", None),
        ] {
            assert_eq!(parse(line), builtin, "{line:?}");
        }
        for wrong in [
            "cd ~",
            "cd $HOME",
            "cd a b",
            "cd -P x",
            "export A",
            "export 1=x",
            "export",
            "export A=$B",
            "unset 1",
            "exit x",
            "exit 999",
            "exit 1 2",
        ] {
            assert!(matches!(parse(wrong), Some(Builtin::Wrong(_))), "{wrong:?}");
        }
    }

    #[test]
    fn the_status_is_written_where_it_is_certain() {
        assert_eq!(with_status("echo $?", 3), "echo 3");
        assert_eq!(with_status("echo \"is $?\"", 3), "echo \"is 3\"");
        for left in ["false; echo $?", "echo '$?'", "echo \\$?", "echo $? > x"] {
            assert_eq!(with_status(left, 3), left);
        }
    }
}
