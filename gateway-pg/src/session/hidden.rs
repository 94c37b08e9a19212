//! Values that may not be shown may not be stored where their label does not follow them either.

use std::collections::BTreeSet;

use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::Operation;

use super::Session;
use crate::analysis::{
    Access as Use, Change, ColumnUse, ForeignKey, ObjectChange, Place, RelationUse, SourceKind, Statement,
    reads_anything,
};
use crate::carried::{Carried, Row};
use crate::catalog::Catalog;
use crate::effects;
use crate::statement::written;

impl Session {
    /// Refuses a statement that would put values of columns that are hidden from this principal somewhere else: into another column or
    /// table, or into a function of which it is not known what it does with them.
    ///
    /// # Errors
    /// The denial.
    pub(super) fn refuse_moving_hidden(
        &self,
        statements: &[&Statement],
        operation: &Operation,
    ) -> Result<(), Denial> {
        if self.labels.is_empty() {
            return Ok(());
        }
        self.refuse_opaque(statements, operation)?;
        statements.iter().try_for_each(|statement| self.refuse_defining(statement))?;
        let calls = operation.accesses.iter().any(|a| {
            // What a table runs by itself was set up by whoever owns the table.
            a.action.as_str() == "call" && !a.resource.attributes.contains_key("via")
        });
        // `CREATE TABLE AS EXECUTE` stores what another statement reads.
        let stores = statements.iter().any(|statement| stores(statement));
        statements.iter().try_for_each(|statement| self.refuse_moving(statement, stores, calls))
    }

    /// Refuses code, and functions that read what is named in their text: while anything in the database is hidden from this principal,
    /// nobody can tell that they leave it alone. Functions that are there already and may be called are trusted with what they return.
    fn refuse_opaque(&self, statements: &[&Statement], operation: &Operation) -> Result<(), Denial> {
        let called = operation.accesses.iter().filter(|a| a.action.as_str() == "call");
        let reader = called.map(|a| a.resource.name()).find(|name| reads_anything(name));
        let code = statements.iter().any(|s| s.code.is_some());
        if !code && reader.is_none() || self.labels.all().iter().all(|label| self.guard.reveals_label(*label))
        {
            return Ok(());
        }
        let what = reader.map_or_else(|| "code".to_owned(), |name| format!("`{name}`"));
        let message = format!("{what} could read values that are hidden from you");
        Err(Denial::new(DenialCode::Forbidden, message).with_hint("query the tables themselves"))
    }

    /// Refuses definitions that take tables with hidden columns away from under their labels, and those that test hidden values.
    fn refuse_defining(&self, statement: &Statement) -> Result<(), Denial> {
        if statement.objects.iter().any(|object| self.moves_labels(object)) {
            let message = "what holds columns that are hidden from you cannot be renamed or moved";
            return Err(forbidden(message, "have somebody do it who may see them"));
        }
        // Whatever the domain: which columns are of it, through arrays, rows, ranges and other domains too, is the server's to say, and
        // the names held still between that answer and the run are those in the statement. Those of the tables that it tests are not.
        let foreign = |o: &ObjectChange| matches!(&*o.kind, "foreign_table" | "foreign_schema");
        if statement.objects.iter().any(|o| foreign(o) && o.change == Change::Create)
            && self.hides(self.labels.all())
        {
            let message = "a foreign table could show values that are hidden from you";
            return Err(forbidden(message, "have somebody make it who may see them"));
        }
        if statement.flags.tests_domain && self.hides(self.labels.all()) {
            let message = "a domain that hidden values may be of cannot be given conditions";
            return Err(forbidden(message, "have somebody do it who may see them"));
        }
        // Typed tables (`CREATE TABLE t OF type`) change with their type, and no text names them.
        let of_types =
            matches!(&*statement.kind, "alter_type" | "rename_attribute") && statement.flags.cascade;
        if of_types && self.hides(self.labels.all()) {
            let message =
                "a type that tables with hidden columns may be of cannot be changed together with them";
            return Err(forbidden(message, "leave CASCADE out, or have somebody do it who may see them"));
        }
        if statement.foreign_keys.iter().any(|key| self.tests_hidden(statement, key)) {
            let message = "a foreign key may not refer to columns that are hidden from you";
            return Err(forbidden(message, "name the columns it refers to, and only those you may see"));
        }
        Ok(())
    }

    /// Whether a schema, database or extension gets another place with labelled tables in it: labels hold by name.
    fn moves_labels(&self, object: &ObjectChange) -> bool {
        let name = object.name.last().map_or("", String::as_str);
        match (&*object.kind, object.change) {
            ("schema", Change::Rename) => self.hides(self.labels.in_schema(name)),
            ("database", Change::Rename) => {
                let labels = self.guard.labels().iter().enumerate();
                let there =
                    labels.filter(|(_, l)| l.resource.path().get(1).is_some_and(|(_, db)| *db == name));
                self.hides(there.map(|(label, _)| label))
            }
            // Which tables belong to it is not known.
            ("extension", Change::Move) => self.hides(self.labels.all()),
            _ => false,
        }
    }

    /// Whether writing to a foreign key's table would test hidden values, or be given new ones. Which columns are the primary key is not
    /// known.
    fn tests_hidden(&self, statement: &Statement, key: &ForeignKey) -> bool {
        let Some(used) = statement.relations.get(key.relation) else { return true };
        let known = self.catalog.relation(&written(used.schema.as_deref(), &used.name));
        let Some(relation) = known else { return false };
        let labels = self.catalog.protected(&self.labels, relation);
        let hidden = labels.into_iter().filter(|label| !self.guard.reveals_label(*label)).collect();
        let carriers = self.catalog.carriers(&self.labels, relation, &hidden);
        match &key.columns[..] {
            [] => !carriers.is_empty(),
            columns => columns.iter().any(|column| carriers.contains(&column.as_str())),
        }
    }

