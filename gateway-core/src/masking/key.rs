//! Keys of deterministic masks.

use std::fmt;

use zeroize::Zeroizing;

use super::class::DataClass;
use crate::random::{self, NoRandomness};

/// The key of hashes and tokens: equal values under one key look equal, values under different keys do not.
///
/// Wiped when dropped and never printed.
#[derive(Clone)]
pub struct MaskKey(Zeroizing<[u8; 32]>);

impl MaskKey {
    /// A key from configuration.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A fresh key, for masks that need not be comparable after a restart.
    ///
    /// # Errors
    /// [`NoRandomness`] if the operating system gives none.
    pub fn random() -> Result<Self, NoRandomness> {
        random::bytes().map(Self::new)
    }

    /// The key for one scope, such as a task or a tenant: masks of different scopes cannot be compared.
    #[must_use]
    pub fn derive(&self, scope: &str) -> Self {
        Self::new(
            *blake3::Hasher::new_keyed(&self.0)
                .update(b"scope\0")
                .update(scope.as_bytes())
                .finalize()
                .as_bytes(),
        )
    }

    /// The keyed BLAKE3 of a value; `purpose` keeps hashes, tokens and classes apart.
    pub(super) fn digest(&self, purpose: &str, class: &DataClass, value: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // NUL-terminated: neither part can contain it, so no two inputs run together.
        hasher.update(purpose.as_bytes()).update(b"\0").update(class.name().as_bytes()).update(b"\0");
        *hasher.update(value).finalize().as_bytes()
    }
}

impl fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_and_classes_do_not_share_digests() {
        let key = MaskKey::new([7; 32]);
        let digest = |k: &MaskKey, c| k.digest("hash", c, b"x");
        assert_eq!(digest(&key.derive("a"), &DataClass::EMAIL), digest(&key.derive("a"), &DataClass::EMAIL));
        assert_ne!(digest(&key.derive("a"), &DataClass::EMAIL), digest(&key.derive("b"), &DataClass::EMAIL));
        assert_ne!(digest(&key, &DataClass::EMAIL), digest(&key, &DataClass::PHONE));
        assert_ne!(key.digest("hash", &DataClass::EMAIL, b"x"), key.digest("token", &DataClass::EMAIL, b"x"));
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", MaskKey::new([65; 32])), "MaskKey(***)");
    }
}
