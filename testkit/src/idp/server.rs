//! The provider's HTTP server, on a thread and a runtime of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::keys::{Algorithm, KeySet};
use super::{DISCOVERY_PATH, JWKS_PATH};
use crate::error::{Context, Error, Result};

/// What the provider says, and how it misbehaves.
#[derive(Debug)]
pub(super) struct State {
    pub(super) issuer: String,
    pub(super) keys: Arc<KeySet>,
    /// Published, but no longer signed with.
    pub(super) retired: Vec<Arc<KeySet>>,
    pub(super) delay: Duration,
    pub(super) status: Option<u16>,
    /// By path: what is said instead of the truth.
    pub(super) bodies: BTreeMap<String, String>,
    pub(super) requests: BTreeMap<String, usize>,
}

/// The running server; dropping it ends its thread.
pub(super) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    // Both are taken in `drop`; without its sender the thread ends.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told, with where to report.
struct Command {
    order: Order,
    done: mpsc::Sender<Result<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    GoDown,
    ComeBack,
}

/// Up, or down: bound without listening, so that connections are refused and nobody else gets the port.
enum Port {
    Listening(TcpListener),
    Reserved(TcpSocket),
}

impl State {
    pub(super) fn new(keys: KeySet) -> Self {
        Self {
            issuer: String::new(),
            keys: Arc::new(keys),
            retired: Vec::new(),
            delay: Duration::ZERO,
            status: None,
            bodies: BTreeMap::new(),
            requests: BTreeMap::new(),
        }
    }

    pub(super) fn jwks(&self) -> Value {
        let sets = std::iter::once(&self.keys).chain(&self.retired);
        json!({ "keys": sets.flat_map(|keys| keys.jwks()).collect::<Vec<_>>() })
    }

    /// OpenID Connect Discovery 1.0 section 3; of what it requires, the authorization endpoint answers nothing here.
    fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}{JWKS_PATH}", self.issuer),
            "authorization_endpoint": format!("{}/authorize", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": Algorithm::ALL.map(Algorithm::name),
        })
    }

    fn answer(&mut self, path: &str) -> (StatusCode, &'static str, String) {
        *self.requests.entry(path.to_owned()).or_default() += 1;
        if let Some(status) = self.status {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return (status, "text/html", "<html><body>out of order</body></html>".to_owned());
        }
        let body = match path {
            _ if self.bodies.contains_key(path) => self.bodies[path].clone(),
            DISCOVERY_PATH => self.discovery().to_string(),
            JWKS_PATH => self.jwks().to_string(),
            _ => return (StatusCode::NOT_FOUND, "text/plain", "not found".to_owned()),
        };
        (StatusCode::OK, "application/json", body)
    }
}

impl Server {
    pub(super) fn start(port: u16, tls: Option<Arc<rustls::ServerConfig>>, state: State) -> Result<Self> {
        let state = Arc::new(Mutex::new(state));
        let (commands, receiver) = channel(1);
        let (started, start) = mpsc::channel();
        let shared = Arc::clone(&state);
        let thread =
            thread::spawn(move || serve(port, tls.map(TlsAcceptor::from), &shared, receiver, &started));
        let address = start.recv().context("start the provider's thread")??;
        Ok(Self { address, state, commands: Some(commands), thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut lock(&self.state))
    }

    pub(super) fn go_down(&self) -> Result<()> {
        self.command(Order::GoDown)
    }

    pub(super) fn come_back(&self) -> Result<()> {
        self.command(Order::ComeBack)
    }

    /// Blocks for as long as the thread needs, far under a millisecond: callable from asynchronous code as well.
    fn command(&self, order: Order) -> Result<()> {
        let gone = || Error::new("the provider's thread is gone");
        let (done, wait) = mpsc::channel();
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        commands.try_send(Command { order, done }).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say any more, and a test must not fail in a drop.
            let _ = thread.join();
        }
    }
}

fn serve(
    port: u16,
    tls: Option<TlsAcceptor>,
    state: &Arc<Mutex<State>>,
    commands: Receiver<Command>,
    started: &mpsc::Sender<Result<SocketAddr>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error).context("make a runtime"))),
    };
    runtime.block_on(async {
        match listen((Ipv4Addr::LOCALHOST, port).into()) {
            Err(error) => drop(started.send(Err(error))),
            Ok((listener, address)) => {
                drop(started.send(Ok(address)));
                run(Port::Listening(listener), address, tls, state, commands).await;
            }
        }
    });
}

/// Until the owner drops its end of the commands.
async fn run(
    mut port: Port,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    state: &Arc<Mutex<State>>,
    mut commands: Receiver<Command>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some(Command { order, done }) = command else { return };
                let (now, result) = obey(order, port, address);
                if matches!(now, Port::Reserved(_)) {
                    connections.shutdown().await;
                }
                port = now;
                // Whoever ordered it waits for this, unless they are gone.
                let _ = done.send(result);
            }
            stream = accept(&port) => {
                connections.spawn(connection(stream, tls.clone(), Arc::clone(state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn obey(order: Order, port: Port, address: SocketAddr) -> (Port, Result<()>) {
    match (order, port) {
        (Order::GoDown, Port::Listening(listener)) => {
            // Two sockets cannot hold the port while one listens; nobody gets it in this instant but by chance.
            drop(listener);
            match bind(address) {
                Ok(socket) => (Port::Reserved(socket), Ok(())),
                Err(error) => (Port::Reserved(unbound()), Err(error)),
            }
        }
        (Order::ComeBack, Port::Reserved(socket)) => match socket.listen(BACKLOG).context("listen again") {
            Ok(listener) => (Port::Listening(listener), Ok(())),
            Err(error) => (Port::Reserved(unbound()), Err(error)),
        },
        (_, port) => (port, Ok(())),
    }
}

/// Never returns while the port is only reserved.
async fn accept(port: &Port) -> TcpStream {
    if let Port::Listening(listener) = port {
        loop {
            // A connection that ends before it is accepted is its client's matter.
            if let Ok((stream, _)) = listener.accept().await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    }
    std::future::pending().await
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    match tls {
        None => http(stream, state).await,
        Some(tls) => {
            // A client that does not trust us is what some tests are about.
            if let Ok(stream) = tls.accept(stream).await {
                http(stream, state).await;
            }
        }
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) {
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    // How a connection ends is the client's choice.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (delay, (status, kind, body)) = {
        let mut state = lock(&state);
        (state.delay, state.answer(request.uri().path()))
    };
    if !delay.is_zero() {
        // The delay is the point: a provider that is slow.
        tokio::time::sleep(delay).await;
    }
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = bind(address)?.listen(BACKLOG).context(&format!("listen on {address}"))?;
    let address = listener.local_addr().context("read the port")?;
    Ok((listener, address))
}

fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4().context("make a socket")?;
    // The port's former connections may still be waiting out their end.
    socket.set_reuseaddr(true).context("reuse the port")?;
    socket.bind(address).context(&format!("bind {address}, is it taken"))?;
    Ok(socket)
}

/// Holds no port: what is left after an error that has been reported.
fn unbound() -> TcpSocket {
    TcpSocket::new_v4().expect("there is a file descriptor left")
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// More clients than any test has.
const BACKLOG: u32 = 1024;
