//! The one server of the suite, fresh databases on it, and gateways in front of them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gateway_core::approval::{Approver, MemoryApprover};
use gateway_core::clock::{Clock, SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::{Actor, Authenticator, Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::masking::{DataClass, FieldRule, RuleSet, Scanner};
use gateway_core::operation::{Access, Resource};
use gateway_core::pipeline::{Label, Pipeline};
use gateway_core::policy::{
    Allowed, ApprovalRule, Decision, FnPolicy, Obligation, PolicyEngine, PolicyInput,
};
use gateway_core::recording::{MemoryRecorder, Recorder};
use gateway_pg::{Address, PgGateway, SslMode, Target};
use testkit::{Ca, Postgres};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

pub const TOKEN: &str = "test-token-of-the-agent";

/// The database every trial's own is a copy of.
const TEMPLATE: &str = "arena";

/// The one server: the shop, the vault, and roles that need no password, so that attacks run directly too.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Postgres::builder()
            .hba_line("host all all 127.0.0.1/32 trust")
            .hba_line("host replication all 127.0.0.1/32 trust")
            .setting("max_connections", "200")
            .setting("wal_level", "logical")
            .setting("max_prepared_transactions", "16")
            .start()
            .unwrap();
        server.load_shop().unwrap();
        server.psql("postgres", &format!("CREATE DATABASE {TEMPLATE} TEMPLATE shop")).unwrap();
        server.psql(TEMPLATE, include_str!("arena.sql")).unwrap();
        server
    })
}

pub fn start() {
    server();
    ca();
}

/// Runs the gateways and the attackers.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

pub fn ca() -> &'static Ca {
    static CA: OnceLock<Ca> = OnceLock::new();
    CA.get_or_init(|| Ca::new().unwrap())
}

/// A fresh database; `setup` is run in it as superuser.
pub fn database(setup: &str) -> String {
    let name = server().copy_database(TEMPLATE).unwrap();
    MADE.with_borrow_mut(|made| made.push(name.clone()));
    if !setup.is_empty() {
        server().psql(&name, setup).unwrap();
    }
    name
}

thread_local! {
    /// The databases that this thread made and that are still there.
    static MADE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Drops the databases that this thread made: hundreds of copies would fill the memory they lie in.
pub fn clear() {
    let drop = |name: &String| format!("DROP DATABASE IF EXISTS {name} WITH (FORCE);\n");
    let made = MADE.take();
    // One that cannot be dropped does no more harm than that.
    let _ = server().psql("postgres", &made.iter().map(drop).collect::<String>());
}

/// What is asked as superuser.
pub fn ask(database: &str, sql: &str) -> Result<String, String> {
    server().psql(database, sql).map_err(|e| e.to_string())
}

/// How a gateway is to be; the defaults are those of most trials.
pub struct Setup {
    pub database: String,
    /// The role the gateway logs in as.
    pub role: String,
    pub tls: bool,
    /// Whether nobody comes in without TLS.
    pub tls_required: bool,
    /// Another port than the server's, and how it is spoken to.
    pub address: Option<(u16, SslMode)>,
    pub authenticator: Arc<dyn Authenticator>,
    pub policy: Arc<dyn PolicyEngine>,
    pub approver: Arc<dyn Approver>,
    pub recorder: Arc<dyn Recorder>,
    pub clock: Arc<dyn Clock>,
    /// Whether content is masked too; building the rules takes a while.
    pub content: bool,
}

impl Setup {
    pub fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            role: "app".to_owned(),
            tls: false,
            tls_required: false,
            address: None,
            authenticator: Arc::new(StaticAuthenticator::new().unwrap().with(TOKEN, agent())),
            policy: Arc::new(policy(1)),
            approver: Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
            recorder: Arc::new(MemoryRecorder::default()),
            clock: Arc::new(SystemClock),
            content: false,
        }
    }

    /// A running gateway.
    pub fn start(self) -> Gateway {
        let rules = if self.content { RuleSet::builtin() } else { RuleSet::empty() };
        let scanner = Scanner::new(rules).unwrap();
        let password = Secret::new(
            server().password(if self.role == "postgres" { "postgres" } else { "app" }).to_owned(),
        );
        let credential = UpstreamCredential::Password { username: self.role, password };
        let credentials = StaticCredentials::default().with("shop", credential);
        let pipeline = Pipeline::builder(
            self.authenticator,
            self.policy,
            self.approver,
            self.recorder,
            Arc::new(credentials),
        );
        let (port, ssl_mode) = self.address.unwrap_or((server().port(), SslMode::Disable));
        let target = Target::new("shop", Address::Tcp("127.0.0.1".to_owned(), port), ssl_mode)
            .labels(labels(&self.database))
            .database(self.database);
        let mut gateway =
            PgGateway::new(pipeline.clock(self.clock).scanner(scanner).build().unwrap(), target);
        if self.tls {
            let certificate = ca().server().unwrap();
            let config = gateway_pg::tls::server_config(&certificate.pem, &certificate.key_pem, None);
            gateway = gateway.tls(config.unwrap());
        }
        if self.tls_required {
            gateway = gateway.require_tls();
        }
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let task = runtime().spawn(async move {
            let _ = gateway.serve(listener, std::future::pending()).await;
        });
        Gateway { address, task }
    }
}

