//! The quickstart works as its documentation says.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Ends with the test, also a failing one.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn psql_reads_through_it_and_writes_nothing() {
    let server = testkit::Postgres::start().unwrap();
    server.load_shop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("app.password");
    std::fs::write(&secret, server.password("app")).unwrap();
    Command::new("chmod").arg("600").arg(&secret).status().unwrap();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .args([&format!("127.0.0.1:{}", server.port()), "shop", "app", "app.password"])
        .envs([("AGENT_TOKEN", "a-token-for-this-test"), ("LISTEN", "127.0.0.1:0")])
        .env_remove("CREDENTIALS_DIRECTORY")
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(gateway.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let gateway = Killed(gateway);
    let url = format!(
        "postgres://agent:a-token-for-this-test@{}/shop",
        line.trim().trim_start_matches("listening on ")
    );
    assert_eq!(testkit::psql_script(&url, "SELECT count(*) FROM customers").unwrap(), "200");
    assert_eq!(testkit::psql_script(&url, "SELECT 'ada@example.com'").unwrap(), "[REDACTED:EMAIL]");
    let denied = testkit::psql_script(&url, "DELETE FROM orders").unwrap_err().to_string();
    assert!(denied.contains("no rule permits"), "{denied}");
    drop(gateway);
}
