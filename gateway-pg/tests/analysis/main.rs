//! The analysis of SQL text from outside: a corpus of statements with their facts, limits, and mangled text.

// The setting that allows these in tests does not reach helper functions of integration tests.
#![allow(clippy::expect_used)]

mod corpus;
mod mangled;
mod names;
mod shape;
mod threads;
