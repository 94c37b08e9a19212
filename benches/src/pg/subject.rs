//! What is compared: the direct connection, pgbouncer, and the gateway with and without recording.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testkit::{Ca, Certificate, Postgres, random_text};

use super::serve::{Ready, Settings, TlsFiles};
use crate::Result;
use crate::child::Supervised;
use crate::rounds;

/// The database everything happens in.
pub(super) const DATABASE: &str = "bench";
/// The account the server knows.
pub(super) const ACCOUNT: &str = "app";

/// Names of subjects, as in reports.
pub(super) const PGBOUNCER: &str = "pgbouncer";
pub(super) use crate::rounds::{DIRECT, GATEWAY, UNRECORDED};

/// Where clients connect to.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    /// The process in between, if there is one.
    pub(super) pid: Option<u32>,
    /// Clients use TLS.
    pub(super) tls: bool,
}

/// What every connection of a stage is encrypted with.
pub(super) struct Tls {
    pub(super) ca: Ca,
    pub(super) certificate: Certificate,
}

impl Tls {
    /// A CA and a certificate of a server on loopback.
    ///
    /// # Errors
    /// Their files cannot be written.
    pub(super) fn new() -> Result<Self> {
        let ca = Ca::new()?;
        let certificate = ca.server()?;
        Ok(Self { ca, certificate })
    }
}

impl rounds::Subject for Subject {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pid(&self) -> Option<u32> {
        self.pid
    }
}

impl Subject {
    /// The server itself.
    pub(super) fn direct(server: &Postgres, tls: bool) -> Self {
        Self {
            name: DIRECT,
            port: server.port(),
            user: ACCOUNT.to_owned(),
            password: server.password(ACCOUNT).to_owned(),
            pid: None,
            tls,
        }
    }
}

/// pgbouncer in session pooling, as the account the server runs as: it refuses to be root.
#[derive(Debug)]
pub(super) struct Pgbouncer {
    subject: Subject,
    _process: Supervised,
    _folder: TempDir,
}

impl Pgbouncer {
    /// Starts it in front of the server.
    ///
    /// # Errors
    /// It is not installed, or does not listen within seconds.
    pub(super) fn start(server: &Postgres, tls: Option<&Tls>) -> Result<Self> {
        let program = program().ok_or("pgbouncer is not installed; `apt-get install pgbouncer`")?;
        let owner = fs::metadata(server.socket_folder())?;
        let folder = tempfile::Builder::new().prefix("bench-pgbouncer-").tempdir()?;
        let port = testkit::free_port()?;
        let own = |path: &Path, text: Option<&str>| {
            text.map_or(Ok(()), |text| fs::write(path, text))?;
            chown(path, Some(owner.uid()), Some(owner.gid()))
        };
        let users = folder.path().join("users.txt");
        own(&users, Some(&format!("\"{ACCOUNT}\" \"{}\"\n", server.password(ACCOUNT))))?;
        let settings = folder.path().join("pgbouncer.ini");
        let mut text = ini(server, port, &users);
        if let Some(tls) = tls {
            let (chain, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
            own(&chain, Some(&tls.certificate.pem))?;
            own(&key, Some(&tls.certificate.key_pem))?;
            text.push_str(&format!(
                "server_tls_sslmode = require\nclient_tls_sslmode = require\nclient_tls_cert_file = {}\n\
                 client_tls_key_file = {}\n",
                chain.display(),
                key.display()
            ));
        }
        own(&settings, Some(&text))?;
        own(folder.path(), None)?;
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISOR, "supervisor"]).arg(program).arg("-q").arg(&settings);
        command.current_dir("/").uid(owner.uid()).gid(owner.gid());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Supervised::spawn(&mut command)?;
        let pid = process.line()?.trim().parse()?;
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        if !testkit::wait_until(listens, START_DEADLINE) {
            return Err("pgbouncer does not listen".into());
        }
        let subject =
            Subject { name: PGBOUNCER, port, pid: Some(pid), ..Subject::direct(server, tls.is_some()) };
        Ok(Self { subject, _process: process, _folder: folder })
    }

    pub(super) const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// As it prints it.
    pub(super) fn version() -> String {
        let told = program().and_then(|program| Command::new(program).arg("--version").output().ok());
        let text = told.and_then(|out| String::from_utf8(out.stdout).ok()).unwrap_or_default();
        text.split_whitespace().nth(1).unwrap_or("unknown").to_owned()
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}

fn ini(server: &Postgres, port: u16, users: &Path) -> String {
    format!(
        "[databases]\n{DATABASE} = host=127.0.0.1 port={} dbname={DATABASE}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
         auth_file = {}\npool_mode = session\nmax_client_conn = 400\ndefault_pool_size = 150\n\
         ignore_startup_parameters = extra_float_digits\nlog_connections = 0\nlog_disconnections = 0\n",
        server.port(),
        users.display()
    )
}

/// `$@` is the program; prints its process id, and stops it when our end of the pipe closes.
const SUPERVISOR: &str = r#"
"$@" </dev/null >/dev/null &
echo $!
read -r word
kill $!
wait
"#;
/// Starts take milliseconds; a loaded machine, some seconds.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// The gateway in a process of its own.
#[derive(Debug)]
pub(super) struct Gateway {
    subject: Subject,
    /// The public key its recordings verify with.
    pub(super) key: Option<[u8; 32]>,
    process: Supervised,
}

impl Gateway {
    /// Starts it in front of the server; it records into `recordings`, or nowhere.
    ///
    /// # Errors
    /// It does not start; its own words are on standard error.
    pub(super) fn start(server: &Postgres, recordings: Option<&Path>, tls: Option<&Tls>) -> Result<Self> {
        let token = random_text(48);
        let settings = Settings {
            upstream: server.port(),
            database: DATABASE.to_owned(),
            username: ACCOUNT.to_owned(),
            password: server.password(ACCOUNT).to_owned(),
            token: token.clone(),
            recordings: recordings.map(Path::to_owned),
            tls: tls.map(|tls| TlsFiles {
                ca: tls.ca.pem().to_owned(),
                chain: tls.certificate.pem.clone(),
                key: tls.certificate.key_pem.clone(),
            }),
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve-gateway").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Supervised::spawn(&mut command)?;
        let ready: Ready = process.configure(&settings)?;
        let name = if recordings.is_some() { GATEWAY } else { UNRECORDED };
        let pid = Some(process.id());
        let subject = Subject {
            name,
            port: ready.port,
            user: "agent".to_owned(),
            password: token,
            pid,
            tls: tls.is_some(),
        };
        Ok(Self { subject, key: ready.key, process })
    }

    pub(super) const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Ends it in order: what was accepted for recording is written.
    ///
    /// # Errors
    /// It fails on its way out.
    pub(super) fn stop(self) -> Result<()> {
        self.process.stop()
    }
}
