//! The key that signs recordings, and its public half that proves them.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroizing;

use super::format::SIGNATURE_BYTES;

/// A key file larger than this is not a key file. 4 KiB; the real ones have about 120 bytes.
const MAX_KEY_FILE_BYTES: u64 = 4096;
const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";
/// The SubjectPublicKeyInfo of an Ed25519 key up to the 32 key bytes, RFC 8410 section 4.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key cannot be used. Never shows key bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recording key {0}")]
pub struct KeyError(String);

impl KeyError {
    fn file(path: &Path, cause: impl fmt::Display) -> Self {
        Self(format!("`{}`: {cause}", path.display()))
    }
}

/// A short name of a public key: the first 8 bytes of its BLAKE3 hash. A hint for messages, proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    pub(super) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The Ed25519 key that signs recordings and the ledger. Who has it can forge both: keep it from whoever can write the files.
pub struct RecordingKey(Ed25519KeyPair);

impl fmt::Debug for RecordingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordingKey({})", self.public_key().id())
    }
}

impl RecordingKey {
    /// A fresh key that is kept nowhere; for tests.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        Ed25519KeyPair::generate()
            .map(Self)
            .map_err(|_| KeyError("cannot be generated: no randomness".to_owned()))
    }

    /// The key in the file `path` (PKCS #8, PEM, readable by its owner only), which is created on first use.
    ///
    /// # Errors
    /// The file cannot be read or made, is open to others, or holds no Ed25519 key.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(LoadError::Missing) => {}
            Err(LoadError::Other(error)) => return Err(error),
            Ok(key) => return Ok(key),
        }
        let key = Self::generate()?;
        key.create(path)?;
        // Whoever created the file first, its key is the one.
        Self::load(path).map_err(|error| error.into_key_error(path))
    }

    /// The public half, to be given to whoever verifies.
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; 32];
        let public = self.0.public_key().as_ref();
        if public.len() == bytes.len() {
            bytes.copy_from_slice(public);
        }
        PublicKey(bytes)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], String> {
        let signature = self.0.try_sign(message).map_err(|_| "signing failed".to_owned())?;
        signature.as_ref().try_into().map_err(|_| "signing failed".to_owned())
    }

    fn load(path: &Path) -> Result<Self, LoadError> {
        let text = Zeroizing::new(read_text(path, true)?);
        let der = Zeroizing::new(unpem(PRIVATE_LABEL, &text).ok_or_else(|| {
            KeyError::file(path, "is not a PKCS #8 private key in PEM; restore the file from a backup")
        })?);
        // Version 1 as `openssl genpkey -algorithm ed25519` writes it, or version 2.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map(Self)
            .map_err(|e| LoadError::Other(KeyError::file(path, format_args!("is not an Ed25519 key: {e}"))))
    }

    /// Writes the key beside `path` and links it into place: a half-written file never has the final name, and an existing
    /// key is never replaced.
    fn create(&self, path: &Path) -> Result<(), KeyError> {
        let at = |e: std::io::Error| KeyError::file(path, e);
        let der = self.0.to_pkcs8v1().map_err(|_| KeyError("cannot be encoded".to_owned()))?;
        let text = Zeroizing::new(pem(PRIVATE_LABEL, der.as_ref()));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = path.with_file_name(name);
        let linked = write_private(&temporary, text.as_bytes()).and_then(|()| {
            match std::fs::hard_link(&temporary, path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        });
        let _ = std::fs::remove_file(&temporary);
        linked.and_then(|()| super::storage::sync_parent(path)).map_err(at)
    }
}

enum LoadError {
    Missing,
    Other(KeyError),
}

impl LoadError {
    fn into_key_error(self, path: &Path) -> KeyError {
        match self {
            Self::Missing => KeyError::file(path, "vanished"),
            Self::Other(error) => error,
        }
    }
}

impl From<KeyError> for LoadError {
    fn from(error: KeyError) -> Self {
        Self::Other(error)
    }
}

/// The public half of a [`RecordingKey`]. Its text form is PEM (RFC 8410), as `openssl pkey -pubin` reads it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From the 32 raw bytes, RFC 8032 section 5.1.5.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its short name.
    pub fn id(&self) -> KeyId {
        let hash = blake3::hash(&self.0);
        let mut id = [0; 8];
        id.copy_from_slice(&hash.as_bytes()[..8]);
        KeyId(id)
    }

    /// Reads the text form from a file.
    ///
    /// # Errors
    /// The file cannot be read or holds no Ed25519 public key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = read_text(path, false).map_err(|error| match error {
            LoadError::Missing => KeyError::file(path, "does not exist"),
            LoadError::Other(error) => error,
        })?;
        text.parse().map_err(|KeyError(cause)| KeyError::file(path, cause))
    }

    /// Writes the text form to a file, replacing it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        std::fs::write(path, self.to_string()).map_err(|e| KeyError::file(path, e))
    }

    pub(super) fn proves(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&pem(PUBLIC_LABEL, &[&SPKI_PREFIX[..], &self.0].concat()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let der = unpem(PUBLIC_LABEL, text);
        let bytes =
            der.as_deref().and_then(|der| der.strip_prefix(&SPKI_PREFIX)).and_then(|key| key.try_into().ok());
        bytes.map(Self).ok_or_else(|| KeyError("is not an Ed25519 public key in PEM".to_owned()))
    }
}

/// One PEM block, RFC 7468; everything here fits one line of base64.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

fn unpem(label: &str, text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let body = body.strip_suffix(&format!("-----END {label}-----"))?;
    let base64: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    BASE64_STANDARD.decode(base64.as_bytes()).ok()
}

fn read_text(path: &Path, secret: bool) -> Result<String, LoadError> {
    let meta = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(LoadError::Missing),
        other => other.map_err(|e| KeyError::file(path, e))?,
    };
    if meta.len() > MAX_KEY_FILE_BYTES {
        return Err(KeyError::file(path, format_args!("larger than {MAX_KEY_FILE_BYTES} bytes")).into());
    }
    if secret {
        private(path, &meta)?;
    }
    std::fs::read_to_string(path).map_err(|e| KeyError::file(path, e).into())
}

#[cfg(unix)]
fn private(path: &Path, meta: &std::fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(KeyError::file(path, format_args!("mode {mode:04o} lets others use it; run `chmod 600` on it")))
}

#[cfg(not(unix))]
fn private(_path: &Path, _meta: &std::fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = super::storage::private_options().create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_created_once_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording.key");
        let first = RecordingKey::open_or_create(&path).unwrap();
        let again = RecordingKey::open_or_create(&path).unwrap();
        assert_eq!(first.public_key(), again.public_key());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
        let message = b"message";
        assert!(again.public_key().proves(message, &first.sign(message).unwrap()));
        assert!(!again.public_key().proves(b"another", &first.sign(message).unwrap()));
    }

    #[test]
    fn a_key_open_to_others_or_cut_short_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording.key");
        RecordingKey::open_or_create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = RecordingKey::open_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, &text[..60]).unwrap();
        let error = RecordingKey::open_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("restore") && !error.contains(&text[30..50]), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text[..60], "never replaced");
    }

    #[test]
    fn the_public_key_travels_as_text() {
        let key = RecordingKey::generate().unwrap().public_key();
        assert_eq!(key.to_string().parse::<PublicKey>(), Ok(key));
        assert!("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".parse::<PublicKey>().is_err());
        let dir = tempfile::tempdir().unwrap();
        key.save(&dir.path().join("key.pub")).unwrap();
        assert_eq!(PublicKey::load(&dir.path().join("key.pub")), Ok(key));
    }
}
