//! Approval of held operations by people: bound to the exact operation, single use, with an expiry.
//!
//! States: pending -> approved -> used; pending -> rejected | expired | revoked; approved -> expired | revoked.
//!
//! The rules of the transitions are in one place, the methods of [`AccessRequest`]; an [`Approver`] only keeps requests and
//! makes each transition atomic. Nothing here shows requests to people or asks for their identity.

mod digest;
mod estimate;
mod events;
mod memory;
mod state;

use std::fmt;
use std::fmt::Debug;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use digest::{Digest, DigestKey, SessionDigest};
pub use estimate::Estimate;
pub use events::{ApprovalEvent, ApprovalEvents, ApprovalFeed};
pub use memory::MemoryApprover;
pub use state::ApprovalLimits;

use crate::clock::Timestamp;
use crate::identity::{Actor, Principal, VerifiedPrincipal};
use crate::operation::Access;
use crate::policy::ApprovalRule;
use crate::session::SessionId;

/// Names a request for approval. 128 random bits, printed as 32 hexadecimal digits; not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(SessionId);

impl RequestId {
    /// A fresh random id.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub fn random() -> Result<Self, crate::random::NoRandomness> {
        SessionId::random().map(Self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for RequestId {
    type Err = crate::session::BadSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// How the approval reaches the requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The wire waits. The request dies with its session.
    Hold,
    /// The embedder keeps a serialisable handle and presents the operation again.
    Suspend,
    /// Denied now with a handle; the same operation passes once after approval.
    Retry,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RequestState {
    /// Waiting for reviews.
    Pending,
    /// Every rule has its quorum; may be redeemed once.
    Approved,
    /// A reviewer said no.
    Rejected,
    /// Nobody decided, or nobody used it, in time.
    Expired,
    /// Withdrawn: by the requester, the end of its session, or an administrator.
    Revoked,
    /// Redeemed: the operation ran.
    Used,
}

impl RequestState {
    /// The lower-case word shown to people and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Used => "used",
        }
    }

    /// Still pending or approved: something may yet happen.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Approved)
    }
}

/// A reviewer's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Let it run.
    Approve,
    /// Do not.
    Reject,
}

/// One person's verdict on one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Who.
    pub reviewer: Actor,
    /// What they said.
    pub verdict: Verdict,
    /// The names of the approval rules this review counts for (the reviewer's groups at the time).
    pub counts_for: Vec<String>,
    /// Why, in their words.
    pub comment: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What a reviewer is shown of one operation. `Debug` does not print the exact text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationSummary {
    /// The protocol's word for it.
    pub kind: String,
    /// The statement with sensitive content masked: for lists and notifications.
    pub masked: String,
    /// The exact statement and arguments; only for eligible reviewers, never in lists, logs or recordings.
    pub exact: String,
    /// Everything it touches.
    pub accesses: Vec<Access>,
    /// What it is expected to do, masked; empty where the adapter tells nothing.
    #[serde(default, skip_serializing_if = "Estimate::is_empty")]
    pub estimate: Estimate,
}

impl Debug for OperationSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationSummary")
            .field("kind", &self.kind)
            .field("masked", &self.masked)
            .field("exact_bytes", &self.exact.len())
            .field("accesses", &self.accesses)
            .field("estimate", &self.estimate)
            .finish()
    }
}

/// A request for approval of one exact batch of operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRequest {
    /// Its name.
    pub id: RequestId,
    /// What exactly is asked for; a grant is good for nothing else.
    pub digest: Digest,
    /// The session that asks.
    pub session: SessionId,
    /// Who asks, and for whom.
    pub requester: Principal,
    /// The target.
    pub target: String,
    /// All of these must be satisfied.
    pub rules: Vec<ApprovalRule>,
    /// The operations in order.
    pub operations: Vec<OperationSummary>,
    /// How the answer is delivered.
    pub delivery: Delivery,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends, decided or not, used or not.
    pub expires: Timestamp,
    /// Where it stands.
    pub state: RequestState,
    /// The verdicts so far.
    pub reviews: Vec<Review>,
}

