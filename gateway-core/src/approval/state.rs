//! The rules of approval: pure transitions of one request. Every store calls these and nothing else changes a state.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroize;

use super::{
    AccessRequest, ApprovalError, Delivery, Digest, Estimate, OperationSummary, RequestState, Review, Verdict,
};
use crate::clock::Timestamp;
use crate::identity::{Actor, Principal, PrincipalKind, VerifiedPrincipal};
use crate::policy::ApprovalRule;

/// How many requests may be open (pending or approved) at once: approval floods tire reviewers and fill memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApprovalLimits {
    /// Requests in all. Default 1024: with 256 KiB each at most 256 MiB are kept.
    pub open: usize,
    /// Requests of one requester (issuer and subject). Default 32: more than anybody reads, so that one agent cannot
    /// use up what the others need.
    pub open_per_requester: usize,
}

impl Default for ApprovalLimits {
    fn default() -> Self {
        Self { open: 1024, open_per_requester: 32 }
    }
}

impl ApprovalLimits {
    /// Refuses one more request when `open` are open in all, `of_requester` of them by the one who asks.
    ///
    /// # Errors
    /// [`ApprovalError::TooMany`], with the number that is too many already.
    pub const fn check(&self, open: usize, of_requester: usize) -> Result<(), ApprovalError> {
        if of_requester >= self.open_per_requester {
            return Err(ApprovalError::TooMany(of_requester));
        }
        if open >= self.open {
            return Err(ApprovalError::TooMany(open));
        }
        Ok(())
    }
}

impl AccessRequest {
    /// When a request has to end: its shortest rule's time after `created`, or the end of the requester's identity.
    pub fn deadline(created: Timestamp, rules: &[ApprovalRule], requester: &Principal) -> Timestamp {
        let of_rules = rules.iter().map(|rule| created.plus(rule.ttl)).min().unwrap_or(created);
        of_rules.min(requester.expires_at)
    }

    /// Checks a new request before it is stored, and brings its expiry forward to its [deadline](Self::deadline).
    ///
    /// # Errors
    /// [`ApprovalError::Invalid`] if it has no rules or no operations, a rule that nobody can satisfy or that is named twice, more
    /// text than a person can review, a state other than pending, reviews, or no time left.
    pub fn check_new(&mut self, now: Timestamp) -> Result<(), ApprovalError> {
        self.problem().map_or(Ok(()), |problem| Err(ApprovalError::Invalid(problem)))?;
        let deadline = Self::deadline(self.created.min(now), &self.rules, &self.requester);
        self.expires = self.expires.min(deadline);
        if self.expires <= now {
            return Err(ApprovalError::Invalid("it would already be expired".to_owned()));
        }
        Ok(())
    }

    /// Adds a person's verdict. The first rejection rejects; the last approval that was missing approves.
    ///
    /// Approval needs, for every group that the rules name, as many people of that group as the largest quorum asked of it,
    /// and *different people for different groups*: somebody who is in two groups stands for one of them only. Rules that
    /// name the same group are satisfied by the same people.
    ///
    /// # Errors
    /// [`ApprovalError::NotEligible`] for everyone [`check_reviewer`](Self::check_reviewer) refuses and for a second verdict by
    /// one person; [`ApprovalError::NotPending`] if it is decided or its time is over (which then is its state).
    pub fn review(
        &mut self,
        reviewer: &VerifiedPrincipal,
        verdict: Verdict,
        comment: Option<String>,
        now: Timestamp,
    ) -> Result<(), ApprovalError> {
        let counts_for = self.check_reviewer(reviewer, now)?;
        self.expire(now);
        if self.state != RequestState::Pending {
            return Err(ApprovalError::NotPending(self.state));
        }
        self.check_verdict(reviewer, comment.as_deref())?;
        self.reviews.push(Review { reviewer: reviewer.actor.clone(), verdict, counts_for, comment, at: now });
        match verdict {
            Verdict::Reject => self.finish(RequestState::Rejected),
            Verdict::Approve if self.has_quorum() => self.state = RequestState::Approved,
            Verdict::Approve => {}
        }
        Ok(())
    }

