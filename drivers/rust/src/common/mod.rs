//! How the Rust scenarios tell an outcome.

use std::fmt::{Debug, Display};

pub const LARGE_UNIT: &str = "0123456789abcdé\n";

/// 1 MiB of characters.
pub fn large() -> String {
    LARGE_UNIT.repeat(65536)
}

/// A setting of the environment.
pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// A connection URL; the token is URL-safe.
pub fn url() -> String {
    format!(
        "postgres://{}:{}@{}:{}/{}",
        env("PGUSER"),
        env("PGPASSWORD"),
        env("PGHOST"),
        env("PGPORT"),
        env("PGDATABASE")
    )
}

fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\t', "\\t")
}

/// Prints one outcome; a long one as its length and digest.
pub fn tell<T: Debug, E: Display>(feature: &str, outcome: Result<T, E>) {
    match outcome {
        Ok(value) => {
            let text = format!("{value:?}");
            let shown =
                if text.len() > 400 { format!("{} bytes, {:016x}", text.len(), digest(&text)) } else { text };
            println!("{feature}\tok {}", one_line(&shown));
        }
        Err(error) => println!("{feature}\terror {}", one_line(&error.to_string())),
    }
}

/// FNV-1a: enough to compare two runs.
fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
