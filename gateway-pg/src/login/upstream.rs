//! The gateway's login at the real server, with the credential the agent never sees.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use gateway_core::credentials::UpstreamCredential;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::downstream::ALPN;
use crate::analysis::LexSettings;
use crate::codec::startup::{PROTOCOL_3_0, PROTOCOL_3_2};
use crate::codec::{Frame, Reader, backend};
use crate::io::{BoxedStream, read_frame};

/// Longest message of a server during login, in bytes.
const MAX_LOGIN_MESSAGE_BYTES: usize = 64 * 1024;

/// When and how TLS is used upstream; the names and meanings of libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it; not protected against a network that says no.
    Prefer,
    /// Always, without looking at the certificate.
    Require,
    /// Always, with a certificate from a trusted CA.
    VerifyCa,
    /// Always, with a certificate from a trusted CA for this host name.
    #[default]
    VerifyFull,
}

/// How TLS towards a server begins; the names and meanings of libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SslNegotiation {
    /// The server is asked first. Every server understands that.
    #[default]
    Postgres,
    /// At once, with the application protocol `postgresql`: PostgreSQL 17 and later. Needs [`SslMode::Require`] or stricter.
    Direct,
}

/// The newest version of the protocol that a server is asked for; an older one that it offers instead is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// Every server and pooler understands it.
    #[default]
    V3_0,
    /// PostgreSQL 18 and later: cancel keys that cannot be guessed.
    V3_2,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host name or address, and port.
    Tcp(String, u16),
    /// A Unix-domain socket (the socket file itself).
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A server and how to reach it.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// Where it is.
    pub address: Address,
    /// When TLS is used.
    pub ssl_mode: SslMode,
    /// How TLS begins.
    pub ssl_negotiation: SslNegotiation,
    /// The newest version asked for.
    pub protocol: ProtocolVersion,
    /// The TLS configuration for `ssl_mode` (see [`crate::tls::client_config`]); `None` only with [`SslMode::Disable`].
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why a login at the server failed. The text is for the operator's log, never for the agent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UpstreamError {
    /// Network or TLS.
    #[error("cannot reach the server at {0}: {1}")]
    Unreachable(String, #[source] io::Error),
    /// The server broke the protocol or asked for something unsafe.
    #[error("the server's login is not acceptable: {0}")]
    Unacceptable(String),
    /// The server said no.
    #[error("the server refused the login: {0}")]
    Refused(String),
}

/// A logged-in connection.
pub(crate) struct Connected {
    pub(crate) stream: BoxedStream,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) cancel: CancelKey,
    pub(crate) lexing: LexSettings,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

/// What cancels a query of this connection at the server. Never leaves the gateway.
#[derive(Clone)]
pub(crate) struct CancelKey {
    upstream: Upstream,
    pid: u32,
    key: Vec<u8>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").field("upstream", &self.upstream.address).finish_non_exhaustive()
    }
}

impl CancelKey {
    /// The server's process id of the session; 0 if it gave none.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks the server to cancel what runs, over a connection protected like the session's own.
    pub(crate) async fn cancel(&self) -> Result<(), UpstreamError> {
        let (mut stream, _) = self.upstream.connect().await?;
        let mut out = BytesMut::new();
        out.put_u32(u32::try_from(self.key.len()).unwrap_or(4) + 12);
        out.put_u32(1234 << 16 | 5678);
        out.put_u32(self.pid);
        out.put_slice(&self.key);
        let sent = async {
            stream.write_all(&out).await?;
            stream.flush().await?;
            // The server closes the connection once the signal is sent.
            stream.read(&mut [0]).await
        };
        sent.await.map_err(|e| self.upstream.unreachable(e)).map(|_| ())
    }
}

impl Upstream {
    fn unreachable(&self, error: io::Error) -> UpstreamError {
        UpstreamError::Unreachable(self.address.to_string(), error)
    }

