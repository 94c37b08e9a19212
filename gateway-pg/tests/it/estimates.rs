//! What a held statement would do is told to people before they decide, and looked at again before it runs.

use std::time::Duration;

use gateway_core::approval::{ApprovalEvent, ApprovalEvents, Approver, Estimate, RequestId, Verdict};
use gateway_core::clock::Timestamp;
use gateway_core::policy::{Allowed, ApprovalRule, Decision, FnPolicy, PolicyEngine, PolicyInput};
use gateway_core::recording::Record;
use tokio_postgres::{Client, NoTls};

use crate::support::{Gateway, gateway, gateway_to, reviewer, server, shop};

/// Whatever writes, and whatever calls a function, waits for a dba; so does what names `slow`.
fn careful() -> impl PolicyEngine + 'static {
    FnPolicy(|input: &PolicyInput<'_>| {
        let risky = ["delete", "update", "insert", "truncate", "drop", "call"];
        let risky = input.operation.accesses.iter().any(|a| risky.contains(&a.action.as_str()));
        let free = matches!(&*input.operation.kind, "connect" | "prepare") || input.approvals.contains("dba");
        if !risky || free {
            return Decision::Allow(Allowed::default());
        }
        Decision::Hold(vec![ApprovalRule {
            name: "dba".to_owned(),
            reviewers: "dba".to_owned(),
            quorum: 1,
            ttl: Duration::from_secs(60),
            rules: vec!["hold-risky".to_owned()],
        }])
    })
}

async fn connect(gateway: &Gateway) -> Client {
    let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The next request: its name and what people are told of each operation.
async fn asked(events: &mut ApprovalEvents) -> (RequestId, Vec<Estimate>) {
    loop {
        if let ApprovalEvent::Submitted(request) = events.next().await.unwrap() {
            return (request.id, request.estimates());
        }
    }
}

async fn decide(gateway: &Gateway, id: RequestId, verdict: Verdict) {
    let now = Timestamp::from(std::time::SystemTime::now());
    gateway.approver.review(id, &reviewer().await, verdict, None, now).await.unwrap();
}

/// What people are told of a simple query, which they then refuse.
fn told(gateway: &Gateway, before: &[&str], sql: &str) -> Estimate {
    gateway.block_on(async {
        let client = connect(gateway).await;
        for sql in before {
            client.batch_execute(sql).await.unwrap();
        }
        let mut events = gateway.approver.subscribe();
        let people = async {
            let (id, estimates) = asked(&mut events).await;
            decide(gateway, id, Verdict::Reject).await;
            estimates
        };
        let (ran, estimates) = tokio::join!(client.batch_execute(sql), people);
        assert!(format!("{ran:?}").contains("rejected"), "{ran:?}");
        let [estimate] = <[Estimate; 1]>::try_from(estimates).unwrap();
        estimate
    })
}

fn says(estimate: &Estimate, words: &str) {
    assert!(estimate.notes.iter().any(|note| note.contains(words)), "no `{words}` in {estimate:#?}");
}

/// A shop whose statistics are those of its rows.
fn analysed() -> String {
    let database = shop();
    server().psql(&database, "ANALYZE").unwrap();
    database
}

fn count(gateway: &Gateway, table: &str) -> u64 {
    gateway.directly(&format!("SELECT count(*) FROM {table}")).parse().unwrap()
}

#[test]
fn a_delete_without_a_condition_shows_all_rows() {
    let gateway = gateway_to(&analysed(), careful(), &[]);
    let estimate = told(&gateway, &[], "DELETE FROM order_items");
    assert_eq!(estimate.rows, Some(count(&gateway, "order_items")));
    says(&estimate, "delete on order_items: about ");
    says(&estimate, "deletes from public.order_items: about ");
}

#[test]
fn deletions_that_are_passed_on_are_shown() {
    let gateway = gateway_to(&analysed(), careful(), &[]);
    let estimate = told(&gateway, &[], "DELETE FROM orders WHERE id = 1");
    assert_eq!(estimate.rows, Some(1));
    says(&estimate, "along with it (foreign key, rule or view) deletes from public.order_items: about ");
}

#[test]
fn a_parameter_counts_with_its_value() {
    let database = shop();
    let skewed = "CREATE TABLE events (kind text, n integer);
        INSERT INTO events SELECT CASE WHEN g <= 5 THEN 'rare' ELSE 'common' END, g FROM generate_series(1, 5000) g;
        GRANT ALL ON events TO app; ANALYZE events";
    server().psql(&database, skewed).unwrap();
    let gateway = gateway_to(&database, careful(), &[]);
    gateway.block_on(async {
        let client = connect(&gateway).await;
        let mut events = gateway.approver.subscribe();
        let statement = client.prepare("DELETE FROM events WHERE kind = $1 AND n > $2").await.unwrap();
        let mut rows = Vec::new();
        for kind in ["rare", "common", "quo'te\\"] {
            let people = async {
                let (id, estimates) = asked(&mut events).await;
                decide(&gateway, id, Verdict::Reject).await;
                estimates
            };
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&kind, &0_i32];
            let (ran, estimates) = tokio::join!(client.execute(&statement, &parameters), people);
            assert!(ran.is_err());
            rows.push(estimates[0].rows.unwrap());
        }
        assert!(rows[0] < 100 && rows[1] > 4_000 && rows[2] < 100, "{rows:?}");
    });
    assert_eq!(count(&gateway, "events"), 5_000);
}

