//! A store and its gateway on loopback, to try the adapter with any tool that sends lines.

use std::sync::Arc;

use custom_adapter::{KvGateway, KvServer, SCHEMA};
use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::StaticCredentials;
use gateway_core::identity::{Phase, Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::MemoryRecorder;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy = PolicyFile::new("policy.cedar", include_str!("../policy.cedar"));
    let engine = CedarEngine::builder().schema_fragment("keyvalue", SCHEMA).policy(policy).build()?;
    let mut agent = Principal::new(PrincipalKind::Agent, "https://idp.example", "agent-7", Timestamp::MAX);
    agent.phase = Phase::Execute;
    let (_store, address, account) = KvServer::start().await?;
    let pipeline = Pipeline::builder(
        Arc::new(StaticAuthenticator::new()?.with("agent-token", agent)),
        Arc::new(engine),
        Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
        Arc::new(MemoryRecorder::default()),
        Arc::new(StaticCredentials::default().with("store", account)),
    )
    .build()?;
    let listener = TcpListener::bind("127.0.0.1:7400").await?;
    println!("listening on 127.0.0.1:7400; log in with the line `AUTH agent-token`");
    Ok(KvGateway { pipeline, target: "store", upstream: address }.serve(listener).await?)
}
