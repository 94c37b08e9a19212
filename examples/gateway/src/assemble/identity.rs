//! Issuers and client certificates.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use gateway_core::identity::oidc::{
    ClaimMapping, IssuerConfig, JwtAuthenticator, KeyHost, KeySource, KindRule, PlainHttp, Roots,
};
use gateway_core::identity::{
    AnyAuthenticator, CertificateMatch, CertificateName, CertificateRule, ClientCertAuthenticator,
    PrincipalKind,
};
use toml::Spanned;

use crate::config::{self, ConfigFile, Problem, Problems};

pub(super) fn authenticator(file: &ConfigFile) -> Result<AnyAuthenticator, Problems> {
    let config = &file.config;
    let mut any = AnyAuthenticator::new();
    if config.issuers.is_empty() && config.client_certificates.is_none() && config.ssh_login.is_none() {
        let help =
            "add an `[[issuer]]` whose tokens are accepted, or `[client_certificates]`, or `[ssh_login]`";
        return Err(file
            .problem(0..0, "issuer", "nobody could log in: no identity is accepted", help)
            .into());
    }
    if !config.issuers.is_empty() {
        any = any.tokens(Arc::new(tokens(file)?));
    }
    if let Some(certificates) = &config.client_certificates {
        any = any.certificates(Arc::new(client_certificates(file, certificates)?));
    }
    if let Some(login) = &config.ssh_login {
        any = any.ssh(Arc::new(super::ssh::authenticator(file, login)?));
    }
    Ok(any)
}

fn tokens(file: &ConfigFile) -> Result<JwtAuthenticator, Problems> {
    let mut issuers = Vec::new();
    for written in &file.config.issuers {
        let config = issuer(file, written)?;
        // Each by itself first, so that the message points at the right one.
        let at = written.span();
        let help = "correct this `[[issuer]]`";
        JwtAuthenticator::new(vec![config.clone()])
            .map_err(|e| file.problem(at, "issuer", e.to_string(), help))?;
        issuers.push(config);
    }
    let at = file.config.issuers.first().map_or(0..0, Spanned::span);
    JwtAuthenticator::new(issuers)
        .map_err(|e| file.problem(at, "issuer", e.to_string(), "correct the `[[issuer]]` entries").into())
}

fn issuer(file: &ConfigFile, written: &Spanned<config::Issuer>) -> Result<IssuerConfig, Problem> {
    let (at, from) = (written.span(), written.get_ref());
    let keys = key_source(file, at.clone(), from)?;
    let mut audiences = from.audiences.iter();
    let Some(first) = audiences.next() else {
        let help = "list the names this gateway goes by in tokens' `aud`, as `audiences = [\"gateway\"]`";
        return Err(file.problem(at, "issuer.audiences", "no audience is accepted", help));
    };
    let mut config = IssuerConfig::new(&from.issuer, first, keys);
    config.audiences.extend(audiences.cloned());
    if let Some(algorithms) = &from.algorithms {
        config.algorithms.clone_from(algorithms);
    }
    if let Some(path) = &from.ca_file {
        super::read(&file.resolve(path.get_ref()), "`issuer.ca_file`")?;
        config.roots = Roots::PemFile(file.resolve(path.get_ref()));
    }
    if from.plain_http_loopback {
        config.plain_http = PlainHttp::Loopback;
    }
    if from.keys_at_issuer_only {
        config.key_host = KeyHost::Issuer;
    }
    config.leeway = from.leeway.map_or(config.leeway, |span| span.0);
    config.max_lifetime = from.max_lifetime.map_or(config.max_lifetime, |span| span.0);
    config.claims = claims(&from.claims);
    Ok(config)
}

fn key_source(file: &ConfigFile, at: Range<usize>, from: &config::Issuer) -> Result<KeySource, Problem> {
    match (from.discovery, &from.jwks_url, &from.jwks_file) {
        (true, None, None) => Ok(KeySource::Discovery),
        (false, Some(url), None) => Ok(KeySource::JwksUrl(url.clone())),
        (false, None, Some(path)) => {
            let path = file.resolve(path);
            super::read(&path, "`issuer.jwks_file`")?;
            Ok(KeySource::JwksFile(path))
        }
        _ => {
            let message = "it must be said exactly once where the issuer's keys are";
            let help =
                "write one of `discovery = true`, `jwks_url = \"https://...\"`, `jwks_file = \"keys.json\"`";
            Err(file.problem(at, "issuer", message, help))
        }
    }
}

