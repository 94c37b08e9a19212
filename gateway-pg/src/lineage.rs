//! Which labelled columns a statement's conditions, orders and computations depend on, so that policy can judge inference: a value that
//! is masked in every result can still be told by `WHERE ssn LIKE '4%'`, by an order, or by an expression that fails for some rows.
//!
//! Follows aliases, subqueries, CTEs, set operations and views. What cannot be told apart counts as labelled.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::analysis::{
    Access, ColumnUse, Output, OutputKind, Place, RelationUse, Source, SourceKind, Statement,
};
use crate::catalog::{Catalog, Event, LabelIndex, Origin, Relation};
use crate::effects;
use crate::statement::written;

/// Steps through sources, outputs and columns of tables, for a whole statement: some tens of milliseconds. A condition on a query of 200
/// columns over 20 nested ones takes some thousand. Beyond it everything counts.
const MAX_STEPS: usize = 1 << 20;

/// How a statement depends on a value without showing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Inference {
    /// It chooses rows, or how many there are.
    Filter,
    /// It sorts, groups or tells rows apart.
    Order,
    /// It goes into something computed, which may fail for some values.
    Compute,
}

impl Inference {
    /// The action in the policy schema.
    pub(crate) const fn action(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Order => "order",
            Self::Compute => "compute",
        }
    }

    const fn at(place: Place) -> Option<Self> {
        match place {
            Place::Output => None,
            Place::Filter | Place::Other => Some(Self::Filter),
            Place::Order => Some(Self::Order),
            Place::Expression | Place::Assignment => Some(Self::Compute),
        }
    }
}

/// The labels (positions in the label list) a statement infers from, and how.
pub(crate) fn inferences(
    catalog: &Catalog,
    labels: &LabelIndex,
    statement: &Statement,
) -> BTreeSet<(usize, Inference)> {
    let all = reachable(catalog, labels, statement);
    if all.is_empty() {
        return BTreeSet::new();
    }
    let lineage = Lineage::new(catalog, labels, statement, all);
    let mut found: BTreeMap<Inference, BTreeSet<usize>> = BTreeMap::new();
    for (index, column) in statement.columns.iter().enumerate() {
        let uses: BTreeSet<_> = column.places.iter().filter_map(|place| Inference::at(*place)).collect();
        if uses.is_empty() {
            continue;
        }
        if lineage.is_exhausted() {
            break;
        }
        let labels = lineage.all_of(index);
        uses.into_iter().for_each(|usage| found.entry(usage).or_default().extend(&labels));
    }
    found.entry(Inference::Filter).or_default().extend(told_by_constraints(catalog, labels, statement));
    if lineage.is_exhausted() {
        let uses = statement.columns.iter().flat_map(|column| &column.places);
        let uses: BTreeSet<_> = uses.filter_map(|place| Inference::at(*place)).collect();
        return uses.iter().flat_map(|usage| lineage.all.iter().map(|label| (*label, *usage))).collect();
    }
    found.into_iter().flat_map(|(usage, labels)| labels.into_iter().map(move |l| (l, usage))).collect()
}

/// The labels of columns that an update leaves as they are and has compared with what it writes, by checks, keys and exclusions: whether it
/// succeeds tells of them as a condition does.
fn told_by_constraints(catalog: &Catalog, labels: &LabelIndex, statement: &Statement) -> Labels {
    let mut found = Labels::new();
    for change in statement.modifications.iter().filter(|m| m.access == Access::Update) {
        let Some(used) = statement.relations.get(change.relation) else { continue };
        let Some(target) = catalog.relation(&written(used.schema.as_deref(), &used.name)) else { continue };
        let columns: Vec<&str> = change.columns.iter().map(String::as_str).collect();
        let columns = (!columns.is_empty()).then_some(columns.as_slice());
        for (event, here) in effects::consequences(catalog, target, Event::Update, columns) {
            if event != Event::Update {
                continue;
            }
            for column in here.compared_with(columns.filter(|_| here.oid == target.oid)) {
                match catalog.origin(labels, here.oid, column) {
                    Origin::Plain => {}
                    Origin::Unknown => found.extend(catalog.protected(labels, &here)),
                    Origin::Labelled(reached) | Origin::Derived(reached) => found.extend(reached),
                }
            }
        }
    }
    found
}

