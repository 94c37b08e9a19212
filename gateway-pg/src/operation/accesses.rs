//! Everything that a statement touches, as pairs of action and resource.

use std::collections::BTreeSet;

use gateway_core::operation::{Access, Action, Resource};

use super::relations::{RELATIONS, change_action, relation_accesses};
use super::{COMPUTED, Place, Subject, UNRESOLVED};
use crate::analysis::{self, Change, CopyEndpoint, ObjectChange, SettingChange, SettingScope, Statement};
use crate::calls;
use crate::catalog::quote;
use crate::lineage::{self, Inference};
use crate::statement::{is_two_phase, written};

pub(super) fn accesses(subject: &Subject<'_>) -> BTreeSet<Access> {
    let place = subject.place;
    let mut out = BTreeSet::new();
    for statement in subject.statements() {
        for used in &statement.relations {
            relation_accesses(subject, statement, used, &mut out);
        }
        out.extend(statement.functions.iter().flat_map(|f| calls::function_accesses(subject, f)));
        out.extend(statement.operators.iter().flat_map(|o| calls::operator_accesses(subject, o)));
        out.extend(type_accesses(subject, statement));
        out.extend(calls::attribute_calls(subject, statement));
        out.extend(inferences(subject, statement));
        out.extend(statement.settings.iter().map(|s| setting_access(place, s)));
        out.extend(statement.objects.iter().flat_map(|o| object_accesses(subject, o)));
        out.extend(statement.objects.iter().flat_map(|o| new_object_places(subject, o)));
        out.extend(kind_accesses(place, statement));
    }
    out.extend(parameter_types(subject));
    if out.is_empty() {
        // A cursor reads what it was declared for, which is among the statements.
        let steers = |s: &Statement| matches!(&*s.kind, "fetch" | "move") && !s.flags.unproven;
        let proven = subject.statements().all(|s| s.read_only() || steers(s));
        let (action, resource) = if proven { ("query", place.database()) } else { ("alter", place.server()) };
        out.insert(access(action, resource));
    }
    out
}

/// Uses of user types: reading a value runs the type's input function and a domain's checks. A name of the server's own types that
/// a user's type on the search path takes over is that type.
fn type_accesses(subject: &Subject<'_>, statement: &Statement) -> Vec<Access> {
    let used = |schema: &str, name: &str| call(subject.place.function(schema, &format!("type {name}")));
    let named = statement.types.iter().map(|t| {
        let found = subject.catalog.user_type(&written(t.schema.as_deref(), &t.name));
        let (schema, name) = found.unwrap_or((t.schema.as_deref().unwrap_or(UNRESOLVED), &t.name));
        used(schema, name)
    });
    let taken = statement.server_types.iter().filter_map(|name| subject.catalog.user_type(&quote(name)));
    named.chain(taken.map(|(schema, name)| used(schema, name))).collect()
}

/// Labelled columns that conditions, orders and computations depend on.
fn inferences(subject: &Subject<'_>, statement: &Statement) -> Vec<Access> {
    let found = lineage::inferences(subject.catalog, subject.labels, statement);
    let access = |(label, usage): (usize, Inference)| {
        subject.labels.resource(label).map(|resource| access(usage.action(), resource.clone()))
    };
    found.into_iter().filter_map(access).collect()
}

pub(super) fn access(action: &'static str, resource: Resource) -> Access {
    Access::new(Action::new(action), resource)
}

pub(crate) fn call(resource: Resource) -> Access {
    access("call", resource)
}

/// The first OID of what is not the server's own (`FirstNormalObjectId`, PostgreSQL source, access/transam.h).
const FIRST_USER_OID: u32 = 16_384;

/// Whether a parameter of this type says more of an operation than the statement's text does.
pub(crate) const fn is_user_type(oid: u32) -> bool {
    oid >= FIRST_USER_OID
}

/// Parameters of user types: reading a value runs the type's input function and a domain's checks, as a cast does.
fn parameter_types(subject: &Subject<'_>) -> impl Iterator<Item = Access> {
    let user = subject.types.iter().filter(|oid| is_user_type(**oid));
    user.map(|oid| call(subject.place.function(UNRESOLVED, &format!("type {oid}"))))
}

fn setting_access(place: &Place, change: &SettingChange) -> Access {
    match change.scope {
        SettingScope::System => access("alter", place.server()),
        SettingScope::RoleOrDatabase => access("alter", place.database()),
        _ => access("set", place.setting(change.name.as_deref().unwrap_or(COMPUTED))),
    }
}

