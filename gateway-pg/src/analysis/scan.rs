//! A token scan that runs before the C parser: enforces limits, and refuses what would be read differently elsewhere.
//!
//! It follows PostgreSQL's lexer (`src/backend/parser/scan.l`) closely enough to find token borders, keeps no tree
//! and does not recurse. What it cannot follow is refused; what it accepts is parsed by the real grammar.

use super::{AnalysisError, LexSettings, Limits};

/// One token's place and rough class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) class: TokenClass,
}

/// Rough class of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenClass {
    /// Keyword or plain identifier.
    Word,
    /// `"identifier"`, `U&"identifier"`.
    Quoted,
    /// Any string constant: `'..'`, `E'..'`, `B'..'`, `X'..'`, `N'..'`, `U&'..'`, `$tag$..$tag$`.
    Text,
    /// A number.
    Number,
    /// `$1`.
    Parameter,
    /// An operator of one or more characters.
    Operator,
    /// One of `( ) [ ] , ; : .` or `::`, `:=`, `..`.
    Punctuation,
}

/// Scans the whole text, handing every token to `each`, and enforces the limits.
pub(super) fn scan(
    text: &str,
    settings: &LexSettings,
    limits: &Limits,
    mut each: impl FnMut(Token),
) -> Result<(), AnalysisError> {
    check_bytes(text, limits)?;
    let mut lexer = Lexer { bytes: text.as_bytes(), at: 0, settings, limits };
    let mut shape = Shape::new(limits);
    let mut grammar = Grammar::new(settings.server_version_num);
    while let Some(token) = lexer.next_token()? {
        shape.take(text, token)?;
        grammar.take(text, token)?;
        each(token);
    }
    Ok(())
}

/// The version that made `SYSTEM_USER` a reserved word; before, it is a name like any other.
const SYSTEM_USER_SINCE: u32 = 160_000;

/// Words with a grammar of their own in front of `(`, and the first version that has it (PostgreSQL documentation, "SQL Key Words", and
/// release notes): before, they are the names of functions, looked up on the search path.
const CALLED_SINCE: [(&str, u32); 13] = [
    ("json", 170_000),
    ("json_array", 160_000),
    ("json_arrayagg", 160_000),
    ("json_exists", 170_000),
    ("json_object", 160_000),
    ("json_objectagg", 160_000),
    ("json_query", 170_000),
    ("json_scalar", 170_000),
    ("json_serialize", 170_000),
    ("json_table", 170_000),
    ("json_value", 170_000),
    ("merge_action", 170_000),
    ("normalize", 130_000),
];

/// Refuses words that the parser's grammar knows and the server's does not.
struct Grammar {
    version: u32,
    /// The token before is a dot: what follows is a name everywhere.
    qualified: bool,
    /// The token before is one of [`CALLED_SINCE`], and where it stands.
    word: Option<usize>,
}

impl Grammar {
    const fn new(version: u32) -> Self {
        Self { version, qualified: false, word: None }
    }

    fn take(&mut self, text: &str, token: Token) -> Result<(), AnalysisError> {
        let written = text.get(token.start..token.end).unwrap_or_default();
        if let Some(offset) = self.word.take().filter(|_| written == "(") {
            let what = "a call without a schema of a function that is part of the grammar of newer versions";
            return Err(AnalysisError::VersionDependent { what, offset });
        }
        if token.class == TokenClass::Word {
            self.word(written, token.start)?;
        }
        self.qualified = written == ".";
        Ok(())
    }

    fn word(&mut self, written: &str, offset: usize) -> Result<(), AnalysisError> {
        if self.version < SYSTEM_USER_SINCE && written.eq_ignore_ascii_case("system_user") {
            return Err(AnalysisError::VersionDependent { what: "`system_user` without quotes", offset });
        }
        let newer = |(word, since): &(&str, u32)| self.version < *since && written.eq_ignore_ascii_case(word);
        self.word = (!self.qualified && CALLED_SINCE.iter().any(newer)).then_some(offset);
        Ok(())
    }
}

fn check_bytes(text: &str, limits: &Limits) -> Result<(), AnalysisError> {
    if text.len() > limits.statement_bytes {
        return Err(AnalysisError::TooLong { bytes: text.len(), limit: limits.statement_bytes });
    }
    match memchr::memchr(0, text.as_bytes()) {
        Some(offset) => Err(AnalysisError::ZeroByte { offset }),
        None => Ok(()),
    }
}

