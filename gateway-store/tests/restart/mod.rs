//! Restarts, crashes, several stores on one file, and what is left on the disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::{ApprovalError, Approver, Delivery, RequestId, RequestState, Verdict};
use gateway_core::clock::ManualClock;
use gateway_core::policy::ApprovalRule;
use gateway_store::Store;
use tokio::task::JoinSet;

use super::approval_suite::{EXACT, PATIENCE, START, dba, dba_rule, digest, request, rule};
use super::open;

/// Set for the process that [`a_gateway_that_holds`] plays the gateway in.
const CHILD: &str = "GATEWAY_STORE_TEST_DIRECTORY";

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

async fn submit(store: &Store, delivery: Delivery) -> RequestId {
    submit_of(store, delivery, "A").await
}

async fn submit_of(store: &Store, delivery: Delivery, text: &str) -> RequestId {
    let mut request = request(delivery, dba_rule());
    request.digest = digest(text);
    store.approver().submit(request).await.unwrap()
}

async fn approve(store: &Store, id: RequestId) {
    let (approver, ada) = (store.approver(), dba("ada").await);
    let reviewed = approver.review(id, &ada, Verdict::Approve, None, START).await.unwrap();
    assert_eq!(reviewed.state, RequestState::Approved);
}

async fn redeem(store: &Store) -> Option<RequestId> {
    store.approver().redeem(&digest("A"), &dba_rule(), START).await.unwrap()
}

async fn state(store: &Store, id: RequestId) -> RequestState {
    store.approver().show(id, &dba("watcher").await).await.unwrap().state
}

#[tokio::test]
async fn grants_survive_a_restart_and_holds_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let first = open(directory.path(), &clock).await;
    let (hold, suspend) = (submit(&first, Delivery::Hold).await, submit(&first, Delivery::Suspend).await);
    let pending = submit_of(&first, Delivery::Retry, "B").await;
    approve(&first, hold).await;
    approve(&first, suspend).await;
    let key = first.digest_key().bytes(b"text");
    first.close().await;

    let second = open(directory.path(), &clock).await;
    assert_eq!(second.digest_key().bytes(b"text"), key);
    assert_eq!(second.mask_key_bytes().expose(), first.mask_key_bytes().expose());
    assert_eq!(state(&second, hold).await, RequestState::Revoked);
    let shown = second.approver().show(pending, &dba("ada").await).await.unwrap();
    assert_eq!(shown.operations[0].exact, EXACT, "a reviewer still sees what they approve");
    assert_eq!(redeem(&second).await, Some(suspend));
    approve(&second, pending).await;
    let other = || async { second.approver().redeem(&digest("B"), &dba_rule(), START).await.unwrap() };
    assert_eq!(other().await, Some(pending));
    assert_eq!((other().await, redeem(&second).await), (None, None));
    second.close().await;

    clock.advance(Duration::from_secs(1));
    let third = open(directory.path(), &clock).await;
    assert_eq!(redeem(&third).await, None, "what was used stays used");
}

#[tokio::test]
async fn grants_expire_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let first = open(directory.path(), &clock).await;
    let id = submit(&first, Delivery::Retry).await;
    approve(&first, id).await;
    first.close().await;
    clock.advance(Duration::from_secs(600));
    let second = open(directory.path(), &clock).await;
    assert_eq!(redeem(&second).await, None);
    assert_eq!(state(&second, id).await, RequestState::Expired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_stores_redeem_once() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let stores = [open(directory.path(), &clock).await, open(directory.path(), &clock).await];
    let id = submit(&stores[0], Delivery::Retry).await;
    approve(&stores[1], id).await;
    let mut racers = JoinSet::new();
    for n in 0..32 {
        let store = stores[n % 2].clone();
        racers.spawn(async move { redeem(&store).await });
    }
    let winners: Vec<RequestId> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners, [id]);
    assert_eq!(state(&stores[0], id).await, RequestState::Used);
}

#[tokio::test]
async fn another_gateways_hold_is_not_redeemed() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let (ours, theirs) = (open(directory.path(), &clock).await, open(directory.path(), &clock).await);
    let id = submit(&theirs, Delivery::Hold).await;
    approve(&ours, id).await;
    assert_eq!(redeem(&ours).await, None);
    assert!(!ours.approver().redeem_request(id, &digest("A"), &dba_rule(), START).await.unwrap());
    assert_eq!(redeem(&theirs).await, Some(id), "its own gateway is alive and may");
}

