//! Who logs in over SSH with a certificate or a key.

use std::collections::BTreeSet;

use gateway_core::identity::{Phase, PrincipalKind};
use serde::Deserialize;
use toml::Spanned;

use super::Span;

/// `[ssh_login]`: certificates and keys; tokens are always taken as password.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SshLogin {
    pub(crate) max_session: Option<Span>,
    #[serde(default, rename = "authority")]
    pub(crate) authorities: Vec<Spanned<SshAuthority>>,
    #[serde(default, rename = "key")]
    pub(crate) keys: Vec<Spanned<SshKey>>,
}

/// `[[ssh_login.authority]]`: whose user certificates are believed, and what their holders are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SshAuthority {
    pub(crate) public_key: Spanned<String>,
    pub(crate) issuer: String,
    pub(crate) kind: PrincipalKind,
    #[serde(default)]
    pub(crate) groups: BTreeSet<String>,
    #[serde(default)]
    pub(crate) phase: Phase,
    pub(crate) task: Option<String>,
    #[serde(default)]
    pub(crate) revoked: BTreeSet<u64>,
}

/// `[[ssh_login.key]]`: whose key it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SshKey {
    pub(crate) public_key: Spanned<String>,
    pub(crate) issuer: String,
    pub(crate) user: String,
    pub(crate) kind: PrincipalKind,
    #[serde(default)]
    pub(crate) groups: BTreeSet<String>,
    #[serde(default)]
    pub(crate) phase: Phase,
    pub(crate) task: Option<String>,
}
