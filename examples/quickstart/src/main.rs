//! A PostgreSQL gateway of one's own in ten lines: five parts, one pipeline, one listener.
//!
//! `AGENT_TOKEN` is what the agent shows as its password (a real deployment puts a `JwtAuthenticator` here), `PGPORT` where the
//! database `shop` is, the file `shop.password` (mode 0600) holds the password that only the gateway knows.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::FileCredentials;
use gateway_core::identity::{Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey};
use gateway_pg::{Address, PgGateway, SslMode, Target};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let agent = Principal::new(PrincipalKind::Agent, "https://idp.example", "agent-7", Timestamp::MAX);
    let who = StaticAuthenticator::new()?.with(&std::env::var("AGENT_TOKEN")?, agent);
    let rules = PolicyFile::new("policy.cedar", include_str!("../policy.cedar"));
    let what =
        CedarEngine::builder().schema_fragment("postgres", gateway_pg::SCHEMA).policy(rules).build()?;
    let approve = MemoryApprover::new(Arc::new(SystemClock));
    let key = RecordingKey::open_or_create(Path::new("recording.key"))?;
    let prove = FileRecorder::open(Path::new("recordings"), key, FileOptions::default())?;
    let keep = FileCredentials::default().password("shop", "app", "shop.password");
    let parts = (Arc::new(who), Arc::new(what), Arc::new(approve), Arc::new(prove), Arc::new(keep));
    let pipeline = Pipeline::builder(parts.0, parts.1, parts.2, parts.3, parts.4).build()?;
    let listener = TcpListener::bind(std::env::var("LISTEN").as_deref().unwrap_or("127.0.0.1:6432")).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(PgGateway::new(pipeline, shop()?).serve(listener, stopped()).await?)
}

fn shop() -> Result<Target, Box<dyn Error>> {
    Ok(Target {
        name: "shop".to_owned(),
        address: Address::Tcp("127.0.0.1".to_owned(), std::env::var("PGPORT")?.parse()?),
        ssl_mode: SslMode::Prefer,
        ca_pem: None,
        database: Some("shop".to_owned()),
        labels: Arc::default(),
    })
}

async fn stopped() {
    let _ = tokio::signal::ctrl_c().await;
}
