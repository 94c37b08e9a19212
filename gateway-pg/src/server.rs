//! Listening for clients and taking each to its session.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;
use std::time::Duration;

use bytes::BytesMut;
use gateway_core::accept::accept_until;
use gateway_core::credentials::UpstreamCredential;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::VerifiedPrincipal;
use gateway_core::pipeline::{Guard, Label, Pipeline, SessionRequest};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::analysis::AnalysisCache;
use crate::cancel::{CancelEntry, CancelRegistry};
use crate::codec::backend::TransactionStatus;
use crate::codec::{DEFAULT_MAX_FRAME_BYTES, encode, startup};
use crate::definitions::Definitions;
use crate::driver::Driver;
use crate::estimate::{self, Side};
use crate::io::BoxedStream;
use crate::login::downstream::{Acceptance, Arrival, Arrived, TokenLogin, arrive, random_key};
use crate::login::upstream::{
    Address, Connected, ProtocolVersion, SslMode, SslNegotiation, Upstream, UpstreamError,
};
use crate::login::{Wishes, is_reported};
use crate::operation::Place;
use crate::rewriter::PgRewriter;
use crate::session::{Session, SessionConfig};
use crate::tls::{TlsError, client_config};

/// The protocol's name in policies, records and metrics.
pub const PROTOCOL: &str = "postgres";

/// A protected PostgreSQL server.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in policies and records.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// When TLS is used towards it.
    pub ssl_mode: SslMode,
    /// How TLS towards it begins. Default: the server is asked first.
    pub ssl_negotiation: SslNegotiation,
    /// The newest version of the protocol it is asked for. Default: 3.0, which also poolers understand.
    pub max_protocol: ProtocolVersion,
    /// The CA its certificate must come from, PEM; the machine's own list if `None`.
    pub ca_pem: Option<String>,
    /// The database all sessions use; `None` lets the client choose, and policy judge.
    pub database: Option<String>,
    /// Labelled columns, each with the path `Target / Database / Schema / Table / Column`.
    pub labels: Arc<[Label]>,
}

impl Target {
    /// A target without labels whose clients choose the database; the CA is one of the machine's own list.
    pub fn new(name: impl Into<String>, address: Address, ssl_mode: SslMode) -> Self {
        Self {
            name: name.into(),
            address,
            ssl_mode,
            ssl_negotiation: SslNegotiation::default(),
            max_protocol: ProtocolVersion::default(),
            ca_pem: None,
            database: None,
            labels: Arc::new([]),
        }
    }

    /// All sessions use this database.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = Some(name.into());
        self
    }

    /// These columns are labelled.
    #[must_use]
    pub fn labels(mut self, labels: impl Into<Arc<[Label]>>) -> Self {
        self.labels = labels.into();
        self
    }
}

/// Limits of a listener. Every one has a default.
#[derive(Clone, Debug)]
pub struct ListenerLimits {
    /// Connections at once, logging in or live. Default 10,000.
    pub connections: usize,
    /// Time a client has to log in. Default 30 s.
    pub login: Duration,
    /// The largest frame either side may send, in bytes. Default 64 MiB.
    pub frame_bytes: usize,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self { connections: 10_000, login: Duration::from_secs(30), frame_bytes: DEFAULT_MAX_FRAME_BYTES }
    }
}

/// A PostgreSQL gateway for one target. Cheap to clone.
///
/// ```no_run
/// # async fn run(pipeline: gateway_core::pipeline::Pipeline, target: gateway_pg::Target) -> std::io::Result<()> {
/// let gateway = gateway_pg::PgGateway::new(pipeline, target);
/// gateway.serve(tokio::net::TcpListener::bind("127.0.0.1:6432").await?, std::future::pending()).await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PgGateway {
    pipeline: Pipeline,
    target: Arc<Target>,
    acceptance: Acceptance,
    limits: ListenerLimits,
    cancels: Arc<CancelRegistry>,
    analyses: Arc<AnalysisCache>,
    definitions: Arc<Definitions>,
    labels_checked: Arc<AtomicBool>,
    upstreams: Arc<Mutex<HashMap<String, Upstream>>>,
    estimates: Arc<Semaphore>,
}

