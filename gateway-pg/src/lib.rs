//! x
pub mod analysis;
