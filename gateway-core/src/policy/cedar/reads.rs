//! What a policy's conditions read: decides what a cached verdict depends on.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, Policy, Var};

/// What the conditions of one policy (or of many) may read. Errs towards more: a name read anywhere counts everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Names of attributes read of anything.
    attributes: BTreeSet<String>,
    /// Something reads the context as a whole, or an expression this code does not know.
    everything: bool,
    /// Some tag is read.
    tags: bool,
    /// Approvals that are asked for by name.
    pub(super) approvals: BTreeSet<String>,
    /// Approvals that an `unless` asks for by name.
    pub(super) unless_approvals: BTreeSet<String>,
    /// How deep the deepest condition is.
    pub(super) depth: usize,
}

impl Reads {
    /// What `policy` reads.
    pub(super) fn of(policy: &Policy) -> Self {
        let mut reads = Self::default();
        for clause in policy.body().clauses() {
            match clause {
                Clause::When(expr) => reads.walk(expr),
                Clause::Unless(expr) => {
                    let mut inner = Self::default();
                    inner.walk(expr);
                    reads.unless_approvals.extend(inner.approvals.iter().cloned());
                    reads.add(&inner);
                }
            }
        }
        reads
    }

    /// What either reads.
    pub(super) fn add(&mut self, other: &Self) {
        self.attributes.extend(other.attributes.iter().cloned());
        self.approvals.extend(other.approvals.iter().cloned());
        self.unless_approvals.extend(other.unless_approvals.iter().cloned());
        self.depth = self.depth.max(other.depth);
        self.everything |= other.everything;
        self.tags |= other.tags;
    }

    /// May the attribute `name`, of anything, be read?
    pub(super) fn attribute(&self, name: &str) -> bool {
        self.everything || self.attributes.contains(name)
    }

    /// May a tag be read?
    pub(super) const fn tags(&self) -> bool {
        self.everything || self.tags
    }

    /// May the time be read?
    pub(super) fn time(&self) -> bool {
        self.attribute("time")
    }

    // With a worklist instead of recursion: a long chain of `&&` is a deep tree.
    fn walk(&mut self, root: &Arc<Expr>) {
        let mut todo = vec![(1, root)];
        let mut below = Vec::new();
        while let Some((depth, expr)) = todo.pop() {
            self.depth = self.depth.max(depth);
            self.visit(expr, &mut below);
            todo.extend(below.drain(..).map(|child| (depth + 1, child)));
        }
    }

    fn visit<'a>(&mut self, expr: &'a Expr, todo: &mut Vec<&'a Arc<Expr>>) {
        match expr {
            Expr::Literal(_) | Expr::Slot(_) => {}
            Expr::Var(var) => self.everything |= *var == Var::Context,
            Expr::UnaryOp { expr, .. } | Expr::Like { expr, .. } => todo.push(expr),
            Expr::BinaryOp { op, left, right } => {
                self.binary(*op, left, right);
                todo.extend([left, right]);
            }
            Expr::GetAttr { expr, attr } => {
                self.attributes.insert(attr.to_string());
                todo.extend(unless_context(expr));
            }
            Expr::HasAttr { expr, attrs } => {
                self.attributes.extend(attrs.iter().map(ToString::to_string));
                todo.extend(unless_context(expr));
            }
            Expr::Is { expr, in_expr, .. } => {
                todo.push(expr);
                todo.extend(in_expr);
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => todo.extend([cond, then_expr, else_expr]),
            Expr::Set(items) => todo.extend(items),
            Expr::Record(fields) => todo.extend(fields.values()),
            _ => self.everything = true,
        }
    }

    fn binary(&mut self, op: BinaryOp, left: &Expr, right: &Expr) {
        match op {
            BinaryOp::GetTag | BinaryOp::HasTag => self.tags = true,
            BinaryOp::Contains if is_approvals(left) => {
                if let Expr::Literal(Literal::String(name)) = right {
                    self.approvals.insert(name.to_string());
                }
            }
            _ => {}
        }
    }
}

/// `context` directly under an attribute access reads that attribute, not everything.
fn unless_context(expr: &Arc<Expr>) -> Option<&Arc<Expr>> {
    (!matches!(**expr, Expr::Var(Var::Context))).then_some(expr)
}

fn is_approvals(expr: &Expr) -> bool {
    matches!(expr, Expr::GetAttr { expr, attr } if attr == "approvals" && matches!(**expr, Expr::Var(Var::Context)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(conditions: &str) -> Reads {
        let source = format!("permit(principal, action, resource) {conditions};");
        Reads::of(&cedar_policy::Policy::parse(None, source).unwrap().to_pst().unwrap())
    }

    #[test]
    fn only_named_attributes_are_read() {
        let reads = reads("when { context.peer like \"10.*\" && principal.chain.isEmpty() }");
        assert!(reads.attribute("peer") && reads.attribute("chain"));
        assert!(!reads.attribute("task") && !reads.time() && !reads.tags());
    }

    #[test]
    fn nested_has_and_tags_count() {
        assert!(reads("when { context has time.hour }").time());
        assert!(reads("when { principal.hasTag(\"team\") }").tags());
    }

    #[test]
    fn the_context_as_a_value_reads_everything() {
        assert!(reads("when { (if true then context else context).time.hour > 3 }").time());
        assert!(reads("when { context == {} }").tags());
    }

    #[test]
    fn depth_is_that_of_the_deepest_branch() {
        assert_eq!(reads("").depth, 0);
        assert_eq!(reads("when { 1 + 1 + 1 > 0 }").depth, 4);
    }

    #[test]
    fn approvals_of_an_unless_are_told_apart() {
        let reads =
            reads("when { context.approvals.contains(\"a\") } unless { context.approvals.contains(\"b\") }");
        assert_eq!(reads.approvals.len(), 2);
        assert_eq!(reads.unless_approvals.iter().collect::<Vec<_>>(), ["b"]);
    }
}
