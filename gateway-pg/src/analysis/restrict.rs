//! Statements that see less of a table: only some rows, only some columns.
//!
//! Where a table is read, a query over it takes its place: `orders o` becomes `(SELECT * FROM public.orders WHERE ...) o`. Updates and
//! deletes get a further condition. The new text is written by PostgreSQL's own deparser and parsed again; its tree must be the old one but
//! for what was meant to change. A text that sees no more than this already stays as it is.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, AExpr, AExprKind, BoolExpr, BoolExprType, Node, ParseResult, SelectStmt, String as Name, a_const,
};
use serde_json::Value;

use super::functions::{classify_function, is_builtin_operator, is_builtin_type};
use super::model::{Access, ColumnUse, RelationUse, Source, SourceKind, Statement};
use super::rewrite::RewriteError;
use super::scan::{Token, TokenClass, scan};
use super::{LexSettings, Limits, parse, walk};

/// Tokens of a text that is restricted. 10,000: a tree that is compared takes some kilobytes for each, so some tens of megabytes.
const MAX_TOKENS: usize = 10_000;

/// The schema and name of the table that a name, with its schema if that is written, means; `None` if it is not known.
type Identify<'a> = dyn Fn(Option<&str>, &str) -> Option<(String, String)> + 'a;

/// What may be seen of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Restriction {
    pub(crate) schema: String,
    pub(crate) table: String,
    /// Conditions its rows must meet, all of them.
    pub(crate) conditions: Vec<String>,
    /// The columns it seems to have; `None`: its own.
    pub(crate) columns: Option<Vec<String>>,
    /// Columns that seem to be NULL everywhere.
    pub(crate) null: Vec<String>,
    /// The columns it has.
    pub(crate) all: Vec<String>,
}

/// The text under these restrictions; `None` if it keeps to them already. `is` tells which table a name in it means.
///
/// # Errors
/// The text is not understood, a condition is no plain one, or a restriction cannot be put into this statement.
pub(crate) fn restrict(
    text: &str,
    restrictions: &[Restriction],
    is: &Identify<'_>,
    settings: &LexSettings,
    limits: &Limits,
) -> Result<Option<String>, RewriteError> {
    let mut text = text.to_owned();
    let mut changed = false;
    for restriction in restrictions {
        let one = Restricting { restriction, is, settings, limits };
        if let Some(new) = one.reads(&text)? {
            (text, changed) = (new, true);
        }
        if let Some(new) = one.writes(&text)? {
            (text, changed) = (new, true);
        }
    }
    Ok(changed.then_some(text))
}

/// The text with the limit of the query inside a `PREPARE`, `DECLARE` or `COPY` at most `rows`; `None` if it is low enough already.
///
/// # Errors
/// As [`super::limit`].
pub(crate) fn limit_inside(
    text: &str,
    rows: u64,
    settings: &LexSettings,
    limits: &Limits,
) -> Result<Option<String>, RewriteError> {
    scan(text, settings, limits, |_| {})?;
    let mut tree = parse::parse(text, settings)?;
    let select =
        inner_select(&mut tree).ok_or(RewriteError::Unsuitable { what: "this kind of statement" })?;
    if !super::rewrite::lower(select, rows)? {
        return Ok(None);
    }
    written(&tree, settings, limits).map(Some)
}

fn only(tree: &mut ParseResult) -> Option<&mut NodeEnum> {
    match tree.stmts.as_mut_slice() {
        [raw] => raw.stmt.as_deref_mut()?.node.as_mut(),
        _ => None,
    }
}

fn inner_select(tree: &mut ParseResult) -> Option<&mut SelectStmt> {
    let query = match only(tree)? {
        NodeEnum::PrepareStmt(prepare) => prepare.query.as_deref_mut(),
        NodeEnum::DeclareCursorStmt(declare) => declare.query.as_deref_mut(),
        NodeEnum::CopyStmt(copy) => copy.query.as_deref_mut(),
        _ => None,
    };
    match query?.node.as_mut()? {
        NodeEnum::SelectStmt(select) => Some(select),
        _ => None,
    }
}

