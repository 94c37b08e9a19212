//! Texts for records and lists: with literals masked, with constants taken out, and a fingerprint.

use pg_query::{FingerprintOptions, ParserOptions};

use super::scan::{Token, TokenClass, scan};
use super::{AnalysisError, LexSettings, Limits};

/// What stands in place of a masked string.
const MASK: &str = "'***'";

/// What stands in place of a masked number.
const MASKED_NUMBER: &str = "0";

/// The text with every string constant replaced by `'***'`, every number by `0` and comments dropped, for records of statements
/// whose literals are secrets (see [`super::Flags::password`]). Works on texts that do not parse, as long as they scan.
///
/// # Errors
/// As the scan of [`super::analyse`]; the caller then records no text at all.
pub fn mask_literals(text: &str, settings: &LexSettings, limits: &Limits) -> Result<String, AnalysisError> {
    replace(text, settings, limits, |token| match token.class {
        TokenClass::Text => Some(MASK),
        TokenClass::Number => Some(MASKED_NUMBER),
        _ => None,
    })
}

/// The text with every constant replaced by `?`, comments dropped and white space made single spaces: equal for
/// statements that differ only in constants. For lists and statistics, not for decisions.
///
/// # Errors
/// As the scan of [`super::analyse`].
pub fn normalise(text: &str, settings: &LexSettings, limits: &Limits) -> Result<String, AnalysisError> {
    replace(text, settings, limits, |token| {
        matches!(token.class, TokenClass::Text | TokenClass::Number).then_some("?")
    })
}

fn replace(
    text: &str,
    settings: &LexSettings,
    limits: &Limits,
    substitute: impl Fn(Token) -> Option<&'static str>,
) -> Result<String, AnalysisError> {
    let mut out = String::with_capacity(text.len().min(limits.statement_bytes));
    let mut end = 0;
    scan(text, settings, limits, |token| {
        if token.start > end && !out.is_empty() {
            out.push(' ');
        }
        end = token.end;
        out.push_str(
            substitute(token).unwrap_or_else(|| text.get(token.start..token.end).unwrap_or_default()),
        );
    })?;
    Ok(out)
}

/// A number that is equal for statements of one shape (libpg_query's fingerprint): constants, list lengths and
/// aliases do not count. For lists and statistics, not for decisions; always taken in this process.
///
/// # Errors
/// The text does not scan or parse.
pub fn fingerprint(text: &str, settings: &LexSettings, limits: &Limits) -> Result<u64, AnalysisError> {
    scan(text, settings, limits, |_| {})?;
    let mut parser = ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    if !settings.standard_conforming_strings {
        parser |= ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    }
    match pg_query::fingerprint(text, parser, FingerprintOptions::RANGEVAR_PG17_COMPAT) {
        Ok(fingerprint) => Ok(fingerprint.value),
        Err(error) => Err(AnalysisError::Syntax { message: error.to_string() }),
    }
}

/// Whether a literal looks like a connection string with a password: `password=..` or `scheme://user:password@`.
pub(super) fn is_connection_string(text: &str) -> bool {
    let keyword = |word: &str| {
        let found = |at: usize| {
            text.get(at + word.len()..).is_some_and(|rest| rest.trim_ascii_start().starts_with('='))
        };
        find_ignoring_case(text, word).any(found)
    };
    keyword("password") || keyword("passfile") || keyword("sslpassword") || has_user_info(text)
}

fn find_ignoring_case<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let windows = text.as_bytes().windows(word.len()).enumerate();
    windows.filter(move |(_, window)| window.eq_ignore_ascii_case(word.as_bytes())).map(|(at, _)| at)
}

fn has_user_info(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(
        work: impl Fn(&str, &LexSettings, &Limits) -> Result<String, AnalysisError>,
        text: &str,
    ) -> String {
        work(text, &LexSettings::default(), &Limits::default()).expect(text)
    }

    #[test]
    fn passwords_do_not_survive_masking() {
        let masked = with(mask_literals, "alter role a password 'hunter2' /* hunter2 */ valid until 'x'");
        assert_eq!(masked, "alter role a password '***' valid until '***'");
        assert_eq!(with(mask_literals, "create role b password $$hunter2$$"), "create role b password '***'");
        assert_eq!(
            with(mask_literals, "select 1 where pay = 12.5e3 or b = $1"),
            "select 0 where pay = 0 or b = $1"
        );
        assert!(!with(mask_literals, "x E'hun\\'ter2' 'hunter2'\n'x'").contains("ter2"));
    }

    #[test]
    fn constants_do_not_matter_to_the_normal_form() {
        assert_eq!(
            with(normalise, "select  *\n from t -- c\n where a=1 and b in ('x', -2.5e3)"),
            "select * from t where a=? and b in (?, -?)"
        );
    }

    #[test]
    fn connection_strings_are_seen() {
        for text in ["host=a password=b", "PassWord = 'x'", "postgres://u:p@h/db", "dbname=x sslpassword=y"] {
            assert!(is_connection_string(text), "{text}");
        }
        for text in ["password", "http://host/a:b@c", "user@host", "my password is long"] {
            assert!(!is_connection_string(text), "{text}");
        }
    }

    #[test]
    fn fingerprints_ignore_constants_only() {
        let of = |text: &str| fingerprint(text, &LexSettings::default(), &Limits::default()).expect(text);
        assert_eq!(of("select 1 from a where b = 2"), of("select 3 from a where b = 4"));
        assert_ne!(of("select 1 from a where b = 2"), of("select 1 from c where b = 2"));
    }
}
