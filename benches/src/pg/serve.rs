//! The gateway as a process of its own, with everything on, as `pg` starts it.

use std::collections::BTreeSet;
use std::io::{Write, stdin, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{Clock, SystemClock};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::identity::{Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::Recorder;
use gateway_pg::{Address, PgGateway, SslMode, Target};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::Result;
use crate::recorder;

/// What the parent writes as one line to our standard input: not arguments, which everybody may read.
#[derive(Serialize, Deserialize)]
pub(super) struct Settings {
    /// The server's port on 127.0.0.1.
    pub(super) upstream: u16,
    pub(super) database: String,
    /// The account on the server.
    pub(super) username: String,
    pub(super) password: String,
    /// What the client shows as its password.
    pub(super) token: String,
    /// Where to record; `None`: records are made and thrown away.
    pub(super) recordings: Option<PathBuf>,
    /// Set if both sides are encrypted.
    pub(super) tls: Option<TlsFiles>,
}

/// PEM texts.
#[derive(Serialize, Deserialize)]
pub(super) struct TlsFiles {
    /// Who vouches for the server.
    pub(super) ca: String,
    /// The gateway's own certificate.
    pub(super) chain: String,
    pub(super) key: String,
}

/// What we write as one line to our standard output once we listen.
#[derive(Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) port: u16,
    /// The public key the recordings verify with.
    pub(super) key: Option<[u8; 32]>,
}

/// The target's name in policies and records.
const TARGET: &str = "bench";

/// Serves until standard input ends: with the parent, however that ends.
///
/// # Errors
/// The settings cannot be read, a part cannot be set up, or the listener fails.
pub(crate) fn run() -> Result<()> {
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let settings: Settings = serde_json::from_str(&line)?;
    // Client and server want cores too: half of them, as there is no gain in moving sessions between threads that wait for a core.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads((cores / 2).max(1)).enable_all().build()?.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<()> {
    let (recorder, key) = recorder::recorder(settings.recordings.as_deref())?;
    let mut gateway = PgGateway::new(pipeline(&settings, recorder)?, target(&settings));
    if let Some(tls) = &settings.tls {
        gateway = gateway.tls(gateway_pg::tls::server_config(&tls.chain, &tls.key, None)?).require_tls();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ready = Ready { port: listener.local_addr()?.port(), key };
    writeln!(stdout(), "{}", serde_json::to_string(&ready)?)?;
    let end = async {
        let mut rest = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
    };
    Ok(gateway.serve(listener, end).await?)
}

fn pipeline(settings: &Settings, recorder: Arc<dyn Recorder>) -> Result<Pipeline> {
    let expires = SystemClock.now().plus(Duration::from_secs(24 * 3600));
    let mut agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent-7", expires);
    agent.groups = BTreeSet::from(["agents".to_owned()]);
    agent.task = Some("bench".to_owned());
    let policy = CedarEngine::builder()
        .schema_fragment("postgres.cedarschema", gateway_pg::SCHEMA)
        .policy(PolicyFile::new("bench.cedar", include_str!("bench.cedar")))
        .build()?;
    let credential = UpstreamCredential::Password {
        username: settings.username.clone(),
        password: Secret::new(settings.password.clone()),
    };
    let pipeline = Pipeline::builder(
        Arc::new(StaticAuthenticator::new()?.with(&settings.token, agent)),
        Arc::new(policy),
        Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
        recorder,
        Arc::new(StaticCredentials::default().with(TARGET, credential)),
    );
    Ok(pipeline.build()?)
}

fn target(settings: &Settings) -> Target {
    Target {
        name: TARGET.to_owned(),
        address: Address::Tcp("127.0.0.1".to_owned(), settings.upstream),
        ssl_mode: if settings.tls.is_some() { SslMode::VerifyFull } else { SslMode::Disable },
        ssl_negotiation: gateway_pg::SslNegotiation::default(),
        max_protocol: gateway_pg::ProtocolVersion::default(),
        ca_pem: settings.tls.as_ref().map(|tls| tls.ca.clone()),
        database: Some(settings.database.clone()),
        labels: Arc::from([]),
    }
}
