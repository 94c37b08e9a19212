//! The real binary, in front of a real server, with real tokens.

// Helpers of a test are tests too; the lints exempt only the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod approvals;
mod commands;
mod serving;
mod ssh;
mod stage;
