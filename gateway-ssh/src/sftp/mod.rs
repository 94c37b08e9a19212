//! SFTP version 3 (draft-ietf-secsh-filexfer-02) as the gateway needs it: exact frames, who asked what, on which path.
//!
//! Nothing here does I/O or decides anything. Bytes go into a [`FrameDecoder`] per direction, frames into one [`Session`]:
//!
//! ```text
//! client bytes -> FrameDecoder -> Session::request  -> Asked::File(FileOperation): judge it, then
//!                                   Session::forward(operation) -> bytes for the server      or
//!                                   Session::refuse(operation, ..) -> bytes for the client
//! server bytes -> FrameDecoder -> Session::response -> Answered::Reply(Reply): mask it, then Reply::pass / masked_data / names
//!                                                   -> Answered::Own(id, response): the gateway's own question
//! ```
//!
//! Request ids toward the server are the gateway's; the client's are put back on the way out, so the gateway can ask `REALPATH` or
//! `LSTAT` in between ([`Session::ask`]) without the two ever meeting.
//!
//! **Paths are bytes**, never text. [`PathUse::path`] is absolute and lexically clean, but symbolic links may lead elsewhere:
//! ask the server ([`PathUse::question`]) and send the answer instead of what the client wrote
//! ([`FileOperation::replace_path`]); only a swap of a directory between the answer and the use then remains.

mod codec;
mod message;
mod operation;
mod path;
mod session;

use thiserror::Error;

pub use codec::FrameDecoder;
pub use message::{
    Attributes, ClientMessage, ExtendedRequest, NameEntry, OpenFlags, Request, Response, ServerMessage,
    StatusCode,
};
pub use operation::{FileAction, FileKind, FileOperation, PathUse};
pub(crate) use path::goes_back;
pub use path::{join, normalise, parent};
pub use session::{Answered, Asked, Limits, OwnId, Reply, Session};

/// Longest frame in bytes, without its length field: what OpenSSH takes (`SFTP_MAX_MSG_LENGTH`, 256 KiB) and 1 KiB for servers
/// that count the header apart.
pub const MAX_FRAME_BYTES: usize = 256 * 1024 + 1024;
/// Longest path in bytes: Linux's `PATH_MAX`.
pub const MAX_PATH_BYTES: usize = 4096;
/// Longest handle in bytes (draft section 6.3).
pub const MAX_HANDLE_BYTES: usize = 256;
/// Most pairs in a version packet; OpenSSH announces a dozen.
pub const MAX_EXTENSIONS: usize = 64;
/// Most entries in one NAME packet; OpenSSH sends 100.
pub const MAX_NAMES: usize = 4096;

/// The only version spoken.
pub const VERSION: u32 = 3;

/// Why bytes or frames are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SftpError {
    /// The length field is zero or over [`MAX_FRAME_BYTES`]. Nothing after it can be read.
    #[error("sftp frame of {0} bytes")]
    FrameLength(u32),
    /// More bytes were pushed than a decoder keeps; frames must be taken out first.
    #[error("too many sftp bytes waiting")]
    Buffered,
    /// A packet type that does not go in this direction, or is unknown.
    #[error("unexpected sftp packet type {0}")]
    Type(u8),
    /// A packet ends too early, goes on too long or holds a field over its limit. The id, if it could be read, lets the gateway
    /// answer instead of closing.
    #[error("malformed sftp packet: {what}")]
    Malformed {
        /// The request's id.
        id: Option<u32>,
        /// The field.
        what: &'static str,
    },
    /// A version other than 3.
    #[error("sftp version {0} is not supported")]
    Version(u32),
    /// INIT or VERSION twice, or anything else before them.
    #[error("sftp packet out of order")]
    Order,
    /// A request with the id of one that is not answered yet.
    #[error("sftp request id {0} is in use")]
    DuplicateId(u32),
    /// More requests unanswered than [`Limits::requests`].
    #[error("too many sftp requests outstanding")]
    Outstanding,
    /// An answer nobody asked for.
    #[error("sftp answer to unknown request {0}")]
    UnknownId(u32),
    /// An answer of a type the request cannot have, more data than asked for, or a handle that is in use.
    #[error("sftp answer does not fit its request: {0}")]
    Mismatch(&'static str),
    /// A replacement that must keep a length or count and does not.
    #[error("sftp replacement of another length")]
    Replacement,
}

impl SftpError {
    /// The request this can be answered on with a STATUS, if the connection may go on.
    pub const fn answerable(&self) -> Option<u32> {
        match self {
            Self::Malformed { id, .. } => *id,
            _ => None,
        }
    }
}
