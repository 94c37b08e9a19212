//! The guard of this example: which parts it is made of.

use std::error::Error;
use std::sync::Arc;

use gateway_core::approval::{ApprovalEvent, ApprovalEvents, Approver, MemoryApprover, RequestId, Verdict};
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::identity::{Phase, Presented, Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::MemoryRecorder;
use gateway_pg::{PgGateway, SCHEMA, Target};

/// What each of the three identities shows. In production these are tokens of an issuer, not of a list.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// The agent while it plans: may read.
    pub planner: &'a str,
    /// The agent while it acts: may write, once a person agrees.
    pub executor: &'a str,
    /// A person of the group `dba`.
    pub reviewer: &'a str,
}

/// A guard for one database, and the parts this process keeps a hand on.
#[derive(Debug)]
pub struct Embedded {
    /// Serves in-memory connections.
    pub gateway: PgGateway,
    /// Verifies reviewers.
    pub pipeline: Pipeline,
    /// Where reviews go.
    pub approver: Arc<MemoryApprover>,
    /// What happened so far.
    pub recorder: MemoryRecorder,
}

impl Embedded {
    /// Guards `target`, which is logged in to with `credential`.
    ///
    /// # Errors
    /// The policy does not load, or there is no randomness.
    pub fn new(
        target: Target,
        credential: UpstreamCredential,
        tokens: Tokens<'_>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let policy = PolicyFile::new("policy.cedar", include_str!("../policy.cedar"));
        let engine = CedarEngine::builder().schema_fragment("postgres", SCHEMA).policy(policy).build()?;
        let approver = Arc::new(MemoryApprover::new(Arc::new(SystemClock)));
        let recorder = MemoryRecorder::default();
        let pipeline = Pipeline::builder(
            Arc::new(identities(tokens)?),
            Arc::new(engine),
            Arc::clone(&approver) as _,
            Arc::new(recorder.clone()),
            Arc::new(StaticCredentials::default().with(&target.name, credential)),
        )
        .build()?;
        Ok(Self { gateway: PgGateway::new(pipeline.clone(), target), pipeline, approver, recorder })
    }

    /// Gives the verdict of whoever holds `token`.
    ///
    /// # Errors
    /// The token is not accepted, or this identity may not review the request.
    pub async fn review(
        &self,
        request: RequestId,
        token: &str,
        verdict: Verdict,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let reviewer = self.pipeline.authenticate(&Presented::Token(Secret::from(token))).await?;
        self.approver.review(request, &reviewer, verdict, None, self.pipeline.clock().now()).await?;
        Ok(())
    }

    /// The exact text that waits, as shown to whoever holds `token`.
    ///
    /// # Errors
    /// The token is not accepted, or there is no such request for this identity.
    pub async fn exact(
        &self,
        request: RequestId,
        token: &str,
    ) -> Result<String, Box<dyn Error + Send + Sync>> {
        let reviewer = self.pipeline.authenticate(&Presented::Token(Secret::from(token))).await?;
        let request = self.approver.show(request, &reviewer).await?;
        Ok(request.operations.iter().map(|operation| operation.exact.as_str()).collect::<Vec<_>>().join("\n"))
    }
}

/// Waits for the next request for approval; `None` once there can be none.
pub async fn next_request(events: &mut ApprovalEvents) -> Option<RequestId> {
    loop {
        if let ApprovalEvent::Submitted(request) = events.next().await? {
            return Some(request.id);
        }
    }
}

fn identities(tokens: Tokens<'_>) -> Result<StaticAuthenticator, Box<dyn Error + Send + Sync>> {
    let principal = |kind, subject, phase| {
        let mut principal = Principal::new(kind, "https://idp.example", subject, Timestamp::MAX);
        principal.phase = phase;
        principal
    };
    let mut reviewer = principal(PrincipalKind::Human, "ada", Phase::Other);
    reviewer.groups.insert("dba".to_owned());
    Ok(StaticAuthenticator::new()?
        .with(tokens.planner, principal(PrincipalKind::Agent, "planner", Phase::Plan))
        .with(tokens.executor, principal(PrincipalKind::Agent, "executor", Phase::Execute))
        .with(tokens.reviewer, reviewer))
}
