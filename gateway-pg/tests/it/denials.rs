//! Refusals: clear words, true transaction state, nothing of it done.

use crate::support::{gateway, guarded};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::Resource;
use gateway_core::policy::{Allowed, Decision, FnPolicy, PolicyEngine, PolicyInput};
use testkit::raw_pg::{self, RawPg};
use tokio_postgres::{NoTls, SimpleQueryMessage};

#[test]
fn a_denial_names_rule_reason_and_hint_and_the_session_goes_on() {
    let gateway = gateway(guarded(), &[]);
    gateway.block_on(async {
        let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let error = client.batch_execute("DROP TABLE orders").await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "42501");
        assert!(error.message().contains("dropping is forbidden"));
        assert!(error.detail().unwrap().contains("rule: no-drop"));
        assert_eq!(error.hint(), Some("ask a dba"));
        assert!(client.prepare("DROP TABLE orders").await.is_err(), "Parse is judged too");
        assert!(client.execute("DROP TABLE orders", &[]).await.is_err());
        let one = client.simple_query("SELECT 1").await.unwrap();
        assert!(one.iter().any(|m| matches!(m, SimpleQueryMessage::Row(_))));
    });
    assert_eq!(gateway.directly("SELECT count(*) > 0 FROM orders"), "t");
}

#[test]
fn a_denial_inside_a_transaction_fails_it_at_the_server() {
    let gateway = gateway(guarded(), &[]);
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        client.log_in("agent", &gateway.database, crate::support::TOKEN).await.unwrap();
        client.query("BEGIN").await.unwrap();
        client.query("UPDATE products SET name = 'half' WHERE id = 1").await.unwrap();
        let denied = client.query("DROP TABLE orders").await.unwrap();
        assert_eq!(denied.error().unwrap().code(), "42501");
        assert_eq!(denied.frames.last().unwrap().transaction_status().unwrap(), b'E');
        let after = client.query("SELECT 1").await.unwrap();
        assert_eq!(after.error().unwrap().code(), "25P02");
        client.query("COMMIT").await.unwrap();
    });
    assert_ne!(
        gateway.directly("SELECT name FROM products WHERE id = 1"),
        "half",
        "BEGIN; denied; COMMIT commits nothing"
    );
}

#[test]
fn one_denied_statement_denies_its_whole_message() {
    let gateway = gateway(guarded(), &[]);
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        client.log_in("agent", &gateway.database, crate::support::TOKEN).await.unwrap();
        let sql = "UPDATE products SET name = 'half' WHERE id = 1; DROP TABLE orders";
        assert_eq!(client.query(sql).await.unwrap().error().unwrap().code(), "42501");
        // The same as a pipeline up to one Sync.
        let mut wire = Vec::new();
        for sql in ["UPDATE products SET name = 'half' WHERE id = 1", "DROP TABLE orders"] {
            wire.extend(raw_pg::parse("", sql, &[]));
            wire.extend(raw_pg::Bind::default().encode());
            wire.extend(raw_pg::execute("", 0));
        }
        wire.extend(raw_pg::sync());
        let answer = client.exchange(&wire).await.unwrap();
        assert_eq!(answer.error().unwrap().code(), "42501");
        assert_eq!(answer.tags(), "EZ");
    });
    assert_ne!(gateway.directly("SELECT name FROM products WHERE id = 1"), "half");
}

#[test]
fn after_a_flush_a_denial_rolls_back_what_was_forwarded() {
    let gateway = gateway(guarded(), &[]);
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        client.log_in("agent", &gateway.database, crate::support::TOKEN).await.unwrap();
        let mut wire = raw_pg::parse("", "UPDATE products SET name = 'half' WHERE id = 1", &[]);
        wire.extend(raw_pg::Bind::default().encode());
        wire.extend(raw_pg::execute("", 0));
        wire.extend(raw_pg::flush());
        client.send(&wire).await.unwrap();
        let tags: Vec<u8> = vec![
            client.frame().await.unwrap().tag,
            client.frame().await.unwrap().tag,
            client.frame().await.unwrap().tag,
        ];
        assert_eq!(tags, b"12C");
        let mut wire = raw_pg::parse("", "DROP TABLE orders", &[]);
        wire.extend(raw_pg::sync());
        let answer = client.exchange(&wire).await.unwrap();
        assert_eq!(answer.tags(), "EZ");
        assert_eq!(answer.frames.last().unwrap().transaction_status().unwrap(), b'I');
    });
    assert_ne!(gateway.directly("SELECT name FROM products WHERE id = 1"), "half");
}

/// Nothing may be made in `public`.
fn nothing_new_in_public() -> impl PolicyEngine + 'static {
    FnPolicy(|input: &PolicyInput<'_>| {
        let made = input.operation.accesses.iter().filter(|access| access.action.as_str() == "create");
        let schema = |resource: &Resource| resource.path().get(2).is_some_and(|(_, name)| name == "public");
        match made.into_iter().any(|access| schema(&access.resource)) {
            true => Decision::Deny(Denial::new(DenialCode::Forbidden, "nothing is made in public")),
            false => Decision::Allow(Allowed::default()),
        }
    })
}

