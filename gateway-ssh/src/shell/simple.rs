//! The strict grammar: one simple command of literal words, and its canonical form.
//!
//! ```text
//! line  = *SP word *( 1*SP word ) *SP
//! word  = 1*( bare / "'" *quoted "'" / DQUOTE *double DQUOTE )
//! bare  = ALPHA / DIGIT / one of _ @ % + = : , . / -       (a word does not start with =)
//! quoted = 0x20-0x7e except '        double = 0x20-0x7e except " $ ` \ !
//! ```
//!
//! Nothing in it is expanded, joined or ended differently by any shell: no `$`, backquote, backslash, glob, brace, tilde,
//! comment, operator, control character or byte above 0x7e can stand outside quotes.

/// Longest line of this grammar, in bytes. Administrative commands are far shorter; longer ones are explained instead.
pub const MAX_BYTES: usize = 4096;

/// Reads a line of the strict grammar into its argv, program first. `None` if it is anything else.
///
/// The first word is refused when a shell could take it for something other than a program: an assignment (`X=1`), a reserved
/// word (quoted too: fish reads those as keywords), a job (`%1`), an option, an empty word.
///
/// ```
/// use gateway_ssh::shell::simple::parse;
///
/// assert_eq!(parse(b"systemctl status 'my unit'"), Some(vec!["systemctl".into(), "status".into(), "my unit".into()]));
/// assert_eq!(parse(b"rm -rf $HOME"), None);
/// ```
pub fn parse(line: &[u8]) -> Option<Vec<String>> {
    if line.len() > MAX_BYTES {
        return None;
    }
    let mut rest = skip_blanks(line);
    let mut argv = Vec::new();
    while !rest.is_empty() {
        let (word, after) = word(rest)?;
        argv.push(word);
        rest = skip_blanks(after);
    }
    argv.first().is_some_and(|first| is_program(first)).then_some(argv)
}

/// The canonical form of an argv: every word quoted, so that no shell expands anything or finds an alias or keyword in it.
///
/// `'`, `\` and `!` stand outside the quotes as `\'`, `\\` and `\!`: inside them fish reads `\` and csh `!` as special. Tests run
/// the result through dash, bash, zsh, ksh93, mksh, busybox ash, fish and tcsh (those that are installed) and compare the
/// argv that arrives.
///
/// A tab or newline (which the strict grammar never yields) stays inside the quotes; csh refuses a newline there.
/// `None` if a word holds any other byte outside 0x20-0x7e, for which nothing is proven.
pub fn canonical(argv: &[String]) -> Option<String> {
    let mut line = String::new();
    for word in argv {
        if !line.is_empty() {
            line.push(' ');
        }
        quote(word, &mut line)?;
    }
    Some(line)
}

/// Appends one quoted word. `None` if it holds a byte that [`canonical`] refuses.
pub(super) fn quote(word: &str, out: &mut String) -> Option<()> {
    if word.is_empty() {
        out.push_str("''");
    }
    let mut open = false;
    for byte in word.bytes() {
        if !is_printable(byte) && !matches!(byte, b'\t' | b'\n') {
            return None;
        }
        let bare = matches!(byte, b'\'' | b'\\' | b'!');
        if bare == open {
            out.push('\'');
            open = !open;
        }
        if bare {
            out.push('\\');
        }
        out.push(char::from(byte));
    }
    if open {
        out.push('\'');
    }
    Some(())
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|b| **b == b' ').count();
    line.get(blanks..).unwrap_or_default()
}

/// One word and what follows it.
fn word(line: &[u8]) -> Option<(String, &[u8])> {
    let mut text = String::new();
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b' ' => break,
            b'\'' | b'"' => quoted(byte, after, &mut text)?,
            // zsh replaces `=name` by the path of a command.
            b'=' if text.is_empty() => return None,
            _ if is_bare(byte) => {
                text.push(char::from(byte));
                after
            }
            _ => return None,
        };
    }
    Some((text, rest))
}

/// The text up to the closing quote and what follows it.
fn quoted<'a>(quote: u8, line: &'a [u8], text: &mut String) -> Option<&'a [u8]> {
    let end = line.iter().position(|b| *b == quote)?;
    let (inside, after) = line.split_at_checked(end)?;
    for &byte in inside {
        let special = quote == b'"' && matches!(byte, b'$' | b'`' | b'\\' | b'!');
        if special || !is_printable(byte) {
            return None;
        }
        text.push(char::from(byte));
    }
    after.get(1..)
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e)
}

const fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'_' | b'@' | b'%' | b'+' | b'=' | b':' | b',' | b'.' | b'/' | b'-')
}

/// Whether every shell takes this first word for a command.
pub(super) fn is_program(word: &str) -> bool {
    let odd_start = word.starts_with(['%', '-', '+', '@']);
    !word.is_empty() && !odd_start && !word.contains('=') && !RESERVED.contains(&word)
}

/// Reserved words of POSIX (XCU 2.4), bash, zsh, ksh, fish and csh, and builtins of fish and csh that take a block.
const RESERVED: &[&str] = &[
    "!",
    "and",
    "begin",
    "breaksw",
    "case",
    "coproc",
    "default",
    "do",
    "done",
    "elif",
    "else",
    "end",
    "endif",
    "endsw",
    "esac",
    "fi",
    "for",
    "foreach",
    "function",
    "goto",
    "if",
    "in",
    "namespace",
    "nocorrect",
    "noglob",
    "not",
    "onintr",
    "or",
    "repeat",
    "select",
    "switch",
    "then",
    "time",
    "until",
    "while",
    "[[",
    "]]",
    "{",
    "}",
    "((",
    "))",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Option<Vec<String>> {
        parse(line.as_bytes())
    }

    #[test]
    fn literal_words_are_read_exactly() {
        assert_eq!(argv("  ls  -la ").unwrap(), ["ls", "-la"]);
        assert_eq!(argv("a'b c'\"d e\"f").unwrap(), ["ab cd ef"]);
        assert_eq!(argv("ls ''").unwrap(), ["ls", ""]);
        assert_eq!(argv("echo '$x `y` \\ ! \"'").unwrap(), ["echo", "$x `y` \\ ! \""]);
    }

    #[test]
    fn everything_else_is_refused() {
        let not_simple = [
            "",
            " ",
            "X=1 ls",
            "''=x",
            "time ls",
            "! ls",
            "if x",
            "[[ x",
            "'if' x",
            "ls *",
            "ls ?",
            "ls [a]",
            "ls {a,b}",
            "ls ~",
            "ls #x",
            "ls;id",
            "ls&",
            "ls|id",
            "ls>x",
            "ls<x",
            "ls $x",
            "ls `id`",
            "ls \\x",
            "ls \"$x\"",
            "ls \"a!b\"",
            "ls 'a",
            "ls \"a",
            "ls\tx",
            "ls\nx",
            "ls\rx",
            "ls\0x",
            "l\u{e4}",
            "%1",
            "''",
            "-x",
            "ls 'a\nb'",
        ];
        for line in not_simple {
            assert_eq!(argv(line), None, "{line:?}");
        }
        assert_eq!(parse(&[b'a'; MAX_BYTES + 1]), None);
        assert_eq!(parse(b"ls \xff"), None);
    }

    #[test]
    fn canonical_words_keep_dangerous_characters_outside_quotes() {
        let argv = ["a b".to_owned(), "it's".to_owned(), "\\!".to_owned(), String::new()];
        assert_eq!(canonical(&argv).unwrap(), r"'a b' 'it'\''s' \\\! ''");
        assert_eq!(canonical(&["a\rb".to_owned()]), None);
    }
}
