//! What claims become.

use gateway_core::clock::Timestamp;
use gateway_core::identity::oidc::{Algorithm, Delegation, IssuerConfig, KindRule};
use gateway_core::identity::{Actor, IdentityError, Phase, Principal, PrincipalKind, verify};
use gateway_core::identity::{AnyAuthenticator, Authenticator, Presented};
use serde_json::{Value, json};
use std::sync::Arc;

use super::idp::{AUDIENCE, Gate, Idp, NOW};
use super::signer::Signer;

struct World {
    idp: Idp,
    signer: Signer,
    gate: Gate,
}

async fn world(configure: impl FnOnce(&mut IssuerConfig)) -> World {
    let signer = Signer::p256();
    let idp = Idp::start(&[signer.jwk("k")]).await;
    let mut config = idp.config();
    configure(&mut config);
    World { idp, signer, gate: Gate::new(config) }
}

impl World {
    /// Good claims with these put over them; null takes a claim away.
    async fn with(&self, over: Value) -> Result<Principal, IdentityError> {
        let mut claims = self.idp.claims();
        for (name, value) in over.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.gate.ask(&self.signer.token("k", &claims)).await
    }
}

#[tokio::test]
async fn every_algorithm_verifies_when_allowed() {
    let signers = [Signer::Rsa, Signer::p256(), Signer::p384(), Signer::ed25519()];
    let jwks: Vec<_> = signers.iter().zip(["rsa", "p256", "p384", "ed"]).map(|(s, kid)| s.jwk(kid)).collect();
    let idp = Idp::start(&jwks).await;
    let mut config = idp.config();
    config.algorithms = Algorithm::ALL.into();
    let all = Gate::new(config);
    for algorithm in Algorithm::ALL {
        let (signer, kid) = match algorithm {
            Algorithm::Es256 => (&signers[1], "p256"),
            Algorithm::Es384 => (&signers[2], "p384"),
            Algorithm::EdDsa => (&signers[3], "ed"),
            _ => (&signers[0], "rsa"),
        };
        let name = algorithm.as_str();
        let token = signer.token_as(name, &json!({"alg": name, "kid": kid}), &idp.claims());
        assert_eq!(all.ask(&token).await.map(|p| p.actor.subject), Ok("agent-7".into()), "{name}");
        // The same token where the issuer may only use another algorithm.
        let mut config = idp.config();
        config.algorithms = Algorithm::ALL.into_iter().filter(|other| *other != algorithm).collect();
        assert!(Gate::new(config).refusal(&token).await.contains("may not sign"), "{name}");
    }
}

#[tokio::test]
async fn plain_claims() {
    let world = world(|_| ()).await;
    let principal = world.with(json!({"groups": ["admins"]})).await.unwrap();
    assert_eq!(principal.actor, Actor { issuer: world.idp.issuer.clone(), subject: "agent-7".into() });
    assert_eq!((principal.kind, principal.phase), (PrincipalKind::Agent, Phase::Other));
    assert!(principal.groups.is_empty(), "groups from a claim nobody configured");
    assert!(principal.actor_chain.is_empty() && principal.claims.is_empty());
    assert_eq!(principal.expires_at, Timestamp::from_seconds(NOW + 600 + 30));
}

#[tokio::test]
async fn groups_in_every_shape() {
    let flat = world(|c| c.claims.groups = Some("groups".parse().unwrap())).await;
    let nested = world(|c| {
        c.claims.groups = Some("realm_access.roles".parse().unwrap());
        c.claims.group_prefix = "kc:".into();
    })
    .await;
    let groups = |p: Principal| p.groups.into_iter().collect::<Vec<_>>().join("|");
    let table = [
        (&flat, json!({}), "", true),
        (&flat, json!({"groups": []}), "", true),
        (&flat, json!({"groups": "dba"}), "dba", true),
        (&flat, json!({"groups": "dba ops"}), "dba ops", true),
        (&flat, json!({"groups": ["ops", "dba", "dba"]}), "dba|ops", true),
        (&nested, json!({"realm_access": {"roles": ["a", "b"]}}), "kc:a|kc:b", true),
        (&nested, json!({"realm_access": {"roles": "a"}}), "kc:a", true),
        (&nested, json!({"realm_access": "a", "roles": ["b"]}), "", true),
        (&flat, json!({"groups": {"dba": true}}), "", false),
        (&flat, json!({"groups": ["dba", 1]}), "", false),
        (&flat, json!({"groups": [["dba"]]}), "", false),
        (&flat, json!({"groups": ["dba\u{202e}"]}), "", false),
        (&flat, json!({"groups": [""]}), "", false),
        (&flat, json!({"groups": 7}), "", false),
        (&flat, json!({"groups": (0..1025).map(|i| i.to_string()).collect::<Vec<_>>()}), "", false),
    ];
    for (world, claims, expected, accepted) in table {
        let outcome = world.with(claims.clone()).await;
        assert_eq!(outcome.is_ok(), accepted, "{claims}");
        assert_eq!(outcome.map(groups).unwrap_or_default(), expected, "{claims}");
    }
}

