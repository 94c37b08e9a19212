//! Which results of a statement may hold values of protected columns: followed from the relations through subqueries, CTEs, joins,
//! functions in `FROM`, set operations and expressions.
//!
//! What cannot be followed counts as holding them if anything near it does. Rows chosen, ordered or counted by a protected column
//! are not followed: that is a matter of policy on conditions.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::analysis::{ColumnUse, Output, OutputKind, RelationUse, Source, SourceKind, Statement};
use crate::references::SYSTEM_COLUMNS;

/// What a relation yields.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its columns in order, each with whether it is protected.
    pub(crate) columns: Vec<(String, bool)>,
    /// It has the columns that every table has ([`SYSTEM_COLUMNS`]); views have none.
    pub(crate) system: bool,
}

/// Says what a relation yields; `None`: the relation is not known.
pub(crate) type Lookup<'a> = dyn Fn(&RelationUse) -> Option<Row> + 'a;

/// Rounds in which recursive CTEs are followed; each finds one more column at least. 64: more columns than such CTEs have; then
/// everything counts as protected.
const MAX_ROUNDS: usize = 64;

/// Columns followed in one source; more count as unknown. 4096: twice what a table can have.
const MAX_COLUMNS: usize = 4096;

/// Steps through columns of sources, for a whole statement: some tens of milliseconds. Beyond it everything counts as protected.
const MAX_STEPS: usize = 1 << 20;

/// One column of a source or result; without a name the server chooses one that the text does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: Option<String>,
    protected: bool,
}

/// What a source yields.
#[derive(Clone, Debug)]
enum Columns {
    /// All of them. `in_place`: in this order.
    Known { columns: Vec<Named>, in_place: bool },
    /// Anything, under any name; with whether it may be protected.
    Unknown(bool),
}

impl Columns {
    /// Columns to look through.
    fn width(&self) -> usize {
        match self {
            Self::Known { columns, .. } => columns.len(),
            Self::Unknown(_) => 1,
        }
    }

    fn any(&self) -> bool {
        match self {
            Self::Known { columns, .. } => columns.iter().any(|column| column.protected),
            Self::Unknown(protected) => *protected,
        }
    }

    /// Whether a column of this name may be protected; `None` if there is none of this name.
    fn named(&self, name: &str) -> Option<bool> {
        let Self::Known { columns, .. } = self else { return None };
        let mut named = columns.iter().filter(|column| column.name.as_deref() == Some(name)).peekable();
        named.peek()?;
        Some(named.any(|column| column.protected))
    }

    /// Whether something protected stands here under a name that is not known.
    fn hides(&self) -> bool {
        match self {
            Self::Known { columns, .. } => columns.iter().any(|c| c.name.is_none() && c.protected),
            Self::Unknown(protected) => *protected,
        }
    }

    /// Under the names that an alias list gives to the first of them.
    fn renamed(self, names: &[String]) -> Self {
        match self {
            columns if names.is_empty() => columns,
            Self::Known { mut columns, in_place: true } if names.len() <= columns.len() => {
                for (column, name) in columns.iter_mut().zip(names) {
                    column.name = Some(name.clone());
                }
                Self::Known { columns, in_place: true }
            }
            columns => Self::Unknown(columns.any()),
        }
    }
}

/// What is known of where a statement's values come from.
pub(crate) struct Carried<'a> {
    statement: &'a Statement,
    lookup: &'a Lookup<'a>,
    sources: HashMap<usize, Rc<Columns>>,
    /// Sources being looked at.
    open: HashSet<usize>,
    /// What recursive CTEs yield, as far as found.
    recursive: HashMap<usize, Vec<bool>>,
    /// A recursive CTE was read whose columns were not all found yet.
    assumed: HashSet<usize>,
    /// Steps taken.
    spent: Cell<usize>,
}

impl<'a> Carried<'a> {
    pub(crate) fn new(statement: &'a Statement, lookup: &'a Lookup<'a>) -> Self {
        let mut lineage = Self {
            statement,
            lookup,
            sources: HashMap::new(),
            open: HashSet::new(),
            recursive: HashMap::new(),
            assumed: HashSet::new(),
            spent: Cell::new(0),
        };
        lineage.follow_recursion();
        lineage
    }

