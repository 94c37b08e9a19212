//! Recordings that somebody tampered with: nothing but the recording itself is intact under its key.

use std::sync::OnceLock;

use gateway_core::recording::file::{PublicKey, RecordingReader, verify_bytes};

use super::{Target, kind, outcome};

pub const TARGET: Target =
    Target { name: "recording", run, words: &[b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x28\xb5\x2f\xfd"] };

/// Made by `examples/make_recording.rs`.
const SEALED: &[u8] = include_bytes!("../../corpus/recording/sealed");

fn run(input: &[u8]) -> u64 {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/recording.pub");
    let key = KEY.get_or_init(|| PublicKey::load(file.as_ref()).expect("the key of the seed"));
    let verified = verify_bytes(input, key, None).expect("reading memory does not fail");
    assert_eq!(
        verified.is_intact(),
        input == SEALED,
        "a changed recording is intact, or the original is not"
    );
    let read = match RecordingReader::new(input) {
        Ok(reader) => Ok(reader.take(100).count()),
        Err(error) => Err(kind(&error)),
    };
    let problems = format!("{:?}", verified.problems);
    let problems: String = problems.chars().filter(|c| !c.is_ascii_digit()).take(80).collect();
    outcome((read, problems, verified.proven_records))
}
