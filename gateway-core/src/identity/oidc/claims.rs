//! From verified claims to a principal: audience, time, and the configured mapping.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::telemetry::Refusal;
use super::super::text::{MAX_CLAIM_BYTES, MAX_SUBJECT_BYTES, is_name};
use super::super::{Actor, IdentityError, Phase, Principal, PrincipalKind, SpiffeId};
use super::config::{ClaimMapping, ClaimPath, Delegation, IssuerConfig, KindRule};
use crate::clock::Timestamp;

/// Most actors in a delegation chain. Planner, executor and a few tools; longer chains are an attack on whoever walks
/// and records them.
const MAX_ACTORS: usize = 8;
/// Most groups. Large directories give some hundred; the token's own limit bounds their size.
const MAX_GROUPS: usize = 1024;
/// Latest date a claim may name, in seconds: the end of the year 9999.
const MAX_DATE: i64 = 253_402_300_799;

type Claims = Map<String, Value>;

/// The principal that claims signed by the issuer describe.
pub(super) fn principal(
    claims: &Claims,
    config: &IssuerConfig,
    now: Timestamp,
) -> Result<Principal, Refusal> {
    check_audience(claims, &config.audiences)?;
    let expires_at = session_end(claims, config, now)?;
    let mapping = &config.claims;
    let subject = name(claims.get("sub"), MAX_SUBJECT_BYTES, "sub")?;
    let subject = subject.ok_or_else(|| Refusal::invalid("claim", "the token has no `sub`"))?;
    let (subject, actor_chain) = delegation(claims, config, subject)?;
    let mut principal = Principal::new(kind(claims, &mapping.kind)?, &config.issuer, &subject, expires_at);
    principal.groups = groups(claims, mapping)?;
    principal.phase = phase(claims, mapping.phase.as_ref())?;
    principal.task = mapped(claims, mapping.task.as_ref(), "task")?;
    principal.plan = mapped(claims, mapping.plan.as_ref(), "plan")?;
    principal.actor_chain = actor_chain;
    principal.workload = workload(&subject, mapping)?;
    for (name, path) in &mapping.extra {
        if let Some(value) = path.find(claims) {
            principal.claims.insert(name.clone(), scalar(value)?);
        }
    }
    Ok(principal)
}

/// RFC 7519 section 4.1.3: a string or an array of strings, one of which must be ours.
fn check_audience(claims: &Claims, ours: &BTreeSet<String>) -> Result<(), Refusal> {
    let meant = match claims.get("aud") {
        Some(Value::String(audience)) => ours.contains(audience),
        Some(Value::Array(audiences)) => {
            audiences.iter().all(Value::is_string)
                && audiences.iter().filter_map(Value::as_str).any(|audience| ours.contains(audience))
        }
        _ => false,
    };
    if meant { Ok(()) } else { Err(Refusal::invalid("audience", "the token is for another audience")) }
}

/// When the session ends: `exp` plus the leeway (RFC 7519 sections 4.1.4 to 4.1.6).
fn session_end(claims: &Claims, config: &IssuerConfig, now: Timestamp) -> Result<Timestamp, Refusal> {
    let (exp, nbf, iat) = (date(claims, "exp")?, date(claims, "nbf")?, date(claims, "iat")?);
    let exp = exp.ok_or_else(|| Refusal::invalid("time", "the token has no `exp`"))?;
    let end = exp.plus(config.leeway);
    if end <= now {
        return Err(Refusal { reason: "expired", error: IdentityError::Expired(exp) });
    }
    let latest_start = now.plus(config.leeway);
    if nbf.is_some_and(|nbf| nbf > latest_start) {
        return Err(Refusal::invalid("not_yet_valid", "the token is not valid yet"));
    }
    if iat.is_some_and(|iat| iat > latest_start) {
        return Err(Refusal::invalid("not_yet_valid", "the token was issued in the future"));
    }
    if exp.since(iat.unwrap_or(now)) > config.max_lifetime {
        return Err(Refusal::invalid(
            "lifetime",
            "the token lives longer than its issuer's maximum lifetime",
        ));
    }
    Ok(end)
}

/// A NumericDate (RFC 7519 section 2): seconds, possibly with a fraction.
fn date(claims: &Claims, name: &'static str) -> Result<Option<Timestamp>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole =
        value.as_i64().filter(|seconds| (0..=MAX_DATE).contains(seconds)).map(Timestamp::from_seconds);
    let date = whole.or_else(|| value.as_f64().and_then(fractional_date));
    date.map(Some).ok_or_else(|| Refusal::invalid("time", format!("`{name}` is not a date")))
}

/// Rounds down to microseconds; dates after the year 9999 are none.
fn fractional_date(seconds: f64) -> Option<Timestamp> {
    let since_1970 = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    let whole = i64::try_from(since_1970.as_secs()).ok().filter(|seconds| *seconds < MAX_DATE)?;
    Some(
        Timestamp::from_seconds(whole)
            .plus(std::time::Duration::from_micros(since_1970.subsec_micros().into())),
    )
}

