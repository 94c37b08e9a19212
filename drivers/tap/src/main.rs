//! A PostgreSQL server and a gateway in front of it that permits everything and writes what it judged as lines of JSON.
//!
//! `tap FOLDER PORT` starts the server, its log in `FOLDER/server.log`.
//! The columns in `FOLDER/labels`, if it is there, are labelled, each by a line of JSON `[schema, table, column]`; they are shown to the
//! client, so that what depends on them is judged and nothing is masked.
//! The gateway takes 127.0.0.1:PORT for its server: whoever runs this listens there and passes on to the real one; 0 is the real one. Standard output
//! gets one line of JSON that says where everything is, `FOLDER/operations` a line for each operation before it is forwarded.
//! It ends with its standard input.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use gateway_core::approval::MemoryApprover;
use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::credentials::{Secret, StaticCredentials, UpstreamCredential};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::{Principal, PrincipalKind, StaticAuthenticator};
use gateway_core::masking::{DataClass, FieldRule};
use gateway_core::operation::{Operation, Resource};
use gateway_core::pipeline::{Label, Pipeline};
use gateway_core::policy::{Allowed, Decision, PolicyEngine, PolicyError, PolicyInput};
use gateway_core::recording::MemoryRecorder;
use gateway_pg::{Address, PgGateway, SslMode, Target};
use serde_json::json;
use testkit::Postgres;
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tap FOLDER PORT".into());
    };
    let server = server(Path::new(&folder))?;
    let token = testkit::random_text(TOKEN_LENGTH);
    let port = match port.parse()? {
        0 => server.port(),
        other => other,
    };
    let target = Target::new("regression", Address::Tcp("127.0.0.1".to_owned(), port), SslMode::Disable)
        .labels(labels(&Path::new(&folder).join("labels"))?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let places = json!({
        "admin": server.admin_url("postgres"),
        "server": server.port(),
        "gateway": listener.local_addr()?.port(),
        "token": token,
    });
    println!("{places}");
    let gateway = PgGateway::new(pipeline(&server, &token, Path::new(&folder))?, target);
    let over = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    Ok(gateway.serve(listener, async { drop(over.await) }).await?)
}

/// A server whose log is in the folder, every line with the process it is of.
fn server(folder: &Path) -> Result<Postgres, Failure> {
    let settings = [
        // A character that no line of a statement begins with, as continued lines begin with a tab.
        ("log_line_prefix", "\u{1}%p|"),
        ("log_error_verbosity", "default"),
        ("log_min_messages", "error"),
        ("max_prepared_transactions", "2"),
        ("wal_level", "logical"),
    ];
    let builder = settings
        .into_iter()
        .fold(Postgres::builder().hba_line(TRUST), |builder, (name, value)| builder.setting(name, value));
    let server = builder.start()?;
    server.copy_log(&folder.join("server.log"))?;
    Ok(server)
}

fn pipeline(server: &Postgres, token: &str, folder: &Path) -> Result<Pipeline, Failure> {
    let credential = UpstreamCredential::Password {
        username: "postgres".to_owned(),
        password: Secret::new(server.password("postgres").to_owned()),
    };
    let agent = Principal::new(PrincipalKind::Agent, "https://idp.test", "regression", Timestamp::MAX);
    let out = Mutex::new(std::fs::File::create(folder.join("operations"))?);
    let policy = PermitAll { out };
    Ok(Pipeline::builder(
        Arc::new(StaticAuthenticator::new()?.with(token, agent)),
        Arc::new(policy),
        Arc::new(MemoryApprover::new(Arc::new(SystemClock))),
        Arc::new(MemoryRecorder::default()),
        Arc::new(StaticCredentials::default().with("regression", credential)),
    )
    .build()?)
}

/// Permits and shows everything, and writes down what it permits.
#[derive(Debug)]
struct PermitAll {
    out: Mutex<std::fs::File>,
}

#[async_trait]
impl PolicyEngine for PermitAll {
    async fn decide(&self, input: &PolicyInput<'_>) -> Result<Decision, PolicyError> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match out.write_all(format!("{}\n", line(input.operation)).as_bytes()) {
            Ok(()) => Decision::Allow(Allowed::default()),
            Err(error) => Decision::Deny(Denial::new(DenialCode::PolicyError, error.to_string())),
        })
    }

    async fn reveal(&self, _: &PolicyInput<'_>, labels: &[Resource]) -> Result<Vec<bool>, PolicyError> {
        Ok(vec![true; labels.len()])
    }
}

fn labels(path: &Path) -> Result<Vec<Label>, Failure> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let label = |line: &str| {
        let (schema, table, column): (String, String, String) = serde_json::from_str(line)?;
        let database = Resource::target("regression").child("Database", "regression");
        let resource = database.child("Schema", schema).child("Table", table).child("Column", column);
        Ok(Label { resource, rule: FieldRule::new(DataClass::US_SSN) })
    };
    std::fs::read_to_string(path)?.lines().map(label).collect()
}

/// An operation: its kind, its text, and its accesses as `[action, kind, schema, name, table]`: the table of a column.
fn line(operation: &Operation) -> serde_json::Value {
    let accesses = operation.accesses.iter().map(|access| {
        let path = access.resource.path();
        let schema = path.iter().find(|(kind, _)| kind == "Schema").map_or("", |(_, name)| name);
        let table = path.iter().find(|(kind, _)| kind == "Table").map_or("", |(_, name)| name);
        json!([access.action.as_str(), access.resource.kind(), schema, access.resource.name(), table])
    });
    json!({
        "kind": operation.kind,
        "effect": format!("{:?}", operation.effect),
        "text": std::str::from_utf8(&operation.statement).unwrap_or_default(),
        "accesses": accesses.collect::<Vec<_>>(),
    })
}

/// Everybody is who they say, as the suites of drivers and the regression SQL expect.
const TRUST: &str = "host all all 127.0.0.1/32 trust";
/// 142 bits.
const TOKEN_LENGTH: usize = 24;
