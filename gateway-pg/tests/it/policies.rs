//! The shipped policy language on real statements: planner reads, executor writes after approval, some may see e-mails.

use std::sync::Arc;

use gateway_core::approval::{Approver, Verdict};
use gateway_core::masking::DataClass;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use testkit::psql_script;
use tokio_postgres::NoTls;

use crate::support::{Gateway, gateway_to, label, shop};

fn policies(database: &str) -> String {
    r#"
@id("connect") permit (principal, action == Action::"connect", resource == Database::"shop/DB");
@id("read") permit (principal, action in [Action::"read", Action::"transaction", Action::"explain", Action::"prepare", Action::"show"], resource in Database::"shop/DB");
@id("settings") permit (principal, action == Action::"set", resource in Target::"shop") when { ["search_path", "statement_timeout"].contains(resource.name) };
@id("write") permit (principal, action in Action::"write", resource in Schema::"shop/DB/public");
@id("no-ledger") @reason("the ledger is append-only") @hint("post a correcting entry")
forbid (principal, action in [Action::"update", Action::"delete", Action::"truncate"], resource == Table::"shop/DB/public/ledger");
@id("deletes-held") @approval("reviewers=dba; quorum=1; ttl=15m")
forbid (principal, action == Action::"delete", resource) unless { context.approvals.contains("dba") };
@id("emails") permit (principal, action == Action::"reveal", resource == Column::"shop/DB/public/customers/email");
@id("capped") @limit_rows("50") permit (principal, action == Action::"select", resource == Table::"shop/DB/public/order_items");
@id("short") @rewrite("limit:7") permit (principal, action == Action::"select", resource == Table::"shop/DB/public/products");
"#
    .replace("DB", database)
}

fn cedar() -> (Gateway, Arc<CedarEngine>) {
    let database = shop();
    let engine = CedarEngine::builder()
        .schema_fragment("postgres.cedarschema", gateway_pg::SCHEMA)
        .policy(PolicyFile::new("shop.cedar", policies(&database)))
        .build()
        .unwrap();
    let engine = Arc::new(engine);
    let labels = [
        label(&database, "public.customers.email", &DataClass::EMAIL),
        label(&database, "public.customers.ssn", &DataClass::US_SSN),
    ];
    let gateway = gateway_to(&database, Shared(Arc::clone(&engine)), &labels);
    (gateway, engine)
}

/// The engine behind a handle that the test keeps, to reload it.
#[derive(Debug)]
struct Shared(Arc<CedarEngine>);

#[async_trait::async_trait]
impl gateway_core::policy::PolicyEngine for Shared {
    async fn decide(
        &self,
        input: &gateway_core::policy::PolicyInput<'_>,
    ) -> Result<gateway_core::policy::Decision, gateway_core::policy::PolicyError> {
        self.0.decide(input).await
    }

    async fn reveal(
        &self,
        input: &gateway_core::policy::PolicyInput<'_>,
        labels: &[gateway_core::operation::Resource],
    ) -> Result<Vec<bool>, gateway_core::policy::PolicyError> {
        self.0.reveal(input, labels).await
    }

    fn revision(&self) -> gateway_core::policy::Revision {
        self.0.revision()
    }
}

fn psql(gateway: &Gateway, sql: &str) -> String {
    match psql_script(&gateway.url(), sql) {
        Ok(out) => out,
        Err(error) => error.to_string(),
    }
}

#[test]
fn cedar_judges_real_statements() {
    let (gateway, _engine) = cedar();
    assert_eq!(psql(&gateway, "SELECT count(*) FROM customers"), "200");
    let described = psql(&gateway, "\\d customers");
    assert!(described.contains("email"), "catalog queries of psql are reads: {described}");
    assert_eq!(psql(&gateway, "SELECT 1"), "1");
    psql(&gateway, "UPDATE products SET stock = 5 WHERE id = 1");
    assert_eq!(gateway.directly("SELECT stock FROM products WHERE id = 1"), "5");
    let denied = psql(&gateway, "UPDATE ledger SET debit_cents = 1");
    assert!(
        denied.contains("the ledger is append-only")
            && denied.contains("no-ledger")
            && denied.contains("correcting"),
        "{denied}"
    );
    for (sql, word) in [
        ("DROP TABLE products", "drop"),
        ("SET role postgres", "set"),
        ("SELECT pg_sleep(0)", "call"),
        ("SELECT pg_read_file('/etc/passwd')", "pg_read_file"),
        ("COPY products TO PROGRAM 'cat'", "copy_program"),
        ("DO $$ BEGIN END $$", "code could read"),
        ("CREATE TABLE x (a int)", "create"),
        ("ALTER ROLE app PASSWORD 'x'", "alter"),
        ("WITH d AS (UPDATE ledger SET debit_cents = 1 RETURNING 1) SELECT * FROM d", "append-only"),
        ("EXPLAIN ANALYZE UPDATE ledger SET debit_cents = 1", "append-only"),
        ("PREPARE p AS UPDATE ledger SET debit_cents = 1; EXECUTE p", "append-only"),
    ] {
        let out = psql(&gateway, sql);
        assert!(out.contains("gateway:") && out.contains(word), "{sql}: {out}");
    }
}

