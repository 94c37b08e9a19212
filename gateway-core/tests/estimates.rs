//! What a held operation would do is told to people, recorded, and looked at again before it runs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::approval::{Approver, Delivery, Estimate, MemoryApprover, RequestState, Verdict};
use gateway_core::clock::{Clock, SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::{Presented, Principal, PrincipalKind, StaticAuthenticator, VerifiedPrincipal};
use gateway_core::operation::{Batch, Effect, Operation, Resource, Stage};
use gateway_core::pipeline::{Estimator, Guard, Judged, Pipeline, Rewriter, SessionRequest};
use gateway_core::policy::{Allowed, ApprovalRule, Decision, FnPolicy, PolicyInput};
use gateway_core::recording::{MemoryRecorder, Record};

/// Gives these estimates one after another, for every operation the same; then it never answers.
#[derive(Clone, Debug, Default)]
struct Script(Arc<Mutex<Vec<Estimate>>>);

#[async_trait]
impl Estimator for Script {
    async fn estimate(&self, operations: &[Operation]) -> Vec<Estimate> {
        let next = { self.0.lock().unwrap().pop() };
        match next {
            Some(estimate) => vec![estimate; operations.len()],
            None => std::future::pending().await,
        }
    }
}

impl Rewriter for Script {
    fn rewrite(&self, _: &Operation, _: &[&str]) -> Result<Option<Operation>, Denial> {
        Ok(None)
    }

    fn estimator(&self) -> Option<Arc<dyn Estimator>> {
        Some(Arc::new(self.clone()))
    }
}

fn rows(rows: u64) -> Estimate {
    Estimate { rows: Some(rows), notes: vec![format!("deletes about {rows} rows")] }
}

struct World {
    pipeline: Pipeline,
    approver: Arc<MemoryApprover>,
    recorder: MemoryRecorder,
    guard: Guard,
    script: Script,
}

impl World {
    async fn new(estimates: Vec<Estimate>) -> Self {
        let policy = FnPolicy(|input: &PolicyInput<'_>| {
            let rule = ApprovalRule {
                name: "dba".to_owned(),
                reviewers: "dba".to_owned(),
                quorum: 1,
                ttl: Duration::from_secs(60),
                rules: vec!["p1".to_owned()],
            };
            let asks = input.operation.kind == "delete" && !input.approvals.contains("dba");
            if asks { Decision::Hold(vec![rule]) } else { Decision::Allow(Allowed::default()) }
        });
        let agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent", Timestamp::MAX);
        let mut ada = Principal::new(PrincipalKind::Human, "https://idp.test", "ada", Timestamp::MAX);
        ada.groups.insert("dba".to_owned());
        let people = StaticAuthenticator::new().unwrap().with("agent", agent).with("ada", ada);
        let approver = Arc::new(MemoryApprover::new(Arc::new(SystemClock)));
        let recorder = MemoryRecorder::default();
        let pipeline = Pipeline::builder(
            Arc::new(people),
            Arc::new(policy),
            Arc::clone(&approver) as _,
            Arc::new(recorder.clone()),
            Arc::new(StaticCredentials::default()),
        )
        .build()
        .unwrap();
        let agent = who(&pipeline, "agent").await;
        let guard =
            Guard::open(&pipeline, SessionRequest::new(agent, "test", "shop", "nowhere")).await.unwrap();
        let script = Script(Arc::new(Mutex::new(estimates.into_iter().rev().collect())));
        Self { pipeline, approver, recorder, guard, script }
    }

    fn operations(count: usize) -> Batch {
        let delete = Operation::on("delete", Effect::Write, Resource::target("shop"), "DELETE");
        Batch::new(Stage::Execute, vec![delete; count]).unwrap()
    }

    async fn present(&self, count: usize, delivery: Delivery) -> Judged {
        self.guard.judge_for(self.guard.pending(Self::operations(count)), &self.script, delivery).await
    }

    /// Approves the newest request, as whoever was told this much.
    async fn approve(&self) -> Vec<Estimate> {
        let ada = who(&self.pipeline, "ada").await;
        let waiting = self.approver.list(&ada, 10).await.unwrap();
        let request = waiting.iter().find(|request| request.state == RequestState::Pending).unwrap();
        self.approver.review(request.id, &ada, Verdict::Approve, None, SystemClock.now()).await.unwrap();
        request.operations.iter().map(|operation| operation.estimate.clone()).collect()
    }

    async fn held_and_approved(&self) -> (Vec<Estimate>, Result<(), Denial>) {
        let Judged::Held(held) = self.present(1, Delivery::Hold).await else { panic!("it must be held") };
        let told = self.approve().await;
        (told, outcome(held.wait().await))
    }

    /// The rows of every recorded estimate.
    fn recorded(&self) -> Vec<Option<u64>> {
        let records = self.recorder.sessions().into_iter().flat_map(|(_, records)| records);
        let estimated = records.filter_map(|(_, record)| match record {
            Record::Estimated { estimates, .. } => Some(estimates),
            _ => None,
        });
        estimated.flatten().map(|estimate| estimate.rows).collect()
    }
}

