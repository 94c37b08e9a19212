//! One client request as something to judge: what is done to which path.

use std::sync::Arc;

use bytes::Bytes;
use gateway_core::operation::{Effect, Facts};
use serde::{Deserialize, Serialize};

use super::message::{Attributes, ExtendedRequest, OpenFlags, Request};
use super::path::{join, parent};

/// What is done to one path. The names are those of serde and of [`FileAction::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAction {
    /// Reads content.
    Read,
    /// Writes content.
    Write,
    /// May create the file.
    Create,
    /// Empties the file.
    Truncate,
    /// Writes at the end.
    Append,
    /// Lists a directory.
    List,
    /// Reads attributes; the free space of a file system, too.
    Stat,
    /// Changes size, owner, mode or times.
    Setstat,
    /// Removes a file.
    Remove,
    /// Creates a directory.
    Mkdir,
    /// Removes a directory.
    Rmdir,
    /// Takes a name away (first path) or gives it (second path).
    Rename,
    /// As `Rename`, replacing what is there.
    Replace,
    /// Creates a symbolic link (the link's path) or is pointed at by one (the target).
    Symlink,
    /// Creates another name (second path) of a file (first path), which shares content and mode with it.
    Hardlink,
    /// Reads where a link points.
    Readlink,
    /// Asks for a path's real form.
    Resolve,
    /// Flushes to disk.
    Sync,
    /// Gives a handle back.
    Close,
}

impl FileAction {
    /// Its name in facts and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Truncate => "truncate",
            Self::Append => "append",
            Self::List => "list",
            Self::Stat => "stat",
            Self::Setstat => "setstat",
            Self::Remove => "remove",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
            Self::Rename => "rename",
            Self::Replace => "replace",
            Self::Symlink => "symlink",
            Self::Hardlink => "hardlink",
            Self::Readlink => "readlink",
            Self::Resolve => "resolve",
            Self::Sync => "sync",
            Self::Close => "close",
        }
    }

    /// Whether it changes nothing.
    pub const fn is_read(self) -> bool {
        matches!(
            self,
            Self::Read | Self::List | Self::Stat | Self::Readlink | Self::Resolve | Self::Sync | Self::Close
        )
    }
}

/// The request's kind, for the operation's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum FileKind {
    Open,
    Close,
    Read,
    Write,
    Lstat,
    Fstat,
    Setstat,
    Fsetstat,
    Opendir,
    Readdir,
    Remove,
    Mkdir,
    Rmdir,
    Realpath,
    Stat,
    Rename,
    Readlink,
    Symlink,
    PosixRename,
    Statvfs,
    Fstatvfs,
    Hardlink,
    Fsync,
    Lsetstat,
    Limits,
    ExpandPath,
    CopyData,
    HomeDirectory,
    UsersGroupsById,
    /// An extension that is not known: what it does cannot be told. Refuse it.
    UnknownExtension,
}