/// A running gateway; stops when dropped.
pub struct Gateway {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The agent, which acts for its boss.
pub fn agent() -> Principal {
    let mut agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent-7", Timestamp::MAX);
    agent.actor_chain.push(Actor { issuer: "https://idp.test".to_owned(), subject: "boss".to_owned() });
    agent
}

/// Social security and card numbers may not be seen.
fn labels(database: &str) -> Vec<Label> {
    let columns = [("customers", "ssn", DataClass::US_SSN), ("cards", "pan", DataClass::PAYMENT_CARD)];
    columns.map(|(table, column, class)| label(database, table, column, class)).into()
}

fn label(database: &str, table: &str, column: &str, class: DataClass) -> Label {
    let schema = Resource::target("shop").child("Database", database).child("Schema", "public");
    Label { resource: schema.child("Table", table).child("Column", column), rule: FieldRule::new(class) }
}

/// As [`policy`], but nothing may depend on hidden values.
pub fn policy_without_inference() -> impl PolicyEngine + 'static {
    policy_with(1, is_ordinary, Vec::new())
}

/// As [`policy`], and every permission comes with these duties: rewrites, or `max_rows_affected:N`.
pub fn policy_with_duties(duties: &[String]) -> impl PolicyEngine + 'static {
    let duty = |text: &String| match text.strip_prefix("max_rows_affected:") {
        Some(rows) => Obligation::LimitAffected(rows.parse().unwrap()),
        None => Obligation::Rewrite(text.clone()),
    };
    policy_with(1, may_infer, duties.iter().map(duty).collect())
}

/// What an ordinary agent may do: read all but the vault, write orders, keep tables of its own, set harmless things. Changes
/// to products need `quorum` people.
pub fn policy(quorum: u32) -> impl PolicyEngine + 'static {
    policy_with(quorum, may_infer, Vec::new())
}

/// The same for who may change every setting, also one that the statement does not tell, and by `pg_settings` too.
pub fn policy_for_settings() -> impl PolicyEngine + 'static {
    let fine = |access: &Access| access.action.as_str() == "set" || is_settings(access) || may_infer(access);
    policy_with(1, fine, Vec::new())
}

fn is_settings(access: &Access) -> bool {
    let action = access.action.as_str();
    ["select", "update"].contains(&action)
        && access.resource.name() == "pg_settings"
        && schema(access) == "pg_catalog"
}

fn may_infer(access: &Access) -> bool {
    is_ordinary(access) || infers(access)
}

fn policy_with(
    quorum: u32,
    fine: fn(&Access) -> bool,
    obligations: Vec<Obligation>,
) -> impl PolicyEngine + 'static {
    FnPolicy(move |input: &PolicyInput<'_>| match decide(quorum, fine, input) {
        Decision::Allow(_) if input.operation.kind != "connect" => Decision::Allow(Allowed {
            obligations: obligations.iter().cloned().collect(),
            ..Allowed::default()
        }),
        other => other,
    })
}

/// Everything is permitted; labels hide all the same.
pub fn allow_all() -> impl PolicyEngine + 'static {
    FnPolicy(|_: &PolicyInput<'_>| Decision::Allow(Allowed::default()))
}