#[tokio::test]
async fn kind_phase_task_plan_and_further_claims() {
    let world = world(|c| {
        c.claims.kind = KindRule::Claim { path: "kind".parse().unwrap(), otherwise: None };
        c.claims.phase = Some("phase".parse().unwrap());
        c.claims.task = Some("/job.v1/task".parse().unwrap());
        c.claims.plan = Some("plan".parse().unwrap());
        for name in ["repository", "run", "protected"] {
            c.claims.extra.insert(name.into(), name.parse().unwrap());
        }
    })
    .await;
    let full = json!({"kind": "service", "phase": "execute", "job.v1": {"task": "t"}, "plan": "p",
        "repository": "acme/app", "run": 17, "protected": true, "secret": "not mapped"});
    let principal = world.with(full).await.unwrap();
    assert_eq!((principal.kind, principal.phase), (PrincipalKind::Service, Phase::Execute));
    assert_eq!((principal.task.as_deref(), principal.plan.as_deref()), (Some("t"), Some("p")));
    let claims: Vec<_> = principal.claims.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(claims, ["protected=true", "repository=acme/app", "run=17"]);

    let refused = [
        json!({}),
        json!({"kind": "Human"}),
        json!({"kind": "admin"}),
        json!({"kind": ["human"]}),
        json!({"kind": "agent", "phase": "EXECUTE"}),
        json!({"kind": "agent", "phase": 1}),
        json!({"kind": "agent", "plan": ""}),
        json!({"kind": "agent", "plan": {"id": 1}}),
        json!({"kind": "agent", "plan": "x".repeat(2000)}),
        json!({"kind": "agent", "repository": ["a"]}),
        json!({"kind": "agent", "repository": "a\nb"}),
    ];
    for claims in refused {
        assert!(world.with(claims.clone()).await.is_err(), "{claims}");
    }
}

#[tokio::test]
async fn actor_chains() {
    let world = world(|_| ()).await;
    let chain = |depth: usize| {
        (0..depth).rev().fold(Value::Null, |inner, i| match inner {
            Value::Null => json!({"sub": format!("a{i}")}),
            inner => json!({"sub": format!("a{i}"), "act": inner}),
        })
    };
    let principal = world.with(json!({"act": chain(8)})).await.unwrap();
    assert_eq!(principal.actor_chain.len(), 8);
    let named = |issuer: &str, subject: &str| Actor { issuer: issuer.into(), subject: subject.into() };
    assert_eq!(principal.actor_chain[0], named(&world.idp.issuer, "a0"));
    assert_eq!(principal.actor_chain[7], named(&world.idp.issuer, "a7"));
    let elsewhere =
        world.with(json!({"act": {"iss": "https://hr.example", "sub": "ann", "exp": 1}})).await.unwrap();
    assert_eq!(elsewhere.actor_chain, [named("https://hr.example", "ann")]);
    assert!(elsewhere.involves(&named("https://hr.example", "ann")));

    let refused = [
        json!({"act": chain(9)}),
        json!({"act": chain(120)}),
        json!({"act": "ann"}),
        json!({"act": {}}),
        json!({"act": {"sub": ""}}),
        json!({"act": {"sub": 1}}),
        json!({"act": {"sub": "a", "iss": null}}),
        json!({"act": {"sub": "a", "act": null}}),
        json!({"act": [{"sub": "a"}]}),
    ];
    for claims in refused {
        assert!(world.with(claims.clone()).await.is_err(), "{claims}");
    }
}

#[tokio::test]
async fn workloads_come_only_from_the_trust_domain_of_the_issuer() {
    let id = "spiffe://prod.example/ns/agents/sa/x";
    let plain = world(|_| ()).await;
    assert_eq!(plain.with(json!({"sub": id})).await.unwrap().workload, None);
    let spiffe = world(|c| c.claims.trust_domain = Some("prod.example".parse().unwrap())).await;
    assert_eq!(spiffe.with(json!({"sub": id})).await.unwrap().workload.as_deref(), Some(id));
    assert_eq!(spiffe.with(json!({"sub": "agent"})).await.unwrap().workload, None);
    for sub in
        ["spiffe://other.example/ns", "spiffe://prod.example", "spiffe://prod.example/a/../b", "spiffe:x"]
    {
        assert!(spiffe.with(json!({"sub": sub})).await.is_err(), "{sub}");
    }
}

