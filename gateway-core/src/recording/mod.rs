//! What is written down of a session, and the contract of whoever writes it.
//!
//! *Accepted*: the record is in the recorder's hands, in order and in the chain. *Durable*: it is on disk. Writes are durable
//! before they are forwarded; reads are accepted before. A recorder that fails makes its session refuse everything.

#[cfg(feature = "recording-file")]
pub mod file;
mod memory;

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use memory::MemoryRecorder;

use crate::approval::{Digest, Estimate, RequestId, RequestState};
use crate::clock::Timestamp;
use crate::error::Denial;
use crate::identity::{Actor, Principal};
use crate::operation::{Access, Effect, Facts, OperationId, Stage};
use crate::policy::{ApprovalRule, Obligation, Revision};
use crate::session::{CloseReason, SessionId, SessionInfo};

/// The first record of every recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The session.
    pub session: SessionId,
    /// Who acted, and for whom.
    pub principal: Principal,
    /// The wire protocol.
    pub protocol: String,
    /// The target.
    pub target: String,
    /// The database or the like.
    pub scope: Option<String>,
    /// The downstream's address.
    pub peer: String,
    /// The policies in force when it began.
    pub policy: Revision,
    /// When it began.
    pub started: Timestamp,
}

impl Header {
    /// The header for a session.
    pub fn new(info: &SessionInfo, policy: Revision) -> Self {
        Self {
            session: info.id,
            principal: (*info.principal).clone(),
            protocol: info.protocol.to_owned(),
            target: info.target.clone(),
            scope: info.scope.clone(),
            peer: info.peer.clone(),
            policy,
            started: info.started,
        }
    }
}

/// An operation as recorded: masked text, facts, no raw literals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedOperation {
    /// Its number in the session.
    pub id: OperationId,
    /// The protocol's word for it.
    pub kind: Cow<'static, str>,
    /// Prepared only, or run.
    pub stage: Stage,
    /// The statement, sensitive content masked.
    pub statement: Arc<str>,
    /// How many bytes the exact statement has.
    pub statement_bytes: u64,
    /// How many arguments came with it.
    pub arguments: u64,
    /// Read or write.
    pub effect: Effect,
    /// Everything it touches.
    pub accesses: Arc<[Access]>,
    /// What policy could see.
    pub facts: Arc<Facts>,
}

