//! What was read and not yet used, in a buffer as large as the traffic through it: an idle session keeps little. For adapters.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Bytes asked for by a read when little comes.
const SMALL_READ: usize = 4 * 1024;

/// What a session keeps of a buffer that is empty, in bytes: room for the next few short messages.
const KEPT_BYTES: usize = 512;

/// Bytes asked for at once when much comes.
const LARGE_READ: usize = 128 * 1024;

/// Up to so many bytes are copied when they are taken off a buffer, so that what keeps them (a recording) does not keep the buffer.
pub const COPIED_BYTES: usize = 4 * 1024;

thread_local! {
    /// What little reads go to first, so that a session that waits for its peer keeps no buffer for that.
    static LITTLE: Cell<Option<Box<[u8; SMALL_READ]>>> = const { Cell::new(None) };
}

/// Bytes from one side.
#[derive(Debug)]
pub struct Intake {
    /// What was read, and not taken.
    pub bytes: BytesMut,
    /// How much the next read asks for.
    ask: usize,
}

impl Default for Intake {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), ask: SMALL_READ }
    }
}

impl Intake {
    /// Reads what is there, as far as it fits, and gives its length in bytes; 0 is the end.
    ///
    /// # Errors
    /// The stream's.
    pub fn poll_read<S: AsyncRead + Unpin + ?Sized>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() && self.ask == SMALL_READ {
            return self.poll_read_little(stream, cx);
        }
        if self.bytes.is_empty() && self.bytes.capacity() > 2 * self.ask {
            self.bytes = BytesMut::new();
        }
        self.bytes.reserve(self.ask);
        let room = self.bytes.capacity() - self.bytes.len();
        // A dropped `read_buf` has read nothing, and it does not zero the buffer first.
        let read = ready!(pin!(stream.read_buf(&mut self.bytes)).poll(cx))?;
        if read == room {
            self.ask = (self.ask * 4).min(LARGE_READ);
        } else if read < self.ask / 8 {
            self.ask = (self.ask / 2).max(SMALL_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads into this thread's buffer, and keeps what came.
    fn poll_read_little<S: AsyncRead + Unpin + ?Sized>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut little = LITTLE.take().unwrap_or_else(|| Box::new([0; SMALL_READ]));
        let mut buffer = ReadBuf::new(little.as_mut_slice());
        let polled = Pin::new(stream).poll_read(cx, &mut buffer);
        let filled = buffer.filled();
        if self.bytes.capacity() > KEPT_BYTES.max(filled.len()) {
            self.bytes = BytesMut::new();
        }
        self.bytes.extend_from_slice(filled);
        let read = filled.len();
        LITTLE.set(Some(little));
        ready!(polled)?;
        if read == SMALL_READ {
            self.ask *= 4;
        }
        Poll::Ready(Ok(read))
    }
}

/// Takes the first `count` bytes off a buffer: few are copied, many keep their place in memory.
pub fn take(buffer: &mut BytesMut, count: usize) -> Bytes {
    if count > COPIED_BYTES {
        return buffer.split_to(count).freeze();
    }
    let taken = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
    buffer.advance(count.min(buffer.len()));
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_buffer_follows_the_traffic() {
        let much = vec![7u8; 4 * LARGE_READ];
        let mut stream = std::io::Cursor::new(much.clone());
        let mut intake = Intake::default();
        let mut all = Vec::new();
        loop {
            let n = std::future::poll_fn(|cx| intake.poll_read(&mut stream, cx)).await.unwrap();
            if n == 0 {
                break;
            }
            all.extend_from_slice(&take(&mut intake.bytes, n));
        }
        assert_eq!(all, much);
        assert!(intake.ask >= LARGE_READ / 2, "{}", intake.ask);
        for _ in 0..8 {
            let mut little = std::io::Cursor::new(vec![1u8; 10]);
            std::future::poll_fn(|cx| intake.poll_read(&mut little, cx)).await.unwrap();
            assert_eq!(take(&mut intake.bytes, 10).len(), 10);
        }
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(intake.poll_read(&mut near, &mut cx).is_pending());
        assert!(intake.bytes.capacity() <= KEPT_BYTES, "{}", intake.bytes.capacity());
        tokio::io::AsyncWriteExt::write_all(&mut far, b"SELECT 1").await.unwrap();
        assert_eq!(std::future::poll_fn(|cx| intake.poll_read(&mut near, cx)).await.unwrap(), 8);
        assert_eq!(take(&mut intake.bytes, 8).as_ref(), b"SELECT 1");
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_is_what_was_sent_whatever_is_taken_when(
            parts in proptest::collection::vec(1..3 * SMALL_READ, 1..40),
            taken in proptest::collection::vec(0..4 * SMALL_READ, 1..40),
        ) {
            let sent: Vec<u8> = (0..parts.iter().sum()).map(|i: usize| (i * 7 % 251) as u8).collect();
            let mut intake = Intake::default();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let (mut rest, mut got) = (sent.as_slice(), Vec::new());
            let mut taken = taken.into_iter().cycle();
            for part in parts {
                let (mut now, later) = rest.split_at(part);
                rest = later;
                while let Poll::Ready(Ok(1..)) = intake.poll_read(&mut now, &mut cx) {
                    let count = taken.next().unwrap_or(0).min(intake.bytes.len());
                    got.extend_from_slice(&take(&mut intake.bytes, count));
                }
            }
            got.extend_from_slice(&intake.bytes);
            proptest::prop_assert_eq!(got, sent);
        }
    }
}
