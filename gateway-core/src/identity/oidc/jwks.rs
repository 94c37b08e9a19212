//! An issuer's public keys (RFC 7517), each bound to the algorithms it may verify.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json;

/// Most keys in one set. Large providers publish about ten.
const MAX_KEYS: usize = 128;
/// RSA moduli accepted, in bytes: 2048 bits (RFC 7518 section 3.3) to 8192 (what verification supports).
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Largest RSA public exponent, in bytes. 65537 has three; huge ones only cost time.
const MAX_RSA_EXPONENT_BYTES: usize = 4;

/// One public key and what it may verify.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// True if `signature` over `message` was made with this key and `algorithm`, which must be one of the key's own.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        // The provider is named, not the process default: that one panics if an embedder's build enables two.
        let verifier = (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&algorithm.implementation(), &self.key);
        self.algorithms.contains(&algorithm) && verifier.is_ok_and(|v| v.verify(message, signature).is_ok())
    }
}

/// The answer to a search for a key.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// Exactly one fits.
    Key(&'a VerifyingKey),
    /// None fits; newer keys may.
    Nothing,
    /// Several fit, so none is taken.
    Several,
}

/// The usable keys of one issuer.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<VerifyingKey>);

impl KeySet {
    /// Reads a JWK set. Keys that cannot verify signatures here (other types, encryption keys, symmetric or private
    /// keys) are left out, as RFC 7517 section 5 asks; a malformed set is an error and changes nothing.
    pub(super) fn parse(document: &[u8]) -> Result<Self, &'static str> {
        let mut document = json::object(document).ok_or("not a JSON object, or a name stands twice")?;
        let Some(Value::Array(keys)) = document.remove("keys") else {
            return Err("no array `keys`");
        };
        if keys.len() > MAX_KEYS {
            return Err("more than 128 keys");
        }
        Ok(Self(keys.iter().filter_map(|key| key.as_object().and_then(verifying_key)).collect()))
    }

    /// How many keys are usable.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The key named `id` that may verify `algorithm`; without an id, the only one that may.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        let fits = |key: &&VerifyingKey| {
            id.is_none_or(|id| key.id.as_deref() == Some(id)) && key.algorithms.contains(&algorithm)
        };
        let mut fitting = self.0.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(key),
            (None, _) => Found::Nothing,
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

fn verifying_key(jwk: &Map<String, Value>) -> Option<VerifyingKey> {
    // `d` and `k` are private: a key whose secret is published proves nothing.
    if !is_for_signatures(jwk) || jwk.contains_key("d") || jwk.contains_key("k") {
        return None;
    }
    let (mut algorithms, key) = match (text(jwk, "kty")?, text(jwk, "crv")) {
        ("RSA", _) => rsa(jwk)?,
        ("EC", Some("P-256")) => (vec![Algorithm::Es256], ec(jwk, 32)?),
        ("EC", Some("P-384")) => (vec![Algorithm::Es384], ec(jwk, 48)?),
        ("OKP", Some("Ed25519")) => (vec![Algorithm::EdDsa], ed25519(jwk)?),
        _ => return None,
    };
    if jwk.contains_key("alg") {
        let only = text(jwk, "alg")?.parse().ok()?;
        algorithms.retain(|algorithm| *algorithm == only);
    }
    let id = match jwk.get("kid") {
        None => None,
        Some(id) => Some(id.as_str()?.to_owned()),
    };
    (!algorithms.is_empty()).then_some(VerifyingKey { id, algorithms, key })
}

/// RFC 7517 sections 4.2 and 4.3.
fn is_for_signatures(jwk: &Map<String, Value>) -> bool {
    let usage = jwk.get("use").is_none_or(|usage| usage == "sig");
    let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
    usage && jwk.get("key_ops").is_none_or(verifies)
}

