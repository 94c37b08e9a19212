//! The server side's callbacks: they never wait for a person or a client, and for the target only to listen, since the whole
//! connection waits with them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::identity::{Presented, VerifiedPrincipal};
use gateway_core::operation::Operation;
use gateway_core::pipeline::{Guard, SessionRequest};
use gateway_core::session::CloseReason;
use russh::keys::Certificate;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, Disconnect, Error, Pty, Sig};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::channel::{Event, Inbox, Program, Start, Task};
use crate::denial;
use crate::gate::{Gate, MAX_CHANNELS};
use crate::login::{Grants, Login, is_believed, proof};
use crate::operation::{self, Screen, Setting, Size, Terminal};
use crate::served::{Served, canonical_host, listening_host};
use crate::server::{PROTOCOL, Shared};
use crate::session::{SshSession, not_granted};
use crate::target::{ShellMode, Target};
use crate::upstream::Upstreams;
use crate::upstream::door::Expected;

/// Variables set for one program.
const MAX_VARIABLES: usize = 64;
/// Names and values of them together. 32 KiB.
const MAX_ENVIRONMENT_BYTES: usize = 32 * 1024;
/// A terminal's name. The terminfo database's longest has some 30 letters.
const MAX_TERM_BYTES: usize = 64;
/// Modes of a terminal; the protocol knows 57 (RFC 4254 section 8, RFC 8160).
const MAX_MODES: usize = 128;
/// A signal's name; longer ones are dropped. The protocol's longest has 4 letters, private ones end with a domain.
const MAX_SIGNAL_BYTES: usize = 64;

/// An X11 protocol's name and cookie together; the usual ones have 18 and 32 letters.
const MAX_COOKIE_BYTES: usize = 1024;
/// Ports and sockets of the target that are forwarded to one client; each takes a connection to the target.
const MAX_LISTENING: usize = 8;
/// How long the target may take to listen. 5 s.
const LISTEN: Duration = Duration::from_secs(5);

/// Who was identified, before the session is open.
struct Identified {
    principal: VerifiedPrincipal,
    login: Login,
    grants: Grants,
}

/// One connection of a client.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    peer: Option<SocketAddr>,
    gate: Arc<Gate>,
    identified: Option<Identified>,
    opened: Option<oneshot::Sender<Option<Arc<SshSession>>>>,
    session: Option<Arc<SshSession>>,
    channels: HashMap<ChannelId, Entry>,
    /// Channels that the library has not forgotten: those of now, and those that the client did not close first.
    left: usize,
    /// What the target listens on for the client; dropping a sender ends it.
    listening: HashMap<Expected, oneshot::Sender<()>>,
}

/// A channel as its connection knows it.
struct Entry {
    inbox: Arc<Inbox>,
    setting: Setting,
    started: bool,
    /// The target opened it.
    by_target: bool,
}

impl Connection {
    /// `opened` is told when the session is open, or with `None` that it never will be.
    pub(crate) fn new(
        shared: Arc<Shared>,
        peer: Option<SocketAddr>,
        gate: Arc<Gate>,
        opened: oneshot::Sender<Option<Arc<SshSession>>>,
    ) -> Self {
        Self {
            shared,
            peer,
            gate,
            identified: None,
            opened: Some(opened),
            session: None,
            channels: HashMap::new(),
            left: 0,
            listening: HashMap::new(),
        }
    }

    async fn identify(&mut self, login: Option<Login>, presented: Option<Presented>, grants: Grants) -> Auth {
        let (Some(login), Some(presented)) = (login, presented) else { return Auth::reject() };
        match self.shared.pipeline.authenticate(&presented).await {
            Ok(principal) => {
                self.identified = Some(Identified { principal, login, grants });
                Auth::Accept
            }
            Err(_) => Auth::reject(),
        }
    }

