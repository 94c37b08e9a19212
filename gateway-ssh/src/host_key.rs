//! The key by which clients know the gateway.

use gateway_core::credentials::Secret;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey};

use crate::target::BuildError;

/// A host key of the gateway itself: made once, kept private, its public half given to clients.
#[derive(Clone)]
pub struct HostKey(PrivateKey);

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostKey({})", self.fingerprint())
    }
}

impl HostKey {
    /// Makes a new Ed25519 key.
    ///
    /// # Errors
    /// The key cannot be made.
    pub fn generate() -> Result<Self, BuildError> {
        let made = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519);
        made.map(Self).map_err(|_| BuildError::HostKey("none can be made here".to_owned()))
    }

    /// Reads a private key: OpenSSH or PKCS#8 PEM, unencrypted.
    ///
    /// # Errors
    /// The text is something else; it is not repeated.
    pub fn from_pem(pem: &Secret<String>) -> Result<Self, BuildError> {
        // The error may quote the key: it is not passed on.
        russh::keys::decode_secret_key(pem.expose(), None)
            .map(Self)
            .map_err(|_| BuildError::HostKey("give an unencrypted private key, as PEM".to_owned()))
    }

    /// The private key as OpenSSH writes it, for a file that only the gateway's user may read.
    ///
    /// # Errors
    /// The key cannot be written down.
    pub fn pem(&self) -> Result<Secret<String>, BuildError> {
        let pem = self.0.to_openssh(LineEnding::LF);
        pem.map(|text| Secret::new(text.to_string()))
            .map_err(|_| BuildError::HostKey("it cannot be written down".to_owned()))
    }

    /// The public half as in a `.pub` file: algorithm and base64, without a comment.
    pub fn public_line(&self) -> String {
        let line = self.0.public_key().to_openssh().unwrap_or_default();
        line.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// The public half's fingerprint, as `ssh` shows it: `SHA256:...`.
    pub fn fingerprint(&self) -> String {
        self.0.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    pub(crate) fn into_private(self) -> PrivateKey {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::identity::SshPublicKey;

    #[test]
    fn a_new_key_survives_its_file() {
        let key = HostKey::generate().unwrap();
        let read = HostKey::from_pem(&key.pem().unwrap()).unwrap();
        assert_eq!(read.public_line(), key.public_line());
        assert!(key.public_line().starts_with("ssh-ed25519 ") && key.fingerprint().starts_with("SHA256:"));
        SshPublicKey::from_line(&key.public_line()).unwrap();
        assert_ne!(HostKey::generate().unwrap().public_line(), key.public_line());
    }

    #[test]
    fn what_is_no_key_is_not_repeated() {
        let error = HostKey::from_pem(&Secret::from("canary")).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
        assert!(!format!("{:?}", HostKey::generate().unwrap()).contains("PRIVATE"));
    }
}
