//! The engine from inside: slices and cache against full evaluation, and what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::judge::{Extent, Judged};
use super::*;
use crate::operation::Fact;
use crate::policy::Allowed;
use crate::policy::cases::{Case, CaseQuestion};

const SCHEMA: &str = include_str!("../../../../gateway-pg/schema/postgres.cedarschema");

/// An engine under the one schema of these tests: merging it anew for each would be most of their time.
fn engine(policies: &str) -> CedarEngine {
    static SHARED: OnceLock<Arc<GatewaySchema>> = OnceLock::new();
    let schema = SHARED
        .get_or_init(|| CedarEngine::builder().schema_fragment("postgres", SCHEMA).build().unwrap().schema);
    let (loaded, warnings) = load::load_all(schema, &[PolicyFile::new("t.cedar", policies)]).unwrap();
    CedarEngine {
        schema: Arc::clone(schema),
        loaded: RwLock::new(Arc::new(loaded)),
        warnings: RwLock::new(warnings.into()),
    }
}

fn case(value: serde_json::Value) -> Case {
    serde_json::from_value(value).unwrap()
}

fn select(subject: &str, table: &str) -> serde_json::Value {
    serde_json::json!({
        "name": "t", "target": "shop", "expect": "allow",
        "principal": { "subject": subject, "groups": ["g0"] },
        "operation": {
            "kind": "select", "statement": format!("select * from {table}"), "facts": facts(1),
            "accesses": [{ "action": "select", "path": [["Database", "d"], ["Schema", "s"], ["Table", table]] }],
        },
    })
}

fn facts(statements: i64) -> BTreeMap<&'static str, Fact> {
    let mut facts: BTreeMap<_, _> =
        ["has_where", "where_constant", "has_limit", "returning", "multi_statement", "in_transaction"]
            .map(|name| (name, Fact::Bool(false)))
            .into();
    facts.insert("statement_kind", Fact::from("select"));
    facts.insert("statement_count", Fact::Long(statements));
    facts
}

async fn asked(case: &Case) -> CaseQuestion<'_> {
    case.question().await.unwrap()
}

fn kept(engine: &CedarEngine, input: &PolicyInput<'_>) -> bool {
    let loaded = engine.current();
    loaded.verdicts.find(&loaded.reads, input, Asking::Operation).is_some()
}

#[tokio::test]
async fn an_allow_is_kept_for_exactly_its_question() {
    let engine =
        engine("permit(principal, action == Action::\"select\", resource in Table::\"shop/d/s/a\");");
    let (a, b) = (case(select("x", "a")), case(select("x", "b")));
    let (a, b) = (asked(&a).await, asked(&b).await);
    assert!(matches!(engine.decide(&a.input()).await, Ok(Decision::Allow(_))));
    assert!(kept(&engine, &a.input()) && !kept(&engine, &b.input()));
    assert!(matches!(engine.decide(&b.input()).await, Ok(Decision::Deny(_))));
    assert!(!kept(&engine, &b.input()));
    assert!(matches!(engine.decide(&a.input()).await, Ok(Decision::Allow(_))));
}

#[tokio::test]
async fn a_verdict_that_reads_the_time_is_not_kept() {
    let engine = engine("permit(principal, action, resource) when { context.time.hour < 12 };");
    let mut morning = case(select("x", "a"));
    morning.now = 9 * 3600;
    let mut evening = morning.clone();
    evening.now = 20 * 3600;
    let (morning, evening) = (asked(&morning).await, asked(&evening).await);
    assert!(matches!(engine.decide(&morning.input()).await, Ok(Decision::Allow(_))));
    assert!(!kept(&engine, &morning.input()));
    assert!(matches!(engine.decide(&evening.input()).await, Ok(Decision::Deny(_))));
}

#[tokio::test]
async fn what_no_policy_reads_does_not_split_verdicts_and_what_one_reads_does() {
    let (first, mut second) = (case(select("x", "a")), case(select("x", "a")));
    second.peer = "192.0.2.9:4711".to_owned();
    second.principal.task = Some("other".to_owned());
    let (first, second) = (asked(&first).await, asked(&second).await);
    for (condition, shared) in [
        ("true", true),
        ("context.peer != \"z\"", false),
        ("if principal has task then principal.task != \"z\" else true", false),
    ] {
        let engine = engine(&format!("permit(principal, action, resource) when {{ {condition} }};"));
        assert!(matches!(engine.decide(&first.input()).await, Ok(Decision::Allow(_))));
        assert_eq!(kept(&engine, &second.input()), shared, "{condition}");
    }
}

