//! What every approver must do, whatever it keeps its requests in. Included by the tests of each implementation:
//! `approver_suite!(make)`, where `async fn make() -> Subject` gives a fresh approver.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "tests: a failure must show at once")]

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::{
    AccessRequest, ApprovalError, ApprovalEvent, Approver, Delivery, Digest, DigestKey, Estimate,
    OperationSummary, RequestId, RequestState, Verdict,
};
use gateway_core::clock::{Clock, ManualClock, Timestamp};
use gateway_core::credentials::Secret;
use gateway_core::identity::{
    Actor, Presented, Principal, PrincipalKind, StaticAuthenticator, VerifiedPrincipal, verify,
};
use gateway_core::operation::{Access, Action, Resource};
use gateway_core::policy::ApprovalRule;
use gateway_core::session::SessionId;

/// The approver under test.
pub(crate) struct Subject {
    pub(crate) approver: Arc<dyn Approver>,
    pub(crate) clock: Arc<ManualClock>,
    /// Whatever must live as long as the approver (a directory).
    pub(crate) keep: Box<dyn Any + Send>,
}

pub(crate) const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
pub(crate) const EXACT: &str = "delete from orders where card = '4111111111111111'";
/// The largest wait for something that must happen; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[macro_export]
macro_rules! approver_suite {
    ($make:expr) => {
        $crate::approver_suite!(@cases $make,
            an_approved_operation_runs_once, only_the_very_same_operation_is_granted, a_grant_is_void_when_its_rule_changed,
            quorum_counts_distinct_people, one_person_in_two_groups_stands_for_one, people_are_seated_where_they_are_needed,
            rules_of_one_group_share_people, who_may_not_review, the_same_subject_of_another_issuer_is_another_person,
            one_rejection_rejects, nobody_decides_in_time, an_approval_is_not_used_in_time, expiry_is_the_earliest_of_all,
            a_withdrawn_request_is_over, an_abandoned_hold_is_never_redeemed, floods_are_refused, who_may_see_what,
            retries_find_their_open_request, racing_redeems_succeed_once, wrong_requests_are_refused,
            followers_hear_of_everything, waiters_wake_when_it_is_decided, waiters_wake_when_it_expires,
            a_hold_redeems_its_own_request, lists_are_newest_first_and_limited, comments_are_kept_and_bounded,
            what_people_were_told_is_kept, racing_presentations_make_one_request);
    };
    (@cases $make:expr, $($case:ident),+) => {
        $(#[tokio::test]
        async fn $case() {
            approval_suite::$case($make().await).await;
        })+
    };
}

pub(crate) fn actor(subject: &str) -> Actor {
    Actor { issuer: "https://idp.example".to_owned(), subject: subject.to_owned() }
}

/// An agent that acts for the person `owner`.
pub(crate) fn agent(subject: &str) -> Principal {
    let expires = START.plus(Duration::from_secs(3600));
    let mut agent = Principal::new(PrincipalKind::Agent, "https://idp.example", subject, expires);
    agent.actor_chain = vec![actor("owner")];
    agent
}

pub(crate) fn person(subject: &str, groups: &[&str]) -> Principal {
    let expires = START.plus(Duration::from_secs(36_000));
    let mut person = Principal::new(PrincipalKind::Human, "https://idp.example", subject, expires);
    person.groups = groups.iter().map(|group| (*group).to_owned()).collect();
    person
}

pub(crate) async fn verified(principal: Principal) -> VerifiedPrincipal {
    let authenticator = StaticAuthenticator::new().unwrap().with("token", principal);
    let clock = ManualClock::new(START);
    verify(&authenticator, &Presented::Token(Secret::from("token")), &clock).await.unwrap()
}

pub(crate) async fn dba(subject: &str) -> VerifiedPrincipal {
    verified(person(subject, &["dba"])).await
}

pub(crate) fn rule(name: &str, reviewers: &str, quorum: u32) -> ApprovalRule {
    let ttl = Duration::from_secs(600);
    ApprovalRule {
        name: name.to_owned(),
        reviewers: reviewers.to_owned(),
        quorum,
        ttl,
        rules: vec!["p1".to_owned()],
    }
}