impl FileKind {
    /// Its name in operations and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Read => "read",
            Self::Write => "write",
            Self::Lstat => "lstat",
            Self::Fstat => "fstat",
            Self::Setstat => "setstat",
            Self::Fsetstat => "fsetstat",
            Self::Opendir => "opendir",
            Self::Readdir => "readdir",
            Self::Remove => "remove",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
            Self::Realpath => "realpath",
            Self::Stat => "stat",
            Self::Rename => "rename",
            Self::Readlink => "readlink",
            Self::Symlink => "symlink",
            Self::PosixRename => "posix_rename",
            Self::Statvfs => "statvfs",
            Self::Fstatvfs => "fstatvfs",
            Self::Hardlink => "hardlink",
            Self::Fsync => "fsync",
            Self::Lsetstat => "lsetstat",
            Self::Limits => "limits",
            Self::ExpandPath => "expand_path",
            Self::CopyData => "copy_data",
            Self::HomeDirectory => "home_directory",
            Self::UsersGroupsById => "users_groups_by_id",
            Self::UnknownExtension => "unknown_extension",
        }
    }

    pub(super) const fn of(request: &Request) -> Self {
        match request {
            Request::Open { .. } => Self::Open,
            Request::Close { .. } => Self::Close,
            Request::Read { .. } => Self::Read,
            Request::Write { .. } => Self::Write,
            Request::Lstat { .. } => Self::Lstat,
            Request::Fstat { .. } => Self::Fstat,
            Request::Setstat { .. } => Self::Setstat,
            Request::Fsetstat { .. } => Self::Fsetstat,
            Request::Opendir { .. } => Self::Opendir,
            Request::Readdir { .. } => Self::Readdir,
            Request::Remove { .. } => Self::Remove,
            Request::Mkdir { .. } => Self::Mkdir,
            Request::Rmdir { .. } => Self::Rmdir,
            Request::Realpath { .. } => Self::Realpath,
            Request::Stat { .. } => Self::Stat,
            Request::Rename { .. } => Self::Rename,
            Request::Readlink { .. } => Self::Readlink,
            Request::Symlink { .. } => Self::Symlink,
            Request::Extended(extended) => Self::of_extended(extended),
        }
    }

    const fn of_extended(request: &ExtendedRequest) -> Self {
        match request {
            ExtendedRequest::PosixRename { .. } => Self::PosixRename,
            ExtendedRequest::Statvfs { .. } => Self::Statvfs,
            ExtendedRequest::Fstatvfs { .. } => Self::Fstatvfs,
            ExtendedRequest::Hardlink { .. } => Self::Hardlink,
            ExtendedRequest::Fsync { .. } => Self::Fsync,
            ExtendedRequest::Lsetstat { .. } => Self::Lsetstat,
            ExtendedRequest::Limits => Self::Limits,
            ExtendedRequest::ExpandPath { .. } => Self::ExpandPath,
            ExtendedRequest::CopyData { .. } => Self::CopyData,
            ExtendedRequest::HomeDirectory { .. } => Self::HomeDirectory,
            ExtendedRequest::UsersGroupsById { .. } => Self::UsersGroupsById,
            ExtendedRequest::Unknown { .. } => Self::UnknownExtension,
        }
    }
}

/// One path a request touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathUse {
    /// Absolute and lexically clean. `None` if it was sent relative (or with `~`) and cannot be made absolute here: refuse or
    /// ask the server.
    pub path: Option<Arc<[u8]>>,
    /// As the client sent it; for requests on handles, as the handle was opened.
    pub given: Bytes,
    /// What is done to it.
    pub actions: Vec<FileAction>,
    /// Whether the server follows a symbolic link in the last component. If not, the operation is on the link itself.
    pub follows_link: bool,
    /// Whether the path comes from an open handle: it was judged when the handle was opened and may be renamed since.
    pub by_handle: bool,
}

impl PathUse {
    /// What to ask REALPATH for: the path if its last link is followed, else its directory. `None` if it is not absolute.
    ///
    /// A server's REALPATH fails where a directory is missing; then the operation will fail as well.
    pub fn question(&self) -> Option<Bytes> {
        let path = self.path.as_deref()?;
        Some(Bytes::copy_from_slice(if self.follows_link { path } else { parent(path) }))
    }

    /// The real path, from the server's answer to [`Self::question`].
    pub fn real(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let path = self.path.as_deref()?;
        // The root is its own directory and has no name to put behind the answer.
        if self.follows_link || path == b"/" { Some(answer.to_vec()) } else { Some(join(answer, path)) }
    }
}

/// A request that waits for a verdict. It is sent with the paths the client wrote unless they are pinned
/// ([`Self::pin_paths`]) or replaced by the real ones ([`Self::replace_path`]).
///
/// Do not drop it: its id stays taken and the client waits for ever. Refuse it instead.
#[derive(Debug)]
#[must_use = "forward or refuse it"]
pub struct FileOperation {
    pub(super) client_id: u32,
    pub(super) request: Request,
    pub(super) frame: Bytes,
    pub(super) changed: bool,
    paths: Vec<PathUse>,
}

