//! A real OpenSSH server for tests, and keys and certificates for it.

mod keys;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub use keys::{CertificateRequest, SshKeyPair};

use crate::error::{Context, Error, Result};
use crate::process::{Guard, PORT_ATTEMPTS, free_port, private_folder, run, wait_until};

/// A running `sshd` on a free loopback port, with a host key, a configuration and an `authorized_keys` of its own. The only
/// account is the user that runs it. Its home and everything it writes lie in a temporary folder.
///
/// Commands run with `HOME` in that folder, so no start-up file of the machine's user changes them. The server ends with its
/// owner, also when that is killed.
#[derive(Debug)]
pub struct Sshd {
    port: u16,
    user: String,
    host_key: SshKeyPair,
    client_key: SshKeyPair,
    folder: TempDir,
    // The supervisor; closing its input ends the server.
    process: Guard,
}

/// Choices before the start.
#[derive(Debug, Default)]
pub struct SshdBuilder {
    settings: Vec<String>,
    host_authority: bool,
}

impl SshdBuilder {
    /// Adds a line to the configuration; for most keywords the first one counts, so it wins over the defaults.
    #[must_use]
    pub fn setting(mut self, line: impl Into<String>) -> Self {
        self.settings.push(line.into());
        self
    }

    /// The host key also gets a certificate of an authority of its own: see [`Sshd::host_authority`].
    #[must_use]
    pub const fn host_certificate(mut self) -> Self {
        self.host_authority = true;
        self
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// OpenSSH's server is not installed or does not start; the message has the end of its log.
    pub fn start(self) -> Result<Sshd> {
        let program = locate()?;
        let folder = private_folder(&std::env::temp_dir(), "testkit-sshd-")?;
        let path = folder.path();
        let host_key = SshKeyPair::generate(path, "host_key")?;
        let client_key = SshKeyPair::generate(path, "client_key")?;
        fs::create_dir(path.join("home")).context("make the home folder")?;
        fs::write(path.join("authorized_keys"), client_key.public_line()?)
            .context("write authorized_keys")?;
        let mut settings = self.settings;
        if self.host_authority {
            let authority = SshKeyPair::generate(path, "host_authority")?;
            let certificate = CertificateRequest::new("host").host().principal("127.0.0.1");
            let line = format!("HostCertificate {}", certificate.sign(&authority, &host_key)?.display());
            settings.push(line);
        }
        let user = run(Command::new("id").arg("-un"), "", SHORT)?.success()?;
        if user == "root" {
            // sshd's own folder for its unprivileged half; missing where no service was ever started.
            fs::create_dir_all("/run/sshd").context("make /run/sshd")?;
        }
        let (process, port) = launch_on_free_port(&program, path, &settings)?;
        Ok(Sshd { port, user, host_key, client_key, folder, process })
    }
}

/// Starts the server on a free port; tries another when somebody took it in between.
fn launch_on_free_port(program: &Path, folder: &Path, settings: &[String]) -> Result<(Guard, u16)> {
    let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    for _ in 0..PORT_ATTEMPTS {
        let port = free_port().context("find a free port")?;
        fs::write(folder.join("sshd_config"), config(folder, port, settings)).context("write sshd_config")?;
        let process = Guard::spawn(&mut supervised(program, folder))?;
        let listens = || log().contains(&format!("Server listening on 127.0.0.1 port {port}"));
        let taken = || log().contains("Cannot bind any address");
        if !wait_until(|| listens() || taken(), START) {
            break;
        }
        if listens() {
            return Ok((process, port));
        }
        drop(process);
        fs::remove_file(folder.join("log")).context("remove the log")?;
    }
    Err(Error::new(format!("sshd did not listen within {START:?}: {}", log())))
}

impl Sshd {
    /// A server with the default configuration: public keys only, everything else as an administrator would leave it.
    ///
    /// # Errors
    /// As [`SshdBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// To choose more before the start.
    pub fn builder() -> SshdBuilder {
        SshdBuilder::default()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The port it listens on.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The only account.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Its host key.
    pub const fn host_key(&self) -> &SshKeyPair {
        &self.host_key
    }

    /// The authority of its host certificate, if it was started with one.
    pub fn host_authority(&self) -> SshKeyPair {
        SshKeyPair::at(self.folder.path().join("host_authority"))
    }

    /// The key that may log in.
    pub const fn client_key(&self) -> &SshKeyPair {
        &self.client_key
    }

    /// The folder that commands know as `$HOME`; sftp starts there too.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs a command over a direct connection with the stock client; returns its standard output.
    ///
    /// # Errors
    /// The exit status is not zero, or it takes longer than 30 s.
    pub fn ssh(&self, command: &str) -> Result<String> {
        let mut ssh = Command::new("ssh");
        ssh.args(client_options(self.client_key.private(), self.port));
        ssh.arg(format!("{}@127.0.0.1", self.user)).arg(command);
        run(&mut ssh, "", LONG)?.success()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Killed, the supervisor would leave the server behind.
        let supervisor = self.process.child();
        drop(supervisor.stdin.take());
        let _ = supervisor.wait();
    }
}

/// Options that make a stock `ssh`, `scp` or `sftp` depend on nothing but what a test gives it: no configuration, no known hosts,
/// no agent, no questions. The port's option is spelt for all three.
pub fn client_options(key: &Path, port: u16) -> Vec<String> {
    let mut options = vec!["-F".to_owned(), "none".to_owned(), "-i".to_owned(), key.display().to_string()];
    let set = [
        format!("Port={port}"),
        "StrictHostKeyChecking=no".to_owned(),
        "UserKnownHostsFile=/dev/null".to_owned(),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "LogLevel=ERROR".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "IdentityAgent=none".to_owned(),
        "BatchMode=yes".to_owned(),
        "ConnectTimeout=20".to_owned(),
    ];
    options.extend(set.into_iter().flat_map(|option| ["-o".to_owned(), option]));
    options
}

fn locate() -> Result<PathBuf> {
    let places = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];
    let found = places.into_iter().map(PathBuf::from).find(|place| place.exists());
    found.ok_or_else(|| Error::new("sshd is not installed, run: scripts/install-tools.sh --test"))
}

fn config(folder: &Path, port: u16, settings: &[String]) -> String {
    let settings = settings.join("\n");
    let folder = folder.display();
    format!(
        "{settings}
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 200
MaxSessions 100
LogLevel VERBOSE
AcceptEnv *
X11Forwarding yes
XAuthLocation /bin/true
SetEnv HOME={folder}/home
Subsystem sftp internal-sftp -d {folder}/home
"
    )
}

/// The server under a shell that ends it and removes the folder when its own input closes, that is, with its owner.
fn supervised(program: &Path, folder: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", SUPERVISOR, "supervisor"]).arg(folder).arg(program);
    shell.args(["-D", "-f"]).arg(folder.join("sshd_config")).arg("-E").arg(folder.join("log"));
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell
}

const SUPERVISOR: &str = r#"
folder=$1; shift
"$@" </dev/null &
server=$!
read -r word
kill "$server"
wait "$server"
rm -rf -- "$folder"
"#;

/// A start takes 50 ms; on a loaded machine a few seconds.
const START: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(30);
