//! A segment's statements as operations, in the order in which they run.

use std::sync::Arc;

use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Access, Batch, Operation};

use super::{Segment, Step, defined_name, unknown, unread};
use crate::analysis::Statement;
use crate::codec::frontend::Bind;
use crate::operation;
use crate::operation::Subject;
use crate::rewriter::{Background, Source};
use crate::session::{Meaning, Portal, Session, settings};
use crate::statement::{
    Prepared, Text, changes_meaning, ends_transaction, imports_snapshot, names_something,
};

impl Session {
    pub(super) fn operations(&self, segment: &Segment) -> Result<Operations, Denial> {
        let mut prepared: Vec<&Arc<Prepared>> = Vec::new();
        let mut executed: Vec<&Arc<Prepared>> = Vec::new();
        // Nearly always one; a vector that grows by itself begins with room for four.
        let mut run = Vec::with_capacity(1);
        let mut order = Order::of(self);
        order.unread = self.unread;
        for step in &segment.steps {
            if order.unread && step.depends_on_names() {
                return Err(unread());
            }
            match step {
                Step::Query(text) => run.extend(self.query_operations(text, &mut order)?),
                Step::Parse { prepared: p, .. } | Step::DescribeStatement { prepared: p, .. } => {
                    prepared.push(p)
                }
                Step::Bind { portal, .. } => {
                    let _ = portal.meaning.set(self.meaning(&portal.prepared));
                    let _ = portal.stands_for.set(self.stands_for(&portal.prepared));
                    prepared.push(&portal.prepared);
                }
                Step::DescribePortal { portal, .. } => prepared.push(&portal.prepared),
                Step::Execute { portal, .. } | Step::Call { portal, .. } => {
                    executed.push(&portal.prepared);
                    if let Some(understood) = self.portal_operation(portal)? {
                        if let Some(statement) = portal.prepared.text.statement(portal.prepared.index) {
                            self.in_order(&mut order, statement, &understood.operation)?;
                        }
                        run.push(understood);
                    }
                }
                Step::Close(_) | Step::Flush | Step::Sync => {}
            }
        }
        let mut only_prepared = Vec::new();
        for (i, p) in prepared.iter().enumerate() {
            let seen = executed.iter().chain(prepared.iter().take(i)).any(|other| Arc::ptr_eq(other, p));
            if !seen && let Some(statement) = p.text.statement(p.index) {
                only_prepared.push(self.operation(&p.text, p.index, statement, &[], None, &p.types)?);
            }
        }
        Ok(Operations { prepare: only_prepared, execute: run, order })
    }

    pub(super) fn in_order(
        &self,
        order: &mut Order,
        statement: &Statement,
        operation: &Operation,
    ) -> Result<(), Denial> {
        if &*statement.kind == "prepare_transaction"
            && (order.changed || order.dirty || !self.defining.is_empty())
        {
            let message = "a transaction that changed definitions or settings cannot be prepared here: nobody could tell \
                 when it takes effect";
            return Err(Denial::new(DenialCode::NotUnderstood, message).with_hint("use COMMIT"));
        }
        if imports_snapshot(statement) && self.config.definitions.exported(&self.uses).is_none() {
            let message = "no session here exported a snapshot, so it cannot be told how old this one is";
            return Err(Denial::new(DenialCode::NotUnderstood, message)
                .with_hint("export it in a session of this gateway, in a transaction that is still open"));
        }
        order.runs(statement, operation);
        Ok(())
    }

    /// The operations of a simple query, each in the light of what the ones before it prepare or declare.
    pub(super) fn query_operations(
        &self,
        text: &Arc<Text>,
        order: &mut Order,
    ) -> Result<Vec<Understood>, Denial> {
        let mut earlier = Vec::new();
        let mut operations = Vec::with_capacity(text.analysis.statements.len());
        for (index, statement) in text.analysis.statements.iter().enumerate() {
            let understood = self.operation(text, index, statement, &earlier, None, &Arc::default())?;
            self.in_order(order, statement, &understood.operation)?;
            operations.push(understood);
            if matches!(&*statement.kind, "prepare" | "declare_cursor") {
                earlier.push((defined_name(statement), Arc::new(Prepared::new(Arc::clone(text), index))));
            }
        }
        Ok(operations)
    }

    pub(super) fn portal_operation(&self, portal: &Portal) -> Result<Option<Understood>, Denial> {
        let prepared = &portal.prepared;
        let Some(statement) = prepared.text.statement(prepared.index) else { return Ok(None) };
        self.same_meaning(portal)?;
        self.same_referent(portal)?;
        let bind = portal.bind.as_ref();
        self.operation(&prepared.text, prepared.index, statement, &[], bind, &prepared.types).map(Some)
    }

