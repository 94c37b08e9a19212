//! The client's side of a login: TLS, protocol version, identity.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::credentials::Secret;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::{Presented, VerifiedPrincipal};
use gateway_core::pipeline::Pipeline;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Wishes;
use crate::codec::startup::{self, Startup};
use crate::codec::{Reader, encode};
use crate::denial;
use crate::io::{BoxedStream, invalid, read_frame, read_startup};

/// Longest password or SASL message, in bytes: a token with many groups fits.
const MAX_TOKEN_MESSAGE_BYTES: usize = 64 * 1024;

/// The ALPN name of the protocol (PostgreSQL documentation, "SSL Session Encryption").
pub(crate) const ALPN: &[u8] = b"postgresql";

/// How clients hand over their token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenLogin {
    /// As the password (every client can).
    #[default]
    Password,
    /// SASL OAUTHBEARER (RFC 7628; libpq 18 and later).
    OauthBearer,
}

/// What a listener accepts.
#[derive(Clone, Debug)]
pub(crate) struct Acceptance {
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Tokens may cross a connection without TLS if both ends are on this machine.
    pub(crate) plaintext_on_loopback: bool,
    pub(crate) tokens: TokenLogin,
}

/// A first packet that was not a session.
pub(crate) enum Arrival {
    Session(Box<Arrived>),
    /// A cancel request, and the connection to close once it has been passed on.
    Cancel {
        pid: u32,
        key: Vec<u8>,
        stream: BoxedStream,
    },
}

/// A client that wants a session, not yet identified.
pub(crate) struct Arrived {
    pub(crate) stream: BoxedStream,
    pub(crate) version: u32,
    pub(crate) wishes: Result<Wishes, Denial>,
    certificates: Vec<Bytes>,
}

/// Brings a connection to its StartupMessage, over TLS if the client asks for it.
pub(crate) async fn arrive(mut tcp: TcpStream, acceptance: &Acceptance) -> io::Result<Arrival> {
    let mut first = [0];
    tcp.peek(&mut first).await?;
    // Direct TLS: a TLS record of type handshake instead of a packet length (whose first byte is 0).
    if first == [0x16] {
        return arrive_tls(tcp, acceptance, true).await;
    }
    let mut asked_gss = false;
    loop {
        let packet = read_startup(&mut tcp).await?;
        match startup::decode(&packet).map_err(invalid)? {
            Startup::Ssl if acceptance.tls.is_some() => {
                tcp.write_all(b"S").await?;
                return arrive_tls(tcp, acceptance, false).await;
            }
            Startup::GssEnc if !asked_gss => {
                asked_gss = true;
                tcp.write_all(b"N").await?;
            }
            Startup::Ssl => tcp.write_all(b"N").await?,
            Startup::GssEnc => return Err(invalid("a second GSSENCRequest")),
            Startup::Cancel { pid, key } => return Ok(Arrival::Cancel { pid, key, stream: Box::new(tcp) }),
            Startup::Session { version, parameters } => {
                let local = tcp.peer_addr()?.ip().is_loopback() && tcp.local_addr()?.ip().is_loopback();
                let wishes = if local && acceptance.plaintext_on_loopback {
                    Wishes::new(parameters)
                } else {
                    Err(needs_tls())
                };
                let arrived = Arrived { stream: Box::new(tcp), version, wishes, certificates: Vec::new() };
                return Ok(Arrival::Session(Box::new(arrived)));
            }
        }
    }
}

fn needs_tls() -> Denial {
    Denial::new(DenialCode::Unauthenticated, "a token may not cross this connection without TLS")
        .with_hint("connect with sslmode=require or stronger")
}

async fn arrive_tls(tcp: TcpStream, acceptance: &Acceptance, direct: bool) -> io::Result<Arrival> {
    let config = acceptance.tls.clone().ok_or_else(|| invalid("TLS is not configured"))?;
    let mut stream = TlsAcceptor::from(config).accept(tcp).await?;
    let connection = stream.get_ref().1;
    if direct && connection.alpn_protocol() != Some(ALPN) {
        return Err(invalid("direct TLS without the ALPN name `postgresql`"));
    }
    let certificates = connection
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|c| Bytes::copy_from_slice(c))
        .collect();
    let packet = read_startup(&mut stream).await?;
    match startup::decode(&packet).map_err(invalid)? {
        Startup::Cancel { pid, key } => Ok(Arrival::Cancel { pid, key, stream: Box::new(stream) }),
        Startup::Session { version, parameters } => {
            let wishes = Wishes::new(parameters);
            Ok(Arrival::Session(Box::new(Arrived {
                stream: Box::new(stream),
                version,
                wishes,
                certificates,
            })))
        }
        Startup::Ssl | Startup::GssEnc => Err(invalid("encryption asked for twice")),
    }
}

impl Arrived {
    /// A client on a stream that needs no TLS: an in-process pipe.
    pub(crate) async fn in_process(mut stream: BoxedStream) -> io::Result<Self> {
        loop {
            let packet = read_startup(&mut stream).await?;
            match startup::decode(&packet).map_err(invalid)? {
                Startup::Session { version, parameters } => {
                    return Ok(Self {
                        stream,
                        version,
                        wishes: Wishes::new(parameters),
                        certificates: Vec::new(),
                    });
                }
                Startup::Ssl | Startup::GssEnc => stream.write_all(b"N").await?,
                Startup::Cancel { .. } => return Err(invalid("cancel on an in-process connection")),
            }
        }
    }

    /// Tells the client the protocol version, if it must be told.
    pub(crate) async fn negotiate(&mut self) -> io::Result<u32> {
        let (version, tell) = startup::negotiate(self.version);
        let options = self.wishes.as_ref().map(|w| w.options.clone()).unwrap_or_default();
        if tell || !options.is_empty() {
            let mut out = BytesMut::new();
            encode::negotiate_version(&mut out, version, options);
            self.stream.write_all(&out).await?;
        }
        Ok(version)
    }