#[test]
fn caps_rewrites_and_reveals() {
    let (gateway, _engine) = cedar();
    assert_eq!(psql(&gateway, "SELECT id FROM products").lines().count(), 7, "rewritten to LIMIT 7");
    gateway.block_on(async {
        let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let two = client.batch_execute("SELECT id FROM products; SELECT 1").await;
        assert!(two.is_err(), "a limit that cannot be added to one of several statements denies them");
    });
    let capped = psql(&gateway, "SELECT * FROM order_items");
    assert!(capped.contains("limit on rows"), "{capped}");
    assert_eq!(psql(&gateway, "SELECT * FROM order_items LIMIT 10").lines().count(), 10);
    let row = psql(&gateway, "SELECT email, ssn FROM customers WHERE id = 1");
    assert!(row.contains('@') && row.contains("[REDACTED:US_SSN]"), "{row}");
}

#[test]
fn inference_is_denied_permitted_or_held() {
    let (gateway, engine) = cedar();
    for sql in [
        "SELECT id FROM customers WHERE ssn LIKE '107%'",
        "SELECT id FROM customers ORDER BY email",
        "SELECT length(email) FROM customers",
    ] {
        let denied = psql(&gateway, sql);
        assert!(denied.contains("no rule permits"), "{sql}: {denied}");
    }
    let more = r#"
@id("by-mail") permit (principal, action == Action::"filter", resource) when { resource has classes && resource.classes.contains("email") };
@id("by-number") permit (principal, action == Action::"filter", resource == Column::"shop/DB/public/customers/ssn");
@id("numbers-held") @approval("reviewers=dba")
forbid (principal, action in Action::"infer", resource == Column::"shop/DB/public/customers/ssn") unless { context.approvals.contains("dba") };
"#
    .replace("DB", &gateway.database);
    let all =
        policies(&gateway.database).replace("reviewers=dba; quorum=1; ttl=15m", "reviewers=dba") + &more;
    engine.reload(&[PolicyFile::new("shop.cedar", all)]).unwrap();
    let mail = gateway.directly("SELECT email FROM customers WHERE id = 1");
    assert_eq!(psql(&gateway, &format!("SELECT id FROM customers WHERE email = '{mail}'")), "1");
    assert!(psql(&gateway, "SELECT id FROM customers ORDER BY email").contains("`order` on column `email`"));
    gateway.block_on(async {
        let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut events = gateway.approver.subscribe();
        let sql = "SELECT id FROM customers WHERE ssn = '107-12-0132'";
        let (found, _) =
            tokio::join!(client.query_one(sql, &[]), gateway.review(&mut events, Verdict::Approve));
        assert_eq!(found.unwrap().get::<_, i32>(0), 1);
    });
}

#[test]
fn a_stricter_reload_holds_for_live_sessions() {
    let (gateway, engine) = cedar();
    gateway.block_on(async {
        let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let email = client.prepare("SELECT email FROM customers WHERE id = 1").await.unwrap();
        assert!(client.query_one(&email, &[]).await.unwrap().get::<_, String>(0).contains('@'));
        let stricter =
            policies(&gateway.database).replace("@id(\"emails\") permit", "@id(\"emails\") forbid");
        engine.reload(&[PolicyFile::new("shop.cedar", stricter)]).unwrap();
        assert_eq!(client.query_one(&email, &[]).await.unwrap().get::<_, String>(0), "[REDACTED:EMAIL]");
        let none = "@id(\"connect\") permit (principal, action == Action::\"connect\", resource);";
        engine.reload(&[PolicyFile::new("shop.cedar", none)]).unwrap();
        assert!(client.query_one(&email, &[]).await.is_err());
        assert!(engine.reload(&[PolicyFile::new("broken.cedar", "permit (")]).is_err());
    });
}

