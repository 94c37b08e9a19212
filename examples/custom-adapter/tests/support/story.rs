//! Reads a recording as the story of its session. Used by the tests of several adapters: whatever the protocol, the order is
//! the same, and this checks it.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::approval::RequestState;
use gateway_core::clock::Timestamp;
use gateway_core::error::DenialCode;
use gateway_core::operation::OperationId;
use gateway_core::recording::{MemoryRecorder, Record};

/// What happened in one session.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// The statements as recorded, in order.
    pub(crate) statements: Vec<String>,
    /// Why operations were denied, in order.
    pub(crate) denied: Vec<DenialCode>,
    /// How often people were asked.
    pub(crate) held: usize,
    /// Operations that ran because people agreed.
    pub(crate) approved: usize,
    /// Values masked in what was released.
    pub(crate) masked: u64,
    /// How operations ended, in the protocol's words.
    pub(crate) completed: Vec<String>,
    presented: BTreeSet<OperationId>,
    allowed: BTreeSet<OperationId>,
    decided: BTreeMap<String, RequestState>,
}

impl Story {
    /// The stories of all sessions of `subject` so far, oldest first.
    ///
    /// # Panics
    /// A recording breaks the order that every session must keep.
    pub(crate) fn all(recorder: &MemoryRecorder, subject: &str) -> Vec<Self> {
        let mut sessions = recorder.sessions();
        sessions.retain(|(header, _)| header.principal.actor.subject == subject);
        sessions.sort_by_key(|(header, _)| header.started);
        sessions.iter().map(|(_, records)| Self::of(records)).collect()
    }

    /// The story of one complete recording.
    ///
    /// # Panics
    /// It breaks the order that every session must keep.
    pub(crate) fn of(records: &[(Timestamp, Record)]) -> Self {
        let mut story = Self::default();
        let (last, before) = records.split_last().expect("a recording is not empty");
        before.iter().for_each(|(_, record)| story.add(record));
        assert!(matches!(last.1, Record::Closed { .. }), "the recording is not sealed: {last:?}");
        story
    }

    fn add(&mut self, record: &Record) {
        match record {
            Record::Presented { operations, .. } => {
                self.presented.extend(operations.iter().map(|o| o.id));
                self.statements.extend(operations.iter().map(|o| o.statement.to_string()));
            }
            Record::Allowed { operations, approval, .. } => {
                assert!(operations.iter().all(|id| self.presented.contains(id)), "allowed, not presented");
                if let Some(request) = approval {
                    let decided = self.decided.get(&request.to_string());
                    assert_eq!(decided, Some(&RequestState::Approved), "ran on a request nobody approved");
                    self.approved += 1;
                }
                self.allowed.extend(operations);
            }
            Record::Denied { operations, denial } => {
                assert!(operations.iter().all(|id| self.presented.contains(id)), "denied, not presented");
                assert!(
                    !operations.iter().any(|id| self.allowed.contains(id)),
                    "denied after it was allowed"
                );
                self.denied.push(denial.code);
            }
            Record::Held { operations, .. } => {
                assert!(operations.iter().all(|id| self.presented.contains(id)), "held, not presented");
                self.held += 1;
            }
            Record::Decided { request, state } => {
                self.decided.insert(request.to_string(), *state);
            }
            Record::Released { operation, masked, .. } => {
                assert!(self.allowed.contains(operation), "released without a permit");
                self.masked += masked;
            }
            Record::Completed { operation, outcome, .. } => {
                assert!(self.allowed.contains(operation), "completed without a permit");
                self.completed.push(outcome.clone());
            }
            Record::Closed { .. } => panic!("a record after the end"),
            _ => {}
        }
    }
}
