//! Cancel requests: the gateway gives out keys of its own and maps them to sessions. The server's key never leaves the gateway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Sessions by the key they were given. What bounds guessing is the key, as at the server itself: 32 bits in protocol 3.0, 256
/// bits in 3.2; a wrong one is answered with silence. The process id is the server's own: drivers compare it with `pg_backend_pid()`
/// and with the sender of a notification, and hand it to `pg_terminate_backend()`, where another one would hit a stranger.
#[derive(Debug, Default)]
pub(crate) struct CancelRegistry(Mutex<Sessions>);

/// By process id and key.
type Sessions = HashMap<(u32, Vec<u8>), Arc<Notify>>;

/// A session's entry; dropping it makes its key void.
#[derive(Debug)]
pub(crate) struct CancelEntry {
    registry: Arc<CancelRegistry>,
    pub(crate) pid: u32,
    pub(crate) key: Vec<u8>,
    pub(crate) asked: Arc<Notify>,
}

impl CancelRegistry {
    /// Registers a session of the server's process with the given key.
    pub(crate) fn register(self: &Arc<Self>, pid: u32, key: Vec<u8>) -> CancelEntry {
        let asked = Arc::new(Notify::new());
        self.lock().insert((pid, key.clone()), Arc::clone(&asked));
        CancelEntry { registry: Arc::clone(self), pid, key, asked }
    }

    /// Passes a cancel request on to the session it is for, if there is one.
    pub(crate) fn cancel(&self, pid: u32, key: Vec<u8>) -> bool {
        let session = self.lock().get(&(pid, key)).cloned();
        session.as_ref().is_some_and(|asked| {
            asked.notify_one();
            true
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CancelEntry {
    fn drop(&mut self) {
        self.registry.lock().remove(&(self.pid, std::mem::take(&mut self.key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_cancels_and_only_while_the_session_lives() {
        let registry = Arc::new(CancelRegistry::default());
        let entry = registry.register(77, vec![1, 2, 3, 4]);
        assert!(!registry.cancel(entry.pid, vec![1, 2, 3, 5]));
        assert!(!registry.cancel(entry.pid ^ 1, vec![1, 2, 3, 4]));
        assert!(registry.cancel(entry.pid, vec![1, 2, 3, 4]));
        let (pid, key) = (entry.pid, entry.key.clone());
        drop(entry);
        assert!(!registry.cancel(pid, key));
    }
}
