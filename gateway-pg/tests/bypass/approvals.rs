//! Class 39: getting past the people who must approve. Changes to `products` are held by the arena's policy.
//!
//! What makes each attack valid is its control: approved as people meant it, the statement runs and changes the products.

use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::{
    ApprovalError, ApprovalEvent, ApprovalEvents, Approver, MemoryApprover, RequestId, Verdict,
};
use gateway_core::clock::{Clock, ManualClock, SystemClock, Timestamp};
use gateway_core::identity::{
    Presented, Principal, PrincipalKind, StaticAuthenticator, VerifiedPrincipal, verify,
};
use gateway_store::Store;
use testkit::raw_pg;
use tokio::task::JoinSet;

use crate::arena::{Gateway, Setup, ask, database, policy, server};
use crate::client::{Client, Door, Message, Step, block};
use testkit::bypass::{Attack, Outcome};

pub fn attacks() -> Vec<Attack> {
    let list: [(&str, Run); 33] = [
        ("approve one statement, run another", another_statement),
        ("approve one statement, run it with other white space and more", same_start),
        ("run an approved statement twice", twice),
        ("race two uses of one approval", race),
        ("use an approval after it expired", expired),
        ("the requester approves itself", own_approval),
        ("somebody the requester acts for approves", delegator_approves),
        ("a machine approves", machine_approves),
        ("somebody of no group approves", stranger_approves),
        ("one person approves twice where two are needed", same_person_twice),
        ("approve one value, bind another", other_values),
        ("approve under one search path, run under another", other_path),
        ("approve under one date style, run under another", other_dates),
        ("approve under one date style, run what was prepared under another", prepared_under_other_dates),
        ("approve under one date style, run what one pipeline prepared under another", prepared_in_pipeline),
        ("approve under one date style, run under another set behind a flush", other_dates_flushed),
        ("approve under one date style, run behind the rollback of another", other_dates_rolled_back),
        ("approve a name in a constant under one search path, run it under another", other_path_of_constant),
        ("drop what a name in a constant means while its delete is held", constant_while_held),
        ("drop what a name in a constant means between an approval and its retry", constant_before_retry),
        ("drop what a name given to a function means between an approval and its retry", name_before_retry),
        ("approve the row one cursor stands on, run with another", other_position),
        ("approve the row one cursor stands on, explained, run with another", other_position_explained),
        ("approve under one value of a setting, run under another", other_setting),
        (
            "approve under one value of a setting, run under another set in the same message",
            other_setting_before,
        ),
        ("redefine a view while its delete is held", view_while_held),
        ("redefine a view between its approval and its retry", view_before_retry),
        ("redefine a function while a delete that calls it is held", function_while_held),
        ("redefine a function between an approval and its retry", function_before_retry),
        ("cancel while held, then let it be approved", cancelled),
        ("have a table grow while its delete is held", grown_while_held),
        ("have a table grow between an approval and its retry", grown_before_retry),
        ("have a function run by the estimate of a held delete", run_by_estimate),
    ];
    let mut attacks = Vec::new();
    for (name, run) in list {
        let quorum = if name.contains("two are needed") { 2 } else { 1 };
        for kept in [Kept::InMemory, Kept::OnDisk] {
            let name = format!("{name} ({kept:?})");
            attacks.push(Attack::new(39, &name, move || run(&Stage::new(kept, quorum)).outcome()).by(&[60]));
        }
    }
    attacks
}

/// An attack on a stage of its own.
type Run = fn(&Stage) -> Trial;

/// Where approvals are kept.
#[derive(Clone, Copy, Debug)]
enum Kept {
    InMemory,
    OnDisk,
}

/// A gateway, its approver and its clock.
struct Stage {
    database: String,
    gateway: Gateway,
    approver: Arc<dyn Approver>,
    clock: Arc<ManualClock>,
    quorum: u32,
    _folder: tempfile::TempDir,
}

