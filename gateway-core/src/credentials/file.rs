//! Credentials from files, read anew for each session so that rotation needs no restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use zeroize::Zeroize;

use super::{CredentialError, CredentialSource, Secret, UpstreamCredential};
use crate::identity::VerifiedPrincipal;

/// A password or key longer than this is a mistake in the configuration, not a secret. 64 KiB.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// One target's account and where its secret lies.
#[derive(Clone, Debug)]
enum Entry {
    Password { username: String, file: PathBuf },
    Certificate { username: String, chain: PathBuf, key: PathBuf },
    Key { username: String, key: PathBuf, certificate: Option<PathBuf> },
}

/// Reads each target's secret from a file that only the gateway's user may read.
///
/// A relative path is looked up in `$CREDENTIALS_DIRECTORY` when that is set (systemd's `LoadCredential=`,
/// systemd.exec(5)). One trailing line end is not part of the secret. Files that others may read are refused.
#[derive(Debug, Default)]
pub struct FileCredentials(BTreeMap<String, Entry>);

impl FileCredentials {
    /// Adds a password kept in `file`.
    #[must_use]
    pub fn password(
        mut self,
        target: impl Into<String>,
        username: impl Into<String>,
        file: impl Into<PathBuf>,
    ) -> Self {
        self.0.insert(target.into(), Entry::Password { username: username.into(), file: file.into() });
        self
    }

    /// Adds a client certificate: PEM chain and PEM key.
    #[must_use]
    pub fn certificate(
        mut self,
        target: impl Into<String>,
        username: impl Into<String>,
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let entry = Entry::Certificate { username: username.into(), chain: chain.into(), key: key.into() };
        self.0.insert(target.into(), entry);
        self
    }

    /// Adds an SSH private key and, if the account is certified, its OpenSSH certificate.
    #[must_use]
    pub fn key(
        mut self,
        target: impl Into<String>,
        username: impl Into<String>,
        key: impl Into<PathBuf>,
        certificate: Option<PathBuf>,
    ) -> Self {
        let entry = Entry::Key { username: username.into(), key: key.into(), certificate };
        self.0.insert(target.into(), entry);
        self
    }
}

#[async_trait]
impl CredentialSource for FileCredentials {
    async fn credential(
        &self,
        target: &str,
        _principal: Option<&VerifiedPrincipal>,
    ) -> Result<UpstreamCredential, CredentialError> {
        let entry =
            self.0.get(target).ok_or_else(|| CredentialError::UnknownTarget(target.to_owned()))?.clone();
        let read = move || load(entry);
        let loaded = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string()).and_then(|r| r);
        loaded.map_err(|cause| CredentialError::Unreadable { target: target.to_owned(), cause })
    }
}

fn load(entry: Entry) -> Result<UpstreamCredential, String> {
    Ok(match entry {
        Entry::Password { username, file } => {
            UpstreamCredential::Password { username, password: read_secret(&file)? }
        }
        Entry::Certificate { username, chain, key } => {
            UpstreamCredential::Certificate { username, chain: read_public(&chain)?, key: read_secret(&key)? }
        }
        Entry::Key { username, key, certificate } => {
            let certificate = certificate.as_deref().map(read_public).transpose()?;
            UpstreamCredential::Key { username, key: read_secret(&key)?, certificate }
        }
    })
}

fn read_public(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("`{}`: {e}", path.display()))
}

/// Reads a secret file: private to its owner, at most [`MAX_SECRET_BYTES`], UTF-8.
fn read_secret(path: &Path) -> Result<Secret<String>, String> {
    let path = located(path);
    let at = |cause: &dyn std::fmt::Display| format!("`{}`: {cause}", path.display());
    let meta = std::fs::metadata(&path).map_err(|e| at(&e))?;
    if meta.len() > MAX_SECRET_BYTES {
        return Err(at(&format_args!("larger than {MAX_SECRET_BYTES} bytes")));
    }
    private(&meta).map_err(|e| at(&e))?;
    let mut bytes = std::fs::read(&path).map_err(|e| at(&e))?;
    trim_line_end(&mut bytes);
    String::from_utf8(bytes).map(Secret::new).map_err(|e| {
        e.into_bytes().zeroize();
        at(&"not UTF-8")
    })
}

fn located(path: &Path) -> PathBuf {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) if path.is_relative() => Path::new(&directory).join(path),
        _ => path.to_owned(),
    }
}

#[cfg(unix)]
fn private(meta: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(format!("mode {mode:04o} lets others read it; run `chmod 600` on it"))
}

#[cfg(not(unix))]
fn private(_meta: &std::fs::Metadata) -> Result<(), String> {
    Ok(())
}

fn trim_line_end(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn secret_file(mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2-canary\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn reads_without_the_line_end() {
        let secret = read_secret(secret_file(0o600).path()).unwrap();
        assert_eq!(secret.expose(), "hunter2-canary");
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[test]
    fn refuses_a_file_others_can_read_and_does_not_show_it() {
        let error = read_secret(secret_file(0o644).path()).unwrap_err();
        assert!(error.contains("chmod 600"), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
}
