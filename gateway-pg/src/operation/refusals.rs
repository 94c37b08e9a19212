//! What no policy may allow, because it could not be judged or masked.

use std::sync::Arc;

use gateway_core::error::{Denial, DenialCode};

use super::Subject;
use crate::analysis::{
    CopyDirection, CopyEndpoint, CopyFormat, RelationUse, SettingChange, SettingKind, Statement,
};
use crate::carried::{Carried, Row};
use crate::catalog::Relation;
use crate::statement::written;

fn not_understood(message: impl Into<String>, hint: &str) -> Denial {
    Denial::new(DenialCode::NotUnderstood, message).with_hint(hint)
}

pub(super) fn refuse_unreadable(subject: &Subject<'_>) -> Result<(), Denial> {
    for statement in subject.statements() {
        for used in &statement.relations {
            if used.catalog.as_ref().is_some_and(|c| *c != subject.place.database) {
                return Err(not_understood(
                    "a name is in another database",
                    "leave the database out of the name",
                ));
            }
            if !subject.catalog.knows(&written(used.schema.as_deref(), &used.name)) {
                // For example an object newer than the transaction's snapshot.
                return Err(not_understood(
                    format!("what `{}` means here cannot be told", used.name),
                    "end the transaction and try again",
                ));
            }
        }
        statement.settings.iter().try_for_each(refuse_setting)?;
        refuse_copy(subject, statement)?;
    }
    Ok(())
}

/// How text is read stays as it is.
fn refuse_setting(change: &SettingChange) -> Result<(), Denial> {
    let value = change.value.as_deref().map(|v| v.trim_matches('\'').to_ascii_lowercase());
    // What the session began with was looked at then; a value that the text does not tell could be any.
    let restores =
        matches!(change.kind, SettingKind::Default | SettingKind::Reset | SettingKind::FromCurrent);
    let fine = match change.name.as_deref() {
        Some("client_encoding") => restores || matches!(value.as_deref(), Some("utf8" | "utf-8" | "unicode")),
        Some("standard_conforming_strings") => {
            restores || matches!(value.as_deref(), Some("on" | "true" | "yes" | "1"))
        }
        Some("backslash_quote") => false,
        _ => true,
    };
    if fine {
        return Ok(());
    }
    let name = change.name.as_deref().unwrap_or_default();
    Err(not_understood(
        format!("`{name}` must keep its value: it changes how statements are read"),
        "use UTF8 and standard strings",
    ))
}

/// What goes out of COPY must be understood to be masked: known formats, known options, known columns.
fn refuse_copy(subject: &Subject<'_>, statement: &Statement) -> Result<(), Denial> {
    let Some(copy) = &statement.copy else { return Ok(()) };
    if copy.direction == CopyDirection::From || copy.endpoint != CopyEndpoint::Client {
        return Ok(());
    }
    let known: &[&str] = match copy.format {
        CopyFormat::Text => &["format", "delimiter", "header", "freeze", "null"],
        CopyFormat::Csv => {
            &["format", "delimiter", "header", "freeze", "null", "quote", "escape", "force_quote"]
        }
        CopyFormat::Binary if !copy.query => &["format", "freeze"],
        CopyFormat::Binary => {
            let message = "the types of a query's columns are not known to a binary COPY";
            return Err(not_understood(message, "copy a table, or use csv"));
        }
        CopyFormat::Unknown => {
            return Err(not_understood("this COPY format is not understood", "use text, csv or binary"));
        }
    };
    if let Some((name, _)) = copy.options.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(not_understood(
            format!("the COPY option `{name}` is not understood here"),
            "leave it out",
        ));
    }
    copy.options.iter().try_for_each(|(name, value)| refuse_copy_option(copy.format, name, value))?;
    if copy.query && !knows_outputs(subject, statement) {
        let message =
            "of a query over protected columns that is copied out it must be certain which column is which";
        return Err(not_understood(message, "name the columns one by one instead of `*`"));
    }
    Ok(())
}

/// Whether a query that is copied reads nothing protected, or it is known which of its columns do.
fn knows_outputs(subject: &Subject<'_>, statement: &Statement) -> bool {
    let mut relations = statement.relations.iter().filter_map(|r| subject.relation(r));
    let protects = |r: &Arc<Relation>| !subject.catalog.protected(subject.labels, r).is_empty();
    let columns = |used: &RelationUse| {
        let relation = subject.relation(used)?;
        let columns = relation.columns().map(|name| (name.to_owned(), true)).collect();
        Some(Row { columns, system: !relation.is_view() })
    };
    !relations.any(protects) || Carried::new(statement, &columns).outputs().is_some()
}

/// Bytes that would make lines or values look like others: line ends as quotes, a null that ends in an escape.
fn refuse_copy_option(format: CopyFormat, name: &str, value: &str) -> Result<(), Denial> {
    let clear = match name {
        "delimiter" | "quote" | "escape" => {
            matches!(value.as_bytes(), [byte] if byte.is_ascii() && !b"\r\n\0".contains(byte))
        }
        "null" if format == CopyFormat::Text => value == "\\N" || !value.contains(['\\', '\r', '\n']),
        "null" => !value.contains(['\r', '\n']),
        _ => true,
    };
    if clear {
        return Ok(());
    }
    Err(not_understood(format!("the COPY option `{name}` makes the lines ambiguous"), "leave it out"))
}