/// How an attack went: damage if any, then whether the honest way works.
struct Trial {
    damage: Option<String>,
    twin: Result<(), String>,
}

impl Trial {
    fn outcome(self) -> Outcome {
        match (self.damage, self.twin) {
            (Some(how), _) => Outcome::Passed(how),
            (None, Err(why)) => Outcome::TwinFailed(why),
            (None, Ok(())) => Outcome::Held,
        }
    }
}

const FREE: &str = "DELETE FROM order_items;";

impl Stage {
    fn new(kept: Kept, quorum: u32) -> Self {
        let database = database(FREE);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let folder = tempfile::tempdir().unwrap();
        let approver: Arc<dyn Approver> = match kept {
            Kept::InMemory => Arc::new(MemoryApprover::new(Arc::clone(&clock) as _)),
            Kept::OnDisk => {
                let store = Store::open(folder.path().join("store.sqlite"), Arc::clone(&clock) as _);
                block(store).unwrap().approver()
            }
        };
        let mut setup = Setup::new(&database);
        setup.policy = Arc::new(policy(quorum));
        setup.approver = Arc::clone(&approver);
        setup.clock = Arc::clone(&clock) as _;
        let gateway = setup.start();
        Self { database, gateway, approver, clock, quorum, _folder: folder }
    }

    fn agent(&self) -> Client {
        block(Client::log_in(&Door::new(self.gateway.address, "agent", &self.database)))
    }

    fn products(&self) -> usize {
        ask(&self.database, "SELECT count(*) FROM products").unwrap().parse().unwrap()
    }

    /// Damage if not so many products are left.
    fn left(&self, expected: usize) -> Option<String> {
        let left = self.products();
        (left != expected).then(|| format!("{left} products are left, not {expected}"))
    }

    async fn submitted(&self, events: &mut ApprovalEvents) -> RequestId {
        loop {
            if let ApprovalEvent::Submitted(request) = events.next().await.unwrap() {
                return request.id;
            }
        }
    }

    async fn review(&self, id: RequestId, who: &VerifiedPrincipal) -> Result<(), ApprovalError> {
        let now = self.clock.now();
        self.approver.review(id, who, Verdict::Approve, None, now).await.map(drop)
    }

    /// Sends a statement outside any transaction, approves it as Alice while it is held, and waits for its end.
    fn run_approved(&self, agent: &mut Client, sql: &str) {
        block(async {
            let mut events = self.approver.subscribe();
            let approve = async {
                let id = self.submitted(&mut events).await;
                for name in ["alice", "carol"].iter().take(self.quorum as usize) {
                    let reviewer = person(name, PrincipalKind::Human, Some("dba")).await;
                    self.review(id, &reviewer).await.unwrap();
                }
            };
            let (_, ()) = tokio::join!(agent.query(sql), approve);
        });
    }

    /// In a transaction a held statement is denied with a handle: asks for it, has it approved, and rolls back.
    fn ask_for(&self, agent: &mut Client, sql: &str) -> RequestId {
        block(async {
            let mut events = self.approver.subscribe();
            agent.query("BEGIN").await;
            let (_, id) = tokio::join!(agent.query(sql), self.submitted(&mut events));
            agent.query("ROLLBACK").await;
            id
        })
    }

    fn approve(&self, id: RequestId) {
        block(async { self.review(id, &alice().await).await.unwrap() });
    }

    /// The honest way: the statement is approved as it is, and runs.
    fn honest(&self, agent: &mut Client) -> Result<(), String> {
        let before = self.products();
        if !agent.is_open() {
            *agent = self.agent();
        }
        block(agent.leave_transaction());
        self.run_approved(agent, "DELETE FROM products WHERE id = 40");
        let after = self.products();
        (after + 1 == before)
            .then_some(())
            .ok_or_else(|| format!("approved, {before} became {after}: {}", agent.last))
    }

