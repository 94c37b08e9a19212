//! The one order in which everything happens: authorize, rewrite, judge again, hold, record, forward; mask, record, release.
//!
//! ```text
//! Guard::open          connect is judged, the recording begins
//! Guard::pending       an operation nobody has allowed yet
//! Guard::judge         -> Permit | Held | Refused
//! Permit::consume      -> the batch to forward, and the Results through which alone its answer may leave
//! Results::release     -> Released: masked and recorded
//! ```
//! An adapter supplies words and bytes; it never has its own version of this order.

mod admit;
mod budgets;
mod content;
mod counters;
mod estimates;
mod exchange;
mod guard;
mod held;
mod memo;
mod permit;
mod recorded;
mod release;

use std::fmt::Debug;
use std::sync::Arc;

pub use content::{Input, Tally};
pub use estimates::Estimator;
pub use exchange::Hold;
pub use guard::{Guard, SessionRequest};
pub use held::Held;
pub use permit::{Judged, Pending, Permit, Refused};
pub use release::{Label, Masker, Released, ResultStream, Results};

use crate::approval::{Approver, Delivery, DigestKey};
use crate::clock::{Clock, SystemClock};
use crate::credentials::CredentialSource;
use crate::error::{Denial, DenialCode};
use crate::identity::{Authenticator, Presented, VerifiedPrincipal, verify};
use crate::masking::{MaskKey, RuleSet, Scanner};
use crate::operation::Operation;
use crate::policy::PolicyEngine;
use crate::policy::patterns::PatternSets;
use crate::recording::Recorder;

/// How an adapter changes a statement when an obligation asks for it. Called at most four times per batch.
pub trait Rewriter: Send + Sync {
    /// The operation after all `rewrites` (the texts of [`Obligation::Rewrite`](crate::policy::Obligation::Rewrite)), analysed anew, or
    /// `None` if it already satisfies them.
    ///
    /// # Errors
    /// A denial if a rewrite is unknown or cannot be applied.
    fn rewrite(&self, operation: &Operation, rewrites: &[&str]) -> Result<Option<Operation>, Denial>;

    /// Whether the adapter undoes a change of more rows than [`Obligation::LimitAffected`](crate::policy::Obligation::LimitAffected)
    /// allows, which it finds among the [permit's obligations](Permit::obligations). Where it does not, such a change is denied.
    fn undoes_changes(&self) -> bool {
        false
    }

    /// Who tells people what operations would do. Called only for a batch that is to be held or has been approved; the default tells
    /// nothing.
    fn estimator(&self) -> Option<Arc<dyn Estimator>> {
        None
    }
}

/// For adapters and embedders that cannot rewrite: every rewrite is an obligation that cannot be met.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRewrites;

impl Rewriter for NoRewrites {
    fn rewrite(&self, _operation: &Operation, rewrites: &[&str]) -> Result<Option<Operation>, Denial> {
        let message =
            format!("the policy asks for the rewrite `{}`, which is not possible here", rewrites.join("; "));
        Err(Denial::new(DenialCode::ObligationUnmet, message))
    }
}

/// Everything sessions share. Cheap to clone; built once.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) policy: Arc<dyn PolicyEngine>,
    pub(crate) approver: Arc<dyn Approver>,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) credentials: Arc<dyn CredentialSource>,
    pub(crate) scanner: Arc<Scanner>,
    pub(crate) mask_key: MaskKey,
    pub(crate) patterns: Arc<PatternSets>,
    pub(crate) digest_key: DigestKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) delivery: Delivery,
    pub(crate) budgets: Arc<budgets::Budgets>,
}

impl Pipeline {
    /// Starts building a pipeline around the five parts nobody may leave out.
    pub fn builder(
        authenticator: Arc<dyn Authenticator>,
        policy: Arc<dyn PolicyEngine>,
        approver: Arc<dyn Approver>,
        recorder: Arc<dyn Recorder>,
        credentials: Arc<dyn CredentialSource>,
    ) -> PipelineBuilder {
        PipelineBuilder {
            authenticator,
            policy,
            approver,
            recorder,
            credentials,
            scanner: None,
            mask_key: None,
            patterns: Arc::default(),
            digest_key: None,
            clock: Arc::new(SystemClock),
            delivery: Delivery::Hold,
        }
    }

