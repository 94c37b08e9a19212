//! An identity provider with real keys, on real sockets, that misbehaves on demand.

mod keys;
mod server;
mod token;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use keys::{Algorithm, KeySet};
use server::{Server, State};
pub use token::{Forgery, TokenBuilder};

use crate::ca::Ca;
use crate::error::Result;

/// An OpenID Connect provider on loopback: discovery document, key set, and tokens from [`Idp::token`].
///
/// It runs on a thread of its own, so it serves blocking tests and asynchronous ones alike. Dropping it closes its
/// port and its connections.
///
/// ```
/// # fn main() -> testkit::Result<()> {
/// let idp = testkit::Idp::start()?;
/// let token = idp.token().subject("agent-7").audience("gateway").sign();
/// assert_eq!(token.split('.').count(), 3);
/// idp.go_down()?;
/// assert!(std::net::TcpStream::connect(idp.address()).is_err());
/// # Ok(())
/// # }
/// ```
pub struct Idp {
    server: Server,
    issuer: String,
}

/// Options of an [`Idp`] to be.
#[derive(Debug, Default)]
#[must_use = "nothing runs until `start`"]
pub struct IdpBuilder {
    tls: Option<Arc<rustls::ServerConfig>>,
    keys: Option<KeySet>,
    port: u16,
}

impl Idp {
    /// Starts a provider over plain HTTP with fresh keys on a free port.
    ///
    /// # Errors
    /// As [`IdpBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Starts a provider over HTTPS with a certificate of this authority.
    ///
    /// # Errors
    /// As [`IdpBuilder::tls`] and [`IdpBuilder::start`].
    pub fn start_tls(ca: &Ca) -> Result<Self> {
        Self::builder().tls(ca)?.start()
    }

    /// A provider to be: plain HTTP, fresh keys, a free port.
    pub fn builder() -> IdpBuilder {
        IdpBuilder::default()
    }

    /// The issuer's URL, which is `iss` in its tokens. It names the host `localhost`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where the keys are.
    pub fn jwks_url(&self) -> String {
        self.issuer.clone() + JWKS_PATH
    }

    /// The address it listens on, or would if it were not down.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A token to be, signed with the current keys.
    pub fn token(&self) -> TokenBuilder {
        TokenBuilder::new(self.server.state(|state| Arc::clone(&state.keys)), &self.issuer)
    }

    /// The key set as it is published now.
    pub fn jwks(&self) -> serde_json::Value {
        self.server.state(|state| state.jwks())
    }

    /// Replaces the keys; tokens of the old ones no longer verify.
    ///
    /// # Errors
    /// When the system's random generator fails.
    pub fn rotate(&self) -> Result<()> {
        let keys = Arc::new(KeySet::generate()?);
        self.server.state(|state| {
            state.keys = keys;
            state.retired.clear();
        });
        Ok(())
    }

    /// Signs with new keys from now on, and keeps the old ones published, as a careful provider does.
    ///
    /// # Errors
    /// When the system's random generator fails.
    pub fn rotate_gently(&self) -> Result<()> {
        let keys = Arc::new(KeySet::generate()?);
        self.server.state(|state| {
            let old = std::mem::replace(&mut state.keys, keys);
            state.retired.push(old);
        });
        Ok(())
    }

    /// Refuses connections and cuts those there are, until [`Idp::come_back`]; the port stays reserved.
    ///
    /// # Errors
    /// When the port is lost to somebody else.
    pub fn go_down(&self) -> Result<()> {
        self.server.go_down()
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// When the port cannot be listened on.
    pub fn come_back(&self) -> Result<()> {
        self.server.come_back()
    }

    /// Waits this long before every answer from now on; zero for not at all.
    pub fn delay(&self, delay: Duration) {
        self.server.state(|state| state.delay = delay);
    }

    /// Answers every request with this status and a page of HTML from now on; `None` for the right answer.
    pub fn answer_with(&self, status: Option<u16>) {
        self.server.state(|state| state.status = status);
    }

    /// Answers requests for this path with this body as JSON from now on, whatever it is; `None` for the right one.
    pub fn answer_path_with(&self, path: &str, body: Option<&str>) {
        self.server.state(|state| match body {
            Some(body) => state.bodies.insert(path.to_owned(), body.to_owned()),
            None => state.bodies.remove(path),
        });
    }

    /// How many requests for this path came in so far, such as `/jwks`; failed ones count too.
    pub fn requests(&self, path: &str) -> usize {
        self.server.state(|state| state.requests.get(path).copied().unwrap_or_default())
    }
}

impl IdpBuilder {
    /// Serves over HTTPS with a loopback certificate of this authority.
    ///
    /// # Errors
    /// When the certificate cannot be issued.
    pub fn tls(mut self, ca: &Ca) -> Result<Self> {
        self.tls = Some(ca.server()?.server_config(&[b"http/1.1"])?);
        Ok(self)
    }

    /// Signs with these keys.
    pub fn keys(mut self, keys: KeySet) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Listens on this port; 0 is any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Starts it; it answers when this returns.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(self) -> Result<Idp> {
        let keys = self.keys.map_or_else(KeySet::generate, Ok)?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let server = Server::start(self.port, self.tls, State::new(keys))?;
        let issuer = format!("{scheme}://localhost:{}", server.address().port());
        server.state(|state| state.issuer.clone_from(&issuer));
        Ok(Idp { server, issuer })
    }
}

impl fmt::Debug for Idp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Idp").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

const JWKS_PATH: &str = "/jwks";
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