impl FileOperation {
    pub(super) const fn new(client_id: u32, request: Request, frame: Bytes, paths: Vec<PathUse>) -> Self {
        Self { client_id, request, frame, changed: false, paths }
    }

    /// The client's id for it.
    pub const fn client_id(&self) -> u32 {
        self.client_id
    }

    /// Its kind.
    pub const fn kind(&self) -> FileKind {
        FileKind::of(&self.request)
    }

    /// The request itself.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// The frame as the client sent it, length field included.
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Every path it touches. For two-path requests the source comes first.
    pub fn paths(&self) -> &[PathUse] {
        &self.paths
    }

    /// `Read` if no path is changed and the request is known.
    pub fn effect(&self) -> Effect {
        let reads = self.paths.iter().flat_map(|path| &path.actions).all(|action| action.is_read());
        if reads && self.kind() != FileKind::UnknownExtension { Effect::Read } else { Effect::Write }
    }

    /// Whether a path may lead elsewhere, or nowhere, or somewhere at last, once this is done.
    pub fn changes_names(&self) -> bool {
        match self.kind() {
            FileKind::Rename
            | FileKind::PosixRename
            | FileKind::Symlink
            | FileKind::Hardlink
            | FileKind::Remove
            | FileKind::Rmdir
            | FileKind::Mkdir
            | FileKind::Setstat
            | FileKind::Lsetstat
            | FileKind::UnknownExtension => true,
            FileKind::Open => {
                matches!(&self.request, Request::Open { flags, .. } if flags.create())
            }
            _ => false,
        }
    }

    /// Sends another path than the client's: the real one, as judged. `index` is that of [`Self::paths`]; paths of handles and the target
    /// text of a symbolic link cannot be replaced. Gives whether it was.
    pub fn replace_path(&mut self, index: usize, path: &[u8]) -> bool {
        let replaceable = self.paths.get(index).is_some_and(|path| !path.by_handle);
        let place = path_fields(&mut self.request).into_iter().nth(index).flatten();
        let (true, Some(place)) = (replaceable, place) else { return false };
        *place = Bytes::copy_from_slice(path);
        if let Some(entry) = self.paths.get_mut(index) {
            entry.path = Some(path.into());
        }
        self.changed = true;
        true
    }

    /// Has the target text of a symbolic link judged as what it leads to: the text itself stays as the client wrote it.
    pub fn leads_to(&mut self, index: usize, path: &[u8]) {
        if let Some(entry) = self.paths.get_mut(index).filter(|entry| !entry.by_handle) {
            entry.path = Some(path.into());
        }
    }

    /// Sends every path in its absolute, clean form, so that what was judged is what the server gets. Paths of handles and symbolic
    /// links' targets stay. False if a path is not absolute: refuse.
    pub fn pin_paths(&mut self) -> bool {
        for index in 0..self.paths.len() {
            let Some(path) = self.paths.get(index).and_then(|path| path.path.clone()) else { return false };
            self.replace_path(index, &path);
        }
        true
    }