    /// Verifies what a client presented.
    ///
    /// # Errors
    /// A denial that tells the client no more than it needs; the cause is in the log part.
    pub async fn authenticate(&self, presented: &Presented) -> Result<VerifiedPrincipal, Denial> {
        verify(&*self.authenticator, presented, &*self.clock).await.map_err(|cause| {
            Denial::new(DenialCode::Unauthenticated, "the presented identity was not accepted")
                .with_hint("present a current token for this gateway's audience")
                .with_cause(cause)
        })
    }

    /// The approver, for the channel through which people review.
    pub fn approver(&self) -> &Arc<dyn Approver> {
        &self.approver
    }

    /// Where upstream credentials come from.
    pub fn credentials(&self) -> &Arc<dyn CredentialSource> {
        &self.credentials
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The policy engine.
    pub fn policy(&self) -> &Arc<dyn PolicyEngine> {
        &self.policy
    }
}

/// Choices with safe defaults around the parts given to [`Pipeline::builder`].
#[derive(Debug)]
pub struct PipelineBuilder {
    authenticator: Arc<dyn Authenticator>,
    policy: Arc<dyn PolicyEngine>,
    approver: Arc<dyn Approver>,
    recorder: Arc<dyn Recorder>,
    credentials: Arc<dyn CredentialSource>,
    scanner: Option<Arc<Scanner>>,
    mask_key: Option<MaskKey>,
    patterns: Arc<PatternSets>,
    digest_key: Option<DigestKey>,
    clock: Arc<dyn Clock>,
    delivery: Delivery,
}

impl PipelineBuilder {
    /// What content is masked. Default: the built-in rules.
    #[must_use]
    pub fn scanner(mut self, scanner: Scanner) -> Self {
        self.scanner = Some(Arc::new(scanner));
        self
    }

    /// The key of hashes and tokens. Default: random, so tokens differ after a restart.
    #[must_use]
    pub fn mask_key(mut self, key: MaskKey) -> Self {
        self.mask_key = Some(key);
        self
    }

    /// Named pattern sets for `context.patterns`. Default: none.
    #[must_use]
    pub fn patterns(mut self, patterns: PatternSets) -> Self {
        self.patterns = Arc::new(patterns);
        self
    }

    /// The key of operation digests. Default: random, so grants do not survive a restart.
    #[must_use]
    pub fn digest_key(mut self, key: DigestKey) -> Self {
        self.digest_key = Some(key);
        self
    }

    /// The clock. Default: the operating system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How approvals are delivered. Default: hold. Adapters may choose retry where a hold would keep locks.
    #[must_use]
    pub const fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// The pipeline.
    ///
    /// # Errors
    /// No randomness for a default key, or the default rules cannot be built.
    pub fn build(self) -> Result<Pipeline, BuildError> {
        Ok(Pipeline {
            authenticator: self.authenticator,
            policy: self.policy,
            approver: self.approver,
            recorder: self.recorder,
            credentials: self.credentials,
            scanner: match self.scanner {
                Some(scanner) => scanner,
                None => Arc::new(Scanner::new(RuleSet::builtin()).map_err(|e| BuildError(e.to_string()))?),
            },
            mask_key: self
                .mask_key
                .map_or_else(MaskKey::random, Ok)
                .map_err(|e| BuildError(e.to_string()))?,
            patterns: self.patterns,
            digest_key: self
                .digest_key
                .map_or_else(DigestKey::random, Ok)
                .map_err(|e| BuildError(e.to_string()))?,
            clock: self.clock,
            delivery: self.delivery,
            budgets: Arc::default(),
        })
    }
}

/// The pipeline cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline cannot be built: {0}")]
pub struct BuildError(String);