    /// Whether this person may review the request, whatever its state: the names of the rules their verdict counts for.
    ///
    /// # Errors
    /// [`ApprovalError::NotEligible`] if they are no person, act through others, their identity is over, they asked for it
    /// themselves or are acted for by who did, or they are in none of the groups.
    pub fn check_reviewer(
        &self,
        reviewer: &VerifiedPrincipal,
        now: Timestamp,
    ) -> Result<Vec<String>, ApprovalError> {
        let refuse = |why: &str| Err(ApprovalError::NotEligible(why.to_owned()));
        if reviewer.kind != PrincipalKind::Human {
            return refuse("only people review; sign in as a person");
        }
        if !reviewer.actor_chain.is_empty() {
            return refuse("people review for themselves; sign in without delegation");
        }
        if reviewer.expires_at <= now {
            return refuse("your identity has expired; sign in again");
        }
        if self.requester.involves(&reviewer.actor) {
            return refuse("who asks, or is acted for, cannot review the request; ask somebody else");
        }
        let of_theirs = |rule: &&ApprovalRule| reviewer.groups.contains(&rule.reviewers);
        let counts_for: Vec<String> =
            self.rules.iter().filter(of_theirs).map(|rule| rule.name.clone()).collect();
        if counts_for.is_empty() {
            return Err(ApprovalError::NotEligible(format!(
                "only members of {} may review this request; ask one of them",
                self.groups()
            )));
        }
        Ok(counts_for)
    }

