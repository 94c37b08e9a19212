//! What all operations of a session or task together may still release.
//!
//! Accounts are kept by this gateway, in memory, for as long as their window lasts: a new connection does not refill them, a restart
//! does. They are charged before anything is released, all at once or not at all.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::error::{Denial, DenialCode};
use crate::policy::{Budget, Per};
use crate::session::SessionInfo;

/// Accounts kept at once; about 30 MB. When all are in use, what needs another one is denied: dropping one would refill it.
const MAX_ACCOUNTS: usize = 100_000;

/// Subjects remembered in all accounts together; about 100 MB. Beyond, what needs another one is denied.
const MAX_REMEMBERED: usize = 4_000_000;

/// The accounts of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    accounts: Mutex<Accounts>,
    /// Nothing is kept of a subject but a hash under a key that nobody knows.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Accounts {
    open: HashMap<Key, Account>,
    /// Subjects in all of them.
    remembered: usize,
}

/// What one release takes off accounts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken<'a> {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) subjects: &'a [Subject],
}

/// A value of a labelled field that was released: which class, and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) class: Arc<str>,
    hash: u64,
}

/// Which account: a budget, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    budget: Budget,
    whose: String,
}

#[derive(Debug)]
struct Account {
    rows: u64,
    bytes: u64,
    subjects: HashSet<u64>,
    /// When it is full again.
    ends: Timestamp,
}

impl Account {
    fn new(key: &Key, now: Timestamp) -> Self {
        Self { rows: 0, bytes: 0, subjects: HashSet::new(), ends: now.plus(key.budget.window) }
    }

    /// The subjects among these that it does not know.
    fn strangers(&self, key: &Key, subjects: &[Subject]) -> HashSet<u64> {
        let Some(counted) = &key.budget.subjects else { return HashSet::new() };
        let counted = subjects.iter().filter(|subject| *subject.class == *counted.of);
        counted.map(|subject| subject.hash).filter(|hash| !self.subjects.contains(hash)).collect()
    }
}

impl Key {
    /// The account of a session under a budget. Without a task it is that of the principal, so that connecting again gives no other one.
    pub(super) fn new(budget: &Budget, session: &SessionInfo) -> Self {
        let principal = &session.principal;
        let whose = match (budget.per, &principal.task) {
            (Per::Session, _) => format!("session {}", session.id),
            (Per::Task, Some(task)) => format!("task {:?} {task:?}", principal.actor.issuer),
            (Per::Task, None) => {
                format!("subject {:?} {:?}", principal.actor.issuer, principal.actor.subject)
            }
        };
        Self { budget: budget.clone(), whose }
    }

    fn exceeded(&self, what: &str, ends: Timestamp) -> Denial {
        let per = match self.budget.per {
            Per::Session => "session",
            Per::Task => "task",
        };
        let message = format!("the budget `{}` of {what} for this {per} is used up", self.budget.name);
        let hint = format!("ask for less, or come back after {ends}");
        Denial::new(DenialCode::BudgetExceeded, message).with_hint(hint)
    }
}

impl Accounts {
    /// Forgets accounts that are over.
    fn tidy(&mut self, now: Timestamp) {
        self.retain(|_, account| account.ends > now);
    }

    fn retain(&mut self, keep: impl Fn(&Key, &Account) -> bool) {
        self.open.retain(|key, account| keep(key, account));
        self.remembered = self.open.values().map(|account| account.subjects.len()).sum();
    }

    /// What is there to be charged, opened anew if its window is over.
    fn account(&mut self, key: &Key, now: Timestamp) -> &mut Account {
        if self.open.get(key).is_some_and(|account| account.ends <= now) {
            let over = self.open.remove(key);
            self.remembered -= over.map_or(0, |account| account.subjects.len());
        }
        self.open.entry(key.clone()).or_insert_with(|| Account::new(key, now))
    }
}

impl Budgets {
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value of a field of this class, to be counted.
    pub(super) fn subject(&self, class: &Arc<str>, value: &[u8]) -> Subject {
        Subject { class: Arc::clone(class), hash: self.hasher.hash_one(value) }
    }

    /// Takes what was released off all of these accounts, or off none.
    ///
    /// # Errors
    /// One of them has less than that left, or no account can be opened.
    pub(super) fn charge(&self, keys: &[Key], taken: Taken<'_>, now: Timestamp) -> Result<(), Denial> {
        let mut accounts = self.accounts();
        room(&mut accounts, keys, taken, now)?;
        for key in keys {
            let account = accounts.account(key, now);
            let subjects = account.subjects.len() + account.strangers(key, taken.subjects).len();
            let rows = account.rows.saturating_add(taken.rows);
            let bytes = account.bytes.saturating_add(taken.bytes);
            within(key, rows, bytes, subjects, account.ends)?;
        }
        for key in keys {
            let account = accounts.account(key, now);
            account.rows = account.rows.saturating_add(taken.rows);
            account.bytes = account.bytes.saturating_add(taken.bytes);
            let strangers = account.strangers(key, taken.subjects);
            let new = strangers.len();
            account.subjects.extend(strangers);
            accounts.remembered += new;
        }
        Ok(())
    }

