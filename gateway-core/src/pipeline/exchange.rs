//! Shorter ways through the pipeline for protocols that ask and answer in turn. They add no order of their own: each is one of the
//! steps of the pipeline with the waiting around it.

use bytes::Bytes;

use super::{
    Guard, Held, Judged, Masker, Pending, Permit, Pipeline, Released, Results, Rewriter, SessionRequest,
};
use crate::approval::RequestId;
use crate::clock::Timestamp;
use crate::credentials::UpstreamCredential;
use crate::error::{Denial, DenialCode};
use crate::identity::VerifiedPrincipal;
use crate::operation::Resource;
use crate::session::CloseReason;

/// A hold as a client is told of it. `Display` gives one line, for example
/// `held for approval by dba; request 7f3a...; waiting until 2026-11-21T10:00:00Z`.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The request people see.
    pub request: RequestId,
    /// The groups asked to review.
    pub reviewers: Vec<String>,
    /// When the hold ends by itself.
    pub expires: Timestamp,
}

impl Hold {
    fn new(held: &Held) -> Self {
        let reviewers = held.reviewers().map(str::to_owned).collect();
        Self { request: held.request(), reviewers, expires: held.expires() }
    }
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reviewers = self.reviewers.join(" and ");
        write!(
            f,
            "held for approval by {reviewers}; request {}; waiting until {}",
            self.request, self.expires
        )
    }
}

impl SessionRequest {
    /// A session with the whole of `target`: no scope inside it, and no labelled fields.
    pub fn new(
        principal: VerifiedPrincipal,
        protocol: &'static str,
        target: impl Into<String>,
        peer: impl Into<String>,
    ) -> Self {
        let target = target.into();
        let connects_to = vec![Resource::target(&target)];
        let labels = std::sync::Arc::default();
        Self { principal, protocol, target, scope: None, peer: peer.into(), connects_to, labels }
    }
}

impl Pipeline {
    /// Opens a session, fetches the target's credential, whose secrets the session masks from then on, and has `connect` log in with
    /// it. Close the guard once the session is over.
    ///
    /// # Errors
    /// The denial to tell the client, who does not learn what is wrong with the target; no session is left open.
    pub async fn enter<U, E: std::fmt::Display>(
        &self,
        request: SessionRequest,
        connect: impl AsyncFnOnce(&UpstreamCredential) -> Result<U, E>,
    ) -> Result<(Guard, U), Denial> {
        let guard = Guard::open(self, request).await?;
        let info = guard.info();
        let connected = match self.credentials().credential(&info.target, Some(&info.principal)).await {
            Ok(credential) => {
                guard.protect(credential.secrets());
                connect(&credential).await.map_err(|cause| cause.to_string())
            }
            Err(cause) => Err(cause.to_string()),
        };
        match connected {
            Ok(upstream) => Ok((guard, upstream)),
            Err(cause) => {
                let _ = guard.close(CloseReason::Upstream).await;
                let message = format!("target `{}` is not available", guard.info().target);
                Err(Denial::new(DenialCode::UpstreamUnavailable, message)
                    .with_hint("try again later, or tell the gateway's operator")
                    .with_cause(cause))
            }
        }
    }
}

impl Guard {
    /// Has `pending` judged, and waits if it is held. `waiting` is called with the hold: it tells the client, and then ends when
    /// the client gives up, which withdraws the request. While it has not ended the hold goes on.
    ///
    /// # Errors
    /// The denial to tell the client. It is recorded.
    pub async fn decide(
        &self,
        pending: Pending,
        rewriter: &dyn Rewriter,
        waiting: impl AsyncFnOnce(Hold),
    ) -> Result<Permit, Denial> {
        let judged = match self.judge(pending, rewriter).await {
            Judged::Held(held) => {
                let hold = Hold::new(&held);
                let mut decided = std::pin::pin!(held.wait());
                tokio::select! {
                    judged = &mut decided => judged,
                    // Dropping the wait records the end of the hold and withdraws the request.
                    () = waiting(hold) => return Err(Denial::new(DenialCode::Cancelled, "the held operation was given up")),
                }
            }
            judged => judged,
        };
        match judged {
            Judged::Permit(permit) => Ok(*permit),
            Judged::Refused(refused) => Err(refused.denial),
            Judged::Held(held) => Err(held.cancel().await),
        }
    }

    /// Waits for `next` as long as the session's identity is valid.
    ///
    /// # Errors
    /// The identity's time is over: end the session.
    pub async fn while_valid<T>(&self, next: impl Future<Output = T>) -> Result<T, CloseReason> {
        let left = self.expires_at().since(self.pipeline().clock().now());
        tokio::time::timeout(left, next).await.map_err(|_| CloseReason::IdentityExpired)
    }

    /// Releases a piece of an answer as [`Results::release`] does. Before that it waits while the recorder is behind and adopts
    /// masks that became stricter; after it, where recordings are strict, it waits until the piece is on disk.
    ///
    /// # Errors
    /// Those of [`Results::release`]; the rest of the answer must not be sent.
    pub async fn release(
        &self,
        results: &mut Results,
        encoding: &'static str,
        raw: Bytes,
        rows: u64,
        mask: impl FnOnce(&mut Masker<'_>, &Bytes) -> Result<Option<Bytes>, Denial>,
    ) -> Result<Released, Denial> {
        if results.is_stale() || !self.has_room() {
            self.catch_up().await?;
            results.adopt_masks();
        }
        let released = results.release(encoding, raw, rows, mask)?;
        if self.is_strict() {
            self.settle().await?;
        }
        Ok(released)
    }
}
