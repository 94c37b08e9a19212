//! The client's connection as a stream that stops being read while too much of what it sent waits.
//!
//! russh grants a channel new window as soon as data arrives, before anybody took it. What waits is therefore bounded here:
//! over the limit nothing more is read from the socket, while writing, timers and keepalives go on. TCP then stops the client.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use crate::algorithms::WINDOW_BYTES;

/// Most bytes of one client, in all channels, that wait to be taken by the target before reading stops. 4 MiB.
const WAITING_BYTES: usize = 4 << 20;

/// How many more may wait while the client lets output wait: the word that it can take more may stand behind as much input as
/// every channel's window allows, and must be read for anything to move.
const BEHIND_BYTES: usize = 2 * WINDOW_BYTES as usize;

/// Shared between the stream and whoever takes what was read.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// Channels whose output waits for the client.
    blocked: usize,
    killed: bool,
    /// When something was last read.
    heard: Option<Instant>,
    reader: Option<Waker>,
}

impl State {
    const fn open(&self) -> bool {
        let limit = if self.blocked > 0 { WAITING_BYTES + BEHIND_BYTES } else { WAITING_BYTES };
        self.killed || self.waiting < limit
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

    /// Output waits for the client until the guard is dropped.
    pub(crate) fn blocked(self: &Arc<Self>) -> Blocked {
        let mut state = self.state();
        state.blocked += 1;
        state.wake();
        drop(state);
        Blocked(Arc::clone(self))
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

/// See [`Gate::blocked`].
#[derive(Debug)]
pub(crate) struct Blocked(Arc<Gate>);

impl Drop for Blocked {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.blocked = state.blocked.saturating_sub(1);
    }
}

/// A stream behind its gate.
#[derive(Debug)]
pub(crate) struct Gated<S> {
    stream: S,
    gate: Arc<Gate>,
}

impl<S> Gated<S> {
    pub(crate) const fn new(stream: S, gate: Arc<Gate>) -> Self {
        Self { stream, gate }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.gate.poll_open(cx))?;
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
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

    #[tokio::test]
    async fn blocked_output_lets_more_in_but_not_without_end() {
        let gate = Arc::new(Gate::default());
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Gated::new(server, Arc::clone(&gate));
        gate.add(WAITING_BYTES);
        client.write_all(b"xy").await.unwrap();
        let blocked = gate.blocked();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        gate.add(BEHIND_BYTES);
        assert!(futures_pending(server.read_u8()).await);
        drop(blocked);
        gate.kill();
        assert!(server.read_u8().await.is_err());
    }

    async fn futures_pending<T>(future: impl Future<Output = T>) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }
}
