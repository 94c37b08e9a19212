//! Rewrites of a statement's text that are proven on its tree.
//!
//! The text is changed at token borders and parsed again; the new tree must equal the old one except for what was
//! meant to change. Literals, comments and everything else keep their bytes.

use pg_query::NodeEnum;
use pg_query::protobuf::{LimitOption, Node, ParseResult, SelectStmt, a_const::Val};

use super::scan::{Token, TokenClass, scan};
use super::{AnalysisError, LexSettings, Limits, parse};

/// Why a text was not rewritten. The statement must then be refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The text is not understood.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// Not the kind of statement this rewrite is for.
    #[error("cannot limit {what}; send one plain select")]
    Unsuitable {
        /// What it is.
        what: &'static str,
    },
    /// The rewritten text does not mean what was intended.
    #[error("cannot add a limit to this statement; write `limit` yourself")]
    NotEquivalent,
}

/// The text with its `LIMIT` at most `rows`: added, lowered, or left alone if it is low enough already.
///
/// For one `SELECT`, `VALUES` or `TABLE` without `INTO`; `LIMIT $1` becomes `LIMIT least($1, rows)`. Applying it
/// again changes nothing.
///
/// # Errors
/// The text is not understood, holds something else, or has a `LIMIT` that is computed or `WITH TIES`.
pub fn limit(text: &str, rows: u64, settings: &LexSettings, limits: &Limits) -> Result<String, RewriteError> {
    // A grammar constant above 32 bits is a numeric: still exact, but `LIMIT` is a bigint.
    if rows > i64::MAX.unsigned_abs() {
        return Err(RewriteError::Unsuitable { what: "to more rows than a bigint counts" });
    }
    let mut tokens = Vec::new();
    scan(text, settings, limits, |token| tokens.push(token))?;
    let tree = parse::parse(text, settings)?;
    let select = only_select(&tree)?;
    let Some(rewritten) = limited(text, &tokens, select, rows)? else { return Ok(text.to_owned()) };
    prove(&tree, &rewritten, rows, settings, limits)?;
    Ok(rewritten)
}

fn only_select(tree: &ParseResult) -> Result<&SelectStmt, RewriteError> {
    let [raw] = tree.stmts.as_slice() else {
        return Err(RewriteError::Unsuitable { what: "several statements" });
    };
    match raw.stmt.as_deref().and_then(|node| node.node.as_ref()) {
        Some(NodeEnum::SelectStmt(select)) if !has_into(select) => Ok(select),
        _ => Err(RewriteError::Unsuitable { what: "this kind of statement" }),
    }
}

fn has_into(select: &SelectStmt) -> bool {
    let mut leftmost = select;
    while let Some(left) = leftmost.larg.as_deref() {
        leftmost = left;
    }
    leftmost.into_clause.is_some()
}

/// The limit as found in the tree.
enum Present {
    /// None at all.
    Absent,
    /// `LIMIT ALL`, `LIMIT NULL`, at that byte.
    Unlimited(usize),
    /// A constant, at that byte.
    Rows(u64, usize),
    /// `$n`, at that byte.
    Parameter(usize),
    /// `least($n, rows)`, as made here.
    Least(u64),
}

fn present(select: &SelectStmt) -> Result<Present, RewriteError> {
    let Some(count) = select.limit_count.as_deref() else { return Ok(Present::Absent) };
    if select.limit_option() == LimitOption::WithTies {
        return Err(RewriteError::Unsuitable { what: "`with ties`" });
    }
    let at = |location: i32| usize::try_from(location).map_err(|_| RewriteError::NotEquivalent);
    match count.node.as_ref() {
        Some(NodeEnum::AConst(constant)) if constant.isnull => Ok(Present::Unlimited(at(constant.location)?)),
        Some(NodeEnum::AConst(constant)) => match rows_of(count) {
            Some(rows) => Ok(Present::Rows(rows, at(constant.location)?)),
            None => Err(RewriteError::Unsuitable { what: "a limit that is no whole number" }),
        },
        Some(NodeEnum::ParamRef(parameter)) => Ok(Present::Parameter(at(parameter.location)?)),
        _ => least(count).map(Present::Least).ok_or(RewriteError::Unsuitable { what: "a computed limit" }),
    }
}

