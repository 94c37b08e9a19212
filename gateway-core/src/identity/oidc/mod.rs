//! JSON Web Tokens from OpenID Connect issuers, Kubernetes, CI systems and SPIFFE (RFC 7519, OpenID Connect Core, JWT-SVID).
//!
//! ```no_run
//! use gateway_core::identity::oidc::{IssuerConfig, JwtAuthenticator, KeySource};
//!
//! let mut issuer = IssuerConfig::new("https://idp.example.org", "gateway", KeySource::Discovery);
//! issuer.claims.groups = Some("realm_access.roles".parse()?);
//! let authenticator = JwtAuthenticator::new(vec![issuer])?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! A token is refused unless all of this holds, in this order: it is a compact JWS within the size limit, with strict
//! base64url and no repeated name; its header asks for nothing but an asymmetric signature; `iss` is a configured
//! issuer, byte for byte; that issuer allows `alg`; exactly one of the issuer's own keys has the `kid` (or, without
//! `kid`, fits at all) and is meant for `alg`; the signature verifies; `aud` names one of the audiences; `exp` is present
//! and, like `nbf` and `iat`, right at the caller's time; the lifetime is within the limit; the mapped claims have the
//! right shape. A token never says where its key is: `jku`, `x5u`, `jwk`, `x5c` and `crit` are refused.
//!
//! What it does not do: revocation lists and introspection (RFC 7662), nor detection of a token shown twice; tokens are
//! bearer tokens until they expire. Who acts and for whom, of `sub` and `act`, is configured ([`Delegation`]); all of the chain is
//! judged as involved either way.

mod algorithm;
mod cache;
mod claims;
mod config;
mod fetch;
mod json;
mod jwks;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use config::{
    CacheLimits, ClaimMapping, ClaimPath, ConfigError, Delegation, IssuerConfig, KeyHost, KeySource,
    KindRule, MAX_LEEWAY, MAX_STALE, MalformedPath, PlainHttp, Roots,
};

use super::telemetry::{Refusal, report};
use super::{Authenticator, IdentityError, Presented, Principal};
use crate::clock::Timestamp;
use cache::{KeyCache, Wanted};
use jwks::Found;
use token::Unverified;

/// Accepts the tokens of configured issuers. Keys are fetched when first needed (needs a tokio runtime then).
#[derive(Debug)]
pub struct JwtAuthenticator {
    issuers: BTreeMap<String, Issuer>,
    max_token_bytes: usize,
}

impl JwtAuthenticator {
    /// Checks the configuration and reads the files of roots; fetches nothing yet.
    ///
    /// # Errors
    /// No issuer, the same twice, or one that cannot work as configured.
    pub fn new(configs: Vec<IssuerConfig>) -> Result<Self, ConfigError> {
        let mut issuers = BTreeMap::new();
        for config in configs {
            config.check()?;
            let keys = Arc::new(KeyCache::new(&config)?);
            let name = config.issuer.clone();
            if issuers.insert(name.clone(), Issuer { config, keys }).is_some() {
                return Err(ConfigError::Duplicate(name));
            }
        }
        let max_token_bytes = issuers.values().map(|issuer| issuer.config.max_token_bytes).max();
        Ok(Self { max_token_bytes: max_token_bytes.ok_or(ConfigError::NoIssuer)?, issuers })
    }

    /// The configured issuers, for a listener that tells clients where to get a token.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.keys().map(String::as_str)
    }

    /// Fetches every issuer's keys. Call at start-up to hear of faults before a client does; optional.
    ///
    /// # Errors
    /// The first issuer whose keys cannot be had. The authenticator works on: it tries again when a token comes.
    pub async fn prefetch(&self, now: Timestamp) -> Result<(), IdentityError> {
        for issuer in self.issuers.values() {
            issuer.keys.keys(None, now).await.map_err(|refusal| refusal.error)?;
        }
        Ok(())
    }

    /// Takes the token apart and finds its issuer.
    fn select<'a>(&self, token: &'a str) -> Result<(&Issuer, Unverified<'a>), Refusal> {
        if token.len() > self.max_token_bytes {
            return Err(too_large());
        }
        let token = Unverified::parse(token)?;
        let issuer = token.issuer().and_then(|name| self.issuers.get(name));
        issuer.map(|issuer| (issuer, token)).ok_or_else(|| {
            // The name is not repeated: it is not verified, and may be made to look like another.
            Refusal::invalid("issuer", "the token's issuer is not configured")
        })
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn authenticate(&self, presented: &Presented, now: Timestamp) -> Result<Principal, IdentityError> {
        let Presented::Token(text) = presented else {
            return Err(IdentityError::Unsupported("client certificates"));
        };
        match self.select(text.expose()) {
            Ok((issuer, token)) => {
                let outcome = issuer.principal(&token, text.expose().len(), now).await;
                report("token", &issuer.config.issuer, outcome)
            }
            Err(refusal) => report("token", "", Err(refusal)),
        }
    }
}

/// One configured issuer and its keys.
#[derive(Debug)]
struct Issuer {
    config: IssuerConfig,
    keys: Arc<KeyCache>,
}

impl Issuer {
    async fn principal(
        &self,
        token: &Unverified<'_>,
        token_bytes: usize,
        now: Timestamp,
    ) -> Result<Principal, Refusal> {
        if token_bytes > self.config.max_token_bytes {
            return Err(too_large());
        }
        if !self.config.algorithms.contains(&token.algorithm) {
            return Err(Refusal::invalid("algorithm", "the issuer may not sign with the token's `alg`"));
        }
        self.check_signature(token, now).await?;
        claims::principal(&token.claims, &self.config, now)
    }

    async fn check_signature(&self, token: &Unverified<'_>, now: Timestamp) -> Result<(), Refusal> {
        let (id, algorithm) = (token.key_id.as_deref(), token.algorithm);
        let keys = self.keys.keys(Some(Wanted { id, algorithm }), now).await?;
        match keys.find(id, algorithm) {
            Found::Key(key) if key.verifies(algorithm, token.signed.as_bytes(), &token.signature) => Ok(()),
            Found::Key(_) => Err(Refusal::invalid("signature", "the signature does not verify")),
            Found::Nothing => {
                Err(Refusal::invalid("unknown_key", "the issuer has no such key for this algorithm"))
            }
            Found::Several => {
                Err(Refusal::invalid("ambiguous_key", "several keys of the issuer fit the token"))
            }
        }
    }
}

fn too_large() -> Refusal {
    Refusal::invalid("too_large", "the token is larger than allowed")
}
