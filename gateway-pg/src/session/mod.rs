//! One downstream connection and its upstream after login. Pure: bytes in, bytes and tasks out; no sockets, no clock.
//!
//! The session works as the server does: one unit at a time. A unit is a simple query, or extended messages up to Sync, Flush or
//! [`MAX_SEGMENT_MESSAGES`]. The next one is looked at when the answers to the last are in, so it is judged in exactly the
//! state it will run in.

mod cells;
mod copy;
mod envelope;
mod flow;
mod gate;
mod hidden;
mod kept;
mod rows;
mod savepoints;
mod script;
mod segment;
mod settings;
pub(crate) mod shape;
mod tuples;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::Batch;
use gateway_core::pipeline::{Guard, Pending, Permit, Released, Results};

use crate::analysis::{AnalysisCache, LexSettings};
use crate::catalog::{Catalog, LabelIndex, Unresolved};
use crate::codec::backend::{self, TransactionStatus};
use crate::codec::{Frame, ProtocolError, encode, frontend, next_frame, peek, reads_as_understood};
use crate::definitions::{Definitions, Epoch, UnderWay, Uses};
use crate::denial;
use crate::memo::Memos;
use crate::operation::Place;
use crate::rewriter::Background;
use crate::statement::Prepared;
use flow::Flow;
pub use flow::RECORD_ENCODING;
pub(crate) use gate::MAX_WAIT;
use kept::Kept;
use rows::{Chunk, Edit};
use savepoints::Savepoints;
use script::Script;
use segment::Segment;
pub(crate) use settings::UNKNOWN as UNKNOWN_SETTING;
use shape::Shapes;

/// Messages of one segment before it is judged without waiting for Sync. Bounds what a pipeline can make the gateway hold.
pub(crate) const MAX_SEGMENT_MESSAGES: usize = 1_000;

/// Bytes of one segment before it is judged without waiting for Sync.
pub(crate) const MAX_SEGMENT_BYTES: usize = 4 * 1024 * 1024;

/// Prepared statements a session may keep.
pub(crate) const MAX_STATEMENTS: usize = 10_000;

/// Portals and cursors a session may keep.
pub(crate) const MAX_PORTALS: usize = 10_000;

/// Bytes that the prepared statements of a session may take, with their analyses, and as much again its portals and cursors with their
/// values: about 5,000 statements of an application.
pub(crate) const MAX_KEPT_BYTES: usize = 32 * 1024 * 1024;

/// Names the gateway uses for its own statements and portals; clients may not use them.
const OWN_NAME: &str = "_gateway";

/// Limits and facts a session is started with.
#[derive(Clone, Debug)]
pub(crate) struct SessionConfig {
    /// The largest frame either side may send, in bytes.
    pub max_frame_bytes: usize,
    /// Shared cache of analysed texts.
    pub analyses: Arc<AnalysisCache>,
    /// Shared history of definitions at this target.
    pub definitions: Arc<Definitions>,
    /// The database, as the server names it.
    pub database: String,
    /// How the server lexes text at the start.
    pub lexing: LexSettings,
}

/// A portal or cursor: a prepared statement with its arguments.
#[derive(Debug)]
pub(crate) struct Portal {
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) bind: Option<frontend::Bind>,
    /// The server has run it at least once: another Execute continues it.
    pub(crate) started: std::sync::atomic::AtomicBool,
    /// What its names meant when it was bound or declared: it reads those objects, whatever the names mean later.
    /// When it was made: the how manieth portal of the session.
    pub(crate) made: std::sync::OnceLock<u64>,
    /// It is a cursor `WITH HOLD`, and the transaction that declared it is over.
    pub(crate) committed: std::sync::atomic::AtomicBool,
    pub(crate) meaning: std::sync::OnceLock<Arc<Meaning>>,
    /// What `EXECUTE` or `FETCH` stood for when it was bound; `None` for what was not known then, and for everything else.
    pub(crate) stands_for: std::sync::OnceLock<Option<Arc<Prepared>>>,
    /// What has to happen to its columns, once the server has described them.
    pub(crate) shape: std::sync::OnceLock<Arc<shape::Shape>>,
}