    /// What the names of a prepared statement mean now, and those in what it stands for: the server analyses that anew when a portal of
    /// `EXECUTE` runs.
    pub(in crate::session) fn meaning(&self, prepared: &Prepared) -> Arc<Meaning> {
        let own = self.own_meaning(prepared);
        match self.stands_for(prepared) {
            None => own,
            Some(referent) => Arc::new([own.as_slice(), self.own_meaning(&referent).as_slice()].concat()),
        }
    }

    fn own_meaning(&self, prepared: &Prepared) -> Arc<Meaning> {
        let make = || {
            let names =
                prepared.statement().map(|s| operation::meaning(&self.catalog, s)).unwrap_or_default();
            names.into_iter().chain(self.read_by()).collect()
        };
        prepared.text.memo.meaning(self.catalog.generation(), prepared.index, make)
    }

    /// A portal reads the objects its names meant when it was made; judging it by other ones would be wrong.
    pub(super) fn same_meaning(&self, portal: &Portal) -> Result<(), Denial> {
        if portal.meaning.get().is_none_or(|then| *then == self.meaning(&portal.prepared)) {
            return Ok(());
        }
        let message = "the names in this portal or cursor mean something else now than when it was made";
        Err(Denial::new(DenialCode::NotUnderstood, message).with_hint("bind or declare it again"))
    }

    /// What `EXECUTE` or `FETCH` stand for now, if it is known.
    fn stands_for(&self, prepared: &Prepared) -> Option<Arc<Prepared>> {
        prepared.statement().and_then(|statement| self.referent(statement, &[]).ok().flatten())
    }

    /// A portal of `EXECUTE` runs what the name stands for when it runs, and its columns were described by what it stood for before.
    fn same_referent(&self, portal: &Portal) -> Result<(), Denial> {
        let now = self.stands_for(&portal.prepared);
        let same = portal.stands_for.get().is_none_or(|then| match (then, &now) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (None, None) => true,
            _ => false,
        });
        if same {
            return Ok(());
        }
        let message =
            "the prepared statement or cursor in this portal is another one now than when it was bound";
        Err(Denial::new(DenialCode::NotUnderstood, message).with_hint("bind it again"))
    }

    pub(super) fn operation(
        &self,
        text: &Arc<Text>,
        index: usize,
        statement: &Statement,
        earlier: &[(String, Arc<Prepared>)],
        bind: Option<&Bind>,
        types: &Arc<[u32]>,
    ) -> Result<Understood, Denial> {
        self.room_for_made(text, statement)?;
        let refers_to = self.referent(statement, earlier)?;
        if let Some(cursor) =
            statement.cursor.as_ref().filter(|_| matches!(&*statement.kind, "fetch" | "move"))
            && let Some(portal) = self.portals.get(cursor.name.as_deref().unwrap_or_default())
            && !earlier.iter().any(|(name, _)| Some(name.as_str()) == cursor.name.as_deref())
        {
            self.same_meaning(portal)?;
        }
        let stands_for = refers_to.as_ref().map(|prepared| prepared.text.as_sent(prepared.index));
        let subject = Subject {
            place: &self.place,
            catalog: &self.catalog,
            labels: &self.labels,
            text: text.as_sent(index),
            statement,
            refers_to: refers_to.as_deref().and_then(Prepared::statement),
            refers_to_text: stands_for.clone(),
            bind,
            types,
            settings: &self.settings,
            lexing: self.config.lexing,
            in_transaction: self.in_clients_transaction(),
            of: text.of(),
        };
        // What it stands for and parameters of user types count too: then there is nothing to remember by its text.
        let alone = subject.refers_to.is_none() && !types.iter().any(|oid| operation::is_user_type(*oid));
        let template = if alone {
            let key = (index, subject.of, subject.in_transaction);
            text.memo.template(self.catalog.generation(), key, || operation::template(&subject))?
        } else {
            Arc::new(operation::template(&subject)?)
        };
        let operation = template.operation(&subject);
        let statements: Vec<_> = [Some(statement), subject.refers_to].into_iter().flatten().collect();
        self.refuse_moving_hidden(&statements, &operation)?;
        let by_place = statements.iter().any(|statement| statement.flags.current_of)
            || operation.accesses.iter().any(is_by_descriptor);
        let source = Source { text: Arc::clone(text), index, types: Arc::clone(types), refers_to };
        Ok(Understood {
            operation,
            background: template.background(stands_for, source),
            text: Arc::clone(text),
            by_place,
        })
    }

    /// What `EXECUTE name`, `FETCH name` and the like stand for. A name nobody knows is not understood.
    pub(in crate::session) fn referent(
        &self,
        statement: &Statement,
        earlier: &[(String, Arc<Prepared>)],
    ) -> Result<Option<Arc<Prepared>>, Denial> {
        let prepared =
            statement.prepared.as_ref().filter(|_| !matches!(&*statement.kind, "prepare" | "deallocate"));
        let cursor = statement.cursor.as_ref().filter(|_| matches!(&*statement.kind, "fetch" | "move"));
        let (what, name) = match (prepared, cursor) {
            (Some(p), _) => ("prepared statement", p.name.clone()),
            (None, Some(c)) => (CURSOR, c.name.clone()),
            (None, None) => return Ok(None),
        };
        let name = name.unwrap_or_default();
        let here = earlier.iter().rev().find(|(known, _)| *known == name).map(|(_, p)| Arc::clone(p));
        let known = here.or_else(|| match what {
            CURSOR => self.portals.get(&name).map(|p| Arc::clone(&p.prepared)),
            _ => self.statements.get(&name).cloned(),
        });
        let known = known.ok_or_else(|| unknown(what, &name))?;
        if known.statement().is_some_and(|statement| runs_by_name(statement, what, &name)) {
            Ok(Some(known))
        } else {
            Err(unjudged_by_name(what, &name))
        }
    }
}

