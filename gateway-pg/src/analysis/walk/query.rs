//! Queries: `SELECT`, `VALUES`, set operations, CTEs and everything in `FROM`.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    Alias, CoercionForm, CommonTableExpr, CteCycleClause, IntoClause, JoinExpr, LimitOption, LockingClause,
    Node, RangeFunction, RangeSubselect, RangeTableFunc, RangeTableSample, RangeVar, ResTarget, SelectStmt,
    SetOperation, WithClause,
};

use super::super::model::{Access, Change, ColumnUse, Cte, Output, OutputKind, Place, SourceKind};
use super::{Reading, Walk, Walker, names};

impl Walker {
    /// Walks a query and says what it returns.
    pub(super) fn select(&mut self, select: &SelectStmt) -> Walk<Vec<Output>> {
        let outermost = self.frames.is_empty() && self.ctes.is_empty() && self.captures.is_empty();
        let ctes = self.ctes.len();
        self.with(select.with_clause.as_ref())?;
        let outputs = self.in_frame(|walker| walker.select_body(select))?;
        self.ctes.truncate(ctes);
        if outermost {
            self.note_limit(select);
        }
        if select.into_clause.is_some() {
            self.stored(&outputs);
        }
        Ok(outputs)
    }

    fn note_limit(&mut self, select: &SelectStmt) {
        self.found.flags.set_operation = select.op() > SetOperation::SetopNone;
        if select.limit_option() != LimitOption::WithTies {
            self.found.limit = select.limit_count.as_deref().and_then(names::count);
        }
    }

    fn select_body(&mut self, select: &SelectStmt) -> Walk<Vec<Output>> {
        if let Some(into) = select.into_clause.as_deref() {
            self.select_into(into)?;
        }
        self.from(&select.from_clause)?;
        self.at_place(Place::Filter, |walker| walker.maybe(select.where_clause.as_deref()))?;
        let outputs = self.select_outputs(select)?;
        self.values_source(select, &outputs);
        self.at_place(Place::Order, |walker| {
            walker.each(&select.distinct_clause)?;
            walker.each(&select.group_clause)?;
            walker.each(&select.window_clause)?;
            walker.each(&select.sort_clause)
        })?;
        self.ordered_outputs(select, &outputs);
        self.at_place(Place::Filter, |walker| walker.maybe(select.having_clause.as_deref()))?;
        self.at_place(Place::Other, |walker| {
            walker.maybe(select.limit_offset.as_deref())?;
            walker.maybe(select.limit_count.as_deref())
        })?;
        self.each(&select.locking_clause)?;
        Ok(outputs)
    }

    fn select_outputs(&mut self, select: &SelectStmt) -> Walk<Vec<Output>> {
        match (select.larg.as_deref(), select.rarg.as_deref()) {
            (Some(left), Some(right)) => {
                let left = self.arm(left)?;
                let right = self.arm(right)?;
                self.spend(left.iter().chain(&right).map(|output| 1 + output.columns.len()).sum());
                if select.op() != SetOperation::SetopUnion || !select.all {
                    // Equal rows are found by comparing all of their columns; only `UNION ALL` looks for none.
                    self.mark(left.iter().chain(&right), Place::Order);
                }
                Ok(merge_arms(self.named_outputs(left), right))
            }
            (None, None) if !select.values_lists.is_empty() => self.values(&select.values_lists),
            (None, None) => self.targets(&select.target_list),
            _ => self.not_understood("a set operation"),
        }
    }

    /// Marks the outputs that `DISTINCT`, `ORDER BY` and `GROUP BY` compare without repeating them.
    fn ordered_outputs(&mut self, select: &SelectStmt, outputs: &[Output]) {
        if matches!(select.distinct_clause.as_slice(), [Node { node: None }]) {
            self.mark(outputs.iter(), Place::Order);
        }
        let items = select.distinct_clause.iter().chain(&select.group_clause).chain(&select.sort_clause);
        for item in items {
            self.spend(outputs.len().saturating_mul(leaves(item)));
            if self.exhausted() {
                return;
            }
            let mut meant = meant_outputs(item, outputs, &self.found.columns);
            // A name that a star stands for is that of an input, except where there are none.
            meant.retain(|output| {
                select.larg.is_some() || !is_name(item) || !matches!(output.kind, OutputKind::Star(_))
            });
            self.mark(meant.into_iter(), Place::Order);
        }
    }

