//! What is configured for each issuer. Every field has a safe default; what may not be left out is an argument of
//! [`IssuerConfig::new`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::text::{MAX_CLAIM_BYTES, MAX_SUBJECT_BYTES, is_name};
use super::super::{PrincipalKind, TrustDomain};
use super::algorithm::Algorithm;

/// Most leeway that may be configured: clocks further apart are broken, and expiry would mean little.
pub const MAX_LEEWAY: Duration = Duration::from_secs(5 * 60);
/// Longest time old keys may be served past their maximum age: a day bounds how long a withdrawn key can live on.
pub const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest token that may be allowed, in bytes. Carriers (HTTP headers, passwords) are far smaller.
const MAX_TOKEN_BYTES: usize = 1024 * 1024;
/// Longest time to wait for an issuer's keys that may be configured: a client waits as long.
const MAX_FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Most names in a claim path; nobody nests deeper.
const MAX_PATH_NAMES: usize = 8;

/// One issuer and what its tokens mean. Fill the fields after [`IssuerConfig::new`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IssuerConfig {
    /// The issuer, compared with `iss` byte by byte.
    pub issuer: String,
    /// A token must name one of these in `aud`. Never empty.
    pub audiences: BTreeSet<String>,
    /// How its tokens may be signed. Default: RS256, ES256, EdDSA.
    pub algorithms: BTreeSet<Algorithm>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// Whom to trust for HTTPS. Default: the system's roots.
    pub roots: Roots,
    /// Whether keys may come over plain HTTP. Default: no.
    pub plain_http: PlainHttp,
    /// Where discovery may point to for the keys. Default: any host.
    pub key_host: KeyHost,
    /// How far clocks may differ; applied to `exp`, `nbf` and `iat`. Default 30 s, at most [`MAX_LEEWAY`].
    pub leeway: Duration,
    /// Largest token, in bytes. Default 64 KiB.
    pub max_token_bytes: usize,
    /// Longest `exp - iat` (or `exp - now` without `iat`). Default 24 hours.
    pub max_lifetime: Duration,
    /// What the claims mean.
    pub claims: ClaimMapping,
    /// How long keys are kept.
    pub cache: CacheLimits,
}

impl IssuerConfig {
    /// An issuer whose tokens for `audience` are accepted, with every default.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, keys: KeySource) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: BTreeSet::from([audience.into()]),
            algorithms: BTreeSet::from([Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]),
            keys,
            roots: Roots::System,
            plain_http: PlainHttp::Refuse,
            key_host: KeyHost::Any,
            leeway: Duration::from_secs(30),
            max_token_bytes: 64 * 1024,
            max_lifetime: Duration::from_secs(24 * 60 * 60),
            claims: ClaimMapping::default(),
            cache: CacheLimits::default(),
        }
    }

    /// What is wrong with it, except for its URLs and files, which are checked where they are used.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.cache;
        let problem = match () {
            () if !is_name(&self.issuer, MAX_SUBJECT_BYTES) => "the issuer is empty or not printable",
            () if self.audiences.is_empty() || self.audiences.contains("") => {
                "an audience is missing or empty; list the names tokens are issued for"
            }
            () if self.algorithms.is_empty() => "no algorithm is allowed; list at least one",
            () if self.leeway > MAX_LEEWAY => "the leeway is over 5 minutes",
            () if self.max_lifetime.is_zero() => "the maximum lifetime is zero",
            () if !(1..=MAX_TOKEN_BYTES).contains(&self.max_token_bytes) => {
                "the token limit is zero or over 1 MiB"
            }
            () if limits.refresh_interval < Duration::from_secs(1) => {
                "the refresh interval is under 1 second"
            }
            () if limits.max_age < limits.refresh_interval || limits.max_age > MAX_STALE => {
                "the maximum age of keys is under the refresh interval or over 24 hours"
            }
            () if limits.stale_for > MAX_STALE => "stale keys would be served for over 24 hours",
            () if limits.fetch_timeout.is_zero() || limits.fetch_timeout > MAX_FETCH_TIMEOUT => {
                "the fetch timeout is zero or over 60 seconds"
            }
            () => return Ok(()),
        };
        Err(ConfigError::invalid(&self.issuer, problem))
    }
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// OpenID Connect Discovery: the issuer, an `https` URL, names its `jwks_uri` in
    /// `/.well-known/openid-configuration`.
    Discovery,
    /// A JWK set at this URL.
    JwksUrl(String),
    /// A JWK set in this file, read again at most once a second, so that a new file needs no restart.
    JwksFile(PathBuf),
}

