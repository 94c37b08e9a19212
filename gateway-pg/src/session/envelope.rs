//! Transactions of the gateway's own around what the client runs, for duties that the server has to enforce: reading only, and a
//! cap on the rows that may be changed.

use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Effect, Operation};
use gateway_core::pipeline::{Permit, Results};
use gateway_core::policy::Obligation;

use super::flow::Unit;
use super::segment::Segment;
use super::{Approved, Phase, Session};
use crate::codec::backend::{self, TransactionStatus};
use crate::codec::{Frame, ProtocolError, encode};
use crate::operation::SESSION_ONLY;

/// A transaction around a segment, or a savepoint (`_gateway`) where one statement must not change the rest of a transaction of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    read_only: bool,
    /// It is a savepoint in the client's transaction.
    nested: bool,
}

impl Envelope {
    fn opening(self) -> &'static [&'static str] {
        match (self.nested, self.read_only) {
            (true, _) => &["SAVEPOINT _gateway", "SET TRANSACTION READ ONLY"],
            (false, true) => &["BEGIN READ ONLY"],
            (false, false) => &["BEGIN"],
        }
    }

    /// What ends it: `None` if there is nothing to be said, in a transaction of the client's that has failed.
    const fn closing(self, well: bool) -> Option<&'static str> {
        match (self.nested, well) {
            (true, true) => Some("RELEASE _gateway"),
            (true, false) => None,
            (false, true) => Some("COMMIT"),
            (false, false) => Some("ROLLBACK"),
        }
    }
}

/// A segment that waits for its envelope.
#[derive(Debug)]
pub(super) struct Opening {
    segment: Segment,
    permits: Approved,
    envelope: Envelope,
    /// The server answered a command of it.
    answered: bool,
    failed: bool,
}

/// An envelope that is being closed, and what is to be told then.
#[derive(Debug)]
pub(super) struct Closing {
    results: Option<Results>,
    outcome: String,
    refusal: Option<Denial>,
    /// The SQLSTATE with which the commit failed.
    fault: Option<String>,
    /// The server answered the command that ends it.
    answered: bool,
}

/// The largest number of rows that may be changed, if that is limited.
pub(super) fn cap(permit: Option<&Permit>) -> Option<u64> {
    let caps = permit?.obligations().iter().filter_map(|duty| match duty {
        Obligation::LimitAffected(rows) => Some(*rows),
        _ => None,
    });
    caps.min()
}

fn reads_only(permit: &Permit) -> bool {
    permit.obligations().iter().any(|duty| matches!(duty, Obligation::Rewrite(text) if text == "read_only"))
}

fn unmet(message: &str, hint: &str) -> Denial {
    Denial::new(DenialCode::ObligationUnmet, message).with_hint(hint)
}

/// The rows changed by a statement, as its command tag tells (PostgreSQL documentation, "Message Formats", CommandComplete).
pub(super) fn rows_changed(tag: &str) -> Option<u64> {
    let (command, rest) = tag.split_once(' ')?;
    match command {
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY" => rest.rsplit(' ').next()?.parse().ok(),
        _ => None,
    }
}

/// Why an answer that changed too much is not let through.
pub(super) fn changed_too_much(rows: u64, cap: u64) -> Denial {
    Denial::new(
        DenialCode::LimitExceeded,
        format!("the statement changed {rows} rows, and the policy allows {cap}: it was undone"),
    )
    .with_hint("narrow its condition, or change fewer rows at a time")
}

impl Session {
    /// Forwards a permitted segment, inside an envelope where a duty asks for one.
    pub(super) fn send(&mut self, segment: Segment, prepare: Option<Permit>, execute: Option<Permit>) {
        match self.envelope_of(&segment, execute.as_ref()) {
            Ok(None) => self.send_as_it_is(segment, prepare, execute),
            Ok(Some(envelope)) => {
                self.send_envelope(envelope.opening());
                let permits = Approved { prepare, execute, then: Vec::new() };
                let opening = Opening { segment, permits, envelope, answered: false, failed: false };
                self.phase = Phase::Opening(Box::new(opening));
            }
            Err(denial) => {
                self.withdraw(Some(Box::new(Approved { prepare, execute, then: Vec::new() })), &denial);
                self.deny(&segment, denial);
            }
        }
    }

    /// Commands of the gateway's own. As a simple query they would drop the client's unnamed statement (PostgreSQL documentation, "Message
    /// Flow", "Extended Query").
    fn send_envelope(&mut self, commands: &[&str]) {
        for command in commands {
            self.encode_own(command, Vec::new());
        }
        encode::sync(&mut self.to_upstream);
    }

