//! The demo's provider as its users run it: two processes and a folder.

// Helpers of a test are tests too; the lint exempts only the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{Guard, Result, run};

const DEMO_IDP: &str = env!("CARGO_BIN_EXE_demo-idp");

/// Starts it and returns it with the issuer's URL that it prints.
fn serve(dir: &Path) -> Result<(Guard, String)> {
    let mut guard =
        Guard::spawn(Command::new(DEMO_IDP).arg("serve").arg("--dir").arg(dir).stdout(Stdio::piped()))?;
    let mut line = String::new();
    BufReader::new(guard.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    let issuer = line.trim().strip_prefix("issuer ").expect("the first line names the issuer").to_owned();
    Ok((guard, issuer))
}

fn token(dir: &Path, more: &[&str]) -> Result<String> {
    let mut command = Command::new(DEMO_IDP);
    command.args(["token", "--sub", "agent-7", "--dir"]).arg(dir).args(more);
    run(&mut command, "", Duration::from_secs(10))?.success()
}

#[test]
fn it_serves_and_mints() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    assert!(token(folder.path(), &[]).unwrap_err().to_string().contains("demo-idp serve"));
    let (guard, issuer) = serve(folder.path())?;
    assert_eq!(std::fs::read_to_string(folder.path().join("issuer")).unwrap().trim(), issuer);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--cacert"])
        .arg(folder.path().join("ca.crt"))
        .arg(format!("{issuer}/jwks"));
    let keys: jsonwebtoken::jwk::JwkSet =
        serde_json::from_str(&run(&mut curl, "", Duration::from_secs(10))?.success()?).unwrap();
    let options = [
        "--group", "a", "--group", "b", "--phase", "execute", "--task", "T-1", "--ttl", "2m", "--kind",
        "human",
    ];
    let token =
        token(folder.path(), &[&options[..], &["--algorithm", "eddsa", "--actor", "planner"]].concat())?;
    let header = jsonwebtoken::decode_header(&token).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_audience(&["gateway"]);
    validation.set_issuer(&[&issuer]);
    let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(claims["groups"], serde_json::json!(["a", "b"]));
    assert_eq!(claims["act"]["sub"], "planner");
    assert_eq!(
        (&claims["phase"], &claims["task"], &claims["kind"]),
        (&"execute".into(), &"T-1".into(), &"human".into())
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 120);
    drop(guard);
    // It comes back under the same URL, so that what trusted it before still does.
    assert_eq!(serve(folder.path())?.1, issuer);
    Ok(())
}

#[test]
fn a_wrong_lifetime_is_explained() {
    for wrong in ["15", "m", "+-1m", "1d", "99999999999999999999h", "10000h", "é"] {
        let error = token(Path::new("/nonexistent"), &["--ttl", wrong]).unwrap_err();
        assert!(
            error.to_string().contains("is not a number followed by") || error.to_string().contains("value"),
            "{error}"
        );
    }
}
