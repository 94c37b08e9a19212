//! Client certificates: SPIFFE X.509-SVIDs and certificates named by common name.
//!
//! **Who verifies what.** The TLS listener verifies the chain against the CA it was configured with, and that the client
//! holds the key; it must require client certificates and must trust nothing but that CA. This module never sees the
//! roots: it reads the leaf of a chain TLS has verified, and must not be given one from anywhere else (a forwarded
//! header, say). For SPIFFE that CA must be the trust bundle of the configured trust domain alone; the trust domain in
//! the name is compared again here. Names, usage and time of the leaf are checked here, whatever TLS did.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::spiffe::{SpiffeId, TrustDomain};
use super::telemetry::{Refusal, report};
use super::text::{MAX_SUBJECT_BYTES, is_name};
use super::{Authenticator, IdentityError, Phase, Presented, Principal, PrincipalKind};
use crate::clock::Timestamp;

/// Largest leaf certificate, in bytes. Real ones have 1 to 4 KiB.
const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
/// Longest a session lives on one certificate unless configured otherwise: SVIDs are commonly rotated each hour.
const DEFAULT_MAX_SESSION: Duration = Duration::from_secs(60 * 60);

/// Where in the certificate the name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateName {
    /// The URI SAN of an X.509-SVID. The principal's issuer is the trust domain's ID, its subject and workload the
    /// SPIFFE ID.
    Spiffe(TrustDomain),
    /// The subject's only common name. The principal's issuer is this configured name of the CA.
    CommonName {
        /// What the CA is called in policies.
        issuer: String,
    },
}

/// Which certificates a [`CertificateRule`] is for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateMatch {
    /// Every name.
    Any,
    /// Exactly this SPIFFE path (with its leading `/`) or common name.
    Exactly(String),
    /// This SPIFFE path and everything below it: `/ns/agents` covers `/ns/agents/sa/x`, not `/ns/agents2`.
    /// Matches no common name.
    PathUnder(String),
}

/// What a matching certificate's principal is. Fill the fields after [`CertificateRule::new`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertificateRule {
    /// Which certificates.
    pub matches: CertificateMatch,
    /// Their kind.
    pub kind: PrincipalKind,
    /// Their groups; none by default.
    pub groups: BTreeSet<String>,
    /// Planner, executor or (default) neither.
    pub phase: Phase,
    /// The task they work on; none by default.
    pub task: Option<String>,
}

impl CertificateRule {
    /// A rule giving `kind` and nothing else.
    pub const fn new(matches: CertificateMatch, kind: PrincipalKind) -> Self {
        Self { matches, kind, groups: BTreeSet::new(), phase: Phase::Other, task: None }
    }
}

/// Turns verified client certificates into principals. Certificates no rule matches are refused.
///
/// ```
/// use gateway_core::identity::*;
/// let mut agents = CertificateRule::new(CertificateMatch::PathUnder("/ns/agents".into()), PrincipalKind::Agent);
/// agents.groups.insert("agents".into());
/// let authenticator =
///     ClientCertAuthenticator::new(CertificateName::Spiffe("prod.example.org".parse()?)).rule(agents);
/// # Ok::<_, SpiffeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientCertAuthenticator {
    name: CertificateName,
    rules: Vec<CertificateRule>,
    max_session: Duration,
}

impl ClientCertAuthenticator {
    /// Refuses everything until rules are added.
    pub const fn new(name: CertificateName) -> Self {
        Self { name, rules: Vec::new(), max_session: DEFAULT_MAX_SESSION }
    }

