//! What all operations of a session or task together may still release.
//!
//! Accounts are kept by this gateway, in memory, for as long as their window lasts: a new connection does not refill them, a restart
//! does. They are charged before anything is released, all at once or not at all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::error::{Denial, DenialCode};
use crate::policy::{Budget, Per};
use crate::session::SessionInfo;

/// Accounts kept at once; about 30 MB. When all are in use, what needs another one is denied: dropping one would refill it.
const MAX_ACCOUNTS: usize = 100_000;

/// The accounts of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Budgets(Mutex<HashMap<Key, Account>>);

/// Which account: a budget, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    budget: Budget,
    whose: String,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    rows: u64,
    bytes: u64,
    /// When it is full again.
    ends: Timestamp,
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

    fn exceeded(&self, what: &str, account: &Account) -> Denial {
        let per = match self.budget.per {
            Per::Session => "session",
            Per::Task => "task",
        };
        let message = format!("the budget `{}` of {what} for this {per} is used up", self.budget.name);
        let hint = format!("ask for less, or come back after {}", account.ends);
        Denial::new(DenialCode::BudgetExceeded, message).with_hint(hint)
    }
}

impl Budgets {
    /// Takes rows and bytes off all of these accounts, or off none.
    ///
    /// # Errors
    /// One of them has less than that left, or no account can be opened.
    pub(super) fn charge(&self, keys: &[Key], rows: u64, bytes: u64, now: Timestamp) -> Result<(), Denial> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut charged = Vec::with_capacity(keys.len());
        for key in keys {
            let known = accounts.get(key).filter(|account| account.ends > now);
            let mut account =
                known.copied().unwrap_or(Account { rows: 0, bytes: 0, ends: now.plus(key.budget.window) });
            account.rows = account.rows.saturating_add(rows);
            account.bytes = account.bytes.saturating_add(bytes);
            within(key, &account)?;
            charged.push(account);
        }
        let new = keys.iter().filter(|key| !accounts.contains_key(key)).count();
        if accounts.len() + new > MAX_ACCOUNTS {
            accounts.retain(|_, account| account.ends > now);
        }
        if accounts.len() + new > MAX_ACCOUNTS {
            let message = "too many budgets are in use, so no other one can be kept";
            return Err(Denial::new(DenialCode::BudgetExceeded, message).with_hint("try again later"));
        }
        accounts.extend(keys.iter().cloned().zip(charged));
        Ok(())
    }

    /// Whether anything is left in all of these accounts.
    ///
    /// # Errors
    /// Nothing is left in one of them.
    pub(super) fn check(&self, keys: &[Key], now: Timestamp) -> Result<(), Denial> {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let Some(account) = accounts.get(key).filter(|account| account.ends > now) else { continue };
            let next = |used: u64| used.saturating_add(1);
            within(key, &Account { rows: next(account.rows), bytes: next(account.bytes), ..*account })?;
        }
        Ok(())
    }

    /// Closes the accounts of a session that is over.
    pub(super) fn forget(&self, session: &SessionInfo) {
        let whose = format!("session {}", session.id);
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !accounts.is_empty() {
            accounts.retain(|key, _| key.whose != whose);
        }
    }
}

fn within(key: &Key, account: &Account) -> Result<(), Denial> {
    let over = |limit: Option<u64>, used: u64| limit.is_some_and(|limit| used > limit);
    if over(key.budget.rows, account.rows) {
        return Err(key.exceeded("rows", account));
    }
    if over(key.budget.bytes, account.bytes) {
        return Err(key.exceeded("bytes", account));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn key(name: &str, rows: u64) -> Key {
        let window = Duration::from_secs(60);
        let budget = Budget { name: name.to_owned(), per: Per::Task, rows: Some(rows), bytes: None, window };
        Key { budget, whose: "task x".to_owned() }
    }

    const NOON: Timestamp = Timestamp::from_seconds(43_200);

    #[test]
    fn all_accounts_are_charged_or_none() {
        let budgets = Budgets::default();
        let both = [key("large", 100), key("small", 5)];
        budgets.charge(&both, 4, 0, NOON).unwrap();
        let refused = budgets.charge(&both, 2, 0, NOON).unwrap_err();
        assert_eq!(refused.code, DenialCode::BudgetExceeded);
        assert!(refused.message.contains("`small` of rows for this task"), "{refused}");
        budgets.charge(&both[..1], 96, 0, NOON).expect("the refused two were not taken off the large one");
        assert!(budgets.check(&both[..1], NOON).is_err() && budgets.check(&both[1..], NOON).is_ok());
    }

    #[test]
    fn a_window_that_is_over_refills() {
        let budgets = Budgets::default();
        let one = [key("a", 5)];
        budgets.charge(&one, 5, 0, NOON).unwrap();
        assert!(budgets.charge(&one, 1, 0, NOON.plus(Duration::from_secs(59))).is_err());
        budgets.charge(&one, 1, 0, NOON.plus(Duration::from_secs(60))).unwrap();
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit(charges in prop::collection::vec(0u64..20, 0..50), limit in 0u64..200) {
            let budgets = Budgets::default();
            let one = [key("a", limit)];
            let taken: u64 = charges.iter().filter(|n| budgets.charge(&one, **n, 0, NOON).is_ok()).sum();
            prop_assert!(taken <= limit);
        }
    }
}
