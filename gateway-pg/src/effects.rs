//! What happens along with a statement without being named in it: cascades of foreign keys, and functions that run by themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::analysis::{Access as Use, RelationUse, Statement};
use crate::catalog::{Catalog, Event, Relation};

/// What a statement makes happen to the rows of a relation that it names.
pub(crate) const fn event(used: Use) -> Event {
    match used {
        Use::Insert => Event::Insert,
        Use::Update => Event::Update,
        Use::Delete => Event::Delete,
        Use::Truncate => Event::Truncate,
        Use::Maintain => Event::Maintain,
        Use::Read | Use::Reference | Use::Lock | Use::Ddl => Event::Read,
    }
}

/// Whether what a write to a relation returns may be made by a rule (PostgreSQL documentation, CREATE RULE, `RETURNING`).
pub(crate) fn rules_answer(catalog: &Catalog, relation: &Arc<Relation>, used: Use) -> bool {
    let writes = matches!(used, Use::Insert | Use::Update | Use::Delete);
    writes
        && consequences(catalog, relation, event(used), None)
            .iter()
            .any(|(event, relation)| relation.rules(*event).next().is_some())
}

/// The columns that a statement updates through one of its relations; `None` if they are not known.
pub(crate) fn updated_columns<'a>(statement: &'a Statement, used: &RelationUse) -> Option<Vec<&'a str>> {
    let of_used = |index: usize| statement.relations.get(index) == Some(used);
    let updates = statement.modifications.iter().filter(|m| m.access == Use::Update && of_used(m.relation));
    let columns: Vec<_> = updates.flat_map(|m| &m.columns).map(String::as_str).collect();
    (!columns.is_empty()).then_some(columns)
}

/// Every event that `first` on `relation` brings about, itself first: by foreign keys, by rules, through a view on what it stands on, and
/// between its partitions. `columns`: those that it updates, if known.
pub(crate) fn consequences(
    catalog: &Catalog,
    relation: &Arc<Relation>,
    first: Event,
    columns: Option<&[&str]>,
) -> Vec<(Event, Arc<Relation>)> {
    let mut found = vec![(first, Arc::clone(relation))];
    let mut seen = BTreeSet::from([(first, relation.oid)]);
    let mut next = 0;
    while let Some((event, here)) = found.get(next).cloned() {
        let columns = columns.filter(|_| next == 0);
        let along = passed_on(&here, event, columns)
            .chain(by_rules(&here, event))
            .chain(through_view(&here, event))
            .chain(moved(catalog, &here, event, columns));
        for (event, oid) in along {
            let Some(table) = catalog.by_oid(oid) else { continue };
            let parts = catalog.descendants(table);
            let fresh = [vec![Arc::clone(table)], parts].concat();
            found.extend(fresh.into_iter().filter(|t| seen.insert((event, t.oid))).map(|t| (event, t)));
        }
        next += 1;
    }
    found
}

/// What foreign keys of other tables make of an event, as (event there, other table).
fn passed_on<'a>(
    relation: &'a Relation,
    event: Event,
    columns: Option<&'a [&'a str]>,
) -> impl Iterator<Item = (Event, u32)> + 'a {
    let key_changes = move |key: &[i16]| {
        columns.is_none_or(|names| {
            names.iter().any(|name| relation.attribute(name).is_none_or(|number| key.contains(&number)))
        })
    };
    relation.cascades().iter().filter_map(move |cascade| {
        let there = match event {
            Event::Delete => cascade.on_delete,
            Event::Update => cascade.on_update.filter(|_| key_changes(&cascade.key)),
            _ => None,
        };
        Some((there?, cascade.table))
    })
}

/// What rules make of an event, as (event there, relation that the rule touches).
fn by_rules(relation: &Relation, event: Event) -> impl Iterator<Item = (Event, u32)> + '_ {
    relation.rules(event).flat_map(|rule| {
        let own = rule.own.then_some(relation.oid);
        relation.parents.iter().copied().chain(own).map(move |oid| (rule.made, oid))
    })
}

/// What a write to a view does to what it stands on (PostgreSQL documentation, CREATE VIEW, "Updatable Views").
fn through_view(relation: &Relation, event: Event) -> impl Iterator<Item = (Event, u32)> + '_ {
    let passes = relation.is_view() && matches!(event, Event::Insert | Event::Update | Event::Delete);
    relation.parents.iter().filter(move |_| passes).map(move |oid| (event, *oid))
}

/// What an update makes of rows that no longer belong into their partition: it deletes them there and inserts them into another one, with
/// the triggers of both (PostgreSQL documentation, UPDATE, "Notes"; "Overview of Trigger Behavior").
fn moved(
    catalog: &Catalog,
    relation: &Arc<Relation>,
    event: Event,
    columns: Option<&[&str]>,
) -> impl Iterator<Item = (Event, u32)> + use<> {
    let moves = event == Event::Update && relation.is_partitioned() && {
        let tables = [vec![Arc::clone(relation)], catalog.descendants(relation)].concat();
        // What a trigger makes of the row is not known.
        let columns = columns.filter(|_| !tables.iter().any(|table| table.changes_updates()));
        tables.iter().any(|table| table.divides_by(columns))
    };
    let oid = relation.oid;
    [Event::Delete, Event::Insert].into_iter().filter(move |_| moves).map(move |event| (event, oid))
}
