//! The order every operation goes through, with a policy that changes while people think.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_core::approval::{Approver, MemoryApprover, Verdict};
use gateway_core::clock::{Clock, ManualClock, SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials};
use gateway_core::error::DenialCode;
use gateway_core::identity::{Presented, Principal, PrincipalKind, StaticAuthenticator, VerifiedPrincipal};
use gateway_core::masking::{DataClass, FieldRule};
use gateway_core::operation::{Batch, Effect, Operation, Resource, Stage};
use gateway_core::pipeline::{Guard, Judged, Label, NoRewrites, Pipeline, SessionRequest};
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::policy::{Allowed, ApprovalRule, Decision, FnPolicy, Obligation, PolicyInput};
use gateway_core::recording::MemoryRecorder;

/// What the policies ask of every operation but `connect`.
#[derive(Clone)]
struct Asked {
    approval: Option<ApprovalRule>,
    obligations: Vec<Obligation>,
}

struct World {
    pipeline: Pipeline,
    approver: Arc<MemoryApprover>,
    asked: Arc<Mutex<Asked>>,
}

fn asked(reviewers: &str, quorum: u32) -> Asked {
    let name = "delete".to_owned();
    let (reviewers, ttl, rules) = (reviewers.to_owned(), Duration::from_secs(60), vec!["p1".to_owned()]);
    Asked { approval: Some(ApprovalRule { name, reviewers, quorum, ttl, rules }), obligations: Vec::new() }
}

fn person(subject: &str, groups: &[&str]) -> Principal {
    let mut person = Principal::new(PrincipalKind::Human, "https://idp.test", subject, Timestamp::MAX);
    person.groups.extend(groups.iter().map(|&group| group.to_owned()));
    person
}

impl World {
    fn new(first: Asked) -> Self {
        let asked = Arc::new(Mutex::new(first));
        let policy = {
            let asked = Arc::clone(&asked);
            FnPolicy(move |input: &PolicyInput<'_>| {
                let asked = asked.lock().unwrap().clone();
                match asked.approval {
                    Some(rule)
                        if input.operation.kind != "connect" && !input.approvals.contains(&rule.name) =>
                    {
                        Decision::Hold(vec![rule])
                    }
                    _ => Decision::Allow(Allowed {
                        obligations: asked.obligations.into_iter().collect(),
                        ..Allowed::default()
                    }),
                }
            })
        };
        let agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent", Timestamp::MAX);
        let people = StaticAuthenticator::new().unwrap();
        let people = people.with("agent", agent).with("ada", person("ada", &["dba", "security"]));
        let approver = Arc::new(MemoryApprover::new(Arc::new(SystemClock)));
        let pipeline = Pipeline::builder(
            Arc::new(people),
            Arc::new(policy),
            Arc::clone(&approver) as _,
            Arc::new(MemoryRecorder::default()),
            Arc::new(StaticCredentials::default()),
        );
        Self { pipeline: pipeline.build().unwrap(), approver, asked }
    }

    async fn who(&self, token: &'static str) -> VerifiedPrincipal {
        self.pipeline.authenticate(&Presented::Token(Secret::from(token))).await.unwrap()
    }

    /// Presents a write that is held, has the policies changed, and has one person approve it.
    async fn held_then(&self, change: Asked) -> Result<Vec<Obligation>, DenialCode> {
        let request = SessionRequest::new(self.who("agent").await, "test", "shop", "nowhere");
        let guard = Guard::open(&self.pipeline, request).await.unwrap();
        let delete = Operation::on("delete", Effect::Write, Resource::target("shop"), "DELETE");
        let pending = guard.pending(Batch::one(Stage::Execute, delete));
        let Judged::Held(held) = guard.judge(pending, &NoRewrites).await else { panic!("it must be held") };
        *self.asked.lock().unwrap() = change;
        let ada = self.who("ada").await;
        let now = SystemClock.now();
        self.approver.review(held.request(), &ada, Verdict::Approve, None, now).await.unwrap();
        match held.wait().await {
            Judged::Permit(_) => Ok(self.asked.lock().unwrap().obligations.clone()),
            Judged::Refused(refused) => Err(refused.denial.code),
            Judged::Held(_) => panic!("it was decided"),
        }
    }
}

#[tokio::test]
async fn an_approved_operation_runs() {
    let world = World::new(asked("dba", 1));
    assert_eq!(world.held_then(asked("dba", 1)).await, Ok(vec![]));
}