/// What `FETCH` and `MOVE` name.
const CURSOR: &str = "cursor";

/// Whether what runs by a name is what its text says: a query, or the `PREPARE` or `DECLARE` that made the name. Parse makes names for
/// commands too, and those may run something by another name, or make one.
fn runs_by_name(statement: &Statement, what: &str, name: &str) -> bool {
    match &*statement.kind {
        "select" | "values" | "insert" | "update" | "delete" | "merge" => true,
        "prepare" => what != CURSOR && defined_name(statement) == name,
        "declare_cursor" => what == CURSOR && defined_name(statement) == name,
        _ => false,
    }
}

fn unjudged_by_name(what: &str, name: &str) -> Denial {
    let message =
        format!("the {what} `{name}` is a command and no query: what it runs by that name cannot be judged");
    Denial::new(DenialCode::NotUnderstood, message).with_hint("run the command by itself")
}

/// An operation, and what is known of it besides.
pub(super) struct Understood {
    pub(super) operation: Operation,
    pub(super) background: Background,
    pub(super) text: Arc<Text>,
    /// It works on the row a cursor stands on, or on a large object that is open, when it runs: an approval holds for this one run.
    pub(super) by_place: bool,
}

/// Whether a function is called that works on a large object by the number it was opened under: which one that is, no text tells.
fn is_by_descriptor(access: &Access) -> bool {
    const CALLS: [&str; 9] = [
        "lo_close",
        "lo_lseek",
        "lo_lseek64",
        "lo_tell",
        "lo_tell64",
        "lo_truncate",
        "lo_truncate64",
        "loread",
        "lowrite",
    ];
    access.action.as_str() == "call" && CALLS.contains(&access.resource.name())
}

pub(super) fn apart(understood: Vec<Understood>) -> (Vec<Operation>, Vec<Arc<Text>>) {
    understood.into_iter().map(|u| (u.operation, u.text)).unzip()
}

/// Notes the texts that the server gets instead of the client's.
pub(super) fn note_rewritten(batch: &Batch, texts: &[Arc<Text>]) {
    for (operation, text) in batch.operations().iter().zip(texts) {
        let only = text.analysis.statements.len() == 1;
        if only && text.sent.get().is_none() && operation.statement != text.slice(0) {
            let _ = text.sent.set(operation.statement.clone());
        }
    }
}

/// What a segment does, in the order in which it is judged.
pub(super) struct Operations {
    pub(super) prepare: Vec<Understood>,
    pub(super) execute: Vec<Understood>,
    pub(super) order: Order,
}

/// Names are resolved before a segment runs: what runs after a statement that changes their meaning must come on its own.
pub(super) struct Order {
    /// The open transaction changed it, and its end changes it back.
    pub(super) dirty: bool,
    /// Something here may have changed it.
    pub(super) changed: bool,
    /// Something here names something after that.
    pub(super) follows: bool,
    /// Something here may have changed how text is read.
    pub(super) unread: bool,
    /// How many have run.
    pub(super) count: usize,
    /// The first one that is run under other settings than those known.
    pub(super) unsettled: Option<usize>,
    /// The open transaction changed settings by which texts are read, and its end sets them back.
    pub(super) sets_back: bool,
}

impl Order {
    pub(super) const fn of(session: &Session) -> Self {
        Self {
            dirty: session.dirty_transaction,
            changed: false,
            follows: false,
            unread: false,
            count: 0,
            unsettled: None,
            sets_back: session.rereads_at_end,
        }
    }

    /// Whether running this may change what names mean.
    pub(super) fn changes(&self, statement: &Statement, operation: &Operation) -> bool {
        changes_meaning(statement)
            || (self.dirty && ends_transaction(statement))
            || operation.accesses.iter().any(operation::moves_names)
    }

    /// Takes in the next statement that runs.
    pub(super) fn runs(&mut self, statement: &Statement, operation: &Operation) {
        self.follows |= self.changed && names_something(statement);
        self.changed |= self.changes(statement, operation);
        self.unread |= operation::moves_reading(operation);
        self.count += 1;
        let sets_back = self.sets_back && ends_transaction(statement);
        if self.unsettled.is_none() && (sets_back || settings::changes(operation)) {
            self.unsettled = Some(self.count);
        }
    }
}
