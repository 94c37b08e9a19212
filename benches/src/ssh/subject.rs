//! What is compared: the direct connection, and the gateway with masking and recording on and off.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{SshKeyPair, Sshd, client_options};

use super::serve::{Ready, Settings};
use crate::Result;
use crate::child::Supervised;
use crate::rounds::{self, DIRECT, GATEWAY, UNRECORDED};

/// The gateway that masks nothing and records nowhere.
pub(super) const BARE: &str = "gateway, masking and recording off";

/// Where clients connect to.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    name: &'static str,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) key: PathBuf,
    pid: Option<u32>,
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
    pub(super) fn direct(server: &Sshd) -> Self {
        let key = server.client_key().private().to_owned();
        Self { name: DIRECT, port: server.port(), user: server.user().to_owned(), key, pid: None }
    }

    /// A stock client that logs in here; arguments are to follow.
    pub(super) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(client_options(&self.key, self.port));
        command
    }

    /// User and host, for the client's command line.
    pub(super) fn place(&self) -> String {
        format!("{}@127.0.0.1", self.user)
    }
}

/// Keys of the gateway and of an agent.
pub(super) struct Keys {
    pub(super) host: SshKeyPair,
    pub(super) agent: SshKeyPair,
}

impl Keys {
    /// Makes them.
    ///
    /// # Errors
    /// `ssh-keygen` is missing.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        Ok(Self {
            host: SshKeyPair::generate(folder, "host")?,
            agent: SshKeyPair::generate(folder, "agent")?,
        })
    }
}

/// The gateway in a process of its own.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) subject: Subject,
    /// The public key its recordings verify with.
    pub(super) key: Option<[u8; 32]>,
    process: Supervised,
}

impl Gateway {
    /// Starts it in front of the server; it records into `recordings`, or nowhere. Without `masking` it does neither.
    ///
    /// # Errors
    /// It does not start; its own words are on standard error.
    pub(super) fn start(
        server: &Sshd,
        keys: &Keys,
        files: &Path,
        recordings: Option<&Path>,
        masking: bool,
    ) -> Result<Self> {
        let settings = Settings {
            upstream: server.port(),
            pinned: server.host_key().public_line()?,
            username: server.user().to_owned(),
            key: server.client_key().pem()?,
            host_key: keys.host.pem()?,
            agent: keys.agent.public_line()?,
            files: files.display().to_string(),
            recordings: recordings.map(Path::to_owned),
            masking,
        };
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = Supervised::spawn(command.arg("serve-ssh-gateway"))?;
        let ready: Ready = process.configure(&settings)?;
        let name = match (masking, recordings) {
            (true, Some(_)) => GATEWAY,
            (true, None) => UNRECORDED,
            (false, _) => BARE,
        };
        let subject = Subject {
            name,
            port: ready.port,
            user: "agent-7".to_owned(),
            key: keys.agent.private().to_owned(),
            pid: Some(process.id()),
        };
        Ok(Self { subject, key: ready.key, process })
    }

    /// Ends it in order: what was accepted for recording is written.
    ///
    /// # Errors
    /// It fails on its way out.
    pub(super) fn stop(self) -> Result<()> {
        self.process.stop()
    }
}
