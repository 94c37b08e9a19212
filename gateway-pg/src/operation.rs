//! From an analysed statement to the core's operation: what it touches, what policy may know of it.
//!
//! Actions and entities are those of `schema/postgres.cedarschema`.

mod accesses;
mod refusals;
mod relations;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::error::Denial;
use gateway_core::operation::{Access, Argument, Binding, Effect, Facts, Operation, Resource};

use self::accesses::accesses;
use self::refusals::refuse_unreadable;
use crate::analysis::{self, Access as Use, Filter, LexSettings, Limits, RelationUse, Statement};
use crate::catalog::{Catalog, LabelIndex, Relation};
use crate::codec::frontend::Bind;
use crate::effects;
use crate::rewriter::{self, Background, NamedTable, Source};
use crate::statement::{is_meaningful, looks_up_names, unqualified_calls, written};

pub(crate) use self::accesses::{FUNCTIONS, call, is_user_type};

/// The policy schema fragment for PostgreSQL, for [`CedarEngine`](gateway_core::policy) builders.
pub const SCHEMA: &str = include_str!("../schema/postgres.cedarschema");

/// A schema name that no catalog has, for what cannot be resolved; a rule on a real schema does not cover it.
pub(crate) const UNRESOLVED: &str = "(unresolved)";

/// The name of a setting that the text does not tell, and of all of them.
pub(crate) const COMPUTED: &str = "(computed)";

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

/// All definitions of users, for what looks up names that cannot be told.
pub(crate) fn definitions(catalog: &Catalog) -> (std::borrow::Cow<'static, str>, String) {
    ("definitions".into(), catalog.definitions().unwrap_or_default().to_owned())
}

/// What the names meant when it was judged: part of what an approval is bound to.
fn binding(subject: &Subject<'_>) -> Binding {
    let mut out: Vec<_> = subject.statements().flat_map(|s| meaning(subject.catalog, s)).collect();
    out.extend(
        subject.settings.iter().map(|(name, value)| (format!("setting {name}").into(), value.clone())),
    );
    // Names in constants ('orders'::regclass) and in what functions run are looked up by it.
    out.push(("setting search_path".into(), subject.catalog.search_path().unwrap_or_default().to_string()));
    // What else is looked up cannot be told: it is the same as long as every definition is.
    if subject.statements().any(looks_up_names) {
        out.push(definitions(subject.catalog));
    }
    if let Some(text) = &subject.refers_to_text {
        out.push(("refers to".into(), String::from_utf8_lossy(text).into_owned()));
    }
    out.sort();
    out.dedup();
    Binding::new(out)
}

/// Whether literals must not be kept in records: passwords, and statements that name columns through which labels can be read.
fn hides_literals(subject: &Subject<'_>) -> bool {
    let touched = || subject.statements().flat_map(|s| &s.relations).filter_map(|r| subject.relation(r));
    let labels = |relation| subject.catalog.protected(subject.labels, relation);
    let carriers: BTreeSet<&str> =
        touched().flat_map(|r| subject.catalog.carriers(subject.labels, r, &labels(r))).collect();
    let named = || {
        let columns = subject.statements().flat_map(|s| &s.columns).filter_map(|c| c.name.last());
        let written = subject.statements().flat_map(|s| &s.modifications).flat_map(|m| &m.columns);
        columns.chain(written).any(|c| carriers.contains(c.as_str()))
            || subject
                .statements()
                .flat_map(|s| &s.modifications)
                .any(|m| m.columns.is_empty() && m.access == Use::Insert)
    };
    let secret = subject.statements().any(|s| s.flags.password);
    secret || (touched().any(|r| !labels(r).is_empty()) && named())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The same bytes are another value of another type, and an approval is bound to the kind.
    #[test]
    fn arguments_tell_their_type_and_encoding() {
        let bind = Bind {
            portal: String::new(),
            statement: String::new(),
            parameter_formats: vec![1, 0, 1],
            parameters: vec![None; 3],
            result_formats: Vec::new(),
        };
        let kinds = |types: &[u32]| arguments(&bind, types).into_iter().map(|a| a.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&[]), ["binary", "text", "binary"]);
        assert_eq!(kinds(&[701, 25]), ["701/binary", "25/text", "binary"]);
        assert_ne!(kinds(&[701]), kinds(&[20]));
    }
}
