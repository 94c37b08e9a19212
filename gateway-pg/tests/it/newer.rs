//! Servers newer than the installed ones, upstream: protocol 3.2 with its long cancel keys, direct TLS.

use std::time::Duration;

use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_pg::{Address, ProtocolVersion, SslMode, SslNegotiation, Target};
use testkit::raw_pg::{self, RawPg};
use testkit::{Ca, PgDouble, WAIT};

use crate::support::{Gateway, TOKEN, agent, allow_all, start};

const V3_0: u32 = 3 << 16;
const V3_2: u32 = 3 << 16 | 2;
const ALPN: &[&[u8]] = &[b"postgresql"];

fn gateway(double: &PgDouble, ca: &Ca, set: impl FnOnce(&mut Target)) -> Gateway {
    let address = Address::Tcp("localhost".to_owned(), double.address().port());
    let mut target = Target::new("shop", address, SslMode::VerifyFull).database("shop");
    target.ca_pem = Some(ca.pem().to_owned());
    set(&mut target);
    let credential =
        UpstreamCredential::Password { username: "app".to_owned(), password: Secret::new("x".to_owned()) };
    start(target, credential, agent(), allow_all(), |gateway| gateway)
}

fn works(gateway: &Gateway) -> bool {
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap();
        let Ok(_) = client.log_in("agent", "shop", TOKEN).await else { return false };
        client.query("SELECT 42").await.unwrap().text_rows().unwrap() == [["42"]]
    })
}

#[test]
fn versions_are_negotiated() {
    let ca = Ca::new().unwrap();
    for (newest, wanted, asked, key) in [
        (V3_2, ProtocolVersion::V3_2, V3_2, 36),
        (V3_2, ProtocolVersion::V3_0, V3_0, 8),
        (V3_0, ProtocolVersion::V3_2, V3_2, 8),
    ] {
        let double = PgDouble::start(&ca, newest, ALPN).unwrap();
        let gateway = gateway(&double, &ca, |target| target.max_protocol = wanted);
        assert!(works(&gateway), "{newest:#x} {wanted:?}");
        let arrived = double.arrived();
        assert!(arrived.iter().all(|a| a.version == asked && a.tls && !a.direct), "{arrived:?}");
        assert_eq!(double.keys(), [(key, false)], "{newest:#x} {wanted:?}");
    }
}

#[test]
fn direct_tls_agrees_on_the_protocol() {
    let ca = Ca::new().unwrap();
    for (alpn, welcome) in [(ALPN, true), (&[][..], false), (&[b"http/1.1" as &[u8]][..], false)] {
        let double = PgDouble::start(&ca, V3_2, alpn).unwrap();
        let direct = |target: &mut Target| {
            target.ssl_negotiation = SslNegotiation::Direct;
            target.max_protocol = ProtocolVersion::V3_2;
        };
        assert_eq!(works(&gateway(&double, &ca, direct)), welcome, "{alpn:?}");
        assert!(double.arrived().iter().all(|a| a.tls && a.direct), "{alpn:?}");
        assert_eq!(double.arrived().is_empty(), !welcome, "{alpn:?}");
        // Without TLS there is nothing to begin with, and it is not given up silently.
        let prefer = |target: &mut Target| {
            target.ssl_negotiation = SslNegotiation::Direct;
            target.ssl_mode = SslMode::Prefer;
        };
        assert!(!works(&gateway(&double, &ca, prefer)));
    }
}

#[test]
fn long_keys_cancel() {
    let ca = Ca::new().unwrap();
    let double = PgDouble::start(&ca, V3_2, ALPN).unwrap();
    let gateway = gateway(&double, &ca, |target| {
        target.ssl_negotiation = SslNegotiation::Direct;
        target.max_protocol = ProtocolVersion::V3_2;
    });
    gateway.block_on(async {
        let mut client = RawPg::connect(gateway.address).await.unwrap().patience(Duration::from_secs(30));
        let version = raw_pg::startup_version(V3_2, &[("user", "agent"), ("database", "shop")]);
        client.send(&version).await.unwrap();
        client.password(TOKEN).await.unwrap();
        let ready = client.until_ready().await.unwrap();
        let key = ready.frames.iter().find(|frame| frame.tag == b'K').unwrap().body.clone();
        assert_eq!(key.len(), 36, "the gateway's own key, not the server's");
        client.send(&raw_pg::query(WAIT)).await.unwrap();
        assert!(double.runs());
        let mut other = RawPg::connect(gateway.address).await.unwrap();
        let packet = [&(8 + key.len() as u32).to_be_bytes()[..], &(1234u32 << 16 | 5678).to_be_bytes(), &key];
        other.send(&packet.concat()).await.unwrap();
        assert_eq!(client.until_ready().await.unwrap().error().unwrap().code(), "57014");
        assert_eq!(double.keys(), [(36, true)]);
    });
}
