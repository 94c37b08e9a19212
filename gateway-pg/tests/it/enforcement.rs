//! Duties the gateway meets by changing what runs, or what surrounds it, on a real server.

use gateway_core::masking::DataClass;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::Record;
use testkit::psql_script;
use testkit::raw_pg::{self, Bind, RawPg};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::support::{Gateway, TOKEN, gateway_to, label, shop};

/// Everything is permitted, and these rules besides.
fn under(rules: &str) -> Gateway {
    labelled_under(rules, &[])
}

/// The same, with labels on columns.
fn labelled_under(rules: &str, columns: &[(&str, &DataClass)]) -> Gateway {
    let database = shop();
    let all = r#"@id("all") permit (principal, action, resource) unless { action == Action::"reveal" };"#;
    let engine = CedarEngine::builder()
        .schema_fragment("postgres.cedarschema", gateway_pg::SCHEMA)
        .policy(PolicyFile::new("test.cedar", format!("{all}\n{}", rules.replace("DB", &database))))
        .build()
        .unwrap();
    let labels: Vec<_> = columns.iter().map(|(column, class)| label(&database, column, class)).collect();
    gateway_to(&database, engine, &labels)
}

fn psql(gateway: &Gateway, sql: &str) -> String {
    psql_script(&gateway.url(), sql).unwrap_or_else(|error| error.to_string())
}

async fn connect(gateway: &Gateway) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn statements(gateway: &Gateway) -> Vec<String> {
    let records = gateway.recorder.sessions().into_iter().flat_map(|(_, records)| records);
    let presented = records.filter_map(|(_, record)| match record {
        Record::Presented { operations, .. } => Some(operations),
        _ => None,
    });
    presented.flatten().map(|operation| operation.statement.to_string()).collect()
}

const ON_ORDERS: &str = r#"permit (principal, action, resource == Table::"shop/DB/public/orders")"#;

#[test]
fn rows_are_restricted_in_every_protocol() {
    let gateway = under(&format!("@rewrite(\"where:public.orders: customer_id = 7\") {ON_ORDERS};"));
    let seen = gateway.directly("SELECT count(*) FROM orders WHERE customer_id = 7");
    assert_ne!(seen, gateway.directly("SELECT count(*) FROM orders"));
    for sql in [
        "SELECT count(*) FROM orders",
        "SELECT count(*) FROM public.orders o WHERE true OR o.id > 0",
        "SELECT count(o.id) FROM customers c LEFT JOIN orders o ON o.customer_id = c.id",
        "WITH x AS (SELECT * FROM orders) SELECT count(*) FROM x",
        "SELECT (SELECT count(*) FROM orders)",
        "PREPARE p AS SELECT count(*) FROM orders; EXECUTE p",
    ] {
        assert_eq!(psql(&gateway, sql).lines().last(), Some(seen.as_str()), "{sql}");
    }
    gateway.block_on(async {
        let client = connect(&gateway).await;
        let statement = client.prepare("SELECT id FROM orders WHERE id > $1").await.unwrap();
        for _ in 0..2 {
            assert_eq!(client.query(&statement, &[&0i32]).await.unwrap().len().to_string(), seen);
        }
        client
            .batch_execute("DELETE FROM order_items WHERE order_id IN (SELECT id FROM orders)")
            .await
            .unwrap();
        let deleted = client.execute("UPDATE orders SET status = 'open'", &[]).await.unwrap();
        assert_eq!(deleted.to_string(), seen, "an update is restricted too");
    });
    let texts = statements(&gateway).join("\n");
    let both =
        ["SELECT count(*) FROM orders\n", "FROM (SELECT * FROM public.orders WHERE orders.customer_id"];
    assert!(both.iter().all(|text| texts.contains(text)), "the text before and after: {texts}");
    for sql in [
        "COPY orders TO STDOUT",
        "INSERT INTO orders SELECT * FROM orders",
        "TABLE orders",
        "TRUNCATE orders CASCADE",
    ] {
        let refused = psql(&gateway, sql);
        assert!(refused.contains("restricts what is seen"), "{sql}: {refused}");
    }
    gateway.directly("CREATE VIEW recent AS SELECT * FROM orders; GRANT SELECT ON recent TO app");
    assert!(psql(&gateway, "SELECT count(*) FROM recent").contains("through another one"));
}

