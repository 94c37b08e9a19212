//! Judging an operation by Cedar policies: at first sight, and asked the same again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{Clock, SystemClock};
use gateway_core::credentials::{Secret, StaticCredentials};
use gateway_core::identity::{Presented, Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::operation::{Access, Action, Effect, Fact, Facts, Operation, Resource};
use gateway_core::pipeline::{Guard, Pipeline, SessionRequest};
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::policy::{Decision, PolicyEngine, PolicyInput};
use gateway_core::recording::MemoryRecorder;
use gateway_core::session::CloseReason;
use tokio::runtime::{Builder, Runtime};

use crate::report::Report;
use crate::sample::{median, nanoseconds, thread_time};
use crate::{Result, Size};

pub(super) fn run(size: Size, report: &mut Report) -> Result<()> {
    let runtime = Builder::new_current_thread().build()?;
    for count in [1, 100, 1000] {
        one(size, report, &runtime, &format!("judge: {count} policies, one table each"), &of_tables(count))?;
        one(
            size,
            report,
            &runtime,
            &format!("judge: {count} policies, all on the target"),
            &of_target(count),
        )?;
    }
    Ok(())
}

/// One policy permits the operation, the others are about other tables: slicing leaves them out.
fn of_tables(count: usize) -> String {
    let mut text = BASE.to_owned();
    for i in 1..count {
        let _ = writeln!(
            text,
            "@id(\"table-{i}\") permit (principal in Group::\"agents\", action in Action::\"read\", \
             resource in Table::\"bench/shop/public/table_{i}\") when {{ principal.kind == Kind::\"agent\" }};"
        );
    }
    text
}

/// Every policy has to be asked: the worst case.
fn of_target(count: usize) -> String {
    let mut text = BASE.to_owned();
    for i in 1..count {
        let _ = writeln!(
            text,
            "@id(\"rule-{i}\") permit (principal in Group::\"group-{i}\", action in Action::\"read\", \
             resource in Target::\"bench\") when {{ context.statement_count < {i} }};"
        );
    }
    text
}

const BASE: &str = "
    @id(\"connect\") permit (principal in Group::\"agents\", action == Action::\"connect\", resource in Target::\"bench\");
    @id(\"orders\") permit (principal in Group::\"agents\", action in Action::\"read\",
        resource in Schema::\"bench/shop/public\");
";

fn one(size: Size, report: &mut Report, runtime: &Runtime, case: &str, policies: &str) -> Result<()> {
    let start = thread_time();
    let engine = CedarEngine::builder()
        .schema_fragment("postgres.cedarschema", gateway_pg::SCHEMA)
        .policy(PolicyFile::new("bench.cedar", policies))
        .build()?;
    report.add(case, "loading", "load", (thread_time() - start).as_secs_f64() * 1e3, "ms");
    let engine = Arc::new(engine);
    let guard = runtime.block_on(open(Arc::clone(&engine)))?;
    let now = SystemClock.now();
    let judge = |operation: &Operation| {
        let input = PolicyInput::new(guard.info(), operation, now);
        runtime.block_on(engine.decide(&input)).map_err(crate::Error::from)
    };
    let known = operation(0);
    if !matches!(judge(&known)?, Decision::Allow(_)) {
        return Err(format!("{case}: the operation was not allowed").into());
    }
    let rounds = size.pick(3, 7);
    let fresh = |round: usize| {
        let operations: Vec<_> = (1..=FRESH).map(|i| operation(round * FRESH + i)).collect();
        let start = thread_time();
        let allowed = operations.iter().filter(|o| matches!(judge(o), Ok(Decision::Allow(_)))).count();
        ((thread_time() - start).as_nanos() as f64 / FRESH as f64, allowed)
    };
    let measured: Vec<_> = (0..rounds).map(fresh).collect();
    if measured.iter().any(|(_, allowed)| *allowed != FRESH) {
        return Err(format!("{case}: an operation was not allowed").into());
    }
    report.add(case, "uncached", "time", median(measured.iter().map(|(time, _)| *time).collect()), "ns");
    report.add(case, "cached", "time", nanoseconds(size, || judge(&known).is_ok()), "ns");
    runtime.block_on(guard.close(CloseReason::Downstream))?;
    Ok(())
}

/// Questions nobody has asked before, per sample.
const FRESH: usize = 200;

fn operation(number: usize) -> Operation {
    let table = Resource::target("bench").child("Database", "shop").child("Schema", "public");
    // Verdicts are cached by what policies read, which is not the text: only another table is another question.
    let table = table.child("Table", format!("orders_{number}"));
    let text = format!("SELECT total FROM orders_{number} WHERE id = 7");
    let mut operation = Operation::new("select", Bytes::from(text));
    operation.effect = Effect::Read;
    operation.accesses = [Access::new(Action::new("select"), table)].into();
    let mut facts: Facts = FACTS.iter().map(|(name, fact)| ((*name).into(), Fact::Bool(*fact))).collect();
    facts.insert("statement_kind".into(), Fact::from("select"));
    facts.insert("statement_count".into(), Fact::Long(1));
    operation.facts = facts.into();
    operation
}

/// What the adapter tells of such a statement.
const FACTS: [(&str, bool); 6] = [
    ("has_where", true),
    ("where_constant", false),
    ("has_limit", false),
    ("returning", false),
    ("multi_statement", false),
    ("in_transaction", false),
];

/// A session, since only a pipeline makes one.
async fn open(engine: Arc<CedarEngine>) -> Result<Guard> {
    let token = testkit::random_text(32);
    let expires = SystemClock.now().plus(Duration::from_secs(3600));
    let mut agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent-7", expires);
    agent.groups = BTreeSet::from(["agents".to_owned()]);
    let pipeline = Pipeline::builder(
        Arc::new(StaticAuthenticator::new()?.with(&token, agent)),
        engine,
        Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
        Arc::new(MemoryRecorder::default()),
        Arc::new(StaticCredentials::default()),
    )
    .build()?;
    let denied = |denial: gateway_core::error::Denial| denial.message;
    let principal = pipeline.authenticate(&Presented::Token(Secret::new(token))).await.map_err(denied)?;
    let request = SessionRequest {
        principal,
        protocol: gateway_pg::PROTOCOL,
        target: "bench".to_owned(),
        scope: Some("shop".to_owned()),
        peer: "in-process".to_owned(),
        connects_to: vec![Resource::target("bench").child("Database", "shop")],
        labels: Arc::from([]),
    };
    Ok(Guard::open(&pipeline, request).await.map_err(denied)?)
}
