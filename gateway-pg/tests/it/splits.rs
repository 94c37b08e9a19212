//! However the bytes of a session are cut on their way, it is the same session: the same answers, the same records.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::SystemClock;
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::identity::StaticAuthenticator;
use gateway_core::masking::DataClass;
use gateway_core::pipeline::Pipeline;
use gateway_core::recording::{MemoryRecorder, Record};
use gateway_pg::{Address, PgGateway, SslMode, Target};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use testkit::RawPg;
use testkit::raw_pg::{self, Bind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{TOKEN, agent, guarded, label, server, shop};

/// The sizes of the pieces in which bytes come, over and over.
type Cuts = Arc<[usize]>;

/// A stream whose reader gets no more than the next piece at a time.
struct Chopped {
    stream: DuplexStream,
    cuts: Cuts,
    next: usize,
}

impl AsyncRead for Chopped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = this.cuts[this.next % this.cuts.len()];
        let mut piece = vec![0; most.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut piece);
        match Pin::new(&mut this.stream).poll_read(cx, &mut part) {
            Poll::Ready(Ok(())) => {
                this.next += 1;
                buf.put_slice(part.filled());
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl AsyncWrite for Chopped {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Passes bytes on in pieces; the kernel may join some, which makes other pieces.
async fn relay(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, cuts: Cuts) {
    let mut buffer = vec![0; 64 * 1024];
    let mut sizes = cuts.iter().copied().cycle();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            if to.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
            rest = more;
        }
    }
    let _ = to.shutdown().await;
}

/// A road to the server on which bytes are cut, in both directions.
async fn chopped_road(cuts: Cuts) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((down, _)) = listener.accept().await {
            let up = TcpStream::connect(server().address()).await.unwrap();
            down.set_nodelay(true).unwrap();
            up.set_nodelay(true).unwrap();
            let ((from_client, to_client), (from_server, to_server)) = (down.into_split(), up.into_split());
            tokio::spawn(relay(from_client, to_server, Arc::clone(&cuts)));
            tokio::spawn(relay(from_server, to_client, Arc::clone(&cuts)));
        }
    });
    address
}

/// What a client sends after its login, all at once: every way of the protocol, denials and errors among them.
fn script() -> Vec<u8> {
    let run = |sql: &str, values: &[&str], result_formats: &[u16]| {
        let values: Vec<_> = values.iter().map(|value| Some(value.as_bytes())).collect();
        let bind = Bind { values: &values, result_formats, ..Bind::default() }.encode();
        [raw_pg::parse("", sql, &[]), bind, raw_pg::describe(b'P', ""), raw_pg::execute("", 0)].concat()
    };
    [
        raw_pg::query(
            "SELECT id, name, ssn, email FROM customers ORDER BY id LIMIT 7; SELECT 'card 4111111111111111'",
        ),
        run("INSERT INTO notes VALUES ($1, $2)", &["1", "mail a@example.com"], &[]),
        run("SELECT * FROM notes WHERE id = $1", &["1"], &[1]),
        run("SELECT reverse(ssn), upper(name) FROM customers WHERE id = $1", &["3"], &[]),
        raw_pg::sync(),
        run("SELECT 1 / $1::integer", &["0"], &[]),
        run("SELECT 2", &[], &[]),
        raw_pg::sync(),
        run("DROP TABLE customers", &[], &[]),
        raw_pg::sync(),
        raw_pg::query("COPY notes FROM STDIN"),
        raw_pg::copy_data(b"2\tcall 4111 1111 1111 1111\n3\t"),
        raw_pg::copy_data(b"split over messages\n"),
        raw_pg::copy_done(),
        raw_pg::query("COPY customers TO STDOUT; COPY notes TO STDOUT"),
        raw_pg::query("BEGIN; SELECT count(*) FROM notes"),
        raw_pg::query("DROP TABLE notes"),
        raw_pg::query("COMMIT"),
        raw_pg::query("DO $$ BEGIN RAISE NOTICE 'told to b@example.com'; END $$"),
        raw_pg::query(""),
        raw_pg::query("SELECT repeat('long ', 20000) || id FROM notes ORDER BY id"),
        raw_pg::query("not a statement"),
        raw_pg::terminate(),
    ]
    .concat()
}