#[test]
fn columns_go_or_become_null() {
    let on = r#"permit (principal, action, resource == Table::"shop/DB/public/customers");"#;
    let gateway = under(&format!(
        "@rewrite(\"columns:public.products: id, name\") permit (principal, action, resource == Table::\"shop/DB/public/products\");
         @rewrite(\"null:public.customers: ssn, email\") {on}"
    ));
    let row = psql(&gateway, "SELECT * FROM products WHERE id = 1");
    assert_eq!(row, gateway.directly("SELECT id, name FROM products WHERE id = 1"));
    assert!(psql(&gateway, "SELECT stock FROM products").contains("stock"), "the column is not there");
    let row = psql(&gateway, "SELECT id, ssn, email, name FROM customers WHERE id = 1");
    assert_eq!(row, gateway.directly("SELECT id, NULL, NULL, name FROM customers WHERE id = 1"));
    assert_eq!(psql(&gateway, "SELECT count(*) FROM customers WHERE ssn IS NOT NULL"), "0");
}

#[test]
fn limits_hold_for_what_is_prepared_declared_and_copied() {
    let gateway = under(
        "@rewrite(\"limit:7\") permit (principal, action, resource == Table::\"shop/DB/public/products\");",
    );
    for sql in [
        "SELECT id FROM products",
        "PREPARE p AS SELECT id FROM products; EXECUTE p",
        "COPY (SELECT id FROM products) TO STDOUT",
    ] {
        assert_eq!(psql(&gateway, sql).lines().filter(|l| l.parse::<u32>().is_ok()).count(), 7, "{sql}");
    }
    for sql in
        ["COPY products TO STDOUT", "UPDATE orders SET status = status FROM products RETURNING products.id"]
    {
        assert!(psql(&gateway, sql).contains("limits this to 7 rows"), "{sql}");
    }
    gateway.block_on(async {
        let client = connect(&gateway).await;
        let rows = client.query("SELECT id FROM products WHERE id > $1", &[&0i32]).await.unwrap();
        assert_eq!(rows.len(), 7, "the text of Parse is rewritten");
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute("DECLARE c CURSOR FOR SELECT id FROM products").await.unwrap();
        let fetched = client.simple_query("FETCH ALL FROM c").await.unwrap();
        assert_eq!(fetched.iter().filter(|m| matches!(m, SimpleQueryMessage::Row(_))).count(), 7);
        client.batch_execute("ROLLBACK").await.unwrap();
    });
}

#[test]
fn reading_only_is_enforced_by_the_server() {
    let gateway =
        under("@rewrite(\"read_only\") permit (principal, action == Action::\"select\", resource);");
    let state = "SELECT current_setting('transaction_read_only') FROM products LIMIT 1";
    assert_eq!(psql(&gateway, state), "on");
    assert_eq!(psql(&gateway, "SHOW transaction_read_only"), "off", "nothing is left behind");
    gateway.block_on(async {
        let client = connect(&gateway).await;
        let row = client.query_one(state, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "on", "in the extended protocol");
        client.batch_execute("BEGIN").await.unwrap();
        assert_eq!(client.query_one(state, &[]).await.unwrap().get::<_, String>(0), "on");
        assert_eq!(
            client.query_one("SHOW transaction_read_only", &[]).await.unwrap().get::<_, String>(0),
            "off"
        );
        let wrong = client.batch_execute("SELECT 1 / (id - id) FROM products").await.unwrap_err();
        assert_eq!(wrong.code().unwrap().code(), "22012");
        let failed = client.batch_execute("SELECT 1").await.unwrap_err();
        assert_eq!(failed.code().unwrap().code(), "25P02", "the client's transaction has failed");
        client.batch_execute("ROLLBACK").await.unwrap();
        let wrong = client.batch_execute("SELECT 1 / (id - id) FROM products").await.unwrap_err();
        assert_eq!(wrong.code().unwrap().code(), "22012");
        assert_eq!(client.query_one("SELECT 5", &[]).await.unwrap().get::<_, i32>(0), 5);
    });
}

#[test]
fn changes_without_a_condition_are_refused() {
    let gateway =
        under("@rewrite(\"require_where\") permit (principal, action in Action::\"write\", resource);");
    for sql in ["UPDATE orders SET status = 'open'", "DELETE FROM ledger WHERE true", "TRUNCATE ledger"] {
        assert!(psql(&gateway, sql).contains("changes with a condition only"), "{sql}");
    }
    assert!(psql(&gateway, "UPDATE orders SET status = 'open' WHERE id = 1").is_empty());
}

/// What the gateway runs around a statement leaves the client's unnamed statement as it is.
#[test]
fn the_unnamed_statement_survives_a_transaction_of_the_gateways() {
    let gateway =
        under("@max_rows_affected(\"3\") permit (principal, action in Action::\"write\", resource);");
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        client.log_in("agent", &gateway.database, TOKEN).await.unwrap();
        let update = "UPDATE orders SET status = 'open' WHERE id = $1";
        let parse = [raw_pg::parse("", update, &[23]), raw_pg::sync()].concat();
        assert_eq!(client.exchange(&parse).await.unwrap().tags(), "1Z");
        for id in [b"1", b"2"] {
            let values = Bind { values: &[Some(id)], ..Bind::default() };
            let run = [values.encode(), raw_pg::execute("", 0), raw_pg::sync()].concat();
            assert_eq!(client.exchange(&run).await.unwrap().tags(), "2CZ");
        }
    });
}

