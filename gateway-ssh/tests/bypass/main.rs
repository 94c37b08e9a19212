//! Attacks on the gateway, one after the other, against a real OpenSSH server behind a real gateway.
//!
//! What holds of all such suites is said in [`testkit::bypass`].
//! `cargo test -p gateway-ssh --test bypass -- WORD` tries those with the word in their name only.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arena;
mod case;

use std::process::ExitCode;

use testkit::bypass::Suite;

fn main() -> ExitCode {
    let suite = Suite {
        adapter: "gateway-ssh",
        classes: &case::CLASSES,
        techniques: include_str!("cases/techniques.toml"),
        workers: 4,
        start: arena::start,
        clear: || {},
    };
    suite.run(case::attacks())
}
