//! The in-memory approver does what every approver must do.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod approval_suite;

use std::sync::Arc;

use approval_suite::{START, Subject};
use gateway_core::approval::MemoryApprover;
use gateway_core::clock::ManualClock;

async fn make() -> Subject {
    let clock = Arc::new(ManualClock::new(START));
    Subject { approver: Arc::new(MemoryApprover::new(clock.clone())), clock, keep: Box::new(()) }
}

approver_suite!(make);

mod limits {
    use std::sync::Arc;

    use gateway_core::approval::{ApprovalError, ApprovalLimits, Approver, Delivery, MemoryApprover};
    use gateway_core::clock::ManualClock;

    use super::approval_suite::{START, dba, dba_rule, digest, request};

    #[tokio::test]
    async fn all_requesters_together_are_bounded() {
        let limits = ApprovalLimits { open: 4, ..ApprovalLimits::default() };
        let approver = MemoryApprover::new(Arc::new(ManualClock::new(START))).with_limits(limits);
        let by = |n: usize| {
            let mut request = request(Delivery::Retry, dba_rule());
            request.requester.actor.subject = n.to_string();
            request.digest = digest(&n.to_string());
            request
        };
        for n in 0..4 {
            approver.submit(by(n)).await.unwrap();
        }
        assert_eq!(approver.submit(by(4)).await, Err(ApprovalError::TooMany(4)));
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_in_the_end() {
        let approver = MemoryApprover::new(Arc::new(ManualClock::new(START)));
        for _ in 0..300 {
            let request = request(Delivery::Retry, dba_rule());
            let id = request.id;
            approver.submit(request).await.unwrap();
            approver.abandon(id);
        }
        assert_eq!(approver.list(&dba("ada").await, usize::MAX).await.unwrap().len(), 256);
    }
}
