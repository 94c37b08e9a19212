//! Logins on both sides: TLS, passwords, SCRAM with channel binding, certificates, OAUTHBEARER.

use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_pg::tls::server_config;
use gateway_pg::{Address, PgGateway, SslMode, Target, TokenLogin};
use testkit::raw_pg::{self, RawPg};
use testkit::{Auth, Ca, Postgres};

use crate::support::{Gateway, TOKEN, agent, allow_all, start};

fn password(server: &Postgres) -> UpstreamCredential {
    UpstreamCredential::Password {
        username: "app".to_owned(),
        password: Secret::new(server.password("app").to_owned()),
    }
}

fn to(server: &Postgres, mode: SslMode, ca: &Ca) -> Target {
    let mut target =
        Target::new("shop", Address::Tcp("localhost".to_owned(), server.port()), mode).database("shop");
    target.ca_pem = Some(ca.pem().to_owned());
    target
}

fn works(gateway: &Gateway) -> Result<(), String> {
    match testkit::psql_script(&gateway.url(), "SELECT 40 + 2") {
        Ok(out) if out == "42" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn upstream_logins_of_every_kind() {
    let ca = Ca::new().unwrap();
    let stranger = Ca::new().unwrap();
    for auth in [Auth::Scram, Auth::ScramTls, Auth::Md5, Auth::PasswordTls, Auth::Certificate] {
        let name = format!("{auth:?}");
        let encrypted_only = matches!(auth, Auth::ScramTls | Auth::PasswordTls | Auth::Certificate);
        let certificate = matches!(auth, Auth::Certificate);
        let server = Postgres::builder().tls(&ca).app_auth(auth).start().unwrap();
        server.load_shop().unwrap();
        let credential = || {
            if !certificate {
                return password(&server);
            }
            let issued = ca.client("app").unwrap();
            UpstreamCredential::Certificate {
                username: "app".to_owned(),
                chain: issued.pem.clone(),
                key: Secret::new(issued.key_pem.clone()),
            }
        };
        for mode in [SslMode::VerifyFull, SslMode::VerifyCa, SslMode::Require] {
            let gateway = start(to(&server, mode, &ca), credential(), agent(), allow_all(), |g| g);
            works(&gateway).unwrap_or_else(|e| panic!("{name} {mode:?}: {e}"));
        }
        let plain = start(to(&server, SslMode::Disable, &ca), credential(), agent(), allow_all(), |g| g);
        assert_eq!(works(&plain).is_ok(), !encrypted_only, "{name} without TLS");
        let wrong =
            start(to(&server, SslMode::VerifyFull, &stranger), credential(), agent(), allow_all(), |g| g);
        assert!(works(&wrong).is_err(), "{name}: another CA is not trusted");
    }
}

pub(crate) fn with_tls(server: &Postgres, ca: &Ca, set_up: impl FnOnce(PgGateway) -> PgGateway) -> Gateway {
    let issued = ca.server().unwrap();
    let tls = server_config(&issued.pem, &issued.key_pem, None).unwrap();
    start(to(server, SslMode::Disable, ca), password(server), agent(), allow_all(), |g| set_up(g.tls(tls)))
}

#[test]
fn clients_over_tls() {
    let ca = Ca::new().unwrap();
    let server = Postgres::start().unwrap();
    server.load_shop().unwrap();
    let gateway = with_tls(&server, &ca, PgGateway::require_tls);
    let url = |mode: &str| {
        format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname=shop user=agent password={TOKEN} sslmode={mode} sslrootcert={}",
            gateway.address.port(),
            ca.path().display()
        )
    };
    assert_eq!(testkit::psql_script(&url("verify-full"), "SELECT 42").unwrap(), "42");
    let refused = testkit::psql_script(&url("disable"), "SELECT 42").unwrap_err().to_string();
    assert!(refused.contains("without TLS"), "{refused}");
    // Direct TLS with ALPN, and without it.
    gateway.block_on(async {
        for (alpn, welcome) in [(&[b"postgresql" as &[u8]][..], true), (&[][..], false)] {
            let tcp = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
            let config = ca.client_config(None, alpn).unwrap();
            let direct = RawPg::new(tcp).into_tls(config, "localhost").await;
            let Ok(mut client) = direct else {
                assert!(!welcome);
                continue;
            };
            assert_eq!(client.log_in("agent", "shop", TOKEN).await.is_ok(), welcome, "{alpn:?}");
        }
    });
}

#[test]
fn oauthbearer_carries_the_token() {
    let ca = Ca::new().unwrap();
    let server = Postgres::start().unwrap();
    server.load_shop().unwrap();
    let gateway = with_tls(&server, &ca, |g| g.tokens(TokenLogin::OauthBearer));
    gateway.block_on(async {
        for (token, welcome) in [(TOKEN, true), ("another", false)] {
            let config = ca.client_config(None, &[]).unwrap();
            let mut client = RawPg::connect_tls(gateway.address, config).await.unwrap();
            client.startup(&[("user", "agent"), ("database", "shop")]).await.unwrap();
            assert_eq!(client.frame().await.unwrap().body[..4], 10u32.to_be_bytes(), "SASL is asked for");
            let initial = format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}");
            let mut body = b"OAUTHBEARER\0".to_vec();
            body.extend((initial.len() as u32).to_be_bytes());
            body.extend(initial.as_bytes());
            client.send(&raw_pg::frame(b'p', &body)).await.unwrap();
            if welcome {
                assert_eq!(client.until_ready().await.unwrap().error().map(|e| e.code().to_owned()), None);
                assert_eq!(client.query("SELECT 42").await.unwrap().text_rows().unwrap()[0][0], "42");
            } else {
                assert_eq!(
                    client.frame().await.unwrap().body[..4],
                    11u32.to_be_bytes(),
                    "the failure as JSON"
                );
                client.send(&raw_pg::frame(b'p', b"\x01")).await.unwrap();
                assert_eq!(client.until_closed().await.unwrap().error().unwrap().code(), "28000");
            }
        }
    });
}