fn kind(claims: &Claims, rule: &KindRule) -> Result<PrincipalKind, Refusal> {
    let (path, otherwise) = match rule {
        KindRule::Fixed(kind) => return Ok(*kind),
        KindRule::Claim { path, otherwise } => (path, otherwise),
    };
    let known = [PrincipalKind::Agent, PrincipalKind::Human, PrincipalKind::Service];
    let kind = match path.find(claims) {
        None => *otherwise,
        Some(value) => known.into_iter().find(|kind| value == kind.as_str()),
    };
    kind.ok_or_else(|| {
        Refusal::invalid("claim", "the claim for the kind is missing or not agent, human or service")
    })
}

fn phase(claims: &Claims, path: Option<&ClaimPath>) -> Result<Phase, Refusal> {
    let Some(value) = path.and_then(|path| path.find(claims)) else { return Ok(Phase::Other) };
    let phase = [Phase::Plan, Phase::Execute, Phase::Other].into_iter().find(|phase| value == phase.as_str());
    phase.ok_or_else(|| Refusal::invalid("claim", "the claim for the phase is not plan, execute or other"))
}

fn groups(claims: &Claims, mapping: &ClaimMapping) -> Result<BTreeSet<String>, Refusal> {
    let groups = match mapping.groups.as_ref().and_then(|path| path.find(claims)) {
        None => &[][..],
        Some(Value::Array(groups)) if groups.len() <= MAX_GROUPS => groups,
        Some(one) => std::slice::from_ref(one),
    };
    let prefixed = |group: &Value| {
        let group = group.as_str().filter(|group| is_name(group, MAX_CLAIM_BYTES));
        group.map(|group| format!("{}{group}", mapping.group_prefix))
    };
    let groups: Option<_> = groups.iter().map(prefixed).collect();
    groups.ok_or_else(|| {
        Refusal::invalid("claim", "the claim for groups is neither a name nor at most 1024 names")
    })
}

fn mapped(claims: &Claims, path: Option<&ClaimPath>, what: &'static str) -> Result<Option<String>, Refusal> {
    name(path.and_then(|path| path.find(claims)), MAX_CLAIM_BYTES, what)
}

fn name(value: Option<&Value>, max_bytes: usize, what: &'static str) -> Result<Option<String>, Refusal> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if is_name(text, max_bytes) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::invalid(
            "claim",
            format!("`{what}` is not a printable text of at most {max_bytes} bytes"),
        )),
    }
}

/// Who acts, and for whom, nearest first.
fn delegation(
    claims: &Claims,
    config: &IssuerConfig,
    subject: String,
) -> Result<(String, Vec<Actor>), Refusal> {
    let mut chain = actor_chain(claims, &config.issuer)?;
    if config.claims.delegation == Delegation::SubjectActs || chain.is_empty() {
        return Ok((subject, chain));
    }
    let acting = chain.remove(0);
    if acting.issuer != config.issuer {
        // An issuer vouches for its own names only.
        return Err(Refusal::invalid("actor_chain", "the acting party of the token is of another issuer"));
    }
    chain.push(Actor { issuer: config.issuer.clone(), subject });
    Ok((acting.subject, chain))
}

/// RFC 8693 section 4.1: nested `act` objects, outermost first. An actor without `iss` is of the token's issuer.
fn actor_chain(claims: &Claims, issuer: &str) -> Result<Vec<Actor>, Refusal> {
    let mut chain = Vec::new();
    let mut next = claims.get("act");
    while let Some(act) = next {
        if chain.len() == MAX_ACTORS {
            return Err(Refusal::invalid("actor_chain", "the token's `act` nests more than 8 actors"));
        }
        chain.push(actor(act, issuer)?);
        next = act.get("act");
    }
    Ok(chain)
}

fn actor(act: &Value, issuer: &str) -> Result<Actor, Refusal> {
    let of_token = || Value::String(issuer.to_owned());
    let issuer = act.get("iss").cloned().unwrap_or_else(of_token);
    match (name(Some(&issuer), MAX_SUBJECT_BYTES, "iss"), name(act.get("sub"), MAX_SUBJECT_BYTES, "sub")) {
        (Ok(Some(issuer)), Ok(Some(subject))) => Ok(Actor { issuer, subject }),
        _ => Err(Refusal::invalid("actor_chain", "an `act` of the token has no usable `iss` and `sub`")),
    }
}

/// JWT-SVID section 3.1: the subject is the SPIFFE ID.
fn workload(subject: &str, mapping: &ClaimMapping) -> Result<Option<String>, Refusal> {
    let Some(domain) = mapping.trust_domain.as_ref().filter(|_| subject.starts_with("spiffe:")) else {
        return Ok(None);
    };
    match subject.parse::<SpiffeId>() {
        Ok(id) if id.trust_domain() == domain && !id.path().is_empty() => Ok(Some(id.to_string())),
        _ => Err(Refusal::invalid("trust_domain", "`sub` is not a workload of the issuer's trust domain")),
    }
}

fn scalar(value: &Value) -> Result<String, Refusal> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        _ => String::new(),
    };
    let usable = is_name(&text, MAX_CLAIM_BYTES).then_some(text);
    usable.ok_or_else(|| {
        Refusal::invalid("claim", "a further claim is not a printable text, number or boolean")
    })
}
