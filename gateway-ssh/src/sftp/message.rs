//! The packets of version 3 and of OpenSSH's extensions (OpenSSH `PROTOCOL`, section 4).

use bytes::Bytes;

use super::codec::{Reader, Writer};
use super::{MAX_EXTENSIONS, MAX_FRAME_BYTES, MAX_NAMES, SftpError};

/// Longest extension name or other short text, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// Most extended attributes of one file: version 3 names none, and requests that wait keep them.
const MAX_PAIRS: usize = 8;

/// A packet from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// SSH_FXP_INIT. Extension data in it is ignored, as servers do.
    Init {
        /// The highest version the client speaks.
        version: u32,
    },
    /// Everything else carries an id.
    Request(u32, Request),
}

/// What a client asks for (draft section 6).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields have the names of the protocol")]
pub enum Request {
    /// SSH_FXP_OPEN
    Open { path: Bytes, flags: OpenFlags, attributes: Attributes },
    /// SSH_FXP_CLOSE
    Close { handle: Bytes },
    /// SSH_FXP_READ
    Read { handle: Bytes, offset: u64, length: u32 },
    /// SSH_FXP_WRITE
    Write { handle: Bytes, offset: u64, data: Bytes },
    /// SSH_FXP_LSTAT
    Lstat { path: Bytes },
    /// SSH_FXP_FSTAT
    Fstat { handle: Bytes },
    /// SSH_FXP_SETSTAT
    Setstat { path: Bytes, attributes: Attributes },
    /// SSH_FXP_FSETSTAT
    Fsetstat { handle: Bytes, attributes: Attributes },
    /// SSH_FXP_OPENDIR
    Opendir { path: Bytes },
    /// SSH_FXP_READDIR
    Readdir { handle: Bytes },
    /// SSH_FXP_REMOVE
    Remove { path: Bytes },
    /// SSH_FXP_MKDIR
    Mkdir { path: Bytes, attributes: Attributes },
    /// SSH_FXP_RMDIR
    Rmdir { path: Bytes },
    /// SSH_FXP_REALPATH
    Realpath { path: Bytes },
    /// SSH_FXP_STAT
    Stat { path: Bytes },
    /// SSH_FXP_RENAME
    Rename { from: Bytes, to: Bytes },
    /// SSH_FXP_READLINK
    Readlink { path: Bytes },
    /// SSH_FXP_SYMLINK in the order of OpenSSH, which is not the draft's: `target` first (OpenSSH `PROTOCOL`, section 4.1).
    Symlink { target: Bytes, link: Bytes },
    /// SSH_FXP_EXTENDED
    Extended(ExtendedRequest),
}

/// Extended requests that OpenSSH knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields have the names of the protocol")]
pub enum ExtendedRequest {
    /// `posix-rename@openssh.com`: replaces an existing target.
    PosixRename { from: Bytes, to: Bytes },
    /// `statvfs@openssh.com`
    Statvfs { path: Bytes },
    /// `fstatvfs@openssh.com`
    Fstatvfs { handle: Bytes },
    /// `hardlink@openssh.com`
    Hardlink { existing: Bytes, link: Bytes },
    /// `fsync@openssh.com`
    Fsync { handle: Bytes },
    /// `lsetstat@openssh.com`
    Lsetstat { path: Bytes, attributes: Attributes },
    /// `limits@openssh.com`
    Limits,
    /// `expand-path@openssh.com`: REALPATH that knows `~`.
    ExpandPath { path: Bytes },
    /// `copy-data`: the server copies between two open files.
    CopyData { from: Bytes, from_offset: u64, length: u64, to: Bytes, to_offset: u64 },
    /// `home-directory`
    HomeDirectory { user: Bytes },
    /// `users-groups-by-id@openssh.com`: packed numbers.
    UsersGroupsById { users: Bytes, groups: Bytes },
    /// Any other.
    Unknown { name: Bytes, data: Bytes },
}

/// A packet from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// SSH_FXP_VERSION with the extensions (name, data) it announces.
    Version {
        /// The version from here on.
        version: u32,
        /// Name and data of each extension.
        extensions: Vec<(Bytes, Bytes)>,
    },
    /// Everything else carries an id.
    Response(u32, Response),
}

/// What a server answers (draft section 7).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields have the names of the protocol")]
pub enum Response {
    /// SSH_FXP_STATUS
    Status { code: StatusCode, message: Bytes, language: Bytes },
    /// SSH_FXP_HANDLE
    Handle { handle: Bytes },
    /// SSH_FXP_DATA
    Data { data: Bytes },
    /// SSH_FXP_NAME
    Name { entries: Vec<NameEntry> },
    /// SSH_FXP_ATTRS
    Attrs { attributes: Attributes },
    /// SSH_FXP_EXTENDED_REPLY
    ExtendedReply { data: Bytes },
}