    /// Connects, over TLS as the mode says; with TLS also gives the server certificate's hash for channel binding.
    async fn connect(&self) -> Result<(BoxedStream, Option<Vec<u8>>), UpstreamError> {
        match &self.address {
            // TLS is not used over Unix-domain sockets, as in libpq.
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| self.unreachable(e))?;
                Ok((Box::new(stream), None))
            }
            Address::Tcp(host, port) => {
                let tcp =
                    TcpStream::connect((host.as_str(), *port)).await.map_err(|e| self.unreachable(e))?;
                tcp.set_nodelay(true).map_err(|e| self.unreachable(e))?;
                self.protect(tcp, host).await
            }
        }
    }

    async fn protect(
        &self,
        mut tcp: TcpStream,
        host: &str,
    ) -> Result<(BoxedStream, Option<Vec<u8>>), UpstreamError> {
        if self.ssl_mode == SslMode::Disable {
            return Ok((Box::new(tcp), None));
        }
        let direct = self.ssl_negotiation == SslNegotiation::Direct;
        if direct && self.ssl_mode == SslMode::Prefer {
            return Err(unacceptable(&"direct TLS cannot be done without; use sslmode require or stricter"));
        }
        if !direct && !self.asks_for_tls(&mut tcp).await? {
            return Ok((Box::new(tcp), None));
        }
        let config =
            self.tls.clone().ok_or_else(|| UpstreamError::Unacceptable("no TLS configuration".to_owned()))?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|e| UpstreamError::Unacceptable(e.to_string()))?;
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| self.unreachable(e))?;
        let connection = stream.get_ref().1;
        // PostgreSQL documentation, "SSL Session Encryption": direct TLS must agree on the protocol, or else it is another service's.
        if direct && connection.alpn_protocol() != Some(ALPN) {
            return Err(unacceptable(&"it does not confirm the application protocol of direct TLS"));
        }
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let binding = leaf.and_then(|c| crate::tls::server_end_point(c));
        Ok((Box::new(stream), binding))
    }

    /// Sends SSLRequest; true if TLS is to begin, false if it may be done without.
    async fn asks_for_tls(&self, tcp: &mut TcpStream) -> Result<bool, UpstreamError> {
        let mut request = BytesMut::new();
        request.put_u32(8);
        request.put_u32(1234 << 16 | 5679);
        let mut answer = [0];
        let asked = async {
            tcp.write_all(&request).await?;
            // Exactly one byte: anything after it was sent before TLS and would be an injection (CVE-2021-23222).
            tcp.read_exact(&mut answer).await
        };
        asked.await.map_err(|e| self.unreachable(e))?;
        match (answer, self.ssl_mode) {
            ([b'S'], _) => Ok(true),
            ([b'N'], SslMode::Prefer) => Ok(false),
            ([b'N'], _) => Err(unacceptable(&"it does not speak TLS, which sslmode asks for")),
            _ => Err(unacceptable(&"it did not answer the SSLRequest")),
        }
    }

    /// Logs in with the credential, with these settings.
    ///
    /// # Errors
    /// The server cannot be reached, is not acceptable, or says no.
    pub(crate) async fn log_in(
        &self,
        credential: &UpstreamCredential,
        database: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<Connected, UpstreamError> {
        let (stream, binding) = self.connect().await?;
        let encrypted =
            binding.is_some() || (self.ssl_mode != SslMode::Disable && self.ssl_mode != SslMode::Prefer);
        let mut login = Login { stream, binding, encrypted, local: matches!(self.address, Address::Unix(_)) };
        login
            .send(&startup(self.protocol, credential.username(), database, settings))
            .await
            .map_err(|e| self.unreachable(e))?;
        login.authenticate(credential).await?;
        login.parameters(self).await
    }
}

/// The StartupMessage, built from what is allowed and nothing the client wrote itself.
fn startup(
    protocol: ProtocolVersion,
    user: &str,
    database: &str,
    settings: &BTreeMap<String, String>,
) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u32(match protocol {
        ProtocolVersion::V3_0 => PROTOCOL_3_0,
        ProtocolVersion::V3_2 => PROTOCOL_3_2,
    });
    let fixed = [("user", user), ("database", database), ("client_encoding", "UTF8")];
    let settings = settings.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    for (name, value) in
        fixed.into_iter().chain(settings).filter(|(n, v)| !n.contains('\0') && !v.contains('\0'))
    {
        body.put_slice(name.as_bytes());
        body.put_u8(0);
        body.put_slice(value.as_bytes());
        body.put_u8(0);
    }
    body.put_u8(0);
    let mut packet = BytesMut::new();
    packet.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    packet.put_slice(&body);
    packet
}

struct Login {
    stream: BoxedStream,
    binding: Option<Vec<u8>>,
    encrypted: bool,
    local: bool,
}

