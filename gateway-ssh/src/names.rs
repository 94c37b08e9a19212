//! When names on a target may be looked at and when they may change: in all sftp sessions of one identity, so that none of them moves
//! a link to where another one has just been permitted a file.
//!
//! Not between identities: one that waits for its target would keep the others waiting. What other accounts and programs change on
//! the host is not known here at all.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use gateway_core::identity::Actor;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

/// How long a request waits for those of other sessions that it must not meet: what hangs in one of them, on a folder of a dead host or for a
/// client that does not read, must not hang in all. 5 s.
const TURN: Duration = Duration::from_secs(5);

/// The names of one target, as one identity sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<RwLock<()>>);

/// Names are in use until it is dropped.
#[derive(Debug)]
pub(crate) enum Hold {
    /// They stay what they are.
    Look { _guard: OwnedRwLockReadGuard<()> },
    /// They may change.
    Change { _guard: OwnedRwLockWriteGuard<()> },
}

/// A place in the queue, which is served in order; `None` if the turn did not come in [`TURN`].
pub(crate) type Awaited = Pin<Box<dyn Future<Output = Option<Hold>> + Send + Sync>>;

impl Hold {
    /// Whether it lets a request of this kind go on.
    pub(crate) const fn is_for(&self, changes: bool) -> bool {
        matches!(self, Self::Change { .. }) == changes
    }
}

impl Names {
    /// Without waiting.
    pub(crate) fn hold_now(&self, changes: bool) -> Option<Hold> {
        let names = Arc::clone(&self.0);
        if changes {
            names.try_write_owned().ok().map(|guard| Hold::Change { _guard: guard })
        } else {
            names.try_read_owned().ok().map(|guard| Hold::Look { _guard: guard })
        }
    }

    /// Once nobody holds them otherwise.
    pub(crate) fn hold(&self, changes: bool) -> Awaited {
        let names = Arc::clone(&self.0);
        let turn = async move {
            if changes {
                Hold::Change { _guard: names.write_owned().await }
            } else {
                Hold::Look { _guard: names.read_owned().await }
            }
        };
        Box::pin(async move { timeout(TURN, turn).await.ok() })
    }

    /// Whether somebody waits for those who look to end. Who looks already must not go on and on meanwhile.
    pub(crate) fn is_awaited(&self) -> bool {
        // The first in the queue has taken what was left.
        self.0.try_read().is_err()
    }
}

/// Those of all targets and identities that have a session.
#[derive(Debug, Default)]
pub(crate) struct AllNames(Mutex<InUse>);

type InUse = HashMap<(String, Actor), Weak<RwLock<()>>>;

impl AllNames {
    /// The same for all sessions of one identity with one target.
    pub(crate) fn of(&self, target: &str, actor: &Actor) -> Names {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.to_owned(), actor.clone());
        if let Some(names) = all.get(&key).and_then(Weak::upgrade) {
            return Names(names);
        }
        // No more than there are sessions.
        all.retain(|_, names| names.strong_count() > 0);
        let names = Names::default();
        all.insert(key, Arc::downgrade(&names.0));
        names
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn actor(subject: &str) -> Actor {
        Actor { issuer: "https://idp.test".to_owned(), subject: subject.to_owned() }
    }

    #[tokio::test]
    async fn what_changes_names_is_alone() {
        let all = AllNames::default();
        let (one, other) = (all.of("web1", &actor("a")), all.of("web1", &actor("a")));
        let look = one.hold_now(false).unwrap();
        assert!(look.is_for(false) && !look.is_for(true));
        assert!(other.hold_now(false).is_some());
        assert!(other.hold_now(true).is_none());
        let change = other.hold(true);
        drop(look);
        let change = change.await.unwrap();
        assert!(change.is_for(true));
        assert!(one.hold_now(false).is_none() && one.hold_now(true).is_none());
        drop(change);
        assert!(one.hold_now(true).is_some());
    }

    #[tokio::test]
    async fn who_looks_sees_that_somebody_waits_to_change() {
        let names = Names::default();
        let look = names.hold_now(false).unwrap();
        assert!(!names.is_awaited());
        let mut change = names.hold(true);
        let queued = std::future::poll_fn(|cx| Poll::Ready(change.as_mut().poll(cx).is_pending()));
        assert!(queued.await);
        assert!(names.is_awaited() && names.hold_now(false).is_none());
        drop(change);
        assert!(!names.is_awaited(), "who gives up is in nobody's way");
        drop(look);
    }

    #[test]
    fn identities_and_targets_do_not_wait_for_each_other() {
        let all = AllNames::default();
        let one = all.of("web1", &actor("a"));
        let _change = one.hold_now(true).unwrap();
        assert!(all.of("web1", &actor("b")).hold_now(true).is_some());
        assert!(all.of("web2", &actor("a")).hold_now(true).is_some());
        assert!(all.of("web1", &actor("a")).hold_now(true).is_none());
        let _other = all.of("web3", &actor("a"));
        assert_eq!(all.0.lock().unwrap().len(), 2, "those without a session are forgotten");
    }
}
