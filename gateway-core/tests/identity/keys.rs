//! Keys over their life: discovery, rotation, floods, an issuer that is down, wrong or hostile.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use gateway_core::identity::IdentityError;
use gateway_core::identity::oidc::{
    ConfigError, IssuerConfig, JwtAuthenticator, KeyHost, KeySource, PlainHttp, Roots,
};
use serde_json::{Value, json};

use super::idp::{AUDIENCE, Gate, Idp, NOW};
use super::signer::Signer;

const KEYS: &str = "/keys";
const DISCOVERY: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn keys_are_fetched_once_and_used_again() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    assert_eq!(idp.asked(DISCOVERY), 0);
    for _ in 0..20 {
        gate.ask(&signer.token("k", &idp.claims())).await.unwrap();
    }
    assert_eq!((idp.asked(DISCOVERY), idp.asked(KEYS)), (1, 1));
    assert_eq!(gate.authenticator.issuers().collect::<Vec<_>>(), [idp.issuer.as_str()]);
}

#[tokio::test]
async fn a_new_key_is_found_and_the_old_one_ends() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let idp = Idp::start(&[old.jwk("old")]).await;
    let gate = Gate::new(idp.config());
    gate.ask(&old.token("old", &idp.claims())).await.unwrap();

    idp.publish(&[old.jwk("old"), new.jwk("new")]);
    gate.advance(11);
    gate.ask(&new.token("new", &idp.claims())).await.unwrap();
    gate.ask(&old.token("old", &idp.claims())).await.unwrap();
    assert_eq!(idp.asked(KEYS), 2);

    idp.publish(&[new.jwk("new")]);
    gate.advance(590);
    gate.ask(&old.token("old", &idp.claims())).await.unwrap();
    assert_eq!(idp.asked(KEYS), 2, "still within the maximum age");
    gate.advance(10);
    assert!(gate.refusal(&old.token("old", &idp.claims())).await.contains("no such key"));
    gate.ask(&new.token("new", &idp.claims())).await.unwrap();
    assert_eq!(idp.asked(KEYS), 3);
}

/// A key id taken over by another key: the old key must not live on under it.
#[tokio::test]
async fn a_reused_key_id_means_the_new_key() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let idp = Idp::start(&[old.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    gate.ask(&old.token("k", &idp.claims())).await.unwrap();
    idp.publish(&[new.jwk("k")]);
    gate.advance(600);
    assert!(gate.refusal(&old.token("k", &idp.claims())).await.contains("signature"));
    gate.ask(&new.token("k", &idp.claims())).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_asks_the_issuer_once_an_interval() {
    let (signer, attacker) = (Signer::p256(), Signer::p256());
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    gate.ask(&signer.token("k", &idp.claims())).await.unwrap();
    for round in 1..=3 {
        gate.advance(10);
        for i in 0..200 {
            let token = attacker.token(&format!("unknown-{round}-{i}"), &idp.claims());
            assert!(gate.refusal(&token).await.contains("no such key"));
        }
        assert_eq!(idp.asked(KEYS), 1 + round);
    }
    gate.ask(&signer.token("k", &idp.claims())).await.unwrap();
}

#[tokio::test]
async fn all_who_wait_share_one_fetch() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = std::sync::Arc::new(Gate::new(idp.config()));
    let held = idp.hold().await;
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (gate, token) = (gate.clone(), signer.token("k", &idp.claims()));
            tokio::spawn(async move { gate.ask(&token).await })
        })
        .collect();
    idp.request_arrived().await;
    drop(held);
    for asked in waiting {
        asked.await.unwrap().unwrap();
    }
    assert_eq!((idp.asked(DISCOVERY), idp.asked(KEYS)), (1, 1));
}

/// One whose wait began after the interval was over still takes the answer that came meanwhile.
#[tokio::test]
async fn a_late_waiter_shares_a_slow_fetch() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    let (known, unknown) = (signer.token("k", &idp.claims()), signer.token("unknown", &idp.claims()));
    let held = idp.hold().await;
    let mut first = std::pin::pin!(gate.ask(&known));
    tokio::select! {
        biased;
        () = idp.request_arrived() => {}
        outcome = &mut first => panic!("answered while held: {outcome:?}"),
    }
    gate.advance(20);
    let mut late = std::pin::pin!(gate.ask(&unknown));
    tokio::select! {
        biased;
        outcome = &mut late => panic!("answered while held: {outcome:?}"),
        () = std::future::ready(()) => {}
    }
    drop(held);
    let (first, late) = tokio::join!(first, late);
    assert!(first.is_ok() && late.is_err(), "{first:?} {late:?}");
    assert_eq!((idp.asked(DISCOVERY), idp.asked(KEYS)), (1, 1));
}

