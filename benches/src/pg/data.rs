//! A wide table with sensitive values in one row of a hundred.

use testkit::Postgres;

use super::drain::Client;
use super::subject::{ACCOUNT, DATABASE, DIRECT, Subject};
use crate::Result;
use crate::corpus::Numbers;

/// Every so many rows a card number, and as often, half-way between, an e-mail address.
const EVERY: u64 = 200;
/// Where the addresses are: nothing else in the table has this in it.
const DOMAIN: &str = "@mail.test.org";

/// The table `wide` and what is in it.
#[derive(Debug)]
pub(super) struct Wide {
    pub(super) rows: u64,
    cards: Vec<String>,
}

impl Wide {
    /// Makes the table: ten columns, about 200 bytes a row.
    ///
    /// # Errors
    /// The server refuses it.
    pub(super) fn load(server: &Postgres, rows: u64) -> Result<Self> {
        let mut numbers = Numbers::new(42);
        let cards: Vec<String> = (0..64).map(|_| numbers.card()).collect();
        let list = cards.iter().map(|card| format!("'{card}'")).collect::<Vec<_>>().join(",");
        let half = EVERY / 2;
        let sql = format!(
            "CREATE TABLE wide AS SELECT i AS id, timestamp '2026-01-01' + i * interval '37 seconds' AS at,
               (ARRAY['pending','paid','packed','shipped','returned','cancelled'])[1 + i % 6] AS status,
               round((i::bigint * 7919 % 900000)::numeric / 100, 2) AS total, i % 12 AS quantity,
               substr(w, 1, 6) || ' ' || substr(w, 7, 9) AS customer, substr(w, 3, 12) AS product,
               CASE i % {EVERY} WHEN 0 THEN 'paid with ' || (ARRAY[{list}])[1 + i / {EVERY} % 64] || ' by phone'
                 WHEN {half} THEN 'write to ' || substr(w, 1, 8) || '{DOMAIN} please'
                 ELSE substr(w, 5, 8) || ' ' || substr(w, 13, 5) || ' ' || substr(w, 18, 12) END AS note,
               CASE WHEN i % 4 = 0 THEN md5(i::text)::uuid::text ELSE 'warehouse ' || substr(w, 9, 6) END AS reference,
               substr(w, 1, 9) || ' ' || substr(w, 10, 8) || ' ' || substr(w, 18, 4) || ' ' || substr(w, 22) AS remark
             FROM generate_series(1, {rows}) i,
               LATERAL (SELECT translate(md5((-i)::text), '0123456789', 'ghijklmnop') AS w) AS words;
             ALTER TABLE wide OWNER TO {ACCOUNT};
             VACUUM (ANALYZE, FREEZE) wide;"
        );
        server.psql(DATABASE, &sql)?;
        Ok(Self { rows, cards })
    }

    /// How many sensitive values one reading of the table meets.
    pub(super) const fn planted(&self) -> u64 {
        2 * (self.rows / EVERY)
    }

    /// Reads the rows with sensitive values: directly all of them come, through the gateway none may.
    ///
    /// # Errors
    /// It is otherwise.
    pub(super) fn check_masked(&self, subject: &Subject) -> Result<()> {
        let mut answer = Vec::new();
        let sql = format!("SELECT note FROM wide WHERE id % {} = 0", EVERY / 2);
        let drained = Client::log_in(subject)?.drain(&sql, Some(&mut answer))?;
        let count = |needle: &str| memchr::memmem::find_iter(&answer, needle).count() as u64;
        let seen: u64 = self.cards.iter().map(|card| count(card)).sum::<u64>() + count(DOMAIN);
        let expected = if subject.name == DIRECT { self.planted() } else { 0 };
        if drained.rows != self.planted() || seen != expected {
            let (name, rows) = (subject.name, drained.rows);
            return Err(
                format!("{name}: {seen} sensitive values in {rows} rows instead of {expected}").into()
            );
        }
        Ok(())
    }
}
