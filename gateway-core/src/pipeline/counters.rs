//! Handles to the pipeline's metrics, looked up once per session.

use metrics::Counter;

/// What one session counts.
pub(super) struct Counters {
    pub(super) allow: Counter,
    pub(super) hold: Counter,
    pub(super) deny: Counter,
    pub(super) masked: Counter,
}

impl Counters {
    pub(super) fn new(protocol: &'static str) -> Self {
        let decisions = |decision: &'static str| metrics::counter!("gateway_decisions_total", "decision" => decision, "protocol" => protocol);
        Self {
            allow: decisions("allow"),
            hold: decisions("hold"),
            deny: decisions("deny"),
            masked: metrics::counter!("gateway_masked_values_total", "protocol" => protocol),
        }
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}
