//! How much of what a client sent may wait to be taken by its target, and what happens then.
//!
//! russh gives a channel new window as soon as data arrives, before anybody took it; the one thing a server may choose is the size
//! of the window that all channels of the connection are refilled to. Over the soft limit that size is two bytes, the smallest
//! that can be made large again: input then comes in trickles, while output, requests, window adjustments and keepalives go on as
//! before. One channel whose program does not read thus slows the *input* of its siblings; their output is not touched.
//! A trickle would go round as fast as both ends can send: while it lasts the socket is read at a pace, so that nobody's processor
//! is busy with it.
//! Clients that do not keep to their windows meet the hard limit, at which nothing more is read from the socket.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::ahead::ReadAhead;
use crate::algorithms::{PACKET_BYTES, WINDOW_BYTES};

/// Channels of one connection at once. OpenSSH's server allows 10 by default.
pub(crate) const MAX_CHANNELS: usize = 16;

/// Channels of one client that its target opened, at once: forwarded connections, questions to the agent, windows on the screen.
pub(crate) const MAX_OPENED: usize = 16;

/// Bytes of one client, in all channels, that wait to be taken before it is given no more window. 4 MiB.
const PRESSED_BYTES: usize = 4 << 20;

/// Once pressed, window is given again when no more than this waits. 2 MiB.
const RELIEVED_BYTES: usize = 2 << 20;

/// The most of one channel that may wait: until the connection is pressed, and two windows that were granted before. A client that sends more
/// does not keep to its windows. 8 MiB and a packet.
pub(crate) const CHANNEL_BYTES: usize = PRESSED_BYTES + 2 * WINDOW_BYTES as usize + PACKET_BYTES as usize;

/// The most that may wait at all: a client that keeps to its windows has two of them under way for each channel. 132 MiB.
const WAITING_BYTES: usize = PRESSED_BYTES + 2 * (MAX_CHANNELS + MAX_OPENED) * WINDOW_BYTES as usize;

/// A window of one byte could never grow again: half of it is nothing to fall below.
const TRICKLE_BYTES: u32 = 2;

/// While pressed the socket is read so often in each [`PACE`]; a packet takes two reads. Bulk input of siblings still comes at
/// some 25 MB/s.
const PACED_READS: u32 = 16;

/// 10 ms.
const PACE: Duration = Duration::from_millis(10);

/// Shared between the stream and whoever takes what was read.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    pressed: bool,
    killed: bool,
    /// When something was last read.
    heard: Option<Instant>,
    reader: Option<Waker>,
}

impl State {
    const fn open(&self) -> bool {
        self.killed || self.waiting < WAITING_BYTES
    }

    fn wake(&mut self) {
        if self.open()
            && let Some(waker) = self.reader.take()
        {
            waker.wake();
        }
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much more waits.
    pub(crate) fn add(&self, bytes: usize) {
        self.state().waiting += bytes;
    }

    /// So much was taken.
    pub(crate) fn take(&self, bytes: usize) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(bytes);
        state.wake();
    }

    /// What a channel's window is to be refilled to from now on.
    pub(crate) fn window(&self) -> u32 {
        let mut state = self.state();
        let limit = if state.pressed { RELIEVED_BYTES } else { PRESSED_BYTES };
        state.pressed = state.waiting > limit;
        if state.pressed { TRICKLE_BYTES } else { WINDOW_BYTES }
    }

    /// Breaks the connection: the next read fails.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.killed = true;
        state.wake();
    }

    /// Waits until nothing was read for `limit` although reading was possible: clients answer keepalives.
    pub(crate) async fn silent(&self, limit: Duration) {
        loop {
            let heard = {
                let mut state = self.state();
                let now = Instant::now();
                if !state.open() {
                    state.heard = Some(now);
                }
                *state.heard.get_or_insert(now)
            };
            match limit.checked_sub(heard.elapsed()).filter(|left| !left.is_zero()) {
                Some(left) => sleep(left).await,
                None => return,
            }
        }
    }

    fn heard(&self) {
        self.state().heard = Some(Instant::now());
    }

    fn is_pressed(&self) -> bool {
        self.state().pressed
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.killed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        // Kept also while the gate is open: a kill must wake a reader that waits for the socket.
        state.reader = Some(cx.waker().clone());
        if state.open() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// How often the socket may still be read before a rest.
#[derive(Debug, Default)]
struct Pace {
    reads: u32,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Waits for the next turn once this one's reads are used up.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.reads >= PACED_READS {
            ready!(self.rest.get_or_insert_with(|| Box::pin(sleep(PACE))).as_mut().poll(cx));
            *self = Self::default();
        }
        Poll::Ready(())
    }
}

/// A stream behind its gate.
#[derive(Debug)]
pub(crate) struct Gated<S> {
    stream: ReadAhead<S>,
    gate: Arc<Gate>,
    pace: Pace,
}

impl<S> Gated<S> {
    pub(crate) fn new(stream: S, gate: Arc<Gate>) -> Self {
        Self { stream: ReadAhead::new(stream), gate, pace: Pace::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.gate.poll_open(cx))?;
        let pressed = self.gate.is_pressed();
        if pressed {
            ready!(self.pace.poll_turn(cx));
        }
        // A trickle that was read ahead could not be held up any more.
        ready!(if pressed {
            self.stream.poll_read_only(cx, buf)
        } else {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        })?;
        self.pace.reads = if pressed { self.pace.reads + 1 } else { 0 };
        self.gate.heard();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn reading_stops_at_the_limit_and_goes_on_below_it() {
        let gate = Arc::new(Gate::default());
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Gated::new(server, Arc::clone(&gate));
        gate.add(WAITING_BYTES);
        client.write_all(b"x").await.unwrap();
        assert!(futures_pending(server.read_u8()).await);
        gate.take(1);
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    }

    #[test]
    fn window_is_withheld_until_half_was_taken() {
        let gate = Gate::default();
        assert_eq!(gate.window(), WINDOW_BYTES);
        gate.add(PRESSED_BYTES + 1);
        assert_eq!(gate.window(), TRICKLE_BYTES);
        gate.take(PRESSED_BYTES - RELIEVED_BYTES);
        assert_eq!(gate.window(), TRICKLE_BYTES);
        gate.take(1);
        assert_eq!(gate.window(), WINDOW_BYTES);
    }

    #[tokio::test]
    async fn a_trickle_is_read_at_a_pace() {
        let gate = Arc::new(Gate::default());
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Gated::new(server, Arc::clone(&gate));
        client.write_all(&[b'x'; 2 * PACED_READS as usize]).await.unwrap();
        gate.add(PRESSED_BYTES + 1);
        gate.window();
        for _ in 0..PACED_READS {
            assert!(!futures_pending(server.read_u8()).await);
        }
        assert!(futures_pending(server.read_u8()).await);
        // It goes on by itself.
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_killed_connection_fails_its_reader_at_once() {
        let gate = Arc::new(Gate::default());
        let (_client, server) = tokio::io::duplex(64);
        let mut server = Gated::new(server, Arc::clone(&gate));
        let reading = tokio::spawn(async move { server.read_u8().await });
        tokio::task::yield_now().await;
        gate.kill();
        assert!(reading.await.unwrap().is_err());
    }

    async fn futures_pending<T>(future: impl Future<Output = T>) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }
}
