//! The commands around a running gateway.

pub(crate) mod approvals;
mod asciicast;
pub(crate) mod check;
pub(crate) mod policy;
mod replay;
pub(crate) mod sessions;
mod utf8;
mod verify;