/// A status code (draft section 7). Servers of other versions send higher ones; they pass as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(pub u32);

impl StatusCode {
    /// SSH_FX_OK
    pub const OK: Self = Self(0);
    /// SSH_FX_EOF
    pub const EOF: Self = Self(1);
    /// SSH_FX_NO_SUCH_FILE
    pub const NO_SUCH_FILE: Self = Self(2);
    /// SSH_FX_PERMISSION_DENIED
    pub const PERMISSION_DENIED: Self = Self(3);
    /// SSH_FX_FAILURE
    pub const FAILURE: Self = Self(4);
    /// SSH_FX_BAD_MESSAGE
    pub const BAD_MESSAGE: Self = Self(5);
    /// SSH_FX_OP_UNSUPPORTED
    pub const OP_UNSUPPORTED: Self = Self(8);
}

/// The flags of SSH_FXP_OPEN (draft section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// Every bit that version 3 defines.
    const KNOWN: u32 = 0x3f;

    /// SSH_FXF_READ
    pub const fn read(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// SSH_FXF_WRITE
    pub const fn write(self) -> bool {
        self.0 & 0x02 != 0
    }

    /// SSH_FXF_APPEND
    pub const fn append(self) -> bool {
        self.0 & 0x04 != 0
    }

    /// SSH_FXF_CREAT
    pub const fn create(self) -> bool {
        self.0 & 0x08 != 0
    }

    /// SSH_FXF_TRUNC
    pub const fn truncate(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// SSH_FXF_EXCL
    pub const fn exclusive(self) -> bool {
        self.0 & 0x20 != 0
    }
}

/// File attributes (draft section 5); a field that is `None` was not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bytes; in SETSTAT, truncates or extends.
    pub size: Option<u64>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Mode bits, the file type included.
    pub permissions: Option<u32>,
    /// Access and modification time, seconds since 1970.
    pub times: Option<(u32, u32)>,
    /// Extended pairs (type, data).
    pub extended: Vec<(Bytes, Bytes)>,
}

/// One entry of a NAME packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// The file name: relative in listings, absolute in answers to REALPATH.
    pub filename: Bytes,
    /// A line like that of `ls -l`, for people.
    pub longname: Bytes,
    /// Its attributes.
    pub attributes: Attributes,
}

impl ClientMessage {
    /// Reads a frame from the client.
    ///
    /// # Errors
    /// [`SftpError::Type`], [`SftpError::Malformed`].
    pub fn decode(frame: &Bytes) -> Result<Self, SftpError> {
        let mut reader = Reader::new(frame)?;
        let kind = reader.u8("type")?;
        if kind == 1 {
            return Ok(Self::Init { version: reader.u32("version")? });
        }
        if !matches!(kind, 3..=20 | 200) {
            return Err(SftpError::Type(kind));
        }
        let id = reader.id()?;
        let request = Request::read(kind, &mut reader)?;
        reader.end()?;
        Ok(Self::Request(id, request))
    }

    /// Writes the frame.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Init { version } => {
                let mut writer = Writer::new(1);
                writer.u32(*version);
                writer.finish()
            }
            Self::Request(id, request) => request.encode(*id),
        }
    }
}

impl Request {
    fn read(kind: u8, r: &mut Reader) -> Result<Self, SftpError> {
        Ok(match kind {
            3 => Self::Open { path: r.path()?, flags: open_flags(r)?, attributes: Attributes::read(r)? },
            4 => Self::Close { handle: r.handle()? },
            5 => Self::Read { handle: r.handle()?, offset: r.u64("offset")?, length: r.u32("length")? },
            6 => Self::Write {
                handle: r.handle()?,
                offset: r.u64("offset")?,
                data: r.string(MAX_FRAME_BYTES, "data")?,
            },
            7 => Self::Lstat { path: r.path()? },
            8 => Self::Fstat { handle: r.handle()? },
            9 => Self::Setstat { path: r.path()?, attributes: Attributes::read(r)? },
            10 => Self::Fsetstat { handle: r.handle()?, attributes: Attributes::read(r)? },
            11 => Self::Opendir { path: r.path()? },
            12 => Self::Readdir { handle: r.handle()? },
            13 => Self::Remove { path: r.path()? },
            14 => Self::Mkdir { path: r.path()?, attributes: Attributes::read(r)? },
            15 => Self::Rmdir { path: r.path()? },
            16 => Self::Realpath { path: r.path()? },
            17 => Self::Stat { path: r.path()? },
            18 => Self::Rename { from: r.path()?, to: r.path()? },
            19 => Self::Readlink { path: r.path()? },
            20 => Self::Symlink { target: r.path()?, link: r.path()? },
            200 => Self::Extended(ExtendedRequest::read(r)?),
            other => return Err(SftpError::Type(other)),
        })
    }

