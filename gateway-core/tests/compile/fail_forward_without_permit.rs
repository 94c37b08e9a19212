//! error[E0308]
//! Forwarding takes a permit; a pending operation is none.

use gateway_core::pipeline::{Pending, Permit};

fn forward(permit: Permit) {
    let _ = permit.consume();
}

fn adapter(pending: Pending) {
    forward(pending);
}

fn main() {}
