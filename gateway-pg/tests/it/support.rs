//! A gateway in front of a real server, for one test.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gateway_core::approval::{ApprovalEvent, ApprovalEvents, Approver, MemoryApprover, RequestId, Verdict};
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::{
    Presented, Principal, PrincipalKind, StaticAuthenticator, VerifiedPrincipal, verify,
};
use gateway_core::masking::{DataClass, FieldRule};
use gateway_core::operation::Resource;
use gateway_core::pipeline::{Label, Pipeline};
use gateway_core::policy::{Allowed, ApprovalRule, Decision, FnPolicy, PolicyEngine, PolicyInput};
use gateway_core::recording::MemoryRecorder;
use gateway_pg::{Address, PgGateway, SslMode, Target};
use testkit::Postgres;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The one server of all tests in this binary.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Postgres::start().unwrap();
        server.load_shop().unwrap();
        server
    })
}

pub const TOKEN: &str = "test-token-of-the-agent";

/// A running gateway; stops when dropped.
pub struct Gateway {
    pub address: SocketAddr,
    pub recorder: MemoryRecorder,
    pub approver: Arc<MemoryApprover>,
    pub database: String,
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

/// Everything is allowed, nothing is revealed.
pub fn allow_all() -> impl PolicyEngine + 'static {
    FnPolicy(|_: &gateway_core::policy::PolicyInput<'_>| Decision::Allow(Allowed::default()))
}

/// Reading is allowed, `drop` forbidden, deletes are held for `dba`, everything else is allowed.
pub fn guarded() -> impl PolicyEngine + 'static {
    FnPolicy(|input: &PolicyInput<'_>| {
        let does = |action: &str| input.operation.accesses.iter().any(|a| a.action.as_str() == action);
        if does("drop") {
            let denial = Denial::new(DenialCode::Forbidden, "dropping is forbidden").with_hint("ask a dba");
            return Decision::Deny(denial.with_rules(["no-drop".to_owned()]));
        }
        if does("delete") && !input.approvals.contains("dba") {
            return Decision::Hold(vec![ApprovalRule {
                name: "dba".to_owned(),
                reviewers: "dba".to_owned(),
                quorum: 1,
                ttl: Duration::from_secs(60),
                rules: vec!["hold-deletes".to_owned()],
            }]);
        }
        Decision::Allow(Allowed::default())
    })
}

/// A person who may approve.
pub async fn reviewer() -> VerifiedPrincipal {
    let mut alice = Principal::new(PrincipalKind::Human, "https://idp.test", "alice", Timestamp::MAX);
    alice.groups.insert("dba".to_owned());
    let list = StaticAuthenticator::new().unwrap().with("alice", alice);
    verify(&list, &Presented::Token("alice".into()), &SystemClock).await.unwrap()
}

pub fn agent() -> Principal {
    let mut agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent-7", Timestamp::MAX);
    agent.task = Some("task-1".to_owned());
    agent
}

/// Labels for columns of `schema.table.column` in the database a gateway is put in front of.
pub fn label(database: &str, column: &str, class: &DataClass) -> Label {
    let mut resource = Resource::target("shop").child("Database", database);
    for (kind, name) in ["Schema", "Table", "Column"].into_iter().zip(column.split('.')) {
        resource = resource.child(kind, name);
    }
    Label { resource, rule: FieldRule::new(class.clone()) }
}

/// A fresh copy of the shop.
pub fn shop() -> String {
    let database = server().copy_database("shop").unwrap();
    server().psql(&database, "GRANT CREATE ON SCHEMA public TO app").unwrap();
    database
}

/// A gateway in front of a fresh copy of the shop.
pub fn gateway(policy: impl PolicyEngine + 'static, labels: &[Label]) -> Gateway {
    gateway_to(&shop(), policy, labels)
}

pub fn gateway_to(database: &str, policy: impl PolicyEngine + 'static, labels: &[Label]) -> Gateway {
    let server = server();
    let target = Target::new("shop", Address::Tcp("127.0.0.1".to_owned(), server.port()), SslMode::Disable)
        .database(database)
        .labels(labels);
    let credential = UpstreamCredential::Password {
        username: "app".to_owned(),
        password: Secret::new(server.password("app").to_owned()),
    };
    start(target, credential, agent(), policy, |gateway| gateway)
}

/// Starts a gateway to any target for one agent, set up as the test wants it.
pub fn start(
    target: Target,
    credential: UpstreamCredential,
    agent: Principal,
    policy: impl PolicyEngine + 'static,
    set_up: impl FnOnce(PgGateway) -> PgGateway,
) -> Gateway {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let credentials = StaticCredentials::default().with("shop", credential);
    let authenticator = StaticAuthenticator::new().unwrap().with(TOKEN, agent);
    let recorder = MemoryRecorder::default();
    let approver = Arc::new(MemoryApprover::new(Arc::new(SystemClock)));
    let pipeline = Pipeline::builder(
        Arc::new(authenticator),
        Arc::new(policy),
        Arc::clone(&approver) as _,
        Arc::new(recorder.clone()),
        Arc::new(credentials),
    )
    .build()
    .unwrap();
    let database = target.database.clone().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    runtime.spawn(set_up(PgGateway::new(pipeline, target)).serve(listener, async move {
        let _ = stopped.await;
    }));
    Gateway { address, recorder, approver, database, runtime: Some(runtime), stop: Some(stop) }
}

impl Gateway {
    /// Runs a future on the gateway's runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    /// What the shop's superuser sees.
    pub fn directly(&self, sql: &str) -> String {
        server().psql(&self.database, sql).unwrap()
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

    /// A libpq connection string.
    pub fn url(&self) -> String {
        format!("postgres://agent:{TOKEN}@{}/{}", self.address, self.database)
    }
}