/// Objects other than relations, which are accesses of their own.
fn object_accesses(subject: &Subject<'_>, object: &ObjectChange) -> Vec<Access> {
    let (place, action) = (subject.place, change_action(object.change));
    let name = object.name.last().map_or("", String::as_str);
    let resource = match &*object.kind {
        "column" => return Vec::new(),
        kind if RELATIONS.contains(&kind) => return Vec::new(),
        kind if FUNCTIONS.contains(&kind) => {
            let schemas = function_schemas(subject, object);
            let there = |schema: &&str| {
                object.change == Change::Replace && subject.catalog.user_functions(name).any(|s| s == *schema)
            };
            let replaced = schemas.iter().copied().filter(there).map(|schema| ("alter", schema));
            let named = schemas.iter().map(|schema| (action, *schema));
            return named
                .chain(replaced)
                .map(|(action, s)| access(action, place.function(s, name)))
                .collect();
        }
        // Every table in it gets another name, under which no rule knows it.
        "schema" if object.change == Change::Rename => place.server(),
        "schema" => place.schema(name),
        "role"
        | "database"
        // Whatever a role owns, in any schema.
        | "owned"
        | "tablespace"
        | "subscription"
        | "server"
        | "user_mapping"
        | "foreign_data_wrapper"
        | "extension"
        | "language"
        | "event_trigger"
        | "access_method" => place.server(),
        _ => place.database(),
    };
    vec![access(action, resource)]
}

/// Kinds of objects that are functions.
pub(crate) const FUNCTIONS: [&str; 4] = ["function", "procedure", "routine", "aggregate"];

/// The schemas a function that is defined, changed or dropped may be in. A new one without a schema is made where objects are made;
/// another one may be any of its name on the search path: the types of its arguments tell the server.
fn function_schemas<'a>(subject: &'a Subject<'_>, object: &'a ObjectChange) -> Vec<&'a str> {
    let mut parts = object.name.iter().rev().map(String::as_str);
    let (name, schema) = (parts.next().unwrap_or_default(), parts.next());
    if let Some(schema) = schema {
        return vec![schema];
    }
    if matches!(object.change, Change::Create | Change::Replace) {
        return vec![subject.catalog.current_schema().unwrap_or(UNRESOLVED)];
    }
    let mut found: Vec<_> = subject.catalog.user_functions(name).collect();
    if matches!(analysis::classify_function(None, name), analysis::FunctionClass::Builtin { .. }) {
        found.push("pg_catalog");
    }
    if found.is_empty() {
        found.push(UNRESOLVED);
    }
    found
}

/// Where a function or schema is once it is renamed or moved, as [`new_place`] of relations.
fn new_object_places(subject: &Subject<'_>, object: &ObjectChange) -> Vec<Access> {
    let (Some(new), place) = (object.renamed.as_deref(), subject.place) else { return Vec::new() };
    let name = object.name.last().map_or("", String::as_str);
    let resources = match (&*object.kind, object.change) {
        ("schema", _) => vec![place.schema(new)],
        (kind, Change::Move) if FUNCTIONS.contains(&kind) => vec![place.function(new, name)],
        (kind, _) if FUNCTIONS.contains(&kind) => {
            function_schemas(subject, object).into_iter().map(|schema| place.function(schema, new)).collect()
        }
        (_, Change::Move) => vec![place.schema(new)],
        _ => Vec::new(),
    };
    resources.into_iter().map(|resource| access("create", resource)).collect()
}

/// What a command does by being what it is.
fn kind_accesses(place: &Place, statement: &Statement) -> Vec<Access> {
    let mut out = Vec::new();
    if let Some(copy) = &statement.copy {
        match copy.endpoint {
            CopyEndpoint::Program(_) => out.push(access("copy_program", place.server())),
            CopyEndpoint::File(_) => out.push(access("server_file", place.server())),
            CopyEndpoint::Client => {}
        }
    }
    if is_two_phase(statement) {
        out.push(access("two_phase", place.database()));
    } else if statement.transaction.is_some() {
        out.push(access("transaction", place.database()));
    }
    if statement.explain.is_some() {
        out.push(access("explain", place.database()));
    }
    if statement.flags.cascade {
        // Takes along whatever depends on it, which the text does not name.
        out.push(access("alter", place.database()));
    }
    match &*statement.kind {
        "do" => out.push(access("do", place.database())),
        "listen" | "unlisten" => out.push(access("listen", place.database())),
        "notify" => out.push(access("notify", place.database())),
        "prepare" | "execute" | "deallocate" | "discard" | "close" => {
            out.push(access("prepare", place.database()))
        }
        "show" => out.push(access("show", place.setting("(any)"))),
        "load" | "checkpoint" | "alter_system" => out.push(access("alter", place.server())),
        _ => {}
    }
    out
}
