//! What must not be seen is not seen: by column origin, by content, in text and binary, in errors and copies.

use gateway_core::masking::DataClass;
use gateway_core::recording::Record;
use testkit::psql_script;
use tokio_postgres::{NoTls, Row};

use crate::support::{Gateway, allow_all, gateway, gateway_to, label, server, shop};

/// Everything masked: ssn, email and the card number by label.
fn labelled() -> Gateway {
    let database = shop();
    let labels = [
        label(&database, "public.customers.ssn", &DataClass::US_SSN),
        label(&database, "public.customers.email", &DataClass::EMAIL),
        label(&database, "public.customers.id", &DataClass::US_SSN),
        label(&database, "public.cards.pan", &DataClass::PAYMENT_CARD),
    ];
    gateway_to(&database, allow_all(), &labels)
}

fn psql(gateway: &Gateway, sql: &str) -> String {
    match psql_script(&gateway.url(), sql) {
        Ok(out) => out,
        Err(error) => error.to_string(),
    }
}

/// Values of customer 1 that must never come through.
fn secrets(gateway: &Gateway) -> Vec<String> {
    let row = gateway.directly("SELECT ssn || ' ' || email FROM customers WHERE id = 1");
    let pan = gateway.directly("SELECT pan FROM cards ORDER BY id LIMIT 1");
    row.split(' ').map(str::to_owned).chain([pan]).collect()
}

#[test]
fn labelled_columns_are_masked_however_they_are_asked_for() {
    let gateway = labelled();
    let secrets = secrets(&gateway);
    for sql in [
        "SELECT * FROM customers WHERE id = 1",
        "SELECT ssn AS x, email AS y FROM customers WHERE id = 1",
        "SELECT c.ssn, c.email FROM (SELECT * FROM customers) c WHERE c.id = 1",
        "WITH c AS (SELECT ssn, email FROM customers WHERE id = 1) SELECT * FROM c",
        "SELECT upper(ssn), ssn || '', email::varchar(50) FROM customers WHERE id = 1",
        "SELECT string_agg(email, ',') FROM customers",
        "SELECT ssn FROM customers UNION SELECT ssn FROM customers",
        "SELECT c FROM customers c WHERE id = 1",
        "SELECT row_to_json(c) FROM customers c WHERE id = 1",
        "SELECT to_jsonb(c)->>'ssn' FROM customers c WHERE id = 1",
        "SELECT (c).ssn FROM customers c WHERE id = 1",
        "SELECT x FROM customers AS t(a, b, c, d, x) WHERE a = 1",
        "SELECT lower(x) FROM customers AS t(a, b, c, d, x) WHERE a = 1",
        "SELECT * FROM customer_contacts WHERE id = 1",
        "SELECT number FROM customer_cards ORDER BY 1 LIMIT 5",
        "TABLE customers",
        "BEGIN; DECLARE k CURSOR FOR SELECT ssn, email, id FROM customers ORDER BY id; FETCH 5 FROM k; COMMIT",
        "PREPARE p AS SELECT ssn, email FROM customers WHERE id = 1; EXECUTE p; EXECUTE p",
        "COPY customers TO STDOUT",
        "COPY customers (id, email, ssn) TO STDOUT",
        "COPY customers (id, email, ssn) TO STDOUT (HEADER false)",
        "COPY customers (id, email, ssn) TO STDOUT (HEADER off, DELIMITER '|')",
        "COPY customers TO STDOUT (HEADER)",
        "COPY cards TO STDOUT",
        "SELECT pan FROM cards",
        "UPDATE customers SET note = note WHERE id = 1 RETURNING ssn, email",
        "SELECT email::int FROM customers",
        "SELECT email::date FROM customers WHERE id = 1",
        "UPDATE customers SET name = NULL WHERE id = 1",
        "UPDATE customers SET email = (SELECT email FROM customers WHERE id = 1) WHERE id = 2",
        "SELECT encode(ssn::bytea, 'hex') FROM customers WHERE id = 1",
        "SELECT ascii(substr(ssn, 1, 1)) FROM customers WHERE id = 1",
    ] {
        let out = psql(&gateway, sql);
        for secret in &secrets {
            assert!(!out.contains(secret.as_str()), "`{sql}` shows {secret}: {out}");
        }
    }
    let row = psql(&gateway, "SELECT name, ssn, id FROM customers WHERE id = 1");
    assert!(row.contains("[REDACTED:US_SSN]") && row.ends_with('0'), "{row}");
    assert_eq!(psql(&gateway, "SELECT count(*) FROM customers"), "200", "what is not protected passes");
    let bytes = psql(&gateway, "SELECT ascii(substr(ssn, 1, 1)) FROM customers WHERE id = 1");
    assert_eq!(bytes, "", "a computed number becomes NULL");
}

