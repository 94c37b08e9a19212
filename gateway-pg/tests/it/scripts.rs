//! Simple queries whose later statements name what earlier ones define: the same answer as the server's, to the byte.

use testkit::raw_pg::{self, RawPg};
use testkit::{Auth, Postgres};
use tokio::net::TcpStream;

use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_pg::{Address, SslMode, Target};

use crate::support::{Gateway, TOKEN, agent, allow_all, guarded, start};

struct Pair {
    server: Postgres,
    gateway: Gateway,
}

fn pair(policy: impl gateway_core::policy::PolicyEngine + 'static) -> Pair {
    let server = Postgres::builder().role("plain", Auth::Password).start().unwrap();
    server.psql("shop", "GRANT CREATE ON SCHEMA public TO app").unwrap();
    let target = Target::new("shop", Address::Tcp("127.0.0.1".to_owned(), server.port()), SslMode::Disable)
        .database("shop");
    let credential = UpstreamCredential::Password {
        username: "app".to_owned(),
        password: Secret::new(server.password("app").to_owned()),
    };
    let gateway = start(target, credential, agent(), policy, |gateway| gateway);
    Pair { server, gateway }
}

impl Pair {
    async fn direct(&self) -> RawPg<TcpStream> {
        let mut client = RawPg::connect(self.server.address()).await.unwrap();
        client.log_in("plain", "shop", self.server.password("plain")).await.unwrap();
        client
    }

    async fn through(&self) -> RawPg<TcpStream> {
        let mut client = RawPg::connect(self.gateway.address).await.unwrap();
        client.log_in("agent", "shop", TOKEN).await.unwrap();
        client
    }
}

/// What `before` and then `sql` answer, with what is left behind taken away by another session.
async fn answers(
    client: &mut RawPg<TcpStream>,
    cleaner: &mut RawPg<TcpStream>,
    sql: &[&str],
) -> Vec<raw_pg::Answer> {
    let mut answers = Vec::new();
    for sql in sql.iter().copied().chain(["SELECT 'still here'"]) {
        let mut answer = client.query(sql).await.unwrap();
        answer.frames.iter_mut().filter(|frame| frame.tag == b'T').for_each(without_table);
        answer.frames.iter_mut().filter(|frame| frame.tag == b'N').for_each(without_line);
        answers.push(answer);
    }
    for again in ["ROLLBACK", "DISCARD ALL"] {
        assert!(client.query(again).await.unwrap().error().is_none());
    }
    let again = "DROP TABLE IF EXISTS a, other; DROP SCHEMA IF EXISTS s CASCADE";
    assert!(cleaner.query(again).await.unwrap().error().is_none());
    answers
}

/// A RowDescription without the object ids of its tables, which are new each time: they stand after each name.
fn without_table(description: &mut raw_pg::Frame) {
    let mut at = 2;
    while let Some(name) = description.body[at..].iter().position(|byte| *byte == 0) {
        description.body[at + name + 1..][..4].fill(0);
        at += name + 1 + 18;
    }
}

/// A notice without its line in the server's source: two lines there say that no transaction is in progress.
fn without_line(notice: &mut raw_pg::Frame) {
    let fields = notice.body.split(|byte| *byte == 0).filter(|field| !field.starts_with(b"L"));
    notice.body = fields.collect::<Vec<_>>().join(&0);
}

/// Each is answered byte for byte as by the server, in every state a session can be in.
const SCRIPTS: [&str; 30] = [
    "CREATE TABLE a (b integer); INSERT INTO a VALUES (1), (2); SELECT * FROM a",
    "CREATE TABLE a (b integer); INSERT INTO a VALUES (1); SELECT b FROM a; DROP TABLE a; SELECT 5",
    "SELECT 0; CREATE TABLE a (b integer); ; INSERT INTO a VALUES (1) RETURNING b; -- the end",
    // Errors undo everything, and say where in the whole text they are.
    "CREATE TABLE a (b integer); INSERT INTO a VALUES (1);\n SELECT 'é', wrong FROM a; SELECT 1",
    "CREATE TABLE a (b integer); INSERT INTO a VALUES (1/0); SELECT 1",
    "CREATE TABLE a (b integer CHECK (b > 0)); INSERT INTO a VALUES (-1)",
    "CREATE TABLE a (b integer); SELECT * FROM missing",
    // The last command is complete once the block is committed.
    "CREATE TABLE a (b integer UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO a VALUES (1); INSERT INTO a VALUES (1)",
    "CREATE TABLE a (b integer UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO a VALUES (1); INSERT INTO a VALUES (1) RETURNING b",
    // Blocks of the client's own.
    "BEGIN; CREATE TABLE a (b integer); INSERT INTO a VALUES (1); COMMIT; SELECT * FROM a",
    "BEGIN; CREATE TABLE a (b integer); INSERT INTO a VALUES (1); ROLLBACK; SELECT 2",
    "BEGIN; CREATE TABLE a (b integer); INSERT INTO a VALUES (1)",
    "CREATE TABLE a (b integer); INSERT INTO a VALUES (1); BEGIN; INSERT INTO a VALUES (2); COMMIT; SELECT * FROM a",
    "CREATE TABLE a (b integer); INSERT INTO a VALUES (1); BEGIN; INSERT INTO a VALUES (1/0); COMMIT; SELECT * FROM a",
    "CREATE TABLE a (b integer); INSERT INTO a VALUES (1); COMMIT; INSERT INTO a VALUES (2); SELECT * FROM a",
    "CREATE TABLE a (b integer); INSERT INTO a VALUES (1); ROLLBACK; SELECT * FROM a",
    "CREATE TABLE a (b integer); COMMIT; INSERT INTO a VALUES (1); SELECT 1/0",
    "BEGIN; CREATE TABLE a (b integer); SAVEPOINT s; INSERT INTO a VALUES (1); ROLLBACK TO s; SELECT * FROM a; COMMIT",
    "CREATE TABLE a (b integer); BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT * FROM a",
    "BEGIN; CREATE TABLE a (b integer); COMMIT AND CHAIN; SELECT * FROM a; COMMIT",
    // What a block, even an implicit one, changes or forbids.
    "CREATE TABLE a (b integer); DECLARE c CURSOR FOR SELECT * FROM a; FETCH c",
    "CREATE TABLE a (b integer); VACUUM a",
    "CREATE TABLE a (b integer); LOCK TABLE a; SET LOCAL work_mem = '1MB'; SELECT * FROM a",
    "CREATE TABLE a (b integer); PREPARE p AS SELECT * FROM a; EXECUTE p; DEALLOCATE p",
    "SET application_name = 'x'; SET search_path = public; CREATE TABLE a (b integer); SELECT * FROM a; SELECT 1/0",
    "SET application_name = 'y'; SET search_path = public; CREATE TABLE a (b integer); SELECT * FROM a",
    "DO $$BEGIN RAISE NOTICE 'made'; CREATE TABLE a (b integer); END$$; SELECT * FROM a; NOTIFY n",
    "CREATE TEMPORARY TABLE t (b integer) ON COMMIT DELETE ROWS; INSERT INTO t VALUES (1); SELECT * FROM t",
    "CREATE SCHEMA s; SET search_path = s; CREATE TABLE a (b integer); SELECT * FROM s.a",
    "CREATE TABLE a (b integer); WITH moved AS (INSERT INTO a VALUES (1) RETURNING *) SELECT * FROM moved",
];

