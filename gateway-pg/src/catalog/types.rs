//! User types: what their values are made of.

use std::collections::HashMap;
use std::sync::Arc;

use super::{SHAPE, number};
use crate::codec::ProtocolError;
use crate::types::{Kind, Known, MAX_DEPTH, builtin, is_record, record};

/// The first OID of what is not the server's own (`FirstNormalObjectId`, PostgreSQL source, access/transam.h).
const FIRST_USER_OID: u32 = 16_384;

/// A user type as the catalogue has it.
#[derive(Clone, Debug)]
pub(super) struct TypeInfo {
    pub(super) schema: String,
    pub(super) name: String,
    /// `pg_type.typtype`.
    kind: char,
    /// Of an array; else 0.
    element: u32,
    /// Of a domain; else 0.
    base: u32,
    /// Of a range or multirange.
    bound: Option<u32>,
    /// Of a row.
    fields: Vec<u32>,
    /// Of an enum.
    first_label: Option<Arc<str>>,
    /// The function that sends a value in binary.
    send: String,
}

impl TypeInfo {
    pub(super) fn of(cells: &[Option<&str>]) -> Result<Self, ProtocolError> {
        let [_, _, Some(schema), Some(name), Some(kind), Some(element), Some(base), more @ ..] = cells else {
            return Err(SHAPE);
        };
        let [bound, fields, label, send, ..] = more else { return Err(SHAPE) };
        let fields = fields.unwrap_or_default().split(',').filter(|t| !t.is_empty());
        Ok(Self {
            schema: (*schema).to_owned(),
            name: (*name).to_owned(),
            kind: kind.chars().next().ok_or(SHAPE)?,
            element: number(element)?,
            base: number(base)?,
            bound: bound.map(number).transpose()?,
            fields: fields.map(number).collect::<Result<_, _>>()?,
            first_label: label.map(Arc::from),
            send: send.unwrap_or_default().to_owned(),
        })
    }
}

/// Whether a type is the server's own, which stays as it is; rows of no named type may hold others.
pub(crate) const fn is_builtin(oid: u32) -> bool {
    oid < FIRST_USER_OID && !is_record(oid)
}

fn all(types: &HashMap<u32, TypeInfo>) -> Known {
    Arc::new(types.keys().map(|oid| (*oid, kind(types, *oid, 0))).collect())
}

/// What values of a type are made of; opaque where that is not known or goes too deep.
pub(super) fn kind(types: &HashMap<u32, TypeInfo>, oid: u32, depth: usize) -> Arc<Kind> {
    if let Some(record) = record(oid, || all(types)) {
        return record;
    }
    if is_builtin(oid) {
        return builtin(oid);
    }
    let Some(info) = types.get(&oid).filter(|_| depth < MAX_DEPTH) else { return Arc::new(Kind::Opaque) };
    let inner = |oid| kind(types, oid, depth + 1);
    match (info.kind, info.bound) {
        ('d', _) => inner(info.base),
        ('e', _) => Arc::new(Kind::Enum(info.first_label.clone())),
        ('c', _) => Arc::new(Kind::Composite(info.fields.iter().map(|oid| inner(*oid)).collect())),
        ('r', Some(bound)) => Arc::new(Kind::Range(inner(bound))),
        ('m', Some(bound)) => Arc::new(Kind::Multirange(inner(bound))),
        ('b', _) if info.element != 0 && info.send == "array_send" => {
            Arc::new(Kind::Array(Some(inner(info.element))))
        }
        ('b', _) if info.send == "hstore_send" => Arc::new(Kind::Hstore),
        ('b', _) if matches!(info.send.as_str(), "citextsend" | "textsend") => Arc::new(Kind::Text),
        _ => Arc::new(Kind::Opaque),
    }
}
