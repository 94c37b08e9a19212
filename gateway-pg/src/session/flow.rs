//! The answers of what was forwarded: followed message by message, masked, released.

mod columns;
mod ends;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::pipeline::Results;

use super::copy::CopyOut;
use super::envelope::{changed_too_much, rows_changed};
use super::rows::{Chunk, Edit};
use super::savepoints::{Savepoints, savepoint};
use super::segment::{Segment, defined_name};
use super::shape::Shape;
use super::{Phase, Portal, Session, Task};
use crate::analysis::{Copy, CopyFormat, SettingKind, Statement};
use crate::codec::backend::{self, TransactionStatus};
use crate::codec::frontend::{Message, Named};
use crate::codec::{Frame, HEADER_BYTES, ProtocolError, encode, peek};
use crate::statement::{Prepared, Text, changes_meaning, ends_transaction};

/// How results are named in recordings: backend messages as sent, masked.
pub const RECORD_ENCODING: &str = "postgres/3";

/// An answer that is due.
#[derive(Debug)]
pub(super) enum Expect {
    /// Everything up to ReadyForQuery; `index` is the statement under way.
    Simple {
        text: Arc<Text>,
        index: usize,
    },
    Parse {
        name: String,
        prepared: Arc<Prepared>,
    },
    Bind {
        name: String,
        portal: Arc<Portal>,
    },
    DescribeStatement,
    DescribePortal {
        portal: Arc<Portal>,
        shown: bool,
    },
    Execute {
        portal: Arc<Portal>,
    },
    /// The answer to a call outside SQL, up to ReadyForQuery; `result` is its type.
    Call {
        portal: Arc<Portal>,
        result: u32,
    },
    Close(Named),
    Sync,
    /// The end of a command of the gateway's own, of which the client sees errors and notices alone.
    Own,
}

/// What was forwarded and what is still due.
#[derive(Debug)]
pub(super) struct Flow {
    expected: VecDeque<Expect>,
    pub(super) results: Option<Results>,
    pub(super) copy_in: bool,
    copy_out: Option<CopyOut>,
    /// The columns of the simple query's result under way.
    shape: Option<Arc<Shape>>,
    /// Labels reachable from what is running whose values may not be shown.
    protected: BTreeSet<usize>,
    /// Those reachable whose values may.
    shown: BTreeSet<usize>,
    /// What the copy under way relies on, as [`Shape::relied`].
    copy_relies: BTreeSet<usize>,
    /// Its errors may report such values for what the transaction did before.
    pub(super) withholds: bool,
    /// The answer must not be released: everything is dropped up to the end, then this is told.
    refusal: Option<Denial>,
    /// The server reported an error since the last synchronisation.
    failed: bool,
    /// A ReadyForQuery ended it.
    synced: bool,
    /// The client's Sync behind a COPY FROM is here and not forwarded: the server drops it if it comes to read data, and answers it
    /// if the copy fails before. Until data is forwarded it is due.
    pub(super) holds_sync: bool,
    /// Data, or its end, was forwarded to the copy under way.
    took_data: bool,
    /// One statement outside any transaction.
    pub(super) alone: bool,
    /// What runs may change what names mean.
    pub(super) forgets: bool,
    /// What is judged when this is answered.
    pub(super) rest: Option<Box<Segment>>,
    outcome: String,
    /// The most rows that may be changed.
    pub(super) cap: Option<u64>,
    /// Rows changed so far.
    changed: u64,
}

/// Labels reachable from what runs.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Those whose values may not be shown.
    pub(super) protected: BTreeSet<usize>,
    /// The others.
    pub(super) shown: BTreeSet<usize>,
}

/// What becomes of a copy-in message.
pub(super) struct CopyInStep {
    pub(super) forward: bool,
    /// The server must be asked for its answer.
    pub(super) flush: bool,
}

/// How far the server is with a unit when what was forwarded is answered. `sync_waits`: the client's Sync is here and not forwarded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    /// It answered a Sync or a simple query.
    Ended,
    /// It dropped the rest after an error, and waits for Sync.
    Failed { sync_waits: bool },
    /// It waits for more.
    Open { sync_waits: bool },
}

