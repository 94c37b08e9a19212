//! The way to the client: takes nothing but what was released.

use std::sync::Arc;

use gateway_core::pipeline::Released;
use russh::server::Msg;
use russh::{ChannelWriteHalf, Sig};

use super::Gone;
use crate::session::SshSession;

/// Type code of standard error (RFC 4254 section 5.2).
const EXTENDED_STDERR: u32 = 1;

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The writing half of a client's channel. It waits for the channel's own window, so that a client that does not read stops
/// this channel and no other.
#[derive(Debug)]
pub(crate) struct Output {
    write: ChannelWriteHalf<Msg>,
    session: Arc<SshSession>,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub(crate) enum Exit {
    Status(u32),
    Signal { name: Sig, core_dumped: bool },
}

impl Output {
    pub(crate) const fn new(write: ChannelWriteHalf<Msg>, session: Arc<SshSession>) -> Self {
        Self { write, session }
    }

    pub(crate) async fn send(&self, stream: Stream, released: Released) -> Result<(), Gone> {
        let bytes = released.into_bytes();
        let sent = match stream {
            Stream::Stdout => self.write.data_bytes(bytes).await,
            Stream::Stderr => self.write.extended_data_bytes(EXTENDED_STDERR, bytes).await,
        };
        sent.map_err(|_| Gone)
    }

    /// A line of the gateway's own.
    pub(crate) async fn say(&self, line: String) -> Result<(), Gone> {
        self.send(Stream::Stderr, self.session.guard.originate(line)).await
    }

    pub(crate) async fn exit(&self, status: u32) -> Result<(), Gone> {
        self.write.exit_status(status).await.map_err(|_| Gone)
    }

    pub(crate) async fn ended(&self, exit: &Exit) -> Result<(), Gone> {
        match exit {
            Exit::Status(status) => self.exit(*status).await,
            // The target's message is not sent: it is text that nothing has masked.
            Exit::Signal { name, core_dumped } => {
                let (id, name) = (self.write.id(), name.clone());
                let handle = &self.session.handle;
                let sent = handle.exit_signal_request(id, name, *core_dumped, String::new(), String::new());
                sent.await.map_err(|()| Gone)
            }
        }
    }

    pub(crate) async fn eof(&self) -> Result<(), Gone> {
        self.write.eof().await.map_err(|_| Gone)
    }

    pub(crate) async fn close(&self) -> Result<(), Gone> {
        self.write.close().await.map_err(|_| Gone)
    }
}
