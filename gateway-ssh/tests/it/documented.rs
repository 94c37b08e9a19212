//! The policies of the documentation, as they stand there.

const DOCUMENT: &str = include_str!("../../../docs/ssh.md");

/// The block of policies that begins with the one of this id, with its example folders replaced.
pub fn policy(id: &str, folders: &[(&str, &str)]) -> String {
    let mut blocks = DOCUMENT.split("```cedar\n").skip(1).filter_map(|rest| rest.split("```").next());
    let first = format!("@id(\"{id}\")");
    let block = blocks
        .find(|block| block.starts_with(&first))
        .unwrap_or_else(|| panic!("no block begins with `{id}`"));
    folders.iter().fold(block.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

/// A block of other lines that begins with this one.
pub fn block(first: &str) -> String {
    let mut blocks = DOCUMENT.split("\n```").filter_map(|rest| rest.split_once('\n')).map(|(_, text)| text);
    blocks
        .find(|block| block.starts_with(first))
        .unwrap_or_else(|| panic!("no block begins with `{first}`"))
        .to_owned()
}

/// May connect, nothing else.
pub const CONNECT: &str = "permit (principal, action == Action::\"connect\", resource);\n";