    /// Notes another place of every column in these outputs.
    pub(super) fn mark<'a>(&mut self, outputs: impl Iterator<Item = &'a Output>, place: Place) {
        for index in outputs.flat_map(|output| output.columns.iter().copied()) {
            self.spend(1);
            if self.exhausted() {
                return;
            }
            if let Some(column) = self.found.columns.get_mut(index) {
                column.places.insert(place);
            }
        }
    }

    /// Plain columns under their own names, which a set operation keeps.
    fn named_outputs(&self, mut outputs: Vec<Output>) -> Vec<Output> {
        for output in &mut outputs {
            if let (None, OutputKind::Column(index)) = (&output.alias, &output.kind) {
                output.alias = self.found.columns.get(*index).and_then(|column| column.name.last().cloned());
            }
        }
        outputs
    }

    /// One arm of a set operation: sees the CTEs, not the other arm.
    fn arm(&mut self, select: &SelectStmt) -> Walk<Vec<Output>> {
        let ctes = self.ctes.len();
        self.with(select.with_clause.as_ref())?;
        let outputs = self.in_frame(|walker| walker.select_body(select));
        self.ctes.truncate(ctes);
        outputs
    }

    /// A subquery of any kind; its outputs.
    pub(super) fn subquery(&mut self, node: Option<&Node>) -> Walk<Vec<Output>> {
        match node.and_then(|node| node.node.as_ref()) {
            Some(NodeEnum::SelectStmt(select)) => self.arm(select),
            Some(NodeEnum::InsertStmt(insert)) => self.insert(insert),
            Some(NodeEnum::UpdateStmt(update)) => self.update(update),
            Some(NodeEnum::DeleteStmt(delete)) => self.delete(delete),
            Some(NodeEnum::MergeStmt(merge)) => self.merge(merge),
            _ => self.not_understood("a subquery"),
        }
    }

    fn values(&mut self, rows: &[Node]) -> Walk<Vec<Output>> {
        let mut found: Vec<BTreeSet<usize>> = Vec::new();
        for row in rows {
            let Some(NodeEnum::List(row)) = row.node.as_ref() else {
                return self.not_understood("a row of values");
            };
            for (position, item) in row.items.iter().enumerate() {
                let ((), columns) = self.capture(|walker| walker.node(item))?;
                match found.get_mut(position) {
                    Some(known) => known.extend(columns),
                    None => found.push(columns),
                }
            }
        }
        Ok(found.iter().map(|columns| expression(None, columns)).collect())
    }

    /// What `ORDER BY` of a list of values may name: the server calls it `*VALUES*`, its columns `column1` and so on (PostgreSQL
    /// documentation, "VALUES Lists"). Nothing else of the query can, but subqueries in there.
    fn values_source(&mut self, select: &SelectStmt, outputs: &[Output]) {
        if select.values_lists.is_empty() || select.sort_clause.is_empty() {
            return;
        }
        let columns = (1..=outputs.len()).map(|number| format!("column{number}")).collect();
        self.source(SourceKind::Subquery, Some("*VALUES*".to_owned()), columns, outputs.to_vec());
    }

    /// A target list or `RETURNING`.
    pub(super) fn targets(&mut self, targets: &[Node]) -> Walk<Vec<Output>> {
        self.at_place(Place::Output, |walker| targets.iter().map(|target| walker.target(target)).collect())
    }

    fn target(&mut self, target: &Node) -> Walk<Output> {
        let Some(NodeEnum::ResTarget(target)) = target.node.as_ref() else {
            return self.not_understood("a target");
        };
        let (plain, columns) = self.capture(|walker| walker.target_value(target))?;
        let alias = names::filled(&target.name);
        let output = expression(alias, &columns);
        let kind = match (plain, output.columns.first()) {
            (Plain::Column, Some(&index)) => OutputKind::Column(index),
            (Plain::Star, Some(&index)) => OutputKind::Star(index),
            (Plain::Expanded, _) => OutputKind::Expanded,
            _ => OutputKind::Expression,
        };
        Ok(Output { kind, ..output })
    }

    fn target_value(&mut self, target: &ResTarget) -> Walk<Plain> {
        self.indirection(&target.indirection)?;
        let plain =
            matches!(target.val.as_deref().and_then(|v| v.node.as_ref()), Some(NodeEnum::ColumnRef(_)));
        let place = if plain && target.indirection.is_empty() { self.place } else { Place::Expression };
        self.at_place(place, |walker| walker.maybe(target.val.as_deref()))?;
        Ok(match target.val.as_deref().and_then(|value| value.node.as_ref()) {
            Some(NodeEnum::ColumnRef(column)) => {
                match column.fields.last().and_then(|field| field.node.as_ref()) {
                    Some(NodeEnum::AStar(_)) => Plain::Star,
                    _ => Plain::Column,
                }
            }
            Some(NodeEnum::AIndirection(selected))
                if matches!(
                    selected.indirection.last().and_then(|last| last.node.as_ref()),
                    Some(NodeEnum::AStar(_))
                ) =>
            {
                Plain::Expanded
            }
            _ => Plain::No,
        })
    }

    /// Makes the CTEs' names visible; the caller takes them away again.
    pub(super) fn with(&mut self, with: Option<&WithClause>) -> Walk {
        let Some(with) = with else { return Ok(()) };
        let first = self.ctes.len();
        if with.recursive {
            // All names of a recursive list are visible in all of its queries.
            for cte in &with.ctes {
                if let Some(NodeEnum::CommonTableExpr(cte)) = cte.node.as_ref() {
                    let index = self.new_cte(cte, Vec::new());
                    self.ctes.push(index);
                }
            }
        }
        for (position, cte) in with.ctes.iter().enumerate() {
            let declared = self.ctes.get(first + position).copied().filter(|_| with.recursive);
            self.cte(cte, declared)?;
        }
        Ok(())
    }

    fn cte(&mut self, node: &Node, declared: Option<usize>) -> Walk {
        let Some(NodeEnum::CommonTableExpr(cte)) = node.node.as_ref() else {
            return self.not_understood("a CTE");
        };
        if !matches!(
            cte.ctequery.as_deref().and_then(|query| query.node.as_ref()),
            Some(NodeEnum::SelectStmt(_))
        ) {
            self.found.flags.modifying_cte = true;
        }
        let place = self.place;
        self.place = Place::Other;
        let outputs = self.subquery(cte.ctequery.as_deref());
        self.place = place;
        let mut outputs = outputs?;
        rename(&mut outputs, &cte.aliascolnames);
        if let Some(cycle) = cte.cycle_clause.as_deref() {
            self.cycle(cycle)?;
        }
        self.found.flags.ordered_recursion |= cte.search_clause.is_some() || cte.cycle_clause.is_some();
        self.append_order(&mut outputs, cte);
        self.spend(outputs.iter().map(|output| 1 + output.columns.len()).sum());
        match declared.and_then(|index| self.found.ctes.get_mut(index)) {
            Some(known) => known.outputs = outputs,
            None => {
                let index = self.new_cte(cte, outputs);
                self.ctes.push(index);
            }
        }
        Ok(())
    }

    /// Adds the columns that `SEARCH` and `CYCLE` make, in this order, of those that they name: the server sorts by these, or goes no
    /// further where they were met before (PostgreSQL documentation, "Search Order", "Cycle Detection").
    fn append_order(&mut self, outputs: &mut Vec<Output>, cte: &CommonTableExpr) {
        let mut added = Vec::new();
        if let Some(search) = cte.search_clause.as_ref() {
            let columns = self.compared(outputs, &search.search_col_list, &[Place::Order]);
            added.push(expression(Some(search.search_seq_column.clone()), &columns));
        }
        if let Some(cycle) = cte.cycle_clause.as_deref() {
            let columns = self.compared(outputs, &cycle.cycle_col_list, &[Place::Order, Place::Filter]);
            let names = [&cycle.cycle_mark_column, &cycle.cycle_path_column];
            added.extend(names.map(|name| expression(Some(name.clone()), &columns)));
        }
        outputs.append(&mut added);
    }

    /// Marks the outputs that may have one of these names as used in these places; what they are made of.
    fn compared(&mut self, outputs: &[Output], names: &[Node], places: &[Place]) -> BTreeSet<usize> {
        let names: Vec<_> = names.iter().filter_map(names::string).collect();
        let columns = &self.found.columns;
        let called = |output: &&Output| names.iter().any(|name| may_be_called(output, name, columns));
        let mut chosen: Vec<_> = outputs.iter().filter(called).collect();
        if chosen.len() < names.len() {
            // Of an arm that the text does not tell.
            chosen = outputs.iter().collect();
        }
        let found = chosen.iter().flat_map(|output| output.columns.iter().copied()).collect();
        for place in places {
            self.mark(chosen.iter().copied(), *place);
        }
        found
    }

    fn new_cte(&mut self, cte: &CommonTableExpr, outputs: Vec<Output>) -> usize {
        self.found.ctes.push(Cte { name: cte.ctename.clone(), outputs });
        self.found.ctes.len() - 1
    }

    /// The nearest CTE of this name.
    fn cte_called(&self, name: &str) -> Option<(usize, &Cte)> {
        let mut visible =
            self.ctes.iter().rev().filter_map(|&index| Some((index, self.found.ctes.get(index)?)));
        visible.find(|(_, cte)| cte.name == name)
    }

    pub(super) fn cycle(&mut self, cycle: &CteCycleClause) -> Walk {
        self.maybe(cycle.cycle_mark_value.as_deref())?;
        self.maybe(cycle.cycle_mark_default.as_deref())
    }

    pub(super) fn from(&mut self, items: &[Node]) -> Walk {
        self.in_from(|walker| walker.at_place(Place::Other, |walker| walker.each(items)))
    }

    /// A name in `FROM`: a CTE in scope, else a relation.
    pub(super) fn range_relation(&mut self, range: &RangeVar) -> Walk {
        let (alias, columns) = names::alias_parts(range.alias.as_ref());
        let alias = alias.or_else(|| Some(range.relname.clone()));
        self.spend(self.ctes.len());
        let plain = range.schemaname.is_empty() && range.catalogname.is_empty();
        if let Some((index, cte)) = self.cte_called(&range.relname).filter(|_| plain) {
            let (kind, outputs) = (SourceKind::Cte(index), cte.outputs.clone());
            self.source(kind, alias, columns, outputs);
        } else {
            let relation = self.relation(range, Access::Read);
            let offset = usize::try_from(range.location).unwrap_or(usize::MAX);
            self.reads.push(Reading {
                schema: names::filled(&range.schemaname),
                name: range.relname.clone(),
                offset,
                aliased: range.alias.is_some(),
            });
            self.source(SourceKind::Relation(relation), alias, columns, Vec::new());
        }
        Ok(())
    }

    pub(super) fn range_subquery(&mut self, range: &RangeSubselect) -> Walk {
        // Its siblings are visible to it only if it is `LATERAL`.
        let frame = self.frames.last_mut().filter(|_| !range.lateral);
        let siblings = frame.map(|frame| std::mem::take(&mut frame.sources));
        // All that stands before it is, by its name.
        let outputs = self.sure_from(0, |walker| walker.subquery(range.subquery.as_deref()))?;
        if let (Some(siblings), Some(frame)) = (siblings, self.frames.last_mut()) {
            frame.sources = siblings;
        }
        let (alias, columns) = names::alias_parts(range.alias.as_ref());
        self.source(SourceKind::Subquery, alias, columns, outputs);
        Ok(())
    }

    pub(super) fn range_function(&mut self, range: &RangeFunction) -> Walk {
        // Each function is a list of the call and its column definitions.
        let ((), inputs) =
            self.capture(|walker| walker.sure_from(0, |walker| walker.each(&range.functions)))?;
        self.each(&range.coldeflist)?;
        let name = range.functions.first().and_then(called_name);
        self.function_source(range.alias.as_ref(), name, &inputs);
        Ok(())
    }

    pub(super) fn function_source(
        &mut self,
        alias: Option<&Alias>,
        name: Option<String>,
        inputs: &BTreeSet<usize>,
    ) {
        let (alias, columns) = names::alias_parts(alias);
        let index = self.source(SourceKind::Function, alias.or(name), columns, Vec::new());
        if let Some(source) = self.found.sources.get_mut(index) {
            source.inputs = inputs.iter().copied().collect();
        }
    }

    pub(super) fn range_xml_table(&mut self, range: &RangeTableFunc) -> Walk {
        let ((), inputs) = self.capture(|walker| {
            walker.maybe(range.docexpr.as_deref())?;
            walker.maybe(range.rowexpr.as_deref())?;
            walker.each(&range.namespaces)?;
            walker.each(&range.columns)
        })?;
        self.function_source(range.alias.as_ref(), Some("xmltable".to_owned()), &inputs);
        Ok(())
    }

    pub(super) fn range_sample(&mut self, range: &RangeTableSample) -> Walk {
        self.maybe(range.relation.as_deref())?;
        let method = self.strings(&range.method)?;
        if !matches!(method.last().map(String::as_str), Some("bernoulli" | "system")) {
            self.found.flags.unproven = true;
        }
        self.each(&range.args)?;
        self.maybe(range.repeatable.as_deref())
    }

    pub(super) fn join(&mut self, join: &JoinExpr) -> Walk {
        let first = self.width();
        self.maybe(join.larg.as_deref())?;
        self.maybe(join.rarg.as_deref())?;
        self.sure_from(first, |walker| walker.at_place(Place::Filter, |walker| walker.join_condition(join)))?;
        for alias in [join.alias.as_ref(), join.join_using_alias.as_ref()].into_iter().flatten() {
            let (alias, columns) = names::alias_parts(Some(alias));
            self.source(SourceKind::Join, alias, columns, Vec::new());
        }
        Ok(())
    }

    fn join_condition(&mut self, join: &JoinExpr) -> Walk {
        if join.is_natural || !join.using_clause.is_empty() {
            self.implied_operators(&["="]);
        }
        if join.is_natural {
            // The columns both sides have; which these are is not known from the text.
            self.found.flags.natural_join = true;
            self.column(Vec::new(), true);
        }
        for column in self.strings(&join.using_clause)? {
            self.column(vec![column], false);
        }
        self.maybe(join.quals.as_deref())
    }

    pub(super) fn locking(&mut self, clause: &LockingClause) -> Walk {
        self.found.flags.locks_rows = true;
        self.writes();
        let mut locked: Vec<usize> = Vec::new();
        for name in &clause.locked_rels {
            let Some(NodeEnum::RangeVar(range)) = name.node.as_ref() else {
                return self.not_understood("a lock");
            };
            locked.extend(self.sources_called(&range.relname, false).unwrap_or_default());
        }
        if clause.locked_rels.is_empty() {
            // Reaches into subqueries and views too: everything read is locked.
            locked.extend(0..self.found.sources.len());
        }
        for relation in
            locked.into_iter().filter_map(|source| self.relation_of(source)).collect::<BTreeSet<_>>()
        {
            self.lock_relation(relation);
        }
        Ok(())
    }

    fn lock_relation(&mut self, relation: usize) {
        let Some(known) = self.found.relations.get(relation).cloned() else { return };
        let (catalog, schema) = (known.catalog.unwrap_or_default(), known.schema.unwrap_or_default());
        self.relation_named(&catalog, &schema, &known.name, known.only, Access::Lock);
    }

    /// `SELECT INTO` and the target of `CREATE TABLE AS`.
    pub(super) fn select_into(&mut self, into: &IntoClause) -> Walk {
        self.writes();
        let Some(range) = into.rel.as_ref() else { return self.not_understood("a target table") };
        self.relation(range, Access::Ddl);
        self.object("table", names::range_parts(range), Change::Create);
        self.each(&into.options)
    }
}