/// All labels on what the statement names and on what that stands on.
fn reachable(catalog: &Catalog, labels: &LabelIndex, statement: &Statement) -> BTreeSet<usize> {
    if labels.is_empty() {
        return BTreeSet::new();
    }
    let relations = statement.relations.iter().filter_map(|used| named_relation(catalog, used));
    relations.flat_map(|relation| catalog.protected(labels, relation)).collect()
}

fn named_relation<'a>(catalog: &'a Catalog, used: &RelationUse) -> Option<&'a Relation> {
    catalog.relation(&written(used.schema.as_deref(), &used.name)).map(|relation| &**relation)
}

struct Lineage<'a> {
    catalog: &'a Catalog,
    labels: &'a LabelIndex,
    statement: &'a Statement,
    /// What is meant when it cannot be told.
    all: BTreeSet<usize>,
    steps: Cell<usize>,
    /// What is being followed already: recursive queries come back to themselves, and add nothing then.
    open: RefCell<HashSet<(usize, Option<String>)>>,
}

type Labels = BTreeSet<usize>;

impl<'a> Lineage<'a> {
    fn new(
        catalog: &'a Catalog,
        labels: &'a LabelIndex,
        statement: &'a Statement,
        all: BTreeSet<usize>,
    ) -> Self {
        Self { catalog, labels, statement, all, steps: Cell::new(0), open: RefCell::default() }
    }

    /// The labels that a column of the statement may carry.
    fn all_of(&self, index: usize) -> Labels {
        self.open.borrow_mut().clear();
        let found = self.column(index);
        if self.is_exhausted() { self.all.clone() } else { found }
    }

    fn is_exhausted(&self) -> bool {
        self.steps.get() > MAX_STEPS
    }

    /// Counts steps; whether there have been too many.
    fn spend(&self, steps: usize) -> bool {
        self.steps.set(self.steps.get().saturating_add(steps));
        self.is_exhausted()
    }

    fn column(&self, index: usize) -> Labels {
        let Some(column) = self.statement.columns.get(index) else { return self.all.clone() };
        if self.spend(1 + column.sources.len()) {
            return Labels::new();
        }
        let rows = column.star || column.whole_row;
        let whole = column.sources.iter().filter(|_| rows).flat_map(|source| self.of(*source, None));
        let mut found: Labels = whole.collect();
        if let Some(name) = column.name.last().filter(|_| !column.star) {
            found.extend(column.sources.iter().flat_map(|source| self.of(*source, Some(name))));
            found.extend(self.called_on_rows(column, name));
        }
        found
    }

    /// `u.f` that is no column of `u` is the call `f(u)`.
    fn called_on_rows(&self, column: &ColumnUse, name: &str) -> Labels {
        if column.name.len() < 2 {
            return Labels::new();
        }
        let rows = column.sources.iter().filter(|source| {
            let relation = self.statement.sources.get(**source).and_then(|s| self.relation(s));
            relation.is_some_and(|relation| !relation.has_column(name))
        });
        rows.flat_map(|source| self.of(*source, None)).collect()
    }

    /// The labels of a source's column of this name; of all its columns without one.
    fn of(&self, source: usize, name: Option<&str>) -> Labels {
        let key = (source, name.map(str::to_owned));
        if self.spend(1) || !self.open.borrow_mut().insert(key.clone()) {
            return Labels::new();
        }
        let found =
            self.statement.sources.get(source).map_or_else(|| self.all.clone(), |s| self.in_source(s, name));
        self.open.borrow_mut().remove(&key);
        found
    }

