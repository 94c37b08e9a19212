//! Values with a syntax of their own.

use std::str::FromStr;
use std::time::Duration;

use gateway_core::masking::{Transform, Validator};
use serde::Deserialize;

/// A length of time: `30s`, `15m`, `2h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a length of time; write it like `30s`, `15m`, `2h` or `7d`");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(digits.len()..) {
            Some("s") => 1,
            Some("m") => 60,
            Some("h") => 60 * 60,
            Some("d") => 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Duration::from_secs).map(Self).ok_or_else(wrong)
    }
}

/// What replaces a value: `redact`, `partial` (the last 4 stay), `partial:2`, `same_length`, `hash`, `token`, `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TransformText(pub(crate) Transform);

impl FromStr for TransformText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        let transform = match (name, number) {
            ("redact", None) => Transform::Redact,
            ("partial", None) => Transform::Partial { keep_last: 4 },
            ("partial", Some(number)) => match number.parse() {
                Ok(keep_last) => Transform::Partial { keep_last },
                Err(_) => return Err(unknown_transform(text)),
            },
            ("same_length", None) => Transform::SameLength,
            ("hash", None) => Transform::Hash,
            ("token", None) => Transform::Token,
            ("null", None) => Transform::Null,
            _ => return Err(unknown_transform(text)),
        };
        Ok(Self(transform))
    }
}

fn unknown_transform(text: &str) -> String {
    format!(
        "unknown transform `{text}`, expected one of `redact`, `partial`, `partial:2`, `same_length`, `hash`, `token`, `null`"
    )
}

/// A check on what a masking rule matched: `luhn`, `mod97`, `distinct:8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ValidatorText(pub(crate) Validator);

impl FromStr for ValidatorText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let distinct = text.strip_prefix("distinct:").and_then(|number| number.parse().ok());
        match (text, distinct) {
            ("luhn", _) => Ok(Self(Validator::Luhn)),
            ("mod97", _) => Ok(Self(Validator::Mod97)),
            (_, Some(number)) => Ok(Self(Validator::Distinct(number))),
            _ => Err(format!("unknown validator `{text}`, expected one of `luhn`, `mod97`, `distinct:8`")),
        }
    }
}

/// A column as `database.schema.table.column`. Names with dots stand in double quotes, as in SQL; nothing is case-folded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ColumnPath {
    pub(crate) database: String,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) column: String,
}

impl FromStr for ColumnPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = split_names(text).unwrap_or_default();
        match <[String; 4]>::try_from(parts) {
            Ok([database, schema, table, column]) => Ok(Self { database, schema, table, column }),
            Err(_) => Err(format!("`{text}` is not a column; write `database.schema.table.column`")),
        }
    }
}

/// Splits at dots outside double quotes; `""` inside quotes is one. `None` for empty names and unbalanced quotes.
fn split_names(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = one_name(rest)?;
        names.push(name);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(names),
            None => return None,
        }
    }
}

fn one_name(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        let (name, after) = text.split_at(end);
        return (!name.is_empty()).then(|| (name.to_owned(), after));
    };
    let mut name = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                name.push('"');
                rest = next;
            }
            None => return (!name.is_empty()).then_some((name, after)),
        }
    }
}

macro_rules! from_text {
    ($($type:ty),*) => {
        $(impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        })*
    };
}

from_text!(Span, TransformText, ValidatorText, ColumnPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!("15m".parse(), Ok(Span(Duration::from_secs(900))));
        assert_eq!("1d".parse(), Ok(Span(Duration::from_secs(86_400))));
        for bad in ["", "15", "m", "1.5h", "-1s", "15 m", "99999999999999999999s", "999999999999999999d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn transforms_are_words() {
        assert_eq!("partial:2".parse(), Ok(TransformText(Transform::Partial { keep_last: 2 })));
        assert_eq!("null".parse(), Ok(TransformText(Transform::Null)));
        for bad in ["", "Redact", "partial:", "partial:300", "redact:4"] {
            assert!(bad.parse::<TransformText>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn columns_have_four_names() {
        let path: ColumnPath = r#"shop.public."odd.""name".email"#.parse().unwrap();
        assert_eq!((path.table.as_str(), path.column.as_str()), (r#"odd."name"#, "email"));
        for bad in ["", "a.b.c", "a.b.c.d.e", "a..c.d", r#"a.b."c.d"#, r#"a.b."c"x.d"#, ".a.b.c"] {
            assert!(bad.parse::<ColumnPath>().is_err(), "{bad:?}");
        }
    }
}
