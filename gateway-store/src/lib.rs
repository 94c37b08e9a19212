//! What a gateway has to remember: approvals and grants, and the index of sessions, in one SQLite file.
//!
//! [`Store::open`] makes the file, and beside it the key file (`.key`) and the directory of running gateways (`.instances`), all
//! readable by the gateway's user only. Several processes on one host may open the same file; hosts may not share it. One
//! thread per store does all the work; callers wait for it without blocking theirs.
//!
//! It keeps no recordings and no credentials, and it decides nothing: the rules of approval are `gateway-core`'s. Exact texts of
//! held operations are encrypted, and erased when their request is over. When the store fails nothing is granted and no
//! session goes on.
//!
//! ```
//! # use std::sync::Arc;
//! use gateway_core::clock::SystemClock;
//! use gateway_core::recording::MemoryRecorder;
//! use gateway_store::{SessionFilter, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let store = Store::open(directory.path().join("gateway.db"), Arc::new(SystemClock)).await?;
//! let approver = store.approver();
//! let recorder = store.recorder(Arc::new(MemoryRecorder::default()));
//! let sessions = store.sessions().list(SessionFilter { limit: 10, ..SessionFilter::default() }).await?;
//! # drop((approver, recorder)); assert!(sessions.is_empty());
//! store.close().await;
//! # Ok(())
//! # }
//! ```

mod approvals;
mod database;
mod error;
mod instance;
mod keys;
mod schema;
mod sessions;

use std::path::Path;
use std::sync::Arc;

use gateway_core::approval::{ApprovalLimits, DigestKey};
use gateway_core::clock::Clock;
use gateway_core::credentials::Secret;
use gateway_core::recording::Recorder;

pub use approvals::SqliteApprover;
pub use error::StoreError;
pub use sessions::{IndexedRecorder, SessionCounts, SessionFilter, SessionIndex, SessionRow, SessionStatus};

use database::Database;
use keys::Sealer;

/// An open store: everything else is made from it. Clones share one thread and one approver.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    approver: Arc<SqliteApprover>,
    sessions: SessionIndex,
    digest_key: DigestKey,
    mask_key: Secret<[u8; 32]>,
}

impl Store {
    /// Opens the store at `path`, with the default limits on open requests; makes what is missing.
    ///
    /// Holds of gateways that ended without closing are revoked and their sessions marked as unsealed. `clock` tells when
    /// requests expire.
    ///
    /// # Errors
    /// [`StoreError::Open`] with the cause and what to do: files that others may read, a missing or wrong key, a damaged
    /// file, one of another program or of a newer gateway, a full disk.
    pub async fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_with_limits(path, clock, ApprovalLimits::default()).await
    }

    /// [`open`](Self::open) with other limits on open requests.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn open_with_limits(
        path: impl AsRef<Path>,
        clock: Arc<dyn Clock>,
        limits: ApprovalLimits,
    ) -> Result<Self, StoreError> {
        let opened = Database::open(path.as_ref(), clock.now()).await?;
        let sealer = Sealer::new(&opened.root.derive("exact texts")?)?;
        let digest_key = DigestKey::new(*opened.root.derive("digests")?.expose());
        let mask_key = opened.root.derive("masking")?;
        let sessions = SessionIndex::new(opened.database.clone(), opened.instance.clone());
        let approver = SqliteApprover::new(opened.database.clone(), opened.instance, sealer, clock, limits);
        Ok(Self { database: opened.database, approver: Arc::new(approver), sessions, digest_key, mask_key })
    }

    /// The approver of this store: one for all callers, so that all hear of its events.
    pub fn approver(&self) -> Arc<SqliteApprover> {
        Arc::clone(&self.approver)
    }

    /// The index of sessions.
    pub fn sessions(&self) -> SessionIndex {
        self.sessions.clone()
    }

    /// A recorder that records with `inner` and keeps the index of sessions current.
    pub fn recorder(&self, inner: Arc<dyn Recorder>) -> IndexedRecorder {
        IndexedRecorder::new(inner, self.sessions())
    }

    /// The install's key of operation digests, the same at every start: grants survive a restart.
    pub fn digest_key(&self) -> DigestKey {
        self.digest_key.clone()
    }

    /// The install's 32-byte key for masking by keyed hash or token, the same at every start.
    pub fn mask_key_bytes(&self) -> Secret<[u8; 32]> {
        self.mask_key.clone()
    }

    /// Finishes what is queued, revokes the holds still open, and closes the file; what is asked later fails with
    /// [`StoreError::Closed`]. Dropping every handle does the same without waiting for it.
    pub async fn close(&self) {
        self.database.close().await;
    }
}
