//! Who asked what: request ids, handles and the paths behind them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::codec::with_id;
use super::message::{
    ClientMessage, ExtendedRequest, NameEntry, Request, Response, ServerMessage, StatusCode,
};
use super::operation::{FileAction, FileKind, FileOperation, PathUse, open_actions};
use super::path::{goes_back, normalise};
use super::{MAX_FRAME_BYTES, SftpError, VERSION};

/// What a session may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests unanswered by the server, the gateway's own included. OpenSSH's client keeps 64, sshfs and paramiko a few hundred.
    pub requests: usize,
    /// Open handles; beyond, opening is refused. OpenSSH's server stops near the limit of file descriptors.
    pub handles: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 1024, handles: 1024 }
    }
}

/// Names a question of the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnId(u32);

/// What came from the client.
#[derive(Debug)]
#[must_use]
pub enum Asked {
    /// INIT: send these bytes to the server. They ask for version 3 and nothing else.
    Init(Bytes),
    /// A request to judge.
    File(Box<FileOperation>),
    /// A request that cannot be judged (a handle that is not open, too many handles): send this answer to the client.
    Refused(Bytes),
}

/// What came from the server.
#[derive(Debug)]
#[must_use]
pub enum Answered {
    /// VERSION with the extensions announced. [`Session::version`] gives the bytes for the client.
    Version(Vec<(Bytes, Bytes)>),
    /// An answer for the client, not yet sent.
    Reply(Box<Reply>),
    /// The answer to the gateway's own question.
    Own(OwnId, Response),
}

/// An answer on its way to the client.
#[derive(Debug)]
pub struct Reply {
    /// The client's id of the request.
    pub client_id: u32,
    /// What was asked.
    pub kind: FileKind,
    /// The path it is about, absolute if known; for two-path requests the first.
    pub path: Option<Arc<[u8]>>,
    /// Where DATA starts in the file; 0 for anything else.
    pub offset: u64,
    /// The answer.
    pub response: Response,
    frame: Bytes,
}

/// One SFTP session. Feed it frames; it never blocks and knows no clock.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    phase: Phase,
    start: Option<Vec<u8>>,
    next_id: u32,
    pending: HashMap<u32, Pending>,
    client_ids: HashSet<u32>,
    handles: HashMap<Bytes, Handle>,
    /// OPEN and OPENDIR without an answer: they count as handles.
    opening: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Init,
    Version,
    Ready,
}

#[derive(Debug)]
enum Pending {
    Client(ClientPending),
    Own { expects: Expects },
}

#[derive(Debug)]
struct ClientPending {
    client_id: u32,
    kind: FileKind,
    path: Option<Arc<[u8]>>,
    offset: u64,
    expects: Expects,
    opens: Option<Handle>,
}

/// What kinds of answer fit a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Status,
    Handle,
    Data(u32),
    Names,
    OneName,
    Attrs,
    Extended,
}

/// What a handle stands for.
#[derive(Clone, Debug)]
struct Handle {
    path: Option<Arc<[u8]>>,
    given: Bytes,
    directory: bool,
}