    fn in_source(&self, source: &Source, name: Option<&str>) -> Labels {
        match &source.kind {
            SourceKind::Relation(_) | SourceKind::Pseudo(Some(_)) => self.in_relation(source, name),
            SourceKind::Cte(_) | SourceKind::Subquery => self.in_query(source, name),
            SourceKind::Function if self.spend(source.inputs.len()) => Labels::new(),
            SourceKind::Function => source.inputs.iter().flat_map(|index| self.column(*index)).collect(),
            // What a join yields is looked for in its sides, unless it has names of its own.
            SourceKind::Join if name.is_some_and(|name| !source.columns.iter().any(|c| c == name)) => {
                Labels::new()
            }
            SourceKind::Join | SourceKind::Pseudo(None) => self.all.clone(),
        }
    }

    fn relation(&self, source: &Source) -> Option<&'a Relation> {
        let (SourceKind::Relation(index) | SourceKind::Pseudo(Some(index))) = source.kind else {
            return None;
        };
        named_relation(self.catalog, self.statement.relations.get(index)?)
    }

    fn in_relation(&self, source: &Source, name: Option<&str>) -> Labels {
        // A name that means nothing is the server's error.
        let Some(relation) = self.relation(source) else { return Labels::new() };
        if self.spend(relation.attributes().count()) {
            return Labels::new();
        }
        let Some(name) = name else { return self.catalog.protected(self.labels, relation) };
        let mut found = Labels::new();
        let own = relation.attribute(name);
        for (position, attribute) in relation.attributes().enumerate() {
            let renamed = source.columns.get(position);
            if renamed.map_or_else(|| own == Some(attribute), |renamed| renamed == name) {
                match self.catalog.origin(self.labels, relation.oid, attribute) {
                    Origin::Plain => {}
                    Origin::Labelled(labels) | Origin::Derived(labels) => found.extend(labels),
                    Origin::Unknown => found.extend(&self.all),
                }
            }
        }
        found
    }

    fn in_query(&self, source: &Source, name: Option<&str>) -> Labels {
        let Some(outputs) = self.outputs(source) else { return self.all.clone() };
        if self.spend(outputs.len() + source.columns.len()) {
            return Labels::new();
        }
        let Some(name) = name else { return outputs.iter().flat_map(|o| self.value(o, None)).collect() };
        match source.columns.iter().position(|renamed| renamed == name) {
            Some(position) => {
                let spread = outputs.get(..=position).is_none_or(|before| before.iter().any(spreads));
                let chosen =
                    if spread { outputs } else { outputs.get(position..=position).unwrap_or_default() };
                chosen.iter().flat_map(|output| self.value(output, None)).collect()
            }
            None => outputs.iter().flat_map(|output| self.value(output, Some(name))).collect(),
        }
    }

    /// What a subquery or CTE yields, the latter also where it is read before its end.
    fn outputs(&self, source: &'a Source) -> Option<&'a [Output]> {
        if !source.outputs.is_empty() {
            return Some(&source.outputs);
        }
        let SourceKind::Cte(cte) = source.kind else { return None };
        let outputs = &self.statement.ctes.get(cte)?.outputs;
        Some(outputs.as_slice()).filter(|outputs| !outputs.is_empty())
    }

    /// The labels of an output, if it may have this name.
    fn value(&self, output: &Output, name: Option<&str>) -> Labels {
        if let (Some(name), Some(alias)) = (name, &output.alias)
            && name != alias
        {
            return Labels::new();
        }
        let of = |index: &usize| self.statement.columns.get(*index);
        match (name, &output.kind) {
            (Some(name), OutputKind::Column(index)) if output.alias.is_none() => {
                let called = of(index).and_then(|c| c.name.last()).is_some_and(|last| last == name);
                if called { self.column(*index) } else { Labels::new() }
            }
            (Some(name), OutputKind::Star(_)) => {
                output.columns.iter().flat_map(|i| self.spread(*i, name)).collect()
            }
            _ => output.columns.iter().flat_map(|index| self.column(*index)).collect(),
        }
    }

    /// The column of this name in what a star stands for.
    fn spread(&self, index: usize, name: &str) -> Labels {
        match self.statement.columns.get(index) {
            Some(star) if star.star => {
                star.sources.iter().flat_map(|source| self.of(*source, Some(name))).collect()
            }
            _ => self.column(index),
        }
    }
}