    /// Adds a rule; the first added that matches decides.
    #[must_use]
    pub fn rule(mut self, rule: CertificateRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// How long a session may live on one certificate, at most until its `notAfter`. Default one hour.
    #[must_use]
    pub const fn max_session(mut self, max_session: Duration) -> Self {
        self.max_session = max_session;
        self
    }

    fn issuer(&self) -> String {
        match &self.name {
            CertificateName::Spiffe(domain) => domain.id(),
            CertificateName::CommonName { issuer } => issuer.clone(),
        }
    }

    fn principal(&self, chain: &[Bytes], now: Timestamp) -> Result<Principal, Refusal> {
        let leaf = parse(chain)?;
        let not_after = valid_until(&leaf, now)?;
        check_usage(&leaf)?;
        let name = match &self.name {
            CertificateName::Spiffe(domain) => Name::Workload(spiffe_id(&leaf, domain)?),
            CertificateName::CommonName { .. } => Name::Common(common_name(&leaf)?),
        };
        let rule = self.rules.iter().find(|rule| rule.matches.covers(&name));
        let rule =
            rule.ok_or_else(|| Refusal::invalid("no_rule", "no rule covers the certificate's name"))?;
        let expires_at = not_after.min(now.plus(self.max_session));
        Ok(rule.principal(self.issuer(), &name, expires_at))
    }
}

#[async_trait]
impl Authenticator for ClientCertAuthenticator {
    async fn authenticate(&self, presented: &Presented, now: Timestamp) -> Result<Principal, IdentityError> {
        let Presented::Certificate(chain) = presented else {
            return Err(IdentityError::Unsupported("tokens"));
        };
        report("certificate", &self.issuer(), self.principal(chain, now))
    }
}

/// The name a certificate carries.
enum Name {
    Workload(SpiffeId),
    Common(String),
}

impl CertificateMatch {
    fn covers(&self, name: &Name) -> bool {
        match (self, name) {
            (Self::Any, _) => true,
            (Self::Exactly(wanted), Name::Workload(id)) => wanted == id.path(),
            (Self::Exactly(wanted), Name::Common(name)) => wanted == name,
            (Self::PathUnder(root), Name::Workload(id)) => is_under(id.path(), root),
            (Self::PathUnder(_), Name::Common(_)) => false,
        }
    }
}

/// Compares by whole segments, so that `/ns/a` does not cover `/ns/ab`.
fn is_under(path: &str, root: &str) -> bool {
    let below = path.strip_prefix(root.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl CertificateRule {
    fn principal(&self, issuer: String, name: &Name, expires_at: Timestamp) -> Principal {
        let (subject, workload) = match name {
            Name::Workload(id) => (id.to_string(), Some(id.to_string())),
            Name::Common(name) => (name.clone(), None),
        };
        let mut principal = Principal::new(self.kind, issuer, subject, expires_at);
        principal.groups.clone_from(&self.groups);
        principal.phase = self.phase;
        principal.task.clone_from(&self.task);
        principal.workload = workload;
        principal
    }
}

fn parse(chain: &[Bytes]) -> Result<X509Certificate<'_>, Refusal> {
    let leaf = chain.first().filter(|leaf| leaf.len() <= MAX_CERTIFICATE_BYTES);
    match leaf.map(|leaf| X509Certificate::from_der(leaf)) {
        Some(Ok(([], leaf))) => Ok(leaf),
        _ => Err(malformed("the leaf is missing, too large or not one DER certificate")),
    }
}

fn valid_until(leaf: &X509Certificate<'_>, now: Timestamp) -> Result<Timestamp, Refusal> {
    let validity = leaf.validity();
    // RFC 5280 section 4.1.2.5: valid from notBefore through notAfter, inclusive, in whole seconds.
    if now < Timestamp::from_seconds(validity.not_before.timestamp()) {
        return Err(Refusal::invalid("not_yet_valid", "the certificate is not valid yet"));
    }
    let not_after = Timestamp::from_seconds(validity.not_after.timestamp());
    if now > not_after {
        return Err(Refusal { reason: "expired", error: IdentityError::Expired(not_after) });
    }
    Ok(not_after)
}

/// A leaf that may sign for a client: no CA, key usage (if stated) with signatures but not for signing certificates or
/// revocation lists, extended key usage (if stated) for clients. X509-SVID section 4 and RFC 5280 section 4.2.1.
fn check_usage(leaf: &X509Certificate<'_>) -> Result<(), Refusal> {
    let unreadable = |_| malformed("an extension cannot be read or stands twice");
    if leaf.basic_constraints().map_err(unreadable)?.is_some_and(|ext| ext.value.ca) {
        return Err(Refusal::invalid("usage", "a CA certificate is no identity"));
    }
    if let Some(usage) = leaf.key_usage().map_err(unreadable)? {
        let usage = usage.value;
        if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
            return Err(Refusal::invalid("usage", "the key usage must be digitalSignature and no CA's"));
        }
    }
    match leaf.extended_key_usage().map_err(unreadable)? {
        Some(usage) if !(usage.value.client_auth || usage.value.any) => {
            Err(Refusal::invalid("usage", "the extended key usage does not allow TLS clients"))
        }
        _ => Ok(()),
    }
}

/// The only URI SAN, which must be a workload in `domain` (X509-SVID sections 2 and 4.3).
fn spiffe_id(leaf: &X509Certificate<'_>, domain: &TrustDomain) -> Result<SpiffeId, Refusal> {
    if leaf.key_usage().ok().flatten().is_none() {
        return Err(Refusal::invalid("usage", "an X.509-SVID must state its key usage"));
    }
    let names = leaf.subject_alternative_name().map_err(|_| malformed("the SAN cannot be read"))?;
    let names = names.map_or(&[][..], |ext| &ext.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(Refusal::invalid("name", "the certificate must have exactly one URI SAN"));
    };
    let id: SpiffeId = uri.parse().map_err(|e| Refusal::invalid("name", format!("URI SAN: {e}")))?;
    if id.trust_domain() != domain {
        return Err(Refusal::invalid("trust_domain", "the SPIFFE ID is of another trust domain"));
    }
    if id.path().is_empty() {
        return Err(Refusal::invalid("name", "the SPIFFE ID names a trust domain, not a workload"));
    }
    Ok(id)
}

fn common_name(leaf: &X509Certificate<'_>) -> Result<String, Refusal> {
    let mut names = leaf.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(Refusal::invalid("name", "the subject must have exactly one common name"));
    };
    match name.as_str() {
        Ok(name) if is_name(name, MAX_SUBJECT_BYTES) => Ok(name.to_owned()),
        _ => Err(Refusal::invalid("name", "the common name is empty, too long or not printable")),
    }
}