impl Session {
    /// A session before INIT.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            phase: Phase::Init,
            start: None,
            next_id: 0,
            pending: HashMap::new(),
            client_ids: HashSet::new(),
            handles: HashMap::new(),
            opening: 0,
        }
    }

    /// Sets the directory that relative paths start from: the server's answer to REALPATH of `.`. Ignored unless absolute.
    pub fn set_start(&mut self, directory: &[u8]) {
        self.start = normalise(directory, None);
    }

    /// Whether another request may be sent. If not, stop reading from the client until answers came.
    pub fn has_room(&self) -> bool {
        self.pending.len() < self.limits.requests
    }

    /// How many handles are open.
    pub fn open_handles(&self) -> usize {
        self.handles.len()
    }

    /// A frame from the client.
    ///
    /// # Errors
    /// Any [`SftpError`]; with [`SftpError::answerable`] the session may go on after a [`Self::reject`], else close it.
    pub fn request(&mut self, frame: Bytes) -> Result<Asked, SftpError> {
        let frame = apart(frame);
        match (ClientMessage::decode(&frame)?, self.phase) {
            (ClientMessage::Init { version }, Phase::Init) if version >= VERSION => {
                self.phase = Phase::Version;
                Ok(Asked::Init(ClientMessage::Init { version: VERSION }.encode()))
            }
            (ClientMessage::Init { version }, Phase::Init) => Err(SftpError::Version(version)),
            (ClientMessage::Request(id, request), Phase::Ready) => self.operation(id, request, frame),
            _ => Err(SftpError::Order),
        }
    }

    fn operation(&mut self, id: u32, request: Request, frame: Bytes) -> Result<Asked, SftpError> {
        if self.client_ids.contains(&id) {
            return Err(SftpError::DuplicateId(id));
        }
        if self.client_ids.len() >= self.limits.requests {
            return Err(SftpError::Outstanding);
        }
        let opens = matches!(request, Request::Open { .. } | Request::Opendir { .. });
        if opens && self.handles.len() + self.opening >= self.limits.handles {
            return Ok(Asked::Refused(refusal(id, StatusCode::FAILURE, "too many open handles")));
        }
        let Some(paths) = self.paths(&request) else {
            return Ok(Asked::Refused(refusal(id, StatusCode::FAILURE, "unknown handle")));
        };
        self.client_ids.insert(id);
        self.opening += usize::from(opens);
        Ok(Asked::File(Box::new(FileOperation::new(id, request, frame, paths))))
    }

    /// The bytes that send an operation on to the server.
    ///
    /// # Errors
    /// [`SftpError::Outstanding`] if there is no room; check [`Self::has_room`] first. [`SftpError::Order`] if a replaced path made
    /// the frame too long.
    pub fn forward(&mut self, operation: FileOperation) -> Result<Bytes, SftpError> {
        if !self.has_room() {
            return Err(SftpError::Outstanding);
        }
        let upstream = self.free_id();
        let pending = self.await_answer(&operation);
        if let Request::Close { handle } = &operation.request {
            self.handles.remove(handle);
        }
        let FileOperation { request, frame, changed, .. } = operation;
        let frame = if changed {
            request.encode(upstream)
        } else {
            // Lets go of the slices of the frame, so that the id can be written in place.
            drop(request);
            with_id(frame, upstream)
        };
        self.pending.insert(upstream, Pending::Client(pending));
        Ok(frame)
    }

    /// The bytes that tell the client no. `message` is what the person there reads.
    pub fn refuse(&mut self, operation: &FileOperation, code: StatusCode, message: &str) -> Bytes {
        self.forget(operation);
        refusal(operation.client_id, code, message)
    }

    /// The bytes of an answer of the gateway's own making, for example to a REALPATH whose answer is known.
    pub fn answer(&mut self, operation: &FileOperation, response: &Response) -> Bytes {
        self.forget(operation);
        response.encode(operation.client_id)
    }

    /// The bytes that answer a frame which could not be read but whose id could ([`SftpError::answerable`]).
    pub fn reject(id: u32, message: &str) -> Bytes {
        refusal(id, StatusCode::BAD_MESSAGE, message)
    }

    /// Asks the server something the client did not. Send the bytes; the answer comes as [`Answered::Own`].
    ///
    /// # Errors
    /// [`SftpError::Order`] before VERSION or for OPEN and OPENDIR, whose handle the client could use; [`SftpError::Outstanding`].
    pub fn ask(&mut self, request: &Request) -> Result<(OwnId, Bytes), SftpError> {
        if self.phase != Phase::Ready || Expects::of(request) == Expects::Handle {
            return Err(SftpError::Order);
        }
        if !self.has_room() {
            return Err(SftpError::Outstanding);
        }
        let upstream = self.free_id();
        self.pending.insert(upstream, Pending::Own { expects: Expects::of(request) });
        Ok((OwnId(upstream), request.encode(upstream)))
    }

    /// A frame from the server.
    ///
    /// # Errors
    /// Any [`SftpError`]: the server is not believed any more, close the session.
    pub fn response(&mut self, frame: Bytes) -> Result<Answered, SftpError> {
        match (ServerMessage::decode(&frame)?, self.phase) {
            (ServerMessage::Version { version: VERSION, extensions }, Phase::Version) => {
                self.phase = Phase::Ready;
                Ok(Answered::Version(extensions))
            }
            (ServerMessage::Version { version, .. }, Phase::Version) => Err(SftpError::Version(version)),
            (ServerMessage::Response(id, response), Phase::Ready) => self.answered(id, response, frame),
            _ => Err(SftpError::Order),
        }
    }

    fn answered(&mut self, id: u32, response: Response, frame: Bytes) -> Result<Answered, SftpError> {
        match self.pending.remove(&id).ok_or(SftpError::UnknownId(id))? {
            Pending::Own { expects } => {
                expects.check(&response)?;
                Ok(Answered::Own(OwnId(id), response))
            }
            Pending::Client(pending) => {
                pending.expects.check(&response)?;
                self.client_ids.remove(&pending.client_id);
                if let Some(handle) = pending.opens {
                    self.opened(handle, &response)?;
                }
                let ClientPending { client_id, kind, path, offset, .. } = pending;
                Ok(Answered::Reply(Box::new(Reply { client_id, kind, path, offset, response, frame })))
            }
        }
    }

    /// Remembers what a new handle stands for. A handle that is in use would give its path to another file.
    fn opened(&mut self, handle: Handle, response: &Response) -> Result<(), SftpError> {
        self.opening = self.opening.saturating_sub(1);
        let Response::Handle { handle: name } = response else { return Ok(()) };
        // A copy: the slice would keep the whole frame.
        match self.handles.insert(Bytes::copy_from_slice(name), handle) {
            Some(_) => Err(SftpError::Mismatch("handle in use")),
            None => Ok(()),
        }
    }

    /// VERSION for the client, with those extensions that `keep` accepts.
    pub fn version(extensions: &[(Bytes, Bytes)], keep: impl Fn(&[u8]) -> bool) -> Bytes {
        let extensions = extensions.iter().filter(|(name, _)| keep(name)).cloned().collect();
        ServerMessage::Version { version: VERSION, extensions }.encode()
    }

    fn forget(&mut self, operation: &FileOperation) {
        self.client_ids.remove(&operation.client_id);
        if Expects::of(&operation.request) == Expects::Handle {
            self.opening = self.opening.saturating_sub(1);
        }
    }

    /// An id no pending request has. There are more ids than may be pending.
    fn free_id(&mut self) -> u32 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            if !self.pending.contains_key(&id) {
                return id;
            }
        }
    }

    fn await_answer(&self, operation: &FileOperation) -> ClientPending {
        let first = operation.paths().first();
        let path = first.and_then(|path| path.path.clone());
        let opens = match &operation.request {
            Request::Open { path: given, .. } => Some((given, false)),
            Request::Opendir { path: given } => Some((given, true)),
            _ => None,
        };
        ClientPending {
            client_id: operation.client_id,
            kind: operation.kind(),
            offset: if let Request::Read { offset, .. } = operation.request { offset } else { 0 },
            expects: Expects::of(&operation.request),
            opens: opens.map(|(given, directory)| Handle {
                path: path.clone(),
                given: Bytes::copy_from_slice(given),
                directory,
            }),
            path,
        }
    }
}

