//! A command line as it is judged and as it is sent.

use std::borrow::Cow;

use bytes::Bytes;
use gateway_core::operation::{Fact, Facts};

/// What is known of one `exec` request.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// What is sent to the target.
    pub(crate) line: Bytes,
    /// The programs as written; a computed one is `?`.
    pub(crate) programs: Vec<String>,
    /// Whether `programs` is all that the line does.
    pub(crate) resolved: bool,
    /// The well-known server it is.
    pub(crate) server: Option<&'static str>,
    /// The facts for policy, but those of the session.
    pub(crate) facts: Facts,
}

impl Command {
    pub(crate) fn parse(line: &[u8]) -> Self {
        let words = words(line);
        let programs: Vec<_> = words.iter().flatten().take(1).cloned().collect();
        let set = |items: Vec<String>| items.into_iter().collect::<Fact>();
        let facts: [(&'static str, Fact); 9] = [
            ("exact", words.is_some().into()),
            ("resolved", words.is_some().into()),
            (
                "programs",
                set(programs.iter().map(|p| p.rsplit('/').next().unwrap_or(p).to_owned()).collect()),
            ),
            ("program_paths", set(programs.clone())),
            ("reads", set(Vec::new())),
            ("writes", set(Vec::new())),
            ("risks", set(Vec::new())),
            ("unresolved", set(if words.is_some() { Vec::new() } else { vec!["syntax".to_owned()] })),
            ("server", "".into()),
        ];
        let facts = facts.into_iter().map(|(name, fact)| (Cow::Borrowed(name), fact)).collect();
        let line = Bytes::copy_from_slice(line);
        Self { line, programs, resolved: words.is_some(), server: None, facts }
    }
}

fn words(line: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(line).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+:,./- ".contains(c);
    let words: Vec<_> = text.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    (text.chars().all(plain) && !words.is_empty()).then_some(words)
}
