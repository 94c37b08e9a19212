//! Who changes definitions and who uses them: when sessions must ask anew what names mean, and when one is in the way of another.
//!
//! Names are resolved, judged, and then resolved once more by the server, so in between nobody may give them another meaning. A
//! session says what names it uses before it forwards anything ([`Uses::enter`]), then looks whether another one is changing them
//! ([`Definitions::is_blocked`]) or has done so since it asked ([`Definitions::changed_since`]). Who changes definitions says which
//! ([`Definitions::begin`]), which fails while another session uses them. Each says first and looks then, so one of the two sees the
//! other.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long what names mean is believed without asking again: changes made past the gateway are seen after at most this long.
const BELIEVED: Duration = Duration::from_secs(30);

/// Changes remembered by their names once they are done; an older one counts as one of everything. 64: what many sessions define
/// while one statement is judged.
const MAX_RECENT: usize = 64;

/// Sets of names that a transaction uses before they are joined to one. 32: transactions have few different statements.
const MAX_SETS: usize = 32;

/// Names that a transaction may use; with more it counts as using all. About 1 MiB.
const MAX_NAMES: usize = 10_000;

/// Names of relations, functions, types and operators, without schema.
pub(crate) type Names = BTreeSet<String>;

/// Stands for names that cannot be told, among those that are used. No name of the server's holds a zero byte.
pub(crate) const ANY: &str = "\0";

/// Counts changes of definitions at one target, by all sessions of this gateway, and knows which are under way.
#[derive(Debug)]
pub(crate) struct Definitions {
    changes: AtomicU64,
    since: Instant,
    sessions: AtomicU64,
    /// How many changes are under way, for a look without the lock.
    under_way: AtomicUsize,
    gate: Mutex<Gate>,
    freed: Arc<Freed>,
}

/// Counts the times that a session stopped using or changing anything while somebody waited for that.
#[derive(Debug, Default)]
struct Freed {
    waiting: AtomicUsize,
    count: AtomicU64,
    notify: Notify,
}

impl Freed {
    /// To be called once what others look at is changed and its lock is free: who looks under that lock later than this looks at
    /// `waiting` finds it changed. Costs one load if nobody waits, as this follows every statement.
    fn tell(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.count.fetch_add(1, Ordering::SeqCst);
            self.notify.notify_waiters();
        }
    }
}

/// Somebody who waits until something becomes free; to be made before looking whether it is.
#[derive(Debug)]
pub(crate) struct Waiter {
    freed: Arc<Freed>,
}

impl Waiter {
    /// How often something became free, for [`Definitions::freed_since`]; to be taken before looking whether it is.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.count.load(Ordering::SeqCst)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.freed.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct Gate {
    under_way: Vec<Change>,
    /// What was done, with the count of changes after it.
    recent: VecDeque<(u64, Change)>,
    /// The count after the last change that is no longer remembered.
    forgotten: u64,
    users: Vec<Weak<Uses>>,
}

/// What one session changes.
#[derive(Clone, Debug)]
struct Change {
    session: u64,
    database: Arc<str>,
    scope: Arc<Scope>,
}

/// Which names a change gives another meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// These.
    Named(Names),
    /// It cannot be told: any in the database.
    Everything,
}

/// What one session uses of the definitions in its database.
#[derive(Debug)]
pub(crate) struct Uses {
    session: u64,
    database: Arc<str>,
    held: Mutex<Held>,
    freed: Arc<Freed>,
}

#[derive(Debug, Default)]
struct Held {
    /// Something was forwarded and is not answered.
    running: bool,
    names: Vec<Arc<Names>>,
    everything: bool,
    /// When the open transaction began, if others may read its snapshot.
    exported: Option<Epoch>,
}

/// A point in the history of definitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch {
    changes: u64,
    seconds: u64,
}

impl Epoch {
    /// Before everything: never believed.
    pub(crate) const NEVER: Self = Self { changes: u64::MAX, seconds: 0 };

    /// What was so at both points. Neither is [`Self::NEVER`].
    fn older(self, other: Self) -> Self {
        Self { changes: self.changes.min(other.changes), seconds: self.seconds.min(other.seconds) }
    }

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
        Self {
            changes: AtomicU64::new(0),
            since: Instant::now(),
            sessions: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            gate: Mutex::default(),
            freed: Arc::default(),
        }
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

    /// A session begins. What it uses counts until the returned value is dropped.
    pub(crate) fn join(&self, database: &str) -> Arc<Uses> {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let freed = Arc::clone(&self.freed);
        let uses = Arc::new(Uses { session, database: database.into(), held: Mutex::default(), freed });
        let mut gate = self.gate();
        gate.users.retain(|user| user.strong_count() > 0);
        gate.users.push(Arc::downgrade(&uses));
        uses
    }

