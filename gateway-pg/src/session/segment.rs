//! From the client's messages to operations: gathering, understanding, resolving names, asking for judgement, forwarding.

mod names;
mod operations;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Access, Batch, OperationId, Stage};
use gateway_core::pipeline::Permit;

use self::operations::{Operations, Order, apart, note_rewritten};
use super::envelope;
use super::flow::{Expect, Flow};
use super::kept::{Kept, Kind, Weighs};
use super::{
    Judge, MAX_PORTALS, MAX_SEGMENT_BYTES, MAX_SEGMENT_MESSAGES, MAX_STATEMENTS, OWN_NAME, Phase, Portal,
    Session, Task,
};
use crate::analysis::Statement;
use crate::codec::backend::TransactionStatus;
use crate::codec::frontend::{Bind, FunctionCall, Message, Named, Parse};
use crate::codec::{Frame, ProtocolError, encode};
use crate::fast_path;
use crate::operation::{self};
use crate::statement::{Prepared, Text, changes_meaning, ends_transaction};

/// Where a segment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// Not yet.
    #[default]
    Open,
    /// A simple query (or a function call) ends itself.
    Simple,
    /// The client's Sync.
    Sync,
    /// The client's Flush, or the limit on what is gathered.
    Flush,
}

/// A message of the client, understood.
#[derive(Debug)]
enum Step {
    Query(Arc<Text>),
    Parse {
        name: String,
        prepared: Arc<Prepared>,
    },
    Bind {
        name: String,
        portal: Arc<Portal>,
    },
    DescribeStatement {
        name: String,
        prepared: Arc<Prepared>,
    },
    DescribePortal {
        name: String,
        portal: Arc<Portal>,
    },
    Execute {
        name: String,
        portal: Arc<Portal>,
    },
    /// A call outside SQL, as the portal of the same call in SQL.
    Call {
        portal: Arc<Portal>,
        result: u32,
    },
    Close(Named),
    Flush,
    Sync,
}

/// Messages that are judged and forwarded together.
#[derive(Debug, Default)]
pub(super) struct Segment {
    frames: Vec<Frame>,
    steps: Vec<Step>,
    bytes: usize,
    end: End,
    statements: Kept<Prepared>,
    portals: Kept<Portal>,
    /// The texts of the operations that are judged, in order.
    prepared: Vec<Arc<Text>>,
    executed: Vec<Arc<Text>>,
    pub(super) prepare: Option<OperationId>,
    pub(super) execute: Option<OperationId>,
    /// It may change how text is read.
    unread: bool,
    /// What came after it, to be judged once it has run.
    rest: Option<Box<Self>>,
    /// How often its names had to be asked for again because another session changed a definition.
    pub(super) asked_again: u8,
    /// People approved it.
    pub(super) held: bool,
    /// It has waited for another session.
    pub(super) waited: bool,
}

impl Segment {
    /// A simple query of the gateway's making.
    pub(super) fn of_query(frame: Frame, text: Arc<Text>) -> Self {
        Self { frames: vec![frame], steps: vec![Step::Query(text)], end: End::Simple, ..Self::default() }
    }

    /// A simple query of which nothing is left to be sent.
    pub(super) fn simple() -> Self {
        Self { end: End::Simple, ..Self::default() }
    }