fn malformed(text: &str) -> Refusal {
    Refusal::invalid("malformed", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};

    const DAY: i64 = 24 * 60 * 60;
    /// 2026-01-01T00:00:00Z, when the test certificates begin; they end ten days later.
    const BEGIN: i64 = 1_767_225_600;

    fn params(uris: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 11);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
    }

    fn certificate(params: &CertificateParams) -> Vec<Bytes> {
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        vec![Bytes::copy_from_slice(der.der())]
    }

    fn spiffe() -> ClientCertAuthenticator {
        let mut agents =
            CertificateRule::new(CertificateMatch::PathUnder("/ns/agents".into()), PrincipalKind::Agent);
        agents.groups.insert("agents".into());
        agents.phase = Phase::Execute;
        agents.task = Some("t-1".into());
        let robot = CertificateRule::new(CertificateMatch::Exactly("/robot".into()), PrincipalKind::Service);
        ClientCertAuthenticator::new(CertificateName::Spiffe("example.org".parse().unwrap()))
            .rule(agents)
            .rule(robot)
    }

    fn by_common_name() -> ClientCertAuthenticator {
        ClientCertAuthenticator::new(CertificateName::CommonName { issuer: "corp-ca".into() })
            .rule(CertificateRule::new(CertificateMatch::Any, PrincipalKind::Service))
    }

    fn ask(
        with: &ClientCertAuthenticator,
        params: &CertificateParams,
        at: i64,
    ) -> Result<Principal, &'static str> {
        with.principal(&certificate(params), Timestamp::from_seconds(at)).map_err(|r| r.reason)
    }

    #[test]
    fn a_workload_gets_its_rule() {
        let id = "spiffe://example.org/ns/agents/sa/planner";
        let principal = ask(&spiffe(), &params(&[id]), BEGIN + DAY).unwrap();
        assert_eq!(principal.actor.issuer, "spiffe://example.org");
        assert_eq!(principal.actor.subject, id);
        assert_eq!(principal.workload.as_deref(), Some(id));
        assert_eq!((principal.kind, principal.phase), (PrincipalKind::Agent, Phase::Execute));
        assert_eq!(principal.task.as_deref(), Some("t-1"));
        assert!(principal.groups.contains("agents"));
        assert_eq!(principal.expires_at, Timestamp::from_seconds(BEGIN + DAY + 3600));
    }

    #[test]
    fn a_session_ends_with_the_certificate() {
        let authenticator = spiffe().max_session(Duration::from_secs(3600 * 24 * 365));
        let principal = ask(&authenticator, &params(&["spiffe://example.org/robot"]), BEGIN).unwrap();
        assert_eq!(principal.expires_at, Timestamp::from_seconds(BEGIN + 10 * DAY));
    }

    #[test]
    fn names_outside_the_rules_are_refused() {
        let table: &[(&[&str], &str)] = &[
            (&[], "name"),
            (&["spiffe://example.org/robot", "spiffe://example.org/robot"], "name"),
            (&["spiffe://example.org/robot", "https://example.org"], "name"),
            (&["https://example.org/robot"], "name"),
            (&["spiffe://example.org"], "name"),
            (&["spiffe://example.org/robot/"], "name"),
            (&["spiffe://evil.org/robot"], "trust_domain"),
            (&["spiffe://example.org.evil.org/robot"], "trust_domain"),
            (&["spiffe://example.org/robot2"], "no_rule"),
            (&["spiffe://example.org/ns/agents2/sa/x"], "no_rule"),
            (&["spiffe://example.org/ns"], "no_rule"),
        ];
        for (uris, reason) in table {
            assert_eq!(ask(&spiffe(), &params(uris), BEGIN).unwrap_err(), *reason, "{uris:?}");
        }
    }

    #[test]
    fn usage_is_checked() {
        let robot = || params(&["spiffe://example.org/robot"]);
        let mut ca = robot();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let mut signs_certificates = robot();
        signs_certificates.key_usages.push(KeyUsagePurpose::KeyCertSign);
        let mut no_signature = robot();
        no_signature.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        let mut unstated = robot();
        unstated.key_usages.clear();
        let mut server_only = robot();
        server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for params in [ca, signs_certificates, no_signature, unstated, server_only] {
            assert_eq!(ask(&spiffe(), &params, BEGIN).unwrap_err(), "usage");
        }
    }

    #[test]
    fn time_is_the_arguments() {
        let robot = || params(&["spiffe://example.org/robot"]);
        assert_eq!(ask(&spiffe(), &robot(), BEGIN - 1).unwrap_err(), "not_yet_valid");
        assert_eq!(ask(&spiffe(), &robot(), BEGIN + 10 * DAY + 1).unwrap_err(), "expired");
        assert!(ask(&spiffe(), &robot(), BEGIN + 10 * DAY - 1).is_ok());
    }

    #[test]
    fn common_names() {
        let named = |names: &[&str]| {
            let mut params = params(&[]);
            for name in names {
                params.distinguished_name.push(DnType::CommonName, *name);
            }
            ask(&by_common_name(), &params, BEGIN)
        };
        let principal = named(&["billing"]).unwrap();
        assert_eq!(principal.actor.to_string(), "corp-ca|billing");
        assert_eq!(principal.workload, None);
        assert_eq!(named(&[]).unwrap_err(), "name");
        assert_eq!(named(&["a\nb"]).unwrap_err(), "name");
        assert_eq!(named(&[&"a".repeat(4096)]).unwrap_err(), "name");
    }

    #[tokio::test]
    async fn malformed_chains_and_tokens() {
        let good = certificate(&params(&["spiffe://example.org/robot"])).remove(0);
        let mut trailing = good.to_vec();
        trailing.push(0);
        let chains = [
            vec![],
            vec![Bytes::new()],
            vec![trailing.into()],
            vec![good.slice(..good.len() - 1)],
            vec![vec![0x30; 70_000].into()],
        ];
        for chain in chains {
            let error = spiffe().principal(&chain, Timestamp::from_seconds(BEGIN)).unwrap_err();
            assert_eq!(error.reason, "malformed");
        }
        let token = Presented::Token("x".into());
        let refused = spiffe().authenticate(&token, Timestamp::from_seconds(BEGIN)).await;
        assert_eq!(refused, Err(IdentityError::Unsupported("tokens")));
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_certificate_never_panics(at in 0usize..400, byte: u8) {
            let mut der = certificate(&params(&["spiffe://example.org/robot"])).remove(0).to_vec();
            let at = at % der.len();
            der[at] = byte;
            let _ = spiffe().principal(&[der.into()], Timestamp::from_seconds(BEGIN));
        }
    }
}
