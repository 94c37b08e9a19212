//! A real PostgreSQL server in a temporary folder.

mod config;
mod locate;
mod server;
mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

pub use config::{Auth, Durability, PostgresBuilder};
use locate::Installation;
use server::Server;

use crate::canary::random_text;
use crate::error::{Context, Error, Result};
use crate::process::{PORT_ATTEMPTS, free_port, run};

/// A running PostgreSQL with the superuser `postgres`, the role `app`, and an empty database `shop`.
///
/// It listens on 127.0.0.1 and on a socket in its private folder; there the superuser needs no password, everywhere
/// else everyone proves who they are as [`Auth`] says. Passwords are random, so that a leak can be looked for.
/// Dropping it is an immediate shutdown that removes the folder; the same happens when this process is killed.
pub struct Postgres {
    // Dropped before the folder it works in.
    server: Option<Server>,
    installation: Installation,
    passwords: BTreeMap<String, String>,
    port: u16,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server with the defaults of [`Postgres::builder`].
    ///
    /// # Errors
    /// As [`PostgresBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// A server to be: no TLS, SCRAM for `app`, nothing synced to disk.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::new()
    }

    /// Runs SQL as superuser over the private socket, each statement by itself, and returns the rows: one a line,
    /// columns divided by `|`, NULL as the empty text.
    ///
    /// # Errors
    /// What `psql` says about the first statement that fails.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let (folder, port) = (self.folder.path().display(), self.port);
        psql_script(&format!("host={folder} port={port} user=postgres dbname={database}"), sql)
    }

    /// Fills the database `shop`: 200 customers with cards, orders, products and a ledger, the same each time.
    ///
    /// `app` may read and write all of it and call the functions. The statements are in `testkit/data/shop.sql`.
    ///
    /// # Errors
    /// When it has been loaded before.
    pub fn load_shop(&self) -> Result<()> {
        self.psql("shop", SHOP).map(drop).context("load the shop")
    }

    /// Makes a database of its own for one test, a copy of this one, and returns its name; `app` may connect.
    ///
    /// Cheaper than a server of its own: tests of one binary can share one, kept in a `static`. Statics are never
    /// dropped, but such a server is stopped all the same when the process ends.
    ///
    /// # Errors
    /// When somebody is connected to the database to copy.
    pub fn copy_database(&self, original: &str) -> Result<String> {
        let name = format!("{original}_{}", random_text(10).to_lowercase());
        let grant = format!("GRANT CONNECT, TEMPORARY ON DATABASE {name} TO app");
        let sql = format!(
            "CREATE DATABASE {name} TEMPLATE {original}; REVOKE ALL ON DATABASE {name} FROM PUBLIC; {grant};"
        );
        self.psql("postgres", &sql)?;
        Ok(name)
    }

    /// Where it listens, always 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The TCP port; the socket's name carries it too.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket, to be used as `host`.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection URL for a role over TCP, password included.
    ///
    /// # Panics
    /// When the role is not one the builder made.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgresql://{role}:{}@127.0.0.1:{}/{database}", self.password(role), self.port)
    }

    /// A connection URL for the superuser over TCP, password included.
    pub fn admin_url(&self, database: &str) -> String {
        self.url("postgres", database)
    }

    /// The password of a role: `postgres`, `app`, or one of [`PostgresBuilder::role`].
    ///
    /// # Panics
    /// When the role is not one of those.
    pub fn password(&self, role: &str) -> &str {
        self.passwords.get(role).unwrap_or_else(|| panic!("the role `{role}` was not made by the builder"))
    }

    /// The path of a program of the same installation, such as `pgbench`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.installation.program(name)
    }

    /// The server's version as it prints it, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.installation.version
    }

    /// Writes the server's log into this file too from now on, until the server stops.
    ///
    /// # Errors
    /// When it is stopped, or the file cannot be made.
    pub fn copy_log(&self, path: &Path) -> Result<()> {
        let server = self.server.as_ref().ok_or_else(|| Error::new("the server is stopped"))?;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        server.copy_log(file.context("make the copy of the log")?);
        Ok(())
    }

    /// The last mebibyte of the server's log so far; empty while it is stopped.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Server::log).unwrap_or_default()
    }

    /// The log once everything that was executed before this call is in it.
    ///
    /// With [`PostgresBuilder::log_statements`] this tells what reached the server, and what did not.
    ///
    /// # Errors
    /// When the server is stopped or logs no statements.
    pub fn log_of_everything_so_far(&self) -> Result<String> {
        let mark = random_text(20);
        self.psql("postgres", &format!("DO $$ BEGIN RAISE LOG 'mark {mark}'; END $$"))?;
        if !self.wait_for_log(&mark, LOG_DEADLINE) {
            return Err(Error::new("the server's log does not show a mark put into it"));
        }
        Ok(self.log())
    }

    /// Waits until the log holds the text; false at the deadline or when the server ends first.
    #[must_use]
    pub fn wait_for_log(&self, text: &str, deadline: Duration) -> bool {
        self.server.as_ref().is_some_and(|server| server.wait_for_log(text, deadline))
    }

    /// Stops the server at once, as a crash would; its data and its port number stay.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts a stopped server again, on the same port.
    ///
    /// # Errors
    /// When the port has been taken meanwhile, or it does not start; the message ends with its log.
    pub fn start_again(&mut self) -> Result<()> {
        self.stop();
        self.server = Some(launch(&self.installation, self.folder.path(), self.port)?);
        Ok(())
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Postgres")
            .field("port", &self.port)
            .field("folder", &self.folder.path())
            .finish_non_exhaustive()
    }
}

