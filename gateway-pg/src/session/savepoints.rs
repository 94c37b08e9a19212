//! The savepoints of a transaction, and when they were set: a rollback to one takes along the cursors made since.

use crate::analysis::Statement;

/// Savepoints that are known at once; rolling back to an earlier one takes all cursors along.
const MAX_SAVEPOINTS: usize = 1_000;

/// Names, the earliest first, each with how many portals had been made.
#[derive(Debug, Default)]
pub(super) struct Savepoints(Vec<(String, u64)>);

impl Savepoints {
    /// Sets one; a name may be there several times.
    pub(super) fn set(&mut self, name: String, made: u64) {
        if self.0.len() >= MAX_SAVEPOINTS {
            self.0.clear();
        }
        self.0.push((name, made));
    }

    /// How many portals had been made when the last of this name was set; later ones are gone, itself is not.
    pub(super) fn back_to(&mut self, name: &str) -> u64 {
        let Some(at) = self.0.iter().rposition(|(known, _)| known == name) else { return 0 };
        self.0.truncate(at + 1);
        self.0.last().map_or(0, |(_, made)| *made)
    }

    /// Forgets the last of this name and those set later.
    pub(super) fn release(&mut self, name: &str) {
        if let Some(at) = self.0.iter().rposition(|(known, _)| known == name) {
            self.0.truncate(at);
        }
    }
}

/// The name in a statement about a savepoint.
pub(super) fn savepoint(statement: &Statement) -> String {
    statement.transaction.as_ref().and_then(|transaction| transaction.name.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_counts() {
        let mut points = Savepoints::default();
        for (name, made) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            points.set(name.to_owned(), made);
        }
        assert_eq!((points.back_to("a"), points.back_to("c")), (3, 0));
        points.release("a");
        assert_eq!((points.back_to("a"), points.back_to("b")), (1, 0));
    }
}