pub(crate) fn digest(text: &str) -> Digest {
    DigestKey::new([7; 32]).bytes(text.as_bytes())
}

pub(crate) fn request(delivery: Delivery, rules: Vec<ApprovalRule>) -> AccessRequest {
    let table = Resource::target("shop").child("Table", "orders");
    AccessRequest {
        id: RequestId::random().unwrap(),
        digest: digest("A"),
        session: SessionId::random().unwrap(),
        requester: agent("agent-7"),
        target: "shop".to_owned(),
        rules,
        operations: vec![OperationSummary {
            kind: "delete".to_owned(),
            masked: "delete from orders where card = '***'".to_owned(),
            exact: EXACT.to_owned(),
            accesses: vec![Access::new(Action::new("delete"), table)],
            estimate: Estimate::default(),
        }],
        delivery,
        created: START,
        expires: Timestamp::MAX,
        state: RequestState::Pending,
        reviews: Vec::new(),
    }
}

pub(crate) fn dba_rule() -> Vec<ApprovalRule> {
    vec![rule("risky", "dba", 1)]
}

impl Subject {
    pub(crate) async fn submit(&self, request: AccessRequest) -> RequestId {
        let id = request.id;
        assert_eq!(self.approver.submit(request).await.unwrap(), id);
        id
    }

    pub(crate) async fn approve(
        &self,
        id: RequestId,
        by: &VerifiedPrincipal,
    ) -> Result<RequestState, ApprovalError> {
        let reviewed = self.approver.review(id, by, Verdict::Approve, None, self.clock.now()).await?;
        Ok(reviewed.state)
    }

    pub(crate) async fn redeem(&self) -> Option<RequestId> {
        self.approver.redeem(&digest("A"), &dba_rule(), self.clock.now()).await.unwrap()
    }

    pub(crate) async fn approved(&self, delivery: Delivery) -> RequestId {
        let id = self.submit(request(delivery, dba_rule())).await;
        assert_eq!(self.approve(id, &dba("ada").await).await.unwrap(), RequestState::Approved);
        id
    }

    async fn state(&self, id: RequestId) -> RequestState {
        self.approver.show(id, &dba("watcher").await).await.unwrap().state
    }
}

pub(crate) async fn an_approved_operation_runs_once(s: Subject) {
    for delivery in [Delivery::Hold, Delivery::Suspend, Delivery::Retry] {
        let id = s.submit(request(delivery, dba_rule())).await;
        assert_eq!(s.redeem().await, None, "nobody has approved it yet");
        s.approve(id, &dba("ada").await).await.unwrap();
        assert_eq!(s.approver.decided(id).await.unwrap(), RequestState::Approved);
        assert_eq!(s.redeem().await, Some(id));
        assert_eq!(s.redeem().await, None, "a grant is used up");
        assert_eq!(s.state(id).await, RequestState::Used);
        assert_eq!(s.approver.decided(id).await.unwrap(), RequestState::Used);
    }
}

pub(crate) async fn only_the_very_same_operation_is_granted(s: Subject) {
    let id = s.approved(Delivery::Retry).await;
    assert_eq!(s.approver.redeem(&digest("B"), &dba_rule(), START).await.unwrap(), None);
    assert!(!s.approver.redeem_request(id, &digest("B"), &dba_rule(), START).await.unwrap());
    assert_eq!(s.redeem().await, Some(id), "the attempt with B has not used it up");
}

pub(crate) async fn a_grant_is_void_when_its_rule_changed(s: Subject) {
    let id = s.approved(Delivery::Retry).await;
    let mut shorter = dba_rule();
    shorter[0].ttl = Duration::from_secs(60);
    s.clock.advance(Duration::from_secs(61));
    let two = vec![rule("risky", "dba", 1), rule("other", "security", 1)];
    let changed = [
        vec![],
        vec![rule("other", "dba", 1)],
        vec![rule("risky", "sre", 1)],
        vec![rule("risky", "dba", 2)],
        two,
        shorter,
    ];
    for rules in changed {
        let redeemed = s.approver.redeem(&digest("A"), &rules, s.clock.now()).await.unwrap();
        assert_eq!(redeemed, None, "{rules:?}");
    }
    let mut same = dba_rule();
    same[0].rules = vec!["renamed".to_owned()];
    assert_eq!(s.approver.redeem(&digest("A"), &same, s.clock.now()).await.unwrap(), Some(id));
}

