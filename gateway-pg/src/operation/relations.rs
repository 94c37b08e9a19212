//! What a statement touches by naming a relation: the relation, what it stands on and shows, and what comes along.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_core::operation::Access;

use super::accesses::{access, call};
use super::{COMPUTED, Subject, UNRESOLVED};
use crate::analysis::{self, Access as Use, Change, CopyDirection, ObjectChange, RelationUse, Statement};
use crate::calls;
use crate::catalog::{Event, Relation};
use crate::effects;

/// A relation and everything it stands on: parents, and what a view reads.
pub(super) fn relation_accesses(
    subject: &Subject<'_>,
    statement: &Statement,
    used: &RelationUse,
    out: &mut BTreeSet<Access>,
) {
    let action = relation_action(statement, used);
    let here = subject.catalog.current_schema().unwrap_or(UNRESOLVED);
    let temporary =
        if statement.flags.temporary || shows_temporary(subject, statement) { "pg_temp" } else { here };
    let schema = used.schema.as_deref().unwrap_or(temporary);
    // A new object goes where objects are made, whatever its name means now.
    let relation = subject.relation(used).filter(|r| action != "create" || r.schema == schema);
    out.extend(new_place(subject, statement, used, relation.map_or(schema, |r| &r.schema)));
    let Some(relation) = relation else {
        out.insert(access(action, subject.place.table(schema, &used.name)));
        return;
    };
    let table = |r: &Relation| subject.place.table(&r.schema, &r.name).with("kind", kind_name(r.kind));
    let definition = matches!(used.access, Use::Ddl | Use::Maintain | Use::Reference);
    let view = relation.is_view();
    // Its query runs, with its owner's rights.
    let shows = view && (!definition || statement.kind == "refresh");
    out.insert(access(action, table(relation)));
    let replaces = |o: &ObjectChange| o.change == Change::Replace && names_relation(o, used);
    if action == "create" && statement.objects.iter().any(replaces) {
        out.insert(access("alter", table(relation)));
    }
    let columns = effects::updated_columns(statement, used);
    let parts = if used.only { Vec::new() } else { subject.catalog.descendants(relation) };
    for part in [relation].into_iter().chain(&parts) {
        let event = effects::event(used.access);
        let events = effects::consequences(subject.catalog, part, event, columns.as_deref());
        for (event, table_there) in &events {
            out.extend(stored_calls(subject, table_there, *event));
        }
        if matches!(action, "alter" | "maintain") {
            out.extend(row_calls(subject, part));
        }
        out.extend(events.iter().skip(1).map(|(event, r)| access(event_action(*event), table(r))));
    }
    let ancestors = subject.catalog.ancestors(relation);
    if modifies(used.access) && ancestors.iter().chain([relation]).any(|r| is_settings_view(r)) {
        out.insert(access("set", subject.place.setting(COMPUTED)));
        out.insert(call(subject.place.function("pg_catalog", "set_config").with("via", "view")));
    }
    for below in ancestors {
        if !(definition && view) {
            out.insert(access(action, table(&below)));
        }
        if shows {
            out.insert(access("select", table(&below)));
            out.extend(stored_calls(subject, &below, Event::Read));
            out.extend(subject.catalog.descendants(&below).iter().map(|r| access("select", table(r))));
        }
    }
    out.extend(parts.iter().map(|r| access(action, table(r))));
    if !definition || shows {
        out.extend(policy_reads(subject, relation).iter().map(|r| access("select", table(r))));
    }
    out.extend(calls::told_besides(subject, statement, relation));
}

/// What row policies read, of a relation and of all that it stands on and shows; what they read may have policies itself.
fn policy_reads(subject: &Subject<'_>, relation: &Relation) -> Vec<Arc<Relation>> {
    let mut found: BTreeMap<u32, Arc<Relation>> = BTreeMap::new();
    let reads = |r: &Relation| {
        let below = subject.catalog.reached(r);
        let of = |r: &Relation| subject.catalog.read_by_policies(r);
        [of(r), below.iter().flat_map(|r| of(r)).collect()].concat()
    };
    let mut open = reads(relation);
    while let Some(read) = open.pop() {
        if found.insert(read.oid, Arc::clone(&read)).is_none() {
            open.extend(reads(&read));
        }
    }
    found.into_values().collect()
}

const fn modifies(used: Use) -> bool {
    matches!(used, Use::Insert | Use::Update | Use::Delete)
}

/// `pg_settings` has a rule that turns an update into `set_config`; so has every view that can be written through to it.
fn is_settings_view(relation: &Relation) -> bool {
    relation.schema == "pg_catalog" && relation.name == "pg_settings"
}

