//! SSH public keys and OpenSSH user certificates.
//!
//! **Who verifies what.** The SSH transport verifies that the client holds the key (RFC 4252 section 7) and, for a
//! certificate, that its signature is one of the key named in it. Whether that key is a trusted authority, and whom, where
//! from and when the certificate is for, is judged here. What a certificate permits inside the session (terminals, forwards,
//! a forced command) is the adapter's to honour.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::telemetry::{Refusal, report};
use super::text::{MAX_SUBJECT_BYTES, is_name};
use super::{Authenticator, IdentityError, Phase, Presented, Principal, PrincipalKind};
use crate::clock::Timestamp;

/// Longest a session lives on one key or certificate unless configured otherwise.
const DEFAULT_MAX_SESSION: Duration = Duration::from_secs(60 * 60);
/// Most principals a certificate may name; ssh-keygen's own limit.
const MAX_PRINCIPALS: usize = 256;
/// Most address ranges in `source-address`.
const MAX_RANGES: usize = 256;
/// Signatures of an authority that are believed. SHA-1 (`ssh-rsa`) and DSA are not.
const SIGNATURES: [&str; 8] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-256",
    "rsa-sha2-512",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// A public key in its wire form (RFC 4253 section 6.6), by which keys are compared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SshPublicKey(Bytes);

impl SshPublicKey {
    /// From the wire form.
    pub fn from_wire(blob: impl Into<Bytes>) -> Self {
        Self(blob.into())
    }

    /// The name of its algorithm, for example `ssh-ed25519`; `None` if it is no key.
    pub fn algorithm(&self) -> Option<&[u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        rest.get(..u32::from_be_bytes(*length) as usize)
    }

    /// From a line as in `id_ed25519.pub`: algorithm, base64, comment.
    ///
    /// # Errors
    /// The line has another form, or names another algorithm than the key in it.
    pub fn from_line(line: &str) -> Result<Self, BadSshKey> {
        let mut words = line.split_ascii_whitespace();
        let (Some(algorithm), Some(key)) = (words.next(), words.next()) else { return Err(BadSshKey) };
        let blob = STANDARD.decode(key).map_err(|_| BadSshKey)?;
        let length = u32::try_from(algorithm.len()).map_err(|_| BadSshKey)?.to_be_bytes();
        let named = blob.strip_prefix(&length).and_then(|rest| rest.strip_prefix(algorithm.as_bytes()));
        match named {
            Some(rest) if !rest.is_empty() => Ok(Self(blob.into())),
            _ => Err(BadSshKey),
        }
    }
}

impl fmt::Debug for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

/// The text is not a public key line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a public key; expected a line such as `ssh-ed25519 AAAA... comment`")]
pub struct BadSshKey;

/// A key whose possession the SSH transport has proven.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SshKeyProof {
    /// The user name the client logs in as, without the target in it.
    pub user: String,
    /// Where the client connects from.
    pub peer: Option<IpAddr>,
    /// The key.
    pub key: SshPublicKey,
}

impl SshKeyProof {
    /// What the transport has proven.
    pub const fn new(user: String, peer: Option<IpAddr>, key: SshPublicKey) -> Self {
        Self { user, peer, key }
    }
}

/// A certificate whose signature and possession the SSH transport has proven, field by field (OpenSSH PROTOCOL.certkeys).
/// Nothing in it is judged yet.
#[derive(Clone, Debug)]
pub struct SshCertificateProof {
    /// The user name the client logs in as, without the target in it.
    pub user: String,
    /// Where the client connects from.
    pub peer: Option<IpAddr>,
    /// The key of the authority that signed it.
    pub authority: SshPublicKey,
    /// With which algorithm.
    pub signature_algorithm: String,
    /// Whether its type is user, not host.
    pub for_user: bool,
    /// The authority's name for it.
    pub key_id: String,
    /// The authority's number for it.
    pub serial: u64,
    /// Who it is for. None would mean everybody and is refused.
    pub principals: Vec<String>,
    /// Valid from this time on, in seconds since 1970.
    pub valid_after: u64,
    /// Valid before this time, in seconds since 1970; the largest number means forever.
    pub valid_before: u64,
    /// Options that must be understood.
    pub critical_options: BTreeMap<String, String>,
}

