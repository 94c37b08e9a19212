//! What is known about PostgreSQL's own functions, operators and types, by name.
//!
//! The lists come from a PostgreSQL 15 server (`data/functions.sql`, `data/operators.sql` and `data/types.sql` say how to make them again).
//! A name that a later server added is unknown here, and unknown is not a read.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// How much a function may depend on or do, the strongest over all overloads of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Volatility {
    /// Depends on its arguments only.
    Immutable,
    /// Reads, changes nothing.
    Stable,
    /// May do anything.
    Volatile,
}

/// What is known about a function's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionClass {
    /// A function of `pg_catalog`.
    Builtin {
        /// Strongest volatility over the overloads.
        volatility: Volatility,
        /// Reaches beyond a read: SQL in text, files, network, locks, signals, sequences, settings, secrets.
        denied: bool,
    },
    /// Not in the list: a user's, an extension's, or newer than the list.
    Unknown,
}

impl FunctionClass {
    /// Whether a call is a read: immutable or stable and not denied, or volatile only because its value varies.
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::Builtin { volatility: Volatility::Immutable | Volatility::Stable, denied: false }
        )
    }
}

/// Says what is known about a function's name. `schema` is as written; without one the name is looked up as if
/// `pg_catalog` came first in the search_path, which the caller has to make sure of.
#[must_use]
pub fn classify_function(schema: Option<&str>, name: &str) -> FunctionClass {
    if schema.is_some_and(|schema| schema != "pg_catalog") {
        return FunctionClass::Unknown;
    }
    match FUNCTIONS.get(name) {
        Some(&volatility) => FunctionClass::Builtin { volatility, denied: is_denied(name) },
        None => FunctionClass::Unknown,
    }
}

/// Whether a type's name is one of PostgreSQL's own.
#[must_use]
pub fn is_builtin_type(schema: Option<&str>, name: &str) -> bool {
    schema.is_none_or(|schema| schema == "pg_catalog") && TYPES.contains(name)
}

/// Whether an operator's name is one of PostgreSQL's own. `!=` is the parser's spelling of `<>`.
#[must_use]
pub fn is_builtin_operator(schema: Option<&str>, name: &str) -> bool {
    schema.is_none_or(|schema| schema == "pg_catalog") && (name == "!=" || OPERATORS.contains(name))
}

/// Whether a function of this name can show values of any relation: it reads SQL, names, files, pages, logs or other sessions'
/// statements. Names of extensions count in any schema.
#[must_use]
pub fn reads_anything(name: &str) -> bool {
    READERS.iter().any(|prefix| name.starts_with(prefix))
}

/// Beginnings of names for [`reads_anything`].
const READERS: &[&str] = &[
    // SQL, relations or whole schemas named in text.
    "cursor_to_xml",
    "database_to_xml",
    "query_to_xml",
    "schema_to_xml",
    "table_to_xml",
    "ts_rewrite",
    "ts_stat",
    "connectby",
    "crosstab",
    "dblink",
    "xpath_table",
    // Files, pages and logs, where every table lies.
    "pg_read_",
    "get_raw_page",
    "bt_page_",
    "gist_page_",
    "heap_page_",
    "pg_get_wal_",
    "pg_logical_slot_",
    // Large objects.
    "be_lo_",
    "lo_get",
    "loread",
    // Statements of other sessions and statistics.
    "pg_mcv_list_items",
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
    "pg_stat_statements",
];

fn is_denied(name: &str) -> bool {
    DENIED.contains(&name) || DENIED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Volatility>> =
    LazyLock::new(|| include_str!("data/functions.tsv").lines().filter_map(function_line).collect());

static TYPES: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("data/types.txt").lines().collect());

static OPERATORS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("data/operators.txt").lines().collect());

fn function_line(line: &'static str) -> Option<(&'static str, Volatility)> {
    let (name, volatility) = line.split_once('\t')?;
    Some((name, if HARMLESS.contains(&name) { Volatility::Stable } else { volatility_of(volatility) }))
}

fn volatility_of(letter: &str) -> Volatility {
    match letter {
        "i" => Volatility::Immutable,
        "s" => Volatility::Stable,
        _ => Volatility::Volatile,
    }
}

/// Volatile in the catalog only because their value changes from call to call; counted as stable.
const HARMLESS: &[&str] = &[
    "clock_timestamp",
    "gen_random_uuid",
    "pg_database_size",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_relation_size",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "random",
    "timeofday",
];

