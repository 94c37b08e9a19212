//! An agent's own process guards its database connections: same policy, masking, approval and recording as the gateway, no
//! listener and no network hop.
//!
//! The planner looks with an identity that may only read; the executor acts with one whose writes wait for a person. Neither
//! holds the database's password. In-process, the guard protects against what the *model* asks for, not against hostile code
//! in this process: for that, run the gateway as a process of its own.

mod setup;

use std::error::Error;
use std::io;

use gateway_pg::PgGateway;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

pub use setup::{Embedded, Tokens, next_request};

/// Bytes in flight in each direction of an in-memory connection.
const PIPE_BYTES: usize = 64 * 1024;

/// A client whose every statement passes the guard.
#[derive(Debug)]
pub struct Guarded {
    /// An ordinary client.
    pub client: Client,
    /// The guard's session; ends when the client is dropped and its recording is sealed.
    pub session: JoinHandle<io::Result<()>>,
}

/// Connects a client through `gateway` over a pipe in memory, with the identity that `token` proves.
///
/// # Errors
/// The identity or `connect` is refused, or the server cannot be reached.
pub async fn connect(
    gateway: &PgGateway,
    database: &str,
    token: &str,
) -> Result<Guarded, tokio_postgres::Error> {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let gateway = gateway.clone();
    let session = tokio::spawn(async move { gateway.serve_stream(Box::new(theirs)).await });
    let mut config = Config::new();
    config.user("agent").password(token).dbname(database).ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect_raw(ours, NoTls).await?;
    tokio::spawn(connection);
    Ok(Guarded { client, session })
}

/// What a model wants to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Find something out; goes to the planner's connection.
    Look(String),
    /// Change something; goes to the executor's connection.
    Act(String),
}

/// Whatever thinks: a language model, or a script.
pub trait Model {
    /// The next step, given what the last one showed; `None` once the task is done.
    fn next(&mut self, observation: &str) -> Option<Step>;
}

/// The agent's loop: lets the model choose, runs its choice, shows it what came back. A refusal is an observation like any
/// other, so that the model can do something else.
///
/// # Errors
/// A connection is lost.
pub async fn run(
    model: &mut dyn Model,
    planner: &Client,
    executor: &Client,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut observation = String::new();
    while let Some(step) = model.next(&observation) {
        let (client, statement) = match &step {
            Step::Look(statement) => (planner, statement),
            Step::Act(statement) => (executor, statement),
        };
        observation = match client.simple_query(statement).await {
            Ok(messages) => shown(&messages),
            Err(error) => refused(error)?,
        };
    }
    Ok(())
}

/// Rows as text, one a line, and the number of rows touched.
fn shown(messages: &[SimpleQueryMessage]) -> String {
    let mut out = String::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let cells: Vec<_> = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect();
                out.push_str(&cells.join(" | "));
                out.push('\n');
            }
            SimpleQueryMessage::CommandComplete(rows) => out.push_str(&format!("({rows} rows)\n")),
            _ => {}
        }
    }
    out
}

/// The server's or the gateway's words for a statement that did not run.
fn refused(error: tokio_postgres::Error) -> Result<String, Box<dyn Error + Send + Sync>> {
    let Some(said) = error.as_db_error() else { return Err(error.into()) };
    let hint = said.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    Ok(format!("{}: {}{hint}", said.code().code(), said.message()))
}