    /// Opens the guarded session and the way to the target.
    async fn open(&mut self, handle: russh::server::Handle) -> Result<Arc<SshSession>, Denial> {
        let missing = || Denial::new(DenialCode::Unauthenticated, "nobody is identified");
        let Identified { principal, login, grants } = self.identified.take().ok_or_else(missing)?;
        let found = self.shared.target(login.target.as_deref());
        let name = match (&found, login.target) {
            (Ok(target), _) => target.name.clone(),
            // Asked like one that is there: nobody learns which targets there are without being let in.
            (Err(_), Some(name)) => name,
            (Err(denial), None) => return Err(denial.clone()),
        };
        let peer = self.peer.map_or_else(|| "in-process".to_owned(), |peer| peer.to_string());
        let request = SessionRequest::new(principal.clone(), PROTOCOL, name, peer);
        let guard = Guard::open(&self.shared.pipeline, request).await?;
        let target = match found {
            Ok(target) => target,
            Err(denial) => {
                let _ = guard.close(CloseReason::Terminated).await;
                return Err(denial);
            }
        };
        match self.connect(&guard, &target, &principal).await {
            Ok(upstreams) => {
                let names = self.shared.names.of(&target.name, &principal.actor);
                let gate = Arc::clone(&self.gate);
                Ok(Arc::new(SshSession::new(guard, upstreams, names, grants, gate, handle)))
            }
            Err(denial) => {
                let _ = guard.close(CloseReason::Upstream).await;
                Err(denial)
            }
        }
    }

    async fn connect(
        &self,
        guard: &Guard,
        target: &Arc<Target>,
        principal: &VerifiedPrincipal,
    ) -> Result<Upstreams, Denial> {
        let unavailable = |cause: &dyn std::error::Error| {
            let message = format!("target `{}` is not available", target.name);
            Denial::new(DenialCode::UpstreamUnavailable, message)
                .with_hint("try again later, or tell the gateway's operator")
                .with_cause(cause)
        };
        let source = self.shared.pipeline.credentials();
        let credential =
            source.credential(&target.name, Some(principal)).await.map_err(|e| unavailable(&e))?;
        guard.protect(credential.secrets());
        Upstreams::connect(Arc::clone(target), &credential).await.map_err(|e| unavailable(&e))
    }

    fn said(&self, channel: ChannelId, event: Event) {
        if let Some(entry) = self.channels.get(&channel) {
            entry.inbox.push(event);
        }
    }

    /// The channel, if its program has not started: what may still be set.
    fn fresh(&mut self, channel: ChannelId) -> Option<(&Arc<SshSession>, &mut Entry)> {
        let entry = self.channels.get_mut(&channel).filter(|entry| !entry.started)?;
        Some((self.session.as_ref()?, entry))
    }

    /// Starts the channel's program; only one for each channel (RFC 4254 section 6.5).
    async fn start(
        &mut self,
        channel: ChannelId,
        program: Program,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some((ours, entry)) = self.fresh(channel) else { return session.channel_failure(channel) };
        let by_command = ours.upstreams.target().shell == ShellMode::CommandAtATime;
        let program = match (&ours.grants.force_command, program) {
            (Some(command), _) if **command == *b"internal-sftp" => Program::Subsystem("sftp".to_owned()),
            (Some(command), _) => Program::Exec(command.clone()),
            (None, Program::Shell) if by_command => Program::Commands,
            (None, program) => program,
        };
        entry.started = true;
        let mut setting = std::mem::take(&mut entry.setting);
        let inbox = Arc::clone(&entry.inbox);
        // For a session of commands it is the client's alone: the target has none.
        if setting.unjudged && !matches!(program, Program::Commands) {
            let ours = Arc::clone(ours);
            permit_terminal(&ours, &mut setting).await;
        }
        inbox.push(Event::Start(Box::new(Start { program, setting })));
        // Answered at once: the reply belongs to this request only as long as no other came, and a hold takes its time.
        session.channel_success(channel)
    }

