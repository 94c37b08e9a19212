//! Clients that read and write in every way until their connection ends.
//!
//! Every write has a tag of its own in its text and in the rows it makes, so that rows and records can be compared. A prepared
//! statement runs several times; its rows also carry the number of the execution.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use testkit::raw_pg::{Bind, copy_data, copy_done, describe, execute, parse, query, sync};
use testkit::{RawPg, Result};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::random::Random;

/// The table that all writes go to.
pub(crate) const TABLE: &str = "CREATE TABLE writes (tag text, execution int, row int, \
     PRIMARY KEY (tag, execution, row)); GRANT SELECT, INSERT ON writes TO app";

/// How each client of a round behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Commits every statement, at times two of them in one message.
    Autocommit,
    /// Several writes in a transaction, at times sent without waiting, at times rolled back.
    Transaction,
    /// COPY FROM STDIN.
    Copy,
    /// A prepared statement run many times, at times twice before one Sync.
    Prepared,
    /// Only reads.
    Read,
}

/// One client of each kind.
pub(crate) const KINDS: [Kind; 5] =
    [Kind::Autocommit, Kind::Transaction, Kind::Copy, Kind::Prepared, Kind::Read];

/// What the clients were told, over all of a round.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Answered statements.
    pub(crate) answers: AtomicU64,
    /// Wakes whoever waits for the first answer.
    pub(crate) answered: Notify,
}

/// What a client knows happened: by tag, the last execution that was answered.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Writes that are committed.
    pub(crate) committed: BTreeMap<String, u64>,
    /// Reads whose rows came.
    pub(crate) read: BTreeMap<String, u64>,
}

/// One client.
pub(crate) struct Client {
    pg: RawPg<TcpStream>,
    prefix: String,
    number: u64,
    random: Random,
    told: Arc<Told>,
    known: Known,
}

impl Client {
    /// Logs in and works until the connection ends; returns what it knows.
    pub(crate) async fn work(
        address: String,
        (database, token): (String, String),
        kind: Kind,
        prefix: String,
        random: Random,
        told: Arc<Told>,
    ) -> Known {
        let Ok(pg) = Self::log_in(&address, &database, &token).await else { return Known::default() };
        let mut client = Self { pg, prefix, number: 0, random, told, known: Known::default() };
        // The connection ends with the gateway; that is how it stops.
        let _ = client.until_the_end(kind).await;
        client.known
    }

    async fn log_in(address: &str, database: &str, token: &str) -> Result<RawPg<TcpStream>> {
        let mut pg = RawPg::connect(address).await?;
        pg.log_in("agent", database, token).await?;
        Ok(pg)
    }

    async fn until_the_end(&mut self, kind: Kind) -> Result<()> {
        if matches!(kind, Kind::Prepared) {
            return self.prepared().await;
        }
        loop {
            match kind {
                Kind::Autocommit => self.autocommit().await?,
                Kind::Transaction => self.transaction().await?,
                Kind::Copy => self.copy().await?,
                Kind::Read | Kind::Prepared => self.read().await?,
            }
        }
    }

    fn tag(&mut self) -> String {
        self.number += 1;
        format!("{}N{}", self.prefix, self.number)
    }

    fn tags(&mut self, most: u64) -> Vec<String> {
        let count = 1 + self.random.below(most);
        (0..count).map(|_| self.tag()).collect()
    }

    /// Takes in the answers to `count` messages.
    async fn answers(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let answer = self.pg.until_ready().await?;
            assert!(answer.error().is_none(), "an error that nobody asked for: {answer}");
            self.told.answers.fetch_add(1, Ordering::Relaxed);
            self.told.answered.notify_one();
        }
        Ok(())
    }

    fn done(&mut self, tags: Vec<String>, execution: u64) {
        self.known.committed.extend(tags.into_iter().map(|tag| (tag, execution)));
    }

    async fn autocommit(&mut self) -> Result<()> {
        let tags = self.tags(2);
        let sql: Vec<_> = tags.iter().map(|tag| insert(tag)).collect();
        self.pg.send(&query(&sql.join("; "))).await?;
        self.answers(1).await?;
        self.done(tags, 1);
        Ok(())
    }

    async fn transaction(&mut self) -> Result<()> {
        let (tags, commits) = (self.tags(4), self.random.below(4) > 0);
        let end = if commits { "COMMIT" } else { "ROLLBACK" };
        let inserts = tags.iter().map(|tag| insert(tag));
        let all = ["BEGIN".to_owned()].into_iter().chain(inserts).chain([end.to_owned()]);
        let messages: Vec<_> = all.map(|sql| query(&sql)).collect();
        if self.random.below(2) == 0 {
            self.pg.send(&messages.concat()).await?;
            self.answers(messages.len()).await?;
        } else {
            for message in messages {
                self.pg.send(&message).await?;
                self.answers(1).await?;
            }
        }
        if commits {
            self.done(tags, 1);
        }
        Ok(())
    }

    async fn copy(&mut self) -> Result<()> {
        let tag = self.tag();
        let sql = format!("COPY writes (tag, execution, row) FROM STDIN WHERE tag = '{tag}'");
        self.pg.send(&query(&sql)).await?;
        while self.pg.frame().await?.tag != b'G' {}
        for row in 0..self.random.below(20) {
            self.pg.send(&copy_data(format!("{tag}\t1\t{row}\n").as_bytes())).await?;
        }
        self.pg.send(&copy_done()).await?;
        self.answers(1).await?;
        Ok(())
    }

    async fn prepared(&mut self) -> Result<()> {
        loop {
            let tag = self.tag();
            let sql = format!("INSERT INTO writes VALUES ('{tag}', $1, 0)");
            let name = format!("s{}", self.number);
            self.pg.send(&[parse(&name, &sql, &[]), describe(b'S', &name), sync()].concat()).await?;
            self.answers(1).await?;
            let mut execution = 0;
            while execution < 9 {
                let mut messages = Vec::new();
                for _ in 0..=self.random.below(2) {
                    execution += 1;
                    messages.push(run(&name, execution));
                }
                self.pg.send(&[messages.concat(), sync()].concat()).await?;
                self.answers(1).await?;
                self.done(vec![tag.clone()], execution);
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        if self.random.below(3) == 0 {
            // Masked; and beside a labelled column the record would mask a tag too.
            self.pg.send(&query("SELECT email, ssn FROM customers")).await?;
            return self.answers(1).await;
        }
        let tag = self.tag();
        let from = if self.random.below(2) == 0 { "" } else { "FROM orders LIMIT 50" };
        self.pg.send(&query(&format!("SELECT '{tag}' {from}"))).await?;
        self.answers(1).await?;
        self.known.read.insert(tag, 1);
        Ok(())
    }
}

fn insert(tag: &str) -> String {
    format!("INSERT INTO writes VALUES ('{tag}', 1, 0)")
}

fn run(name: &str, execution: u64) -> Vec<u8> {
    let value = execution.to_string();
    let values = [Some(value.as_bytes())];
    let bind = Bind { statement: name, values: &values, ..Bind::default() };
    [bind.encode(), execute("", 0)].concat()
}
