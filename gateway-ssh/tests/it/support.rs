//! A gateway in front of a real server, for one test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gateway_core::approval::{
    ApprovalEvent, ApprovalEvents, Approver, MemoryApprover, RequestId, RequestState, Verdict,
};
use gateway_core::clock::{Clock, SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::identity::{
    AnyAuthenticator, Presented, Principal, PrincipalKind, SshAuthenticator, SshAuthority, SshPublicKey,
    StaticAuthenticator, VerifiedPrincipal, verify,
};
use gateway_core::masking::{RuleSet, Scanner};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::{MemoryRecorder, Record};
use gateway_ssh::{ListenerLimits, Served, SshGateway, Target};
use tempfile::TempDir;
use testkit::{Finished, SshKeyPair, Sshd, client_options, run};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The one server of all tests in this binary.
pub fn server() -> &'static Sshd {
    static SERVER: OnceLock<Sshd> = OnceLock::new();
    SERVER.get_or_init(|| Sshd::start().unwrap())
}

/// Keys of the gateway, of its user authority and of an agent.
pub struct Keys {
    pub folder: TempDir,
    pub host: SshKeyPair,
    pub authority: SshKeyPair,
    pub agent: SshKeyPair,
}

pub fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let make = |name| SshKeyPair::generate(folder.path(), name).unwrap();
        Keys { host: make("gateway"), authority: make("authority"), agent: make("agent"), folder }
    })
}

pub fn public(key: &SshKeyPair) -> SshPublicKey {
    SshPublicKey::from_line(&key.public_line().unwrap()).unwrap()
}

pub const TOKEN: &str = "test-token-of-the-agent";

/// Everything the schema knows is permitted.
pub const ALL: &str = "permit (principal, action, resource) unless { action == Action::\"reveal\" };";

/// How a gateway is to be.
pub struct Setup {
    pub policy: String,
    pub target: Target,
    pub credential: UpstreamCredential,
    pub principal: Principal,
    pub clock: Arc<dyn Clock>,
    /// What other listeners serve.
    pub served: Vec<Served>,
    /// Whether content is masked; unoptimised, the rules are slow.
    pub content: bool,
    pub limits: ListenerLimits,
}

impl Setup {
    pub fn new(policy: &str) -> Self {
        let server = server();
        let target = Target::new("web1", "127.0.0.1", server.port()).host_key(public(server.host_key()));
        let credential = UpstreamCredential::Key {
            username: server.user().to_owned(),
            key: Secret::new(server.client_key().pem().unwrap()),
            certificate: None,
        };
        let mut principal =
            Principal::new(PrincipalKind::Agent, "https://idp.test", "agent-7", Timestamp::MAX);
        principal.groups.insert("shop-agents".to_owned());
        Self {
            policy: policy.to_owned(),
            target,
            credential,
            principal,
            clock: Arc::new(SystemClock),
            served: Vec::new(),
            content: true,
            limits: ListenerLimits::default(),
        }
    }

    pub fn start(self) -> Gateway {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let policy = PolicyFile::new("policy.cedar", &self.policy);
        let engine = CedarEngine::builder()
            .schema_fragment("ssh", gateway_ssh::SCHEMA)
            .policy(policy)
            .build()
            .unwrap();
        let engine = Arc::new(engine);
        let authority = SshAuthority::new(public(&keys().authority), "ssh-ca", PrincipalKind::Agent);
        let ssh =
            SshAuthenticator::new().authority(authority).key(public(&keys().agent), self.principal.clone());
        let tokens = StaticAuthenticator::new().unwrap().with(TOKEN, self.principal);
        let authenticator = AnyAuthenticator::new().ssh(Arc::new(ssh)).tokens(Arc::new(tokens));
        let rules = if self.content { RuleSet::builtin() } else { RuleSet::empty() };
        let recorder = MemoryRecorder::default();
        let approver = Arc::new(MemoryApprover::new(Arc::new(SystemClock)));
        let pipeline = Pipeline::builder(
            Arc::new(authenticator),
            Arc::clone(&engine) as _,
            Arc::clone(&approver) as _,
            Arc::new(recorder.clone()),
            Arc::new(StaticCredentials::default().with("web1", self.credential)),
        )
        .clock(self.clock)
        .scanner(Scanner::new(rules).unwrap())
        .build()
        .unwrap();
        let builder = SshGateway::builder(pipeline)
            .target(self.target)
            .limits(self.limits)
            .host_key(Secret::new(keys().host.pem().unwrap()));
        let gateway = self.served.into_iter().fold(builder, |b, served| b.served(served)).build().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(gateway.serve(listener, async move {
            let _ = stopped.await;
        }));
        let folder = tempfile::tempdir().unwrap();
        Gateway { address, engine, recorder, approver, folder, runtime: Some(runtime), stop: Some(stop) }
    }
}

/// A running gateway; stops when dropped.
pub struct Gateway {
    pub address: SocketAddr,
    pub engine: Arc<CedarEngine>,
    pub recorder: MemoryRecorder,
    pub approver: Arc<MemoryApprover>,
    /// For files of the client's side.
    pub folder: TempDir,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn gateway(policy: &str) -> Gateway {
    Setup::new(policy).start()
}

/// One that masks content.
pub fn masking(policy: &str) -> Gateway {
    let mut setup = Setup::new(policy);
    setup.content = true;
    setup.start()
}

pub const DEADLINE: Duration = Duration::from_secs(30);

impl Gateway {
    /// A stock client's command, logging in as `agent-7` with the agent's key; arguments are to follow.
    pub fn client(&self, program: &str) -> Command {
        self.client_with(program, keys().agent.private())
    }

    pub fn client_with(&self, program: &str, key: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(client_options(key, self.address.port()));
        command
    }

    /// Runs `ssh` with further options and words.
    pub fn ssh(&self, words: &[&str]) -> Finished {
        self.ssh_with_input(words, "")
    }

    pub fn ssh_with_input(&self, words: &[&str], input: &str) -> Finished {
        let (options, command) = words.split_at(words.len().saturating_sub(1));
        let mut ssh = self.client("ssh");
        ssh.args(options).arg("agent-7@127.0.0.1").args(command);
        run(&mut ssh, input, DEADLINE).unwrap()
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    /// Everything recorded so far.
    pub fn records(&self) -> Vec<Record> {
        self.recorder
            .sessions()
            .into_iter()
            .flat_map(|(_, records)| records.into_iter().map(|(_, r)| r))
            .collect()
    }

    /// Reviews the next request that is submitted.
    pub async fn review(&self, events: &mut ApprovalEvents, verdict: Verdict) -> RequestId {
        loop {
            if let ApprovalEvent::Submitted(request) = events.next().await.unwrap() {
                let id = request.id;
                let now = Timestamp::from(std::time::SystemTime::now());
                self.approver.review(id, &reviewer().await, verdict, None, now).await.unwrap();
                return id;
            }
        }
    }

    /// What became of a request.
    pub fn state(&self, request: RequestId) -> RequestState {
        self.block_on(async { self.approver.show(request, &reviewer().await).await }).unwrap().state
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A person who may approve.
pub async fn reviewer() -> VerifiedPrincipal {
    let mut alice = Principal::new(PrincipalKind::Human, "https://idp.test", "alice", Timestamp::MAX);
    alice.groups.insert("ops".to_owned());
    let list = StaticAuthenticator::new().unwrap().with("alice", alice);
    verify(&list, &Presented::Token("alice".into()), &SystemClock).await.unwrap()
}