    /// Facts for policy, those that apply: `kind`, `actions` (set), `by_handle`, `absolute` (Bool: all paths are known), `offset`,
    /// `length`, `size` (Long), `mode` (String, octal), `executable`, `set_id` (Bool), `owner` (String `uid:gid`), `times` (Bool),
    /// `exclusive` (Bool), `extension` (String).
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let actions =
            self.paths.iter().flat_map(|path| &path.actions).map(|action| action.as_str().to_owned());
        facts.insert("kind".into(), self.kind().as_str().into());
        facts.insert("actions".into(), actions.collect());
        facts.insert("by_handle".into(), self.paths.iter().any(|path| path.by_handle).into());
        facts.insert("absolute".into(), self.paths.iter().all(|path| path.path.is_some()).into());
        self.request_facts(&mut facts);
        facts
    }

    fn request_facts(&self, facts: &mut Facts) {
        match &self.request {
            Request::Open { flags, attributes, .. } => {
                facts.insert("exclusive".into(), flags.exclusive().into());
                attribute_facts(attributes, facts);
            }
            Request::Read { offset, length, .. } => {
                facts.insert("offset".into(), long(*offset));
                facts.insert("length".into(), i64::from(*length).into());
            }
            Request::Write { offset, data, .. } => {
                facts.insert("offset".into(), long(*offset));
                facts.insert("length".into(), long(u64::try_from(data.len()).unwrap_or(u64::MAX)));
            }
            Request::Extended(ExtendedRequest::CopyData { from_offset, length, .. }) => {
                facts.insert("offset".into(), long(*from_offset));
                facts.insert("length".into(), long(*length));
            }
            Request::Setstat { attributes, .. }
            | Request::Fsetstat { attributes, .. }
            | Request::Mkdir { attributes, .. }
            | Request::Extended(ExtendedRequest::Lsetstat { attributes, .. }) => {
                attribute_facts(attributes, facts)
            }
            Request::Extended(ExtendedRequest::Unknown { name, .. }) => {
                facts.insert("extension".into(), name.escape_ascii().to_string().into());
            }
            _ => {}
        }
    }
}

/// The largest numbers of the wire do not fit policy's; they count as the largest there.
fn long(value: u64) -> gateway_core::operation::Fact {
    i64::try_from(value).unwrap_or(i64::MAX).into()
}

fn attribute_facts(attributes: &Attributes, facts: &mut Facts) {
    if let Some(size) = attributes.size {
        facts.insert("size".into(), long(size));
    }
    if let Some(mode) = attributes.permissions {
        facts.insert("mode".into(), format!("{:04o}", mode & 0o7777).into());
        facts.insert("executable".into(), (mode & 0o111 != 0).into());
        facts.insert("set_id".into(), (mode & 0o6000 != 0).into());
    }
    if let Some((uid, gid)) = attributes.owner {
        facts.insert("owner".into(), format!("{uid}:{gid}").into());
    }
    if attributes.times.is_some() {
        facts.insert("times".into(), true.into());
    }
}

/// The path fields of a request in the order of [`FileOperation::paths`]; `None` where the text must stay.
fn path_fields(request: &mut Request) -> Vec<Option<&mut Bytes>> {
    match request {
        Request::Open { path, .. }
        | Request::Lstat { path }
        | Request::Setstat { path, .. }
        | Request::Opendir { path }
        | Request::Remove { path }
        | Request::Mkdir { path, .. }
        | Request::Rmdir { path }
        | Request::Realpath { path }
        | Request::Stat { path }
        | Request::Readlink { path }
        | Request::Extended(
            ExtendedRequest::Statvfs { path }
            | ExtendedRequest::Lsetstat { path, .. }
            | ExtendedRequest::ExpandPath { path },
        ) => vec![Some(path)],
        Request::Rename { from: first, to: second }
        | Request::Extended(
            ExtendedRequest::PosixRename { from: first, to: second }
            | ExtendedRequest::Hardlink { existing: first, link: second },
        ) => vec![Some(first), Some(second)],
        Request::Symlink { link, .. } => vec![None, Some(link)],
        _ => Vec::new(),
    }
}

/// What opening with these flags does, and with these attributes.
pub(super) fn open_actions(flags: OpenFlags) -> Vec<FileAction> {
    let mut actions = Vec::new();
    // The server opens read-only if neither bit is set (OpenSSH sftp-server.c, flags_from_portable).
    if flags.read() || !flags.write() {
        actions.push(FileAction::Read);
    }
    for (set, action) in [
        (flags.write(), FileAction::Write),
        (flags.append(), FileAction::Append),
        (flags.create(), FileAction::Create),
        (flags.truncate(), FileAction::Truncate),
    ] {
        if set {
            actions.push(action);
        }
    }
    actions
}
