//! Recordings in memory, for tests and embedders that keep their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Header, Position, Record, RecordError, Recorder, SessionRecorder};
use crate::clock::Timestamp;
use crate::session::{CloseReason, SessionId};

type Sessions = BTreeMap<SessionId, (Header, Vec<(Timestamp, Record)>)>;

/// Keeps every recording in memory without limit: not for production.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecorder(Arc<Mutex<Sessions>>);

impl MemoryRecorder {
    /// All recordings so far, by session.
    pub fn sessions(&self) -> Vec<(Header, Vec<(Timestamp, Record)>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[async_trait]
impl Recorder for MemoryRecorder {
    async fn open(&self, header: Header) -> Result<Arc<dyn SessionRecorder>, RecordError> {
        let session = header.session;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(session, (header, Vec::new()));
        Ok(Arc::new(MemorySession { recorder: self.clone(), session }))
    }
}

#[derive(Debug)]
struct MemorySession {
    recorder: MemoryRecorder,
    session: SessionId,
}

#[async_trait]
impl SessionRecorder for MemorySession {
    fn append(&self, at: Timestamp, record: Record) -> Result<Position, RecordError> {
        let mut sessions = self.recorder.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, records) =
            sessions.get_mut(&self.session).ok_or_else(|| RecordError("unknown session".to_owned()))?;
        records.push((at, record));
        Ok(Position(records.len() as u64))
    }

    async fn durable(&self, _position: Position) -> Result<(), RecordError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), RecordError> {
        Ok(())
    }

    fn has_room(&self) -> bool {
        true
    }

    async fn close(&self, at: Timestamp, reason: CloseReason) -> Result<(), RecordError> {
        self.append(at, Record::Closed { reason }).map(|_| ())
    }
}
