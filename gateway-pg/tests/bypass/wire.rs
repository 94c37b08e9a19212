//! Class 12, the part that needs two connections or TLS: forged cancels, bytes before and around the TLS handshake, slow bytes.

use std::time::Duration;

use gateway_pg::SslMode;
use testkit::{RawPg, raw_pg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::arena::{Gateway, Setup, TOKEN, ask, ca, database, runtime, server};
use crate::client::{Client, Door, block};
use testkit::bypass::{Attack, Outcome};

pub fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(12, "cancel with the right process and a wrong key", || forged_cancel(wrong_key))
            .by(&[49]),
        Attack::new(12, "cancel with a thousand guessed keys", || forged_cancel(guesses)).by(&[49]),
        Attack::new(12, "cancel with the server's own process id", || forged_cancel(real_process)).by(&[49]),
        Attack::new(12, "cancel with the key of a session that is over", || forged_cancel(old_key)).by(&[49]),
        Attack::new(12, "startup behind SSLRequest in one packet", || before_tls(raw_pg::ssl_request))
            .by(&[50]),
        Attack::new(12, "startup behind GSSENCRequest and SSLRequest", || {
            before_tls(|| [raw_pg::gssenc_request(), raw_pg::ssl_request()].concat())
        })
        .by(&[50]),
        Attack::new(12, "a second SSLRequest inside TLS", || inside_tls(raw_pg::ssl_request())).by(&[50]),
        Attack::new(12, "a GSSENCRequest inside TLS", || inside_tls(raw_pg::gssenc_request())).by(&[50]),
        Attack::new(12, "direct TLS without the protocol's name", direct_tls).by(&[51]),
        Attack::new(12, "a login without TLS where TLS is wanted", without_tls).by(&[51]),
        Attack::new(12, "a server that asks for the password in the clear", || {
            false_server(SslMode::Disable)
        })
        .by(&[51]),
        Attack::new(12, "a server that has no TLS and asks for the password", || {
            false_server(SslMode::VerifyFull)
        })
        .by(&[51]),
        Attack::new(12, "a login byte by byte, never finished", slow_bytes).by(&[52]),
    ]
}

fn gateway(database: &str, tls: bool) -> Gateway {
    let mut setup = Setup::new(database);
    setup.tls = tls;
    setup.start()
}

/// The session whose statement is to be cancelled by somebody else.
struct Victim {
    database: String,
    gateway: Gateway,
    client: Client,
}

/// Where a cancel goes, its process id and its key.
type Forged = (std::net::SocketAddr, u32, Vec<u8>);

/// Takes a second or so on any machine.
const LONG: &str = "SELECT count(*) FROM generate_series(1, 3000000)";

/// Runs a long statement while somebody sends forged cancels, then one that its own key cancels.
fn forged_cancel(forge: fn(&Victim) -> Vec<Forged>) -> Outcome {
    let database = database("");
    let gateway = gateway(&database, false);
    let client = block(Client::log_in(&Door::new(gateway.address, "agent", &database)));
    let mut victim = Victim { database, gateway, client };
    let forged = forge(&victim);
    let cancels = async {
        for (address, pid, key) in &forged {
            Client::cancel(*address, (*pid, key)).await;
        }
    };
    let (rows, ()) = block(async { tokio::join!(victim.client.query(LONG), cancels) });
    if rows.text_rows().unwrap_or_default() != [["3000000"]] {
        return Outcome::Passed(format!("the statement was cancelled: {rows}"));
    }
    let (pid, key) = victim.client.key.clone().unwrap();
    let address = victim.gateway.address;
    let running = "SELECT count(*) FROM generate_series(1, 2000000000)";
    let own = async {
        // The cancel counts only once the statement runs at the server; the server tells when.
        let sql = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{}' AND state = 'active' AND query LIKE '%2000000000%' AND pid <> pg_backend_pid()",
            victim.database
        );
        while ask("postgres", &sql) != Ok("t".to_owned()) {
            tokio::task::yield_now().await;
        }
        Client::cancel(address, (pid, &key)).await;
    };
    let (answer, ()) = block(async { tokio::join!(victim.client.query(running), own) });
    match answer.error().map(|e| e.to_string()) {
        Some(text) if text.contains("57014") => Outcome::Held,
        other => Outcome::TwinFailed(format!("its own key did not cancel: {other:?}")),
    }
}

