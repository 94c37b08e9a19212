//! The gateway as a process of its own, with everything on, as `ssh` starts it.

use std::collections::BTreeSet;
use std::io::{Write, stdin, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{Clock, SystemClock};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::identity::{Principal, PrincipalKind, SshAuthenticator, SshPublicKey};
use gateway_core::masking::{RuleSet, Scanner};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::Recorder;
use gateway_ssh::{SshGateway, Target};
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
    /// The server's public host key.
    pub(super) pinned: String,
    /// The account on the server, and its private key.
    pub(super) username: String,
    pub(super) key: String,
    /// The gateway's own private host key.
    pub(super) host_key: String,
    /// The agent's public key.
    pub(super) agent: String,
    /// The folder whose files may be read and written.
    pub(super) files: String,
    /// Where to record; `None`: records are made and thrown away.
    pub(super) recordings: Option<PathBuf>,
    /// Whether content is masked.
    pub(super) masking: bool,
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
    // Client and server want cores too.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads((cores / 2).max(1)).enable_all().build()?.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<()> {
    let (recorder, key) = recorder::recorder(settings.recordings.as_deref())?;
    let pinned = SshPublicKey::from_line(&settings.pinned)?;
    let gateway = SshGateway::builder(pipeline(&settings, recorder)?)
        .target(Target::new(TARGET, "127.0.0.1", settings.upstream).host_key(pinned))
        .host_key(Secret::new(settings.host_key))
        .build()?;
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
    let text = include_str!("bench.cedar").replace("{files}", &settings.files);
    let policy = CedarEngine::builder()
        .schema_fragment("ssh.cedarschema", gateway_ssh::SCHEMA)
        .policy(PolicyFile::new("bench.cedar", &text))
        .build()?;
    let credential = UpstreamCredential::Key {
        username: settings.username.clone(),
        key: Secret::new(settings.key.clone()),
        certificate: None,
    };
    let rules = if settings.masking { RuleSet::builtin() } else { RuleSet::empty() };
    let pipeline = Pipeline::builder(
        Arc::new(SshAuthenticator::new().key(SshPublicKey::from_line(&settings.agent)?, agent)),
        Arc::new(policy),
        Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
        recorder,
        Arc::new(StaticCredentials::default().with(TARGET, credential)),
    );
    Ok(pipeline.scanner(Scanner::new(rules)?).build()?)
}