impl Flow {
    pub(super) fn new(
        expected: VecDeque<Expect>,
        results: Option<Results>,
        Reached { protected, shown }: Reached,
    ) -> Self {
        Self {
            expected,
            results,
            copy_in: false,
            copy_out: None,
            shape: None,
            protected,
            shown,
            copy_relies: BTreeSet::new(),
            withholds: false,
            refusal: None,
            failed: false,
            synced: false,
            holds_sync: false,
            took_data: false,
            alone: false,
            forgets: false,
            rest: None,
            outcome: String::new(),
            cap: None,
            changed: 0,
        }
    }

    /// Only the answer to a Sync is due.
    pub(super) fn sync_only() -> Self {
        Self::new(VecDeque::from([Expect::Sync]), None, Reached::default())
    }

    /// Only the answer to a command of the gateway's own is due.
    pub(super) fn own(results: Option<Results>, protected: BTreeSet<usize>) -> Self {
        Self::new(VecDeque::from([Expect::Own]), results, Reached { protected, ..Reached::default() })
    }

    /// Takes over masks that became stricter.
    pub(super) fn adopt_masks(&mut self) {
        let Some(results) = &mut self.results else { return };
        results.adopt_masks();
        self.protected.extend(self.shown.extract_if(.., |label| !results.reveals(*label)));
    }

    /// Refuses the rest of a result whose columns were decided on while these labels were shown, once one is not.
    fn uphold(&mut self, relied: &BTreeSet<usize>) -> bool {
        let reveals = |label: &usize| self.results.as_ref().is_some_and(|r| r.reveals(*label));
        if self.refusal.is_some() || relied.iter().all(reveals) {
            return true;
        }
        let message = "the policies have changed: what this result is computed from is protected now";
        let denial = Denial::new(DenialCode::Forbidden, message);
        self.refusal = Some(denial.with_hint("send the statement again"));
        false
    }

    /// Whether a statement of this kind is under way.
    pub(super) fn runs(&self, kind: &str) -> bool {
        self.expected.front().and_then(running_statement).is_some_and(|statement| statement.kind == kind)
    }

    /// A message of the client while the server takes copy data. Sync and Flush are dropped, as the server does (CopyGetData).
    pub(super) fn copy_in_frame(
        &mut self,
        frame: &Frame,
        message: &Message,
    ) -> Result<CopyInStep, ProtocolError> {
        // The server drops a Sync that comes before the data (CopyGetData); the client sends another.
        let takes = matches!(message, Message::CopyData | Message::CopyDone | Message::CopyFail);
        if takes && std::mem::take(&mut self.holds_sync) {
            self.expected.pop_back();
        }
        self.took_data |= takes;
        let extended = matches!(self.expected.front(), Some(Expect::Execute { .. }));
        if matches!(message, Message::Sync) && extended && !self.took_data && !self.holds_sync {
            self.holds_sync = true;
            self.expected.push_back(Expect::Sync);
        }
        match message {
            Message::CopyData => Ok(CopyInStep { forward: true, flush: false }),
            Message::CopyDone | Message::CopyFail => {
                self.copy_in = false;
                // In the extended protocol the server keeps its answer until a Flush or Sync, and the client's Sync waits here for
                // that answer.
                let flush = matches!(self.expected.front(), Some(Expect::Execute { .. }));
                Ok(CopyInStep { forward: true, flush })
            }
            Message::Flush | Message::Sync => Ok(CopyInStep { forward: false, flush: false }),
            _ => Err(ProtocolError::Unexpected { tag: frame.tag(), during: "during copy in" }),
        }
    }

    /// Refuses the answer once more rows are changed than may be; what surrounds it is then undone.
    fn count_changes(&mut self) {
        let Some(cap) = self.cap else { return };
        self.changed = self.changed.saturating_add(rows_changed(&self.outcome).unwrap_or(0));
        if self.changed > cap && self.refusal.is_none() {
            self.refusal = Some(changed_too_much(self.changed, cap));
        }
    }

    /// How many rows were changed is told at the end only, and this stops before.
    fn refuse_uncounted(&mut self) {
        if self.cap.is_some() && self.refusal.is_none() {
            let message =
                "how many rows are changed is limited, and the statement was stopped before it told";
            let denial = Denial::new(DenialCode::ObligationUnmet, message);
            self.refusal = Some(denial.with_hint("execute it without a limit on the rows returned"));
        }
    }

    /// True once nothing more is due.
    fn is_over(&self) -> bool {
        self.expected.is_empty()
    }
}

