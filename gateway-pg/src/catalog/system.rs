//! The server's own relations that show what other sessions do, or values of any table.

use super::Relation;

/// The column that holds the statements of other sessions, with their literals, if the relation has one.
pub(crate) fn statements_column(relation: &Relation) -> Option<&'static str> {
    (relation.schema == "pg_catalog" && relation.name == "pg_stat_activity").then_some("query")
}

/// The function that shows the same, as schema and name: calling it is the access for it.
pub(crate) const STATEMENTS_FUNCTION: (&str, &str) = ("pg_catalog", "pg_stat_get_backend_activity");

/// Columns of the server's own relations that hold values of any table, or statements with values in them: planner statistics
/// (PostgreSQL documentation, `pg_stats`), what sessions run, large objects.
const TELLING: [(&str, &[&str]); 8] = [
    ("pg_statistic", &["stavalues1", "stavalues2", "stavalues3", "stavalues4", "stavalues5"]),
    ("pg_statistic_ext_data", &["stxdmcv", "stxdexpr", "stxddependencies"]),
    ("pg_stats", &SAMPLES),
    ("pg_stats_ext", &["most_common_vals"]),
    ("pg_stats_ext_exprs", &SAMPLES),
    ("pg_stat_activity", &["query"]),
    ("pg_stat_statements", &["query"]),
    ("pg_largeobject", &["data"]),
];

/// Columns of `pg_stats` and the like, in any version of the server.
const SAMPLES: [&str; 5] = [
    "most_common_vals",
    "histogram_bounds",
    "most_common_elems",
    "range_length_histogram",
    "range_bounds_histogram",
];

/// Columns of TOAST tables (PostgreSQL documentation, "Out-of-Line, On-Disk TOAST Storage").
const PIECES: [&str; 3] = ["chunk_id", "chunk_seq", "chunk_data"];

/// The columns of a relation that may hold values of any other.
pub(super) fn telling_columns(relation: &Relation) -> &'static [&'static str] {
    if relation.is_toast() && relation.parents.is_empty() {
        // Of the server's own tables, planner statistics among them.
        return &PIECES;
    }
    let extension = relation.name == "pg_stat_statements";
    let own = relation.schema == "pg_catalog" || extension;
    TELLING.iter().find(|(name, _)| own && *name == relation.name).map_or(&[], |(_, columns)| columns)
}