    /// Asks for the identity and has it verified.
    pub(crate) async fn identify(
        &mut self,
        pipeline: &Pipeline,
        tokens: TokenLogin,
    ) -> io::Result<Result<VerifiedPrincipal, Denial>> {
        if !self.certificates.is_empty() {
            let presented = Presented::Certificate(std::mem::take(&mut self.certificates));
            return Ok(pipeline.authenticate(&presented).await);
        }
        match tokens {
            TokenLogin::Password => {
                let token = self.ask_password().await?;
                Ok(pipeline.authenticate(&Presented::Token(token)).await)
            }
            TokenLogin::OauthBearer => self.oauthbearer(pipeline).await,
        }
    }

    async fn ask_password(&mut self) -> io::Result<Secret<String>> {
        let mut out = BytesMut::new();
        encode::ask_password(&mut out);
        self.stream.write_all(&out).await?;
        let frame = self.password_frame().await?;
        let mut reader = Reader::new(frame.body(), "PasswordMessage");
        let password = reader.c_str().map_err(invalid)?.to_owned();
        reader.finish().map_err(invalid)?;
        Ok(Secret::new(password))
    }

    async fn password_frame(&mut self) -> io::Result<crate::codec::Frame> {
        let frame = read_frame(&mut self.stream, MAX_TOKEN_MESSAGE_BYTES).await?;
        if frame.tag() == b'p' { Ok(frame) } else { Err(invalid("a message before the login is over")) }
    }

    /// SASL OAUTHBEARER (RFC 7628 section 3).
    async fn oauthbearer(&mut self, pipeline: &Pipeline) -> io::Result<Result<VerifiedPrincipal, Denial>> {
        let mut out = BytesMut::new();
        encode::ask_sasl(&mut out, &["OAUTHBEARER"]);
        self.stream.write_all(&out).await?;
        let frame = self.password_frame().await?;
        let token = bearer_token(frame.body()).map_err(invalid)?;
        let verdict = match token {
            Some(token) => pipeline.authenticate(&Presented::Token(token)).await,
            None => Err(Denial::new(DenialCode::Unauthenticated, "no token was sent")),
        };
        if verdict.is_err() {
            // Section 3.2.2: the failure as JSON, then the client's dummy response.
            let mut out = BytesMut::new();
            encode::sasl_continue(&mut out, Bytes::from_static(br#"{"status":"invalid_token"}"#));
            self.stream.write_all(&out).await?;
            self.password_frame().await?;
        }
        Ok(verdict)
    }

    /// Tells the client why it may not come in.
    pub(crate) async fn refuse(mut self, denial: &Denial) -> io::Result<()> {
        tracing::info!(code = %denial.code, cause = denial.cause(), "login refused");
        let mut out = BytesMut::new();
        denial::fatal(&mut out, denial);
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        self.stream.shutdown().await?;
        // Give the error time to arrive: closing with unread input would reset the connection and lose it.
        let mut sink = [0; 1024];
        let drain = async { while self.stream.read(&mut sink).await.is_ok_and(|n| n > 0) {} };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), drain).await;
        Ok(())
    }
}

/// The token in a SASLInitialResponse: `n,,^Aauth=Bearer TOKEN^A^A` (RFC 7628 section 3.1); `None` if it is left empty.
fn bearer_token(body: &[u8]) -> Result<Option<Secret<String>>, crate::codec::ProtocolError> {
    let mut reader = Reader::new(body, "SASLInitialResponse");
    let malformed = reader.malformed();
    if reader.c_str()? != "OAUTHBEARER" {
        return Err(malformed);
    }
    let data = reader.value()?.unwrap_or_default();
    reader.finish()?;
    let text = std::str::from_utf8(data).map_err(|_| malformed.clone())?;
    let mut parts = text.split('\u{1}');
    // Channel binding and authorization identity are not used.
    if parts.next() != Some("n,,") || !text.ends_with("\u{1}\u{1}") {
        return Err(malformed);
    }
    let auth = parts.find_map(|part| part.strip_prefix("auth="));
    let token =
        auth.and_then(|auth| auth.get(..7).filter(|b| b.eq_ignore_ascii_case("bearer ")).and(auth.get(7..)));
    Ok(token.map(Secret::from))
}

/// Key for a session, as random as the protocol version allows.
pub(crate) fn random_key(version: u32) -> Result<Vec<u8>, gateway_core::random::NoRandomness> {
    if version >= startup::PROTOCOL_3_2 {
        return gateway_core::random::bytes::<32>().map(Vec::from);
    }
    gateway_core::random::bytes::<4>().map(Vec::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial(data: &str) -> Vec<u8> {
        let mut body = b"OAUTHBEARER\0".to_vec();
        body.extend_from_slice(&(data.len() as i32).to_be_bytes());
        body.extend_from_slice(data.as_bytes());
        body
    }

    #[test]
    fn reads_bearer_tokens_and_nothing_else() {
        let token = bearer_token(&initial("n,,\u{1}auth=Bearer abc.def\u{1}\u{1}")).unwrap().unwrap();
        assert_eq!(token.expose(), "abc.def");
        assert!(bearer_token(&initial("n,,\u{1}auth=\u{1}\u{1}")).unwrap().is_none());
        for bad in [
            "y,,\u{1}auth=Bearer a\u{1}\u{1}",
            "n,a=root,\u{1}auth=Bearer a\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a",
            "",
        ] {
            assert!(bearer_token(&initial(bad)).is_err(), "{bad:?}");
        }
    }
}
