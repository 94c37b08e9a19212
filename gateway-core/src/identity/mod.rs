//! Who is acting: verified machine identities and how they are presented.
//!
//! This module does not map identities to rights; that is policy.
//!
//! # Counters and events
//! Names, labels and fields are stable. Tokens never appear in them, and of a token's claims only issuer and subject.
//!
//! | Counter | Labels |
//! |---|---|
//! | `gateway_identity_accepted_total` | `method` (`token`, `certificate`, `ssh_key`, `ssh_certificate`), `issuer` |
//! | `gateway_identity_refused_total` | `method`, `issuer` (empty if none was matched), `reason` |
//! | `gateway_identity_key_fetches_total` | `issuer`, `outcome` (`ok`, `failed`) |
//! | `gateway_identity_stale_keys_total` | `issuer`; proofs judged with keys past their maximum age |
//!
//! Events: `identity accepted` (info), `identity refused` (warn), `issuer keys fetched` (info),
//! `issuer keys cannot be fetched` (warn).

mod client_cert;
mod combined;
#[cfg(feature = "oidc")]
pub mod oidc;
mod spiffe;
mod ssh;
mod static_list;
mod telemetry;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use client_cert::{CertificateMatch, CertificateName, CertificateRule, ClientCertAuthenticator};
pub use combined::AnyAuthenticator;
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
pub use ssh::{BadSshKey, SshAuthenticator, SshAuthority, SshCertificateProof, SshKeyProof, SshPublicKey};
pub use static_list::StaticAuthenticator;

use crate::clock::{Clock, Timestamp};
use crate::credentials::Secret;

/// What sort of actor a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PrincipalKind {
    /// An autonomous agent.
    Agent,
    /// A person. Only people review.
    Human,
    /// A service that is neither.
    Service,
}

impl PrincipalKind {
    /// The lower-case word policies and claims use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Human => "human",
            Self::Service => "service",
        }
    }
}

/// Which half of a planner-executor pair a connection belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// The planner: looks, does not touch.
    Plan,
    /// The executor: carries out a plan.
    Execute,
    /// Neither was claimed.
    #[default]
    Other,
}

impl Phase {
    /// The lower-case word policies and claims use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Execute => "execute",
            Self::Other => "other",
        }
    }
}

/// An identity by name: who issued it and whom it names. Two identities are one person only if both are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor {
    /// The issuer (a URL, a trust domain).
    pub issuer: String,
    /// The subject within the issuer.
    pub subject: String,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.issuer, self.subject)
    }
}

/// The actor behind a connection, as data. Inside a [`VerifiedPrincipal`] its claims are proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Agent, human or service.
    pub kind: PrincipalKind,
    /// Who vouches for it and what it is called there.
    #[serde(flatten)]
    pub actor: Actor,
    /// Its groups, from a configured claim.
    pub groups: BTreeSet<String>,
    /// Planner, executor or neither.
    pub phase: Phase,
    /// The task it works on.
    pub task: Option<String>,
    /// The plan it carries out.
    pub plan: Option<String>,
    /// Who it acts for, nearest first (RFC 8693 section 4.1 `act`, outermost first).
    pub actor_chain: Vec<Actor>,
    /// Its workload identity, if it has one (a SPIFFE ID).
    pub workload: Option<String>,
    /// Further claims that policies may read, by configured name.
    pub claims: BTreeMap<String, String>,
    /// When the identity ends, and with it every session of it.
    pub expires_at: Timestamp,
}

impl Principal {
    /// A principal with no groups, chain or claims.
    pub fn new(
        kind: PrincipalKind,
        issuer: impl Into<String>,
        subject: impl Into<String>,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            kind,
            actor: Actor { issuer: issuer.into(), subject: subject.into() },
            groups: BTreeSet::new(),
            phase: Phase::default(),
            task: None,
            plan: None,
            actor_chain: Vec::new(),
            workload: None,
            claims: BTreeMap::new(),
            expires_at,
        }
    }

    /// True if `other` is this principal or anyone in its actor chain.
    pub fn involves(&self, other: &Actor) -> bool {
        self.actor == *other || self.actor_chain.contains(other)
    }
}

/// A principal that an [`Authenticator`] has verified. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedPrincipal(Arc<Principal>);

impl Deref for VerifiedPrincipal {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.0
    }
}

/// What a client showed to prove who it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum Presented {
    /// A bearer token (a JWT).
    Token(Secret<String>),
    /// A client certificate chain whose possession TLS has proven, DER, leaf first. Its trust is not yet judged
    /// beyond what the listener's TLS configuration verified.
    Certificate(Vec<Bytes>),
    /// An SSH key whose possession the transport has proven.
    SshKey(SshKeyProof),
    /// An OpenSSH certificate whose signature and possession the transport has proven; everything else in it is unjudged.
    SshCertificate(Box<SshCertificateProof>),
}

/// Why an identity was refused. The client is told only that it was; the cause goes to the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// This kind of proof is not accepted here.
    #[error("this listener does not accept {0}")]
    Unsupported(&'static str),
    /// The proof is malformed or does not verify.
    #[error("the identity does not verify: {0}")]
    Invalid(String),
    /// It was valid once.
    #[error("the identity expired at {0}; request a new token")]
    Expired(Timestamp),
    /// The issuer's keys cannot be had.
    #[error("the keys of issuer `{issuer}` cannot be fetched: {cause}")]
    IssuerUnavailable {
        /// Which issuer.
        issuer: String,
        /// Why.
        cause: String,
    },
}

/// Verifies what a client presented. Called once at the start of each session (and for each reviewer's request);
/// an error refuses it. The implementer must check signature, issuer, audience and time before returning a principal.
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// The principal that `presented` proves.
    async fn authenticate(&self, presented: &Presented, now: Timestamp) -> Result<Principal, IdentityError>;
}

/// Has `authenticator` verify what was presented: the only way to a [`VerifiedPrincipal`].
///
/// # Errors
/// Whatever the authenticator reports, and [`IdentityError::Expired`] if the principal's time is already over.
pub async fn verify(
    authenticator: &dyn Authenticator,
    presented: &Presented,
    clock: &dyn Clock,
) -> Result<VerifiedPrincipal, IdentityError> {
    let principal = authenticator.authenticate(presented, clock.now()).await?;
    if principal.expires_at <= clock.now() {
        return Err(IdentityError::Expired(principal.expires_at));
    }
    Ok(VerifiedPrincipal(Arc::new(principal)))
}
