//! The adapter against its real server, over sockets: it denies, holds, masks and records like every other.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/story.rs"]
mod story;

use std::net::SocketAddr;
use std::sync::Arc;

use custom_adapter::{KvGateway, KvServer, SCHEMA};
use gateway_core::approval::{
    ApprovalEvent, ApprovalEvents, Approver, MemoryApprover, RequestId, RequestState, Verdict,
};
use gateway_core::clock::{Clock, SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials};
use gateway_core::error::DenialCode;
use gateway_core::identity::{
    Phase, Presented, Principal, PrincipalKind, StaticAuthenticator, VerifiedPrincipal,
};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::MemoryRecorder;
use story::Story;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A card number of a range for testing; it passes the Luhn check.
const CARD: &str = "4111111111111111";

struct Stage {
    store: KvServer,
    secret: String,
    pipeline: Pipeline,
    approver: Arc<MemoryApprover>,
    recorder: MemoryRecorder,
    gateway: SocketAddr,
}

fn principal(kind: PrincipalKind, subject: &str, phase: Phase, group: &str) -> Principal {
    let mut principal = Principal::new(kind, "https://idp.test", subject, Timestamp::MAX);
    principal.phase = phase;
    principal.groups.insert(group.to_owned());
    principal
}

impl Stage {
    async fn set() -> Self {
        let agent = |subject, phase| principal(PrincipalKind::Agent, subject, phase, "agents");
        let authenticator = StaticAuthenticator::new()
            .unwrap()
            .with("planner-token", agent("planner", Phase::Plan))
            .with("executor-token", agent("executor", Phase::Execute))
            .with("ada-token", principal(PrincipalKind::Human, "ada", Phase::Other, "operators"));
        let policy = PolicyFile::new("policy.cedar", include_str!("../policy.cedar"));
        let engine =
            CedarEngine::builder().schema_fragment("keyvalue", SCHEMA).policy(policy).build().unwrap();
        let (store, address, account) = KvServer::start().await.unwrap();
        let secret = account.secrets().next().unwrap().expose().clone();
        let approver = Arc::new(MemoryApprover::new(Arc::new(SystemClock)));
        let recorder = MemoryRecorder::default();
        let pipeline = Pipeline::builder(
            Arc::new(authenticator),
            Arc::new(engine),
            Arc::clone(&approver) as _,
            Arc::new(recorder.clone()),
            Arc::new(StaticCredentials::default().with("store", account)),
        )
        .build()
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = listener.local_addr().unwrap();
        tokio::spawn(
            KvGateway { pipeline: pipeline.clone(), target: "store", upstream: address }.serve(listener),
        );
        Self { store, secret, pipeline, approver, recorder, gateway }
    }

    async fn reviewer(&self) -> VerifiedPrincipal {
        self.pipeline.authenticate(&Presented::Token(Secret::from("ada-token"))).await.unwrap()
    }

    async fn review(&self, request: RequestId, verdict: Verdict) {
        let ada = self.reviewer().await;
        self.approver.review(request, &ada, verdict, None, SystemClock.now()).await.unwrap();
    }

    /// What reached the store.
    fn arrived(&self) -> Vec<String> {
        self.store.journal().iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn log_in(stage: &Stage, token: &str) -> Self {
        let mut client = Self(BufReader::new(TcpStream::connect(stage.gateway).await.unwrap()));
        assert_eq!(client.ask(&format!("AUTH {token}")).await, "OK");
        client
    }

    async fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        self.hear().await
    }

