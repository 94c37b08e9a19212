//! Before what was judged is forwarded: nobody may change what its names mean until it is answered.

use std::sync::Arc;
use std::time::Duration;

use gateway_core::error::{Denial, DenialCode};
use gateway_core::pipeline::Permit;

use super::segment::Segment;
use super::{Approved, Phase, Session, Task};
use crate::codec::backend::TransactionStatus;
use crate::definitions::{ANY, Epoch, Names, Scope, Waiter};
use crate::scope::scope;
use crate::statement::{changes_definitions, imports_snapshot};

/// How long an operation waits for other sessions that use or change what it changes or uses. 5 s: a change of definitions takes
/// much less; who waits longer would wait for an open transaction.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);

/// How often names are asked for again for one operation because another session changed a definition meanwhile.
const MAX_ASKED_AGAIN: u8 = 3;

/// What was judged and may pass once another session is out of the way.
#[derive(Debug)]
pub(super) struct Waiting {
    segment: Segment,
    prepare: Option<Permit>,
    execute: Option<Permit>,
    waiter: Waiter,
}

/// How it stands between an operation and other sessions.
enum Gate {
    Open,
    /// Somebody changed a definition since names were asked for.
    Changed,
    /// Somebody is changing or using one.
    Closed,
}

impl Session {
    /// Forwards what was judged, unless another session is in the way.
    pub(super) fn pass(&mut self, mut segment: Segment, prepare: Option<Permit>, execute: Option<Permit>) {
        match self.gate(&segment, approved(&prepare, &execute)) {
            Gate::Open => self.send(segment, prepare, execute),
            Gate::Changed if segment.asked_again < MAX_ASKED_AGAIN => {
                segment.asked_again += 1;
                self.ask_again(segment, prepare, execute);
            }
            Gate::Changed => self.give_way(&segment, prepare, execute, &in_the_way()),
            Gate::Closed => {
                self.step_back();
                let first = !std::mem::replace(&mut segment.waited, true);
                // Nobody knew of the waiter when it looked, so it looks again.
                let waiter = self.config.definitions.wait();
                self.tasks.push_back(Task::Wait { seen: None, first });
                self.phase = Phase::Waiting(Box::new(Waiting { segment, prepare, execute, waiter }));
            }
        }
    }

    /// Something became free (`true`), or the time for waiting is over.
    pub(crate) fn wake(&mut self, freed: bool) {
        let Phase::Waiting(waiting) = self.take_phase() else { return };
        if !freed {
            return self.give_way(&waiting.segment, waiting.prepare, waiting.execute, &in_the_way());
        }
        let seen = waiting.waiter.freed();
        if self.is_in_the_way(&waiting.segment, approved(&waiting.prepare, &waiting.execute)) {
            self.tasks.push_back(Task::Wait { seen: Some(seen), first: false });
            self.phase = Phase::Waiting(waiting);
            return;
        }
        self.ask_again(waiting.segment, waiting.prepare, waiting.execute);
    }

    /// Whether another session uses what a segment changes, or changes what it uses.
    fn is_in_the_way(&self, segment: &Segment, approved: bool) -> bool {
        let names = self.names_used(segment, approved);
        let definitions = &self.config.definitions;
        definitions.is_blocked(&self.uses, names.iter().map(|n| &**n))
            || self.scope_of(segment).is_some_and(|scope| definitions.is_used(&self.uses, &scope))
    }

    /// Ends the wait with a refusal.
    pub(crate) fn stop_waiting(&mut self, denial: &Denial) {
        if let Phase::Waiting(waiting) = self.take_phase() {
            self.give_way(&waiting.segment, waiting.prepare, waiting.execute, denial);
        }
    }

    fn give_way(
        &mut self,
        segment: &Segment,
        prepare: Option<Permit>,
        execute: Option<Permit>,
        denial: &Denial,
    ) {
        self.step_back();
        self.withdraw(Some(Box::new(Approved { prepare, execute, then: Vec::new() })), denial);
        self.deny(segment, denial.clone());
    }

    /// Says what is used and changed, then looks at what others do.
    fn gate(&mut self, segment: &Segment, approved: bool) -> Gate {
        let names = self.names_used(segment, approved);
        self.uses.enter(&names);
        if names.iter().any(|set| set.contains("pg_export_snapshot")) {
            self.uses.export(self.began);
        }
        if segment.runs().any(imports_snapshot) {
            // The catalogue is read in that snapshot too.
            self.began = self.config.definitions.exported(&self.uses).unwrap_or(Epoch::NEVER);
        }
        let definitions = Arc::clone(&self.config.definitions);
        let sets = || names.iter().map(|set| &**set);
        if definitions.is_blocked(&self.uses, sets()) {
            return Gate::Closed;
        }
        if definitions.changed_since(self.epoch, &self.uses, sets()) {
            return Gate::Changed;
        }
        let Some(scope) = self.scope_of(segment) else { return Gate::Open };
        let Some(under_way) = definitions.begin(&self.uses, scope) else { return Gate::Closed };
        self.defining.push(under_way);
        let before = definitions.changed();
        self.began.follow(before);
        self.epoch.follow(before);
        Gate::Open
    }

    /// What was about to be forwarded is not; what the open transaction used stays in use.
    pub(super) fn step_back(&mut self) {
        if self.status == TransactionStatus::Idle && !self.mid_unit {
            self.uses.leave();
            self.defining.clear();
        } else {
            self.uses.answered();
        }
    }

    /// The names whose meaning matters for a segment, and for what its statements stand for. Code looks up what it likes: what people
    /// approved must find what they were told of.
    fn names_used(&self, segment: &Segment, approved: bool) -> Vec<Arc<Names>> {
        let mut names: Vec<Arc<Names>> = Vec::new();
        let mut looks_up = false;
        for text in segment.texts() {
            let set = text.memo.names(&self.catalog);
            if names.last().is_some_and(|last| Arc::ptr_eq(last, &set)) {
                continue;
            }
            names.push(set);
            looks_up |= text.memo.looks_up_names;
            for referent in
                text.analysis.statements.iter().filter_map(|s| self.referent(s, &[]).ok().flatten())
            {
                looks_up |= referent.text.memo.looks_up_names;
                names.push(referent.text.memo.names(&self.catalog));
            }
        }
        if approved && looks_up {
            names.push(Arc::new(Names::from([ANY.to_owned()])));
        }
        names
    }

    /// What a segment changes for other sessions; `None` if it changes no definition.
    fn scope_of(&self, segment: &Segment) -> Option<Scope> {
        let changes = segment.runs().filter(|statement| changes_definitions(statement));
        changes.map(|statement| scope(statement, &self.catalog)).reduce(Scope::and)
    }
}

fn approved(prepare: &Option<Permit>, execute: &Option<Permit>) -> bool {
    [prepare, execute].into_iter().flatten().any(Permit::is_approved)
}

/// Why it cannot pass just now.
pub(super) fn in_the_way() -> Denial {
    let message = "another session is using or changing the definition of something that the statement names";
    Denial::new(DenialCode::Conflict, message).with_hint("try again")
}
