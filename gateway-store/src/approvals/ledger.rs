//! Requests as rows. The transitions themselves are `gateway-core`'s; this only loads, stores and erases.

use std::sync::Arc;

use gateway_core::approval::{
    AccessRequest, ApprovalError, ApprovalEvent, Delivery, Digest, Estimate, RequestId, RequestState,
};
use gateway_core::clock::Timestamp;
use gateway_core::identity::Actor;
use gateway_core::policy::ApprovalRule;
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction};

use crate::error::StoreError;
use crate::keys::Sealer;

/// Requests that are over and still listed. 10,000: weeks of reviews; the recordings keep all of them.
const MAX_OVER: i64 = 10_000;

/// Requests that are over and looked at for one list. 1,000: a list waits for nothing else, and everything else waits for it.
const MAX_LOOKED_AT: i64 = 1000;

/// The requests, inside one transaction.
pub(crate) struct Ledger<'a> {
    tx: &'a Transaction<'a>,
    instance: &'a str,
    sealer: &'a Sealer,
    changes: Changes,
}

/// What to do once the transaction is committed.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) events: Vec<ApprovalEvent>,
    /// An exact text was deleted; it has to leave the write-ahead log too.
    pub(crate) erased: bool,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(tx: &'a Transaction<'a>, instance: &'a str, sealer: &'a Sealer) -> Self {
        Self { tx, instance, sealer, changes: Changes::default() }
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    /// Stores a new request: the exact texts sealed, the rest readable.
    pub(crate) fn insert(&mut self, request: &AccessRequest) -> Result<(), ApprovalError> {
        if load(self.tx, request.id)?.is_some() {
            return Err(ApprovalError::Invalid("its id is taken".to_owned()));
        }
        let blank = request.without_exact();
        self.insert_row(&blank)?;
        self.insert_exact(request)?;
        self.changes.events.push(ApprovalEvent::Submitted(Arc::new(blank)));
        Ok(())
    }

    /// Makes one transition. The state may change (expire) even if `step` refuses.
    pub(crate) fn change<R>(
        &mut self,
        id: RequestId,
        step: impl FnOnce(&mut AccessRequest) -> Result<R, ApprovalError>,
    ) -> Result<R, ApprovalError> {
        let mut request = load(self.tx, id)?.ok_or(ApprovalError::Unknown(id))?;
        let (state, reviews) = (request.state, request.reviews.len());
        let outcome = step(&mut request);
        if request.state != state || request.reviews.len() != reviews {
            self.changes.erased |= save(self.tx, &request)?;
            let changed = request.state != state;
            let event = if changed { ApprovalEvent::Changed } else { ApprovalEvent::Reviewed };
            self.changes.events.push(event(Arc::new(request)));
        }
        outcome
    }

    /// Uses up this grant if it can be.
    pub(crate) fn redeem(
        &mut self,
        id: RequestId,
        digest: &Digest,
        rules: &[ApprovalRule],
        now: Timestamp,
    ) -> Result<bool, ApprovalError> {
        self.change(id, |request| Ok(request.redeem(digest, rules, now)))
    }

    /// Revokes these; ids that are not known are over.
    pub(crate) fn revoke_all(&mut self, ids: &[RequestId]) -> Result<(), ApprovalError> {
        for id in ids {
            match self.change(*id, |request| Ok(request.revoke())) {
                Ok(_) | Err(ApprovalError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends every open request whose time is over.
    pub(crate) fn expire_due(&mut self, now: Timestamp) -> Result<(), ApprovalError> {
        const DUE: &str = "SELECT id FROM requests WHERE state IN ('pending', 'approved') AND expires <= ?1";
        for id in ids(self.tx, DUE, [now.as_micros()])? {
            self.change(id, |request| Ok(request.expire(now)))?;
        }
        Ok(())
    }

    /// The approved requests for this digest that this store may redeem, in the order to try them: lasting grants, then
    /// holds, the oldest first.
    pub(crate) fn grants(&self, digest: &Digest) -> Result<Vec<RequestId>, StoreError> {
        const GRANTS: &str = "SELECT id FROM requests
            WHERE digest = ?1 AND state = 'approved' AND (delivery <> 'hold' OR instance = ?2)
            ORDER BY delivery = 'hold', created";
        ids(self.tx, GRANTS, (digest.as_bytes().as_slice(), self.instance))
    }

    /// The open request that a retry of this digest may be pointed to.
    pub(crate) fn open_request(
        &self,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<RequestId>, StoreError> {
        const OPEN: &str = "SELECT body FROM requests WHERE digest = ?1 AND state IN ('pending', 'approved')";
        let mut statement = self.tx.prepare(OPEN)?;
        let mut rows = statement.query([digest.as_bytes().as_slice()])?;
        while let Some(row) = rows.next()? {
            let request = parse(row)?;
            if request.is_open_for(digest, now) {
                return Ok(Some(request.id));
            }
        }
        Ok(None)
    }

    /// How many requests are open: in all, and by this requester.
    pub(crate) fn count_open(&self, requester: &Actor) -> Result<(usize, usize), StoreError> {
        const COUNT: &str = "SELECT count(*), count(*) FILTER (WHERE issuer = ?1 AND subject = ?2)
            FROM requests WHERE state IN ('pending', 'approved')";
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let (open, theirs) = self.tx.query_row(COUNT, (&requester.issuer, &requester.subject), read)?;
        let count = |n| usize::try_from(n).unwrap_or(usize::MAX);
        Ok((count(open), count(theirs)))
    }

    /// Makes room among the requests that are over.
    pub(crate) fn forget_oldest(&self) -> Result<(), StoreError> {
        const FORGET: &str = "DELETE FROM requests WHERE id IN (SELECT id FROM requests
            WHERE state NOT IN ('pending', 'approved') ORDER BY created DESC, id DESC LIMIT -1 OFFSET ?1)";
        self.tx.execute(FORGET, [MAX_OVER])?;
        Ok(())
    }

    /// At most `limit` requests that `wanted` lets through, newest first; of those that are over the newest are looked at.
    pub(crate) fn newest(
        &self,
        limit: usize,
        wanted: impl Fn(&AccessRequest) -> bool,
    ) -> Result<Vec<AccessRequest>, StoreError> {
        const NEWEST: &str = "SELECT body FROM requests WHERE state IN ('pending', 'approved') OR id IN
            (SELECT id FROM requests WHERE state NOT IN ('pending', 'approved') ORDER BY created DESC, id DESC LIMIT ?1)
            ORDER BY created DESC, id DESC";
        let mut statement = self.tx.prepare(NEWEST)?;
        let mut rows = statement.query([MAX_LOOKED_AT])?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(row) = rows.next()?
        {
            let request = parse(row)?;
            if wanted(&request) {
                found.push(request);
            }
        }
        Ok(found)
    }

    /// Puts the exact texts back in, as long as the request is open.
    pub(crate) fn with_exact(&self, mut request: AccessRequest) -> Result<AccessRequest, StoreError> {
        const SEALED: &str = "SELECT sealed FROM exact_texts WHERE request = ?1";
        let sealed: Option<Vec<u8>> =
            self.tx.query_row(SEALED, [request.id.to_string()], |row| row.get(0)).optional()?;
        let Some(sealed) = sealed else { return Ok(request) };
        let texts: Vec<String> =
            serde_json::from_slice(&self.sealer.open(sealed, bound_to(&request).as_bytes())?)?;
        if texts.len() != request.operations.len() {
            return Err(StoreError::Damaged("the texts of a request are not its operations'".to_owned()));
        }
        for (operation, exact) in request.operations.iter_mut().zip(texts) {
            operation.exact = exact;
        }
        Ok(request)
    }

    fn insert_row(&self, blank: &AccessRequest) -> Result<(), StoreError> {
        const INSERT: &str = "INSERT INTO requests
            (id, digest, instance, issuer, subject, delivery, state, created, expires, body)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let row = (
            blank.id.to_string(),
            blank.digest.as_bytes().as_slice(),
            self.instance,
            &blank.requester.actor.issuer,
            &blank.requester.actor.subject,
            delivery(blank.delivery),
            blank.state.as_str(),
            blank.created.as_micros(),
            blank.expires.as_micros(),
            serde_json::to_string(blank)?,
        );
        self.tx.execute(INSERT, row)?;
        Ok(())
    }

    fn insert_exact(&self, request: &AccessRequest) -> Result<(), StoreError> {
        let texts: Vec<&str> = request.operations.iter().map(|operation| operation.exact.as_str()).collect();
        let mut plain = Vec::with_capacity(json_bound(&texts) + Sealer::OVERHEAD);
        serde_json::to_writer(&mut plain, &texts)?;
        let sealed = self.sealer.seal(plain, bound_to(request).as_bytes())?;
        self.tx.execute(
            "INSERT INTO exact_texts (request, sealed) VALUES (?1, ?2)",
            (request.id.to_string(), sealed),
        )?;
        Ok(())
    }
}

/// State and expiry of one request, without a transaction of the caller's.
pub(crate) fn standing(
    connection: &Connection,
    id: RequestId,
) -> Result<Option<(RequestState, Timestamp)>, StoreError> {
    Ok(load(connection, id)?.map(|request| (request.state, request.expires)))
}

/// What people were told of one request.
pub(crate) fn estimates(connection: &Connection, id: RequestId) -> Result<Option<Vec<Estimate>>, StoreError> {
    Ok(load(connection, id)?.map(|request| request.estimates()))
}

/// Revokes the open holds of a gateway that has ended: their wires are gone.
pub(crate) fn revoke_holds_of(tx: &Transaction<'_>, instance: &str) -> Result<(), StoreError> {
    const HOLDS: &str = "SELECT id FROM requests
        WHERE instance = ?1 AND delivery = 'hold' AND state IN ('pending', 'approved')";
    for id in ids(tx, HOLDS, [instance])? {
        if let Some(mut request) = load(tx, id)?.filter(|request| request.state.is_open()) {
            request.revoke();
            save(tx, &request)?;
        }
    }
    Ok(())
}

fn load(connection: &Connection, id: RequestId) -> Result<Option<AccessRequest>, StoreError> {
    let mut statement = connection.prepare("SELECT body FROM requests WHERE id = ?1")?;
    let mut rows = statement.query([id.to_string()])?;
    rows.next()?.map(parse).transpose()
}

/// Stores a changed request, and erases its exact texts if it is over: true if there were any.
fn save(tx: &Transaction<'_>, request: &AccessRequest) -> Result<bool, StoreError> {
    let (id, body) = (request.id.to_string(), serde_json::to_string(request)?);
    tx.execute(
        "UPDATE requests SET state = ?2, body = ?3 WHERE id = ?1",
        (&id, request.state.as_str(), body),
    )?;
    let over = !request.state.is_open();
    Ok(over && tx.execute("DELETE FROM exact_texts WHERE request = ?1", [&id])? > 0)
}

fn parse(row: &Row<'_>) -> Result<AccessRequest, StoreError> {
    Ok(serde_json::from_str(row.get_ref("body")?.as_str().map_err(rusqlite::Error::from)?)?)
}

fn ids(tx: &Transaction<'_>, sql: &str, parameters: impl Params) -> Result<Vec<RequestId>, StoreError> {
    let mut statement = tx.prepare(sql)?;
    let texts = statement.query_map(parameters, |row| row.get::<_, String>(0))?;
    let malformed = |_| StoreError::Damaged("a request's id is malformed".to_owned());
    texts.map(|text| text?.parse().map_err(malformed)).collect()
}

/// What a sealed text belongs to: moved to another row, it does not open.
fn bound_to(request: &AccessRequest) -> String {
    format!("{}/{}", request.id, request.digest)
}

/// No JSON text of these strings is longer: a byte becomes six at most (RFC 8259 section 7), so the buffer never moves and
/// leaves no copy of a secret behind.
fn json_bound(texts: &[&str]) -> usize {
    texts.iter().map(|text| 6 * text.len() + 3).sum::<usize>() + 2
}

const fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Hold => "hold",
        Delivery::Suspend => "suspend",
        Delivery::Retry => "retry",
    }
}