/// The tree as the deparser writes it, proven to be read as the same tree.
fn written(tree: &ParseResult, settings: &LexSettings, limits: &Limits) -> Result<String, RewriteError> {
    let text = parse::deparse(tree).map_err(|_| RewriteError::NotEquivalent)?;
    scan(&text, settings, limits, |_| {})?;
    let again = parse::parse(&text, settings)?;
    if canonical(&again)? == canonical(tree)? { Ok(text) } else { Err(RewriteError::NotEquivalent) }
}

/// The tree without places in its text.
fn canonical<T: serde::Serialize>(tree: &T) -> Result<Value, RewriteError> {
    let mut value = serde_json::to_value(tree).map_err(|_| RewriteError::NotEquivalent)?;
    forget_places(&mut value);
    Ok(value)
}

fn is_place(key: &str) -> bool {
    key.ends_with("location") || key.ends_with("list_start") || key.ends_with("list_end") || key == "stmt_len"
}

fn forget_places(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !is_place(key));
            fields.values_mut().for_each(forget_places);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_places),
        _ => {}
    }
}

struct Restricting<'a> {
    restriction: &'a Restriction,
    is: &'a Identify<'a>,
    settings: &'a LexSettings,
    limits: &'a Limits,
}

impl Restricting<'_> {
    fn means(&self, schema: Option<&str>, name: &str) -> bool {
        let found = (self.is)(schema, name);
        let Restriction { schema, table, .. } = self.restriction;
        found.is_some_and(|(s, t)| s == *schema && t == *table)
    }

    fn uses(&self, used: &RelationUse) -> bool {
        self.means(used.schema.as_deref(), &used.name)
    }

    /// Puts a query in the place of the table wherever it is read.
    fn reads(&self, text: &str) -> Result<Option<String>, RewriteError> {
        let mut tokens = Vec::new();
        scan(text, self.settings, self.limits, |token| tokens.push(token))?;
        if tokens.len() > MAX_TOKENS {
            return Err(RewriteError::Unsuitable { what: "a statement of more than 10,000 words" });
        }
        let tree = parse::parse(text, self.settings)?;
        let [raw] = tree.stmts.as_slice() else {
            return Err(RewriteError::Unsuitable { what: "several statements" });
        };
        let (statement, reads) = walk::readings(text, raw)?;
        self.refuse_unsuitable(&statement)?;
        let places: Vec<_> =
            reads.iter().filter(|read| self.means(read.schema.as_deref(), &read.name)).collect();
        self.refuse_other_places(&statement, places.len())?;
        self.refuse_unseen_columns(&statement)?;
        let (query, query_tree) = self.query()?;
        if places.len() == occurrences(&canonical(&tree)?, &query_tree) {
            return Ok(None);
        }
        self.refuse_counted_columns(&statement)?;
        let mut new = text.to_owned();
        for place in places.iter().rev() {
            let end = end_of_name(text, &tokens, place.offset).ok_or(RewriteError::NotEquivalent)?;
            let alias =
                if place.aliased { String::new() } else { format!(" AS {}", quote(&self.restriction.table)) };
            new.replace_range(place.offset..end, &format!("({query}){alias}"));
        }
        let offsets: Vec<_> = places.iter().map(|place| place.offset).collect();
        let mut expected = serde_json::to_value(&tree).map_err(|_| RewriteError::NotEquivalent)?;
        replace_ranges(&mut expected, &offsets, &query_tree, &self.restriction.table);
        forget_places(&mut expected);
        scan(&new, self.settings, self.limits, |_| {})?;
        let new = parse::parse(&new, self.settings)?;
        if canonical(&new)? != expected {
            return Err(RewriteError::NotEquivalent);
        }
        written(&new, self.settings, self.limits).map(Some)
    }

    /// Where columns go, names that are given by place would come to mean other columns than those that were judged.
    fn refuse_counted_columns(&self, statement: &Statement) -> Result<(), RewriteError> {
        let counts = |s: &Source| !s.columns.is_empty() && s.kind != SourceKind::Function;
        if self.restriction.columns.is_some() && statement.sources.iter().any(counts) {
            return Err(RewriteError::Unsuitable { what: "column names in parentheses behind an alias" });
        }
        Ok(())
    }

    /// A query must be able to stand wherever the table is read: it cannot where `MERGE` writes to it.
    fn refuse_other_places(&self, statement: &Statement, places: usize) -> Result<(), RewriteError> {
        let read = |source: &&Source| {
            let SourceKind::Relation(index) = source.kind else { return false };
            statement.relations.get(index).is_some_and(|used| used.access == Access::Read && self.uses(used))
        };
        if statement.sources.iter().filter(read).count() == places {
            return Ok(());
        }
        Err(RewriteError::Unsuitable { what: "a table in this place" })
    }

    /// What is written to stands there itself, with all of its columns.
    fn refuse_unseen_columns(&self, statement: &Statement) -> Result<(), RewriteError> {
        if self.restriction.columns.is_none() && self.restriction.null.is_empty() {
            return Ok(());
        }
        let target = |source: &usize| {
            let used = statement.sources.get(*source).and_then(|source| match source.kind {
                SourceKind::Relation(index) => {
                    statement.relations.get(index).filter(|used| used.access != Access::Read)
                }
                SourceKind::Pseudo(index) => statement.relations.get(index?),
                _ => None,
            });
            used.is_some_and(|used| self.uses(used))
        };
        let unseen = |column: &ColumnUse| !self.is_seen(column) && column.sources.iter().any(target);
        if statement.columns.iter().any(unseen) {
            return Err(RewriteError::Unsuitable { what: "a change that reads columns which are not shown" });
        }
        Ok(())
    }

    /// Whether a column that may be the table's is one that it is seen with, or surely none of its own.
    fn is_seen(&self, column: &ColumnUse) -> bool {
        let Restriction { columns, null, all, .. } = self.restriction;
        let Some(name) = column.name.last().filter(|_| !column.star && !column.whole_row) else {
            return false;
        };
        let foreign = column.name.len() == 1 && !all.contains(name);
        foreign || columns.as_ref().unwrap_or(all).contains(name) && !null.contains(name)
    }

    /// What reaches the table in another way than as rows that are read, updated or deleted cannot be restricted.
    fn refuse_unsuitable(&self, statement: &Statement) -> Result<(), RewriteError> {
        let rows = !self.restriction.conditions.is_empty();
        for used in statement.relations.iter().filter(|used| self.uses(used)) {
            let what = match used.access {
                Access::Read if used.only => "`ONLY`",
                Access::Read | Access::Lock => continue,
                Access::Update | Access::Delete if rows => continue,
                Access::Insert | Access::Update | Access::Delete if !rows => continue,
                Access::Insert => "rows that are added",
                _ => "this kind of statement",
            };
            return Err(RewriteError::Unsuitable { what });
        }
        if statement.copy.as_ref().is_some_and(|copy| !copy.query) {
            return Err(RewriteError::Unsuitable { what: "`COPY` of a table" });
        }
        Ok(())
    }

    /// The query that takes the table's place, and its tree.
    fn query(&self) -> Result<(String, Value), RewriteError> {
        let Restriction { schema, table, columns, null, all, .. } = self.restriction;
        let items = match (columns, null.is_empty()) {
            (None, true) => "*".to_owned(),
            (Some(columns), _) => items(columns, null),
            (None, false) => items(all, null),
        };
        // A query that ends so is planned by itself: no condition around it, which could show rows by its errors, runs before its own
        // (optimizer/prep/prepjointree.c, `is_simple_subquery`; path/allpaths.c, `subquery_is_pushdown_safe`).
        let barrier = if self.restriction.conditions.is_empty() { "" } else { " OFFSET 0" };
        let mut text = format!("SELECT {items} FROM {}.{}{barrier}", quote(schema), quote(table));
        let mut tree = parse::parse(&text, self.settings)?;
        let conditions = self.conditions(table)?;
        let Some(NodeEnum::SelectStmt(select)) = only(&mut tree) else {
            return Err(RewriteError::NotEquivalent);
        };
        for condition in conditions {
            add_condition(&mut select.where_clause, condition);
        }
        let value = canonical(&**select)?;
        text = written(&tree, self.settings, self.limits)?;
        Ok((text, value))
    }

    /// The conditions, every name in them tied to what it means here.
    fn conditions(&self, table: &str) -> Result<Vec<Node>, RewriteError> {
        let read = |text: &String| {
            let text = format!("SELECT * FROM t WHERE (\n{text}\n)");
            scan(&text, self.settings, self.limits, |_| {})?;
            let mut tree = parse::parse(&text, self.settings)?;
            let bare = parse::parse("SELECT * FROM t", self.settings)?;
            let Some(NodeEnum::SelectStmt(select)) = only(&mut tree) else { return Err(NO_CONDITION) };
            let mut condition = select.where_clause.take().ok_or(NO_CONDITION)?;
            if canonical(&tree)? != canonical(&bare)? {
                return Err(NO_CONDITION);
            }
            tie(&mut condition, table)?;
            Ok(*condition)
        };
        self.restriction.conditions.iter().map(read).collect()
    }

    /// Adds the conditions to an update or delete of the table.
    fn writes(&self, text: &str) -> Result<Option<String>, RewriteError> {
        scan(text, self.settings, self.limits, |_| {})?;
        let mut tree = parse::parse(text, self.settings)?;
        let [raw] = tree.stmts.as_slice() else { return Err(RewriteError::NotEquivalent) };
        let statement = walk::statement(text, raw)?;
        let written_to = |m: &&super::Modification| {
            m.access != Access::Insert
                && statement.relations.get(m.relation).is_some_and(|used| self.uses(used))
        };
        let count = statement.modifications.iter().filter(written_to).count();
        if count == 0 || self.restriction.conditions.is_empty() {
            return Ok(None);
        }
        // One at the top: deeper ones, merges and `ON CONFLICT` are refused.
        let nested = RewriteError::Unsuitable { what: "a nested change" };
        let (relation, filter) = match only(&mut tree) {
            Some(NodeEnum::UpdateStmt(update)) => (update.relation.as_ref(), &mut update.where_clause),
            Some(NodeEnum::DeleteStmt(delete)) => (delete.relation.as_ref(), &mut delete.where_clause),
            _ => return Err(nested),
        };
        let Some(target) = relation.filter(|_| count == 1) else { return Err(nested) };
        if !statement.modifications.iter().any(|m| {
            let used = statement.relations.get(m.relation);
            written_to(&m) && used.is_some_and(|used| used.name == target.relname)
        }) {
            return Err(nested);
        }
        let alias = target.alias.as_ref().map_or(&target.relname, |alias| &alias.aliasname).clone();
        let conditions = self.conditions(&alias)?;
        if holds(filter.as_deref(), &conditions)? {
            return Ok(None);
        }
        let theirs = filter.take();
        conditions.iter().for_each(|condition| add_condition(filter, condition.clone()));
        if let (Some(theirs), Some(ours)) = (theirs, filter.clone()) {
            add_condition(filter, self.guarded(ours, theirs)?);
        }
        written(&tree, self.settings, self.limits).map(Some)
    }

    /// The client's condition, looked at only where ours holds: the server orders conditions as it likes, and an error of theirs tells of the
    /// row (PostgreSQL documentation, "Expression Evaluation Rules").
    fn guarded(&self, ours: Box<Node>, theirs: Box<Node>) -> Result<Node, RewriteError> {
        let mut tree = parse::parse("SELECT CASE WHEN a THEN b ELSE false END FROM t", self.settings)?;
        let Some(NodeEnum::SelectStmt(select)) = only(&mut tree) else {
            return Err(RewriteError::NotEquivalent);
        };
        let Some(NodeEnum::ResTarget(target)) = select.target_list.pop().and_then(|node| node.node) else {
            return Err(RewriteError::NotEquivalent);
        };
        let mut case = target.val.ok_or(RewriteError::NotEquivalent)?;
        let Some(NodeEnum::CaseExpr(whole)) = &mut case.node else { return Err(RewriteError::NotEquivalent) };
        let Some(NodeEnum::CaseWhen(when)) = whole.args.first_mut().and_then(|node| node.node.as_mut())
        else {
            return Err(RewriteError::NotEquivalent);
        };
        (when.expr, when.result) = (Some(ours), Some(theirs));
        Ok(*case)
    }
}

