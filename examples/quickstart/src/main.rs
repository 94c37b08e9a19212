//! A gateway in ten lines: one PostgreSQL, one agent, a policy, masking by content, recordings.
//!
//! ```sh
//! AGENT_TOKEN=some-long-random-token cargo run -p quickstart -- 127.0.0.1:5432 shop app app.password
//! PGPASSWORD=$AGENT_TOKEN psql "host=127.0.0.1 port=6432 user=agent dbname=shop"
//! ```

use std::sync::Arc;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::FileCredentials;
use gateway_core::identity::{Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey};
use gateway_pg::{Address, PgGateway, SCHEMA, SslMode, Target};

/// Reading is allowed; everything else is not.
const POLICY: &str = r#"permit (principal, action in [Action::"connect", Action::"read", Action::"transaction"], resource in Target::"db");"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [host, database, user, password_file] = arguments()?;
    let (host, port) = host.rsplit_once(':').ok_or("give the server as HOST:PORT")?;
    // The ten lines.
    let policy = CedarEngine::builder()
        .schema_fragment("postgres", SCHEMA)
        .policy(PolicyFile::new("policy.cedar", POLICY))
        .build()?;
    let agent = Principal::new(PrincipalKind::Agent, "quickstart", "agent", Timestamp::MAX);
    let agents = StaticAuthenticator::new()?.with(&std::env::var("AGENT_TOKEN")?, agent);
    let recorder = FileRecorder::open(
        "recordings".as_ref(),
        RecordingKey::open_or_create("recording.key".as_ref())?,
        FileOptions::default(),
    )?;
    let credentials = FileCredentials::default().password("db", user, password_file);
    let approver = MemoryApprover::new(Arc::new(SystemClock));
    let pipeline = Pipeline::builder(
        Arc::new(agents),
        Arc::new(policy),
        Arc::new(approver),
        Arc::new(recorder),
        Arc::new(credentials),
    )
    .build()?;
    let target =
        Target::new("db", Address::Tcp(host.to_owned(), port.parse()?), SslMode::Prefer).database(database);
    let listener = tokio::net::TcpListener::bind(
        std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:6432".to_owned()),
    )
    .await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(PgGateway::new(pipeline, target).serve(listener, std::future::pending()).await?)
}

fn arguments() -> Result<[String; 4], &'static str> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    given.try_into().map_err(|_| "usage: quickstart HOST:PORT DATABASE USER PASSWORD_FILE")
}
