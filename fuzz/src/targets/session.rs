//! A whole session: a client that sends anything, and a server that answers well, badly or not at all.
//!
//! The input is `length of the client's part (2 bytes) | the client's bytes after login | what the server throws in`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::{StaticCredentials, UpstreamCredential};
use gateway_core::identity::{Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::masking::DataClass;
use gateway_core::operation::Resource;
use gateway_core::pipeline::{Label, Pipeline};
use gateway_core::policy::{Allowed, Decision, FnPolicy, PolicyInput};
use gateway_core::recording::MemoryRecorder;
use gateway_pg::{Address, PgGateway, SslMode, Target as Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{Target, outcome};

pub const TARGET: Target = Target {
    name: "session",
    run,
    words: &[
        b"Q\0\0\0\x0dSELECT 1\0",
        b"Q\0\0\0\x0aBEGIN\0",
        b"P\0\0\0\x10\0SELECT 1\0\0\0",
        b"B\0\0\0\x0c\0\0\0\0\0\0\0\0",
        b"D\0\0\0\x06P\0",
        b"E\0\0\0\x09\0\0\0\0\0",
        b"C\0\0\0\x06S\0",
        b"S\0\0\0\x04",
        b"H\0\0\0\x04",
        b"X\0\0\0\x04",
        b"d\0\0\0\x06a\n",
        b"c\0\0\0\x04",
        b"Z\0\0\0\x05I",
        b"Z\0\0\0\x05T",
        b"1\0\0\0\x04",
        b"2\0\0\0\x04",
        b"T\0\0\0\x20\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        b"D\0\0\0\x0c\0\x01\0\0\0\x02ab",
        b"C\0\0\0\x0dSELECT 1\0",
        b"G\0\0\0\x07\0\0\0",
        b"H\0\0\0\x09\0\0\x01\0\0",
        b"E\0\0\0\x10SERROR\0C42601\0\0",
        b"COPY t FROM STDIN",
    ],
};

/// How long one session may take: more is a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the client waits for the end of a session: one may wait for a message that does not come.
const QUIET: Duration = Duration::from_millis(20);

fn run(input: &[u8]) -> u64 {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(World::new);
    let (length, rest) = input.split_first_chunk::<2>().unwrap_or((&[0, 0], input));
    let (client, server) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let tags = world.runtime.block_on(async { timeout(PATIENCE, world.session(client, server)).await });
    outcome(tags.expect("the session hangs"))
}

struct World {
    runtime: Runtime,
    pipeline: Pipeline,
}

const TOKEN: &str = "token-of-the-fuzzer-0123456789";

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let agent = Principal::new(PrincipalKind::Agent, "fuzz", "agent", Timestamp::MAX);
        let allow = |_: &PolicyInput<'_>| Decision::Allow(Allowed::default());
        let password = "password-of-the-fuzzer".into();
        let credential = UpstreamCredential::Password { username: "app".to_owned(), password };
        let pipeline = Pipeline::builder(
            Arc::new(StaticAuthenticator::new().expect("randomness").with(TOKEN, agent)),
            Arc::new(FnPolicy(allow)),
            Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
            Arc::new(MemoryRecorder::default()),
            Arc::new(StaticCredentials::default().with("fuzz", credential)),
        );
        Self { runtime, pipeline: pipeline.build().expect("a pipeline") }
    }

    /// The tags of what the client got.
    async fn session(&self, client: &[u8], server: &[u8]) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let label = Resource::target("fuzz").child("Database", "d").child("Schema", "s").child("Table", "t");
        // A label elsewhere: the paths for labels are taken, no column has to exist.
        let labels =
            [Label { resource: label, rule: gateway_core::masking::FieldRule::new(DataClass::EMAIL) }];
        let target =
            Server::new("fuzz", Address::Tcp("127.0.0.1".to_owned(), address.port()), SslMode::Disable)
                .database("d")
                .labels(labels);
        let gateway = PgGateway::new(self.pipeline.clone(), target);
        let (mut down, stream) = tokio::io::duplex(64 * 1024);
        let serve = async { drop(gateway.serve_stream(Box::new(stream)).await) };
        let talk = async {
            let mut received = Vec::new();
            let startup = b"\0\0\0\x1d\0\x03\0\0user\0agent\0database\0d\0\0";
            let login =
                [&[b'p'][..], &(TOKEN.len() as u32 + 5).to_be_bytes(), TOKEN.as_bytes(), b"\0"].concat();
            let leave = message(b'X', b"");
            let _ = down.write_all(&[&startup_packet(startup)[..], &login, client, &leave].concat()).await;
            // A client that was understood is sent away; one that was not waits for no more than this.
            let _ = timeout(QUIET, down.read_to_end(&mut received)).await;
            drop(down);
            tags(&received)
        };
        let upstream = async { drop(fake(listener, server).await) };
        let ((), got) = tokio::select! {
            both = async { tokio::join!(serve, talk) } => both,
            () = async { upstream.await; std::future::pending().await } => unreachable!(),
        };
        got
    }
}

