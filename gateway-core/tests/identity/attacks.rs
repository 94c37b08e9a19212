//! Tokens made to deceive. Each stands here for good.

use std::sync::Arc;

use aws_lc_rs::hmac;
use gateway_core::clock::Timestamp;
use gateway_core::identity::oidc::{Algorithm, IssuerConfig, JwtAuthenticator, KeySource};
use gateway_core::identity::{Authenticator, Presented};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::idp::{AUDIENCE, Gate, Idp, NOW};
use super::signer::{Signer, encode, rsa_public_key_forms};

fn all_algorithms(idp: &Idp) -> Gate {
    let mut config = idp.config();
    config.algorithms = Algorithm::ALL.into();
    Gate::new(config)
}

#[tokio::test]
async fn hmac_with_the_public_key_as_secret() {
    let idp = Idp::start(&[Signer::Rsa.jwk("k")]).await;
    let gate = all_algorithms(&idp);
    gate.ask(&Signer::Rsa.token("k", &idp.claims())).await.unwrap();
    let hashes = [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)];
    for secret in rsa_public_key_forms() {
        for (name, hash) in hashes {
            let header = json!({"alg": name, "kid": "k"}).to_string();
            let signed =
                format!("{}.{}", encode(header.as_bytes()), encode(idp.claims().to_string().as_bytes()));
            let tag = hmac::sign(&hmac::Key::new(hash, &secret), signed.as_bytes());
            let refusal = gate.refusal(&format!("{signed}.{}", encode(tag.as_ref()))).await;
            assert!(refusal.contains("`alg`"), "{refusal}");
        }
    }
}

#[tokio::test]
async fn no_signature_at_all() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = all_algorithms(&idp);
    let claims = encode(idp.claims().to_string().as_bytes());
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(json!({"alg": alg, "kid": "k"}).to_string().as_bytes());
        for signature in ["", ".", ".AA", ".AAAA"] {
            gate.refusal(&format!("{header}.{claims}{signature}")).await;
        }
    }
    let header = encode(br#"{"alg":"ES256","kid":"k"}"#);
    for signature in [vec![0; 64], vec![0; 1], vec![0xff; 64], vec![0; 4096]] {
        let refusal = gate.refusal(&format!("{header}.{claims}.{}", encode(&signature))).await;
        assert!(refusal.contains("signature"), "{refusal}");
    }
    assert_eq!(idp.asked("/keys"), 1);
}

/// An algorithm the key is not for, though the issuer may use it with another key.
#[tokio::test]
async fn algorithms_are_bound_to_keys() {
    let (p256, p384, ed) = (Signer::p256(), Signer::p384(), Signer::ed25519());
    let mut only_pss = Signer::Rsa.jwk("pss");
    only_pss["alg"] = json!("PS256");
    let mut encryption = p256.jwk("enc");
    encryption["use"] = json!("enc");
    let idp = Idp::start(&[p256.jwk("p256"), p384.jwk("p384"), ed.jwk("ed"), only_pss, encryption]).await;
    let gate = all_algorithms(&idp);
    let table = [
        (&p256, "ES256", "ES384", "p256"),
        (&p256, "ES256", "ES256", "p384"),
        (&p384, "ES384", "ES256", "p384"),
        (&ed, "EdDSA", "ES256", "ed"),
        (&ed, "EdDSA", "EdDSA", "p256"),
        (&Signer::Rsa, "RS256", "RS256", "pss"),
        (&Signer::Rsa, "RS256", "PS256", "pss"),
        (&Signer::Rsa, "PS256", "RS256", "pss"),
        (&Signer::Rsa, "PS512", "PS512", "pss"),
        (&p256, "ES256", "ES256", "enc"),
    ];
    for (signer, signed_as, alg, kid) in table {
        let token = signer.token_as(signed_as, &json!({"alg": alg, "kid": kid}), &idp.claims());
        gate.refusal(&token).await;
    }
    let good = Signer::Rsa.token_as("PS256", &json!({"alg": "PS256", "kid": "pss"}), &idp.claims());
    gate.ask(&good).await.unwrap();
}