/// The same as [`policy`] with a duty for all that reads rows: they are to be rewritten.
pub fn rewriting(how: String) -> impl PolicyEngine + 'static {
    FnPolicy(move |input: &PolicyInput<'_>| match decide(1, may_infer, input) {
        Decision::Allow(_) if reads_rows(input) => {
            let obligations = [Obligation::Rewrite(how.clone())].into_iter().collect();
            Decision::Allow(Allowed { obligations, ..Allowed::default() })
        }
        other => other,
    })
}

fn reads_rows(input: &PolicyInput<'_>) -> bool {
    input.operation.accesses.iter().any(|a| READ.contains(&a.action.as_str()))
}

fn decide(quorum: u32, fine: fn(&Access) -> bool, input: &PolicyInput<'_>) -> Decision {
    if input.operation.kind == "connect" {
        return Decision::Allow(Allowed::default());
    }
    let accesses = &input.operation.accesses;
    if let Some(access) = accesses.iter().find(|access| !fine(access)) {
        let message = format!("{} on {} is not permitted", access.action, access.resource);
        return Decision::Deny(Denial::new(DenialCode::Forbidden, message).with_hint("ask for less"));
    }
    if accesses.iter().any(is_held) && !input.approvals.contains("dba") {
        return Decision::Hold(vec![rule(quorum)]);
    }
    Decision::Allow(Allowed::default())
}

/// Approval by people of the group `dba`, within a minute.
fn rule(quorum: u32) -> ApprovalRule {
    let ttl = Duration::from_secs(60);
    ApprovalRule { name: "dba".to_owned(), reviewers: "dba".to_owned(), quorum, ttl, rules: Vec::new() }
}

const READ: [&str; 3] = ["select", "copy_out", "lock"];
const WRITE: [&str; 4] = ["insert", "update", "delete", "copy_in"];
const HELD: [&str; 1] = ["products"];
const WRITABLE: [&str; 3] = ["orders", "order_items", "products"];
const SETTINGS: [&str; 8] = [
    "search_path",
    "application_name",
    "statement_timeout",
    "client_min_messages",
    "timezone",
    "datestyle",
    "client_encoding",
    "standard_conforming_strings",
];
const CATALOGS: [&str; 9] = [
    "pg_class",
    "pg_namespace",
    "pg_type",
    "pg_attribute",
    "pg_tables",
    "pg_stats",
    "pg_stats_ext",
    "pg_statistic",
    "pg_stat_activity",
];
/// Where rows may be added and no more.
const APPENDABLE: [&str; 2] = ["journal", "cards"];
/// Where rows may be changed and none deleted.
const UPDATABLE: [&str; 1] = ["cards"];
const FUNCTIONS: [&str; 3] = ["customer_email", "order_total", "set_config"];

fn is_held(access: &Access) -> bool {
    let action = access.action.as_str();
    WRITE.contains(&action) && HELD.contains(&access.resource.name()) && schema(access) == "public"
}

fn schema(access: &Access) -> &str {
    let path = access.resource.path();
    path.iter().find(|(kind, _)| kind == "Schema").map_or("", |(_, name)| name)
}

fn infers(access: &Access) -> bool {
    access.resource.kind() == "Column" && ["filter", "order", "compute"].contains(&access.action.as_str())
}

fn is_ordinary(access: &Access) -> bool {
    let (action, kind, name) = (access.action.as_str(), access.resource.kind(), access.resource.name());
    let here = schema(access);
    match (action, kind) {
        ("connect" | "transaction" | "explain" | "prepare" | "query" | "show", _) => true,
        ("set", "Setting") => SETTINGS.contains(&name) || name.starts_with("app."),
        ("call", "Function") => FUNCTIONS.contains(&name) && matches!(here, "public" | "pg_catalog"),
        (_, "Table") if here == "scratch" || here == "decoy" || here.starts_with("pg_temp") => true,
        (action, "Table") if READ.contains(&action) && here == "public" => name != "vault",
        (action, "Table") if READ.contains(&action) => CATALOGS.contains(&name),
        ("insert", "Table") if here == "public" && APPENDABLE.contains(&name) => true,
        ("update", "Table") if here == "public" => UPDATABLE.contains(&name) || WRITABLE.contains(&name),
        (action, "Table") => WRITE.contains(&action) && here == "public" && WRITABLE.contains(&name),
        _ => false,
    }
}
