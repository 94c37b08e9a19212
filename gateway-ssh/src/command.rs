//! A command line as it is judged and as it is sent.

use bytes::Bytes;
use gateway_core::operation::{Fact, Facts};

use crate::shell::{Analysis, FileMode, ServerCommand};

/// How a program that is computed when it runs is called in resources.
const COMPUTED: &str = "?";

/// What is known of one `exec` request.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// What is sent to the target: the judged words quoted anew where all are known, else the bytes as they came.
    pub(crate) line: Bytes,
    /// The programs as written, each once; a computed one is `?`.
    pub(crate) programs: Vec<String>,
    /// Whether `programs` and the files in the facts are all that the line does.
    pub(crate) resolved: bool,
    /// Files that redirections open: the path and whether it is written.
    pub(crate) files: Vec<(String, bool)>,
    /// The well-known server it is.
    pub(crate) server: Option<&'static str>,
    /// The facts for policy, but for that of the terminal.
    pub(crate) facts: Facts,
}

impl Command {
    pub(crate) fn parse(line: &[u8]) -> Self {
        let analysis = Analysis::of(line);
        let line = match &analysis.canonical {
            Some(canonical) => Bytes::copy_from_slice(canonical.as_bytes()),
            None => Bytes::copy_from_slice(line),
        };
        let mut programs: Vec<String> = Vec::new();
        for command in &analysis.commands {
            let program = command.program().unwrap_or(COMPUTED);
            if !programs.iter().any(|known| known == program) {
                programs.push(program.to_owned());
            }
        }
        let mut facts = analysis.facts();
        // What is sent; bytes that are no text are shown as such, and are never resolved.
        facts.insert("command".into(), Fact::String(String::from_utf8_lossy(&line).into_owned()));
        // Without a form whose meaning is known, nothing that was told of it is certain.
        let resolved = analysis.resolved() && analysis.canonical.is_some();
        facts.insert("resolved".into(), resolved.into());
        let uses = |mode| match mode {
            FileMode::Read => &[false][..],
            FileMode::Write | FileMode::Append => &[true],
            FileMode::ReadWrite => &[false, true],
        };
        let files = analysis.files.iter();
        let files =
            files.flat_map(|f| uses(f.mode).iter().map(|written| (f.path.clone(), *written))).collect();
        let server = analysis.server.as_ref().map(ServerCommand::name);
        Self { line, programs, resolved, files, server, facts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_sent_quoted_anew() {
        let command = Command::parse(b"/bin/echo  a\\ b 'c'");
        assert_eq!(command.line, "'/bin/echo' 'a b' 'c'");
        assert_eq!((command.programs.as_slice(), command.resolved), (&["/bin/echo".to_owned()][..], true));
    }

    #[test]
    fn what_is_opened_both_ways_is_read_and_written() {
        let file = |written| ("/x".to_owned(), written);
        assert_eq!(Command::parse(b"cat <>/x").files, [file(false), file(true)]);
        assert_eq!(Command::parse(b"cat >>/x").files, [file(true)]);
    }

    #[test]
    fn what_is_not_known_is_sent_as_it_came_and_not_resolved() {
        for line in ["echo $(id)", "x=1 ls", "eval \"$1\"", "\u{a0}ls", "ls *"] {
            let command = Command::parse(line.as_bytes());
            assert!(!command.resolved, "{line}");
            assert_eq!(command.line, line.as_bytes(), "{line}");
        }
    }
}
