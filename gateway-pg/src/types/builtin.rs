//! The server's own types by object id (PostgreSQL source, `catalog/pg_type.dat`; the ids never change).

use std::sync::Arc;

use super::{Kind, Known};

/// A type of the server itself; one that is not known here is opaque.
pub(crate) fn builtin(oid: u32) -> Arc<Kind> {
    Arc::new(kind(oid))
}

/// A row of no named type, or an array of such, that may hold values of these types; `None` if it is another type.
pub(crate) fn record(oid: u32, known: impl FnOnce() -> Known) -> Option<Arc<Kind>> {
    let record = |known| Arc::new(Kind::Record(known));
    match oid {
        RECORD => Some(record(known())),
        RECORDS => Some(Arc::new(Kind::Array(Some(record(known()))))),
        _ => None,
    }
}

/// Whether a type is a row of no named type, or an array of such.
pub(crate) const fn is_record(oid: u32) -> bool {
    matches!(oid, RECORD | RECORDS)
}

/// `record`.
const RECORD: u32 = 2249;
/// `record[]`.
const RECORDS: u32 = 2287;

fn kind(oid: u32) -> Kind {
    if let Some(kind) = scalar(oid) {
        return kind;
    }
    if let Some(bound) = range(oid) {
        return Kind::Range(builtin(bound));
    }
    if let Some(bound) = multirange(oid) {
        return Kind::Multirange(builtin(bound));
    }
    match oid {
        // anyarray.
        2277 => Kind::Array(None),
        RECORD => Kind::Record(Known::default()),
        RECORDS => Kind::Array(Some(builtin(RECORD))),
        oid => element(oid).map_or(Kind::Opaque, |element| Kind::Array(Some(builtin(element)))),
    }
}

const fn scalar(oid: u32) -> Option<Kind> {
    Some(match oid {
        25 | 705 | 1042 | 1043 => Kind::Text,
        18 => Kind::Char,
        19 => Kind::Name,
        142 => Kind::Xml,
        114 => Kind::Json,
        3802 => Kind::Jsonb,
        17 => Kind::Bytea,
        16 => Kind::Bool,
        21 => Kind::Integer(2),
        // oid, xid and cid are sent as int4 is.
        23 | 26 | 28 | 29 => Kind::Integer(4),
        20 => Kind::Integer(8),
        24 | 2202..=2206 | 3734 | 3769 | 4089 | 4096 | 4191 => Kind::ObjectName,
        700 => Kind::Float(4),
        701 => Kind::Float(8),
        1700 => Kind::Numeric,
        790 => Kind::Money,
        1082 => Kind::Date,
        1083 => Kind::Time,
        1266 => Kind::TimeTz,
        1114 => Kind::Timestamp,
        1184 => Kind::TimestampTz,
        1186 => Kind::Interval,
        2950 => Kind::Uuid,
        869 => Kind::Inet,
        650 => Kind::Cidr,
        829 => Kind::Macaddr(6),
        774 => Kind::Macaddr(8),
        1560 => Kind::Bit,
        1562 => Kind::VarBit,
        3220 => Kind::Lsn,
        3614 => Kind::TsVector,
        3615 => Kind::TsQuery,
        4072 => Kind::JsonPath,
        _ => return None,
    })
}

/// The type of a range's bounds.
const fn range(oid: u32) -> Option<u32> {
    Some(match oid {
        3904 => 23,
        3906 => 1700,
        3908 => 1114,
        3910 => 1184,
        3912 => 1082,
        3926 => 20,
        _ => return None,
    })
}

/// The type of a multirange's bounds.
const fn multirange(oid: u32) -> Option<u32> {
    Some(match oid {
        4451 => 23,
        4532 => 1700,
        4533 => 1114,
        4534 => 1184,
        4535 => 1082,
        4536 => 20,
        _ => return None,
    })
}

/// The type of an array's elements. Arrays of geometric types are left out: those are not taken apart.
const fn element(oid: u32) -> Option<u32> {
    Some(match oid {
        1000 => 16,
        1001 => 17,
        1002 => 18,
        1003 => 19,
        1005 => 21,
        1007 => 23,
        1009 => 25,
        1014 => 1042,
        1015 => 1043,
        1016 => 20,
        1021 => 700,
        1022 => 701,
        1028 => 26,
        1008 => 24,
        1011 => 28,
        1012 => 29,
        2207..=2211 => oid - 5,
        199 => 114,
        3807 => 3802,
        143 => 142,
        651 => 650,
        1040 => 829,
        775 => 774,
        1041 => 869,
        791 => 790,
        1115 => 1114,
        1182 => 1082,
        1183 => 1083,
        1185 => 1184,
        1187 => 1186,
        1270 => 1266,
        1231 => 1700,
        1561 => 1560,
        1563 => 1562,
        2951 => 2950,
        3221 => 3220,
        3643 => 3614,
        3645 => 3615,
        4073 => 4072,
        3905 => 3904,
        3907 => 3906,
        3909 => 3908,
        3911 => 3910,
        3913 => 3912,
        3927 => 3926,
        6150 => 4451,
        6151 => 4532,
        6152 => 4533,
        6153 => 4534,
        6155 => 4535,
        6157 => 4536,
        _ => return None,
    })
}
