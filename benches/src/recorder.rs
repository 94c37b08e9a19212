//! Recorders: the one that files, and one that throws everything away, to tell what recording costs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use gateway_core::clock::Timestamp;
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey};
use gateway_core::recording::{Header, Position, Record, RecordError, Recorder, SessionRecorder};
use gateway_core::session::CloseReason;

use crate::Result;

/// A recorder and the public key its recordings verify with.
pub(crate) type Recording = (Arc<dyn Recorder>, Option<[u8; 32]>);

/// One that records into this directory, or nowhere.
///
/// # Errors
/// The directory cannot be used.
pub(crate) fn recorder(directory: Option<&Path>) -> Result<Recording> {
    let Some(directory) = directory else { return Ok((Arc::new(DiscardRecorder), None)) };
    let recorder = FileRecorder::open(directory, RecordingKey::generate()?, FileOptions::default())?;
    let key = *recorder.public_key().as_bytes();
    Ok((Arc::new(recorder), Some(key)))
}

/// Accepts everything at once and keeps nothing. Only a bench may use it: nothing it took can be proven.
#[derive(Clone, Copy, Debug)]
struct DiscardRecorder;

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