impl Session {
    /// Follows as many whole frames as are in `buffer` and releases what they become.
    pub(super) fn flow(&mut self, buffer: &mut BytesMut) -> Result<(), ProtocolError> {
        let Phase::Flowing(mut flow) = self.take_phase() else { return Ok(()) };
        let large = self.config.max_frame_bytes;
        let mut chunk = Chunk::default();
        let mut position = 0;
        while !flow.is_over() {
            let rest = buffer.get(position..).unwrap_or_default();
            let Some((tag, total)) = peek(rest, |tag| backend::limit(tag, large))? else { break };
            let Some(frame) = rest.get(..total) else { break };
            let body = frame.get(HEADER_BYTES..).unwrap_or_default();
            self.answer(&mut flow, tag, body, position..position + total, &mut chunk)?;
            position += total;
        }
        let raw = gateway_core::intake::take(buffer, position);
        self.emit(&mut flow, raw, chunk);
        self.phase = Phase::Flowing(flow);
        self.flow_over_if_done();
        Ok(())
    }

    /// Masks, records and queues a chunk of frames.
    fn emit(&mut self, flow: &mut Flow, raw: Bytes, chunk: Chunk) {
        if raw.is_empty() || flow.refusal.is_some() {
            return;
        }
        let Some(results) = &mut flow.results else {
            return self.emit_acknowledgements(&raw, chunk);
        };
        let withhold = flow.withholds || !flow.protected.is_empty();
        match results
            .release(RECORD_ENCODING, raw, chunk.rows, |masker, raw| chunk.apply(masker, raw, withhold))
        {
            Ok(released) if released.as_bytes().is_empty() => {}
            Ok(released) => self.release(released),
            Err(denial) => {
                flow.refusal = Some(denial);
                self.tasks.push_back(Task::CancelUpstream);
            }
        }
    }

    /// Without any permit only messages without content may pass; an error passes as its code.
    fn emit_acknowledgements(&mut self, raw: &Bytes, chunk: Chunk) {
        let mut out = BytesMut::new();
        let mut rest = raw.as_ref();
        while let Ok(Some((tag, total))) = peek(rest, |_| usize::MAX >> 1) {
            let (frame, more) = rest.split_at(total.min(rest.len()));
            rest = more;
            match tag {
                // The end of a part is not the end of the query.
                b'Z' if self.script.is_some() => {}
                b'1' | b'2' | b'3' | b't' | b'n' | b'I' | b'Z' => out.extend_from_slice(frame),
                b'E' => {
                    let code = backend::error_field(frame.get(HEADER_BYTES..).unwrap_or_default(), b'C');
                    encode::error(&mut out, super::rows::bare_error(code.as_deref().unwrap_or("XX000")));
                }
                _ => {}
            }
        }
        drop(chunk);
        self.originate(out.freeze());
    }

    /// One message of the server.
    fn answer(
        &mut self,
        flow: &mut Flow,
        tag: u8,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        match tag {
            b'D' => self.row(flow, body, at, chunk),
            b'N' => {
                let own = self.is_about_own_block(flow, body)?;
                let edit = if own { Edit::Drop } else { Edit::Fault { error: false, early: false } };
                chunk.edits.push((at, edit));
                Ok(())
            }
            b'A' => {
                chunk.edits.push((at, Edit::Notification));
                backend::notification(body).map(|_| ())
            }
            b'S' => self.status_in_flow(body, at, chunk),
            b'E' => {
                let early = is_early(flow);
                chunk.edits.push((at, Edit::Fault { error: true, early }));
                flow.outcome = backend::error_field(body, b'C').unwrap_or_default();
                self.fault(flow);
                self.send_held_sync(flow);
                Ok(())
            }
            b'Z' => {
                // The client is told once the transaction around it is ended.
                if self.script.is_some() || self.envelope.is_some() {
                    chunk.edits.push((at, Edit::Drop));
                }
                self.ready(flow, body)
            }
            _ if flow.failed => {
                Err(ProtocolError::Unexpected { tag, during: "from the server after an error" })
            }
            _ => self.progress(flow, tag, body, at, chunk),
        }
    }

    fn status_in_flow(
        &mut self,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        let (name, value) = backend::parameter_status(body)?;
        if self.told.is_some() || !crate::login::is_reported(name) {
            chunk.edits.push((at, Edit::Drop));
        }
        self.observe_setting(name, value)
    }