    /// Counts steps; whether there have been too many.
    fn spend(&self, steps: usize) -> bool {
        self.spent.set(self.spent.get().saturating_add(steps));
        self.spent.get() > MAX_STEPS
    }

    /// Whether each column of the result may hold protected values; `None` if it is not known which column is which.
    pub(crate) fn outputs(&mut self) -> Option<Vec<bool>> {
        let statement = self.statement;
        match self.expand(&statement.outputs) {
            Columns::Known { columns, in_place: true } => {
                Some(columns.into_iter().map(|column| column.protected).collect())
            }
            _ => None,
        }
    }

    /// Whether a column reference may stand for protected values.
    pub(crate) fn column(&mut self, column: &ColumnUse) -> bool {
        let sources: Vec<_> = column.sources.iter().map(|source| self.source(*source)).collect();
        if self.spend(1 + sources.iter().map(|source| source.width()).sum::<usize>()) {
            return true;
        }
        let any = || sources.iter().any(|source| source.any());
        if column.star {
            return any();
        }
        let Some(name) = column.name.last() else { return true };
        // An alias that stands for its row; a join's row is that of all it joins.
        let row = column.whole_row && column.sources.iter().any(|at| self.is_called(*at, name));
        if row
            && column.sources.iter().zip(&sources).any(|(at, source)| {
                self.is_called(*at, name) && (source.any() || (self.is_join(*at) && self.any_relation()))
            })
        {
            return true;
        }
        if sources.iter().any(|source| source.named(name) == Some(true) || source.hides()) {
            return true;
        }
        let known = self.is_column(column, name, &sources);
        !row && (sources.is_empty() || !known && any())
    }

    /// Whether it is sure to be a column. Each row of the alias may be the nearest one, and `c.f` is the call `f(c)` unless `c` has the
    /// column; of a join's row the columns stand in what it joins.
    fn is_column(&self, column: &ColumnUse, name: &str, sources: &[Rc<Columns>]) -> bool {
        let at = || column.sources.iter().zip(sources);
        let has =
            |(at, source): (&usize, &Rc<Columns>)| source.named(name).is_some() || self.is_system(*at, name);
        let Some(qualifier) = column.name.iter().rev().nth(1) else { return at().any(has) };
        let mut called = at().filter(|(at, _)| self.is_called(**at, qualifier)).peekable();
        called.peek().is_some()
            && called.all(
                |(index, source)| if self.is_join(*index) { at().any(has) } else { has((index, source)) },
            )
    }

    /// Whether it is one of the columns that a table has besides its own.
    fn is_system(&self, source: usize, name: &str) -> bool {
        let source = self.statement.sources.get(source).map(|source| &source.kind);
        let Some(SourceKind::Relation(index) | SourceKind::Pseudo(Some(index))) = source else {
            return false;
        };
        let relation = || self.statement.relations.get(*index).and_then(|relation| (self.lookup)(relation));
        SYSTEM_COLUMNS.contains(&name) && relation().is_some_and(|row| row.system)
    }

    fn is_called(&self, source: usize, name: &str) -> bool {
        self.statement.sources.get(source).is_some_and(|s| s.alias.as_deref() == Some(name))
    }

    fn is_join(&self, source: usize) -> bool {
        self.statement.sources.get(source).is_some_and(|s| s.kind == SourceKind::Join)
    }

    fn any_of(&mut self, columns: &[usize]) -> bool {
        if self.spend(columns.len()) {
            return true;
        }
        let statement = self.statement;
        columns.iter().any(|index| statement.columns.get(*index).is_none_or(|column| self.column(column)))
    }