/// Whom to trust for HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// The operating system's certificate authorities.
    System,
    /// Only those in this PEM file.
    PemFile(PathBuf),
}

/// Whether keys may come over plain HTTP: whoever can change them on the way can be anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainHttp {
    /// Never.
    Refuse,
    /// From `localhost`, `127.0.0.0/8` and `[::1]`.
    Loopback,
}

/// Which host discovery may name for the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyHost {
    /// Any: large providers keep keys on another host, and the document naming it came from the issuer over HTTPS.
    Any,
    /// The issuer's own host and port.
    Issuer,
}

/// How long keys are kept and how often they are asked for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CacheLimits {
    /// Least time between two fetches, whatever tokens arrive. Default 10 s. A key published after the last fetch is
    /// accepted after at most this long.
    pub refresh_interval: Duration,
    /// Age at which keys are fetched again. Default 10 minutes: how long a withdrawn key is still accepted.
    pub max_age: Duration,
    /// How much longer keys are used while the issuer cannot be reached. Default 1 hour, at most [`MAX_STALE`].
    pub stale_for: Duration,
    /// How long a fetch, discovery included, may take. Default 5 s.
    pub fetch_timeout: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            refresh_interval: Duration::from_secs(10),
            max_age: Duration::from_secs(10 * 60),
            stale_for: Duration::from_secs(60 * 60),
            fetch_timeout: Duration::from_secs(5),
        }
    }
}

/// Which claims become what. A mapped claim of the wrong shape refuses the token; an absent (or null) one leaves the
/// default. `act` (RFC 8693 section 4.1) is always read, as [`delegation`](Self::delegation) says.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClaimMapping {
    /// What sort of actor the issuer's subjects are. Default: agents.
    pub kind: KindRule,
    /// A string (one group, however it looks) or an array of strings.
    pub groups: Option<ClaimPath>,
    /// Put before each group, so that two issuers' groups of one name stay apart.
    pub group_prefix: String,
    /// `plan`, `execute` or `other`.
    pub phase: Option<ClaimPath>,
    /// The task the principal works on.
    pub task: Option<ClaimPath>,
    /// The plan it carries out.
    pub plan: Option<ClaimPath>,
    /// The trust domain whose JWT-SVIDs this issuer signs: a `sub` beginning with `spiffe://` must then be a workload
    /// of it and becomes the principal's workload. Without it no subject becomes one.
    pub trust_domain: Option<TrustDomain>,
    /// Whose name `sub` is when the token has an `act`.
    pub delegation: Delegation,
    /// Further claims for policies: name there, claim here. Strings, numbers and booleans.
    pub extra: BTreeMap<String, ClaimPath>,
}

/// What `sub` and `act` of one token mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Delegation {
    /// `sub` is who acts, `act` whom it acts for, nearest first: tokens in which a job names its planner.
    #[default]
    SubjectActs,
    /// `sub` is who is acted for and the outermost `act` who acts (RFC 8693 section 4.1): tokens from a token exchange. A token
    /// without `act` is its subject's own.
    SubjectIsActedFor,
}

/// How a token's kind of actor is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KindRule {
    /// All subjects of the issuer are of this kind.
    Fixed(PrincipalKind),
    /// A claim says `agent`, `human` or `service`. Without the claim: `otherwise`, or refused.
    Claim {
        /// Which claim.
        path: ClaimPath,
        /// The kind without the claim.
        otherwise: Option<PrincipalKind>,
    },
}

impl Default for KindRule {
    /// Agents: the kind with the fewest rights, which never reviews.
    fn default() -> Self {
        Self::Fixed(PrincipalKind::Agent)
    }
}

