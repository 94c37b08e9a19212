//! One whole run in which every secret is a canary, and a search for them in everything that came out of it.
//!
//! One more value is planted on purpose, in the places where an agent or a reviewer may put text: the search must find it in each
//! kind of place, or it would find nothing anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use gateway_core::clock::SystemClock;
use gateway_store::Store;
use serde_json::Value;
use testkit::raw_pg::{Bind, cancel_request, describe, execute, parse, password, query, startup, sync};
use testkit::{Ca, Canary, Finished, Forgery, RawPg, random_text, run as to_end, wait_until};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::stage::{DEADLINE, Serving, Stage, gateway, server};

type Client = RawPg<TlsStream<TcpStream>>;

/// What is written to where, by kind of place.
#[derive(Debug, Default)]
struct Places(BTreeMap<&'static str, Vec<u8>>);

impl Places {
    fn add(&mut self, kind: &'static str, bytes: &[u8]) {
        let place = self.0.entry(kind).or_default();
        place.extend_from_slice(bytes);
        // So that the end of one thing and the beginning of the next are no find.
        place.push(b'\n');
    }

    fn command(&mut self, finished: &Finished) {
        self.add(COMMANDS, finished.stdout.as_bytes());
        self.add(COMMANDS, finished.stderr.as_bytes());
    }

    /// Every file under a folder, but for the two that keys belong in.
    fn files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let kind = match name {
                "recording.key" | "gateway.sqlite.key" => continue,
                "audit.log" => AUDIT,
                name if name.starts_with("gateway.sqlite") => STORE,
                _ => FILES,
            };
            if path.is_dir() {
                self.files(&path);
            } else if path.is_file() {
                self.add(kind, &fs::read(&path).unwrap());
            }
        }
    }

    fn finds(&self, canaries: &[Canary]) -> Vec<String> {
        let find = |canary: &Canary, (kind, bytes): (&&str, &Vec<u8>)| {
            canary.find_in(bytes).map(|how| format!("{canary:?} in {kind}, {how}"))
        };
        canaries
            .iter()
            .flat_map(|canary| self.0.iter().filter_map(move |place| find(canary, place)))
            .collect()
    }
}

const LOG: &str = "the gateway's output";
const PROCESS: &str = "the gateway's arguments and environment";
const WIRE: &str = "what clients received";
const RECORDS: &str = "exported recordings";
const STORE: &str = "the database";
const AUDIT: &str = "the audit log";
const FILES: &str = "other files of the data folder";
const COMMANDS: &str = "what commands say";

/// The run.
struct Run<'a> {
    stage: &'a Stage,
    ca: Ca,
    canaries: Vec<Canary>,
    places: Places,
}

impl<'a> Run<'a> {
    fn new(stage: &'a Stage) -> Self {
        let ca = Ca::new().unwrap();
        let tls = ca.server().unwrap();
        stage.write("gateway.crt", &tls.pem);
        stage.write("gateway.pem", &tls.key_pem);
        let config = fs::read_to_string(stage.path("gateway.toml")).unwrap();
        let address = "address = \"127.0.0.1:0\"";
        let with_tls = format!("{address}\ntls = {{ cert = \"gateway.crt\", key = \"gateway.pem\" }}");
        stage.write("gateway.toml", &config.replacen(address, &with_tls, 1));
        let upstream = Canary::of("upstream password", server().password("app")).unwrap();
        let canaries = vec![upstream, of_pem("TLS key", &tls.key_pem)];
        Self { stage, ca, canaries, places: Places::default() }
    }

    /// A new secret to look for.
    fn secret(&mut self, label: &str) -> String {
        let canary = Canary::new(label);
        let secret = canary.secret().to_owned();
        self.canaries.push(canary);
        secret
    }

    /// A token to look for: its payload and its signature, which differ from token to token, and of each both ends, so that it
    /// is found cut short as well.
    fn token(&mut self, label: &str, token: String) -> String {
        for part in token.split('.').skip(1) {
            for end in [&part[..40], &part[part.len() - 40..]] {
                self.canaries.push(Canary::of(label, end).unwrap());
            }
        }
        token
    }

    fn command(&mut self, args: &[&str]) -> Finished {
        let finished = self.stage.command(args);
        self.places.command(&finished);
        finished
    }

    /// A login up to the end of the answer to it; `None` if it is refused. Also the key for a cancel.
    async fn log_in(&mut self, serving: &Serving<'_>, token: &str) -> Option<(Client, Vec<u8>)> {
        let config = self.ca.client_config(None, &[]).unwrap();
        let mut pg = RawPg::connect_tls(&serving.address, config).await.unwrap().patience(DEADLINE);
        pg.send(&startup(&[("user", "agent"), ("database", &self.stage.database)])).await.unwrap();
        pg.frame().await.unwrap().authentication().unwrap();
        pg.send(&password(token)).await.unwrap();
        let mut cancel_key = Vec::new();
        loop {
            let frame = pg.frame().await.unwrap();
            self.places.add(WIRE, &frame.body);
            match frame.tag {
                b'Z' => return Some((pg, cancel_key)),
                b'K' => cancel_key = frame.body,
                b'E' => return None,
                _ => {}
            }
        }
    }

