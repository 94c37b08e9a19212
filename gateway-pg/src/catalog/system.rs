//! The server's own relations that show what other sessions do, or values of any table.

use super::Relation;

/// What reading a relation of the server's own shows besides itself.
#[derive(Debug)]
pub(crate) struct Told {
    /// In these columns; none: in any.
    columns: &'static [&'static str],
    /// The function of `pg_catalog` whose `call` is the access for it, or a name that stands for one.
    pub(crate) function: &'static str,
    /// In views over it as well, whichever columns they show.
    pub(crate) in_views: bool,
}

/// Relations that show what policy on tables does not reach: statements of other sessions, values that the planner keeps of any table,
/// large objects, what the server keeps to log in with, its files.
const TOLD: [(&str, &[&str], &str); 16] = [
    ("pg_stat_activity", &["query"], "pg_stat_get_backend_activity"),
    ("pg_statistic", &KEPT_VALUES, STATISTICS),
    ("pg_statistic_ext_data", &KEPT_VALUES_OF_SEVERAL, STATISTICS),
    ("pg_stats", &SAMPLES, STATISTICS),
    ("pg_stats_ext", &["most_common_vals"], STATISTICS),
    ("pg_stats_ext_exprs", &SAMPLES, STATISTICS),
    ("pg_largeobject", &["data"], "lo_get"),
    ("pg_authid", &["rolpassword"], SECRETS),
    ("pg_shadow", &["passwd"], SECRETS),
    ("pg_user_mapping", &["umoptions"], SECRETS),
    ("pg_user_mappings", &["umoptions"], SECRETS),
    ("pg_subscription", &["subconninfo"], SECRETS),
    ("pg_hba_file_rules", &[], "pg_hba_file_rules"),
    ("pg_ident_file_mappings", &[], "pg_ident_file_mappings"),
    ("pg_file_settings", &[], "pg_show_all_file_settings"),
    ("pg_config", &[], "pg_config"),
];

/// Stands for everything that shows values the planner keeps.
const STATISTICS: &str = "pg_stats";

/// Stands for everything that shows what the server keeps to log in with.
const SECRETS: &str = "pg_authid";

/// What a relation shows besides itself, if it is one of those.
pub(crate) fn told(relation: &Relation) -> Option<Told> {
    // TOAST tables of the server's own: long values, planner statistics among them.
    let pieces = relation.is_toast() && relation.parents.is_empty();
    if pieces {
        return Some(Told { columns: &PIECES, function: STATISTICS, in_views: false });
    }
    let found = TOLD.iter().find(|(name, ..)| relation.schema == "pg_catalog" && *name == relation.name);
    // Views over the others are judged when they are made, by the columns they name.
    found.map(|(name, columns, function)| Told { columns, function, in_views: *name == "pg_stat_activity" })
}

impl Told {
    /// Whether it is shown where the columns of which `shows` is true may be.
    pub(crate) fn is_shown(&self, shows: impl Fn(&str) -> bool) -> bool {
        self.columns.is_empty() || self.columns.iter().any(|column| shows(column))
    }
}

/// Columns of the server's own relations that hold values of any table, or statements with values in them: planner statistics
/// (PostgreSQL documentation, `pg_stats`), what sessions run, large objects.
const TELLING: [(&str, &[&str]); 8] = [
    ("pg_statistic", &KEPT_VALUES),
    ("pg_statistic_ext_data", &KEPT_VALUES_OF_SEVERAL),
    ("pg_stats", &SAMPLES),
    ("pg_stats_ext", &["most_common_vals"]),
    ("pg_stats_ext_exprs", &SAMPLES),
    ("pg_stat_activity", &["query"]),
    ("pg_stat_statements", &["query"]),
    ("pg_largeobject", &["data"]),
];

const KEPT_VALUES: [&str; 5] = ["stavalues1", "stavalues2", "stavalues3", "stavalues4", "stavalues5"];
const KEPT_VALUES_OF_SEVERAL: [&str; 3] = ["stxdmcv", "stxdexpr", "stxddependencies"];

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
