//! Counters and events: their names are promised, and tokens are not in them. A binary of its own, because `tracing`
//! remembers for the whole process whether anybody listens to an event.
#![cfg(feature = "oidc")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

#[path = "identity/signer.rs"]
#[allow(dead_code, reason = "shared with the other tests of tokens")]
mod signer;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use gateway_core::clock::Timestamp;
use gateway_core::identity::oidc::{IssuerConfig, JwtAuthenticator, KeySource};
use gateway_core::identity::{Authenticator, Presented};
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::json;
use signer::Signer;

/// 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600;

#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

struct Count(String, Counts);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        *self.1.0.lock().unwrap().entry(self.0.clone()).or_default() += value;
    }

    fn absolute(&self, _value: u64) {}
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Counter::from_arc(Arc::new(Count(name, self.clone())))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Counters go to whoever listens on this thread, so everything runs on it.
#[test]
fn outcomes_are_counted_and_told_without_the_token() {
    let (counts, log) = (Counts::default(), Log::default());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    metrics::with_local_recorder(&counts, || runtime.block_on(scenario()));

    let counts = counts.0.lock().unwrap();
    let lines: Vec<_> = counts.iter().map(|(name, count)| format!("{name}: {count}")).collect();
    assert_eq!(
        lines,
        [
            "gateway_identity_accepted_total method=token issuer=local: 2",
            "gateway_identity_key_fetches_total issuer=local outcome=failed: 1",
            "gateway_identity_key_fetches_total issuer=local outcome=ok: 1",
            "gateway_identity_refused_total method=token issuer= reason=malformed: 1",
            "gateway_identity_refused_total method=token issuer=local reason=audience: 1",
            "gateway_identity_refused_total method=token issuer=local reason=signature: 1",
            "gateway_identity_stale_keys_total issuer=local: 1",
        ]
    );
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for event in [
        "identity accepted",
        "identity refused",
        "issuer keys fetched",
        "issuer keys cannot be fetched",
        "agent-7",
    ] {
        assert!(log.contains(event), "{event}: {log}");
    }
    assert!(!log.contains("canary") && !log.contains("eyJ"), "{log}");
}

/// Two accepted (one with stale keys), three refused. Every token carries a canary.
async fn scenario() {
    let signer = Signer::p256();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    std::fs::write(&path, json!({"keys": [signer.jwk("k")]}).to_string()).unwrap();
    let config = IssuerConfig::new("local", "gateway", KeySource::JwksFile(path.clone()));
    let authenticator = JwtAuthenticator::new(vec![config]).unwrap();
    let accepts = async |token: &str, after: i64| {
        let shown = Presented::Token(token.into());
        authenticator.authenticate(&shown, Timestamp::from_seconds(NOW + after)).await.is_ok()
    };
    let claims = |audience: &str| json!({"iss": "local", "sub": "agent-7", "aud": audience, "exp": NOW + 60, "secret": "canary"});
    let good = signer.token("k", &claims("gateway"));
    assert!(accepts(&good, 0).await);
    assert!(!accepts("canary.canary", 0).await);
    assert!(!accepts(&signer.token("k", &claims("canary")), 0).await);
    assert!(!accepts(&Signer::p256().token("k", &claims("gateway")), 0).await);
    std::fs::remove_file(&path).unwrap();
    assert!(accepts(&good, 2).await);
}