/// One event of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum Record {
    /// Operations were presented together.
    Presented {
        /// What exactly was presented, keyed.
        digest: Digest,
        /// The operations in order.
        operations: Vec<RecordedOperation>,
    },
    /// The batch may pass.
    Allowed {
        /// Which operations.
        operations: Vec<OperationId>,
        /// The policies that decided.
        rules: Arc<[String]>,
        /// The duties.
        obligations: Arc<[Obligation]>,
        /// The approval that was used up, if one was needed.
        approval: Option<RequestId>,
    },
    /// The batch was rewritten before it passed; a new `Presented` follows.
    Rewritten {
        /// Which operations.
        operations: Vec<OperationId>,
        /// How.
        rewrites: Vec<String>,
    },
    /// The batch was refused.
    Denied {
        /// Which operations.
        operations: Vec<OperationId>,
        /// With these words.
        denial: RecordedDenial,
    },
    /// The batch waits for people.
    Held {
        /// Which operations.
        operations: Vec<OperationId>,
        /// The request.
        request: RequestId,
        /// What has to be satisfied.
        rules: Vec<ApprovalRule>,
        /// Until when.
        expires: Timestamp,
    },
    /// What a held batch is expected to do: as people are told, and as it is found again before it runs.
    Estimated {
        /// Which operations.
        operations: Vec<OperationId>,
        /// The request.
        request: RequestId,
        /// One for each operation, masked.
        estimates: Vec<Estimate>,
    },
    /// A held batch's request was decided.
    Decided {
        /// The request.
        request: RequestId,
        /// How.
        state: RequestState,
    },
    /// Part of a result as it was released: masked, in the protocol's own encoding.
    Released {
        /// Of which operation (the first of its batch).
        operation: OperationId,
        /// How `bytes` is encoded, for example `postgres/3`.
        encoding: Cow<'static, str>,
        /// The bytes that were sent.
        #[serde(with = "base64_bytes")]
        bytes: Bytes,
        /// How many values were masked in them.
        masked: u64,
    },
    /// Part of what the client sent within an operation, masked; only where a rule asks for it.
    Received {
        /// Within which operation (the first of its batch).
        operation: OperationId,
        /// What it is, for example `ssh/stdin`.
        encoding: Cow<'static, str>,
        /// What was sent, with sensitive values masked.
        #[serde(with = "base64_bytes")]
        bytes: Bytes,
        /// How many values were masked in them.
        masked: u64,
    },
    /// A command that an interactive session seems to have run: the line shown when it was entered, masked. Observed, not proven: nothing
    /// judged it, and what was shown need not be what ran.
    Observed {
        /// Within which operation (the first of its batch).
        operation: OperationId,
        /// The line, its prompt included.
        statement: String,
    },
    /// How long some content was, and its hash: all of it that passed, in the order in which it did.
    Digested {
        /// Within which operation (the first of its batch).
        operation: OperationId,
        /// What it is, for example `ssh/stdin`; `released` for what was released and not recorded.
        content: Cow<'static, str>,
        /// Its length.
        bytes: u64,
        /// Its SHA-256, in lower-case hexadecimal digits; empty for less than 64 bytes, which could be found by trying.
        sha256: String,
    },
    /// An operation ended.
    Completed {
        /// Which (the first of its batch).
        operation: OperationId,
        /// The protocol's word for how it went, for example `DELETE 3` or an error code.
        outcome: String,
        /// Rows (records, lines) released.
        rows: u64,
        /// Bytes released.
        bytes: u64,
        /// Values masked, by class.
        masked: Vec<(String, u64)>,
    },
    /// Somebody looked at or took part in the session.
    Viewed {
        /// Who.
        viewer: Actor,
        /// What.
        what: String,
    },
    /// The session ended.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// The public part of a [`Denial`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedDenial {
    /// The stable code.
    pub code: crate::error::DenialCode,
    /// What the agent was told.
    pub message: String,
    /// The policies that decided.
    pub rules: Vec<String>,
}

impl From<&Denial> for RecordedDenial {
    fn from(denial: &Denial) -> Self {
        Self { code: denial.code, message: denial.message.clone(), rules: denial.rules.clone() }
    }
}

mod base64_bytes {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(d)?;
        BASE64_STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
    }
}

/// How far a record got: its sequence number in the recording, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// The recorder failed; nothing more may pass in its session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recording cannot be written: {0}")]
pub struct RecordError(pub String);

/// Opens recordings.
#[async_trait]
pub trait Recorder: Debug + Send + Sync {
    /// Starts the recording of a session; its header is durable when this returns. An error refuses the session.
    async fn open(&self, header: Header) -> Result<Arc<dyn SessionRecorder>, RecordError>;
}

/// Writes one session's recording. After the first error every later call must fail too.
#[async_trait]
pub trait SessionRecorder: Debug + Send + Sync {
    /// Accepts a record: it is in order and will be written. Must not block; fails rather than grow past its queue's limit.
    fn append(&self, at: Timestamp, record: Record) -> Result<Position, RecordError>;

    /// Waits until everything up to and including `position` is on disk.
    async fn durable(&self, position: Position) -> Result<(), RecordError>;

    /// Waits until the queue has room again. Adapters await this before they read more to release.
    async fn ready(&self) -> Result<(), RecordError>;

    /// Whether [`ready`](Self::ready) would return at once.
    fn has_room(&self) -> bool;

    /// Whether even reads must be [`durable`](Self::durable) before they are forwarded, and results before they are released.
    fn strict(&self) -> bool {
        false
    }

    /// Writes the last record and seals the recording; durable when it returns.
    async fn close(&self, at: Timestamp, reason: CloseReason) -> Result<(), RecordError>;
}