    /// Leaves, and waits until the gateway has sealed the recording: it closes the connection after that.
    async fn leave(mut self) {
        self.0.get_mut().shutdown().await.unwrap();
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}

#[tokio::test]
async fn denies_what_the_policy_does_not_permit_and_goes_on() {
    let stage = Stage::set().await;
    let mut planner = Client::log_in(&stage, "planner-token").await;
    let denied = planner.ask("SET colour blue").await;
    assert!(denied.starts_with("DENIED forbidden no rule permits"), "{denied}");
    let denied = planner.ask("FLUSH").await;
    assert!(denied.starts_with("DENIED not_understood"), "{denied}");
    assert_eq!(planner.ask("GET colour").await, "NONE");
    planner.leave().await;
    assert_eq!(stage.arrived(), ["GET colour"]);

    let [story] = &Story::all(&stage.recorder, "planner")[..] else { panic!("one session") };
    assert_eq!(story.denied, [DenialCode::Forbidden, DenialCode::NotUnderstood]);
    assert_eq!(story.completed, ["NONE"]);
    assert_eq!(story.statements, ["", "SET colour (4 bytes)", "FLUSH", "GET colour"]);
}

#[tokio::test]
async fn policies_read_the_facts_of_the_protocol() {
    let stage = Stage::set().await;
    let mut executor = Client::log_in(&stage, "executor-token").await;
    let denied = executor.ask(&format!("SET essay {}", "x".repeat(1001))).await;
    assert!(denied.contains("do not belong in this store"), "{denied}");
    assert!(denied.contains("short-values") && denied.contains("store a reference"), "{denied}");
    assert_eq!(executor.ask(&format!("SET essay {}", "x".repeat(1000))).await, "OK");
    executor.leave().await;
    assert_eq!(stage.arrived().len(), 1);
}

#[tokio::test]
async fn holds_until_a_person_decides_and_runs_once() {
    let stage = Stage::set().await;
    let mut executor = Client::log_in(&stage, "executor-token").await;
    assert_eq!(executor.ask("SET colour blue").await, "OK");

    let request = held(&executor.ask("DEL colour").await);
    assert_eq!(stage.arrived(), ["SET colour blue"]);
    stage.review(request, Verdict::Approve).await;
    assert_eq!(executor.hear().await, "OK");
    assert_eq!(stage.arrived(), ["SET colour blue", "DEL colour"]);

    let again = held(&executor.ask("DEL colour").await);
    assert_ne!(again, request);
    stage.review(again, Verdict::Reject).await;
    let denied = executor.hear().await;
    assert!(denied.starts_with("DENIED approval_rejected"), "{denied}");
    assert_eq!(executor.ask("GET colour").await, "NONE");
    executor.leave().await;
    assert_eq!(stage.arrived(), ["SET colour blue", "DEL colour", "GET colour"]);

    let [story] = &Story::all(&stage.recorder, "executor")[..] else { panic!("one session") };
    assert_eq!((story.held, story.approved), (2, 1));
    assert_eq!(story.denied, [DenialCode::ApprovalRejected]);
}

#[tokio::test]
async fn a_hold_ends_with_its_client() {
    let stage = Stage::set().await;
    let mut executor = Client::log_in(&stage, "executor-token").await;
    let mut events = stage.approver.subscribe();
    let request = held(&executor.ask("DEL colour").await);
    drop(executor);
    assert_eq!(ends(&mut events, request).await, RequestState::Revoked);
    let ada = stage.reviewer().await;
    let late = stage.approver.review(request, &ada, Verdict::Approve, None, SystemClock.now()).await;
    assert!(late.is_err());
    assert_eq!(stage.arrived(), [""; 0]);
}

#[tokio::test]
async fn masks_what_is_released_and_recorded() {
    let stage = Stage::set().await;
    let mut executor = Client::log_in(&stage, "executor-token").await;
    assert_eq!(executor.ask(&format!("SET note paid with {CARD}, thanks")).await, "OK");
    let masked = executor.ask("GET note").await;
    assert!(masked.starts_with("VALUE paid with ") && masked.ends_with(", thanks"), "{masked}");
    assert!(!masked.contains(CARD), "{masked}");
    assert_eq!(executor.ask("KEYS").await, "KEY note");
    assert_eq!(executor.hear().await, "END");
    executor.leave().await;
    assert!(
        stage.arrived().contains(&format!("SET note paid with {CARD}, thanks")),
        "the store got the real value"
    );

    let [story] = &Story::all(&stage.recorder, "executor")[..] else { panic!("one session") };
    assert_eq!(story.masked, 1);
    assert_eq!(story.completed, ["OK", "VALUE", "END"]);
    let recorded = format!("{:?}", stage.recorder.sessions());
    assert!(recorded.contains("paid with"), "released values are recorded: {recorded}");
    for secret in [CARD, "executor-token", &stage.secret] {
        assert!(!recorded.contains(secret), "{secret} is in the recording");
    }
}

#[tokio::test]
async fn nobody_comes_in_without_an_identity() {
    let stage = Stage::set().await;
    for line in ["AUTH guess", "GET colour", ""] {
        let mut stranger = Client(BufReader::new(TcpStream::connect(stage.gateway).await.unwrap()));
        let denied = stranger.ask(line).await;
        assert!(denied.starts_with("DENIED unauthenticated"), "{line}: {denied}");
        assert_eq!(stranger.hear().await, "", "the connection is closed");
    }
    let mut person = Client(BufReader::new(TcpStream::connect(stage.gateway).await.unwrap()));
    assert!(person.ask("AUTH ada-token").await.starts_with("DENIED forbidden"));
    assert_eq!(stage.arrived(), [""; 0]);
}

fn held(line: &str) -> RequestId {
    let request = line.strip_prefix("HELD held for approval by operators; request ").unwrap();
    let (request, rest) = request.split_once("; ").unwrap();
    assert!(rest.starts_with("waiting until "), "{line}");
    request.parse().unwrap()
}

/// Waits until the request is over.
async fn ends(events: &mut ApprovalEvents, id: RequestId) -> RequestState {
    while let Some(event) = events.next().await {
        match event {
            ApprovalEvent::Changed(request) if request.id == id && !request.state.is_open() => {
                return request.state;
            }
            _ => {}
        }
    }
    panic!("the approver is gone");
}
