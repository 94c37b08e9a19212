//! SSH adapter of the gateway.

pub mod sftp;
pub mod shell;
