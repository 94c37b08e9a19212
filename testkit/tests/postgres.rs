//! The real server: starts, ends, lets in whom it should, and holds the shop.

// Helpers of a test are tests too; the lint exempts only the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::raw_pg::{self, Bind, RawPg};
use testkit::{Auth, Ca, CertRequest, Durability, Postgres, Result, psql_command, psql_script, wait_until};

type Outcome = Result<()>;

#[test]
fn it_starts_and_leaves_nothing_behind() -> Outcome {
    let pg = Postgres::start()?;
    let (folder, port) = (pg.socket_folder().to_owned(), pg.port());
    assert_eq!(pg.psql("shop", "SELECT current_user")?, "postgres");
    assert_eq!(psql_command(&pg.url("app", "shop"), "SELECT current_user")?, "app");
    assert_eq!(
        psql_command(&pg.admin_url("shop"), "SHOW server_version")?.split(' ').next(),
        Some(pg.version())
    );
    drop(pg);
    assert!(!folder.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    Ok(())
}

#[test]
fn it_stops_with_a_killed_owner() -> Outcome {
    // This very test binary, as the process that owns a server and gets killed.
    let me = std::env::current_exe().unwrap();
    let mut owner = Command::new(me);
    owner.args(["--exact", "owner_to_be_killed", "--nocapture"]);
    owner.env("TESTKIT_OWNER", "1").stdout(Stdio::piped());
    let mut owner = testkit::Guard::spawn(&mut owner)?;
    let output = std::io::BufReader::new(owner.child().stdout.take().unwrap());
    let lines = std::io::BufRead::lines(output).map_while(std::io::Result::ok);
    let folder =
        lines.filter_map(|line| line.split_once("folder=").map(|(_, folder)| folder.to_owned())).next();
    let folder = folder.expect("the owner tells its folder");
    assert!(Path::new(&folder).join("data/postmaster.pid").exists());
    owner.kill();
    // The supervisor has no tie to us that we could wait on: that is the point of it.
    assert!(
        wait_until(|| !Path::new(&folder).exists(), Duration::from_secs(20)),
        "`{folder}` is still there"
    );
    Ok(())
}

/// Not a test by itself: the process that [`it_stops_with_a_killed_owner`] starts and kills.
#[test]
fn owner_to_be_killed() -> Outcome {
    if std::env::var_os("TESTKIT_OWNER").is_none() {
        return Ok(());
    }
    let pg = Postgres::start()?;
    println!("folder={}", pg.socket_folder().display());
    loop {
        std::thread::park();
    }
}

#[test]
fn every_way_to_log_in_works_and_is_enforced() -> Outcome {
    let ca = Ca::new()?;
    let pg = Postgres::builder()
        .tls(&ca)
        .role("by_md5", Auth::Md5)
        .role("by_password", Auth::Password)
        .role("by_password_tls", Auth::PasswordTls)
        .role("by_scram_tls", Auth::ScramTls)
        .role("by_cert", Auth::Certificate)
        .role("by_nothing", Auth::Trust)
        .start()?;
    let root = ca.path();
    let tls = format!("?sslmode=verify-full&sslrootcert={}", root.display());
    let user = |connection: &str| psql_command(connection, "SELECT current_user");
    for role in ["app", "by_md5", "by_password", "by_password_tls", "by_scram_tls", "by_nothing"] {
        assert_eq!(user(&(pg.url(role, "shop") + &tls))?, role);
    }
    for role in ["app", "by_md5", "by_password"] {
        let wrong = pg.url(role, "shop").replace(pg.password(role), "wrong");
        assert!(user(&wrong).unwrap_err().to_string().contains("password authentication failed"), "{role}");
        assert_eq!(user(&(pg.url(role, "shop") + "?sslmode=disable"))?, role);
    }
    for role in ["by_password_tls", "by_scram_tls", "by_cert"] {
        let plain = user(&(pg.url(role, "shop") + "?sslmode=disable")).unwrap_err();
        assert!(plain.to_string().contains("pg_hba.conf rejects"), "{role}: {plain}");
    }
    // libpq refuses this by itself unless the server does SCRAM-SHA-256-PLUS.
    let binding = pg.url("app", "shop") + &tls + "&channel_binding=require";
    assert_eq!(user(&binding)?, "app");
    let certificate = ca.client("by_cert")?;
    let with = |certificate: &testkit::Certificate| {
        format!("&sslcert={}&sslkey={}", certificate.path.display(), certificate.key_path.display())
    };
    assert_eq!(user(&(pg.url("by_cert", "shop") + &tls + &with(&certificate)))?, "by_cert");
    let other = user(&(pg.url("by_cert", "shop") + &tls + &with(&ca.client("somebody")?))).unwrap_err();
    assert!(other.to_string().contains("certificate authentication failed"), "{other}");
    let expired = ca.issue(&CertRequest::client("by_cert").expired())?;
    assert!(user(&(pg.url("by_cert", "shop") + &tls + &with(&expired))).is_err());
    Ok(())
}

#[test]
fn wrong_server_certificates_are_noticed() -> Outcome {
    let (ca, other) = (Ca::new()?, Ca::new()?);
    for (certificate, reason) in [
        (ca.issue(&CertRequest::server().expired())?, "certificate verify failed"),
        (ca.issue(&CertRequest::server().names(&["example.com"]))?, "does not match host name"),
        (other.server()?, "certificate verify failed"),
    ] {
        let pg = Postgres::builder().tls_with(&ca, &certificate).start()?;
        let url =
            format!("{}?sslmode=verify-full&sslrootcert={}", pg.url("app", "shop"), ca.path().display());
        let error = psql_command(&url, "SELECT 1").unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    Ok(())
}

#[test]
fn the_shop_is_complete_and_consistent() -> Outcome {
    let pg = Postgres::start()?;
    pg.load_shop()?;
    let app = pg.url("app", "shop");
    assert_eq!(
        psql_command(&app, "SELECT count(*), count(DISTINCT ssn), count(DISTINCT email) FROM customers")?,
        "200|200|200"
    );
    assert_eq!(psql_command(&app, "SELECT count(*) > 200 FROM cards")?, "t");
    assert_eq!(
        psql_command(&app, "SELECT sum(debit_cents) = sum(credit_cents), sum(debit_cents) > 0 FROM ledger")?,
        "t|t"
    );
    let pans = psql_command(&app, "SELECT pan FROM cards")?;
    assert!(pans.lines().all(luhn), "a card number fails the Luhn check");
    assert_eq!(pans.lines().filter(|pan| pan.len() == 15).count(), 87);
    assert_eq!(
        psql_command(
            &app,
            "SELECT order_total(1) = sum(quantity * price_cents) FROM order_items WHERE order_id = 1"
        )?,
        "t"
    );
    assert_eq!(
        psql_command(&app, "SELECT post_payment(2) > 500; SELECT status FROM orders WHERE id = 2")?,
        "t\npaid"
    );
    assert!(psql_command(&app, "DROP TABLE ledger").is_err());
    assert!(pg.load_shop().is_err());
    Ok(())
}

#[test]
fn the_shop_is_the_same_each_time() -> Outcome {
    let digest = || -> Result<String> {
        let pg = Postgres::start()?;
        pg.load_shop()?;
        pg.psql(
            "shop",
            "SELECT md5(string_agg(c::text, '' ORDER BY id)) FROM customers c;
                         SELECT md5(string_agg(c::text, '' ORDER BY id)) FROM cards c;
                         SELECT md5(string_agg(l::text, '' ORDER BY id)) FROM ledger l;",
        )
    };
    assert_eq!(digest()?, digest()?);
    Ok(())
}

#[test]
fn copied_databases_are_apart() -> Outcome {
    let pg = Postgres::start()?;
    pg.load_shop()?;
    let (one, two) = (pg.copy_database("shop")?, pg.copy_database("shop")?);
    psql_command(&pg.url("app", &one), "DELETE FROM ledger")?;
    assert_eq!(psql_command(&pg.url("app", &one), "SELECT count(*) FROM ledger")?, "0");
    assert_eq!(psql_command(&pg.url("app", &two), "SELECT count(*) FROM ledger")?, "800");
    Ok(())
}

#[test]
fn a_durable_server_syncs() -> Outcome {
    let pg = Postgres::builder().durability(Durability::Full).start()?;
    assert_eq!(pg.psql("shop", "SHOW fsync; SHOW full_page_writes; SHOW synchronous_commit")?, "on\non\non");
    assert!(pg.socket_folder().starts_with(std::env::temp_dir()));
    Ok(())
}

fn luhn(number: &str) -> bool {
    let digits = number.bytes().rev().map(|byte| u32::from(byte - b'0'));
    let weighted = digits
        .enumerate()
        .map(|(index, digit)| if index % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 });
    weighted.sum::<u32>() % 10 == 0
}

#[test]
fn the_log_tells_what_reached_the_server() -> Outcome {
    let pg = Postgres::builder().log_statements().start()?;
    psql_command(&pg.url("app", "shop"), "SELECT 'this arrived'")?;
    let log = pg.log_of_everything_so_far()?;
    assert!(log.contains("this arrived") && !log.contains("this did not"));
    Ok(())
}

#[test]
fn a_stopped_server_comes_back_with_its_data() -> Outcome {
    let mut pg = Postgres::builder().setting("work_mem", "1234kB").start()?;
    pg.load_shop()?;
    let url = pg.url("app", "shop");
    pg.stop();
    assert!(psql_command(&url, "SELECT 1").is_err());
    pg.start_again()?;
    assert_eq!(psql_script(&url, "SELECT count(*) FROM customers; SHOW work_mem;")?, "200\n1234kB");
    Ok(())
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let error = Postgres::builder().setting("no_such_setting", "1").start().unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn many_start_side_by_side() {
    let starts: Vec<_> = (0..3).map(|_| std::thread::spawn(Postgres::start)).collect();
    let servers: Vec<_> = starts.into_iter().map(|start| start.join().unwrap().unwrap()).collect();
    let ports: std::collections::BTreeSet<_> = servers.iter().map(Postgres::port).collect();
    assert_eq!(ports.len(), 3);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn the_raw_client_speaks_with_a_real_server() -> Outcome {
    let ca = Ca::new()?;
    let pg = Postgres::builder().tls(&ca).app_auth(Auth::PasswordTls).start()?;
    pg.load_shop()?;
    block_on(async {
        let mut client = RawPg::connect_tls(pg.address(), ca.client_config(None, &[b"postgresql"])?).await?;
        let greeting = client.log_in("app", "shop", pg.password("app")).await?;
        assert!(greeting.tags().starts_with('R') && greeting.tags().ends_with("KZ"), "{greeting}");
        let answer =
            client.query("SELECT id, phone, NULL FROM customers WHERE id = 1; SELECT 1/0; SELECT 2").await?;
        assert_eq!(answer.tags(), "TDCEZ");
        assert_eq!(answer.text_rows()?, [["1", "+1-415-555-0037", "∅"]]);
        assert_eq!(answer.error().unwrap().code(), "22012");
        let fields = raw_pg::row_description(&answer.frames[0].body)?;
        assert_eq!((fields[1].name.as_str(), fields[1].attribute, fields[2].table), ("phone", 4, 0));
        let bind = Bind { values: &[Some(b"7"), None], result_formats: &[1], ..Bind::default() };
        let extended = [
            raw_pg::parse("", "SELECT $1::int4 + 1, $2::text", &[]),
            raw_pg::describe(b'S', ""),
            bind.encode(),
            raw_pg::execute("", 0),
            raw_pg::close(b'P', ""),
            raw_pg::sync(),
        ];
        let answer = client.exchange(&extended.concat()).await?;
        assert_eq!(answer.tags(), "1tT2DC3Z");
        assert_eq!(answer.rows()?, [[Some(vec![0, 0, 0, 8]), None]]);
        assert_eq!(answer.frames.last().unwrap().transaction_status()?, b'I');
        client.send(&raw_pg::query("CREATE TEMP TABLE t (a text); COPY t FROM STDIN")).await?;
        let copied = [raw_pg::copy_data(b"one\n"), raw_pg::copy_done()].concat();
        assert_eq!(client.exchange(&copied).await?.tags(), "CGCZ");
        // A length of 3 cannot even hold itself: the server hangs up.
        client.send(&[b'Q', 0, 0, 0, 3]).await?;
        assert_eq!(client.until_closed().await?.tags(), "");
        Ok(())
    })
}

#[test]
fn a_cancel_request_cancels() -> Outcome {
    let pg = Postgres::builder().app_auth(Auth::Trust).start()?;
    block_on(async {
        let mut client = RawPg::connect(pg.address()).await?;
        client.startup(&[("user", "app"), ("database", "shop")]).await?;
        let greeting = client.until_ready().await?;
        let key = greeting.frames.iter().find(|frame| frame.tag == b'K').unwrap().cancel_key()?;
        client.send(&raw_pg::query("SELECT pg_sleep(60)")).await?;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%sleep(60)' AND usename = 'app'";
        assert!(wait_until(
            || pg.psql("shop", running).is_ok_and(|count| count == "1"),
            Duration::from_secs(10)
        ));
        let mut second = RawPg::connect(pg.address()).await?;
        second.send(&raw_pg::cancel_request(key.0, &key.1)).await?;
        second.until_closed().await?;
        assert_eq!(client.until_ready().await?.error().unwrap().code(), "57014");
        Ok(())
    })
}

#[test]
fn a_silent_peer_is_an_error_at_the_deadline() -> Outcome {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    block_on(async {
        let client = RawPg::connect(silent.local_addr().unwrap()).await?;
        let error = client.patience(Duration::from_millis(30)).until_ready().await.unwrap_err();
        assert!(error.to_string().contains("in time"), "{error}");
        Ok(())
    })
}
