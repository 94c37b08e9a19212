//! A fixed list of tokens, for tests and closed demos.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Authenticator, IdentityError, Presented, Principal};
use crate::clock::Timestamp;

/// Accepts exactly the listed tokens. Tokens are compared through a keyed hash, so timing tells nothing about them.
pub struct StaticAuthenticator {
    key: [u8; 32],
    principals: BTreeMap<[u8; 32], Principal>,
}

impl std::fmt::Debug for StaticAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticAuthenticator")
            .field("principals", &self.principals.len())
            .finish_non_exhaustive()
    }
}

impl StaticAuthenticator {
    /// An empty list: refuses everybody.
    ///
    /// # Errors
    /// The operating system gave no randomness for the comparison key.
    pub fn new() -> Result<Self, crate::random::NoRandomness> {
        Ok(Self { key: crate::random::bytes()?, principals: BTreeMap::new() })
    }

    /// Adds a token and whom it proves.
    #[must_use]
    pub fn with(mut self, token: &str, principal: Principal) -> Self {
        self.principals.insert(self.digest(token), principal);
        self
    }

    fn digest(&self, token: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, token.as_bytes()).as_bytes()
    }
}

#[async_trait]
impl Authenticator for StaticAuthenticator {
    async fn authenticate(&self, presented: &Presented, _now: Timestamp) -> Result<Principal, IdentityError> {
        let Presented::Token(token) = presented else {
            return Err(IdentityError::Unsupported("client certificates"));
        };
        let known = self.principals.get(&self.digest(token.expose()));
        known.cloned().ok_or_else(|| IdentityError::Invalid("unknown token".to_owned()))
    }
}
