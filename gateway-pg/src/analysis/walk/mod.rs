//! Walks a statement's tree and gathers its facts.
//!
//! `node.rs` has one arm for every kind of node there is; the other files group what the arms do.

mod commands;
mod definitions;
mod filter;
mod frames;
mod kind;
mod modify;
mod names;
mod node;
mod objects;
mod privileges;
mod query;
mod settings;

use std::collections::{BTreeSet, HashMap};

use pg_query::protobuf::{Node, RangeVar, RawStmt};

use super::AnalysisError;
use super::functions::{classify_function, is_builtin_operator, is_builtin_type};
use super::model::{
    Access, Change, ColumnUse, Cte, Flags, FunctionRole, FunctionUse, ObjectChange, Output, Place,
    QualifiedName, RelationUse, Source, SourceKind, Statement,
};

use frames::Frame;

type Walk<T = ()> = Result<T, AnalysisError>;

/// Analyses one statement of a parsed text.
pub(super) fn statement(text: &str, raw: &RawStmt) -> Walk<Statement> {
    let range = super::parse::range(text, raw);
    let mut walker = Walker::new(range.start);
    let Some(node) = raw.stmt.as_deref() else { return walker.not_understood("an empty tree") };
    let mut statement = walker.whole(node)?;
    statement.range = range;
    Ok(statement)
}

/// A place in `FROM` and the like where a relation is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// Its schema as written.
    pub(super) schema: Option<String>,
    /// Its name.
    pub(super) name: String,
    /// Where that is written, in bytes of the text.
    pub(super) offset: usize,
    /// An alias was given.
    pub(super) aliased: bool,
}

/// As [`statement`], with the places where relations are read.
pub(super) fn readings(text: &str, raw: &RawStmt) -> Walk<(Statement, Vec<Reading>)> {
    let range = super::parse::range(text, raw);
    let mut walker = Walker::new(range.start);
    let Some(node) = raw.stmt.as_deref() else { return walker.not_understood("an empty tree") };
    let statement = walker.whole(node)?;
    Ok((statement, walker.reads))
}

/// Identity of a column reference: parts, star, sources.
type ColumnKey = (Vec<String>, bool, Vec<usize>);

struct Walker {
    /// Start of the statement in the text, for errors.
    offset: usize,
    found: Statement,
    /// CTEs whose names are visible: indexes into those found.
    ctes: Vec<usize>,
    /// Sources visible by query level, innermost last.
    frames: Vec<Frame>,
    place: Place,
    known_columns: HashMap<ColumnKey, usize>,
    /// Columns met since each open capture began, outermost first.
    captures: Vec<BTreeSet<usize>>,
    /// Where relations are read.
    reads: Vec<Reading>,
    /// Steps taken in searching and copying lists of names.
    spent: usize,
}

/// Steps a walk may spend on lists. Each is a comparison or at most about 100 bytes kept, so this bounds both time
/// (tens of milliseconds) and memory; a query of 2,000 column references over 40 tables spends a tenth.
const MAX_SPENT: usize = 1 << 20;

impl Walker {
    fn new(offset: usize) -> Self {
        Self {
            offset,
            found: Statement::default(),
            ctes: Vec::new(),
            frames: Vec::new(),
            place: Place::Other,
            known_columns: HashMap::new(),
            captures: Vec::new(),
            reads: Vec::new(),
            spent: 0,
        }
    }

    /// Walks a whole statement.
    fn whole(&mut self, node: &Node) -> Walk<Statement> {
        let Some(inner) = node.node.as_ref() else { return self.not_understood("an empty node") };
        let Some(kind) = kind::kind(inner) else { return self.not_understood("this kind of statement") };
        self.found.kind = kind;
        self.node(node)?;
        self.within_budget()?;
        Ok(std::mem::take(&mut self.found))
    }

    /// Walks a statement inside this one apart, then merges what it names into this one.
    fn nested(&mut self, node: &Node) -> Walk<Statement> {
        self.nested_with(node, |_| {})
    }

    /// The same where `prepare` makes sources visible to it.
    fn nested_with(&mut self, node: &Node, prepare: impl FnOnce(&mut Self)) -> Walk<Statement> {
        // One budget for all of them: a rule may hold many.
        let mut walker = Self { spent: self.spent, ..Self::new(self.offset) };
        prepare(&mut walker);
        let inner = walker.whole(node)?;
        self.spent = walker.spent;
        self.reads.append(&mut walker.reads);
        self.absorb(&inner);
        Ok(inner)
    }

    /// Counts steps. When there were too many the walk fails at its next node, or at its end.
    fn spend(&mut self, steps: usize) {
        self.spent = self.spent.saturating_add(steps);
    }

