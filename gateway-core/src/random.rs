//! Randomness from the one crypto provider.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// The operating system gave no randomness; nothing secret may be made without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no randomness")]
pub struct NoRandomness;

/// `N` random bytes fit for keys, ids and nonces.
///
/// # Errors
/// [`NoRandomness`] if the operating system's source fails.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| NoRandomness)?;
    Ok(out)
}