/// Paths of requests.
impl Session {
    /// Every path a request touches; `None` if a handle is not open or of the wrong kind.
    fn paths(&self, request: &Request) -> Option<Vec<PathUse>> {
        use FileAction as A;
        Some(match request {
            Request::Open { path, flags, attributes } => {
                let mut actions = open_actions(*flags);
                if flags.create() && !attributes.is_empty() {
                    actions.push(A::Setstat);
                }
                // O_EXCL does not follow a link (POSIX open); without O_CREAT it means nothing.
                vec![self.named(path, actions, !(flags.create() && flags.exclusive()))]
            }
            Request::Close { handle } => vec![self.held(handle, A::Close, None)?],
            Request::Read { handle, .. } => vec![self.held(handle, A::Read, Some(false))?],
            Request::Write { handle, .. } => vec![self.held(handle, A::Write, Some(false))?],
            Request::Fstat { handle } => vec![self.held(handle, A::Stat, None)?],
            Request::Fsetstat { handle, .. } => vec![self.held(handle, A::Setstat, None)?],
            Request::Readdir { handle } => vec![self.held(handle, A::List, Some(true))?],
            Request::Lstat { path } => vec![self.one(path, A::Stat, false)],
            Request::Stat { path } => vec![self.one(path, A::Stat, true)],
            Request::Setstat { path, .. } => vec![self.one(path, A::Setstat, true)],
            Request::Opendir { path } => vec![self.one(path, A::List, true)],
            Request::Remove { path } => vec![self.one(path, A::Remove, false)],
            Request::Mkdir { path, attributes } => {
                let mut folder = self.one(path, A::Mkdir, false);
                // A mode with the usual bits is what every client sends.
                if attributes.owner.is_some() || attributes.permissions.is_some_and(|mode| mode & 0o7000 != 0)
                {
                    folder.actions.push(A::Setstat);
                }
                vec![folder]
            }
            Request::Rmdir { path } => vec![self.one(path, A::Rmdir, false)],
            Request::Realpath { path } => vec![self.one(path, A::Resolve, true)],
            Request::Readlink { path } => vec![self.one(path, A::Readlink, false)],
            Request::Rename { from, to } => self.two(from, to, A::Rename, false),
            Request::Symlink { target, link } => self.symlink(target, link),
            Request::Extended(extended) => self.extended(extended)?,
        })
    }