pub(crate) async fn quorum_counts_distinct_people(s: Subject) {
    let id = s.submit(request(Delivery::Retry, vec![rule("risky", "dba", 2)])).await;
    let (ada, bob) = (dba("ada").await, dba("bob").await);
    assert_eq!(s.approve(id, &ada).await.unwrap(), RequestState::Pending);
    assert!(matches!(s.approve(id, &ada).await, Err(ApprovalError::NotEligible(_))));
    let ada_again = verified(person("ada", &["dba", "more"])).await;
    assert!(matches!(s.approve(id, &ada_again).await, Err(ApprovalError::NotEligible(_))));
    assert_eq!(s.redeem().await, None);
    assert_eq!(s.approve(id, &bob).await.unwrap(), RequestState::Approved);
    assert_eq!(s.redeem().await, Some(id), "a grant of two covers a rule that asks for one");
}

pub(crate) async fn one_person_in_two_groups_stands_for_one(s: Subject) {
    let id = s.submit(request(Delivery::Retry, vec![rule("a", "dba", 1), rule("b", "security", 1)])).await;
    let both = verified(person("ada", &["dba", "security"])).await;
    assert_eq!(s.approve(id, &both).await.unwrap(), RequestState::Pending);
    assert_eq!(s.approve(id, &dba("bob").await).await.unwrap(), RequestState::Approved);
}

pub(crate) async fn people_are_seated_where_they_are_needed(s: Subject) {
    let rules = vec![rule("a", "dba", 2), rule("b", "security", 1)];
    let id = s.submit(request(Delivery::Retry, rules)).await;
    let both = verified(person("ada", &["dba", "security"])).await;
    assert_eq!(s.approve(id, &both).await.unwrap(), RequestState::Pending);
    assert_eq!(s.approve(id, &dba("bob").await).await.unwrap(), RequestState::Pending);
    assert_eq!(s.approve(id, &dba("cyd").await).await.unwrap(), RequestState::Approved);
}

pub(crate) async fn rules_of_one_group_share_people(s: Subject) {
    let id = s.submit(request(Delivery::Retry, vec![rule("a", "dba", 1), rule("b", "dba", 2)])).await;
    assert_eq!(s.approve(id, &dba("ada").await).await.unwrap(), RequestState::Pending);
    assert_eq!(s.approve(id, &dba("bob").await).await.unwrap(), RequestState::Approved);
}

pub(crate) async fn who_may_not_review(s: Subject) {
    let mut own = request(Delivery::Retry, dba_rule());
    own.requester =
        Principal { actor_chain: vec![actor("owner"), actor("root")], ..person("asker", &["dba"]) };
    let id = s.submit(own).await;
    let mut robot = person("robot", &["dba"]);
    robot.kind = PrincipalKind::Agent;
    let mut service = person("service", &["dba"]);
    service.kind = PrincipalKind::Service;
    let mut delegated = person("ada", &["dba"]);
    delegated.actor_chain = vec![actor("somebody")];
    let mut expiring = person("ada", &["dba"]);
    expiring.expires_at = START.plus(Duration::from_secs(5));
    let expired = verified(expiring).await;
    s.clock.advance(Duration::from_secs(5));
    let asker = person("asker", &["dba"]);
    let (owner, root, outsider) =
        (person("owner", &["dba"]), person("root", &["dba"]), person("eve", &["sre"]));
    for reviewer in [robot, service, delegated, asker, owner, root, outsider] {
        let reviewer = verified(reviewer).await;
        let refused = s.approve(id, &reviewer).await;
        assert!(matches!(refused, Err(ApprovalError::NotEligible(_))), "{reviewer:?}: {refused:?}");
        let reject = s.approver.review(id, &reviewer, Verdict::Reject, None, s.clock.now()).await;
        assert!(matches!(reject, Err(ApprovalError::NotEligible(_))), "{reviewer:?}: {reject:?}");
    }
    assert!(matches!(s.approve(id, &expired).await, Err(ApprovalError::NotEligible(_))));
    let unknown = RequestId::random().unwrap();
    assert_eq!(s.approve(unknown, &dba("ada").await).await, Err(ApprovalError::Unknown(unknown)));
    assert_eq!(s.state(id).await, RequestState::Pending);
}

