//! Listening for clients and taking each to its session.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use gateway_core::accept::accept_until;
use gateway_core::credentials::Secret;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::pipeline::Pipeline;
use gateway_core::session::CloseReason;
use russh::keys::PrivateKey;
use russh::server::{Config, RunningSession, run_stream};
use russh::{Disconnect, MethodKind, MethodSet, Preferred, SshId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::algorithms::{PACKET_BYTES, WINDOW_BYTES, fastest, preferred};
use crate::gate::{Gate, Gated};
use crate::greeting::{IDENTIFICATION, greet};
use crate::handler::Connection;
use crate::host_key::HostKey;
use crate::names::AllNames;
use crate::served::{AllServed, Served};
use crate::session::SshSession;
use crate::target::{BuildError, Target};

/// The protocol's name in policies, records and metrics.
pub const PROTOCOL: &str = "ssh";

/// Limits of a listener. Every one has a default.
#[derive(Clone, Debug)]
pub struct ListenerLimits {
    /// Connections at once, logging in or live. Default 2,000.
    pub connections: usize,
    /// Time a client has to log in. Default 60 s: people paste tokens.
    pub login: Duration,
    /// Refused logins on one connection before it is closed. Default 6, as OpenSSH's server.
    pub attempts: usize,
    /// How long a refused login takes at least. Default 300 ms.
    pub rejection: Duration,
    /// A client that answers nothing for so long is gone. Default 5 min.
    pub silence: Duration,
    /// How often a quiet client is asked whether it lives; shows in holds, too, that the connection does. Default 30 s; has to be
    /// well below [`silence`](Self::silence).
    pub keepalive: Duration,
    /// Channels that one connection may leave behind; then it takes no more, and ends when nothing runs in it any more. russh 0.65 keeps some
    /// 3.3 KB of each that the gateway closed before its client did, which is how programs end, until the connection ends. Default 10,000:
    /// 33 MB; clients that share a connection open another.
    pub channels: usize,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 2_000,
            login: Duration::from_secs(60),
            attempts: 6,
            rejection: Duration::from_millis(300),
            silence: Duration::from_secs(300),
            keepalive: Duration::from_secs(30),
            channels: 10_000,
        }
    }
}

/// How long a client has to go by itself after it was told why the connection ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// An SSH gateway for one or more targets. Cheap to clone.
///
/// ```no_run
/// # use gateway_core::{credentials::Secret, identity::SshPublicKey};
/// # async fn run(pipeline: gateway_core::pipeline::Pipeline, key: Secret<String>) -> Result<(), Box<dyn std::error::Error>> {
/// let pinned = SshPublicKey::from_line("ssh-ed25519 AAAA... web1")?;
/// let gateway = gateway_ssh::SshGateway::builder(pipeline)
///     .target(gateway_ssh::Target::new("web1", "10.0.0.5", 22).host_key(pinned))
///     .host_key(key)
///     .build()?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:2222").await?;
/// Ok(gateway.serve(listener, std::future::pending()).await?)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SshGateway(Arc<Shared>);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pipeline: Pipeline,
    targets: BTreeMap<String, Arc<Target>>,
    pub(crate) served: AllServed,
    pub(crate) names: AllNames,
    pub(crate) limits: ListenerLimits,
    config: Arc<Config>,
    /// The same for clients that know the fastest cipher.
    fastest: Arc<Config>,
}

impl Shared {
    /// The named target; the only one if none is named. The same words for one that is absent and one that is not named.
    pub(crate) fn target(&self, name: Option<&str>) -> Result<Arc<Target>, Denial> {
        let found = match name {
            Some(name) => self.targets.get(name),
            None if self.targets.len() == 1 => self.targets.values().next(),
            None => None,
        };
        found.cloned().ok_or_else(|| {
            Denial::new(DenialCode::Forbidden, "there is no such target for you")
                .with_hint("name the target in the user name, as in `agent%host`")
        })
    }
}

/// Builds an [`SshGateway`].
#[derive(Debug)]
pub struct SshGatewayBuilder {
    pipeline: Pipeline,
    targets: Vec<Target>,
    served: Vec<Served>,
    host_keys: Vec<Secret<String>>,
    limits: ListenerLimits,
}

impl SshGatewayBuilder {
    /// Adds a target. Clients name it behind `%` in their user name; with a single one they need not.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// Names a service that has a listener of its own: forwards to it are refused, and clients told to go there.
    #[must_use]
    pub fn served(mut self, served: Served) -> Self {
        self.served.push(served);
        self
    }

    /// Adds a host key of the gateway itself: a private key, OpenSSH or PKCS#8 PEM, unencrypted.
    #[must_use]
    pub fn host_key(mut self, pem: Secret<String>) -> Self {
        self.host_keys.push(pem);
        self
    }

    /// Other limits than the defaults.
    #[must_use]
    pub const fn limits(mut self, limits: ListenerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The gateway.
    ///
    /// # Errors
    /// No target, a target that nothing pins, or a host key that cannot be read.
    pub fn build(self) -> Result<SshGateway, BuildError> {
        let mut targets = BTreeMap::new();
        for target in self.targets {
            check(&target)?;
            if let Some(twin) = targets.insert(target.name.clone(), Arc::new(target)) {
                return Err(BuildError::SameName(twin.name.clone()));
            }
        }
        if targets.is_empty() {
            return Err(BuildError::NoTarget);
        }
        let read = |pem| HostKey::from_pem(pem).map(HostKey::into_private);
        let keys: Result<Vec<_>, _> = self.host_keys.iter().map(read).collect();
        let keys = keys?;
        if keys.is_empty() {
            return Err(BuildError::HostKey(
                "there is none; make one with `ssh-keygen -t ed25519`".to_owned(),
            ));
        }
        let (fastest, config) =
            (config(keys.clone(), &self.limits, fastest()), config(keys, &self.limits, preferred(false)));
        Ok(SshGateway(Arc::new(Shared {
            pipeline: self.pipeline,
            targets,
            served: AllServed(self.served),
            names: AllNames::default(),
            limits: self.limits,
            config: Arc::new(config),
            fastest: Arc::new(fastest),
        })))
    }
}

fn check(target: &Target) -> Result<(), BuildError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if target.name.is_empty() || !target.name.chars().all(fits) {
        return Err(BuildError::BadName(target.name.clone()));
    }
    if target.host_keys.is_empty() {
        return Err(BuildError::NoHostKey(target.name.clone()));
    }
    Ok(())
}