/// Whether a target is a bare column or star.
enum Plain {
    Column,
    Star,
    /// `(expression).*`.
    Expanded,
    No,
}

/// The outputs that an item of `ORDER BY` and the like means by number or name. All of them if it cannot be told.
fn meant_outputs<'a>(item: &Node, outputs: &'a [Output], columns: &[ColumnUse]) -> Vec<&'a Output> {
    let item = match item.node.as_ref() {
        Some(NodeEnum::SortBy(sort)) => sort.node.as_deref(),
        Some(NodeEnum::GroupingSet(set)) => {
            return set.content.iter().flat_map(|item| meant_outputs(item, outputs, columns)).collect();
        }
        _ => Some(item),
    };
    match item.and_then(|item| item.node.as_ref()) {
        Some(NodeEnum::AConst(_)) => {
            let position = item.and_then(names::count).and_then(|count| usize::try_from(count).ok());
            let Some(position) = position.and_then(|count| count.checked_sub(1)) else { return Vec::new() };
            let before = outputs.get(..=position);
            let spread = before.is_none_or(|before| before.iter().any(spreads));
            if spread { outputs.iter().collect() } else { outputs.get(position).into_iter().collect() }
        }
        Some(NodeEnum::ColumnRef(column)) => {
            let [name] = column.fields.as_slice() else { return Vec::new() };
            let Some(name) = names::string(name) else { return Vec::new() };
            outputs.iter().filter(|output| may_be_called(output, name, columns)).collect()
        }
        Some(NodeEnum::RowExpr(row)) => {
            row.args.iter().flat_map(|item| meant_outputs(item, outputs, columns)).collect()
        }
        _ => Vec::new(),
    }
}

