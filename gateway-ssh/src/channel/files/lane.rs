//! A queue towards one side, so that neither side's slowness stops reading from the other.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bytes that wait for one side before nothing more is taken that would add to them. 1 MiB.
const LANE_BYTES: usize = 1 << 20;

/// Adding never waits; whoever adds looks at [`has_room`](Self::has_room) first.
#[derive(Debug)]
pub(super) struct Lane<T> {
    queue: Mutex<Queue<T>>,
    pushed: Notify,
    popped: Notify,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Lane<T> {
    pub(super) fn new() -> Self {
        let queue = Queue { items: VecDeque::new(), bytes: 0 };
        Self { queue: Mutex::new(queue), pushed: Notify::new(), popped: Notify::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, item: T, bytes: usize) {
        let mut queue = self.queue();
        queue.bytes += bytes;
        queue.items.push_back((item, bytes));
        drop(queue);
        self.pushed.notify_one();
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue().bytes < LANE_BYTES
    }

    /// The next item; waits for it. It counts until [`done`](Self::done) says that it was sent.
    pub(super) async fn next(&self) -> (T, usize) {
        loop {
            let item = self.queue().items.pop_front();
            if let Some(item) = item {
                return item;
            }
            self.pushed.notified().await;
        }
    }

    /// An item of so many bytes was sent.
    pub(super) fn done(&self, bytes: usize) {
        self.queue().bytes -= bytes;
        self.popped.notify_one();
    }

    /// Waits until something was sent.
    pub(super) async fn relieved(&self) {
        self.popped.notified().await;
    }

    /// Whether everything was sent. Items must have bytes.
    pub(super) fn is_idle(&self) -> bool {
        self.queue().bytes == 0
    }
}