/// A commit that fails leaves nothing behind that the next one would meet.
#[test]
fn a_failed_commit_of_the_gateways_can_be_followed_by_another() {
    let gateway =
        under("@max_rows_affected(\"3\") permit (principal, action in Action::\"write\", resource);");
    gateway.directly(
        "CREATE TABLE paired (a integer UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO paired VALUES (1); GRANT ALL ON paired TO PUBLIC",
    );
    gateway.block_on(async {
        let client = connect(&gateway).await;
        for (value, code) in [(1, Some("23505")), (1, Some("23505")), (2, None), (2, Some("23505"))] {
            let done = client.batch_execute(&format!("INSERT INTO paired VALUES ({value})")).await;
            let found = done.err().map(|e| e.as_db_error().unwrap().code().code().to_owned());
            assert_eq!(found.as_deref(), code, "{value}");
        }
    });
}

#[test]
fn a_change_of_too_many_rows_is_undone() {
    let gateway =
        under("@max_rows_affected(\"3\") permit (principal, action in Action::\"write\", resource);");
    let cancelled = "SELECT count(*) FROM orders WHERE status = 'cancelled' AND id < 10";
    gateway.directly("UPDATE orders SET status = 'open' WHERE id < 10");
    gateway.block_on(async {
        let client = connect(&gateway).await;
        let update = "UPDATE orders SET status = 'cancelled' WHERE id <= ";
        let refused = client.batch_execute(&format!("{update} 4")).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code().code(), "54000");
        assert!(refused.message().contains("changed 4 rows, and the policy allows 3"), "{refused:?}");
        assert_eq!(gateway.directly(cancelled), "0", "undone");
        assert!(
            client.execute("UPDATE orders SET status = 'cancelled' WHERE id <= $1", &[&4i32]).await.is_err()
        );
        assert_eq!(gateway.directly(cancelled), "0", "undone in the extended protocol");
        assert_eq!(
            client.execute("UPDATE orders SET status = 'cancelled' WHERE id <= $1", &[&2i32]).await.unwrap(),
            2
        );
        assert_eq!(gateway.directly(cancelled), "2", "committed");
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(&format!("{update} 3")).await.unwrap();
        assert!(client.batch_execute(&format!("{update} 9")).await.is_err());
        client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(gateway.directly(cancelled), "2", "the client's whole transaction has failed");
        let two = format!("{update} 2; {update} 2");
        assert!(client.batch_execute(&two).await.is_err(), "together");
    });
    for sql in [
        "TRUNCATE ledger",
        "SELECT post_payment(1) FROM orders FOR UPDATE",
        "BEGIN; DELETE FROM ledger; COMMIT",
    ] {
        let refused = psql(&gateway, sql);
        assert!(refused.contains("gateway:"), "{sql}: {refused}");
    }
    let copied = "CREATE TABLE t (a int)";
    gateway.directly(&format!("{copied}; GRANT ALL ON t TO app"));
    assert!(psql(&gateway, "COPY t FROM STDIN;\n1\n2\n3\n4\n\\.\n").contains("changed 4 rows"));
    assert_eq!(gateway.directly("SELECT count(*) FROM t"), "0");
}

