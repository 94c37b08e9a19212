//! A gateway in front of a real server, for one test.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::identity::{Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::pipeline::{Label, Pipeline};
use gateway_core::policy::{Allowed, Decision, FnPolicy, PolicyEngine};
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

pub fn agent() -> Principal {
    let mut agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent-7", Timestamp::MAX);
    agent.task = Some("task-1".to_owned());
    agent
}

/// A gateway in front of a fresh copy of the shop.
pub fn gateway(policy: impl PolicyEngine + 'static, labels: &[Label]) -> Gateway {
    let server = server();
    let database = server.copy_database("shop").unwrap();
    gateway_to(&database, policy, labels)
}

pub fn gateway_to(database: &str, policy: impl PolicyEngine + 'static, labels: &[Label]) -> Gateway {
    let server = server();
    let credentials = StaticCredentials::default().with(
        "shop",
        UpstreamCredential::Password {
            username: "app".to_owned(),
            password: Secret::new(server.password("app").to_owned()),
        },
    );
    let authenticator = StaticAuthenticator::new().unwrap().with(TOKEN, agent());
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
    let target = Target {
        name: "shop".to_owned(),
        address: Address::Tcp("127.0.0.1".to_owned(), server.port()),
        ssl_mode: SslMode::Disable,
        ca_pem: None,
        database: Some(database.to_owned()),
        labels: labels.into(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    runtime.spawn(PgGateway::new(pipeline, target).serve(listener, async move {
        let _ = stopped.await;
    }));
    Gateway {
        address,
        recorder,
        approver,
        database: database.to_owned(),
        runtime: Some(runtime),
        stop: Some(stop),
    }
}

impl Gateway {
    /// A libpq connection string.
    pub fn url(&self) -> String {
        format!("postgres://agent:{TOKEN}@{}/{}", self.address, self.database)
    }
}
