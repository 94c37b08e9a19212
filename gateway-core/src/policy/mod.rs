//! The question put to policy and the shapes of its answer.
//!
//! An engine decides; the [pipeline](crate::pipeline) enforces. What an engine cannot answer is a denial.

pub mod cases;
#[cfg(feature = "cedar")]
pub mod cedar;
pub mod patterns;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::Denial;
use crate::operation::{Operation, Resource};
use crate::session::SessionInfo;

/// One question: may this session's principal do this operation now?
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PolicyInput<'a> {
    /// Principal, target and connection facts.
    pub session: &'a SessionInfo,
    /// What it wants to do.
    pub operation: &'a Operation,
    /// Names of the approval rules already satisfied for exactly this operation.
    pub approvals: &'a BTreeSet<String>,
    /// Names of the pattern sets that match the statement.
    pub patterns: &'a BTreeSet<String>,
    /// The time of the question.
    pub now: Timestamp,
}

impl<'a> PolicyInput<'a> {
    /// A question without approvals or matched patterns.
    pub const fn new(session: &'a SessionInfo, operation: &'a Operation, now: Timestamp) -> Self {
        static NONE: BTreeSet<String> = BTreeSet::new();
        Self { session, operation, approvals: &NONE, patterns: &NONE, now }
    }

    /// With these approval rules satisfied.
    #[must_use]
    pub const fn approved(mut self, approvals: &'a BTreeSet<String>) -> Self {
        self.approvals = approvals;
        self
    }

    /// With these pattern sets matched.
    #[must_use]
    pub const fn matching(mut self, patterns: &'a BTreeSet<String>) -> Self {
        self.patterns = patterns;
        self
    }
}

/// The answer.
#[derive(Clone, Debug)]
#[must_use]
pub enum Decision {
    /// It may pass, with duties.
    Allow(Allowed),
    /// It may not.
    Deny(Denial),
    /// It may pass once all of these are approved by people. Never empty.
    Hold(Vec<ApprovalRule>),
}

/// What comes with permission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The policies that decided, by id.
    pub rules: Arc<[String]>,
    /// Duties that the enforcing side must meet, or deny.
    pub obligations: Arc<[Obligation]>,
    /// While this revision is in force, every operation of the session with the same accesses, facts, approvals and patterns gets this
    /// answer, whatever else it is and whenever it is asked. `None`: every operation has to be asked for by itself.
    pub lasts: Option<Revision>,
}

/// A duty tied to an allow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Obligation {
    /// Rewrite the statement before it runs: the adapter's own words, for example `limit:1000` or `read_only`.
    Rewrite(String),
    /// Release at most this many rows (records, lines) of the result; then the operation fails.
    LimitRows(u64),
    /// Release at most this many bytes of the result; then the operation fails.
    LimitBytes(u64),
    /// Change at most this many rows (records); what changes more is undone and fails. Where the adapter cannot undo, it denies.
    LimitAffected(u64),
    /// Together with other operations release at most this much; what goes beyond it is withheld.
    Budget(Budget),
    /// Keep another part of the operation's content in the recording than [`Content::Output`].
    Record(Content),
}

/// What of an operation's content its recording keeps. Lengths and hashes of what passes stand in it in any case where the protocol
/// has content of its own: files, programs' input, forwarded connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Lengths and hashes alone.
    Digest,
    /// What was released to the client.
    #[default]
    Output,
    /// What was released, and what the client sent.
    All,
}

/// What operations may release together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Budget {
    /// Its name in messages. Budgets that differ in anything are different ones.
    pub name: String,
    /// Which operations count together.
    pub per: Per,
    /// Rows (records, lines), if limited.
    pub rows: Option<u64>,
    /// Bytes as released, if limited.
    pub bytes: Option<u64>,
    /// Different subjects, if limited: people or things that released values are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subjects: Option<Subjects>,
    /// How long after the first release it is full again.
    #[serde(with = "seconds")]
    pub window: Duration,
}

/// How many different values of labelled fields may be released, shown or masked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subjects {
    /// At most so many.
    pub limit: u64,
    /// The class of the labelled fields whose values tell one subject from another, for example `email`.
    pub of: String,
}

/// Which operations count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Those of one session.
    Session,
    /// Those of all sessions with the same task of the same issuer; without a task, of the same principal.
    Task,
}

/// What people have to agree to before a held operation may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// The rule's name: what stands in `context.approvals` once satisfied.
    pub name: String,
    /// The group whose members may review.
    pub reviewers: String,
    /// How many distinct people must approve. At least 1.
    pub quorum: u32,
    /// How long the request stays open.
    #[serde(with = "seconds")]
    pub ttl: Duration,
    /// The policies that ask for it, by id.
    pub rules: Vec<String>,
}

mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(d.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_secs)
    }
}

/// The engine failed to answer; the operation is denied and the cause logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy cannot be evaluated: {0}")]
pub struct PolicyError(pub String);

/// Identifies one loaded set of policies. Different sets have different revisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub Arc<str>);

/// Decides operations. Called for every operation, again after each rewrite and again after an approval; an `Err` is a
/// denial. Must not block the thread; may await.
#[async_trait]
pub trait PolicyEngine: Debug + Send + Sync {
    /// May the operation run?
    async fn decide(&self, input: &PolicyInput<'_>) -> Result<Decision, PolicyError>;

    /// For each label (a `Column` or `DataClass` resource): may the principal see its values unmasked? Same length and
    /// order as `labels`. The default is the safe answer: nothing is revealed.
    async fn reveal(&self, input: &PolicyInput<'_>, labels: &[Resource]) -> Result<Vec<bool>, PolicyError> {
        let _ = input;
        Ok(vec![false; labels.len()])
    }

    /// Whether answers of [`reveal`](Self::reveal) may change with the time alone: then they are asked anew for every operation, not only
    /// when the revision changes. The default is for engines that read no clock.
    fn reveal_reads_time(&self) -> bool {
        false
    }

    /// Which set of policies is in force. A change makes live sessions ask again before the next rows.
    fn revision(&self) -> Revision {
        Revision("static".into())
    }
}

/// A closure as an engine, for embedders whose rules are code and for tests. Reveals nothing, and its revision never
/// changes: a closure whose answers change makes no live session ask again by itself.
///
/// ```
/// use gateway_core::error::{Denial, DenialCode};
/// use gateway_core::operation::Effect;
/// use gateway_core::policy::{Allowed, Decision, FnPolicy, PolicyInput};
///
/// let read_only = FnPolicy(|input: &PolicyInput<'_>| match input.operation.effect {
///     Effect::Read => Decision::Allow(Allowed::default()),
///     Effect::Write => Decision::Deny(Denial::new(DenialCode::Forbidden, "only reading is allowed here")),
/// });
/// # let _ = read_only;
/// ```
pub struct FnPolicy<F>(pub F);

impl<F> Debug for FnPolicy<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FnPolicy")
    }
}

#[async_trait]
impl<F: Fn(&PolicyInput<'_>) -> Decision + Send + Sync> PolicyEngine for FnPolicy<F> {
    async fn decide(&self, input: &PolicyInput<'_>) -> Result<Decision, PolicyError> {
        Ok((self.0)(input))
    }
}
