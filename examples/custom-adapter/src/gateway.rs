//! The loop: a line comes, the core judges it, it is forwarded or refused, its answer is released.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::credentials::Secret;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::Presented;
use gateway_core::operation::{Batch, Operation, Resource, Stage};
use gateway_core::pipeline::{Guard, Judged, Masker, NoRewrites, Permit, Pipeline, Results, SessionRequest};
use gateway_core::session::CloseReason;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::operation::parse;
use crate::wire::{Downstream, Upstream, refusal};

/// Connections at once; more wait to be accepted. Each needs two descriptors.
const MAX_CONNECTIONS: usize = 400;

/// How long a client may take to log in: nothing is known of it yet.
const LOGIN: Duration = Duration::from_secs(10);

/// A gateway for one key-value store. Listens on loopback only: there is no TLS here.
#[derive(Clone, Debug)]
pub struct KvGateway {
    pipeline: Pipeline,
    target: String,
    upstream: SocketAddr,
}

impl KvGateway {
    /// A gateway for the store at `upstream`, which policies and credentials know as `target`.
    pub fn new(pipeline: Pipeline, target: impl Into<String>, upstream: SocketAddr) -> Self {
        Self { pipeline, target: target.into(), upstream }
    }

    /// Serves clients until the future is dropped.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            let (tcp, peer) = listener.accept().await?;
            let gateway = self.clone();
            tokio::spawn(async move {
                let _slot = slot;
                if let Err(error) = gateway.connection(tcp, peer).await {
                    tracing::info!(%peer, %error, "a connection broke off");
                }
            });
        }
    }

    async fn connection(&self, tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let mut down = Downstream::new(tcp);
        let (guard, mut up) = match timeout(LOGIN, self.open(&mut down, peer)).await?? {
            Ok(opened) => opened,
            Err(denial) => return down.refuse(&denial).await,
        };
        let reason = session(&guard, &mut down, &mut up).await;
        guard.close(reason).await.map_err(io::Error::other)
    }

    async fn open(
        &self,
        down: &mut Downstream,
        peer: SocketAddr,
    ) -> io::Result<Result<(Guard, Upstream), Denial>> {
        let line = down.next().await?.unwrap_or_default();
        let token =
            std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix("AUTH ")).unwrap_or_default();
        let presented = Presented::Token(Secret::from(token));
        let opened = self.admit(&presented, peer).await;
        if let Ok((guard, _)) = &opened {
            down.send(guard.originate("OK\n")).await?;
        }
        Ok(opened)
    }

    async fn admit(&self, presented: &Presented, peer: SocketAddr) -> Result<(Guard, Upstream), Denial> {
        let principal = self.pipeline.authenticate(presented).await?;
        let request = SessionRequest {
            principal: principal.clone(),
            protocol: "keyvalue",
            target: self.target.clone(),
            scope: None,
            peer: peer.to_string(),
            connects_to: vec![Resource::target(&self.target)],
            labels: Arc::default(),
        };
        let guard = Guard::open(&self.pipeline, request).await?;
        let credential = self.pipeline.credentials().credential(&self.target, Some(&principal)).await;
        let credential = credential.map_err(|cause| unavailable(&cause))?;
        guard.protect(credential.secrets());
        match Upstream::log_in(self.upstream, &credential).await {
            Ok(up) => Ok((guard, up)),
            Err(cause) => {
                let _ = guard.close(CloseReason::Upstream).await;
                Err(unavailable(&cause))
            }
        }
    }
}

fn unavailable(cause: &dyn std::error::Error) -> Denial {
    Denial::new(DenialCode::UpstreamUnavailable, "the store is not available").with_cause(cause)
}

/// Serves one client until it leaves, its identity ends, or something fails.
async fn session(guard: &Guard, down: &mut Downstream, up: &mut Upstream) -> CloseReason {
    loop {
        let left = guard.expires_at().since(guard.pipeline().clock().now());
        let line = match timeout(left, down.next()).await {
            Err(_) => return CloseReason::IdentityExpired,
            Ok(Err(error)) => return CloseReason::ProtocolViolation(error.to_string()),
            Ok(Ok(None)) => return CloseReason::Downstream,
            Ok(Ok(Some(line))) => line,
        };
        if let Err(reason) = exchange(guard, down, up, &line).await {
            return reason;
        }
    }
}