fn spreads(output: &Output) -> bool {
    matches!(output.kind, OutputKind::Star(_) | OutputKind::Expanded)
}

#[cfg(test)]
mod tests {
    use gateway_core::masking::{DataClass, FieldRule};
    use gateway_core::operation::Resource;
    use gateway_core::pipeline::Label;
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::{LexSettings, Limits, analyse};

    /// What is inferred from `people(id, name, ssn)`, whose `ssn` is labelled.
    fn inferred(sql: &str) -> Vec<Inference> {
        inferred_on(150_000, sql)
    }

    fn inferred_on(server_version_num: u32, sql: &str) -> Vec<Inference> {
        let catalog =
            Catalog::of_tables(&[("people", &["id", "name", "ssn"]), ("orders", &["id", "people_id"])]);
        let resource = Resource::target("t").child("Database", "d").child("Schema", "public");
        let resource = resource.child("Table", "people").child("Column", "ssn");
        let labels = LabelIndex::new(&[Label { resource, rule: FieldRule::new(DataClass::US_SSN) }], "d");
        let settings = LexSettings { server_version_num, ..LexSettings::default() };
        let analysis = analyse(sql, &settings, &Limits::default()).expect(sql);
        let found = analysis.statements.iter().flat_map(|s| inferences(&catalog, &labels, s));
        found.map(|(_, usage)| usage).collect()
    }

    #[test]
    fn showing_alone_infers_nothing() {
        for sql in [
            "select ssn from people",
            "select * from people where id = 1 order by name",
            "select p.*, o.id from people p join orders o on o.people_id = p.id",
            "select t.s from (select ssn as s, id from people) t where t.id = 1 order by t.id",
            "with a(x, y) as (select id, ssn from people) select y from a where x = 1",
            "select id from people union all select id from orders order by 1",
            "select id, ssn from people order by 1",
            "select distinct name from people",
            "update people set name = 'x' where id = 1",
            "select exists (select * from people p where p.id = o.id) from orders o",
            "select t.id from (select id, ssn from people union all select id, ssn from people) t where id = 1",
        ] {
            assert_eq!(inferred(sql), [], "{sql}");
        }
    }

    #[test]
    fn uses_are_told_apart() {
        use Inference::{Compute, Filter, Order};
        for (sql, expected) in [
            ("select 1 from people where ssn = 'x'", vec![Filter]),
            ("select 1 from people having count(ssn) > 3", vec![Filter]),
            ("select ssn from people order by 1", vec![Order]),
            ("select ssn as z from people order by z", vec![Order]),
            ("select *, 1 from people order by 2", vec![Order]),
            ("select distinct ssn from people", vec![Order]),
            ("select ssn from people except select 'x'", vec![Order]),
            ("select id from people natural join orders", vec![Filter]),
            ("select upper(ssn) from people", vec![Compute]),
            ("select (select ssn from people limit 1) = 'x'", vec![Compute]),
            ("select 1 where (select ssn from people limit 1) = 'x'", vec![Filter]),
            ("select 1 where 'x' in (select ssn from people)", vec![Filter]),
            ("select rank() over (order by ssn) from people", vec![Order]),
            ("select array_agg(name order by ssn) from people", vec![Order]),
            ("select 1 from people p where p::text like '%1%'", vec![Filter]),
            ("select 1 from people as p(a, b, c) where c = 'x'", vec![Filter]),
            (
                "select 1 from people order by id limit (select length(ssn) from people limit 1)",
                vec![Filter, Compute],
            ),
            ("delete from orders using people where ssn = 'x'", vec![Filter]),
            ("prepare p as select 1 from people where ssn = $1", vec![Filter]),
            ("values ((select name from people), 1) order by \"*VALUES*\".column1", vec![]),
            (
                "select (values ((select ssn from people)), ('x') order by \"*VALUES*\".column1 limit 1)",
                vec![Order, Compute],
            ),
        ] {
            assert_eq!(inferred(sql), expected, "{sql}");
        }
    }