#[tokio::test]
async fn key_ids_are_names_and_nothing_else() {
    let (signer, attacker) = (Signer::p256(), Signer::p256());
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    let kids = [
        "../../../../etc/passwd",
        "/dev/null",
        "file:///dev/null",
        "http://127.0.0.1:1/keys",
        "k' OR '1'='1",
        "| touch /tmp/x",
        "k\0",
        "K",
        " k",
        "k ",
        "",
        "*",
        "\u{212a}",
    ];
    for kid in kids {
        assert!(gate.refusal(&attacker.token(kid, &idp.claims())).await.contains("no such key"), "{kid}");
        assert!(gate.refusal(&signer.token(kid, &idp.claims())).await.contains("no such key"), "{kid}");
    }
    for kid in [json!("k".repeat(257)), json!(1), json!(["k"]), json!({"k": 1}), json!(null)] {
        let token = signer.token_as("ES256", &json!({"alg": "ES256", "kid": kid}), &idp.claims());
        assert!(gate.refusal(&token).await.contains("`kid`"));
    }
    assert_eq!(idp.asked("/keys"), 1);
}

#[tokio::test]
async fn without_a_key_id_only_if_one_key_fits() {
    let (first, second) = (Signer::p256(), Signer::p256());
    let idp = Idp::start(&[first.jwk("a"), Signer::Rsa.jwk("b")]).await;
    let token = first.token_as("ES256", &json!({"alg": "ES256"}), &idp.claims());
    Gate::new(idp.config()).ask(&token).await.unwrap();
    idp.publish(&[first.jwk("a"), second.jwk("b")]);
    assert!(Gate::new(idp.config()).refusal(&token).await.contains("several keys"));
    idp.publish(&[first.jwk("a"), second.jwk("a")]);
    let named = first.token("a", &idp.claims());
    assert!(Gate::new(idp.config()).refusal(&named).await.contains("several keys"));
}

#[tokio::test]
async fn headers_that_bring_or_point_to_a_key() {
    let (signer, attacker) = (Signer::p256(), Signer::p256());
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let evil = Idp::start(&[attacker.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    let url = format!("{}/keys", evil.issuer);
    let headers = [
        json!({"jku": url}),
        json!({"x5u": url}),
        json!({"jwk": attacker.jwk("k")}),
        json!({"x5c": ["MIIB"]}),
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"b64": false, "crit": ["b64"]}),
        json!({"zip": "DEF"}),
        json!({"enc": "A256GCM"}),
        json!({"typ": "logout+jwt"}),
    ];
    for extra in headers {
        let mut header = json!({"alg": "ES256", "kid": "k"});
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        for by in [&attacker, &signer] {
            let refusal = gate.refusal(&by.token_as("ES256", &header, &idp.claims())).await;
            assert!(refusal.contains("header") || refusal.contains("`typ`"), "{header}: {refusal}");
        }
    }
    assert_eq!((evil.asked("/keys"), idp.asked("/keys")), (0, 0));
}

#[tokio::test]
async fn issuers_that_only_look_the_same() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    let good = idp.issuer.clone();
    let table = [
        json!(good.replace('o', "\u{43e}")),
        json!(good.replace("localhost", "LOCALHOST")),
        json!(good.replace("https", "http")),
        json!(format!("{good}/")),
        json!(format!("{good} ")),
        json!(format!(" {good}")),
        json!(format!("{good}\0")),
        json!(format!("{good}\u{200b}")),
        json!(format!("{good}/../evil")),
        json!(format!("{good}@evil.example")),
        json!([good]),
        json!({"iss": good}),
        json!(""),
        json!(null),
        json!(7),
    ];
    for iss in table {
        let mut claims = idp.claims();
        claims["iss"] = iss.clone();
        assert!(gate.refusal(&signer.token("k", &claims)).await.contains("issuer"), "{iss}");
    }
    assert_eq!(idp.asked("/keys"), 0, "an unknown issuer made the gateway fetch");
}

