//! What names mean in one session: relations, their columns and where those come from, as the server itself resolves them.
//!
//! Asked on the session's own connection while it is idle, so temporary and uncommitted objects, role and search path count.

mod relation;
mod system;
mod types;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::operation::{Fact, Resource};
use gateway_core::pipeline::Label;

use crate::codec::{ProtocolError, Reader};
use crate::types::Kind;
pub(crate) use relation::{Event, Relation};
use system::telling_columns;
pub(crate) use system::told;
use types::TypeInfo;
pub(crate) use types::is_builtin;

/// The question put to the server. Answers are decoded by [`Catalog::learn`].
pub(crate) const QUESTION: &str = include_str!("resolve.sql");

/// Asks for a digest of all definitions.
pub(crate) const DEFINITIONS: &str = include_str!("definitions.sql");

/// Names remembered at once; beyond this everything is forgotten and asked again. About 10 MiB at worst.
const MAX_REMEMBERED: usize = 10_000;

/// Deepest chain of parents and views followed for labels. Deeper ones count as fully protected.
const MAX_DEPTH: usize = 32;

/// Labelled columns by table, as positions in the session's label list.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelIndex {
    tables: HashMap<(String, String), HashMap<String, usize>>,
    /// The columns as policy sees them, by position.
    resources: HashMap<usize, Resource>,
}

impl LabelIndex {
    /// Picks the labels whose path is `Target / Database / Schema / Table / Column` within `database`.
    pub(crate) fn new(labels: &[Label], database: &str) -> Self {
        let mut index = Self::default();
        for (position, label) in labels.iter().enumerate() {
            let [_, (_, db), (_, schema), (_, table), (_, column)] = label.resource.path() else { continue };
            if db == database {
                let table = (schema.clone(), table.clone());
                index.tables.entry(table).or_default().insert(column.clone(), position);
                let classes = Fact::from_iter([label.rule.class.name().to_owned()]);
                index.resources.insert(position, label.resource.clone().with("classes", classes));
            }
        }
        index
    }

    /// The labelled column as policy sees it.
    pub(crate) fn resource(&self, label: usize) -> Option<&Resource> {
        self.resources.get(&label)
    }

    /// True if nothing in this database is labelled.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Every label of this database.
    pub(crate) fn all(&self) -> BTreeSet<usize> {
        self.tables.values().flat_map(HashMap::values).copied().collect()
    }

    /// Every label of the tables of a schema.
    pub(crate) fn in_schema(&self, schema: &str) -> BTreeSet<usize> {
        let tables = self.tables.iter().filter(|((s, _), _)| s == schema);
        tables.flat_map(|(_, columns)| columns.values().copied()).collect()
    }

    fn of(&self, relation: &Relation) -> Option<&HashMap<String, usize>> {
        self.tables.get(&(relation.schema.clone(), relation.name.clone()))
    }
}

/// What a column carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No label reaches it.
    Plain,
    /// It is a column with these labels (positions in the label list), or shows one as it is. Never empty.
    Labelled(BTreeSet<usize>),
    /// It is computed from what has these labels: its values tell of them in a way that is not known. Never empty.
    Derived(BTreeSet<usize>),
    /// The relation is not known: treat as protected.
    Unknown,
}

/// The user functions of one name in one schema.
#[derive(Clone, Debug)]
struct UserFunctions {
    schema: String,
    /// An unqualified name may mean one of them.
    on_path: bool,
    /// Changes with every change of one of them.
    digest: String,
}

/// What this session's names mean, as far as asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    names: HashMap<String, Option<u32>>,
    functions: HashMap<String, Vec<UserFunctions>>,
    relations: HashMap<u32, Arc<Relation>>,
    /// What written type names mean.
    type_names: HashMap<String, Option<u32>>,
    /// User types.
    types: HashMap<u32, TypeInfo>,
    current_schema: Option<String>,
    snapshot: bool,
    search_path: Option<Arc<str>>,
    /// A digest of every user definition this session sees, if it was asked for.
    definitions: Option<Arc<str>>,
    /// Counts changes, so that what follows from the catalog can be told from what followed from it before.
    generation: u64,
    /// Names were forgotten.
    forgot: bool,
}