    fn fault(&mut self, flow: &mut Flow) {
        flow.failed = true;
        self.aborted = true;
        flow.copy_in = false;
        flow.copy_out = None;
        if let Some(Expect::Parse { name, .. }) = flow.expected.front()
            && name.is_empty()
        {
            // A failed Parse has dropped the unnamed statement all the same.
            self.statements.remove("");
        }
        // The server drops everything up to Sync.
        while !matches!(
            flow.expected.front(),
            None | Some(Expect::Simple { .. } | Expect::Call { .. } | Expect::Sync | Expect::Own)
        ) {
            flow.expected.pop_front();
        }
    }

    fn ready(&mut self, flow: &mut Flow, body: &[u8]) -> Result<(), ProtocolError> {
        match flow.expected.pop_front() {
            Some(Expect::Simple { .. } | Expect::Call { .. } | Expect::Sync | Expect::Own)
                if flow.expected.is_empty() =>
            {
                self.status = backend::ready_for_query(body)?;
                self.reached &= self.status != TransactionStatus::Idle;
                self.settings_settle();
                flow.synced = true;
                // A change of how text is read was told before this.
                (self.unread, self.unsure) = (false, false);
                Ok(())
            }
            _ => Err(ProtocolError::Unexpected { tag: b'Z', during: "before everything was answered" }),
        }
    }

    /// A message that moves the front of what is due.
    fn progress(
        &mut self,
        flow: &mut Flow,
        tag: u8,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        let unexpected = ProtocolError::Unexpected { tag, during: "from the server here" };
        match (flow.expected.front_mut(), tag) {
            (
                Some(Expect::Simple { .. } | Expect::Execute { .. }),
                b'C' | b'I' | b's' | b'G' | b'H' | b'd' | b'c',
            ) => self.running(flow, tag, body, at, chunk),
            (Some(Expect::Call { portal, result }), b'V') => {
                let (portal, result) = (Arc::clone(portal), *result);
                self.called(flow, &portal, result, at, chunk);
                Ok(())
            }
            (Some(Expect::Own), b'C') => {
                chunk.edits.push((at, Edit::Drop));
                Ok(())
            }
            (Some(Expect::Simple { text, index }), b'T') => {
                let (text, index) = (Arc::clone(text), *index);
                flow.shape = Some(self.described(flow, body, text.statement(index))?);
                self.refuse_if_uncertain(flow, text.statement(index));
                chunk.names(at);
                Ok(())
            }
            (Some(Expect::Parse { name, prepared }), b'1') => {
                self.statements.insert(std::mem::take(name), Arc::clone(prepared));
                flow.expected.pop_front();
                Ok(())
            }
            (Some(Expect::Bind { name, portal }), b'2') => {
                let (name, portal) = (std::mem::take(name), Arc::clone(portal));
                self.keep_portal(name, portal);
                flow.expected.pop_front();
                Ok(())
            }
            (Some(Expect::Close(named)), b'3') => {
                match named {
                    Named::Statement(name) => self.statements.remove(name),
                    Named::Portal(name) => self.portals.remove(name),
                }
                flow.expected.pop_front();
                Ok(())
            }
            (Some(Expect::DescribeStatement), b't') => Ok(()),
            (Some(Expect::DescribeStatement), b'T') => {
                backend::row_description(body)?;
                chunk.names(at);
                flow.expected.pop_front();
                Ok(())
            }
            (Some(Expect::DescribeStatement), b'n') => {
                flow.expected.pop_front();
                Ok(())
            }
            (Some(Expect::DescribePortal { portal, shown }), b'T' | b'n') => {
                let (portal, shown) = (Arc::clone(portal), *shown);
                if tag == b'T' {
                    let shape = self.described(flow, body, portal.prepared.statement())?;
                    let _ = portal.shape.set(shape);
                    self.refuse_if_uncertain(flow, portal.prepared.statement());
                }
                match (shown, tag) {
                    (false, _) => chunk.edits.push((at, Edit::Drop)),
                    (true, b'T') => chunk.names(at),
                    (true, _) => {}
                }
                flow.expected.pop_front();
                Ok(())
            }
            _ => Err(unexpected),
        }
    }

