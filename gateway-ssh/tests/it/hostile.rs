//! A target that turns on its clients: what it opens by itself is refused.

use std::sync::Arc;

use gateway_core::credentials::UpstreamCredential;
use gateway_core::identity::SshPublicKey;
use gateway_ssh::Target;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, Error};
use tokio::net::TcpListener;

use crate::support::{ALL, Setup};

struct Host;

impl Handler for Host {
    type Error = Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reply.accept().await;
        Ok(())
    }

    /// Opens one channel of every kind, then tells how many were taken.
    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Error> {
        session.channel_success(id)?;
        let handle = session.handle();
        tokio::spawn(async move {
            let opened = [
                handle.channel_open_session().await.is_ok(),
                handle.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_ok(),
                handle.channel_open_forwarded_streamlocal("/run/x").await.is_ok(),
                handle.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_ok(),
                handle.channel_open_direct_streamlocal("/run/x").await.is_ok(),
                handle.channel_open_x11("127.0.0.1", 1).await.is_ok(),
                handle.channel_open_agent().await.is_ok(),
            ];
            let taken = opened.iter().filter(|opened| **opened).count();
            let _ = handle.data(id, format!("taken: {taken} of {}\n", opened.len())).await;
            let _ = handle.exit_status_request(id, 0).await;
            let _ = handle.eof(id).await;
            let _ = handle.close(id).await;
        });
        Ok(())
    }
}

async fn host(listener: TcpListener, key: PrivateKey) {
    let config = Arc::new(Config { keys: vec![key], ..Config::default() });
    while let Ok((tcp, _)) = listener.accept().await {
        if let Ok(running) = run_stream(Arc::clone(&config), tcp, Host).await {
            tokio::spawn(running);
        }
    }
}

#[test]
fn channels_that_the_target_opens_are_refused() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let public = SshPublicKey::from_line(&key.public_key().to_openssh().unwrap()).unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(host(listener, key));
    let mut setup = Setup::new(ALL);
    setup.target = Target::new("web1", "127.0.0.1", port).host_key(public);
    setup.credential = UpstreamCredential::None { username: "deploy".to_owned() };
    let done = setup.start().ssh(&["echo x"]);
    assert_eq!(done.stdout, "taken: 0 of 7\n", "{}", done.stderr);
}