#[tokio::test]
async fn a_reload_is_seen_at_once_and_a_broken_one_changes_nothing() {
    let engine = engine("permit(principal, action, resource);");
    let question = case(select("x", "a"));
    let question = asked(&question).await;
    assert!(matches!(engine.decide(&question.input()).await, Ok(Decision::Allow(_))));
    let before = engine.revision();
    assert!(engine.reload(&[PolicyFile::new("t.cedar", "permit(")]).is_err());
    let whole = PolicyFile::new("t.cedar", "permit(principal, action, resource);");
    // As a file is between being emptied and being written.
    for cut in ["", " \n", "// forbids\n"] {
        let error = engine.reload(&[whole.clone(), PolicyFile::new("forbid.cedar", cut)]).unwrap_err();
        assert!(error.to_string().contains("there is no policy in this file"), "{error}");
    }
    assert_eq!(engine.counts(), PolicyCounts { permits: 1, forbids: 0 });
    assert_eq!(engine.revision(), before);
    assert!(matches!(engine.decide(&question.input()).await, Ok(Decision::Allow(_))));
    let after = engine.reload(&[PolicyFile::new("t.cedar", "forbid(principal, action, resource);")]).unwrap();
    assert!(after != before && engine.revision() == after);
    assert_eq!(engine.counts(), PolicyCounts { permits: 0, forbids: 1 });
    assert!(matches!(engine.decide(&question.input()).await, Ok(Decision::Deny(_))));
}

#[tokio::test]
async fn principals_are_not_confused_by_separators() {
    let engine = engine("permit(principal == Principal::\"a|b|c\", action, resource);");
    let mut honest = case(select("b|c", "a"));
    honest.principal.issuer = "a".to_owned();
    let mut forged = case(select("c", "a"));
    forged.principal.issuer = "a|b".to_owned();
    assert!(matches!(engine.decide(&asked(&honest).await.input()).await, Ok(Decision::Allow(_))));
    assert!(matches!(engine.decide(&asked(&forged).await.input()).await, Ok(Decision::Deny(_))));
}

/// Policies over a small world, so that scopes overlap; some overflow while evaluated, some read the time.
fn policy() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        "principal is Principal",
        "principal in Group::\"g0\"",
        "principal in Group::\"g1\"",
        "principal == Principal::\"https://issuer.example|s0\"",
        "principal is Principal in Group::\"g1\"",
    ]);
    let action = prop::sample::select(vec![
        "action in Action::\"read\"",
        "action in [Action::\"read\", Action::\"write\"]",
        "action == Action::\"select\"",
        "action in [Action::\"insert\", Action::\"select\"]",
    ]);
    let resource = prop::sample::select(vec![
        "resource",
        "resource is Table",
        "resource in Database::\"shop/d\"",
        "resource is Table in Schema::\"shop/d/s\"",
        "resource == Table::\"shop/d/s/a\"",
        "resource in Table::\"shop/d/s/b\"",
    ]);
    // Effect, annotation and condition go together; an unconditional permit is as likely as all others together, or
    // hardly anything would be allowed or held.
    let rest = prop_oneof![
        Just(("@limit_rows(\"10\") permit", "")),
        prop::sample::select(vec![
            ("permit", "when { context.has_where }"),
            ("permit", "when { context.statement_count + 9223372036854775806 > 0 }"),
            ("permit", "when { principal has task && principal.task == \"t\" }"),
            ("permit", "when { context.time.hour < 12 }"),
            ("forbid", "when { context.time.hour < 12 }"),
            ("forbid", "when { context.patterns.contains(\"p\") }"),
            ("forbid", "when { context.statement_count + 9223372036854775806 > 0 }"),
            ("forbid", "when { principal.hasTag(\"team\") && principal.getTag(\"team\") == \"x\" }"),
            ("@approval(\"reviewers=dba\") forbid", "unless { context.approvals.contains(\"dba\") }"),
            (
                "@approval(\"reviewers=sec\") forbid",
                "when { context.statement_count > 1 } unless { context.approvals.contains(\"sec\") }",
            ),
        ])
    ];
    (principal, action, resource, rest).prop_map(|(principal, action, resource, (effect, condition))| {
        format!("{effect}({principal}, {action}, {resource}) {condition};\n")
    })
}

/// Some policies, half of the time on top of a permit for everything, so that forbids and approvals decide.
fn policies() -> impl Strategy<Value = String> {
    let base = "permit(principal, action in [Action::\"read\", Action::\"write\"], resource);\n";
    (any::<bool>(), prop::collection::vec(policy(), 1..10)).prop_map(move |(permitted, policies)| {
        format!("{}{}", if permitted { base } else { "" }, policies.concat())
    })
}

