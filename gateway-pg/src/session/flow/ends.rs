//! What follows once everything due has come: the record is closed, and what waits goes on.

use gateway_core::error::Denial;
use gateway_core::pipeline::Results;

use super::{Flow, Unit};
use crate::codec::backend::TransactionStatus;
use crate::codec::encode;
use crate::session::segment::Segment;
use crate::session::{Phase, Session};

impl Session {
    /// Ends the flow once everything due has come.
    pub(in crate::session) fn flow_over_if_done(&mut self) {
        if !matches!(&self.phase, Phase::Flowing(flow) if flow.is_over()) {
            return;
        }
        let Phase::Flowing(flow) = self.take_phase() else { return };
        let Flow { results, refusal, failed, synced, outcome, forgets, rest, .. } = *flow;
        if forgets {
            // Also after a failure or a pause: what ran so far has run.
            self.catalog.forget_names();
            self.dirty_transaction = true;
            self.unsure |= !synced;
        }
        self.uses.answered();
        if self.script.is_some() {
            return self.part_over(results, refusal, failed, &outcome);
        }
        if let Some(envelope) = self.envelope.take() {
            let results = results.or_else(|| self.kept.take());
            return self.close_envelope(envelope, (results, outcome), refusal);
        }
        let sync_waits = rest.as_ref().is_some_and(|rest| rest.ends_in_sync());
        if let Some(denial) = refusal {
            let unit = match (synced, failed) {
                (true, _) => Unit::Ended,
                (false, true) => Unit::Failed { sync_waits },
                (false, false) => Unit::Open { sync_waits },
            };
            return self.end_refused(results, &denial, unit);
        }
        if synced {
            self.settle_transaction();
            let results = results.or_else(|| self.kept.take());
            self.finish(results, &outcome);
            self.start_over();
        } else if failed {
            self.finish(results, &outcome);
            self.skip_to_sync(sync_waits);
        } else {
            self.kept = results;
            match rest {
                Some(rest) => self.resume(*rest),
                None => self.phase = Phase::Gathering(Segment::default()),
            }
        }
    }

    /// After the server's error everything up to the client's Sync is dropped; it may be here already.
    fn skip_to_sync(&mut self, sync_waits: bool) {
        if !sync_waits {
            self.phase = Phase::Skipping { synced: false };
            return;
        }
        encode::sync(&mut self.to_upstream);
        self.phase = Phase::Flowing(Box::new(Flow::sync_only()));
    }

    /// The answer could not be released: the client is told so, and an open transaction is made to fail.
    pub(in crate::session) fn end_refused(&mut self, results: Option<Results>, denial: &Denial, unit: Unit) {
        self.finish(results, denial.code.as_str());
        let denial = denial.clone();
        match unit {
            Unit::Ended if self.status != TransactionStatus::Open => {
                self.tell(&denial);
                self.settle_transaction();
                self.ready_locally();
                self.start_over();
            }
            Unit::Failed { sync_waits } => {
                self.tell(&denial);
                self.skip_to_sync(sync_waits);
            }
            Unit::Ended | Unit::Open { .. } => {
                self.poison(false);
                self.resume_at_sync = !matches!(unit, Unit::Open { sync_waits: false });
                self.phase = Phase::Poisoning { simple: false, told: false, denial };
            }
        }
    }

    pub(in crate::session) fn finish(&mut self, results: Option<Results>, outcome: &str) {
        if let Some(results) = results
            && let Err(denial) = results.complete(outcome)
        {
            self.end(&denial);
        }
    }
}
