//! Tokens against a real issuer: HTTPS with a private CA, key sets over the wire, real signatures.
#![cfg(feature = "oidc")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod attacks;
mod idp;
mod keys;
mod mapping;
mod signer;