pub(crate) async fn the_same_subject_of_another_issuer_is_another_person(s: Subject) {
    let id = s.submit(request(Delivery::Retry, vec![rule("risky", "dba", 2)])).await;
    let mut namesake = person("ada", &["dba"]);
    namesake.actor.issuer = "https://other.example".to_owned();
    s.approve(id, &dba("ada").await).await.unwrap();
    assert_eq!(s.approve(id, &verified(namesake).await).await.unwrap(), RequestState::Approved);
}

pub(crate) async fn one_rejection_rejects(s: Subject) {
    let id = s.submit(request(Delivery::Retry, vec![rule("risky", "dba", 2)])).await;
    s.approve(id, &dba("ada").await).await.unwrap();
    let bob = dba("bob").await;
    let rejected = s.approver.review(id, &bob, Verdict::Reject, Some("no".to_owned()), START).await.unwrap();
    assert_eq!(rejected.state, RequestState::Rejected);
    assert_eq!(rejected.reviews.len(), 2);
    let late = s.approve(id, &dba("cyd").await).await;
    assert_eq!(late, Err(ApprovalError::NotPending(RequestState::Rejected)));
    assert_eq!(s.approver.decided(id).await.unwrap(), RequestState::Rejected);
    assert_eq!(s.redeem().await, None);
}

pub(crate) async fn nobody_decides_in_time(s: Subject) {
    let id = s.submit(request(Delivery::Retry, dba_rule())).await;
    s.clock.advance(Duration::from_secs(600));
    let late = s.approve(id, &dba("ada").await).await;
    assert_eq!(late, Err(ApprovalError::NotPending(RequestState::Expired)));
    assert_eq!(s.approver.decided(id).await.unwrap(), RequestState::Expired);
    assert_eq!(s.redeem().await, None);
}

pub(crate) async fn an_approval_is_not_used_in_time(s: Subject) {
    let id = s.approved(Delivery::Retry).await;
    s.clock.advance(Duration::from_secs(600));
    let early = s.approver.redeem(&digest("A"), &dba_rule(), START).await.unwrap();
    assert_eq!(early, None, "a caller's old time must not revive it");
    assert_eq!(s.redeem().await, None);
    assert_eq!(s.state(id).await, RequestState::Expired);
}

pub(crate) async fn expiry_is_the_earliest_of_all(s: Subject) {
    let seconds = |n| START.plus(Duration::from_secs(n));
    let mut short_lived = request(Delivery::Retry, dba_rule());
    short_lived.requester.expires_at = seconds(30);
    let mut two_rules = request(Delivery::Retry, vec![rule("a", "dba", 1), rule("b", "dba", 1)]);
    two_rules.rules[1].ttl = Duration::from_secs(60);
    let mut stated = request(Delivery::Retry, dba_rule());
    stated.expires = seconds(20);
    let mut from_the_future = request(Delivery::Retry, dba_rule());
    from_the_future.created = seconds(1000);
    for (request, expires) in [(short_lived, 30), (two_rules, 60), (stated, 20), (from_the_future, 600)] {
        let id = s.submit(request).await;
        let shown = s.approver.show(id, &dba("ada").await).await.unwrap();
        assert_eq!(shown.expires, seconds(expires));
        s.approver.revoke(id).await.unwrap();
    }
}

pub(crate) async fn a_withdrawn_request_is_over(s: Subject) {
    for approve_first in [false, true] {
        let id = s.submit(request(Delivery::Suspend, dba_rule())).await;
        if approve_first {
            s.approve(id, &dba("ada").await).await.unwrap();
        }
        s.approver.revoke(id).await.unwrap();
        s.approver.revoke(id).await.unwrap();
        assert_eq!(s.state(id).await, RequestState::Revoked);
        let late = s.approve(id, &dba("bob").await).await;
        assert_eq!(late, Err(ApprovalError::NotPending(RequestState::Revoked)));
        assert_eq!(s.redeem().await, None);
    }
    let id = s.approved(Delivery::Retry).await;
    assert_eq!(s.redeem().await, Some(id));
    s.approver.revoke(id).await.unwrap();
    assert_eq!(s.state(id).await, RequestState::Used, "what ran is not withdrawn");
}

