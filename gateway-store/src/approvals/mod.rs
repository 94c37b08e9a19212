//! Requests and grants in the database: they survive a restart, except those whose wire waits.

pub(crate) mod ledger;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::approval::{
    AccessRequest, ApprovalError, ApprovalEvents, ApprovalFeed, ApprovalLimits, Approver, Delivery, Digest,
    Estimate, RequestId, RequestState, Verdict,
};
use gateway_core::clock::{Clock, Timestamp};
use gateway_core::identity::VerifiedPrincipal;
use gateway_core::policy::ApprovalRule;
use rusqlite::{Connection, TransactionBehavior};

use crate::database::{Database, scrub};
use crate::error::StoreError;
use crate::keys::Sealer;
use ledger::Ledger;

/// How often a waiter looks into the database itself. Decisions made in this process wake it at once; this is for decisions
/// of another process, and for a clock that was set. 1 s: unnoticed by people, and 1024 waiters cost a hundredth of a core.
const DECISION_POLL: Duration = Duration::from_secs(1);

/// Keeps requests in the store's database. Made by [`Store::approver`](crate::Store::approver).
///
/// Every change is one `IMMEDIATE` transaction with the transitions of `gateway-core`, durable before it is answered, so
/// that racing connections and processes redeem a grant once. A hold can be redeemed by the store that submitted it only.
#[derive(Debug)]
pub struct SqliteApprover(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    database: Database,
    instance: String,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    limits: ApprovalLimits,
    feed: ApprovalFeed,
    /// Abandoned where nobody could wait for the database. Every transaction of this store revokes them first, so none is
    /// redeemed; they leave the set once that is durable. At most one per hold of this process.
    abandoned: Mutex<BTreeSet<RequestId>>,
}

impl SqliteApprover {
    pub(crate) fn new(
        database: Database,
        instance: String,
        sealer: Sealer,
        clock: Arc<dyn Clock>,
        limits: ApprovalLimits,
    ) -> Self {
        let (feed, abandoned) = (ApprovalFeed::default(), Mutex::default());
        Self(Arc::new(Shared { database, instance, sealer, clock, limits, feed, abandoned }))
    }

    async fn transact<R: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Ledger<'_>) -> Result<R, ApprovalError> + Send + 'static,
    ) -> Result<R, ApprovalError> {
        let shared = Arc::clone(&self.0);
        self.0.database.call(move |connection| shared.transact(connection, step)).await?
    }

    /// State and expiry, by a plain read unless something has to change.
    async fn standing(&self, id: RequestId) -> Result<(RequestState, Timestamp), ApprovalError> {
        let now = self.0.clock.now();
        let shared = Arc::clone(&self.0);
        let look = move |connection: &mut Connection| {
            let standing = ledger::standing(connection, id)?.ok_or(ApprovalError::Unknown(id))?;
            let due = standing.0.is_open() && standing.1 <= now;
            if !due && shared.abandoned().is_empty() {
                return Ok(standing);
            }
            shared.transact(connection, move |ledger| {
                ledger.change(id, |request| {
                    request.expire(now);
                    Ok((request.state, request.expires))
                })
            })
        };
        self.0.database.call(look).await?
    }

    fn later(&self, now: Timestamp) -> Timestamp {
        now.max(self.0.clock.now())
    }
}

