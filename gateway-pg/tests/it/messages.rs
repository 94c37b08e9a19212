//! Sequences of messages that drivers send and that are easy to get wrong; found by `./test --drivers`.

use testkit::raw_pg::{self, Bind, RawPg};
use testkit::{Ca, Postgres};
use tokio::net::TcpStream;

use crate::logins::with_tls;
use crate::support::{Gateway, TOKEN, allow_all, gateway};

async fn client(gateway: &Gateway) -> RawPg<TcpStream> {
    let mut client = RawPg::connect(gateway.address).await.unwrap();
    client.log_in("agent", &gateway.database, TOKEN).await.unwrap();
    client
}

/// Parse, Bind, Execute of the unnamed statement.
fn unnamed(sql: &str) -> Vec<u8> {
    [raw_pg::parse("", sql, &[]), Bind::default().encode(), raw_pg::execute("", 0)].concat()
}

/// Tags of the next frames.
async fn tags(client: &mut RawPg<TcpStream>, count: usize) -> String {
    let mut tags = String::new();
    for _ in 0..count {
        tags.push(client.frame().await.unwrap().tag.into());
    }
    tags
}

#[test]
fn an_empty_query_is_answered_as_such() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        for sql in ["", ";", "-- nothing"] {
            assert_eq!(client.query(sql).await.unwrap().tags(), "IZ", "{sql:?}");
            let mut wire = raw_pg::parse("", sql, &[]);
            wire.extend(raw_pg::describe(b'S', ""));
            wire.extend(Bind::default().encode());
            wire.extend(raw_pg::execute("", 0));
            wire.extend(raw_pg::sync());
            assert_eq!(client.exchange(&wire).await.unwrap().tags(), "1tn2IZ", "{sql:?}");
        }
    });
}

/// The server keeps the answer to CopyDone until a Sync or Flush; the client's Sync may not wait for that answer.
#[test]
fn copy_in_by_the_extended_protocol_ends() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        client.query("CREATE TABLE copied (a integer)").await.unwrap();
        let done = || [raw_pg::copy_done(), raw_pg::sync()].concat();
        for end in [raw_pg::sync(), [raw_pg::flush(), raw_pg::sync()].concat()] {
            client.send(&[unnamed("COPY copied FROM STDIN"), end].concat()).await.unwrap();
            assert_eq!(tags(&mut client, 3).await, "12G");
            client.send(&[raw_pg::copy_data(b"1\n2\n"), done()].concat()).await.unwrap();
            assert_eq!(client.until_ready().await.unwrap().tags(), "CZ");
        }
        client.send(&[unnamed("COPY copied FROM STDIN"), raw_pg::sync()].concat()).await.unwrap();
        assert_eq!(tags(&mut client, 3).await, "12G");
        client.send(&[raw_pg::copy_fail("no more"), raw_pg::sync()].concat()).await.unwrap();
        assert_eq!(client.until_ready().await.unwrap().tags(), "EZ");
        let bad = [raw_pg::copy_data(b"x\n"), done()].concat();
        client.send(&[unnamed("COPY copied FROM STDIN"), raw_pg::sync()].concat()).await.unwrap();
        assert_eq!(tags(&mut client, 3).await, "12G");
        client.send(&bad).await.unwrap();
        assert_eq!(client.until_ready().await.unwrap().tags(), "EZ");
        assert_eq!(
            client.query("SELECT count(*) FROM copied").await.unwrap().text_rows().unwrap()[0][0],
            "4"
        );
    });
}

/// Nothing has to be awaited between the Execute of a copy and its data.
#[test]
fn copied_data_may_follow_at_once() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        client.query("CREATE TABLE ahead (a integer)").await.unwrap();
        client.query("CREATE VIEW nowhere AS SELECT 1 AS a").await.unwrap();
        let data = [raw_pg::copy_data(b"1\n2\n"), raw_pg::copy_done(), raw_pg::sync()].concat();
        let good = [unnamed("COPY ahead FROM STDIN"), data.clone()].concat();
        assert_eq!(client.exchange(&good).await.unwrap().tags(), "12GCZ");
        let bad = [unnamed("COPY nowhere FROM STDIN"), data].concat();
        assert_eq!(client.exchange(&bad).await.unwrap().tags(), "12GEZ");
        assert_eq!(client.query("SELECT count(*) FROM ahead").await.unwrap().text_rows().unwrap()[0][0], "2");
    });
}

