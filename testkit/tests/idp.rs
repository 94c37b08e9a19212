//! The provider's tokens verify against its own key set, its forgeries do not, and it misbehaves as told.

// Helpers of a test are tests too; the lint exempts only the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use testkit::{Algorithm, Ca, Forgery, Idp, KeySet, Result, TokenBuilder};

type Outcome = Result<()>;

/// A verifier as careful as a gateway's: key by `kid` from the set, algorithm from the key and not from the token.
fn verify(token: &str, keys: &JwkSet, issuer: &str) -> std::result::Result<Value, String> {
    let header = decode_header(token).map_err(|error| error.to_string())?;
    let jwk = keys.find(header.kid.as_deref().unwrap_or_default()).ok_or("unknown key")?;
    let name = jwk.common.key_algorithm.ok_or("no algorithm")?.to_string();
    let mut validation = Validation::new(name.parse().map_err(|_| "unknown algorithm")?);
    validation.set_audience(&["gateway"]);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    validation.validate_nbf = true;
    let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
    decode::<Value>(token, &key, &validation).map(|data| data.claims).map_err(|error| error.to_string())
}

/// HTTP by hand over any stream: the status line's code and the body.
fn get(mut stream: impl Read + Write, path: &str) -> std::io::Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::UnexpectedEof)?, body.to_owned()))
}

fn fetch(idp: &Idp, path: &str) -> std::io::Result<(u16, String)> {
    get(TcpStream::connect(idp.address())?, path)
}

fn published(idp: &Idp) -> JwkSet {
    let (status, discovery) = fetch(idp, "/.well-known/openid-configuration").unwrap();
    assert_eq!(status, 200);
    let discovery: Value = serde_json::from_str(&discovery).unwrap();
    assert_eq!(
        (&discovery["issuer"], &discovery["jwks_uri"]),
        (&idp.issuer().into(), &idp.jwks_url().into())
    );
    serde_json::from_str(&fetch(idp, "/jwks").unwrap().1).unwrap()
}

fn honest(idp: &Idp) -> TokenBuilder {
    idp.token()
        .subject("agent-7")
        .audience("gateway")
        .group("planners")
        .phase("plan")
        .actors(&["planner", "alice"])
}

#[test]
fn tokens_of_every_algorithm_verify() -> Outcome {
    let idp = Idp::start()?;
    let keys = published(&idp);
    for algorithm in Algorithm::ALL {
        let claims =
            verify(&honest(&idp).algorithm(algorithm).task("T-1").sign(), &keys, idp.issuer()).unwrap();
        assert_eq!(claims["sub"], "agent-7");
        assert_eq!(claims["groups"], serde_json::json!(["planners"]));
        assert_eq!(claims["act"], serde_json::json!({ "sub": "planner", "act": { "sub": "alice" } }));
        assert_eq!((&claims["phase"], &claims["task"]), (&"plan".into(), &"T-1".into()));
    }
    Ok(())
}

#[test]
fn no_forgery_verifies() -> Outcome {
    let idp = Idp::start()?;
    let keys = published(&idp);
    for forgery in Forgery::all(&idp.jwks_url()) {
        // The library ignores `crit`, which RFC 7515 section 4.1.11 forbids: the gateway has to look itself.
        let expected = forgery == Forgery::CriticalExtension;
        let token = honest(&idp).forge(&forgery);
        assert_eq!(verify(&token, &keys, idp.issuer()).is_ok(), expected, "{forgery:?}: {token}");
    }
    assert!(verify(&honest(&idp).audience("other").sign(), &keys, idp.issuer()).is_err());
    assert!(verify(&honest(&idp).issuer("https://other").sign(), &keys, idp.issuer()).is_err());
    assert!(verify(&honest(&idp).without("sub").sign(), &keys, idp.issuer()).is_err());
    Ok(())
}

