//! The server's own relations that show what other sessions do.

use super::Relation;

/// The column that holds the statements of other sessions, with their literals, if the relation has one.
pub(crate) fn statements_column(relation: &Relation) -> Option<&'static str> {
    (relation.schema == "pg_catalog" && relation.name == "pg_stat_activity").then_some("query")
}

/// The function that shows the same, as schema and name: calling it is the access for it.
pub(crate) const STATEMENTS_FUNCTION: (&str, &str) = ("pg_catalog", "pg_stat_get_backend_activity");
