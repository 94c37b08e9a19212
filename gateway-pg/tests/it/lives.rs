//! A session ends with its identity, also in the middle of a statement or of its result.

use std::time::{Duration, SystemTime};

use gateway_core::clock::Timestamp;
use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_core::recording::Record;
use gateway_core::session::CloseReason;
use gateway_pg::{Address, SslMode, Target};

use crate::support::{Gateway, agent, allow_all, server, shop, start};

/// A gateway for an agent whose identity ends in so many seconds.
fn mortal(seconds: u64) -> Gateway {
    let target = Target::new("shop", Address::Tcp("127.0.0.1".to_owned(), server().port()), SslMode::Disable)
        .database(shop());
    let password = Secret::new(server().password("app").to_owned());
    let mut agent = agent();
    agent.expires_at = Timestamp::from(SystemTime::now()).plus(Duration::from_secs(seconds));
    start(
        target,
        UpstreamCredential::Password { username: "app".to_owned(), password },
        agent,
        allow_all(),
        |g| g,
    )
}

fn ends(sql: &str) {
    // Where the machine is so busy that the identity ends before the login does, one that lives longer is tried.
    let tried = [6, 20, 60].into_iter().map(|seconds| {
        let gateway = mortal(seconds);
        let error = testkit::psql_script(&gateway.url(), sql).unwrap_err().to_string();
        (gateway, error)
    });
    let mut in_time = tried.filter(|(_, error)| !error.contains("identity was not accepted"));
    let (gateway, error) = in_time.next().expect("a login within a minute");
    assert!(error.contains("identity has expired") || error.contains("identity expired"), "{error}");
    let closed = |gateway: &Gateway| {
        let sessions = gateway.recorder.sessions();
        sessions.iter().any(|(_, records)| {
            matches!(records.last(), Some((_, Record::Closed { reason: CloseReason::IdentityExpired })))
        })
    };
    assert!(testkit::wait_until(|| closed(&gateway), Duration::from_secs(20)));
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database()";
    assert!(
        testkit::wait_until(|| gateway.directly(left) == "0", Duration::from_secs(20)),
        "the server's session ends too"
    );
}

#[test]
fn in_the_middle_of_a_statement() {
    ends("SELECT pg_sleep(600)");
}

#[test]
fn in_the_middle_of_a_result() {
    ends("COPY (SELECT generate_series(1, 100000000000)) TO STDOUT");
}
