//! What is negotiated, towards clients and towards targets.

use std::borrow::Cow;
use std::process::Command;
use std::sync::{Arc, Mutex};

use gateway_core::credentials::{Secret, UpstreamCredential};
use gateway_ssh::Target;
use russh::client::{self, Handler};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelMsg, Error, Names, Preferred, cipher, kex};
use testkit::{Sshd, client_options, run};

use crate::double::Double;
use crate::support::{ALL, DEADLINE, Gateway, Setup, TOKEN, gateway, keys, public};

/// A client that keeps what was negotiated: key exchange, cipher, and whether prefixes are protected.
#[derive(Clone, Default)]
struct Listening(Arc<Mutex<Option<(kex::Name, cipher::Name, bool)>>>);

impl Handler for Listening {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &Names,
        _: &mut client::Session,
    ) -> Result<(), Error> {
        *self.0.lock().unwrap() = Some((names.kex, names.cipher, names.strict_kex()));
        Ok(())
    }
}

/// Runs a command with a client that prefers this; gives what was negotiated and what it printed.
async fn negotiated(
    gateway: &Gateway,
    preferred: Preferred,
) -> Result<(kex::Name, cipher::Name, bool, String), Error> {
    let config = client::Config { preferred, ..client::Config::default() };
    let listening = Listening::default();
    let mut client = client::connect(Arc::new(config), gateway.address, listening.clone()).await?;
    assert!(client.authenticate_password("agent-7", TOKEN).await?.success());
    let mut channel = client.channel_open_session().await?;
    channel.exec(true, "echo in").await?;
    let mut printed = Vec::new();
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            printed.extend_from_slice(&data);
        }
    }
    let (kex, cipher, strict) = listening.0.lock().unwrap().unwrap();
    Ok((kex, cipher, strict, String::from_utf8(printed).unwrap()))
}

const POST_QUANTUM: kex::Name = kex::MLKEM768X25519_SHA256;

fn exchange(name: kex::Name) -> Preferred {
    Preferred { kex: Cow::Owned(vec![name]), ..Preferred::DEFAULT }
}

#[test]
fn a_client_that_knows_it_gets_a_post_quantum_key_exchange() {
    assert_eq!(POST_QUANTUM.as_ref(), "mlkem768x25519-sha256");
    let gateway = gateway(ALL);
    let with = |preferred| gateway.block_on(negotiated(&gateway, preferred)).unwrap();
    let said = "in\n".to_owned();
    assert_eq!(with(Preferred::DEFAULT), (POST_QUANTUM, cipher::AES_256_GCM, true, said.clone()));
    // It is a choice, not a demand; and without the word for it prefixes are not protected.
    assert_eq!(with(exchange(POST_QUANTUM)), (POST_QUANTUM, cipher::AES_256_GCM, false, said.clone()));
    assert_eq!(with(exchange(kex::CURVE25519)), (kex::CURVE25519, cipher::AES_256_GCM, false, said));
    let weak = gateway.block_on(negotiated(&gateway, exchange(kex::DH_G14_SHA1)));
    assert!(weak.is_err(), "{weak:?}");
}

/// A gateway that logs in to a double by password.
fn before(double: &Double) -> Gateway {
    let mut setup = Setup::new(ALL);
    setup.content = false;
    setup.target = double.target.clone();
    setup.credential = UpstreamCredential::Password {
        username: "deploy".to_owned(),
        password: Secret::new("opens it".to_owned()),
    };
    setup.start()
}

#[test]
fn a_target_that_knows_it_gets_a_post_quantum_key_exchange() {
    // One that takes nothing else is reached by it or not at all.
    let double = Double::start("opens it", exchange(POST_QUANTUM));
    let done = before(&double).ssh(&["echo in"]);
    assert_eq!(done.stdout, "from the double\n", "{}", done.stderr);
    let double = Double::start("opens it", exchange(kex::DH_G14_SHA256));
    let done = before(&double).ssh(&["echo in"]);
    assert!(done.stderr.contains("denied: target `web1` is not available"), "{done:?}");
}

/// What this machine's own client and server would choose of what the gateway offers.
fn installed() -> &'static str {
    let known = run(Command::new("ssh").args(["-Q", "kex"]), "", DEADLINE).unwrap().stdout;
    if known.lines().any(|name| name == POST_QUANTUM.as_ref()) {
        "mlkem768x25519-sha256"
    } else {
        "curve25519-sha256"
    }
}