/// Why an approver did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// No such request, or not one this reviewer may know of.
    #[error("there is no approval request `{0}`; list the open ones with `approvals list`")]
    Unknown(RequestId),
    /// This person may not review it; the text says why.
    #[error("{0}")]
    NotEligible(String),
    /// It is no longer pending.
    #[error("the request is already {}", .0.as_str())]
    NotPending(RequestState),
    /// The request itself is wrong (no rules, too long to review, already over); the text says how.
    #[error("this cannot be put up for approval: {0}")]
    Invalid(String),
    /// Too many requests are open, in all or by this requester.
    #[error("{0} requests are already waiting for approval; wait until some are decided")]
    TooMany(usize),
    /// The store failed; nothing was granted.
    #[error("the approval store failed: {0}")]
    Store(String),
}

/// Keeps requests and grants. All methods must be safe under concurrent calls: [`redeem`](Approver::redeem) succeeds
/// at most once for each approved request, whoever races.
#[async_trait]
pub trait Approver: Debug + Send + Sync {
    /// Stores a new pending request. Called when an operation is held, before anybody is told. Its expiry is brought
    /// forward to the earliest of what it says, its shortest rule and the requester's own expiry.
    ///
    /// Returns the request that is open: this one, or, unless it is delivered by [`Delivery::Hold`], another that is
    /// [open for the same digest](AccessRequest::is_open_for); this one is not stored then. Finding and storing are one step: however many
    /// present one operation at once, people see one request, and one approval lets one of them run.
    async fn submit(&self, request: AccessRequest) -> Result<RequestId, ApprovalError>;

    /// Waits until the request is no longer pending, or its expiry (by the approver's clock), and returns where it stands.
    async fn decided(&self, id: RequestId) -> Result<RequestState, ApprovalError>;

    /// Uses up the approved, unexpired request for exactly this digest whose rules cover `rules`, if there is one.
    /// Called before an operation that needs approval may run. Grants that outlive their session (suspend, retry) are
    /// used before those of a waiting hold. A call whose future is dropped may still use the grant up.
    async fn redeem(
        &self,
        digest: &Digest,
        rules: &[ApprovalRule],
        now: Timestamp,
    ) -> Result<Option<RequestId>, ApprovalError>;

    /// Uses up this very request, under the same conditions as [`redeem`](Approver::redeem): true if it did. A waiting hold
    /// redeems its own request with this, so that it neither takes nor leaves behind a grant that is not its own.
    /// The default is the safe answer: nothing is granted.
    async fn redeem_request(
        &self,
        id: RequestId,
        digest: &Digest,
        rules: &[ApprovalRule],
        now: Timestamp,
    ) -> Result<bool, ApprovalError> {
        let _ = (id, digest, rules, now);
        Ok(false)
    }

    /// What people were told that the operations of a request would do, in order, also once it is used. Asked before an approved
    /// operation runs, which an error refuses.
    async fn estimates(&self, id: RequestId) -> Result<Vec<Estimate>, ApprovalError>;

    /// The open (pending or approved) suspend or retry request for this digest, so that a retry does not ask twice. A
    /// waiting hold is never returned: it dies with its session, and a retry would be left with a dead handle.
    async fn open_request(&self, digest: &Digest, now: Timestamp)
    -> Result<Option<RequestId>, ApprovalError>;

    /// Withdraws a request. Must not fail for one that is already over.
    async fn revoke(&self, id: RequestId) -> Result<(), ApprovalError>;

    /// Withdraws a request from a place that cannot await (a dropped hold). Must take effect before any later redeem.
    fn abandon(&self, id: RequestId);

    /// Adds a verdict by a verified person and returns the new state.
    ///
    /// Must refuse: non-human principals, the requester and everyone in its actor chain (and principals acting through
    /// a chain), a second verdict by the same person, reviewers outside every rule's group, requests not pending.
    async fn review(
        &self,
        id: RequestId,
        reviewer: &VerifiedPrincipal,
        verdict: Verdict,
        comment: Option<String>,
        now: Timestamp,
    ) -> Result<AccessRequest, ApprovalError>;

    /// Requests a person may know of, newest first, at most `limit`. `exact` texts are blanked.
    async fn list(
        &self,
        viewer: &VerifiedPrincipal,
        limit: usize,
    ) -> Result<Vec<AccessRequest>, ApprovalError>;

    /// One request in full, exact texts included, for an eligible reviewer.
    async fn show(&self, id: RequestId, viewer: &VerifiedPrincipal) -> Result<AccessRequest, ApprovalError>;

    /// What happens to requests from now on, for a console, a log or a webhook. The default has nothing to tell.
    fn subscribe(&self) -> ApprovalEvents {
        ApprovalEvents::ended()
    }
}