    /// The text of a simple query.
    pub(super) fn query(&self) -> Option<&Arc<Text>> {
        match self.steps.as_slice() {
            [Step::Query(text)] => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_simple(&self) -> bool {
        self.end == End::Simple
    }

    /// Whether the server answers all of it before it waits for more.
    pub(super) fn is_whole(&self) -> bool {
        let copies = self.runs().any(|s| s.kind == "copy_from");
        self.end == End::Simple || (self.end == End::Sync && !copies)
    }

    /// Whether it ends in a COPY FROM and the Sync behind that.
    fn ends_in_copy(&self) -> bool {
        matches!(self.steps.as_slice(), [.., copy, Step::Sync] if copy.copies_in())
    }

    /// Whether a COPY FROM is the last so far.
    fn ends_at_copy(&self) -> bool {
        self.steps.last().is_some_and(Step::copies_in)
    }

    /// Whether it begins or ends a transaction, or part of one.
    pub(super) fn controls_transactions(&self) -> bool {
        self.runs().any(|statement| statement.transaction.is_some())
    }

    /// A statement in it that changes something and does not tell how many rows.
    pub(super) fn uncounted(&self) -> Option<String> {
        let counted = |s: &Statement| {
            let plain = matches!(&*s.kind, "insert" | "update" | "delete" | "merge" | "copy_from");
            s.read_only() || (plain && !s.flags.modifying_cte)
        };
        self.runs().find(|statement| !counted(statement)).map(|statement| statement.kind.to_string())
    }

    /// Whether the server has none of the texts that are judged: one simple statement, or what is parsed in this very segment.
    fn is_rewritable(&self) -> bool {
        let parsed = |text: &Arc<Text>| {
            self.steps
                .iter()
                .any(|s| matches!(s, Step::Parse { prepared, .. } if Arc::ptr_eq(&prepared.text, text)))
        };
        match self.steps.as_slice() {
            // What is forwarded is one text: of several statements none can be replaced alone.
            [Step::Query(text)] => text.of() == 1,
            _ => self.texts().all(parsed),
        }
    }

    /// Whether the client's Sync is here.
    pub(super) fn ends_in_sync(&self) -> bool {
        self.end == End::Sync || self.rest.as_ref().is_some_and(|rest| rest.ends_in_sync())
    }

    /// Keeps the messages up to the one at `last`, the others for later.
    fn split_after(&mut self, last: usize) {
        let rest = Self {
            frames: self.frames.split_off(last + 1),
            steps: self.steps.split_off(last + 1),
            end: std::mem::replace(&mut self.end, End::Flush),
            rest: self.rest.take(),
            ..Self::default()
        };
        self.rest = Some(Box::new(rest));
    }

    /// The message before an `EXECUTE`, `FETCH` or `MOVE` by a name that messages before it close, prepare or bind: what it stands for is known
    /// once they are answered.
    fn before_reference(&self) -> Option<usize> {
        let position = self.steps.iter().enumerate().position(|(at, step)| {
            let Step::Execute { portal, .. } = step else { return false };
            let statement = portal.prepared.statement();
            let Some(name) = statement.and_then(referred_name) else { return false };
            self.steps.iter().take(at).any(|before| match before {
                Step::Close(_) => true,
                Step::Parse { name: made, .. } | Step::Bind { name: made, .. } => *made == name,
                _ => false,
            })
        });
        position?.checked_sub(1)
    }

    fn is_full(&self) -> bool {
        self.steps.len() >= MAX_SEGMENT_MESSAGES || self.bytes >= MAX_SEGMENT_BYTES
    }

    /// The statements that run.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Statement> {
        self.steps.iter().flat_map(|step| match step {
            Step::Query(text) => text.analysis.statements.as_slice(),
            Step::Execute { portal, .. } | Step::Call { portal, .. } => {
                portal.prepared.text.statement(portal.prepared.index).map_or(&[][..], std::slice::from_ref)
            }
            _ => &[],
        })
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &Arc<Text>> {
        self.steps.iter().filter_map(|step| match step {
            Step::Query(text) => Some(text),
            Step::Parse { prepared, .. } | Step::DescribeStatement { prepared, .. } => Some(&prepared.text),
            Step::Bind { portal, .. }
            | Step::DescribePortal { portal, .. }
            | Step::Execute { portal, .. }
            | Step::Call { portal, .. } => Some(&portal.prepared.text),
            _ => None,
        })
    }
}

impl Session {
    /// Takes in one message while nothing is under way.
    pub(super) fn gather(&mut self, frame: Frame, message: Message) -> Result<(), ProtocolError> {
        let Phase::Gathering(segment) = &mut self.phase else { return Ok(()) };
        match message {
            Message::Terminate => {
                self.to_upstream.extend_from_slice(frame.bytes());
                self.phase = Phase::Closed;
                return Ok(());
            }
            // Left over from a copy that failed: ignored, as in the server (PostgresMain).
            Message::CopyData | Message::CopyDone | Message::CopyFail => return Ok(()),
            Message::Query(_) | Message::FunctionCall(_) if !segment.steps.is_empty() => {
                return Err(ProtocolError::Unexpected { tag: frame.tag(), during: "before Sync" });
            }
            _ => {}
        }
        segment.bytes += frame.bytes().len();
        segment.frames.push(frame);
        if let Err(denial) = self.understand(message) {
            return self.deny_gathered(&denial);
        }
        self.assemble_if_ended();
        Ok(())
    }

    /// Data for a copy whose Execute is here already, with nothing behind it that has it run: it is run, and takes the data then.
    pub(super) fn end_before_data(&mut self, tag: Option<&u8>) {
        let Phase::Gathering(segment) = &mut self.phase else { return };
        if matches!(tag, Some(b'd' | b'c' | b'f')) && segment.ends_at_copy() {
            segment.end = End::Flush;
            self.assemble_if_ended();
        }
    }

    fn deny_gathered(&mut self, denial: &Denial) -> Result<(), ProtocolError> {
        let Phase::Gathering(segment) = self.take_phase() else { return Ok(()) };
        // What was not understood is recorded too, as far as it is text.
        let statement = segment.frames.last().map(statement_text).unwrap_or_default();
        let refused = operation::refused(statement, &self.config.lexing);
        let pending = self.guard.pending(Batch::one(Stage::Execute, refused));
        let denial = self.guard.refuse(&pending, denial.clone());
        self.deny(&segment, denial);
        Ok(())
    }

    fn assemble_if_ended(&mut self) {
        let Phase::Gathering(segment) = &mut self.phase else { return };
        if segment.end == End::Open && segment.is_full() {
            segment.end = End::Flush;
        }
        if segment.end != End::Open
            && let Phase::Gathering(segment) = self.take_phase()
        {
            self.assemble(segment);
        }
    }

    /// Turns a message into a step of the segment being gathered.
    fn understand(&mut self, message: Message) -> Result<(), Denial> {
        if self.unread && !matches!(message, Message::Close(_) | Message::Flush | Message::Sync) {
            return Err(unread());
        }
        let (step, end) = match message {
            Message::Query(text) => {
                if let Phase::Gathering(segment) = &mut self.phase {
                    segment.end = End::Simple;
                }
                (Step::Query(self.text(text)?), End::Simple)
            }
            Message::FunctionCall(call) => {
                if let Phase::Gathering(segment) = &mut self.phase {
                    segment.end = End::Simple;
                }
                (self.call_step(call)?, End::Simple)
            }
            Message::Parse(parse) => (self.parse_step(parse)?, End::Open),
            Message::Bind(bind) => (self.bind_step(bind)?, End::Open),
            Message::Describe(Named::Statement(name)) => {
                (Step::DescribeStatement { prepared: self.prepared(&name)?, name }, End::Open)
            }
            Message::Describe(Named::Portal(name)) => {
                (Step::DescribePortal { portal: self.portal(&name)?, name }, End::Open)
            }
            Message::Execute { portal, .. } => {
                let step = Step::Execute { portal: self.portal(&portal)?, name: portal };
                // What follows is judged once this has run, by what names mean then.
                let end = if self.may_change_meaning(&step) { End::Flush } else { End::Open };
                (step, end)
            }
            Message::Close(named) => (Step::Close(self.own_name_free(named)?), End::Open),
            Message::Flush => (Step::Flush, End::Flush),
            Message::Sync => (Step::Sync, End::Sync),
            Message::CopyData | Message::CopyDone | Message::CopyFail | Message::Terminate => return Ok(()),
        };
        let Phase::Gathering(segment) = &mut self.phase else { return Ok(()) };
        segment.steps.push(step);
        segment.end = end;
        Ok(())
    }

    fn may_change_meaning(&self, step: &Step) -> bool {
        let Step::Execute { portal, .. } = step else { return false };
        let ends = |statement| self.dirty_transaction && ends_transaction(statement);
        portal.prepared.text.statement(portal.prepared.index).is_some_and(|statement| {
            changes_meaning(statement) || ends(statement) || changes_names_kept(statement)
        })
    }

    /// The first message that may change what the names in later ones mean, as it is judged.
    fn first_change(&self, segment: &Segment) -> Option<usize> {
        let (one, other) = (segment.before_reference(), self.first_change_of_names(segment));
        one.into_iter().chain(other).min()
    }

    fn first_change_of_names(&self, segment: &Segment) -> Option<usize> {
        let last = segment.steps.iter().rposition(Step::depends_on_names)?;
        let mut settled: Option<&Arc<Prepared>> = None;
        segment.steps.iter().take(last).enumerate().position(|(at, step)| {
            let portal = match step {
                Step::Execute { portal, .. } => portal,
                Step::Bind { portal, .. } => return self.is_planned_before_others(segment, at, portal),
                _ => return false,
            };
            if settled.is_some_and(|known| Arc::ptr_eq(known, &portal.prepared)) {
                return false;
            }
            settled = Some(&portal.prepared);
            self.portal_changes(portal)
        })
    }

    /// Whether code that may change what names mean can run when a portal is bound (planning computes immutable functions), and anything
    /// but that portal comes after it.
    fn is_planned_before_others(&self, segment: &Segment, at: usize, portal: &Arc<Portal>) -> bool {
        let its_own = |step: &Step| match step {
            Step::Execute { portal: other, .. } | Step::DescribePortal { portal: other, .. } => {
                Arc::ptr_eq(other, portal)
            }
            other => !other.depends_on_names(),
        };
        let operation = || self.portal_operation(portal).ok().flatten();
        let calls = |access: &Access| access.action.as_str() == "call" && operation::moves_names(access);
        !segment.steps.iter().skip(at + 1).all(its_own)
            && operation().is_some_and(|understood| understood.operation.accesses.iter().any(calls))
    }

    fn portal_changes(&self, portal: &Portal) -> bool {
        let Some(statement) = portal.prepared.text.statement(portal.prepared.index) else { return false };
        // What cannot be judged is refused soon.
        let operation = self.portal_operation(portal).ok().flatten();
        operation.is_some_and(|o| Order::of(self).changes(statement, &o.operation))
    }

    /// Goes on with what was put aside: its names are looked at anew.
    pub(super) fn resume(&mut self, rest: Segment) {
        match self.same_portals(&rest) {
            Ok(()) => self.assemble(rest),
            Err(denial) => self.refuse_segment(&rest, denial),
        }
    }

    /// Refuses what cannot be judged, and records it.
    fn refuse_segment(&mut self, segment: &Segment, denial: Denial) {
        let text = segment.texts().next().map(|t| t.bytes.clone()).unwrap_or_default();
        let refused = operation::refused(text, &self.config.lexing);
        let pending = self.guard.pending(Batch::one(Stage::Execute, refused));
        let denial = self.guard.refuse(&pending, denial);
        self.deny(segment, denial);
    }

    /// What ran meanwhile may have closed a portal or prepared a statement under a name that was looked up before.
    fn same_portals(&self, rest: &Segment) -> Result<(), Denial> {
        let mut portals: HashMap<&str, &Arc<Portal>> = HashMap::new();
        let mut statements: HashMap<&str, &Arc<Prepared>> = HashMap::new();
        for step in &rest.steps {
            match step {
                Step::Parse { name, prepared } => drop(statements.insert(name, prepared)),
                Step::Bind { name, portal } => {
                    let source = portal.bind.as_ref().map(|bind| bind.statement.as_str()).unwrap_or_default();
                    let now = statements.get(source).copied().or_else(|| self.statements.get(source));
                    if !now.is_some_and(|now| Arc::ptr_eq(now, &portal.prepared)) {
                        return Err(unknown("prepared statement", source));
                    }
                    portals.insert(name, portal);
                }
                Step::Execute { name, portal } | Step::DescribePortal { name, portal } => {
                    let now = portals.get(name.as_str()).copied().or_else(|| self.portals.get(name));
                    if !now.is_some_and(|now| Arc::ptr_eq(now, portal)) {
                        return Err(unknown("portal", name));
                    }
                }
                Step::DescribeStatement { name, prepared } => {
                    let now = statements.get(name.as_str()).copied().or_else(|| self.statements.get(name));
                    if !now.is_some_and(|now| Arc::ptr_eq(now, prepared)) {
                        return Err(unknown("prepared statement", name));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn text(&mut self, bytes: bytes::Bytes) -> Result<Arc<Text>, Denial> {
        let text = Text::understand(&self.config.analyses, &mut self.memos, bytes, &self.config.lexing)?;
        text.analysis.statements.iter().try_for_each(|statement| self.own_name(&defined_name(statement)))?;
        Ok(text)
    }

    fn parse_step(&mut self, parse: Parse) -> Result<Step, Denial> {
        self.own_name(&parse.name)?;
        let text = self.text(parse.statement)?;
        if text.analysis.statements.len() > 1 {
            // The server: "cannot insert multiple commands into a prepared statement".
            let message = "a prepared statement can hold one command only";
            return Err(Denial::new(DenialCode::NotUnderstood, message).with_hint("prepare them one by one"));
        }
        let prepared = Arc::new(Prepared::new(text, 0).with_types(parse.types));
        self.room_for_statement(&parse.name, prepared.weight())?;
        if let Phase::Gathering(segment) = &mut self.phase {
            segment.statements.insert(parse.name.clone(), Arc::clone(&prepared));
        }
        Ok(Step::Parse { name: parse.name, prepared })
    }

    fn bind_step(&mut self, bind: Bind) -> Result<Step, Denial> {
        self.own_name(&bind.portal)?;
        let prepared = self.prepared(&bind.statement)?;
        let name = bind.portal.clone();
        let portal = Arc::new(Portal::bound(prepared, bind));
        self.room_for_portal(&name, portal.weight())?;
        if let Phase::Gathering(segment) = &mut self.phase {
            segment.portals.insert(name.clone(), Arc::clone(&portal));
        }
        Ok(Step::Bind { name, portal })
    }

    /// A call outside SQL is judged as the same call in SQL, and forwarded as it is.
    fn call_step(&mut self, call: FunctionCall) -> Result<Step, Denial> {
        let function = fast_path::find(call.function, call.bind.parameters.len())?;
        let text = self.text(bytes::Bytes::from_static(function.sql.as_bytes()))?;
        let prepared = Arc::new(Prepared::new(text, 0).with_types(function.arguments.to_vec()));
        Ok(Step::Call { portal: Arc::new(Portal::bound(prepared, call.bind)), result: function.result })
    }

    fn room_for_statement(&self, name: &str, bytes: usize) -> Result<(), Denial> {
        const KIND: Kind = Kind { name: "prepared statements", most: MAX_STATEMENTS };
        let none = Kept::default();
        let coming = if let Phase::Gathering(segment) = &self.phase { &segment.statements } else { &none };
        self.statements.room(name, bytes, coming, &KIND)
    }

    fn room_for_portal(&self, name: &str, bytes: usize) -> Result<(), Denial> {
        const KIND: Kind = Kind { name: "portals", most: MAX_PORTALS };
        let none = Kept::default();
        let coming = if let Phase::Gathering(segment) = &self.phase { &segment.portals } else { &none };
        self.portals.room(name, bytes, coming, &KIND)
    }

    /// What `PREPARE` and `DECLARE` make is kept like what Parse and Bind make.
    fn room_for_made(&self, text: &Text, statement: &Statement) -> Result<(), Denial> {
        match &*statement.kind {
            "prepare" => self.room_for_statement(&defined_name(statement), text.weight()),
            "declare_cursor" => self.room_for_portal(&defined_name(statement), text.weight()),
            _ => Ok(()),
        }
    }

    fn prepared(&self, name: &str) -> Result<Arc<Prepared>, Denial> {
        let Phase::Gathering(segment) = &self.phase else { return Err(unknown("prepared statement", name)) };
        let found = segment.statements.get(name).or_else(|| self.statements.get(name));
        found.cloned().ok_or_else(|| unknown("prepared statement", name))
    }

    fn portal(&self, name: &str) -> Result<Arc<Portal>, Denial> {
        let Phase::Gathering(segment) = &self.phase else { return Err(unknown("portal", name)) };
        let found = segment.portals.get(name).or_else(|| self.portals.get(name));
        found.cloned().ok_or_else(|| unknown("portal", name))
    }

    /// All messages are here: make sure of what the names in them mean.
    pub(super) fn assemble(&mut self, segment: Segment) {
        let Some(segment) = self.start_script(segment) else { return };
        if self.status == TransactionStatus::Idle && !self.mid_unit {
            self.began = self.config.definitions.epoch();
        }
        self.forget_if_changed(&segment);
        let asked = self.unresolved(&segment);
        // What comes while it is not known how text is read is refused anyway; without any text it does not matter.
        let sure = !self.unsure || !segment.steps.iter().any(Step::depends_on_names);
        let sure = sure && !self.needs_path(&segment);
        if self.unread || (asked.is_empty() && sure) {
            return self.ask_judgement(segment);
        }
        if self.status == TransactionStatus::Failed {
            return self.deny(&segment, transaction_failed());
        }
        self.ask_names(segment, asked, None);
    }

    /// Whether it does more than read while the search path, which what is approved is bound to, is not known: code and constants may name
    /// things though the text does not.
    fn needs_path(&self, segment: &Segment) -> bool {
        let does = |s: &Statement| !s.read_only() && !operation::SESSION_ONLY.contains(&&*s.kind);
        self.catalog.search_path().is_none()
            && self.status != TransactionStatus::Failed
            && segment.texts().flat_map(|text| &text.analysis.statements).any(does)
    }

    /// Builds the operations and has them judged; a segment that runs nothing and names nothing passes as it is.
    fn ask_judgement(&mut self, mut segment: Segment) {
        if let Some(last) = self.first_change(&segment) {
            segment.split_after(last);
        }
        let (prepare, execute) = match self.operations(&segment) {
            Ok(Operations { order, .. }) if order.follows => {
                let Some(segment) = self.run_in_parts(segment) else { return };
                return self.refuse_segment(&segment, follows());
            }
            Ok(Operations { prepare, mut execute, order }) => {
                segment.unread = order.unread;
                let unsettled = order.unsettled.unwrap_or(usize::MAX);
                for (at, understood) in execute.iter_mut().enumerate() {
                    if at >= unsettled || understood.by_place {
                        understood.operation.binding = self.unknown_settings();
                    }
                }
                (prepare, execute)
            }
            Err(denial) => return self.refuse_segment(&segment, denial),
        };
        let backgrounds = prepare.iter().chain(&execute).map(|u| u.background.clone()).collect();
        let (prepare, prepared) = apart(prepare);
        let (execute, executed) = apart(execute);
        (segment.prepared, segment.executed) = (prepared, executed);
        let prepare = self.pending(Batch::new(Stage::Prepare, prepare));
        let execute = self.pending(Batch::new(Stage::Execute, execute));
        segment.prepare = prepare.as_ref().map(|p| p.first());
        segment.execute = execute.as_ref().map(|p| p.first());
        if prepare.is_none() && execute.is_none() {
            return self.send(segment, None, None);
        }
        let in_transaction = self.status != TransactionStatus::Idle || self.mid_unit;
        let rewritable = segment.is_rewritable();
        self.tasks.push_back(Task::Judge(Judge {
            prepare,
            execute,
            rewritable,
            backgrounds,
            in_transaction,
        }));
        self.phase = Phase::Judging(segment);
    }

    /// Forwards a permitted segment, byte for byte as judged, and notes which answers are due.
    pub(super) fn send_as_it_is(
        &mut self,
        mut segment: Segment,
        prepare: Option<Permit>,
        execute: Option<Permit>,
    ) {
        let statements: Vec<_> = segment.texts().map(Arc::clone).collect();
        let mut results = None;
        let mut forgets = false;
        self.unread |= segment.unread;
        let rest = segment.rest.take();
        let alone = segment.runs().count() == 1
            && (segment.is_simple() || segment.end == End::Sync)
            && self.status == TransactionStatus::Idle
            && !self.mid_unit
            && self.script.is_none();
        let cap = envelope::cap(execute.as_ref());
        for (permit, texts) in [(prepare, &segment.prepared), (execute, &segment.executed)] {
            let Some((batch, more)) = permit.map(Permit::consume) else { continue };
            note_rewritten(&batch, texts);
            // Also what is only prepared: planning runs functions.
            self.settings_change(batch.operations());
            forgets |= batch.operations().iter().flat_map(|o| o.accesses.iter()).any(operation::moves_names);
            results = Some(more);
        }
        let mut expected = VecDeque::new();
        let holds_sync = segment.ends_in_copy();
        for (step, frame) in segment.steps.into_iter().zip(&segment.frames) {
            if let Step::Execute { portal, name } = &step
                && self.needs_description(portal, &expected)
            {
                encode::describe_portal(&mut self.to_upstream, name);
                expected.push_back(Expect::DescribePortal { portal: Arc::clone(portal), shown: false });
            }
            match &step {
                // The batch inside the permit is what was judged, after rewriting.
                Step::Query(text) if text.sent.get().is_some() => {
                    encode::query(&mut self.to_upstream, &text.rewritten());
                }
                Step::Parse { name, prepared } if prepared.text.sent.get().is_some() => {
                    encode::parse_typed(
                        &mut self.to_upstream,
                        name,
                        &prepared.text.rewritten(),
                        &prepared.types,
                    );
                }
                // Whether the server answers it is known when the copy has begun.
                Step::Sync if holds_sync => encode::flush(&mut self.to_upstream),
                _ => self.to_upstream.extend_from_slice(frame.bytes()),
            }
            expected.extend(expect(step));
        }
        if segment.end == End::Flush && !matches!(segment.frames.last().map(Frame::tag), Some(b'H')) {
            encode::flush(&mut self.to_upstream);
        }
        self.mid_unit = true;
        let results = match (results, self.kept.take()) {
            (Some(new), Some(old)) => {
                self.finish(Some(old), "");
                Some(new)
            }
            (new, old) => new.or(old),
        };
        let analysed = statements.iter().flat_map(|t| &t.analysis.statements);
        let reached = self.reached_by(analysed, results.as_ref());
        self.script_protects(&reached.protected);
        let mut run = statements.iter().flat_map(|t| &t.analysis.statements);
        let deferred = self.status != TransactionStatus::Open || run.any(|s| self.runs_deferred(s));
        let withholds = self.reached && deferred;
        self.reached |= !reached.protected.is_empty();
        let mut flow = Flow::new(expected, results, reached);
        (flow.withholds, flow.holds_sync) = (withholds, holds_sync);
        (flow.forgets, flow.rest, flow.alone) = (forgets, rest, alone);
        flow.cap = cap;
        self.phase = Phase::Flowing(Box::new(flow));
        self.flow_over_if_done();
    }

    /// Whether the columns of a portal must still be asked for before its rows can be masked.
    fn needs_description(&self, portal: &Arc<Portal>, expected: &VecDeque<Expect>) -> bool {
        let coming =
            |e: &Expect| matches!(e, Expect::DescribePortal { portal: p, .. } if Arc::ptr_eq(p, portal));
        portal.shape.get().is_none()
            && !expected.iter().any(coming)
            && portal.prepared.statement().is_some_and(operation::may_return_rows)
    }
}

impl Step {
    /// Whether it runs a COPY FROM.
    fn copies_in(&self) -> bool {
        let Self::Execute { portal, .. } = self else { return false };
        portal.prepared.statement().is_some_and(|statement| statement.kind == "copy_from")
    }

    /// Whether it is understood by what names mean, and how text is read, when it comes.
    const fn depends_on_names(&self) -> bool {
        !matches!(self, Self::Close(_) | Self::Flush | Self::Sync)
    }
}

fn follows() -> Denial {
    let message = "a statement follows one that may change what its names mean, in the same message";
    Denial::new(DenialCode::NotUnderstood, message).with_hint("send the statements one at a time")
}

fn unread() -> Denial {
    let message = "what came before may have changed a setting that changes how statements are read";
    Denial::new(DenialCode::NotUnderstood, message).with_hint("send Sync after it, before anything else")
}

fn expect(step: Step) -> Option<Expect> {
    Some(match step {
        Step::Query(text) => Expect::Simple { text, index: 0 },
        Step::Parse { name, prepared } => Expect::Parse { name, prepared },
        Step::Bind { name, portal } => Expect::Bind { name, portal },
        Step::DescribeStatement { .. } => Expect::DescribeStatement,
        Step::DescribePortal { portal, .. } => Expect::DescribePortal { portal, shown: true },
        Step::Execute { portal, .. } => Expect::Execute { portal },
        Step::Call { portal, result } => Expect::Call { portal, result },
        Step::Close(named) => Expect::Close(named),
        Step::Flush => return None,
        Step::Sync => Expect::Sync,
    })
}

/// The SQL text in a Query or Parse message, the whole body of others.
fn statement_text(frame: &Frame) -> bytes::Bytes {
    let body = frame.body_bytes();
    let end =
        |from: usize| body.get(from..).and_then(|b| memchr::memchr(0, b)).map_or(body.len(), |n| from + n);
    match frame.tag() {
        b'Q' => body.slice(..end(0)),
        b'P' => {
            let start = (end(0) + 1).min(body.len());
            body.slice(start..end(start))
        }
        _ => body,
    }
}

/// Whether a statement changes what names of prepared statements or portals stand for.
fn changes_names_kept(statement: &Statement) -> bool {
    const KINDS: [&str; 5] = ["prepare", "deallocate", "declare_cursor", "close", "discard"];
    KINDS.contains(&&*statement.kind)
}

/// The name of the prepared statement or cursor that a statement runs.
fn referred_name(statement: &Statement) -> Option<String> {
    let prepared = statement.prepared.as_ref().map(|p| p.name.clone());
    prepared.or_else(|| statement.cursor.as_ref().map(|c| c.name.clone())).map(Option::unwrap_or_default)
}

pub(super) fn defined_name(statement: &Statement) -> String {
    let prepared = statement.prepared.as_ref().and_then(|p| p.name.clone());
    prepared.or_else(|| statement.cursor.as_ref().and_then(|c| c.name.clone())).unwrap_or_default()
}

/// The server tells names of statements and portals apart by so many bytes and no more (`NAMEDATALEN` less one, in `prepare.c` and
/// `portalmem.c`): two longer ones that begin alike would be two here and one there.
const MAX_NAME_BYTES: usize = 63;

/// The same where the server counts bytes of another encoding and the name is not ASCII: no encoding takes twice as many as UTF-8.
const MAX_OTHER_NAME_BYTES: usize = MAX_NAME_BYTES / 2;

impl Session {
    /// The client's names are none of the gateway's, and the server takes them as they are.
    fn own_name(&self, name: &str) -> Result<(), Denial> {
        let counted_otherwise = self.config.lexing.other_encoding && !name.is_ascii();
        let most = if counted_otherwise { MAX_OTHER_NAME_BYTES } else { MAX_NAME_BYTES };
        if name.len() > most {
            let message = format!("the name of a prepared statement or portal has {} bytes", name.len());
            return Err(Denial::new(DenialCode::LimitExceeded, message)
                .with_hint(format!("use at most {most} bytes: the server ignores the rest")));
        }
        if !name.starts_with(OWN_NAME) {
            return Ok(());
        }
        Err(Denial::new(
            DenialCode::NotUnderstood,
            format!("names that begin with `{OWN_NAME}` belong to the gateway"),
        )
        .with_hint("choose another name"))
    }

    fn own_name_free(&self, named: Named) -> Result<Named, Denial> {
        match &named {
            Named::Statement(name) | Named::Portal(name) => self.own_name(name)?,
        }
        Ok(named)
    }
}

fn unknown(what: &str, name: &str) -> Denial {
    let code = if what == "prepared statement" { DenialCode::NotFound } else { DenialCode::NotUnderstood };
    Denial::new(code, format!("there is no {what} `{name}` in this session"))
        .with_hint("prepare or declare it in this session first")
}

fn transaction_failed() -> Denial {
    Denial::new(
        DenialCode::NotUnderstood,
        "the current transaction is aborted, commands are ignored until its end",
    )
    .with_hint("send ROLLBACK")
}