async fn exchange(
    guard: &Guard,
    down: &mut Downstream,
    up: &mut Upstream,
    line: &Bytes,
) -> Result<(), CloseReason> {
    let denial = match judge(guard, down, line).await {
        Ok(permit) => {
            let results = up.forward(permit).await.map_err(|_| CloseReason::Upstream)?;
            return answer(guard, results, down, up).await;
        }
        Err(denial) => denial,
    };
    down.send(guard.originate(refusal(&denial))).await.map_err(|_| CloseReason::Downstream)
}

async fn judge(guard: &Guard, down: &mut Downstream, line: &Bytes) -> Result<Permit, Denial> {
    let pending = |operation| guard.pending(Batch::one(Stage::Execute, operation));
    let operation = parse(&Resource::target(&guard.info().target), line)
        .map_err(|denial| guard.refuse(&pending(Operation::new("unknown", line.clone())), denial))?;
    let mut judged = guard.judge(pending(operation), &NoRewrites).await;
    if let Judged::Held(held) = judged {
        let notice = format!("HELD {} until {}\n", held.request(), held.expires());
        // What is not sent is a client that has gone, and the wait below sees that.
        let _ = down.send(guard.originate(notice)).await;
        judged = tokio::select! {
            judged = held.wait() => judged,
            // The hold is dropped, and with it the request for approval.
            () = down.gives_up() => return Err(Denial::new(DenialCode::Cancelled, "the held operation was given up")),
        };
    }
    match judged {
        Judged::Permit(permit) => Ok(*permit),
        Judged::Refused(refused) => Err(refused.denial),
        Judged::Held(held) => Err(held.cancel().await),
    }
}

/// Releases an answer line by line.
async fn answer(
    guard: &Guard,
    mut results: Results,
    down: &mut Downstream,
    up: &mut Upstream,
) -> Result<(), CloseReason> {
    loop {
        if results.is_stale() || !guard.has_room() {
            guard.catch_up().await.map_err(|_| CloseReason::RecorderFailed)?;
            results.adopt_masks();
        }
        let line = up.next().await.map_err(|_| CloseReason::Upstream)?;
        let Some((verb, rows)) = verb(&line) else {
            return Err(CloseReason::ProtocolViolation("the store's answer is not understood".to_owned()));
        };
        let mask = |masker: &mut Masker<'_>, line: &Bytes| Ok(Some(masked(masker, verb.len(), line)));
        let released = match results.release("keyvalue", line, rows, mask) {
            Ok(released) => released,
            Err(denial) => {
                // The rest of the answer is still to come, so the session cannot go on.
                let _ = down.send(guard.originate(refusal(&denial))).await;
                return Err(CloseReason::LimitExceeded(denial.to_string()));
            }
        };
        if guard.is_strict() {
            guard.settle().await.map_err(|_| CloseReason::RecorderFailed)?;
        }
        down.send(released).await.map_err(|_| CloseReason::Downstream)?;
        if verb != "KEY" {
            return results.complete(verb).map_err(|_| CloseReason::RecorderFailed);
        }
    }
}

/// The verb of an answer and how many rows it counts for.
fn verb(line: &[u8]) -> Option<(&'static str, u64)> {
    let verb = line.split(|byte| *byte == b' ').next()?;
    [("VALUE", 1), ("KEY", 1), ("OK", 0), ("NONE", 0), ("END", 0), ("ERROR", 0)]
        .into_iter()
        .find(|(known, _)| known.as_bytes() == verb)
}

/// The line with everything after its verb masked by content, and its end.
fn masked(masker: &mut Masker<'_>, verb: usize, line: &Bytes) -> Bytes {
    let (verb, text) = line.split_at_checked(verb).unwrap_or((line, &[]));
    let masked = masker.text(text);
    [verb, masked.as_deref().unwrap_or(text), b"\n"].concat().into()
}