#[tokio::test]
async fn time_audience_and_subject() {
    let world = world(|c| c.audiences = [AUDIENCE.to_owned(), "second".to_owned()].into()).await;
    let accepted = [
        json!({"aud": "second"}),
        json!({"aud": ["other", AUDIENCE]}),
        json!({"exp": NOW - 29, "iat": NOW - 100}),
        json!({"exp": NOW as f64 + 0.5}),
        json!({"nbf": NOW + 30, "iat": NOW + 30}),
        json!({"iat": null}),
        json!({"exp": NOW + 86_400}),
        json!({"sub": "x".repeat(2048)}),
    ];
    for claims in accepted {
        let outcome = world.with(claims.clone()).await;
        assert!(outcome.is_ok(), "{claims}: {outcome:?}");
    }
    let refused = [
        (json!({"aud": null}), "audience"),
        (json!({"aud": ""}), "audience"),
        (json!({"aud": []}), "audience"),
        (json!({"aud": ["other"]}), "audience"),
        (json!({"aud": [AUDIENCE, 7]}), "audience"),
        (json!({"aud": {"gateway": 1}}), "audience"),
        (json!({"aud": "Gateway"}), "audience"),
        (json!({"aud": "gateway "}), "audience"),
        (json!({"exp": null}), "no `exp`"),
        (json!({"exp": "9999999999"}), "not a date"),
        (json!({"exp": -1}), "not a date"),
        (json!({"exp": 1e300}), "not a date"),
        (json!({"exp": u64::MAX}), "not a date"),
        (json!({"exp": i64::MAX}), "not a date"),
        (json!({"exp": true}), "not a date"),
        (json!({"exp": NOW - 30, "iat": NOW - 100}), "expired"),
        (json!({"exp": 0}), "expired"),
        (json!({"nbf": NOW + 31}), "not valid yet"),
        (json!({"nbf": 253_402_300_799_i64}), "not valid yet"),
        (json!({"nbf": "now"}), "not a date"),
        (json!({"iat": NOW + 31}), "in the future"),
        (json!({"exp": NOW + 86_401}), "lifetime"),
        (json!({"iat": NOW - 86_400}), "lifetime"),
        (json!({"iat": null, "exp": NOW + 86_401}), "lifetime"),
        (json!({"sub": null}), "no `sub`"),
        (json!({"sub": ""}), "`sub`"),
        (json!({"sub": 7}), "`sub`"),
        (json!({"sub": "a\nb"}), "`sub`"),
        (json!({"sub": "x".repeat(2049)}), "`sub`"),
    ];
    for (claims, cause) in refused {
        let outcome = world.with(claims.clone()).await.unwrap_err().to_string();
        assert!(outcome.contains(cause), "{claims}: {outcome}");
    }
}

/// The session dies with the token: what the pipeline asks sees the end, leeway included.
#[tokio::test]
async fn an_expired_token_is_refused_by_the_same_gate_later() {
    let world = world(|_| ()).await;
    let token = world.signer.token("k", &world.idp.claims());
    let any = AnyAuthenticator::new();
    let shown = Presented::Token(token.as_str().into());
    assert!(any.authenticate(&shown, Timestamp::from_seconds(NOW)).await.is_err());
    let Gate { authenticator, clock } = world.gate;
    let any = any.tokens(Arc::new(authenticator));
    let verified = verify(&any, &shown, &clock).await.unwrap();
    assert_eq!(verified.expires_at, Timestamp::from_seconds(NOW + 630));
    clock.advance(std::time::Duration::from_secs(629));
    assert!(verify(&any, &shown, &clock).await.is_ok());
    clock.advance(std::time::Duration::from_secs(1));
    let expired = IdentityError::Expired(Timestamp::from_seconds(NOW + 600));
    assert_eq!(verify(&any, &shown, &clock).await.unwrap_err(), expired);
}

#[tokio::test]
async fn exchanged_tokens_name_the_acting_party_in_act() {
    let world = world(|config| config.claims.delegation = Delegation::SubjectIsActedFor).await;
    let named = |subject: &str| Actor { issuer: world.idp.issuer.clone(), subject: subject.into() };
    // RFC 8693 section 4.1: the subject is acted for, the outermost actor acts, inner ones acted before.
    let claims = json!({"sub": "ann", "act": {"sub": "executor", "act": {"sub": "planner"}}});
    let principal = world.with(claims).await.unwrap();
    assert_eq!(principal.actor, named("executor"));
    assert_eq!(principal.actor_chain, [named("planner"), named("ann")]);
    let own = world.with(json!({"sub": "ann"})).await.unwrap();
    assert_eq!((own.actor, own.actor_chain), (named("ann"), vec![]));
    let foreign = json!({"sub": "ann", "act": {"iss": "https://hr.example", "sub": "executor"}});
    assert!(world.with(foreign).await.is_err());
}