    /// Answers a request about the coming program.
    fn settle(
        &mut self,
        channel: ChannelId,
        answer: Result<(), Denial>,
        quiet: bool,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Err(denial) = answer else { return session.channel_success(channel) };
        if !quiet {
            self.said(channel, Event::Say(denial::line(&denial)));
        }
        session.channel_failure(channel)
    }

    /// Judges a forward, unless it is refused whatever the policies say.
    async fn forward(
        &self,
        session: &SshSession,
        operation: Operation,
        refusal: Option<Denial>,
    ) -> Result<(), Denial> {
        session.wait_for_recorder().await?;
        let granted = session.grants.port_forwarding() && session.grants.force_command.is_none();
        match refusal {
            _ if !granted => Err(session.refuse(operation, not_granted("port forwarding"))),
            Some(denial) => Err(session.refuse(operation, denial)),
            None => session.permit(operation).await,
        }
    }

    /// Has the target listen for the client, if that is permitted. Gives the port it chose, or 0.
    async fn listen(&mut self, permitted: Result<(), Denial>, expected: Expected) -> Result<u32, Denial> {
        permitted?;
        let missing = || Denial::new(DenialCode::Unauthenticated, "nobody is identified");
        let session = Arc::clone(self.session.as_ref().ok_or_else(missing)?);
        self.listening.retain(|_, stop| !stop.is_closed());
        if self.listening.len() >= MAX_LISTENING {
            let message =
                format!("a target listens on at most {MAX_LISTENING} ports and sockets for one client");
            return Err(Denial::new(DenialCode::LimitExceeded, message));
        }
        // Clients want the answer, with the port, before anything else: this is the one place where the connection waits for the target.
        let listening = timeout(LISTEN, session.upstreams.listen(&expected)).await;
        let refused = |cause: &dyn std::fmt::Display| {
            Denial::new(DenialCode::UpstreamUnavailable, "the target does not listen there")
                .with_hint("choose another port; its server may refuse forwarding")
                .with_cause(cause)
        };
        let listening = listening.map_err(|e| refused(&e))?.map_err(|e| refused(&e))?;
        let port = listening.port;
        let known = match expected {
            Expected::Tcp(address, 0) => Expected::Tcp(address, port),
            expected => expected,
        };
        let (stop, stopped) = oneshot::channel();
        self.listening.insert(known, stop);
        session.spawn(crate::channel::listen(Arc::clone(&session), listening, stopped));
        Ok(port)
    }

    /// Opens what was permitted; its bytes are pumped by the channel's task.
    async fn open_forward(
        &mut self,
        permitted: Result<(), Denial>,
        channel: Channel<Msg>,
        program: Program,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        if let Err(denial) = permitted {
            return explain(session, &denial);
        }
        if let Some(inbox) = self.accept(channel, session)? {
            inbox.push(Event::Start(Box::new(Start { program, setting: Setting::default() })));
            reply.accept().await;
        }
        Ok(())
    }

    fn accept(&mut self, channel: Channel<Msg>, session: &mut Session) -> Result<Option<Arc<Inbox>>, Error> {
        let Some(ours) = self.session.clone() else { return Ok(None) };
        self.channels.retain(|_, entry| !entry.inbox.is_done());
        if self.is_worn(session)?
            || self.channels.values().filter(|entry| !entry.by_target).count() >= MAX_CHANNELS
        {
            return Ok(None);
        }
        let id = channel.id();
        let (_, write) = channel.split();
        let inbox = Arc::new(Inbox::new(Arc::clone(&self.gate)));
        ours.spawn(Task::new(Arc::clone(&ours), Arc::clone(&inbox), write).run());
        let setting = Setting::default();
        let entry = Entry { inbox: Arc::clone(&inbox), setting, started: false, by_target: false };
        self.insert(id, entry);
        Ok(Some(inbox))
    }