    fn source(&mut self, index: usize) -> Rc<Columns> {
        if let Some(known) = self.sources.get(&index) {
            return Rc::clone(known);
        }
        let statement = self.statement;
        let Some(source) = statement.sources.get(index) else { return Rc::new(Columns::Unknown(true)) };
        // A source that reads itself is none that the text can have.
        if !self.open.insert(index) {
            return Rc::new(Columns::Unknown(true));
        }
        let columns = Rc::new(self.columns(source).renamed(&source.columns));
        self.open.remove(&index);
        self.sources.insert(index, Rc::clone(&columns));
        columns
    }

    fn columns(&mut self, source: &'a Source) -> Columns {
        match &source.kind {
            SourceKind::Relation(index) | SourceKind::Pseudo(Some(index)) => self.relation(*index),
            SourceKind::Pseudo(None) => Columns::Unknown(self.any_relation()),
            SourceKind::Cte(cte) if source.outputs.is_empty() => self.before_its_end(*cte),
            SourceKind::Cte(_) | SourceKind::Subquery => self.expand(&source.outputs),
            SourceKind::Function => Columns::Unknown(self.any_of(&source.inputs)),
            // What it joins stands beside it; new names may be those of any of it.
            SourceKind::Join if source.columns.is_empty() => {
                Columns::Known { columns: Vec::new(), in_place: false }
            }
            SourceKind::Join => Columns::Unknown(self.any_relation()),
        }
    }

    fn relation(&self, index: usize) -> Columns {
        let found = self.statement.relations.get(index).and_then(|relation| (self.lookup)(relation));
        if self.spend(found.as_ref().map_or(1, |row| 1 + row.columns.len())) {
            return Columns::Unknown(true);
        }
        found.map_or(Columns::Unknown(true), |row| {
            let named = |(name, protected)| Named { name: Some(name), protected };
            Columns::Known { columns: row.columns.into_iter().map(named).collect(), in_place: true }
        })
    }

    fn any_relation(&self) -> bool {
        (0..self.statement.relations.len()).any(|index| self.relation(index).any())
    }

    /// The columns of a target list.
    fn expand(&mut self, outputs: &'a [Output]) -> Columns {
        let mut columns = Vec::new();
        let mut in_place = true;
        for output in outputs {
            if columns.len() > MAX_COLUMNS {
                return Columns::Unknown(self.any_output(outputs));
            }
            let alias = output.alias.clone();
            match output.kind {
                OutputKind::Column(index) => {
                    let own =
                        self.statement.columns.get(index).and_then(|column| column.name.last().cloned());
                    columns.push(Named { name: alias.or(own), protected: self.any_of(&output.columns) });
                }
                OutputKind::Expression => {
                    columns.push(Named { name: alias, protected: self.any_of(&output.columns) });
                }
                OutputKind::Star(index) => match self.star(index) {
                    Some((more, certain)) => {
                        columns.extend(more);
                        in_place &= certain;
                    }
                    None => return Columns::Unknown(self.any_output(outputs)),
                },
                OutputKind::Expanded => return Columns::Unknown(self.any_output(outputs)),
            }
        }
        if columns.len() > MAX_COLUMNS {
            return Columns::Unknown(self.any_output(outputs));
        }
        Columns::Known { columns, in_place }
    }

    fn any_output(&mut self, outputs: &[Output]) -> bool {
        outputs.iter().any(|output| self.any_of(&output.columns))
    }

    /// What a star stands for, and whether in this order: a join may merge columns.
    fn star(&mut self, index: usize) -> Option<(Vec<Named>, bool)> {
        let sources = &self.statement.columns.get(index)?.sources;
        let mut all = Vec::new();
        let mut certain = sources.len() == 1;
        for source in sources {
            match &*self.source(*source) {
                Columns::Known { columns, in_place } => {
                    if self.spend(columns.len()) || all.len() > MAX_COLUMNS {
                        return None;
                    }
                    all.extend(columns.iter().cloned());
                    certain &= *in_place;
                }
                Columns::Unknown(_) => return None,
            }
        }
        Some((all, certain))
    }