    /// A session is about to send the server statements that change definitions. The change counts as under way until what is
    /// returned is dropped: at the end of the transaction. `None` if another session changes or uses what it would change.
    pub(crate) fn begin(self: &Arc<Self>, uses: &Uses, scope: Scope) -> Option<UnderWay> {
        let mut gate = self.gate();
        // Before looking at what others use: who is not found using it finds this, and then waits for the lock.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        if gate.is_used(uses, &scope) {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let change =
            Change { session: uses.session, database: Arc::clone(&uses.database), scope: Arc::new(scope) };
        gate.under_way.push(change.clone());
        drop(gate);
        Some(UnderWay { definitions: Arc::clone(self), change })
    }

    /// Whether another session is changing one of these names.
    pub(crate) fn is_blocked<'a>(&self, uses: &Uses, names: impl IntoIterator<Item = &'a Names>) -> bool {
        if self.under_way.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let gate = self.gate();
        let others: Vec<_> = gate.under_way.iter().filter(|change| change.concerns(uses)).collect();
        !others.is_empty() && names.into_iter().any(|names| others.iter().any(|c| c.scope.touches(names)))
    }

    /// Whether another session has changed one of these names since `then`.
    pub(crate) fn changed_since<'a>(
        &self,
        then: Epoch,
        uses: &Uses,
        names: impl IntoIterator<Item = &'a Names>,
    ) -> bool {
        if then.is_unchanged(self.epoch()) {
            return false;
        }
        let gate = self.gate();
        if gate.forgotten > then.changes {
            return true;
        }
        let since =
            gate.recent.iter().filter(|(count, change)| *count > then.changes && change.concerns(uses));
        let since: Vec<_> = since.collect();
        !since.is_empty() && names.into_iter().any(|names| since.iter().any(|(_, c)| c.scope.touches(names)))
    }

    /// A point that is before every snapshot that another session exported in this database; `None` if none did.
    pub(crate) fn exported(&self, uses: &Uses) -> Option<Epoch> {
        let users: Vec<_> = self.gate().users.iter().filter_map(Weak::upgrade).collect();
        let others =
            users.iter().filter(|other| other.session != uses.session && other.database == uses.database);
        others.filter_map(|other| other.held().exported).reduce(Epoch::older)
    }

    /// Whether another session uses what this would change.
    pub(crate) fn is_used(&self, uses: &Uses, scope: &Scope) -> bool {
        self.gate().is_used(uses, scope)
    }

    /// A session is about to wait. It is told what becomes free until the returned value is dropped.
    pub(crate) fn wait(&self) -> Waiter {
        self.freed.waiting.fetch_add(1, Ordering::SeqCst);
        Waiter { freed: Arc::clone(&self.freed) }
    }

    /// Ready once something became free since `seen` was taken from a [`Waiter`]; at once with `None`.
    pub(crate) fn freed_since(&self, seen: Option<u64>) -> impl Future<Output = ()> + Send + use<> {
        let freed = Arc::clone(&self.freed);
        async move {
            loop {
                let mut notified = std::pin::pin!(freed.notify.notified());
                notified.as_mut().enable();
                if seen != Some(freed.count.load(Ordering::SeqCst)) {
                    return;
                }
                notified.await;
            }
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    fn is_used(&self, uses: &Uses, scope: &Scope) -> bool {
        let others =
            self.users.iter().filter_map(Weak::upgrade).filter(|other| other.session != uses.session);
        !scope.is_empty() && others.into_iter().any(|other| other.conflicts(&uses.database, scope))
    }
}

impl Change {
    fn concerns(&self, uses: &Uses) -> bool {
        self.session != uses.session && self.database == uses.database
    }
}

impl Scope {
    /// Whether it is certain that no name gets another meaning.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Named(names) if names.is_empty())
    }

    /// This and the other.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Named(mut names), Self::Named(more)) => {
                names.extend(more);
                Self::Named(names)
            }
            _ => Self::Everything,
        }
    }

    fn names_one_of(&self, names: &Names) -> bool {
        matches!(self, Self::Named(changed) if changed.iter().any(|name| names.contains(name)))
    }

    fn touches(&self, names: &Names) -> bool {
        match self {
            Self::Named(changed) if names.contains(ANY) => !changed.is_empty(),
            Self::Named(_) => self.names_one_of(names),
            // What names nothing, as COMMIT does, is in nobody's way.
            Self::Everything => !names.is_empty(),
        }
    }
}

impl Uses {
    /// What is about to be forwarded uses these names, and so does the open transaction from here on.
    pub(crate) fn enter(&self, names: &[Arc<Names>]) {
        let mut held = self.held();
        held.running = true;
        for set in names {
            held.add(set);
        }
    }