pub(crate) async fn an_abandoned_hold_is_never_redeemed(s: Subject) {
    let approved = s.approved(Delivery::Hold).await;
    s.approver.abandon(approved);
    assert_eq!(s.redeem().await, None);
    let pending = s.submit(request(Delivery::Hold, dba_rule())).await;
    s.approver.abandon(pending);
    let late = s.approve(pending, &dba("ada").await).await;
    assert_eq!(late, Err(ApprovalError::NotPending(RequestState::Revoked)));
    assert_eq!(s.approver.decided(pending).await.unwrap(), RequestState::Revoked);
    s.approver.abandon(RequestId::random().unwrap());
}

pub(crate) async fn floods_are_refused(s: Subject) {
    let by = |name: String| {
        let mut request = request(Delivery::Retry, dba_rule());
        // Operations of their own.
        request.digest = digest(&request.id.to_string());
        request.requester.actor.subject = name;
        request
    };
    let first = s.submit(by("flooder".to_owned())).await;
    for _ in 1..32 {
        s.submit(by("flooder".to_owned())).await;
    }
    assert_eq!(s.approver.submit(by("flooder".to_owned())).await, Err(ApprovalError::TooMany(32)));
    s.submit(by("honest".to_owned())).await;
    s.approver.revoke(first).await.unwrap();
    s.submit(by("flooder".to_owned())).await;
    s.clock.advance(Duration::from_secs(600));
    let mut later = by("flooder".to_owned());
    later.created = s.clock.now();
    s.submit(later).await;
}

pub(crate) async fn who_may_see_what(s: Subject) {
    let id = s.submit(request(Delivery::Retry, dba_rule())).await;
    let ada = dba("ada").await;
    assert_eq!(s.approver.show(id, &ada).await.unwrap().operations[0].exact, EXACT);
    let listed = s.approver.list(&ada, 10).await.unwrap();
    assert_eq!(listed[0].operations[0].exact, "");
    assert!(!format!("{:?}", s.approver.show(id, &ada).await.unwrap()).contains("4111"));
    for involved in [agent("agent-7"), person("owner", &["dba"])] {
        let involved = verified(involved).await;
        let shown = s.approver.show(id, &involved).await.unwrap();
        assert_eq!(shown.operations[0].exact, "", "who asked sees it, but not the exact text");
        assert_eq!(s.approver.list(&involved, 10).await.unwrap().len(), 1);
    }
    let mut other_agent = agent("agent-8");
    other_agent.actor_chain.clear();
    other_agent.groups.insert("dba".to_owned());
    for outsider in [person("eve", &["sre"]), other_agent] {
        let outsider = verified(outsider).await;
        assert_eq!(s.approver.show(id, &outsider).await, Err(ApprovalError::Unknown(id)));
        assert_eq!(s.approver.list(&outsider, 10).await.unwrap(), []);
    }
    let reviewed = s.approver.review(id, &ada, Verdict::Approve, None, START).await.unwrap();
    assert_eq!(reviewed.operations[0].exact, "");
    assert_eq!(s.approver.show(id, &ada).await.unwrap().operations[0].exact, EXACT);
    assert_eq!(s.redeem().await, Some(id));
    assert_eq!(s.approver.show(id, &ada).await.unwrap().operations[0].exact, "", "erased once it is over");
}

pub(crate) async fn retries_find_their_open_request(s: Subject) {
    s.submit(request(Delivery::Hold, dba_rule())).await;
    let wanted = digest("A");
    let open = || s.approver.open_request(&wanted, s.clock.now());
    assert_eq!(open().await.unwrap(), None, "a hold dies with its session");
    let id = s.submit(request(Delivery::Retry, dba_rule())).await;
    assert_eq!(open().await.unwrap(), Some(id));
    assert_eq!(s.approver.open_request(&digest("B"), START).await.unwrap(), None);
    s.approve(id, &dba("ada").await).await.unwrap();
    assert_eq!(open().await.unwrap(), Some(id));
    assert_eq!(s.redeem().await, Some(id));
    assert_eq!(open().await.unwrap(), None);
    let expiring = s.submit(request(Delivery::Suspend, dba_rule())).await;
    assert_eq!(open().await.unwrap(), Some(expiring));
    s.clock.advance(Duration::from_secs(600));
    assert_eq!(open().await.unwrap(), None);
}

