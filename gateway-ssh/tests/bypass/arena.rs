//! The one server of the suite, a gateway in front of it, and for each trial a folder to work in and a vault to rob.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::identity::{Principal, PrincipalKind, SshAuthenticator, SshPublicKey};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::MemoryRecorder;
use gateway_ssh::{ShellMode, SshGateway, Target};
use tempfile::TempDir;
use testkit::{SshKeyPair, Sshd};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

struct Stage {
    server: Sshd,
    keys: TempDir,
    agent: SshKeyPair,
    gateway: SocketAddr,
    /// The same with lines judged one at a time in place of a shell.
    lines: SocketAddr,
    /// Says hello to whoever connects.
    greeter: u16,
    _runtime: Runtime,
}

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let server = Sshd::builder().setting("PermitTunnel yes").start().unwrap();
        let keys = tempfile::tempdir().unwrap();
        let agent = SshKeyPair::generate(keys.path(), "agent").unwrap();
        let host = SshKeyPair::generate(keys.path(), "host").unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let greeter = greeter();
        let gateway = runtime.block_on(listen(&server, &agent, &host, greeter, ShellMode::Login));
        let lines = runtime.block_on(listen(&server, &agent, &host, greeter, ShellMode::CommandAtATime));
        Stage { server, keys, agent, gateway, lines, greeter, _runtime: runtime }
    })
}

pub fn start() {
    stage();
}

fn public(key: &SshKeyPair) -> SshPublicKey {
    SshPublicKey::from_line(&key.public_line().unwrap()).unwrap()
}

/// The service of the target that the policy lets agents forward to.
fn greeter() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), b"hello through the forward\n");
        }
    });
    port
}

async fn listen(
    server: &Sshd,
    agent: &SshKeyPair,
    host: &SshKeyPair,
    greeter: u16,
    shell: ShellMode,
) -> SocketAddr {
    let work = fs::canonicalize(server.home()).unwrap().join("work");
    let inbox = work.join("inbox");
    fs::create_dir_all(&inbox).unwrap();
    fs::write(inbox.join("fine"), "").unwrap();
    let published = fs::canonicalize(server.home()).unwrap().join("published");
    fs::create_dir_all(&published).unwrap();
    fs::write(published.join("fine"), "").unwrap();
    let text = include_str!("policy.cedar")
        .replace("{work}", &format!("web1{}", work.display()))
        .replace("{inbox}", &inbox.display().to_string())
        .replace("{published}", &published.display().to_string())
        .replace("{greeter}", &greeter.to_string());
    let engine = CedarEngine::builder()
        .schema_fragment("ssh", gateway_ssh::SCHEMA)
        .policy(PolicyFile::new("policy.cedar", &text))
        .build()
        .unwrap();
    let principal = Principal::new(PrincipalKind::Agent, "https://idp.test", "agent-7", Timestamp::MAX);
    let credential = UpstreamCredential::Key {
        username: server.user().to_owned(),
        key: Secret::new(server.client_key().pem().unwrap()),
        certificate: None,
    };
    let pipeline = Pipeline::builder(
        Arc::new(SshAuthenticator::new().key(public(agent), principal)),
        Arc::new(engine),
        Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
        Arc::new(MemoryRecorder::default()),
        Arc::new(StaticCredentials::default().with("web1", credential)),
    );
    let gateway = SshGateway::builder(pipeline.build().unwrap())
        .target(
            Target::new("web1", "127.0.0.1", server.port()).host_key(public(server.host_key())).shell(shell),
        )
        .host_key(Secret::new(host.pem().unwrap()))
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gateway.serve(listener, std::future::pending()));
    address
}

/// Where an attacker knocks.
#[derive(Clone)]
pub struct Door {
    pub user: String,
    pub key: PathBuf,
    pub port: u16,
}

impl Door {
    /// Straight to the server, as its own user.
    pub fn direct() -> Self {
        let server = &stage().server;
        let key = server.client_key().private().to_owned();
        Self { user: server.user().to_owned(), key, port: server.port() }
    }

    /// Through the gateway that judges lines, as the agent.
    pub fn lines() -> Self {
        Self { port: stage().lines.port(), ..Self::gateway() }
    }

    /// Through the gateway, as the agent.
    pub fn gateway() -> Self {
        let stage = stage();
        let key = stage.agent.private().to_owned();
        Self { user: "agent-7".to_owned(), key, port: stage.gateway.port() }
    }
}

const CARD: &str = "4111 1111 1111 1111";

