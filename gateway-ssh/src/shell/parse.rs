//! From text to a syntax tree: limits first, then the parser.
//!
//! The parser crate is meant for a shell, not for hostile input: it recurses on nesting, retries some constructs from
//! the start (exponential in their depth), unwraps file descriptor numbers over 31 bits and caches texts globally in some
//! entry points. The limits here come before it; what it still might do wrong is caught and called a syntax error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use brush_parser::ast::Program;
use brush_parser::{ParseError, ParserOptions, Token};

use super::explain::{Findings, Scope};
use super::walk::Walk;
use super::{MAX_CODE_DEPTH, MAX_LINE_BYTES, MAX_OPENERS, Reason, Risk};

/// Constructs the parser reads twice or more when they fail: each level may double the work.
const MAX_RETRIED: usize = 4;
/// What one here-document counts for among the openers: the tokenizer reads those in substitutions again at every level.
const HERE_DOCUMENT_OPENERS: usize = 8;
/// A file descriptor in a redirection; longer numbers do not fit the parser's type.
const MAX_FD_DIGITS: usize = 6;

/// Reads a whole line; gives its canonical form.
pub(super) fn line(findings: &mut Findings, line: &[u8], scope: &Scope) -> Option<String> {
    let Ok(text) = std::str::from_utf8(line) else {
        findings.risk(Risk::OddBytes);
        findings.unresolved(Reason::OddBytes, "");
        return None;
    };
    code(findings, text, scope)
}

/// Reads shell code; gives its canonical form.
pub(super) fn code(findings: &mut Findings, text: &str, scope: &Scope) -> Option<String> {
    if text.len() > MAX_LINE_BYTES || openers(text) > MAX_OPENERS || scope.depth > MAX_CODE_DEPTH {
        findings.unresolved(Reason::TooLarge, text);
        return None;
    }
    let odd = text.contains(is_odd);
    if odd {
        findings.risk(Risk::OddBytes);
        findings.unresolved(Reason::OddBytes, text);
    }
    let program = match catch_unwind(AssertUnwindSafe(|| parse(text))) {
        Ok(Ok(program)) => program,
        Ok(Err(reason)) => {
            if matches!(reason, Reason::Dialect) {
                findings.risk(Risk::Dialect);
            }
            findings.unresolved(reason, text);
            return None;
        }
        Err(_) => {
            findings.unresolved(Reason::Syntax, text);
            return None;
        }
    };
    if program.complete_commands.is_empty() {
        findings.unresolved(Reason::Empty, text);
    }
    Walk::new(findings, scope.clone()).program(&program).filter(|_| !odd)
}

/// A carriage return, a no-break space or a look-alike letter: shells, locales and readers differ about them.
fn is_odd(c: char) -> bool {
    !matches!(c, ' '..='~' | '\t' | '\n')
}

fn parse(text: &str) -> Result<Program, Reason> {
    let options = ParserOptions { enable_extended_globbing: false, ..ParserOptions::default() };
    let tokens = brush_parser::uncached_tokenize_str(text, &options.tokenizer_options())
        .map_err(|_| Reason::Syntax)?;
    check(&tokens)?;
    brush_parser::parse_tokens(&tokens, &options).map_err(|_| Reason::Syntax)
}

/// See [`super::is_unfinished`]. What is over the limits is not: it is refused as it stands.
pub(super) fn is_unfinished(text: &str) -> bool {
    if text.len() > MAX_LINE_BYTES || openers(text) > MAX_OPENERS {
        return false;
    }
    let backslashes = text.bytes().rev().take_while(|b| *b == b'\\').count();
    backslashes % 2 == 1 || catch_unwind(AssertUnwindSafe(|| ends_early(text))).unwrap_or(false)
}

fn ends_early(text: &str) -> bool {
    let options = ParserOptions { enable_extended_globbing: false, ..ParserOptions::default() };
    match brush_parser::uncached_tokenize_str(text, &options.tokenizer_options()) {
        Err(error) => error.is_incomplete(),
        Ok(tokens) => {
            check(&tokens).is_ok()
                && matches!(
                    brush_parser::parse_tokens(&tokens, &options),
                    Err(ParseError::ParsingAtEndOfInput)
                )
        }
    }
}

/// Refuses token sequences that the parser takes too long for, panics on, or recurses on until the stack is full, which
/// cannot be caught.
fn check(tokens: &[Token]) -> Result<(), Reason> {
    let count =
        |text: &str| tokens.iter().filter(|t| matches!(t, Token::Word(word, _) if word == text)).count();
    // A test's own grammar recurses on `!`, `&&` and `||`, and it never has a canonical form.
    if count("[[") > 0 {
        return Err(Reason::Dialect);
    }
    if count("!") > MAX_OPENERS {
        return Err(Reason::TooLarge);
    }
    let mut retried = 0;
    for pair in tokens.windows(2) {
        let [first, second] = pair else { continue };
        retried += usize::from(is_retried(first, second));
        if is_long_number(first) && matches!(second, Token::Operator(..)) {
            return Err(Reason::Syntax);
        }
    }
    if retried > MAX_RETRIED { Err(Reason::TooLarge) } else { Ok(()) }
}

fn is_retried(first: &Token, second: &Token) -> bool {
    match (first, second) {
        (Token::Word(word, _), _)
            if matches!(word.as_str(), "case" | "for" | "function" | "coproc" | "[[") =>
        {
            true
        }
        (Token::Operator(a, _), Token::Operator(b, _)) => b == "(" && matches!(a.as_str(), "(" | "<" | ">"),
        (Token::Word(..), Token::Operator(operator, _)) => operator == "(",
        _ => false,
    }
}

fn is_long_number(token: &Token) -> bool {
    matches!(token, Token::Word(word, _) if word.len() > MAX_FD_DIGITS && word.bytes().all(|b| b.is_ascii_digit()))
}

/// Counts what the parser or tokenizer may recurse on, wherever it stands; quoted brackets count too.
fn openers(text: &str) -> usize {
    let brackets = text.bytes().filter(|b| matches!(b, b'(' | b'{' | b'[' | b'`')).count();
    let documents = text.matches("<<").count() * HERE_DOCUMENT_OPENERS;
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    brackets
        + documents
        + words.filter(|w| matches!(*w, "if" | "for" | "while" | "until" | "case" | "select" | "do")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_go_on_until_the_grammar_is_satisfied() {
        for open in [
            "echo 'a",
            "echo \"a",
            "echo a \\",
            "echo $(id",
            "if true",
            "if true; then",
            "for x in a; do",
            "a |",
            "a &&",
            "{ a;",
            "(a",
            "cat <<E\nx",
        ] {
            assert!(is_unfinished(open), "{open:?}");
        }
        for whole in [
            "",
            "ls",
            "echo 'a\nb'",
            "if true; then a; fi",
            "a &",
            "cat <<E\nx\nE",
            "ls )",
            "echo a\\\\",
            "# it's",
        ] {
            assert!(!is_unfinished(whole), "{whole:?}");
        }
        assert!(!is_unfinished(&"(".repeat(MAX_OPENERS + 1)));
        assert!(!is_unfinished(&format!("'{}", "x".repeat(MAX_LINE_BYTES))));
    }
}
