//! A value that is never printed and is wiped when dropped.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Holds a secret. No `Display`, no serialisation; `Debug` prints `***`; the memory is overwritten on drop.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes the value in.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Shows the value. Every use of a secret is a call of this: grep for it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}
