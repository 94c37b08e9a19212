//! The one thread that touches the database, and the way in.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_core::clock::Timestamp;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::approvals::ledger;
use crate::error::StoreError;
use crate::instance::Instance;
use crate::keys::{self, RootKey, check_private, file_error};
use crate::{schema, sessions};

/// Jobs waiting for the thread. A full queue makes callers wait. 256: well under a second of work.
const QUEUE_JOBS: usize = 256;
/// How long another process may keep the database locked before a job fails. No transaction here takes longer than milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

enum Message {
    Run(Job),
    Stop(oneshot::Sender<()>),
}

/// A handle to the thread. Clones share it; it ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Database(mpsc::Sender<Message>);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

/// What is known once the database is open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) database: Database,
    pub(crate) root: RootKey,
    pub(crate) instance: String,
}

impl Database {
    /// Opens the file on a new thread.
    pub(crate) async fn open(path: &Path, now: Timestamp) -> Result<Opened, StoreError> {
        let (path, (jobs, queue), (tell, told)) =
            (path.to_owned(), mpsc::channel(QUEUE_JOBS), oneshot::channel());
        let run = move || match Worker::open(&path, now) {
            Err(cause) => drop(tell.send(Err(StoreError::Open { path, cause: Box::new(cause) }))),
            Ok((worker, root)) => {
                let opened = Opened { database: Self(jobs), root, instance: worker.instance.id.clone() };
                // The handle must not live here, or the queue would never close.
                if tell.send(Ok(opened)).is_ok() {
                    worker.run(queue);
                }
            }
        };
        let thread = std::thread::Builder::new().name("gateway-store".to_owned());
        thread.spawn(run).map_err(|error| StoreError::Failed(error.to_string()))?;
        told.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `job` on the thread. It runs even if the caller stops waiting.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let (answer, answered) = oneshot::channel();
        let run: Job = Box::new(move |connection| drop(answer.send(job(connection))));
        self.0.send(Message::Run(run)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)
    }

    /// Queues `job` without waiting; false if the queue is full or the store closed.
    pub(crate) fn post(&self, job: impl FnOnce(&mut Connection) + Send + 'static) -> bool {
        self.0.try_send(Message::Run(Box::new(job))).is_ok()
    }

    /// Runs what is queued, then ends the thread. What comes later fails.
    pub(crate) async fn close(&self) {
        let (tell, told) = oneshot::channel();
        if self.0.send(Message::Stop(tell)).await.is_ok() {
            let _ = told.await;
        }
    }
}

struct Worker {
    connection: Connection,
    instance: Instance,
}

impl Worker {
    fn open(path: &Path, now: Timestamp) -> Result<(Self, RootKey), StoreError> {
        let folder = make_folder(path)?;
        // One at a time: a file that another process is just making looks like no store of ours.
        let _turn = turn(&folder)?;
        prepare_file(path)?;
        let mut connection = connect(path)?;
        schema::migrate(&mut connection)?;
        let root = root_key(&mut connection, path)?;
        let instance = Instance::begin(path)?;
        register(&connection, &instance, now)?;
        let mut worker = Self { connection, instance };
        worker.bury_the_dead()?;
        Ok((worker, root))
    }

    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut told = None;
        while let Some(message) = queue.blocking_recv() {
            match message {
                Message::Run(job) => job(&mut self.connection),
                Message::Stop(tell) => {
                    queue.close();
                    told = Some(tell);
                }
            }
        }
        self.retire();
        if let Some(tell) = told {
            let _ = tell.send(());
        }
    }

    /// Ends what dies with a gateway, for every one that is gone.
    fn bury_the_dead(&mut self) -> Result<(), StoreError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ids: Vec<String> = {
            let mut statement = tx.prepare("SELECT id FROM instances WHERE id <> ?1")?;
            statement.query_map([&self.instance.id], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        let mut gone = Vec::new();
        for id in ids {
            if !self.instance.is_alive(&id)? {
                end_instance(&tx, &id)?;
                gone.push(id);
            }
        }
        tx.commit()?;
        gone.iter().for_each(|id| self.instance.remove_file(id));
        if !gone.is_empty() {
            tracing::warn!(instances = gone.len(), "a gateway ended without closing; its holds are revoked");
            scrub(&self.connection);
        }
        Ok(())
    }

    /// A clean end. If it fails, the next store that opens the file finds the lock free and does the same.
    fn retire(mut self) {
        let ended = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::from)
            .and_then(|tx| {
                end_instance(&tx, &self.instance.id)?;
                Ok(tx.commit()?)
            });
        match ended {
            Ok(()) => {
                scrub(&self.connection);
                self.instance.remove_file(&self.instance.id);
            }
            Err(error) => tracing::warn!(%error, "the store was not closed cleanly"),
        }
    }
}

/// Moves what was overwritten out of the write-ahead log too, so that an erased text is in no file. Call it after a commit
/// that erased something; if another process reads just then, a later call or close does it.
pub(crate) fn scrub(connection: &Connection) {
    let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    if let Err(error) = done {
        tracing::warn!(%error, "the write-ahead log could not be emptied");
    }
}

fn end_instance(tx: &rusqlite::Transaction<'_>, id: &str) -> Result<(), StoreError> {
    ledger::revoke_holds_of(tx, id)?;
    sessions::unseal_all_of(tx, id)?;
    tx.execute("DELETE FROM instances WHERE id = ?1", [id])?;
    Ok(())
}

fn register(connection: &Connection, instance: &Instance, now: Timestamp) -> Result<(), StoreError> {
    let row = (&instance.id, std::process::id(), now.as_micros());
    connection.execute("INSERT INTO instances (id, pid, opened) VALUES (?1, ?2, ?3)", row)?;
    Ok(())
}

fn make_folder(path: &Path) -> Result<PathBuf, StoreError> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(PathBuf::from("."));
    };
    let made = DirBuilder::new().mode(0o700).recursive(true).create(directory);
    made.map_err(|error| file_error(directory, &error))?;
    Ok(directory.to_owned())
}

/// Waits for the turn to open a database in this folder; it ends with the value. The folder is locked, not the database: closing
/// a second descriptor of that would drop the locks that SQLite holds on it.
fn turn(folder: &Path) -> Result<File, StoreError> {
    let open = File::open(folder).map_err(|error| file_error(folder, &error))?;
    open.lock().map_err(|error| file_error(folder, &error))?;
    Ok(open)
}

fn prepare_file(path: &Path) -> Result<(), StoreError> {
    // SQLite gives its side files the permissions of this one.
    if !path.exists() {
        keys::create_private(path, b"")?;
    }
    check_private(path)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // One thread uses the connection, so SQLite need not lock it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    schema::check(&connection)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Failed(format!("the file system allows no write-ahead log (mode `{mode}`)")));
    }
    // FULL: a grant that was used must not come back after a power cut. Zero what is deleted. Trust no schema function.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
    )?;
    Ok(connection)
}

/// The install's root key, made on the first open; afterwards the very same key must be there.
fn root_key(connection: &mut Connection, database: &Path) -> Result<RootKey, StoreError> {
    const CHECK: &str = "key check";
    let path = keys::path_beside(database);
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known = schema::meta(&tx, CHECK)?;
    let root = if known.is_some() { RootKey::read(&path)? } else { RootKey::create(&path)? };
    let check = root.derive(CHECK)?;
    match known {
        Some(known) if known != check.expose() => return Err(StoreError::KeyMismatch(path)),
        Some(_) => {}
        None => schema::set_meta(&tx, CHECK, check.expose())?,
    }
    tx.commit()?;
    Ok(root)
}