/// The server drops a Sync while it takes data; where it takes none, because the copy fails before, it answers it.
#[test]
fn a_copy_that_fails_before_it_takes_data_answers_its_sync_once() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        client.query("CREATE VIEW shown AS SELECT 1 AS a").await.unwrap();
        for end in [raw_pg::sync(), [raw_pg::flush(), raw_pg::sync()].concat()] {
            client.send(&[unnamed("COPY shown FROM STDIN"), end].concat()).await.unwrap();
            assert_eq!(client.until_ready().await.unwrap().tags(), "12GEZ");
            // What the client sends because it saw the copy begin.
            let late = [raw_pg::copy_data(b"1\n"), raw_pg::copy_done(), raw_pg::sync()].concat();
            assert_eq!(client.exchange(&late).await.unwrap().tags(), "Z");
            let answer = client.query("SELECT count(*) FROM products").await.unwrap();
            assert_eq!((answer.tags().as_str(), answer.text_rows().unwrap()[0][0].as_str()), ("TDCZ", "40"));
        }
    });
}

/// A call by number, with arguments and the result as text.
fn call(function: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend((arguments.len() as u16).to_be_bytes());
    for argument in arguments {
        body.extend((argument.len() as u32).to_be_bytes());
        body.extend_from_slice(argument.as_bytes());
    }
    body.extend([0, 0]);
    raw_pg::frame(b'F', &body)
}

#[test]
fn calls_by_number_are_judged_as_what_the_server_calls() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        client.query("BEGIN").await.unwrap();
        for (name, arguments) in [
            ("lo_create", &["70000"][..]),
            ("lo_creat", &["-1"]),
            ("lo_open", &["70000", "393216"]),
            ("lowrite", &["0", "card 4111 1111 1111 1111 end"]),
            ("lo_tell", &["0"]),
            ("lo_tell64", &["0"]),
            ("lo_lseek64", &["0", "1", "0"]),
            ("lo_lseek", &["0", "0", "0"]),
            ("loread", &["0", "1000"]),
            ("lo_truncate", &["0", "4"]),
            ("lo_truncate64", &["0", "4"]),
            ("lo_close", &["0"]),
            ("lo_unlink", &["70000"]),
        ] {
            let oid = gateway.directly(&format!("SELECT 'pg_catalog.{name}'::regproc::oid"));
            let answer = client.exchange(&call(oid.parse().unwrap(), arguments)).await.unwrap();
            assert_eq!(answer.tags(), "VZ", "{name}: {:?}", answer.error());
            if name == "loread" {
                let read = format!("{answer:?}");
                assert!(!read.contains("4111") && !read.contains("34313131"), "{read}");
            }
            let sessions = format!("{:?}", gateway.recorder.sessions());
            assert!(
                sessions.contains(&format!("SELECT pg_catalog.{name}($1")),
                "{name} is not in the record"
            );
        }
        // What the server refuses, and what is no large object's.
        assert_eq!(client.exchange(&call(952, &["1", "1"])).await.unwrap().tags(), "EZ");
        client.query("ROLLBACK").await.unwrap();
        for (function, arguments) in [(1598, &[][..]), (952, &["1"]), (0, &["1"])] {
            let answer = client.exchange(&call(function, arguments)).await.unwrap();
            assert_eq!(answer.tags(), "EZ");
            assert!(answer.error().unwrap().message().contains("fast path"), "{answer:?}");
        }
        assert_eq!(client.query("SELECT 1").await.unwrap().tags(), "TDCZ");
    });
}

#[test]
fn psql_imports_and_exports_large_objects() {
    let gateway = gateway(allow_all(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::write(&from, "plain text and 4111 1111 1111 1111 in it").unwrap();
    let script = format!(
        "\\lo_import '{}'\n\\lo_export :LASTOID '{}'\n\\lo_unlink :LASTOID",
        from.display(),
        to.display()
    );
    testkit::psql_script(&gateway.url(), &script).unwrap();
    let exported = std::fs::read_to_string(&to).unwrap();
    assert!(exported.starts_with("plain text and ") && !exported.contains("4111"), "{exported}");
}

#[test]
fn notifications_reach_an_idle_listener_masked() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let (mut listener, mut speaker) = (client(&gateway).await, client(&gateway).await);
        listener.query("LISTEN news").await.unwrap();
        for (said, heard) in [("one", "one"), ("ask ada@example.com", "[REDACTED:EMAIL]")] {
            speaker.query(&format!("NOTIFY news, '{said}'")).await.unwrap();
            let frame = listener.frame().await.unwrap();
            let body = String::from_utf8_lossy(&frame.body).into_owned();
            assert_eq!(frame.tag, b'A');
            assert!(body.contains(heard) && body.contains("news") && !body.contains('@'), "{body:?}");
        }
        assert_eq!(listener.query("UNLISTEN news").await.unwrap().tags(), "CZ");
        speaker.query("NOTIFY news, 'three'").await.unwrap();
        assert_eq!(listener.query("SELECT 1").await.unwrap().tags(), "TDCZ");
    });
    let records = format!("{:?}", gateway.recorder.sessions());
    assert!(
        records.contains("Released") && !records.contains("ada@example.com"),
        "what was shown is recorded"
    );
}