/// The longest name beyond ASCII in databases that are not UTF8, in bytes of UTF-8. 31: twice that, which no encoding takes more than,
/// still fits into the server's 63 (`NAMEDATALEN`).
const MAX_OTHER_NAME_BYTES: usize = 31;

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    settings: &'a LexSettings,
    limits: &'a Limits,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        // 0 stands for the end: the text holds no zero byte.
        self.bytes.get(self.at.saturating_add(ahead)).copied().unwrap_or(0)
    }

    fn next_token(&mut self) -> Result<Option<Token>, AnalysisError> {
        self.skip_space()?;
        let start = self.at;
        if start >= self.bytes.len() {
            return Ok(None);
        }
        let class = self.token()?;
        Ok(Some(Token { start, end: self.at, class }))
    }

    fn skip_space(&mut self) -> Result<(), AnalysisError> {
        loop {
            match (self.peek(0), self.peek(1)) {
                // Not \v: white space from server version 16 on, an error before.
                (b' ' | b'\t' | b'\n' | b'\r' | b'\x0c', _) => self.at += 1,
                (b'-', b'-') => self.skip_line(),
                (b'/', b'*') => self.skip_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    fn skip_comment(&mut self) -> Result<(), AnalysisError> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                    if depth > self.limits.comment_depth {
                        return Err(AnalysisError::TooDeep { what: "comments", offset: start });
                    }
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (0, _) => return Err(AnalysisError::Unterminated { what: "comment", offset: start }),
                _ => self.at += 1,
            }
        }
    }

    fn token(&mut self) -> Result<TokenClass, AnalysisError> {
        let (first, second, third) = (self.peek(0), self.peek(1), self.peek(2));
        match (first, second, third) {
            (b'\'', _, _) => self.string(0, !self.settings.standard_conforming_strings),
            (b'e' | b'E', b'\'', _) => self.string(1, true),
            (b'b' | b'B' | b'x' | b'X', b'\'', _) => self.string(1, false),
            (b'n' | b'N', b'\'', _) => self.string(1, !self.settings.standard_conforming_strings),
            (b'u' | b'U', b'&', b'\'') => self.unicode_string(),
            (b'u' | b'U', b'&', b'"') => self.quoted(2),
            (b'"', _, _) => self.quoted(0),
            (b'$', _, _) => self.dollar(),
            (b'0'..=b'9', _, _) | (b'.', b'0'..=b'9', _) => self.number(),
            _ if is_word_start(first) => self.word(),
            _ if is_operator(first) => Ok(self.operator()),
            _ => self.punctuation(),
        }
    }

    fn unicode_string(&mut self) -> Result<TokenClass, AnalysisError> {
        if self.settings.standard_conforming_strings {
            return self.string(2, false);
        }
        Err(AnalysisError::VersionDependent {
            what: "U&'..' without standard_conforming_strings",
            offset: self.at,
        })
    }

    /// A string constant with `prefix` bytes before its quote, continued over newlines in the same mode.
    fn string(&mut self, prefix: usize, escapes: bool) -> Result<TokenClass, AnalysisError> {
        let start = self.at;
        self.at += prefix + 1;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(step) = memchr::memchr2(b'\'', b'\\', rest) else {
                return Err(AnalysisError::Unterminated { what: "string", offset: start });
            };
            self.at += step;
            match (self.peek(0), self.peek(1)) {
                (b'\\', b'\'') if escapes && !self.settings.backslash_quote => {
                    return Err(AnalysisError::VersionDependent { what: "\\' in a string", offset: self.at });
                }
                (b'\\', _) if escapes => self.at += 2,
                (b'\\', _) => self.at += 1,
                (_, b'\'') => self.at += 2,
                _ => {
                    self.at += 1;
                    if !self.continues() {
                        return Ok(TokenClass::Text);
                    }
                }
            }
        }
    }

    /// Moves behind the quote that continues the string, if there is one: white space with a newline, then a quote.
    fn continues(&mut self) -> bool {
        let (before, mut newline) = (self.at, false);
        loop {
            match (self.peek(0), self.peek(1)) {
                (b'\n' | b'\r', _) => {
                    newline = true;
                    self.at += 1;
                }
                (b' ' | b'\t' | b'\x0c', _) => self.at += 1,
                (b'-', b'-') => self.skip_line(),
                (b'\'', _) if newline => {
                    self.at += 1;
                    return true;
                }
                _ => {
                    self.at = before;
                    return false;
                }
            }
        }
    }

    fn quoted(&mut self, prefix: usize) -> Result<TokenClass, AnalysisError> {
        let start = self.at;
        self.at += prefix + 1;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(step) = memchr::memchr(b'"', rest) else {
                return Err(AnalysisError::Unterminated { what: "quoted identifier", offset: start });
            };
            self.at += step + 1;
            if self.peek(0) != b'"' {
                return self.same_length(start, prefix);
            }
            self.at += 1;
        }
    }

    /// Refuses a name that may be longer than 63 bytes in one encoding and not in the other, and so be cut at another place.
    fn same_length(&self, start: usize, prefix: usize) -> Result<TokenClass, AnalysisError> {
        let written = self.bytes.get(start..self.at).unwrap_or_default();
        // What `U&` stands for is not looked at: it is no longer than what is written.
        let plain = prefix == 0 && written.is_ascii();
        if self.settings.other_encoding && !plain && written.len() > MAX_OTHER_NAME_BYTES + prefix + 2 {
            let what = "a long quoted name with letters beyond ASCII";
            return Err(AnalysisError::VersionDependent { what, offset: start });
        }
        Ok(TokenClass::Quoted)
    }

    fn dollar(&mut self) -> Result<TokenClass, AnalysisError> {
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            self.skip_while(|byte| byte.is_ascii_digit());
            return self.no_junk(TokenClass::Parameter, "a name right after a parameter");
        }
        self.dollar_quoted()
    }

    fn dollar_quoted(&mut self) -> Result<TokenClass, AnalysisError> {
        let start = self.at;
        self.at += 1;
        if is_word_start(self.peek(0)) {
            self.skip_while(|byte| is_word_start(byte) || byte.is_ascii_digit());
        }
        if self.peek(0) != b'$' {
            return Err(AnalysisError::Unexpected { byte: b'$', offset: start });
        }
        self.at += 1;
        let tag = self.bytes.get(start..self.at).unwrap_or_default();
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(step) = memchr::memmem::find(rest, tag) else {
            return Err(AnalysisError::Unterminated { what: "dollar-quoted string", offset: start });
        };
        self.at += step + tag.len();
        Ok(TokenClass::Text)
    }

    fn number(&mut self) -> Result<TokenClass, AnalysisError> {
        let start = self.at;
        if self.peek(0) == b'0' && self.peek(1).is_ascii_alphabetic() && !matches!(self.peek(1), b'e' | b'E')
        {
            return self.radix_number(start);
        }
        self.digits(start)?;
        // `1..10` is a range in PL/pgSQL: the number ends before the dots.
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            self.at += 1;
            self.digits(start)?;
        }
        self.exponent(start)?;
        self.no_junk(TokenClass::Number, "a name right after a number")
    }

    fn radix_number(&mut self, start: usize) -> Result<TokenClass, AnalysisError> {
        let known = matches!(self.peek(1), b'x' | b'X' | b'o' | b'O' | b'b' | b'B');
        if !known || !self.modern_numbers() {
            return Err(AnalysisError::VersionDependent { what: "a letter right after 0", offset: start });
        }
        self.at += 2;
        self.skip_while(|byte| byte.is_ascii_hexdigit() || byte == b'_');
        self.no_junk(TokenClass::Number, "a name right after a number")
    }

    fn digits(&mut self, start: usize) -> Result<(), AnalysisError> {
        self.skip_while(|byte| byte.is_ascii_digit());
        while self.peek(0) == b'_' && self.peek(1).is_ascii_digit() {
            if !self.modern_numbers() {
                return Err(AnalysisError::VersionDependent { what: "`_` in a number", offset: start });
            }
            self.at += 1;
            self.skip_while(|byte| byte.is_ascii_digit());
        }
        Ok(())
    }

    fn exponent(&mut self, start: usize) -> Result<(), AnalysisError> {
        if !matches!(self.peek(0), b'e' | b'E') {
            return Ok(());
        }
        let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
        if !self.peek(1 + sign).is_ascii_digit() {
            return Err(AnalysisError::VersionDependent {
                what: "a name right after a number",
                offset: start,
            });
        }
        self.at += 1 + sign;
        self.digits(start)
    }

    /// Server version 14 and older read `123abc` as a number and an alias, later ones refuse it.
    fn no_junk(&self, class: TokenClass, what: &'static str) -> Result<TokenClass, AnalysisError> {
        if is_word_start(self.peek(0)) {
            return Err(AnalysisError::VersionDependent { what, offset: self.at });
        }
        Ok(class)
    }

    /// `1_000`, `0x10`, `0o7`, `0b1` are numbers from server version 16 on.
    fn modern_numbers(&self) -> bool {
        self.settings.server_version_num >= 160_000
    }

    fn word(&mut self) -> Result<TokenClass, AnalysisError> {
        let start = self.at;
        self.skip_while(|byte| is_word_start(byte) || byte.is_ascii_digit() || byte == b'$');
        let written = self.bytes.get(start..self.at).unwrap_or_default();
        if self.settings.other_encoding && !written.is_ascii() {
            let what = "a name with letters beyond ASCII that is not quoted";
            return Err(AnalysisError::VersionDependent { what, offset: start });
        }
        Ok(TokenClass::Word)
    }

    fn operator(&mut self) -> TokenClass {
        while is_operator(self.peek(0))
            && !matches!((self.peek(0), self.peek(1)), (b'-', b'-') | (b'/', b'*'))
        {
            self.at += 1;
        }
        TokenClass::Operator
    }

    fn punctuation(&mut self) -> Result<TokenClass, AnalysisError> {
        let length = match (self.peek(0), self.peek(1)) {
            (b':', b':' | b'=') | (b'.', b'.') => 2,
            (b'(' | b')' | b'[' | b']' | b',' | b';' | b':' | b'.', _) => 1,
            (byte, _) => return Err(AnalysisError::Unexpected { byte, offset: self.at }),
        };
        self.at += length;
        Ok(TokenClass::Punctuation)
    }

    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        while self.at < self.bytes.len() && keep(self.peek(0)) {
            self.at += 1;
        }
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_operator(byte: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&byte)
}