    fn hides(&self, labels: impl IntoIterator<Item = usize>) -> bool {
        labels.into_iter().any(|label| !self.guard.reveals_label(label))
    }

    fn refuse_moving(&self, statement: &Statement, stores: bool, calls: bool) -> Result<(), Denial> {
        let alters = alters(statement);
        if !stores && !calls && !alters {
            return Ok(());
        }
        let hidden = self.hidden_labels(statement);
        if hidden.is_empty() {
            return Ok(());
        }
        if alters {
            // A label holds a column by its name, and a new column or type could be computed from it.
            let message =
                "a relation with columns that are hidden from you cannot be changed in its definition";
            return Err(
                Denial::new(DenialCode::Forbidden, message).with_hint("have somebody do it who may see them")
            );
        }
        // With one table and nothing nested, what is put out is RETURNING, which is masked as any result.
        let sources = statement.sources.iter().filter(|s| !matches!(s.kind, SourceKind::Pseudo(_))).count();
        let nested = sources > 1 || statement.outputs.is_empty() || !modifies(statement);
        let moved = |c: &&ColumnUse| calls || c.places.iter().any(|p| is_stored(*p, nested));
        let lookup = self.lookup(&hidden);
        let mut lineage = Carried::new(statement, &lookup);
        match statement.columns.iter().filter(moved).find(|c| lineage.column(c)) {
            None => Ok(()),
            Some(column) => Err(cannot_move(column, stores)),
        }
    }

    /// Whether each column of a statement's result may hold values of these labels; `None` if that is not known.
    pub(super) fn protected_outputs(
        &self,
        statement: Option<&Statement>,
        labels: &BTreeSet<usize>,
    ) -> Option<Vec<bool>> {
        const FOLLOWED: [&str; 7] = ["select", "values", "insert", "update", "delete", "merge", "copy_to"];
        let statement = statement.filter(|s| s.explain.is_none() && FOLLOWED.contains(&&*s.kind))?;
        Carried::new(statement, &self.lookup(labels)).outputs()
    }

    /// Whether rows that a statement returns may be those of a rule, of which its text and the relation say nothing.
    pub(super) fn is_answered_by_rules(&self, statement: &Statement) -> bool {
        let targets = statement.modifications.iter().filter_map(|m| statement.relations.get(m.relation));
        let mut known = targets.filter_map(|used| {
            let relation = self.catalog.relation(&written(used.schema.as_deref(), &used.name))?;
            Some(effects::rules_answer(&self.catalog, relation, used.access))
        });
        known.any(|answered| answered)
    }

    /// Says of a relation which of its columns carry these labels.
    fn lookup<'a>(&'a self, labels: &'a BTreeSet<usize>) -> impl Fn(&RelationUse) -> Option<Row> + 'a {
        move |used| {
            let relation = self.catalog.relation(&written(used.schema.as_deref(), &used.name))?;
            let carriers = self.catalog.carriers(&self.labels, relation, labels);
            let ruled = effects::rules_answer(&self.catalog, relation, used.access)
                && !self.catalog.protected(&self.labels, relation).is_disjoint(labels);
            let column = |name: &str| (name.to_owned(), ruled || carriers.contains(&name));
            Some(Row { columns: relation.columns().map(column).collect(), system: !relation.is_view() })
        }
    }

    /// Labels whose values a statement reaches and this principal may not see.
    fn hidden_labels(&self, statement: &Statement) -> BTreeSet<usize> {
        let relations = statement.relations.iter().filter_map(|r| {
            let name = written(r.schema.as_deref(), &r.name);
            self.catalog.relation(&name)
        });
        let labels = relations.flat_map(|r| Catalog::protected(&self.catalog, &self.labels, r));
        labels.filter(|label| !self.guard.reveals_label(*label)).collect()
    }
}

/// Whether it puts values into tables, or makes one of them.
fn stores(statement: &Statement) -> bool {
    let makes = matches!(&*statement.kind, "create_table_as" | "select_into" | "create_materialized_view");
    // EXPLAIN ANALYZE runs what it explains.
    let explained = statement.explain.is_some() && !statement.objects.is_empty();
    makes || explained || modifies(statement)
}

/// Whether it changes the definition of something that is there.
fn alters(statement: &Statement) -> bool {
    let alter = |object: &ObjectChange| match object.change {
        Change::Alter | Change::Rename | Change::Move => true,
        // Parts of a relation that is there, which run or look at all of its rows from then on.
        Change::Create | Change::Replace => {
            matches!(&*object.kind, "trigger" | "rule" | "policy" | "statistics")
        }
        _ => false,
    };
    statement.relations.iter().any(|r| r.access == Use::Ddl) && statement.objects.iter().any(alter)
}

fn modifies(statement: &Statement) -> bool {
    statement.modifications.iter().any(|m| matches!(m.access, Use::Insert | Use::Update))
}

fn is_stored(place: Place, nested: bool) -> bool {
    match place {
        Place::Assignment | Place::Other => true,
        Place::Output | Place::Expression => nested,
        Place::Filter | Place::Order => false,
    }
}

fn forbidden(message: &str, hint: &str) -> Denial {
    Denial::new(DenialCode::Forbidden, message).with_hint(hint)
}

fn cannot_move(column: &ColumnUse, stores: bool) -> Denial {
    let name = if column.name.is_empty() { "*".to_owned() } else { column.name.join(".") };
    let what = if stores { "stored elsewhere" } else { "given to this function" };
    let message = format!("`{name}` may hold values that are hidden from you, which cannot be {what}");
    Denial::new(DenialCode::Forbidden, message)
        .with_hint("leave the hidden columns out, and name columns instead of `*`")
}