    /// Sends messages and takes in what comes up to a ReadyForQuery.
    async fn ask(&mut self, pg: &mut Client, messages: &[u8]) -> String {
        pg.send(messages).await.unwrap();
        self.answer(pg).await
    }

    async fn answer(&mut self, pg: &mut Client) -> String {
        let bytes = pg.until_ready().await.unwrap().bytes();
        self.places.add(WIRE, &bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The id of the one request that waits, for the reviewer whose token is in the file.
    fn waiting(&mut self, reviewer: &str) -> String {
        let mut id = None;
        let waits = || {
            let list = self.command(&["approvals", "list", "--json", "--token-file", reviewer]);
            let list: Value = serde_json::from_str(&list.success().unwrap()).unwrap();
            let pending = list.as_array().unwrap().iter().find(|request| request["state"] == "pending");
            id = pending.map(|request| request["id"].as_str().unwrap().to_owned());
            id.is_some()
        };
        assert!(wait_until(waits, DEADLINE), "nothing is held");
        id.unwrap()
    }
}

/// The private number in a PKCS #8 file (RFC 5208 section 5): an octet string of 32 bytes, for P-256 and Ed25519 alike.
fn of_pem(label: &str, pem: &str) -> Canary {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(body).unwrap();
    let at = der.windows(2).position(|window| window == [0x04, 0x20]).unwrap() + 2;
    Canary::of_bytes(label, &der[at..at + 32]).unwrap()
}

#[tokio::test]
async fn no_secret_comes_out_of_a_whole_run() {
    let stage = Stage::new();
    let mut run = Run::new(&stage);
    let planted = random_text(32);
    wrong_configurations(&mut run);
    help(&mut run);

    let mut command = stage.to_serve();
    command.env("GATEWAY_LOG", "trace").env("GATEWAY_TEST_PLANTED", &planted);
    let mut serving = Serving::start(&stage, command);
    for file in ["cmdline", "environ"] {
        run.places.add(PROCESS, &fs::read(format!("/proc/{}/{file}", serving.process.id())).unwrap());
    }
    let agent = stage.idp.token().subject("agent-7").audience("gateway").group("shop-agents");
    let agent = agent.phase("execute").task(&planted).claim("kind", "agent").sign();
    let agent = run.token("agent's token", agent);
    wrong_logins(&mut run, &serving).await;
    let (mut pg, _) = run.log_in(&serving, &agent).await.unwrap();
    let shown = run.ask(&mut pg, &query(&format!("SELECT '{planted}'"))).await;
    assert!(shown.contains(&planted), "{shown}");
    reads_and_errors(&mut run, &mut pg).await;
    password_literals(&mut run, &mut pg).await;
    reviews(&mut run, &serving, (&agent, &planted), &mut pg).await;
    drop(pg);
    serving.end();
    run.places.add(LOG, serving.heard.as_bytes());
    run.places.add(LOG, serving.log().as_bytes());
    assert!(serving.log().contains("TRACE"), "the log does not show everything");

    sessions(&mut run);
    keys(&mut run).await;
    fs::write(stage.path("data/planted"), BASE64_STANDARD.encode(&planted)).unwrap();
    run.places.files(&stage.path("data"));
    let finds = run.places.finds(&run.canaries);
    assert!(finds.is_empty(), "secrets came out:\n{}", finds.join("\n"));

    let planted = [Canary::of("planted", &planted).unwrap()];
    for kind in [LOG, PROCESS, WIRE, RECORDS, STORE, AUDIT, FILES, COMMANDS] {
        let found = run.places.finds(&planted).iter().any(|find| find.contains(kind));
        assert!(found, "the planted value was not found in {kind}, so nothing would be");
    }
}

/// Mistakes with secrets in them: the message must not repeat them.
fn wrong_configurations(run: &mut Run<'_>) {
    let good = fs::read_to_string(run.stage.path("gateway.toml")).unwrap();
    let secret = server().password("app");
    let right = "{ username = \"app\", password_file = \"shop.password\" }";
    assert!(good.contains(&format!("\ncredential = {right}")));
    for wrong in [
        format!("{{ username = \"app\", password = \"{secret}\" }}"),
        format!("\"{secret}\""),
        format!("{{ username = \"app\", no_secret = \"{secret}\" }}"),
        format!("{{ username = \"app\", password_file = [\"{secret}\"] }}"),
        format!("{{ username = \"app\", password_file = \"{secret} }}"),
        "{ username = \"app\", password_env = \"GATEWAY_TEST_PASSWORD\" }".to_owned(),
    ] {
        let text = good.replacen(&format!("\ncredential = {right}"), &format!("\ncredential = {wrong}"), 1);
        refused(run, &text, &wrong);
    }
    // Read at a login only, so a start is not refused.
    let mixed_up =
        "\ncredential = { username = \"app\", certificate = \"gateway.pem\", key = \"shop.password\" }";
    run.stage.write("wrong.toml", &good.replacen(&format!("\ncredential = {right}"), mixed_up, 1));
    let checked = gateway(&["check", "--config", &run.stage.arg("wrong.toml")]);
    assert!(checked.stdout.contains("cannot be checked"), "{checked:?}");
    run.places.command(&checked);
    let swapped = "tls = { cert = \"gateway.pem\", key = \"gateway.crt\" }";
    refused(run, &good.replace("tls = { cert = \"gateway.crt\", key = \"gateway.pem\" }", swapped), swapped);
}

fn refused(run: &mut Run<'_>, config: &str, what: &str) {
    run.stage.write("wrong.toml", config);
    for command in ["check", "serve"] {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gateway"));
        process.args([command, "--config", &run.stage.arg("wrong.toml")]);
        process.env("GATEWAY_LOG", "trace").env("GATEWAY_TEST_PASSWORD", server().password("app"));
        let finished = to_end(&mut process, "", DEADLINE).unwrap();
        run.places.command(&finished);
        assert!(!finished.status.success(), "{what} was accepted");
    }
}

fn help(run: &mut Run<'_>) {
    for command in ["", "serve", "check", "policy", "approvals", "sessions"] {
        let args: Vec<_> = [command, "--help"].into_iter().filter(|arg| !arg.is_empty()).collect();
        let finished = gateway(&args);
        run.places.command(&finished);
        assert!(finished.status.success());
    }
}

/// Tokens that are not accepted, and a password that the server does not accept.
async fn wrong_logins(run: &mut Run<'_>, serving: &Serving<'_>) {
    let idp = &run.stage.idp;
    let token = || idp.token().subject("agent-7").audience("gateway").group("shop-agents");
    let tokens = [
        ("expired token", token().forge(&Forgery::Expired)),
        ("token of a wrong key", token().forge(&Forgery::WrongKey)),
        ("token for others", idp.token().subject("agent-7").audience("mail").group("shop-agents").sign()),
        ("stranger's token", idp.token().subject("agent-8").audience("gateway").sign()),
    ];
    for (label, token) in tokens {
        let token = run.token(label, token);
        assert!(run.log_in(serving, &token).await.is_none(), "{label} was accepted");
    }
    let nonsense = run.secret("what is no token");
    assert!(run.log_in(serving, &nonsense).await.is_none());

    let wrong = run.secret("wrong upstream password");
    run.stage.write("shop.password", &wrong);
    let good = token().phase("execute").claim("kind", "agent").sign();
    let good = run.token("token with a wrong upstream password", good);
    assert!(run.log_in(serving, &good).await.is_none(), "logged in with a wrong password");
    run.stage.write("shop.password", server().password("app"));
}

/// A labelled value, asked for in several ways, in results and in the server's errors.
async fn reads_and_errors(run: &mut Run<'_>, pg: &mut Client) {
    let email = format!("{}@example.org", run.secret("labelled value"));
    let plant = format!("UPDATE customers SET email = '{email}' WHERE id = 1");
    server().psql(&run.stage.database, &plant).unwrap();
    let insert = format!(
        "INSERT INTO customers VALUES (9999, 'n', '{email}', '555', '999-99-9999', '', '2026-01-01T00:00:00Z')"
    );
    let statements = [
        ("SELECT id, email FROM customers WHERE id = 1", "1"),
        ("SELECT email || name, length(email) FROM customers WHERE id = 1", ""),
        ("SELECT email::int FROM customers WHERE id = 1", "ERROR"),
        ("SELECT 1/0", "division by zero"),
        ("SELECT absent FROM customers", "absent"),
        ("COPY customers (id, email) TO STDOUT", ""),
        (&insert, "23505"),
    ];
    for (sql, expected) in statements {
        let answer = run.ask(pg, &query(sql)).await;
        assert!(answer.contains(expected), "{sql}: {answer}");
    }
    let prepared = parse("", "SELECT email FROM customers WHERE id = $1", &[23]);
    let bind = Bind { values: &[Some(b"1")], result_formats: &[1], ..Bind::default() }.encode();
    run.ask(pg, &[prepared, describe(b'S', ""), bind, execute("", 0), sync()].concat()).await;
}

/// Statements that set a password. None is permitted; the record tells of the attempt and not of the password.
async fn password_literals(run: &mut Run<'_>, pg: &mut Client) {
    let secret = run.secret("password in a statement");
    for sql in [
        format!("ALTER ROLE app PASSWORD '{secret}'"),
        format!("ALTER USER app WITH ENCRYPTED PASSWORD E'{secret}' VALID UNTIL 'infinity'"),
        format!("CREATE ROLE other LOGIN PASSWORD $${secret}$$"),
        format!("SELECT 1; ALTER ROLE app PASSWORD '{secret}'"),
        format!("CREATE SUBSCRIPTION s CONNECTION 'host=h password={secret}' PUBLICATION p"),
        format!("SELECT dblink_connect('host=h user=u password={secret}')"),
        format!("COPY orders FROM PROGRAM 'PGPASSWORD={secret} psql'"),
        format!("SET my.password = '{secret}'"),
        format!("ALTER ROLE app PASSWORD '{secret}' THAT DOES NOT PARSE"),
    ] {
        let answer = run.ask(pg, &query(&sql)).await;
        assert!(answer.contains("ERROR"), "permitted: {answer}");
    }
    let sql = format!("ALTER ROLE app PASSWORD '{secret}'");
    run.ask(pg, &[parse("", &sql, &[]), describe(b'S', ""), sync()].concat()).await;
}

/// Holds: one approved by a second person, one cancelled; with the agent's attempt to approve its own.
async fn reviews(run: &mut Run<'_>, serving: &Serving<'_>, (agent, planted): (&str, &str), pg: &mut Client) {
    let alice = run.stage.idp.token().subject(&format!("alice-{planted}")).audience("gateway").group("dba");
    let alice = run.token("reviewer's token", alice.claim("kind", "human").sign());
    run.stage.write("alice.jwt", &alice);
    run.stage.write("agent.jwt", agent);
    let (alice, agent_file) = (run.stage.arg("alice.jwt"), run.stage.arg("agent.jwt"));
    pg.send(&query("DELETE FROM order_items WHERE order_id = 7")).await.unwrap();
    let id = run.waiting(&alice);
    assert!(!run.command(&["approvals", "approve", &id, "--token-file", &agent_file]).status.success());
    run.command(&["approvals", "list", "--token-file", &alice]).success().unwrap();
    run.command(&["approvals", "show", &id, "--token-file", &alice]).success().unwrap();
    run.command(&["approvals", "approve", &id, "--token-file", &alice]).success().unwrap();
    let answer = run.answer(pg).await;
    assert!(answer.contains("DELETE"), "{answer}");

    // Its exact text is kept for the reviewer, sealed; a reviewer who looks may see it, so nobody does here.
    let email = run.secret("value in a held statement");
    let (mut other, key) = run.log_in(serving, agent).await.unwrap();
    let sql = format!("DELETE FROM customers WHERE email = '{email}@example.org'");
    other.send(&query(&sql)).await.unwrap();
    run.waiting(&alice);
    let (process, secret) = key.split_first_chunk::<4>().unwrap();
    let config = run.ca.client_config(None, &[]).unwrap();
    let mut cancel = RawPg::connect_tls(&serving.address, config).await.unwrap();
    cancel.send(&cancel_request(u32::from_be_bytes(*process), secret)).await.unwrap();
    let answer = run.answer(&mut other).await;
    assert!(answer.contains("57014"), "{answer}");
}

fn sessions(run: &mut Run<'_>) {
    let list = run.command(&["sessions", "list", "--json"]).success().unwrap();
    run.command(&["sessions", "list"]).success().unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(ids.len() >= 2, "{list}");
    for id in ids {
        run.command(&["sessions", "show", id]).success().unwrap();
        run.command(&["sessions", "show", id, "--json"]).success().unwrap();
        run.command(&["sessions", "replay", id]).success().unwrap();
        let exported = run.command(&["sessions", "export", id]).success().unwrap();
        run.places.add(RECORDS, exported.as_bytes());
    }
    let (recordings, key) = (run.stage.arg("data/recordings"), run.stage.arg("data/recording.pub"));
    let verified = gateway(&["sessions", "verify", &recordings, "--key", &key]);
    run.places.command(&verified);
    verified.success().unwrap();
    run.command(&["check"]).success().unwrap();
}

/// The keys that the gateway has made for itself.
async fn keys(run: &mut Run<'_>) {
    let recording = fs::read_to_string(run.stage.path("data/recording.key")).unwrap();
    run.canaries.push(of_pem("recording key", &recording));
    let root = fs::read(run.stage.path("data/gateway.sqlite.key")).unwrap();
    run.canaries.push(Canary::of_bytes("root key", &root).unwrap());
    let store = Store::open(run.stage.path("data/gateway.sqlite"), Arc::new(SystemClock)).await.unwrap();
    run.canaries.push(Canary::of_bytes("masking key", store.mask_key_bytes().expose()).unwrap());
    store.close().await;
}
