//! A JWT taken apart, nothing of it believed (RFC 7515 section 7.1, RFC 7519).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::super::telemetry::Refusal;
use super::algorithm::Algorithm;
use super::json;

/// Longest key id, in bytes. Thumbprints have 43; longer ones are an attack on whoever logs or stores them.
const MAX_KEY_ID_BYTES: usize = 256;
/// Largest decoded header, in bytes. Real ones have some hundred.
const MAX_HEADER_BYTES: usize = 4096;
/// What a bearer's `typ` may be, without `application/` and in lower case: access tokens (RFC 9068), OIDC ID tokens,
/// JWT-SVIDs. Others (`logout+jwt`, `secevent+jwt`, `dpop+jwt`) prove something else (RFC 8725 section 3.11).
const BEARER_TYPES: [&str; 3] = ["jwt", "at+jwt", "jose"];
/// Headers by which a token would bring or point to its own key, change how it is to be read (RFC 7515 sections
/// 4.1.2 to 4.1.11, RFC 7797), or is not a JWS at all (RFC 7516). Such a token is refused, the header never followed.
const REFUSED_HEADERS: [&str; 8] = ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"];

/// What a token says about itself.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    /// What was signed: the first two segments as they came.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    /// Takes `token` apart. Strict base64url without padding or stray bits, exactly three segments.
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        let malformed = || Refusal::invalid("malformed", "the token is not a JWT in compact form");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let segment = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let header = segment(header).filter(|h| h.len() <= MAX_HEADER_BYTES).ok_or_else(malformed)?;
        let header = json::object(&header).ok_or_else(malformed)?;
        let claims = segment(payload).and_then(|p| json::object(&p)).ok_or_else(malformed)?;
        let signature = segment(signature).filter(|s| !s.is_empty()).ok_or_else(malformed)?;
        refuse_headers(&header)?;
        Ok(Self { signed, signature, algorithm: algorithm(&header)?, key_id: key_id(&header)?, claims })
    }

    /// The `iss` claim, if it is a string.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }
}

fn refuse_headers(header: &Map<String, Value>) -> Result<(), Refusal> {
    if REFUSED_HEADERS.iter().any(|name| header.contains_key(*name)) {
        return Err(Refusal::invalid(
            "header",
            "the token's header brings its own key or asks for more than a JWT",
        ));
    }
    let bearer = match header.get("typ") {
        None => true,
        Some(Value::String(typ)) => is_bearer_type(typ),
        Some(_) => false,
    };
    if bearer {
        Ok(())
    } else {
        Err(Refusal::invalid("typ", "the token's `typ` is not that of a bearer token"))
    }
}

/// RFC 7515 section 4.1.9: media types compare without case, and `application/` may be left out.
fn is_bearer_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    BEARER_TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

fn algorithm(header: &Map<String, Value>) -> Result<Algorithm, Refusal> {
    let named = header.get("alg").and_then(Value::as_str).and_then(|name| name.parse().ok());
    named.ok_or_else(|| {
        Refusal::invalid("algorithm", "the token's `alg` is missing or not an asymmetric signature")
    })
}

fn key_id(header: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    match header.get("kid") {
        None => Ok(None),
        Some(Value::String(id)) if id.len() <= MAX_KEY_ID_BYTES => Ok(Some(id.clone())),
        Some(_) => Err(Refusal::invalid("kid", "the token's `kid` is not a string of at most 256 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(header), encode(payload))
    }

    fn reason(token: &str) -> &'static str {
        Unverified::parse(token).unwrap_err().reason
    }

    #[test]
    fn takes_a_token_apart() {
        let text = token(r#"{"alg":"ES256","kid":"k","typ":"application/AT+JWT"}"#, r#"{"iss":"i"}"#);
        let parsed = Unverified::parse(&text).unwrap();
        assert_eq!((parsed.algorithm, parsed.key_id.as_deref()), (Algorithm::Es256, Some("k")));
        assert_eq!((parsed.issuer(), parsed.signature.as_slice()), (Some("i"), &b"sig"[..]));
    }

    #[test]
    fn refuses_forms() {
        let good = token(r#"{"alg":"ES256"}"#, "{}");
        assert!(Unverified::parse(&good).is_ok());
        let (signed, _) = good.rsplit_once('.').unwrap();
        let table = [
            String::new(),
            ".".into(),
            "..".into(),
            "...".into(),
            format!("{good}."),
            format!(".{good}"),
            format!("{good}.e30"),
            format!("{good}\n"),
            format!(" {good}"),
            format!("{good}="),
            format!("{signed}."),
            // `c2lo` and `c2lp` would decode to other bytes; `c2l` leaves stray bits.
            format!("{signed}.c2l"),
            format!("{signed}.c2l/"),
            token("[]", "{}"),
            token(r#"{"alg":"ES256"}"#, "[]"),
            token(r#"{"alg":"ES256","alg":"ES256"}"#, "{}"),
            token(r#"{"alg":"ES256"}"#, r#"{"iss":"a","iss":"b"}"#),
            token(&format!(r#"{{"alg":"ES256","x":"{}"}}"#, "a".repeat(5000)), "{}"),
        ];
        for text in table {
            assert_eq!(reason(&text), "malformed", "{text}");
        }
    }

    #[test]
    fn refuses_headers() {
        for name in REFUSED_HEADERS {
            for value in [r#""https://evil.example/""#, "[]", "{}", "false", "null"] {
                let header = format!(r#"{{"alg":"ES256","{name}":{value}}}"#);
                assert_eq!(reason(&token(&header, "{}")), "header", "{header}");
            }
        }
        for typ in [r#""logout+jwt""#, r#""""#, "1", "null", r#""text/jwt""#] {
            assert_eq!(reason(&token(&format!(r#"{{"alg":"ES256","typ":{typ}}}"#), "{}")), "typ");
        }
        for alg in [r#""none""#, r#""HS256""#, "null", "1", r#"["ES256"]"#] {
            assert_eq!(reason(&token(&format!(r#"{{"alg":{alg}}}"#), "{}")), "algorithm");
        }
        assert_eq!(reason(&token("{}", "{}")), "algorithm");
        for kid in ["1", "null", &format!("\"{}\"", "k".repeat(257))] {
            assert_eq!(reason(&token(&format!(r#"{{"alg":"ES256","kid":{kid}}}"#), "{}")), "kid");
        }
    }
}
