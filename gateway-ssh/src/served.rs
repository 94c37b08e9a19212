//! What other listeners of the same gateway serve: nothing is forwarded past them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

    /// By its last component, since folders have other names (`/var/run` is `/run`); below `/proc` all of them have.
    pub(crate) fn of_socket(&self, path: &str) -> Option<&Served> {
        let last = |path: &str| path.rsplit('/').next().map(str::to_owned);
        let is = |socket: &str| path.starts_with("/proc/") || last(socket) == last(path);
        self.0.iter().find(|served| matches!(&served.place, Place::Socket(socket) if is(socket)))
    }
}

/// Names are compared without case and without the dot of the root; addresses by what they mean.
fn same_host(one: &str, other: &str) -> bool {
    let (one, other) = (clean(one), clean(other));
    one == other
        || (is_loopback(&one) && is_loopback(&other))
        || address(&one).is_some_and(|one| Some(one) == address(&other))
}

fn clean(host: &str) -> String {
    host.trim().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

/// A host as it is judged and asked for: one spelling of each name, and of each address, for policies to name.
pub(crate) fn canonical_host(host: &str) -> String {
    let host = clean(host);
    address(&host).map_or(host, |address| address.to_string())
}

/// An address to listen on as it is judged. The target is asked by the client's own spelling, by which the client knows its forward again.
pub(crate) fn listening_host(host: &str) -> String {
    // OpenSSH's server takes both for all addresses (RFC 4254 section 7.1).
    if host == "*" { String::new() } else { canonical_host(host) }
}

fn address(host: &str) -> Option<IpAddr> {
    // A zone (RFC 4007 section 11) means something for addresses of a link only; resolvers take it, and drop it, with any other.
    let host = match host.split_once('%') {
        Some((address, _)) if address.parse::<Ipv6Addr>().is_ok_and(|a| !a.is_unicast_link_local()) => {
            address
        }
        _ => host,
    };
    let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    address.or_else(|| inet_aton(host).map(IpAddr::V4))
}

/// The other forms of addresses that resolvers take: one to four numbers, decimal, octal or hexadecimal, the last one for all
/// bytes that are left (inet_aton(3)).
fn inet_aton(host: &str) -> Option<Ipv4Addr> {
    let parts: Option<Vec<u32>> = host.split('.').map(number).collect();
    let parts = parts.filter(|parts| parts.len() <= 4)?;
    let (last, leading) = parts.split_last()?;
    let mut address = 0_u32;
    for (part, shift) in leading.iter().zip([24, 16, 8]) {
        address |= u32::from(u8::try_from(*part).ok()?) << shift;
    }
    let left = u32::MAX.checked_shr(8 * u32::try_from(leading.len()).ok()?)?;
    (*last <= left).then(|| Ipv4Addr::from(address | *last))
}

/// As strtoul(3) reads it with base 0.
fn number(text: &str) -> Option<u32> {
    let (digits, base) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, base).ok()).flatten()
}

/// As far as it can be told without asking the target.
fn is_loopback(host: &str) -> bool {
    let local = ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", ""];
    match address(host) {
        Some(address) => address.is_loopback() || address.is_unspecified(),
        None => local.contains(&host) || host.ends_with(".localhost"),
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
            ("::1%1", 5433),
            ("[0:0:0:0:0:0:0:1%0]", 5433),
            ("::ffff:127.0.0.1%lo", 5433),
            ("::ffff:127.0.0.1", 5433),
            ("0", 5433),
            ("0.0", 5433),
            ("00", 5433),
            ("0x0", 5433),
            ("0177.0.0.1", 5433),
            ("017700000001", 5433),
            ("2130706433", 5433),
            ("2130706434", 5433),
            ("0x7f.1", 5433),
            ("db.localhost", 5433),
            ("10.0.0.7", 5434),
            ("10.7", 5434),
            ("10.0.7", 5434),
            ("167772167", 5434),
            ("0xa000007", 5434),
            ("0XA.7", 5434),
            ("012.0.0.7", 5434),
            ("[::ffff:10.0.0.7]", 5434),
            ("::ffff:10.0.0.7", 5434),
        ] {
            assert!(served.of_endpoint("127.0.0.1", host, port).is_some(), "{host}:{port}");
        }
        for (host, port) in [
            ("db.internal", 5433),
            ("db2.internal", 5432),
            ("10.0.0.8", 5434),
            ("127.evil", 5433),
            ("10.0.0.8", 5434),
            ("10.8", 5434),
            ("08.7", 5434),
            ("1.2.3.4.5", 5433),
        ] {
            assert!(served.of_endpoint("127.0.0.1", host, port).is_none(), "{host}:{port}");
        }
        assert!(served.of_endpoint("db.internal", "localhost", 5432).is_some());
        assert!(served.of_endpoint("web1.internal", "localhost", 5432).is_none());
        assert!(
            served.of_endpoint("web1.internal", "localhost", 5433).is_none(),
            "that is the gateway's own host"
        );
        assert!(served.of_socket("/run/postgresql/.s.PGSQL.5432").is_some());
        for path in [
            "/var/run/postgresql/.s.PGSQL.5432",
            "/proc/self/cwd/run/postgresql/.s.PGSQL.5432",
            "/proc/1/cwd/run/postgresql/link",
        ] {
            assert!(served.of_socket(path).is_some(), "{path}");
        }
        assert!(served.of_socket("/run/docker.sock").is_none());
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (given, canonical) in [
            ("DB.Internal.", "db.internal"),
            ("10.7", "10.0.0.7"),
            ("0xa000007", "10.0.0.7"),
            ("::FFFF:10.0.0.7", "10.0.0.7"),
            ("[2001:DB8:0::1]", "2001:db8::1"),
            ("256.1", "256.1"),
            ("1.2.3.4.5", "1.2.3.4.5"),
            ("cafe", "cafe"),
            ("", ""),
        ] {
            assert_eq!(canonical_host(given), canonical);
        }
    }
}
