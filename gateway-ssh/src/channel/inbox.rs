//! What a client sent on one channel, in order, waiting to be taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use russh::Sig;
use tokio::sync::Notify;

use super::Start;
use crate::gate::{CHANNEL_BYTES, Gate};
use crate::operation::Size;

/// One thing a client sent.
#[derive(Debug)]
pub(crate) enum Event {
    /// Nothing the client sent: a line to tell it.
    Say(String),
    Start(Box<Start>),
    Data(BytesMut),
    Eof,
    Signal(Sig),
    Resize(Size),
}

/// Data that came in smaller pieces is joined up to so many bytes.
const JOINED_BYTES: usize = 32 * 1024;

/// What an event without data counts as, in bytes: requests cannot be sent without end either.
const EVENT_BYTES: usize = 256;

impl Event {
    fn cost(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len() + EVENT_BYTES,
            Self::Start(start) => start.program.bytes() + EVENT_BYTES,
            Self::Say(line) => line.len() + EVENT_BYTES,
            Self::Signal(Sig::Custom(name)) => name.len() + EVENT_BYTES,
            _ => EVENT_BYTES,
        }
    }
}

/// The queue between the connection, which never waits, and the channel's task. Its limit is the connection's [`Gate`].
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    arrived: Notify,
    closed: Notify,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Of data that waits.
    bytes: usize,
    /// The client has no more input, though some may still wait.
    ended: bool,
    /// The client closed the channel.
    closed: bool,
    /// Nobody takes any more.
    done: bool,
}

impl Queue {
    fn take(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let Some(Event::Data(data)) = &event {
            self.bytes = self.bytes.saturating_sub(data.len());
        }
        event
    }
}

impl Inbox {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self { queue: Mutex::default(), arrived: Notify::new(), closed: Notify::new(), gate }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, event: Event) {
        let mut queue = self.queue();
        if queue.done || queue.closed {
            return;
        }
        queue.ended |= matches!(event, Event::Eof);
        self.gate.add(event.cost());
        queue.events.push_back(event);
        drop(queue);
        self.arrived.notify_one();
    }

    /// The same for data; small pieces are joined.
    pub(crate) fn data(&self, data: &[u8]) {
        let mut queue = self.queue();
        queue.bytes += data.len();
        if queue.bytes > CHANNEL_BYTES {
            tracing::warn!("a client sends more than its window; its connection is ended");
            return self.gate.kill();
        }
        if let Some(Event::Data(last)) = queue.events.back_mut()
            && last.len() + data.len() <= JOINED_BYTES
        {
            last.extend_from_slice(data);
            self.gate.add(data.len());
        } else {
            drop(queue);
            self.push(Event::Data(data.into()));
        }
    }

    /// The next event; waits for it.
    pub(crate) async fn next(&self) -> Event {
        loop {
            let event = self.queue().take();
            if let Some(event) = event {
                self.gate.take(event.cost());
                return event;
            }
            self.arrived.notified().await;
        }
    }

    /// Whether the client has said that its input ends.
    pub(crate) fn has_ended(&self) -> bool {
        self.queue().ended
    }

    /// The client closed the channel: nobody wants the rest.
    pub(crate) fn close(&self) {
        self.queue().closed = true;
        self.closed.notify_waiters();
    }

    /// Waits until the client closes the channel.
    pub(crate) async fn closed(&self) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            // Registered before the look, so that a close in between is not missed.
            closed.as_mut().enable();
            if self.queue().closed {
                return;
            }
            closed.await;
        }
    }

    /// Nobody takes any more: what waits is dropped and what comes is not kept.
    pub(crate) fn finish(&self) {
        let mut queue = self.queue();
        queue.done = true;
        let waiting = std::mem::take(&mut queue.events);
        self.gate.take(waiting.iter().map(Event::cost).sum());
    }

    pub(crate) fn is_done(&self) -> bool {
        let queue = self.queue();
        queue.done || queue.closed
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_channel_that_is_sent_more_than_its_windows_ends_its_connection() {
        use tokio::io::AsyncReadExt;

        let gate = Arc::new(Gate::default());
        let inbox = Inbox::new(Arc::clone(&gate));
        let piece = vec![0; JOINED_BYTES];
        for _ in 0..CHANNEL_BYTES / JOINED_BYTES {
            inbox.data(&piece);
        }
        let mut open = crate::gate::Gated::new(&b"x"[..], Arc::clone(&gate));
        assert_eq!(open.read_u8().await.unwrap(), b'x');
        inbox.next().await;
        inbox.data(&piece);
        inbox.data(&piece);
        let mut killed = crate::gate::Gated::new(&b"x"[..], gate);
        assert!(killed.read_u8().await.is_err());
    }

    #[test]
    fn events_count_with_what_they_carry() {
        let long = "x".repeat(100_000);
        for event in [
            Event::Signal(Sig::Custom(long.clone())),
            Event::Say(long.clone()),
            Event::Data(long.as_bytes().into()),
        ] {
            assert_eq!(event.cost(), long.len() + EVENT_BYTES);
        }
        assert_eq!(Event::Eof.cost(), EVENT_BYTES);
    }
}