    fn exhausted(&self) -> bool {
        self.spent > MAX_SPENT
    }

    fn within_budget(&self) -> Walk {
        if self.exhausted() { Err(AnalysisError::TooComplex) } else { Ok(()) }
    }

    fn not_understood<T>(&self, what: &str) -> Walk<T> {
        Err(AnalysisError::NotUnderstood { what: what.to_owned(), offset: self.offset })
    }

    fn each(&mut self, nodes: &[Node]) -> Walk {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn maybe(&mut self, node: Option<&Node>) -> Walk {
        node.map_or(Ok(()), |node| self.node(node))
    }

    fn at_place<T>(&mut self, place: Place, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let before = std::mem::replace(&mut self.place, place);
        let result = walk(self);
        self.place = before;
        result
    }

    /// Runs a walk and says which columns it met.
    fn capture<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<(T, BTreeSet<usize>)> {
        self.captures.push(BTreeSet::new());
        let result = walk(self);
        let columns = self.captures.pop().unwrap_or_default();
        Ok((result?, columns))
    }

    fn in_frame<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        self.frames.push(Frame::default());
        let result = walk(self);
        self.frames.pop();
        result
    }

    /// Notes an access to a relation and says its index.
    fn relation(&mut self, range: &RangeVar, access: Access) -> usize {
        if range.relpersistence == "t" || range.schemaname.starts_with("pg_temp") {
            self.found.flags.temporary = true;
        }
        self.relation_named(&range.catalogname, &range.schemaname, &range.relname, !range.inh, access)
    }

    fn relation_named(
        &mut self,
        catalog: &str,
        schema: &str,
        name: &str,
        only: bool,
        access: Access,
    ) -> usize {
        let same = |known: &RelationUse| {
            known.access == access
                && known.name == name
                && known.schema.as_deref().unwrap_or_default() == schema
                && known.catalog.as_deref().unwrap_or_default() == catalog
        };
        self.spend(self.found.relations.len());
        if self.exhausted() {
            return 0;
        }
        if let Some(index) = self.found.relations.iter().position(same) {
            if let Some(known) = self.found.relations.get_mut(index) {
                known.only &= only;
            }
            return index;
        }
        self.found.relations.push(RelationUse {
            catalog: names::filled(catalog),
            schema: names::filled(schema),
            name: name.to_owned(),
            access,
            only,
            star: false,
            whole_row: false,
        });
        self.found.relations.len() - 1
    }

    /// Notes an access to a relation given by the parts of its name.
    fn relation_parts(&mut self, parts: &[String], access: Access) -> Walk<usize> {
        match parts {
            [name] => Ok(self.relation_named("", "", name, false, access)),
            [schema, name] => Ok(self.relation_named("", schema, name, false, access)),
            [catalog, schema, name] => Ok(self.relation_named(catalog, schema, name, false, access)),
            _ => self.not_understood("a relation's name"),
        }
    }

    /// Makes a source visible in the innermost frame and says its index.
    fn source(
        &mut self,
        kind: SourceKind,
        alias: Option<String>,
        columns: Vec<String>,
        outputs: Vec<Output>,
    ) -> usize {
        let index = self.found.sources.len();
        self.spend(1 + outputs.iter().map(|output| 1 + output.columns.len()).sum::<usize>());
        self.found.sources.push(Source { kind, alias, columns, outputs, inputs: Vec::new() });
        if let Some(frame) = self.frames.last_mut() {
            frame.sources.push(index);
        }
        index
    }

    fn function(
        &mut self,
        parts: &[String],
        arguments: usize,
        role: FunctionRole,
        variadic: bool,
        window: bool,
    ) -> Walk {
        let name = self.qualified(parts)?;
        if role == FunctionRole::Call && !classify_function(name.schema.as_deref(), &name.name).is_read() {
            self.found.flags.unproven = true;
        }
        let QualifiedName { schema, name } = name;
        let used = FunctionUse { schema, name, arguments, role, variadic, window };
        self.spend(self.found.functions.len());
        if !self.found.functions.contains(&used) {
            self.found.functions.push(used);
        }
        Ok(())
    }

    /// Notes a function named as the implementation of something.
    fn implementation(&mut self, name: &[Node]) -> Walk {
        if name.is_empty() {
            return Ok(());
        }
        let parts = self.strings(name)?;
        self.function(&parts, 0, FunctionRole::Implementation, false, false)
    }

    fn operator(&mut self, name: &[Node]) -> Walk {
        if name.is_empty() {
            return Ok(());
        }
        let parts = self.strings(name)?;
        let name = self.qualified(&parts)?;
        if !is_builtin_operator(name.schema.as_deref(), &name.name) {
            self.found.flags.unproven = true;
        }
        self.operator_named(name);
        Ok(())
    }

