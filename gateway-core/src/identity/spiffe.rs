//! SPIFFE IDs: names of workloads (SPIFFE-ID specification).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest SPIFFE ID, in bytes (SPIFFE-ID section 2.3: implementations must not generate longer ones).
const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID section 2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
const SCHEME: &str = "spiffe://";

/// Why a text is not a SPIFFE ID or trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeError {
    /// It does not begin with `spiffe://`.
    #[error("the name does not begin with `spiffe://`")]
    Scheme,
    /// Empty, too long or with a character outside `a-z 0-9 . - _`.
    #[error("the trust domain is empty, too long or has a character outside `a-z`, `0-9`, `.`, `-`, `_`")]
    TrustDomain,
    /// An empty, `.` or `..` segment, a trailing `/`, or a character outside `a-z A-Z 0-9 . - _`.
    #[error("the path has an empty or relative segment, or a character outside `a-zA-Z0-9.-_`")]
    Path,
    /// Longer than 2048 bytes.
    #[error("the name is longer than 2048 bytes")]
    TooLong,
}

/// The name of a trust domain, without scheme: `prod.example.org`. Always lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The name as text, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own ID: `spiffe://prod.example.org`. Stands as issuer of its workloads.
    pub fn id(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(name: &str) -> Result<Self, SpiffeError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN_BYTES || !name.bytes().all(allowed) {
            return Err(SpiffeError::TrustDomain);
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = SpiffeError;

    fn try_from(name: String) -> Result<Self, SpiffeError> {
        name.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload's name: `spiffe://trust-domain/path`.
///
/// ```
/// use gateway_core::identity::SpiffeId;
/// let id: SpiffeId = "spiffe://example.org/ns/agents/sa/planner".parse()?;
/// assert_eq!(id.trust_domain().as_str(), "example.org");
/// assert_eq!(id.path(), "/ns/agents/sa/planner");
/// # Ok::<_, gateway_core::identity::SpiffeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    path: String,
}

impl SpiffeId {
    /// Where the workload lives.
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading `/`; empty for the ID of the trust domain itself.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(id: &str) -> Result<Self, SpiffeError> {
        if id.len() > MAX_ID_BYTES {
            return Err(SpiffeError::TooLong);
        }
        let rest = id.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let trust_domain = domain.parse()?;
        match path.strip_prefix('/') {
            Some(segments) if !segments.split('/').all(is_segment) => Err(SpiffeError::Path),
            _ => Ok(Self { trust_domain, path: path.to_owned() }),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

/// SPIFFE-ID section 2.2: no empty or relative segments, no percent-encoding.
fn is_segment(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_specification_accepts() {
        for id in ["spiffe://example.org", "spiffe://example.org/a", "spiffe://10.0.0.1/a/B-._9"] {
            assert_eq!(id.parse::<SpiffeId>().unwrap().to_string(), id);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let table = [
            ("", SpiffeError::Scheme),
            ("https://example.org/a", SpiffeError::Scheme),
            ("SPIFFE://example.org/a", SpiffeError::Scheme),
            ("spiffe:///a", SpiffeError::TrustDomain),
            ("spiffe://Example.org/a", SpiffeError::TrustDomain),
            ("spiffe://user@example.org/a", SpiffeError::TrustDomain),
            ("spiffe://example.org:8443/a", SpiffeError::TrustDomain),
            ("spiffe://ex\u{430}mple.org/a", SpiffeError::TrustDomain),
            ("spiffe://example.org?q", SpiffeError::TrustDomain),
            ("spiffe://example.org/", SpiffeError::Path),
            ("spiffe://example.org/a/", SpiffeError::Path),
            ("spiffe://example.org//a", SpiffeError::Path),
            ("spiffe://example.org/a/../b", SpiffeError::Path),
            ("spiffe://example.org/./a", SpiffeError::Path),
            ("spiffe://example.org/a%2Fb", SpiffeError::Path),
            ("spiffe://example.org/a?x=1", SpiffeError::Path),
            ("spiffe://example.org/a#x", SpiffeError::Path),
        ];
        for (id, error) in table {
            assert_eq!(id.parse::<SpiffeId>(), Err(error), "{id}");
        }
        assert_eq!(format!("spiffe://a/{}", "a".repeat(2048)).parse::<SpiffeId>(), Err(SpiffeError::TooLong));
        assert_eq!("a".repeat(256).parse::<TrustDomain>(), Err(SpiffeError::TrustDomain));
    }
}
