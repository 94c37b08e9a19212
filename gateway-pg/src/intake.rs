//! What was read and not yet used, in a buffer as large as the traffic through it: an idle session keeps little.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked for by a read when little comes.
const SMALL_READ: usize = 4 * 1024;

/// Bytes asked for at once when much comes.
const LARGE_READ: usize = 128 * 1024;

/// Up to so many bytes are copied when they are taken off a buffer, so that what keeps them (a recording) does not keep the buffer.
pub(crate) const COPIED_BYTES: usize = 4 * 1024;

/// Bytes from one side.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) bytes: BytesMut,
    /// How much the next read asks for.
    ask: usize,
}

impl Intake {
    pub(crate) fn new() -> Self {
        Self { bytes: BytesMut::new(), ask: SMALL_READ }
    }

    /// Reads what is there, as far as it fits; 0 is the end.
    pub(crate) fn poll_read<S: AsyncRead + Unpin + ?Sized>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
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
}

/// Takes the first `count` bytes off a buffer: few are copied, many keep their place in memory.
pub(crate) fn take(buffer: &mut BytesMut, count: usize) -> Bytes {
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
        let mut intake = Intake::new();
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
        assert!(intake.bytes.capacity() <= 2 * SMALL_READ, "{}", intake.bytes.capacity());
    }
}