impl Login {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn send_password(&mut self, payload: &[u8]) -> Result<(), UpstreamError> {
        let mut out = BytesMut::new();
        out.put_u8(b'p');
        out.put_u32(u32::try_from(payload.len() + 4).unwrap_or(u32::MAX));
        out.put_slice(payload);
        self.send(&out).await.map_err(|e| unacceptable(&e))
    }

    async fn receive(&mut self) -> Result<Frame, UpstreamError> {
        let frame =
            read_frame(&mut self.stream, MAX_LOGIN_MESSAGE_BYTES).await.map_err(|e| unacceptable(&e))?;
        if frame.tag() != b'E' {
            return Ok(frame);
        }
        let field = |kind| backend::error_field(frame.body(), kind).unwrap_or_default();
        Err(UpstreamError::Refused(format!("{} ({})", field(b'M'), field(b'C'))))
    }

    async fn authenticate(&mut self, credential: &UpstreamCredential) -> Result<(), UpstreamError> {
        let mut negotiated = false;
        loop {
            let frame = self.receive().await?;
            if frame.tag() == b'v' && !std::mem::replace(&mut negotiated, true) {
                older_version(frame.body())?;
                continue;
            }
            if frame.tag() != b'R' {
                return Err(unacceptable(&"a message before the login is over"));
            }
            let mut reader = Reader::new(frame.body(), "Authentication");
            match reader.u32().map_err(|e| unacceptable(&e))? {
                0 => return Ok(()),
                3 => self.cleartext(credential).await?,
                5 => self.md5(credential, reader.rest()).await?,
                10 => return self.scram(credential, reader.rest()).await,
                other => {
                    return Err(unacceptable(&format_args!(
                        "authentication method {other} is not supported"
                    )));
                }
            }
        }
    }

    /// A cleartext password goes over TLS or a Unix socket only.
    async fn cleartext(&mut self, credential: &UpstreamCredential) -> Result<(), UpstreamError> {
        if !self.encrypted && !self.local {
            return Err(unacceptable(
                &"it asks for the password in the clear without TLS; use scram-sha-256 or TLS",
            ));
        }
        let payload = [password(credential)?.as_bytes(), b"\0"].concat();
        self.send_password(&payload).await
    }

    async fn md5(&mut self, credential: &UpstreamCredential, salt: &[u8]) -> Result<(), UpstreamError> {
        let salt: [u8; 4] = salt.try_into().map_err(|_| unacceptable(&"a malformed MD5 salt"))?;
        let hash = md5_hash(credential.username().as_bytes(), password(credential)?.as_bytes(), salt);
        self.send_password(&[hash.as_bytes(), b"\0"].concat()).await
    }

    /// SCRAM-SHA-256, bound to the TLS channel whenever there is one (RFC 5802 section 6, RFC 5929 section 4).
    async fn scram(
        &mut self,
        credential: &UpstreamCredential,
        mechanisms: &[u8],
    ) -> Result<(), UpstreamError> {
        let offered: Vec<_> = mechanisms.split(|b| *b == 0).collect();
        let offers = |name: &str| offered.contains(&name.as_bytes());
        let (mechanism, binding) = match self.binding.take() {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash))
            }
            // We could bind and say so: a server that does support binding then detects the downgrade.
            Some(_) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            _ => return Err(unacceptable(&"it offers no SCRAM mechanism known here")),
        };
        let mut scram = ScramSha256::new(password(credential)?.as_bytes(), binding);
        let mut initial = BytesMut::new();
        initial.put_slice(mechanism.as_bytes());
        initial.put_u8(0);
        initial.put_u32(u32::try_from(scram.message().len()).unwrap_or(u32::MAX));
        initial.put_slice(scram.message());
        self.send_password(&initial).await?;
        let challenge = self.sasl(11).await?;
        scram.update(&challenge).map_err(|e| unacceptable(&e))?;
        self.send_password(scram.message()).await?;
        let last = self.sasl(12).await?;
        // The server proves that it knows the password too.
        scram.finish(&last).map_err(|e| unacceptable(&e))?;
        self.sasl(0).await.map(|_| ())
    }

    async fn sasl(&mut self, expected: u32) -> Result<Bytes, UpstreamError> {
        let frame = self.receive().await?;
        let mut reader = Reader::new(frame.body(), "Authentication");
        let code = reader.u32().map_err(|e| unacceptable(&e))?;
        if frame.tag() == b'R' && code == expected {
            Ok(Bytes::copy_from_slice(reader.rest()))
        } else {
            Err(unacceptable(&"an unexpected message during SCRAM"))
        }
    }

    /// Everything after the login up to the first ReadyForQuery.
    async fn parameters(mut self, upstream: &Upstream) -> Result<Connected, UpstreamError> {
        let mut parameters = BTreeMap::new();
        let mut cancel = CancelKey { upstream: upstream.clone(), pid: 0, key: vec![0; 4] };
        loop {
            let frame = self.receive().await?;
            match frame.tag() {
                b'S' => {
                    let (name, value) =
                        backend::parameter_status(frame.body()).map_err(|e| unacceptable(&e))?;
                    parameters.insert(name.to_owned(), value.to_owned());
                }
                b'K' => {
                    let (pid, key) = backend::key_data(frame.body()).map_err(|e| unacceptable(&e))?;
                    (cancel.pid, cancel.key) = (pid, key.to_vec());
                }
                b'N' => {}
                b'Z' => break,
                _ => return Err(unacceptable(&"an unexpected message after the login")),
            }
        }
        let lexing = lexing(&parameters)?;
        Ok(Connected { stream: self.stream, parameters, cancel, lexing })
    }
}