/// An authority for user certificates, and what their holders are. Fill the fields after [`SshAuthority::new`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SshAuthority {
    /// Its public key.
    pub key: SshPublicKey,
    /// What it is called in policies: the principals' issuer.
    pub issuer: String,
    /// The kind of the principals.
    pub kind: PrincipalKind,
    /// Their groups; none by default.
    pub groups: BTreeSet<String>,
    /// Planner, executor or (default) neither.
    pub phase: Phase,
    /// The task they work on; none by default.
    pub task: Option<String>,
    /// Serial numbers that are revoked; none by default.
    pub revoked: BTreeSet<u64>,
}

impl SshAuthority {
    /// An authority whose certificates give `kind` and nothing else.
    pub fn new(key: SshPublicKey, issuer: impl Into<String>, kind: PrincipalKind) -> Self {
        let (groups, revoked) = (BTreeSet::new(), BTreeSet::new());
        Self { key, issuer: issuer.into(), kind, groups, phase: Phase::Other, task: None, revoked }
    }
}

/// Turns proven SSH keys and certificates into principals; what is not listed is refused.
///
/// ```
/// use gateway_core::identity::*;
/// let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJcmwQxj5Vm0E4d8Y9iTnSMcUzyhbD5xEhFvM9nJ7y0f ca";
/// let mut authority = SshAuthority::new(SshPublicKey::from_line(line)?, "ssh-ca", PrincipalKind::Agent);
/// authority.groups.insert("agents".to_owned());
/// let authenticator = SshAuthenticator::new().authority(authority);
/// # Ok::<_, BadSshKey>(())
/// ```
#[derive(Clone, Debug)]
pub struct SshAuthenticator {
    authorities: Vec<SshAuthority>,
    keys: BTreeMap<SshPublicKey, Principal>,
    max_session: Duration,
}

impl Default for SshAuthenticator {
    fn default() -> Self {
        Self { authorities: Vec::new(), keys: BTreeMap::new(), max_session: DEFAULT_MAX_SESSION }
    }
}

impl SshAuthenticator {
    /// Refuses everything until keys or authorities are added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Believes this authority's user certificates.
    #[must_use]
    pub fn authority(mut self, authority: SshAuthority) -> Self {
        self.authorities.push(authority);
        self
    }

    /// Whoever holds this key is this principal, until its own end or the longest session's. The user name must be its subject.
    #[must_use]
    pub fn key(mut self, key: SshPublicKey, principal: Principal) -> Self {
        self.keys.insert(key, principal);
        self
    }

    /// How long a session may live on one login. Default one hour.
    #[must_use]
    pub const fn max_session(mut self, max_session: Duration) -> Self {
        self.max_session = max_session;
        self
    }

    fn by_key(&self, proof: &SshKeyProof, now: Timestamp) -> Result<Principal, Refusal> {
        let known = self.keys.get(&proof.key);
        let mut principal =
            known.cloned().ok_or_else(|| Refusal::invalid("unknown_key", "the key is not listed"))?;
        if principal.actor.subject != proof.user {
            return Err(Refusal::invalid("name", "the key belongs to another user name"));
        }
        principal.expires_at = principal.expires_at.min(now.plus(self.max_session));
        Ok(principal)
    }

    fn by_certificate(
        &self,
        proof: &SshCertificateProof,
        authority: &SshAuthority,
        now: Timestamp,
    ) -> Result<Principal, Refusal> {
        check_kind(proof, authority)?;
        check_name(proof)?;
        let valid_until = valid_until(proof, now)?;
        check_options(proof)?;
        let expires = valid_until.min(now.plus(self.max_session));
        let mut principal = Principal::new(authority.kind, &authority.issuer, &proof.user, expires);
        principal.groups.clone_from(&authority.groups);
        principal.phase = authority.phase;
        principal.task.clone_from(&authority.task);
        principal.claims.insert("ssh_key_id".to_owned(), proof.key_id.clone());
        principal.claims.insert("ssh_serial".to_owned(), proof.serial.to_string());
        Ok(principal)
    }
}

#[async_trait]
impl Authenticator for SshAuthenticator {
    async fn authenticate(&self, presented: &Presented, now: Timestamp) -> Result<Principal, IdentityError> {
        match presented {
            Presented::SshKey(proof) => report("ssh_key", "", self.by_key(proof, now)),
            Presented::SshCertificate(proof) => {
                let authority = self.authorities.iter().find(|a| a.key == proof.authority);
                let issuer = authority.map_or("", |a| a.issuer.as_str());
                let unknown =
                    || Refusal::invalid("unknown_authority", "the certificate's authority is not trusted");
                let judged = authority.ok_or_else(unknown).and_then(|a| self.by_certificate(proof, a, now));
                report("ssh_certificate", issuer, judged)
            }
            _ => Err(IdentityError::Unsupported("anything but SSH keys")),
        }
    }
}