/// One issuer's key must not sign for another, nor its audience or algorithms count there.
#[tokio::test]
async fn issuers_do_not_vouch_for_each_other() {
    let (first, second) = (Signer::p256(), Signer::p256());
    let (one, two) = (Idp::start(&[first.jwk("k")]).await, Idp::start(&[second.jwk("k")]).await);
    let mut other = two.config();
    other.audiences = ["two".to_owned()].into();
    let authenticator = Arc::new(JwtAuthenticator::new(vec![one.config(), other]).unwrap());
    let ask = |token: String| {
        let authenticator = Arc::clone(&authenticator);
        async move {
            let shown = Presented::Token(token.as_str().into());
            authenticator.authenticate(&shown, Timestamp::from_seconds(NOW)).await.map_err(|e| e.to_string())
        }
    };
    let for_two = |mut claims: Value| {
        claims["aud"] = json!("two");
        claims
    };
    ask(first.token("k", &one.claims())).await.unwrap();
    ask(second.token("k", &for_two(two.claims()))).await.unwrap();
    assert!(ask(second.token("k", &one.claims())).await.unwrap_err().contains("signature"));
    assert!(ask(first.token("k", &for_two(two.claims()))).await.unwrap_err().contains("signature"));
    assert!(ask(second.token("k", &two.claims())).await.unwrap_err().contains("audience"));
    assert!(ask(first.token("k", &for_two(one.claims()))).await.unwrap_err().contains("audience"));
}

#[tokio::test]
async fn forms_a_lax_reader_would_take() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    let good = signer.token("k", &idp.claims());
    gate.ask(&good).await.unwrap();
    let parts: Vec<_> = good.split('.').collect();
    let standard = |text: &str| text.replace('-', "+").replace('_', "/");
    let forms = [
        format!("{good}garbage!"),
        format!("{good}\n"),
        format!("{good} "),
        format!("{good}\0"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good}."),
        format!("{good}.{}", parts[2]),
        format!("{good},{good}"),
        format!("Bearer {good}"),
        format!(" {good}"),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}..{}.{}", parts[0], parts[1], parts[2]),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}\n.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}+", parts[0], parts[1], standard(parts[2])),
        format!("{}.{}.{}", parts[2], parts[1], parts[0]),
        json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string(),
        format!("{good}{}", "A".repeat(64 * 1024)),
        String::new(),
    ];
    for form in forms {
        gate.refusal(&form).await;
    }
    // Refused by its length before anything is read.
    for huge in ["a".repeat(64 * 1024 + 1), ".".repeat(64 * 1024 + 1)] {
        assert!(gate.refusal(&huge).await.contains("larger than allowed"));
    }
    let twice = [
        format!(
            r#"{{"iss":"{0}","iss":"{0}","sub":"s","aud":"{AUDIENCE}","exp":{1}}}"#,
            idp.issuer,
            NOW + 60
        ),
        format!(r#"{{"iss":"{0}","sub":"a","sub":"b","aud":"{AUDIENCE}","exp":{1}}}"#, idp.issuer, NOW + 60),
        format!(
            r#"{{"iss":"{0}","sub":"a","s\u0075b":"b","aud":"{AUDIENCE}","exp":{1}}}"#,
            idp.issuer,
            NOW + 60
        ),
    ];
    for claims in twice {
        let token = signer.token_of_text("ES256", r#"{"alg":"ES256","kid":"k"}"#, &claims);
        assert!(gate.refusal(&token).await.contains("compact form"));
    }
}

#[tokio::test]
async fn the_size_limit_is_each_issuers_own() {
    let signer = Signer::p256();
    let (small, large) = (Idp::start(&[signer.jwk("k")]).await, Idp::start(&[signer.jwk("k")]).await);
    let mut limited = small.config();
    limited.max_token_bytes = 1024;
    let authenticator = JwtAuthenticator::new(vec![limited, large.config()]).unwrap();
    for (idp, accepted) in [(&small, false), (&large, true)] {
        let mut claims = idp.claims();
        claims["padding"] = json!("x".repeat(1024));
        let shown = Presented::Token(signer.token("k", &claims).as_str().into());
        let outcome = authenticator.authenticate(&shown, Timestamp::from_seconds(NOW)).await;
        assert_eq!(outcome.is_ok(), accepted, "{outcome:?}");
    }
}

#[tokio::test]
async fn refusals_never_repeat_the_token() {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let gate = Gate::new(idp.config());
    let canary = "canary-5f1d";
    let mut claims = idp.claims();
    claims["aud"] = json!(canary);
    claims["secret"] = json!(canary);
    for token in [signer.token("k", &claims), signer.token(canary, &claims), canary.to_owned()] {
        let refusal = gate.refusal(&token).await;
        let signature = token.rsplit('.').next().unwrap();
        assert!(!refusal.contains(canary) && !refusal.contains(signature), "{refusal}");
    }
    assert!(!format!("{:?}", Presented::Token(canary.into())).contains(canary));
}

/// Keys from a file and a runtime, for properties.
struct Bench {
    runtime: tokio::runtime::Runtime,
    gate: Gate,
    signer: Signer,
    good: String,
    _keys: tempfile::NamedTempFile,
}

impl Bench {
    fn new() -> Self {
        let signer = Signer::p256();
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), json!({"keys": [signer.jwk("k")]}).to_string()).unwrap();
        let config = IssuerConfig::new("local", AUDIENCE, KeySource::JwksFile(keys.path().to_owned()));
        let claims = json!({"iss": "local", "sub": "s", "aud": AUDIENCE, "exp": NOW + 60,
            "act": {"sub": "planner"}});
        let good = signer.token("k", &claims);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, gate: Gate::new(config), signer, good, _keys: keys }
    }

    fn accepts(&self, token: &str) -> bool {
        self.runtime.block_on(self.gate.ask(token)).is_ok()
    }
}