#[test]
fn sessions_of_a_task_share_a_budget() {
    let gateway = under(
        "@budget(\"name=reading; rows=100\") permit (principal, action == Action::\"select\", resource == Table::\"shop/DB/public/orders\");",
    );
    let read = "SELECT id FROM orders LIMIT 30";
    gateway.block_on(async {
        let (first, second) = (connect(&gateway).await, connect(&gateway).await);
        // In parallel: 5 times 30 rows do not fit, 3 times do.
        let all = [&first, &second, &first, &second, &first].map(|client| client.query(read, &[]));
        let [a, b, c, d, e] = all;
        let (a, b, c, d, e) = tokio::join!(a, b, c, d, e);
        let answers = [a, b, c, d, e];
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
        let refused = answers.into_iter().find_map(Result::err).unwrap();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code().code(), "53400");
        assert!(
            refused.message().contains("the budget `reading` of rows for this task is used up"),
            "{refused:?}"
        );
        let third = connect(&gateway).await;
        assert!(third.query(read, &[]).await.is_err(), "a new connection does not refill it");
        assert_eq!(
            third.query("SELECT id FROM orders LIMIT 10", &[]).await.unwrap().len(),
            10,
            "what is left"
        );
        let empty = third.query("SELECT id FROM orders LIMIT 0", &[]).await.unwrap_err();
        assert_eq!(empty.code().unwrap().code(), "53400", "nothing is left, so nothing runs");
        assert_eq!(
            third.query("SELECT id FROM products LIMIT 3", &[]).await.unwrap().len(),
            3,
            "others go on"
        );
    });
    let records = format!("{:?}", gateway.recorder.sessions());
    assert!(records.contains("BudgetExceeded"), "it is recorded");
}

#[test]
fn different_people_are_counted_however_they_are_read() {
    for reveal in ["", r#"permit (principal, action == Action::"reveal", resource);"#] {
        let budget = "@budget(\"name=people; subjects=5; of=us_ssn\") permit (principal, action, resource == Table::\"shop/DB/public/customers\");";
        let ssn = [("public.customers.ssn", &DataClass::US_SSN)];
        counted(&labelled_under(&format!("{budget}\n{reveal}"), &ssn));
    }
}

fn counted(gateway: &Gateway) {
    let of = |ids: &str| format!("SELECT ssn FROM customers WHERE id IN ({ids})");
    let lines = |answer: String| answer.lines().count();
    assert_eq!(lines(psql(gateway, &of("1, 2, 3"))), 3);
    // The same people again, in other ways.
    let join = "SELECT c.ssn FROM customers c JOIN products p ON p.id = c.id WHERE c.id IN (1, 2)";
    for sql in [of("1, 2, 3"), join.to_owned(), format!("WITH p AS ({}) TABLE p", of("2"))] {
        assert!(lines(psql(gateway, &sql)) > 0, "{sql}");
    }
    assert!(lines(psql(gateway, "SELECT id FROM customers")) > 5, "no people");
    // What cannot be counted is not shown.
    for sql in [
        format!("COPY ({}) TO STDOUT", of("6, 7, 8, 9")),
        "SELECT reverse(ssn) FROM customers".to_owned(),
        "SELECT string_agg(ssn, ' ') FROM customers".to_owned(),
    ] {
        let (said, ssn) = (psql(gateway, &sql), gateway.directly("SELECT ssn FROM customers WHERE id = 9"));
        let backwards: String = ssn.chars().rev().collect();
        assert!(!said.contains(&ssn) && !said.contains(&backwards), "{sql}: {said}");
    }
    gateway.block_on(async {
        let (first, second) = (connect(gateway).await, connect(gateway).await);
        assert_eq!(first.query(&of("3, 4, 5"), &[]).await.unwrap().len(), 3);
        let refused = second.query(&of("5, 6"), &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "53400");
        assert!(refused.as_db_error().unwrap().message().contains("`people` of subjects for this task"));
        assert!(second.query("TABLE customers", &[]).await.is_err(), "all of them");
        assert_eq!(second.query(&of("1, 5"), &[]).await.unwrap().len(), 2, "known people");
    });
    for options in ["", " (FORMAT csv)", " (FORMAT binary)"] {
        let said = psql(gateway, &format!("COPY customers TO STDOUT{options}"));
        assert!(said.contains("of subjects"), "{options}: {said}");
    }
}