/// Families that are denied whatever their volatility.
const DENIED_PREFIXES: &[&str] = &[
    // Signals, locks, sleeps and server administration.
    "binary_upgrade_",
    "pg_advisory_",
    "pg_backup_",
    "pg_cancel_",
    "pg_control_",
    "pg_create_",
    "pg_drop_",
    "pg_event_trigger_",
    "pg_import_",
    "pg_log_",
    "pg_promote",
    "pg_sleep",
    "pg_start_backup",
    "pg_stop_",
    "pg_switch_",
    "pg_terminate_",
    "pg_try_advisory_",
    "pg_wal_",
    // Replication reads every table without naming one.
    "pg_copy_",
    "pg_logical_",
    "pg_replication_",
    // Files of the server.
    "pg_ls_",
    "pg_read_",
    "pg_stat_file",
    // Large objects: storage without a relation's name.
    "be_lo_",
    "lo_",
    "loread",
    "lowrite",
    // Resetting statistics hides traces.
    "pg_stat_reset",
    // SQL, relations or whole schemas named in text.
    "cursor_to_xml",
    "database_to_xml",
    "query_to_xml",
    "schema_to_xml",
    "table_to_xml",
    // Would be extension functions; denied should a server ever carry them.
    "crosstab",
    "dblink",
    "xpath_table",
];

/// Single names that are denied whatever their volatility.
const DENIED: &[&str] = &[
    // SQL in text.
    "ts_rewrite",
    "ts_stat",
    // Input functions of types that are chosen by a number: a user's domain runs its checks.
    "array_in",
    "array_recv",
    "domain_in",
    "domain_recv",
    "multirange_in",
    "multirange_recv",
    "range_in",
    "range_recv",
    "record_in",
    "record_recv",
    // Session and sequence state: storage that no relation access shows.
    "currval",
    "lastval",
    "nextval",
    "set_config",
    "setseed",
    "setval",
    "pg_sequence_last_value",
    // Code, which may hold secrets.
    "pg_get_function_sqlbody",
    "pg_get_functiondef",
    // Other people's statements, values and secrets, past the views that filter them.
    "pg_cursor",
    "pg_prepared_statement",
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
    "pg_stat_get_backend_client_addr",
    "pg_show_all_settings",
    "pg_show_all_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_get_replication_slots",
    "pg_stat_get_subscription",
    "pg_stat_get_wal_receiver",
    "pg_stat_get_wal_senders",
    "pg_mcv_list_items",
    "pg_current_logfile",
    "pg_config",
    "pg_get_backend_memory_contexts",
    "pg_get_shmem_allocations",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    // Effects on others or on the transaction.
    "pg_export_snapshot",
    "pg_notify",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_rotate_logfile_old",
    "pg_nextoid",
    "pg_current_xact_id",
    "txid_current",
    "pg_extension_config_dump",
    "brin_desummarize_range",
    "brin_summarize_new_values",
    "brin_summarize_range",
    "gin_clean_pending_list",
    "pg_stat_force_next_flush",
    "pg_stat_clear_snapshot",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_functions_are_reads() {
        for name in [
            "lower",
            "count",
            "sum",
            "now",
            "to_jsonb",
            "coalesce_none",
            "string_agg",
            "random",
            "log",
            "length",
        ] {
            assert_eq!(classify_function(None, name).is_read(), name != "coalesce_none", "{name}");
            assert!(!classify_function(Some("public"), name).is_read(), "{name}");
        }
        assert!(classify_function(Some("pg_catalog"), "date_part").is_read());
    }

    #[test]
    fn everything_that_reaches_further_is_denied() {
        let names = [
            "query_to_xml",
            "table_to_xml",
            "database_to_xmlschema",
            "ts_stat",
            "ts_rewrite",
            "pg_read_file",
            "pg_read_binary_file",
            "pg_ls_dir",
            "pg_stat_file",
            "lo_import",
            "lo_export",
            "loread",
            "lowrite",
            "pg_advisory_lock",
            "pg_try_advisory_xact_lock_shared",
            "pg_sleep",
            "pg_sleep_until",
            "nextval",
            "setval",
            "currval",
            "lastval",
            "set_config",
            "pg_notify",
            "pg_terminate_backend",
            "pg_reload_conf",
            "pg_logical_slot_get_changes",
            "pg_logical_emit_message",
            "pg_switch_wal",
            "pg_hba_file_rules",
            "pg_create_restore_point",
            "pg_stat_reset",
            "pg_export_snapshot",
        ];
        for name in names {
            let class = classify_function(None, name);
            assert!(matches!(class, FunctionClass::Builtin { denied: true, .. }), "{name}: {class:?}");
            assert!(!class.is_read());
        }
    }

    #[test]
    fn no_volatile_function_is_a_read_unless_listed_as_harmless() {
        for line in include_str!("data/functions.tsv").lines() {
            let (name, volatility) = line.split_once('\t').expect("two columns");
            let read = classify_function(None, name).is_read();
            assert!(!read || volatility != "v" || HARMLESS.contains(&name), "{name}");
        }
    }

    #[test]
    fn every_denied_name_exists_or_is_a_known_extension() {
        for name in DENIED {
            let known = FUNCTIONS.contains_key(name);
            assert!(known, "{name}");
        }
        for name in HARMLESS {
            assert!(FUNCTIONS.contains_key(name), "{name}");
        }
    }

    #[test]
    fn types_are_known_by_name() {
        assert!(is_builtin_type(None, "text"));
        assert!(is_builtin_type(Some("pg_catalog"), "int4"));
        assert!(!is_builtin_type(Some("public"), "text"));
        assert!(!is_builtin_type(None, "mood"));
    }
}
