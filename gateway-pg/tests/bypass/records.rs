//! Class 40: the record must show what was tried, must not keep secrets, and nothing may run without it.
//!
//! Directly there is no record; an attack is valid because the same statement, tried honestly, is recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use gateway_core::clock::Timestamp;
use gateway_core::recording::{
    Header, MemoryRecorder, Position, Record, RecordError, Recorder, SessionRecorder,
};
use gateway_core::session::CloseReason;

use crate::arena::{Gateway, Setup, ask, database};
use crate::client::{Client, Door, Message, Step, block};
use testkit::bypass::{Attack, Outcome};

pub fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        Attack::new(40, "a flood of statements does not hide one", flood),
        Attack::new(40, "a name that forges a line of the log", forged_line),
        Attack::new(40, "a result with a secret, in the record", secret_in_result),
    ];
    let secrets: [(&str, &str, &str); 12] = [
        ("a password", "ALTER ROLE app PASSWORD 'hunter2-in-the-clear'", "hunter2-in-the-clear"),
        (
            "a password in a statement that does not parse",
            "ALTER ROLE app PASSWORD 'hunter2-in-the-clear' (",
            "hunter2-in-the-clear",
        ),
        (
            "a password beside a refused setting",
            "ALTER ROLE app PASSWORD 'hunter2-in-the-clear'; SET client_encoding = 'SJIS'",
            "hunter2-in-the-clear",
        ),
        (
            "a password in another database's name",
            "SELECT * FROM other.public.customers WHERE ssn = 'hunter2-in-the-clear'",
            "hunter2-in-the-clear",
        ),
        (
            "a literal in a statement that does not parse",
            "SELECT * FROM customers WHERE ssn = 'hunter2-in-the-clear' (",
            "hunter2-in-the-clear",
        ),
        (
            "a protected value in a condition",
            "SELECT id FROM customers WHERE ssn = '107-12-0132'",
            "107-12-0132",
        ),
        (
            "half a protected value in a condition",
            "SELECT id FROM customers WHERE ssn LIKE '107-12-01%'",
            "107-12-01",
        ),
        ("a card number in a comment", "SELECT 1 /* 4111 1111 1111 1111 */", "4111 1111 1111 1111"),
        (
            "a protected number in a condition",
            "SELECT id FROM customers WHERE replace(ssn, '-', '')::integer = 107120199",
            "107120199",
        ),
        (
            "a protected number in a statement that does not parse",
            "SELECT id FROM customers WHERE replace(ssn, '-', '')::integer = 107120199 (",
            "107120199",
        ),
        (
            "a protected value in a condition on a view that names it otherwise",
            "SELECT id FROM people WHERE social = 'hunter2-in-the-clear'",
            "hunter2-in-the-clear",
        ),
        (
            "a protected value in a write that is denied",
            "UPDATE customers SET ssn = '999-88-7777' WHERE id = 1",
            "999-88-7777",
        ),
    ];
    attacks.extend(secrets.map(|(name, sql, secret)| {
        Attack::new(40, &format!("{name}, in the record"), move || kept_secret(sql, secret))
    }));
    let denied: [(&str, &str); 4] = [
        ("a denied statement", "DELETE FROM vault"),
        ("a statement that is not understood", "DELETE FROM vault WHERE (("),
        ("a refused setting", "SET client_encoding = 'SJIS'"),
        ("a statement too large", "DELETE FROM vault /*<<x*2000000>>*/"),
    ];
    attacks.extend(
        denied.map(|(name, sql)| Attack::new(40, &format!("{name} leaves a record"), move || recorded(sql))),
    );
    attacks.extend([1, 2, 3, 5].map(|n| {
        Attack::new(40, &format!("a recorder that fails after {n} records"), move || failing(n, false))
    }));
    attacks.push(Attack::new(40, "a recorder that cannot make anything durable", || failing(u64::MAX, true)));
    attacks
}

/// A gateway with a recorder that keeps everything.
fn recorded_gateway(database: &str) -> (Gateway, MemoryRecorder) {
    let recorder = MemoryRecorder::default();
    let mut setup = Setup::new(database);
    setup.recorder = Arc::new(recorder.clone());
    setup.content = true;
    (setup.start(), recorder)
}

fn agent(gateway: &Gateway, database: &str) -> Client {
    block(Client::log_in(&Door::new(gateway.address, "agent", database)))
}

/// All that was recorded, as the recording's own text.
fn text(recorder: &MemoryRecorder) -> String {
    recorder.sessions().iter().map(|(_, records)| format!("{records:?}")).collect()
}

/// The secret must not be in the record, the statement's kind must.
fn kept_secret(sql: &str, secret: &str) -> Outcome {
    let database = database(
        "CREATE VIEW people AS SELECT id, ssn AS social FROM customers; GRANT SELECT ON people TO app",
    );
    let (gateway, recorder) = recorded_gateway(&database);
    let mut agent = agent(&gateway, &database);
    block(agent.run(&[Step::Query(sql.to_owned())]));
    let parse = Message::Parse { name: String::new(), sql: sql.to_owned(), types: Vec::new() };
    block(agent.run(&[Step::Message(parse), Step::Query("sync".to_owned())]));
    let record = text(&recorder);
    if record.contains(secret) {
        return Outcome::Passed(format!("the record holds `{secret}`"));
    }
    usable(&mut agent, &recorder)
}

