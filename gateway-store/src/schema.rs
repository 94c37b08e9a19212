//! The tables, and how an older database becomes a newer one.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::StoreError;

/// Marks a database as ours (SQLite's `application_id`): "gate" in ASCII.
const APPLICATION_ID: i64 = 0x6761_7465;

/// Each step leads from the version of its place to the next. Never change one that was released: add another.
const MIGRATIONS: &[&str] = &["
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;

-- Running gateways; each holds the lock on the file of its id.
CREATE TABLE instances (id TEXT PRIMARY KEY, pid INTEGER NOT NULL, opened INTEGER NOT NULL) STRICT;

-- `body` is the request as JSON without exact texts; the other columns repeat what is searched for.
CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    instance TEXT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    delivery TEXT NOT NULL,
    state TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX requests_by_digest ON requests (digest, state);
CREATE INDEX requests_by_state ON requests (state, expires);
CREATE INDEX requests_by_time ON requests (created, id);

-- Exact texts of open requests, encrypted; the row goes when the request is over.
CREATE TABLE exact_texts (
    request TEXT PRIMARY KEY REFERENCES requests (id) ON DELETE CASCADE,
    sealed BLOB NOT NULL
) STRICT;

-- `status`: open, closed, or unsealed (its gateway died). Times are microseconds since 1970 in UTC.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    instance TEXT NOT NULL,
    status TEXT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    phase TEXT NOT NULL,
    task TEXT,
    plan TEXT,
    chain TEXT NOT NULL,
    target TEXT NOT NULL,
    protocol TEXT NOT NULL,
    scope TEXT,
    peer TEXT NOT NULL,
    policy TEXT NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER,
    reason TEXT,
    allowed INTEGER NOT NULL DEFAULT 0,
    denied INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    rows_released INTEGER NOT NULL DEFAULT 0,
    bytes_released INTEGER NOT NULL DEFAULT 0,
    masked TEXT NOT NULL DEFAULT '{}',
    recording TEXT
) STRICT;
CREATE INDEX sessions_by_time ON sessions (started, id);
CREATE INDEX sessions_by_subject ON sessions (subject, started);
CREATE INDEX sessions_by_target ON sessions (target, started);
CREATE INDEX sessions_by_task ON sessions (task, started);
CREATE INDEX sessions_by_instance ON sessions (instance, status);
"];

/// The newest version this gateway knows.
const KNOWN: i64 = MIGRATIONS.len() as i64;

/// Refuses databases of other programs and of newer gateways, before anything is written to them.
pub(crate) fn check(connection: &Connection) -> Result<(), StoreError> {
    let (application, found) = (pragma(connection, "application_id")?, pragma(connection, "user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || found != 0 || tables != 0) {
        return Err(StoreError::NotAStore);
    }
    if !(0..=KNOWN).contains(&found) {
        return Err(StoreError::NewerSchema { found, known: KNOWN });
    }
    Ok(())
}

/// Brings the database to the newest version, all or nothing. Other processes may do the same at the same time.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    check(&tx)?;
    let found = usize::try_from(pragma(&tx, "user_version")?).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(found) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", KNOWN)?;
    Ok(tx.commit()?)
}

/// The value of `name` in the table of single values.
pub(crate) fn meta(tx: &Transaction<'_>, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = tx.prepare("SELECT value FROM meta WHERE name = ?1")?;
    let mut rows = statement.query([name])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

/// Sets a single value that was not there.
pub(crate) fn set_meta(tx: &Transaction<'_>, name: &str, value: &[u8]) -> Result<(), StoreError> {
    tx.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", (name, value))?;
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}