#[test]
fn a_stock_client_gets_the_fastest_cipher_and_one_that_does_not_know_it_another() {
    let gateway = gateway(ALL);
    let ssh = |ciphers: &[&str]| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-vv").args(ciphers.iter().flat_map(|cipher| ["-c", *cipher]));
        let options = client_options(keys().agent.private(), gateway.address.port());
        ssh.args(options.iter().map(|option| option.replace("LogLevel=ERROR", "LogLevel=DEBUG2")));
        let done = run(ssh.args(["agent-7@127.0.0.1", "echo in"]), "", DEADLINE).unwrap();
        assert_eq!(done.stdout, "in\n", "{}", done.stderr);
        done.stderr
    };
    let cipher = |name: &str| format!("kex: server->client cipher: {name} MAC: ");
    let said = ssh(&[]);
    assert!(said.contains(&format!("kex: algorithm: {}\r\n", installed())), "{said}");
    assert!(said.contains(&cipher("aes256-gcm@openssh.com")), "{said}");
    for only in ["aes256-ctr", "chacha20-poly1305@openssh.com"] {
        let said = ssh(&[only]);
        assert!(said.contains(&cipher(only)), "{only}: {said}");
    }
}

/// A gateway before a server of its own.
fn before_host(host: &Sshd) -> Gateway {
    let mut setup = Setup::new(ALL);
    setup.content = false;
    setup.target = Target::new("web1", "127.0.0.1", host.port()).host_key(public(host.host_key()));
    setup.credential = UpstreamCredential::Key {
        username: host.user().to_owned(),
        key: Secret::new(host.client_key().pem().unwrap()),
        certificate: None,
    };
    setup.start()
}

#[test]
fn a_real_target_gets_the_best_that_both_know() {
    let host = Sshd::builder().setting("LogLevel DEBUG1").start().unwrap();
    let done = before_host(&host).ssh(&["echo in"]);
    assert_eq!(done.stdout, "in\n", "{}", done.stderr);
    for chosen in [
        &format!("kex: algorithm: {}", installed()),
        "kex: client->server cipher: aes256-gcm@openssh.com",
        "kex: server->client cipher: aes256-gcm@openssh.com",
    ] {
        assert!(host.log().contains(chosen), "{chosen}: {}", host.log());
    }
}

#[test]
fn a_target_that_knows_weak_algorithms_only_is_refused() {
    let weak: [&[&str]; 4] = [
        &["KexAlgorithms diffie-hellman-group14-sha1"],
        &["KexAlgorithms ecdh-sha2-nistp256"],
        &["Ciphers aes128-cbc"],
        &["Ciphers aes256-ctr", "MACs hmac-sha1,hmac-sha2-256"],
    ];
    for settings in weak {
        let start = settings.iter().fold(Sshd::builder(), |builder, setting| builder.setting(*setting));
        let host = start.start().unwrap();
        // The server itself is well: whoever takes what is weak gets in.
        let mut ssh = Command::new("ssh");
        ssh.args(settings.iter().flat_map(|setting| ["-o", *setting]));
        ssh.args(client_options(host.client_key().private(), host.port()));
        let direct = run(ssh.arg(format!("{}@127.0.0.1", host.user())).arg("echo in"), "", DEADLINE).unwrap();
        assert_eq!(direct.stdout, "in\n", "{settings:?}: {}", direct.stderr);
        let logins = |host: &Sshd| host.log().matches("Accepted publickey").count();
        assert_eq!(logins(&host), 1);
        let done = before_host(&host).ssh(&["echo in"]);
        assert!(done.stdout.is_empty(), "{settings:?}: {done:?}");
        assert!(
            done.stderr.contains("denied: target `web1` is not available"),
            "{settings:?}: {}",
            done.stderr
        );
        assert_eq!(logins(&host), 1, "{settings:?}");
    }
}

#[test]
fn a_password_opens_the_target_and_a_wrong_one_is_refused_in_words() {
    let right = Double::start("opens it", Preferred::DEFAULT);
    let gateway = before(&right);
    assert_eq!(gateway.ssh(&["echo in"]).stdout, "from the double\n");
    let wrong = Double::start("another", Preferred::DEFAULT);
    let done = before(&wrong).ssh(&["echo in"]);
    assert!(done.stderr.contains("denied: target `web1` is not available"), "{done:?}");
    assert!(!done.stderr.contains("opens it") && done.stdout.is_empty(), "{done:?}");
    // Whoever sets the gateway up is told more.
    let credential = |password: &str| UpstreamCredential::Password {
        username: "deploy".to_owned(),
        password: Secret::new(password.to_owned()),
    };
    let check = |password| gateway.block_on(right.target.check(&credential(password)));
    assert_eq!(check("opens it"), Ok(()));
    let words = check("opens nothing").unwrap_err().to_string();
    assert_eq!(
        words,
        "target `web1` cannot be used: the target does not accept the gateway's credential for `deploy`"
    );
}