/// Where a claim stands: `groups`, `realm_access.roles`, or, for names with dots, a JSON pointer (RFC 6901) such as
/// `/kubernetes.io/namespace`.
///
/// ```
/// use gateway_core::identity::oidc::ClaimPath;
/// let path: ClaimPath = "realm_access.roles".parse()?;
/// assert!("realm_access..roles".parse::<ClaimPath>().is_err());
/// # Ok::<_, gateway_core::identity::oidc::MalformedPath>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// The claim, unless it is absent or null.
    pub(super) fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        let found = rest.iter().try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name));
        found.filter(|value| !value.is_null())
    }
}

/// The text is no claim path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a claim path; write `name`, `outer.inner` or `/outer/inner` with at most 8 names")]
pub struct MalformedPath(String);

impl FromStr for ClaimPath {
    type Err = MalformedPath;

    fn from_str(text: &str) -> Result<Self, MalformedPath> {
        let names: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => {
                pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
            }
            None => text.split('.').map(str::to_owned).collect(),
        };
        if names.len() > MAX_PATH_NAMES || !names.iter().all(|name| is_name(name, MAX_CLAIM_BYTES)) {
            return Err(MalformedPath(text.to_owned()));
        }
        Ok(Self(names))
    }
}

impl TryFrom<String> for ClaimPath {
    type Error = MalformedPath;

    fn try_from(text: String) -> Result<Self, MalformedPath> {
        text.parse()
    }
}

/// Why issuers cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// None is configured.
    #[error("no issuer is configured; add at least one")]
    NoIssuer,
    /// One is configured twice.
    #[error("issuer `{0}` is configured twice; merge the two entries")]
    Duplicate(String),
    /// One cannot work as configured.
    #[error("issuer `{issuer}`: {problem}")]
    Invalid {
        /// Which issuer.
        issuer: String,
        /// What is wrong.
        problem: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(issuer: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { issuer: issuer.to_owned(), problem: problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Map<String, Value> {
        super::super::json::object(json.as_bytes()).unwrap()
    }

    #[test]
    fn paths_find_claims() {
        let claims = claims(r#"{"a":{"b":{"c":1}},"a.b":2,"x/y":{"~":3},"null":null}"#);
        let find = |path: &str| path.parse::<ClaimPath>().unwrap().find(&claims).and_then(Value::as_i64);
        assert_eq!(find("a.b.c"), Some(1));
        assert_eq!(find("/a.b"), Some(2));
        assert_eq!(find("/x~1y/~0"), Some(3));
        assert_eq!(find("a.b.c.d"), None);
        assert_eq!(find("null"), None);
        assert_eq!(find("missing"), None);
    }

    #[test]
    fn malformed_paths_are_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "/", "/a/", "a.b.c.d.e.f.g.h.i", "a\nb"] {
            assert!(text.parse::<ClaimPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn dangerous_configurations_are_refused() {
        let good = || IssuerConfig::new("https://idp.example", "gateway", KeySource::Discovery);
        assert_eq!(good().check(), Ok(()));
        let changes: [fn(&mut IssuerConfig); 13] = [
            |c| c.issuer.clear(),
            |c| c.audiences.clear(),
            |c| c.audiences = BTreeSet::from([String::new()]),
            |c| c.algorithms.clear(),
            |c| c.leeway = MAX_LEEWAY + Duration::from_secs(1),
            |c| c.max_lifetime = Duration::ZERO,
            |c| c.max_token_bytes = 0,
            |c| c.max_token_bytes = usize::MAX,
            |c| c.cache.refresh_interval = Duration::ZERO,
            |c| c.cache.max_age = Duration::from_secs(1),
            |c| c.cache.stale_for = MAX_STALE * 2,
            |c| c.cache.fetch_timeout = Duration::ZERO,
            |c| c.cache.fetch_timeout = Duration::from_secs(61),
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut config = good();
            change(&mut config);
            assert!(config.check().is_err(), "change {i}");
        }
    }
}
