//! error[E0382]
//! A permit is used up by forwarding.

use gateway_core::pipeline::Permit;

fn twice(permit: Permit) {
    let _ = permit.consume();
    let _ = permit.consume();
}

fn main() {}