    fn extended(&self, request: &ExtendedRequest) -> Option<Vec<PathUse>> {
        use ExtendedRequest as E;
        use FileAction as A;
        Some(match request {
            E::PosixRename { from, to } => self.two(from, to, A::Replace, false),
            // link(2) on Linux does not follow the last link; OpenSSH calls it as it is.
            E::Hardlink { existing, link } => self.two(existing, link, A::Hardlink, false),
            E::Statvfs { path } => vec![self.one(path, A::Stat, true)],
            E::Lsetstat { path, .. } => vec![self.one(path, A::Setstat, false)],
            E::ExpandPath { path } => vec![self.tilde(path)],
            E::Fstatvfs { handle } => vec![self.held(handle, A::Stat, None)?],
            E::Fsync { handle } => vec![self.held(handle, A::Sync, Some(false))?],
            E::CopyData { from, to, .. } => {
                vec![self.held(from, A::Read, Some(false))?, self.held(to, A::Write, Some(false))?]
            }
            E::Limits | E::HomeDirectory { .. } | E::UsersGroupsById { .. } | E::Unknown { .. } => Vec::new(),
        })
    }

    fn named(&self, path: &Bytes, actions: Vec<FileAction>, follows_link: bool) -> PathUse {
        let absolute = normalise(path, self.start.as_deref()).map(Arc::from);
        PathUse { path: absolute, given: path.clone(), actions, follows_link, by_handle: false }
    }

    fn one(&self, path: &Bytes, action: FileAction, follows_link: bool) -> PathUse {
        self.named(path, vec![action], follows_link)
    }

    fn two(&self, first: &Bytes, second: &Bytes, action: FileAction, follows_link: bool) -> Vec<PathUse> {
        vec![self.one(first, action, follows_link), self.one(second, action, follows_link)]
    }

    /// A link's target is text, read from the link's own directory. Unknown where only the server can tell what the text leads to.
    fn symlink(&self, target: &Bytes, link: &Bytes) -> Vec<PathUse> {
        let link = self.one(link, FileAction::Symlink, false);
        let directory = link.path.as_deref().map(super::path::parent);
        let target = PathUse {
            path: directory
                .filter(|_| !goes_back(target))
                .and_then(|directory| normalise(target, Some(directory)))
                .map(Arc::from),
            given: target.clone(),
            actions: vec![FileAction::Symlink],
            follows_link: true,
            by_handle: false,
        };
        vec![target, link]
    }

    /// `~` and `~user` are known to the server only.
    fn tilde(&self, path: &Bytes) -> PathUse {
        let mut path = self.one(path, FileAction::Resolve, true);
        if path.given.starts_with(b"~") {
            path.path = None;
        }
        path
    }

    /// A path by handle; `directory` says which kind of handle fits.
    fn held(&self, handle: &Bytes, action: FileAction, directory: Option<bool>) -> Option<PathUse> {
        let handle = self
            .handles
            .get(handle)
            .filter(|handle| directory.is_none_or(|wanted| wanted == handle.directory))?;
        Some(PathUse {
            path: handle.path.clone(),
            given: handle.given.clone(),
            actions: vec![action],
            follows_link: true,
            by_handle: true,
        })
    }
}

