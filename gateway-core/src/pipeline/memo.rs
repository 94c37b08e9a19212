//! What a session need not work out again for operations that come again and again.
//!
//! Known by where a shared value lies; the value is kept with it, so that nothing else can come to lie there.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::operation::{Access, Facts, Operation};
use crate::place::ByPlace;
use crate::policy::{Allowed, Revision};

/// Operations and statements remembered for one session. 64: about as many statements as an application repeats, and little memory.
const MAX_REMEMBERED: usize = 64;

/// Longer statements are not remembered, in bytes: 64 of them are at most 64 KiB.
const MAX_STATEMENT_BYTES: usize = 1024;

/// Statements seen lately of which it is not known yet whether they come again. 8: a few that are run in turn.
const MAX_SEEN: usize = 8;

/// What is remembered of the operations of a session.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// By where the accesses lie.
    answers: ByPlace<usize, Answer>,
    statements: ByPlace<(usize, usize), (Bytes, Arc<str>)>,
    /// Where statements lay that came once. Only a hint: they are not kept.
    seen: [(usize, usize); MAX_SEEN],
    next: usize,
}

/// What policy answered when nobody had approved anything, and to what.
#[derive(Debug)]
struct Answer {
    accesses: Arc<[Access]>,
    facts: Arc<Facts>,
    patterns: BTreeSet<String>,
    allowed: Allowed,
}

fn place(accesses: &Arc<[Access]>) -> usize {
    Arc::as_ptr(accesses).cast::<Access>().addr()
}

impl Memo {
    /// What policy answers without being asked, because it said how long its last answer holds.
    pub(super) fn answer(
        &self,
        operation: &Operation,
        patterns: &BTreeSet<String>,
        now: &Revision,
    ) -> Option<Allowed> {
        let known = self.answers.get(&place(&operation.accesses))?;
        let same = Arc::ptr_eq(&known.accesses, &operation.accesses)
            && Arc::ptr_eq(&known.facts, &operation.facts)
            && known.patterns == *patterns
            && known.allowed.lasts.as_ref() == Some(now);
        same.then(|| known.allowed.clone())
    }

    /// Remembers an answer that lasts, for [`answer`](Self::answer).
    pub(super) fn keep(&mut self, operation: &Operation, patterns: &BTreeSet<String>, allowed: &Allowed) {
        if allowed.lasts.is_none() {
            return;
        }
        if self.answers.len() >= MAX_REMEMBERED {
            self.answers.clear();
        }
        let answer = Answer {
            accesses: Arc::clone(&operation.accesses),
            facts: Arc::clone(&operation.facts),
            patterns: patterns.clone(),
            allowed: allowed.clone(),
        };
        self.answers.insert(place(&operation.accesses), answer);
    }

    /// The text that `make` makes of a statement; made once if the same bytes come again.
    pub(super) fn statement(&mut self, statement: &Bytes, make: impl FnOnce() -> Arc<str>) -> Arc<str> {
        let place = (statement.as_ptr().addr(), statement.len());
        if let Some((_, text)) = self.statements.get(&place) {
            return Arc::clone(text);
        }
        let text = make();
        if self.seen.contains(&place) && statement.len() <= MAX_STATEMENT_BYTES {
            if self.statements.len() >= MAX_REMEMBERED {
                self.statements.clear();
            }
            self.statements.insert(place, (statement.clone(), Arc::clone(&text)));
        } else if let Some(slot) = self.seen.get_mut(self.next % MAX_SEEN) {
            *slot = place;
            self.next = (self.next + 1) % MAX_SEEN;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Action, Resource};

    fn operation(name: &str) -> Operation {
        let mut operation = Operation::new("select", "select 1");
        let table = Resource::target("shop").child("Table", name);
        operation.accesses = [Access::new(Action::new("select"), table)].into();
        operation
    }

    fn lasting(rule: &str, revision: &str) -> Allowed {
        let lasts = Some(Revision(revision.into()));
        Allowed { rules: [rule.to_owned()].into(), obligations: [].into(), lasts }
    }

    #[test]
    fn an_answer_is_given_again_for_the_same_question_under_the_same_policies_only() {
        let none = BTreeSet::new();
        let asked = operation("orders");
        let mut memo = Memo::default();
        memo.keep(&asked, &none, &lasting("p", "r1"));
        let now = Revision("r1".into());
        assert_eq!(memo.answer(&asked, &none, &now), Some(lasting("p", "r1")));
        assert_eq!(memo.answer(&asked, &none, &Revision("r2".into())), None);
        assert_eq!(memo.answer(&asked, &BTreeSet::from(["payroll".to_owned()]), &now), None);
        // Equal lists that are not the same: they may come from elsewhere, so policy is asked.
        assert_eq!(memo.answer(&operation("orders"), &none, &now), None);
        let mut other = asked.clone();
        other.facts = Facts::from([("where".into(), true.into())]).into();
        assert_eq!(memo.answer(&other, &none, &now), None);
    }

    #[test]
    fn answers_are_remembered_for_so_many_lists_only() {
        let (none, mut memo) = (BTreeSet::new(), Memo::default());
        for round in 0..3 * MAX_REMEMBERED {
            memo.keep(&operation(&format!("t{round}")), &none, &lasting("p", "r1"));
            assert!((1..=MAX_REMEMBERED).contains(&memo.answers.len()));
        }
    }

    #[test]
    fn an_answer_that_does_not_last_is_not_remembered() {
        let none = BTreeSet::new();
        let asked = operation("orders");
        let mut memo = Memo::default();
        memo.keep(&asked, &none, &Allowed { lasts: None, ..lasting("p", "r1") });
        assert_eq!(memo.answer(&asked, &none, &Revision("r1".into())), None);
    }

    #[test]
    fn a_text_is_made_anew_for_other_bytes_and_once_for_those_that_come_again() {
        let mut memo = Memo::default();
        let again = Bytes::from("select 1".to_owned());
        let mut made = 0;
        for round in 0..1000 {
            let fresh = Bytes::from(format!("select {round}"));
            let text = memo.statement(&fresh, || String::from_utf8_lossy(&fresh).into());
            assert_eq!(text.as_bytes(), &*fresh);
            let text = memo.statement(&again, || {
                made += 1;
                "select 1".into()
            });
            assert_eq!(&*text, "select 1");
        }
        assert!(made <= 2 + 1000 / MAX_REMEMBERED, "{made}");
        assert!(memo.statements.len() <= MAX_REMEMBERED);
    }
}
