//! What one word of the source text stands for: literal text, or something computed.
//!
//! The parser crate hands words out raw; its own word parser caches every text globally and panics on long numbers, so it is not
//! used.

use super::extent;
use super::{Reason, Risk};

/// A word taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// The literal text so far; meaningless once `computed`.
    pub(super) text: String,
    /// Whether any part is computed when it runs.
    pub(super) computed: bool,
    /// Commands inside substitutions.
    pub(super) code: Vec<String>,
    /// Kinds of construct met.
    pub(super) risks: Vec<Risk>,
    /// What could not be told.
    pub(super) reasons: Vec<Reason>,
}

impl Parts {
    /// Takes a word of a command apart.
    pub(super) fn of_word(source: &str) -> Self {
        let mut parts = Self::default();
        // `[` alone is a command, `{}` alone an argument of find: literal in every POSIX shell.
        if matches!(source, "[" | "]" | "{}" | "!" | "[[" | "]]") {
            source.clone_into(&mut parts.text);
            return parts;
        }
        if parts.unquoted(source).is_none() {
            parts.compute(Risk::Dialect, Reason::Syntax);
        }
        parts
    }

    /// Takes the text of an expanding here-document apart: only `$`, backquote and backslash are special.
    pub(super) fn of_here_document(source: &str) -> Self {
        let mut parts = Self::default();
        if parts.expanding(source, Quotes::None).is_none() {
            parts.compute(Risk::Dialect, Reason::Syntax);
        }
        parts
    }

    fn compute(&mut self, risk: Risk, reason: Reason) {
        self.computed = true;
        self.risks.push(risk);
        self.reasons.push(reason);
    }

    /// bash runs the substitutions in the *value* of a variable where it wants a number or a prompt: `$((x))`, `${a[x]}`, `${x@P}`.
    fn evaluate(&mut self) {
        self.compute(Risk::RunsCode, Reason::Substitution);
    }

    fn unquoted(&mut self, source: &str) -> Option<()> {
        let mut rest = source;
        let mut previous = None;
        while let Some(c) = rest.chars().next() {
            let after = rest.get(c.len_utf8()..)?;
            rest = match c {
                // XCU 2.6.1: at the start of a word; in assignments behind `=` and `:`, too.
                '~' if matches!(previous, None | Some('=' | ':')) => {
                    self.compute(Risk::Glob, Reason::ComputedWord);
                    after
                }
                '\'' => {
                    let (inside, after) = after.split_once('\'')?;
                    self.text.push_str(inside);
                    after
                }
                '"' => self.expanding(after, Quotes::Double)?,
                '\\' => self.escaped(after)?,
                '$' => self.dollar(after, Quotes::None)?,
                '`' => self.backquote(after)?,
                '*' | '?' | '[' => {
                    self.compute(Risk::Glob, Reason::ComputedWord);
                    after
                }
                '{' if after.contains(',') || after.contains("..") => {
                    // bash expands braces, dash does not.
                    self.compute(Risk::Glob, Reason::Dialect);
                    after
                }
                '(' | ')' | '<' | '>' | '|' | '&' | ';' => {
                    self.compute(Risk::Dialect, Reason::Dialect);
                    after
                }
                _ => {
                    self.text.push(c);
                    after
                }
            };
            previous = Some(c);
        }
        Some(())
    }