#[test]
fn content_is_masked_wherever_it_comes_from() {
    let gateway = gateway(allow_all(), &[]);
    for sql in [
        "SELECT 'card 4111111111111111 of ada@example.com'",
        "SELECT 4111111111111111::bigint",
        "SELECT 4111111111111111::numeric",
        "SELECT ARRAY['4111111111111111']",
        "SELECT '{\"a\": \"4111 1111 1111 1111\"}'::jsonb",
        "SELECT '<x>4111-1111-1111-1111</x>'::xml",
        "SELECT 1 AS \"4111111111111111\"",
        "COPY (SELECT 'ada@example.com', '4111111111111111') TO STDOUT",
        "COPY (SELECT E'tab\\tada@example.com\\nnext') TO STDOUT",
        "SELECT '4111111111111111 of ada@example.com'::int",
        "DO $$ BEGIN RAISE NOTICE 'card 4111111111111111'; END $$",
        "LISTEN c; NOTIFY c, 'ada@example.com'; SELECT 1",
    ] {
        let out = psql(&gateway, sql);
        // psql itself quotes its own statement below an error.
        let out: String = out.lines().filter(|line| !line.starts_with("LINE ")).collect();
        assert!(!out.contains("4111") && !out.contains("ada@"), "`{sql}` shows it: {out}");
    }
    assert_eq!(psql(&gateway, "SELECT 4111111111111111::bigint"), "0", "a masked number is still a number");
}

fn text(row: &Row, column: usize) -> String {
    row.get::<_, Option<String>>(column).unwrap_or_default()
}

#[test]
fn binary_results_are_masked_and_stay_valid() {
    let gateway = labelled();
    let secrets = secrets(&gateway);
    gateway.block_on(async {
        let (client, connection) = tokio_postgres::connect(&gateway.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let statement = client.prepare("SELECT id, ssn, email::varchar, note FROM customers WHERE id = $1").await.unwrap();
        for _ in 0..3 {
            let row = client.query_one(&statement, &[&1i32]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), 0, "a labelled integer stays an integer");
            assert!(!secrets.contains(&text(&row, 1)) && !secrets.contains(&text(&row, 2)));
        }
        let row = client.query_one("SELECT 4111111111111111::int8, '{\"c\":\"4111111111111111\"}'::json::text, 'a@b.example'::name::text", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0);
        assert!(!text(&row, 1).contains("4111"));
        assert_eq!(text(&row, 2), "[REDACTED:EMAIL]");
        let row = client.query_one("SELECT upper(ssn), length(ssn) FROM customers WHERE id = 1", &[]).await.unwrap();
        assert!(!secrets.contains(&text(&row, 0)));
        assert_eq!(row.get::<_, Option<i32>>(1), None);
    });
}

#[test]
fn records_hold_what_was_released_and_no_secret() {
    let gateway = labelled();
    let secrets = secrets(&gateway);
    psql(&gateway, "SELECT ssn, email, name FROM customers WHERE id = 1");
    let forbidden = secrets[0].clone();
    psql(&gateway, &format!("SELECT name FROM customers WHERE ssn = '{forbidden}'"));
    psql(&gateway, "ALTER ROLE nobody_here PASSWORD 'hunter2-in-clear-text'");
    let sessions = gateway.recorder.sessions();
    let all = format!("{sessions:?}");
    for secret in secrets.iter().map(String::as_str).chain(["hunter2", server().password("app")]) {
        assert!(!all.contains(secret), "the record holds {secret}");
    }
    let released = sessions
        .iter()
        .flat_map(|(_, records)| records)
        .filter(|(_, r)| matches!(r, Record::Released { masked, .. } if *masked > 0));
    assert!(released.count() > 0);
}

#[test]
fn copies_that_cannot_be_masked_are_refused() {
    let gateway = labelled();
    for sql in [
        "COPY (SELECT name FROM customers) TO STDOUT (FORMAT binary)",
        "COPY customers TO STDOUT (FORMAT csv, ENCODING 'LATIN1')",
        "COPY (SELECT * FROM customers JOIN cards USING (id)) TO STDOUT",
        "COPY customers TO STDOUT (ENCODING 'SJIS')",
    ] {
        assert!(psql(&gateway, sql).contains("gateway:"), "{sql}");
    }
    assert!(psql(&gateway, "COPY products TO STDOUT").lines().count() > 5);
}

