//! Requests and grants in memory: they do not survive the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{
    AccessRequest, ApprovalError, ApprovalEvent, ApprovalEvents, ApprovalFeed, ApprovalLimits, Approver,
    Delivery, Digest, Estimate, RequestId, RequestState, Verdict,
};
use crate::clock::{Clock, Timestamp};
use crate::identity::VerifiedPrincipal;
use crate::policy::ApprovalRule;

/// Requests that are over and still listed. 256: a page of history; usually 500 KiB, with the longest texts 64 MiB.
const MAX_OVER: usize = 256;

/// How long a waiter may sleep before it looks at the clock again, at most. The wall clock can be set and a suspended
/// machine's timers stand still, so an expiry cannot be left to one long timer. 1 s is finer than any rule's time.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// Keeps requests in memory, for one process: tests, embedders and gateways whose grants may die with them.
///
/// ```
/// # use std::sync::Arc;
/// use gateway_core::approval::{ApprovalLimits, MemoryApprover};
/// use gateway_core::clock::SystemClock;
///
/// let limits = ApprovalLimits { open_per_requester: 8, ..ApprovalLimits::default() };
/// let approver = Arc::new(MemoryApprover::new(Arc::new(SystemClock)).with_limits(limits));
/// ```
#[derive(Debug)]
pub struct MemoryApprover {
    clock: Arc<dyn Clock>,
    limits: ApprovalLimits,
    feed: ApprovalFeed,
    requests: Mutex<Requests>,
}

type Requests = BTreeMap<RequestId, AccessRequest>;

impl MemoryApprover {
    /// An approver without requests, with the default limits. `clock` tells when requests expire.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            limits: ApprovalLimits::default(),
            feed: ApprovalFeed::default(),
            requests: Mutex::default(),
        }
    }

    /// With other limits than the default ones.
    #[must_use]
    pub const fn with_limits(mut self, limits: ApprovalLimits) -> Self {
        self.limits = limits;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn later(&self, now: Timestamp) -> Timestamp {
        now.max(self.clock.now())
    }

    /// Makes one transition and tells about it. The state may change (expire) even if `step` fails.
    fn change<R>(
        &self,
        id: RequestId,
        step: impl FnOnce(&mut AccessRequest) -> Result<R, ApprovalError>,
    ) -> Result<R, ApprovalError> {
        let mut requests = self.lock();
        let request = requests.get_mut(&id).ok_or(ApprovalError::Unknown(id))?;
        self.step(request, step)
    }

    fn step<R>(&self, request: &mut AccessRequest, step: impl FnOnce(&mut AccessRequest) -> R) -> R {
        let (state, reviews) = (request.state, request.reviews.len());
        let outcome = step(request);
        if request.state != state {
            self.feed.publish(ApprovalEvent::Changed(Arc::new(request.without_exact())));
        } else if request.reviews.len() != reviews {
            self.feed.publish(ApprovalEvent::Reviewed(Arc::new(request.without_exact())));
        }
        outcome
    }

    fn expire_due(&self, requests: &mut Requests, now: Timestamp) {
        for request in requests.values_mut() {
            self.step(request, |request| request.expire(now));
        }
    }
}

#[async_trait]
impl Approver for MemoryApprover {
    async fn submit(&self, mut request: AccessRequest) -> Result<RequestId, ApprovalError> {
        let now = self.clock.now();
        request.check_new(now)?;
        let mut requests = self.lock();
        if requests.contains_key(&request.id) {
            return Err(ApprovalError::Invalid("its id is taken".to_owned()));
        }
        self.expire_due(&mut requests, now);
        if request.delivery != Delivery::Hold
            && let Some(same) = requests.values().find(|other| other.is_open_for(&request.digest, now))
        {
            return Ok(same.id);
        }
        let open = || requests.values().filter(|other| other.state.is_open());
        let theirs = open().filter(|other| other.requester.actor == request.requester.actor);
        self.limits.check(open().count(), theirs.count())?;
        forget_oldest(&mut requests);
        self.feed.publish(ApprovalEvent::Submitted(Arc::new(request.without_exact())));
        let id = request.id;
        requests.insert(id, request);
        Ok(id)
    }

