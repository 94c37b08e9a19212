//! Attacks on the gateway, one after the other, against a real PostgreSQL behind a real gateway.
//!
//! What holds of all such suites is said in [`testkit::bypass`]. The harmless twin comes on the same connection where that lives on.
//! `cargo test -p gateway-pg --test bypass -- WORD` tries those with the word in their name only.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod approvals;
mod arena;
mod case;
mod client;
mod records;
mod tokens;
mod wire;

use std::process::ExitCode;

use testkit::bypass::Suite;

/// 1 to 12 hide what a statement does, 13 to 21 get values past the mask; 22 and above are of other adapters.
const CLASSES: [u8; 21] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21];

fn main() -> ExitCode {
    let attacks =
        [case::attacks(), tokens::attacks(), approvals::attacks(), records::attacks(), wire::attacks()];
    let suite = Suite {
        adapter: "gateway-pg",
        classes: &CLASSES,
        techniques: include_str!("cases/techniques.toml"),
        workers: 6,
        start: arena::start,
        clear: arena::clear,
    };
    suite.run(attacks.into_iter().flatten())
}