#[test]
fn copied_queries_keep_what_is_not_hidden() {
    let gateway = labelled();
    for (sql, expected) in [
        (
            "COPY (SELECT name, ssn, upper(ssn), 7 FROM customers WHERE name = 'Ben Becker') TO STDOUT",
            "Ben Becker\t\\N\t\\N\t7",
        ),
        (
            "COPY (WITH w AS (SELECT name AS a, email AS b FROM customers) SELECT a, b FROM w WHERE a = 'Ben Becker') TO STDOUT (FORMAT csv)",
            "Ben Becker,",
        ),
    ] {
        every_row(&psql(&gateway, sql), expected, sql);
    }
}

/// Some customers share their name: there is a row, and each one is so.
fn every_row(rows: &str, expected: &str, sql: &str) {
    assert!(!rows.is_empty() && rows.lines().all(|row| row == expected), "{sql}: {rows}");
}

/// What is not hidden passes beside what is, however the query is made.
#[test]
fn neighbours_of_hidden_values_pass() {
    let gateway = labelled();
    gateway.directly(
        "CREATE MATERIALIZED VIEW kept AS SELECT name, ssn FROM customers; GRANT SELECT ON kept TO app",
    );
    const HIDDEN: &str = "[REDACTED:PROTECTED]";
    for sql in [
        "SELECT upper(name), upper(ssn) FROM customers WHERE name = 'Ben Becker'",
        "SELECT upper(n), upper(s) FROM (SELECT name AS n, ssn AS s FROM customers) q WHERE n = 'Ben Becker'",
        "WITH w AS (SELECT * FROM customers) SELECT upper(name), upper(ssn) FROM w WHERE name = 'Ben Becker'",
        "WITH w(a, b) AS (SELECT name, ssn FROM customers) SELECT upper(a), upper(b) FROM w WHERE a = 'Ben Becker'",
        "SELECT upper(c.name), upper(c.ssn) FROM customers c JOIN cards k ON k.customer_id = c.id WHERE name = 'Ben Becker' LIMIT 1",
        "SELECT upper(name), ssn || '' FROM customers WHERE name = 'Ben Becker' UNION ALL SELECT 'x', 'y' WHERE false",
        "WITH RECURSIVE r(n, a, b) AS (SELECT 1, name, ssn FROM customers WHERE name = 'Ben Becker' UNION ALL SELECT n + 1, a || '', b FROM r WHERE n < 2) SELECT upper(a), b FROM r WHERE n = 2",
        "UPDATE customers SET note = note WHERE name = 'Ben Becker' RETURNING upper(name), upper(ssn)",
        "BEGIN; DECLARE k CURSOR FOR SELECT upper(name), upper(ssn) FROM customers WHERE name = 'Ben Becker'; FETCH k; COMMIT",
        "PREPARE p AS SELECT upper(name), upper(ssn) FROM customers WHERE name = 'Ben Becker'; EXECUTE p",
        "SELECT upper(name), upper(ssn) FROM kept WHERE name = 'Ben Becker'",
        "SELECT max(upper(name)), max(upper(ssn)) FROM customers WHERE name = 'Ben Becker'",
        "SELECT upper(x), upper(c.ssn) FROM customers c, LATERAL (SELECT c.name AS x) s WHERE c.name = 'Ben Becker'",
    ] {
        every_row(&psql(&gateway, sql), &format!("BEN BECKER|{HIDDEN}"), sql);
    }
    psql(
        &gateway,
        "CREATE TABLE names AS SELECT c.name, o.id FROM customers c JOIN orders o ON o.customer_id = c.id",
    );
    assert_eq!(psql(&gateway, "SELECT count(*) FROM names"), "500", "what is not hidden may be stored");
}

/// There are more ways through these views than could ever be followed one by one.
#[test]
fn views_of_views_take_no_longer_than_they_are_many() {
    let gateway = labelled();
    let view = |n: u32| format!("CREATE VIEW v{} AS SELECT a FROM v{n} UNION ALL SELECT a FROM v{n};", n + 1);
    let views: String = (0..60).map(view).collect();
    let sql =
        format!("CREATE VIEW v0 AS SELECT ssn AS a FROM customers WHERE id = 1; {views} SELECT a FROM v3");
    let out = psql(&gateway, &sql);
    assert_eq!(out.matches("[REDACTED").count(), 8, "{out}");
}

#[test]
fn a_label_on_nothing_refuses_sessions() {
    let database = shop();
    let gateway = gateway_to(
        &database,
        allow_all(),
        &[label(&database, "public.customers.nowhere", &DataClass::EMAIL)],
    );
    let out = psql(&gateway, "SELECT 1");
    assert!(out.contains("not available"), "{out}");
}