fn check_kind(proof: &SshCertificateProof, authority: &SshAuthority) -> Result<(), Refusal> {
    if !proof.for_user {
        return Err(Refusal::invalid("usage", "a host certificate is no user's identity"));
    }
    if !SIGNATURES.contains(&proof.signature_algorithm.as_str()) {
        return Err(Refusal::invalid(
            "signature",
            "the authority signed with an algorithm that is not believed",
        ));
    }
    if authority.revoked.contains(&proof.serial) {
        return Err(Refusal::invalid("revoked", "the certificate is revoked"));
    }
    Ok(())
}

fn check_name(proof: &SshCertificateProof) -> Result<(), Refusal> {
    if proof.principals.is_empty() || proof.principals.len() > MAX_PRINCIPALS {
        return Err(Refusal::invalid("name", "the certificate must name its principals, at most 256"));
    }
    if !is_name(&proof.user, MAX_SUBJECT_BYTES) || !is_name(&proof.key_id, MAX_SUBJECT_BYTES) {
        return Err(Refusal::invalid("name", "a name is empty, too long or not printable"));
    }
    if proof.principals.contains(&proof.user) {
        return Ok(());
    }
    Err(Refusal::invalid("name", "the certificate is for other principals than the user name"))
}

/// PROTOCOL.certkeys: valid if `valid after <= now < valid before`.
fn valid_until(proof: &SshCertificateProof, now: Timestamp) -> Result<Timestamp, Refusal> {
    let at = |seconds: u64| i64::try_from(seconds).map_or(Timestamp::MAX, Timestamp::from_seconds);
    if now < at(proof.valid_after) {
        return Err(Refusal::invalid("not_yet_valid", "the certificate is not valid yet"));
    }
    let end = at(proof.valid_before);
    if now >= end {
        return Err(Refusal { reason: "expired", error: IdentityError::Expired(end) });
    }
    Ok(end)
}

/// PROTOCOL.certkeys: a certificate with a critical option that is not understood is refused.
fn check_options(proof: &SshCertificateProof) -> Result<(), Refusal> {
    for (name, value) in &proof.critical_options {
        match name.as_str() {
            "force-command" => {}
            "source-address" if from_there(value, proof.peer) => {}
            "source-address" => {
                return Err(Refusal::invalid("source", "the certificate is not for this source address"));
            }
            _ => return Err(Refusal::invalid("critical_option", "a critical option is not understood")),
        }
    }
    Ok(())
}

/// Whether the list of addresses and ranges is well formed as a whole and one of them holds the peer.
fn from_there(list: &str, peer: Option<IpAddr>) -> bool {
    let Some(peer) = peer.map(|ip| ip.to_canonical()) else { return false };
    let mut found = false;
    for (i, range) in list.split(',').enumerate() {
        match (i < MAX_RANGES).then(|| contains(range, peer)).flatten() {
            Some(holds) => found |= holds,
            None => return false,
        }
    }
    found
}