    /// Writes the frame with this id.
    pub fn encode(&self, id: u32) -> Bytes {
        let mut writer = Writer::new(self.packet_type());
        writer.u32(id);
        self.write(&mut writer);
        writer.finish()
    }

    const fn packet_type(&self) -> u8 {
        match self {
            Self::Open { .. } => 3,
            Self::Close { .. } => 4,
            Self::Read { .. } => 5,
            Self::Write { .. } => 6,
            Self::Lstat { .. } => 7,
            Self::Fstat { .. } => 8,
            Self::Setstat { .. } => 9,
            Self::Fsetstat { .. } => 10,
            Self::Opendir { .. } => 11,
            Self::Readdir { .. } => 12,
            Self::Remove { .. } => 13,
            Self::Mkdir { .. } => 14,
            Self::Rmdir { .. } => 15,
            Self::Realpath { .. } => 16,
            Self::Stat { .. } => 17,
            Self::Rename { .. } => 18,
            Self::Readlink { .. } => 19,
            Self::Symlink { .. } => 20,
            Self::Extended(_) => 200,
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::Open { path, flags, attributes } => attributes.write(w.string(path).u32(flags.0)),
            Self::Read { handle, offset, length } => {
                w.string(handle).u64(*offset).u32(*length);
            }
            Self::Write { handle, offset, data } => {
                w.string(handle).u64(*offset).string(data);
            }
            Self::Setstat { path, attributes } | Self::Mkdir { path, attributes } => {
                attributes.write(w.string(path))
            }
            Self::Fsetstat { handle, attributes } => attributes.write(w.string(handle)),
            Self::Rename { from: first, to: second } | Self::Symlink { target: first, link: second } => {
                w.string(first).string(second);
            }
            Self::Close { handle: only }
            | Self::Fstat { handle: only }
            | Self::Readdir { handle: only }
            | Self::Lstat { path: only }
            | Self::Opendir { path: only }
            | Self::Remove { path: only }
            | Self::Rmdir { path: only }
            | Self::Realpath { path: only }
            | Self::Stat { path: only }
            | Self::Readlink { path: only } => {
                w.string(only);
            }
            Self::Extended(extended) => extended.write(w),
        }
    }
}

impl ExtendedRequest {
    fn read(r: &mut Reader) -> Result<Self, SftpError> {
        let name = r.string(MAX_TEXT_BYTES, "extension")?;
        Ok(match &name[..] {
            b"posix-rename@openssh.com" => Self::PosixRename { from: r.path()?, to: r.path()? },
            b"statvfs@openssh.com" => Self::Statvfs { path: r.path()? },
            b"fstatvfs@openssh.com" => Self::Fstatvfs { handle: r.handle()? },
            b"hardlink@openssh.com" => Self::Hardlink { existing: r.path()?, link: r.path()? },
            b"fsync@openssh.com" => Self::Fsync { handle: r.handle()? },
            b"lsetstat@openssh.com" => Self::Lsetstat { path: r.path()?, attributes: Attributes::read(r)? },
            b"limits@openssh.com" => Self::Limits,
            b"expand-path@openssh.com" => Self::ExpandPath { path: r.path()? },
            b"copy-data" => Self::CopyData {
                from: r.handle()?,
                from_offset: r.u64("offset")?,
                length: r.u64("length")?,
                to: r.handle()?,
                to_offset: r.u64("offset")?,
            },
            b"home-directory" => Self::HomeDirectory { user: r.string(MAX_TEXT_BYTES, "user")? },
            b"users-groups-by-id@openssh.com" => Self::UsersGroupsById {
                users: r.string(MAX_FRAME_BYTES, "users")?,
                groups: r.string(MAX_FRAME_BYTES, "groups")?,
            },
            _ => Self::Unknown { data: r.remainder(), name },
        })
    }