fn wrong_key(victim: &Victim) -> Vec<Forged> {
    let (pid, mut key) = victim.client.key.clone().unwrap();
    key[0] ^= 1;
    vec![(victim.gateway.address, pid, key), (victim.gateway.address, pid, vec![0; 256])]
}

fn guesses(victim: &Victim) -> Vec<Forged> {
    let (pid, _) = victim.client.key.clone().unwrap();
    (0..200u32).map(|n| (victim.gateway.address, pid, n.to_be_bytes().to_vec())).collect()
}

/// The process id is no secret: it is the server's own. At the gateway it needs the session's key, and at the server the gateway's key
/// is wrong.
fn real_process(victim: &Victim) -> Vec<Forged> {
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{}'", victim.database);
    let pid = ask("postgres", &sql).unwrap().lines().next().unwrap().parse().unwrap();
    let (_, key) = victim.client.key.clone().unwrap();
    let other = block(Client::log_in(&Door::new(victim.gateway.address, "agent", &victim.database)));
    let (_, others) = other.key.clone().unwrap();
    vec![(victim.gateway.address, pid, others), (server().address(), pid, key)]
}

fn old_key(victim: &Victim) -> Vec<Forged> {
    let door = Door::new(victim.gateway.address, "agent", &victim.database);
    let mut old = block(Client::log_in(&door));
    let (pid, key) = old.key.clone().unwrap();
    block(async {
        old.send(&raw_pg::terminate()).await;
        old.ready().await;
    });
    vec![(victim.gateway.address, pid, key)]
}

fn harm() -> Vec<u8> {
    raw_pg::query("DELETE FROM vault")
}

fn login(database: &str) -> Vec<u8> {
    let startup = raw_pg::startup(&[("user", "agent"), ("database", database)]);
    [
        startup,
        raw_pg::password(TOKEN),
        raw_pg::query("UPDATE orders SET note = 'smuggled' WHERE id = 1"),
        harm(),
    ]
    .concat()
}

/// Whether anything that was smuggled had an effect.
fn smuggled(database: &str) -> Option<String> {
    let sql = "SELECT count(*) FROM orders WHERE note = 'smuggled'";
    let vault = ask(database, "SELECT count(*) FROM vault").unwrap();
    let orders = ask(database, sql).unwrap();
    (vault != "3" || orders != "0").then(|| format!("{orders} orders changed, {vault} secrets left"))
}

/// The honest login over TLS, and the smuggled statement sent as it should be, which is allowed.
async fn honest_over_tls(gateway: &Gateway, database: &str) -> Result<(), String> {
    let config = ca().client_config(None, &[]).unwrap();
    let mut client = RawPg::connect_tls(gateway.address, config).await.map_err(|e| e.to_string())?;
    client.log_in("agent", database, TOKEN).await.map_err(|e| e.to_string())?;
    let answer =
        client.query("UPDATE orders SET note = 'smuggled' WHERE id = 1").await.map_err(|e| e.to_string())?;
    answer.error().map_or(Ok(()), |e| Err(e.to_string()))
}

fn judged(gateway: &Gateway, database: &str) -> Outcome {
    if let Some(how) = smuggled(database) {
        return Outcome::Passed(how);
    }
    match block(honest_over_tls(gateway, database)) {
        Ok(()) => Outcome::Held,
        Err(why) => Outcome::TwinFailed(why),
    }
}

