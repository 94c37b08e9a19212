//! Whether a target would be reached: for whoever sets a gateway up, before the first client comes.

use std::sync::Arc;

use gateway_core::credentials::UpstreamCredential;

use crate::target::Target;
use crate::upstream::{UpstreamError, Upstreams};

/// A target cannot be reached as it is configured. The texts are for operators: they may name hosts and accounts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// It does not answer, or not as an SSH server that the gateway can talk to.
    #[error("target `{target}` cannot be reached: {cause}")]
    Unreachable {
        /// Which target.
        target: String,
        /// What went wrong.
        cause: String,
    },
    /// It is another host than the pinned one, or it does not take the credential: trying again does not help.
    #[error("target `{target}` cannot be used: {cause}")]
    Refused {
        /// Which target.
        target: String,
        /// What went wrong.
        cause: String,
    },
}

impl Target {
    /// Connects, compares the host key, logs in with `credential`, and leaves; nothing runs on the host.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub async fn check(&self, credential: &UpstreamCredential) -> Result<(), CheckError> {
        let connected = Upstreams::connect(Arc::new(self.clone()), credential).await;
        connected.map(drop).map_err(|error| {
            let (target, cause) = (self.name.clone(), error.to_string());
            match error {
                UpstreamError::HostKey(_) | UpstreamError::Login(_) | UpstreamError::Credential(_) => {
                    CheckError::Refused { target, cause }
                }
                _ => CheckError::Unreachable { target, cause },
            }
        })
    }
}
