//! The channel for reviewers: a Unix socket of the gateway's user, and each reviewer's own token on every request.

mod audit;
mod client;
mod protocol;
mod server;
mod socket;

pub(crate) use audit::AuditLog;
pub(crate) use client::AdminClient;
pub(crate) use protocol::{Answer, Ask};
pub(crate) use server::AdminServer;
pub(crate) use socket::AdminSocket;