/// What all the sessions share.
struct World {
    database: String,
    pipeline: Pipeline,
    recorder: MemoryRecorder,
}

impl World {
    fn new() -> Self {
        let database = shop();
        server()
            .psql(&database, "CREATE TABLE notes (id integer, note text); GRANT ALL ON notes TO app")
            .unwrap();
        let password = Secret::new(server().password("app").to_owned());
        let credential = UpstreamCredential::Password { username: "app".to_owned(), password };
        let recorder = MemoryRecorder::default();
        let pipeline = Pipeline::builder(
            Arc::new(StaticAuthenticator::new().unwrap().with(TOKEN, agent())),
            Arc::new(guarded()),
            Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
            Arc::new(recorder.clone()),
            Arc::new(StaticCredentials::default().with("shop", credential)),
        );
        Self { database, pipeline: pipeline.build().unwrap(), recorder }
    }

    /// All that a client received after its login, and the session's records, with what was released of each operation in one piece.
    async fn session(&self, down: Cuts, up: Cuts) -> (Vec<u8>, Vec<String>) {
        server().psql(&self.database, "TRUNCATE notes").unwrap();
        let road = chopped_road(up).await;
        let labels = [label(&self.database, "public.customers.ssn", &DataClass::US_SSN)];
        let address = Address::Tcp(road.ip().to_string(), road.port());
        let target = Target::new("shop", address, SslMode::Disable).database(&self.database).labels(labels);
        let gateway = PgGateway::new(self.pipeline.clone(), target);
        let (client, stream) = tokio::io::duplex(1024 * 1024);
        let stream = Box::new(Chopped { stream, cuts: down, next: 0 });
        let serving = tokio::spawn(async move { gateway.serve_stream(stream).await });
        // Bytes that come one by one take their time on a busy machine.
        let mut client = RawPg::new(client).patience(std::time::Duration::from_secs(120));
        client.startup(&[("user", "agent"), ("database", &self.database)]).await.unwrap();
        client.password(TOKEN).await.unwrap();
        client.until_ready().await.unwrap();
        client.send(&script()).await.unwrap();
        let received = client.until_closed().await.unwrap().bytes();
        serving.await.unwrap().unwrap();
        let mut sessions = self.recorder.sessions();
        sessions.sort_by_key(|(header, _)| header.started);
        let (_, records) = sessions.pop().unwrap();
        (received, told(records.into_iter().map(|(_, record)| record)))
    }
}

fn told(records: impl Iterator<Item = Record>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut released = Vec::new();
    for record in records {
        if let Record::Released { bytes, .. } = record {
            released.extend_from_slice(&bytes);
            continue;
        }
        told.push(format!("{:?}", String::from_utf8_lossy(&std::mem::take(&mut released))));
        told.push(format!("{record:?}"));
    }
    told
}

#[test]
fn any_cuts_give_the_same_session() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |down: &[usize], up: &[usize]| runtime.block_on(world.session(down.into(), up.into()));
    let whole = run(&[1 << 20], &[1 << 20]);
    assert!(
        whole.0.len() > 100_000 && whole.1.len() > 40,
        "{} bytes, {} records",
        whole.0.len(),
        whole.1.len()
    );
    let same = |other: (Vec<u8>, Vec<String>)| {
        assert_eq!(whole.1, other.1);
        assert!(whole.0 == other.0, "the client received something else");
    };
    same(run(&[1], &[1 << 20]));
    same(run(&[1 << 20], &[1, 2, 3, 5, 7]));
    let sizes = || proptest::collection::vec(prop_oneof![1..9usize, 1..5_000usize], 1..40);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&(sizes(), sizes()), |(down, up)| {
            same(run(&down, &up));
            Ok(())
        })
        .unwrap();
}
