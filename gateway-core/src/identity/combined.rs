//! Several authenticators behind one.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Authenticator, IdentityError, Presented, Principal};
use crate::clock::Timestamp;

/// Sends each proof to the authenticators for its kind, in the order added; the first that verifies it wins.
///
/// Each member verifies completely by itself, so adding one can only admit more identities. With no member for a
/// kind, that kind is refused.
///
/// ```
/// use std::sync::Arc;
/// use gateway_core::identity::{AnyAuthenticator, StaticAuthenticator};
/// let any = AnyAuthenticator::new().tokens(Arc::new(StaticAuthenticator::new()?));
/// # Ok::<_, gateway_core::random::NoRandomness>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AnyAuthenticator {
    tokens: Vec<Arc<dyn Authenticator>>,
    certificates: Vec<Arc<dyn Authenticator>>,
    ssh: Vec<Arc<dyn Authenticator>>,
}

impl AnyAuthenticator {
    /// Refuses everything until members are added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one that bearer tokens are shown to.
    #[must_use]
    pub fn tokens(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.tokens.push(authenticator);
        self
    }

    /// Adds one that client certificates are shown to.
    #[must_use]
    pub fn certificates(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.certificates.push(authenticator);
        self
    }

    /// Adds one that SSH keys and certificates are shown to.
    #[must_use]
    pub fn ssh(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.ssh.push(authenticator);
        self
    }
}

#[async_trait]
impl Authenticator for AnyAuthenticator {
    async fn authenticate(&self, presented: &Presented, now: Timestamp) -> Result<Principal, IdentityError> {
        let (members, kind) = match presented {
            Presented::Token(_) => (&self.tokens, "tokens"),
            Presented::Certificate(_) => (&self.certificates, "client certificates"),
            Presented::SshKey(_) | Presented::SshCertificate(_) => (&self.ssh, "SSH keys"),
        };
        let mut refusal = IdentityError::Unsupported(kind);
        for member in members {
            match member.authenticate(presented, now).await {
                Ok(principal) => return Ok(principal),
                Err(error) if weight(&error) > weight(&refusal) => refusal = error,
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

/// Of several refusals the log gets the one that says most: who got furthest with the proof.
const fn weight(error: &IdentityError) -> u8 {
    match error {
        IdentityError::Unsupported(_) => 0,
        IdentityError::Invalid(_) => 1,
        IdentityError::Expired(_) => 2,
        IdentityError::IssuerUnavailable { .. } => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PrincipalKind, StaticAuthenticator};
    use super::*;
    use bytes::Bytes;

    fn listing(token: &str) -> Arc<StaticAuthenticator> {
        let principal = Principal::new(PrincipalKind::Agent, "demo", token, Timestamp::MAX);
        Arc::new(StaticAuthenticator::new().unwrap().with(token, principal))
    }

    async fn ask(any: &AnyAuthenticator, presented: Presented) -> Result<String, IdentityError> {
        any.authenticate(&presented, Timestamp::from_seconds(0)).await.map(|p| p.actor.subject)
    }

    #[tokio::test]
    async fn the_first_that_verifies_wins_and_kinds_stay_apart() {
        let any = AnyAuthenticator::new().tokens(listing("a")).tokens(listing("b"));
        assert_eq!(ask(&any, Presented::Token("b".into())).await, Ok("b".to_owned()));
        let unknown = ask(&any, Presented::Token("c".into())).await;
        assert!(matches!(unknown, Err(IdentityError::Invalid(_))), "{unknown:?}");
        let certificate = ask(&any, Presented::Certificate(vec![Bytes::new()])).await;
        assert_eq!(certificate, Err(IdentityError::Unsupported("client certificates")));
    }

    #[tokio::test]
    async fn empty_refuses() {
        let refused = ask(&AnyAuthenticator::new(), Presented::Token("a".into())).await;
        assert_eq!(refused, Err(IdentityError::Unsupported("tokens")));
    }
}
