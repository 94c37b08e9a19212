//! Where the bytes go: a seam, so that tests can make disks fail.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Makes and opens the files of a recording directory. Called from the recorder's own threads only; may block.
pub trait Storage: Debug + Send + Sync {
    /// Creates an empty file; fails if there is one. The file's name must survive a crash once this returns.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;

    /// Opens an existing file to write at its end.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn append_to(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
}

/// A file that only grows.
pub trait StorageFile: Debug + Send {
    /// Writes some of `bytes` at the end and says how many.
    ///
    /// # Errors
    /// Whatever the file system says; the recorder never writes to the file again.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Returns once everything written survives a crash of the machine.
    ///
    /// # Errors
    /// Whatever the file system says; the recorder never writes to the file again.
    fn sync(&mut self) -> io::Result<()>;
}

/// Writes all of `bytes`, however short the single writes are.
pub(super) fn write_all(file: &mut dyn StorageFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The operating system's files, readable and writable by their owner only.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

impl Storage for FileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = private_options().create_new(true).open(path)?;
        sync_parent(path)?;
        Ok(Box::new(file))
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(private_options().open(path)?))
    }
}

impl StorageFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Appending, mode 0600 if created.
pub(super) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a new name in `path`'s directory survive a crash (fsync(2): the directory needs its own).
#[cfg(unix)]
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Directories cannot be synced here.
#[cfg(not(unix))]
pub(super) fn sync_parent(_path: &Path) -> io::Result<()> {
    Ok(())
}
