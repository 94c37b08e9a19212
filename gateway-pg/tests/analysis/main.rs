//! The analysis of SQL text from outside: a corpus of statements with their facts, limits, and mangled text.

mod corpus;
mod mangled;
mod shape;
mod threads;