/// Names whose meaning must be asked before a statement can be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unresolved {
    /// Relations, quoted as `"schema"."name"` or `"name"`.
    pub(crate) relations: Vec<String>,
    /// Unqualified function names.
    pub(crate) functions: Vec<String>,
    /// Types, quoted as relations are.
    pub(crate) types: Vec<String>,
    /// All definitions: what is looked up besides cannot be told.
    pub(crate) definitions: bool,
}

impl Unresolved {
    /// True if nothing has to be asked.
    pub(crate) const fn is_empty(&self) -> bool {
        let Self { relations, functions, types, definitions } = self;
        relations.is_empty() && functions.is_empty() && types.is_empty() && !*definitions
    }

    /// Asks for these too.
    pub(crate) fn add(&mut self, more: Self) {
        self.relations.extend(more.relations);
        self.functions.extend(more.functions);
        self.types.extend(more.types);
        self.definitions |= more.definitions;
        for list in [&mut self.relations, &mut self.functions, &mut self.types] {
            list.sort();
            list.dedup();
        }
    }

    /// The parameters of [`QUESTION`].
    pub(crate) fn parameters(&self) -> Vec<Option<Bytes>> {
        [&self.relations, &self.functions, &self.types].map(|list| Some(array(list))).into()
    }
}

