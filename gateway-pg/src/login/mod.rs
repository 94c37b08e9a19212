//! Logging in: the client at the gateway, the gateway at the server. Sequential, with one deadline, before any statement.

pub(crate) mod downstream;
pub(crate) mod upstream;

use std::collections::BTreeMap;

use gateway_core::error::{Denial, DenialCode};

/// Parameters the server reports that the client is told (PostgreSQL documentation, "Asynchronous Operations").
/// Others could be custom settings that carry data.
const REPORTED: [&str; 15] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "scram_iterations",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
    "search_path",
];

/// Whether a reported parameter may be told to the client.
pub(crate) fn is_reported(name: &str) -> bool {
    REPORTED.contains(&name) && !matches!(name, "is_superuser" | "session_authorization")
}

/// Settings a client may choose at startup: none of them changes who runs or how text is read, and names are resolved by the
/// server in their light.
const STARTUP_SETTINGS: [&str; 15] = [
    "application_name",
    "datestyle",
    "timezone",
    "intervalstyle",
    "extra_float_digits",
    "search_path",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "default_transaction_read_only",
    "default_transaction_isolation",
    "geqo",
    "jit",
    "plan_cache_mode",
    "bytea_output",
];

/// What a client asked for at startup, as far as it may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The user name it gave; not trusted, the identity is in its token.
    pub(crate) user: String,
    pub(crate) database: Option<String>,
    /// Settings to pass on.
    pub(crate) settings: BTreeMap<String, String>,
    /// `_pq_.` protocol options, none of which is known.
    pub(crate) options: Vec<String>,
}

/// The longest name of a database. 63 bytes: the server cuts longer ones (`NAMEDATALEN`), and would mean another one than policy.
const MAX_DATABASE_BYTES: usize = 63;

impl Wishes {
    /// Sorts the startup parameters; what is not on the list is refused.
    pub(crate) fn new(parameters: BTreeMap<String, String>) -> Result<Self, Denial> {
        let mut wishes = Self::default();
        for (name, value) in parameters {
            match name.as_str() {
                "user" => wishes.user = value,
                "database" if value.len() > MAX_DATABASE_BYTES => {
                    return Err(refused(
                        format!("the name of the database has {} bytes", value.len()),
                        "use at most 63 bytes: the server ignores the rest",
                    ));
                }
                "database" => wishes.database = Some(value),
                "options" => wishes.parse_options(&value)?,
                "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
                name if name.starts_with("_pq_.") => wishes.options.push(name.to_owned()),
                name => wishes.set(name, value)?,
            }
        }
        Ok(wishes)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Denial> {
        let lower = name.to_ascii_lowercase();
        if lower == "client_encoding" {
            return if matches!(
                value.to_ascii_lowercase().as_str(),
                "utf8" | "utf-8" | "unicode" | "'utf-8'" | "'utf8'" | "auto"
            ) {
                Ok(())
            } else {
                Err(refused(
                    format!("client_encoding `{value}` is not spoken here"),
                    "use UTF8 (PGCLIENTENCODING=UTF8)",
                ))
            };
        }
        if !STARTUP_SETTINGS.contains(&lower.as_str()) {
            return Err(refused(
                format!("the startup parameter `{name}` is not allowed"),
                "leave it out of the connection string",
            ));
        }
        self.settings.insert(lower, value);
        Ok(())
    }

    /// `-c name=value` and `--name=value`, with `\` escaping a space (PostgreSQL, `pg_split_opts`).
    fn parse_options(&mut self, options: &str) -> Result<(), Denial> {
        let mut words = split_options(options).into_iter();
        while let Some(word) = words.next() {
            let setting = match word.strip_prefix("--") {
                Some(setting) => setting.to_owned(),
                None if word == "-c" => words.next().unwrap_or_default(),
                None => match word.strip_prefix("-c") {
                    Some(setting) => setting.to_owned(),
                    None => {
                        return Err(refused(
                            format!("the startup option `{word}` is not allowed"),
                            "leave it out of `options`",
                        ));
                    }
                },
            };
            let Some((name, value)) = setting.split_once('=') else {
                return Err(refused(
                    format!("the startup option `{setting}` has no value"),
                    "write -c name=value",
                ));
            };
            self.set(&name.replace('-', "_"), value.to_owned())?;
        }
        Ok(())
    }
}

fn split_options(options: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => words.last_mut().map(|w| w.extend(chars.next())).unwrap_or_default(),
            c if c.is_ascii_whitespace() => words.push(String::new()),
            c => words.last_mut().map(|w| w.push(c)).unwrap_or_default(),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

fn refused(message: String, hint: &str) -> Denial {
    Denial::new(DenialCode::NotUnderstood, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(pairs: &[(&str, &str)]) -> Result<Wishes, Denial> {
        Wishes::new(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn who_runs_and_how_text_is_read_cannot_be_chosen() {
        for bad in [
            ("options", "-c role=postgres"),
            ("options", "-crole=postgres"),
            ("options", "--role=postgres"),
            ("options", "-c standard_conforming_strings=off"),
            ("options", "-c session_authorization=postgres"),
            ("options", "-f x"),
            ("role", "postgres"),
            ("replication", "database"),
            ("replication", "true"),
            ("client_encoding", "SJIS"),
            ("options", "-c client_encoding=GBK"),
        ] {
            assert!(wishes(&[("user", "a"), bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_the_server_cuts_are_refused() {
        assert!(wishes(&[("user", "a"), ("database", &"d".repeat(64))]).is_err());
        assert!(wishes(&[("user", "a"), ("database", &"d".repeat(63))]).is_ok());
    }

    #[test]
    fn harmless_settings_pass() {
        let good = wishes(&[
            ("user", "a"),
            ("options", r"-c search_path=a\ b --statement-timeout=5s -c jit=off"),
            ("DateStyle", "ISO"),
        ])
        .unwrap();
        assert_eq!(good.settings["search_path"], "a b");
        assert_eq!(good.settings["statement_timeout"], "5s");
        assert_eq!(good.settings["datestyle"], "ISO");
        assert_eq!(good.settings["jit"], "off");
    }
}