const NO_CONDITION: RewriteError = RewriteError::Unsuitable {
    what: "to a condition of the policy that is more than columns of the table, constants, and built-in operators and functions",
};

/// Whether a filter is made of the conditions already: them alone, or them and what they guard.
fn holds(filter: Option<&Node>, conditions: &[Node]) -> Result<bool, RewriteError> {
    let Some(filter) = filter else { return Ok(false) };
    let mut ours = None;
    conditions.iter().for_each(|condition| add_condition(&mut ours, condition.clone()));
    let Some(ours) = ours else { return Ok(true) };
    let wanted = canonical(&*ours)?;
    if canonical(filter)? == wanted {
        return Ok(true);
    }
    let Some(NodeEnum::BoolExpr(and)) = filter.node.as_ref() else { return Ok(false) };
    let Some((last, before)) = and.args.split_last().filter(|_| and.boolop() == BoolExprType::AndExpr) else {
        return Ok(false);
    };
    let mut rest = None;
    before.iter().for_each(|node| add_condition(&mut rest, node.clone()));
    let ours_first = rest.is_some_and(|rest| canonical(&*rest).is_ok_and(|rest| rest == wanted));
    Ok(ours_first
        && guarded_by(last).is_some_and(|guard| canonical(guard).is_ok_and(|guard| guard == wanted)))
}

