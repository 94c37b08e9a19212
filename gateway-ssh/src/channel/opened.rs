//! Channels that the target opens towards the client: each is judged when it comes, then its bytes are pumped like a forward's.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_core::approval::Delivery;
use gateway_core::operation::Operation;
use gateway_core::pipeline::{Judged, NoRewrites, Permit};
use russh::server::Msg;
use russh::{Channel, ChannelId, Error};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{Inbox, Program, Task, pump};
use crate::gate::{Gate, MAX_OPENED};
use crate::operation;
use crate::session::SshSession;
use crate::upstream::door::{Knock, Origin};
use crate::upstream::{Leased, Listening};

/// How long a client may take to accept a channel.
const ACCEPT: Duration = Duration::from_secs(20);

/// The channels of one client that its target opened. The connection and a channel's task meet here: either may be first.
#[derive(Debug)]
pub(crate) struct Opened {
    inboxes: Mutex<HashMap<ChannelId, Arc<Inbox>>>,
    slots: Semaphore,
}

impl Default for Opened {
    fn default() -> Self {
        Self { inboxes: Mutex::default(), slots: Semaphore::new(MAX_OPENED) }
    }
}

impl Opened {
    /// What the client sends on a channel that it accepted.
    pub(crate) fn inbox(&self, channel: ChannelId, gate: &Arc<Gate>) -> Arc<Inbox> {
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(inboxes.entry(channel).or_insert_with(|| Arc::new(Inbox::new(Arc::clone(gate)))))
    }

    /// The channel is closed.
    pub(crate) fn forget(&self, channel: ChannelId) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
    }
}

/// Takes what the target opens as long as it listens for the client, until it is stopped.
pub(crate) async fn listen(session: Arc<SshSession>, listening: Listening, stop: oneshot::Receiver<()>) {
    let Listening { mut connection, knocks, .. } = listening;
    tokio::select! {
        () = connection.ended() => {}
        // Also when the one who could say so is gone.
        _ = stop => {}
        never = take(&session, Some(knocks)) => match never {},
    }
}

/// Takes what the target opens, if it may open anything; never ends by itself.
pub(super) async fn take(session: &Arc<SshSession>, knocks: Option<mpsc::Receiver<Knock>>) -> Infallible {
    if let Some(mut knocks) = knocks {
        while let Some(knock) = knocks.recv().await {
            session.spawn(served(Arc::clone(session), knock));
        }
    }
    std::future::pending().await
}

/// Boxed: a program's pump takes such channels, and such a channel is pumped.
fn served(session: Arc<SshSession>, knock: Knock) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(serve(session, knock))
}

/// Serves one such channel; it is refused on the way unless it is permitted and the client takes it.
async fn serve(session: Arc<SshSession>, knock: Knock) {
    let Ok(_slot) = session.opened.slots.try_acquire() else { return };
    let Knock { origin, channel, reply } = knock;
    let (operation, program) = described(&session, &origin);
    let Some(permit) = permitted(&session, operation).await else { return };
    let (_, results) = permit.consume();
    let Ok(Ok(ours)) = timeout(ACCEPT, open(&session, origin)).await else {
        // What cannot be recorded ends the session at its next operation.
        let _ = results.complete("the client did not take it");
        return;
    };
    let inbox = session.opened.inbox(ours.id(), &session.gate);
    let (_, write) = ours.split();
    reply.accept().await;
    let task = Task::new(Arc::clone(&session), inbox, write);
    let leased = Leased { connection: None, channel };
    // The client is told by the end of the channel, whatever it was.
    let _ = pump::run(&task, leased, results, &program, super::Permitted::raw()).await;
    let _ = task.output.close().await;
}

async fn permitted(session: &SshSession, operation: Operation) -> Option<Permit> {
    let pending = session.pending(operation);
    match session.guard.judge_for(pending, &NoRewrites, Delivery::Retry).await {
        Judged::Permit(permit) => Some(*permit),
        Judged::Refused(_) => None,
        Judged::Held(held) => {
            let _ = held.cancel().await;
            None
        }
    }
}

fn described(session: &SshSession, origin: &Origin) -> (Operation, Program) {
    let target = &session.target;
    let operation = match origin {
        Origin::Tcp { address, port, .. } => operation::tcp(target, "tcpip_forward", address, *port),
        Origin::Socket(path) => operation::socket(target, "streamlocal_forward", path),
        Origin::Agent => operation::forwarding(target, "agent_forward"),
        Origin::X11 { .. } => operation::forwarding(target, "x11"),
    };
    (operation, Program::Opened)
}

async fn open(session: &SshSession, origin: Origin) -> Result<Channel<Msg>, Error> {
    let client = &session.handle;
    match origin {
        Origin::Tcp { address, port, from, from_port } => {
            client.channel_open_forwarded_tcpip(address, port, from, from_port).await
        }
        Origin::Socket(path) => client.channel_open_forwarded_streamlocal(path).await,
        Origin::Agent => client.channel_open_agent().await,
        Origin::X11 { from, from_port } => client.channel_open_x11(from, from_port).await,
    }
}