/// A text[] literal (PostgreSQL documentation, "Array Input and Output Syntax").
pub(crate) fn array(items: &[String]) -> Bytes {
    let quoted: Vec<_> =
        items.iter().map(|i| format!("\"{}\"", i.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    Bytes::from(format!("{{{}}}", quoted.join(",")))
}

/// Quotes an identifier (PostgreSQL documentation, "Identifiers and Key Words").
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

impl Catalog {
    /// Which of these are not known yet.
    pub(crate) fn unresolved<'a>(
        &self,
        relations: impl IntoIterator<Item = &'a String>,
        functions: impl IntoIterator<Item = &'a String>,
        types: impl IntoIterator<Item = &'a String>,
    ) -> Unresolved {
        let relations: BTreeSet<_> = relations.into_iter().filter(|n| !self.names.contains_key(*n)).collect();
        let functions: BTreeSet<_> =
            functions.into_iter().filter(|n| !self.functions.contains_key(*n)).collect();
        let types: BTreeSet<_> = types.into_iter().filter(|n| !self.type_names.contains_key(*n)).collect();
        Unresolved {
            relations: relations.into_iter().cloned().collect(),
            functions: functions.into_iter().cloned().collect(),
            types: types.into_iter().cloned().collect(),
            definitions: false,
        }
    }

    /// One that knows nothing but the search path.
    pub(crate) fn on_path(search_path: Option<Arc<str>>) -> Self {
        Self { search_path, ..Self::default() }
    }

    /// Forgets what names mean: the search path, role or objects may have changed. Relations by id stay; types may be made of others now.
    pub(crate) fn forget_names(&mut self) {
        self.generation += 1;
        self.forgot = true;
        (self.search_path, self.definitions) = (None, None);
        self.types.clear();
        self.names.clear();
        self.functions.clear();
        self.type_names.clear();
    }

    /// Forgets everything if it is too much. To be called before it is told what is not known: what is known then stays so.
    pub(crate) fn make_room(&mut self) {
        let known = [self.names.len(), self.functions.len(), self.relations.len()];
        let types = self.type_names.len() + self.types.len();
        if known.into_iter().sum::<usize>() + types > MAX_REMEMBERED {
            self.forget_names();
            self.relations.clear();
        }
    }

    /// Whether names were forgotten since this was last asked: they may mean something else now than when statements were prepared.
    pub(crate) const fn take_forgot(&mut self) -> bool {
        std::mem::replace(&mut self.forgot, false)
    }

    /// Starts taking in the answers to `asked`: until told otherwise each name means nothing.
    pub(crate) fn begin(&mut self, asked: &Unresolved) {
        self.generation += 1;
        self.names.extend(asked.relations.iter().map(|name| (name.clone(), None)));
        self.functions.extend(asked.functions.iter().map(|name| (name.clone(), Vec::new())));
        self.type_names.extend(asked.types.iter().map(|name| (name.clone(), None)));
    }

    /// Takes in one row (the body of a DataRow) of the answer to `asked`.
    ///
    /// # Errors
    /// A row that does not have the question's shape.
    pub(crate) fn learn(&mut self, asked: &Unresolved, row: &[u8]) -> Result<(), ProtocolError> {
        self.generation += 1;
        let cells = cells(row)?;
        if let [Some("schema"), key, ..] = cells.as_slice() {
            self.current_schema = key.map(str::to_owned);
            let isolation = cells.get(2).copied().flatten().ok_or(SHAPE)?;
            self.snapshot = !matches!(isolation, "read committed" | "read uncommitted");
            let reading = [("standard_conforming_strings", 3), ("client_encoding", 4)];
            for (setting, cell) in reading {
                crate::codec::reads_as_understood(setting, cells.get(cell).copied().flatten().ok_or(SHAPE)?)?;
            }
            self.search_path = cells.get(5).copied().flatten().map(Arc::from);
            return Ok(());
        }
        if let [Some("definitions"), digest] = cells.as_slice() {
            self.definitions = Some(digest.unwrap_or_default().into());
            return Ok(());
        }
        let [Some("name" | "relation" | "function" | "typename" | "type"), Some(key), ..] = cells.as_slice()
        else {
            return Err(SHAPE);
        };
        match cells.first() {
            Some(Some("name")) => {
                let oid = cells.get(2).copied().flatten().map(number).transpose()?;
                let name = asked.relations.get(number::<usize>(key)?.wrapping_sub(1)).ok_or(SHAPE)?;
                self.names.insert(name.clone(), oid);
            }
            Some(Some("typename")) => {
                let oid = cells.get(2).copied().flatten().map(number).transpose()?;
                let name = asked.types.get(number::<usize>(key)?.wrapping_sub(1)).ok_or(SHAPE)?;
                self.type_names.insert(name.clone(), oid);
            }
            Some(Some("type")) => {
                self.types.insert(number(key)?, TypeInfo::of(&cells)?);
            }
            Some(Some("relation")) => {
                let relation = relation::relation(&cells)?;
                self.relations.insert(relation.oid, Arc::new(relation));
            }
            _ => {
                let cell = |i: usize| cells.get(i).copied().flatten();
                let found = UserFunctions {
                    schema: cell(2).ok_or(SHAPE)?.to_owned(),
                    on_path: cell(3) == Some("true"),
                    digest: cell(4).unwrap_or_default().to_owned(),
                };
                self.functions.entry((*key).to_owned()).or_default().push(found);
            }
        }
        Ok(())
    }

    /// What followed from it before holds no longer, for another reason than a change in it.
    pub(crate) const fn renew(&mut self) {
        self.generation += 1;
    }

    /// Another number after every change.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// The schema in which unqualified new objects are made.
    pub(crate) fn current_schema(&self) -> Option<&str> {
        self.current_schema.as_deref()
    }

    /// The search path at the last answer, as the setting is written.
    pub(crate) fn search_path(&self) -> Option<Arc<str>> {
        self.search_path.clone()
    }

    /// A digest of every user definition that the session saw at the last answer, if that was asked for.
    pub(crate) fn definitions(&self) -> Option<&str> {
        self.definitions.as_deref()
    }

    /// Every relation that was met.
    pub(crate) fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values().map(|relation| &**relation)
    }

    /// Whether the last answer was read in a snapshot that stays the same to the end of the transaction (PostgreSQL documentation,
    /// "Transaction Isolation": REPEATABLE READ and SERIALIZABLE).
    pub(crate) const fn reads_snapshot(&self) -> bool {
        self.snapshot
    }

    /// The relation a written name means, if it exists.
    pub(crate) fn relation(&self, written: &str) -> Option<&Arc<Relation>> {
        self.names.get(written).copied().flatten().and_then(|oid| self.relations.get(&oid))
    }

    /// The relation of an object id, if it was met.
    pub(crate) fn by_oid(&self, oid: u32) -> Option<&Arc<Relation>> {
        self.relations.get(&oid)
    }

    /// Whether it is known what a written name means: that it means nothing, or which relation it is.
    pub(crate) fn knows(&self, written: &str) -> bool {
        match self.names.get(written) {
            None => false,
            Some(None) => true,
            Some(Some(oid)) => self.relations.contains_key(oid),
        }
    }

    /// The schemas of all user functions that an unqualified name may mean: which one it is depends on the types of its arguments.
    pub(crate) fn user_functions(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.functions.get(name).into_iter().flatten();
        found.filter(|f| f.on_path).map(|f| f.schema.as_str())
    }

    /// Whether an unqualified name may mean a user's function.
    pub(crate) fn has_user_function(&self, name: &str) -> bool {
        self.user_functions(name).next().is_some()
    }

    /// The schema and name of the user type that a written name means; `None` if that is one of the server's own or nothing.
    pub(crate) fn user_type(&self, written: &str) -> Option<(&str, &str)> {
        let oid = self.type_names.get(written).copied().flatten()?;
        self.types.get(&oid).map(|t| (t.schema.as_str(), t.name.as_str()))
    }

    /// The type that a written name means, if that is known.
    pub(crate) fn type_oid(&self, written: &str) -> Option<u32> {
        self.type_names.get(written).copied().flatten()
    }

    /// What values of a type are made of, as far as is known.
    pub(crate) fn kind(&self, oid: u32) -> Arc<Kind> {
        types::kind(&self.types, oid)
    }

    /// What the user functions are that a written name may mean, for binding an approval to them; empty if there are none.
    pub(crate) fn function_definition(&self, schema: Option<&str>, name: &str) -> String {
        let fits = |f: &&UserFunctions| schema.map_or(f.on_path, |schema| f.schema == schema);
        let found = self.functions.get(name).into_iter().flatten().filter(fits);
        found.map(|f| format!("{} {};", f.schema, f.digest)).collect()
    }

    /// Everything a relation stands on: parents, base tables of views, without itself.
    pub(crate) fn ancestors(&self, relation: &Relation) -> Vec<Arc<Relation>> {
        self.follow(relation, |r| &r.parents)
    }

    /// Everything whose rows it shows as its own: inheritance children and partitions, at any depth.
    pub(crate) fn descendants(&self, relation: &Relation) -> Vec<Arc<Relation>> {
        self.follow(relation, |r| &r.children)
    }

    /// What the row policies of a relation read, with what that stands on and shows.
    pub(crate) fn read_by_policies(&self, relation: &Relation) -> Vec<Arc<Relation>> {
        let direct = relation.policies.iter().filter_map(|oid| self.relations.get(oid));
        direct.flat_map(|read| [Arc::clone(read)].into_iter().chain(self.reached(read))).collect()
    }

    fn follow(&self, relation: &Relation, next: fn(&Relation) -> &[u32]) -> Vec<Arc<Relation>> {
        let mut found: BTreeMap<u32, Arc<Relation>> = BTreeMap::new();
        let mut open = next(relation).to_vec();
        while let Some(oid) = open.pop() {
            if oid == relation.oid || found.contains_key(&oid) {
                continue;
            }
            if let Some(reached) = self.relations.get(&oid) {
                open.extend(next(reached));
                found.insert(oid, Arc::clone(reached));
            }
        }
        found.into_values().collect()
    }

    /// Everything that reading a relation reads: what it stands on, and the children of that.
    pub(crate) fn reached(&self, relation: &Relation) -> Vec<Arc<Relation>> {
        let mut found = self.descendants(relation);
        for below in self.ancestors(relation) {
            if relation.is_view() || relation.is_toast() {
                found.extend(self.descendants(&below));
            }
            found.push(below);
        }
        found
    }

    /// All labels on a relation and on everything it reads.
    pub(crate) fn protected(&self, index: &LabelIndex, relation: &Relation) -> BTreeSet<usize> {
        let mut labels = self.protected_below(index, relation);
        labels.extend(index.of(relation).into_iter().flat_map(|columns| columns.values().copied()));
        if !telling_columns(relation).is_empty() {
            labels.extend(index.all());
        }
        labels
    }

    /// All labels on everything a relation reads.
    fn protected_below(&self, index: &LabelIndex, relation: &Relation) -> BTreeSet<usize> {
        let below = self.reached(relation);
        if below.iter().any(|r| !telling_columns(r).is_empty()) {
            return index.all();
        }
        below.iter().filter_map(|r| index.of(r)).flat_map(|columns| columns.values().copied()).collect()
    }

    /// The names of a relation's own columns through which any of these labels can be read.
    pub(crate) fn carriers<'a>(
        &self,
        index: &LabelIndex,
        relation: &'a Relation,
        labels: &BTreeSet<usize>,
    ) -> Vec<&'a str> {
        let carries = |number: i16| match self.origin(index, relation.oid, number) {
            Origin::Plain => false,
            Origin::Unknown => true,
            Origin::Labelled(reached) | Origin::Derived(reached) => !reached.is_disjoint(labels),
        };
        relation.columns.iter().filter(|(n, _)| carries(**n)).map(|(_, name)| name.as_str()).collect()
    }

    /// What a column of a result carries, by its origin in RowDescription.
    pub(crate) fn origin(&self, index: &LabelIndex, table: u32, attribute: i16) -> Origin {
        if index.is_empty() {
            return Origin::Plain;
        }
        let mut found = Found::default();
        match self.collect(index, table, attribute, &mut found, 0) {
            None => Origin::Unknown,
            Some(()) if found.labels.is_empty() => Origin::Plain,
            Some(()) if found.derived => Origin::Derived(found.labels),
            Some(()) => Origin::Labelled(found.labels),
        }
    }

    /// What a column carries, added to what was found; `None` if that is not known. Each column is followed once: a view of views that
    /// name each other many times over has more ways through it than could ever be gone.
    fn collect(
        &self,
        index: &LabelIndex,
        table: u32,
        attribute: i16,
        into: &mut Found,
        depth: usize,
    ) -> Option<()> {
        if let Some(known) = into.followed.get(&(table, attribute)) {
            return known.then_some(());
        }
        // While it is followed it is not known.
        into.followed.insert((table, attribute), false);
        let known = self.follow_column(index, table, attribute, into, depth);
        into.followed.insert((table, attribute), known.is_some());
        known
    }

    fn follow_column(
        &self,
        index: &LabelIndex,
        table: u32,
        attribute: i16,
        into: &mut Found,
        depth: usize,
    ) -> Option<()> {
        let relation = self.relations.get(&table)?;
        if depth > MAX_DEPTH || attribute == 0 {
            into.derive(self.protected(index, relation));
            return Some(());
        }
        let Some(column) = relation.columns.get(&attribute) else {
            // System columns (negative numbers) carry no labels; a column added since we asked is unknown.
            return (attribute < 0).then_some(());
        };
        if telling_columns(relation).contains(&column.as_str()) {
            into.derive(index.all());
        }
        if !relation.is_view() && relation.is_generated(attribute) {
            into.derive(self.protected(index, relation));
        }
        if relation.is_toast() {
            // Pieces of values, packed or not, of whichever column.
            into.derive(self.protected(index, relation));
        }
        into.labels.extend(index.of(relation).and_then(|columns| columns.get(column)));
        let children = self.descendants(relation);
        let labelled = children.iter().filter_map(|r| index.of(r)).filter_map(|columns| columns.get(column));
        into.labels.extend(labelled);
        if relation.is_view() {
            self.view_column(index, relation, attribute, into, depth);
            return Some(());
        }
        for parent in relation.parents.iter().filter_map(|oid| self.relations.get(oid)) {
            if let Some(inherited) = parent.attribute(column) {
                self.collect(index, parent.oid, inherited, into, depth + 1)?;
            }
        }
        Some(())
    }

    /// A view's column carries what its origins carry; a computed one may carry anything the view reads.
    fn view_column(
        &self,
        index: &LabelIndex,
        view: &Relation,
        attribute: i16,
        into: &mut Found,
        depth: usize,
    ) {
        let origins = view.origins_of(attribute);
        for &(_, table, column) in origins {
            if table == 0 || self.collect(index, table, column, into, depth + 1).is_none() {
                into.derive(self.protected_below(index, view));
            }
        }
        if origins.is_empty() {
            into.derive(self.protected_below(index, view));
        }
    }
}

