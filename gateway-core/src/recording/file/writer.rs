//! The threads that write: each serves many sessions, a session belongs to one of them.
//!
//! Records wait for the next tick, so that a busy session costs a few system calls per second and an idle one none. A commit
//! (somebody waits) goes first and takes turns with the ticks' work, so that neither starves.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::blocks::{Packing, RecordingFile, Scratch};
use super::format::EntryKind;
use super::keys::RecordingKey;
use super::ledger::Note;
use super::session::{Session, Signed, Urgency};
use super::storage::Storage;

/// How long a record may wait before it is written and signed. 70 ms: with the writing itself, less than the 100 ms that
/// may be lost after a kill.
pub(super) const TICK: Duration = Duration::from_millis(70);

/// How long what nobody waits for may stay unsynced. 250 ms: a session that reads without end costs four syncs a second and not one with
/// every tick; what a crash of the machine can take of it stays less than a second.
const LAZY_SYNC: Duration = Duration::from_millis(250);

/// What a writer thread needs of its recorder.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) directory: PathBuf,
    pub(super) key: Arc<RecordingKey>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) ledger: SyncSender<Note>,
    /// Also what a session records faster than ticks take it away.
    pub(super) always_compress: bool,
}

#[derive(Debug, Default)]
struct Agenda {
    /// Somebody waits, or their queue is full.
    urgent: VecDeque<Arc<Session>>,
    /// To be written at the tick.
    dirty: VecDeque<Arc<Session>>,
    tick: Option<Instant>,
    /// To be written now: the tick has come.
    due: VecDeque<Arc<Session>>,
    stopping: bool,
}

/// A writer thread's agenda.
#[derive(Debug, Default)]
pub(super) struct Writer {
    agenda: Mutex<Agenda>,
    wake: Condvar,
}

/// Sessions that are written but not synced, each once, and when they have to be.
type Lazy = VecDeque<(Instant, Arc<Session>)>;

enum Job {
    Write(Arc<Session>),
    Sync(Arc<Session>),
    Stop,
}