#[tokio::test]
async fn a_decision_in_another_store_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let (ours, theirs) = (open(directory.path(), &clock).await, open(directory.path(), &clock).await);
    let id = submit(&ours, Delivery::Hold).await;
    let waiting = tokio::spawn(async move { ours.approver().decided(id).await.unwrap() });
    approve(&theirs, id).await;
    assert_eq!(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap(), RequestState::Approved);
}

/// Not a test by itself: the process that the next test kills. It holds an operation, offers a retry, and never ends.
#[tokio::test]
async fn a_gateway_that_holds() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&directory), &clock()).await;
    let (hold, retry) = (submit(&store, Delivery::Hold).await, submit(&store, Delivery::Retry).await);
    println!("\nheld {hold} {retry}");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_hold_of_a_killed_gateway_never_runs() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restart::a_gateway_that_holds", "--nocapture"])
        .env(CHILD, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let held = lines.map(Result::unwrap).find(|line| line.starts_with("held ")).unwrap();
    let ids: Vec<RequestId> = held.split(' ').skip(1).map(|id| id.parse().unwrap()).collect();
    let [hold, retry] = ids[..] else { panic!("{held}") };

    let clock = clock();
    let witness = open(directory.path(), &clock).await;
    assert_eq!(state(&witness, hold).await, RequestState::Pending, "its gateway is alive");
    approve(&witness, hold).await;
    assert_eq!(redeem(&witness).await, None);
    child.kill().unwrap();
    child.wait().unwrap();

    let next = open(directory.path(), &clock).await;
    assert_eq!(state(&next, hold).await, RequestState::Revoked);
    assert_eq!(redeem(&next).await, None);
    approve(&next, retry).await;
    assert_eq!(redeem(&next).await, Some(retry), "a retry outlives the gateway it was asked of");
    assert_eq!(redeem(&witness).await, None);
}

#[tokio::test]
async fn exact_texts_are_never_in_plain_and_go_with_their_request() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("gateway.db");
    let clock = clock();
    let first = open(directory.path(), &clock).await;
    let kept = submit_of(&first, Delivery::Retry, "B").await;
    let used = submit(&first, Delivery::Suspend).await;
    approve(&first, used).await;
    let (sealed_used, sealed_kept) = (sealed(&database, used), sealed(&database, kept));
    let before = bytes_on_disk(directory.path());
    assert!(!contains(&before, b"4111111111111111"));
    assert!(contains(&before, b"delete from orders where card = '***'"), "the masked text is there");
    assert!(contains(&before, &sealed_used) && contains(&before, &sealed_kept));

    assert_eq!(redeem(&first).await, Some(used));
    let while_open = bytes_on_disk(directory.path());
    assert!(!contains(&while_open, &sealed_used), "erased, encrypted as it was, from the log too");
    assert!(contains(&while_open, &sealed_kept));
    first.approver().revoke(kept).await.unwrap();
    first.close().await;
    let after = bytes_on_disk(directory.path());
    assert!(!contains(&after, &sealed_kept) && !contains(&after, b"4111111111111111"));
}

#[tokio::test]
async fn a_closed_store_grants_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &clock()).await;
    let id = submit(&store, Delivery::Retry).await;
    approve(&store, id).await;
    store.close().await;
    let approver = store.approver();
    approver.abandon(id);
    let failed = approver.redeem(&digest("A"), &dba_rule(), START).await;
    assert!(matches!(failed, Err(ApprovalError::Store(_))), "{failed:?}");
    let rules: Vec<ApprovalRule> = vec![rule("risky", "dba", 1)];
    assert!(approver.submit(request(Delivery::Retry, rules)).await.is_err());
    assert!(approver.decided(id).await.is_err());
}

#[tokio::test]
async fn an_abandoned_hold_is_revoked_even_if_nothing_follows() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let store = open(directory.path(), &clock).await;
    let id = submit(&store, Delivery::Hold).await;
    let approver = store.approver();
    let waiting = tokio::spawn(async move { approver.decided(id).await.unwrap() });
    store.approver().abandon(id);
    assert_eq!(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap(), RequestState::Revoked);
    let other = open(directory.path(), &clock).await;
    assert_eq!(state(&other, id).await, RequestState::Revoked);
}

fn sealed(database: &Path, id: RequestId) -> Vec<u8> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let query = "SELECT sealed FROM exact_texts WHERE request = ?1";
    connection.query_row(query, [id.to_string()], |row| row.get(0)).unwrap()
}

/// All files of the store, one after the other. Read by another process: closing the database's file in this one would
/// drop SQLite's locks on it.
fn bytes_on_disk(directory: &Path) -> Vec<u8> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = paths.filter(|path| path.is_file()).collect();
    let output = Command::new("cat").args(&files).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