/// One trial's folders. Texts of cases name them `{work}`, `{vault}` and `{home}`; `{mark}` is unique. `{inbox}` is one for all,
/// and so is `{published}`, which may only be read.
pub struct Arena {
    pub mark: String,
    pub work: PathBuf,
    pub vault: PathBuf,
    published: PathBuf,
    /// Where the attacker keeps what it fetches: `{local}`.
    local: TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Arena {
    pub fn new() -> Self {
        let mark = testkit::random_text(12).to_lowercase();
        let home = fs::canonicalize(stage().server.home()).unwrap();
        let (work, vault) = (home.join("work").join(&mark), home.join("vault").join(&mark));
        fs::create_dir_all(&work).unwrap();
        fs::create_dir_all(vault.join("empty")).unwrap();
        fs::write(work.join("notes"), "just notes\n").unwrap();
        fs::write(work.join("list"), "one\ntwo\n").unwrap();
        // 4111... lies across the 32 KiB at which stock clients cut their reads.
        fs::write(work.join("cards"), format!("{}{CARD} {CARD}\n", "x ".repeat(16 * 1024 - 5))).unwrap();
        fs::write(vault.join("secret"), format!("VAULT-SECRET-{mark}\n")).unwrap();
        fs::set_permissions(vault.join("secret"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(vault.join("secret"), work.join("out")).unwrap();
        std::os::unix::fs::symlink(&vault, work.join("away")).unwrap();
        // What could have been uploaded: it does its damage under any name.
        let tool = format!("#!/bin/sh\ntouch {}/pwned\n", vault.display());
        fs::create_dir(work.join("bin")).unwrap();
        for name in ["rsync", "scp", "git", "git-upload-pack", "bash-static"] {
            let place = work.join("bin").join(name);
            fs::write(&place, &tool).unwrap();
            fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let published = home.join("published");
        let local = tempfile::tempdir().unwrap();
        let mut arena = Self { mark, work, vault, published, local, before: BTreeMap::new() };
        arena.before = arena.look();
        arena
    }

    pub fn fill(&self, text: &str) -> String {
        let home = fs::canonicalize(stage().server.home()).unwrap();
        text.replace("{work}", &self.work.display().to_string())
            .replace("{vault}", &self.vault.display().to_string())
            .replace("{inbox}", &home.join("work/inbox").display().to_string())
            .replace("{published}", &self.published.display().to_string())
            .replace("{home}", &home.display().to_string())
            .replace("{local}", &self.loot().display().to_string())
            .replace("{mark}", &self.mark)
            .replace("{bulk}", &"x".repeat(200_000))
            .replace("{greeter}", &stage().greeter.to_string())
            .replace("{port}", &stage().server.port().to_string())
            .replace("{key}", &stage().server.client_key().private().display().to_string())
            .replace("{keys}", &stage().keys.path().display().to_string())
    }

    /// What was done to the vault, or got out of it.
    pub fn damage(&self, received: &str) -> Option<String> {
        let now = self.look();
        if now != self.before {
            return Some(format!("the vault is changed: {now:?}"));
        }
        if self.work.join("pwned").exists() {
            return Some("forbidden code ran".to_owned());
        }
        if self.published.join(&self.mark).exists() {
            return Some("a folder for reading was written".to_owned());
        }
        let (secret, fetched) = (format!("VAULT-SECRET-{}", self.mark), self.fetched());
        (received.contains(&secret) || fetched.contains(&secret))
            .then(|| "the secret was received".to_owned())
    }

    fn loot(&self) -> PathBuf {
        self.local.path().join("loot")
    }

    /// What was fetched to `{local}`.
    pub fn fetched(&self) -> String {
        fs::read_to_string(self.loot()).unwrap_or_default()
    }

    fn look(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        look_into(&self.vault, &mut seen);
        seen
    }
}

fn look_into(place: &Path, seen: &mut BTreeMap<PathBuf, String>) {
    let Ok(meta) = fs::symlink_metadata(place) else { return };
    let content = fs::read_to_string(place).unwrap_or_default();
    // Links count: a hard link elsewhere is a second name for the secret. A folder's own number changes with its content.
    let links = if meta.is_dir() { 0 } else { meta.nlink() };
    let state = format!(
        "{:o} {} {} {links} {content:?}",
        meta.mode(),
        meta.uid(),
        meta.mtime() * i64::from(!meta.is_dir())
    );
    seen.insert(place.to_owned(), state);
    if meta.is_dir() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            look_into(&entry.path(), seen);
        }
    }
}
