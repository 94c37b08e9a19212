//! A recorder that throws everything away: the gateway without recording.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use gateway_core::clock::Timestamp;
use gateway_core::recording::{Header, Position, Record, RecordError, Recorder, SessionRecorder};
use gateway_core::session::CloseReason;

/// Accepts everything at once and keeps nothing. Only a bench may use it: nothing it took can be proven.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiscardRecorder;

#[derive(Debug, Default)]
struct DiscardSession(AtomicU64);

#[async_trait]
impl Recorder for DiscardRecorder {
    async fn open(&self, _header: Header) -> Result<Arc<dyn SessionRecorder>, RecordError> {
        Ok(Arc::new(DiscardSession::default()))
    }
}

#[async_trait]
impl SessionRecorder for DiscardSession {
    fn append(&self, _at: Timestamp, _record: Record) -> Result<Position, RecordError> {
        Ok(Position(self.0.fetch_add(1, Ordering::Relaxed)))
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

    async fn close(&self, _at: Timestamp, _reason: CloseReason) -> Result<(), RecordError> {
        Ok(())
    }
}
