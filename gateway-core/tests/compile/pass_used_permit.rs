//! The twin: a permit that was given can be used, once.

use gateway_core::operation::Batch;
use gateway_core::pipeline::Permit;

fn consume(permit: Permit) -> Batch {
    permit.consume().0
}

fn main() {
    let _ = consume;
}
