//! Errors by fault, and denials, which are outcomes rather than errors.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose doing an error is. Decides the log level and which message the downstream may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The connecting side sent something wrong.
    Downstream,
    /// The protected service did something wrong or is away.
    Upstream,
    /// The gateway itself: configuration, disk, a bug.
    Gateway,
}

/// Why an operation was denied, as a stable word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DenialCode {
    /// No usable identity was presented.
    Unauthenticated,
    /// The identity's time is over.
    IdentityExpired,
    /// A policy forbids it, or none permits it.
    Forbidden,
    /// Policies could not be evaluated; errors deny.
    PolicyError,
    /// The statement cannot be understood exactly.
    NotUnderstood,
    /// The statement breaks the grammar of its language: the target would not understand it either.
    Malformed,
    /// It names something of the session that does not exist, for example a prepared statement.
    NotFound,
    /// A named limit of the gateway was exceeded.
    LimitExceeded,
    /// What the session or task may take in all is used up.
    BudgetExceeded,
    /// It waits for approval: present the same operation again once approved.
    ApprovalRequired,
    /// A reviewer said no.
    ApprovalRejected,
    /// Nobody approved in time.
    ApprovalExpired,
    /// The waiting operation was cancelled.
    Cancelled,
    /// Another session is in the way just now: the same operation may pass when tried again.
    Conflict,
    /// An obligation of the decision cannot be met.
    ObligationUnmet,
    /// The record of the operation cannot be written.
    RecorderFailed,
    /// A response could not be masked safely.
    MaskingFailed,
    /// The protected service cannot be reached or refused the gateway.
    UpstreamUnavailable,
}

impl DenialCode {
    /// The stable, lower-case form of the code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::IdentityExpired => "identity_expired",
            Self::Forbidden => "forbidden",
            Self::PolicyError => "policy_error",
            Self::NotUnderstood => "not_understood",
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::LimitExceeded => "limit_exceeded",
            Self::BudgetExceeded => "budget_exceeded",
            Self::ApprovalRequired => "approval_required",
            Self::ApprovalRejected => "approval_rejected",
            Self::ApprovalExpired => "approval_expired",
            Self::Cancelled => "cancelled",
            Self::Conflict => "conflict",
            Self::ObligationUnmet => "obligation_unmet",
            Self::RecorderFailed => "recorder_failed",
            Self::MaskingFailed => "masking_failed",
            Self::UpstreamUnavailable => "upstream_unavailable",
        }
    }
}

impl fmt::Display for DenialCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal, worded for the agent that has to act on it.
///
/// `message`, `hint` and `rules` are public; `cause` is for the log only and is never sent or recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[must_use]
pub struct Denial {
    /// The stable code.
    pub code: DenialCode,
    /// What was refused and why: lower case, no full stop, names in backticks.
    pub message: String,
    /// What would be allowed or how to ask, if known.
    pub hint: Option<String>,
    /// The policies that decided, by id.
    pub rules: Vec<String>,
    /// The approval request to follow, if one was made.
    pub approval: Option<String>,
    #[serde(skip)]
    cause: Option<String>,
}

impl Denial {
    /// A denial with its public message.
    pub fn new(code: DenialCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, rules: Vec::new(), approval: None, cause: None }
    }

    /// Adds what to do next.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the policies that decided.
    pub fn with_rules(mut self, rules: impl IntoIterator<Item = String>) -> Self {
        self.rules = rules.into_iter().collect();
        self
    }

    /// Names the approval request.
    pub fn with_approval(mut self, request: impl Into<String>) -> Self {
        self.approval = Some(request.into());
        self
    }

    /// Adds the internal cause, which goes to the log only.
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// The internal cause, for the log.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.rules.is_empty() {
            write!(f, " (rule: {})", self.rules.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Denial {}
