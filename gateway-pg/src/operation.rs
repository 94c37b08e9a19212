//! From an analysed statement to the core's operation: what it touches, what policy may know of it.
//!
//! Actions and entities are those of `schema/postgres.cedarschema`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Access, Action, Argument, Binding, Effect, Facts, Operation, Resource};

use crate::analysis::{
    self, Access as Use, Change, CopyDirection, CopyEndpoint, CopyFormat, Filter, LexSettings, Limits,
    ObjectChange, RelationUse, SettingChange, SettingKind, SettingScope, Statement,
};
use crate::calls;
use crate::carried::{Carried, Row};
use crate::catalog::{Catalog, Event, LabelIndex, Relation, quote};
use crate::codec::frontend::Bind;
use crate::effects;
use crate::lineage::{self, Inference};
use crate::rewriter::{self, Background, NamedTable, Source};
use crate::statement::{is_meaningful, is_two_phase, unqualified_calls, written};

/// The policy schema fragment for PostgreSQL, for [`CedarEngine`](gateway_core::policy) builders.
pub const SCHEMA: &str = include_str!("../schema/postgres.cedarschema");

/// A schema name that no catalog has, for what cannot be resolved; a rule on a real schema does not cover it.
pub(crate) const UNRESOLVED: &str = "(unresolved)";

/// The name of a setting that the text does not tell, and of all of them.
const COMPUTED: &str = "(computed)";

/// Where statements run.
#[derive(Clone, Debug)]
pub struct Place {
    /// The target, as configured.
    pub target: String,
    /// The database.
    pub database: String,
}

impl Place {
    /// The database as a resource.
    pub fn database(&self) -> Resource {
        Resource::target(&self.target).child("Database", &self.database)
    }

    fn schema(&self, schema: &str) -> Resource {
        self.database().child("Schema", schema)
    }

    fn table(&self, schema: &str, name: &str) -> Resource {
        self.schema(schema).child("Table", name)
    }

    pub(crate) fn function(&self, schema: &str, name: &str) -> Resource {
        self.schema(schema).child("Function", name)
    }

    fn setting(&self, name: &str) -> Resource {
        Resource::target(&self.target).child("Setting", name)
    }

    fn server(&self) -> Resource {
        Resource::target(&self.target).child("Server", "server")
    }
}

/// A statement and the light it is seen in.
pub(crate) struct Subject<'a> {
    pub(crate) place: &'a Place,
    pub(crate) catalog: &'a Catalog,
    pub(crate) labels: &'a LabelIndex,
    /// The statement's exact bytes.
    pub(crate) text: Bytes,
    pub(crate) statement: &'a Statement,
    /// What `EXECUTE` or `FETCH` stand for.
    pub(crate) refers_to: Option<&'a Statement>,
    /// Its exact bytes, literals included.
    pub(crate) refers_to_text: Option<Bytes>,
    pub(crate) bind: Option<&'a Bind>,
    /// Type OIDs that Parse gives its parameters.
    pub(crate) types: &'a [u32],
    /// Settings that change what statements do, as far as they were changed.
    pub(crate) settings: &'a std::collections::BTreeMap<String, String>,
    pub(crate) lexing: LexSettings,
    pub(crate) in_transaction: bool,
    /// How many statements its message holds.
    pub(crate) of: usize,
}

/// What a statement is, apart from its literals and arguments.
///
/// # Errors
/// A denial for what no policy may allow: another database, an encoding that cannot be read, formats that cannot be masked.
pub(crate) fn template(subject: &Subject<'_>) -> Result<Template, Denial> {
    refuse_unreadable(subject)?;
    let accesses: Arc<[Access]> = accesses(subject).into_iter().collect();
    Ok(Template {
        kind: subject.statement.kind.clone(),
        effect: effect(subject, &accesses),
        accesses,
        facts: Arc::new(facts(subject)),
        binding: binding(subject),
        hides_literals: hides_literals(subject),
        tables: subject.statements().flat_map(|s| rewriter::named_tables(subject.catalog, s)).collect(),
    })
}

/// What operations have in common that are the same statement in the same light, but for its literals and arguments.
#[derive(Debug)]
pub(crate) struct Template {
    kind: std::borrow::Cow<'static, str>,
    effect: Effect,
    accesses: Arc<[Access]>,
    facts: Arc<Facts>,
    binding: Binding,
    /// Records must not hold the literals of the text.
    hides_literals: bool,
    tables: Arc<[NamedTable]>,
}