/// Counts what makes a tree deep: open brackets and chains of operators.
struct Shape<'a> {
    limits: &'a Limits,
    tokens: usize,
    statements: usize,
    levels: Vec<Level>,
}

/// One open bracket or `CASE`, and the chains counted directly inside it.
#[derive(Default)]
struct Level {
    case: bool,
    operators: usize,
    joins: usize,
}

impl<'a> Shape<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self { limits, tokens: 0, statements: 0, levels: vec![Level::default()] }
    }

    fn take(&mut self, text: &str, token: Token) -> Result<(), AnalysisError> {
        self.tokens += 1;
        if self.tokens > self.limits.tokens {
            return Err(AnalysisError::TooManyTokens { limit: self.limits.tokens });
        }
        let written = text.get(token.start..token.end).unwrap_or_default();
        match token.class {
            TokenClass::Punctuation => self.punctuation(written, token.start),
            TokenClass::Operator => self.chain(token.start),
            TokenClass::Word => self.word(written, token.start),
            TokenClass::Quoted | TokenClass::Text | TokenClass::Number | TokenClass::Parameter => Ok(()),
        }
    }

    fn punctuation(&mut self, written: &str, offset: usize) -> Result<(), AnalysisError> {
        match written {
            "(" | "[" => self.open(false, offset),
            ")" | "]" => {
                self.close();
                Ok(())
            }
            "::" => self.chain(offset),
            "," => {
                self.end_chain();
                Ok(())
            }
            ";" => self.end_statement(offset),
            _ => Ok(()),
        }
    }

    fn word(&mut self, written: &str, offset: usize) -> Result<(), AnalysisError> {
        let is = |keywords: &[&str]| keywords.iter().any(|keyword| written.eq_ignore_ascii_case(keyword));
        if !(2..=10).contains(&written.len()) {
            return Ok(());
        }
        if is(&["case"]) {
            return self.open(true, offset);
        }
        if is(&["end"]) && self.levels.last().is_some_and(|level| level.case) {
            self.levels.pop();
        } else if is(&["and", "or", "when", "then", "else", "select", "from", "where", "values"]) {
            self.end_chain();
        } else if is(&["union", "intersect", "except", "join"]) {
            return self.join(offset);
        } else if is(&[
            "not", "is", "isnull", "notnull", "collate", "at", "like", "ilike", "similar", "between", "in",
        ]) {
            return self.chain(offset);
        }
        Ok(())
    }

    fn open(&mut self, case: bool, offset: usize) -> Result<(), AnalysisError> {
        self.levels.push(Level { case, ..Level::default() });
        if self.levels.len() > self.limits.nesting {
            return Err(AnalysisError::TooDeep { what: "brackets and case", offset });
        }
        Ok(())
    }

    /// Closes a bracket and whatever `CASE` is still open inside it; the parser complains about what is unbalanced.
    fn close(&mut self) {
        while self.levels.pop_if(|level| level.case).is_some() {}
        self.levels.pop();
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
    }

    fn chain(&mut self, offset: usize) -> Result<(), AnalysisError> {
        let limit = self.limits.chain;
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        level.operators += 1;
        if level.operators > limit {
            Err(AnalysisError::TooDeep { what: "chained operators", offset })
        } else {
            Ok(())
        }
    }

    fn join(&mut self, offset: usize) -> Result<(), AnalysisError> {
        let limit = self.limits.chain;
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        level.operators = 0;
        level.joins += 1;
        if level.joins > limit {
            Err(AnalysisError::TooDeep { what: "joins and set operations", offset })
        } else {
            Ok(())
        }
    }

    fn end_chain(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.operators = 0;
        }
    }

    fn end_statement(&mut self, offset: usize) -> Result<(), AnalysisError> {
        if let Some(level) = self.levels.last_mut() {
            *level = Level { case: level.case, ..Level::default() };
        }
        self.statements += 1;
        if self.statements > self.limits.statements {
            return Err(AnalysisError::TooManyStatements { limit: self.limits.statements, offset });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens_under(text: &str, settings: LexSettings) -> Result<Vec<(TokenClass, String)>, AnalysisError> {
        let mut tokens = Vec::new();
        scan(text, &settings, &Limits::default(), |token| {
            tokens.push((token.class, text[token.start..token.end].to_owned()));
        })?;
        Ok(tokens)
    }

    fn tokens(text: &str) -> Vec<String> {
        tokens_under(text, LexSettings::default()).expect("scan").into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn strings_end_where_the_server_ends_them() {
        assert_eq!(tokens(r"select 'a\' , 'b'"), ["select", r"'a\'", ",", "'b'"]);
        assert_eq!(tokens(r"e'a\'b' c"), [r"e'a\'b'", "c"]);
        assert_eq!(tokens("'it''s' x"), ["'it''s'", "x"]);
        assert_eq!(tokens("e'a' -- c '\n 'b\\'' c"), ["e'a' -- c '\n 'b\\''", "c"]);
        assert_eq!(tokens("'a' 'b'"), ["'a'", "'b'"]);
        assert_eq!(tokens("$a$ $b$ ' $a$ x"), ["$a$ $b$ ' $a$", "x"]);
        assert_eq!(tokens("a$1$ $$;$$"), ["a$1$", "$$;$$"]);
        assert_eq!(tokens("U&\"d\"\"x\" u&'y'"), ["U&\"d\"\"x\"", "u&'y'"]);
        let off = LexSettings { standard_conforming_strings: false, ..LexSettings::default() };
        assert_eq!(tokens_under(r"'a\' , ' x", off).expect("scan")[0].1, r"'a\' , '");
    }

    #[test]
    fn names_that_only_some_encodings_fold_are_refused_there() {
        let one = LexSettings { other_encoding: true, ..LexSettings::default() };
        for text in ["select secr\u{e8}t", "S\u{c9}", "a.\u{c0}b", "x \u{20ac}"] {
            assert!(tokens_under(text, LexSettings::default()).is_ok(), "{text}");
            assert!(matches!(tokens_under(text, one), Err(AnalysisError::VersionDependent { .. })), "{text}");
        }
        for text in
            ["select \"SECR\u{c8}T\"", "'\u{e9}'", "$$\u{e9}$$", "-- \u{e9}\n a", "/* \u{e9} */ SECRET"]
        {
            assert!(tokens_under(text, one).is_ok(), "{text}");
        }
    }

    #[test]
    fn comments_nest_and_cut_operators() {
        assert_eq!(tokens("a /* /* ; */ ' */ b -- ;\n c"), ["a", "b", "c"]);
        assert_eq!(tokens("1+/*x*/2"), ["1", "+", "2"]);
        assert_eq!(tokens("a||--x\nb"), ["a", "||", "b"]);
    }

    #[test]
    fn numbers_that_versions_read_differently_are_refused() {
        let modern = LexSettings { server_version_num: 170_000, ..LexSettings::default() };
        let old = LexSettings { server_version_num: 150_018, ..LexSettings::default() };
        for text in ["1_000", "0x10", "0b1", "0o17"] {
            assert_eq!(tokens_under(text, modern).expect(text).len(), 1, "{text}");
            assert!(matches!(tokens_under(text, old), Err(AnalysisError::VersionDependent { .. })), "{text}");
        }
        for text in ["123abc", "0y1", "1e", "1.5e+", "$1a", "1_", "0x1g"] {
            assert!(
                matches!(tokens_under(text, modern), Err(AnalysisError::VersionDependent { .. })),
                "{text}"
            );
        }
        assert_eq!(tokens("1.5e-3 .5 1. 1..10"), ["1.5e-3", ".5", "1.", "1", "..", "10"]);
    }

    #[test]
    fn long_names_are_refused_where_the_server_may_cut_them_elsewhere() {
        let other = LexSettings { other_encoding: true, ..LexSettings::default() };
        let (short, long) = ("é".repeat(15), "é".repeat(31));
        for (name, fine) in [
            (format!("\"{short}\""), true),
            (format!("\"{long}xa\""), false),
            (format!("\"{short}xa\""), false),
            (format!("U&\"{}xa\"", "\\00e9".repeat(31)), false),
            (format!("u&\"{}\"", "!00e9".repeat(6)), true),
            (format!("\"{}\"", "x".repeat(70)), true),
            (format!("\"{short}\"\"\""), false),
            (short.clone(), false),
        ] {
            let text = format!("SELECT 1 AS {name}");
            assert_eq!(tokens_under(&text, other).is_ok(), fine, "{name}");
            assert!(tokens_under(&text, LexSettings::default()).is_ok(), "{name}");
        }
    }

    #[test]
    fn words_that_only_the_grammar_knows_are_refused() {
        let at = |server_version_num| LexSettings { server_version_num, ..LexSettings::default() };
        let refused = |text: &str, version: u32| {
            matches!(tokens_under(text, at(version)), Err(AnalysisError::VersionDependent { .. }))
        };
        for (text, since) in [
            ("SELECT system_user", 160_000),
            ("SELECT t.System_User FROM t", 160_000),
            ("SELECT json_array ('x')", 160_000),
            ("SELECT JSON_Object/* */\n('x')", 160_000),
            ("SELECT a, json_value(b, '$')", 170_000),
            ("MERGE INTO t USING s ON a = b WHEN MATCHED THEN DELETE RETURNING merge_action()", 170_000),
            ("SELECT json('x')", 170_000),
            ("SELECT normalize(a)", 130_000),
        ] {
            assert!(refused(text, 0), "{text}");
            assert!(refused(text, since - 1), "{text}");
            assert!(!refused(text, since), "{text}");
        }
        for text in [
            "SELECT \"system_user\", \"json_value\"('x')",
            "SELECT pg_catalog.json_object('{a,b}'), s . json_value (1)",
            "SELECT json_value, a::json, json '{}', '(' FROM t",
            "SELECT json_build_object(1, 2), json_array_length(a), 'system_user'",
        ] {
            assert!(!refused(text, 0), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        for text in ["'a", "\"a", "/* a", "$$a", "$x y", "\\d", "{", "a\u{b}b", "e'\\'"] {
            assert!(tokens_under(text, LexSettings::default()).is_err(), "{text}");
        }
        assert!(matches!(
            tokens_under("a\0", LexSettings::default()),
            Err(AnalysisError::ZeroByte { offset: 1 })
        ));
    }
}