/// How many items stand in this one, itself included.
fn leaves(item: &Node) -> usize {
    let inside: &[Node] = match item.node.as_ref() {
        Some(NodeEnum::SortBy(sort)) => return sort.node.as_deref().map_or(1, leaves),
        Some(NodeEnum::GroupingSet(set)) => &set.content,
        Some(NodeEnum::RowExpr(row)) => &row.args,
        _ => &[],
    };
    1 + inside.iter().map(leaves).sum::<usize>()
}

fn is_name(item: &Node) -> bool {
    match item.node.as_ref() {
        Some(NodeEnum::SortBy(sort)) => sort.node.as_deref().is_some_and(is_name),
        Some(NodeEnum::AConst(_)) => false,
        _ => true,
    }
}

fn spreads(output: &Output) -> bool {
    matches!(output.kind, OutputKind::Star(_) | OutputKind::Expanded)
}

/// Whether an output may have this name. What is computed has a name that the server makes up.
fn may_be_called(output: &Output, name: &str, columns: &[ColumnUse]) -> bool {
    match (&output.alias, &output.kind) {
        (Some(alias), _) => alias == name,
        (None, OutputKind::Column(index)) => {
            columns.get(*index).and_then(|column| column.name.last()).is_some_and(|last| last == name)
        }
        (None, _) => true,
    }
}

