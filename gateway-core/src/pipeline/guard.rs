//! One session's guard: identity, recording, operation numbers, masks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::counters::Counters;
use super::memo::Memo;
use super::permit::Pending;
use super::recorded::Recorded;
use super::release::{Label, MaskPlan, Released};
use super::{Judged, NoRewrites, Pipeline};
use crate::approval::SessionDigest;
use crate::clock::Timestamp;
use crate::credentials::Secret;
use crate::error::{Denial, DenialCode};
use crate::identity::VerifiedPrincipal;
use crate::masking::{KnownLiterals, MAX_KNOWN_BYTES, MIN_KNOWN_BYTES};
use crate::operation::{Access, Action, Batch, Effect, Operation, OperationId, Resource, Stage};
use crate::recording::{Header, Position, Record, RecordError, SessionRecorder};
use crate::session::{CloseReason, SessionId, SessionInfo};

/// What an adapter knows when a session is to begin.
#[derive(Debug)]
pub struct SessionRequest {
    /// Who acts.
    pub principal: VerifiedPrincipal,
    /// The wire protocol, for example `postgres`.
    pub protocol: &'static str,
    /// The named target.
    pub target: String,
    /// What inside the target the session is tied to (a database name).
    pub scope: Option<String>,
    /// The downstream's address as text.
    pub peer: String,
    /// What connecting touches; the action is [`Action::CONNECT`] for each.
    pub connects_to: Vec<Resource>,
    /// The labelled fields of the target.
    pub labels: Arc<[Label]>,
}

/// Guards one session: every operation goes through [`judge`](Self::judge), every result through its permit.
/// Cheap to clone; the session ends when [`close`](Self::close) is called.
#[derive(Clone, Debug)]
pub struct Guard(pub(super) Arc<GuardInner>);

#[derive(Debug)]
pub(super) struct GuardInner {
    pub(super) pipeline: Pipeline,
    pub(super) info: SessionInfo,
    pub(super) recording: Arc<dyn SessionRecorder>,
    pub(super) labels: Arc<[Label]>,
    pub(super) plan: Mutex<Option<Arc<MaskPlan>>>,
    /// The secrets injected into this session; empty until the credential is fetched.
    known: OnceLock<Arc<KnownLiterals>>,
    nothing_known: Arc<KnownLiterals>,
    pub(super) failed: AtomicBool,
    /// The session's part in every digest.
    pub(super) digest: SessionDigest,
    pub(super) counters: Counters,
    /// Accesses as recordings may show them, for what was presented lately.
    pub(super) recorded: Mutex<Recorded>,
    /// What is known of operations that came lately.
    pub(super) memo: Mutex<Memo>,
    next: AtomicU64,
    /// The position of the newest record.
    last: AtomicU64,
}

impl Guard {
    /// Opens the session: starts its recording and has `connect` judged. Approval of connect is by retry only.
    ///
    /// # Errors
    /// A denial; the session must not reach the target.
    pub async fn open(pipeline: &Pipeline, request: SessionRequest) -> Result<Self, Denial> {
        let accesses: Arc<[_]> =
            request.connects_to.iter().map(|r| Access::new(Action::CONNECT, r.clone())).collect();
        let guard = Self::begin(pipeline, request).await?;
        let mut connect = Operation::new("connect", "");
        connect.accesses = accesses;
        connect.effect = Effect::Read;
        let pending = guard.pending(Batch::one(Stage::Execute, connect));
        match guard.judge_for(pending, &NoRewrites, crate::approval::Delivery::Retry).await {
            Judged::Permit(_) => Ok(guard),
            Judged::Held(_) => Err(guard.refuse_open(internal("a connect was held")).await),
            Judged::Refused(refused) => Err(guard.refuse_open(refused.denial).await),
        }
    }

    async fn begin(pipeline: &Pipeline, request: SessionRequest) -> Result<Self, Denial> {
        let info = SessionInfo {
            id: SessionId::random().map_err(internal)?,
            principal: request.principal,
            protocol: request.protocol,
            target: request.target,
            scope: request.scope,
            peer: request.peer,
            started: pipeline.clock.now(),
        };
        let header = Header::new(&info, pipeline.policy.revision());
        let digest = pipeline.digest_key.session(&info);
        let counters = Counters::new(info.protocol);
        let recording = pipeline.recorder.open(header).await.map_err(|e| recorder_failed(&e))?;
        Ok(Self(Arc::new(GuardInner {
            pipeline: pipeline.clone(),
            info,
            recording,
            labels: request.labels,
            plan: Mutex::default(),
            known: OnceLock::new(),
            nothing_known: Arc::new(KnownLiterals::new::<&[u8]>([]).map_err(internal)?),
            failed: AtomicBool::new(false),
            digest,
            counters,
            recorded: Mutex::default(),
            memo: Mutex::default(),
            next: AtomicU64::new(1),
            last: AtomicU64::new(0),
        })))
    }

    async fn refuse_open(&self, denial: Denial) -> Denial {
        match self.close(CloseReason::Terminated).await {
            Ok(()) => denial,
            Err(error) => recorder_failed(&error),
        }
    }

    /// Numbers a batch and makes it wait for its judgement.
    pub fn pending(&self, batch: Batch) -> Pending {
        let count = batch.operations().len() as u64;
        let first = OperationId(self.0.next.fetch_add(count, Ordering::Relaxed));
        Pending {
            guard: Arc::clone(&self.0),
            batch,
            first,
            settled: Vec::new(),
            undoes: false,
            estimator: None,
        }
    }

    /// The session's fixed facts.
    pub fn info(&self) -> &SessionInfo {
        &self.0.info
    }