fn rsa(jwk: &Map<String, Value>) -> Option<(Vec<Algorithm>, DecodingKey)> {
    use Algorithm::{Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    let fits = RSA_MODULUS_BYTES.contains(&n.len()) && (1..=MAX_RSA_EXPONENT_BYTES).contains(&e.len());
    let algorithms = vec![Rs256, Rs384, Rs512, Ps256, Ps384, Ps512];
    fits.then(|| (algorithms, DecodingKey::from_rsa_raw_components(&n, &e)))
}

/// An uncompressed point (SEC 1 section 2.3.3); coordinates have the curve's full width (RFC 7518 section 6.2.1.2).
/// That it lies on the curve is checked at verification.
fn ec(jwk: &Map<String, Value>, width_bytes: usize) -> Option<DecodingKey> {
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    let fits = x.len() == width_bytes && y.len() == width_bytes;
    fits.then(|| DecodingKey::from_ec_der(&[&[4], &x[..], &y[..]].concat()))
}

fn ed25519(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    bytes(jwk, "x").filter(|x| x.len() == 32).map(|x| DecodingKey::from_ed_der(&x))
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ec_key(id: &str) -> Value {
        json!({"kty": "EC", "crv": "P-256", "kid": id, "x": coordinate(32), "y": coordinate(32)})
    }

    fn coordinate(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![1; bytes])
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn finds_exactly_one() {
        let keys = set(&[ec_key("a"), ec_key("b"), ec_key("b")]);
        assert!(matches!(keys.find(Some("a"), Algorithm::Es256), Found::Key(_)));
        assert!(matches!(keys.find(Some("b"), Algorithm::Es256), Found::Several));
        assert!(matches!(keys.find(None, Algorithm::Es256), Found::Several));
        assert!(matches!(keys.find(Some("c"), Algorithm::Es256), Found::Nothing));
        assert!(matches!(keys.find(Some("a"), Algorithm::Rs256), Found::Nothing));
        assert!(matches!(set(&[ec_key("a")]).find(None, Algorithm::Es256), Found::Key(_)));
    }

    #[test]
    fn leaves_out_what_cannot_verify() {
        let with = |name: &str, value: Value| {
            let mut key = ec_key("a");
            key[name] = value;
            key
        };
        let unusable = [
            with("use", json!("enc")),
            with("use", json!(1)),
            with("key_ops", json!(["sign"])),
            with("alg", json!("ES384")),
            with("alg", json!("HS256")),
            with("alg", json!(null)),
            with("kid", json!(7)),
            with("d", json!(coordinate(32))),
            with("crv", json!("P-384")),
            with("crv", json!("secp256k1")),
            with("x", json!(coordinate(31))),
            with("kty", json!("oct")),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "RSA", "n": coordinate(128), "e": "AQAB"}),
            json!({"kty": "RSA", "n": coordinate(256), "e": coordinate(9)}),
            json!({"kty": "OKP", "crv": "Ed448", "x": coordinate(57)}),
            json!({}),
            json!("key"),
        ];
        for key in unusable {
            assert_eq!(set(std::slice::from_ref(&key)).len(), 0, "{key}");
        }
        let usable = [
            ec_key("a"),
            with("use", json!("sig")),
            with("key_ops", json!(["verify"])),
            with("alg", json!("ES256")),
            json!({"kty": "RSA", "n": coordinate(256), "e": "AQAB"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": coordinate(32)}),
        ];
        assert_eq!(set(&usable).len(), usable.len());
    }

    #[test]
    fn a_stated_algorithm_excludes_the_others() {
        let keys = set(&[json!({"kty": "RSA", "n": coordinate(256), "e": "AQAB", "alg": "PS256"})]);
        assert!(matches!(keys.find(None, Algorithm::Ps256), Found::Key(_)));
        assert!(matches!(keys.find(None, Algorithm::Rs256), Found::Nothing));
    }

    #[test]
    fn malformed_sets_are_errors() {
        let many = json!({ "keys": vec![ec_key("a"); 129] }).to_string();
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, &many] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(KeySet::parse(br#"{"keys":[]}"#).unwrap().len(), 0);
    }
}
