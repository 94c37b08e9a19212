//! What a held operation would do, told to the people who decide and looked at again before it runs.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use super::admit::{approval_failed, escape};
use super::guard::{GuardInner, recorder_failed};
use super::permit::Pending;
use crate::approval::{Estimate, RequestId};
use crate::error::{Denial, DenialCode};
use crate::masking::ClassSet;
use crate::operation::Operation;
use crate::recording::Record;

/// Longest time one estimate may take. 5 s: people take longer to look, and an agent that waits for them does not notice.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Operations of one batch that are estimated. 16: more than a person compares, and a pipeline of a thousand asks no more of a server.
const MAX_OPERATIONS: usize = 16;

/// Lines told of one operation. 32: what matters comes first, and a person reads no more.
const MAX_NOTES: usize = 32;

/// Longest such line, in bytes. 300: two names of the longest kind and some words.
const MAX_NOTE_BYTES: usize = 300;

/// How an adapter tells what operations would do. Asked when they are put up for approval, before people see them, and once more
/// before they run.
///
/// It must have no effect at the target, must not wait for what the session itself keeps from going on, and has at most 5 s.
#[async_trait]
pub trait Estimator: Debug + Send + Sync {
    /// One estimate for each of the operations, in order, as they would be forwarded. What cannot be told is
    /// [`Estimate::unknown`]; the request is made all the same.
    async fn estimate(&self, operations: &[Operation]) -> Vec<Estimate>;
}

impl GuardInner {
    /// What the batch is expected to do, as people may see it: one for each operation, all empty without an estimator.
    pub(super) async fn estimates(&self, pending: &Pending) -> Vec<Estimate> {
        let operations = pending.batch.operations();
        let Some(estimator) = &pending.estimator else { return vec![Estimate::default(); operations.len()] };
        let asked = operations.get(..MAX_OPERATIONS).unwrap_or(operations);
        let found = tokio::time::timeout(MAX_TIME, estimator.estimate(asked)).await;
        let late = || Estimate::unknown(format_args!("it took more than {} s", MAX_TIME.as_secs()));
        let mut found = found.unwrap_or_else(|_| asked.iter().map(|_| late()).collect()).into_iter();
        let more =
            || Estimate::unknown(format_args!("only {MAX_OPERATIONS} operations are estimated at once"));
        let all = (0..operations.len()).map(|i| if i < asked.len() { found.next() } else { Some(more()) });
        all.map(|estimate| self.shown(estimate.unwrap_or_else(|| Estimate::unknown("none was made"))))
            .collect()
    }

    /// Notes come with names, which agents choose: masked, escaped and bounded like everything that is shown.
    fn shown(&self, mut estimate: Estimate) -> Estimate {
        let more = estimate.notes.len().saturating_sub(MAX_NOTES);
        estimate.notes.truncate(MAX_NOTES);
        estimate.notes.iter_mut().for_each(|note| *note = self.shown_note(note));
        if more > 0 {
            estimate.notes.push(format!("and {more} lines more"));
        }
        estimate
    }

    fn shown_note(&self, note: &str) -> String {
        let masked = self.pipeline.scanner.mask(note.as_bytes(), &ClassSet::default());
        let text = masked.as_ref().map_or(note.as_bytes(), |masked| masked.text.as_slice());
        let mut shown = escape(text).replace(['\n', '\t'], " ");
        if shown.len() > MAX_NOTE_BYTES {
            shown.truncate(shown.floor_char_boundary(MAX_NOTE_BYTES));
            shown.push('…');
        }
        shown
    }

    /// The record of what was told, if anything was.
    pub(super) fn estimated(pending: &Pending, request: RequestId, estimates: &[Estimate]) -> Option<Record> {
        let said = estimates.iter().any(|estimate| !estimate.is_empty());
        said.then(|| Record::Estimated { operations: pending.ids(), request, estimates: estimates.to_vec() })
    }

    /// Refuses what would now do far more than people were told when they approved it. The denial names no numbers: by those an agent
    /// could find out what it may not see.
    pub(super) async fn still_as_told(&self, pending: &Pending, request: RequestId) -> Result<(), Denial> {
        if pending.estimator.is_none() {
            return Ok(());
        }
        let told = self.pipeline.approver.estimates(request).await.map_err(|e| approval_failed(&e))?;
        if told.iter().all(|estimate| estimate.rows.is_none()) {
            return Ok(());
        }
        let now = self.estimates(pending).await;
        if let Some(record) = Self::estimated(pending, request, &now) {
            self.record(record).map_err(|e| recorder_failed(&e))?;
        }
        let covered = told.len() == now.len() && told.iter().zip(&now).all(|(told, now)| told.covers(now));
        if covered { Ok(()) } else { Err(outgrown(request, &told, &now)) }
    }
}

fn outgrown(request: RequestId, told: &[Estimate], now: &[Estimate]) -> Denial {
    let lost = told.iter().zip(now).any(|(told, now)| told.rows.is_some() && now.rows.is_none());
    let message = if lost {
        "what this would do could be estimated when people approved it, and cannot be now, so it did not run"
    } else {
        "this would now change or read far more rows than people were told when they approved it, so it did not run"
    };
    Denial::new(DenialCode::ApprovalExpired, message)
        .with_hint("present it again: people are asked anew, with what it would do now")
        .with_approval(request.to_string())
}