    /// What a recursive CTE yields where it is read before its end.
    fn before_its_end(&mut self, cte: usize) -> Columns {
        self.assumed.insert(cte);
        let Some(outputs) = self.definition(cte) else { return Columns::Unknown(self.any_relation()) };
        let names = outputs.iter().map(|output| output.alias.clone());
        let found = self.recursive.get(&cte);
        let protected = |index: usize| found.and_then(|f| f.get(index)).copied().unwrap_or_default();
        let columns = names.enumerate().map(|(i, name)| Named { name, protected: protected(i) }).collect();
        Columns::Known { columns, in_place: !self.statement.flags.ordered_recursion }
    }

    /// The outputs of a CTE, where the text leaves no doubt how many.
    fn definition(&self, cte: usize) -> Option<&'a [Output]> {
        let outputs = &self.statement.ctes.get(cte)?.outputs;
        let spread = |output: &Output| matches!(output.kind, OutputKind::Star(_) | OutputKind::Expanded);
        (!outputs.is_empty() && !outputs.iter().any(spread)).then_some(outputs)
    }

    /// Follows recursive CTEs until nothing more is found.
    fn follow_recursion(&mut self) {
        let recursive =
            |source: &Source| matches!(source.kind, SourceKind::Cte(_)) && source.outputs.is_empty();
        if !self.statement.sources.iter().any(recursive) {
            return;
        }
        for _ in 0..MAX_ROUNDS {
            self.sources.clear();
            (0..self.statement.sources.len()).for_each(|index| drop(self.source(index)));
            let mut changed = false;
            for cte in self.assumed.clone() {
                let Some(outputs) = self.definition(cte) else { continue };
                let now: Vec<_> = match self.expand(outputs) {
                    Columns::Known { columns, .. } => columns.iter().map(|c| c.protected).collect(),
                    Columns::Unknown(_) => vec![true; outputs.len()],
                };
                changed |= self.recursive.get(&cte) != Some(&now);
                self.recursive.insert(cte, now);
            }
            if !changed {
                return;
            }
        }
        (0..self.statement.sources.len()).for_each(|index| {
            self.sources.insert(index, Rc::new(Columns::Unknown(true)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{LexSettings, Limits, analyse};

    /// The tables `p(id, name, ssn, note)` and `o(id, owner, note)` and the view `v(id, name, ssn)`; `ssn` is protected.
    fn outputs(sql: &str) -> String {
        let settings = LexSettings { server_version_num: 180_000, ..LexSettings::default() };
        let analysis = analyse(sql, &settings, &Limits::default()).unwrap();
        let columns = |relation: &RelationUse| {
            let (names, system): (&[&str], _) = match relation.name.as_str() {
                "p" => (&["id", "name", "ssn", "note"], true),
                "v" => (&["id", "name", "ssn"], false),
                "o" => (&["id", "owner", "note"], true),
                _ => return None,
            };
            let columns = names.iter().map(|name| ((*name).to_owned(), *name == "ssn")).collect();
            Some(Row { columns, system })
        };
        let outputs = Carried::new(&analysis.statements[0], &columns).outputs();
        let letter = |protected| if protected { 'x' } else { '.' };
        outputs.map_or_else(|| "?".to_owned(), |o| o.into_iter().map(letter).collect())
    }

    #[test]
    fn protected_columns_are_followed() {
        for (sql, expected) in [
            ("SELECT id, upper(name), upper(ssn) FROM p", "..x"),
            ("SELECT * FROM p", "..x."),
            ("SELECT p.*, 1 FROM p", "..x.."),
            ("SELECT p FROM p", "x"),
            ("SELECT o, p.id FROM o, p", ".."),
            ("SELECT row_to_json(p), row_to_json(o) FROM p, o", "x."),
            ("SELECT o.note, p.note || '', p.ssn || '' FROM o JOIN p ON p.id = o.owner", "..x"),
            ("SELECT p.upper, o.upper FROM p, o", "x."),
            ("SELECT j FROM (p JOIN o ON p.id = o.owner) AS j", "x"),
            ("SELECT j.note || '', to_json(j) FROM (p JOIN o ON p.id = o.owner) AS j", ".x"),
            ("SELECT j.ssn || '' FROM (p JOIN o USING (id)) AS j", "x"),
            ("SELECT j.to_json FROM (p JOIN o USING (id)) AS j", "x"),
            ("SELECT upper(a) FROM (p JOIN o USING (id)) AS j(a, b, c, d, e, f)", "x"),
            ("SELECT upper(a), upper(b) FROM (SELECT name AS a, ssn AS b FROM p) s", ".x"),
            ("SELECT upper(a), upper(b) FROM (SELECT name, ssn FROM p) s(a, b)", ".x"),
            ("SELECT upper(name) FROM (SELECT ssn AS name FROM p) s", "x"),
            ("SELECT upper(name), upper(c) FROM p AS t(name, ssn, c, d)", ".x"),
            ("SELECT upper(ssn) FROM p AS t(name, ssn, c, d)", "."),
            ("WITH w AS (SELECT id, ssn FROM p) SELECT id + 1, ssn || '' FROM w", ".x"),
            ("WITH w(name, ssn) AS (SELECT ssn, name FROM p) SELECT name || '', ssn || '' FROM w", "x."),
            ("WITH w(a, b, c, d) AS (SELECT * FROM p) SELECT a + 1 FROM w", "x"),
            ("WITH w(id, ssn, name, note) AS (SELECT * FROM p) SELECT upper(name) FROM w", "x"),
            ("SELECT upper(x) FROM (SELECT upper(ssn) FROM p) s(x)", "x"),
            ("SELECT upper FROM (SELECT upper(ssn) FROM p) s", "x"),
            ("SELECT name || '', x FROM p, unnest(ARRAY[p.note]) x", ".."),
            ("SELECT p.name || '', x FROM p, unnest(ARRAY[p.ssn]) x", ".x"),
            ("SELECT count(*), max(ssn), max(name) FROM p", ".x."),
            ("SELECT (SELECT max(ssn) FROM p), (SELECT max(name) FROM p)", "x."),
            ("SELECT name, id FROM p UNION SELECT ssn, 1 FROM p", "x."),
            ("SELECT upper(name) FROM (SELECT name FROM p UNION SELECT note FROM o) s", "."),
            ("SELECT upper(name) FROM (SELECT name FROM p UNION SELECT ssn FROM p) s", "x"),
            ("UPDATE p SET note = '' RETURNING id, upper(ssn), name", ".x."),
            ("WITH d AS (DELETE FROM p RETURNING ssn AS a, id) SELECT a || '', id + 1 FROM d", "x."),
            ("SELECT lag(ssn) OVER (ORDER BY id), lag(name) OVER (ORDER BY id) FROM p", "x."),
            ("VALUES ((SELECT ssn FROM p), 1)", "x."),
            ("SELECT column1, column2 FROM (VALUES ((SELECT ssn FROM p), 1)) v", "xx"),
            ("SELECT a, b FROM (VALUES ((SELECT ssn FROM p), 1)) v(a, b)", "x."),
            ("SELECT upper(q) FROM nowhere", "x"),
            ("SELECT ctid, p.xmin FROM p", ".."),
            ("SELECT v.ctid, v.name || '' FROM v", "x."),
            ("SELECT s.ctid, s.name || '' FROM (SELECT name, ssn FROM p) s", "x."),
            ("SELECT p.owner, o.owner || '' FROM p, o", "x."),
            ("SELECT (SELECT p.owner FROM o AS p) FROM p", "."),
            ("SELECT (SELECT p.owner || '' FROM v AS p) FROM o AS p", "x"),
        ] {
            assert_eq!(outputs(sql), expected, "{sql}");
        }
    }

    #[test]
    fn wide_statements_count_as_protected() {
        let stars = |count: usize| vec!["*"; count].join(",");
        assert_eq!(outputs(&format!("SELECT {} FROM (SELECT {} FROM p) a", stars(30_000), stars(400))), "?");
        assert_eq!(outputs(&format!("SELECT {} FROM p", stars(2000))), "?");
        let names: Vec<_> = (0..1500).map(|n| format!("a.c{n}")).collect();
        let wide = format!("SELECT {} FROM (SELECT {} FROM o) a, p", names.join(","), stars(1300));
        // Those that were looked at before it was too much are known.
        assert!(outputs(&wide).ends_with('x'));
    }

    /// The server goes on in outer queries where a name is there but not visible.
    #[test]
    fn names_that_the_server_cannot_see_do_not_stand_in_the_way() {
        for (sql, expected) in [
            ("SELECT (SELECT upper(p.ssn) FROM ((SELECT '' AS ssn) AS p CROSS JOIN o) AS j) FROM p", "x"),
            ("SELECT (SELECT upper(p.name) FROM ((SELECT '' AS name) AS p CROSS JOIN o) AS j) FROM p", "."),
            ("SELECT (SELECT upper(t::text) FROM (SELECT p.*) t) FROM p", "x"),
            (
                "SELECT (SELECT (SELECT upper(t::text) FROM (SELECT p.*) t) FROM ((SELECT 1 AS k) AS p CROSS JOIN o) AS j) FROM p",
                "x",
            ),
            ("SELECT (SELECT upper(public.p.ssn) FROM (SELECT '' AS ssn) AS p) FROM public.p", "x"),
            ("SELECT (SELECT upper(p.ssn) FROM (SELECT '' AS ssn) AS p) FROM public.p", "."),
            ("SELECT (SELECT max(p.owner) FROM o AS p JOIN o AS q ON p.id = q.id) FROM p", "."),
        ] {
            assert_eq!(outputs(sql), expected, "{sql}");
        }
    }

    #[test]
    fn recursion_is_followed_to_its_end() {
        let tree =
            "WITH RECURSIVE t(n, a) AS (SELECT id, name FROM p UNION ALL SELECT n + 1, a || '' FROM t)";
        assert_eq!(outputs(&format!("{tree} SELECT n + 1, a || '' FROM t")), "..");
        let moved =
            "WITH RECURSIVE t(a, b, c) AS (SELECT name, note, ssn FROM p UNION ALL SELECT b, c, '' FROM t)";
        assert_eq!(outputs(&format!("{moved} SELECT a || '', b || '', c || '' FROM t")), "xxx");
        let plain = "WITH RECURSIVE t AS (SELECT id, name, ssn FROM p UNION ALL SELECT t.id + 1, t.name, t.ssn FROM t)";
        assert_eq!(outputs(&format!("{plain} SELECT id + 1, name || '', ssn || '' FROM t")), "..x");
        let ordered = "WITH RECURSIVE t(a, b) AS (SELECT name, ssn FROM p UNION ALL SELECT name, b FROM p, t) \
                       SEARCH DEPTH FIRST BY b SET o CYCLE b SET c USING d";
        assert_eq!(outputs(&format!("{ordered} SELECT a || '', b || '', o || '', d || '' FROM t")), ".xxx");
        let spread =
            "SELECT a || '', o || '', n || '' FROM (SELECT t.*, p.name FROM t, p) s(a, b, o, c, d, n)";
        assert_eq!(outputs(&format!("{ordered} {spread}")), ".x.");
        assert_eq!(outputs(&format!("{ordered} SELECT * FROM t")), ".xxxx");
        let by_name = ordered.replace("BY b SET o CYCLE b", "BY a SET o CYCLE a");
        assert_eq!(outputs(&format!("{by_name} SELECT a || '', b || '', o || '', d || '' FROM t")), ".x..");
        let star = "WITH RECURSIVE t AS (SELECT * FROM p UNION ALL SELECT * FROM p) SEARCH DEPTH FIRST BY name SET o";
        assert_eq!(outputs(&format!("{star} SELECT o || '' FROM t")), "x");
        let inside = "WITH RECURSIVE t(a, b) AS (SELECT 1, 'x' UNION ALL SELECT q.a, q.c FROM (SELECT t.*, p.ssn FROM t, p) q(a, b, c)) \
                      SEARCH DEPTH FIRST BY a SET o SELECT b || '' FROM t";
        assert_eq!(outputs(inside), "x");
        let whole = "WITH RECURSIVE t AS (SELECT * FROM p UNION ALL SELECT * FROM t)";
        assert_eq!(outputs(&format!("{whole} SELECT upper(name) FROM t")), "x");
    }

    #[test]
    fn ctes_of_the_same_name_are_told_apart() {
        let before = "WITH RECURSIVE a AS (SELECT upper(x) AS y FROM b), b AS (SELECT ssn AS x FROM p)";
        let other = "(WITH b AS (SELECT 'q' AS x) SELECT x FROM b)";
        assert_eq!(outputs(&format!("{before} SELECT y, {other} FROM a")), "x.");
        let plain = "WITH RECURSIVE a AS (SELECT upper(x) AS y FROM b), b AS (SELECT name AS x FROM p)";
        assert_eq!(
            outputs(&format!(
                "{plain} SELECT y, (WITH b AS (SELECT ssn AS x FROM p) SELECT x FROM b) FROM a"
            )),
            ".x"
        );
        assert_eq!(
            outputs(
                "WITH b AS (SELECT ssn AS x FROM p), a AS (WITH b AS (SELECT 'q' AS x) SELECT x FROM b) SELECT a.x || '' FROM a, b"
            ),
            "."
        );
        assert_eq!(
            outputs(
                "WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT * FROM p) SELECT upper(name) FROM a"
            ),
            "x"
        );
    }

    /// A function's name is known only where the text tells it.
    #[test]
    fn functions_without_an_alias_are_reached() {
        for (name, function, expected) in [
            ("coalesce", "COALESCE(p.ssn)", "x"),
            ("coalesce", "COALESCE(p.note)", "."),
            ("date_part", "EXTRACT(year FROM p.ssn)", "x"),
            ("xmltable", "XMLTABLE('/a' PASSING xmlelement(name a, p.ssn) COLUMNS f text PATH '.')", "x"),
            ("xmltable", "XMLTABLE('/a' PASSING p.note COLUMNS f text PATH '.')", "."),
            ("json_table", "JSON_TABLE(p.ssn, '$[*]' COLUMNS (f text PATH '$'))", "x"),
            ("json_table", "JSON_TABLE(p.note, '$[*]' COLUMNS (f text PATH '$'))", "."),
            ("json_table", "JSON_TABLE('1', '$' PASSING p.ssn AS s COLUMNS (f text PATH '$s'))", "x"),
            ("xmltable", "JSON_TABLE(p.ssn, '$[*]' COLUMNS (f text PATH '$'))", "."),
            ("current_role", "COALESCE(p.ssn, CURRENT_ROLE)", "x"),
            ("upper", "upper(p.ssn)", "x"),
            ("lower", "upper(p.ssn)", "."),
        ] {
            let other = format!("(SELECT '' AS f) AS \"{name}\"");
            let inner = format!("LATERAL (SELECT \"{name}\".f AS r FROM {function}) q");
            let sql = format!("SELECT upper(q.r) FROM p, {other}, {inner}");
            assert_eq!(outputs(&sql), expected, "{sql}");
        }
        assert_eq!(outputs("SELECT p.id + 1, upper(p.name) FROM p, COALESCE(p.note)"), "..");
    }

    #[test]
    fn places_that_are_not_certain_are_not_told() {
        for sql in [
            "SELECT *, 1 FROM p JOIN o USING (id)",
            "SELECT (p).* FROM p",
            "SELECT 1, * FROM p UNION ALL SELECT *, 1 FROM p",
            "SELECT * FROM p UNION ALL SELECT 1, ssn, '', '' FROM p",
        ] {
            assert_eq!(outputs(sql), "?", "{sql}");
        }
        let shifted = "SELECT upper(name) FROM (SELECT '', * FROM p UNION ALL SELECT *, '' FROM p) s";
        assert_eq!(outputs(shifted), "x");
        let merged = "SELECT upper(a) FROM (SELECT * FROM o JOIN p USING (id)) s(a, b, c, d)";
        assert_eq!(outputs(merged), "x");
    }
}