/// Lowers the limit in a tree to `rows`; false if it is low enough already.
pub(super) fn lower(select: &mut SelectStmt, rows: u64) -> Result<bool, RewriteError> {
    if has_into(select) {
        return Err(RewriteError::Unsuitable { what: "this kind of statement" });
    }
    match present(select)? {
        Present::Rows(known, _) if known <= rows => return Ok(false),
        Present::Absent | Present::Unlimited(_) | Present::Rows(..) => {}
        Present::Parameter(_) | Present::Least(_) => {
            return Err(RewriteError::Unsuitable { what: "a computed limit" });
        }
    }
    // A 32-bit integer is one in the grammar, anything longer a number as text.
    let value = i32::try_from(rows).map_or_else(
        |_| Val::Fval(pg_query::protobuf::Float { fval: rows.to_string() }),
        |ival| Val::Ival(pg_query::protobuf::Integer { ival }),
    );
    let constant = pg_query::protobuf::AConst { isnull: false, location: 0, val: Some(value) };
    select.limit_count = Some(Box::new(Node { node: Some(NodeEnum::AConst(constant)) }));
    select.limit_option = LimitOption::Count.into();
    Ok(true)
}

fn rows_of(node: &Node) -> Option<u64> {
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            Val::Ival(integer) => u64::try_from(integer.ival).ok(),
            Val::Fval(float) => float.fval.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn least(node: &Node) -> Option<u64> {
    match node.node.as_ref()? {
        NodeEnum::MinMaxExpr(extreme) => match extreme.args.as_slice() {
            [Node { node: Some(NodeEnum::ParamRef(_)) }, rows]
                if extreme.op() == pg_query::protobuf::MinMaxOp::IsLeast =>
            {
                rows_of(rows)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The new text, `None` when the old one will do.
fn limited(
    text: &str,
    tokens: &[Token],
    select: &SelectStmt,
    rows: u64,
) -> Result<Option<String>, RewriteError> {
    match present(select)? {
        Present::Rows(known, _) | Present::Least(known) if known <= rows => Ok(None),
        Present::Absent => appended(text, tokens, &format!("LIMIT {rows}")).map(Some),
        // Padded with spaces, so that everything behind keeps its place; the new number is never longer.
        Present::Rows(_, at) => replaced(text, tokens, at, &rows.to_string()).map(Some),
        Present::Unlimited(at) => {
            appended(&without_limit(text, tokens, at)?, tokens, &format!("LIMIT {rows}")).map(Some)
        }
        Present::Parameter(at) => {
            let parameter = token_text(text, token_at(tokens, at)?);
            let clause = format!("LIMIT least({parameter}, {rows})");
            appended(&without_limit(text, tokens, at)?, tokens, &clause).map(Some)
        }
        Present::Least(_) => Err(RewriteError::Unsuitable { what: "a computed limit" }),
    }
}

/// Puts a clause behind the last token that is no semicolon. A comment there ends before it.
fn appended(text: &str, tokens: &[Token], clause: &str) -> Result<String, RewriteError> {
    let last = tokens
        .iter()
        .rev()
        .find(|token| token_text(text, token) != ";")
        .ok_or(RewriteError::NotEquivalent)?;
    let (head, tail) = text.split_at_checked(last.end).ok_or(RewriteError::NotEquivalent)?;
    Ok(format!("{head} {clause}{tail}"))
}

fn replaced(text: &str, tokens: &[Token], at: usize, with: &str) -> Result<String, RewriteError> {
    let token = token_at(tokens, at)?;
    let (head, tail) = (text.get(..token.start), text.get(token.end..));
    let (Some(head), Some(tail)) = (head, tail) else { return Err(RewriteError::NotEquivalent) };
    let width = token.end - token.start;
    Ok(format!("{head}{with:width$}{tail}"))
}

/// Blanks `LIMIT` and its one-token count.
fn without_limit(text: &str, tokens: &[Token], at: usize) -> Result<String, RewriteError> {
    let position = tokens.iter().position(|token| token.start == at).ok_or(RewriteError::NotEquivalent)?;
    let keyword =
        position.checked_sub(1).and_then(|index| tokens.get(index)).ok_or(RewriteError::NotEquivalent)?;
    if keyword.class != TokenClass::Word || !token_text(text, keyword).eq_ignore_ascii_case("limit") {
        return Err(RewriteError::Unsuitable { what: "this form of limit" });
    }
    replaced(&replaced(text, tokens, at, "")?, tokens, keyword.start, "")
}

fn token_at(tokens: &[Token], at: usize) -> Result<&Token, RewriteError> {
    tokens.iter().find(|token| token.start == at).ok_or(RewriteError::NotEquivalent)
}

fn token_text<'a>(text: &'a str, token: &Token) -> &'a str {
    text.get(token.start..token.end).unwrap_or_default()
}

/// Parses the new text and compares: equal to the old tree but for the limit, and the limit low enough.
fn prove(
    old: &ParseResult,
    text: &str,
    rows: u64,
    settings: &LexSettings,
    limits: &Limits,
) -> Result<(), RewriteError> {
    scan(text, settings, limits, |_| {})?;
    let mut new = parse::parse(text, settings)?;
    let low = match present(only_select(&new)?)? {
        Present::Rows(known, _) | Present::Least(known) => known <= rows,
        Present::Absent | Present::Unlimited(_) | Present::Parameter(_) => false,
    };
    let mut old = old.clone();
    clear_limit(&mut old);
    clear_limit(&mut new);
    if low && old == new { Ok(()) } else { Err(RewriteError::NotEquivalent) }
}

fn clear_limit(tree: &mut ParseResult) {
    for raw in &mut tree.stmts {
        raw.stmt_len = 0;
        if let Some(NodeEnum::SelectStmt(select)) =
            raw.stmt.as_deref_mut().and_then(|node| node.node.as_mut())
        {
            select.limit_count = None;
            // Says whether there is a count, and with ties was refused.
            select.limit_option = LimitOption::Default.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_to(text: &str, rows: u64) -> Result<String, RewriteError> {
        limit(text, rows, &LexSettings::default(), &Limits::default())
    }

    #[test]
    fn limits_are_added_and_lowered_and_stay() {
        let cases = [
            ("select * from t", "select * from t LIMIT 10"),
            ("select * from t;", "select * from t LIMIT 10;"),
            ("select 1 -- c", "select 1 LIMIT 10 -- c"),
            ("select 1 /* ; */ ; -- x", "select 1 LIMIT 10 /* ; */ ; -- x"),
            ("select * from t limit 1000 offset 5", "select * from t limit 10   offset 5"),
            ("select * from t limit 5", "select * from t limit 5"),
            ("select * from t fetch first 99 rows only", "select * from t fetch first 10 rows only"),
            ("select * from t limit all offset 3", "select * from t           offset 3 LIMIT 10"),
            ("select * from t limit $1", "select * from t          LIMIT least($1, 10)"),
            ("select 1 union select 2", "select 1 union select 2 LIMIT 10"),
            ("values (1), (2)", "values (1), (2) LIMIT 10"),
            ("table t order by 1", "table t order by 1 LIMIT 10"),
            ("select * from t for update", "select * from t for update LIMIT 10"),
            ("(select 1 limit 50)", "(select 1 limit 10)"),
            ("select 'é' || E'\\'' from t", "select 'é' || E'\\'' from t LIMIT 10"),
        ];
        for (text, expected) in cases {
            let once = limit_to(text, 10).expect(text);
            assert_eq!(once, expected);
            assert_eq!(limit_to(&once, 10).expect(&once), once);
        }
    }

    #[test]
    fn what_cannot_be_limited_is_refused() {
        for text in [
            "delete from t",
            "select 1; select 2",
            "",
            "select * into a from t",
            "select 1 limit 1 + 1",
            "select * from t order by a fetch first 5 rows with ties",
            "explain select 1",
            "select 1 limit 1.5",
            "select * from t fetch first $1 rows only",
            "select 1 limit -1",
            "select 1 limit (select 5)",
        ] {
            assert!(limit_to(text, 10).is_err(), "{text}");
        }
    }
}