/// Whether `range` (`192.0.2.0/24`, `2001:db8::1`) holds the address; `None` if it is not a range.
fn contains(range: &str, peer: IpAddr) -> Option<bool> {
    let (address, length) = match range.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (range, None),
    };
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let (network, width) = bits(address.parse().ok()?);
    let (host, host_width) = bits(peer);
    let length = length.unwrap_or(width);
    let shift = width.checked_sub(length)?;
    let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
    // As ssh-keygen demands: no bits set beyond the length.
    if cut(network).checked_shl(shift).unwrap_or(0) != network {
        return None;
    }
    Some(width == host_width && cut(network) == cut(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600;

    fn authority() -> SshPublicKey {
        SshPublicKey::from_wire(&b"authority"[..])
    }

    fn proof() -> SshCertificateProof {
        SshCertificateProof {
            user: "agent-7".to_owned(),
            peer: Some("192.0.2.7".parse().unwrap()),
            authority: authority(),
            signature_algorithm: "ssh-ed25519".to_owned(),
            for_user: true,
            key_id: "agent-7@ci".to_owned(),
            serial: 5,
            principals: vec!["agent-6".to_owned(), "agent-7".to_owned()],
            valid_after: NOW as u64 - 10,
            valid_before: NOW as u64 + 10,
            critical_options: BTreeMap::new(),
        }
    }

    async fn ask(change: impl FnOnce(&mut SshCertificateProof)) -> Result<Principal, String> {
        let mut proof = proof();
        change(&mut proof);
        let mut trusted = SshAuthority::new(authority(), "ssh-ca", PrincipalKind::Agent);
        trusted.revoked.insert(9);
        let presented = Presented::SshCertificate(Box::new(proof));
        let list = SshAuthenticator::new().authority(trusted);
        list.authenticate(&presented, Timestamp::from_seconds(NOW)).await.map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_good_certificate_is_its_principal_until_it_ends() {
        let principal = ask(|_| {}).await.unwrap();
        assert_eq!(principal.actor.to_string(), "ssh-ca|agent-7");
        assert_eq!(principal.expires_at, Timestamp::from_seconds(NOW + 10));
        assert_eq!(principal.claims.get("ssh_key_id").map(String::as_str), Some("agent-7@ci"));
        let forever = ask(|p| p.valid_before = u64::MAX).await.unwrap();
        assert_eq!(forever.expires_at, Timestamp::from_seconds(NOW + 3600));
    }

    #[tokio::test]
    async fn everything_else_is_refused() {
        type Change = fn(&mut SshCertificateProof);
        let refused: [(&str, Change); 11] = [
            ("not trusted", |p| p.authority = SshPublicKey::from_wire(&b"another"[..])),
            ("host certificate", |p| p.for_user = false),
            ("not believed", |p| p.signature_algorithm = "ssh-rsa".to_owned()),
            ("revoked", |p| p.serial = 9),
            ("must name", |p| p.principals.clear()),
            ("other principals", |p| p.user = "agent-8".to_owned()),
            ("not printable", |p| p.key_id = "a\nb".to_owned()),
            ("not valid yet", |p| p.valid_after = NOW as u64 + 1),
            ("expired", |p| p.valid_before = NOW as u64),
            ("not understood", |p| drop(p.critical_options.insert("verify-required".into(), String::new()))),
            ("source address", |p| {
                drop(p.critical_options.insert("source-address".into(), "192.0.2.8".into()));
            }),
        ];
        for (word, change) in refused {
            let error = ask(change).await.unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[tokio::test]
    async fn keys_are_bound_to_their_user_name() {
        let key = SshPublicKey::from_wire(&b"key"[..]);
        let agent = Principal::new(PrincipalKind::Agent, "keys", "agent-7", Timestamp::MAX);
        let list = SshAuthenticator::new().key(key.clone(), agent);
        let ask = |user: &str, key: &SshPublicKey| {
            let proof = SshKeyProof::new(user.to_owned(), None, key.clone());
            let list = list.clone();
            async move { list.authenticate(&Presented::SshKey(proof), Timestamp::from_seconds(0)).await }
        };
        assert_eq!(ask("agent-7", &key).await.unwrap().expires_at, Timestamp::from_seconds(3600));
        assert!(ask("root", &key).await.is_err());
        assert!(ask("agent-7", &authority()).await.is_err());
    }

    #[test]
    fn source_addresses_follow_openssh() {
        let peer = |ip: &str| Some(ip.parse().unwrap());
        assert!(from_there("192.0.2.0/24,::1", peer("192.0.2.77")));
        assert!(from_there("192.0.2.0/24", peer("::ffff:192.0.2.77")));
        assert!(from_there("0.0.0.0/0", peer("10.1.2.3")));
        assert!(from_there("2001:db8::/32", peer("2001:db8::5")));
        for (list, ip) in [
            ("192.0.2.0/24", "192.0.3.1"),
            ("0.0.0.0/0", "2001:db8::5"),
            ("192.0.2.1/24", "192.0.2.1"),
            ("192.0.2.7,nonsense", "192.0.2.7"),
            ("192.0.2.7/33", "192.0.2.7"),
            ("", "192.0.2.7"),
        ] {
            assert!(!from_there(list, peer(ip)), "{list} {ip}");
        }
        assert!(!from_there("0.0.0.0/0", None));
    }

    #[test]
    fn lines_must_name_the_key_in_them() {
        let key = "AAAAC3NzaC1lZDI1NTE5AAAAIJcmwQxj5Vm0E4d8Y9iTnSMcUzyhbD5xEhFvM9nJ7y0f";
        assert!(SshPublicKey::from_line(&format!("ssh-ed25519 {key} me@here")).is_ok());
        for bad in [String::new(), format!("ssh-rsa {key}"), "ssh-ed25519 !!".to_owned(), key.to_owned()] {
            assert_eq!(SshPublicKey::from_line(&bad), Err(BadSshKey), "{bad}");
        }
    }
}
