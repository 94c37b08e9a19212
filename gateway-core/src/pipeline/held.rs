//! An operation that waits for people.

use std::sync::Arc;

use super::admit::{approval_failed, policy_changed};
use super::guard::{GuardInner, recorder_failed};
use super::permit::{Judged, Pending, Refused};
use crate::approval::{AccessRequest, Digest, RequestId, RequestState};
use crate::clock::Timestamp;
use crate::error::{Denial, DenialCode};
use crate::policy::ApprovalRule;
use crate::recording::Record;

/// A held batch. Dropping it (the client went away, the gateway stops) withdraws the request.
#[derive(Debug)]
#[must_use]
pub struct Held {
    guard: Arc<GuardInner>,
    pending: Option<Pending>,
    request: RequestId,
    digest: Digest,
    rules: Vec<ApprovalRule>,
    expires: Timestamp,
}

impl Held {
    pub(super) fn new(guard: Arc<GuardInner>, pending: Pending, request: &AccessRequest) -> Self {
        Self {
            guard,
            pending: Some(pending),
            request: request.id,
            digest: request.digest,
            rules: request.rules.clone(),
            expires: request.expires,
        }
    }

    /// The request people see.
    pub const fn request(&self) -> RequestId {
        self.request
    }

    /// When the hold ends by itself.
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The groups asked to review.
    pub fn reviewers(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.reviewers.as_str())
    }

    /// Waits for the decision, then judges once more and uses the grant up. Dropping the future withdraws the request.
    pub async fn wait(mut self) -> Judged {
        let state = self.guard.pipeline.approver.decided(self.request).await;
        let state = match state {
            Ok(state) => state,
            Err(error) => return self.refused(approval_failed(&error)),
        };
        if self.guard.record(Record::Decided { request: self.request, state }).is_err() {
            return self.refused(recorder_failed(&crate::recording::RecordError(
                "it failed while waiting".to_owned(),
            )));
        }
        match state {
            RequestState::Approved => self.redeem().await,
            other => self.refused(not_approved(other, self.request)),
        }
    }

    async fn redeem(&mut self) -> Judged {
        // What counts is what the policies ask for now, not what they asked for when the operation was held.
        let rules = match self.rules_in_force().await {
            Ok(rules) => rules,
            Err(denial) => return self.refused(denial),
        };
        let now = self.guard.pipeline.clock.now();
        match self.guard.pipeline.approver.redeem_request(self.request, &self.digest, &rules, now).await {
            Ok(true) => self.run(self.request, &rules).await,
            Ok(false) if rules != self.rules => self.refused(policy_changed()),
            Ok(false) => self.refused(not_approved(RequestState::Expired, self.request)),
            Err(error) => self.refused(approval_failed(&error)),
        }
    }

    /// What must be approved by the policies in force; what was asked for first if they ask for nothing any more.
    async fn rules_in_force(&self) -> Result<Vec<ApprovalRule>, Denial> {
        let Some(pending) = &self.pending else { return Ok(self.rules.clone()) };
        let rules = self.guard.asked_now(pending).await?;
        Ok(if rules.is_empty() { self.rules.clone() } else { rules })
    }

    async fn run(&mut self, request: RequestId, rules: &[ApprovalRule]) -> Judged {
        let Some(pending) = self.pending.take() else {
            return self.refused(not_approved(RequestState::Used, request));
        };
        let first = pending.first;
        match self.guard.approved(pending, request, rules).await {
            Ok(judged) => judged,
            Err(denial) => Judged::Refused(Refused { first, denial }),
        }
    }

    /// Gives up on the client's cancel.
    pub async fn cancel(mut self) -> Denial {
        let denial = Denial::new(DenialCode::Cancelled, "the held operation was cancelled by the client");
        match self.refused(denial) {
            Judged::Refused(refused) => refused.denial,
            _ => Denial::new(DenialCode::Cancelled, "cancelled"),
        }
    }

    /// Refuses and withdraws the request.
    pub(super) fn refuse(mut self, denial: Denial) -> Denial {
        match self.refused(denial) {
            Judged::Refused(refused) => refused.denial,
            _ => Denial::new(DenialCode::Cancelled, "cancelled"),
        }
    }

    /// Refuses for now; the request stays open for a retry.
    pub(super) fn refuse_keeping_request(mut self, denial: Denial) -> Denial {
        let Some(pending) = self.pending.take() else { return denial };
        match self.guard.record_denied(&pending, &denial) {
            Ok(_) => denial,
            Err(error) => recorder_failed(&error),
        }
    }

    fn refused(&mut self, denial: Denial) -> Judged {
        self.guard.pipeline.approver.abandon(self.request);
        let Some(pending) = self.pending.take() else {
            return Judged::Refused(Refused { first: crate::operation::OperationId(0), denial });
        };
        let denial = match self.guard.record_denied(&pending, &denial) {
            Ok(_) => denial,
            Err(error) => recorder_failed(&error),
        };
        Judged::Refused(Refused { first: pending.first, denial })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.pending.is_some() {
            let denial = Denial::new(DenialCode::Cancelled, "the session ended while the operation was held");
            let _ = self.refused(denial);
        }
    }
}

fn not_approved(state: RequestState, request: RequestId) -> Denial {
    let (code, message) = match state {
        RequestState::Rejected => (DenialCode::ApprovalRejected, "a reviewer rejected this operation"),
        RequestState::Revoked => (DenialCode::Cancelled, "the request for approval was withdrawn"),
        _ => (DenialCode::ApprovalExpired, "nobody approved this operation in time"),
    };
    Denial::new(code, message).with_approval(request.to_string())
}