impl Template {
    /// What a rewrite must know besides the text. `stands_for`: the text of what it runs, as the server has it.
    pub(crate) fn background(&self, stands_for: Option<Bytes>, source: Source) -> Background {
        Background {
            accesses: Arc::clone(&self.accesses),
            tables: Arc::clone(&self.tables),
            stands_for,
            source,
        }
    }

    /// Everything it touches.
    pub(crate) fn accesses(&self) -> &[Access] {
        &self.accesses
    }

    /// What gives it its meaning.
    pub(crate) const fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The operation of a subject this is the template of.
    pub(crate) fn operation(&self, subject: &Subject<'_>) -> Operation {
        let mut operation = Operation::new(self.kind.clone(), subject.text.clone());
        operation.accesses = Arc::clone(&self.accesses);
        operation.facts = Arc::clone(&self.facts);
        operation.effect = self.effect;
        operation.arguments = subject.bind.map(|bind| arguments(bind, subject.types)).unwrap_or_default();
        operation.binding = self.binding.clone();
        operation.recorded = self.hides_literals.then(|| without_literals(subject));
        operation
    }
}

impl Subject<'_> {
    pub(crate) fn statements(&self) -> impl Iterator<Item = &Statement> {
        [Some(self.statement), self.refers_to].into_iter().flatten()
    }

    pub(crate) fn relation(&self, used: &RelationUse) -> Option<&Arc<Relation>> {
        self.catalog.relation(&written(used.schema.as_deref(), &used.name))
    }
}

fn not_understood(message: impl Into<String>, hint: &str) -> Denial {
    Denial::new(DenialCode::NotUnderstood, message).with_hint(hint)
}

fn refuse_unreadable(subject: &Subject<'_>) -> Result<(), Denial> {
    for statement in subject.statements() {
        for used in &statement.relations {
            if used.catalog.as_ref().is_some_and(|c| *c != subject.place.database) {
                return Err(not_understood(
                    "a name is in another database",
                    "leave the database out of the name",
                ));
            }
            if !subject.catalog.knows(&written(used.schema.as_deref(), &used.name)) {
                // For example an object newer than the transaction's snapshot.
                return Err(not_understood(
                    format!("what `{}` means here cannot be told", used.name),
                    "end the transaction and try again",
                ));
            }
        }
        statement.settings.iter().try_for_each(refuse_setting)?;
        refuse_copy(subject, statement)?;
    }
    Ok(())
}

/// How text is read stays as it is.
fn refuse_setting(change: &SettingChange) -> Result<(), Denial> {
    let value = change.value.as_deref().map(|v| v.trim_matches('\'').to_ascii_lowercase());
    // What the session began with was looked at then; a value that the text does not tell could be any.
    let restores =
        matches!(change.kind, SettingKind::Default | SettingKind::Reset | SettingKind::FromCurrent);
    let fine = match change.name.as_deref() {
        Some("client_encoding") => restores || matches!(value.as_deref(), Some("utf8" | "utf-8" | "unicode")),
        Some("standard_conforming_strings") => {
            restores || matches!(value.as_deref(), Some("on" | "true" | "yes" | "1"))
        }
        Some("backslash_quote") => false,
        _ => true,
    };
    if fine {
        return Ok(());
    }
    let name = change.name.as_deref().unwrap_or_default();
    Err(not_understood(
        format!("`{name}` must keep its value: it changes how statements are read"),
        "use UTF8 and standard strings",
    ))
}

/// What goes out of COPY must be understood to be masked: known formats, known options, known columns.
fn refuse_copy(subject: &Subject<'_>, statement: &Statement) -> Result<(), Denial> {
    let Some(copy) = &statement.copy else { return Ok(()) };
    if copy.direction == CopyDirection::From || copy.endpoint != CopyEndpoint::Client {
        return Ok(());
    }
    let known: &[&str] = match copy.format {
        CopyFormat::Text => &["format", "delimiter", "header", "freeze", "null"],
        CopyFormat::Csv => {
            &["format", "delimiter", "header", "freeze", "null", "quote", "escape", "force_quote"]
        }
        CopyFormat::Binary if !copy.query => &["format", "freeze"],
        CopyFormat::Binary => {
            let message = "the types of a query's columns are not known to a binary COPY";
            return Err(not_understood(message, "copy a table, or use csv"));
        }
        CopyFormat::Unknown => {
            return Err(not_understood("this COPY format is not understood", "use text, csv or binary"));
        }
    };
    if let Some((name, _)) = copy.options.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(not_understood(
            format!("the COPY option `{name}` is not understood here"),
            "leave it out",
        ));
    }
    copy.options.iter().try_for_each(|(name, value)| refuse_copy_option(copy.format, name, value))?;
    if copy.query && !knows_outputs(subject, statement) {
        let message =
            "of a query over protected columns that is copied out it must be certain which column is which";
        return Err(not_understood(message, "name the columns one by one instead of `*`"));
    }
    Ok(())
}