    /// Ends an open request whose time is over; true if that was the case.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let due = self.state.is_open() && self.expires <= now;
        if due {
            self.finish(RequestState::Expired);
        }
        due
    }

    /// Withdraws an open request; false, and nothing changes, if it is already over.
    pub fn revoke(&mut self) -> bool {
        let open = self.state.is_open();
        if open {
            self.finish(RequestState::Revoked);
        }
        open
    }

    /// Uses up the grant: true at most once, and only if it is approved, in time, for exactly `digest`, and its rules are at
    /// least as strict as every one of `rules`, which the policy in force asks for now.
    pub fn redeem(&mut self, digest: &Digest, rules: &[ApprovalRule], now: Timestamp) -> bool {
        self.expire(now);
        let usable =
            self.state == RequestState::Approved && self.digest == *digest && self.covers(rules, now);
        if usable {
            self.finish(RequestState::Used);
        }
        usable
    }

    /// Whether a retry of the same operations may be pointed to this request.
    pub fn is_open_for(&self, digest: &Digest, now: Timestamp) -> bool {
        let lasting = self.delivery != Delivery::Hold;
        lasting && self.digest == *digest && self.state.is_open() && self.expires > now
    }

    /// Whether this viewer may know of the request: its possible reviewers, who asked, and whom they act for.
    pub fn is_visible_to(&self, viewer: &VerifiedPrincipal, now: Timestamp) -> bool {
        let alive = viewer.expires_at > now;
        alive && (self.requester.involves(&viewer.actor) || self.check_reviewer(viewer, now).is_ok())
    }

    /// What people were told that its operations would do, in order.
    pub fn estimates(&self) -> Vec<Estimate> {
        self.operations.iter().map(|operation| operation.estimate.clone()).collect()
    }

    /// A copy without the exact texts, for lists, events and whoever asked.
    #[must_use]
    pub fn without_exact(&self) -> Self {
        let blank = |operation: &OperationSummary| OperationSummary {
            kind: operation.kind.clone(),
            masked: operation.masked.clone(),
            exact: String::new(),
            accesses: operation.accesses.clone(),
            estimate: operation.estimate.clone(),
        };
        Self {
            digest: self.digest,
            requester: self.requester.clone(),
            target: self.target.clone(),
            rules: self.rules.clone(),
            operations: self.operations.iter().map(blank).collect(),
            reviews: self.reviews.clone(),
            ..*self
        }
    }

    fn problem(&self) -> Option<String> {
        let names: BTreeSet<&str> = self.rules.iter().map(|rule| rule.name.as_str()).collect();
        let bytes: usize =
            self.operations.iter().map(|o| o.kind.len() + o.masked.len() + o.exact.len()).sum();
        let accesses: usize = self.operations.iter().map(|o| o.accesses.len()).sum();
        let seats: u64 = self.rules.iter().map(|rule| u64::from(rule.quorum)).sum();
        if self.state != RequestState::Pending || !self.reviews.is_empty() {
            Some("it is not new".to_owned())
        } else if self.rules.is_empty() || self.operations.is_empty() {
            Some("it names no rule or no operation".to_owned())
        } else if self.rules.len() > MAX_RULES || names.len() < self.rules.len() {
            Some(format!("it needs distinct rules, at most {MAX_RULES}"))
        } else if self.rules.iter().any(|rule| rule.quorum == 0 || rule.reviewers.is_empty()) {
            Some("every rule needs a group of reviewers and a quorum of at least 1".to_owned())
        } else if seats > MAX_SEATS {
            Some(format!("its rules ask for {seats} approvals, more than {MAX_SEATS}"))
        } else if self.operations.len() > MAX_OPERATIONS || accesses > MAX_ACCESSES {
            Some(format!(
                "it has {} operations that touch {accesses} things, more than {MAX_OPERATIONS} or {MAX_ACCESSES}; split it",
                self.operations.len()
            ))
        } else if bytes > MAX_TEXT_BYTES {
            Some(format!("its text has {bytes} bytes, more than {MAX_TEXT_BYTES}; split it"))
        } else {
            None
        }
    }

    fn check_verdict(
        &self,
        reviewer: &VerifiedPrincipal,
        comment: Option<&str>,
    ) -> Result<(), ApprovalError> {
        let refuse = |why: String| Err(ApprovalError::NotEligible(why));
        if self.reviews.iter().any(|review| review.reviewer == reviewer.actor) {
            return refuse("you have given your verdict on this request".to_owned());
        }
        if comment.is_some_and(|text| text.len() > MAX_COMMENT_BYTES) {
            return refuse(format!("the comment has more than {MAX_COMMENT_BYTES} bytes; shorten it"));
        }
        if self.reviews.len() >= MAX_REVIEWS {
            return refuse(format!("the request has {MAX_REVIEWS} verdicts already; it has to be made anew"));
        }
        Ok(())
    }

    fn covers(&self, rules: &[ApprovalRule], now: Timestamp) -> bool {
        let covered = |asked: &ApprovalRule| {
            let in_time = self.created.plus(asked.ttl) > now;
            let as_strict = |granted: &ApprovalRule| {
                granted.name == asked.name
                    && granted.reviewers == asked.reviewers
                    && granted.quorum >= asked.quorum
            };
            in_time && self.rules.iter().any(as_strict)
        };
        !rules.is_empty() && rules.iter().all(covered)
    }

    fn has_quorum(&self) -> bool {
        let mut seats: BTreeMap<&str, u32> = BTreeMap::new();
        for rule in &self.rules {
            let seats = seats.entry(&rule.reviewers).or_default();
            *seats = rule.quorum.max(*seats);
        }
        let approvals = self.reviews.iter().filter(|review| review.verdict == Verdict::Approve);
        let people: Vec<Person<'_>> =
            approvals.map(|review| (&review.reviewer, self.groups_of(review))).collect();
        let mut seated = BTreeMap::new();
        let mut fill =
            |(group, count)| (0..count).all(|_| find_seat(group, &people, &mut seated, &mut BTreeSet::new()));
        !people.is_empty() && seats.into_iter().all(&mut fill)
    }

    fn groups_of(&self, review: &Review) -> BTreeSet<&str> {
        let counts = |rule: &&ApprovalRule| review.counts_for.contains(&rule.name);
        self.rules.iter().filter(counts).map(|rule| rule.reviewers.as_str()).collect()
    }

    fn groups(&self) -> String {
        let names: BTreeSet<String> = self.rules.iter().map(|rule| format!("`{}`", rule.reviewers)).collect();
        names.into_iter().collect::<Vec<_>>().join(" or ")
    }

    /// The one way out of the open states: what a reviewer had to see is not needed any more.
    fn finish(&mut self, state: RequestState) {
        self.operations.iter_mut().for_each(|operation| operation.exact.zeroize());
        self.state = state;
    }
}

/// Somebody who approved, and the groups they may stand for.
type Person<'a> = (&'a Actor, BTreeSet<&'a str>);