    /// Sends a statement that will be held again and gives it up by leaving.
    fn try_and_leave(&self, steps: &[&str], held: &str) {
        let queries: Vec<_> = steps.iter().map(|sql| Step::Query((*sql).to_owned())).collect();
        self.send_and_leave(&queries, &raw_pg::query(held));
    }

    /// The same of any messages.
    fn send_and_leave(&self, steps: &[Step], held: &[u8]) {
        let mut agent = self.agent();
        block(async {
            agent.run(steps).await;
            let mut events = self.approver.subscribe();
            agent.send(held).await;
            // Either it asks again, or it runs: both end here.
            tokio::select! {
                _ = self.submitted(&mut events) => {}
                () = agent.ready() => {}
            }
        });
    }
}

async fn person(name: &str, kind: PrincipalKind, group: Option<&str>) -> VerifiedPrincipal {
    let mut person = Principal::new(kind, "https://idp.test", name, Timestamp::MAX);
    person.groups.extend(group.map(str::to_owned));
    let list = StaticAuthenticator::new().unwrap().with(name, person);
    verify(&list, &Presented::Token(name.into()), &SystemClock).await.unwrap()
}

async fn alice() -> VerifiedPrincipal {
    person("alice", PrincipalKind::Human, Some("dba")).await
}

