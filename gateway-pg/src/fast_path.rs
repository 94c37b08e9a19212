//! Calls of functions by number, outside SQL (PostgreSQL documentation, "Function Call"). Libraries use them for large objects and nothing
//! else; those are judged as the same call in SQL.

use gateway_core::error::{Denial, DenialCode};

/// A function that may be called by number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its object id: the same in all versions of the server that have it (`pg_proc.dat`).
    oid: u32,
    /// The same call in SQL.
    pub(crate) sql: &'static str,
    /// The types of its arguments.
    pub(crate) arguments: &'static [u32],
    /// The type of its result.
    pub(crate) result: u32,
}

const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT4: u32 = 23;
const OID: u32 = 26;

const fn function(oid: u32, sql: &'static str, arguments: &'static [u32], result: u32) -> Function {
    Function { oid, sql, arguments, result }
}

/// The client's side of large objects (PostgreSQL documentation, "Large Objects", "Client Interfaces").
const FUNCTIONS: [Function; 13] = [
    function(715, "SELECT pg_catalog.lo_create($1)", &[OID], OID),
    function(952, "SELECT pg_catalog.lo_open($1, $2)", &[OID, INT4], INT4),
    function(953, "SELECT pg_catalog.lo_close($1)", &[INT4], INT4),
    function(954, "SELECT pg_catalog.loread($1, $2)", &[INT4, INT4], BYTEA),
    function(955, "SELECT pg_catalog.lowrite($1, $2)", &[INT4, BYTEA], INT4),
    function(956, "SELECT pg_catalog.lo_lseek($1, $2, $3)", &[INT4, INT4, INT4], INT4),
    function(957, "SELECT pg_catalog.lo_creat($1)", &[INT4], OID),
    function(958, "SELECT pg_catalog.lo_tell($1)", &[INT4], INT4),
    function(964, "SELECT pg_catalog.lo_unlink($1)", &[OID], INT4),
    function(1004, "SELECT pg_catalog.lo_truncate($1, $2)", &[INT4, INT4], INT4),
    function(3170, "SELECT pg_catalog.lo_lseek64($1, $2, $3)", &[INT4, INT8, INT4], INT8),
    function(3171, "SELECT pg_catalog.lo_tell64($1)", &[INT4], INT8),
    function(3172, "SELECT pg_catalog.lo_truncate64($1, $2)", &[INT4, INT8], INT4),
];

/// The function of a number, called with so many arguments.
///
/// # Errors
/// It is none of those, or takes another number of arguments.
pub(crate) fn find(oid: u32, arguments: usize) -> Result<&'static Function, Denial> {
    let found =
        FUNCTIONS.iter().find(|function| function.oid == oid && function.arguments.len() == arguments);
    found.ok_or_else(|| {
        let message = "function calls outside SQL (the fast path) are refused but for large objects: they cannot be judged";
        Denial::new(DenialCode::NotUnderstood, message).with_hint("call the function in a SELECT")
    })
}