    /// The envelope that the duties ask for.
    ///
    /// # Errors
    /// One is needed and cannot be put around this.
    fn envelope_of(&self, segment: &Segment, permit: Option<&Permit>) -> Result<Option<Envelope>, Denial> {
        let Some(permit) = permit else { return Ok(None) };
        let operations = permit.batch().operations();
        let read_only = reads_only(permit) && operations.iter().any(|o| runs(&o.kind));
        let capped = cap(Some(permit)).is_some() && permit.batch().effect() == Effect::Write;
        let reading = ["select", "values", "explain", "copy_to", "declare_cursor", "fetch"];
        // What only reads by its text, and calls what may change something.
        let changes = |o: &&Operation| o.effect == Effect::Write && reading.contains(&&*o.kind);
        let calling = operations.iter().find(changes).map(|o| o.kind.to_string());
        if capped && let Some(other) = segment.uncounted().or(calling) {
            let message =
                format!("the policy caps how many rows may be changed, which a `{other}` does not tell");
            return Err(unmet(&message, "send a plain INSERT, UPDATE, DELETE, MERGE or COPY"));
        }
        if !read_only && !capped {
            return Ok(None);
        }
        if self.script.is_some() && read_only {
            let message = "the policy asks for a transaction of its own for each of several statements";
            return Err(unmet(message, "send the statements one at a time"));
        }
        if segment.controls_transactions() {
            let message = "the policy asks for a transaction of its own, and the message begins or ends one";
            return Err(unmet(message, "send the transaction commands by themselves"));
        }
        if self.mid_unit || !segment.is_whole() {
            let message =
                "the policy asks for a transaction of its own, and the messages are not ended by a Sync";
            return Err(unmet(message, "send a Sync after each Execute"));
        }
        if self.status == TransactionStatus::Open {
            // A change too many makes the client's transaction fail, which undoes it.
            return Ok(read_only.then_some(Envelope { read_only, nested: true }));
        }
        Ok(Some(Envelope { read_only, nested: false }))
    }

    /// A frame of the server while an envelope is opened.
    pub(super) fn opening(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        match (frame.tag(), &mut self.phase) {
            (b'1' | b'2' | b'3', _) => Ok(()),
            (b'C', Phase::Opening(opening)) => {
                opening.answered = true;
                Ok(())
            }
            (b'E', Phase::Opening(opening)) => {
                (opening.answered, opening.failed) = (true, true);
                Ok(())
            }
            (b'Z', Phase::Opening(opening)) if opening.answered => {
                self.status = backend::ready_for_query(frame.body())?;
                let Phase::Opening(opening) = self.take_phase() else { return Ok(()) };
                self.opened(*opening);
                Ok(())
            }
            (tag, _) => Err(ProtocolError::Unexpected { tag, during: "while a transaction is begun" }),
        }
    }

    fn opened(&mut self, opening: Opening) {
        let Opening { segment, permits, envelope, failed, .. } = opening;
        if failed || self.status != TransactionStatus::Open {
            let denial =
                unmet("the server did not begin the transaction that the policy asks for", "try again");
            self.withdraw(Some(Box::new(permits)), &denial);
            return self.deny(&segment, denial);
        }
        self.envelope = Some(envelope);
        self.send_as_it_is(segment, permits.prepare, permits.execute);
    }

    /// Closes the envelope once what is inside has been answered.
    pub(super) fn close_envelope(
        &mut self,
        envelope: Envelope,
        (results, outcome): (Option<Results>, String),
        refusal: Option<Denial>,
    ) {
        let well = refusal.is_none() && self.status == TransactionStatus::Open;
        self.aborted |= !well;
        let closing = Closing { results, outcome, refusal, fault: None, answered: false };
        match envelope.closing(well) {
            Some(command) => {
                self.send_envelope(&[command]);
                self.phase = Phase::Closing(Box::new(closing));
            }
            None => match closing.refusal {
                Some(denial) => self.end_refused(closing.results, &denial, Unit::Ended),
                None => self.closed(closing),
            },
        }
    }

    /// A frame of the server while an envelope is closed.
    pub(super) fn closing(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        match (frame.tag(), &mut self.phase) {
            (b'1' | b'2' | b'3', _) => Ok(()),
            (b'C', Phase::Closing(closing)) => {
                closing.answered = true;
                Ok(())
            }
            (b'E', Phase::Closing(closing)) => {
                closing.answered = true;
                let code = backend::error_field(frame.body(), b'C');
                closing.fault = Some(code.unwrap_or_else(|| "XX000".to_owned()));
                Ok(())
            }
            (b'Z', Phase::Closing(closing)) if closing.answered => {
                self.status = backend::ready_for_query(frame.body())?;
                let Phase::Closing(closing) = self.take_phase() else { return Ok(()) };
                self.closed(*closing);
                Ok(())
            }
            (tag, _) => Err(ProtocolError::Unexpected { tag, during: "while a transaction is ended" }),
        }
    }

    fn closed(&mut self, closing: Closing) {
        let Closing { results, outcome, refusal, fault, .. } = closing;
        self.settle_transaction();
        if let Some(code) = &fault {
            let mut out = bytes::BytesMut::new();
            encode::error(&mut out, super::rows::bare_error(code));
            self.originate(out.freeze());
        }
        if let Some(denial) = &refusal {
            self.tell(denial);
        }
        let refused = refusal.map(|denial| denial.code.as_str().to_owned());
        self.finish(results, &fault.or(refused).unwrap_or(outcome));
        self.ready_locally();
        self.start_over();
    }
}

/// Whether a command does more than steer the session.
fn runs(kind: &str) -> bool {
    matches!(kind, "fetch" | "move" | "declare_cursor") || !SESSION_ONLY.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_how_many_rows_changed() {
        for (tag, rows) in [
            ("INSERT 0 12", Some(12)),
            ("UPDATE 3", Some(3)),
            ("COPY 7", Some(7)),
            ("MERGE 1", Some(1)),
            ("SELECT 9", None),
            ("DELETE x", None),
            ("BEGIN", None),
        ] {
            assert_eq!(rows_changed(tag), rows, "{tag}");
        }
    }
}
