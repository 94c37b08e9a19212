//! The program itself in front of a real server, with the real psql.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::{fs, io::Write};

use testkit::{Guard, Postgres, psql_script};

const TOKEN: &str = "the-agents-token";

#[test]
fn psql_reads_masked_rows_and_cannot_write() {
    let server = Postgres::start().unwrap();
    server.load_shop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut password = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(folder.path().join("shop.password"))
        .unwrap();
    password.write_all(server.password("app").as_bytes()).unwrap();
    let mut gateway = Guard::spawn(
        Command::new(env!("CARGO_BIN_EXE_quickstart"))
            .current_dir(&folder)
            .env_remove("CREDENTIALS_DIRECTORY")
            .env("AGENT_TOKEN", TOKEN)
            .env("LISTEN", "127.0.0.1:0")
            .env("PGPORT", server.port().to_string())
            .stdout(Stdio::piped()),
    )
    .unwrap();
    let mut line = String::new();
    BufReader::new(gateway.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it did not start: {line:?}"));
    let url = |token: &str| format!("postgres://agent:{token}@{address}/shop");

    let read =
        psql_script(&url(TOKEN), "SELECT count(*) FROM customers; SELECT email FROM customers WHERE id = 1;");
    assert_eq!(read.unwrap(), "200\n[REDACTED:EMAIL]");
    let denied = psql_script(&url(TOKEN), "UPDATE customers SET note = ''").unwrap_err().to_string();
    assert!(denied.contains("no rule permits `update`"), "{denied}");
    let stranger = psql_script(&url("guess"), "SELECT 1").unwrap_err().to_string();
    assert!(stranger.contains("the presented identity was not accepted"), "{stranger}");
    let held = "SELECT count(*) FROM customers WHERE note = ''";
    assert_eq!(server.psql("shop", held).unwrap(), "100");
    assert!(fs::read_dir(folder.path().join("recordings")).unwrap().count() > 0);
}

#[test]
fn the_readme_shows_this_very_program() {
    let source = include_str!("../src/main.rs");
    let (_, rest) = source.split_once("#[tokio::main]\n").unwrap();
    let (main, _) = rest.split_once("\n}\n").unwrap();
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(main), "copy `main` of the quickstart into README.md");
}
