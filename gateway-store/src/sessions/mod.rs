//! The index of sessions: who was connected to what, when, and what came of it.
//!
//! It is for finding recordings, not for proving anything: the recordings do that.

mod recorder;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gateway_core::clock::Timestamp;
use gateway_core::identity::{Actor, Phase, PrincipalKind};
use gateway_core::recording::Header;
use gateway_core::session::{CloseReason, SessionId};
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use recorder::IndexedRecorder;

use crate::database::Database;
use crate::error::StoreError;

/// Sessions in one answer, at most. 10,000: more is an export, page by `until`.
const MAX_LIST: usize = 10_000;

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionStatus {
    /// It is going on.
    Open,
    /// It ended and its recording is sealed.
    Closed,
    /// Its gateway ended before it did: the recording has no end, and the counts are those last written.
    Unsealed,
}

impl SessionStatus {
    /// The lower-case word shown to people and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Unsealed => "unsealed",
        }
    }
}

/// What happened in a session, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounts {
    /// Operations that were allowed.
    pub allowed: u64,
    /// Operations that were denied.
    pub denied: u64,
    /// Operations that were held for approval, whatever came of it.
    pub held: u64,
    /// Rows (records, lines) released.
    pub rows: u64,
    /// Bytes released.
    pub bytes: u64,
    /// Values masked, by class.
    pub masked: BTreeMap<String, u64>,
}

/// One session as indexed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// How it stands.
    pub status: SessionStatus,
    /// Who acted.
    pub principal: Actor,
    /// Agent, human or service.
    pub kind: PrincipalKind,
    /// Planner, executor or neither.
    pub phase: Phase,
    /// The task.
    pub task: Option<String>,
    /// The plan.
    pub plan: Option<String>,
    /// Who it acted for, nearest first.
    pub chain: Vec<Actor>,
    /// The target.
    pub target: String,
    /// The wire protocol.
    pub protocol: String,
    /// The database or the like.
    pub scope: Option<String>,
    /// The downstream's address.
    pub peer: String,
    /// The policies in force when it began.
    pub policy: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; `None` if it has not, or nobody saw it.
    pub ended: Option<Timestamp>,
    /// Why it ended.
    pub reason: Option<CloseReason>,
    /// What happened in it.
    pub counts: SessionCounts,
    /// Where its recording is, if it is a file.
    pub recording: Option<PathBuf>,
}

/// Which sessions to list: those that fit everything given. The default fits all, and lists none until `limit` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Who acted: a subject, or `issuer|subject`.
    pub principal: Option<String>,
    /// The target's name.
    pub target: Option<String>,
    /// Began at this time or later.
    pub since: Option<Timestamp>,
    /// Began before this time.
    pub until: Option<Timestamp>,
    /// The task.
    pub task: Option<String>,
    /// At most so many, and at most 10,000.
    pub limit: usize,
}

/// The index. Clones share the store's thread.
#[derive(Clone, Debug)]
pub struct SessionIndex {
    database: Database,
    instance: String,
}

impl SessionIndex {
    pub(crate) fn new(database: Database, instance: String) -> Self {
        Self { database, instance }
    }

    /// Notes that a session has begun; on disk when it returns.
    ///
    /// # Errors
    /// The store failed, or the session's id is taken: the session may not go on.
    pub async fn opened(&self, header: &Header, recording: Option<&Path>) -> Result<(), StoreError> {
        let (header, instance) = (header.clone(), self.instance.clone());
        let recording = recording.map(|path| path.to_string_lossy().into_owned());
        self.database
            .call(move |connection| insert(connection, &header, &instance, recording.as_deref()))
            .await?
    }

    /// Notes that a session has ended, with its final counts.
    ///
    /// # Errors
    /// The store failed; the session will show as unsealed after the next start.
    pub async fn closed(
        &self,
        id: SessionId,
        at: Timestamp,
        reason: &CloseReason,
        counts: &SessionCounts,
    ) -> Result<(), StoreError> {
        let (reason, counts) = (serde_json::to_string(reason)?, counts.clone());
        let close = move |connection: &mut Connection| {
            const CLOSE: &str =
                "UPDATE sessions SET status = 'closed', ended = ?2, reason = ?3 WHERE id = ?1";
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            update_counts(&tx, id, &counts)?;
            tx.execute(CLOSE, (id.to_string(), at.as_micros(), reason))?;
            Ok(tx.commit()?)
        };
        self.database.call(close).await?
    }

    /// Sessions that fit the filter, newest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list(&self, filter: SessionFilter) -> Result<Vec<SessionRow>, StoreError> {
        self.database.call(move |connection| select(connection, &filter)).await?
    }

    /// One session, by its id or the beginning of it.
    ///
    /// # Errors
    /// [`StoreError::UnknownSession`], [`StoreError::AmbiguousSession`], or the store failed.
    pub async fn show(&self, id: &str) -> Result<SessionRow, StoreError> {
        let id = id.to_ascii_lowercase();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(StoreError::UnknownSession(id));
        }
        self.database.call(move |connection| find(connection, id)).await?
    }

    /// Writes counts while the session goes on. Queued without waiting: false if there was no room.
    fn post_counts(&self, id: SessionId, counts: SessionCounts) -> bool {
        self.database.post(move |connection| {
            if let Err(error) = update_counts(connection, id, &counts) {
                tracing::warn!(%error, session = %id, "the counts of a session could not be indexed");
            }
        })
    }

    /// Notes that a session was dropped without an end.
    fn post_unsealed(&self, id: SessionId, counts: SessionCounts) {
        self.database.post(move |connection| {
            let unsealed = update_counts(connection, id, &counts).and_then(|()| unseal(connection, id));
            if let Err(error) = unsealed {
                tracing::warn!(%error, session = %id, "an unsealed session could not be indexed");
            }
        });
    }
}

