//! Control in the data path between autonomous agents and infrastructure.
//!
//! An adapter turns wire bytes into [`Operation`](operation::Operation)s; the [`pipeline`] has each one judged, held for
//! approval and recorded before it may be forwarded, and has every result masked and recorded before it may be released.
//! This crate knows no protocol and opens no listener.

pub use bytes;

pub mod accept;
pub mod approval;
pub mod clock;
pub mod credentials;
pub mod error;
pub mod identity;
pub mod intake;
pub mod masking;
pub mod operation;
pub mod pipeline;
mod place;
pub mod policy;
pub mod random;
pub mod recording;
pub mod session;
pub mod text;