/// The session lives, and what it does now is in the record as it is.
fn usable(agent: &mut Client, recorder: &MemoryRecorder) -> Outcome {
    block(agent.leave_transaction());
    let rows = block(agent.query("SELECT 'plain-and-harmless'")).text_rows().unwrap_or_default();
    if rows != [["plain-and-harmless"]] {
        return Outcome::TwinFailed(format!("last {}", agent.last));
    }
    if !text(recorder).contains("plain-and-harmless") {
        return Outcome::TwinFailed("a harmless statement is not in the record".to_owned());
    }
    Outcome::Held
}

fn denials(recorder: &MemoryRecorder) -> usize {
    let sessions = recorder.sessions();
    let records = sessions.iter().flat_map(|(_, records)| records);
    records.filter(|(_, record)| matches!(record, Record::Denied { .. })).count()
}

fn recorded(sql: &str) -> Outcome {
    let database = database("");
    let (gateway, recorder) = recorded_gateway(&database);
    let mut agent = agent(&gateway, &database);
    block(agent.run(&[Step::Query(sql.to_owned())]));
    match denials(&recorder) {
        0 => Outcome::Passed("nothing was recorded".to_owned()),
        _ => usable(&mut agent, &recorder),
    }
}

fn flood() -> Outcome {
    let database = database("");
    let (gateway, recorder) = recorded_gateway(&database);
    let mut agent = agent(&gateway, &database);
    block(async {
        for n in 0..150 {
            agent.query(&format!("SELECT {n}")).await;
            if n == 75 {
                agent.query("DELETE FROM vault").await;
            }
        }
    });
    let all = text(&recorder);
    let complete = (0..150).all(|n| all.contains(&format!("SELECT {n}\""))) && denials(&recorder) == 1;
    if complete { usable(&mut agent, &recorder) } else { Outcome::Passed("the record has gaps".to_owned()) }
}

/// Line ends and terminal sequences in a name stay visible as what they are.
fn forged_line() -> Outcome {
    let database = database("");
    let (gateway, recorder) = recorded_gateway(&database);
    let mut agent = agent(&gateway, &database);
    block(agent.query("SELECT 1 AS \"x\u{1b}[2K\u{202e}forged\""));
    let sessions = recorder.sessions();
    let statements =
        sessions.iter().flat_map(|(_, records)| records).filter_map(|(_, record)| match record {
            Record::Presented { operations, .. } => {
                Some(operations.iter().map(|o| &*o.statement).collect::<String>())
            }
            _ => None,
        });
    if statements.into_iter().any(|s| s.contains('\u{1b}') || s.contains('\u{202e}')) {
        return Outcome::Passed("the record holds raw control characters".to_owned());
    }
    usable(&mut agent, &recorder)
}

fn secret_in_result() -> Outcome {
    let database = database("");
    let (gateway, recorder) = recorded_gateway(&database);
    let mut agent = agent(&gateway, &database);
    block(agent.query("SELECT ssn, reverse(ssn) FROM customers WHERE id = 1"));
    let sessions = recorder.sessions();
    let leaked = sessions.iter().flat_map(|(_, records)| records).any(|(_, record)| match record {
        Record::Released { bytes, .. } => {
            ["107-12-0132", "2310-21-701"].iter().any(|s| crate::case::contains(bytes, s))
        }
        _ => false,
    });
    if leaked {
        Outcome::Passed("the record holds the value".to_owned())
    } else {
        usable(&mut agent, &recorder)
    }
}

/// Fails after so many records, or never makes anything durable.
#[derive(Debug)]
struct Failing {
    left: Arc<AtomicU64>,
    never_durable: bool,
}

#[async_trait]
impl Recorder for Failing {
    async fn open(&self, _header: Header) -> Result<Arc<dyn SessionRecorder>, RecordError> {
        Ok(Arc::new(Self { left: Arc::clone(&self.left), never_durable: self.never_durable }))
    }
}

#[async_trait]
impl SessionRecorder for Failing {
    fn append(&self, _at: Timestamp, _record: Record) -> Result<Position, RecordError> {
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        taken.map(Position).map_err(|_| RecordError("the disk is full".to_owned()))
    }

    async fn durable(&self, _position: Position) -> Result<(), RecordError> {
        if self.never_durable { Err(RecordError("the disk is gone".to_owned())) } else { Ok(()) }
    }

    async fn ready(&self) -> Result<(), RecordError> {
        Ok(())
    }

    fn has_room(&self) -> bool {
        true
    }

    async fn close(&self, _at: Timestamp, _reason: CloseReason) -> Result<(), RecordError> {
        Ok(())
    }
}

/// Writes go on until the recorder fails; at most what was recorded may have been done.
fn failing(records: u64, never_durable: bool) -> Outcome {
    let database = database("");
    let mut setup = Setup::new(&database);
    setup.recorder = Arc::new(Failing { left: Arc::new(AtomicU64::new(records)), never_durable });
    let gateway = setup.start();
    let mut client = agent(&gateway, &database);
    for id in 1..=8 {
        block(client.query(&format!("UPDATE orders SET note = 'done' WHERE id = {id}")));
    }
    let done: u64 =
        ask(&database, "SELECT count(*) FROM orders WHERE note = 'done'").unwrap().parse().unwrap();
    // Each write takes at least the records `presented` and `allowed` before it is forwarded.
    let most = if never_durable { 0 } else { records / 2 };
    if done > most {
        return Outcome::Passed(format!("{done} writes with {records} records"));
    }
    let (gateway, recorder) = recorded_gateway(&database);
    usable(&mut agent(&gateway, &database), &recorder)
}
