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

/// What values of a type are made of; opaque where that is not known or goes too deep or too far.
pub(super) fn kind(types: &HashMap<u32, TypeInfo>, oid: u32) -> Arc<Kind> {
    if let Some(record) = record(oid, || all(types)) {
        return record;
    }
    if is_builtin(oid) { builtin(oid) } else { Kinds { types, known: HashMap::new() }.of(oid, 0).0 }
}

/// What values of each user type are made of.
fn all(types: &HashMap<u32, TypeInfo>) -> Known {
    let mut kinds = Kinds { types, known: HashMap::new() };
    Arc::new(types.keys().map(|oid| (*oid, kinds.of(*oid, 0).0)).collect())
}

/// Parts that a type may be made of, those of its parts counted again wherever they stand. 10,000: the server has room for a type of a
/// type of a type in which each has many of the next, and whoever looks at such a type looks at every one.
const MAX_MADE_OF: usize = 10_000;

/// Works out types that are made of each other.
struct Kinds<'a> {
    types: &'a HashMap<u32, TypeInfo>,
    /// With the number of parts.
    known: HashMap<u32, (Arc<Kind>, usize)>,
}

impl Kinds<'_> {
    fn of(&mut self, oid: u32, depth: usize) -> (Arc<Kind>, usize) {
        if is_builtin(oid) || is_record(oid) {
            return (builtin(oid), 1);
        }
        if let Some((kind, parts)) = self.known.get(&oid) {
            return (Arc::clone(kind), *parts);
        }
        let made = self.types.get(&oid).filter(|_| depth < MAX_DEPTH).map(|info| self.made(info, depth));
        let (kind, parts) = made.filter(|(_, parts)| *parts <= MAX_MADE_OF).unwrap_or((Kind::Opaque, 1));
        let kind = Arc::new(kind);
        self.known.insert(oid, (Arc::clone(&kind), parts));
        (kind, parts)
    }

    fn made(&mut self, info: &TypeInfo, depth: usize) -> (Kind, usize) {
        let mut parts = 1;
        let mut inner = |oid| {
            let (kind, more) = self.of(oid, depth + 1);
            parts += more;
            kind
        };
        let kind = match (info.kind, info.bound) {
            ('d', _) => (*inner(info.base)).clone(),
            ('e', _) => Kind::Enum(info.first_label.clone()),
            ('c', _) => Kind::Composite(info.fields.iter().map(|oid| inner(*oid)).collect()),
            ('r', Some(bound)) => Kind::Range(inner(bound)),
            ('m', Some(bound)) => Kind::Multirange(inner(bound)),
            ('b', _) if info.element != 0 && info.send == "array_send" => {
                Kind::Array(Some(inner(info.element)))
            }
            ('b', _) if info.send == "hstore_send" => Kind::Hstore,
            ('b', _) if matches!(info.send.as_str(), "citextsend" | "textsend") => Kind::Text,
            _ => Kind::Opaque,
        };
        (kind, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composite(fields: Vec<u32>) -> TypeInfo {
        let (schema, name, send) = ("s".to_owned(), "t".to_owned(), "record_send".to_owned());
        TypeInfo {
            schema,
            name,
            kind: 'c',
            element: 0,
            base: 0,
            bound: None,
            fields,
            first_label: None,
            send,
        }
    }

    /// 24 of 24 of 24 ... would be more than there is room for.
    #[test]
    fn types_of_types_of_types_end() {
        let of = |level: u32| if level == 0 { vec![23] } else { vec![FIRST_USER_OID + level - 1; 24] };
        let types = (0..12).map(|level| (FIRST_USER_OID + level, composite(of(level)))).collect();
        let Kind::Composite(fields) = &*kind(&types, FIRST_USER_OID + 2) else { panic!() };
        assert!(fields.len() == 24 && matches!(&*fields[23], Kind::Composite(_)));
        assert_eq!(
            all(&types).values().filter(|kind| kind.is_scannable()).count(),
            9,
            "all but the first three"
        );
        assert_eq!(*kind(&types, FIRST_USER_OID + 3), Kind::Opaque);
        let Kind::Composite(fields) = &*kind(&types, FIRST_USER_OID + 11) else { panic!() };
        let Kind::Composite(fields) = &*fields[0] else { panic!() };
        assert!(fields.len() == 24 && fields.iter().all(|field| **field == Kind::Opaque));
    }
}
