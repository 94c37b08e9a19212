//! One issuer's keys, kept for a while.
//!
//! However many tokens with unknown keys arrive, the issuer is asked at most once in each refresh interval, by one
//! caller at a time; those who wait for it share the outcome. The fetch runs as a task of its own: a client that hangs
//! up does not cancel it for the others.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::super::IdentityError;
use super::super::telemetry::Refusal;
use super::algorithm::Algorithm;
use super::config::{CacheLimits, ConfigError, IssuerConfig, KeySource};
use super::fetch::Source;
use super::jwks::{Found, KeySet};
use crate::clock::Timestamp;

/// How often a file may be read again. Short, because that costs little: a changed file counts within a second.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the keys of a file that is gone or cannot be read serve on: 10 s, for whoever writes it in place. There is no outage to bridge,
/// and removing the file is how its keys are withdrawn.
const FILE_STALE: Duration = Duration::from_secs(10);

/// Which key a token asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) algorithm: Algorithm,
}

/// The keys of one issuer and when they were fetched.
#[derive(Debug)]
pub(super) struct KeyCache {
    issuer: String,
    source: Source,
    limits: CacheLimits,
    state: RwLock<State>,
    /// Held while a fetch is under way.
    flight: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<(Arc<KeySet>, Timestamp)>,
    /// When the last fetch began.
    attempted_at: Option<Timestamp>,
    /// How many fetches have ended: tells a waiter that somebody fetched meanwhile.
    ended: u64,
    failure: String,
}

impl KeyCache {
    pub(super) fn new(config: &IssuerConfig) -> Result<Self, ConfigError> {
        let source = Source::new(config).map_err(|problem| ConfigError::invalid(&config.issuer, problem))?;
        let mut limits = config.cache;
        if matches!(config.keys, KeySource::JwksFile(_)) {
            limits.refresh_interval = FILE_INTERVAL;
            limits.max_age = FILE_INTERVAL;
            limits.stale_for = FILE_STALE;
        }
        let issuer = config.issuer.clone();
        Ok(Self { issuer, source, limits, state: RwLock::default(), flight: Arc::default() })
    }

    /// Keys to look in for `wanted` (any, if none): those at hand if they are fresh and have it, else fetched, else, for
    /// a bounded time, the old ones.
    pub(super) async fn keys(
        self: &Arc<Self>,
        wanted: Option<Wanted<'_>>,
        now: Timestamp,
    ) -> Result<Arc<KeySet>, Refusal> {
        let seen = self.state();
        let has = |keys: &Arc<KeySet>| {
            wanted.is_none_or(|w| !matches!(keys.find(w.id, w.algorithm), Found::Nothing))
        };
        let known = self.usable(&seen, now).filter(has);
        match known {
            Some(keys) if self.is_fresh(&seen, now) => return Ok(keys),
            // Somebody may be at it already; these keys do until then.
            Some(_) => {
                if let Ok(turn) = Arc::clone(&self.flight).try_lock_owned() {
                    self.refresh(turn, seen.ended, now).await;
                }
            }
            None => {
                let turn = Arc::clone(&self.flight).lock_owned().await;
                self.refresh(turn, seen.ended, now).await;
            }
        }
        self.kept(now)
    }

    /// What is there now, fresh or stale.
    fn kept(&self, now: Timestamp) -> Result<Arc<KeySet>, Refusal> {
        let state = self.state();
        let Some(keys) = self.usable(&state, now) else {
            let (issuer, cause) = (self.issuer.clone(), state.failure);
            let error = IdentityError::IssuerUnavailable { issuer, cause };
            return Err(Refusal { reason: "issuer_unavailable", error });
        };
        if !self.is_fresh(&state, now) {
            metrics::counter!("gateway_identity_stale_keys_total", "issuer" => self.issuer.clone())
                .increment(1);
        }
        Ok(keys)
    }

    /// Fetches, unless somebody did since `seen` or too little time has passed. Returns when the outcome is stored.
    async fn refresh(self: &Arc<Self>, turn: OwnedMutexGuard<()>, seen: u64, now: Timestamp) {
        let state = self.state();
        let due = state.attempted_at.is_none_or(|at| distance(at, now) >= self.limits.refresh_interval);
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| due && state.ended == seen)
        else {
            return;
        };
        self.change(|state| state.attempted_at = Some(now));
        let cache = Arc::clone(self);
        let fetch = runtime.spawn(async move {
            let fetched = tokio::time::timeout(cache.limits.fetch_timeout, cache.source.fetch()).await;
            cache.store(fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())), now);
            drop(turn);
        });
        if let Err(error) = fetch.await {
            self.store(Err(error.to_string()), now);
        }
    }

    fn store(&self, fetched: Result<KeySet, String>, now: Timestamp) {
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        metrics::counter!("gateway_identity_key_fetches_total", "issuer" => self.issuer.clone(), "outcome" => outcome)
            .increment(1);
        match &fetched {
            Ok(keys) => tracing::info!(issuer = self.issuer, keys = keys.len(), "issuer keys fetched"),
            Err(cause) => tracing::warn!(issuer = self.issuer, cause, "issuer keys cannot be fetched"),
        }
        self.change(|state| {
            state.ended = state.ended.wrapping_add(1);
            match fetched {
                Ok(keys) => state.keys = Some((Arc::new(keys), now)),
                Err(cause) => state.failure = cause,
            }
        });
    }

    fn is_fresh(&self, state: &State, now: Timestamp) -> bool {
        state.keys.as_ref().is_some_and(|(_, at)| distance(*at, now) < self.limits.max_age)
    }

    fn usable(&self, state: &State, now: Timestamp) -> Option<Arc<KeySet>> {
        let (keys, at) = state.keys.as_ref()?;
        let limit = self.limits.max_age.saturating_add(self.limits.stale_for);
        (distance(*at, now) < limit).then(|| Arc::clone(keys))
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The time between two moments, whichever is earlier: sessions ask with slightly different times, and a clock that was
/// set back must not keep old keys fresh.
fn distance(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}
