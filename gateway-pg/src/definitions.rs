//! When sessions must ask anew what names mean, because somebody may have changed a definition.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long what names mean is believed without asking again: changes made past the gateway are seen after at most this long.
const BELIEVED: Duration = Duration::from_secs(30);

/// Counts changes of definitions at one target, by all sessions of this gateway, and knows which are under way.
#[derive(Debug)]
pub(crate) struct Definitions {
    changes: AtomicU64,
    since: Instant,
    under_way: Mutex<HashMap<String, usize>>,
}

/// A point in the history of definitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch {
    changes: u64,
    seconds: u64,
}

impl Epoch {
    /// Whether what was asked here may still be believed `now`.
    pub(crate) const fn is_believed(self, now: Self) -> bool {
        self.is_unchanged(now) && now.seconds.saturating_sub(self.seconds) < BELIEVED.as_secs()
    }

    /// Whether no session of this gateway changed anything between here and `now`.
    pub(crate) const fn is_unchanged(self, now: Self) -> bool {
        self.changes == now.changes
    }

    /// Takes note of the asking session's own change, which followed the change `before`: it does not surprise that session.
    pub(crate) const fn follow(&mut self, before: u64) {
        if self.changes == before {
            self.changes = before.saturating_add(1);
        }
    }
}

impl Default for Definitions {
    fn default() -> Self {
        Self { changes: AtomicU64::new(0), since: Instant::now(), under_way: Mutex::default() }
    }
}

impl Definitions {
    /// The present point.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch { changes: self.changes.load(Ordering::Acquire), seconds: self.since.elapsed().as_secs() }
    }

    /// A session is changing, or has changed, a definition. Returns the number of the change before it.
    pub(crate) fn changed(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::AcqRel)
    }

    /// A session sends the server statements that change the definitions of `names` (without schema). The change counts as under
    /// way, and for every other session as uncertain, until what is returned is dropped: at the end of the transaction.
    pub(crate) fn begin(self: &Arc<Self>, names: Vec<String>) -> UnderWay {
        let mut under_way = self.under_way();
        for name in &names {
            *under_way.entry(name.clone()).or_default() += 1;
        }
        drop(under_way);
        UnderWay { definitions: Arc::clone(self), names }
    }

    /// Whether sessions other than the one that owns `own` are changing one of `names`.
    pub(crate) fn is_changing<'a>(&self, mut names: impl Iterator<Item = &'a str>, own: &[UnderWay]) -> bool {
        let under_way = self.under_way();
        if under_way.is_empty() {
            return false;
        }
        let owned = |name: &str| own.iter().flat_map(|u| &u.names).filter(|n| *n == name).count();
        names.any(|name| under_way.get(name).is_some_and(|count| *count > owned(name)))
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes of definitions that are under way. Dropping it tells everybody that they happened, or may have.
#[derive(Debug)]
pub(crate) struct UnderWay {
    definitions: Arc<Definitions>,
    names: Vec<String>,
}

impl Drop for UnderWay {
    /// Counts the change first: who no longer finds it under way finds it counted.
    fn drop(&mut self) {
        self.definitions.changed();
        let mut under_way = self.definitions.under_way();
        for name in &self.names {
            if let Some(count) = under_way.get_mut(name) {
                *count = count.saturating_sub(1);
            }
        }
        under_way.retain(|_, count| *count > 0);
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
        assert!(!before.is_believed(definitions.epoch()));
    }

    #[test]
    fn time_alone_ends_belief_but_changes_nothing() {
        let asked = Epoch { changes: 3, seconds: 100 };
        assert!(asked.is_believed(Epoch { changes: 3, seconds: 129 }));
        let late = Epoch { changes: 3, seconds: 130 };
        assert!(!asked.is_believed(late) && asked.is_unchanged(late));
    }

    #[test]
    fn only_the_next_change_can_be_ones_own() {
        let mut asked = Epoch { changes: 3, seconds: 0 };
        asked.follow(4);
        assert_eq!(asked.changes, 3);
        asked.follow(3);
        assert_eq!(asked.changes, 4);
    }

    #[test]
    fn what_is_under_way_is_uncertain_to_others_until_it_is_counted() {
        let definitions = Arc::new(Definitions::default());
        let own = vec![definitions.begin(vec!["v".to_owned()])];
        assert!(definitions.is_changing(["v"].into_iter(), &[]));
        assert!(!definitions.is_changing(["w"].into_iter(), &[]));
        assert!(!definitions.is_changing(["v"].into_iter(), &own));
        let asked = definitions.epoch();
        drop(own);
        assert!(!definitions.is_changing(["v"].into_iter(), &[]));
        assert!(!asked.is_unchanged(definitions.epoch()));
    }
}
