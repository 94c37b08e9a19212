//! The adapter against a real PostgreSQL with real clients.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clients;
mod denials;
mod drivers;
mod enforcement;
mod estimates;
mod holds;
mod judged;
mod keywords;
mod lives;
mod logins;
mod masking;
mod messages;
mod newer;
mod policies;
mod scripts;
mod splits;
mod support;
mod typed;
