//! What a plan says: `EXPLAIN (FORMAT JSON)`, PostgreSQL documentation, "EXPLAIN".

use serde::Deserialize;

/// Deepest plan that is followed. Plans nest as their queries do, which have a limit of their own.
const MAX_DEPTH: usize = 200;

#[derive(Debug, Deserialize)]
struct Explained {
    #[serde(rename = "Plan")]
    plan: Option<Node>,
}

/// A node of a plan. Conditions and the like are not looked at: they hold values.
#[derive(Debug, Deserialize)]
struct Node {
    #[serde(rename = "Node Type", default)]
    kind: String,
    #[serde(rename = "Operation")]
    operation: Option<String>,
    #[serde(rename = "Relation Name")]
    relation: Option<String>,
    #[serde(rename = "Parent Relationship")]
    place: Option<String>,
    #[serde(rename = "Plan Rows", default)]
    rows: f64,
    #[serde(rename = "Plans", default)]
    below: Vec<Self>,
}

/// Rows that a plan changes in one relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The server's word, lower case: `delete`.
    pub(super) operation: String,
    /// The relation's name without its schema.
    pub(super) relation: String,
    pub(super) rows: u64,
}

/// What a plan is expected to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    /// Rows that come back.
    pub(super) returned: u64,
}

impl Plan {
    /// Reads the JSON of one statement, or of the several that rules make of it. `None`: it is not a plan.
    pub(super) fn read(json: &str) -> Option<Self> {
        let explained: Vec<Explained> = serde_json::from_str(json).ok()?;
        let mut plan = Self::default();
        for one in &explained {
            let root = one.plan.as_ref()?;
            plan.returned = plan.returned.max(whole(root.rows));
            plan.add(root, 0)?;
        }
        (!explained.is_empty()).then_some(plan)
    }

    fn add(&mut self, node: &Node, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        if node.kind == "ModifyTable" {
            // Its own number of rows is that of RETURNING; what it changes comes from below ("Member" before PostgreSQL 14).
            let source = |n: &&Node| matches!(n.place.as_deref(), Some("Outer" | "Member"));
            let rows = node.below.iter().filter(source).map(|n| whole(n.rows)).fold(0, u64::saturating_add);
            let operation = node.operation.as_deref().unwrap_or("change").to_ascii_lowercase();
            let relation = node.relation.clone().unwrap_or_else(|| "several relations".to_owned());
            self.changes.push(Change { operation, relation, rows });
        }
        node.below.iter().try_for_each(|below| self.add(below, depth + 1))
    }

    /// Rows it changes, or that come back if it changes none.
    pub(super) fn rows(&self) -> u64 {
        if self.changes.is_empty() {
            return self.returned;
        }
        self.changes.iter().map(|change| change.rows).fold(0, u64::saturating_add)
    }
}

/// Rows as a whole number; estimates may be larger than one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "saturates, which is what is wanted"
)]
fn whole(rows: f64) -> u64 {
    rows.max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_what_comes_into_them() {
        let json = r#"[{"Plan": {"Node Type": "ModifyTable", "Operation": "Delete", "Relation Name": "orders", "Plan Rows": 0,
            "Plans": [
                {"Node Type": "Seq Scan", "Parent Relationship": "InitPlan", "Plan Rows": 7},
                {"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Relation Name": "orders", "Plan Rows": 120}
            ]}}]"#;
        let plan = Plan::read(json).unwrap();
        assert_eq!(
            plan.changes,
            [Change { operation: "delete".to_owned(), relation: "orders".to_owned(), rows: 120 }]
        );
        assert_eq!(plan.rows(), 120);
    }

    #[test]
    fn changes_inside_of_queries_are_found() {
        let json = r#"[{"Plan": {"Node Type": "CTE Scan", "Plan Rows": 4, "Plans": [
            {"Node Type": "ModifyTable", "Operation": "Update", "Parent Relationship": "InitPlan", "Relation Name": "t", "Plan Rows": 4,
             "Plans": [{"Node Type": "Result", "Parent Relationship": "Outer", "Plan Rows": 9}]}]}}]"#;
        assert_eq!(Plan::read(json).unwrap().rows(), 9);
    }

    #[test]
    fn a_query_counts_what_comes_back() {
        assert_eq!(Plan::read(r#"[{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 3}}]"#).unwrap().rows(), 3);
    }

    #[test]
    fn what_is_no_plan_tells_nothing() {
        for json in ["", "[]", "{}", r#"["Utility Statement"]"#, "[{}]"] {
            assert_eq!(Plan::read(json), None, "{json}");
        }
        let deep = format!("{}{}", r#"{"Plans": ["#.repeat(300), "]}".repeat(300));
        assert_eq!(Plan::read(&format!(r#"[{{"Plan": {deep}}}]"#)), None);
    }
}
