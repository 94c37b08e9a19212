//! Rows (PostgreSQL documentation, "Composite Types"; source, `rowtypes.c`).

use std::sync::Arc;

use bytes::Buf;

use super::{
    Ends, Frame, Kind, Known, MAX_PARTS, Part, Text, Unreadable, builtin, count, fixed, sized, sized_part,
};

const FIELD: Ends<'_> = Ends { ends: b",)", doubled: true };

/// `(a,"b c",)`: nothing at all between commas is NULL. Without known fields each is text that may be bytea.
pub(super) fn read_text(fields: Option<&Arc<[Arc<Kind>]>>, value: &[u8]) -> Result<Vec<Part>, Unreadable> {
    let mut text = Text::new(value);
    text.expect(b'(')?;
    let mut parts = vec![fixed(b"(")];
    if fields.is_none_or(|fields| fields.is_empty()) && text.rest == b")" {
        return Ok(vec![fixed(value)]);
    }
    for index in 0.. {
        let kind = match fields {
            Some(fields) => Arc::clone(fields.get(index).ok_or(Unreadable)?),
            None => Arc::new(Kind::Unknown),
        };
        let (value, quoted) = text.item(&FIELD)?;
        parts.push(if value.is_empty() && !quoted {
            Part::Null(Frame::Field)
        } else {
            Part::Value { kind, value, frame: Frame::Field }
        });
        let end = text.take()?;
        parts.push(fixed(&[end]));
        if parts.len() > MAX_PARTS {
            return Err(Unreadable);
        }
        if end == b')' {
            let whole = fields.is_none_or(|fields| fields.len() == index + 1);
            return if whole { text.finish().map(|()| parts) } else { Err(Unreadable) };
        }
    }
    Err(Unreadable)
}

/// What tells of the fields of a row.
#[derive(Clone, Copy)]
pub(super) enum Fields<'a> {
    /// Its type.
    Of(&'a [Arc<Kind>]),
    /// Itself, by the object ids of their types: the server's own, and these.
    By(&'a Known),
}

impl Fields<'_> {
    fn kind(&self, index: usize, oid: u32) -> Arc<Kind> {
        let known = match self {
            Self::Of(fields) => fields.get(index),
            Self::By(known) => known.get(&oid),
        };
        known.map_or_else(|| builtin(oid), Arc::clone)
    }
}

/// The number of fields, then each one's type and value (`record_send`).
pub(super) fn read_binary(fields: Fields<'_>, value: &[u8]) -> Result<Vec<Part>, Unreadable> {
    let mut rest = value;
    let number = count(&mut rest)?;
    if matches!(fields, Fields::Of(fields) if fields.len() != number) {
        return Err(Unreadable);
    }
    let mut parts = vec![fixed(value.get(..4).unwrap_or_default())];
    for index in 0..number {
        let oid = rest.try_get_u32().map_err(|_| Unreadable)?;
        parts.push(fixed(&oid.to_be_bytes()));
        parts.push(sized_part(&fields.kind(index, oid), sized(&mut rest)?));
    }
    if rest.is_empty() { Ok(parts) } else { Err(Unreadable) }
}