thread_local! {
    static BENCH: Bench = Bench::new();
}

#[test]
fn the_bench_accepts_its_good_token() {
    BENCH.with(|bench| assert!(bench.accepts(&bench.good)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_text_is_never_a_token(text in "\\PC{0,200}|[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(!BENCH.with(|bench| bench.accepts(&text)));
    }

    #[test]
    fn a_changed_token_is_never_accepted(at: prop::sample::Index, to in "[A-Za-z0-9_.=+/ -]") {
        let refused = BENCH.with(|bench| {
            let at = at.index(bench.good.len());
            let mut changed = bench.good.clone();
            changed.replace_range(at..=at, &to);
            changed == bench.good || !bench.accepts(&changed)
        });
        prop_assert!(refused);
    }

    #[test]
    fn a_cut_or_grown_token_is_never_accepted(at: prop::sample::Index, piece in "[A-Za-z0-9_.]{1,8}") {
        let refused = BENCH.with(|bench| {
            let at = at.index(bench.good.len());
            let (head, tail) = bench.good.split_at(at);
            !bench.accepts(head) && !bench.accepts(&format!("{head}{piece}{tail}"))
        });
        prop_assert!(refused);
    }

    /// Signed by somebody else, with whatever header and claims.
    #[test]
    fn anothers_signature_is_never_accepted(
        alg in prop::sample::select(vec!["ES256", "ES384", "RS256", "EdDSA", "none", "HS256"]),
        kid in prop::option::of("[a-z./]{0,6}"),
        exp in any::<i64>(),
    ) {
        let attacker = Signer::p256();
        let mut header = json!({"alg": alg});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        let claims = json!({"iss": "local", "sub": "s", "aud": AUDIENCE, "exp": exp});
        let token = attacker.token_as("ES256", &header, &claims);
        prop_assert!(!BENCH.with(|bench| bench.accepts(&token)));
    }

    /// Signed by the issuer, but with claims of any shape: never a panic, and never in without subject and audience.
    #[test]
    fn claims_of_any_shape(sub in value(), aud in value(), exp in value(), act in value()) {
        let accepted = BENCH.with(|bench| {
            let claims = json!({"iss": "local", "sub": sub, "aud": aud, "exp": exp, "act": act});
            bench.accepts(&bench.signer.token("k", &claims))
        });
        prop_assert!(!accepted || (sub.is_string() && (aud == AUDIENCE || aud.is_array()) && exp.is_number()));
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(NOW + 60)),
        Just(json!(AUDIENCE)),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop_oneof!["sub", "act", "iss"], inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