/// Names and what they mean, as an approval is bound to them.
pub(crate) type Meaning = Vec<(std::borrow::Cow<'static, str>, String)>;

/// What the driver has to have decided before the session can go on.
#[derive(Debug)]
pub(crate) struct Judge {
    /// Texts that are prepared only.
    pub prepare: Option<Pending>,
    /// Operations that run.
    pub execute: Option<Pending>,
    /// The server has none of the texts yet: they may still be rewritten.
    pub rewritable: bool,
    /// What rewrites must know of the operations.
    pub backgrounds: Arc<[Background]>,
    /// A transaction is open: holding would keep its locks.
    pub in_transaction: bool,
}

/// What the driver must do.
#[derive(Debug)]
pub(crate) enum Task {
    /// Have these judged, then call [`Session::forward`] or [`Session::refuse`].
    Judge(Judge),
    /// Wait until another session is done, up to [`MAX_WAIT`] for one operation; then call [`Session::wake`].
    Wait {
        /// The count of [`Waiter::freed`] that was seen; `None` to look once more at once.
        seen: Option<u64>,
        /// It waits for the first time.
        first: bool,
    },
    /// Ask the server to cancel what it is running.
    CancelUpstream,
}

/// What people approved, waiting until it is sure that its names still mean what they were shown.
#[derive(Debug)]
struct Approved {
    prepare: Option<Permit>,
    execute: Option<Permit>,
    then: Vec<Arc<Meaning>>,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is under way, or extended messages are being gathered.
    Gathering(Segment),
    /// A transaction is begun around what was permitted.
    Opening(Box<envelope::Opening>),
    /// That transaction is ended.
    Closing(Box<envelope::Closing>),
    /// The server is asked what names mean.
    Resolving {
        segment: Segment,
        asked: Unresolved,
        failed: Option<Box<Denial>>,
        closes: u8,
        approved: Option<Box<Approved>>,
    },
    /// The driver has it judged.
    Judging(Segment),
    /// It may pass once another session is out of the way.
    Waiting(Box<gate::Waiting>),
    /// Forwarded; the answers are coming.
    Flowing(Box<Flow>),
    /// The upstream is made to fail, so that its transaction state is true; then the denial stands.
    Poisoning { simple: bool, told: bool, denial: Denial },
    /// After an error: the client's messages are dropped up to its Sync. `synced`: the server has seen a Sync already.
    Skipping { synced: bool },
    /// The client said goodbye.
    Closed,
}

/// One session. Feed it bytes, do its tasks, send what it wants sent.
#[derive(Debug)]
pub(crate) struct Session {
    guard: Guard,
    place: Place,
    config: SessionConfig,
    labels: LabelIndex,
    catalog: Catalog,
    memos: Memos,
    shapes: Shapes,
    status: TransactionStatus,
    statements: Kept<Prepared>,
    portals: Kept<Portal>,
    phase: Phase,
    /// Something in the open transaction changed what names mean; its end may undo that.
    dirty_transaction: bool,
    /// The open transaction, or unit, has reached labels whose values may not be shown: what it puts off may still report them.
    reached: bool,
    /// Changes of definitions in the open transaction, which other sessions see once it is committed.
    defining: Vec<UnderWay>,
    /// What other sessions may not change now.
    uses: Arc<Uses>,
    /// The point in the history of definitions at which names were last asked for.
    epoch: Epoch,
    /// The point at which the open transaction began.
    began: Epoch,
    /// The open transaction reads one snapshot to its end, the catalogue included.
    snapshot: bool,
    /// Messages since the last Sync have been forwarded: an implicit transaction may be open.
    mid_unit: bool,
    /// Since the last ReadyForQuery something may have changed a setting that changes how text is read; the server tells with the next.
    unread: bool,
    /// Since then a user's code ran, which may have done so too: the server is asked before anything else is sent.
    unsure: bool,
    /// The transaction of the gateway's own that what is under way runs in.
    envelope: Option<envelope::Envelope>,
    /// The results of what was forwarded since the last Sync.
    kept: Option<Results>,
    /// Notifications come at any time after the LISTEN that was permitted.
    listening: Option<Results>,
    /// The server was at work when the session was ended.
    busy_at_end: bool,
    /// The refused segment ended in the client's Sync.
    resume_at_sync: bool,
    /// The simple query that runs statement by statement.
    script: Option<Script>,
    /// The last value of each setting that the server reports and the client may see.
    reported: BTreeMap<String, String>,
    /// Settings that change what statements do, as far as they were changed.
    settings: Arc<BTreeMap<String, String>>,
    /// How often such a setting may have changed.
    settings_changed: u64,
    /// A setting by which texts are read was changed since the server last answered a Sync.
    rereads_at_sync: bool,
    /// One was in the open transaction.
    rereads_at_end: bool,
    savepoints: Savepoints,
    /// Portals made so far.
    portals_made: u64,
    /// An error came since the server was last idle, or the gateway rolled back.
    aborted: bool,
    /// What the client knows of them, while a simple query runs in parts: the server reports at the end of a query.
    told: Option<BTreeMap<String, String>>,
    tasks: VecDeque<Task>,
    to_upstream: BytesMut,
    to_downstream: VecDeque<Released>,
}

impl Session {
    /// A session that is logged in on both sides and idle. `reported`: the settings the client was told.
    pub(crate) fn new(guard: Guard, config: SessionConfig, reported: BTreeMap<String, String>) -> Self {
        let labels = LabelIndex::new(guard.labels(), &config.database);
        let place = Place { target: guard.info().target.clone(), database: config.database.clone() };
        let uses = config.definitions.join(&config.database);
        Self {
            guard,
            place,
            config,
            uses,
            labels,
            catalog: Catalog::default(),
            memos: Memos::default(),
            shapes: Shapes::default(),
            status: TransactionStatus::Idle,
            statements: Kept::default(),
            portals: Kept::default(),
            phase: Phase::Gathering(Segment::default()),
            dirty_transaction: false,
            reached: false,
            defining: Vec::new(),
            epoch: Epoch::default(),
            began: Epoch::default(),
            snapshot: false,
            mid_unit: false,
            unread: false,
            unsure: false,
            envelope: None,
            kept: None,
            listening: None,
            busy_at_end: false,
            resume_at_sync: false,
            script: None,
            settings: Arc::new(settings::reported(&reported)),
            settings_changed: 0,
            rereads_at_sync: false,
            rereads_at_end: false,
            savepoints: Savepoints::default(),
            portals_made: 0,
            aborted: false,
            reported,
            told: None,
            tasks: VecDeque::new(),
            to_upstream: BytesMut::new(),
            to_downstream: VecDeque::new(),
        }
    }

    /// Takes in bytes from the downstream. Whole frames are taken off `buffer` as far as the session can use them now; call again
    /// after every other input.
    ///
    /// # Errors
    /// The client broke the protocol: end the session.
    pub(crate) fn handle_downstream(&mut self, buffer: &mut BytesMut) -> Result<(), ProtocolError> {
        let large = self.config.max_frame_bytes;
        while self.wants_downstream() {
            self.end_before_data(buffer.first());
            if !self.wants_downstream() {
                return Ok(());
            }
            let Some(frame) = next_frame(buffer, |tag| frontend::limit(tag, large))? else { return Ok(()) };
            self.downstream_frame(frame)?;
        }
        Ok(())
    }

    fn wants_downstream(&self) -> bool {
        match &self.phase {
            Phase::Gathering(_) | Phase::Skipping { .. } => true,
            Phase::Flowing(flow) => flow.copy_in,
            _ => false,
        }
    }

    fn downstream_frame(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let message = frontend::decode(&frame)?;
        match &mut self.phase {
            Phase::Flowing(flow) if flow.copy_in => {
                let done = flow.copy_in_frame(&frame, &message)?;
                if done.forward {
                    self.to_upstream.extend_from_slice(frame.bytes());
                }
                if done.flush {
                    encode::flush(&mut self.to_upstream);
                }
                Ok(())
            }
            Phase::Skipping { synced } => {
                let synced = *synced;
                self.skip(&message, &frame, synced);
                Ok(())
            }
            Phase::Gathering(_) => self.gather(frame, message),
            _ => Err(ProtocolError::Unexpected { tag: frame.tag(), during: "while an answer is due" }),
        }
    }

    /// Drops messages up to the client's Sync, as the server does after an error.
    fn skip(&mut self, message: &frontend::Message, frame: &Frame, synced: bool) {
        match message {
            frontend::Message::Sync if synced => {
                self.ready_locally();
                self.start_over();
            }
            frontend::Message::Sync => {
                self.to_upstream.extend_from_slice(frame.bytes());
                self.phase = Phase::Flowing(Box::new(Flow::sync_only()));
            }
            frontend::Message::Terminate => self.phase = Phase::Closed,
            _ => {}
        }
    }

    /// Takes in bytes from the upstream.
    ///
    /// # Errors
    /// The server broke the protocol: end the session.
    pub(crate) fn handle_upstream(&mut self, buffer: &mut BytesMut) -> Result<(), ProtocolError> {
        let large = self.config.max_frame_bytes;
        loop {
            if let Phase::Flowing(_) = self.phase {
                self.flow(buffer)?;
            }
            let limit = |tag| backend::limit(tag, large);
            match peek(buffer, limit)? {
                Some((_, total)) if buffer.len() >= total && !matches!(self.phase, Phase::Flowing(_)) => {
                    let Some(frame) = next_frame(buffer, limit)? else { return Ok(()) };
                    self.upstream_frame(&frame)?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// A frame while no client operation is under way.
    fn upstream_frame(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        match frame.tag() {
            b'S' => self.parameter_status(frame),
            b'N' | b'A' => self.stray(frame),
            tag => match &mut self.phase {
                Phase::Resolving { .. } => self.resolving(frame),
                Phase::Opening(_) => self.opening(frame),
                Phase::Closing(_) => self.closing(frame),
                Phase::Poisoning { .. } => self.poisoning(frame),
                // The server ends a session with an unasked-for error (`terminating connection ...`).
                _ if tag == b'E' => {
                    self.upstream_gone();
                    Ok(())
                }
                _ => Err(ProtocolError::Unexpected { tag, during: "from the server while nothing is asked" }),
            },
        }
    }

    /// Parameter values that reach the client are those of known, harmless names only: a custom setting could carry data.
    fn parameter_status(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let (name, value) = backend::parameter_status(frame.body())?;
        self.observe_setting(name, value)?;
        if self.told.is_none() && crate::login::is_reported(name) {
            let mut out = BytesMut::new();
            encode::parameter_status(&mut out, name, value);
            self.originate(out.freeze());
        }
        Ok(())
    }

    /// A setting that changes how text is read ends the session.
    fn observe_setting(&mut self, name: &str, value: &str) -> Result<(), ProtocolError> {
        if crate::login::is_reported(name) {
            self.reported.insert(name.to_owned(), value.to_owned());
        }
        self.setting_reported(name, value);
        reads_as_understood(name, value)
    }

    /// A notification outside any operation belongs to the LISTEN that was permitted. Notices there are not shown: nothing was
    /// permitted that they could belong to.
    fn stray(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        if frame.tag() == b'N' {
            tracing::debug!("stray notice of the server dropped");
            return backend::fields(frame.body()).map(|_| ());
        }
        backend::notification(frame.body())?;
        let Some(listening) = &mut self.listening else { return Ok(()) };
        if listening.is_stale() {
            listening.adopt_masks();
        }
        let raw = frame.bytes().clone();
        let mut chunk = Chunk::default();
        chunk.edits.push((0..raw.len(), Edit::Notification));
        match listening.release(RECORD_ENCODING, raw, 1, |masker, raw| chunk.apply(masker, raw, false)) {
            Ok(released) => self.release(released),
            Err(denial) => tracing::info!(%denial, "a notification is not shown"),
        }
        Ok(())
    }

    fn upstream_gone(&mut self) {
        let denial = Denial::new(DenialCode::UpstreamUnavailable, "the server ended the session")
            .with_hint("connect again");
        let mut out = BytesMut::new();
        denial::fatal(&mut out, &denial);
        self.originate(out.freeze());
        self.phase = Phase::Closed;
    }

    /// The batches the driver had judged may pass.
    pub(crate) fn forward(&mut self, prepare: Option<Permit>, execute: Option<Permit>) {
        let Phase::Judging(segment) = self.take_phase() else { return };
        if prepare.as_ref().map(Permit::first) != segment.prepare
            || execute.as_ref().map(Permit::first) != segment.execute
        {
            self.phase = Phase::Judging(segment);
            let wrong = Denial::new(DenialCode::PolicyError, "the gateway mixed up its permits");
            return self.refuse(&wrong);
        }
        self.pass(segment, prepare, execute);
    }

    /// What was held may pass, if its names still mean what they meant when it was put up for approval.
    pub(crate) fn forward_approved(&mut self, prepare: Option<Permit>, execute: Option<Permit>) {
        let Phase::Judging(mut segment) = self.take_phase() else { return };
        segment.held = true;
        self.ask_again(segment, prepare, execute);
    }

    /// Lets what was judged pass if its names still mean the same.
    fn ask_again(&mut self, segment: Segment, prepare: Option<Permit>, execute: Option<Permit>) {
        let then = self.meanings(&segment);
        self.epoch = self.config.definitions.epoch();
        self.catalog.forget_names();
        let asked = self.unresolved(&segment);
        if asked.is_empty() {
            self.phase = Phase::Judging(segment);
            return self.forward(prepare, execute);
        }
        self.ask_names(segment, asked, Some(Box::new(Approved { prepare, execute, then })));
    }

    /// What was permitted does not run after all.
    pub(crate) fn withdraw_permits(
        &mut self,
        prepare: Option<Permit>,
        execute: Option<Permit>,
        denial: &Denial,
    ) {
        self.withdraw(Some(Box::new(Approved { prepare, execute, then: Vec::new() })), denial);
        self.refuse(denial);
    }

    /// What was being judged is refused.
    pub(crate) fn refuse(&mut self, denial: &Denial) {
        if let Phase::Judging(segment) = self.take_phase() {
            self.deny(&segment, denial.clone());
        }
    }

    /// Sends a notice from the gateway, for example that an operation is held.
    pub(crate) fn notice(&mut self, fields: encode::Fields) {
        let mut out = BytesMut::new();
        encode::notice(&mut out, fields);
        self.originate(out.freeze());
    }

    /// Ends the session from our side with a last error.
    pub(crate) fn end(&mut self, denial: &Denial) {
        let mut out = BytesMut::new();
        denial::fatal(&mut out, denial);
        self.originate(out.freeze());
        self.busy_at_end |= !self.is_idle();
        self.phase = Phase::Closed;
    }

    /// Refuses a segment: answers the client, and sees to it that the upstream's transaction fails too if one is open.
    fn deny(&mut self, segment: &Segment, denial: Denial) {
        let simple = segment.is_simple();
        self.step_back();
        if self.abandon_script() {
            self.phase = Phase::Poisoning { simple: true, told: false, denial };
            return;
        }
        let open = self.status == TransactionStatus::Open
            || (self.mid_unit && self.status == TransactionStatus::Idle);
        if open {
            let mut told = false;
            if !simple {
                self.tell(&denial);
                told = true;
            }
            self.poison(simple);
            self.phase = Phase::Poisoning { simple, told, denial };
            // Everything up to the client's Sync is dropped; a Sync already here counts.
            self.resume_at_sync = segment.ends_in_sync();
            return;
        }
        self.tell(&denial);
        self.after_denial(simple, segment.ends_in_sync());
    }

    fn after_denial(&mut self, simple: bool, synced_by_client: bool) {
        if simple || synced_by_client {
            self.ready_locally();
            self.start_over();
        } else {
            self.phase = Phase::Skipping { synced: true };
        }
    }

    /// Sends the server something that is sure to fail without doing anything.
    fn poison(&mut self, simple: bool) {
        const REFUSED: &str = "operation refused by the gateway";
        if simple {
            encode::query(&mut self.to_upstream, REFUSED);
        } else {
            encode::parse(&mut self.to_upstream, "_gateway_refused", REFUSED);
            encode::sync(&mut self.to_upstream);
        }
    }

    fn poisoning(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        match frame.tag() {
            b'E' | b'C' => Ok(()),
            b'Z' => {
                self.status = backend::ready_for_query(frame.body())?;
                (self.unread, self.unsure) = (false, false);
                let Phase::Poisoning { simple, told, denial } = self.take_phase() else { return Ok(()) };
                if !told {
                    self.tell(&denial);
                }
                self.settle_transaction();
                let synced = std::mem::take(&mut self.resume_at_sync);
                self.after_denial(simple, synced);
                Ok(())
            }
            tag => Err(ProtocolError::Unexpected { tag, during: "while a refusal is made true" }),
        }
    }

    fn tell(&mut self, denial: &Denial) {
        let mut out = BytesMut::new();
        denial::error(&mut out, denial);
        self.originate(out.freeze());
    }

    fn ready_locally(&mut self) {
        let mut out = BytesMut::new();
        let told = self.told.take();
        for (name, value) in
            told.iter().flat_map(|told| self.reported.iter().filter(|(n, v)| told.get(*n) != Some(*v)))
        {
            encode::parameter_status(&mut out, name, value);
        }
        encode::ready(&mut out, self.status);
        self.originate(out.freeze());
    }

    fn start_over(&mut self) {
        self.mid_unit = false;
        self.phase = Phase::Gathering(Segment::default());
    }

    /// At the end of a unit: an ended transaction may have undone what names mean, and its portals are gone.
    fn settle_transaction(&mut self) {
        if self.status == TransactionStatus::Idle {
            self.uses.leave();
            self.defining.clear();
            self.snapshot = false;
            self.reached = false;
            if std::mem::take(&mut self.dirty_transaction) {
                self.catalog.forget_names();
            }
            let committed = !std::mem::take(&mut self.aborted);
            self.portals_at_end(committed);
        } else if self.status == TransactionStatus::Failed {
            self.catalog.forget_names();
        }
    }

    fn take_phase(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Closed)
    }

    fn originate(&mut self, bytes: Bytes) {
        let released = self.guard.originate(bytes);
        self.release(released);
    }

    fn release(&mut self, released: Released) {
        self.to_downstream.push_back(released);
    }

    /// The next thing the driver must do.
    pub(crate) fn poll_task(&mut self) -> Option<Task> {
        self.tasks.pop_front()
    }

    /// Whether there is anything for the driver to do.
    pub(crate) fn has_tasks(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Bytes for the upstream; the driver takes what it has sent off the front.
    pub(crate) const fn upstream_bytes(&mut self) -> &mut BytesMut {
        &mut self.to_upstream
    }

    /// True if there is a piece for the downstream.
    pub(crate) fn has_output(&self) -> bool {
        !self.to_downstream.is_empty()
    }

    /// The next piece for the downstream.
    pub(crate) fn poll_downstream(&mut self) -> Option<Released> {
        self.to_downstream.pop_front()
    }

    /// True once nothing more is to be done but to send what is queued and close.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// True while nothing is under way at the server.
    pub(crate) const fn is_idle(&self) -> bool {
        match self.phase {
            Phase::Closed => !self.busy_at_end,
            Phase::Gathering(_) | Phase::Judging(_) | Phase::Waiting(_) | Phase::Skipping { .. } => true,
            _ => false,
        }
    }

    /// Whether the open transaction changed definitions.
    pub(crate) const fn is_defining(&self) -> bool {
        !self.defining.is_empty()
    }

    /// The shared history of definitions.
    pub(crate) fn definitions(&self) -> &Definitions {
        &self.config.definitions
    }

    /// The most input of the client worth keeping: one largest frame.
    pub(crate) const fn max_input(&self) -> usize {
        self.config.max_frame_bytes + crate::codec::HEADER_BYTES
    }

    /// True while an operation waits for its judgement.
    pub(crate) const fn is_judging(&self) -> bool {
        matches!(self.phase, Phase::Judging(_) | Phase::Waiting(_))
    }

    /// The results on their way, for the driver to refresh when policies change.
    pub(crate) fn results(&self) -> Option<&Results> {
        match &self.phase {
            Phase::Flowing(flow) if flow.results.is_some() => flow.results.as_ref(),
            _ => self.listening.as_ref(),
        }
    }

    /// Takes over what the policies say now of the results on their way.
    pub(crate) fn adopt_masks(&mut self) {
        match &mut self.phase {
            Phase::Flowing(flow) if flow.results.is_some() => flow.adopt_masks(),
            _ => {
                if let Some(listening) = &mut self.listening {
                    listening.adopt_masks();
                }
            }
        }
    }

    fn pending(&self, batch: Option<Batch>) -> Option<Pending> {
        batch.map(|batch| self.guard.pending(batch))
    }
}

impl Portal {
    /// A cursor declared in SQL.
    fn cursor(prepared: Arc<Prepared>) -> Self {
        Self::new(prepared, None)
    }

    /// A portal that Bind makes.
    fn bound(prepared: Arc<Prepared>, bind: frontend::Bind) -> Self {
        Self::new(prepared, Some(bind))
    }

    fn new(prepared: Arc<Prepared>, bind: Option<frontend::Bind>) -> Self {
        Self {
            prepared,
            bind,
            started: Default::default(),
            meaning: Default::default(),
            stands_for: Default::default(),
            shape: Default::default(),
            made: Default::default(),
            committed: Default::default(),
        }
    }

    /// True for cursors that outlive their transaction.
    fn outlives_transaction(&self) -> bool {
        self.bind.is_none() && self.holds()
    }

    fn holds(&self) -> bool {
        self.prepared
            .text
            .statement(self.prepared.index)
            .and_then(|s| s.cursor.as_ref())
            .is_some_and(|c| c.hold)
    }
}
