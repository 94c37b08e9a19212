//! error: cannot construct `gateway_core::pipeline::Permit`
//! A permit cannot be made up.

use gateway_core::operation::Batch;
use gateway_core::pipeline::Permit;

fn forge(batch: Batch) -> Permit {
    Permit { batch }
}

fn main() {}
