//! Recordings as files, end to end: what is written, what is proven, what happens when disks and processes die.
#![cfg(feature = "recording-file")]
// Helpers of a test crate are not `#[test]`s themselves, but a panic is how they fail the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod crash;
mod directory;
mod failures;
mod reading;
mod tampering;