/// A view of something temporary is made in the temporary schema, which the server says in a notice.
#[test]
fn a_view_of_something_temporary_is_judged_as_temporary() {
    made(&[
        ("CREATE VIEW seen AS SELECT id FROM products", false),
        ("CREATE TEMP TABLE mine (id integer)", true),
        ("CREATE VIEW seen AS SELECT id FROM mine", true),
        ("CREATE VIEW further AS SELECT id FROM seen", true),
        ("CREATE TABLE copied AS SELECT id FROM seen", false),
    ]);
}

/// What is renamed or moved is new where it then is.
#[test]
fn new_names_and_schemas_are_judged() {
    made(&[
        ("CREATE SCHEMA own", true),
        ("CREATE TABLE own.t (id integer)", true),
        ("ALTER TABLE own.t RENAME TO u", true),
        ("ALTER TABLE own.u RENAME COLUMN id TO number", true),
        ("ALTER TABLE own.u SET SCHEMA public", false),
        ("ALTER TABLE products RENAME TO wares", false),
        ("CREATE VIEW own.v AS SELECT number FROM own.u", true),
        ("ALTER VIEW own.v SET SCHEMA public", false),
        ("CREATE FUNCTION own.f() RETURNS integer LANGUAGE sql AS 'SELECT 1'", true),
        ("ALTER FUNCTION own.f() SET SCHEMA public", false),
        ("CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'", false),
        ("CREATE TYPE own.kind AS ENUM ('a')", true),
        ("ALTER TYPE own.kind SET SCHEMA public", false),
        ("ALTER SCHEMA own RENAME TO owned", true),
    ]);
}

/// A type that is only announced has no meaning to `to_regtype`, which fails; others of its name still mean what they do.
#[test]
fn types_are_judged_beside_one_that_is_only_announced() {
    let gateway = gateway(nothing_of(&["guarded", "pg_temp"]), &[]);
    gateway.directly(
        "CREATE TYPE public.announced; CREATE SCHEMA guarded; CREATE TYPE guarded.announced AS ENUM ('a');
         CREATE SCHEMA fine; CREATE TYPE fine.announced AS ENUM ('a'); GRANT USAGE ON SCHEMA guarded, fine TO PUBLIC;",
    );
    gateway.directly(&format!("GRANT TEMPORARY ON DATABASE {} TO app", gateway.database));
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        client.log_in("agent", &gateway.database, crate::support::TOKEN).await.unwrap();
        for (sql, error) in [
            ("SELECT 'a'::announced", Some("is only a shell")),
            ("SELECT 'a'::public.announced", Some("is only a shell")),
            ("SELECT 'a'::fine.announced", None),
            ("SELECT 'a'::guarded.announced", Some("nothing of guarded")),
            ("SET search_path = fine, guarded, public", None),
            ("SELECT 'a'::announced", None),
            ("SET search_path = guarded, fine, public", None),
            ("SELECT 'a'::announced", Some("nothing of guarded")),
            ("CREATE DOMAIN pg_temp.announced AS text", None),
            ("SELECT 'a'::announced", Some("nothing of pg_temp")),
            ("SELECT 'a'::pg_temp.announced", Some("nothing of pg_temp")),
        ] {
            let told = client.query(sql).await.unwrap().error().map(|e| e.to_string());
            match (&told, error) {
                (None, None) => {}
                (Some(told), Some(error)) => assert!(told.contains(error), "{sql}: {told}"),
                _ => panic!("{sql}: {told:?}"),
            }
        }
    });
}

/// Nothing of these schemas may be called; temporary ones have a number.
fn nothing_of(schemas: &'static [&'static str]) -> impl PolicyEngine + 'static {
    FnPolicy(move |input: &PolicyInput<'_>| {
        let calls = input.operation.accesses.iter().filter(|access| access.action.as_str() == "call");
        let schema = |resource: &Resource| {
            let (_, name) = resource.path().get(2)?;
            schemas.iter().copied().find(|schema| name.starts_with(schema))
        };
        match calls.into_iter().find_map(|access| schema(&access.resource)) {
            Some(schema) => {
                Decision::Deny(Denial::new(DenialCode::Forbidden, format!("nothing of {schema} is called")))
            }
            None => Decision::Allow(Allowed::default()),
        }
    })
}

/// Runs statements of which some are denied.
fn made(statements: &[(&str, bool)]) {
    let gateway = gateway(nothing_new_in_public(), &[]);
    gateway.directly(&format!("GRANT CREATE ON DATABASE {} TO app", gateway.database));
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        client.log_in("agent", &gateway.database, crate::support::TOKEN).await.unwrap();
        for (sql, made) in statements {
            let error = client.query(sql).await.unwrap().error();
            assert_eq!(error.is_none(), *made, "{sql}: {error:?}");
            assert!(error.is_none_or(|e| e.to_string().contains("nothing is made in public")), "{sql}");
        }
    });
}