fn expression(alias: Option<String>, columns: &BTreeSet<usize>) -> Output {
    Output { alias, kind: OutputKind::Expression, columns: columns.iter().copied().collect() }
}

/// The outputs of a set operation: by position, or one of an unknown number of columns where the arms cannot be lined up.
fn merge_arms(left: Vec<Output>, right: Vec<Output>) -> Vec<Output> {
    if !left.iter().chain(&right).any(spreads) {
        return merge_by_position(left, right);
    }
    vec![collapsed(left.iter().chain(&right))]
}

/// Outputs of which it is not known how many they are and what their names are.
fn collapsed<'a>(outputs: impl Iterator<Item = &'a Output>) -> Output {
    let columns: BTreeSet<usize> = outputs.flat_map(|output| output.columns.iter().copied()).collect();
    Output { kind: OutputKind::Expanded, ..expression(None, &columns) }
}

/// The server refuses arms of different length; the rest of the longer one is kept all the same.
fn merge_by_position(left: Vec<Output>, right: Vec<Output>) -> Vec<Output> {
    let (longer, shorter) = if left.len() >= right.len() { (left, right) } else { (right, left) };
    let mut shorter = shorter.into_iter();
    let merge = |output: Output| {
        let mut columns: BTreeSet<usize> = output.columns.into_iter().collect();
        columns.extend(shorter.next().into_iter().flat_map(|other| other.columns));
        expression(output.alias, &columns)
    };
    longer.into_iter().map(merge).collect()
}

/// Gives the outputs the names of a CTE's column list. Positions behind a star are unknown: then any name may mean any of them.
fn rename(outputs: &mut Vec<Output>, columns: &[Node]) {
    if !columns.is_empty() && outputs.iter().any(spreads) {
        *outputs = vec![collapsed(outputs.iter())];
        return;
    }
    for (output, name) in outputs.iter_mut().zip(columns) {
        output.alias = names::string(name).map(str::to_owned);
    }
}

/// The name of a function in `FROM` without an alias. What the grammar spells in its own way (`EXTRACT`, `COALESCE`) has one that
/// differs between the server's versions.
fn called_name(item: &Node) -> Option<String> {
    match item.node.as_ref()? {
        NodeEnum::List(list) => list.items.first().and_then(called_name),
        NodeEnum::FuncCall(call) if call.funcformat() != CoercionForm::CoerceSqlSyntax => {
            call.funcname.last().and_then(names::string).map(str::to_owned)
        }
        _ => None,
    }
}
