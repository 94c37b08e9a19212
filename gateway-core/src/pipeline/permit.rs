//! The proof types: undecided, permitted, refused.

use std::sync::Arc;

use super::estimates::Estimator;
use super::guard::GuardInner;
use super::held::Held;
use super::release::Results;
use crate::error::Denial;
use crate::operation::{Batch, OperationId};
use crate::policy::Obligation;

/// A batch nobody has allowed yet. Dropping it refuses it.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    pub(super) guard: Arc<GuardInner>,
    pub(super) batch: Batch,
    pub(super) first: OperationId,
    /// The rewrites it was brought into line with when it was judged.
    pub(super) settled: Vec<String>,
    /// A change of too many rows is undone by the adapter.
    pub(super) undoes: bool,
    /// Who tells what it would do, once it is to be held.
    pub(super) estimator: Option<Arc<dyn Estimator>>,
}

impl Pending {
    /// What waits to be judged.
    pub const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The number of the first operation; the others follow in order.
    pub const fn first(&self) -> OperationId {
        self.first
    }

    pub(super) fn ids(&self) -> Vec<OperationId> {
        (0..self.batch.operations().len() as u64).map(|i| OperationId(self.first.0 + i)).collect()
    }
}

/// Proof that a batch was decided, approved if needed, and recorded. Consumed by forwarding it.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    pub(super) batch: Batch,
    pub(super) first: OperationId,
    pub(super) results: Results,
    pub(super) obligations: Arc<[Obligation]>,
    pub(super) approved: bool,
}

impl Permit {
    /// Whether people approved it: what they were shown must be what runs.
    pub const fn is_approved(&self) -> bool {
        self.approved
    }

    /// The duties that came with the permission. Caps on results and rewrites of the text are met already; the adapter meets the others
    /// while it forwards, or does not forward.
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }

    /// The number of the first operation.
    pub const fn first(&self) -> OperationId {
        self.first
    }

    /// The permitted batch, after rewriting.
    pub const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Uses the permit up: the batch to forward, and the only way its results may leave.
    pub fn consume(self) -> (Batch, Results) {
        (self.batch, self.results)
    }
}

/// A batch that may not run, and what to tell the agent.
#[derive(Debug)]
pub struct Refused {
    /// The number of the first operation.
    pub first: OperationId,
    /// The words.
    pub denial: Denial,
}

/// The outcome of judging.
#[derive(Debug)]
#[must_use]
pub enum Judged {
    /// Forward it.
    Permit(Box<Permit>),
    /// Wait for people.
    Held(Box<Held>),
    /// Tell the agent.
    Refused(Refused),
}
