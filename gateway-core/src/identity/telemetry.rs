//! The counters and events of authentication: one place for their names. Documented in the parent module.

use super::{IdentityError, Principal};

/// A refusal and the stable word counters and events carry for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) error: IdentityError,
}

impl Refusal {
    pub(super) fn invalid(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, error: IdentityError::Invalid(text.into()) }
    }
}

/// Counts and tells the outcome of one authentication. `issuer` is a configured name, never one the client made up,
/// so the label stays bounded; empty if none was matched.
pub(super) fn report(
    method: &'static str,
    issuer: &str,
    outcome: Result<Principal, Refusal>,
) -> Result<Principal, IdentityError> {
    match outcome {
        Ok(principal) => {
            metrics::counter!("gateway_identity_accepted_total", "method" => method, "issuer" => issuer.to_owned())
                .increment(1);
            tracing::info!(method, issuer, subject = %principal.actor.subject, "identity accepted");
            Ok(principal)
        }
        Err(Refusal { reason, error }) => {
            metrics::counter!("gateway_identity_refused_total",
                "method" => method, "issuer" => issuer.to_owned(), "reason" => reason)
            .increment(1);
            tracing::warn!(method, issuer, reason, cause = %error, "identity refused");
            Err(error)
        }
    }
}
