//! Connections to the target: logged in with the gateway's credential, to a host whose key is pinned.
//!
//! One channel at a time uses a connection, so that a channel nobody reads from stops its own connection and no other. When it
//! ends in good order the next channel takes the connection over; only channels at the same time need several.

pub(crate) mod door;
mod host;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use gateway_core::credentials::UpstreamCredential;
use russh::client::{self, Handle};
use russh::keys::{Certificate, PrivateKey, PrivateKeyWithHashAlg};
use russh::{Channel, SshId};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::door::{Door, Expected, Knock};
use self::host::{HostCheck, Refusal};
use crate::ahead::ReadAhead;
use crate::algorithms::{PACKET_BYTES, WINDOW_BYTES, preferred_of};
use crate::greeting::IDENTIFICATION;
use crate::target::Target;

/// How long connecting and logging in may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How long opening a channel may take.
const OPEN: Duration = Duration::from_secs(20);
/// Messages of a channel that wait to be taken before its connection is read no further; each holds at most a packet. 2 MiB.
const WAITING_MESSAGES: usize = 64;
/// Connections kept for the next channel of a session.
const MAX_IDLE: usize = 2;
/// A rotten connection is found this fast, in the middle of a quiet command too.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why the target cannot be used. The text goes to the log, never to the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("not answered within {0:?}")]
    Slow(Duration),
    #[error("{0}")]
    HostKey(Refusal),
    #[error("{0}")]
    Protocol(#[from] russh::Error),
    #[error("the target does not accept the gateway's credential for `{0}`")]
    Login(String),
    #[error("the credential cannot be used: {0}")]
    Credential(String),
}

/// What a channel is opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose<'a> {
    Session,
    /// A connection from the target to elsewhere (RFC 4254 section 7.2).
    DirectTcpip(&'a str, u32),
    /// A connection to a socket of the target (OpenSSH PROTOCOL, section 2.4).
    DirectStreamlocal(&'a str),
}

impl Purpose<'_> {
    async fn open(self, connection: &Connection) -> Result<Channel<client::Msg>, russh::Error> {
        match self {
            Self::Session => connection.handle.channel_open_session().await,
            Self::DirectTcpip(host, port) => {
                connection.handle.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await
            }
            Self::DirectStreamlocal(path) => connection.handle.channel_open_direct_streamlocal(path).await,
        }
    }
}

/// The connections of one session.
pub(crate) struct Upstreams {
    target: Arc<Target>,
    credential: Login,
    idle: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams").field("target", &self.target.name).finish_non_exhaustive()
    }
}

impl Upstreams {
    /// Prepares the credential and makes the first connection.
    pub(crate) async fn connect(
        target: Arc<Target>,
        credential: &UpstreamCredential,
    ) -> Result<Self, UpstreamError> {
        let upstreams = Self { target, credential: Login::new(credential)?, idle: Mutex::default() };
        let first = upstreams.log_in().await?;
        upstreams.keep(Some(first));
        Ok(upstreams)
    }

    /// The host that all connections lead to.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// A channel on a connection that no other channel uses.
    pub(crate) async fn open(&self, purpose: Purpose<'_>) -> Result<Leased, UpstreamError> {
        while let Some(connection) = self.take() {
            if let Ok(Ok(channel)) = timeout(OPEN, purpose.open(&connection)).await {
                return Ok(Leased { connection: Some(connection), channel });
            }
        }
        let connection = self.log_in().await?;
        let opened = timeout(OPEN, purpose.open(&connection)).await;
        let channel = opened.map_err(|_| UpstreamError::Slow(OPEN))??;
        Ok(Leased { connection: Some(connection), channel })
    }

    /// Has the target listen for the client, on a connection of its own. Gives the port it chose, if it was to choose one.
    pub(crate) async fn listen(&self, expected: &Expected) -> Result<Listening, UpstreamError> {
        let connection = match self.take() {
            Some(connection) => connection,
            None => self.log_in().await?,
        };
        let knocks = connection.door.expect(vec![expected.clone()]);
        let port = match expected {
            Expected::Tcp(address, port) => connection.handle.tcpip_forward(address, *port).await?,
            Expected::Socket(path) => connection.handle.streamlocal_forward(path).await.map(|()| 0)?,
            Expected::Agent | Expected::X11 => 0,
        };
        if port > u32::from(u16::MAX) || matches!(expected, Expected::Tcp(_, 0) if port == 0) {
            return Err(UpstreamError::Protocol(russh::Error::Inconsistent));
        }
        connection.door.choose(port);
        Ok(Listening { connection, knocks, port })
    }

    /// Takes back a connection whose channel was closed by both sides, unless the target may still open channels on it.
    pub(crate) fn keep(&self, connection: Option<Connection>) {
        let Some(connection) = connection.filter(|connection| !connection.door.was_opened()) else { return };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !connection.is_closed() {
            idle.push(connection);
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|connection| !connection.is_closed())
    }

