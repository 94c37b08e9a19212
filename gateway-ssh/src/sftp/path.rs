//! Paths as bytes. Lexical only: `a/../b` is `b` even where `a` is a symbolic link; the server's REALPATH knows better.

/// Makes an absolute, clean path: `.`, empty components and `..` are resolved, `..` at the root stays there.
/// `None` if `path` is relative and there is no start directory.
///
/// ```
/// use gateway_ssh::sftp::normalise;
///
/// assert_eq!(normalise(b"../x//y/.", Some(b"/home/a")).unwrap(), b"/home/x/y");
/// assert_eq!(normalise(b"x", None), None);
/// ```
pub fn normalise(path: &[u8], start: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len() + 1);
    if !path.starts_with(b"/") {
        push_all(&mut out, start.filter(|start| start.starts_with(b"/"))?);
    }
    push_all(&mut out, path);
    if out.is_empty() {
        out.push(b'/');
    }
    Some(out)
}

/// The directory of a clean absolute path; the root's is the root.
pub fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b == b'/') {
        Some(0) | None => b"/",
        Some(at) => path.get(..at).unwrap_or(b"/"),
    }
}

/// The last component of a clean absolute path put into another directory.
pub fn join(directory: &[u8], path: &[u8]) -> Vec<u8> {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let mut out = directory.to_vec();
    if !out.ends_with(b"/") {
        out.push(b'/');
    }
    out.extend_from_slice(name);
    out
}

/// Whether `..` stands behind a name. What is before that name is then known only to a server: the name may be a link to a folder elsewhere.
pub(crate) fn goes_back(path: &[u8]) -> bool {
    let mut names = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.by_ref().any(|name| name != b"..") && names.any(|name| name == b"..")
}

fn push_all(out: &mut Vec<u8>, path: &[u8]) {
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => out.truncate(out.iter().rposition(|b| *b == b'/').unwrap_or(0)),
            name => {
                out.push(b'/');
                out.extend_from_slice(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_slashes_are_resolved() {
        for (path, clean) in [
            ("/", "/"),
            ("//", "/"),
            ("/..", "/"),
            ("/../../etc/./passwd", "/etc/passwd"),
            ("/a/b/../../c/", "/c"),
            ("", "/home/u"),
            (".", "/home/u"),
            ("..", "/home"),
            ("../../../..", "/"),
            ("x/../../v/y", "/home/v/y"),
            ("/a/...", "/a/..."),
        ] {
            assert_eq!(normalise(path.as_bytes(), Some(b"/home/u")).unwrap(), clean.as_bytes(), "{path}");
        }
        assert_eq!(normalise(b"x", Some(b"relative")), None);
    }

    #[test]
    fn texts_that_go_back_over_a_name() {
        for path in ["a/..", "/a/b/../c", "../a/./..", "./a//../.."] {
            assert!(goes_back(path.as_bytes()), "{path}");
        }
        for path in ["", "/", "..", "../../a", "/../a", "./../a/b", "a/.../b", "a/..b"] {
            assert!(!goes_back(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn parents_and_names() {
        assert_eq!(parent(b"/a/b"), b"/a");
        assert_eq!(parent(b"/a"), b"/");
        assert_eq!(parent(b"/"), b"/");
        assert_eq!(join(b"/x", b"/a/b"), b"/x/b");
        assert_eq!(join(b"/", b"/a/b"), b"/b");
    }
}