/// Whether a query that is copied reads nothing protected, or it is known which of its columns do.
fn knows_outputs(subject: &Subject<'_>, statement: &Statement) -> bool {
    let mut relations = statement.relations.iter().filter_map(|r| subject.relation(r));
    let protects = |r: &Arc<Relation>| !subject.catalog.protected(subject.labels, r).is_empty();
    let columns = |used: &RelationUse| {
        let relation = subject.relation(used)?;
        let columns = relation.columns().map(|name| (name.to_owned(), true)).collect();
        Some(Row { columns, system: !relation.is_view() })
    };
    !relations.any(protects) || Carried::new(statement, &columns).outputs().is_some()
}

/// Bytes that would make lines or values look like others: line ends as quotes, a null that ends in an escape.
fn refuse_copy_option(format: CopyFormat, name: &str, value: &str) -> Result<(), Denial> {
    let clear = match name {
        "delimiter" | "quote" | "escape" => {
            matches!(value.as_bytes(), [byte] if byte.is_ascii() && !b"\r\n\0".contains(byte))
        }
        "null" if format == CopyFormat::Text => value == "\\N" || !value.contains(['\\', '\r', '\n']),
        "null" => !value.contains(['\r', '\n']),
        _ => true,
    };
    if clear {
        return Ok(());
    }
    Err(not_understood(format!("the COPY option `{name}` makes the lines ambiguous"), "leave it out"))
}

