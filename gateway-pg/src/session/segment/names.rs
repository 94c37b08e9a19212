//! What the names in a segment mean: asked of the server, believed as long as nobody may have changed it.

use std::sync::Arc;

use gateway_core::error::{Denial, DenialCode};

use super::Segment;
use crate::catalog::{DEFINITIONS, QUESTION, Unresolved};
use crate::codec::backend::TransactionStatus;
use crate::codec::{Frame, ProtocolError, backend, encode};
use crate::operation;
use crate::session::{Approved, Meaning, Phase, Session};
use crate::statement::{changes_definitions, looks_up_names};

impl Session {
    /// The names in a segment whose meaning is not known.
    pub(in crate::session) fn unresolved(&mut self, segment: &Segment) -> Unresolved {
        self.catalog.make_room();
        let mut asked = Unresolved::default();
        let generation = self.catalog.generation();
        for text in segment.texts().filter(|text| !text.memo.is_resolved(generation)) {
            let unresolved = text.unresolved(&self.catalog);
            if unresolved.is_empty() {
                text.memo.set_resolved(generation);
            }
            asked.add(unresolved);
            // What EXECUTE and FETCH stand for is read again by the server, under the names of now.
            for referent in
                text.analysis.statements.iter().filter_map(|s| self.referent(s, &[]).ok().flatten())
            {
                asked.add(referent.text.unresolved(&self.catalog));
            }
        }
        asked
    }

    /// Asks the server what names mean; the segment goes on once it has answered.
    pub(in crate::session) fn ask_names(
        &mut self,
        segment: Segment,
        asked: Unresolved,
        approved: Option<Box<Approved>>,
    ) {
        let mut closes = self.encode_own(QUESTION, asked.parameters());
        if asked.definitions {
            closes += self.encode_own(DEFINITIONS, Vec::new());
        }
        // The server analyses a prepared statement anew if what it uses or the search path changed, not if another object of a name it
        // uses came nearer (plancache.c, `RevalidateCachedQuery`). It is judged by what names mean now, so it must run by that.
        if self.catalog.take_forgot() && !self.statements.is_empty() {
            closes += self.encode_own("DISCARD PLANS", Vec::new());
        }
        // A Sync would end the implicit transaction of messages already forwarded.
        if self.mid_unit {
            encode::flush(&mut self.to_upstream);
        } else {
            encode::sync(&mut self.to_upstream);
        }
        self.catalog.begin(&asked);
        self.phase = Phase::Resolving { segment, asked, failed: None, closes, approved };
    }

    /// Runs a statement of the gateway's own; gives how many CloseComplete it is answered with.
    pub(in crate::session) fn encode_own(&mut self, sql: &str, parameters: Vec<Option<bytes::Bytes>>) -> u8 {
        const OWN: &str = "_gateway_resolve";
        // One before it that failed was not closed, as the server drops everything up to Sync.
        encode::close_statement(&mut self.to_upstream, OWN);
        encode::parse(&mut self.to_upstream, OWN, sql);
        encode::bind(&mut self.to_upstream, OWN, OWN, parameters);
        encode::execute(&mut self.to_upstream, OWN);
        encode::close_portal(&mut self.to_upstream, OWN);
        encode::close_statement(&mut self.to_upstream, OWN);
        3
    }

    /// Forgets what names mean if any session may have changed a definition since they were asked for. What is about to change one
    /// tells the others now and again once it is done, so that nobody believes what was asked in between.
    pub(super) fn forget_if_changed(&mut self, segment: &Segment) {
        let statements = segment.texts().flat_map(|t| &t.analysis.statements);
        if statements.into_iter().any(changes_definitions) {
            self.began.follow(self.config.definitions.changed());
        }
        let now = self.config.definitions.epoch();
        // In a fixed snapshot asking again gives the same answer, and locks keep what was used from changing.
        let fixed = self.snapshot && self.epoch.is_unchanged(now);
        if !fixed && !self.epoch.is_believed(now) {
            self.epoch = now;
            self.catalog.forget_names();
        }
    }

    /// The catalogue was read in the transaction's snapshot, but the server runs statements by the definitions of now. Refuses names
    /// asked for so late that they may have another meaning now.
    pub(super) fn refuse_old_snapshot(&mut self) -> Option<Denial> {
        let in_transaction = self.status == TransactionStatus::Open || self.mid_unit;
        self.snapshot = in_transaction && self.catalog.reads_snapshot();
        if !self.snapshot || self.began.is_believed(self.config.definitions.epoch()) {
            return None;
        }
        self.catalog.forget_names();
        let message =
            "the transaction's snapshot is too old to tell what the names in the statement mean now";
        Some(Denial::new(DenialCode::NotUnderstood, message).with_hint(
            "begin a new transaction and name every table early in it, for example in LOCK TABLE, or use READ COMMITTED",
        ))
    }

