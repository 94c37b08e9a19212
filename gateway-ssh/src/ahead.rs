//! Reads more from a socket than was asked for: the library asks for the four bytes of a packet's length, then for the packet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use gateway_core::intake::Intake;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whoever asks for so many bytes gets them without a copy, in bytes.
const DIRECT_BYTES: usize = 4 * 1024;

/// A stream that is read ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    stream: S,
    intake: Intake,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, intake: Intake::default() }
    }
}

impl<S: AsyncRead + Unpin> ReadAhead<S> {
    /// Reads no more than is asked for.
    pub(crate) fn poll_read_only(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.intake.bytes.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = buf.remaining().min(self.intake.bytes.len());
        buf.put_slice(self.intake.bytes.get(..count).unwrap_or_default());
        self.intake.bytes.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.intake.bytes.is_empty() && buf.remaining() < DIRECT_BYTES {
            let read = ready!(this.intake.poll_read(&mut this.stream, cx))?;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_read_only(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
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
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_is_what_was_sent_whatever_is_asked_for(
            asked in proptest::collection::vec(1..3 * DIRECT_BYTES, 1..40),
        ) {
            let sent: Vec<u8> = (0..asked.iter().sum()).map(|i: usize| (i * 7 % 251) as u8).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(async {
                let mut stream = ReadAhead::new(sent.as_slice());
                let mut got = Vec::new();
                for count in asked {
                    let mut piece = vec![0; count];
                    stream.read_exact(&mut piece).await.unwrap();
                    got.extend(piece);
                }
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
                got
            });
            prop_assert_eq!(got, sent);
        }
    }
}