fn config(keys: Vec<PrivateKey>, limits: &ListenerLimits, preferred: Preferred) -> Config {
    let methods = [MethodKind::PublicKey, MethodKind::KeyboardInteractive, MethodKind::Password];
    Config {
        server_id: SshId::Standard(IDENTIFICATION.into()),
        methods: MethodSet::from(&methods[..]),
        auth_rejection_time: limits.rejection,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys,
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        preferred,
        max_auth_attempts: limits.attempts,
        // What a closed gate or a full window does to these is counted in `Gate`, which knows who waits for whom.
        inactivity_timeout: None,
        keepalive_interval: Some(limits.keepalive),
        keepalive_max: 0,
        nodelay: true,
        ..Config::default()
    }
}

impl SshGateway {
    /// Starts building a gateway.
    pub fn builder(pipeline: Pipeline) -> SshGatewayBuilder {
        let (targets, served, host_keys) = (Vec::new(), Vec::new(), Vec::new());
        SshGatewayBuilder { pipeline, targets, served, host_keys, limits: ListenerLimits::default() }
    }

    /// Accepts clients until `stop` is ready; then live sessions are ended and their recordings sealed.
    ///
    /// # Errors
    /// The listener fails for good.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) -> io::Result<()> {
        let (stopping, stopped) = tokio::sync::watch::channel(false);
        let accept = |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(tcp, _)| tcp);
        let serve = |tcp| self.clone().accepted(tcp, stopped.clone());
        let mut connections = accept_until(accept, self.0.limits.connections, stop, serve).await;
        let _ = stopping.send(true);
        while connections.join_next().await.is_some() {}
        Ok(())
    }

    async fn accepted(self, tcp: TcpStream, mut stopped: tokio::sync::watch::Receiver<bool>) {
        let peer = tcp.peer_addr().ok();
        if tcp.set_nodelay(true).is_err() {
            return;
        }
        self.connection(tcp, peer, async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        })
        .await;
    }

    /// Serves one client on a stream of the embedder's own, for example one half of `tokio::io::duplex`. No listener is opened.
    pub async fn serve_stream<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connection(stream, None, std::future::pending()).await;
    }

    async fn connection<S>(&self, stream: S, peer: Option<SocketAddr>, stop: impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let gate = Arc::new(Gate::default());
        let (opened, opening) = oneshot::channel();
        let handler = Connection::new(Arc::clone(&self.0), peer, Arc::clone(&gate), opened);
        let stream = Gated::new(stream, Arc::clone(&gate));
        let login = async {
            let (stream, knows_fastest) = greet(stream).await.ok()?;
            let config = if knows_fastest { &self.0.fastest } else { &self.0.config };
            let running = run_stream(Arc::clone(config), stream, handler).await.ok()?;
            Some((running, opening.await.ok().flatten()))
        };
        match timeout(self.0.limits.login, login).await {
            Ok(Some((running, Some(session)))) => self.live(running, &session, stop).await,
            // The refusal is on its way to the client.
            Ok(Some((running, None))) => drop(timeout(FAREWELL, running).await),
            Ok(None) => tracing::info!(?peer, "a login broke off"),
            Err(_) => tracing::info!(?peer, "a client did not log in in time"),
        }
        gate.kill();
    }

    async fn live(
        &self,
        mut running: RunningSession<Connection>,
        session: &SshSession,
        stop: impl Future<Output = ()>,
    ) {
        let reason = tokio::select! {
            ended = &mut running => ended_by(ended),
            () = over(session) => CloseReason::IdentityExpired,
            () = session.gate.silent(self.0.limits.silence) => CloseReason::Downstream,
            () = stop => CloseReason::Shutdown,
        };
        let words = match reason {
            CloseReason::IdentityExpired => "the identity expired; connect again with a new one",
            CloseReason::Shutdown => "the gateway is stopping",
            _ => "",
        };
        if !words.is_empty() {
            let farewell = async {
                let sent = session.handle.disconnect(Disconnect::ByApplication, words.into(), String::new());
                if sent.await.is_ok() {
                    let _ = (&mut running).await;
                }
            };
            let _ = timeout(FAREWELL, farewell).await;
        }
        session.gate.kill();
        tracing::debug!(session = %session.guard.info().id, ?reason, "session ended");
        session.close(reason).await;
    }
}

/// Waits until the identity is over by the pipeline's clock, which may be set.
async fn over(session: &SshSession) {
    loop {
        let left = session.guard.expires_at().since(session.guard.pipeline().clock().now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(EXPIRY_LOOK)).await;
    }
}

/// How often expiry is looked at again.
const EXPIRY_LOOK: Duration = Duration::from_secs(1);

fn ended_by(ended: Result<(), russh::Error>) -> CloseReason {
    match ended {
        Ok(()) | Err(russh::Error::HUP | russh::Error::IO(_) | russh::Error::Disconnect) => {
            CloseReason::Downstream
        }
        Err(error) => CloseReason::ProtocolViolation(error.to_string()),
    }
}