#[test]
fn what_execute_stands_for_is_estimated() {
    let gateway = gateway_to(&analysed(), careful(), &[]);
    let prepare = "PREPARE doomed (integer) AS DELETE FROM order_items WHERE order_id >= $1";
    let estimate = told(&gateway, &[prepare], "EXECUTE doomed(0)");
    assert_eq!(estimate.rows, Some(count(&gateway, "order_items")), "{estimate:#?}");
}

#[test]
fn each_statement_of_a_query_is_estimated() {
    let gateway = gateway_to(&analysed(), careful(), &[]);
    gateway.block_on(async {
        let client = connect(&gateway).await;
        let mut events = gateway.approver.subscribe();
        let people = async {
            let (id, estimates) = asked(&mut events).await;
            decide(&gateway, id, Verdict::Reject).await;
            estimates
        };
        let sql = "SELECT 1; DELETE FROM orders WHERE id = 1; UPDATE products SET name = 'x'";
        let (ran, estimates) = tokio::join!(client.batch_execute(sql), people);
        assert!(ran.is_err());
        let rows: Vec<_> = estimates.iter().map(|estimate| estimate.rows).collect();
        assert_eq!(rows, [Some(1), Some(1), Some(40)], "{estimates:#?}");
    });
}

#[test]
fn truncate_cascade_names_the_tables_it_empties() {
    let gateway = gateway_to(&analysed(), careful(), &[]);
    let everything: u64 = ["orders", "order_items", "ledger"].iter().map(|t| count(&gateway, t)).sum();
    let estimate = told(&gateway, &[], "TRUNCATE orders CASCADE");
    assert_eq!(estimate.rows, Some(everything), "{estimate:#?}");
    says(&estimate, "empties public.orders: about ");
    says(&estimate, "along with it empties public.order_items: about ");
    says(&estimate, "along with it empties public.ledger: about ");
    says(&estimate, "no backup");
}

#[test]
fn a_drop_says_what_goes_along_and_that_nothing_brings_it_back() {
    let gateway = gateway_to(&analysed(), careful(), &[]);
    let estimate = told(&gateway, &[], "DROP TABLE customers CASCADE");
    assert_eq!(estimate.rows, Some(count(&gateway, "customers")));
    says(&estimate, "drops public.customers: about ");
    says(&estimate, "takes along view public.customer_contacts");
    says(&estimate, "takes along constraint orders_customer_id_fkey on table public.orders");
    says(&estimate, "nothing here brings it back");
    let schema = told(&gateway, &[], "DROP SCHEMA public CASCADE");
    assert!(schema.rows > estimate.rows, "{schema:#?}");
    says(&schema, "takes along public.order_items: about ");
    let alone = told(&gateway, &[], "DROP TABLE order_items");
    says(&alone, "drops public.order_items: about ");
    says(
        &alone,
        "no backup is made by this, and the server does not archive its log (`archive_mode` is off)",
    );
}