    /// Notes an operator that the grammar stands for: the server looks it up by name like any other.
    fn implied_operators(&mut self, names: &[&str]) {
        for name in names {
            self.operator_named(QualifiedName { schema: None, name: (*name).to_owned() });
        }
    }

    fn operator_named(&mut self, name: QualifiedName) {
        self.spend(self.found.operators.len());
        if !self.found.operators.contains(&name) {
            self.found.operators.push(name);
        }
    }

    fn type_named(&mut self, parts: &[String]) -> Walk {
        let name = self.qualified(parts)?;
        if is_builtin_type(name.schema.as_deref(), &name.name) {
            // The server's own types that begin so are these and no others (PostgreSQL documentation, "Object Identifier Types").
            self.found.flags.object_names |= name.name.starts_with("reg");
            if name.schema.is_none() {
                names::extend_new(&mut self.found.server_types, &[name.name]);
            }
            return Ok(());
        }
        self.found.flags.unproven = true;
        self.spend(self.found.types.len());
        if !self.found.types.contains(&name) {
            self.found.types.push(name);
        }
        Ok(())
    }

    /// Schema and name of one to three parts; the server accepts no database but the current one.
    fn qualified(&self, parts: &[String]) -> Walk<QualifiedName> {
        match parts {
            [name] => Ok(QualifiedName { schema: None, name: name.clone() }),
            [schema, name] | [_, schema, name] => {
                Ok(QualifiedName { schema: Some(schema.clone()), name: name.clone() })
            }
            _ => self.not_understood("a qualified name"),
        }
    }

    fn role_named(&mut self, name: &str) {
        self.spend(self.found.roles.len());
        if !self.exhausted() && !self.found.roles.iter().any(|known| known == name) {
            self.found.roles.push(name.to_owned());
        }
    }

    fn object(&mut self, kind: &'static str, name: Vec<String>, change: Change) -> &mut ObjectChange {
        self.found.flags.writes = true;
        let index = self.found.objects.len();
        self.found.objects.push(ObjectChange {
            kind: kind.into(),
            name,
            change,
            renamed: None,
            conditional: false,
            cascade: false,
        });
        // The push above makes the index valid.
        #[allow(clippy::indexing_slicing)]
        &mut self.found.objects[index]
    }

    fn writes(&mut self) {
        self.found.flags.writes = true;
    }

    /// Notes a column reference and says its index.
    fn column(&mut self, name: Vec<String>, star: bool) -> usize {
        self.spend(1 + self.frames.iter().map(|frame| frame.sources.len()).sum::<usize>());
        if self.exhausted() {
            return 0;
        }
        let (sources, whole_row) = self.resolve(&name, star);
        self.mark_read(&sources, star, whole_row);
        self.noted((name, star, sources), whole_row)
    }

    /// Notes that any column of what is visible in this query may choose rows.
    fn compared_row(&mut self) {
        let (sources, _) = self.resolve(&[], true);
        self.spend(1 + sources.len());
        let place = std::mem::replace(&mut self.place, Place::Filter);
        self.noted((Vec::new(), true, sources), false);
        self.place = place;
    }

    fn noted(&mut self, key: ColumnKey, whole_row: bool) -> usize {
        let index = match self.known_columns.get(&key) {
            Some(&index) => index,
            None => self.new_column(key, whole_row),
        };
        if let Some(column) = self.found.columns.get_mut(index) {
            column.places.insert(self.place);
        }
        for capture in &mut self.captures {
            capture.insert(index);
        }
        index
    }

    fn new_column(&mut self, key: ColumnKey, whole_row: bool) -> usize {
        let index = self.found.columns.len();
        let (name, star, sources) = key.clone();
        self.found.columns.push(ColumnUse { name, star, whole_row, sources, places: BTreeSet::new() });
        self.known_columns.insert(key, index);
        index
    }

    /// Columns of a relation are read: its read access is noted (targets of writes have none yet) with its flags.
    fn mark_read(&mut self, sources: &[usize], star: bool, whole_row: bool) {
        for &source in sources {
            let Some(relation) = self.relation_of(source) else { continue };
            let read = self.read_access(relation);
            if let Some(known) = self.found.relations.get_mut(read) {
                known.star |= star;
                known.whole_row |= whole_row;
            }
        }
    }

    fn relation_of(&self, source: usize) -> Option<usize> {
        match self.found.sources.get(source)?.kind {
            SourceKind::Relation(index) | SourceKind::Pseudo(Some(index)) => Some(index),
            _ => None,
        }
    }

    fn read_access(&mut self, relation: usize) -> usize {
        let Some(known) = self.found.relations.get(relation) else { return relation };
        if known.access == Access::Read {
            return relation;
        }
        let known = known.clone();
        let (catalog, schema) = (known.catalog.unwrap_or_default(), known.schema.unwrap_or_default());
        self.relation_named(&catalog, &schema, &known.name, known.only, Access::Read)
    }