/// A client that hangs up while it waits must not take the fetch, and the interval, away from the others.
#[tokio::test]
async fn hanging_up_does_not_cancel_the_fetch() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    let token = signer.token("k", &idp.claims());
    let held = idp.hold().await;
    tokio::select! {
        biased;
        () = idp.request_arrived() => {}
        outcome = gate.ask(&token) => panic!("answered while held: {outcome:?}"),
    }
    drop(held);
    gate.ask(&token).await.unwrap();
    assert_eq!(idp.asked(DISCOVERY), 1);
}

#[tokio::test]
async fn old_keys_serve_a_bounded_time_while_the_issuer_is_down() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let mut config = idp.config();
    config.cache.stale_for = Duration::from_secs(1800);
    let gate = Gate::new(config);
    let token = signer.token("k", &{
        let mut claims = idp.claims();
        claims["exp"] = json!(NOW + 80_000);
        claims
    });
    gate.ask(&token).await.unwrap();
    idp.go_down();
    gate.advance(600 + 1799);
    gate.ask(&token).await.unwrap();
    gate.advance(1);
    let refused = gate.ask(&token).await;
    assert!(matches!(refused, Err(IdentityError::IssuerUnavailable { .. })), "{refused:?}");
    idp.come_back();
    assert!(gate.ask(&token).await.is_err(), "asked again within the interval");
    gate.advance(10);
    gate.ask(&token).await.unwrap();
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_and_recovery_is_by_itself() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    idp.go_down();
    let gate = Gate::new(idp.config());
    let now = gateway_core::clock::Timestamp::from_seconds(NOW);
    assert!(gate.authenticator.prefetch(now).await.is_err());
    let refused = gate.ask(&signer.token("k", &idp.claims())).await;
    assert!(matches!(refused, Err(IdentityError::IssuerUnavailable { .. })), "{refused:?}");
    idp.come_back();
    gate.advance(10);
    gate.ask(&signer.token("k", &idp.claims())).await.unwrap();
}

/// A clock that was set back must not keep withdrawn keys fresh until it has caught up.
#[tokio::test]
async fn a_clock_set_back_fetches_again() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let idp = Idp::start(&[old.jwk("old")]).await;
    let Gate { authenticator, .. } = Gate::new(idp.config());
    let at = |seconds| gateway_core::clock::Timestamp::from_seconds(NOW + seconds);
    authenticator.prefetch(at(1_000_000)).await.unwrap();
    idp.publish(&[new.jwk("new")]);
    authenticator.prefetch(at(0)).await.unwrap();
    assert_eq!(idp.asked(KEYS), 2);
}

#[tokio::test]
async fn an_issuer_that_never_answers_costs_the_fetch_timeout() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let mut config = idp.config();
    config.cache.fetch_timeout = Duration::from_millis(50);
    let gate = Gate::new(config);
    let _held = idp.hold().await;
    assert!(gate.refusal(&signer.token("k", &idp.claims())).await.contains("no answer in time"));
}

#[tokio::test]
async fn another_ca_is_refused() {
    let signer = Signer::p256();
    let (idp, other) = (Idp::start(&[signer.jwk("k")]).await, Idp::start(&[]).await);
    let mut config = idp.config();
    config.roots = other.config().roots;
    let refusal = Gate::new(config).refusal(&signer.token("k", &idp.claims())).await;
    assert!(refusal.contains("certificate"), "{refusal}");
    let mut config = idp.config();
    config.roots = Roots::System;
    if let Ok(authenticator) = JwtAuthenticator::new(vec![config]) {
        let now = gateway_core::clock::Timestamp::from_seconds(NOW);
        assert!(authenticator.prefetch(now).await.is_err(), "a private CA among the system's roots");
    }
    assert_eq!((idp.asked(DISCOVERY), other.asked(DISCOVERY)), (0, 0));
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let mut config = idp.config();
    config.keys = KeySource::JwksUrl(format!("{}/keys", idp.issuer.replace("localhost", "127.0.0.1")));
    assert!(Gate::new(config).ask(&signer.token("k", &idp.claims())).await.is_err());
    assert_eq!(idp.asked(KEYS), 0);
}