#[tokio::test]
async fn a_rule_that_became_stricter_while_people_thought_is_what_counts() {
    for stricter in [asked("dba", 2), asked("security", 1)] {
        let world = World::new(asked("dba", 1));
        assert_eq!(world.held_then(stricter).await, Err(DenialCode::ApprovalRequired));
    }
}

#[tokio::test]
async fn an_approved_operation_runs_when_nothing_is_asked_any_more() {
    let world = World::new(asked("dba", 1));
    let nothing = Asked { approval: None, obligations: Vec::new() };
    assert_eq!(world.held_then(nothing).await, Ok(vec![]));
}

#[tokio::test]
async fn a_rewrite_that_came_while_people_thought_is_not_dropped() {
    let world = World::new(asked("dba", 1));
    let rewrite = Obligation::Rewrite("limit:100".to_owned());
    let changed = Asked { obligations: vec![rewrite], ..asked("dba", 1) };
    assert_eq!(world.held_then(changed).await, Err(DenialCode::ApprovalRequired));
    let capped = Asked { obligations: vec![Obligation::LimitRows(5)], ..asked("dba", 1) };
    let world = World::new(asked("dba", 1));
    assert_eq!(world.held_then(capped).await, Ok(vec![Obligation::LimitRows(5)]), "a cap is met in any case");
}

#[tokio::test]
async fn a_cap_on_changes_that_nobody_keeps_denies() {
    let world = World::new(asked("dba", 1));
    let capped = Asked { obligations: vec![Obligation::LimitAffected(5)], ..asked("dba", 1) };
    assert_eq!(world.held_then(capped.clone()).await, Err(DenialCode::ApprovalRequired));
    let world = World::new(Asked { approval: None, ..capped });
    let request = SessionRequest::new(world.who("agent").await, "test", "shop", "nowhere");
    let guard = Guard::open(&world.pipeline, request).await.unwrap();
    let judge = async |effect| {
        let operation = Operation::on("delete", effect, Resource::target("shop"), "DELETE");
        guard.judge(guard.pending(Batch::one(Stage::Execute, operation)), &NoRewrites).await
    };
    let Judged::Refused(refused) = judge(Effect::Write).await else { panic!("it must be refused") };
    assert_eq!(refused.denial.code, DenialCode::ObligationUnmet);
    assert!(matches!(judge(Effect::Read).await, Judged::Permit(_)), "what changes nothing needs no cap");
}

#[tokio::test]
async fn what_may_be_seen_until_some_time_is_hidden_after_it() {
    const START: i64 = 1_800_000_000;
    let policies = r#"
        permit(principal, action == Action::"connect", resource);
        permit(principal, action == Action::"reveal", resource) when { context.time.unix < 1800000060 };
    "#;
    let engine = CedarEngine::builder().policy(PolicyFile::new("time.cedar", policies)).build().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(START)));
    let agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent", Timestamp::MAX);
    let pipeline = Pipeline::builder(
        Arc::new(StaticAuthenticator::new().unwrap().with("agent", agent)),
        Arc::new(engine),
        Arc::new(MemoryApprover::new(Arc::clone(&clock) as _)),
        Arc::new(MemoryRecorder::default()),
        Arc::new(StaticCredentials::default()),
    );
    let pipeline = pipeline.clock(Arc::clone(&clock) as _).build().unwrap();
    let who = pipeline.authenticate(&Presented::Token(Secret::from("agent"))).await.unwrap();
    let resource = Resource::target("shop").child("DataClass", "email");
    let labels = [Label { resource, rule: FieldRule::new(DataClass::EMAIL) }];
    let request =
        SessionRequest { labels: labels.into(), ..SessionRequest::new(who, "test", "shop", "nowhere") };
    let guard = Guard::open(&pipeline, request).await.unwrap();
    assert!(guard.reveals_label(0));
    for (passed, seen) in [(30, true), (60, false)] {
        clock.advance(Duration::from_secs(passed));
        let again = Operation::on("connect", Effect::Read, Resource::target("shop"), "");
        let judged = guard.judge(guard.pending(Batch::one(Stage::Execute, again)), &NoRewrites).await;
        assert!(matches!(judged, Judged::Permit(_)), "{judged:?}");
        assert_eq!(guard.reveals_label(0), seen);
    }
}
