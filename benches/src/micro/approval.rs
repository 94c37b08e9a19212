//! Looking for a grant that is not there: what every operation that needs approval pays first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::{
    AccessRequest, Approver, Delivery, DigestKey, Estimate, MemoryApprover, OperationSummary, RequestId,
    RequestState,
};
use gateway_core::clock::{Clock, SystemClock, Timestamp};
use gateway_core::identity::{Principal, PrincipalKind};
use gateway_core::policy::ApprovalRule;
use gateway_core::session::SessionId;
use tokio::runtime::Builder;

use crate::report::Report;
use crate::sample::nanoseconds;
use crate::{Result, Size};

pub(super) fn run(size: Size, report: &mut Report) -> Result<()> {
    let runtime = Builder::new_current_thread().build()?;
    let clock = SystemClock;
    let key = DigestKey::random()?;
    let absent = key.bytes(b"an operation nobody has asked for");
    for open in [0_u32, 500] {
        let approver = MemoryApprover::new(Arc::new(SystemClock));
        let requests = (0..open).map(|i| request(&key, i, clock.now())).collect::<Result<Vec<_>>>()?;
        runtime.block_on(async {
            for request in requests {
                approver.submit(request).await?;
            }
            Ok::<_, crate::Error>(())
        })?;
        let (rules, now) = ([rule()], clock.now());
        let mut granted = 0_u32;
        let time = nanoseconds(size, || {
            let redeemed = runtime.block_on(approver.redeem(&absent, &rules, now));
            granted += u32::from(!matches!(redeemed, Ok(None)));
        });
        if granted > 0 {
            return Err("an approval was found that nobody gave".into());
        }
        report.add(&format!("redeem, {open} open requests"), "miss", "time", time, "ns");
    }
    Ok(())
}

fn rule() -> ApprovalRule {
    ApprovalRule {
        name: "dba".to_owned(),
        reviewers: "dba".to_owned(),
        quorum: 1,
        ttl: Duration::from_secs(900),
        rules: vec!["deletes-are-reviewed".to_owned()],
    }
}

fn request(key: &DigestKey, number: u32, now: Timestamp) -> Result<AccessRequest> {
    let text = format!("DELETE FROM orders WHERE id = {number}");
    let mut requester = Principal::new(
        PrincipalKind::Agent,
        "https://idp.test",
        format!("agent-{number}"),
        now.plus(Duration::from_secs(3600)),
    );
    requester.groups = BTreeSet::from(["agents".to_owned()]);
    Ok(AccessRequest {
        id: RequestId::random()?,
        digest: key.bytes(text.as_bytes()),
        session: SessionId::random()?,
        requester,
        target: "bench".to_owned(),
        rules: vec![rule()],
        operations: vec![OperationSummary {
            kind: "delete".to_owned(),
            masked: text.clone(),
            exact: text,
            accesses: Vec::new(),
            estimate: Estimate::default(),
        }],
        delivery: Delivery::Retry,
        created: now,
        expires: now.plus(Duration::from_secs(900)),
        state: RequestState::Pending,
        reviews: Vec::new(),
    })
}
