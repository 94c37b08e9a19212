//! Which cell of a frame a place is in. Places are asked for by the thousand in one line, so its cells are walked over once.

use std::ops::Range;

/// The cells of one frame, as far as was asked: at most as many as a result has columns.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// Where the next one begins; `None` if all were seen.
    next: Option<usize>,
    /// In order; empty for what is no value.
    seen: Vec<Range<usize>>,
}

impl Cells {
    /// Starts over with a frame whose first cell begins at `first`.
    pub(super) fn begin(&mut self, first: usize) {
        self.next = Some(first);
        self.seen.clear();
    }

    /// The number and the range of the cell that contains `at`. `step` gives the cell that begins at a place, and where the next begins.
    pub(super) fn find(
        &mut self,
        at: usize,
        step: impl Fn(usize) -> Option<(Range<usize>, Option<usize>)>,
    ) -> Option<(usize, Range<usize>)> {
        while self.seen.last().is_none_or(|last| last.end <= at)
            && let Some(start) = self.next.take()
            && let Some((cell, next)) = step(start)
        {
            self.seen.push(cell);
            self.next = next;
        }
        let number = self.seen.partition_point(|cell| cell.end <= at);
        let cell = self.seen.get(number).filter(|cell| cell.contains(&at))?;
        Some((number, cell.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::backend::cell_from;

    #[test]
    fn places_may_be_asked_for_in_any_order() {
        let body = b"\0\x04\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\0\0\0\0\x01x";
        let steps = std::cell::Cell::new(0);
        let step = |start| {
            steps.set(steps.get() + 1);
            cell_from(body, start).map(|(cell, next)| (cell, Some(next)))
        };
        let expected = |at: usize| match at {
            6 | 7 => Some((0, 6..8)),
            20 => Some((3, 20..21)),
            _ => None,
        };
        for order in [(0..body.len() + 2).collect::<Vec<_>>(), (0..body.len() + 2).rev().collect()] {
            let mut cells = Cells::default();
            cells.begin(2);
            steps.set(0);
            for at in order {
                assert_eq!(cells.find(at, step), expected(at), "{at}");
            }
            assert_eq!(steps.get(), 5, "once for each cell, and once behind the last");
        }
    }
}