fn claims(from: &config::Claims) -> ClaimMapping {
    let mut claims = ClaimMapping::default();
    claims.kind = match (&from.kind_claim, from.kind) {
        (Some(path), otherwise) => KindRule::Claim { path: path.clone(), otherwise },
        (None, kind) => KindRule::Fixed(kind.unwrap_or(PrincipalKind::Agent)),
    };
    claims.groups.clone_from(&from.groups);
    claims.group_prefix.clone_from(&from.group_prefix);
    claims.phase.clone_from(&from.phase);
    claims.task.clone_from(&from.task);
    claims.plan.clone_from(&from.plan);
    claims.trust_domain.clone_from(&from.trust_domain);
    claims.delegation = from.delegation;
    claims.extra.clone_from(&from.extra);
    claims
}

fn client_certificates(
    file: &ConfigFile,
    written: &Spanned<config::ClientCertificates>,
) -> Result<ClientCertAuthenticator, Problems> {
    const KEY: &str = "client_certificates";
    let (at, from) = (written.span(), written.get_ref());
    let name = match (&from.trust_domain, &from.common_name_issuer) {
        (Some(domain), None) => CertificateName::Spiffe(domain.clone()),
        (None, Some(issuer)) => CertificateName::CommonName { issuer: issuer.clone() },
        _ => {
            let message = "it must be said exactly once which name of a certificate counts";
            let help =
                "write `trust_domain = \"...\"` for SPIFFE, or `common_name_issuer = \"name of your CA\"`";
            return Err(file.problem(at, KEY, message, help).into());
        }
    };
    let mut authenticator = ClientCertAuthenticator::new(name);
    if let Some(span) = from.max_session {
        authenticator = authenticator.max_session(span.0);
    }
    for rule in &from.rules {
        authenticator = authenticator.rule(certificate_rule(file, rule)?);
    }
    let serving = file.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    if from.rules.is_empty() || !serving.map(Spanned::get_ref).any(|tls| tls.client_ca.is_some()) {
        let help = "add a `[[client_certificates.rule]]` and a `client_ca` to a listener's `tls`, or remove the section";
        return Err(file.problem(at, KEY, "no client certificate could be accepted", help).into());
    }
    one_client_ca(file)?;
    Ok(authenticator)
}

/// One mapping of names belongs to one authority: another's certificates of the same name would be the same identity. Files of the same
/// content are the same authority.
fn one_client_ca(file: &ConfigFile) -> Result<(), Problem> {
    let mut first = None;
    let serving = file.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    for (written, path) in serving.filter_map(|tls| Some((tls, tls.get_ref().client_ca.as_ref()?))) {
        let text = super::read(&file.resolve(path), "`listener.tls.client_ca`")?;
        if *first.get_or_insert_with(|| text.clone()) != text {
            let message = "it names another `client_ca` than a listener before, but `[client_certificates]` gives both the same identities";
            let help = "name the same `client_ca` at every listener, or run a second gateway for the other authority";
            return Err(file.problem(written.span(), "listener.tls.client_ca", message, help));
        }
    }
    Ok(())
}

fn certificate_rule(
    file: &ConfigFile,
    written: &Spanned<config::CertificateRule>,
) -> Result<CertificateRule, Problem> {
    let from = written.get_ref();
    let matches = match (from.any, &from.exactly, &from.path_under) {
        (true, None, None) => CertificateMatch::Any,
        (false, Some(name), None) => CertificateMatch::Exactly(name.clone()),
        (false, None, Some(path)) => CertificateMatch::PathUnder(path.clone()),
        _ => {
            let message = "it must be said exactly once which certificates the rule is for";
            let help = "write one of `exactly = \"...\"`, `path_under = \"/ns/agents\"`, `any = true`";
            return Err(file.problem(written.span(), "client_certificates.rule", message, help));
        }
    };
    let mut rule = CertificateRule::new(matches, from.kind);
    rule.groups = BTreeSet::clone(&from.groups);
    rule.phase = from.phase;
    rule.task.clone_from(&from.task);
    Ok(rule)
}