    async fn decided(&self, id: RequestId) -> Result<RequestState, ApprovalError> {
        let mut events = self.feed.subscribe();
        loop {
            let now = self.clock.now();
            let (state, expires) = self.change(id, |request| {
                request.expire(now);
                Ok((request.state, request.expires))
            })?;
            if state != RequestState::Pending {
                return Ok(state);
            }
            events.about(id, expires.since(now).min(CLOCK_CHECK)).await;
        }
    }

    async fn redeem(
        &self,
        digest: &Digest,
        rules: &[ApprovalRule],
        now: Timestamp,
    ) -> Result<Option<RequestId>, ApprovalError> {
        let now = self.later(now);
        let mut requests = self.lock();
        let mut grants: Vec<&mut AccessRequest> =
            requests.values_mut().filter(|request| request.digest == *digest).collect();
        grants.sort_by_key(|request| (request.delivery == Delivery::Hold, request.created));
        for request in grants {
            if self.step(request, |request| request.redeem(digest, rules, now)) {
                return Ok(Some(request.id));
            }
        }
        Ok(None)
    }

    async fn redeem_request(
        &self,
        id: RequestId,
        digest: &Digest,
        rules: &[ApprovalRule],
        now: Timestamp,
    ) -> Result<bool, ApprovalError> {
        let now = self.later(now);
        self.change(id, |request| Ok(request.redeem(digest, rules, now)))
    }

    async fn estimates(&self, id: RequestId) -> Result<Vec<Estimate>, ApprovalError> {
        self.lock().get(&id).map(AccessRequest::estimates).ok_or(ApprovalError::Unknown(id))
    }

    async fn open_request(
        &self,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<RequestId>, ApprovalError> {
        let now = self.later(now);
        Ok(self.lock().values().find(|request| request.is_open_for(digest, now)).map(|request| request.id))
    }

    async fn revoke(&self, id: RequestId) -> Result<(), ApprovalError> {
        self.change(id, |request| {
            request.revoke();
            Ok(())
        })
    }

    fn abandon(&self, id: RequestId) {
        // One that is not known any more is over.
        let _ = self.change(id, |request| Ok(request.revoke()));
    }

    async fn review(
        &self,
        id: RequestId,
        reviewer: &VerifiedPrincipal,
        verdict: Verdict,
        comment: Option<String>,
        now: Timestamp,
    ) -> Result<AccessRequest, ApprovalError> {
        let now = self.later(now);
        self.change(id, |request| {
            request.review(reviewer, verdict, comment, now)?;
            Ok(request.without_exact())
        })
    }

    async fn list(
        &self,
        viewer: &VerifiedPrincipal,
        limit: usize,
    ) -> Result<Vec<AccessRequest>, ApprovalError> {
        let now = self.clock.now();
        let mut requests = self.lock();
        self.expire_due(&mut requests, now);
        let mut visible: Vec<&AccessRequest> =
            requests.values().filter(|request| request.is_visible_to(viewer, now)).collect();
        visible.sort_by_key(|request| std::cmp::Reverse((request.created, request.id)));
        Ok(visible.into_iter().take(limit).map(AccessRequest::without_exact).collect())
    }

    async fn show(&self, id: RequestId, viewer: &VerifiedPrincipal) -> Result<AccessRequest, ApprovalError> {
        let now = self.clock.now();
        self.change(id, |request| {
            request.expire(now);
            if request.check_reviewer(viewer, now).is_ok() {
                return Ok(request.clone());
            }
            let visible = request.is_visible_to(viewer, now).then(|| request.without_exact());
            visible.ok_or(ApprovalError::Unknown(id))
        })
    }

    fn subscribe(&self) -> ApprovalEvents {
        self.feed.subscribe()
    }
}

/// Makes room among the requests that are over. Waiters have been woken when a request ended, so they miss nothing.
fn forget_oldest(requests: &mut Requests) {
    let over = || requests.values().filter(|request| !request.state.is_open());
    if over().count() < MAX_OVER {
        return;
    }
    let oldest = over().min_by_key(|request| request.expires).map(|request| request.id);
    oldest.and_then(|id| requests.remove(&id));
}