/// Every other host here is up, trusted and has the right keys: only the rule keeps the gateway from asking it.
#[tokio::test]
async fn discovery_leads_where_it_may() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let elsewhere = Idp::start(&[signer.jwk("k")]).await;
    let plain = Idp::start_plain(&[signer.jwk("k")]).await;
    let (mut config, _roots) = idp.config_trusting(&elsewhere);
    config.plain_http = PlainHttp::Loopback;
    let token = signer.token("k", &idp.claims());
    let keys_at = |host: &Idp| json!({"issuer": idp.issuer, "jwks_uri": format!("{}/keys", host.issuer)});

    config.key_host = KeyHost::Issuer;
    Gate::new(config.clone()).ask(&token).await.unwrap();
    idp.describe(&keys_at(&elsewhere));
    assert!(Gate::new(config.clone()).refusal(&token).await.contains("another host"));
    assert_eq!(elsewhere.asked(KEYS), 0);
    config.key_host = KeyHost::Any;
    Gate::new(config.clone()).ask(&token).await.unwrap();
    assert_eq!(elsewhere.asked(KEYS), 1);
    idp.describe(&keys_at(&plain));
    assert!(Gate::new(config).refusal(&token).await.contains("from https to http"));
    assert_eq!(plain.asked(KEYS), 0);
}

#[tokio::test]
async fn documents_that_are_not_believed() {
    let signer = Signer::p256();
    let good = json!({"keys": [signer.jwk("k")]}).to_string();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let elsewhere = Idp::start(&[signer.jwk("k")]).await;
    let keys_at = |url: String| json!({"issuer": idp.issuer, "jwks_uri": url}).to_string();
    let discovery = [
        json!({"issuer": elsewhere.issuer, "jwks_uri": format!("{}/keys", idp.issuer)}).to_string(),
        json!({"issuer": format!("{}/", idp.issuer), "jwks_uri": format!("{}/keys", idp.issuer)}).to_string(),
        json!({"jwks_uri": format!("{}/keys", idp.issuer)}).to_string(),
        json!({"issuer": idp.issuer}).to_string(),
        keys_at("file:///etc/passwd".into()),
        keys_at("/keys".into()),
        keys_at(String::new()),
        "[]".into(),
        String::new(),
    ];
    for document in discovery {
        idp.answer(DISCOVERY, 200, &[], document.clone());
        let (config, _roots) = idp.config_trusting(&elsewhere);
        let refused = Gate::new(config).ask(&signer.token("k", &idp.claims())).await;
        assert!(matches!(refused, Err(IdentityError::IssuerUnavailable { .. })), "{document}: {refused:?}");
    }
    assert_eq!((idp.asked(KEYS), elsewhere.asked(KEYS)), (0, 0));

    let padded = format!("{good}{}", " ".repeat(256 * 1024));
    let to_elsewhere = [("location", format!("{}/keys", elsewhere.issuer))];
    let encoded = [("content-encoding", "gzip".to_owned())];
    let none = [].as_slice();
    let answers = [
        (302, to_elsewhere.as_slice(), ""),
        (307, &to_elsewhere, good.as_str()),
        (404, none, &good),
        (500, none, &good),
        (204, none, ""),
        (200, none, "not json"),
        (200, none, r#"{"keys":"none"}"#),
        (200, &encoded, &good),
        (200, none, &padded),
    ];
    let (mut config, _roots) = idp.config_trusting(&elsewhere);
    config.keys = KeySource::JwksUrl(format!("{}/keys", idp.issuer));
    for (status, headers, body) in answers {
        idp.answer(KEYS, status, headers, body.to_owned());
        let refused = Gate::new(config.clone()).ask(&signer.token("k", &idp.claims())).await;
        assert!(matches!(refused, Err(IdentityError::IssuerUnavailable { .. })), "{status} {headers:?}");
    }
    assert_eq!(elsewhere.asked(KEYS), 0, "a redirect was followed");
    idp.answer(KEYS, 200, &[], good);
    Gate::new(config).ask(&signer.token("k", &idp.claims())).await.unwrap();
}

/// A malformed answer leaves the keys that were there; an empty set takes them away.
#[tokio::test]
async fn garbage_keeps_the_old_keys_but_an_empty_set_does_not() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    let token = signer.token("k", &{
        let mut claims = idp.claims();
        claims["exp"] = json!(NOW + 80_000);
        claims
    });
    gate.ask(&token).await.unwrap();
    idp.answer(KEYS, 200, &[], "<html>");
    gate.advance(600);
    gate.ask(&token).await.unwrap();
    idp.publish(&[]);
    gate.advance(10);
    assert!(gate.refusal(&token).await.contains("no such key"));
}

