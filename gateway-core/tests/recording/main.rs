//! Recordings as files, end to end: what is written, what is proven, what happens when disks and processes die.
#![cfg(feature = "recording-file")]

mod common;
mod crash;
mod directory;
mod failures;
mod reading;
mod tampering;