fn question() -> impl Strategy<Value = Case> {
    let table = prop::sample::select(vec!["a", "b", "c"]);
    let access = (prop::sample::select(vec!["select", "insert", "delete"]), table);
    let principal = (
        0..2u8,
        prop::collection::btree_set(prop::sample::select(vec!["g0", "g1"]), 0..3),
        any::<[bool; 2]>(),
    );
    let approvals = prop::collection::btree_set(prop::sample::select(vec!["dba", "sec"]), 0..3);
    let rest = (any::<[bool; 2]>(), 1..3i64, prop::sample::select(vec![0, 20 * 3600]));
    (prop::collection::vec(access, 1..4), principal, approvals, rest).prop_map(
        |(accesses, (subject, groups, [task, team]), approvals, ([has_where, pattern], count, now))| {
            let mut base = case(select(&format!("s{subject}"), "a"));
            base.principal.groups = groups.into_iter().map(str::to_owned).collect();
            base.principal.task = task.then(|| "t".to_owned());
            if team {
                base.principal.claims.insert("team".to_owned(), "x".to_owned());
            }
            let path = |table: &str| {
                vec![("Database", "d"), ("Schema", "s"), ("Table", table)]
                    .into_iter()
                    .map(|(k, n)| (k.to_owned(), n.to_owned()))
                    .collect()
            };
            let mut one = base.operation.accesses.remove(0);
            base.operation.accesses = accesses
                .iter()
                .map(|(action, table)| {
                    (one.action, one.path) = ((*action).to_owned(), path(table));
                    one.clone()
                })
                .collect();
            base.operation.facts.insert("has_where".to_owned(), Fact::Bool(has_where));
            base.operation.facts.insert("statement_count".to_owned(), Fact::Long(count));
            base.approvals = approvals.into_iter().map(str::to_owned).collect();
            base.patterns = pattern.then(|| "p".to_owned()).into_iter().collect::<BTreeSet<_>>();
            base.now = now;
            base
        },
    )
}

fn full<'a>(question: &Question<'a>) -> (Judged<'a>, Decision) {
    let judged = question.judge(question.input.approvals, Extent::Everything).unwrap();
    let decision = question.decide(&judged, Extent::Everything).unwrap();
    (judged, decision)
}

/// Apart from how long it lasts: that depends on which policies were asked.
fn undated(decision: Decision) -> Decision {
    match decision {
        Decision::Allow(allowed) => Decision::Allow(Allowed { lasts: None, ..allowed }),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    // Asked twice in two orders, so that the second round is answered from the cache wherever that is allowed.
    #[test]
    fn sliced_and_cached_equals_full(
        policies in policies(),
        cases in prop::collection::vec(question(), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let engine = engine(&policies);
        let loaded = engine.current();
        for case in cases.iter().chain(cases.iter().rev()) {
            let asked = runtime.block_on(asked(case));
            let input = asked.input();
            let question = Question::new(&loaded, &input).unwrap();
            let (everything, expected) = full(&question);
            let sliced = question.judge(input.approvals, Extent::Slice).unwrap();
            for ((_, slice), (_, all)) in sliced.accesses.iter().zip(&everything.accesses) {
                prop_assert_eq!(slice, all);
            }
            let got = runtime.block_on(engine.decide(&input)).unwrap();
            if let Decision::Allow(allowed) = &got {
                let lasts = (!sliced.reads_time).then(|| engine.revision());
                prop_assert_eq!(&allowed.lasts, &lasts);
            }
            prop_assert_eq!(format!("{:?}", undated(got)), format!("{:?}", undated(expected)));
        }
    }
}

#[tokio::test]
async fn the_random_world_reaches_every_answer() {
    // The property above would be idle if its world only denied.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut allow, mut hold, mut error) = (0, 0, 0);
    for _ in 0..60 {
        let policies = policies().new_tree(&mut runner).unwrap().current();
        let case = question().new_tree(&mut runner).unwrap().current();
        match engine(&policies).decide(&asked(&case).await.input()).await.unwrap() {
            Decision::Allow(_) => allow += 1,
            Decision::Hold(_) => hold += 1,
            Decision::Deny(denial) if denial.code == crate::error::DenialCode::PolicyError => error += 1,
            Decision::Deny(_) => {}
        }
    }
    assert!(allow > 2 && hold > 0 && error > 2, "{allow} {hold} {error}");
}