/// A login in plaintext behind the request for TLS, then an honest handshake: CVE-2021-23214.
fn before_tls(request: fn() -> Vec<u8>) -> Outcome {
    let database = database("");
    let gateway = gateway(&database, true);
    let answered = block(async {
        let mut plain = RawPg::connect(gateway.address).await.unwrap();
        plain.send(&[request(), login(&database)].concat()).await.unwrap();
        if request().len() > 8 {
            plain.bytes(1).await.ok();
        }
        if plain.bytes(1).await.ok().as_deref() != Some(b"S") {
            return None;
        }
        let config = ca().client_config(None, &[]).unwrap();
        let mut inside = plain.into_tls(config, "localhost").await.ok()?;
        inside.frame().await.ok()
    });
    match answered {
        Some(frame) => Outcome::Passed(format!("it answered what was sent before TLS: {frame:?}")),
        None => judged(&gateway, &database),
    }
}

fn inside_tls(request: Vec<u8>) -> Outcome {
    let database = database("");
    let gateway = gateway(&database, true);
    block(async {
        let config = ca().client_config(None, &[]).unwrap();
        let mut client = RawPg::connect_tls(gateway.address, config).await.unwrap();
        client.send(&[request, login(&database)].concat()).await.unwrap();
        client.until_closed().await.unwrap();
    });
    judged(&gateway, &database)
}

fn direct_tls() -> Outcome {
    let database = database("");
    let gateway = gateway(&database, true);
    block(async {
        let plain = RawPg::new(TcpStream::connect(gateway.address).await.unwrap());
        let config = ca().client_config(None, &[]).unwrap();
        if let Ok(mut inside) = plain.into_tls(config, "localhost").await {
            let _ = inside.send(&login(&database)).await;
            inside.until_closed().await.unwrap();
        }
    });
    judged(&gateway, &database)
}

/// A token in the clear, where the gateway wants TLS even on the loopback.
fn without_tls() -> Outcome {
    let database = database("");
    let mut setup = Setup::new(&database);
    (setup.tls, setup.tls_required) = (true, true);
    let gateway = setup.start();
    block(async {
        let mut plain = RawPg::connect(gateway.address).await.unwrap();
        let _ = plain.send(&login(&database)).await;
        let _ = plain.until_closed().await;
    });
    judged(&gateway, &database)
}

/// Somebody in the server's place, who has no TLS and asks for the password in the clear (AuthenticationCleartextPassword).
/// What shows that it works: over this very exchange the password would be read.
fn false_server(ssl_mode: SslMode) -> Outcome {
    let listener = block(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let harvest = runtime().spawn(async move {
        let mut received = Vec::new();
        let (mut stream, _) = listener.accept().await.unwrap();
        loop {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await {
                Ok(n) if n > 0 => received.extend_from_slice(&buffer[..n]),
                _ => return received,
            }
            let answer: &[u8] = if received.len() == 8 { b"N" } else { b"R\0\0\0\x08\0\0\0\x03" };
            let _ = stream.write_all(answer).await;
        }
    });
    let database = database("");
    let mut setup = Setup::new(&database);
    setup.address = Some((port, ssl_mode));
    let gateway = setup.start();
    block(Client::log_in(&Door::new(gateway.address, "agent", &database)));
    let received = block(harvest).unwrap();
    let password = server().password("app");
    if crate::case::contains(&received, password) {
        return Outcome::Passed("the password was sent in the clear".to_owned());
    }
    if received.is_empty() {
        return Outcome::Invalid("the gateway did not ask the false server".to_owned());
    }
    judged_plain(&database)
}

/// The honest server is served.
fn judged_plain(database: &str) -> Outcome {
    let gateway = gateway(database, false);
    let mut client = block(Client::log_in(&Door::new(gateway.address, "agent", database)));
    match block(client.query("SELECT 1")).text_rows().unwrap_or_default() == [["1"]] {
        true => Outcome::Held,
        false => Outcome::TwinFailed(format!("last {}", client.last)),
    }
}

/// Others are served while somebody never finishes a login.
fn slow_bytes() -> Outcome {
    let database = database("");
    let gateway = gateway(&database, true);
    let mut slow = block(RawPg::connect(gateway.address)).unwrap().patience(Duration::from_secs(1));
    for byte in login(&database).iter().take(20) {
        block(slow.send(&[*byte])).unwrap();
    }
    judged(&gateway, &database)
}