/// What guards another condition: `CASE WHEN this THEN other ELSE false END`.
fn guarded_by(node: &Node) -> Option<&Node> {
    let Some(NodeEnum::CaseExpr(case)) = node.node.as_ref() else { return None };
    let [Node { node: Some(NodeEnum::CaseWhen(when)) }] = case.args.as_slice() else { return None };
    let falls = matches!(
        case.defresult.as_ref()?.node.as_ref()?,
        NodeEnum::AConst(AConst { isnull: false, val: Some(a_const::Val::Boolval(value)), .. }) if !value.boolval
    );
    when.expr.as_deref().filter(|_| falls && case.arg.is_none())
}

/// As the grammar joins conditions: one flat list (`makeAndExpr` in gram.y).
fn add_condition(filter: &mut Option<Box<Node>>, condition: Node) {
    let args = match filter.take().map(|node| *node) {
        None => {
            *filter = Some(Box::new(condition));
            return;
        }
        Some(Node { node: Some(NodeEnum::BoolExpr(and)) }) if and.boolop() == BoolExprType::AndExpr => {
            [and.args, vec![condition]].concat()
        }
        Some(old) => vec![old, condition],
    };
    let and = BoolExpr { boolop: BoolExprType::AndExpr.into(), args, ..BoolExpr::default() };
    *filter = Some(Box::new(Node { node: Some(NodeEnum::BoolExpr(Box::new(and))) }));
}