    /// The pipeline behind it.
    pub fn pipeline(&self) -> &Pipeline {
        &self.0.pipeline
    }

    /// The labelled fields of the target, as given when the session was opened.
    pub fn labels(&self) -> &[Label] {
        &self.0.labels
    }

    /// Whether values of the label at this position of [`labels`](Self::labels) are shown to the principal, as far as was asked.
    pub fn reveals_label(&self, label: usize) -> bool {
        self.0.plan().is_some_and(|plan| plan.reveals(label))
    }

    /// When the identity ends; the adapter must then end the session, also in the middle of a result.
    pub fn expires_at(&self) -> Timestamp {
        self.0.info.principal.expires_at
    }

    /// True once the identity is over or the recorder has failed: nothing may pass any more.
    pub fn is_over(&self) -> Option<CloseReason> {
        if self.0.failed.load(Ordering::Acquire) {
            return Some(CloseReason::RecorderFailed);
        }
        (self.expires_at() <= self.0.pipeline.clock.now()).then_some(CloseReason::IdentityExpired)
    }

    /// True once the recorder has failed: as [`is_over`](Self::is_over), without a look at the clock.
    pub fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Acquire)
    }

    /// Records that a batch is refused before policy was asked: it could not be understood or broke a limit.
    pub fn refuse(&self, pending: &Pending, denial: Denial) -> Denial {
        match self.0.record_refusal(pending, &denial) {
            Ok(_) => denial,
            Err(error) => recorder_failed(&error),
        }
    }

    /// Lets bytes pass that the gateway itself has worded: greetings, denials, acknowledgements. Never a target's bytes.
    pub fn originate(&self, bytes: impl Into<bytes::Bytes>) -> Released {
        Released::originated(bytes.into())
    }

    /// Waits until the recorder takes more; adapters await this before reading more to release.
    ///
    /// # Errors
    /// The recorder failed: end the session.
    pub async fn ready(&self) -> Result<(), RecordError> {
        self.0.recording.ready().await
    }

    /// Waits until more may be released: the recorder has room and the masks are those of the policies in force.
    ///
    /// # Errors
    /// The recorder failed or the policies could not be asked: release nothing more.
    pub async fn catch_up(&self) -> Result<(), Denial> {
        self.ready().await.map_err(|e| recorder_failed(&e))?;
        self.0.mask_plan().await.map(|_| ())
    }

    /// Whether released pieces must be [settled](Self::settle) before they are sent.
    pub fn is_strict(&self) -> bool {
        self.0.recording.strict()
    }

    /// Waits until everything recorded so far is on disk.
    ///
    /// # Errors
    /// The recorder failed: end the session.
    pub async fn settle(&self) -> Result<(), Denial> {
        let last = Position(self.0.last.load(Ordering::Acquire));
        self.0.durable(last).await.map_err(|e| recorder_failed(&e))
    }

    /// Has the credential's secrets masked in everything the target sends in this session, in every usual encoding. Called once,
    /// when the credential is fetched. Secrets that are too short or too long to be looked for safely are left to the content
    /// rules, which the log says.
    pub fn protect<'a>(&self, secrets: impl Iterator<Item = &'a Secret<String>>) {
        let fits = |s: &&Secret<String>| (MIN_KNOWN_BYTES..=MAX_KNOWN_BYTES).contains(&s.expose().len());
        let (known, unfit): (Vec<_>, Vec<_>) = secrets.partition(fits);
        if !unfit.is_empty() {
            tracing::warn!(target = %self.0.info.target, "a credential is outside {MIN_KNOWN_BYTES}..={MAX_KNOWN_BYTES} bytes and cannot be looked for in results");
        }
        match KnownLiterals::new(known.into_iter().map(Secret::expose)) {
            Ok(literals) => drop(self.0.known.set(Arc::new(literals))),
            Err(error) => tracing::warn!(%error, "the credential cannot be looked for in results"),
        }
    }

    /// Whether [`ready`](Self::ready) would return at once.
    pub fn has_room(&self) -> bool {
        self.0.recording.has_room()
    }

    /// Seals the recording.
    ///
    /// # Errors
    /// The last records could not be written.
    pub async fn close(&self, reason: CloseReason) -> Result<(), RecordError> {
        self.0.pipeline.budgets.forget(&self.0.info);
        self.0.recording.close(self.0.pipeline.clock.now(), reason).await
    }
}

impl GuardInner {
    /// Appends a record; after a failure the session is over.
    pub(super) fn record(&self, record: Record) -> Result<Position, RecordError> {
        let position =
            self.recording.append(self.pipeline.clock.now(), record).inspect_err(|_| self.fail())?;
        self.last.fetch_max(position.0, Ordering::AcqRel);
        Ok(position)
    }

    pub(super) async fn durable(&self, position: Position) -> Result<(), RecordError> {
        self.recording.durable(position).await.inspect_err(|_| self.fail())
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn known(&self) -> &Arc<KnownLiterals> {
        self.known.get().unwrap_or(&self.nothing_known)
    }

    pub(super) fn plan(&self) -> Option<Arc<MaskPlan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_plan(&self, plan: Arc<MaskPlan>) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    }
}

pub(super) fn recorder_failed(error: &RecordError) -> Denial {
    Denial::new(DenialCode::RecorderFailed, "the session cannot be recorded, so nothing may run")
        .with_hint("tell the gateway's operator; retry when the recorder works again")
        .with_cause(error)
}

pub(super) fn internal(cause: impl std::fmt::Display) -> Denial {
    Denial::new(DenialCode::PolicyError, "the gateway could not decide").with_cause(cause)
}
