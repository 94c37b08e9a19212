//! The twin: an authenticator verifies.

use gateway_core::clock::SystemClock;
use gateway_core::identity::{Authenticator, IdentityError, Presented, VerifiedPrincipal, verify};

async fn trust(authenticator: &dyn Authenticator, presented: &Presented) -> Result<VerifiedPrincipal, IdentityError> {
    verify(authenticator, presented, &SystemClock).await
}

fn main() {
    let _ = trust;
}
