//! What is known of one session: one authenticated connection to one target, first to last byte.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Denial, DenialCode};
use crate::identity::VerifiedPrincipal;

/// Names a session. 128 random bits, printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// From raw bytes, as stored in recordings.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A fresh random id.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub fn random() -> Result<Self, crate::random::NoRandomness> {
        crate::random::bytes().map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 32 lower-case hexadecimal digits")]
pub struct BadSessionId;

impl FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, BadSessionId> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(BadSessionId);
        }
        u128::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| BadSessionId)
    }
}

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The fixed facts of a session, known once its principal is verified.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The session.
    pub id: SessionId,
    /// Who is acting.
    pub principal: VerifiedPrincipal,
    /// The wire protocol, for example `postgres`.
    pub protocol: &'static str,
    /// The named target, as configured.
    pub target: String,
    /// What inside the target the session is tied to (a database name), if the protocol has such a thing.
    pub scope: Option<String>,
    /// The downstream's address, as text; `in-process` for embedded guards.
    pub peer: String,
    /// When it began.
    pub started: Timestamp,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason", content = "detail")]
#[non_exhaustive]
pub enum CloseReason {
    /// The downstream said goodbye or went away.
    Downstream,
    /// The upstream closed or failed.
    Upstream,
    /// The identity's time was over.
    IdentityExpired,
    /// An administrator or a policy ended it.
    Terminated,
    /// One side broke the protocol.
    ProtocolViolation(String),
    /// A named limit was exceeded.
    LimitExceeded(String),
    /// The recorder failed.
    RecorderFailed,
    /// The gateway is stopping.
    Shutdown,
}

impl From<Denial> for CloseReason {
    /// Why a session ends if it cannot go on after this denial.
    fn from(denial: Denial) -> Self {
        match denial.code {
            DenialCode::RecorderFailed => Self::RecorderFailed,
            DenialCode::IdentityExpired => Self::IdentityExpired,
            DenialCode::UpstreamUnavailable => Self::Upstream,
            DenialCode::LimitExceeded => Self::LimitExceeded(denial.to_string()),
            _ => Self::Terminated,
        }
    }
}