    /// Whether anything is left in all of these accounts. Subjects may be known ones, so they are not asked about.
    ///
    /// # Errors
    /// Nothing is left in one of them.
    pub(super) fn check(&self, keys: &[Key], now: Timestamp) -> Result<(), Denial> {
        let accounts = self.accounts();
        for key in keys {
            let Some(account) = accounts.open.get(key).filter(|account| account.ends > now) else { continue };
            let next = |used: u64| used.saturating_add(1);
            within(key, next(account.rows), next(account.bytes), 0, account.ends)?;
        }
        Ok(())
    }

    /// Closes the accounts of a session that is over.
    pub(super) fn forget(&self, session: &SessionInfo) {
        let whose = format!("session {}", session.id);
        let mut accounts = self.accounts();
        if !accounts.open.is_empty() {
            accounts.retain(|key, _| key.whose != whose);
        }
    }
}

/// Whether accounts and subjects can be kept.
fn room(accounts: &mut Accounts, keys: &[Key], taken: Taken<'_>, now: Timestamp) -> Result<(), Denial> {
    let new = |accounts: &Accounts| keys.iter().filter(|key| !accounts.open.contains_key(key)).count();
    let fits = |accounts: &Accounts| {
        accounts.open.len() + new(accounts) <= MAX_ACCOUNTS
            && accounts.remembered + keys.len() * taken.subjects.len() <= MAX_REMEMBERED
    };
    if !fits(accounts) {
        accounts.tidy(now);
    }
    if fits(accounts) {
        return Ok(());
    }
    let message = "too many budgets are in use, so no other one can be kept";
    Err(Denial::new(DenialCode::BudgetExceeded, message).with_hint("try again later"))
}

fn within(key: &Key, rows: u64, bytes: u64, subjects: usize, ends: Timestamp) -> Result<(), Denial> {
    let over = |limit: Option<u64>, used: u64| limit.is_some_and(|limit| used > limit);
    let most = key.budget.subjects.as_ref().map(|subjects| subjects.limit);
    let exceeded = [
        ("rows", over(key.budget.rows, rows)),
        ("bytes", over(key.budget.bytes, bytes)),
        ("subjects", over(most, subjects as u64)),
    ];
    match exceeded.into_iter().find(|(_, over)| *over) {
        Some((what, _)) => Err(key.exceeded(what, ends)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn key(name: &str, rows: u64) -> Key {
        let window = Duration::from_secs(60);
        let budget = Budget {
            name: name.to_owned(),
            per: Per::Task,
            rows: Some(rows),
            bytes: None,
            subjects: None,
            window,
        };
        Key { budget, whose: "task x".to_owned() }
    }

    const NOON: Timestamp = Timestamp::from_seconds(43_200);

    const fn rows(rows: u64) -> Taken<'static> {
        Taken { rows, bytes: 0, subjects: &[] }
    }

    #[test]
    fn subjects_are_counted_once_and_only_those_of_the_class() {
        let budgets = Budgets::default();
        let mut key = key("people", 1000);
        key.budget.subjects = Some(crate::policy::Subjects { limit: 2, of: "email".to_owned() });
        let (email, card): (Arc<str>, Arc<str>) = ("email".into(), "card".into());
        let take = |class: &Arc<str>, values: &[&str], at: Timestamp| {
            let subjects: Vec<_> =
                values.iter().map(|value| budgets.subject(class, value.as_bytes())).collect();
            let taken = Taken { rows: 1, bytes: 0, subjects: &subjects };
            budgets.charge(std::slice::from_ref(&key), taken, at)
        };
        take(&email, &["a", "a"], NOON).unwrap();
        take(&card, &["1", "2", "3", "4"], NOON).unwrap();
        let refused = take(&email, &["b", "c"], NOON).unwrap_err();
        assert!(refused.message.contains("`people` of subjects for this task"), "{refused}");
        take(&email, &["b"], NOON).expect("nothing was taken by what was refused");
        take(&email, &["a", "b"], NOON).expect("known ones");
        assert!(take(&email, &["c"], NOON).is_err());
        take(&email, &["c"], NOON.plus(Duration::from_secs(60))).expect("another window");
        assert_eq!(budgets.accounts().remembered, 1);
    }

    #[test]
    fn all_accounts_are_charged_or_none() {
        let budgets = Budgets::default();
        let both = [key("large", 100), key("small", 5)];
        budgets.charge(&both, rows(4), NOON).unwrap();
        let refused = budgets.charge(&both, rows(2), NOON).unwrap_err();
        assert_eq!(refused.code, DenialCode::BudgetExceeded);
        assert!(refused.message.contains("`small` of rows for this task"), "{refused}");
        budgets.charge(&both[..1], rows(96), NOON).expect("the refused two were not taken off the large one");
        assert!(budgets.check(&both[..1], NOON).is_err() && budgets.check(&both[1..], NOON).is_ok());
    }

    #[test]
    fn a_window_that_is_over_refills() {
        let budgets = Budgets::default();
        let one = [key("a", 5)];
        budgets.charge(&one, rows(5), NOON).unwrap();
        assert!(budgets.charge(&one, rows(1), NOON.plus(Duration::from_secs(59))).is_err());
        budgets.charge(&one, rows(1), NOON.plus(Duration::from_secs(60))).unwrap();
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit(charges in prop::collection::vec(0u64..20, 0..50), limit in 0u64..200) {
            let budgets = Budgets::default();
            let one = [key("a", limit)];
            let taken: u64 = charges.iter().filter(|n| budgets.charge(&one, rows(**n), NOON).is_ok()).sum();
            prop_assert!(taken <= limit);
        }
    }
}
