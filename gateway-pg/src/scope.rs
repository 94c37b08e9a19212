//! Which names a statement uses, and to which it may give another meaning.

use crate::analysis::{Access as Use, Change, ObjectChange, RelationUse, Statement};
use crate::catalog::{Catalog, Relation};
use crate::definitions::{Names, Scope};
use crate::effects;
use crate::statement::{changes_definitions, is_two_phase, written};

/// Every name, without schema, whose meaning matters for what statements do: those in the text, and those of the relations that
/// come along.
pub(crate) fn used_names<'a>(statements: impl Iterator<Item = &'a Statement>, catalog: &Catalog) -> Names {
    let mut names = Names::new();
    for statement in statements {
        names.extend(statement.relations.iter().map(|r| r.name.clone()));
        names.extend(statement.functions.iter().map(|f| f.name.clone()));
        names.extend(statement.operators.iter().chain(&statement.types).map(|n| n.name.clone()));
        names.extend(statement.server_types.iter().chain(&statement.fields).cloned());
        // `u.f` may be the call `f(u)`, but names no relation: a client that writes down names of columns must not keep others from
        // changing tables that are called so.
        let qualified = statement.columns.iter().filter(|c| c.name.len() > 1);
        names.extend(qualified.filter_map(|c| c.name.last()).map(|name| as_call(name)));
        statement.relations.iter().for_each(|used| along(catalog, used, &mut names));
    }
    names
}

/// A name that can only be a function's, or what may be called like one.
fn as_call(name: &str) -> String {
    format!("{name}()")
}

fn along(catalog: &Catalog, used: &RelationUse, names: &mut Names) {
    let Some(relation) = resolved(catalog, used) else { return };
    names.insert(relation.name.clone());
    names.extend(catalog.reached(relation).iter().map(|r| r.name.clone()));
    let consequences = effects::consequences(catalog, relation, effects::event(used.access), None);
    names.extend(consequences.iter().map(|(_, r)| r.name.clone()));
}

fn resolved<'a>(catalog: &'a Catalog, used: &RelationUse) -> Option<&'a std::sync::Arc<Relation>> {
    catalog.relation(&written(used.schema.as_deref(), &used.name))
}

/// The names to which running a statement may give another meaning for other sessions. What code inside `DO` and functions
/// defines is not known.
pub(crate) fn scope(statement: &Statement, catalog: &Catalog) -> Scope {
    let none = Scope::Named(Names::new());
    if !changes_definitions(statement) {
        return none;
    }
    if is_two_phase(statement) || statement.flags.cascade {
        return Scope::Everything;
    }
    let objects = statement.objects.iter().map(|object| object_scope(statement, object));
    let related = statement.relations.iter().filter(|used| is_changed(statement, catalog, used));
    let related = Scope::Named(related.map(|used| used.name.clone()).collect());
    // What is dropped where nothing is, made where it is already, or temporary changes nothing for others.
    if !statement.relations.is_empty() && related.is_empty() && statement.objects.iter().all(is_relation) {
        return none;
    }
    objects.fold(related, Scope::and)
}

fn is_relation(object: &ObjectChange) -> bool {
    matches!(&*object.kind, "table" | "view" | "materialized_view" | "sequence" | "foreign_table")
}

/// Whether the definition of a relation is changed by a statement that names it.
fn is_changed(statement: &Statement, catalog: &Catalog, used: &RelationUse) -> bool {
    if !matches!(used.access, Use::Ddl | Use::Reference) {
        return false;
    }
    let all = |wanted: fn(&ObjectChange) -> bool| statement.objects.iter().all(wanted);
    let creates = all(|o| matches!(o.change, Change::Create | Change::Replace));
    if creates && all(is_relation) && statement.flags.temporary && used.access == Use::Ddl {
        return false;
    }
    match resolved(catalog, used) {
        Some(known) if known.schema.starts_with("pg_temp_") => false,
        Some(known) => {
            let here = used.schema.as_deref().or_else(|| catalog.current_schema());
            !(all(|o| o.change == Change::Create && o.conditional) && here == Some(&*known.schema))
        }
        None => !all(|o| o.change == Change::Drop),
    }
}

fn object_scope(statement: &Statement, object: &ObjectChange) -> Scope {
    let none = Scope::Named(Names::new());
    let makes = matches!(object.change, Change::Create | Change::Describe);
    match (&*object.kind, object.change) {
        _ if object.cascade => Scope::Everything,
        (_, Change::Describe) => none,
        // Their names come with the relations.
        _ if is_relation(object) => renamed(object),
        // Who may use a schema, and who one is, decides on what is found there.
        ("schema" | "role", _) if makes => none,
        ("schema" | "role" | "owned" | "extension" | "foreign_schema" | "cast", _) => Scope::Everything,
        (_, Change::Grant | Change::Revoke) => none,
        ("trigger" | "rule" | "policy" | "constraint" | "column", _) if !statement.relations.is_empty() => {
            renamed(object)
        }
        _ => {
            let name = object.name.last();
            let both = name.into_iter().flat_map(|name| [name.clone(), as_call(name)]);
            renamed(object).and(Scope::Named(both.collect()))
        }
    }
}

fn renamed(object: &ObjectChange) -> Scope {
    let new = object.renamed.as_ref().filter(|_| object.change == Change::Rename);
    Scope::Named(new.into_iter().flat_map(|name| [name.clone(), as_call(name)]).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::analysis::{LexSettings, Limits, analyse};

    #[test]
    fn names_of_columns_are_no_tables() {
        let of = |sql| analyse(sql, &LexSettings::default(), &Limits::default()).unwrap();
        let named = of("SELECT t.orders FROM (VALUES (1)) t(orders)");
        let names = used_names(named.statements.iter(), &Catalog::default());
        assert!(names.contains("orders()") && !names.contains("orders"), "{names:?}");
        let made = of("CREATE FUNCTION orders(record) RETURNS integer LANGUAGE sql AS 'SELECT 1'");
        let Scope::Named(changed) = scope(&made.statements[0], &Catalog::default()) else { panic!() };
        assert!(changed.contains("orders()") && changed.contains("orders"), "{changed:?}");
    }

    #[test]
    fn names_of_the_servers_own_types_are_used_too() {
        let sql = "SELECT '1'::int4, CAST('2' AS date), '3'::pg_catalog.text";
        let analysis = analyse(sql, &LexSettings::default(), &Limits::default()).unwrap();
        let names = used_names(analysis.statements.iter(), &Catalog::default());
        assert!(names.contains("int4") && names.contains("date"), "{names:?}");
        assert!(!names.contains("text"), "{names:?}");
    }
}