/// Marks the open sessions of a gateway that has ended.
pub(crate) fn unseal_all_of(tx: &Transaction<'_>, instance: &str) -> Result<(), StoreError> {
    const UNSEAL: &str = "UPDATE sessions SET status = 'unsealed' WHERE instance = ?1 AND status = 'open'";
    tx.execute(UNSEAL, [instance])?;
    Ok(())
}

fn unseal(connection: &Connection, id: SessionId) -> Result<(), StoreError> {
    const UNSEAL: &str = "UPDATE sessions SET status = 'unsealed' WHERE id = ?1 AND status = 'open'";
    connection.execute(UNSEAL, [id.to_string()])?;
    Ok(())
}

fn insert(
    connection: &Connection,
    header: &Header,
    instance: &str,
    recording: Option<&str>,
) -> Result<(), StoreError> {
    const INSERT: &str = "INSERT INTO sessions
        (id, instance, status, issuer, subject, kind, phase, task, plan, chain,
         target, protocol, scope, peer, policy, started, recording)
        VALUES (?1, ?2, 'open', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    let principal = &header.principal;
    connection.execute(
        INSERT,
        params![
            header.session.to_string(),
            instance,
            principal.actor.issuer,
            principal.actor.subject,
            principal.kind.as_str(),
            principal.phase.as_str(),
            principal.task,
            principal.plan,
            serde_json::to_string(&principal.actor_chain)?,
            header.target,
            header.protocol,
            header.scope,
            header.peer,
            &*header.policy.0,
            header.started.as_micros(),
            recording,
        ],
    )?;
    Ok(())
}

fn update_counts(connection: &Connection, id: SessionId, counts: &SessionCounts) -> Result<(), StoreError> {
    const UPDATE: &str = "UPDATE sessions SET allowed = ?2, denied = ?3, held = ?4,
        rows_released = ?5, bytes_released = ?6, masked = ?7 WHERE id = ?1 AND status = 'open'";
    let int = |n| i64::try_from(n).unwrap_or(i64::MAX);
    connection.execute(
        UPDATE,
        params![
            id.to_string(),
            int(counts.allowed),
            int(counts.denied),
            int(counts.held),
            int(counts.rows),
            int(counts.bytes),
            serde_json::to_string(&counts.masked)?,
        ],
    )?;
    Ok(())
}

fn select(connection: &Connection, filter: &SessionFilter) -> Result<Vec<SessionRow>, StoreError> {
    const SELECT: &str = "SELECT * FROM sessions
        WHERE (?1 IS NULL OR subject = ?1 OR issuer || '|' || subject = ?1) AND (?2 IS NULL OR target = ?2)
        AND started >= ?3 AND started < ?4 AND (?5 IS NULL OR task = ?5)
        ORDER BY started DESC, id DESC LIMIT ?6";
    let micros = |time: Option<Timestamp>, default| time.map_or(default, Timestamp::as_micros);
    let (since, until) = (micros(filter.since, i64::MIN), micros(filter.until, i64::MAX));
    let limit = i64::try_from(filter.limit.min(MAX_LIST)).unwrap_or(i64::MAX);
    collect(connection, SELECT, params![filter.principal, filter.target, since, until, filter.task, limit])
}

fn find(connection: &Connection, prefix: String) -> Result<SessionRow, StoreError> {
    // Ids are lower-case hexadecimal digits, and `g` comes after all of them.
    const FIND: &str = "SELECT * FROM sessions WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 2";
    let mut found = collect(connection, FIND, [&prefix])?;
    match (found.pop(), found.is_empty()) {
        (Some(row), true) => Ok(row),
        (Some(_), false) => Err(StoreError::AmbiguousSession(prefix)),
        (None, _) => Err(StoreError::UnknownSession(prefix)),
    }
}

fn collect(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<SessionRow>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(parse(row)?);
    }
    Ok(found)
}

fn parse(row: &Row<'_>) -> Result<SessionRow, StoreError> {
    let malformed = |_| StoreError::Damaged("a session's id is malformed".to_owned());
    Ok(SessionRow {
        id: row.get::<_, String>("id")?.parse().map_err(malformed)?,
        status: word(row, "status")?,
        principal: Actor { issuer: row.get("issuer")?, subject: row.get("subject")? },
        kind: word(row, "kind")?,
        phase: word(row, "phase")?,
        task: row.get("task")?,
        plan: row.get("plan")?,
        chain: json(row, "chain")?.unwrap_or_default(),
        target: row.get("target")?,
        protocol: row.get("protocol")?,
        scope: row.get("scope")?,
        peer: row.get("peer")?,
        policy: row.get("policy")?,
        started: Timestamp::from_micros(row.get("started")?),
        ended: row.get::<_, Option<i64>>("ended")?.map(Timestamp::from_micros),
        reason: json(row, "reason")?,
        counts: parse_counts(row)?,
        recording: row.get::<_, Option<String>>("recording")?.map(PathBuf::from),
    })
}

fn parse_counts(row: &Row<'_>) -> Result<SessionCounts, StoreError> {
    let count =
        |column| row.get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0)).map_err(StoreError::from);
    Ok(SessionCounts {
        allowed: count("allowed")?,
        denied: count("denied")?,
        held: count("held")?,
        rows: count("rows_released")?,
        bytes: count("bytes_released")?,
        masked: json(row, "masked")?.unwrap_or_default(),
    })
}

/// A column that holds the lower-case word of an enum.
fn word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
    Ok(serde_json::from_value(serde_json::Value::String(row.get(column)?))?)
}

/// A column that holds JSON or nothing.
fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.get(column)?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}