#[tokio::test]
async fn plain_http_only_where_chosen_and_only_on_loopback() {
    let signer = Signer::p256();
    let idp = Idp::start_plain(&[signer.jwk("k")]).await;
    assert!(matches!(JwtAuthenticator::new(vec![idp.config()]), Err(ConfigError::Invalid { .. })));
    let mut config = idp.config();
    config.plain_http = PlainHttp::Loopback;
    Gate::new(config.clone()).ask(&signer.token("k", &idp.claims())).await.unwrap();
    config.issuer = "http://idp.example".into();
    assert!(matches!(JwtAuthenticator::new(vec![config]), Err(ConfigError::Invalid { .. })));
}

#[tokio::test]
async fn configurations_that_cannot_work() {
    let discovered = || IssuerConfig::new("https://idp.example", AUDIENCE, KeySource::Discovery);
    let empty = tempfile::NamedTempFile::new().unwrap();
    let issuer = |name: &str| IssuerConfig::new(name, AUDIENCE, KeySource::Discovery);
    let mut relative = discovered();
    relative.keys = KeySource::JwksUrl("keys".into());
    let (mut without_file, mut without_roots) = (discovered(), discovered());
    without_file.roots = Roots::PemFile("/nonexistent/ca.pem".into());
    without_roots.roots = Roots::PemFile(empty.path().to_owned());
    let configs = [
        issuer("idp.example"),
        issuer("https://idp.example/?tenant=1"),
        relative,
        without_file,
        without_roots,
    ];
    for (i, config) in configs.into_iter().enumerate() {
        assert!(JwtAuthenticator::new(vec![config]).is_err(), "configuration {i}");
    }
    let local = || IssuerConfig::new("local", AUDIENCE, KeySource::JwksFile("keys.json".into()));
    let twice = JwtAuthenticator::new(vec![local(), local()]);
    assert_eq!(twice.err(), Some(ConfigError::Duplicate("local".into())));
    assert_eq!(JwtAuthenticator::new(Vec::new()).err(), Some(ConfigError::NoIssuer));
}

fn write_keys(path: &Path, keys: &[Value]) {
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
}

#[tokio::test]
async fn a_file_of_keys_is_read_again() {
    let (old, new) = (Signer::ed25519(), Signer::ed25519());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    let gate = Gate::new(IssuerConfig::new("local", AUDIENCE, KeySource::JwksFile(path.clone())));
    let claims = json!({"iss": "local", "sub": "s", "aud": AUDIENCE, "exp": NOW + 80_000});
    let (by_old, by_new) = (old.token("old", &claims), new.token("new", &claims));

    assert!(matches!(gate.ask(&by_old).await, Err(IdentityError::IssuerUnavailable { .. })));
    write_keys(&path, &[old.jwk("old")]);
    gate.advance(1);
    gate.ask(&by_old).await.unwrap();
    write_keys(&path, &[new.jwk("new")]);
    gate.advance(1);
    gate.ask(&by_new).await.unwrap();
    assert!(gate.refusal(&by_old).await.contains("no such key"));
    // Half-written: the keys that were there serve until the file is whole, or the time is up.
    std::fs::write(&path, r#"{"keys":["#).unwrap();
    gate.advance(2);
    gate.ask(&by_new).await.unwrap();
    gate.advance(10);
    assert!(matches!(gate.ask(&by_new).await, Err(IdentityError::IssuerUnavailable { .. })));
}