#[test]
fn a_table_that_grew_after_the_approval_is_refused() {
    let gateway = gateway_to(&analysed(), careful(), &[]);
    let grow = "INSERT INTO order_items SELECT o.id, 100 + g, p.id, 1, 1 FROM generate_series(1, 200) g, \
        (SELECT id FROM orders LIMIT 50) o, (SELECT id FROM products LIMIT 1) p";
    gateway.block_on(async {
        let client = connect(&gateway).await;
        let mut events = gateway.approver.subscribe();
        let people = async {
            let (id, estimates) = asked(&mut events).await;
            let before = count(&gateway, "order_items");
            gateway.directly(grow);
            decide(&gateway, id, Verdict::Approve).await;
            (estimates, before)
        };
        let (ran, (estimates, before)) =
            tokio::join!(client.batch_execute("DELETE FROM order_items"), people);
        assert!(estimates[0].rows.unwrap() <= before + 1);
        let error = ran.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.message().contains("far more rows"), "{error:?}");
        assert!(error.hint().unwrap().contains("present it again"), "{error:?}");
        assert!(!format!("{error:?}").contains("10000"), "an agent learns no numbers: {error:?}");
        assert_eq!(count(&gateway, "order_items"), before + 10_000);
        // People are asked anew, and told what it has become.
        let people = async {
            let (id, estimates) = asked(&mut events).await;
            decide(&gateway, id, Verdict::Approve).await;
            estimates
        };
        let (ran, estimates) = tokio::join!(client.batch_execute("DELETE FROM order_items"), people);
        ran.unwrap();
        assert!(estimates[0].rows.unwrap() > 5_000, "{estimates:?}");
    });
    assert_eq!(count(&gateway, "order_items"), 0);
    let records: Vec<_> = gateway.recorder.sessions().into_iter().flat_map(|(_, records)| records).collect();
    let estimated = records.iter().filter(|(_, record)| matches!(record, Record::Estimated { .. })).count();
    assert_eq!(estimated, 4, "told, found again, told, found again");
    assert!(records.iter().any(
        |(_, record)| matches!(record, Record::Denied { denial, .. } if denial.message.contains("far more rows"))
    ));
}

