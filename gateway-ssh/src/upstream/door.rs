//! Channels that the target opens towards the client: only those that were asked for, each waiting for its verdict.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure, Error};
use tokio::sync::mpsc;

/// Channels that the target opened and nobody has taken yet; more are refused. 16.
const MAX_KNOCKING: usize = 16;

/// What the target opens a channel for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Somebody connected to a forwarded port of the target (RFC 4254 section 7.2): the address and port as they were forwarded,
    /// and whose they are.
    Tcp { address: String, port: u32, from: String, from_port: u32 },
    /// Somebody connected to a forwarded socket (OpenSSH PROTOCOL, section 2.4).
    Socket(String),
    /// A program on the target asks the client's agent.
    Agent,
    /// A program on the target draws on the client's screen (RFC 4254 section 6.3.2).
    X11 { from: String, from_port: u32 },
}

/// What was asked for, so that it may come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Expected {
    /// A port of the target, as the client named it; with port 0 any.
    Tcp(String, u32),
    Socket(String),
    Agent,
    X11,
}

impl Expected {
    fn is(&self, origin: &Origin) -> bool {
        match (self, origin) {
            // Servers say the port they chose, and some the address they listen on instead of the one they were given.
            (Self::Tcp(_, wanted), Origin::Tcp { port, .. }) => *wanted == 0 || wanted == port,
            (Self::Socket(wanted), Origin::Socket(path)) => wanted == path,
            (Self::Agent, Origin::Agent) | (Self::X11, Origin::X11 { .. }) => true,
            _ => false,
        }
    }
}

/// A channel that the target wants to open. Dropped, it is refused.
pub(crate) struct Knock {
    pub(crate) origin: Origin,
    pub(crate) channel: Channel<Msg>,
    pub(crate) reply: ChannelOpenHandle,
}

impl fmt::Debug for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knock").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Says which channels the target may open on one connection: at first none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door(Arc<Mutex<Option<Open>>>);

#[derive(Debug)]
struct Open {
    expected: Vec<Expected>,
    to: mpsc::Sender<Knock>,
}

impl Door {
    /// Expects such channels from now on, as long as the receiver lives.
    pub(crate) fn expect(&self, expected: Vec<Expected>) -> mpsc::Receiver<Knock> {
        let (to, knocks) = mpsc::channel(MAX_KNOCKING);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Open { expected, to });
        knocks
    }

    /// Whether such channels may have come.
    pub(crate) fn was_opened(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn to(&self, origin: &Origin) -> Option<mpsc::Sender<Knock>> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref()?;
        open.expected.iter().any(|expected| expected.is(origin)).then(|| open.to.clone())
    }

    /// Passes on what is expected, and refuses everything else.
    pub(super) async fn knock(
        &self,
        origin: Origin,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
    ) -> Result<(), Error> {
        match self.to(&origin) {
            // Dropped where nobody listens or too many wait: that refuses it.
            Some(to) => drop(to.try_send(Knock { origin, channel, reply })),
            None => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(port: u32) -> Origin {
        Origin::Tcp { address: "localhost".to_owned(), port, from: "10.0.0.1".to_owned(), from_port: 5 }
    }

    #[test]
    fn only_what_was_asked_for_may_come() {
        let door = Door::default();
        assert!(!door.was_opened() && door.to(&Origin::Agent).is_none());
        let _knocks = door.expect(vec![Expected::Tcp("localhost".to_owned(), 80), Expected::Agent]);
        assert!(door.was_opened());
        assert!(door.to(&tcp(80)).is_some() && door.to(&Origin::Agent).is_some());
        for other in
            [tcp(81), Origin::Socket("/s".to_owned()), Origin::X11 { from: String::new(), from_port: 1 }]
        {
            assert!(door.to(&other).is_none(), "{other:?}");
        }
        let _knocks =
            door.expect(vec![Expected::Tcp("localhost".to_owned(), 0), Expected::Socket("/s".to_owned())]);
        assert!(door.to(&tcp(81)).is_some() && door.to(&Origin::Agent).is_none());
        assert!(door.to(&Origin::Socket("/s/".to_owned())).is_none());
    }
}