/// With its length put right.
fn startup_packet(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u32).to_be_bytes()[..], &packet[4..]].concat()
}

fn tags(mut received: &[u8]) -> Vec<u8> {
    let mut tags = Vec::new();
    while let Some((tag, rest)) = received.split_first()
        && let Some((length, _)) = rest.split_first_chunk::<4>()
        && let Some(more) = rest.get(u32::from_be_bytes(*length) as usize..)
    {
        if tags.last() != Some(tag) && tags.len() < 24 {
            tags.push(*tag);
        }
        received = more;
    }
    tags
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// A server that logs everybody in, answers what it understands, and throws in a piece of `extra` each time.
async fn fake(listener: TcpListener, extra: &[u8]) -> std::io::Result<()> {
    let (tcp, _) = listener.accept().await?;
    // Requests to cancel are taken and forgotten.
    let cancels = async {
        while let Ok((cancel, _)) = listener.accept().await {
            drop(cancel);
        }
        std::future::pending().await
    };
    tokio::select! {
        done = serve(tcp, extra) => done,
        () = cancels => Ok(()),
    }
}

async fn serve(mut tcp: TcpStream, extra: &[u8]) -> std::io::Result<()> {
    let length = tcp.read_u32().await?;
    let mut packet = vec![0; (length as usize).saturating_sub(4).min(10_000)];
    tcp.read_exact(&mut packet).await?;
    let greeting = [
        message(b'R', &[0, 0, 0, 0]),
        message(b'S', b"server_version\x0015.4\0"),
        message(b'S', b"client_encoding\0UTF8\0"),
        message(b'S', b"server_encoding\0UTF8\0"),
        message(b'S', b"standard_conforming_strings\0on\0"),
        message(b'S', b"integer_datetimes\0on\0"),
        message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        message(b'Z', b"I"),
    ];
    tcp.write_all(&greeting.concat()).await?;
    let mut pieces = extra.split(|byte| *byte == b'|');
    loop {
        let answer = answer(&mut tcp).await?;
        tcp.write_all(pieces.next().unwrap_or_default()).await?;
        tcp.write_all(&answer).await?;
    }
}

async fn answer(tcp: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let tag = tcp.read_u8().await?;
    let length = tcp.read_u32().await?;
    let mut body = vec![0; (length as usize).saturating_sub(4).min(100_000)];
    tcp.read_exact(&mut body).await?;
    Ok(match tag {
        b'Q' => [message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat(),
        b'P' => message(b'1', b""),
        b'B' => message(b'2', b""),
        b'D' if body.first() == Some(&b'S') => [message(b't', &[0, 0]), message(b'n', b"")].concat(),
        b'D' => message(b'n', b""),
        b'E' => message(b'C', b"SELECT 0\0"),
        b'C' => message(b'3', b""),
        b'S' => message(b'Z', b"I"),
        _ => Vec::new(),
    })
}