impl Expects {
    const fn of(request: &Request) -> Self {
        match request {
            Request::Open { .. } | Request::Opendir { .. } => Self::Handle,
            Request::Read { length, .. } => Self::Data(*length),
            Request::Readdir { .. } => Self::Names,
            Request::Realpath { .. }
            | Request::Readlink { .. }
            | Request::Extended(ExtendedRequest::ExpandPath { .. } | ExtendedRequest::HomeDirectory { .. }) => {
                Self::OneName
            }
            Request::Lstat { .. } | Request::Stat { .. } | Request::Fstat { .. } => Self::Attrs,
            Request::Extended(
                ExtendedRequest::Statvfs { .. }
                | ExtendedRequest::Fstatvfs { .. }
                | ExtendedRequest::Limits
                | ExtendedRequest::UsersGroupsById { .. }
                | ExtendedRequest::Unknown { .. },
            ) => Self::Extended,
            _ => Self::Status,
        }
    }

    /// A STATUS may answer anything. OK is not an answer to a question for something, but does no harm there.
    fn check(self, response: &Response) -> Result<(), SftpError> {
        match (self, response) {
            (_, Response::Status { .. })
            | (Self::Handle, Response::Handle { .. })
            | (Self::Names, Response::Name { .. })
            | (Self::Attrs, Response::Attrs { .. })
            | (Self::Extended, Response::ExtendedReply { .. }) => Ok(()),
            (Self::OneName, Response::Name { entries }) if entries.len() == 1 => Ok(()),
            (Self::Data(length), Response::Data { data }) => {
                let fits = u32::try_from(data.len()).is_ok_and(|got| got <= length);
                if fits { Ok(()) } else { Err(SftpError::Mismatch("more data than asked for")) }
            }
            _ => Err(SftpError::Mismatch("packet type")),
        }
    }
}

impl Reply {
    /// The answer as the server gave it.
    pub fn pass(self) -> Bytes {
        let Self { client_id, response, frame, .. } = self;
        drop(response);
        with_id(frame, client_id)
    }

    /// The answer with other data of the same length.
    ///
    /// # Errors
    /// [`SftpError::Replacement`] if this is not DATA or the length differs: the client counts on its offsets.
    pub fn masked_data(self, data: &[u8]) -> Result<Bytes, SftpError> {
        match &self.response {
            Response::Data { data: old } if old.len() == data.len() => {
                Ok(Response::Data { data: Bytes::copy_from_slice(data) }.encode(self.client_id))
            }
            _ => Err(SftpError::Replacement),
        }
    }

    /// The answer with other names and attributes; entries may be left out of a listing.
    ///
    /// # Errors
    /// [`SftpError::Replacement`] if this is not NAME, a single answer would lose its entry, or the frame would be too long.
    pub fn names(self, entries: Vec<NameEntry>) -> Result<Bytes, SftpError> {
        let Response::Name { entries: old } = &self.response else { return Err(SftpError::Replacement) };
        let listing = self.kind == FileKind::Readdir;
        if (!listing && entries.len() != 1) || entries.len() > old.len() {
            return Err(SftpError::Replacement);
        }
        let frame = Response::Name { entries }.encode(self.client_id);
        if frame.len() > MAX_FRAME_BYTES { Err(SftpError::Replacement) } else { Ok(frame) }
    }

    /// Another answer instead, for example a STATUS where the data may not be shown.
    ///
    /// An answer that opened a handle must not be replaced: the server's handle would stay open.
    ///
    /// # Errors
    /// [`SftpError::Replacement`] if this is HANDLE.
    pub fn replace(self, response: &Response) -> Result<Bytes, SftpError> {
        match self.response {
            Response::Handle { .. } => Err(SftpError::Replacement),
            _ => Ok(response.encode(self.client_id)),
        }
    }
}

/// Requests about paths wait until these are resolved: a slice would keep everything that came in the same buffer for so long. What is
/// about a handle goes on at once.
fn apart(frame: Bytes) -> Bytes {
    // Behind the length: CLOSE, READ and WRITE (draft section 3).
    let by_handle = matches!(frame.get(size_of::<u32>()), Some(4..=6));
    if by_handle { frame } else { Bytes::copy_from_slice(&frame) }
}

fn refusal(id: u32, code: StatusCode, message: &str) -> Bytes {
    Response::status(code, message).encode(id)
}
