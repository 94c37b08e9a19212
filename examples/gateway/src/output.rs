//! What goes to the terminal: text that was recorded or requested by others is escaped before it is shown.

use std::fmt::{self, Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use gateway_core::text::is_deceptive;
use serde::Serialize;
use serde_json::Value;

/// How a command ended, if it could do its work.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// A command could not do its work; the text says why and what to do.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// With its text.
    pub(crate) fn new(message: impl Display) -> Self {
        Self(message.to_string())
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text by others for one line of a terminal: control characters, and those that reorder or hide text, become visible.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write_escaped(f, c))
    }
}

/// As [`Escaped`], for text of several lines: each begins with `indent`.
pub(crate) struct EscapedLines<'a> {
    pub(crate) text: &'a str,
    pub(crate) indent: &'static str,
}

impl Display for EscapedLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.indent)?;
        for c in self.text.chars() {
            match c {
                '\n' => write!(f, "\n{}", self.indent)?,
                '\t' => f.write_str("    ")?,
                _ => write_escaped(f, c)?,
            }
        }
        Ok(())
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if is_deceptive(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    }
}

/// Writes a line to standard output; a reader that has gone away is no error.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes text as it is, without a line end: for what was made safe already.
pub(crate) fn raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut value = serde_json::to_value(value)?;
    readable_times(&mut value);
    json_line(&value.to_string())?;
    Ok(())
}

/// Writes one line that is JSON already. JSON escapes only some control characters; the others are escaped here, which
/// changes no value.
pub(crate) fn json_line(text: &str) -> io::Result<()> {
    line(EscapedJson(text))
}

struct EscapedJson<'a>(&'a str);

impl Display for EscapedJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if !is_deceptive(c) {
                f.write_char(c)?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(f, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// Fields that hold microseconds since 1970 in the core's serialised form, wherever they stand.
const TIME_FIELDS: [&str; 6] = ["at", "created", "expires", "expires_at", "started", "ended"];

/// Shows times as RFC 3339.
fn readable_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_i64().filter(|_| TIME_FIELDS.contains(&name.as_str())) {
                    Some(micros) => {
                        let time = gateway_core::clock::Timestamp::from_micros(micros);
                        *field = Value::String(time.to_string());
                    }
                    None => readable_times(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(readable_times),
        _ => {}
    }
}

/// Rows under headings, columns aligned; the last column is as wide as it is.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(width);
    for row in rows {
        for (known, cell) in widths.iter_mut().zip(row) {
            *known = (*known).max(width(cell));
        }
    }
    let mut out = String::new();
    table_row(&mut out, headings, &widths);
    for row in rows {
        out.push('\n');
        table_row(&mut out, row.each_ref().map(String::as_str), &widths);
    }
    out
}

fn table_row<const N: usize>(out: &mut String, cells: [&str; N], widths: &[usize; N]) {
    let start = out.len();
    for (cell, full) in cells.into_iter().zip(widths) {
        out.push_str(cell);
        out.extend(std::iter::repeat_n(' ', full.saturating_sub(width(cell)) + 2));
    }
    let used = out.get(start..).map_or(0, |row| row.trim_end().len());
    out.truncate(start + used);
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Whether people watch standard output.
pub(crate) fn to_terminal() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_cannot_be_driven() {
        let shown = Escaped("a\x1b[2J\u{9b}31m\r\nb\u{202e}c\u{200b}é").to_string();
        assert_eq!(shown, "a\\u{1b}[2J\\u{9b}31m\\r\\nb\\u{202e}c\\u{200b}é");
        let lines = EscapedLines { text: "a\n\x07b", indent: "  " }.to_string();
        assert_eq!(lines, "  a\n  \\u{7}b");
    }

    #[test]
    fn json_cannot_either_and_keeps_its_values() {
        let value = serde_json::json!({"a": "\u{9b}31m\u{202e}\u{1b}é\u{e0001}"});
        let shown = EscapedJson(&value.to_string()).to_string();
        assert_eq!(shown, r#"{"a":"\u009b31m\u202e\u001bé\udb40\udc01"}"#);
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [["a".to_owned(), "bb".to_owned()], ["ccc".to_owned(), String::new()]];
        assert_eq!(table(["x", "y"], &rows), "x    y\na    bb\nccc");
    }

    #[test]
    fn times_are_readable() {
        let mut value = serde_json::json!({"a": [{"expires": 0, "n": 5}]});
        readable_times(&mut value);
        assert_eq!(value, serde_json::json!({"a": [{"expires": "1970-01-01T00:00:00.000000Z", "n": 5}]}));
    }
}