    fn insert(&mut self, channel: ChannelId, entry: Entry) {
        self.left += 1;
        self.channels.insert(channel, entry);
    }

    /// Whether so many channels were left behind that no more are opened. What runs goes on; then the connection ends.
    fn is_worn(&self, session: &mut Session) -> Result<bool, Error> {
        let most = self.shared.limits.channels;
        if self.left < most {
            return Ok(false);
        }
        let message = format!("a connection opens at most {most} channels");
        let denial = Denial::new(DenialCode::LimitExceeded, message).with_hint("connect again");
        if self.channels.is_empty() {
            session.disconnect(Disconnect::ByApplication, &denial::text(&denial), "")?;
        } else {
            explain(session, &denial)?;
        }
        Ok(true)
    }
}

/// Judges the terminal of a coming program.
async fn permit_terminal(ours: &SshSession, setting: &mut Setting) {
    let Some(terminal) = &setting.terminal else { return };
    let operation = operation::pty(&ours.target, terminal);
    let answer = if ours.grants.pty() {
        ours.permit(operation).await
    } else {
        Err(ours.refuse(operation, not_granted("a terminal")))
    };
    setting.unjudged = false;
    if let Err(denial) = answer {
        setting.terminal = None;
        setting.refused = Some(denial);
    }
}

/// Larger numbers are no ports, and systems that cut them off would make another port of them.
fn no_port(port: u32) -> Option<Denial> {
    (port > u32::from(u16::MAX)).then(|| {
        Denial::new(DenialCode::NotUnderstood, format!("`{port}` is no port"))
            .with_hint("ports are at most 65535")
    })
}

fn unclear_socket() -> Denial {
    let message = "the path of a socket must be absolute, without `.`, `..` or double slashes";
    Denial::new(DenialCode::Forbidden, message).with_hint("write the socket's path in full")
}

/// Refuses a forward with words that `ssh -v` shows; the refusal itself has no place for them.
fn explain(session: &mut Session, denial: &Denial) -> Result<(), Error> {
    session.debug(true, &denial::text(denial), "")
}

impl Handler for Connection {
    type Error = Error;