pub(crate) async fn racing_presentations_make_one_request(s: Subject) {
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let approver = Arc::clone(&s.approver);
        racers.spawn(async move { approver.submit(request(Delivery::Retry, dba_rule())).await.unwrap() });
    }
    let mut ids = racers.join_all().await;
    ids.dedup();
    let [id] = ids[..] else { panic!("one operation became several requests: {ids:?}") };
    let listed = s.approver.list(&dba("ada").await, 99).await.unwrap();
    assert_eq!(listed.iter().map(|request| request.id).collect::<Vec<_>>(), [id]);
    // An approved one is still the one to use; a used one is over.
    s.approve(id, &dba("ada").await).await.unwrap();
    assert_eq!(s.approver.submit(request(Delivery::Suspend, dba_rule())).await.unwrap(), id);
    assert_eq!(s.redeem().await, Some(id));
    s.submit(request(Delivery::Retry, dba_rule())).await;
    // Each connection that waits has a request of its own.
    s.submit(request(Delivery::Hold, dba_rule())).await;
    s.submit(request(Delivery::Hold, dba_rule())).await;
}

pub(crate) async fn racing_redeems_succeed_once(s: Subject) {
    let id = s.approved(Delivery::Retry).await;
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let approver = Arc::clone(&s.approver);
        racers.spawn(async move { approver.redeem(&digest("A"), &dba_rule(), START).await.unwrap() });
    }
    let winners: Vec<RequestId> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners, [id]);
}

pub(crate) async fn wrong_requests_are_refused(s: Subject) {
    let good = || request(Delivery::Retry, dba_rule());
    let taken = good();
    s.submit(taken.clone()).await;
    let mut wrong = vec![
        taken,
        request(Delivery::Retry, vec![]),
        request(Delivery::Retry, vec![rule("a", "dba", 0)]),
        request(Delivery::Retry, vec![rule("a", "", 1)]),
        request(Delivery::Retry, vec![rule("a", "dba", 1), rule("a", "sre", 1)]),
        request(Delivery::Retry, vec![rule("a", "dba", 33)]),
        request(Delivery::Retry, (0..17).map(|n| rule(&n.to_string(), "dba", 1)).collect()),
    ];
    wrong.extend([good(), good(), good(), good(), good(), good(), good()]);
    let [.., no_time, no_identity, empty, approved, long, many, old] = wrong.as_mut_slice() else { panic!() };
    no_time.rules[0].ttl = Duration::ZERO;
    no_identity.requester.expires_at = START;
    empty.operations.clear();
    approved.state = RequestState::Approved;
    long.operations[0].exact = "x".repeat(256 * 1024);
    many.operations = vec![many.operations[0].clone(); 257];
    old.created = Timestamp::from_seconds(0);
    for request in wrong {
        let refused = s.approver.submit(request.clone()).await;
        assert!(matches!(refused, Err(ApprovalError::Invalid(_))), "{refused:?} for {request:?}");
    }
}

pub(crate) async fn followers_hear_of_everything(s: Subject) {
    let mut events = s.approver.subscribe();
    let id = s.submit(request(Delivery::Retry, vec![rule("risky", "dba", 2)])).await;
    s.approve(id, &dba("ada").await).await.unwrap();
    s.approve(id, &dba("bob").await).await.unwrap();
    s.redeem().await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 4 {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        let about = event.request().unwrap();
        assert_eq!((about.id, about.operations[0].exact.as_str()), (id, ""));
        heard.push((event.clone(), about.state));
    }
    assert!(matches!(heard[0], (ApprovalEvent::Submitted(_), RequestState::Pending)));
    assert!(matches!(heard[1], (ApprovalEvent::Reviewed(_), RequestState::Pending)));
    assert!(matches!(heard[2], (ApprovalEvent::Changed(_), RequestState::Approved)));
    assert!(matches!(heard[3], (ApprovalEvent::Changed(_), RequestState::Used)));
}