fn another_statement(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let id = stage.ask_for(&mut agent, "DELETE FROM products WHERE id = 1");
    stage.approve(id);
    stage.try_and_leave(&[], "DELETE FROM products WHERE id > 1");
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn same_start(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let id = stage.ask_for(&mut agent, "DELETE FROM products WHERE id = 1");
    stage.approve(id);
    stage.try_and_leave(&[], "DELETE FROM products WHERE id = 1 OR true");
    stage.try_and_leave(&[], "DELETE FROM products WHERE id = 1; DELETE FROM products");
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn twice(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let sql = "DELETE FROM products WHERE id = (SELECT min(id) FROM products)";
    stage.run_approved(&mut agent, sql);
    stage.try_and_leave(&[], sql);
    Trial { damage: stage.left(39), twin: stage.honest(&mut agent) }
}

fn race(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let sql = "DELETE FROM products WHERE id = (SELECT min(id) FROM products)";
    let id = stage.ask_for(&mut agent, sql);
    stage.approve(id);
    let racers: Vec<Client> = (0..6).map(|_| stage.agent()).collect();
    block(async {
        let mut events = stage.approver.subscribe();
        let mut running = JoinSet::new();
        for mut racer in racers {
            running.spawn(async move { racer.query(sql).await.tags() });
        }
        // Each one either runs or asks again.
        for _ in 0..6 {
            tokio::select! {
                _ = stage.submitted(&mut events) => {}
                _ = running.join_next() => {}
            }
        }
    });
    Trial { damage: stage.left(39), twin: stage.honest(&mut agent) }
}

fn expired(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let sql = "DELETE FROM products WHERE id < 30";
    let id = stage.ask_for(&mut agent, sql);
    stage.approve(id);
    stage.clock.advance(Duration::from_secs(61));
    stage.try_and_leave(&[], sql);
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

/// Somebody reviews who may not; then nothing may run.
fn reviewed_by(stage: &Stage, who: &VerifiedPrincipal) -> Trial {
    let mut agent = stage.agent();
    let sql = "DELETE FROM products WHERE id < 30";
    let id = stage.ask_for(&mut agent, sql);
    let said = block(stage.review(id, who));
    stage.try_and_leave(&[], sql);
    let damage = stage.left(40).or_else(|| said.is_ok().then(|| "the review counted".to_owned()));
    Trial { damage, twin: stage.honest(&mut agent) }
}

fn own_approval(stage: &Stage) -> Trial {
    // The agent's subject, dressed up as a person of the group.
    reviewed_by(stage, &block(person("agent-7", PrincipalKind::Human, Some("dba"))))
}

fn machine_approves(stage: &Stage) -> Trial {
    reviewed_by(stage, &block(person("robot", PrincipalKind::Agent, Some("dba"))))
}

fn stranger_approves(stage: &Stage) -> Trial {
    reviewed_by(stage, &block(person("bob", PrincipalKind::Human, None)))
}

fn delegator_approves(stage: &Stage) -> Trial {
    reviewed_by(stage, &block(person("boss", PrincipalKind::Human, Some("dba"))))
}

fn same_person_twice(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let sql = "DELETE FROM products WHERE id < 30";
    let id = stage.ask_for(&mut agent, sql);
    let again = block(async {
        let alice = alice().await;
        stage.review(id, &alice).await.unwrap();
        stage.review(id, &alice).await
    });
    stage.try_and_leave(&[], sql);
    let counted = again.is_ok().then(|| "a second verdict by one person counted".to_owned());
    Trial { damage: stage.left(40).or(counted), twin: stage.honest(&mut agent) }
}

fn extended(sql: &str, value: &str) -> Vec<u8> {
    let bind = raw_pg::Bind { values: &[Some(value.as_bytes())], ..Default::default() };
    [raw_pg::parse("", sql, &[]), bind.encode(), raw_pg::execute("", 0), raw_pg::sync()].concat()
}

fn other_values(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let sql = "DELETE FROM products WHERE id < $1::integer";
    block(async {
        let mut events = stage.approver.subscribe();
        agent.query("BEGIN").await;
        agent.send(&extended(sql, "0")).await;
        let (id, ()) = tokio::join!(stage.submitted(&mut events), agent.ready());
        agent.query("ROLLBACK").await;
        stage.review(id, &alice().await).await.unwrap();
        let mut other = Client::log_in(&Door::new(stage.gateway.address, "agent", &stage.database)).await;
        other.send(&extended(sql, "30")).await;
        tokio::select! {
            _ = stage.submitted(&mut events) => {}
            () = other.ready() => {}
        }
    });
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn other_path(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let views = "CREATE VIEW scratch.goods AS SELECT id FROM public.products WHERE id = 1;
        CREATE VIEW public.goods AS SELECT id FROM public.products; GRANT ALL ON scratch.goods, public.goods TO app";
    ask(&stage.database, views).unwrap();
    let sql = "DELETE FROM products WHERE id IN (SELECT id FROM goods)";
    block(agent.query("SET search_path = scratch, public"));
    let id = stage.ask_for(&mut agent, sql);
    stage.approve(id);
    stage.try_and_leave(&["SET search_path = public"], sql);
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn other_dates(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let sql = "DELETE FROM products WHERE '01/02/2026'::date = DATE '2026-02-01' AND id > 0";
    let id = stage.ask_for(&mut agent, sql);
    stage.approve(id);
    stage.try_and_leave(&["SET datestyle = 'ISO, DMY'"], sql);
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn prepared_under_other_dates(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let id = stage.ask_for(&mut agent, DATED);
    stage.approve(id);
    let query = |sql: &str| Step::Query(sql.to_owned());
    let parse = Message::Parse { name: "p".to_owned(), sql: DATED.to_owned(), types: Vec::new() };
    let steps = [
        query("SET datestyle = 'ISO, DMY'"),
        Step::Message(parse),
        query("sync"),
        query("SET datestyle = 'ISO, MDY'"),
    ];
    let bind = raw_pg::Bind { statement: "p", ..Default::default() };
    let run = [bind.encode(), raw_pg::execute("", 0), raw_pg::sync()].concat();
    stage.send_and_leave(&steps, &run);
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

/// A statement by the extended protocol, without what ends its segment.
fn unnamed(sql: &str) -> [Step; 3] {
    let parse = Message::Parse { name: String::new(), sql: sql.to_owned(), types: Vec::new() };
    let (portal, statement) = (String::new(), String::new());
    let bind = Message::Bind { portal: portal.clone(), statement, values: Vec::new(), results: Vec::new() };
    [parse, bind, Message::Execute { portal, rows: 0 }].map(Step::Message)
}

const DATED: &str = "DELETE FROM products WHERE '01/02/2026'::date = DATE '2026-02-01' AND id > 0";

/// The server tells the value of the setting at the end of the pipeline only, when it is the old one again.
fn prepared_in_pipeline(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let id = stage.ask_for(&mut agent, DATED);
    stage.approve(id);
    let parse = Message::Parse { name: "p".to_owned(), sql: DATED.to_owned(), types: Vec::new() };
    let mut steps = Vec::from(unnamed("SET datestyle = 'ISO, DMY'"));
    steps.push(Step::Message(parse));
    steps.extend(unnamed("SET datestyle = 'ISO, MDY'"));
    steps.push(Step::Query("sync".to_owned()));
    let bind = raw_pg::Bind { statement: "p", ..Default::default() };
    let run = [bind.encode(), raw_pg::execute("", 0), raw_pg::sync()].concat();
    stage.send_and_leave(&steps, &run);
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn other_dates_flushed(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let id = stage.ask_for(&mut agent, DATED);
    stage.approve(id);
    let begin =
        [raw_pg::parse("", "SET datestyle = 'ISO, DMY'", &[]), raw_pg::Bind::default().encode()].concat();
    let begin = [begin, raw_pg::execute("", 0), raw_pg::flush()].concat();
    let end = [raw_pg::parse("", DATED, &[]), raw_pg::Bind::default().encode()].concat();
    let end = [end, raw_pg::execute("", 0), raw_pg::sync()].concat();
    stage.send_and_leave(&[], &[begin, end].concat());
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

/// What the transaction's end sets back is told only after all of the pipeline.
fn other_dates_rolled_back(stage: &Stage) -> Trial {
    let sql = "DELETE FROM products WHERE '02/01/2026'::date = DATE '2026-02-01' AND id > 0";
    let piece = |sql: &str| {
        [raw_pg::parse("", sql, &[]), raw_pg::Bind::default().encode(), raw_pg::execute("", 0)].concat()
    };
    let pipeline = [piece("ROLLBACK"), piece(sql), raw_pg::sync()].concat();
    let query = |sql: &str| Step::Query(sql.to_owned());
    let mut agent = stage.agent();
    let id = block(async {
        agent.run(&[query("SET datestyle = 'ISO, DMY'"), query("BEGIN")]).await;
        let mut events = stage.approver.subscribe();
        agent.send(&pipeline).await;
        stage.submitted(&mut events).await
    });
    stage.approve(id);
    drop(agent);
    stage.send_and_leave(&[query("BEGIN"), query("SET LOCAL datestyle = 'ISO, DMY'")], &pipeline);
    Trial { damage: stage.left(40), twin: stage.honest(&mut stage.agent()) }
}

fn other_path_of_constant(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    ask(&stage.database, "CREATE TABLE scratch.products (id integer)").unwrap();
    let sql = "DELETE FROM public.products WHERE tableoid = 'products'::regclass AND id > 0";
    block(agent.query("SET search_path = scratch, public"));
    let id = stage.ask_for(&mut agent, sql);
    stage.approve(id);
    stage.try_and_leave(&["SET search_path = public"], sql);
    Trial { damage: stage.left(40), twin: stage.honest(&mut stage.agent()) }
}

const SHADOW: &str = "CREATE TABLE scratch.products (id integer)";
const UNCOVER: &str = "DROP TABLE scratch.products";
const BY_CONSTANT: &str = "DELETE FROM public.products WHERE tableoid = 'products'::regclass AND id > 0";
const BY_NAME: &str = "DELETE FROM public.products WHERE tableoid = to_regclass('products') AND id > 0";
const PATH: &str = "SET search_path = scratch, public";

fn constant_while_held(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    ask(&stage.database, SHADOW).unwrap();
    block(async {
        let mut events = stage.approver.subscribe();
        agent.query(PATH).await;
        let swap = async {
            let id = stage.submitted(&mut events).await;
            ask(&stage.database, UNCOVER).unwrap();
            stage.review(id, &alice().await).await.unwrap();
        };
        tokio::join!(agent.query(BY_CONSTANT), swap);
    });
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn constant_before_retry(stage: &Stage) -> Trial {
    uncovered_before_retry(stage, BY_CONSTANT)
}

fn name_before_retry(stage: &Stage) -> Trial {
    uncovered_before_retry(stage, BY_NAME)
}

fn uncovered_before_retry(stage: &Stage, sql: &str) -> Trial {
    let mut agent = stage.agent();
    ask(&stage.database, SHADOW).unwrap();
    block(agent.query(PATH));
    let id = stage.ask_for(&mut agent, sql);
    stage.approve(id);
    ask(&stage.database, UNCOVER).unwrap();
    stage.try_and_leave(&[PATH], sql);
    Trial { damage: stage.left(40), twin: stage.honest(&mut stage.agent()) }
}

/// What is deleted cannot be seen while the transaction is open, so what counts is whether people are asked anew.
fn other_position(stage: &Stage) -> Trial {
    at_positions(stage, "DELETE FROM products WHERE CURRENT OF k")
}

fn other_position_explained(stage: &Stage) -> Trial {
    at_positions(stage, "EXPLAIN (ANALYZE) DELETE FROM products WHERE CURRENT OF k")
}

fn at_positions(stage: &Stage, sql: &str) -> Trial {
    let mut agent = stage.agent();
    let mut at = |number: u32| {
        block(async {
            agent.query("BEGIN").await;
            let rows = format!("SELECT * FROM products WHERE id = {number} FOR UPDATE");
            agent.query(&format!("DECLARE k CURSOR FOR {rows}")).await;
            agent.query("FETCH k").await;
        });
        stage.ask_for(&mut agent, sql)
    };
    let (one, other) = (at(20), at(30));
    let damage = (one == other).then(|| "one approval holds for the rows of two cursors".to_owned());
    Trial { damage, twin: stage.honest(&mut stage.agent()) }
}

const MOST: &str = "DELETE FROM products WHERE id <= current_setting('app.most')::integer";

fn other_setting(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    block(agent.query("SET app.most = '0'"));
    let id = stage.ask_for(&mut agent, MOST);
    stage.approve(id);
    stage.try_and_leave(&["SET app.most = '30'"], MOST);
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn other_setting_before(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    block(agent.query("SET app.most = '0'"));
    let id = stage.ask_for(&mut agent, MOST);
    stage.approve(id);
    stage.try_and_leave(&["SET app.most = '0'"], &format!("SET app.most = '30'; {MOST}"));
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

/// A view that shows one product, and one that shows all.
const ONE: &str = "CREATE OR REPLACE VIEW scratch.some AS SELECT * FROM public.products WHERE id = 1; GRANT ALL ON scratch.some TO app";
const ALL: &str = "CREATE OR REPLACE VIEW scratch.some AS SELECT * FROM public.products WHERE id > 0";

fn view_while_held(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    ask(&stage.database, ONE).unwrap();
    block(async {
        let mut events = stage.approver.subscribe();
        let swap = async {
            let id = stage.submitted(&mut events).await;
            ask(&stage.database, ALL).unwrap();
            stage.review(id, &alice().await).await.unwrap();
        };
        tokio::join!(agent.query("DELETE FROM scratch.some"), swap);
    });
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn view_before_retry(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    ask(&stage.database, ONE).unwrap();
    let id = stage.ask_for(&mut agent, "DELETE FROM scratch.some");
    stage.approve(id);
    ask(&stage.database, ALL).unwrap();
    stage.try_and_leave(&[], "DELETE FROM scratch.some");
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

/// A function that chooses one product, and one that chooses all.
const FEW: &str = "CREATE OR REPLACE FUNCTION public.order_total(number integer) RETURNS bigint LANGUAGE sql STABLE STRICT AS 'SELECT 2::bigint'";
const MANY: &str = "CREATE OR REPLACE FUNCTION public.order_total(number integer) RETURNS bigint LANGUAGE sql STABLE STRICT AS 'SELECT 1000::bigint'";

fn function_while_held(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    ask(&stage.database, FEW).unwrap();
    block(async {
        let mut events = stage.approver.subscribe();
        let swap = async {
            let id = stage.submitted(&mut events).await;
            ask(&stage.database, MANY).unwrap();
            stage.review(id, &alice().await).await.unwrap();
        };
        tokio::join!(agent.query("DELETE FROM products WHERE id < order_total(1)"), swap);
    });
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn function_before_retry(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    ask(&stage.database, FEW).unwrap();
    let id = stage.ask_for(&mut agent, "DELETE FROM products WHERE id < public.order_total(1)");
    stage.approve(id);
    ask(&stage.database, MANY).unwrap();
    stage.try_and_leave(&[], "DELETE FROM products WHERE id < public.order_total(1)");
    Trial { damage: stage.left(40), twin: stage.honest(&mut agent) }
}

fn cancelled(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let (pid, key) = agent.key.clone().unwrap();
    let said = block(async {
        let mut events = stage.approver.subscribe();
        agent.send(&raw_pg::query("DELETE FROM products WHERE id < 30")).await;
        let id = stage.submitted(&mut events).await;
        Client::cancel(stage.gateway.address, (pid, &key)).await;
        agent.ready().await;
        stage.review(id, &alice().await).await
    });
    let damage =
        stage.left(40).or_else(|| said.is_ok().then(|| "a cancelled request was approved".to_owned()));
    Trial { damage, twin: stage.honest(&mut agent) }
}

/// Ten thousand products more than people were told of.
const GROW: &str =
    "INSERT INTO products SELECT 1000 + g, 'more-' || g, 'more', 1, 1, '{}' FROM generate_series(1, 10000) g";

fn grown_while_held(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    block(async {
        let mut events = stage.approver.subscribe();
        let grow = async {
            let id = stage.submitted(&mut events).await;
            ask(&stage.database, GROW).unwrap();
            stage.review(id, &alice().await).await.unwrap();
        };
        tokio::join!(agent.query("DELETE FROM products"), grow);
    });
    Trial { damage: stage.left(10_040), twin: stage.honest(&mut agent) }
}

fn grown_before_retry(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    let id = stage.ask_for(&mut agent, "DELETE FROM products");
    stage.approve(id);
    ask(&stage.database, GROW).unwrap();
    stage.try_and_leave(&[], "DELETE FROM products");
    Trial { damage: stage.left(10_040), twin: stage.honest(&mut agent) }
}

/// A function that tells when it is run, and that a planner runs where it stands for a constant.
const TRAP: &str = "CREATE OR REPLACE FUNCTION public.order_total(number integer) RETURNS bigint LANGUAGE plpgsql IMMUTABLE STRICT AS
    'BEGIN RAISE LOG ''sprung in %'', current_database(); RETURN 2; END'";

fn run_by_estimate(stage: &Stage) -> Trial {
    let mut agent = stage.agent();
    ask(&stage.database, TRAP).unwrap();
    let sprung = || {
        let log = server().log_of_everything_so_far().unwrap();
        log.contains(&format!("sprung in {}", stage.database))
    };
    let mut damage = None;
    for condition in ["id < order_total(1)", "id < public.order_total(2) + 1"] {
        let sql = format!("DELETE FROM products WHERE {condition}");
        stage.ask_for(&mut agent, &sql);
        stage.try_and_leave(&[], &sql);
        damage = damage.or_else(|| sprung().then(|| format!("`{sql}` had an effect while it waited")));
    }
    ask(&stage.database, "EXPLAIN DELETE FROM products WHERE id < order_total(1)").unwrap();
    assert!(sprung(), "a planner does not run it");
    Trial { damage: damage.or_else(|| stage.left(40)), twin: stage.honest(&mut agent) }
}
