//! The Cedar engine from outside, as a composer uses it: files in, decisions and diagnostics out.
#![cfg(feature = "cedar")]
// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::OnceLock;

use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::Resource;
use gateway_core::policy::cases::{Case, CaseFile, run_cases};
use gateway_core::policy::cedar::{CedarEngine, Diagnostic, ExplainedAnswer, PolicyFile, Severity};
use gateway_core::policy::{Allowed, Decision, FnPolicy, Obligation, PolicyEngine, PolicyInput};

const POSTGRES: &str = include_str!("../../gateway-pg/schema/postgres.cedarschema");
const SHOP: &str = include_str!("policy/shop.cedar");

fn shop() -> &'static CedarEngine {
    static SHOP_ENGINE: OnceLock<CedarEngine> = OnceLock::new();
    SHOP_ENGINE.get_or_init(load_shop)
}

fn load_shop() -> CedarEngine {
    let engine = CedarEngine::builder()
        .schema_fragment("postgres.cedarschema", POSTGRES)
        .policy(PolicyFile::new("shop.cedar", SHOP))
        .build()
        .unwrap();
    assert_eq!(*engine.warnings(), []);
    engine
}

fn cases() -> Vec<Case> {
    toml::from_str::<CaseFile>(include_str!("policy/shop.toml")).unwrap().into_cases()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

async fn decide(case: &Case) -> Decision {
    shop().decide(&case.question().await.unwrap().input()).await.unwrap()
}

async fn denial(case: &Case) -> Denial {
    match decide(case).await {
        Decision::Deny(denial) => denial,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_shop_cases_hold() {
    let results = run_cases(shop(), &cases()).await.unwrap();
    let failed: Vec<_> = results.iter().filter(|result| !result.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(results.len() >= 15);
}

#[tokio::test]
async fn a_wrong_expectation_is_reported() {
    let everybody = FnPolicy(|_: &PolicyInput<'_>| Decision::Allow(Allowed::default()));
    let results = run_cases(&everybody, &[case("the planner does not write"), case("the planner reads")])
        .await
        .unwrap();
    assert!(!results[0].passed);
    assert!(
        !results[1].passed && results[1].detail.as_ref().unwrap().contains("planner-reads"),
        "{results:?}"
    );
}

#[tokio::test]
async fn a_hold_carries_its_parameters() {
    let Decision::Hold(rules) = decide(&case("two rules ask together")).await else { panic!() };
    assert_eq!(rules.len(), 2);
    assert_eq!((rules[0].name.as_str(), rules[0].quorum, rules[0].ttl.as_secs()), ("dba", 2, 900));
    assert_eq!((rules[1].name.as_str(), rules[1].reviewers.as_str()), ("risky", "security"));
}

#[tokio::test]
async fn permits_bring_their_duties() {
    let mut asked = case("the planner reads");
    let rows = vec![Obligation::LimitRows(10_000)];
    assert!(matches!(decide(&asked).await, Decision::Allow(allowed) if *allowed.obligations == *rows));
    asked.principal.phase = gateway_core::identity::Phase::Execute;
    let rewrite = vec![Obligation::Rewrite("limit:1000".to_owned())];
    assert!(matches!(decide(&asked).await, Decision::Allow(allowed) if *allowed.obligations == *rewrite));
}

#[tokio::test]
async fn a_denial_tells_what_to_do_and_names_what_was_named() {
    let mut asked = case("nobody is asked where a plain forbid stands too");
    asked.operation.statement = "DELETE FROM Orders".to_owned();
    let told = denial(&asked).await;
    assert_eq!(told.code, DenialCode::Forbidden);
    assert!(told.message.starts_with("`delete` on table `orders` is forbidden: "), "{}", told.message);
    assert!(told.message.contains("a change without WHERE touches every row"));
    assert_eq!(told.hint.as_deref(), Some("add a WHERE clause that depends on the rows"));
}

#[tokio::test]
async fn a_denial_does_not_name_what_a_view_led_to() {
    let mut asked = case("the planner does not write");
    asked.operation.statement = "insert into v values (1)".to_owned();
    let told = denial(&asked).await;
    assert_eq!(told.message, "no rule permits `insert` on a table that it touches");
    asked.operation.statement = "insert into orders values (1)".to_owned();
    assert_eq!(denial(&asked).await.message, "no rule permits `insert` on table `orders`");
}

#[tokio::test]
async fn a_failing_policy_is_named_and_its_cause_stays_inside() {
    let told = denial(&case("a rule that cannot be evaluated denies")).await;
    assert_eq!(told.code, DenialCode::PolicyError);
    assert!(!told.message.contains("overflow") && told.cause().unwrap().contains("overflow"));
}

#[tokio::test]
async fn facts_outside_the_schema_are_explained_to_the_log() {
    let asked = case("a fact the schema does not declare denies");
    let error = shop().decide(&asked.question().await.unwrap().input()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("declares no fact `has_were` for action `select`; did you mean `has_where`?")
    );
}

#[tokio::test]
async fn labels_are_masked_unless_permitted() {
    let table = |name: &str| {
        Resource::target("shop").child("Database", "shop").child("Schema", "public").child("Table", name)
    };
    let labels = [
        Resource::target("shop").child("DataClass", "payment_card"),
        Resource::target("shop").child("DataClass", "email"),
        table("payments").child("Column", "amount"),
        table("users").child("Column", "email"),
        Resource::target("shop").child("Nonsense", "x"),
    ];
    let mut asked = case("the planner reads");
    let engine = shop();
    assert_eq!(engine.reveal(&asked.question().await.unwrap().input(), &labels).await.unwrap(), [false; 5]);
    asked.principal.groups.insert("finance".to_owned());
    let finance = asked.question().await.unwrap();
    for _ in 0..2 {
        let seen = engine.reveal(&finance.input(), &labels).await.unwrap();
        assert_eq!(seen, [true, false, true, false, false]);
        assert_eq!(engine.reveal(&finance.input(), &labels[..3]).await.unwrap(), [true, false, true]);
    }
}

#[tokio::test]
async fn an_explanation_shows_rules_with_their_place() {
    let asked = case("an executor's delete waits for a dba");
    let explained = shop().explain(&asked.question().await.unwrap().input()).unwrap();
    assert_eq!(explained.answer, ExplainedAnswer::Hold);
    assert_eq!(explained.approvals_needed[0].name, "dba");
    let first = &explained.accesses[0];
    assert_eq!((first.rules[0].id.as_str(), first.rules[0].effect), ("writes-need-dba", "forbid"));
    let line = SHOP.lines().position(|line| line.contains("writes-need-dba")).unwrap() + 1;
    assert_eq!((first.rules[0].file.as_str(), first.rules[0].line), ("shop.cedar", line));
    assert!(first.rules[0].text.contains("context.approvals.contains"));
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json.pointer("/accesses/0/context/has_where"), Some(&serde_json::Value::Bool(true)));
    assert_eq!(json.pointer("/accesses/1/allowed"), Some(&serde_json::Value::Bool(true)));
}

#[tokio::test]
async fn without_policies_everything_is_denied() {
    let engine = CedarEngine::builder().schema_fragment("postgres", POSTGRES).build().unwrap();
    let asked = case("anybody may connect");
    let asked = asked.question().await.unwrap();
    assert!(matches!(engine.decide(&asked.input()).await, Ok(Decision::Deny(_))));
}

fn findings(policies: &str) -> Vec<Diagnostic> {
    shop().validate(&[PolicyFile::new("t.cedar", policies)])
}

#[test]
fn what_is_wrong_is_refused_with_its_place_and_a_remedy() {
    let approval = "@approval(\"reviewers=dba\")";
    let lifted = "unless { context.approvals.contains(\"dba\") }";
    let write = "principal, action in Action::\"write\", resource";
    for (policies, line, message, help) in [
        ("\npermit(principal action, resource);", 2, "unexpected token", ""),
        (
            "permit(principal == ?principal, action, resource);",
            1,
            "templates are not supported",
            "write the principal",
        ),
        (
            "permit(principal, action == Action::\"select\", resource)\nwhen { context.has_were };",
            2,
            "`has_were`",
            "did you mean `has_where`?",
        ),
        ("permit(principal, action == Action::\"selct\", resource);", 1, "selct", "select"),
        ("permit(principal, action, resource is Tabel);", 1, "Tabel", "Table"),
        (
            "permit(principal, action == Action::\"select\", resource is Server);",
            1,
            "unable to find an applicable action",
            "never fire",
        ),
        (
            "permit(principal, action, resource) when { principal.subject == \"a\" && false };",
            1,
            "policy is impossible",
            "never fire",
        ),
        ("permit(principal, action, resource) when { principal.phase == Phase::\"plann\" };", 1, "plann", ""),
        (
            "@id(\"x\") permit(principal, action, resource);\n@id(\"x\") permit(principal, action, resource);",
            2,
            "already used at t.cedar:1",
            "`@id`",
        ),
        (
            "@aproval(\"x\")\nforbid(principal, action, resource);",
            1,
            "unknown annotation `@aproval`",
            "`@approval`",
        ),
        (
            &format!("{approval} forbid({write});"),
            1,
            "nothing lifts this rule once `dba`",
            "unless { context.approvals",
        ),
        (
            &format!("{approval} forbid({write}) when {{ context.approvals.contains(\"dba\") }};"),
            1,
            "nothing lifts this rule",
            "unless",
        ),
        (
            &format!("{approval} forbid(principal, action, resource) {lifted};"),
            1,
            "covers `reveal`",
            "name the actions",
        ),
        (&format!("{approval} permit({write});"), 1, "does nothing on a `permit`", "forbid"),
        (
            &format!(
                "{approval} forbid({write}) {lifted};\n@approval(\"reviewers=dba; quorum=2\") forbid({write}) {lifted};"
            ),
            2,
            "other parameters at t.cedar:1",
            "name=",
        ),
        (
            "@limit_rows(\"5\") permit(principal, action == Action::\"reveal\", resource);",
            1,
            "covers only `reveal`",
            "permit of the statement",
        ),
        (
            "permit(principal, action, resource) when { principal.subject == \"\u{202e}x\" };",
            1,
            "BIDI",
            "direction",
        ),
    ] {
        let found = findings(policies);
        let errors: Vec<_> = found.iter().filter(|d| d.severity == Severity::Error).collect();
        let fits = |d: &&&Diagnostic| {
            d.file == "t.cedar"
                && d.line == line
                && d.message.contains(message)
                && d.help.as_deref().unwrap_or_default().contains(help)
        };
        assert!(errors.iter().any(|d| fits(&d)), "{policies}\n{found:#?}");
    }
}

#[test]
fn what_is_only_doubtful_is_a_warning() {
    let write = "principal, action in Action::\"write\", resource";
    let rewrites = format!("@rewrite(\"role:a\") permit({write});\n@rewrite(\"role:b\") permit({write});");
    let unknown = "permit(principal, action, resource) when { context.approvals.contains(\"dab\") };\n\
         @approval(\"reviewers=dba\") forbid(principal, action in Action::\"write\", resource) \
         unless { context.approvals.contains(\"dba\") };";
    for (policies, message, help) in [
        (rewrites.as_str(), "excludes that of `t.cedar:2`", "equal"),
        (unknown, "approval `dab`", "did you mean `dba`?"),
    ] {
        let found = findings(policies);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(
            found[0].message.contains(message) && found[0].help.as_ref().unwrap().contains(help),
            "{found:#?}"
        );
    }
}

#[tokio::test]
async fn rewrites_that_exclude_each_other_deny() {
    let permit = "permit(principal, action in Action::\"read\", resource);";
    let policies = format!("@rewrite(\"role:a\") {permit}\n@rewrite(\"role:b\") {permit}");
    let engine = CedarEngine::builder()
        .schema_fragment("postgres", POSTGRES)
        .policy(PolicyFile::new("t.cedar", policies))
        .build()
        .unwrap();
    let asked = case("the planner reads");
    let asked = asked.question().await.unwrap();
    let Ok(Decision::Deny(denial)) = engine.decide(&asked.input()).await else { panic!() };
    assert_eq!(denial.code, DenialCode::ObligationUnmet);
}

#[test]
fn two_rules_on_one_line_have_two_ids() {
    let policies = "permit(principal, action, resource); forbid(principal, action, resource);";
    assert_eq!(findings(policies), []);
}

#[test]
fn a_finding_prints_as_one_line() {
    let found =
        findings("@id(\"r\")\npermit(principal, action == Action::\"select\", resource) when { context.x };");
    assert!(found[0].to_string().starts_with("error: t.cedar:2:"), "{}", found[0]);
    assert!(found[0].to_string().contains(": rule `r`: "), "{}", found[0]);
}

#[test]
fn long_chains_do_not_exhaust_the_stack() {
    // The deepest trees that 32 KiB can hold: two bytes a level.
    for chain in [format!("1{} > 0", "+1".repeat(16_000)), format!("context{}", ".a".repeat(16_000))] {
        let found = findings(&format!("permit(principal, action, resource) when {{ {chain} }};"));
        assert!(found[0].message.contains("operators deep"), "{found:?}");
    }
    let fine = vec!["context.peer == \"x\""; 400].join(" || ");
    assert_eq!(findings(&format!("permit(principal, action, resource) when {{ {fine} }};")), []);
    let long = format!(
        "permit(principal, action, resource) when {{ principal.subject == \"{}\" }};",
        "x".repeat(40_000)
    );
    assert!(findings(&long)[0].message.contains("longer than"));
}

fn blocks(language: &str) -> Vec<String> {
    let page = include_str!("../../docs/policy.md");
    let opening = format!("```{language}\n");
    page.split(&opening).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_examples_of_the_documentation_work() {
    let policies = blocks("cedar");
    assert!(policies.len() >= 6);
    let files: Vec<_> =
        policies.iter().enumerate().map(|(i, text)| PolicyFile::new(format!("{i}.md"), text)).collect();
    assert_eq!(shop().validate(&files), []);
    let cases = toml::from_str::<CaseFile>(&blocks("toml").concat()).unwrap().into_cases();
    let engine =
        CedarEngine::builder().schema_fragment("postgres", POSTGRES).policies(files).build().unwrap();
    let results = run_cases(&engine, &cases).await.unwrap();
    assert!(!results.is_empty() && results.iter().all(|result| result.passed), "{results:#?}");
}
