//! What a qualified reference, `c.f`, stands for: a column, or a function of the whole row.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::analysis::{ColumnUse, Output, OutputKind, Source, SourceKind, Statement};
use crate::catalog::{Catalog, Relation};
use crate::statement::{mentions, written};

/// Columns that every table has (PostgreSQL documentation, "System Columns"); views have none.
pub(crate) const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Whether a qualified reference is sure to be a column of what it is qualified with.
pub(crate) fn is_column(catalog: &Catalog, statement: &Statement, column: &ColumnUse) -> bool {
    let Some(name) = column.name.last() else { return false };
    let has = |source: &Source| match relation_of(catalog, statement, source) {
        _ if !source.columns.is_empty() => source.columns.contains(name),
        Some(relation) => relation_has(relation, name),
        None => yields(statement, source, name),
    };
    let mut sources = column.sources.iter().map(|s| statement.sources.get(*s));
    !column.sources.is_empty() && sources.all(|s| s.is_some_and(has))
}

/// Whether a qualified reference may stand for the whole row of a relation: the relation has no column of that name, so it is a function
/// or a type, known here or not.
pub(crate) fn may_be_row(catalog: &Catalog, statement: &Statement, column: &ColumnUse) -> bool {
    let Some(name) = column.name.last() else { return false };
    let lacks = |source: &Source| {
        let relation = relation_of(catalog, statement, source);
        matches!(source.kind, SourceKind::Relation(_) | SourceKind::Pseudo(_))
            && !relation.is_some_and(|r| relation_has(r, name))
    };
    column.name.len() > 1
        && !column.star
        && column.sources.iter().filter_map(|s| statement.sources.get(*s)).any(lacks)
}

fn relation_of<'a>(
    catalog: &'a Catalog,
    statement: &Statement,
    source: &Source,
) -> Option<&'a Arc<Relation>> {
    let (SourceKind::Relation(index) | SourceKind::Pseudo(Some(index))) = source.kind else { return None };
    let used = statement.relations.get(index)?;
    catalog.relation(&written(used.schema.as_deref(), &used.name))
}

fn relation_has(relation: &Relation, name: &str) -> bool {
    relation.has_column(name) || (!relation.is_view() && SYSTEM_COLUMNS.contains(&name))
}

/// Whether a subquery or CTE is sure to yield a column of this name.
fn yields(statement: &Statement, source: &Source, name: &str) -> bool {
    let named = |output: &Output| match (&output.alias, &output.kind) {
        (Some(alias), _) => alias == name,
        (None, OutputKind::Column(index)) => {
            statement.columns.get(*index).and_then(|c| c.name.last()).is_some_and(|last| last == name)
        }
        _ => false,
    };
    source.outputs.iter().any(named)
}

/// Whether a statement may use a column of this name, under this name or another one.
pub(crate) fn may_show(statement: &Statement, name: &str) -> bool {
    let renamed = statement.sources.iter().any(|s| !s.columns.is_empty());
    renamed || statement.columns.iter().any(|c| mentions(c, &BTreeSet::from([name])))
}