#[test]
fn the_hmac_forgery_would_fool_a_naive_verifier() -> Outcome {
    // Otherwise the case above would prove nothing.
    let idp = Idp::start()?;
    let token = honest(&idp).forge(&Forgery::HmacWithPublicKey);
    assert_eq!(decode_header(&token).unwrap().alg, jsonwebtoken::Algorithm::HS256);
    assert_eq!(decode_header(&token).unwrap().kid, decode_header(honest(&idp).sign()).unwrap().kid);
    Ok(())
}

#[test]
fn rotation_replaces_or_keeps_the_old_keys() -> Outcome {
    let idp = Idp::start()?;
    let old = honest(&idp).sign();
    idp.rotate_gently()?;
    let new = honest(&idp).sign();
    let keys = published(&idp);
    assert!(verify(&old, &keys, idp.issuer()).is_ok() && verify(&new, &keys, idp.issuer()).is_ok());
    idp.rotate()?;
    assert_eq!(published(&idp).keys.len(), 3);
    assert_eq!(verify(&new, &published(&idp), idp.issuer()).unwrap_err(), "unknown key");
    assert_eq!(idp.requests("/jwks"), 3);
    Ok(())
}

#[test]
fn it_goes_down_and_comes_back_on_its_port() -> Outcome {
    let idp = Idp::start()?;
    let mut open = TcpStream::connect(idp.address()).unwrap();
    fetch(&idp, "/jwks").unwrap();
    for _ in 0..3 {
        idp.go_down()?;
        assert_eq!(fetch(&idp, "/jwks").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        idp.come_back()?;
        assert_eq!(fetch(&idp, "/jwks").unwrap().0, 200);
    }
    // The connection of before was cut: its end can be read.
    assert!(matches!(open.read(&mut [0]), Ok(0) | Err(_)));
    let address = idp.address();
    drop(idp);
    assert!(TcpStream::connect(address).is_err());
    Ok(())
}

#[test]
fn it_is_slow_or_wrong_when_told() -> Outcome {
    let idp = Idp::start()?;
    idp.answer_with(Some(500));
    assert_eq!(fetch(&idp, "/jwks").unwrap().0, 500);
    idp.answer_with(None);
    idp.answer_path_with("/jwks", Some("{"));
    assert_eq!(fetch(&idp, "/jwks").unwrap(), (200, "{".to_owned()));
    idp.answer_path_with("/jwks", None);
    idp.delay(Duration::from_millis(80));
    let started = Instant::now();
    assert_eq!(fetch(&idp, "/nowhere").unwrap().0, 404);
    assert!(started.elapsed() >= Duration::from_millis(80));
    assert_eq!((idp.requests("/jwks"), idp.requests("/nowhere")), (2, 1));
    Ok(())
}

#[test]
fn it_serves_https_that_only_its_authority_vouches_for() -> Outcome {
    let (ca, other) = (Ca::new()?, Ca::new()?);
    let idp = Idp::start_tls(&ca)?;
    assert!(idp.issuer().starts_with("https://localhost:"));
    let fetch = |config: Arc<rustls::ClientConfig>| {
        let name = "localhost".to_owned().try_into().unwrap();
        let connection = rustls::ClientConnection::new(config, name).unwrap();
        get(rustls::StreamOwned::new(connection, TcpStream::connect(idp.address()).unwrap()), "/jwks")
    };
    assert_eq!(fetch(ca.client_config(None, &[])?).unwrap().0, 200);
    assert!(
        fetch(other.client_config(None, &[])?).unwrap_err().to_string().contains("invalid peer certificate")
    );
    Ok(())
}

#[test]
fn kept_keys_are_private_and_sign_for_another_process() -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let idp = Idp::builder().keys(KeySet::open(folder.path())?).start()?;
    for algorithm in Algorithm::ALL {
        let token = TokenBuilder::for_issuer(KeySet::open(folder.path())?, idp.issuer());
        let token = token.subject("s").audience("gateway").algorithm(algorithm).sign();
        verify(&token, &published(&idp), idp.issuer()).unwrap();
    }
    for entry in folder.path().read_dir().unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    Ok(())
}