    /// What `SEARCH` and `CYCLE` compare, and the columns that they make of it.
    #[test]
    fn the_order_and_the_cycles_of_recursion_are_found() {
        use Inference::{Filter, Order};
        for (made, rest, expected) in [
            ("search depth first by a set o", "1", vec![]),
            ("search depth first by b set o", "1", vec![Order]),
            ("search breadth first by a, b set o", "a", vec![Order]),
            ("cycle a set c using d", "c, d", vec![]),
            ("cycle b set c using d", "1", vec![Filter, Order]),
            ("cycle a, b set c using d", "c", vec![Filter, Order]),
            ("search depth first by a set o cycle b set c using d", "1", vec![Filter, Order]),
        ] {
            let terms =
                "select id, ssn from people union all select p.id, p.ssn from people p join t on p.id = t.a";
            let sql = format!("with recursive t(a, b) as ({terms}) {made} select {rest} from t");
            assert_eq!(inferred(&sql), expected, "{sql}");
            let sql = format!(
                "with recursive t as (select id as a, ssn as b from people union all select a, b from t) {made} select {rest} from t"
            );
            assert_eq!(inferred(&sql), expected, "{sql}");
        }
        let star = "with recursive t as (select * from people union all select * from t) search depth first by name set o";
        assert_eq!(inferred(&format!("{star} select id from t")), [Order]);
    }

    /// Through names that stand nearer, but that the server does not see.
    #[test]
    fn uses_of_outer_queries_are_found() {
        use Inference::{Compute, Filter};
        for (sql, expected) in [
            (
                "select (select upper(p.ssn) from ((select '' as ssn) p cross join orders o) j) from people p",
                vec![Compute],
            ),
            (
                "select (select upper(public.people.ssn) from (select '' as ssn) people) from public.people",
                vec![Compute],
            ),
            (
                "select (select count(*) from (select '' as ssn) p, (orders x join orders y on p.ssn = '5')) from people p",
                vec![Filter],
            ),
            (
                "select (select count(*) from (orders x join (select '' as ssn) p on p.ssn = '5')) from people p",
                vec![],
            ),
            ("select (select upper(p.ssn) from (select '' as ssn) p) from people p", vec![]),
            (
                "select (select upper(\"coalesce\".c) from coalesce(p.ssn)) from people p, (select '' as c) as \"coalesce\"",
                vec![Filter, Compute],
            ),
            (
                "select 1 from people p where exists (select 1 from orders p join orders o on o.id = p.people_id)",
                vec![],
            ),
        ] {
            assert_eq!(inferred(sql), expected, "{sql}");
        }
    }

    #[test]
    fn ctes_of_the_same_name_are_told_apart() {
        use Inference::{Filter, Order};
        let hidden =
            "t(n, x) as (select 1, ssn from people union all select n + 1, x from t where x like '5%')";
        let decoy = "z as (with t(n, x) as (select 0, '') select x from t)";
        assert_eq!(inferred(&format!("with recursive {decoy}, {hidden} select 1 from t, z")), [Filter]);
        let plain =
            "t(n, x) as (select 1, name from people union all select n + 1, x from t where x like '5%')";
        assert_eq!(inferred(&format!("with recursive {decoy}, {plain} select 1 from t, z")), []);
        let before = "with recursive a as (select x from b order by x), b as (select ssn as x from people)";
        assert_eq!(
            inferred(&format!("{before} select 1 from (with b as (select '' as x) select x from b) s, a")),
            [Order]
        );
    }