/// NegotiateProtocolVersion, first of all answers: the newest minor version the server speaks. Nothing said later depends on it but the
/// length of the cancel key. No options were asked for, so there is none it may not know.
fn older_version(body: &[u8]) -> Result<(), UpstreamError> {
    let mut reader = Reader::new(body, "NegotiateProtocolVersion");
    let version = reader.u32().map_err(|e| unacceptable(&e))?;
    let unknown = reader.u32().map_err(|e| unacceptable(&e))?;
    reader.finish().map_err(|e| unacceptable(&e))?;
    // PostgreSQL up to 17 tells the minor version with the major one, as the documentation says; it knows 3.0.
    match (version, unknown) {
        (0 | PROTOCOL_3_0, 0) => Ok(()),
        _ => Err(unacceptable(&format_args!("it negotiates protocol version {version:#x}"))),
    }
}

/// The server must read text the way it is judged.
fn lexing(parameters: &BTreeMap<String, String>) -> Result<LexSettings, UpstreamError> {
    let is = |name: &str, wanted: &str| parameters.get(name).is_some_and(|v| v.eq_ignore_ascii_case(wanted));
    if !is("client_encoding", "UTF8") {
        return Err(unacceptable(&"its client_encoding is not UTF8"));
    }
    if !is("standard_conforming_strings", "on") {
        return Err(unacceptable(
            &"its standard_conforming_strings is off; turn it on for the gateway's role",
        ));
    }
    let version = parameters.get("server_version").map_or(0, |v| version_number(v));
    let other_encoding = parameters.get("server_encoding").is_none_or(|name| name != "UTF8");
    Ok(LexSettings { server_version_num: version, other_encoding, ..LexSettings::default() })
}

/// `server_version_num` from `server_version`: `15.18 (Debian ...)` is 150018.
fn version_number(text: &str) -> u32 {
    let digits =
        |t: &str| t.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().unwrap_or(0);
    let (major, minor) = text.split_once('.').unwrap_or((text, ""));
    digits(major).saturating_mul(10_000).saturating_add(digits(minor))
}

fn password(credential: &UpstreamCredential) -> Result<&str, UpstreamError> {
    match credential {
        UpstreamCredential::Password { password, .. } => Ok(password.expose()),
        _ => Err(unacceptable(&"it asks for a password and none is configured")),
    }
}

fn unacceptable(cause: &dyn std::fmt::Display) -> UpstreamError {
    UpstreamError::Unacceptable(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_differently_in_other_encodings() {
        let of = |encoding: &str| {
            let known = [("client_encoding", "UTF8"), ("standard_conforming_strings", "on")];
            let known = known.into_iter().chain([("server_encoding", encoding)]);
            lexing(&known.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()).unwrap().other_encoding
        };
        assert!(
            ["LATIN1", "WIN1252", "SQL_ASCII", "EUC_TW", "MULE_INTERNAL", "", "utf-9"].into_iter().all(of)
        );
        assert!(!of("UTF8"));
    }

    #[test]
    fn versions() {
        assert_eq!(version_number("15.18 (Debian 15.18-0+deb12u1)"), 150_018);
        assert_eq!(version_number("17beta1"), 170_000);
    }
}