/// Labels met on the way to where a column comes from.
#[derive(Debug, Default)]
struct Found {
    labels: BTreeSet<usize>,
    /// Something on the way was computed.
    derived: bool,
    /// Columns that were followed, and whether all they carry was found.
    followed: HashMap<(u32, i16), bool>,
}

impl Found {
    fn derive(&mut self, labels: BTreeSet<usize>) {
        self.derived |= !labels.is_empty();
        self.labels.extend(labels);
    }
}

const SHAPE: ProtocolError = ProtocolError::Malformed("answer to a catalog question");

fn number<T: std::str::FromStr>(text: &str) -> Result<T, ProtocolError> {
    text.parse().map_err(|_| SHAPE)
}

fn cells(row: &[u8]) -> Result<Vec<Option<&str>>, ProtocolError> {
    let mut reader = Reader::new(row, "DataRow");
    let count = reader.u16()?;
    let text = |value: Option<_>| value.map(|v| std::str::from_utf8(v).map_err(|_| SHAPE)).transpose();
    let cells = (0..count).map(|_| reader.value().and_then(text)).collect::<Result<Vec<_>, _>>()?;
    reader.finish().map(|()| cells)
}

#[cfg(test)]
impl Catalog {
    /// A catalog that has been told of these relations, `name(column, ...)`, all in the schema `public` and found without it.
    pub(crate) fn of_tables(tables: &[(&str, &[&str])]) -> Self {
        let mut catalog = Self { current_schema: Some("public".to_owned()), ..Self::default() };
        for (oid, (name, columns)) in (1u32..).zip(tables) {
            let columns: BTreeMap<_, _> = (1i16..).zip(columns.iter().map(|c| (*c, 25u32))).collect();
            let columns = serde_json::to_string(&columns).unwrap();
            let oid_text = oid.to_string();
            let cells = [
                Some("relation"),
                Some(&oid_text),
                Some("public"),
                Some(name),
                Some("r"),
                None,
                Some(&columns),
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
            ];
            catalog.relations.insert(oid, Arc::new(relation::relation(&cells).unwrap()));
            catalog.names.insert(quote(name), Some(oid));
            catalog.names.insert(format!("\"public\".{}", quote(name)), Some(oid));
        }
        catalog
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{LexSettings, Limits, analyse};

    fn function(digest: &str) -> UserFunctions {
        UserFunctions { schema: "scratch".to_owned(), on_path: true, digest: digest.to_owned() }
    }

    /// What is forgotten has to be asked for again, whatever of the same statement is remembered.
    #[test]
    fn a_full_catalog_is_emptied_before_it_is_told_what_is_missing() {
        let mut catalog = Catalog::default();
        catalog.functions.insert("touch".to_owned(), vec![function("a")]);
        let functions = vec!["touch".to_owned()];
        let missing = |catalog: &Catalog| catalog.unresolved([], &functions, []).functions;
        catalog.make_room();
        assert!(missing(&catalog).is_empty() && !catalog.take_forgot());
        catalog.names.extend((0..MAX_REMEMBERED).map(|n| (n.to_string(), None)));
        let asked = Unresolved { relations: vec!["more".to_owned()], ..Unresolved::default() };
        catalog.begin(&asked);
        assert!(missing(&catalog).is_empty(), "asking for something else forgets nothing");
        catalog.make_room();
        assert_eq!(missing(&catalog), functions);
        assert!(catalog.take_forgot() && !catalog.take_forgot());
    }

    /// Approvals are bound to what every name means, also those that stand in no schema and are no functions.
    #[test]
    fn operators_and_casts_are_part_of_what_a_statement_means() {
        let analysis = analyse(
            "DELETE FROM orders WHERE id = 1 AND note::tag IS NULL",
            &LexSettings::default(),
            &Limits::default(),
        )
        .unwrap();
        let mut catalog = Catalog::of_tables(&[("orders", &["id", "note"])]);
        let meaning = |catalog: &Catalog| crate::operation::meaning(catalog, &analysis.statements[0]);
        let before = meaning(&catalog);
        catalog.functions.insert("operator =".to_owned(), vec![function("int4ge")]);
        let with_operator = meaning(&catalog);
        assert_ne!(before, with_operator);
        catalog.functions.insert("operator =".to_owned(), vec![function("int4le")]);
        assert_ne!(with_operator, meaning(&catalog), "another operator of the name");
        let with_operator = meaning(&catalog);
        catalog.type_names.insert(quote("tag"), Some(70_000));
        assert_ne!(with_operator, meaning(&catalog));
    }
}
