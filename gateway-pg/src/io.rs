//! Byte streams and exact reads. Nothing is read beyond what is asked for, so nothing can be left over across a TLS upgrade.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::codec::{Frame, next_frame, peek, startup};

/// A connection: TCP, Unix socket, TLS over either, or an in-memory pipe.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection of any kind.
pub type BoxedStream = Box<dyn Stream>;

/// A broken protocol as an I/O error.
pub(crate) fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Reads exactly one first packet.
pub(crate) async fn read_startup<S: AsyncRead + Unpin + ?Sized>(stream: &mut S) -> io::Result<Bytes> {
    let mut packet = BytesMut::zeroed(4);
    stream.read_exact(&mut packet).await?;
    let total = startup::packet_length(&packet).map_err(invalid)?.unwrap_or(4);
    packet.resize(total, 0);
    stream.read_exact(packet.get_mut(4..).unwrap_or_default()).await?;
    Ok(packet.freeze())
}

/// Reads exactly one frame of at most `limit` bytes.
pub(crate) async fn read_frame<S: AsyncRead + Unpin + ?Sized>(
    stream: &mut S,
    limit: usize,
) -> io::Result<Frame> {
    let mut buffer = BytesMut::zeroed(5);
    stream.read_exact(&mut buffer).await?;
    let (_, total) = peek(&buffer, |_| limit).map_err(invalid)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    buffer.resize(total, 0);
    stream.read_exact(buffer.get_mut(5..).unwrap_or_default()).await?;
    next_frame(&mut buffer, |_| limit).map_err(invalid)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