    /// The extension's name on the wire.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::PosixRename { .. } => b"posix-rename@openssh.com",
            Self::Statvfs { .. } => b"statvfs@openssh.com",
            Self::Fstatvfs { .. } => b"fstatvfs@openssh.com",
            Self::Hardlink { .. } => b"hardlink@openssh.com",
            Self::Fsync { .. } => b"fsync@openssh.com",
            Self::Lsetstat { .. } => b"lsetstat@openssh.com",
            Self::Limits => b"limits@openssh.com",
            Self::ExpandPath { .. } => b"expand-path@openssh.com",
            Self::CopyData { .. } => b"copy-data",
            Self::HomeDirectory { .. } => b"home-directory",
            Self::UsersGroupsById { .. } => b"users-groups-by-id@openssh.com",
            Self::Unknown { name, .. } => name,
        }
    }

    fn write(&self, w: &mut Writer) {
        w.string(self.name());
        match self {
            Self::PosixRename { from: first, to: second }
            | Self::Hardlink { existing: first, link: second }
            | Self::UsersGroupsById { users: first, groups: second } => {
                w.string(first).string(second);
            }
            Self::Statvfs { path: only }
            | Self::ExpandPath { path: only }
            | Self::Fstatvfs { handle: only }
            | Self::Fsync { handle: only }
            | Self::HomeDirectory { user: only } => {
                w.string(only);
            }
            Self::Lsetstat { path, attributes } => attributes.write(w.string(path)),
            Self::CopyData { from, from_offset, length, to, to_offset } => {
                w.string(from).u64(*from_offset).u64(*length).string(to).u64(*to_offset);
            }
            Self::Limits => {}
            Self::Unknown { data, .. } => {
                w.bytes(data);
            }
        }
    }
}

impl ServerMessage {
    /// Reads a frame from the server.
    ///
    /// # Errors
    /// [`SftpError::Type`], [`SftpError::Malformed`].
    pub fn decode(frame: &Bytes) -> Result<Self, SftpError> {
        let mut reader = Reader::new(frame)?;
        let kind = reader.u8("type")?;
        if kind == 2 {
            return Self::version(&mut reader);
        }
        if !matches!(kind, 101..=105 | 201) {
            return Err(SftpError::Type(kind));
        }
        let id = reader.id()?;
        let response = Response::read(kind, &mut reader)?;
        reader.end()?;
        Ok(Self::Response(id, response))
    }

    fn version(reader: &mut Reader) -> Result<Self, SftpError> {
        let version = reader.u32("version")?;
        let mut extensions = Vec::new();
        while !reader.is_empty() {
            if extensions.len() >= MAX_EXTENSIONS {
                return Err(reader.error("extensions"));
            }
            extensions.push((
                reader.string(MAX_TEXT_BYTES, "extension")?,
                reader.string(MAX_TEXT_BYTES, "extension")?,
            ));
        }
        Ok(Self::Version { version, extensions })
    }

    /// Writes the frame.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Version { version, extensions } => {
                let mut writer = Writer::new(2);
                writer.u32(*version);
                for (name, data) in extensions {
                    writer.string(name).string(data);
                }
                writer.finish()
            }
            Self::Response(id, response) => response.encode(*id),
        }
    }
}

impl Response {
    /// A STATUS in English (RFC 3066 tag `en`). `message` is cut to 1 KiB; write it for the person at the client.
    pub fn status(code: StatusCode, message: &str) -> Self {
        let end = message.floor_char_boundary(MAX_TEXT_BYTES);
        let message = message.get(..end).unwrap_or_default();
        Self::Status {
            code,
            message: Bytes::copy_from_slice(message.as_bytes()),
            language: Bytes::from_static(b"en"),
        }
    }

    fn read(kind: u8, r: &mut Reader) -> Result<Self, SftpError> {
        Ok(match kind {
            101 => Self::read_status(r)?,
            102 => Self::Handle { handle: r.handle()? },
            103 => Self::Data { data: r.string(MAX_FRAME_BYTES, "data")? },
            104 => Self::Name { entries: read_names(r)? },
            105 => Self::Attrs { attributes: Attributes::read(r)? },
            201 => Self::ExtendedReply { data: r.remainder() },
            other => return Err(SftpError::Type(other)),
        })
    }

    /// Message and language are missing from servers that implement versions before 3 (draft section 7 adds them).
    fn read_status(r: &mut Reader) -> Result<Self, SftpError> {
        let code = StatusCode(r.u32("status")?);
        if r.is_empty() {
            return Ok(Self::Status { code, message: Bytes::new(), language: Bytes::new() });
        }
        let message = r.string(MAX_FRAME_BYTES, "message")?;
        let language = r.string(MAX_TEXT_BYTES, "language")?;
        Ok(Self::Status { code, message, language })
    }