    /// Text up to the closing double quote (or the end, without quotes); gives what follows.
    fn expanding<'a>(&mut self, source: &'a str, quotes: Quotes) -> Option<&'a str> {
        let mut rest = source;
        while let Some(c) = rest.chars().next() {
            let after = rest.get(c.len_utf8()..)?;
            rest = match c {
                '"' if quotes == Quotes::Double => return Some(after),
                '\\' => self.escaped_in_quotes(after, quotes)?,
                '$' => self.dollar(after, Quotes::Double)?,
                '`' => self.backquote(after)?,
                _ => {
                    self.text.push(c);
                    after
                }
            };
        }
        (quotes == Quotes::None).then_some(rest)
    }

    /// XCU 2.2.1: a backslash keeps the next character literal; with a newline both vanish.
    fn escaped<'a>(&mut self, rest: &'a str) -> Option<&'a str> {
        let c = rest.chars().next()?;
        if c != '\n' {
            self.text.push(c);
        }
        rest.get(c.len_utf8()..)
    }

    /// XCU 2.2.3: in double quotes a backslash is literal unless `$`, backquote, `"`, backslash or newline follows.
    fn escaped_in_quotes<'a>(&mut self, rest: &'a str, quotes: Quotes) -> Option<&'a str> {
        let c = rest.chars().next()?;
        let special = matches!(c, '$' | '`' | '\\' | '\n') || (c == '"' && quotes == Quotes::Double);
        if !special {
            self.text.push('\\');
        }
        if c != '\n' {
            self.text.push(c);
        }
        rest.get(c.len_utf8()..)
    }

    fn dollar<'a>(&mut self, rest: &'a str, quotes: Quotes) -> Option<&'a str> {
        if let Some(inside) = rest.strip_prefix("((") {
            self.compute(Risk::Arithmetic, Reason::ComputedWord);
            let (text, after) = extent::bracketed(inside, '(', ')')?;
            if text
                .contains(|c: char| !(c.is_ascii_digit() || c.is_ascii_whitespace() || "+-*/%()".contains(c)))
            {
                self.evaluate();
            }
            self.nested(text)?;
            return after.strip_prefix(')');
        }
        if let Some(inside) = rest.strip_prefix('(') {
            let (text, after) = extent::bracketed(inside, '(', ')')?;
            return self.substitution(text.to_owned(), after);
        }
        if let Some(inside) = rest.strip_prefix('{') {
            self.compute(Risk::Variable, Reason::ComputedWord);
            let (text, after) = extent::bracketed(inside, '{', '}')?;
            if !only_shows(text) {
                self.evaluate();
            }
            self.nested(text)?;
            return Some(after);
        }
        self.plain_dollar(rest, quotes)
    }

    /// `$name`, `$1`, `$?`; `$'…'` and `$"…"`, which dash reads as a dollar sign; or a dollar sign.
    fn plain_dollar<'a>(&mut self, rest: &'a str, quotes: Quotes) -> Option<&'a str> {
        match rest.chars().next() {
            Some('\'' | '"') if quotes == Quotes::None => {
                self.compute(Risk::Dialect, Reason::Dialect);
                after_ansi(rest)
            }
            Some('[') => {
                self.compute(Risk::Dialect, Reason::Dialect);
                Some(rest)
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                self.compute(Risk::Variable, Reason::ComputedWord);
                Some(rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'))
            }
            Some(c) if c.is_ascii_digit() || "@*#?-$!".contains(c) => {
                self.compute(Risk::Variable, Reason::ComputedWord);
                rest.get(1..)
            }
            _ => {
                self.text.push('$');
                Some(rest)
            }
        }
    }

    fn backquote<'a>(&mut self, rest: &'a str) -> Option<&'a str> {
        let (text, after) = extent::backquoted(rest)?;
        self.substitution(text, after)
    }

    fn substitution<'a>(&mut self, code: String, after: &'a str) -> Option<&'a str> {
        self.compute(Risk::Substitution, Reason::Substitution);
        self.code.push(code);
        Some(after)
    }

    /// Substitutions inside `${…}` and `$((…))`. Quotes there follow rules of their own; reading them as double-quoted text finds
    /// every substitution outside single quotes, and the word is computed anyway.
    fn nested(&mut self, text: &str) -> Option<()> {
        self.expanding(text, Quotes::None).map(drop)
    }
}