    /// Takes in the server's answer to what names mean.
    pub(in crate::session) fn resolving(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let mid_unit = self.mid_unit;
        let Phase::Resolving { asked, failed, closes, .. } = &mut self.phase else { return Ok(()) };
        match frame.tag() {
            b'1' | b'2' | b'C' => {}
            b'D' => {
                self.catalog.learn(asked, frame.body())?;
                self.unsure = false;
            }
            b'3' => *closes = closes.saturating_sub(1),
            b'E' => {
                let code = backend::error_field(frame.body(), b'C');
                *failed = Some(Box::new(unresolved(code.as_deref())));
                if mid_unit {
                    encode::sync(&mut self.to_upstream);
                }
            }
            // One that answers something else would leave all names as meaning nothing.
            b'Z' if *closes == 0 || failed.is_some() => {
                self.status = backend::ready_for_query(frame.body())?;
            }
            tag => return Err(ProtocolError::Unexpected { tag, during: "while names are resolved" }),
        }
        let Phase::Resolving { failed, closes, .. } = &self.phase else { return Ok(()) };
        let over = if failed.is_some() || !mid_unit { frame.tag() == b'Z' } else { *closes == 0 };
        if over && let Phase::Resolving { segment, failed, approved, .. } = self.take_phase() {
            if let Some(denial) = failed {
                self.catalog.forget_names();
                (self.mid_unit, self.unsure) = (false, false);
                self.withdraw(approved, &denial);
                self.deny(&segment, *denial);
            } else if let Some(denial) = self.refuse_old_snapshot() {
                self.withdraw(approved, &denial);
                self.deny(&segment, denial);
            } else if let Some(approved) = approved {
                self.resume_approved(segment, approved);
            } else {
                self.ask_judgement(segment);
            }
        }
        Ok(())
    }

    /// Lets what was approved pass, unless it would now do something else than what people were shown.
    pub(super) fn resume_approved(&mut self, segment: Segment, approved: Box<Approved>) {
        if self.meanings(&segment) == approved.then {
            self.phase = Phase::Judging(segment);
            return self.forward(approved.prepare, approved.execute);
        }
        let message = "what the statement's names mean changed while it was waiting for approval";
        let denial = Denial::new(DenialCode::ApprovalExpired, message).with_hint("present it again");
        self.withdraw(Some(approved), &denial);
        self.step_back();
        if segment.held {
            return self.deny(&segment, denial);
        }
        // Nobody was shown what it would have done: it is judged anew.
        self.ask_judgement(segment);
    }

    /// Records that what was permitted did not run after all.
    pub(in crate::session) fn withdraw(&mut self, approved: Option<Box<Approved>>, denial: &Denial) {
        let permits = approved.into_iter().flat_map(|a| [a.prepare, a.execute]).flatten();
        for permit in permits {
            let (_, results) = permit.consume();
            self.finish(Some(results), denial.code.as_str());
        }
    }

    /// What all names in a segment mean now, and those in what its statements stand for.
    pub(in crate::session) fn meanings(&self, segment: &Segment) -> Vec<Arc<Meaning>> {
        let statements = segment.texts().flat_map(|t| &t.analysis.statements);
        let mut meanings = Vec::new();
        for statement in statements {
            let mut meaning = operation::meaning(&self.catalog, statement);
            meaning.extend(looks_up_names(statement).then(|| operation::definitions(&self.catalog)));
            meanings.push(Arc::new(meaning));
            let referent = self.referent(statement, &[]).ok().flatten();
            meanings.extend(referent.map(|prepared| self.meaning(&prepared)));
        }
        meanings
    }
}

/// Why the question about names failed, by the server's SQLSTATE.
fn unresolved(code: Option<&str>) -> Denial {
    match code {
        // query_canceled: by the client, or by its statement_timeout.
        Some("57014") => Denial::new(
            DenialCode::Cancelled,
            "the statement was cancelled, or timed out, while the server was asked what its names mean",
        ),
        _ => Denial::new(
            DenialCode::NotUnderstood,
            "the server could not tell what the names in the statement mean",
        )
        .with_hint("try again"),
    }
}