fn accesses(subject: &Subject<'_>) -> BTreeSet<Access> {
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
        let proven = subject.statements().all(Statement::read_only);
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

fn access(action: &'static str, resource: Resource) -> Access {
    Access::new(Action::new(action), resource)
}

pub(crate) fn call(resource: Resource) -> Access {
    access("call", resource)
}

/// A relation and everything it stands on: parents, and what a view reads.
fn relation_accesses(
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
    let columns = effects::updated_columns(statement, used);
    let parts = if used.only { Vec::new() } else { subject.catalog.descendants(relation) };
    for part in [relation].into_iter().chain(&parts) {
        let event = effects::event(used.access);
        let events = effects::consequences(subject.catalog, part, event, columns.as_deref());
        for (event, table_there) in &events {
            out.extend(stored_calls(subject, table_there, *event));
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
    out.extend(calls::statements_of_others(subject, statement, relation));
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
const RELATIONS: [&str; 6] = ["table", "view", "materialized_view", "sequence", "index", "foreign_table"];

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
    let calls =
        relation.calls(event).filter(|c| !analysis::classify_function(Some(&c.schema), &c.name).is_read());
    calls.map(|c| call(subject.place.function(&c.schema, &c.name).with("via", c.via.as_str()))).collect()
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
            .find(|o| names_relation(o, &used.name))
            .map_or("alter", |o| change_action(o.change)),
    }
}

/// Whether an object is the relation of this name, or a column of it.
fn names_relation(object: &ObjectChange, relation: &str) -> bool {
    let mut parts = object.name.iter().rev();
    if object.kind == "column" {
        parts.next();
    }
    parts.next().is_some_and(|name| name == relation)
}

const fn change_action(change: Change) -> &'static str {
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
            let schemas = function_schemas(subject, object).into_iter();
            return schemas.map(|schema| access(action, place.function(schema, name))).collect();
        }
        "schema" => place.schema(name),
        "role"
        | "database"
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

/// Built-in functions that are judged as calls but leave settings and definitions as they are, by what their names begin with.
const LEAVES_NAMES: [&str; 18] = [
    "currval",
    "gin_clean_pending_list",
    "inet_",
    "lastval",
    "lo_",
    "loread",
    "lowrite",
    "nextval",
    "pg_advisory_",
    "pg_cancel_backend",
    "pg_current_xact_id",
    "pg_export_snapshot",
    "pg_notify",
    "pg_sleep",
    "pg_terminate_backend",
    "pg_try_advisory_",
    "setseed",
    "setval",
];

/// Whether what is accessed may change what names mean: a setting, or code of which it is not known what it does.
pub(crate) fn moves_names(access: &Access) -> bool {
    let name = access.resource.name();
    match access.action.as_str() {
        "set" => is_meaningful(Some(name).filter(|name| *name != COMPUTED)),
        "call" => {
            schema_of(&access.resource) != Some("pg_catalog")
                || !LEAVES_NAMES.iter().any(|known| name.starts_with(known))
        }
        _ => false,
    }
}

/// Whether the operation may change a setting of which it cannot be told which: it may be one that changes how text is read. The
/// server tells such a change with the next ReadyForQuery, no sooner.
pub(crate) fn moves_reading(operation: &Operation) -> bool {
    // These restore what the session began with.
    if matches!(&*operation.kind, "reset" | "discard") {
        return false;
    }
    operation.accesses.iter().any(|access| match (access.action.as_str(), access.resource.name()) {
        ("set", name) => name == COMPUTED,
        ("call", "set_config") => access.resource.attributes.contains_key("via"),
        _ => false,
    })
}

fn schema_of(resource: &Resource) -> Option<&str> {
    resource.path().iter().find(|(kind, _)| kind == "Schema").map(|(_, name)| name.as_str())
}

fn facts(subject: &Subject<'_>) -> Facts {
    let all = |filter: fn(&Filter) -> bool| {
        let mut filters = subject.statements().flat_map(|s| &s.modifications).map(|m| m.filter).peekable();
        filters.peek().is_some() && filters.all(|f| filter(&f))
    };
    let any_constant =
        subject.statements().flat_map(|s| &s.modifications).any(|m| m.filter == Filter::Constant);
    let of = i64::try_from(subject.of).unwrap_or(i64::MAX);
    Facts::from([
        ("statement_kind".into(), subject.statement.kind.to_string().into()),
        (
            "has_where".into(),
            all(|f| matches!(f, Filter::Present | Filter::Constant | Filter::NotApplicable)).into(),
        ),
        ("where_constant".into(), any_constant.into()),
        ("has_limit".into(), subject.statement.limit.is_some().into()),
        ("returning".into(), subject.statements().any(|s| s.flags.returning).into()),
        ("multi_statement".into(), (subject.of > 1).into()),
        ("statement_count".into(), of.into()),
        ("in_transaction".into(), subject.in_transaction.into()),
    ])
}

/// Commands that change only the session or its transaction: nothing of the target's state, so no record has to be on disk first.
pub(crate) const SESSION_ONLY: [&str; 19] = [
    "begin",
    "start_transaction",
    "commit",
    "rollback",
    "savepoint",
    "release",
    "release_savepoint",
    "rollback_to",
    "rollback_to_savepoint",
    "set",
    "set_transaction",
    "reset",
    "show",
    "prepare",
    "deallocate",
    "declare_cursor",
    "fetch",
    "move",
    "close",
];

fn effect(subject: &Subject<'_>, accesses: &[Access]) -> Effect {
    // EXECUTE does what it stands for, which is looked at itself.
    let stands_for = |s: &Statement| s.kind == "execute" && subject.refers_to.is_some();
    let harmless = |s: &Statement| {
        s.read_only() || stands_for(s) || (SESSION_ONLY.contains(&&*s.kind) && !s.flags.unproven)
    };
    let inner_reads = subject
        .statement
        .inner
        .as_deref()
        .is_none_or(|s| s.read_only() || subject.statement.explain.is_some());
    let calls = accesses.iter().any(|a| a.action.as_str() == "call");
    if !calls && inner_reads && subject.statements().all(harmless) { Effect::Read } else { Effect::Write }
}

fn arguments(bind: &Bind, types: &[u32]) -> Vec<Argument> {
    let format = |i: usize| match bind.parameter_formats.as_slice() {
        [] => 0,
        [one] => *one,
        many => many.get(i).copied().unwrap_or(0),
    };
    let kind = |i: usize| {
        let format = if format(i) == 0 { TEXT } else { BINARY };
        // What the bytes mean depends on the type that Parse gives; zero leaves it to the server.
        match types.get(i).copied().unwrap_or(0) {
            0 => format.to_owned(),
            oid => format!("{oid}/{format}"),
        }
    };
    let arguments = bind.parameters.iter().enumerate();
    arguments.map(|(i, value)| Argument { kind: kind(i), value: value.clone() }).collect()
}

/// How an argument is encoded: the end of its kind.
const TEXT: &str = "text";
pub(crate) const BINARY: &str = "binary";

/// What the relations a statement names, and all that reading them reads, are now.
pub(crate) fn meaning(
    catalog: &Catalog,
    statement: &Statement,
) -> Vec<(std::borrow::Cow<'static, str>, String)> {
    let mut out = Vec::new();
    for used in &statement.relations {
        let name = written(used.schema.as_deref(), &used.name);
        let relation = catalog.relation(&name);
        out.push((
            format!("relation {name}").into(),
            relation.map_or_else(|| "absent".to_owned(), |r| r.definition()),
        ));
        for below in relation.into_iter().flat_map(|r| catalog.reached(r)) {
            out.push((format!("below {name}").into(), below.definition()));
        }
        for (_, along) in relation
            .into_iter()
            .flat_map(|r| effects::consequences(catalog, r, effects::event(used.access), None))
        {
            out.push((format!("along with {name}").into(), along.definition()));
        }
    }
    for used in statement.functions.iter().filter(|used| used.schema.is_some()) {
        let name = written(used.schema.as_deref(), &used.name);
        let definition = catalog.function_definition(used.schema.as_deref(), &used.name);
        out.push((format!("function {name}").into(), definition));
    }
    // Functions, casts and operators that a name alone may stand for.
    let unqualified = unqualified_calls(statement);
    out.extend(unqualified.map(|name| (name.clone().into(), catalog.function_definition(None, &name))));
    for used in &statement.types {
        let name = written(used.schema.as_deref(), &used.name);
        let oid = catalog.type_oid(&name).filter(|oid| is_user_type(*oid));
        out.push((format!("type {name}").into(), oid.map(|oid| oid.to_string()).unwrap_or_default()));
    }
    out.retain(|(_, what)| !what.is_empty());
    out
}

/// What the names meant when it was judged: part of what an approval is bound to.
fn binding(subject: &Subject<'_>) -> Binding {
    let mut out: Vec<_> = subject.statements().flat_map(|s| meaning(subject.catalog, s)).collect();
    out.extend(
        subject.settings.iter().map(|(name, value)| (format!("setting {name}").into(), value.clone())),
    );
    if let Some(text) = &subject.refers_to_text {
        out.push(("refers to".into(), String::from_utf8_lossy(text).into_owned()));
    }
    out.sort();
    out.dedup();
    Binding::new(out)
}

/// Whether literals must not be kept in records: passwords, and statements that name protected columns.
fn hides_literals(subject: &Subject<'_>) -> bool {
    let names: BTreeSet<&str> = subject.labels.tables().flat_map(|(.., columns)| columns).collect();
    let touches = subject.statements().flat_map(|s| &s.relations).filter_map(|r| subject.relation(r));
    let protected = touches.into_iter().any(|r| !subject.catalog.protected(subject.labels, r).is_empty());
    let named = || {
        let columns = subject.statements().flat_map(|s| &s.columns).filter_map(|c| c.name.last());
        let written = subject.statements().flat_map(|s| &s.modifications).flat_map(|m| &m.columns);
        columns.chain(written).any(|c| names.contains(c.as_str()))
            || subject
                .statements()
                .flat_map(|s| &s.modifications)
                .any(|m| m.columns.is_empty() && m.access == Use::Insert)
    };
    let secret = subject.statements().any(|s| s.flags.password);
    secret || (protected && named())
}

/// The text for records where literals must not be kept.
fn without_literals(subject: &Subject<'_>) -> String {
    let text = std::str::from_utf8(&subject.text).unwrap_or_default();
    analysis::mask_literals(text, &subject.lexing, &Limits::default())
        .unwrap_or_else(|_| format!("({} with literals withheld)", subject.statement.kind))
}

/// An operation for the record of what was refused before it was understood: without its literals, which nobody has looked at.
pub(crate) fn refused(statement: Bytes, lexing: &LexSettings) -> Operation {
    let text = std::str::from_utf8(&statement).ok();
    let masked = text.and_then(|t| analysis::mask_literals(t, lexing, &Limits::default()).ok());
    let mut operation = Operation::new("refused", statement);
    // What has no readable literals is left to the masking of content.
    operation.recorded = masked;
    operation
}

/// Whether executing it can bring rows.
pub(crate) fn may_return_rows(statement: &Statement) -> bool {
    match &*statement.kind {
        "insert" | "update" | "delete" | "merge" => statement.flags.returning,
        "begin" | "commit" | "rollback" | "savepoint" | "set" | "reset" | "copy_from" | "copy_to" => false,
        _ => true,
    }
}

/// For a COPY of a table: the origin (table, attribute) of each column that goes out.
pub(crate) fn copied_columns(statement: &Statement, catalog: &Catalog) -> Option<Vec<(u32, i16)>> {
    let copy = statement.copy.as_ref().filter(|c| !c.query)?;
    let used = statement.relations.first()?;
    let relation = catalog.relation(&written(used.schema.as_deref(), &used.name))?;
    if copy.columns.is_empty() {
        return Some(relation.attributes().map(|number| (relation.oid, number)).collect());
    }
    copy.columns.iter().map(|name| relation.attribute(name).map(|number| (relation.oid, number))).collect()
}