impl Shared {
    /// One transaction on the store's thread. Refusals are committed too, because a request may expire on the way to one;
    /// failures of the store undo everything.
    fn transact<R>(
        &self,
        connection: &mut Connection,
        step: impl FnOnce(&mut Ledger<'_>) -> Result<R, ApprovalError>,
    ) -> Result<R, ApprovalError> {
        let tx =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let mut ledger = Ledger::new(&tx, &self.instance, &self.sealer);
        let abandoned: Vec<RequestId> = self.abandoned().iter().copied().collect();
        let outcome = ledger.revoke_all(&abandoned).and_then(|()| step(&mut ledger));
        if let Err(ApprovalError::Store(_)) = outcome {
            return outcome;
        }
        let changes = ledger.into_changes();
        tx.commit().map_err(StoreError::from)?;
        self.abandoned().retain(|id| !abandoned.contains(id));
        changes.events.into_iter().for_each(|event| self.feed.publish(event));
        if changes.erased {
            scrub(connection);
        }
        outcome
    }

    fn abandoned(&self) -> MutexGuard<'_, BTreeSet<RequestId>> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Approver for SqliteApprover {
    async fn submit(&self, mut request: AccessRequest) -> Result<RequestId, ApprovalError> {
        let (now, limits) = (self.0.clock.now(), self.0.limits);
        request.check_new(now)?;
        self.transact(move |ledger| {
            ledger.expire_due(now)?;
            if request.delivery != Delivery::Hold
                && let Some(same) = ledger.open_request(&request.digest, now)?.filter(|id| *id != request.id)
            {
                return Ok(same);
            }
            let (open, theirs) = ledger.count_open(&request.requester.actor)?;
            limits.check(open, theirs)?;
            ledger.insert(&request)?;
            ledger.forget_oldest()?;
            Ok(request.id)
        })
        .await
    }

    async fn decided(&self, id: RequestId) -> Result<RequestState, ApprovalError> {
        let mut events = self.0.feed.subscribe();
        loop {
            let (state, expires) = self.standing(id).await?;
            if state != RequestState::Pending {
                return Ok(state);
            }
            events.about(id, expires.since(self.0.clock.now()).min(DECISION_POLL)).await;
        }
    }

    async fn redeem(
        &self,
        digest: &Digest,
        rules: &[ApprovalRule],
        now: Timestamp,
    ) -> Result<Option<RequestId>, ApprovalError> {
        let (digest, rules, now) = (*digest, rules.to_vec(), self.later(now));
        self.transact(move |ledger| {
            for id in ledger.grants(&digest)? {
                if ledger.redeem(id, &digest, &rules, now)? {
                    return Ok(Some(id));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn redeem_request(
        &self,
        id: RequestId,
        digest: &Digest,
        rules: &[ApprovalRule],
        now: Timestamp,
    ) -> Result<bool, ApprovalError> {
        let (digest, rules, now) = (*digest, rules.to_vec(), self.later(now));
        self.transact(move |ledger| {
            let grants = ledger.grants(&digest)?;
            Ok(grants.contains(&id) && ledger.redeem(id, &digest, &rules, now)?)
        })
        .await
    }

    async fn estimates(&self, id: RequestId) -> Result<Vec<Estimate>, ApprovalError> {
        let look = move |connection: &mut Connection| -> Result<_, ApprovalError> {
            ledger::estimates(connection, id)?.ok_or(ApprovalError::Unknown(id))
        };
        self.0.database.call(look).await?
    }

    async fn open_request(
        &self,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<RequestId>, ApprovalError> {
        let (digest, now) = (*digest, self.later(now));
        self.transact(move |ledger| Ok(ledger.open_request(&digest, now)?)).await
    }

    async fn revoke(&self, id: RequestId) -> Result<(), ApprovalError> {
        self.transact(move |ledger| {
            ledger.change(id, |request| Ok(request.revoke()))?;
            Ok(())
        })
        .await
    }

    fn abandon(&self, id: RequestId) {
        self.0.abandoned().insert(id);
        let shared = Arc::clone(&self.0);
        // A full queue is no loss: the next transaction of this store does it.
        self.0.database.post(move |connection| {
            if let Err(error) = shared.transact(connection, |_| Ok(())) {
                tracing::warn!(%error, "an abandoned request could not be revoked yet");
            }
        });
    }

    async fn review(
        &self,
        id: RequestId,
        reviewer: &VerifiedPrincipal,
        verdict: Verdict,
        comment: Option<String>,
        now: Timestamp,
    ) -> Result<AccessRequest, ApprovalError> {
        let (reviewer, now) = (reviewer.clone(), self.later(now));
        self.transact(move |ledger| {
            ledger.change(id, |request| {
                request.review(&reviewer, verdict, comment, now)?;
                Ok(request.without_exact())
            })
        })
        .await
    }

    async fn list(
        &self,
        viewer: &VerifiedPrincipal,
        limit: usize,
    ) -> Result<Vec<AccessRequest>, ApprovalError> {
        let (viewer, now) = (viewer.clone(), self.0.clock.now());
        self.transact(move |ledger| {
            ledger.expire_due(now)?;
            Ok(ledger.newest(limit, |request| request.is_visible_to(&viewer, now))?)
        })
        .await
    }

    async fn show(&self, id: RequestId, viewer: &VerifiedPrincipal) -> Result<AccessRequest, ApprovalError> {
        let (viewer, now) = (viewer.clone(), self.0.clock.now());
        self.transact(move |ledger| {
            let request = ledger.change(id, |request| {
                request.expire(now);
                Ok(request.clone())
            })?;
            if request.check_reviewer(&viewer, now).is_ok() {
                return Ok(ledger.with_exact(request)?);
            }
            request.is_visible_to(&viewer, now).then_some(request).ok_or(ApprovalError::Unknown(id))
        })
        .await
    }

    fn subscribe(&self) -> ApprovalEvents {
        self.0.feed.subscribe()
    }
}