    async fn auth_publickey_offered(&mut self, _: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        Ok(if is_believed(offer.algorithm) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        let login = Login::parse(user);
        let peer = self.peer.map(|peer| peer.ip());
        let presented = login.as_ref().and_then(|l| l.key(peer, key.public_key, key.algorithm));
        Ok(self.identify(login, presented, Grants::ALL).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Error> {
        let login = Login::parse(user);
        let peer = self.peer.map(|peer| peer.ip());
        let presented = login.as_ref().and_then(|l| proof(&l.name, peer, certificate));
        Ok(self.identify(login, presented, Grants::of(certificate)).await)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        Ok(self.identify(Login::parse(user), Some(Login::token(password)), Grants::ALL).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Error> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: "Gateway login".into(),
                instructions: "Paste the token of the identity you act as.".into(),
                prompts: vec![("Token: ".into(), false)].into(),
            });
        };
        let token = response.next().and_then(|answer| String::from_utf8(answer.to_vec()).ok());
        let presented = token.map(|token| Login::token(&token));
        Ok(self.identify(Login::parse(user), presented, Grants::ALL).await)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Error> {
        match self.open(session.handle()).await {
            Ok(opened) => {
                let told = self.opened.take().map(|told| told.send(Some(Arc::clone(&opened))));
                if told.is_some_and(|told| told.is_ok()) {
                    self.session = Some(opened);
                    return Ok(());
                }
                // The time for logging in was over meanwhile: nobody else would seal the recording.
                opened.close(CloseReason::Downstream).await;
                Err(Error::Disconnect)
            }
            Err(denial) => {
                let cause = denial.cause().unwrap_or_default();
                tracing::warn!(peer = ?self.peer, code = %denial.code, cause, "a session was refused");
                if let Some(told) = self.opened.take() {
                    let _ = told.send(None);
                }
                session.disconnect(Disconnect::ByApplication, &denial::text(&denial), "")
            }
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        // Dropped, the reply is a refusal.
        if self.accept(channel, session)?.is_some() {
            reply.accept().await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some(ours) = self.session.clone() else { return Ok(()) };
        // What is judged is what the target is asked for.
        let host = &*canonical_host(host);
        let operation = operation::tcp(&ours.target, "direct_tcpip", host, port);
        let served = self.shared.served.of_endpoint(&ours.upstreams.target().host, host, port);
        let refusal = no_port(port).or_else(|| served.map(Served::refusal));
        let permitted = self.forward(&ours, operation, refusal).await;
        let program = Program::DirectTcpip(host.to_owned(), port);
        self.open_forward(permitted, channel, program, reply, session).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some(ours) = self.session.clone() else { return Ok(()) };
        let operation = operation::socket(&ours.target, "direct_streamlocal", path);
        let refusal = if operation::is_socket_path(path) {
            self.shared.served.of_socket(path).map(Served::refusal)
        } else {
            Some(unclear_socket())
        };
        let permitted = self.forward(&ours, operation, refusal).await;
        let program = Program::DirectStreamlocal(path.to_owned());
        self.open_forward(permitted, channel, program, reply, session).await
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Error> {
        let Some(ours) = self.session.clone() else { return Ok(false) };
        let operation = operation::tcp(&ours.target, "tcpip_forward", &listening_host(host), *port);
        let permitted = self.forward(&ours, operation, no_port(*port)).await;
        match self.listen(permitted, Expected::Tcp(host.to_owned(), *port)).await {
            Ok(chosen) => {
                if *port == 0 {
                    *port = chosen;
                }
                Ok(true)
            }
            Err(denial) => explain(session, &denial).map(|()| false),
        }
    }

    async fn cancel_tcpip_forward(&mut self, host: &str, port: u32, _: &mut Session) -> Result<bool, Error> {
        Ok(self.listening.remove(&Expected::Tcp(host.to_owned(), port)).is_some())
    }

    async fn streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, Error> {
        let Some(ours) = self.session.clone() else { return Ok(false) };
        let operation = operation::socket(&ours.target, "streamlocal_forward", path);
        let refusal = (!operation::is_socket_path(path)).then(unclear_socket);
        let permitted = self.forward(&ours, operation, refusal).await;
        match self.listen(permitted, Expected::Socket(path.to_owned())).await {
            Ok(_) => Ok(true),
            Err(denial) => explain(session, &denial).map(|()| false),
        }
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Error> {
        Ok(self.listening.remove(&Expected::Socket(path.to_owned())).is_some())
    }

    /// The client took a channel that the target opened.
    async fn channel_open_confirmation(
        &mut self,
        channel: ChannelId,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        // Nobody has asked for it, or it is one that there is already.
        if self.channels.contains_key(&channel) {
            return Err(Error::Inconsistent);
        }
        let taken = self.session.as_ref().and_then(|ours| ours.opened.taken(channel, &self.gate));
        let inbox = taken.ok_or(Error::Inconsistent)?;
        self.channels.retain(|_, entry| !entry.inbox.is_done());
        if self.is_worn(session)? {
            return Err(Error::Disconnect);
        }
        let setting = Setting::default();
        self.insert(channel, Entry { inbox, setting, started: true, by_target: true });
        Ok(())
    }

    async fn agent_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<bool, Error> {
        let Some((ours, entry)) = self.fresh(channel) else {
            return session.channel_failure(channel).map(|()| false);
        };
        let operation = operation::forwarding(&ours.target, "agent_forward");
        let answer = if ours.grants.agent_forwarding() {
            ours.permit(operation).await
        } else {
            Err(ours.refuse(operation, not_granted("agent forwarding")))
        };
        entry.setting.agent = answer.is_ok();
        self.settle(channel, answer, false, session).map(|()| false)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        single: bool,
        protocol: &str,
        cookie: &str,
        number: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some((ours, entry)) = self.fresh(channel) else { return session.channel_failure(channel) };
        let operation = operation::forwarding(&ours.target, "x11");
        let answer = if !ours.grants.x11_forwarding() {
            Err(ours.refuse(operation, not_granted("X11 forwarding")))
        } else if protocol.len() + cookie.len() > MAX_COOKIE_BYTES {
            let message = format!("a screen's protocol and cookie have at most {MAX_COOKIE_BYTES} bytes");
            Err(ours.refuse(operation, Denial::new(DenialCode::LimitExceeded, message)))
        } else {
            ours.permit(operation).await
        };
        if answer.is_ok() {
            let (protocol, cookie) = (protocol.to_owned(), cookie.to_owned());
            entry.setting.screen = Some(Screen { single, protocol, cookie, number });
        }
        self.settle(channel, answer, false, session)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some((ours, entry)) = self.fresh(channel) else { return session.channel_failure(channel) };
        let size = Size { columns, rows, width, height };
        if term.len() > MAX_TERM_BYTES || modes.len() > MAX_MODES {
            let operation = Operation::new("pty", "");
            let message = format!(
                "a terminal's name has at most {MAX_TERM_BYTES} bytes, and it has at most {MAX_MODES} modes"
            );
            entry.setting.refused =
                Some(ours.refuse(operation, Denial::new(DenialCode::LimitExceeded, message)));
            return session.channel_success(channel);
        }
        entry.setting.terminal = Some(Terminal { term: term.to_owned(), size, modes: modes.to_vec() });
        // Answered with success: after a failure clients that insist on a terminal leave before they could be told why.
        if ours.upstreams.target().shell == ShellMode::CommandAtATime {
            entry.setting.unjudged = true;
        } else {
            let ours = Arc::clone(ours);
            permit_terminal(&ours, &mut entry.setting).await;
        }
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some((ours, entry)) = self.fresh(channel) else { return session.channel_failure(channel) };
        let used: usize =
            entry.setting.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        let fits = used + name.len() + value.len() <= MAX_ENVIRONMENT_BYTES;
        // What does not fit is not recorded whole either: it could be sent without end.
        let operation = operation::env(&ours.target, name, if fits { value } else { "" });
        let answer = if fits && entry.setting.environment.len() < MAX_VARIABLES {
            ours.permit(operation).await
        } else {
            let message = format!(
                "more than {MAX_VARIABLES} variables or {MAX_ENVIRONMENT_BYTES} bytes of them are refused"
            );
            Err(ours.refuse(operation, Denial::new(DenialCode::LimitExceeded, message)))
        };
        if answer.is_ok() {
            entry.setting.environment.push((name.to_owned(), value.to_owned()));
        }
        // Quiet: stock clients send their language with everything and servers commonly ignore it.
        self.settle(channel, answer, true, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.start(channel, Program::Exec(Bytes::copy_from_slice(line)), session).await
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.start(channel, Program::Shell, session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.start(channel, Program::Subsystem(name.to_owned()), session).await
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.said(channel, Event::Resize(Size { columns, rows, width, height }));
        Ok(())
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _: &mut Session) -> Result<(), Error> {
        if !matches!(&signal, Sig::Custom(name) if name.len() > MAX_SIGNAL_BYTES) {
            self.said(channel, Event::Signal(signal));
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.gate.window()
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Error> {
        if let Some(entry) = self.channels.get(&channel) {
            entry.inbox.data(data);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.said(channel, Event::Eof);
        Ok(())
    }

    /// The client closed it first: the library forgets it whole.
    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.left = self.left.saturating_sub(1);
        if let Some(entry) = self.channels.remove(&channel) {
            entry.inbox.close();
        }
        Ok(())
    }
}