    /// A message of a running statement other than its rows.
    fn running(
        &mut self,
        flow: &mut Flow,
        tag: u8,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        match tag {
            b'C' => {
                flow.outcome = backend::command_tag(body)?.to_owned();
                if self.keeps_completion(&flow.outcome) {
                    chunk.edits.push((at, Edit::Drop));
                }
                flow.count_changes();
                self.completed(flow);
                self.send_held_sync(flow);
            }
            b'I' => self.completed(flow),
            b's' => self.suspended(flow),
            b'G' => self.copy_in_begins(flow, body)?,
            b'H' => self.copy_out_begins(flow, body)?,
            b'd' if !flow.uphold(&flow.copy_relies.clone()) => self.tasks.push_back(Task::CancelUpstream),
            b'd' => match &mut flow.copy_out {
                Some(copy) => copy.data(body, at, chunk)?,
                None => return Err(ProtocolError::Unexpected { tag, during: "outside copy" }),
            },
            _ => match flow.copy_out.take() {
                Some(copy) => copy.finish(at, chunk)?,
                None => return Err(ProtocolError::Unexpected { tag, during: "outside copy" }),
            },
        }
        Ok(())
    }

    /// A copy ended before it took any data: the Sync behind it counts.
    fn send_held_sync(&mut self, flow: &mut Flow) {
        if std::mem::take(&mut flow.holds_sync) {
            encode::sync(&mut self.to_upstream);
        }
    }

    fn copy_in_begins(&mut self, flow: &mut Flow, body: &[u8]) -> Result<(), ProtocolError> {
        backend::copy_response(body)?;
        (flow.copy_in, flow.took_data) = (true, false);
        Ok(())
    }

    fn copy_out_begins(&mut self, flow: &mut Flow, body: &[u8]) -> Result<(), ProtocolError> {
        let (format, columns) = backend::copy_response(body)?;
        let statement = flow.expected.front().and_then(running_statement);
        let copy = statement.and_then(|s| s.copy.as_ref().map(|c| (s, c)));
        let binary = |copy: &Copy| copy.format == CopyFormat::Binary;
        let Some((statement, copy)) = copy.filter(|(_, c)| binary(c) == (format == 1) && format < 2) else {
            return Err(ProtocolError::Unexpected { tag: b'H', during: "for a copy that was not judged" });
        };
        let masks = self.copy_columns(flow, statement, columns, i16::from(format));
        flow.copy_relies = flow.shown.clone();
        flow.copy_out = Some(CopyOut::new(copy, masks)?);
        Ok(())
    }

    /// A statement ended well: what it prepared, declared or changed is now so.
    fn completed(&mut self, flow: &mut Flow) {
        flow.shape = None;
        match flow.expected.front_mut() {
            Some(Expect::Simple { text, index }) => {
                let (text, at) = (Arc::clone(text), *index);
                *index += 1;
                self.took_effect(flow, &text, at);
            }
            Some(Expect::Execute { portal }) => {
                portal.started.store(true, Ordering::Relaxed);
                let prepared = Arc::clone(&portal.prepared);
                self.took_effect(flow, &prepared.text, prepared.index);
                flow.expected.pop_front();
            }
            _ => {}
        }
    }

    /// Some rows are held back. What the statement changes is done all the same: of what returns rows and changes something, everything runs
    /// before the first row is sent (pquery.c, `FillPortalStore`).
    fn suspended(&mut self, flow: &mut Flow) {
        if let Some(Expect::Execute { portal }) = flow.expected.pop_front() {
            let prepared = Arc::clone(&portal.prepared);
            let writes = prepared.text.statement(prepared.index).is_some_and(|s| !s.read_only());
            if writes {
                flow.refuse_uncounted();
                self.took_effect(flow, &prepared.text, prepared.index);
            }
        }
    }

