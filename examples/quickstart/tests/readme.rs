//! The ten lines that the README shows compile as they stand there.
#![allow(missing_docs, clippy::unwrap_used)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::SystemClock;
use gateway_core::credentials::FileCredentials;
use gateway_core::identity::{Principal, StaticAuthenticator};
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey};
use gateway_pg::{Address, PgGateway, SCHEMA, SslMode, Target};
use tokio::net::TcpListener;

const POLICY: &str = "permit (principal, action, resource);";

#[rustfmt::skip]
#[allow(dead_code)]
async fn composed(agent: Principal, token: String, folder: &Path, key_file: &Path, host: String) -> Result<(), Box<dyn Error>> {
// The README begins here.
let policy = CedarEngine::builder().schema_fragment("postgres", SCHEMA).policy(PolicyFile::new("policy.cedar", POLICY)).build()?;
let agents = StaticAuthenticator::new()?.with(&token, agent); // or JwtAuthenticator for your identity provider
let recorder = FileRecorder::open(folder, RecordingKey::open_or_create(key_file)?, FileOptions::default())?;
let credentials = FileCredentials::default().password("db", "app", "app.password");
let approver = MemoryApprover::new(Arc::new(SystemClock)); // or gateway-store's, which survives restarts
let pipeline = Pipeline::builder(Arc::new(agents), Arc::new(policy), Arc::new(approver), Arc::new(recorder), Arc::new(credentials)).build()?;
let target = Target::new("db", Address::Tcp(host, 5432), SslMode::VerifyFull).database("shop");
let listener = TcpListener::bind("127.0.0.1:6432").await?;
PgGateway::new(pipeline, target).serve(listener, std::future::pending()).await?;
// The README ends here.
Ok(())
}

#[test]
fn the_readme_shows_this() {
    let (_, rest) = include_str!("readme.rs").split_once("// The README begins here.\n").unwrap();
    let (code, _) = rest.split_once("// The README ends here.").unwrap();
    assert!(include_str!("../../../README.md").contains(code), "make the README and this test the same");
}
