//! What a statement calls: functions, operators and types that the server finds by name, written as calls or not.

use gateway_core::operation::Access;

use crate::analysis::{self, FunctionClass, FunctionUse, QualifiedName, Statement};
use crate::catalog::{self, Relation};
use crate::operation::{Subject, UNRESOLVED, call};
use crate::references::{is_column, may_show};

/// Calls of anything but harmless built-ins. A name that users' functions on the search path share may be any of them, or the
/// built-in one: the types of its arguments tell the server. It may also be a cast to a user's type of that name.
pub(crate) fn function_accesses(subject: &Subject<'_>, used: &FunctionUse) -> Vec<Access> {
    let class = analysis::classify_function(used.schema.as_deref(), &used.name);
    let mut found = match used.schema {
        None => calls_by_name(subject, &used.name, &format!("type {}", used.name)),
        Some(_) => Vec::new(),
    };
    let builtin = matches!(class, FunctionClass::Builtin { .. });
    if !class.is_read() && (builtin || found.is_empty()) {
        let schema = used.schema.as_deref().unwrap_or(if builtin { "pg_catalog" } else { UNRESOLVED });
        found.push(call(subject.place.function(schema, &used.name).with("volatility", "volatile")));
    }
    found
}

/// Calls of all users' functions on the search path that a name may mean, and of the types that it may mean under the name `cast`.
fn calls_by_name(subject: &Subject<'_>, name: &str, cast: &str) -> Vec<Access> {
    let functions = subject.catalog.user_functions(name).map(|schema| subject.place.function(schema, name));
    let kind = cast.strip_prefix("row ").unwrap_or(cast);
    let types = subject.catalog.user_functions(cast).map(|schema| subject.place.function(schema, kind));
    functions.chain(types).map(call).collect()
}

pub(crate) fn operator_accesses(subject: &Subject<'_>, operator: &QualifiedName) -> Vec<Access> {
    let name = format!("operator {}", operator.name);
    let function = |schema| call(subject.place.function(schema, &name));
    match operator.schema.as_deref() {
        Some("pg_catalog") => Vec::new(),
        Some(schema) => vec![function(schema)],
        None => subject.catalog.user_functions(&name).map(function).collect(),
    }
}

/// `u.f` that is no column is the call `f(u)`, or a cast of the row to a type `f`. What stands behind an expression, `(e).f`, may be
/// either one or a field: of what type the expression is, its text does not tell.
pub(crate) fn attribute_calls(subject: &Subject<'_>, statement: &Statement) -> Vec<Access> {
    let related: Vec<_> = statement.relations.iter().filter_map(|r| subject.relation(r)).collect();
    let everywhere = |name: &str| !related.is_empty() && related.iter().all(|r| r.has_column(name));
    let qualified = statement.columns.iter().filter(|c| c.name.len() > 1 && !c.star);
    let named = qualified.filter_map(|c| c.name.last().map(|name| (c, name)));
    // One table's column says nothing of another table's row.
    let unknown = named.filter(|(c, name)| !everywhere(name) || !is_column(subject.catalog, statement, c));
    let rows = unknown.flat_map(|(_, name)| calls_by_name(subject, name, &format!("row type {name}")));
    let fields = statement.fields.iter().flat_map(|f| calls_by_name(subject, f, &format!("type {f}")));
    rows.chain(fields).collect()
}

/// Some relations of the server's own show more than policy on them says: statements of other sessions, values of any table.
pub(crate) fn told_besides(subject: &Subject<'_>, statement: &Statement, relation: &Relation) -> Vec<Access> {
    let shows = |column: &str| may_show(statement, column);
    let direct = catalog::told(relation).filter(|told| told.is_shown(shows));
    let below = if relation.is_view() { subject.catalog.ancestors(relation) } else { Vec::new() };
    let below = below.iter().filter_map(|r| catalog::told(r)).filter(|told| told.in_views);
    let found = direct.into_iter().chain(below);
    found.map(|told| call(subject.place.function("pg_catalog", told.function))).collect()
}