    /// Writes the frame with this id.
    pub fn encode(&self, id: u32) -> Bytes {
        let mut writer = Writer::new(self.packet_type());
        writer.u32(id);
        match self {
            Self::Status { code, message, language } => {
                writer.u32(code.0).string(message).string(language);
            }
            Self::Handle { handle: only } | Self::Data { data: only } => {
                writer.string(only);
            }
            Self::Name { entries } => write_names(entries, &mut writer),
            Self::Attrs { attributes } => attributes.write(&mut writer),
            Self::ExtendedReply { data } => {
                writer.bytes(data);
            }
        }
        writer.finish()
    }

    const fn packet_type(&self) -> u8 {
        match self {
            Self::Status { .. } => 101,
            Self::Handle { .. } => 102,
            Self::Data { .. } => 103,
            Self::Name { .. } => 104,
            Self::Attrs { .. } => 105,
            Self::ExtendedReply { .. } => 201,
        }
    }
}

fn open_flags(r: &mut Reader) -> Result<OpenFlags, SftpError> {
    let flags = r.u32("flags")?;
    if flags & !OpenFlags::KNOWN == 0 { Ok(OpenFlags(flags)) } else { Err(r.error("open flags")) }
}

fn read_names(r: &mut Reader) -> Result<Vec<NameEntry>, SftpError> {
    let count = usize::try_from(r.u32("count")?).unwrap_or(usize::MAX);
    if count > MAX_NAMES {
        return Err(r.error("count"));
    }
    (0..count)
        .map(|_| {
            Ok(NameEntry {
                filename: r.path()?,
                longname: r.string(MAX_FRAME_BYTES, "longname")?,
                attributes: Attributes::read(r)?,
            })
        })
        .collect()
}

fn write_names(entries: &[NameEntry], w: &mut Writer) {
    w.u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    for entry in entries {
        w.string(&entry.filename).string(&entry.longname);
        entry.attributes.write(w);
    }
}

impl Attributes {
    const SIZE: u32 = 0x1;
    const OWNER: u32 = 0x2;
    const PERMISSIONS: u32 = 0x4;
    const TIMES: u32 = 0x8;
    const EXTENDED: u32 = 0x8000_0000;
    const KNOWN: u32 = Self::SIZE | Self::OWNER | Self::PERMISSIONS | Self::TIMES | Self::EXTENDED;

    /// Whether nothing is set.
    pub const fn is_empty(&self) -> bool {
        self.flags() == 0
    }

    fn read(r: &mut Reader) -> Result<Self, SftpError> {
        let flags = r.u32("attributes")?;
        if flags & !Self::KNOWN != 0 {
            return Err(r.error("attribute flags"));
        }
        let has = |flag| flags & flag != 0;
        let mut out = Self::default();
        if has(Self::SIZE) {
            out.size = Some(r.u64("size")?);
        }
        if has(Self::OWNER) {
            out.owner = Some((r.u32("uid")?, r.u32("gid")?));
        }
        if has(Self::PERMISSIONS) {
            out.permissions = Some(r.u32("permissions")?);
        }
        if has(Self::TIMES) {
            out.times = Some((r.u32("atime")?, r.u32("mtime")?));
        }
        if has(Self::EXTENDED) {
            out.extended = read_pairs(r)?;
        }
        Ok(out)
    }

    const fn flags(&self) -> u32 {
        let mut flags = 0;
        if self.size.is_some() {
            flags |= Self::SIZE;
        }
        if self.owner.is_some() {
            flags |= Self::OWNER;
        }
        if self.permissions.is_some() {
            flags |= Self::PERMISSIONS;
        }
        if self.times.is_some() {
            flags |= Self::TIMES;
        }
        if !self.extended.is_empty() {
            flags |= Self::EXTENDED;
        }
        flags
    }

    fn write(&self, w: &mut Writer) {
        w.u32(self.flags());
        if let Some(size) = self.size {
            w.u64(size);
        }
        if let Some((uid, gid)) = self.owner {
            w.u32(uid).u32(gid);
        }
        if let Some(permissions) = self.permissions {
            w.u32(permissions);
        }
        if let Some((accessed, modified)) = self.times {
            w.u32(accessed).u32(modified);
        }
        if !self.extended.is_empty() {
            w.u32(u32::try_from(self.extended.len()).unwrap_or(u32::MAX));
            for (kind, data) in &self.extended {
                w.string(kind).string(data);
            }
        }
    }
}

fn read_pairs(r: &mut Reader) -> Result<Vec<(Bytes, Bytes)>, SftpError> {
    let count = usize::try_from(r.u32("extended count")?).unwrap_or(usize::MAX);
    if count > MAX_PAIRS {
        return Err(r.error("extended count"));
    }
    (0..count)
        .map(|_| Ok((r.string(MAX_TEXT_BYTES, "extended")?, r.string(MAX_TEXT_BYTES, "extended")?)))
        .collect()
}
