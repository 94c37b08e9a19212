//! The beginning of a connection: the gateway hears what the client offers before it makes its own offer (RFC 4253 section 7.1
//! leaves open who speaks first).
//!
//! The client's order of ciphers decides, and stock clients put first what is slow on processors with AES of their own. What is not
//! offered cannot be chosen: whoever knows AES-256-GCM is offered nothing else, everybody else the whole list.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

/// The identification sent to clients and targets (RFC 4253 section 4.2), without its line end.
pub(crate) const IDENTIFICATION: &str = "SSH-2.0-gateway";

/// How long a client may take to offer first; some wait for the server's offer. 300 ms.
const PATIENCE: Duration = Duration::from_millis(300);

/// The longest identification with its line end, in bytes (RFC 4253 section 4.2).
const MAX_LINE_BYTES: usize = 255;

/// The longest packet that every implementation takes, in bytes (RFC 4253 section 6.1).
const MAX_PACKET_BYTES: usize = 35_000;

/// Message number of KEXINIT, and the length of its random cookie in bytes (RFC 4253 section 7.1).
const KEXINIT: u8 = 20;
const COOKIE_BYTES: usize = 16;

/// A connection whose identifications are exchanged. To whoever goes on with it, it looks as if they were not.
#[derive(Debug)]
pub(crate) struct Greeted<S> {
    stream: S,
    /// Of what was sent already, what is still to be written again.
    said: Bytes,
    /// What was read already.
    heard: BytesMut,
}

/// Exchanges identifications. Tells whether the client knows AES-256-GCM.
///
/// # Errors
/// The connection's.
pub(crate) async fn greet<S>(mut stream: S) -> io::Result<(Greeted<S>, bool)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = Bytes::from(format!("{IDENTIFICATION}\r\n"));
    stream.write_all(&said).await?;
    stream.flush().await?;
    let mut heard = BytesMut::new();
    let knows = timeout(PATIENCE, hear(&mut stream, &mut heard)).await.unwrap_or(Ok(false))?;
    Ok((Greeted { stream, said, heard }, knows))
}

/// Reads until the client's offer is there. What was read stays in `heard`, also if this is dropped.
async fn hear(stream: &mut (impl AsyncRead + Unpin), heard: &mut BytesMut) -> io::Result<bool> {
    loop {
        if let Some(knows) = knows_gcm(heard) {
            return Ok(knows);
        }
        let room = (MAX_LINE_BYTES + MAX_PACKET_BYTES).saturating_sub(heard.len());
        if stream.read_buf(&mut (&mut *heard).limit(room)).await? == 0 {
            return Ok(false);
        }
    }
}

/// Whether the client's offer names AES-256-GCM for both directions; `None` if more has to come. Anything unexpected is left to whoever
/// goes on.
fn knows_gcm(heard: &[u8]) -> Option<bool> {
    let line = heard.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n');
    let Some(line) = line else { return (heard.len() >= MAX_LINE_BYTES).then_some(false) };
    let mut packet = heard.get(line + 1..).unwrap_or_default();
    let length = packet.try_get_u32().ok()? as usize;
    if length > MAX_PACKET_BYTES {
        return Some(false);
    }
    Some(offers_gcm(packet.get(..length)?).unwrap_or(false))
}

/// Of a packet without its length: padding length, payload, padding.
fn offers_gcm(mut packet: &[u8]) -> Option<bool> {
    let _padding = packet.try_get_u8().ok()?;
    if packet.try_get_u8().ok()? != KEXINIT {
        return None;
    }
    let mut lists = packet.get(COOKIE_BYTES..)?;
    let (_key_exchanges, _host_keys) = (name_list(&mut lists)?, name_list(&mut lists)?);
    let (to_server, to_client) = (name_list(&mut lists)?, name_list(&mut lists)?);
    let gcm = russh::cipher::AES_256_GCM.as_ref().as_bytes();
    let names = |list: &[u8]| list.split(|byte| *byte == b',').any(|name| name == gcm);
    Some(names(to_server) && names(to_client))
}

/// RFC 4251 section 5.
fn name_list<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = from.try_get_u32().ok()? as usize;
    let (list, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(list)
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = buf.remaining().min(self.heard.len());
        buf.put_slice(self.heard.get(..count).unwrap_or_default());
        self.heard.advance(count);
        if self.heard.is_empty() {
            self.heard = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.said.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        let count = buf.len().min(self.said.len());
        if self.said.get(..count) != buf.get(..count) {
            let words = "another identification was sent already";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, words)));
        }
        self.said.advance(count);
        Poll::Ready(Ok(count))
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

    fn offer(to_server: &str, to_client: &str) -> Vec<u8> {
        let mut payload = vec![KEXINIT];
        payload.extend([7; COOKIE_BYTES]);
        for list in ["curve25519-sha256", "ssh-ed25519", to_server, to_client, "", "", "none", "none", "", ""]
        {
            payload.put_u32(u32::try_from(list.len()).unwrap());
            payload.extend_from_slice(list.as_bytes());
        }
        payload.extend([0; 5]);
        let mut out = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec();
        out.put_u32(u32::try_from(payload.len()).unwrap() + 5);
        out.put_u8(4);
        out.extend(payload);
        out.extend([0; 4]);
        out
    }

    const STOCK: &str = "chacha20-poly1305@openssh.com,aes256-ctr,aes256-gcm@openssh.com";

    #[test]
    fn an_offer_is_known_once_it_is_whole() {
        let whole = offer(STOCK, STOCK);
        for cut in 0..whole.len() {
            assert_eq!(knows_gcm(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(knows_gcm(&whole), Some(true));
    }

    #[test]
    fn gcm_must_be_known_both_ways_and_by_its_whole_name() {
        assert_eq!(knows_gcm(&offer(STOCK, "aes256-ctr")), Some(false));
        assert_eq!(knows_gcm(&offer("aes256-ctr", STOCK)), Some(false));
        let other = "xaes256-gcm@openssh.com,aes256-gcm@openssh.comx";
        assert_eq!(knows_gcm(&offer(other, other)), Some(false));
    }

    #[test]
    fn what_is_no_offer_is_left_to_others() {
        assert_eq!(knows_gcm(&[b'x'; MAX_LINE_BYTES]), Some(false));
        assert_eq!(knows_gcm(b"SSH-2.0-x\r\n\xff\xff\xff\xff"), Some(false));
        assert_eq!(knows_gcm(b"SSH-2.0-x\r\n\0\0\0\x06\x04\x14abcd"), Some(false));
        assert_eq!(knows_gcm(b"SSH-2.0-x\r\n\0\0\0\0"), Some(false));
    }

    #[tokio::test]
    async fn both_identifications_are_seen_again_and_sent_once() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let sent = [offer(STOCK, STOCK), b"more".to_vec()].concat();
        client.write_all(&sent).await.unwrap();
        let (mut server, knows) = greet(server).await.unwrap();
        assert!(knows);
        server.write_all(b"SSH-2.0-gateway\r\nrest").await.unwrap();
        let mut got = vec![0; sent.len()];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, sent);
        let mut got = vec![0; b"SSH-2.0-gateway\r\nrest".len()];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, b"SSH-2.0-gateway\r\nrest");
        drop(server);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_is_not_waited_for() {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"SSH-2.0-patient\r\n").await.unwrap();
        let (mut server, knows) = greet(server).await.unwrap();
        assert!(!knows);
        let mut got = [0; 17];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"SSH-2.0-patient\r\n");
    }
}
