//! Which gateways are alive: each running store holds an exclusive lock on a file of its own.
//!
//! The operating system drops the lock with the process, however it ends; ids are never used again. Files on network
//! file systems without such locks are not supported.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gateway_core::session::SessionId;

use crate::error::StoreError;
use crate::keys::file_error;

/// One running store. Dropping it, or the end of the process, shows others that it is gone.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    directory: PathBuf,
    _locked: File,
}

impl Instance {
    /// Makes and locks the file. Only afterwards may the id be written into the database.
    pub(crate) fn begin(database: &Path) -> Result<Self, StoreError> {
        let directory = directory_of(database);
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&directory)
            .map_err(|error| file_error(&directory, &error))?;
        let id = SessionId::random()?.to_string();
        let path = directory.join(&id);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| file_error(&path, &error))?;
        file.try_lock()
            .map_err(|error| StoreError::File { path, cause: format!("cannot be locked: {error}") })?;
        Ok(Self { id, directory, _locked: file })
    }

    /// Whether the store that began as `id` still runs. In doubt it does.
    pub(crate) fn is_alive(&self, id: &str) -> Result<bool, StoreError> {
        let path = self.file_of(id)?;
        match File::open(&path).map(|file| file.try_lock()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(file_error(&path, &error)),
            Ok(Ok(())) => Ok(false),
            Ok(Err(TryLockError::WouldBlock)) => Ok(true),
            Ok(Err(TryLockError::Error(error))) => Err(file_error(&path, &error)),
        }
    }

    /// Removes the file of one that is gone, after the database has forgotten it.
    pub(crate) fn remove_file(&self, id: &str) {
        // A file left behind says nothing: ids come from the database.
        if let Ok(path) = self.file_of(id) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn file_of(&self, id: &str) -> Result<PathBuf, StoreError> {
        // An id becomes a file name: nothing but an id may.
        let id: SessionId =
            id.parse().map_err(|_| StoreError::Damaged("an instance id is malformed".to_owned()))?;
        Ok(self.directory.join(id.to_string()))
    }
}

fn directory_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".instances");
    name.into()
}