/// Whether what stands in `${…}` is a parameter's value or length, or that with a word instead of it or without a part that matches a
/// pattern (XCU 2.6.2). Nothing else: not indirection, subscripts, offsets, transformations, or assignments.
fn only_shows(inside: &str) -> bool {
    let name = |text: &str| {
        text.len() - text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len()
    };
    let inside = inside
        .strip_prefix('#')
        .filter(|length| !length.is_empty() && name(length) == length.len())
        .unwrap_or(inside);
    let rest = match name(inside) {
        0 => inside.strip_prefix(['@', '*', '#', '?', '-', '$', '!']).filter(|rest| rest.is_empty()),
        length => inside.get(length..),
    };
    let operators = ["-", ":-", "+", ":+", "?", ":?", "%", "#"];
    rest.is_some_and(|rest| rest.is_empty() || operators.iter().any(|operator| rest.starts_with(operator)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Double,
}

/// Behind `'…'` with backslash escapes (`$'…'`), or at the `"` of `$"…"`.
fn after_ansi(rest: &str) -> Option<&str> {
    let Some(inside) = rest.strip_prefix('\'') else { return Some(rest) };
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()?),
            '\'' => return inside.get(at + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> Option<String> {
        let parts = Parts::of_word(source);
        (!parts.computed).then_some(parts.text)
    }

    #[test]
    fn quotes_and_backslashes_are_undone() {
        for (source, expected) in [
            (r"r\m", "rm"),
            (r"r''m", "rm"),
            (r#""a\$b\"c\\d\e""#, r#"a$b"c\d\e"#),
            (r"'a\'b", r"a\b"),
            ("a$", "a$"),
            ("[", "["),
            ("a\\\nb", "ab"),
            (r"\~x", "~x"),
            ("{}", "{}"),
            ("a=b", "a=b"),
            ("HEAD~1", "HEAD~1"),
            ("'a:~'", "a:~"),
        ] {
            assert_eq!(text(source).as_deref(), Some(expected), "{source}");
        }
    }

    #[test]
    fn computed_words_are_not_literal() {
        for source in [
            "$x", "${x:0:1}", "$(id)", "`id`", "$'\\x72'", "$\"x\"", "*", "/bin/r?", "[a]", "{a,b}",
            "a{1..3}", "~", "x=~", "x=a:~/b", "$((1+1))", "\"$x\"", "\"`id`\"", "$1", "$?", "$[1]",
            "\"${x}\"", "'", "\"", "$(", "`",
        ] {
            assert_eq!(text(source), None, "{source}");
        }
    }

    #[test]
    fn what_evaluates_the_values_of_variables_is_told_from_what_shows_them() {
        for source in [
            "$((x))",
            "$(($x))",
            "$((0x1))",
            "${y[x]}",
            "${x@P}",
            "${!x}",
            "${x:=a}",
            "${x=a}",
            "${x:1}",
            "${x:y}",
            "${x/a/b}",
            "${(e)x}",
            "${x:-${y@P}}",
            "\"${x@P}\"",
            "${x^}",
            "${}",
            "${#y[x]}",
        ] {
            assert!(Parts::of_word(source).reasons.contains(&Reason::Substitution), "{source}");
        }
        for source in [
            "$x",
            "${x}",
            "${#x}",
            "${1}",
            "${?}",
            "${#}",
            "${x:-a}",
            "${x+a}",
            "${x%.*}",
            "${x##*/}",
            "$((1 + 2 * (3)))",
            "*",
            "~",
        ] {
            assert_eq!(Parts::of_word(source).reasons.first(), Some(&Reason::ComputedWord), "{source}");
            assert!(!Parts::of_word(source).reasons.contains(&Reason::Substitution), "{source}");
        }
    }

    #[test]
    fn commands_in_substitutions_are_found_wherever_they_stand() {
        for source in
            ["$(id)", "\"$(id)\"", "`id`", "${x:-$(id)}", "$((1+$(id)))", "\"${x:-`id`}\"", "a$(id)b"]
        {
            assert_eq!(Parts::of_word(source).code, ["id"], "{source}");
        }
        assert_eq!(Parts::of_here_document("a \" $(id) \\$(no)").code, ["id"]);
    }
}
