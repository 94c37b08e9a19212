//! The twin: results release bytes after masking and recording.

use gateway_core::bytes::Bytes;
use gateway_core::error::Denial;
use gateway_core::pipeline::{Released, Results};

fn send(_: Released) {}

fn adapter(results: &mut Results, from_target: Bytes) -> Result<(), Denial> {
    send(results.release("lines", from_target, 1, |masker, raw| Ok(masker.text(raw).map(Bytes::from)))?);
    Ok(())
}

fn main() {
    let _ = adapter;
}
