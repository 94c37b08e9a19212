//! Signals of the operating system.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// Read the policies again.
    Reload,
    /// End; with the signal's name.
    Stop(&'static str),
}

/// The signals that `serve` obeys.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    /// Never looked at: with a handler, a file at its size limit is an error of the write and not the end of the process.
    _file_size: Signal,
}

/// SIGXFSZ, setrlimit(2). The same number on Linux (all but MIPS and PA-RISC), macOS and the BSDs.
const FILE_SIZE: i32 = 25;

impl Signals {
    /// From now on; before this they do what they always do.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            _file_size: signal(SignalKind::from_raw(FILE_SIZE))?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
        }
    }
}