    /// `ON CONFLICT` compares the columns of every unique index, or of a constraint's, whose columns the text does not tell.
    #[test]
    fn rows_in_conflict_are_found_by_comparing() {
        use Inference::Filter;
        for (conflict, expected) in [
            ("on conflict do nothing", vec![Filter]),
            ("on conflict on constraint people_ssn_key do nothing", vec![Filter]),
            ("on conflict on constraint people_ssn_key do update set name = excluded.name", vec![Filter]),
            ("on conflict (ssn) do nothing", vec![Filter]),
            ("on conflict (id) do update set name = excluded.name", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(
                inferred(&format!("insert into people (id, name) values (1, 'x') {conflict}")),
                expected
            );
        }
        assert_eq!(inferred("insert into orders select id from people on conflict do nothing"), []);
    }

    #[test]
    fn arrays_of_rows_are_values_where_they_stand() {
        use Inference::{Compute, Filter};
        let array = "json_array(select ssn from people where id = 1)::text";
        for (sql, expected) in [
            (format!("select 1 where {array} like '%123-4%'"), vec![Filter]),
            (format!("select {array}"), vec![Compute]),
            (format!("select o.id from orders o join orders p on {array} = p.id::text"), vec![Filter]),
            ("select json_array(select name from people where id = 1)".to_owned(), vec![]),
        ] {
            assert_eq!(inferred_on(180_000, &sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_statement_has_one_budget() {
        let stars = vec!["*"; 4000].join(",");
        let wide = format!("(select {} from people) a", vec!["*"; 400].join(","));
        let names: Vec<_> = (0..20_000).map(|n| format!("c{n}")).collect();
        let sql =
            format!("select 1 from (select {stars} from {wide}) b where coalesce({}) = ''", names.join(","));
        assert_eq!(inferred(&sql), [Inference::Filter]);
    }

    #[test]
    fn all_but_union_all_compares_rows() {
        use Inference::Order;
        for (operation, expected) in [
            ("union all", vec![]),
            ("union", vec![Order]),
            ("intersect all", vec![Order]),
            ("except all", vec![Order]),
        ] {
            let sql = format!("select id from (select id, ssn from people {operation} select 1, '5') s");
            assert_eq!(inferred(&sql), expected, "{sql}");
        }
    }

    /// A query around another one that yields (a, b), which yields them again under other names.
    fn layer() -> impl Strategy<Value = fn(&str) -> String> {
        let layers: [fn(&str) -> String; 7] = [
            |q| format!("select t.a, t.b from ({q}) t"),
            |q| format!("select * from ({q}) t"),
            |q| format!("select x as a, y as b from ({q}) as t(x, y)"),
            |q| format!("with c as ({q}) select a, b from c"),
            |q| format!("with c(y, x) as ({q}) select y as a, x as b from c"),
            |q| format!("select a, b from ({q}) t union all select '0', '1'"),
            |q| format!("select l.a, l.b from orders o, lateral ({q}) l where o.id = 1"),
        ];
        prop::sample::select(layers.to_vec())
    }

    proptest! {
        #[test]
        fn names_are_followed_through_any_layers(layers in prop::collection::vec(layer(), 0..5)) {
            let query = |first: &str| layers.iter().fold(first.to_owned(), |inner, layer| layer(&inner));
            let hidden = query("select name as a, ssn as b from people");
            let on = |column: &str| inferred(&format!("select 1 from ({hidden}) z where z.{column} = 'x'"));
            prop_assert_eq!(on("b"), [Inference::Filter], "{}", hidden);
            // What a star stands for is not counted, so behind it places in a list of names cannot be told apart.
            if !hidden.contains("(x, y)") && !hidden.contains("(y, x)") {
                prop_assert_eq!(on("a"), [], "{}", hidden);
            }
        }
    }
}
