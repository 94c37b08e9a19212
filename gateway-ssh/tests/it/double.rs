//! A small SSH server, for what the real one cannot be set up to be without an account of its own.

use std::sync::Arc;

use gateway_core::identity::SshPublicKey;
use gateway_ssh::Target;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, Error, Preferred};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Lets in whoever has the password and answers each command with one line.
#[derive(Clone)]
struct Host {
    password: &'static str,
}

impl Handler for Host {
    type Error = Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        Ok(if (user, password) == ("deploy", self.password) { Auth::Accept } else { Auth::reject() })
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

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Error> {
        session.channel_success(id)?;
        session.data(id, &b"from the double\n"[..])?;
        session.exit_status_request(id, 0)?;
        session.eof(id)?;
        session.close(id)
    }
}

/// A running double; its only account is `deploy`. Ends when dropped.
pub struct Double {
    pub target: Target,
    _runtime: Runtime,
}

impl Double {
    pub fn start(password: &'static str, preferred: Preferred) -> Self {
        let runtime = Runtime::new().unwrap();
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
        let public = SshPublicKey::from_line(&key.public_key().to_openssh().unwrap()).unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(Config { keys: vec![key], preferred, ..Config::default() });
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (config, host) = (Arc::clone(&config), Host { password });
                tokio::spawn(async move {
                    if let Ok(running) = run_stream(config, tcp, host).await {
                        let _ = running.await;
                    }
                });
            }
        });
        Self { target: Target::new("web1", "127.0.0.1", port).host_key(public), _runtime: runtime }
    }
}
