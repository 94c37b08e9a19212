//! What happens to requests, for whoever wants to follow: a console, a log, a webhook, a waiting hold.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};

use super::{AccessRequest, RequestId};

/// Events kept for a subscriber that is slow; older ones are counted as missed. 128: a burst of submissions; usually 100 KiB,
/// with the longest texts that a request may have 32 MiB.
const FEED_EVENTS: usize = 128;

/// Something happened to a request. The request is as it stands after it, its exact texts blanked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApprovalEvent {
    /// It was made and waits for reviews.
    Submitted(Arc<AccessRequest>),
    /// A person gave a verdict that did not decide it yet.
    Reviewed(Arc<AccessRequest>),
    /// Its state changed: it was decided, used, withdrawn, or its time ran out.
    Changed(Arc<AccessRequest>),
    /// The subscriber was too slow: this many events are lost to it. List the requests to catch up.
    Missed(u64),
}

impl ApprovalEvent {
    /// The request it is about; `None` for lost events.
    pub fn request(&self) -> Option<&AccessRequest> {
        match self {
            Self::Submitted(request) | Self::Reviewed(request) | Self::Changed(request) => Some(request),
            Self::Missed(_) => None,
        }
    }
}

/// The sending end, kept by an approver. Never blocks and never grows.
#[derive(Debug)]
pub struct ApprovalFeed(broadcast::Sender<ApprovalEvent>);

impl Default for ApprovalFeed {
    fn default() -> Self {
        Self(broadcast::Sender::new(FEED_EVENTS))
    }
}

impl ApprovalFeed {
    /// Tells all subscribers. Call it after the change is stored, never before.
    pub fn publish(&self, event: ApprovalEvent) {
        // No subscriber is no error.
        let _ = self.0.send(event);
    }

    /// Everything published from now on.
    pub fn subscribe(&self) -> ApprovalEvents {
        ApprovalEvents(self.0.subscribe())
    }
}

/// A subscription to what happens to requests.
#[derive(Debug)]
pub struct ApprovalEvents(broadcast::Receiver<ApprovalEvent>);

impl ApprovalEvents {
    /// A subscription that has already ended.
    pub fn ended() -> Self {
        ApprovalFeed::default().subscribe()
    }

    /// The next event; `None` once the approver is gone.
    pub async fn next(&mut self) -> Option<ApprovalEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(ApprovalEvent::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// Waits until something happened, or may have happened, to this request, for `at_most` this long.
    pub async fn about(&mut self, id: RequestId, at_most: Duration) {
        let happened = async {
            while let Some(event) = self.next().await {
                if event.request().is_none_or(|request| request.id == id) {
                    return;
                }
            }
            // The approver is gone: there is nothing to wake for before the time is over.
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(at_most, happened).await;
    }
}
