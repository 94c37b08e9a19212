//! One logged-in connection: its guard, its way to the target, and the tasks of its channels.

use std::sync::{Arc, Mutex, PoisonError};

use gateway_core::approval::Delivery;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Batch, Operation, Resource, Stage};
use gateway_core::pipeline::{Guard, Judged, NoRewrites, Pending};
use gateway_core::session::CloseReason;
use russh::server::Handle;
use tokio::task::JoinSet;

use crate::channel::Opened;
use crate::gate::Gate;
use crate::login::Grants;
use crate::names::Names;
use crate::upstream::Upstreams;

/// What the channels of a connection share.
#[derive(Debug)]
pub(crate) struct SshSession {
    pub(crate) guard: Guard,
    pub(crate) upstreams: Upstreams,
    pub(crate) target: Resource,
    pub(crate) names: Names,
    pub(crate) grants: Grants,
    pub(crate) gate: Arc<Gate>,
    /// Channels that the target opened towards the client.
    pub(crate) opened: Opened,
    /// For the one message that channels cannot send themselves.
    pub(crate) handle: Handle,
    tasks: Tasks,
}

/// The channels' tasks; `None` once they were ended.
#[derive(Debug)]
struct Tasks(Mutex<Option<JoinSet<()>>>);

impl Default for Tasks {
    fn default() -> Self {
        Self(Mutex::new(Some(JoinSet::new())))
    }
}

impl Tasks {
    /// Once they were ended nothing starts: what a client still sends comes too late, and a task that nobody ends would keep the
    /// session and its login for ever.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tasks) = tasks.as_mut() else { return };
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    async fn end(&self) {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }
}

impl SshSession {
    pub(crate) fn new(
        guard: Guard,
        upstreams: Upstreams,
        names: Names,
        grants: Grants,
        gate: Arc<Gate>,
        handle: Handle,
    ) -> Self {
        let target = Resource::target(&guard.info().target);
        let (opened, tasks) = (Opened::default(), Tasks::default());
        Self { guard, upstreams, target, names, grants, gate, opened, handle, tasks }
    }

    /// Runs a channel until it ends or the session does; after that, not at all. A panic in it ends nothing but itself.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends the channels and seals the recording.
    pub(crate) async fn close(&self, reason: CloseReason) {
        // Held operations are withdrawn as their tasks are dropped, before the recording is sealed.
        self.tasks.end().await;
        if let Err(error) = self.guard.close(reason).await {
            tracing::error!(%error, session = %self.guard.info().id, "a recording could not be sealed");
        }
    }

    pub(crate) fn pending(&self, operation: Operation) -> Pending {
        self.guard.pending(Batch::one(Stage::Execute, operation))
    }

    /// Goes on no faster than the recorder takes it: what waits to be written is bound for all sessions together.
    pub(crate) async fn wait_for_recorder(&self) -> Result<(), Denial> {
        if self.guard.has_room() { Ok(()) } else { self.guard.catch_up().await }
    }

    /// Judges what is done at once, in the order of the connection, and has no answer but yes or no: nobody may be waited for.
    pub(crate) async fn permit(&self, operation: Operation) -> Result<(), Denial> {
        self.wait_for_recorder().await?;
        let pending = self.pending(operation);
        match self.guard.judge_for(pending, &NoRewrites, Delivery::Retry).await {
            Judged::Permit(permit) => permit.consume().1.complete("granted"),
            Judged::Refused(refused) => Err(refused.denial),
            Judged::Held(held) => Err(held.cancel().await),
        }
    }

    /// Records the refusal of what no policy was asked about.
    pub(crate) fn refuse(&self, operation: Operation, denial: Denial) -> Denial {
        self.guard.refuse(&self.pending(operation), denial)
    }
}

/// The proof of identity takes away what policy might give.
pub(crate) fn not_granted(what: &str) -> Denial {
    Denial::new(DenialCode::Forbidden, format!("the certificate does not permit {what}"))
        .with_hint("log in with a certificate that permits it")
}

/// What this gateway does not do whatever the policies say.
pub(crate) fn unsupported(what: &str) -> Denial {
    Denial::new(DenialCode::Forbidden, format!("{what} is not offered by this gateway"))
        .with_hint("do the work in commands on the target")
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn nothing_starts_once_the_tasks_were_ended() {
        let tasks = Tasks::default();
        let forever = |held: oneshot::Sender<()>| async move {
            std::future::pending::<()>().await;
            drop(held);
        };
        let (held, before) = oneshot::channel();
        tasks.spawn(forever(held));
        tasks.end().await;
        assert!(before.await.is_err(), "the running one is dropped");
        let (held, after) = oneshot::channel();
        tasks.spawn(forever(held));
        assert!(after.await.is_err(), "the late one is dropped unstarted");
        tasks.end().await;
    }
}