fn name(text: &str) -> Node {
    Node { node: Some(NodeEnum::String(Name { sval: text.to_owned() })) }
}

fn single(names: &[Node]) -> Option<&str> {
    match names {
        [one] => walk_string(one),
        _ => None,
    }
}

fn walk_string(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::String(text) => Some(&text.sval),
        _ => None,
    }
}

/// Ties columns to the table and everything else to the built-in one of its name, so that nothing the agent defines can take its place.
fn tie(node: &mut Node, table: &str) -> Result<(), RewriteError> {
    match node.node.as_mut().ok_or(NO_CONDITION)? {
        NodeEnum::AConst(_) => Ok(()),
        NodeEnum::ColumnRef(column) => {
            single(&column.fields).ok_or(NO_CONDITION)?;
            column.fields.insert(0, name(table));
            Ok(())
        }
        NodeEnum::BoolExpr(bool) => bool.args.iter_mut().try_for_each(|arg| tie(arg, table)),
        NodeEnum::NullTest(test) => tie(test.arg.as_deref_mut().ok_or(NO_CONDITION)?, table),
        NodeEnum::BooleanTest(test) => tie(test.arg.as_deref_mut().ok_or(NO_CONDITION)?, table),
        NodeEnum::AArrayExpr(array) => array.elements.iter_mut().try_for_each(|item| tie(item, table)),
        NodeEnum::AExpr(expression) => tie_operator(expression, table),
        NodeEnum::TypeCast(cast) => {
            let kind = cast.type_name.as_mut().ok_or(NO_CONDITION)?;
            if let Some(plain) = single(&kind.names) {
                if !is_builtin_type(None, plain) {
                    return Err(NO_CONDITION);
                }
                kind.names.insert(0, name("pg_catalog"));
            } else if kind.names.first().and_then(walk_string) != Some("pg_catalog") {
                return Err(NO_CONDITION);
            }
            tie(cast.arg.as_deref_mut().ok_or(NO_CONDITION)?, table)
        }
        NodeEnum::FuncCall(call) => {
            let plain = single(&call.funcname).ok_or(NO_CONDITION)?;
            if !classify_function(Some("pg_catalog"), plain).is_read() || call.over.is_some() || call.agg_star
            {
                return Err(NO_CONDITION);
            }
            call.funcname.insert(0, name("pg_catalog"));
            call.args.iter_mut().try_for_each(|arg| tie(arg, table))
        }
        _ => Err(NO_CONDITION),
    }
}