    /// The open transaction, which began at this point, lets others read its snapshot.
    pub(crate) fn export(&self, began: Epoch) {
        self.held().exported = Some(began);
    }

    /// Everything that was forwarded is answered; the open transaction goes on.
    pub(crate) fn answered(&self) {
        self.held().running = false;
        self.freed.tell();
    }

    /// No transaction is open.
    pub(crate) fn leave(&self) {
        self.held().clear();
        self.freed.tell();
    }

    /// A change of everything waits for what runs only: an open transaction may be open for long, and what it does next is judged
    /// by what names mean then.
    fn conflicts(&self, database: &str, scope: &Scope) -> bool {
        if *self.database != *database {
            return false;
        }
        let held = self.held();
        match scope {
            Scope::Everything => held.running,
            Scope::Named(_) => held.everything || held.names.iter().any(|names| held.uses(names, scope)),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Uses {
    fn drop(&mut self) {
        self.freed.tell();
    }
}

impl Held {
    /// What looks up names that cannot be told does so while it runs, and no longer.
    fn uses(&self, names: &Names, scope: &Scope) -> bool {
        if self.running { scope.touches(names) } else { scope.names_one_of(names) }
    }

    /// Keeps its room: a session comes here after every statement.
    fn clear(&mut self) {
        self.names.clear();
        (self.running, self.everything, self.exported) = (false, false, None);
    }

    fn add(&mut self, set: &Arc<Names>) {
        if self.everything || self.names.iter().any(|known| Arc::ptr_eq(known, set)) {
            return;
        }
        self.names.push(Arc::clone(set));
        if self.names.len() > MAX_SETS {
            let joined: Names = self.names.drain(..).flat_map(|names| (*names).clone()).collect();
            self.everything = joined.len() > MAX_NAMES;
            self.names.push(Arc::new(joined));
        }
    }
}

/// A change of definitions that is under way. Dropping it tells everybody that it happened, or may have.
#[derive(Debug)]
pub(crate) struct UnderWay {
    definitions: Arc<Definitions>,
    change: Change,
}

impl Drop for UnderWay {
    /// Counts the change first: who no longer finds it under way finds it counted.
    fn drop(&mut self) {
        let mut gate = self.definitions.gate();
        let count = self.definitions.changed().saturating_add(1);
        if !self.change.scope.is_empty() {
            gate.recent.push_back((count, self.change.clone()));
        }
        if gate.recent.len() > MAX_RECENT
            && let Some((count, _)) = gate.recent.pop_front()
        {
            gate.forgotten = count;
        }
        let same = |other: &Change| Arc::ptr_eq(&other.scope, &self.change.scope);
        if let Some(index) = gate.under_way.iter().position(same) {
            gate.under_way.swap_remove(index);
            self.definitions.under_way.fetch_sub(1, Ordering::SeqCst);
        }
        drop(gate);
        self.definitions.freed.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Arc<Names> {
        Arc::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn change(names: &[&str]) -> Scope {
        Scope::Named(names.iter().map(|name| (*name).to_owned()).collect())
    }

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
    fn a_change_under_way_is_in_the_way_of_others_until_it_is_counted() {
        let definitions = Arc::new(Definitions::default());
        let (own, other, elsewhere) = (definitions.join("a"), definitions.join("a"), definitions.join("b"));
        let asked = definitions.epoch();
        let under_way = definitions.begin(&own, change(&["v"])).unwrap();
        let (v, w) = (names(&["v", "x"]), names(&["w"]));
        assert!(definitions.is_blocked(&other, [&*w, &*v]));
        assert!(!definitions.is_blocked(&other, [&*w]));
        assert!(!definitions.is_blocked(&own, [&*v]) && !definitions.is_blocked(&elsewhere, [&*v]));
        assert!(!definitions.changed_since(asked, &other, [&*v]));
        drop(under_way);
        assert!(!definitions.is_blocked(&other, [&*v]));
        assert!(definitions.changed_since(asked, &other, [&*v]));
        assert!(!definitions.changed_since(asked, &other, [&*w]));
        assert!(
            !definitions.changed_since(asked, &own, [&*v])
                && !definitions.changed_since(asked, &elsewhere, [&*v])
        );
        assert!(!definitions.changed_since(definitions.epoch(), &other, [&*v]));
    }

    #[test]
    fn what_another_session_uses_cannot_be_changed() {
        let definitions = Arc::new(Definitions::default());
        let (user, changer) = (definitions.join("a"), definitions.join("a"));
        user.enter(&[names(&["v"])]);
        assert!(definitions.begin(&changer, change(&["v"])).is_none());
        assert!(definitions.begin(&changer, Scope::Everything).is_none());
        assert!(definitions.begin(&changer, change(&["w"])).is_some());
        assert!(
            definitions.begin(&user, change(&["v"])).is_some(),
            "its own use is in nobody's way but others'"
        );
        user.answered();
        assert!(definitions.begin(&changer, change(&["v"])).is_none(), "its transaction is open");
        assert!(definitions.begin(&changer, Scope::Everything).is_some());
        user.leave();
        assert!(definitions.begin(&changer, change(&["v"])).is_some());
        user.enter(&[names(&["v"])]);
        drop(user);
        assert!(definitions.begin(&changer, change(&["v"])).is_some());
    }

    #[test]
    fn a_change_of_everything_stops_all_but_what_names_nothing() {
        let definitions = Arc::new(Definitions::default());
        let (own, other) = (definitions.join("a"), definitions.join("a"));
        let asked = definitions.epoch();
        let under_way = definitions.begin(&own, Scope::Everything).unwrap();
        assert!(definitions.is_blocked(&other, [&*names(&["v"])]));
        assert!(!definitions.is_blocked(&other, [&Names::new()]), "a COMMIT may set free what is waited for");
        drop(under_way);
        assert!(definitions.changed_since(asked, &other, [&*names(&["v"])]));
        assert!(!definitions.changed_since(asked, &other, [&Names::new()]));
    }

    #[tokio::test]
    async fn who_waits_is_told_and_who_does_not_costs_nothing() {
        let definitions = Arc::new(Definitions::default());
        let uses = definitions.join("a");
        uses.leave();
        let waiter = definitions.wait();
        assert_eq!(waiter.freed(), 0, "nobody waited");
        definitions.freed_since(None).await;
        let freed = definitions.freed_since(Some(waiter.freed()));
        let told = tokio::spawn(freed);
        uses.answered();
        told.await.unwrap();
        assert_eq!(waiter.freed(), 1);
        drop(waiter);
        assert_eq!(definitions.freed.waiting.load(Ordering::SeqCst), 0);
    }

    /// Whatever the order of their steps, of one who uses and one who changes a name at least one finds the other.
    #[test]
    fn no_change_slips_past_a_use() {
        let definitions = Arc::new(Definitions::default());
        let (user, changer) = (definitions.join("a"), definitions.join("a"));
        let v = names(&["v"]);
        for _ in 0..2_000 {
            let start = std::sync::Barrier::new(2);
            let (blocked, under_way) = std::thread::scope(|scope| {
                let uses = scope.spawn(|| {
                    start.wait();
                    user.enter(std::slice::from_ref(&v));
                    definitions.is_blocked(&user, [&*v])
                });
                start.wait();
                let under_way = definitions.begin(&changer, change(&["v"]));
                (uses.join().unwrap(), under_way)
            });
            assert!(blocked || under_way.is_none());
            drop(under_way);
            user.leave();
        }
    }

    #[test]
    fn a_snapshot_is_as_old_as_the_oldest_that_was_exported() {
        let definitions = Arc::new(Definitions::default());
        let (first, second, third) = (definitions.join("a"), definitions.join("a"), definitions.join("b"));
        assert_eq!(definitions.exported(&second), None);
        first.export(Epoch { changes: 3, seconds: 7 });
        assert_eq!(definitions.exported(&second), Some(Epoch { changes: 3, seconds: 7 }));
        assert_eq!(definitions.exported(&first), None);
        assert_eq!(definitions.exported(&third), None);
        first.leave();
        assert_eq!(definitions.exported(&second), None);
        assert!(!Epoch::NEVER.is_believed(definitions.epoch()));
    }

    #[test]
    fn what_is_no_longer_remembered_counts_as_everything() {
        let definitions = Arc::new(Definitions::default());
        let (user, changer) = (definitions.join("a"), definitions.join("a"));
        let asked = definitions.epoch();
        for _ in 0..=MAX_RECENT {
            drop(definitions.begin(&changer, change(&["v"])));
        }
        assert!(definitions.changed_since(asked, &user, [&*names(&["w"])]));
    }

    #[test]
    fn a_long_transaction_keeps_all_its_names() {
        let definitions = Arc::new(Definitions::default());
        let (user, changer) = (definitions.join("a"), definitions.join("a"));
        for number in 0..3 * MAX_SETS {
            user.enter(&[names(&[&format!("t{number}")])]);
        }
        assert!(definitions.begin(&changer, change(&["t0"])).is_none());
        assert!(definitions.begin(&changer, change(&["t"])).is_some());
        user.enter(&[Arc::new((0..=MAX_NAMES).map(|n| n.to_string()).collect())]);
        for number in 0..=MAX_SETS {
            user.enter(&[names(&[&format!("u{number}")])]);
        }
        assert!(definitions.begin(&changer, change(&["t"])).is_none());
    }
}