    /// Merges the facts of a nested statement, shifting its indexes.
    fn absorb(&mut self, inner: &Statement) {
        let relations: Vec<usize> = inner.relations.iter().map(|used| self.absorb_relation(used)).collect();
        let (sources, columns) = (self.found.sources.len(), self.found.columns.len());
        let ctes = self.found.ctes.len();
        self.found
            .sources
            .extend(inner.sources.iter().map(|source| shift_source(source, &relations, columns, ctes)));
        self.found.ctes.extend(inner.ctes.iter().map(|cte| Cte {
            name: cte.name.clone(),
            outputs: cte.outputs.iter().map(|output| shift_output(output, columns)).collect(),
        }));
        self.found.columns.extend(inner.columns.iter().map(|column| ColumnUse {
            sources: column.sources.iter().map(|source| source + sources).collect(),
            ..column.clone()
        }));
        self.found.modifications.extend(inner.modifications.iter().cloned().map(|mut modification| {
            modification.relation = relations.get(modification.relation).copied().unwrap_or_default();
            modification
        }));
        names::extend_new(&mut self.found.functions, &inner.functions);
        names::extend_new(&mut self.found.operators, &inner.operators);
        names::extend_new(&mut self.found.types, &inner.types);
        names::extend_new(&mut self.found.server_types, &inner.server_types);
        names::extend_new(&mut self.found.roles, &inner.roles);
        names::extend_new(&mut self.found.fields, &inner.fields);
        self.found.settings.extend(inner.settings.iter().cloned());
        self.found.objects.extend(inner.objects.iter().cloned());
        self.found.parameters = self.found.parameters.max(inner.parameters);
        self.found.outputs = inner.outputs.iter().map(|output| shift_output(output, columns)).collect();
        self.absorb_flags(inner);
    }

    fn absorb_relation(&mut self, used: &RelationUse) -> usize {
        let (catalog, schema) = (used.catalog.as_deref().unwrap_or(""), used.schema.as_deref().unwrap_or(""));
        let index = self.relation_named(catalog, schema, &used.name, used.only, used.access);
        if let Some(known) = self.found.relations.get_mut(index) {
            known.star |= used.star;
            known.whole_row |= used.whole_row;
        }
        index
    }

    fn absorb_flags(&mut self, inner: &Statement) {
        // Named one by one, so that a new flag is not forgotten here.
        let Flags {
            writes,
            unproven,
            locks_rows,
            modifying_cte,
            returning,
            temporary,
            password,
            unbounded_write,
            cascade,
            set_operation,
            natural_join,
            ordered_recursion,
            current_of,
            object_names,
            tests_domain,
        } = inner.flags;
        let into = &mut self.found.flags;
        into.writes |= writes;
        into.unproven |= unproven;
        into.locks_rows |= locks_rows;
        into.modifying_cte |= modifying_cte;
        into.returning |= returning;
        into.temporary |= temporary;
        into.password |= password;
        into.unbounded_write |= unbounded_write;
        into.cascade |= cascade;
        into.set_operation |= set_operation;
        into.natural_join |= natural_join;
        into.ordered_recursion |= ordered_recursion;
        into.current_of |= current_of;
        into.object_names |= object_names;
        into.tests_domain |= tests_domain;
    }
}

fn shift_source(source: &Source, relations: &[usize], columns: usize, ctes: usize) -> Source {
    let relation = |index: usize| relations.get(index).copied().unwrap_or_default();
    let kind = match &source.kind {
        SourceKind::Relation(index) => SourceKind::Relation(relation(*index)),
        SourceKind::Pseudo(index) => SourceKind::Pseudo(index.map(relation)),
        SourceKind::Cte(index) => SourceKind::Cte(index + ctes),
        other => other.clone(),
    };
    let outputs = source.outputs.iter().map(|output| shift_output(output, columns)).collect();
    let inputs = source.inputs.iter().map(|index| index + columns).collect();
    Source { kind, alias: source.alias.clone(), columns: source.columns.clone(), outputs, inputs }
}

fn shift_output(output: &Output, columns: usize) -> Output {
    use super::model::OutputKind;
    let kind = match output.kind {
        OutputKind::Column(index) => OutputKind::Column(index + columns),
        OutputKind::Star(index) => OutputKind::Star(index + columns),
        OutputKind::Expression => OutputKind::Expression,
        OutputKind::Expanded => OutputKind::Expanded,
    };
    Output {
        alias: output.alias.clone(),
        kind,
        columns: output.columns.iter().map(|index| index + columns).collect(),
    }
}