/// Where a relation is once it is renamed or moved: that is judged as making one there.
fn new_place(
    subject: &Subject<'_>,
    statement: &Statement,
    used: &RelationUse,
    schema: &str,
) -> Option<Access> {
    let object = statement.objects.iter().find(|o| o.name.last() == Some(&used.name))?;
    let new = object.renamed.as_deref().filter(|_| RELATIONS.contains(&&*object.kind))?;
    let (schema, name) = match object.change {
        Change::Move => (new, used.name.as_str()),
        _ => (schema, new),
    };
    Some(access("create", subject.place.table(schema, name)))
}

/// Kinds of objects that are relations.
pub(super) const RELATIONS: [&str; 6] =
    ["table", "view", "materialized_view", "sequence", "index", "foreign_table"];

/// Whether a statement makes a view that is temporary because something it reads is (PostgreSQL documentation, CREATE VIEW).
fn shows_temporary(subject: &Subject<'_>, statement: &Statement) -> bool {
    let read = statement.relations_under(Use::Read).filter_map(|used| subject.relation(used));
    statement.kind == "create_view" && read.into_iter().any(|r| r.schema.starts_with("pg_temp"))
}

/// The action of what foreign keys, rules and views make happen.
const fn event_action(event: Event) -> &'static str {
    match event {
        Event::Insert => "insert",
        Event::Delete => "delete",
        Event::Truncate => "truncate",
        Event::Update => "update",
        Event::Read | Event::Maintain => "select",
    }
}

/// Calls of functions that run by themselves when `event` happens: in stored queries, triggers, defaults and the like.
fn stored_calls(subject: &Subject<'_>, relation: &Relation, event: Event) -> Vec<Access> {
    stored_calls_by(subject, relation, event, |_| true)
}

/// Those of them that run by something of these kinds.
fn stored_calls_by(
    subject: &Subject<'_>,
    relation: &Relation,
    event: Event,
    by: impl Fn(&str) -> bool,
) -> Vec<Access> {
    let reads = |schema: &str, name: &str| analysis::classify_function(Some(schema), name).is_read();
    let calls = relation.calls(event).filter(|c| by(&c.via) && !reads(&c.schema, &c.name));
    calls.map(|c| call(subject.place.function(&c.schema, &c.name).with("via", c.via.as_str()))).collect()
}

/// Calls of functions that run for the rows of a table that is rewritten, checked or indexed anew.
fn row_calls(subject: &Subject<'_>, relation: &Relation) -> Vec<Access> {
    const KEPT: [&str; 4] = ["default", "check", "index", "partition"];
    stored_calls_by(subject, relation, Event::Insert, |via| KEPT.contains(&via))
}

fn relation_action(statement: &Statement, used: &RelationUse) -> &'static str {
    let copies = statement.copy.as_ref().map(|c| c.direction);
    match (used.access, copies) {
        (Use::Read, Some(CopyDirection::To)) => "copy_out",
        (Use::Insert, Some(CopyDirection::From)) => "copy_in",
        (Use::Read | Use::Reference, _) => "select",
        (Use::Insert, _) => "insert",
        (Use::Update, _) => "update",
        (Use::Delete, _) => "delete",
        (Use::Truncate, _) => "truncate",
        (Use::Lock, _) => "lock",
        (Use::Maintain, _) => "maintain",
        (Use::Ddl, _) => statement
            .objects
            .iter()
            .find(|o| names_relation(o, used))
            .map_or("alter", |o| change_action(o.change)),
    }
}

/// Whether an object is this relation, or a column of it. What else belongs to a relation (triggers, rules, policies, indexes) may have
/// the same name and is not the relation.
fn names_relation(object: &ObjectChange, used: &RelationUse) -> bool {
    let mut parts = object.name.iter().rev();
    match &*object.kind {
        "column" => drop(parts.next()),
        "index" => return false,
        kind if RELATIONS.contains(&kind) => {}
        _ => return false,
    }
    parts.next() == Some(&used.name) && parts.next() == used.schema.as_ref()
}

pub(super) const fn change_action(change: Change) -> &'static str {
    match change {
        Change::Create | Change::Replace => "create",
        Change::Alter | Change::Rename | Change::Move | Change::Owner => "alter",
        Change::Drop => "drop",
        Change::Grant => "grant",
        Change::Revoke => "revoke",
        Change::Describe => "comment",
    }
}

const fn kind_name(kind: char) -> &'static str {
    match kind {
        'v' => "view",
        'm' => "materialized_view",
        'f' => "foreign_table",
        'S' => "sequence",
        _ => "table",
    }
}