impl Writer {
    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a session on the agenda.
    pub(super) fn schedule(&self, session: &Arc<Session>, urgency: Urgency) {
        let mut agenda = self.agenda();
        let wake = if urgency > Urgency::Tick {
            agenda.urgent.push_back(Arc::clone(session));
            true
        } else {
            agenda.dirty.push_back(Arc::clone(session));
            let first = agenda.tick.is_none();
            agenda.tick.get_or_insert_with(|| Instant::now() + TICK);
            first
        };
        drop(agenda);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Lets the thread finish what is on the agenda and end.
    pub(super) fn stop(&self) {
        self.agenda().stopping = true;
        self.wake.notify_one();
    }

    /// The next job. `turn`: whether ticks' work goes before commits this time.
    fn next(&self, lazy: &mut Lazy, turn: bool) -> Job {
        let mut agenda = self.agenda();
        loop {
            agenda.tick_if_due();
            if !turn && let Some(session) = agenda.urgent.pop_front() {
                return Job::Write(session);
            }
            if let Some(session) = agenda.due.pop_front() {
                return Job::Write(session);
            }
            let stopping = agenda.stopping;
            if let Some((_, session)) = lazy.pop_front_if(|(due, _)| stopping || *due <= Instant::now()) {
                return Job::Sync(session);
            }
            if let Some(session) = agenda.urgent.pop_front() {
                return Job::Write(session);
            }
            if agenda.stopping {
                return Job::Stop;
            }
            let due = lazy.front().map(|(due, _)| *due);
            agenda = match agenda.tick.into_iter().chain(due).min() {
                None => self.wake.wait(agenda).unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let left = next.saturating_duration_since(Instant::now());
                    self.wake.wait_timeout(agenda, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// The thread's body.
    pub(super) fn run(&self, context: &Context, scratch: &mut Scratch) {
        let mut lazy = Lazy::new();
        let mut turn = false;
        loop {
            let (session, outcome) = match self.next(&mut lazy, turn) {
                Job::Stop => return,
                Job::Sync(session) => guarded(session, |session| {
                    session.set_lazy(false);
                    context.sync(session)
                }),
                Job::Write(session) => guarded(session, |session| context.write(session, scratch, &mut lazy)),
            };
            if let Err(cause) = outcome {
                // The application's log is told, and may panic when it cannot be written; this thread has other sessions.
                let _ = catch_unwind(AssertUnwindSafe(|| session.fail(&cause)));
                // Never written or synced again: after a failed sync, a second one may lie (fsync(2), ERRORS).
                session.drop_file();
            }
            turn = !turn;
        }
    }
}

impl Agenda {
    fn tick_if_due(&mut self) {
        if self.stopping || self.tick.is_some_and(|tick| tick <= Instant::now()) {
            self.tick = None;
            self.due.append(&mut self.dirty);
        }
    }
}

/// A bug must fail its own session, not leave every waiter of this thread hanging.
fn guarded(
    session: Arc<Session>,
    job: impl FnOnce(&Arc<Session>) -> Result<(), String>,
) -> (Arc<Session>, Result<(), String>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| job(&session)));
    let outcome = outcome.unwrap_or_else(|_| Err("the recorder has a bug: its writer panicked".to_owned()));
    (session, outcome)
}

impl Context {
    /// Writes what is queued; syncs it if somebody waits, else leaves that for later.
    fn write(&self, session: &Arc<Session>, scratch: &mut Scratch, lazy: &mut Lazy) -> Result<(), String> {
        let work = session.take();
        let until = work.until;
        let seal = work.seal;
        let mut file = session.file();
        let begins = file.is_none();
        let mut signed = None;
        if let Some(time) = work.blocks.last().map(|block| block.last) {
            let target = match file.take() {
                Some(target) => file.insert(target),
                None => file.insert(self.create(session)?),
            };
            let packing = if work.urgency == Urgency::Write && !self.always_compress {
                Packing::AsItIs
            } else {
                Packing::Compressed
            };
            let head = target.write(&work.blocks, (seal, packing), &self.key, scratch)?;
            signed = Some(Signed { head, records: until, time });
            session.wrote(until, work.bytes);
        }
        drop(file);
        if work.urgency < Urgency::Commit && !seal && !begins {
            if signed.is_some() && !session.set_lazy(true) {
                lazy.push_back((Instant::now() + LAZY_SYNC, Arc::clone(session)));
            }
            return Ok(());
        }
        self.sync(session)?;
        if seal {
            session.drop_file();
        }
        signed.map_or(Ok(()), |signed| self.note(session, begins, seal, signed))
    }

    fn create(&self, session: &Session) -> Result<RecordingFile, String> {
        let path = self.directory.join(super::file_name(session.id));
        let file = self.storage.create(&path).map_err(|e| format!("`{}`: {e}", path.display()))?;
        Ok(RecordingFile::new(file, session.id, session.started, &self.key))
    }

    fn sync(&self, session: &Arc<Session>) -> Result<(), String> {
        let (written, durable) = session.progress();
        if durable >= written {
            return Ok(());
        }
        if let Some(file) = session.file().as_mut() {
            file.sync()?;
            session.synced(written);
        }
        Ok(())
    }

    /// Tells the ledger of a durable beginning or end.
    fn note(&self, session: &Arc<Session>, begins: bool, ends: bool, signed: Signed) -> Result<(), String> {
        let kinds = [(begins, EntryKind::Opened), (ends, EntryKind::Closed)];
        for (_, kind) in kinds.into_iter().filter(|(happened, _)| *happened) {
            let note = Note { kind, session: Arc::clone(session), signed };
            self.ledger.send(note).map_err(|_| "the ledger has stopped".to_owned())?;
        }
        Ok(())
    }
}
