//! Tokens: honest ones, and those a hostile client would try.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

use super::keys::{Algorithm, Key, KeySet, base64};
use crate::error::Result;

/// A token to be, honest unless it is forged: issued now, valid for fifteen minutes, signed with RS256.
///
/// Every claim may be set to anything or left out, so that a verifier's every check can be tried.
#[derive(Debug, Clone)]
#[must_use = "there is no token until `sign` or `forge`"]
pub struct TokenBuilder {
    keys: Arc<KeySet>,
    algorithm: Algorithm,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

/// Ways to make a token that no verifier may accept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forgery {
    /// `alg` is `none` in this spelling, and there is no signature (RFC 7519 section 6).
    NoAlgorithm(&'static str),
    /// HS256, with the published RSA key's PEM as the secret.
    HmacWithPublicKey,
    /// The header names a `kid` nobody published.
    UnknownKey,
    /// The header names a published `kid`, the signature is by another key.
    WrongKey,
    /// The header names an ECDSA algorithm and the `kid` of the RSA key.
    AlgorithmOfAnotherKey,
    /// Signed by the attacker's key, which the header carries as `jwk`.
    EmbeddedKey,
    /// Signed by the attacker's key, which the header says to fetch from this `jku`.
    KeyFromUrl(String),
    /// Signed by the attacker's key, which the header says to fetch from this `x5u`.
    CertificateFromUrl(String),
    /// The header demands an extension nobody knows (RFC 7515 section 4.1.11).
    CriticalExtension,
    /// The `kid` is a path out of any folder of keys.
    KeyIdIsPath,
    /// `exp` was an hour ago.
    Expired,
    /// There is no `exp`.
    NeverExpires,
    /// `nbf` is ten years ahead.
    NotYetValid,
    /// The claims were changed after signing.
    ChangedClaims,
    /// The signature is the empty text.
    NoSignature,
    /// The signature and its dot are missing.
    TwoSegments,
    /// A fourth segment follows.
    FourSegments,
}

impl Forgery {
    /// One of each kind; where a URL is needed, this one, which then must not be asked.
    pub fn all(url: &str) -> Vec<Self> {
        vec![
            Self::NoAlgorithm("none"),
            Self::NoAlgorithm("None"),
            Self::NoAlgorithm("nOnE"),
            Self::HmacWithPublicKey,
            Self::UnknownKey,
            Self::WrongKey,
            Self::AlgorithmOfAnotherKey,
            Self::EmbeddedKey,
            Self::KeyFromUrl(url.to_owned()),
            Self::CertificateFromUrl(url.to_owned()),
            Self::CriticalExtension,
            Self::KeyIdIsPath,
            Self::Expired,
            Self::NeverExpires,
            Self::NotYetValid,
            Self::ChangedClaims,
            Self::NoSignature,
            Self::TwoSegments,
            Self::FourSegments,
        ]
    }
}

impl TokenBuilder {
    pub(super) fn new(keys: Arc<KeySet>, issuer: &str) -> Self {
        let header = Map::from_iter([("typ".to_owned(), json!("JWT"))]);
        let now = unix_now();
        let builder = Self { keys, algorithm: Algorithm::Rs256, header, claims: Map::new() };
        builder.claim("iss", issuer).claim("iat", now).claim("exp", now + LIFETIME.as_secs())
    }

    /// A token of these keys, for an issuer that runs in another process.
    pub fn for_issuer(keys: KeySet, issuer: &str) -> Self {
        Self::new(Arc::new(keys), issuer)
    }

    /// How to sign it.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// `iss`, instead of the provider's own.
    pub fn issuer(self, issuer: &str) -> Self {
        self.claim("iss", issuer)
    }

    /// `sub`.
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// `aud`, as one text.
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// Adds one entry to the list in `groups`.
    pub fn group(mut self, group: &str) -> Self {
        let groups = self.claims.entry("groups").or_insert_with(|| json!([]));
        if let Some(groups) = groups.as_array_mut() {
            groups.push(group.into());
        }
        self
    }

    /// `phase`: plan, execute, or what you like.
    pub fn phase(self, phase: &str) -> Self {
        self.claim("phase", phase)
    }

    /// `task`.
    pub fn task(self, task: &str) -> Self {
        self.claim("task", task)
    }

    /// `plan`.
    pub fn plan(self, plan: &str) -> Self {
        self.claim("plan", plan)
    }

    /// `act` (RFC 8693 section 4.1): who acts, the current actor first, each one nested in the one it acted before.
    pub fn actors(self, subjects: &[&str]) -> Self {
        let nest = |inner: Option<Value>, subject: &&str| {
            let mut actor = json!({ "sub": subject });
            if let Some(inner) = inner {
                actor["act"] = inner;
            }
            Some(actor)
        };
        match subjects.iter().rev().fold(None, nest) {
            Some(chain) => self.claim("act", chain),
            None => self,
        }
    }

    /// Expires this long after it was issued; whole seconds.
    pub fn lifetime(self, lifetime: Duration) -> Self {
        let issued = self.claims.get("iat").and_then(Value::as_u64).unwrap_or_else(unix_now);
        self.claim("exp", issued + lifetime.as_secs())
    }