/// Runs SQL with the real `psql` as ONE simple query message, wherever the connection string leads.
///
/// The output is as of [`Postgres::psql`]. Neither `PG*` variables nor files of the home folder (passwords,
/// certificates) have an influence.
///
/// # Errors
/// What `psql` says, or that it took over a minute.
pub fn psql_command(connection: &str, sql: &str) -> Result<String> {
    run(psql(connection)?.args(["-c", sql]), "", PSQL_DEADLINE)?.success()
}

/// Runs SQL with the real `psql` statement by statement; `psql`'s own backslash commands work.
///
/// # Errors
/// As [`psql_command`].
pub fn psql_script(connection: &str, sql: &str) -> Result<String> {
    run(psql(connection)?.args(["-f", "-"]), sql, PSQL_DEADLINE)?.success()
}

fn psql(connection: &str) -> Result<Command> {
    let mut psql = Command::new(installation()?.program("psql"));
    psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", connection]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            psql.env_remove(name);
        }
    }
    psql.env("LC_ALL", "C.UTF-8").env("HOME", "/nonexistent").env("PGCONNECT_TIMEOUT", "10");
    Ok(psql)
}

fn installation() -> Result<Installation> {
    static FOUND: OnceLock<Result<Installation>> = OnceLock::new();
    FOUND.get_or_init(Installation::find).clone()
}

fn launch(installation: &Installation, folder: &Path, port: u16) -> Result<Server> {
    let mut command = Command::new(installation.program("postgres"));
    command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
    Server::start(&command, installation.command("sh"), folder)
}

/// Starts on a free port; tries another when somebody took it in between.
fn launch_on_free_port(installation: &Installation, folder: &Path) -> Result<(Server, u16)> {
    let mut attempts = 0;
    loop {
        let port = free_port().context("find a free port")?;
        match launch(installation, folder, port) {
            Ok(server) => return Ok((server, port)),
            Err(error) if attempts < PORT_ATTEMPTS && error.to_string().contains("could not bind") => {
                attempts += 1
            }
            Err(error) => return Err(error),
        }
    }
}

const SHOP: &str = include_str!("../../data/shop.sql");
/// Longer than any statement of a test, shorter than the patience of a CI job.
const PSQL_DEADLINE: Duration = Duration::from_secs(60);
/// A pipe away.
const LOG_DEADLINE: Duration = Duration::from_secs(10);
