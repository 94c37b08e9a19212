//! Channels that the target opens towards the client: each is judged when it comes, then its bytes are pumped like a forward's.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use crate::served::listening_host;
use crate::session::SshSession;
use crate::upstream::door::{Expected, Knock, Origin};
use crate::upstream::{Leased, Listening};

/// How long a client may take to accept a channel. 20 s.
const ACCEPT: Duration = Duration::from_secs(20);

/// How long a client that was told the end of a channel has to close it first. 5 s.
const LINGER: Duration = Duration::from_secs(5);

/// The channels of one client that its target opened. The connection and a channel's task meet here: either may be first.
#[derive(Debug)]
pub(crate) struct Opened {
    inboxes: Mutex<HashMap<ChannelId, Arc<Inbox>>>,
    slots: Semaphore,
    /// Channels that the client was asked to take and whose confirmation the connection has not seen yet.
    asked: AtomicUsize,
}

impl Default for Opened {
    fn default() -> Self {
        let (inboxes, asked) = (Mutex::default(), AtomicUsize::new(0));
        Self { inboxes, slots: Semaphore::new(MAX_OPENED), asked }
    }
}

impl Opened {
    /// What the client sends on a channel that it took, if it was asked to take one. The connection's part: uses up one question, since
    /// the asking task may hear of the confirmation before the connection does.
    pub(crate) fn taken(&self, channel: ChannelId, gate: &Arc<Gate>) -> Option<Arc<Inbox>> {
        self.answered().then(|| self.inbox(channel, gate))
    }

    fn ask(&self) {
        self.asked.fetch_add(1, Ordering::AcqRel);
    }

    /// One question less; false if there was none.
    fn answered(&self) -> bool {
        self.asked.fetch_update(Ordering::AcqRel, Ordering::Acquire, |asked| asked.checked_sub(1)).is_ok()
    }

    fn inbox(&self, channel: ChannelId, gate: &Arc<Gate>) -> Arc<Inbox> {
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(inboxes.entry(channel).or_insert_with(|| Arc::new(Inbox::new(Arc::clone(gate)))))
    }

    /// The channel's task is over, or there never will be one.
    fn forget(&self, channel: ChannelId) {
        let inbox = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
        if let Some(inbox) = inbox {
            inbox.finish();
        }
    }
}

/// Forgets a channel when its task ends, however it does.
struct Registered<'a>(&'a Opened, ChannelId);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
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
    let Knock { expected, origin, channel, reply } = knock;
    let Some(permit) = permitted(&session, described(&session, &expected, &origin)).await else { return };
    let (_, results) = permit.consume();
    let Some(ours) = taken(&session, expected, origin).await else {
        // What cannot be recorded ends the session at its next operation.
        let _ = results.complete("the client did not take it");
        return;
    };
    let _registered = Registered(&session.opened, ours.id());
    let inbox = session.opened.inbox(ours.id(), &session.gate);
    let (_, write) = ours.split();
    reply.accept().await;
    let task = Task::new(Arc::clone(&session), inbox, write);
    let leased = Leased { connection: None, channel };
    // The client is told by the end of the channel, whatever it was.
    let _ = pump::run(&task, leased, results, &Program::Opened, super::Permitted::raw()).await;
    let _ = task.output.eof().await;
    // The client closes first where it does so soon: only then does the library forget the channel whole.
    let _ = timeout(LINGER, task.inbox.closed()).await;
    let _ = task.output.close().await;
}

/// The client's end of the channel, if it takes it in time. One that it takes later is closed at once.
async fn taken(session: &Arc<SshSession>, expected: Expected, origin: Origin) -> Option<Channel<Msg>> {
    let (to, taken) = oneshot::channel();
    let asking = Arc::clone(session);
    session.spawn(async move {
        asking.opened.ask();
        match open(&asking, expected, origin).await {
            Ok(channel) => {
                if let Err(late) = to.send(channel) {
                    asking.opened.forget(late.id());
                    let _ = late.close().await;
                }
            }
            // Refused: no confirmation comes.
            Err(_) => drop(asking.opened.answered()),
        }
    });
    timeout(ACCEPT, taken).await.ok()?.ok()
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

/// Judged by what was permitted and asked for; what the target says of it stands beside it.
fn described(session: &SshSession, expected: &Expected, origin: &Origin) -> Operation {
    let target = &session.target;
    let mut operation = match expected {
        Expected::Tcp(address, port) => {
            operation::tcp(target, "tcpip_forward", &listening_host(address), *port)
        }
        Expected::Socket(path) => operation::socket(target, "streamlocal_forward", path),
        Expected::Agent => operation::forwarding(target, "agent_forward"),
        Expected::X11 => operation::forwarding(target, "x11"),
    };
    operation.arguments.push(operation::argument("opened by the target".to_owned(), &format!("{origin:?}")));
    operation
}

async fn open(session: &SshSession, expected: Expected, origin: Origin) -> Result<Channel<Msg>, Error> {
    let client = &session.handle;
    match (expected, origin) {
        (Expected::Tcp(address, port), Origin::Tcp { from, from_port, .. }) => {
            client.channel_open_forwarded_tcpip(address, port, from, from_port).await
        }
        (Expected::Socket(path), Origin::Socket(_)) => client.channel_open_forwarded_streamlocal(path).await,
        (Expected::Agent, Origin::Agent) => client.channel_open_agent().await,
        (Expected::X11, Origin::X11 { from, from_port }) => client.channel_open_x11(from, from_port).await,
        // What was asked for is what came; see `Door`.
        _ => Err(Error::Inconsistent),
    }
}
