//! What other listeners of the same gateway serve: nothing is forwarded past them.

use std::net::IpAddr;

use gateway_core::error::{Denial, DenialCode};

/// A service that has a listener of its own, where its operations are judged and its results masked. A forward to it would carry
/// bytes that nobody looks into, so it is refused whatever the policies say, and the client is told where to go.
///
/// It is recognised by the address under which it is configured here. A forward to `localhost` leads to the target's own host, so
/// that counts as the target's configured name. Further names of a host are not known: permit forwards by their exact endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served {
    place: Place,
    /// Where clients are to go, as they are told: ``the listener `0.0.0.0:6432` ``.
    listener: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Endpoint(String, u16),
    Socket(String),
}

impl Served {
    /// A service at a host name or address. `listener` completes "connect to".
    pub fn at(host: impl Into<String>, port: u16, listener: impl Into<String>) -> Self {
        Self { place: Place::Endpoint(host.into(), port), listener: listener.into() }
    }

    /// A service behind a socket of the target's file system.
    pub fn behind(socket: impl Into<String>, listener: impl Into<String>) -> Self {
        Self { place: Place::Socket(socket.into()), listener: listener.into() }
    }

    pub(crate) fn refusal(&self) -> Denial {
        let message = "this service has a listener of its own, where its operations are judged";
        Denial::new(DenialCode::Forbidden, message).with_hint(format!("connect to {}", self.listener))
    }

    fn is_endpoint(&self, host: &str, port: u32) -> bool {
        matches!(&self.place, Place::Endpoint(name, number) if u32::from(*number) == port && same_host(name, host))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct AllServed(pub(crate) Vec<Served>);

impl AllServed {
    /// What a forward through the host `via` leads to.
    pub(crate) fn of_endpoint(&self, via: &str, host: &str, port: u32) -> Option<&Served> {
        let host = if is_loopback(&clean(host)) { via } else { host };
        self.0.iter().find(|served| served.is_endpoint(host, port))
    }

    pub(crate) fn of_socket(&self, path: &str) -> Option<&Served> {
        self.0.iter().find(|served| matches!(&served.place, Place::Socket(socket) if socket == path))
    }
}

/// Names are compared without case and without the dot of the root; addresses by what they mean.
fn same_host(one: &str, other: &str) -> bool {
    let (one, other) = (clean(one), clean(other));
    let address = |host: &str| host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    one == other
        || (is_loopback(&one) && is_loopback(&other))
        || address(&one).is_some_and(|one| Some(one) == address(&other))
}

fn clean(host: &str) -> String {
    host.trim().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

/// As far as it can be told without asking the target: also the short forms that its resolver takes (inet_aton(3)).
fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => {
            let local = ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "0"];
            let number = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit() || c == '.' || c == 'x');
            local.contains(&host)
                || host.is_empty()
                || host.starts_with("127.") && number(host)
                || host.starts_with("0x7f")
                || host == "2130706433"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_by_its_spellings() {
        let served = AllServed(vec![
            Served::at("db.internal", 5432, "there"),
            Served::at("127.0.0.1", 5433, "there"),
            Served::at("10.0.0.7", 5434, "there"),
            Served::behind("/run/postgresql/.s.PGSQL.5432", "there"),
        ]);
        for (host, port) in [
            ("db.internal", 5432),
            ("DB.Internal.", 5432),
            ("127.0.0.1", 5433),
            ("localhost", 5433),
            ("::1", 5433),
            ("127.1", 5433),
            ("::ffff:127.0.0.1", 5433),
            ("0", 5433),
            ("10.0.0.7", 5434),
            ("::ffff:10.0.0.7", 5434),
        ] {
            assert!(served.of_endpoint("127.0.0.1", host, port).is_some(), "{host}:{port}");
        }
        for (host, port) in
            [("db.internal", 5433), ("db2.internal", 5432), ("10.0.0.8", 5434), ("127.evil", 5433)]
        {
            assert!(served.of_endpoint("127.0.0.1", host, port).is_none(), "{host}:{port}");
        }
        assert!(served.of_endpoint("db.internal", "localhost", 5432).is_some());
        assert!(served.of_endpoint("web1.internal", "localhost", 5432).is_none());
        assert!(
            served.of_endpoint("web1.internal", "localhost", 5433).is_none(),
            "that is the gateway's own host"
        );
        assert!(served.of_socket("/run/postgresql/.s.PGSQL.5432").is_some());
        assert!(served.of_socket("/run/docker.sock").is_none());
    }
}