    async fn log_in(&self) -> Result<Connection, UpstreamError> {
        let log_in = async {
            let address = (self.target.host.as_str(), self.target.port);
            let stream = TcpStream::connect(address).await.map_err(UpstreamError::Connect)?;
            stream.set_nodelay(true).map_err(UpstreamError::Connect)?;
            let door = Door::default();
            let (check, verdict) = HostCheck::new(&self.target, SystemTime::now(), door.clone());
            let connected =
                client::connect_stream(Arc::new(self.config()), ReadAhead::new(stream), check).await;
            let mut handle = connected.map_err(|error| match verdict.take() {
                Some(refusal) => UpstreamError::HostKey(refusal),
                None => UpstreamError::Protocol(error),
            })?;
            self.credential.present(&mut handle).await?;
            Ok(Connection { handle, door })
        };
        timeout(CONNECT, log_in).await.map_err(|_| UpstreamError::Slow(CONNECT))?
    }

    fn config(&self) -> client::Config {
        client::Config {
            client_id: SshId::Standard(IDENTIFICATION.into()),
            window_size: WINDOW_BYTES,
            maximum_packet_size: PACKET_BYTES,
            channel_buffer_size: WAITING_MESSAGES,
            preferred: preferred_of(
                &self.target.host_keys.keys,
                !self.target.host_keys.authorities.is_empty(),
            ),
            keepalive_interval: Some(KEEPALIVE),
            nodelay: true,
            ..client::Config::default()
        }
    }
}

/// A logged-in connection, and what the target may open on it.
pub(crate) struct Connection {
    handle: Handle<HostCheck>,
    pub(crate) door: Door,
}

impl Connection {
    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Waits until it breaks or is closed.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.handle).await;
    }
}

/// Something the target listens on for the client. Dropping it ends that.
pub(crate) struct Listening {
    pub(crate) connection: Connection,
    pub(crate) knocks: mpsc::Receiver<Knock>,
    pub(crate) port: u32,
}

/// A channel and the connection it has for itself. Dropping it closes both.
pub(crate) struct Leased {
    /// `None` for channels that the target opened.
    pub(crate) connection: Option<Connection>,
    pub(crate) channel: Channel<client::Msg>,
}

/// The credential, parsed once.
enum Login {
    None(String),
    Password(String, gateway_core::credentials::Secret<String>),
    Key(String, Arc<PrivateKey>),
    Certificate(String, Arc<PrivateKey>, Box<Certificate>),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(***)")
    }
}

impl Login {
    fn new(credential: &UpstreamCredential) -> Result<Self, UpstreamError> {
        let user = credential.username().to_owned();
        match credential {
            UpstreamCredential::None { .. } => Ok(Self::None(user)),
            UpstreamCredential::Password { password, .. } => Ok(Self::Password(user, password.clone())),
            UpstreamCredential::Key { key, certificate, .. } => {
                let key = private_key(key.expose())?;
                let Some(line) = certificate else { return Ok(Self::Key(user, key)) };
                let certificate = Certificate::from_openssh(line)
                    .map_err(|e| UpstreamError::Credential(format!("its certificate: {e}")))?;
                Ok(Self::Certificate(user, key, Box::new(certificate)))
            }
            _ => Err(UpstreamError::Credential("SSH needs a password or an SSH key".to_owned())),
        }
    }

    async fn present(&self, handle: &mut Handle<HostCheck>) -> Result<(), UpstreamError> {
        let (user, result) = match self {
            Self::None(user) => (user, handle.authenticate_none(user).await?),
            Self::Password(user, password) => {
                (user, handle.authenticate_password(user, password.expose()).await?)
            }
            Self::Key(user, key) => {
                // `None` would be SHA-1 for an RSA key.
                let hash = handle.best_supported_rsa_hash().await?.flatten();
                let hash = hash.or(Some(russh::keys::HashAlg::Sha512));
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                (user, handle.authenticate_publickey(user, key).await?)
            }
            Self::Certificate(user, key, certificate) => {
                let certificate = (**certificate).clone();
                (user, handle.authenticate_openssh_cert(user, Arc::clone(key), certificate).await?)
            }
        };
        if result.success() { Ok(()) } else { Err(UpstreamError::Login(user.clone())) }
    }
}

fn private_key(pem: &str) -> Result<Arc<PrivateKey>, UpstreamError> {
    let key = russh::keys::decode_secret_key(pem, None);
    // The error may quote the key: it is not passed on.
    key.map(Arc::new).map_err(|_| {
        UpstreamError::Credential("the private key cannot be read; give it unencrypted, as PEM".to_owned())
    })
}
