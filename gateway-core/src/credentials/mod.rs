//! The target's credentials: fetched by the gateway, never shown to the agent.

mod file;
mod secret;

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;

pub use file::FileCredentials;
pub use secret::Secret;

use crate::identity::VerifiedPrincipal;

/// What the gateway logs in upstream with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum UpstreamCredential {
    /// A user name and a password.
    Password {
        /// The account on the target.
        username: String,
        /// Its password.
        password: Secret<String>,
    },
    /// A client certificate (PEM chain) and its private key (PEM).
    Certificate {
        /// The account on the target.
        username: String,
        /// The certificate chain, PEM.
        chain: String,
        /// The private key, PEM.
        key: Secret<String>,
    },
    /// A private key (OpenSSH or PKCS#8, PEM) and, if the account is certified, the OpenSSH certificate for it.
    Key {
        /// The account on the target.
        username: String,
        /// The private key, unencrypted.
        key: Secret<String>,
        /// The certificate, as the line of a `-cert.pub` file.
        certificate: Option<String>,
    },
    /// An account that needs no secret (peer or trust authentication).
    None {
        /// The account on the target.
        username: String,
    },
}

impl UpstreamCredential {
    /// The account on the target.
    pub fn username(&self) -> &str {
        match self {
            Self::Password { username, .. }
            | Self::Certificate { username, .. }
            | Self::Key { username, .. }
            | Self::None { username } => username,
        }
    }

    /// The secret texts in it, so that masking can look for them in everything the target sends.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret<String>> {
        match self {
            Self::Password { password, .. } => Some(password),
            Self::Certificate { key, .. } | Self::Key { key, .. } => Some(key),
            Self::None { .. } => None,
        }
        .into_iter()
    }
}

/// Why no credential could be had. The text may name files and targets, never the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The target is not known to the source.
    #[error("no credential is configured for target `{0}`; add it to the credential source")]
    UnknownTarget(String),
    /// The source could not be read.
    #[error("the credential of target `{target}` cannot be read: {cause}")]
    Unreadable {
        /// Whose credential.
        target: String,
        /// What went wrong.
        cause: String,
    },
}

/// Gives the credential for a target. Called once for each session, after the policy permitted `connect`;
/// an error refuses the session. Implementations may await and must not log what they return.
#[async_trait]
pub trait CredentialSource: Debug + Send + Sync {
    /// The credential for `target` on behalf of `principal`; `None` when the gateway itself checks its configuration.
    async fn credential(
        &self,
        target: &str,
        principal: Option<&VerifiedPrincipal>,
    ) -> Result<UpstreamCredential, CredentialError>;
}

/// A fixed list, for tests and embedders that hold the secrets already.
#[derive(Debug, Default)]
pub struct StaticCredentials(BTreeMap<String, UpstreamCredential>);

impl StaticCredentials {
    /// Adds the credential for a target.
    #[must_use]
    pub fn with(mut self, target: impl Into<String>, credential: UpstreamCredential) -> Self {
        self.0.insert(target.into(), credential);
        self
    }
}

#[async_trait]
impl CredentialSource for StaticCredentials {
    async fn credential(
        &self,
        target: &str,
        _principal: Option<&VerifiedPrincipal>,
    ) -> Result<UpstreamCredential, CredentialError> {
        self.0.get(target).cloned().ok_or_else(|| CredentialError::UnknownTarget(target.to_owned()))
    }
}