#[test]
fn a_user_function_is_not_run_for_an_estimate() {
    let database = analysed();
    // Armed once the index is made: that runs them too.
    let trap = "CREATE SEQUENCE rung;
        CREATE FUNCTION trap(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT n';
        CREATE FUNCTION careless(n integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n > 0';
        CREATE TABLE watched (n integer, CHECK (careless(1)));
        CREATE TABLE looked_at (n integer);
        CREATE INDEX ON looked_at ((n + trap(1)));
        CREATE OR REPLACE FUNCTION trap(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN RAISE LOG 'trap sprung in %', current_database(); PERFORM nextval('rung'); RETURN n; END $$;
        CREATE OR REPLACE FUNCTION careless(n integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN RETURN trap(n) > 0; END $$;
        GRANT ALL ON rung, watched, looked_at TO app";
    server().psql(&database, trap).unwrap();
    let gateway = gateway_to(&database, careful(), &[]);
    let rung = || {
        let sprung =
            server().log_of_everything_so_far().unwrap().contains(&format!("trap sprung in {database}"));
        (sprung, gateway.directly("SELECT last_value, is_called FROM rung"))
    };
    let before = rung();
    assert!(!before.0);
    let waits = [
        ("DELETE FROM order_items WHERE order_id = trap(1)", "it may call `public.trap`"),
        ("DELETE FROM order_items WHERE order_id = nextval('rung')", "it may call `pg_catalog.nextval`"),
        ("SELECT trap(1)", "it may call `public.trap`"),
        ("DELETE FROM watched", "`public.careless` belongs to `public.watched` (check)"),
        ("DELETE FROM looked_at WHERE n = 3", "`public.trap` belongs to `public.looked_at` (index)"),
    ];
    for (sql, why) in waits {
        let estimate = told(&gateway, &[], sql);
        assert_eq!(estimate.rows, None, "{sql}");
        says(&estimate, "no estimate: ");
        says(&estimate, why);
        assert_eq!(rung(), before, "{sql}: it was run");
    }
    // It is the planner that would have run it.
    server().psql(&database, "EXPLAIN DELETE FROM order_items WHERE order_id = trap(1)").unwrap();
    assert_ne!(rung(), before, "the trap does nothing");
}

#[test]
fn a_check_of_a_type_is_not_run_for_an_estimate() {
    let database = analysed();
    let kinds = "CREATE FUNCTION seen(n integer) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN RAISE LOG 'check run in %', current_database(); RETURN true; END $$;
        CREATE DOMAIN small AS integer CHECK (VALUE < 100);
        CREATE DOMAIN told AS integer CHECK (seen(VALUE));
        CREATE TYPE mood AS ENUM ('good', 'bad');
        CREATE TABLE fine (n small, m mood, l mood[]);
        CREATE TABLE telling (n told);
        GRANT ALL ON fine, telling TO app";
    server().psql(&database, kinds).unwrap();
    let gateway = gateway_to(&database, careful(), &[]);
    let fine = "PREPARE p AS INSERT INTO fine VALUES ($1, 'good', '{bad}')";
    assert_eq!(told(&gateway, &[fine], "EXECUTE p(5)").rows, Some(1));
    // Planning an EXECUTE computes its arguments, as the types of its parameters.
    let estimate = told(&gateway, &["PREPARE p AS INSERT INTO telling VALUES ($1)"], "EXECUTE p(5)");
    assert_eq!(estimate.rows, None);
    says(&estimate, "no estimate: planning could run code of the type `public.told`");
    let log = server().log_of_everything_so_far().unwrap();
    assert!(!log.contains(&format!("check run in {database}")));
    server().psql(&database, "INSERT INTO telling VALUES (1)").unwrap();
    let log = server().log_of_everything_so_far().unwrap();
    assert!(log.contains(&format!("check run in {database}")), "the check tells nothing");
}

#[test]
fn what_the_other_connection_cannot_see_has_no_estimate_and_is_asked_for_all_the_same() {
    let gateway = gateway_to(&analysed(), careful(), &[]);
    let temporary = "CREATE TEMPORARY TABLE order_items (n integer)";
    let estimate = told(&gateway, &[temporary], "DELETE FROM order_items");
    assert_eq!(estimate.rows, None, "{estimate:?}");
    says(&estimate, "no estimate: outside of its session its names or settings mean something else");
    gateway.directly("CREATE SCHEMA other; CREATE TABLE other.order_items (n integer); GRANT USAGE ON SCHEMA other TO app; \
        GRANT ALL ON other.order_items TO app; INSERT INTO other.order_items VALUES (1), (2); ANALYZE other.order_items");
    let estimate = told(&gateway, &["SET search_path = other, public"], "DELETE FROM order_items");
    assert_eq!(estimate.rows, Some(2), "the session's search path counts: {estimate:?}");
}

#[test]
fn a_server_without_room_for_another_connection_does_not_keep_the_request_back() {
    let database = analysed();
    let gateway = gateway_to(&database, careful(), &[]);
    gateway.block_on(async {
        let client = connect(&gateway).await;
        // The session is in; nobody else gets in.
        server().psql("postgres", &format!("ALTER DATABASE \"{database}\" CONNECTION LIMIT 1")).unwrap();
        let mut events = gateway.approver.subscribe();
        let people = async {
            let (id, estimates) = asked(&mut events).await;
            decide(&gateway, id, Verdict::Approve).await;
            estimates
        };
        let sql = "DELETE FROM order_items WHERE order_id = 1";
        let (ran, estimates) = tokio::join!(client.batch_execute(sql), people);
        assert_eq!(estimates, [Estimate::unknown("the gateway's own connection to the server failed")]);
        ran.unwrap();
    });
}

#[test]
fn a_locked_table_has_no_estimate() {
    let database = analysed();
    let gateway = gateway_to(&database, careful(), &[]);
    let locker = server().admin_url(&database);
    gateway.block_on(async {
        let (locker, connection) = tokio_postgres::connect(&locker, NoTls).await.unwrap();
        tokio::spawn(connection);
        let client = connect(&gateway).await;
        let mut events = gateway.approver.subscribe();
        locker.batch_execute("BEGIN; LOCK TABLE order_items").await.unwrap();
        let people = async {
            let (id, estimates) = asked(&mut events).await;
            locker.batch_execute("COMMIT").await.unwrap();
            decide(&gateway, id, Verdict::Approve).await;
            estimates
        };
        let sql = "DELETE FROM order_items WHERE order_id = 1";
        let (ran, estimates) = tokio::join!(client.batch_execute(sql), people);
        assert_eq!(estimates[0].rows, None);
        says(&estimates[0], "no estimate: a table that it touches is locked");
        ran.unwrap();
    });
}

#[test]
fn what_is_not_held_opens_no_connection() {
    let gateway = gateway(careful(), &[]);
    let logins = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
    let logins = || gateway.directly(logins).parse::<u64>().unwrap();
    gateway.block_on(async {
        let client = connect(&gateway).await;
        client.batch_execute("SELECT * FROM orders").await.unwrap();
        let statistics = "SELECT pg_stat_force_next_flush()";
        gateway.directly(statistics);
        let before = logins();
        for _ in 0..5 {
            client.batch_execute("SELECT * FROM orders; SELECT count(*) FROM order_items").await.unwrap();
        }
        drop(client);
        assert!(logins() <= before + 2, "only the questions of this test log in");
    });
}