    /// Issued at this time; set the lifetime after it.
    pub fn issued_at(self, time: SystemTime) -> Self {
        self.claim("iat", unix(time))
    }

    /// Expires at this time.
    pub fn expires_at(self, time: SystemTime) -> Self {
        self.claim("exp", unix(time))
    }

    /// Not valid before this time.
    pub fn not_before(self, time: SystemTime) -> Self {
        self.claim("nbf", unix(time))
    }

    /// Sets a claim to anything.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets a header parameter; `alg` and `kid` too, which otherwise fit the key. Null leaves it out.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// The token, signed with the provider's key.
    ///
    /// # Panics
    /// When the system's random generator fails.
    pub fn sign(&self) -> String {
        let key = self.keys.key(self.algorithm);
        let message = self.message(key.algorithm.name(), &key.id);
        join(&message, &key.sign(message.as_bytes()))
    }

    /// The token as an attacker would make it, with the claims set so far.
    ///
    /// # Panics
    /// When the system's random generator fails.
    pub fn forge(self, how: &Forgery) -> String {
        let (algorithm, key) = (self.algorithm.name(), self.keys.key(self.algorithm));
        match how {
            Forgery::NoAlgorithm(name) => join(&self.message(name, &key.id), b""),
            Forgery::HmacWithPublicKey => self.hmac_with_public_key(),
            Forgery::UnknownKey => self.clone().header("kid", "nobody-published-this").sign(),
            Forgery::WrongKey => self.sign_with_strange_key(|_| {}),
            Forgery::AlgorithmOfAnotherKey => {
                let message = self.message(Algorithm::Es256.name(), &self.keys.key(Algorithm::Rs256).id);
                join(&message, &self.keys.key(Algorithm::Es256).sign(message.as_bytes()))
            }
            Forgery::EmbeddedKey => self.sign_with_strange_key(|token| {
                let jwk = token.keys.key(token.algorithm).jwk();
                token.header.insert("jwk".to_owned(), jwk);
            }),
            Forgery::KeyFromUrl(url) => self.sign_with_strange_key(|token| {
                token.header.insert("jku".to_owned(), json!(url));
            }),
            Forgery::CertificateFromUrl(url) => self.sign_with_strange_key(|token| {
                token.header.insert("x5u".to_owned(), json!(url));
            }),
            Forgery::CriticalExtension => {
                self.clone().header("crit", json!(["x-unknown"])).header("x-unknown", 1).sign()
            }
            Forgery::KeyIdIsPath => self.clone().header("kid", "../../../../dev/null").sign(),
            Forgery::Expired => self.clone().claim("exp", unix_now() - HOUR.as_secs()).sign(),
            Forgery::NeverExpires => self.clone().without("exp").sign(),
            Forgery::NotYetValid => {
                let then = unix_now() + TEN_YEARS.as_secs();
                self.clone().claim("nbf", then).claim("exp", then + HOUR.as_secs()).sign()
            }
            Forgery::ChangedClaims => {
                let signature = key.sign(self.message(algorithm, &key.id).as_bytes());
                join(&self.clone().claim("admin", true).message(algorithm, &key.id), &signature)
            }
            Forgery::NoSignature => join(&self.message(algorithm, &key.id), b""),
            Forgery::TwoSegments => self.message(algorithm, &key.id),
            Forgery::FourSegments => self.sign() + "." + &base64(b"{}"),
        }
    }

    /// Header and claims, as they are signed (RFC 7515 section 5.1).
    fn message(&self, algorithm: &str, key_id: &str) -> String {
        let mut header = self.header.clone();
        header.entry("alg").or_insert_with(|| algorithm.into());
        header.entry("kid").or_insert_with(|| key_id.into());
        header.retain(|_, value| !value.is_null());
        let segment = |part: &Map<String, Value>| base64(Value::from(part.clone()).to_string().as_bytes());
        format!("{}.{}", segment(&header), segment(&self.claims))
    }

    fn hmac_with_public_key(&self) -> String {
        let rsa: &Key = self.keys.key(Algorithm::Rs256);
        let message = self.message("HS256", &rsa.id);
        let secret = hmac::Key::new(hmac::HMAC_SHA256, rsa.public_pem().as_bytes());
        join(&message, hmac::sign(&secret, message.as_bytes()).as_ref())
    }

    /// Signs with a key of the attacker's, under the id of ours.
    fn sign_with_strange_key(&self, change: impl FnOnce(&mut Self)) -> String {
        let strange: Result<KeySet> = KeySet::generate();
        let id = self.keys.key(self.algorithm).id.clone();
        let mut token = self.clone();
        token.keys = Arc::new(strange.expect("the system's random generator works"));
        token.header.entry("kid").or_insert_with(|| id.into());
        change(&mut token);
        token.sign()
    }
}

fn join(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", base64(signature))
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn unix_now() -> u64 {
    unix(SystemTime::now())
}

/// Short, as an agent's token is; far longer than any test.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
const HOUR: Duration = Duration::from_secs(3600);
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
