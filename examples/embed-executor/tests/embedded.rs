//! The agent's loop in this very process, against a real server: denied, held, approved, run once, and nothing listens.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../custom-adapter/tests/support/story.rs"]
mod story;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::sync::Arc;

use embed_executor::{Embedded, Guarded, Model, Step, Tokens, connect, next_request, run};
use gateway_core::approval::{Approver, Verdict};
use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_core::error::DenialCode;
use gateway_pg::{Address, SslMode, Target};
use story::Story;
use testkit::Postgres;
use tokio::sync::Mutex;

const TOKENS: Tokens<'_> =
    Tokens { planner: "planner-token", executor: "executor-token", reviewer: "ada-token" };

const STATUS: &str = "SELECT status FROM orders WHERE id = 2";
const CANCEL: &str = "UPDATE orders SET status = 'cancelled' WHERE id = 2";

/// Held by every test: the others open listeners of their own, if only to find a free port.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A model with a script that keeps what it is shown.
#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    seen: Vec<String>,
}

impl Model for Script {
    fn next(&mut self, observation: &str) -> Option<Step> {
        self.seen.push(observation.to_owned());
        self.steps.pop_front()
    }
}

fn shop() -> Postgres {
    let server = Postgres::builder().log_statements().start().unwrap();
    server.load_shop().unwrap();
    server
}

fn embedded(server: &Postgres) -> Arc<Embedded> {
    let target = Target::new("shop", Address::Tcp("127.0.0.1".to_owned(), server.port()), SslMode::Disable)
        .database("shop");
    let password = Secret::from(server.password("app"));
    let credential = UpstreamCredential::Password { username: "app".to_owned(), password };
    Arc::new(Embedded::new(target, credential, TOKENS).unwrap())
}

/// Ends the session and waits until its recording is sealed.
async fn leave(guarded: Guarded) {
    drop(guarded.client);
    guarded.session.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_freely_acts_once_and_opens_no_listener() {
    let _alone = ALONE.lock().await;
    let server = shop();
    let before = listening();
    let embedded = embedded(&server);
    let planner = connect(&embedded.gateway, "shop", TOKENS.planner).await.unwrap();
    let executor = connect(&embedded.gateway, "shop", TOKENS.executor).await.unwrap();

    let mut events = embedded.approver.subscribe();
    let asked = Arc::clone(&embedded);
    let person = tokio::spawn(async move {
        let request = next_request(&mut events).await.unwrap();
        assert_eq!(asked.exact(request, TOKENS.reviewer).await.unwrap(), CANCEL);
        let refused = asked.review(request, TOKENS.executor, Verdict::Approve).await;
        assert!(refused.is_err(), "an agent may not approve");
        let held = server.psql("shop", STATUS).unwrap();
        asked.review(request, TOKENS.reviewer, Verdict::Approve).await.unwrap();
        (server, held)
    });
    let steps = [
        Step::Look(STATUS.into()),
        Step::Look(CANCEL.into()),
        Step::Act(CANCEL.into()),
        Step::Look(STATUS.into()),
    ];
    let mut script = Script { steps: steps.into(), seen: Vec::new() };
    run(&mut script, &planner.client, &executor.client).await.unwrap();
    let (server, held) = person.await.unwrap();

    let [_, open, denied, done, cancelled] = &script.seen[..] else { panic!("{:?}", script.seen) };
    assert_eq!((open.as_str(), held.as_str()), ("open\n(1 rows)\n", "open"));
    assert!(denied.starts_with("42501: gateway: no rule permits `update`"), "{denied}");
    assert_eq!((done.as_str(), cancelled.as_str()), ("(1 rows)\n", "cancelled\n(1 rows)\n"));
    assert_eq!(listening(), before, "a listener was opened");

    leave(planner).await;
    leave(executor).await;
    let log = server.log_of_everything_so_far().unwrap();
    // The gateway asked the planner for an estimate, too; that runs nothing.
    let runs = |line: &&str| line.contains("SET status = 'cancelled'") && !line.contains("EXPLAIN");
    assert_eq!(log.lines().filter(runs).count(), 1, "it ran once, and the denied one never");
    let [plan] = &Story::all(&embedded.recorder, "planner")[..] else { panic!("one planner") };
    assert_eq!((&plan.denied[..], plan.held), (&[DenialCode::Forbidden][..], 0));
    let [act] = &Story::all(&embedded.recorder, "executor")[..] else { panic!("one executor") };
    assert_eq!((act.held, act.approved, act.denied.len()), (1, 1, 0));
    assert_eq!(act.completed, ["UPDATE 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_is_an_observation_and_the_agent_goes_on() {
    let _alone = ALONE.lock().await;
    let server = shop();
    let embedded = embedded(&server);
    let planner = connect(&embedded.gateway, "shop", TOKENS.planner).await.unwrap();
    let executor = connect(&embedded.gateway, "shop", TOKENS.executor).await.unwrap();
    let mut events = embedded.approver.subscribe();
    let asked = Arc::clone(&embedded);
    let person = tokio::spawn(async move {
        let request = next_request(&mut events).await.unwrap();
        asked.review(request, TOKENS.reviewer, Verdict::Reject).await.unwrap();
    });
    let email = "SELECT email FROM customers WHERE id = 1";
    let mut script =
        Script { steps: [Step::Act(CANCEL.into()), Step::Look(email.into())].into(), seen: Vec::new() };
    run(&mut script, &planner.client, &executor.client).await.unwrap();
    person.await.unwrap();
    assert!(script.seen[1].contains("a reviewer rejected this operation"), "{:?}", script.seen);
    assert_eq!(script.seen[2], "[REDACTED:EMAIL]\n(1 rows)\n");
    assert_eq!(server.psql("shop", STATUS).unwrap(), "open");
}

#[tokio::test]
async fn a_wrong_token_gets_no_connection() {
    let _alone = ALONE.lock().await;
    let server = shop();
    let embedded = embedded(&server);
    let refused = connect(&embedded.gateway, "shop", "guess").await.unwrap_err();
    let said = refused.as_db_error().unwrap();
    assert_eq!((said.code().code(), said.severity()), ("28000", "FATAL"));
    let person = connect(&embedded.gateway, "shop", TOKENS.reviewer).await.unwrap_err();
    assert_eq!(person.as_db_error().unwrap().code().code(), "42501");
}

#[test]
fn a_listener_would_be_noticed() {
    let _alone = ALONE.blocking_lock();
    let before = listening();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = std::env::temp_dir().join(format!("embed-executor-{}", std::process::id()));
    let unix = std::os::unix::net::UnixListener::bind(&folder).unwrap();
    assert_eq!(listening().difference(&before).count(), 2);
    drop((tcp, unix));
    fs::remove_file(folder).unwrap();
}

/// The inodes of all sockets on which this process listens.
fn listening() -> BTreeSet<u64> {
    let own: BTreeSet<u64> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect();
    // proc_pid_net(5): state 0A is LISTEN; flag 0x10000 of a Unix socket is SO_ACCEPTCON.
    let tcp = |fields: &[&str]| (fields[3] == "0A").then(|| fields[9].parse().unwrap());
    let unix = |fields: &[&str]| (fields[3] == "00010000").then(|| fields[6].parse().unwrap());
    let all = [table("tcp", tcp), table("tcp6", tcp), table("unix", unix)].concat();
    all.into_iter().filter(|inode| own.contains(inode)).collect()
}

fn table(name: &str, inode: impl Fn(&[&str]) -> Option<u64>) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    text.lines().skip(1).filter_map(|line| inode(&line.split_whitespace().collect::<Vec<_>>())).collect()
}
