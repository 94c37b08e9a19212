//! Tells row filters that choose nothing.

use pg_query::NodeEnum;
use pg_query::protobuf::{AExpr, AExprKind, Node};

use super::names;

/// Whether a condition that reads columns is plainly true for every row (or every row without nulls): `id = id`, `id >= id`. `false`
/// means "not seen to be".
pub(super) fn always_true(condition: &Node) -> bool {
    let Some(NodeEnum::AExpr(comparison)) = condition.node.as_ref() else { return false };
    let (Some(left), Some(right)) = (comparison.lexpr.as_deref(), comparison.rexpr.as_deref()) else {
        return false;
    };
    holds_of_equals(comparison) && same_column(left, right)
}

fn holds_of_equals(comparison: &AExpr) -> bool {
    let operator = comparison.name.last().and_then(names::string);
    match comparison.kind() {
        AExprKind::AexprOp => matches!(operator, Some("=" | ">=" | "<=")),
        AExprKind::AexprNotDistinct => true,
        _ => false,
    }
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