    fn took_effect(&mut self, flow: &Flow, text: &Arc<Text>, index: usize) {
        let Some(statement) = text.statement(index) else { return };
        match &*statement.kind {
            "prepare" => {
                self.statements
                    .insert(defined_name(statement), Arc::new(Prepared::new(Arc::clone(text), index)));
            }
            "declare_cursor" => {
                let prepared = Arc::new(Prepared::new(Arc::clone(text), index));
                let portal = Portal::cursor(prepared);
                let _ = portal.meaning.set(self.meaning(&portal.prepared));
                self.keep_portal(defined_name(statement), Arc::new(portal));
            }
            "deallocate" => match defined_name(statement) {
                name if name.is_empty() => self.statements.clear(),
                name => self.statements.remove(&name),
            },
            // The others leave names as they are (PostgreSQL documentation, DISCARD); this one tells itself by the settings it resets.
            "discard" if statement.settings.iter().any(|s| s.kind == SettingKind::ResetAll) => {
                self.statements.clear();
                self.portals.clear();
            }
            // A function may open a cursor of the same name again.
            "close" => match defined_name(statement) {
                name if name.is_empty() => self.portals.clear(),
                name => self.portals.remove(&name),
            },
            // With AND CHAIN another transaction is open at once. A COMMIT of what has failed is told as ROLLBACK.
            "commit" | "rollback" => self.portals_at_end(flow.outcome == "COMMIT"),
            "savepoint" => self.savepoints.set(savepoint(statement), self.portals_made),
            "release" => self.savepoints.release(&savepoint(statement)),
            // What was made since is gone.
            "rollback_to" => {
                let then = self.savepoints.back_to(&savepoint(statement));
                self.portals.retain(|portal| portal.made.get().is_some_and(|made| *made <= then));
            }
            _ => {}
        }
        if ends_transaction(statement) {
            self.settings_set_back();
        }
        if flow.alone {
            self.setting_took_effect(statement);
        }
        if &*statement.kind == "listen" {
            self.listening = flow.results.as_ref().map(Results::afterwards).or(self.listening.take());
        }
        if &*statement.kind == "begin" {
            self.script_began();
        }
        if matches!(&*statement.kind, "commit" | "rollback") {
            // With AND CHAIN another transaction begins at once, with another snapshot.
            self.began = self.config.definitions.epoch();
            self.snapshot = false;
        }
        if changes_meaning(statement) {
            self.catalog.forget_names();
            self.dirty_transaction = true;
        } else if ends_transaction(statement) && (self.dirty_transaction || &*statement.kind == "rollback_to")
        {
            // A rollback to a savepoint does not end the transaction, and a commit may be followed before it is answered.
            self.catalog.forget_names();
        }
    }

    fn keep_portal(&mut self, name: String, portal: Arc<Portal>) {
        self.portals_made += 1;
        let _ = portal.made.set(self.portals_made);
        self.portals.insert(name, portal);
    }

    /// A transaction has ended: portals are gone with it but for cursors `WITH HOLD`, and those too unless a transaction that declared them
    /// was committed.
    pub(super) fn portals_at_end(&mut self, committed: bool) {
        self.savepoints = Savepoints::default();
        self.portals.retain(|portal| {
            if committed && portal.outlives_transaction() {
                portal.committed.store(true, Ordering::Relaxed);
            }
            portal.committed.load(Ordering::Relaxed)
        });
    }

    /// Whether running this may run what the open transaction put off: constraints and triggers, whose errors quote rows of statements
    /// before (PostgreSQL documentation, "SET CONSTRAINTS"). Outside a block each Sync and simple query does; within one the statements
    /// that ask for it, and code, which may.
    pub(super) fn runs_deferred(&self, statement: &Statement) -> bool {
        const SETTLING: [&str; 5] = ["commit", "prepare_transaction", "set_constraints", "call", "do"];
        let referent = self.referent(statement, &[]).ok().flatten();
        let calls = referent.as_deref().and_then(Prepared::statement).is_some_and(|s| s.flags.unproven);
        calls || statement.flags.unproven || SETTLING.contains(&&*statement.kind)
    }
}

/// Whether an error now comes from reading a statement, not from running it: a SELECT that runs has described its rows first.
fn is_early(flow: &Flow) -> bool {
    match flow.expected.front() {
        Some(Expect::Simple { text, index }) => {
            flow.shape.is_none() && text.statement(*index).is_some_and(|statement| statement.kind == "select")
        }
        Some(Expect::Execute { .. } | Expect::Call { .. } | Expect::Sync | Expect::Own) | None => false,
        Some(_) => true,
    }
}

fn running_statement(expect: &Expect) -> Option<&Statement> {
    match expect {
        Expect::Simple { text, index } => text.statement(*index),
        Expect::Execute { portal } | Expect::Call { portal, .. } => portal.prepared.statement(),
        _ => None,
    }
}

/// Why a whole answer is not shown.
pub(super) fn unreadable(what: &str) -> Denial {
    Denial::new(DenialCode::MaskingFailed, format!("the server's answer cannot be masked safely: {what}"))
        .with_hint("ask for the columns you need as plain text columns")
}