pub(crate) async fn waiters_wake_when_it_is_decided(s: Subject) {
    let id = s.submit(request(Delivery::Hold, dba_rule())).await;
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let approver = Arc::clone(&s.approver);
        waiters.spawn(async move { approver.decided(id).await.unwrap() });
    }
    s.approve(id, &dba("ada").await).await.unwrap();
    let states = tokio::time::timeout(PATIENCE, waiters.join_all()).await.unwrap();
    assert_eq!(states, [RequestState::Approved; 4]);
    let unknown = RequestId::random().unwrap();
    assert_eq!(s.approver.decided(unknown).await, Err(ApprovalError::Unknown(unknown)));
}

pub(crate) async fn waiters_wake_when_it_expires(s: Subject) {
    let id = s.submit(request(Delivery::Hold, dba_rule())).await;
    let waiting = s.approver.decided(id);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
    s.clock.advance(Duration::from_secs(600));
    assert_eq!(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap(), RequestState::Expired);
}

pub(crate) async fn a_hold_redeems_its_own_request(s: Subject) {
    let retry = s.approved(Delivery::Retry).await;
    let hold = s.approved(Delivery::Hold).await;
    let (wanted, rules) = (digest("A"), dba_rule());
    let own = |id| s.approver.redeem_request(id, &wanted, &rules, START);
    assert!(own(hold).await.unwrap());
    assert!(!own(hold).await.unwrap());
    assert_eq!(s.state(retry).await, RequestState::Approved);
    let second = s.approved(Delivery::Hold).await;
    assert_eq!(s.redeem().await, Some(retry), "lasting grants first");
    assert_eq!(s.redeem().await, Some(second));
}

pub(crate) async fn lists_are_newest_first_and_limited(s: Subject) {
    let mut made = Vec::new();
    for second in 0..4 {
        s.clock.advance(Duration::from_secs(1));
        let mut request = request(Delivery::Retry, dba_rule());
        request.created = START.plus(Duration::from_secs(second));
        request.digest = digest(&second.to_string());
        made.push(s.submit(request).await);
    }
    let listed = s.approver.list(&dba("ada").await, 3).await.unwrap();
    let ids: Vec<RequestId> = listed.iter().map(|request| request.id).collect();
    made.reverse();
    assert_eq!(ids, made[..3]);
}

pub(crate) async fn comments_are_kept_and_bounded(s: Subject) {
    let id = s.submit(request(Delivery::Retry, vec![rule("risky", "dba", 2)])).await;
    let ada = dba("ada").await;
    let comment = |n| Some("c".repeat(n));
    let long = s.approver.review(id, &ada, Verdict::Approve, comment(4097), START).await;
    assert!(matches!(long, Err(ApprovalError::NotEligible(_))));
    let reviewed = s.approver.review(id, &ada, Verdict::Approve, comment(4096), START).await.unwrap();
    assert_eq!(reviewed.reviews[0].comment, comment(4096));
    assert_eq!(reviewed.reviews[0].counts_for, ["risky"]);
}

pub(crate) async fn what_people_were_told_is_kept(s: Subject) {
    let told = Estimate { rows: Some(12), notes: vec!["deletes about 12 rows".to_owned()] };
    let mut asked = request(Delivery::Retry, dba_rule());
    asked.operations[0].estimate = told.clone();
    let id = s.submit(asked).await;
    s.approver.review(id, &dba("alice").await, Verdict::Approve, None, START).await.unwrap();
    let listed = s.approver.list(&dba("alice").await, 1).await.unwrap();
    assert_eq!(listed[0].operations[0].estimate, told);
    assert_eq!(s.approver.redeem(&digest("A"), &dba_rule(), START).await.unwrap(), Some(id));
    assert_eq!(s.approver.estimates(id).await.unwrap(), [told], "also once it is used");
    let unknown = RequestId::random().unwrap();
    assert!(matches!(s.approver.estimates(unknown).await, Err(ApprovalError::Unknown(_))));
}
