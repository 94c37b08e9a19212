//! What must hold whatever happens to the process: it is killed, its disk is full, its log shows everything.

// Helpers of a test are tests too; the lints exempt only the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod evidence;
mod full_disk;
mod kills;
mod load;
mod random;
mod secrets;
// The commands' tests use more of it.
#[allow(dead_code)]
#[path = "../cli/stage.rs"]
mod stage;
