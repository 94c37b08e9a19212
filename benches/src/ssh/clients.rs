//! What is done: with stock clients, but for idle sessions, of which there are too many for processes of their own.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{self, Handle};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, decode_secret_key};

use super::subject::Subject;
use crate::Result;

/// Runs to its end and tells how long it took, in seconds, and how many bytes it wrote.
///
/// # Errors
/// It failed; its own words are on standard error.
pub(super) fn timed(command: &mut Command) -> Result<(f64, u64)> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let bytes = child.stdout.take().map_or(Ok(0), drain)?;
    let status = child.wait()?;
    let seconds = start.elapsed().as_secs_f64();
    if status.success() {
        Ok((seconds, bytes))
    } else {
        Err(format!("the client ended with {status}").into())
    }
}

fn drain(mut from: impl Read) -> Result<u64> {
    let (mut buffer, mut total) = (vec![0; 256 * 1024], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}

/// A command on a connection of its own.
///
/// # Errors
/// As [`timed`].
pub(super) fn exec(subject: &Subject, command: &str) -> Result<(f64, u64)> {
    timed(subject.client("ssh").arg(subject.place()).arg(command).stdin(Stdio::null()))
}

/// The same with this file as its input.
///
/// # Errors
/// As [`timed`].
pub(super) fn upload(subject: &Subject, file: &Path, command: &str) -> Result<(f64, u64)> {
    timed(subject.client("ssh").arg(subject.place()).arg(command).stdin(File::open(file)?))
}

/// One batch of `sftp`.
///
/// # Errors
/// As [`timed`].
pub(super) fn sftp(subject: &Subject, batch: &str, folder: &Path) -> Result<f64> {
    let file = folder.join("batch");
    std::fs::write(&file, batch)?;
    let mut sftp = subject.client("sftp");
    timed(sftp.arg("-b").arg(&file).arg(subject.place()).stdin(Stdio::null())).map(|(seconds, _)| seconds)
}

/// A connection that commands share.
pub(super) struct Master {
    socket: PathBuf,
    process: Child,
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Master {
    /// Connects.
    ///
    /// # Errors
    /// It does not get through within seconds.
    pub(super) fn connect(subject: &Subject, folder: &Path) -> Result<Self> {
        let socket = folder.join(format!("master-{}", subject.port));
        let mut ssh = subject.client("ssh");
        ssh.arg("-o").arg(control(&socket)).args(["-o", "ControlMaster=yes", "-N"]).arg(subject.place());
        let process = ssh.stdin(Stdio::null()).spawn()?;
        let master = Self { socket, process };
        if testkit::wait_until(|| master.socket.exists(), CONNECT) {
            Ok(master)
        } else {
            Err("no shared connection".into())
        }
    }

    /// Runs a command on a channel of its own.
    ///
    /// # Errors
    /// As [`timed`].
    pub(super) fn exec(&self, subject: &Subject, command: &str) -> Result<f64> {
        let mut ssh = subject.client("ssh");
        ssh.arg("-o").arg(control(&self.socket)).arg(subject.place()).arg(command);
        timed(ssh.stdin(Stdio::null())).map(|(seconds, _)| seconds)
    }
}

fn control(socket: &Path) -> String {
    format!("ControlPath={}", socket.display())
}

/// Logging in takes a tenth of a second; on a loaded machine some seconds.
const CONNECT: Duration = Duration::from_secs(30);

/// Believes any host: the bench's own gateway.
struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// A session that is logged in and does nothing.
pub(super) struct Idle(#[expect(dead_code, reason = "kept open")] Handle<AnyHost>);

/// Logs in and does nothing.
///
/// # Errors
/// The login fails.
pub(super) async fn idle(subject: &Subject) -> Result<Idle> {
    let key = decode_secret_key(&std::fs::read_to_string(&subject.key)?, None)?;
    let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
    let mut handle = client::connect(config, ("127.0.0.1", subject.port), AnyHost).await?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    if handle.authenticate_publickey(&subject.user, key).await?.success() {
        Ok(Idle(handle))
    } else {
        Err("the login was refused".into())
    }
}
