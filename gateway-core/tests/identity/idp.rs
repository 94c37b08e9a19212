//! An issuer over HTTPS whose documents the test changes, and that counts what it is asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::clock::{Clock, ManualClock, Timestamp};
use gateway_core::identity::oidc::{IssuerConfig, JwtAuthenticator, KeySource, Roots};
use gateway_core::identity::{Authenticator, IdentityError, Presented, Principal};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// 2026-01-01T00:00:00Z, when every test begins.
pub(crate) const NOW: i64 = 1_767_225_600;
pub(crate) const AUDIENCE: &str = "gateway";

#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

struct Shared {
    answers: Mutex<BTreeMap<String, Answer>>,
    asked: Mutex<BTreeMap<String, usize>>,
    down: AtomicBool,
    /// Taken for each answer: a test holds answers back by taking all permits.
    gate: Semaphore,
    arrived: Semaphore,
}

pub(crate) struct Idp {
    pub(crate) issuer: String,
    ca: tempfile::NamedTempFile,
    shared: Arc<Shared>,
}

impl Idp {
    /// Starts one with the keys given, discovery document included.
    pub(crate) async fn start(keys: &[Value]) -> Self {
        let (acceptor, ca_pem) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            asked: Mutex::default(),
            down: AtomicBool::new(false),
            gate: Semaphore::new(1000),
            arrived: Semaphore::new(0),
        });
        tokio::spawn(serve(listener, Some(acceptor), Arc::clone(&shared)));
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(ca_pem.as_bytes()).unwrap();
        let idp = Self { issuer, ca, shared };
        idp.describe(&json!({"issuer": idp.issuer, "jwks_uri": format!("{}/keys", idp.issuer)}));
        idp.publish(keys);
        idp
    }

    /// The same over plain HTTP, which nobody should trust.
    pub(crate) async fn start_plain(keys: &[Value]) -> Self {
        let mut idp = Self::start(keys).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        idp.issuer = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        tokio::spawn(serve(listener, None, Arc::clone(&idp.shared)));
        idp.describe(&json!({"issuer": idp.issuer, "jwks_uri": format!("{}/keys", idp.issuer)}));
        idp
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        self.answer("/keys", 200, &[], json!({ "keys": keys }).to_string());
    }

    pub(crate) fn describe(&self, document: &Value) {
        self.answer("/.well-known/openid-configuration", 200, &[], document.to_string());
    }

    pub(crate) fn answer(
        &self,
        path: &str,
        status: u16,
        headers: &[(&'static str, String)],
        body: impl Into<Bytes>,
    ) {
        let answer = Answer { status, headers: headers.to_vec(), body: body.into() };
        self.shared.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub(crate) fn asked(&self, path: &str) -> usize {
        self.shared.asked.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// From now on connections are closed as they come.
    pub(crate) fn go_down(&self) {
        self.shared.down.store(true, Ordering::SeqCst);
    }

    pub(crate) fn come_back(&self) {
        self.shared.down.store(false, Ordering::SeqCst);
    }

    /// Holds back answers until the guard is dropped.
    pub(crate) async fn hold(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.shared.gate.acquire_many(1000).await.unwrap()
    }

    /// Waits until one more request has arrived.
    pub(crate) async fn request_arrived(&self) {
        self.shared.arrived.acquire().await.unwrap().forget();
    }

    /// A configuration that trusts this issuer's CA.
    pub(crate) fn config(&self) -> IssuerConfig {
        let mut config = IssuerConfig::new(&self.issuer, AUDIENCE, KeySource::Discovery);
        config.roots = Roots::PemFile(self.ca.path().to_owned());
        config
    }

    /// A configuration that trusts this issuer's CA and another's; the file must outlive its use.
    pub(crate) fn config_trusting(&self, other: &Self) -> (IssuerConfig, tempfile::NamedTempFile) {
        let mut roots = tempfile::NamedTempFile::new().unwrap();
        for ca in [&self.ca, &other.ca] {
            roots.write_all(&std::fs::read(ca.path()).unwrap()).unwrap();
        }
        let mut config = self.config();
        config.roots = Roots::PemFile(roots.path().to_owned());
        (config, roots)
    }

    /// Good claims of a token issued now.
    pub(crate) fn claims(&self) -> Value {
        json!({"iss": self.issuer, "sub": "agent-7", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 600})
    }
}

/// An authenticator with a clock of its own.
pub(crate) struct Gate {
    pub(crate) authenticator: JwtAuthenticator,
    pub(crate) clock: ManualClock,
}

impl Gate {
    pub(crate) fn new(config: IssuerConfig) -> Self {
        Self {
            authenticator: JwtAuthenticator::new(vec![config]).unwrap(),
            clock: ManualClock::new(Timestamp::from_seconds(NOW)),
        }
    }

    pub(crate) async fn ask(&self, token: &str) -> Result<Principal, IdentityError> {
        self.authenticator.authenticate(&Presented::Token(token.into()), self.clock.now()).await
    }

    /// The log text of the refusal.
    pub(crate) async fn refusal(&self, token: &str) -> String {
        match self.ask(token).await {
            Ok(principal) => panic!("accepted as {}", principal.actor),
            Err(error) => error.to_string(),
        }
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// A server certificate for `localhost` from a CA of its own.
fn tls() -> (TlsAcceptor, String) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca_pem)
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        if shared.down.load(Ordering::SeqCst) {
            continue;
        }
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &shared));
            let http = hyper::server::conn::http1::Builder::new();
            // A client that turns away (a wrong CA, a body too large) is what some tests want.
            match acceptor {
                None => drop(http.serve_connection(TokioIo::new(socket), service).await),
                Some(acceptor) => {
                    if let Ok(tls) = acceptor.accept(socket).await {
                        drop(http.serve_connection(TokioIo::new(tls), service).await);
                    }
                }
            }
        });
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    shared: &Shared,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    *shared.asked.lock().unwrap().entry(path.clone()).or_default() += 1;
    shared.arrived.add_permits(1);
    let _turn = shared.gate.acquire().await.unwrap();
    let answer = shared.answers.lock().unwrap().get(&path).cloned();
    let answer = answer.unwrap_or(Answer { status: 404, headers: Vec::new(), body: Bytes::new() });
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(answer.body)).unwrap())
}
