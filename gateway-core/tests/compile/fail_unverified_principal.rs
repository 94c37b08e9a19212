//! error[E0423]
//! A principal that no authenticator verified cannot open a session.

use gateway_core::identity::{Principal, VerifiedPrincipal};
use std::sync::Arc;

fn trust(principal: Principal) -> VerifiedPrincipal {
    VerifiedPrincipal(Arc::new(principal))
}

fn main() {}
