//! What a held operation is expected to do, for the people who decide about it.

use serde::{Deserialize, Serialize};

/// How many times as many rows as people were told an operation may be expected to change when it runs. 10: estimates of a planner are
/// often wrong by a few times, and rarely differ so much from each other while little changes.
const MAX_GROWTH: u64 = 10;

/// Rows beyond what people were told that never count as growth. 1,000: below that a factor says nothing, and people can see to it.
const FREE_GROWTH: u64 = 1_000;

/// What an adapter expects one operation to do. Rough: nothing but the next estimate of the same operation is compared with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Rows (records, files) it is expected to change, or to read if it changes none. `None`: this cannot be told.
    pub rows: Option<u64>,
    /// Short lines for people, the most important first: what it touches, what would be lost, or why nothing can be told.
    pub notes: Vec<String>,
}

impl Estimate {
    /// No estimate, and why.
    pub fn unknown(reason: impl std::fmt::Display) -> Self {
        Self { rows: None, notes: vec![format!("no estimate: {reason}")] }
    }

    /// True if it says nothing at all.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_none() && self.notes.is_empty()
    }

    /// Whether whoever approved this operation by this estimate has also approved it by `now`. What was approved without a number of
    /// rows was approved whatever it is; what had one must have one again.
    pub fn covers(&self, now: &Self) -> bool {
        match (self.rows, now.rows) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(then), Some(now)) => {
                now <= then.saturating_mul(MAX_GROWTH) || now <= then.saturating_add(FREE_GROWTH)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: impl Into<Option<u64>>) -> Estimate {
        Estimate { rows: rows.into(), notes: Vec::new() }
    }

    #[test]
    fn growth_counts_when_it_is_large_by_factor_and_by_number() {
        assert!(of(1).covers(&of(1_001)), "a thousand rows more are let pass");
        assert!(!of(1).covers(&of(1_002)));
        assert!(of(1_000).covers(&of(10_000)), "ten times as many are let pass");
        assert!(!of(1_000).covers(&of(10_001)));
        assert!(of(5).covers(&of(0)) && of(u64::MAX).covers(&of(u64::MAX)));
    }

    #[test]
    fn a_number_that_was_told_must_be_told_again() {
        assert!(!of(5).covers(&of(None)));
        assert!(of(None).covers(&of(u64::MAX)) && of(None).covers(&of(None)));
    }
}
