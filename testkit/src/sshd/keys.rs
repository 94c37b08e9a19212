//! Keys and certificates made by the real `ssh-keygen`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Context, Result};
use crate::process::run;

/// A private key file in OpenSSH's format and its `.pub` beside it.
#[derive(Clone, Debug)]
pub struct SshKeyPair(PathBuf);

impl SshKeyPair {
    /// Makes an Ed25519 key without passphrase.
    ///
    /// # Errors
    /// `ssh-keygen` is missing or fails.
    pub fn generate(folder: &Path, name: &str) -> Result<Self> {
        Self::generate_as(folder, name, &["-t", "ed25519"])
    }

    /// Makes a key of another type, for example with `["-t", "rsa", "-b", "3072"]`.
    ///
    /// # Errors
    /// `ssh-keygen` is missing or fails.
    pub fn generate_as(folder: &Path, name: &str, kind: &[&str]) -> Result<Self> {
        let path = folder.join(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-C", name]).args(kind).arg("-f").arg(&path);
        run(&mut command, "", KEYGEN)?.success()?;
        Ok(Self(path))
    }

    /// The pair whose private key is this file.
    pub const fn at(private: PathBuf) -> Self {
        Self(private)
    }

    /// The private key's file.
    pub fn private(&self) -> &Path {
        &self.0
    }

    /// The private key, PEM.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn pem(&self) -> Result<String> {
        fs::read_to_string(&self.0).context("read a private key")
    }

    /// The public key's line.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn public_line(&self) -> Result<String> {
        fs::read_to_string(self.beside(".pub")).context("read a public key")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

/// A certificate to be signed. Default: a user certificate, valid from an hour ago for two hours, for nobody.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    id: String,
    host: bool,
    principals: Vec<String>,
    options: Vec<String>,
    validity: String,
    serial: u64,
}

impl CertificateRequest {
    /// A request with this key id.
    pub fn new(id: &str) -> Self {
        let (principals, options) = (Vec::new(), Vec::new());
        let validity = "-1h:+1h".to_owned();
        Self { id: id.to_owned(), host: false, principals, options, validity, serial: 1 }
    }

    /// A host certificate.
    #[must_use]
    pub const fn host(mut self) -> Self {
        self.host = true;
        self
    }

    /// Adds a principal.
    #[must_use]
    pub fn principal(mut self, name: &str) -> Self {
        self.principals.push(name.to_owned());
        self
    }

    /// Adds an option as ssh-keygen's `-O` takes it, for example `force-command=true` or `no-pty`.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Another validity, as ssh-keygen's `-V` takes it.
    #[must_use]
    pub fn validity(mut self, validity: &str) -> Self {
        validity.clone_into(&mut self.validity);
        self
    }

    /// Another serial number than 1.
    #[must_use]
    pub const fn serial(mut self, serial: u64) -> Self {
        self.serial = serial;
        self
    }

    /// Signs `key` with `authority`; returns the certificate's file, which stands beside the key as OpenSSH's clients expect.
    ///
    /// # Errors
    /// `ssh-keygen` is missing or refuses the request.
    pub fn sign(&self, authority: &SshKeyPair, key: &SshKeyPair) -> Result<PathBuf> {
        let mut command = Command::new("ssh-keygen");
        command.arg("-q").arg("-s").arg(authority.private()).args(["-I", &self.id, "-V", &self.validity]);
        command.args(["-z", &self.serial.to_string()]);
        if self.host {
            command.arg("-h");
        }
        if !self.principals.is_empty() {
            command.args(["-n", &self.principals.join(",")]);
        }
        for option in &self.options {
            command.args(["-O", option]);
        }
        run(command.arg(key.beside(".pub")), "", KEYGEN)?.success()?;
        Ok(key.beside("-cert.pub"))
    }
}

/// An RSA key on a loaded machine takes seconds.
const KEYGEN: Duration = Duration::from_secs(60);
