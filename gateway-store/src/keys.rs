//! The install's root key: one file beside the database, from which every other key is derived.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use gateway_core::credentials::Secret;
use gateway_core::session::SessionId;

use crate::error::StoreError;

const KEY_BYTES: usize = 32;
/// AES-GCM's authentication tag, NIST SP 800-38D section 5.2.1.2.
const TAG_BYTES: usize = 16;

/// The root key. What it protects are texts and digests of one install, so one file is all there is to back up.
#[derive(Debug)]
pub(crate) struct RootKey(Secret<[u8; KEY_BYTES]>);

impl RootKey {
    /// Makes the key file, or reads it if another process was faster.
    pub(crate) fn create(path: &Path) -> Result<Self, StoreError> {
        let key = Secret::new(gateway_core::random::bytes::<KEY_BYTES>()?);
        create_private(path, key.expose())?;
        Self::read(path)
    }

    /// Reads the key file, which must be there.
    pub(crate) fn read(path: &Path) -> Result<Self, StoreError> {
        let mut file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => StoreError::KeyMissing(path.to_owned()),
            _ => file_error(path, &error),
        })?;
        check_private(path)?;
        let mut key = [0; KEY_BYTES];
        file.read_exact(&mut key).map_err(|error| file_error(path, &error))?;
        Ok(Self(Secret::new(key)))
    }

    /// The key for one purpose: HKDF-Expand (RFC 5869 section 2.3). The root is uniform, so nothing has to be extracted
    /// (section 3.3).
    pub(crate) fn derive(&self, purpose: &str) -> Result<Secret<[u8; KEY_BYTES]>, StoreError> {
        let mut key = [0; KEY_BYTES];
        let info = [b"gateway-store/1/".as_slice(), purpose.as_bytes()];
        let root = Prk::new_less_safe(HKDF_SHA256, self.0.expose());
        let expanded = root.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
        expanded.map_err(|_| StoreError::Failed("a key cannot be derived".to_owned()))?;
        Ok(Secret::new(key))
    }
}

/// Where the key of the database at `path` is kept.
pub(crate) fn path_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".key");
    name.into()
}

/// Encrypts the exact texts of requests: AES-256-GCM, a random nonce per text.
///
/// With random 96-bit nonces one key is good for 2^32 texts (NIST SP 800-38D section 8.3): people do not review so many.
pub(crate) struct Sealer(RandomizedNonceKey);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(***)")
    }
}

impl Sealer {
    pub(crate) fn new(key: &Secret<[u8; KEY_BYTES]>) -> Result<Self, StoreError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose());
        key.map(Self).map_err(|_| StoreError::Failed("the sealing key is refused".to_owned()))
    }

    /// Encrypts `text` in place, so that no copy of it stays behind. `bound_to` must be given again to open it.
    pub(crate) fn seal(&self, mut text: Vec<u8>, bound_to: &[u8]) -> Result<Vec<u8>, StoreError> {
        let nonce = self.0.seal_in_place_append_tag(Aad::from(bound_to), &mut text);
        let nonce = nonce.map_err(|_| StoreError::Failed("a text cannot be encrypted".to_owned()))?;
        text.extend_from_slice(nonce.as_ref());
        Ok(text)
    }

    /// The inverse of [`seal`](Self::seal).
    pub(crate) fn open(&self, mut sealed: Vec<u8>, bound_to: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = || StoreError::Damaged("an encrypted text does not open".to_owned());
        let at = sealed.len().checked_sub(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = sealed.split_off(at);
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| damaged())?;
        let length =
            self.0.open_in_place(nonce, Aad::from(bound_to), &mut sealed).map_err(|_| damaged())?.len();
        sealed.truncate(length);
        Ok(sealed)
    }

    /// How much longer than its text a sealed text is, in bytes.
    pub(crate) const OVERHEAD: usize = TAG_BYTES + NONCE_LEN;
}

/// Makes a file with these bytes that only this user may read and change; one that is there stays as it is.
///
/// It is written under another name, closed, and linked in whole: a crash leaves no half file and a race has one winner (link(2)
/// does not replace). The database too must not be opened here under its own name: closing it would drop all locks that
/// SQLite holds on it in this process (sqlite.org, "How To Corrupt An SQLite Database File", section 2.2).
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let draft = path.with_extension(format!("{}.new", SessionId::random()?));
    let written = write_private(&draft, bytes).and_then(|()| link(&draft, path));
    let removed = std::fs::remove_file(&draft);
    written.map_err(|error| file_error(path, &error))?;
    removed.map_err(|error| file_error(&draft, &error))
}

/// Refuses a file that others may read or change.
pub(crate) fn check_private(path: &Path) -> Result<(), StoreError> {
    let metadata = std::fs::metadata(path).map_err(|error| file_error(path, &error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if !metadata.is_file() {
        return Err(StoreError::File { path: path.to_owned(), cause: "not a regular file".to_owned() });
    }
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

pub(crate) fn file_error(path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::File { path: path.to_owned(), cause: error.to_string() },
    }
}

fn write_private(draft: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn link(draft: &Path, path: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // The name must be on disk before anything is encrypted with the key.
        Ok(()) => sync_directory(path),
    }
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_made_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db.key");
        let first = RootKey::create(&path).unwrap();
        let second = RootKey::create(&path).unwrap();
        assert_eq!(first.0.expose(), second.0.expose());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
        assert_ne!(first.derive("a").unwrap().expose(), first.derive("b").unwrap().expose());
        assert_ne!(first.derive("a").unwrap().expose(), first.0.expose());
    }

    #[test]
    fn sealed_text_opens_only_where_it_belongs() {
        let sealer = Sealer::new(&Secret::new([1; 32])).unwrap();
        let sealed = sealer.seal(b"text".to_vec(), b"request 1").unwrap();
        assert_eq!(sealed.len(), 4 + Sealer::OVERHEAD);
        assert_eq!(sealer.open(sealed.clone(), b"request 1").unwrap(), b"text");
        assert!(sealer.open(sealed.clone(), b"request 2").is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open(changed, b"request 1").is_err());
            assert!(sealer.open(sealed[..at].to_vec(), b"request 1").is_err());
        }
    }
}