/// What a copy through the gateway holds, and its rows as the server reads them in again in the same format.
fn copied_back(gateway: &Gateway, table: &str, out: &str, back: &str, shown: &str) -> (Vec<u8>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy");
    let path = file.display();
    psql_script(&gateway.url(), &format!("\\copy {table} TO '{path}' ({out})\n")).unwrap();
    let script = format!(
        "CREATE TEMP TABLE back (LIKE {table});\n\\copy back FROM '{path}' ({back})\nSELECT {shown} FROM back ORDER BY 1;"
    );
    let rows = psql_script(&server().admin_url(&gateway.database), &script).unwrap();
    (std::fs::read(&file).unwrap(), rows)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn copies_are_masked_and_stay_what_their_format_wants() {
    let gateway = labelled();
    gateway.directly(
        r#"CREATE TABLE odd (id integer, note text, mail text);
        INSERT INTO odd VALUES (1, 'plain', 'none'), (2, E'quotes " and, commas\nand lines', 'a@example.com'),
            (3, NULL, ''), (4, 'card 4111 1111 1111 1111', E'"a@example.com", \\'), (5, '', NULL);
        GRANT SELECT ON odd TO app"#,
    );
    let formats = [
        ("FORMAT csv", ""),
        ("FORMAT csv, QUOTE '''', ESCAPE '\\'", ""),
        ("FORMAT csv, DELIMITER ':', NULL 'nothing'", ""),
        ("FORMAT csv, DELIMITER '['", ", FORCE_QUOTE *"),
        ("DELIMITER ':'", ""),
        ("DELIMITER '['", ""),
        ("FORMAT text", ""),
    ];
    let shown = "concat_ws('|', id, coalesce(note, '~'), coalesce(mail, '~'))";
    for (options, more) in formats {
        let (copy, rows) = copied_back(&gateway, "odd", &format!("{options}{more}"), options, shown);
        assert!(!contains(&copy, "example.com") && !contains(&copy, "4111 1111"), "{options}: {rows}");
        for row in [
            "1|plain|none",
            "2|quotes \" and, commas\nand lines|[REDACTED:EMAIL]",
            "3|~|",
            "\"[REDACTED:EMAIL]\", \\",
            "5||~",
        ] {
            assert!(rows.contains(row), "{options}: `{row}` is not in `{rows}`");
        }
    }
}

#[test]
fn labelled_columns_are_masked_in_copies_of_every_format() {
    let gateway = labelled();
    let secrets = secrets(&gateway);
    for options in ["FORMAT csv, HEADER", "FORMAT binary", "FORMAT text"] {
        let back = options.replace(", HEADER", ", HEADER true");
        let (copy, rows) =
            copied_back(&gateway, "customers", options, &back, "count(*), count(DISTINCT ssn), max(id)");
        assert!(rows.starts_with("200|1|0"), "{options}: {rows}");
        for secret in &secrets {
            assert!(!contains(&copy, secret), "{options}: {secret}");
        }
    }
}

#[test]
fn binary_copies_are_masked_and_stay_valid() {
    let gateway = labelled();
    gateway.directly(
        r#"CREATE TABLE odd (id integer, note text, doc jsonb, total numeric, at timestamptz, tags text[]);
        INSERT INTO odd VALUES (1, 'card 4111 1111 1111 1111', '{"mail": "a@example.com"}', 4111111111111111, now(), '{x,y}'),
            (2, NULL, NULL, 1.5, NULL, NULL), (3, 'plain', '[]', 2, NULL, '{}');
        GRANT SELECT ON odd TO app"#,
    );
    let shown = "concat_ws('|', id, note, doc, total, tags)";
    let (copy, rows) = copied_back(&gateway, "odd", "FORMAT binary", "FORMAT binary", shown);
    assert!(!contains(&copy, "example.com") && !contains(&copy, "4111 1111"), "{rows}");
    assert!(rows.contains("\"[REDACTED:EMAIL]\"") && rows.contains("|0|{x,y}"), "{rows}");
    assert!(rows.ends_with("2|1.5\n3|plain|[]|2|{}"), "{rows}");
}

#[test]
fn labelled_tables_keep_their_definition() {
    let gateway = labelled();
    for sql in [
        "ALTER TABLE customers RENAME ssn TO x",
        "ALTER TABLE customers RENAME TO people",
        "ALTER TABLE customers ADD y text GENERATED ALWAYS AS (reverse(ssn)) STORED",
        "ALTER TABLE customers ALTER note TYPE text USING ssn",
        "ALTER TABLE customers SET SCHEMA pg_temp",
    ] {
        let answer = psql(&gateway, sql);
        assert!(answer.contains("gateway:") && answer.contains("hidden from you"), "{sql}: {answer}");
    }
    assert!(psql(&gateway, "CREATE TABLE mine (id integer); ").is_empty());
    assert_eq!(psql(&gateway, "ALTER TABLE mine RENAME id TO number"), "");
}
