//! error[E0423]
//! What goes to the downstream is `Released`; a target's bytes are not.

use gateway_core::bytes::Bytes;
use gateway_core::pipeline::Released;

fn send(_: Released) {}

fn adapter(from_target: Bytes) {
    send(Released(from_target));
}

fn main() {}
