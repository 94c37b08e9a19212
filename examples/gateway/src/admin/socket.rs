//! The socket file: in a folder of the gateway's user alone, and never a second gateway's.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// A listening socket, whose file goes with it.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl AdminSocket {
    /// Listens at `path`, in a folder that is made if need be and must be closed to everybody else.
    pub(crate) async fn bind(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder =
            folder.ok_or_else(|| other("the socket needs a folder of its own; name one in its path"))?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        check_folder(folder)?;
        remove_stale(path).await?;
        let listener = UnixListener::bind(path)?;
        // The folder has kept everybody out since before the file was made.
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let owner = std::fs::metadata(path)?.uid();
        Ok(Self { listener, path: path.to_owned(), owner })
    }

    /// The next reviewer's connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept().await?;
        // The permissions say so already; asking the kernel costs nothing. Root may read everything anyway.
        let peer = stream.peer_cred()?.uid();
        if peer != self.owner && peer != 0 {
            return Err(other(&format!("user {peer} is not the gateway's user")));
        }
        Ok(stream)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // What stays is recognised as stale at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn check_folder(folder: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(folder)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let folder = folder.display();
    Err(other(&format!("others may enter `{folder}` (mode {mode:04o}); run `chmod 700 {folder}`")))
}

/// Removes the socket of a gateway that was killed.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    if !meta.file_type().is_socket() {
        return Err(other("there is a file that is no socket; move it away, or name another path"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(other("another gateway listens there; stop it, or name another path")),
        Err(_) => std::fs::remove_file(path),
    }
}

fn other(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}