/// A label names something that the server does not have, or it could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The named columns do not exist, so their masks would do nothing.
    #[error("labelled columns do not exist on target `{target}`: {}; correct or remove their labels", .columns.join(", "))]
    Labels {
        /// Which target.
        target: String,
        /// As `database.schema.table.column`.
        columns: Vec<String>,
    },
    /// The server could not be asked.
    #[error("target `{0}` cannot be checked: {1}")]
    Unreachable(String, String),
}

impl PgGateway {
    /// A gateway without TLS towards clients, for loopback only, with default limits.
    pub fn new(pipeline: Pipeline, target: Target) -> Self {
        Self {
            pipeline,
            target: Arc::new(target),
            acceptance: Acceptance { tls: None, plaintext_on_loopback: true, tokens: TokenLogin::default() },
            limits: ListenerLimits::default(),
            cancels: Arc::default(),
            analyses: Arc::new(AnalysisCache::default()),
            definitions: Arc::default(),
            labels_checked: Arc::default(),
            upstreams: Arc::default(),
            estimates: Arc::new(Semaphore::new(estimate::MAX_CONNECTIONS)),
        }
    }

    /// Speaks TLS to clients (see [`crate::tls::server_config`]). Plaintext stays possible on loopback unless forbidden.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.acceptance.tls = Some(config);
        self
    }

    /// Refuses tokens without TLS on loopback too.
    #[must_use]
    pub const fn require_tls(mut self) -> Self {
        self.acceptance.plaintext_on_loopback = false;
        self
    }

    /// How clients hand over their token. Default: as the password.
    #[must_use]
    pub const fn tokens(mut self, tokens: TokenLogin) -> Self {
        self.acceptance.tokens = tokens;
        self
    }

    /// Other limits than the defaults.
    #[must_use]
    pub const fn limits(mut self, limits: ListenerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Accepts clients until `stop` is ready; then live sessions are ended and their recordings sealed.
    ///
    /// # Errors
    /// The listener fails for good.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) -> io::Result<()> {
        let accept = |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(tcp, _)| tcp);
        let serve = |tcp| self.clone().connection(tcp);
        let mut sessions = accept_until(accept, self.limits.connections, stop, serve).await;
        sessions.shutdown().await;
        Ok(())
    }

    async fn connection(self, tcp: TcpStream) {
        let peer = tcp.peer_addr().map_or_else(|_| "unknown".to_owned(), |a| a.to_string());
        // On the heap and gone once it is over: a session lasts longer than its login.
        let login = Box::pin(async {
            tcp.set_nodelay(true)?;
            match arrive(tcp, &self.acceptance).await? {
                Arrival::Cancel { pid, key, mut stream } => {
                    let known = self.cancels.cancel(pid, key);
                    tracing::debug!(known, "cancel request");
                    // The client takes the end of the connection for "done", and a TLS end without its alert for a failure.
                    stream.shutdown().await?;
                    Ok(None)
                }
                Arrival::Session(arrived) => self.admit(*arrived, &peer).await,
            }
        });
        match tokio::time::timeout(self.limits.login, login).await {
            Err(_) => tracing::info!(peer, "a client did not log in in time"),
            Ok(Err(error)) => tracing::info!(peer, %error, "a login broke off"),
            Ok(Ok(None)) => {}
            Ok(Ok(Some(ready))) => ready.run().await,
        }
    }

    /// Serves one client on a stream of the embedder's own, for example one half of `tokio::io::duplex`. No listener is opened.
    ///
    /// # Errors
    /// The stream breaks during login.
    pub async fn serve_stream(&self, stream: BoxedStream) -> io::Result<()> {
        let arrived = Arrived::in_process(stream).await?;
        if let Some(ready) = Box::pin(self.admit(arrived, "in-process")).await? {
            ready.run().await;
        }
        Ok(())
    }

    /// Identifies the client, opens its guarded session and logs in upstream; `None` if it was refused.
    async fn admit(&self, mut arrived: Arrived, peer: &str) -> io::Result<Option<Ready>> {
        let wishes = match arrived.wishes.clone() {
            Ok(wishes) => wishes,
            Err(denial) => return arrived.refuse(&denial).await.map(|()| None),
        };
        let version = arrived.negotiate().await?;
        let principal = match arrived.identify(&self.pipeline, self.acceptance.tokens).await? {
            Ok(principal) => principal,
            Err(denial) => return arrived.refuse(&denial).await.map(|()| None),
        };
        match self.open(&wishes, principal, peer).await {
            Ok((guard, connected, database)) => {
                let side = self.side(&guard, &database, wishes.settings);
                self.ready(arrived.stream, version, guard, connected, side).map(Some)
            }
            Err(denial) => arrived.refuse(&denial).await.map(|()| None),
        }
    }

    async fn open(
        &self,
        wishes: &Wishes,
        principal: VerifiedPrincipal,
        peer: &str,
    ) -> Result<(Guard, Connected, String), Denial> {
        let database = self.database(wishes)?;
        let place = Place { target: self.target.name.clone(), database: database.clone() };
        let request = SessionRequest {
            principal,
            protocol: PROTOCOL,
            target: self.target.name.clone(),
            scope: Some(database.clone()),
            peer: peer.to_owned(),
            connects_to: vec![place.database()],
            labels: Arc::clone(&self.target.labels),
        };
        let connect = async |credential: &_| self.connect(credential, &database, &wishes.settings).await;
        let (guard, connected) = self.pipeline.enter(request, connect).await?;
        Ok((guard, connected, database))
    }

    fn database(&self, wishes: &Wishes) -> Result<String, Denial> {
        let wished = wishes.database.clone().unwrap_or_else(|| wishes.user.clone());
        match &self.target.database {
            Some(fixed) if wishes.database.is_some() && *fixed != wished => {
                let message = format!("there is no database `{wished}` at target `{}`", self.target.name);
                Err(Denial::new(DenialCode::Forbidden, message)
                    .with_hint(format!("connect to database `{fixed}`")))
            }
            Some(fixed) => Ok(fixed.clone()),
            None => Ok(wished),
        }
    }

    fn side(&self, guard: &Guard, database: &str, settings: BTreeMap<String, String>) -> Side {
        let principal = guard.info().principal.clone();
        Side { gateway: self.clone(), principal, database: database.to_owned(), settings }
    }

    /// Another login as a session's, for questions of the gateway's own.
    pub(crate) async fn connect_aside(
        &self,
        principal: &VerifiedPrincipal,
        database: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<Connected, String> {
        let source = self.pipeline.credentials();
        let credential = source.credential(&self.target.name, Some(principal)).await;
        self.connect(&credential.map_err(|e| e.to_string())?, database, settings).await
    }

    /// Turns of connections for estimates.
    pub(crate) fn estimates(&self) -> &Semaphore {
        &self.estimates
    }

    /// What all sessions know of changed definitions.
    pub(crate) const fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    /// The target's name.
    pub(crate) fn target_name(&self) -> &str {
        &self.target.name
    }

    async fn connect(
        &self,
        credential: &UpstreamCredential,
        database: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<Connected, String> {
        if !self.labels_checked.load(Ordering::Relaxed) {
            self.check().await.map_err(|e| e.to_string())?;
        }
        let upstream = self.upstream(credential).map_err(|e| e.to_string())?;
        let connected = upstream.log_in(credential, database, settings).await;
        connected.map_err(|e: UpstreamError| e.to_string())
    }

    /// The upstream with its TLS configuration, which depends on the credential only if that is a certificate.
    fn upstream(&self, credential: &UpstreamCredential) -> Result<Upstream, TlsError> {
        let certificate = matches!(credential, UpstreamCredential::Certificate { .. });
        let mut known = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        if !certificate && let Some(upstream) = known.get(&self.target.name) {
            return Ok(upstream.clone());
        }
        let target = &self.target;
        let tls = match target.ssl_mode {
            SslMode::Disable => None,
            mode => Some(client_config(mode, target.ca_pem.as_deref(), Some(credential))?),
        };
        let upstream = Upstream {
            address: target.address.clone(),
            ssl_mode: target.ssl_mode,
            ssl_negotiation: target.ssl_negotiation,
            protocol: target.max_protocol,
            tls,
        };
        if !certificate {
            known.insert(target.name.clone(), upstream.clone());
        }
        Ok(upstream)
    }

    /// Makes sure that every labelled column exists, so that no mask silently does nothing. Called before the first session; call
    /// it at start to find mistakes early.
    ///
    /// # Errors
    /// Columns that do not exist, or a server that cannot be asked.
    pub async fn check(&self) -> Result<(), CheckError> {
        let unreachable =
            |e: &dyn std::fmt::Display| CheckError::Unreachable(self.target.name.clone(), e.to_string());
        let source = self.pipeline.credentials();
        let credential = source.credential(&self.target.name, None).await.map_err(|e| unreachable(&e))?;
        let upstream = self.upstream(&credential).map_err(|e| unreachable(&e))?;
        let mut missing = Vec::new();
        for (database, columns) in crate::check::by_database(&self.target.labels) {
            let connected = upstream
                .log_in(&credential, &database, &BTreeMap::new())
                .await
                .map_err(|e| unreachable(&e))?;
            let absent = crate::check::missing(connected, &columns).await.map_err(|e| unreachable(&e))?;
            missing.extend(absent.into_iter().map(|c| format!("{database}.{c}")));
        }
        if missing.is_empty() {
            self.labels_checked.store(true, Ordering::Relaxed);
            return Ok(());
        }
        Err(CheckError::Labels { target: self.target.name.clone(), columns: missing })
    }

    fn ready(
        &self,
        down: BoxedStream,
        version: u32,
        guard: Guard,
        connected: Connected,
        side: Side,
    ) -> io::Result<Ready> {
        let key = random_key(version).map_err(io::Error::other)?;
        let entry = self.cancels.register(connected.cancel.pid(), key);
        let mut greeting = BytesMut::new();
        encode::authentication_ok(&mut greeting);
        let reported: BTreeMap<_, _> =
            connected.parameters.into_iter().filter(|(name, _)| is_reported(name)).collect();
        for (name, value) in &reported {
            encode::parameter_status(&mut greeting, name, value);
        }
        encode::key_data(&mut greeting, entry.pid, &entry.key);
        encode::ready(&mut greeting, TransactionStatus::Idle);
        let config = SessionConfig {
            max_frame_bytes: self.limits.frame_bytes,
            analyses: Arc::clone(&self.analyses),
            definitions: Arc::clone(&self.definitions),
            database: side.database.clone(),
            lexing: connected.lexing,
        };
        let rewriter = PgRewriter {
            lexing: connected.lexing,
            possible: false,
            backgrounds: Arc::new([]),
            prepared: 0,
            side: Arc::new(side),
            search_path: None,
            settings: Arc::default(),
        };
        let session = Session::new(guard.clone(), config, reported);
        let greeting = guard.originate(greeting.freeze());
        let driver = Box::new(Driver::new(
            session,
            guard,
            rewriter,
            (down, connected.stream),
            connected.cancel,
            Arc::clone(&entry.asked),
        ));
        Ok(Ready { driver, greeting, _entry: entry })
    }
}

/// A session about to begin.
struct Ready {
    driver: Box<Driver>,
    greeting: gateway_core::pipeline::Released,
    _entry: CancelEntry,
}

impl Ready {
    async fn run(self) {
        let reason = self.driver.run(self.greeting).await;
        tracing::debug!(?reason, "session ended");
    }
}

/// Which protocol versions are spoken to clients.
pub const PROTOCOL_VERSIONS: [u32; 2] = [startup::PROTOCOL_3_0, startup::PROTOCOL_3_2];
