//! Tells row filters that choose nothing.

use pg_query::NodeEnum;
use pg_query::protobuf::{AExpr, AExprKind, BoolExpr, BoolExprType, Node};

use super::names;

/// Whether a condition is plainly true for every row (or every row without nulls). `false` means "not seen to be".
pub(super) fn always_true(condition: &Node) -> bool {
    match condition.node.as_ref() {
        Some(NodeEnum::BoolExpr(expression)) => bool_expression(expression),
        Some(NodeEnum::AExpr(expression)) => comparison(expression),
        Some(NodeEnum::AConst(_) | NodeEnum::TypeCast(_)) => truth(condition).unwrap_or(false),
        _ => false,
    }
}

fn bool_expression(expression: &BoolExpr) -> bool {
    match expression.boolop() {
        BoolExprType::AndExpr => expression.args.iter().all(always_true),
        BoolExprType::OrExpr => expression.args.iter().any(always_true),
        BoolExprType::NotExpr => expression.args.first().and_then(truth) == Some(false),
        BoolExprType::Undefined => false,
    }
}

/// `1 = 1`, `'a' <> 'b'`, `id = id`, `id >= id`.
fn comparison(expression: &AExpr) -> bool {
    let (Some(left), Some(right)) = (expression.lexpr.as_deref(), expression.rexpr.as_deref()) else {
        return false;
    };
    if expression.kind() != AExprKind::AexprOp {
        return false;
    }
    let Some(operator) = expression.name.last().and_then(names::string) else { return false };
    let same = same_column(left, right) || constants(left, right).is_some_and(|(left, right)| left == right);
    match operator {
        "=" | ">=" | "<=" => same,
        "<>" | "!=" | "<" | ">" => constants(left, right).is_some_and(|(left, right)| left != right),
        _ => false,
    }
}

fn constants(left: &Node, right: &Node) -> Option<(String, String)> {
    Some((names::constant(left)?, names::constant(right)?))
}

fn same_column(left: &Node, right: &Node) -> bool {
    match (left.node.as_ref(), right.node.as_ref()) {
        (Some(NodeEnum::ColumnRef(left)), Some(NodeEnum::ColumnRef(right))) => {
            let name = |fields: &[Node]| {
                fields.iter().map(|field| names::string(field).map(str::to_owned)).collect::<Vec<_>>()
            };
            name(&left.fields) == name(&right.fields)
        }
        _ => false,
    }
}

fn truth(node: &Node) -> Option<bool> {
    match names::constant(node)?.to_ascii_lowercase().as_str() {
        "true" | "t" | "on" | "yes" | "1" => Some(true),
        "false" | "f" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}