fn tie_operator(expression: &mut AExpr, table: &str) -> Result<(), RewriteError> {
    // `IN`, `LIKE` and `BETWEEN` look their operators up by name and cannot be qualified.
    let plain =
        matches!(expression.kind(), AExprKind::AexprOp | AExprKind::AexprOpAny | AExprKind::AexprOpAll);
    let operator = single(&expression.name).filter(|_| plain).ok_or(NO_CONDITION)?;
    if !is_builtin_operator(None, operator) {
        return Err(NO_CONDITION);
    }
    expression.name.insert(0, name("pg_catalog"));
    let sides = [expression.lexpr.as_deref_mut(), expression.rexpr.as_deref_mut()];
    sides.into_iter().flatten().try_for_each(|side| tie(side, table))
}

fn items(columns: &[String], null: &[String]) -> String {
    let item = |column: &String| {
        let quoted = quote(column);
        // A NULL of the column's own type.
        if null.contains(column) { format!("CASE WHEN false THEN {quoted} END AS {quoted}") } else { quoted }
    };
    columns.iter().map(item).collect::<Vec<_>>().join(", ")
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where the name that begins at `start` ends: words or quoted words with dots between them.
fn end_of_name(text: &str, tokens: &[Token], start: usize) -> Option<usize> {
    let mut rest = tokens.iter().skip_while(|token| token.start != start).peekable();
    let is_word = |token: &Token| matches!(token.class, TokenClass::Word | TokenClass::Quoted);
    let mut end = rest.next().filter(|token| is_word(token))?.end;
    while rest.peek().is_some_and(|token| text.get(token.start..token.end) == Some(".")) {
        rest.next();
        end = rest.next().filter(|token| is_word(token))?.end;
    }
    Some(end)
}

/// How often a query stands in a tree.
fn occurrences(tree: &Value, query: &Value) -> usize {
    if tree == query {
        return 1;
    }
    match tree {
        Value::Object(fields) => fields.values().map(|value| occurrences(value, query)).sum(),
        Value::Array(items) => items.iter().map(|item| occurrences(item, query)).sum(),
        _ => 0,
    }
}

/// Puts the query in the place of the relations that begin at these offsets.
fn replace_ranges(tree: &mut Value, offsets: &[usize], query: &Value, table: &str) {
    let Value::Object(fields) = tree else {
        if let Value::Array(items) = tree {
            items.iter_mut().for_each(|item| replace_ranges(item, offsets, query, table));
        }
        return;
    };
    let range = fields.get("RangeVar");
    let at = range.and_then(|range| range.get("location")).and_then(Value::as_u64);
    let chosen = at.and_then(|at| usize::try_from(at).ok()).is_some_and(|at| offsets.contains(&at));
    if let Some(alias) = range.filter(|_| chosen).and_then(|range| range.get("alias")).cloned() {
        let alias =
            if alias.is_null() { serde_json::json!({ "aliasname": table, "colnames": [] }) } else { alias };
        let query = serde_json::json!({ "node": { "SelectStmt": query } });
        let range = serde_json::json!({ "lateral": false, "subquery": query, "alias": alias });
        *tree = serde_json::json!({ "RangeSubselect": range });
        return;
    }
    fields.values_mut().for_each(|value| replace_ranges(value, offsets, query, table));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Restriction {
        Restriction {
            schema: "public".to_owned(),
            table: "orders".to_owned(),
            all: ["id", "note", "tenant"].map(str::to_owned).to_vec(),
            ..Restriction::default()
        }
    }

    fn rows() -> Restriction {
        Restriction { conditions: vec!["tenant = 7".to_owned()], ..orders() }
    }

    fn under(text: &str, restriction: &Restriction) -> Result<Option<String>, RewriteError> {
        let is =
            |schema: Option<&str>, name: &str| Some((schema.unwrap_or("public").to_owned(), name.to_owned()));
        restrict(text, std::slice::from_ref(restriction), &is, &LexSettings::default(), &Limits::default())
    }

    const ROWS: &str = "(SELECT * FROM public.orders WHERE orders.tenant OPERATOR(pg_catalog.=) 7 OFFSET 0)";

    #[test]
    fn a_query_takes_the_place_of_the_table() {
        for (text, expected) in [
            ("select * from orders", "SELECT * FROM Q orders"),
            ("select o.id from public.orders as o -- all", "SELECT o.id FROM Q o"),
            ("select 1 from a left join orders using (id)", "SELECT 1 FROM a LEFT JOIN Q orders USING (id)"),
            (
                "select (select count(*) from orders), 'é ; x'",
                "SELECT (SELECT count(*) FROM Q orders), 'é ; x'",
            ),
            (
                "with x as (table a) select * from x, orders o(p, q)",
                "WITH x AS (SELECT * FROM a) SELECT * FROM x, Q o(p, q)",
            ),
            (
                "prepare p as select * from orders where id = $1",
                "PREPARE p AS SELECT * FROM Q orders WHERE id = $1",
            ),
            (
                "select 1 from orders union select 2 from \"orders\"",
                "SELECT 1 FROM Q orders UNION SELECT 2 FROM Q orders",
            ),
            ("delete from a using orders o where a.id = o.id", "DELETE FROM a USING Q o WHERE a.id = o.id"),
        ] {
            let new = under(text, &rows()).expect(text).expect(text);
            assert_eq!(new, expected.replace('Q', ROWS));
            assert_eq!(under(&new, &rows()), Ok(None), "{new} keeps to it");
        }
        assert_eq!(under("select * from other.orders, a", &rows()), Ok(None));
        assert_eq!(under("with orders as (select 1) select * from orders", &rows()), Ok(None));
    }

    #[test]
    fn changes_get_a_further_condition() {
        let condition = "OPERATOR(pg_catalog.=) 7";
        for (text, expected) in [
            ("delete from orders", format!("DELETE FROM orders WHERE orders.tenant {condition}")),
            (
                "update orders o set id = 1 where id = 2 or true returning id",
                format!(
                    "UPDATE orders o SET id = 1 WHERE o.tenant {condition} AND CASE WHEN o.tenant {condition} THEN id = 2 OR true ELSE false END RETURNING id"
                ),
            ),
        ] {
            let new = under(text, &rows()).expect(text).expect(text);
            assert_eq!(new, expected);
            assert_eq!(under(&new, &rows()), Ok(None));
        }
    }

    #[test]
    fn columns_go_or_become_null() {
        let kept = Restriction { columns: Some(vec!["id".to_owned()]), ..orders() };
        assert_eq!(
            under("select * from orders", &kept),
            Ok(Some("SELECT * FROM (SELECT id FROM public.orders) orders".to_owned()))
        );
        for text in [
            "select b from orders o(a, b)",
            "select b from (select * from orders) o(a, b)",
            "prepare p as select a from orders o(a)",
        ] {
            assert!(under(text, &kept).is_err(), "{text}: what `b` means would change");
        }
        assert!(under("select o.id, f.n from orders o, generate_series(1, 2) f(n)", &kept).is_ok());
        let null = Restriction { null: vec!["note".to_owned()], ..orders() };
        let new = under("select note from orders", &null).unwrap().unwrap();
        let query = "(SELECT id, CASE WHEN false THEN note END AS note, tenant FROM public.orders)";
        assert_eq!(new, format!("SELECT note FROM {query} orders"));
        assert_eq!(under(&new, &null), Ok(None));
    }

    #[test]
    fn long_texts_are_refused() {
        let list =
            |count: usize| format!("select * from orders where id in ({})", vec!["1"; count].join(","));
        assert!(under(&list(4_000), &rows()).is_ok());
        assert!(under(&list(6_000), &rows()).is_err());
    }

    #[test]
    fn what_cannot_be_restricted_is_refused() {
        for text in [
            "insert into orders values (1)",
            "truncate orders",
            "copy orders to stdout",
            "table orders",
            "select * from only orders",
            "select * from orders tablesample system (10)",
            "with d as (delete from orders returning 1) select * from d",
            "merge into orders using a on orders.id = a.id when matched then delete",
            "insert into a select 1 on conflict (id) do nothing; select * from orders",
            "drop table orders",
        ] {
            assert!(under(text, &rows()).is_err(), "{text}: {:?}", under(text, &rows()));
        }
    }

    #[test]
    fn conditions_are_plain() {
        for condition in [
            "true) UNION SELECT * FROM secrets --",
            "id IN (SELECT 1)",
            "tenant IN (1, 2)",
            "f(tenant)",
            "pg_sleep(1) IS NULL",
            "other.tenant = 7",
            "tenant = $1",
            "tenant = 7 ORDER BY 1",
            "",
            "tenant ==== 7",
        ] {
            let restriction = Restriction { conditions: vec![condition.to_owned()], ..orders() };
            assert!(under("select * from orders", &restriction).is_err(), "{condition}");
        }
        for condition in
            ["tenant = ANY (ARRAY[1, 2]) AND note IS NOT NULL", "lower(note) ~~ 'a%'", "note = 'x'::text"]
        {
            let restriction = Restriction { conditions: vec![condition.to_owned()], ..orders() };
            let new = under("select * from orders", &restriction).expect(condition).expect(condition);
            assert_eq!(under(&new, &restriction), Ok(None), "{new}");
        }
    }

    #[test]
    fn limits_inside() {
        let limit = |text: &str| limit_inside(text, 7, &LexSettings::default(), &Limits::default());
        assert_eq!(limit("prepare p as select 1"), Ok(Some("PREPARE p AS SELECT 1 LIMIT 7".to_owned())));
        assert_eq!(
            limit("copy (select 1 limit 9) to stdout"),
            Ok(Some("COPY (SELECT 1 LIMIT 7) TO STDOUT".to_owned()))
        );
        assert_eq!(limit("declare c cursor for select 1 limit 3"), Ok(None));
        assert!(limit("copy t to stdout").is_err() && limit("prepare p as select 1 limit $1").is_err());
    }
}