#[test]
fn a_stricter_reload_ends_results_that_are_computed_from_what_it_hides() {
    let (gateway, engine) = cedar();
    let computed = r#"
@id("computed") permit (principal, action == Action::"compute", resource == Column::"shop/DB/public/customers/email");
"#
    .replace("DB", &gateway.database);
    let policies = policies(&gateway.database) + &computed;
    engine.reload(&[PolicyFile::new("shop.cedar", policies.clone())]).unwrap();
    gateway.block_on(async {
        let (mut client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let transaction = client.transaction().await.unwrap();
        let sql = "SELECT md5(email), length(email) FROM customers";
        let portal = transaction.bind(sql, &[]).await.unwrap();
        let first = transaction.query_portal(&portal, 1).await.unwrap();
        let mail = gateway.directly("SELECT md5(email) FROM customers WHERE id = 1");
        assert_eq!(first[0].get::<_, String>(0), mail);
        let stricter = policies.replace("@id(\"emails\") permit", "@id(\"emails\") forbid");
        engine.reload(&[PolicyFile::new("shop.cedar", stricter)]).unwrap();
        let error = transaction.query_portal(&portal, 1).await.unwrap_err();
        assert!(error.as_db_error().is_some_and(|e| e.message().contains("protected now")), "{error:?}");
        drop(transaction);
        assert_eq!(
            client.query("SELECT id FROM customers", &[]).await.unwrap().len(),
            200,
            "the session goes on"
        );
    });
}

#[test]
fn approval_rules_hold_and_release() {
    let (gateway, _engine) = cedar();
    gateway.block_on(async {
        let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut events = gateway.approver.subscribe();
        let sql = "DELETE FROM order_items WHERE order_id = 4";
        let (deleted, _) =
            tokio::join!(client.execute(sql, &[]), gateway.review(&mut events, Verdict::Approve));
        assert!(deleted.unwrap() > 0);
    });
    assert!(
        psql(&gateway, "DELETE FROM ledger").contains("append-only"),
        "a plain forbid beside a hold denies; nobody is asked"
    );
}

/// A database without labels under these rules.
fn under(rules: &str) -> Gateway {
    let database = shop();
    let engine = CedarEngine::builder()
        .schema_fragment("postgres.cedarschema", gateway_pg::SCHEMA)
        .policy(PolicyFile::new("rules.cedar", rules.replace("DB", &database)))
        .build()
        .unwrap();
    gateway_to(&database, engine, &[])
}

/// Who may drop and alter what is in a database may not drop all that the shared role owns: no name of it is judged.
#[test]
fn dropping_everything_a_role_owns_is_no_matter_of_one_database() {
    let rules = r#"
@id("all") permit (principal, action, resource in Database::"shop/DB");
@id("connect") permit (principal, action == Action::"connect", resource in Target::"shop");
@id("ledger") forbid (principal, action in Action::"admin", resource == Table::"shop/DB/public/ledger");
"#;
    let gateway = under(rules);
    assert_eq!(psql_script(&gateway.url(), "CREATE TABLE own (id integer); DROP TABLE own").unwrap(), "");
    for sql in [
        "ALTER SCHEMA public RENAME TO other",
        "DROP OWNED BY CURRENT_USER",
        "REASSIGN OWNED BY CURRENT_USER TO CURRENT_USER",
        "DROP TABLE ledger",
    ] {
        let refused = psql_script(&gateway.url(), sql).unwrap_err().to_string();
        assert!(refused.contains("gateway:"), "{sql}: {refused}");
    }
}

/// What the planner keeps of a table's values is no more to be read than the table, labels or none.
#[test]
fn statistics_are_not_read_with_the_catalog() {
    let rules = r#"
@id("read") permit (principal, action in [Action::"read", Action::"connect"], resource in Target::"shop");
@id("ledger") forbid (principal, action, resource == Table::"shop/DB/public/ledger");
"#;
    let gateway = under(rules);
    gateway.directly("ANALYZE ledger");
    for sql in [
        "SELECT histogram_bounds FROM pg_stats WHERE tablename = 'ledger'",
        "SELECT * FROM pg_stats",
        "SELECT s FROM pg_stats s",
        "SELECT most_common_vals[1] FROM pg_stats_ext",
        "SELECT stavalues1 FROM pg_statistic",
        "SELECT data FROM pg_largeobject",
        "SELECT rolpassword FROM pg_authid",
        "COPY pg_shadow TO STDOUT",
        "SELECT 1 FROM pg_hba_file_rules",
    ] {
        let refused = psql(&gateway, sql);
        assert!(refused.contains("no rule permits `call`"), "{sql}: {refused}");
    }
    let told = "SELECT count(*) > 0, max(null_frac) FROM pg_stats WHERE tablename = 'ledger'";
    assert_eq!(psql(&gateway, told), "t|0");
    assert!(psql(&gateway, "\\d ledger").contains("debit_cents"));
    assert_eq!(psql(&gateway, "SELECT rolname FROM pg_roles WHERE rolname = 'app'"), "app");
}
