//! Denials in PostgreSQL's words: the only place that does so.

use bytes::BytesMut;
use gateway_core::error::{Denial, DenialCode};

use crate::codec::encode;

/// The SQLSTATE for a denial (PostgreSQL documentation, Appendix A).
pub(crate) const fn sqlstate(code: DenialCode) -> &'static str {
    match code {
        DenialCode::Unauthenticated => "28000",
        DenialCode::IdentityExpired => "28P01",
        DenialCode::NotUnderstood => "0A000",
        DenialCode::Malformed => "42601",
        // Drivers that keep prepared statements prepare anew when they see it.
        DenialCode::NotFound => "26000",
        DenialCode::LimitExceeded => "54000",
        DenialCode::BudgetExceeded => "53400",
        DenialCode::ApprovalExpired | DenialCode::Cancelled => "57014",
        // Clients that retry what the server could not serialise do so here too.
        DenialCode::Conflict => "40001",
        DenialCode::RecorderFailed => "58030",
        DenialCode::UpstreamUnavailable => "08001",
        _ => "42501",
    }
}

/// Fields of the ErrorResponse for a denial.
pub(crate) fn fields(severity: &str, denial: &Denial) -> encode::Fields {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', sqlstate(denial.code).to_owned()),
        (b'M', format!("gateway: {}", denial.message)),
    ];
    let mut detail = format!("code: {}", denial.code);
    if !denial.rules.is_empty() {
        detail.push_str(&format!("; rule: {}", denial.rules.join(", ")));
    }
    if let Some(request) = &denial.approval {
        detail.push_str(&format!("; approval request: {request}"));
    }
    fields.push((b'D', detail));
    if let Some(hint) = &denial.hint {
        fields.push((b'H', hint.clone()));
    }
    fields
}

/// Appends the error of a refused operation; the session goes on.
pub(crate) fn error(out: &mut BytesMut, denial: &Denial) {
    encode::error(out, fields("ERROR", denial));
}

/// Appends the error that ends the session.
pub(crate) fn fatal(out: &mut BytesMut, denial: &Denial) {
    encode::error(out, fields("FATAL", denial));
}
