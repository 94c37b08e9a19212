//! The gateway between stock clients and a real OpenSSH server.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod algorithms;
mod ansible;
mod clients;
mod commands;
mod content;
mod documented;
mod double;
mod files;
mod holds;
mod hostile;
mod lines;
mod logins;
mod stalls;
mod support;
mod terminals;
mod tools;
mod tunnels;
