//! Values of every type, in text and binary: what stands for a hidden one is of its type, and the server takes it back.

use gateway_core::masking::DataClass;
use testkit::raw_pg::{self, Bind, RawPg};
use tokio::net::TcpStream;

use crate::support::{Gateway, TOKEN, allow_all, gateway_to, label, server, shop};

const SETUP: &str = "CREATE SCHEMA ext;
GRANT USAGE ON SCHEMA ext TO PUBLIC;
CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE TYPE mood AS ENUM ('ill', 'well');
CREATE DOMAIN short AS varchar(40) CHECK (VALUE <> '');
CREATE DOMAIN shorts AS text[];
CREATE DOMAIN pan AS bigint;
CREATE TYPE pair AS (a text, b integer, m mood);
CREATE TYPE deep AS (p pair, l text[]);
CREATE TYPE textrange AS RANGE (subtype = text, multirange_type_name = textmultirange);";

/// A type and a value that says something.
const VALUES: [(&str, &str); 71] = [
    ("text", "one two"),
    ("varchar(40)", "one two"),
    ("char(9)", "one two"),
    ("name", "one"),
    ("\"char\"", "x"),
    ("ext.citext", "One"),
    ("xml", "<a>b</a>"),
    ("json", r#"{"a": [1, null]}"#),
    ("jsonb", r#"{"a": [1, null]}"#),
    ("bytea", r"\x00ff61"),
    ("boolean", "t"),
    ("int2", "42"),
    ("int4", "42"),
    ("int8", "42"),
    ("oid", "42"),
    ("regclass", "pg_class"),
    ("float4", "1.5"),
    ("float8", "-1.5"),
    ("numeric", "42.50"),
    ("numeric(10,2)", "42.50"),
    ("money", "42.50"),
    ("date", "1999-12-31"),
    ("time", "12:34:56"),
    ("timetz", "12:34:56+02"),
    ("timestamp", "1999-12-31 12:34:56"),
    ("timestamptz", "1999-12-31 12:34:56+02"),
    ("interval", "1 year 2 days"),
    ("uuid", "12345678-1234-1234-1234-123456789abc"),
    ("inet", "10.1.2.3/8"),
    ("cidr", "10.0.0.0/8"),
    ("macaddr", "01:02:03:04:05:06"),
    ("macaddr8", "01:02:03:04:05:06:07:08"),
    ("bit(5)", "10110"),
    ("varbit", "101"),
    ("pg_lsn", "1/2"),
    ("tsvector", "'a':1 'b':2"),
    ("tsquery", "'a' & 'b'"),
    ("jsonpath", "$.\"a\""),
    ("ext.hstore", "\"a\"=>\"b\", \"c\"=>NULL"),
    ("mood", "well"),
    ("short", "one"),
    ("shorts", "{one,two}"),
    ("pair", "(\"one, two\",42,well)"),
    ("deep", "(\"(one,42,well)\",\"{a,\"\"b c\"\"}\")"),
    ("int4range", "[1,5)"),
    ("numrange", "(1.5,)"),
    ("daterange", "[1999-12-31,2001-01-01)"),
    ("tstzrange", "[1999-12-31 12:34:56+02,)"),
    ("int8multirange", "{[1,5),[7,9)}"),
    ("textrange", "[a,\"b c\"]"),
    ("textmultirange", "{[a,b),[c,d)}"),
    ("text[]", "{a,NULL,\"b \\\"c\\\"\",\"\"}"),
    ("text[]", "[2:3][5:6]={{a,b},{NULL,d}}"),
    ("int4[]", "{{1,2},{3,NULL}}"),
    ("int8[]", "{1,2}"),
    ("bool[]", "{t,t}"),
    ("numeric[]", "{1.5,2}"),
    ("date[]", "{1999-12-31,NULL}"),
    ("timestamptz[]", "{\"1999-12-31 12:34:56+02\"}"),
    ("uuid[]", "{12345678-1234-1234-1234-123456789abc}"),
    ("inet[]", "{127.0.0.1}"),
    ("bytea[]", r#"{"\\x00ff61"}"#),
    ("jsonb[]", r#"{"{\"a\": 1}"}"#),
    ("xml[]", "{<a>b</a>}"),
    ("varbit[]", "{101}"),
    ("ext.hstore[]", "{\"a=>b\"}"),
    ("mood[]", "{well}"),
    ("short[]", "{one,two}"),
    ("pair[]", "{\"(one,42,well)\",NULL}"),
    ("int4range[]", "{\"[1,5)\"}"),
    ("textmultirange[]", "{\"{[a,b)}\"}"),
];

/// Names of the columns of `every`, one for each value.
fn columns() -> Vec<String> {
    (0..VALUES.len()).map(|n| format!("c{n}")).collect()
}

/// A database with a table that has a column of every type, one row of values and one of NULLs.
fn database() -> String {
    let database = shop();
    let columns = columns();
    let defined: Vec<_> = columns.iter().zip(VALUES).map(|(c, (kind, _))| format!("{c} {kind}")).collect();
    let values: Vec<_> =
        VALUES.iter().map(|(kind, value)| format!("'{}'::{kind}", value.replace('\'', "''"))).collect();
    let sql = format!(
        "{SETUP} CREATE TABLE every (id integer, {}); INSERT INTO every VALUES (1, {}); INSERT INTO every VALUES (2); \
         GRANT ALL ON every TO app",
        defined.join(", "),
        values.join(", ")
    );
    server().psql(&database, &sql).unwrap();
    database
}

fn labelled() -> Gateway {
    let database = database();
    let columns = columns();
    let labels = columns.iter().map(|c| label(&database, &format!("public.every.{c}"), &DataClass::EMAIL));
    gateway_to(&database, allow_all(), &labels.collect::<Vec<_>>())
}

type Client = RawPg<TcpStream>;

async fn log_in(gateway: &Gateway) -> Client {
    let mut client = RawPg::connect(gateway.address).await.unwrap();
    client.log_in("agent", &gateway.database, TOKEN).await.unwrap();
    client
}

/// A gateway to the same database that hides nothing.
fn open(gateway: &Gateway) -> Gateway {
    gateway_to(&gateway.database, allow_all(), &[])
}

/// The rows of a query in a format.
async fn rows(client: &mut Client, sql: &str, format: u16) -> Vec<Vec<Option<Vec<u8>>>> {
    let bind = Bind { result_formats: &[format], ..Default::default() };
    let wire = [raw_pg::parse("", sql, &[]), bind.encode(), raw_pg::execute("", 0), raw_pg::sync()].concat();
    let answer = client.exchange(&wire).await.unwrap();
    assert!(answer.error().is_none(), "{sql}: {answer}");
    answer.rows().unwrap()
}

/// Fails unless the server takes the value as one of the type.
async fn is_taken_back(admin: &mut Client, kind: &str, format: u16, value: &[u8]) {
    let values = [Some(value)];
    let bind = Bind { formats: &[format], values: &values, ..Default::default() };
    let sql = format!("SELECT $1::{kind} IS NULL");
    let wire = [raw_pg::parse("", &sql, &[]), bind.encode(), raw_pg::execute("", 0), raw_pg::sync()].concat();
    let answer = admin.exchange(&wire).await.unwrap();
    assert!(answer.error().is_none(), "{kind} in format {format}: {value:?}: {answer}");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn labelled_values_of_every_type_are_replaced_by_values_of_that_type() {
    let gateway = labelled();
    let open = open(&gateway);
    gateway.block_on(async {
        let (mut agent, mut admin) = (log_in(&gateway).await, log_in(&open).await);
        let sql = format!("SELECT {} FROM every ORDER BY id", columns().join(", "));
        for format in [0, 1] {
            let real = rows(&mut admin, &sql, format).await;
            let shown = rows(&mut agent, &sql, format).await;
            assert!(shown[1].iter().all(Option::is_none), "NULLs stay");
            for (((kind, _), shown), real) in VALUES.iter().zip(&shown[0]).zip(&real[0]) {
                assert!(shown.is_some(), "{kind} in format {format} became NULL");
                assert_ne!(shown, real, "{kind} in format {format} is shown");
                is_taken_back(&mut admin, kind, format, shown.as_deref().unwrap()).await;
            }
        }
    });
}

#[test]
fn rows_and_arrays_of_rows_are_withheld_and_their_neighbours_pass() {
    let gateway = labelled();
    gateway.block_on(async {
        let mut agent = log_in(&gateway).await;
        for format in [0, 1] {
            let sql = "SELECT e, ARRAY[e], array_agg(e) OVER (), row_to_json(e), 'plain'::text, id::text \
                       FROM every e WHERE id = 1";
            let row = rows(&mut agent, sql, format).await.remove(0);
            assert!(row.iter().flatten().all(|value| !contains(value, "one")), "{row:?}");
            assert_eq!(row[4..], [Some(b"plain".to_vec()), Some(b"1".to_vec())]);
        }
    });
}

#[test]
fn whether_a_computed_value_is_null_is_withheld_too() {
    let gateway = labelled();
    gateway.block_on(async {
        let mut agent = log_in(&gateway).await;
        for format in [0, 1] {
            let told = |guess: &str| {
                format!(
                    "SELECT CASE WHEN c0 LIKE '{guess}%' THEN 'yes' END, CASE WHEN c0 LIKE '{guess}%' THEN 1 END, \
                     CASE WHEN c0 LIKE '{guess}%' THEN ARRAY['x'] END FROM every WHERE id = 1"
                )
            };
            let right = rows(&mut agent, &told("one"), format).await;
            assert_eq!(right, rows(&mut agent, &told("two"), format).await);
        }
        for options in ["", "(FORMAT csv)", "(FORMAT csv, NULL 'none')", "(NULL 'none')"] {
            let copied = async |agent: &mut Client, guess: &str| {
                let sql = format!(
                    "COPY (SELECT id, CASE WHEN c0 LIKE '{guess}%' THEN 'yes' END FROM every WHERE id = 1) TO STDOUT {options}"
                );
                agent.query(&sql).await.unwrap().bytes()
            };
            let right = copied(&mut agent, "one").await;
            assert!(contains(&right, "1"), "{options}: {right:?}");
            assert_eq!(right, copied(&mut agent, "two").await, "{options}");
        }
    });
}

/// A card number in everything that can hold one.
const CARDS: [(&str, &str); 26] = [
    ("text", "card 4111111111111111"),
    ("name", "4111111111111111"),
    ("xml", "<a>4111111111111111</a>"),
    ("json", r#"{"a": ["4111111111111111", 2.50], "b": 4111111111111111}"#),
    ("json", r#"{"a": "\u0034111111111111111"}"#),
    ("json", r#"{"a": "\ud800 \u0034111111111111111"}"#),
    ("jsonb", r#"{"a": ["4111111111111111", 2.50], "4111111111111111": 4111111111111111}"#),
    ("bytea", r"\x34313131313131313131313131313131"),
    ("int8", "4111111111111111"),
    ("numeric", "4111111111111111"),
    ("tsvector", "'4111111111111111':1"),
    ("ext.hstore", "a=>4111111111111111"),
    ("short", "4111111111111111"),
    ("pan", "4111111111111111"),
    ("pair", "(\"card 4111111111111111\",42,well)"),
    ("deep", "(\"(4111111111111111,42,well)\",\"{4111111111111111}\")"),
    ("int8range", "[4111111111111111,)"),
    ("int8multirange", "{[4111111111111111,4111111111111112)}"),
    ("textrange", "[4111111111111111,5)"),
    ("text[]", "{a,\"card 4111111111111111\",NULL}"),
    ("text[]", "[2:2][5:6]={{a,4111111111111111}}"),
    ("int8[]", "{1,4111111111111111}"),
    ("bytea[]", r#"{"\\x34313131313131313131313131313131"}"#),
    ("jsonb[]", r#"{"{\"a\": \"4111111111111111\"}"}"#),
    ("pair[]", "{\"(4111111111111111,42,well)\"}"),
    ("short[]", "{4111111111111111}"),
];

#[test]
fn content_is_masked_in_values_of_every_type() {
    let database = database();
    let create: Vec<_> = CARDS.iter().enumerate().map(|(n, (kind, _))| format!("c{n} {kind}")).collect();
    let values: Vec<_> =
        CARDS.iter().map(|(kind, value)| format!("'{}'::{kind}", value.replace('\'', "''"))).collect();
    let sql = format!(
        "CREATE TABLE found ({}); INSERT INTO found VALUES ({}); GRANT ALL ON found TO app",
        create.join(", "),
        values.join(", ")
    );
    server().psql(&database, &sql).unwrap();
    let gateway = gateway_to(&database, allow_all(), &[]);
    gateway.block_on(async {
        let (mut agent, mut admin) = (log_in(&gateway).await, log_in(&gateway).await);
        for format in [0, 1] {
            let row = rows(&mut agent, "SELECT * FROM found", format).await.remove(0);
            for ((kind, _), value) in CARDS.iter().zip(row) {
                let value = value.unwrap_or_default();
                for secret in ["4111111111111111", "34313131313131313131313131313131", "111111111111111"] {
                    assert!(!contains(&value, secret), "{kind} in format {format}: {value:?}");
                }
                let number = 4_111_111_111_111_111i64.to_be_bytes();
                assert!(!value.windows(8).any(|window| window == number), "{kind} in format {format}");
                if !value.is_empty() {
                    is_taken_back(&mut admin, kind, format, &value).await;
                }
            }
        }
        let within: Vec<_> =
            (0..CARDS.len()).map(|n| format!("ROW(c{n}), ARRAY[ROW(ARRAY[c{n}])]")).collect();
        for format in [0, 1] {
            for (within, (kind, _)) in within.iter().zip(CARDS) {
                let row = rows(&mut agent, &format!("SELECT {within} FROM found"), format).await.remove(0);
                let values = row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().concat();
                assert!(
                    !contains(&values, "111111111111111"),
                    "{kind} in a row in format {format}: {values:?}"
                );
                let number = 4_111_111_111_111_111i64.to_be_bytes();
                assert!(
                    !values.windows(8).any(|window| window == number),
                    "{kind} in a row in format {format}"
                );
            }
        }
        for source in ["found", "(SELECT * FROM found)", "(SELECT ARRAY[f] FROM found f)"] {
            for format in ["text", "csv"] {
                let sql = format!("COPY {source} TO STDOUT (FORMAT {format})");
                let copied = agent.query(&sql).await.unwrap().bytes();
                // Behind a JSON's escapes something is found, and what these stand in is one value here.
                assert!(contains(&copied, "card ") != source.contains("ARRAY"), "{sql}: {copied:?}");
                for secret in ["4111111111111111", "343131313131"] {
                    assert!(!contains(&copied, secret), "{sql}: {secret} in {copied:?}");
                }
            }
        }
    });
}

#[test]
fn a_type_that_is_changed_is_looked_at_anew() {
    let gateway = gateway_to(&shop(), allow_all(), &[]);
    gateway.block_on(async {
        let mut agent = log_in(&gateway).await;
        for format in [0, 1] {
            agent.query("DROP TYPE IF EXISTS turned").await.unwrap();
            agent.query("CREATE TYPE turned AS (a integer, b integer)").await.unwrap();
            let sql = |b: &str| format!("SELECT (1, {b})::turned");
            assert!(rows(&mut agent, &sql("2"), format).await[0][0].is_some());
            agent.query("ALTER TYPE turned ALTER ATTRIBUTE b TYPE text").await.unwrap();
            let told = rows(&mut agent, &sql("'4111111111111111'"), format).await.remove(0);
            assert!(!contains(told[0].as_deref().unwrap(), "4111111111111111"), "{told:?}");
        }
    });
}