async fn who(pipeline: &Pipeline, token: &'static str) -> VerifiedPrincipal {
    pipeline.authenticate(&Presented::Token(Secret::from(token))).await.unwrap()
}

fn outcome(judged: Judged) -> Result<(), Denial> {
    match judged {
        Judged::Permit(_) => Ok(()),
        Judged::Refused(refused) => Err(refused.denial),
        Judged::Held(_) => panic!("it was decided"),
    }
}

#[tokio::test]
async fn people_are_told_and_what_stays_so_runs() {
    let world = World::new(vec![rows(5_000), rows(6_000)]).await;
    let (told, ran) = world.held_and_approved().await;
    assert_eq!(told, [rows(5_000)]);
    assert!(ran.is_ok(), "{ran:?}");
    assert_eq!(world.recorded(), [Some(5_000), Some(6_000)]);
}

#[tokio::test]
async fn what_grew_while_people_thought_does_not_run() {
    let world = World::new(vec![rows(500), rows(50_000)]).await;
    let (_, ran) = world.held_and_approved().await;
    let denial = ran.unwrap_err();
    assert_eq!(denial.code, DenialCode::ApprovalExpired);
    assert!(denial.message.contains("far more rows"), "{denial:?}");
    assert!(!format!("{denial:?}").contains("50000"), "an agent learns no numbers: {denial:?}");
    assert_eq!(world.recorded(), [Some(500), Some(50_000)]);
}

#[tokio::test]
async fn what_grew_before_the_agent_came_back_does_not_run_and_is_asked_for_again() {
    let world = World::new(vec![rows(500), rows(50_000), rows(50_000), rows(50_000)]).await;
    let asked = outcome(world.present(1, Delivery::Retry).await).unwrap_err();
    assert_eq!(asked.code, DenialCode::ApprovalRequired);
    world.approve().await;
    let refused = outcome(world.present(1, Delivery::Retry).await).unwrap_err();
    assert_eq!(refused.code, DenialCode::ApprovalExpired, "{refused:?}");
    let again = outcome(world.present(1, Delivery::Retry).await).unwrap_err();
    assert_eq!(again.code, DenialCode::ApprovalRequired, "the grant is used up: {again:?}");
    assert_eq!(world.approve().await, [rows(50_000)], "people are told what it has become");
    outcome(world.present(1, Delivery::Retry).await).unwrap();
}

#[tokio::test]
async fn a_number_that_cannot_be_had_again_refuses() {
    let world = World::new(vec![rows(5), Estimate::unknown("the server is slow")]).await;
    let (_, ran) = world.held_and_approved().await;
    assert!(ran.unwrap_err().message.contains("cannot be now"));
}

#[tokio::test(start_paused = true)]
async fn an_estimator_that_hangs_does_not_keep_the_request_back() {
    let world = World::new(Vec::new()).await;
    let (told, ran) = world.held_and_approved().await;
    assert_eq!(told, [Estimate::unknown("it took more than 5 s")]);
    assert!(ran.is_ok(), "what was approved without a number runs: {ran:?}");
}

#[tokio::test]
async fn notes_are_masked_escaped_and_bounded() {
    let long = Estimate {
        rows: None,
        notes: (0..100).map(|_| format!("table 4111111111111111 \u{202e}\n{}", "x".repeat(1_000))).collect(),
    };
    let world = World::new(vec![long]).await;
    let Judged::Held(held) = world.present(20, Delivery::Hold).await else { panic!("it must be held") };
    let told = world.approve().await;
    drop(held);
    let [first, .., last] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(first.notes.len(), 33, "{first:?}");
    for note in &first.notes {
        assert!(!note.contains("4111111111111111") && !note.contains(['\u{202e}', '\n']), "{note}");
        assert!(note.len() < 310, "{note}");
    }
    assert_eq!(last.notes, ["no estimate: only 16 operations are estimated at once"]);
    assert_eq!(told.len(), 20);
}