#[test]
fn answers_are_the_servers() {
    let pair = pair(allow_all());
    pair.gateway.block_on(async {
        let (mut direct, mut through) = (pair.direct().await, pair.through().await);
        let mut cleaner = pair.direct().await;
        for sql in SCRIPTS {
            for queries in [&[sql][..], &["BEGIN; CREATE TABLE other ()", sql]] {
                let there = answers(&mut direct, &mut cleaner, queries).await;
                let here = answers(&mut through, &mut cleaner, queries).await;
                assert_eq!(here, there, "{queries:?}");
            }
        }
    });
}

#[test]
fn copies_in_the_middle() {
    let pair = pair(allow_all());
    let sql = "CREATE TABLE a (b integer); COPY a FROM STDIN; COPY a TO STDOUT; SELECT count(*) FROM a";
    pair.gateway.block_on(async {
        let mut answers = Vec::new();
        for mut client in [pair.direct().await, pair.through().await] {
            client.send(&raw_pg::query(sql)).await.unwrap();
            let mut tags = Vec::new();
            while client.frame().await.unwrap().tag != b'G' {
                tags.push(());
            }
            let data = [raw_pg::copy_data(b"1\n2\n"), raw_pg::copy_done()].concat();
            let rest = client.exchange(&data).await.unwrap();
            assert!(client.query("DROP TABLE a").await.unwrap().error().is_none());
            answers.push((tags.len(), rest));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[1].1.tags(), "CHddcCTDCZ");
    });
}

#[test]
fn a_refused_statement_undoes_what_ran_before_it() {
    let pair = pair(guarded());
    pair.gateway.block_on(async {
        let mut client = pair.through().await;
        let sql = "CREATE TABLE a (b integer); INSERT INTO a VALUES (1); DROP TABLE a; SELECT 1";
        let answer = client.query(sql).await.unwrap();
        assert_eq!(answer.tags(), "CCEZ");
        assert!(answer.error().unwrap().to_string().contains("dropping is forbidden"));
        assert_eq!(answer.frames.last().unwrap().body, b"I");
        assert_eq!(pair.server.psql("shop", "SELECT to_regclass('a') IS NULL").unwrap(), "t");
        // In a block of the client's own it fails, as with the server.
        client.query("BEGIN").await.unwrap();
        assert_eq!(client.query(sql).await.unwrap().frames.last().unwrap().body, b"E");
        assert_eq!(client.query("COMMIT").await.unwrap().tags(), "CZ");
        assert_eq!(pair.server.psql("shop", "SELECT to_regclass('a') IS NULL").unwrap(), "t");
        // What was committed before stays.
        let sql = "BEGIN; CREATE TABLE a (b integer); COMMIT; INSERT INTO a VALUES (1); DROP TABLE a";
        assert_eq!(client.query(sql).await.unwrap().tags(), "CCCCEZ");
        assert_eq!(pair.server.psql("shop", "SELECT count(*) FROM a").unwrap(), "0");
    });
}

/// Nobody can make the gateway's block outlive the query: savepoints and the like still need statements of their own.
#[test]
fn what_an_implicit_block_has_not_is_refused() {
    let pair = pair(allow_all());
    pair.gateway.block_on(async {
        let mut client = pair.through().await;
        let follows = "may change what its names mean";
        for (end, why) in [
            ("SAVEPOINT s", follows),
            ("ROLLBACK TO s", follows),
            ("RELEASE s", follows),
            ("COMMIT AND CHAIN", follows),
            ("PREPARE TRANSACTION 'p'", "cannot be prepared here"),
        ] {
            let answer =
                client.query(&format!("CREATE TABLE a (b integer); SELECT * FROM a; {end}")).await.unwrap();
            assert_eq!(answer.tags(), "EZ", "{end}");
            assert!(answer.error().unwrap().to_string().contains(why), "{end}");
        }
    });
}
