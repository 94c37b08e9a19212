//! When sessions must ask anew what names mean, because somebody may have changed a definition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long what names mean is believed without asking again: changes made past the gateway are seen after at most this long.
const BELIEVED: Duration = Duration::from_secs(30);

/// Counts changes of definitions at one target, by all sessions of this gateway and by the passing of time.
#[derive(Debug)]
pub(crate) struct Definitions {
    changes: AtomicU64,
    since: Instant,
}

/// A point in the history of definitions. Nothing is known to have changed between equal ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch {
    changes: u64,
    periods: u64,
}

impl Default for Definitions {
    fn default() -> Self {
        Self { changes: AtomicU64::new(0), since: Instant::now() }
    }
}

impl Definitions {
    /// The present point.
    pub(crate) fn epoch(&self) -> Epoch {
        let periods = self.since.elapsed().as_secs() / BELIEVED.as_secs();
        Epoch { changes: self.changes.load(Ordering::Acquire), periods }
    }

    /// A session is changing, or has changed, a definition.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_starts_a_new_epoch() {
        let definitions = Definitions::default();
        let before = definitions.epoch();
        definitions.changed();
        assert_ne!(definitions.epoch(), before);
    }
}
