//! The twin: a permit comes out of judging.

use gateway_core::pipeline::{Guard, Judged, NoRewrites, Pending, Permit};

fn forward(permit: Permit) {
    let _ = permit.consume();
}

async fn adapter(guard: Guard, pending: Pending) {
    if let Judged::Permit(permit) = guard.judge(pending, &NoRewrites).await {
        forward(*permit);
    }
}

fn main() {
    let _ = adapter;
}
