//! Where `$(…)`, `${…}`, `$((…))` and backquotes end. Says nothing when it cannot be sure.

/// The text between the brackets and what follows the closing one. `rest` starts behind the opening bracket.
///
/// `None` if there is no end, or if the text holds a comment, here-document or `case` whose brackets do not pair up by counting.
pub(super) fn bracketed(rest: &str, open: char, close: char) -> Option<(&str, &str)> {
    let end = end_of(rest, open, close)?;
    let (inside, after) = rest.split_at_checked(end)?;
    let countable = close == '}' || !(inside.contains("<<") || inside.contains('#') || has_case(inside));
    countable.then(|| (inside, after.strip_prefix(close).unwrap_or(after)))
}

/// The text between backquotes with its backslashes undone, and what follows. `rest` starts behind the opening backquote.
pub(super) fn backquoted(rest: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '`' => return Some((text, rest.get(at + 1..)?)),
            '\\' => unescape(chars.next()?.1, &mut text),
            _ => text.push(c),
        }
    }
    None
}

/// XCU 2.6.3: within backquotes a backslash is literal unless `$`, backquote or backslash follows.
fn unescape(c: char, text: &mut String) {
    if !matches!(c, '$' | '`' | '\\') {
        text.push('\\');
    }
    text.push(c);
}

fn has_case(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "case")
}

/// Index of the closing bracket. Double quotes and single quotes hide brackets; inside double quotes substitutions count again.
fn end_of(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0_usize;
    let mut double = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()?),
            '`' => skip_backquoted(&mut chars)?,
            '"' => double = !double,
            '\'' if !double => drop(chars.find(|(_, c)| *c == '\'')?),
            // A bracket inside double quotes may be literal or belong to a nested substitution: not told apart here.
            _ if double && (c == open || c == close) => return None,
            _ if c == open => depth += 1,
            _ if c == close && depth == 0 => return Some(at),
            _ if c == close => depth -= 1,
            _ => {}
        }
    }
    None
}

fn skip_backquoted(chars: &mut std::str::CharIndices<'_>) -> Option<()> {
    loop {
        match chars.next()?.1 {
            '\\' => drop(chars.next()?),
            '`' => return Some(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_pair_up_outside_quotes() {
        assert_eq!(bracketed("a (b) 'c)' d) e", '(', ')'), Some(("a (b) 'c)' d", " e")));
        assert_eq!(bracketed("x}y", '{', '}'), Some(("x", "y")));
        assert_eq!(bracketed("a", '(', ')'), None);
    }

    #[test]
    fn what_cannot_be_counted_is_not_guessed() {
        for text in ["case x in a) ;; esac)", "# )\n)", "cat <<E\n)\nE\n)", "\")\")", "`)"] {
            assert_eq!(bracketed(text, '(', ')'), None, "{text:?}");
        }
    }

    #[test]
    fn backquotes_undo_one_level_of_backslashes() {
        assert_eq!(backquoted(r"echo \`id\` \n` x"), Some((r"echo `id` \n".to_owned(), " x")));
        assert_eq!(backquoted("id"), None);
    }
}