#[test]
fn what_a_pipeline_defines_can_be_used_in_it() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        let statements =
            ["CREATE TABLE piped (a integer)", "INSERT INTO piped VALUES (1)", "SELECT a FROM piped"];
        let wire = [statements.map(unnamed).concat(), raw_pg::sync()].concat();
        assert_eq!(client.exchange(&wire).await.unwrap().tags(), "12C12C12DCZ");
        // It is one transaction still: what fails later takes all of it back.
        let statements = ["CREATE TABLE gone (a integer)", "INSERT INTO gone VALUES (1)", "SELECT 1 / 0"];
        let wire = [statements.map(unnamed).concat(), raw_pg::sync()].concat();
        assert_eq!(client.exchange(&wire).await.unwrap().error().unwrap().code(), "22012");
        let found = client.query("SELECT to_regclass('gone') IS NULL, count(*) FROM piped").await.unwrap();
        assert_eq!(found.text_rows().unwrap(), [["t", "1"]]);
    });
}

#[test]
fn a_cancel_request_over_tls_is_closed_in_order() {
    let ca = Ca::new().unwrap();
    let server = Postgres::start().unwrap();
    let gateway = with_tls(&server, &ca, |g| g);
    gateway.block_on(async {
        let config = ca.client_config(None, &[]).unwrap();
        let mut asking = RawPg::connect_tls(gateway.address, config).await.unwrap();
        asking.send(&raw_pg::cancel_request(1, &[1, 2, 3, 4])).await.unwrap();
        // Without the alert `close_notify` this read is an error, which libpq reports as a failed cancel.
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(asking.stream(), &mut rest).await.unwrap();
        assert!(rest.is_empty());
    });
}

/// Old clients say `UNICODE` for UTF8, and the server reports it as they wrote it.
#[test]
fn the_old_name_of_utf8_is_taken() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        assert_eq!(client.query("SET client_encoding TO 'UNICODE'").await.unwrap().tags(), "CSZ");
        assert_eq!(client.query("SELECT 'ü'").await.unwrap().text_rows().unwrap(), [["ü"]]);
    });
}

/// A timeout that strikes while the server is asked about names is told as what it is.
#[test]
fn a_statement_timeout_is_told_as_such() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        client.query("SET statement_timeout = 1").await.unwrap();
        // A name not yet known: one question before the statement itself.
        let answer = client.query("SELECT pg_sleep(5) FROM customers LIMIT 1").await.unwrap();
        assert_eq!(answer.error().unwrap().code(), "57014");
    });
}

/// A question about names that fails leaves nothing behind.
#[test]
fn names_can_be_asked_for_after_a_timeout() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        client.query("SET statement_timeout = 1").await.unwrap();
        let lock = "BEGIN; LOCK TABLE pg_catalog.pg_inherits IN ACCESS EXCLUSIVE MODE; SELECT pg_catalog.pg_sleep(1)";
        let locked = tokio::task::spawn_blocking({
            let database = gateway.database.clone();
            move || crate::support::server().psql(&database, lock)
        });
        let mut codes = Vec::new();
        while codes.len() < 200 && !locked.is_finished() {
            let answer = client.query("SELECT name FROM products WHERE id = 1").await.unwrap();
            codes.extend(answer.error().map(|error| error.code().to_owned()));
        }
        locked.await.unwrap().unwrap();
        client.query("SET statement_timeout = 0").await.unwrap();
        assert_eq!(client.query("SELECT id FROM customers LIMIT 1").await.unwrap().tags(), "TDCZ", "{codes:?}");
    });
}

/// Text that does not end is a syntax error, as at the server.
#[test]
fn text_without_end_is_a_syntax_error() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = client(&gateway).await;
        let answer = client.query("SELECT 'it''s").await.unwrap();
        assert_eq!(answer.error().unwrap().code(), "42601");
    });
}

/// Drivers compare the process id of the login with that of notifications, and use it in `pg_terminate_backend`.
#[test]
fn the_process_id_is_the_servers() {
    let gateway = gateway(allow_all(), &[]);
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        let greeting = client.log_in("agent", &gateway.database, TOKEN).await.unwrap();
        let key = greeting.frames.iter().find(|frame| frame.tag == b'K').unwrap();
        let (process, _) = key.cancel_key().unwrap();
        let answer = client.query("SELECT pg_backend_pid()").await.unwrap();
        assert_eq!(answer.text_rows().unwrap(), [[process.to_string()]]);
    });
}