/// Finds one more person for `group`, moving people seated for another group if somebody else can take their place there
/// (augmenting paths of a bipartite matching). `asked` holds who was considered in this search, which bounds its depth.
fn find_seat<'a>(
    group: &'a str,
    people: &[Person<'a>],
    seated: &mut BTreeMap<&'a Actor, &'a str>,
    asked: &mut BTreeSet<&'a Actor>,
) -> bool {
    for (person, groups) in people {
        if !groups.contains(group) || !asked.insert(person) {
            continue;
        }
        let elsewhere = seated.get(person).copied();
        if elsewhere.is_none_or(|other| find_seat(other, people, seated, asked)) {
            seated.insert(person, group);
            return true;
        }
    }
    false
}

/// Rules of one request. Policies that ask for more than 16 different approvals at once are a mistake.
const MAX_RULES: usize = 16;
/// People that one request may ask for, over all rules. Bounds the search for a quorum.
const MAX_SEATS: u64 = 32;
/// Verdicts of one request: far above [`MAX_SEATS`], so that only people who change nothing reach it.
const MAX_REVIEWS: usize = 128;
/// Operations of one request: more than one person reads.
const MAX_OPERATIONS: usize = 256;
/// Things touched by one request, over all operations.
const MAX_ACCESSES: usize = 4096;
/// Text of one request, over all operations, in bytes (256 KiB): more than one person reads.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// A reviewer's comment, in bytes (4 KiB).
const MAX_COMMENT_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::approval::{DigestKey, RequestId};
    use crate::session::SessionId;

    const GROUPS: [&str; 3] = ["dba", "security", "sre"];

    fn request(quorums: [u32; 3]) -> AccessRequest {
        let rule = |(group, quorum): (&&str, u32)| ApprovalRule {
            name: format!("ask-{group}"),
            reviewers: (*group).to_owned(),
            quorum,
            ttl: Duration::from_secs(60),
            rules: Vec::new(),
        };
        AccessRequest {
            id: RequestId::random().unwrap(),
            digest: DigestKey::new([0; 32]).bytes(b""),
            session: SessionId::random().unwrap(),
            requester: Principal::new(PrincipalKind::Agent, "i", "agent", Timestamp::MAX),
            target: "t".to_owned(),
            rules: GROUPS.iter().zip(quorums).filter(|(_, quorum)| *quorum > 0).map(rule).collect(),
            operations: Vec::new(),
            delivery: Delivery::Retry,
            created: Timestamp::from_seconds(0),
            expires: Timestamp::MAX,
            state: RequestState::Pending,
            reviews: Vec::new(),
        }
    }

    fn approval(n: usize, groups: [bool; 3]) -> Review {
        let member = GROUPS.iter().zip(groups).filter(|(_, member)| *member);
        Review {
            reviewer: Actor { issuer: "i".to_owned(), subject: n.to_string() },
            verdict: Verdict::Approve,
            counts_for: member.map(|(group, _)| format!("ask-{group}")).collect(),
            comment: None,
            at: Timestamp::from_seconds(0),
        }
    }

    /// Tries every way to let each person stand for one of their groups or none.
    fn by_trying_all(people: &[[bool; 3]], missing: [u32; 3]) -> bool {
        let Some((first, rest)) = people.split_first() else { return missing == [0; 3] };
        let seated = |group: usize| {
            let mut fewer = missing;
            fewer[group] = fewer[group].saturating_sub(1);
            fewer
        };
        by_trying_all(rest, missing) || (0..3).any(|g| first[g] && by_trying_all(rest, seated(g)))
    }

    proptest! {
        #[test]
        fn quorum_is_met_exactly_when_different_people_can_fill_it(
            quorums in prop::array::uniform3(0u32..3).prop_filter("a rule", |q| q.iter().any(|n| *n > 0)),
            people in prop::collection::vec(prop::array::uniform3(any::<bool>()), 0..6),
        ) {
            let mut request = request(quorums);
            request.reviews = people.iter().enumerate().map(|(n, groups)| approval(n, *groups)).collect();
            prop_assert_eq!(request.has_quorum(), by_trying_all(&people, quorums));
        }
    }

    #[test]
    fn without_rules_there_is_no_quorum() {
        let mut request = request([0; 3]);
        assert!(!request.has_quorum());
        request.reviews = vec![approval(0, [true; 3])];
        assert!(request.problem().is_some());
    }
}
