//! Who logs in, to which target, and what their certificate permits.

mod certificate;

use std::net::IpAddr;

use gateway_core::credentials::Secret;
use gateway_core::identity::{Presented, SshKeyProof, SshPublicKey};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Algorithm, PublicKey};

pub(crate) use certificate::{Grants, proof};

/// Longest user name taken, in bytes: room for an e-mail address and a host name.
const MAX_USER_BYTES: usize = 512;

/// A user name taken apart: `agent-7%web1` is `agent-7` at target `web1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// Who; a certificate must name it as principal.
    pub(crate) name: String,
    /// Where to, if said.
    pub(crate) target: Option<String>,
}

impl Login {
    /// `None` if it is too long or has no name in it.
    pub(crate) fn parse(user: &str) -> Option<Self> {
        let (name, target) = match user.rsplit_once('%') {
            Some((name, target)) => (name, Some(target.to_owned())),
            None => (user, None),
        };
        let usable = user.len() <= MAX_USER_BYTES && !name.is_empty() && !user.contains(char::is_control);
        usable.then(|| Self { name: name.to_owned(), target })
    }

    pub(crate) fn token(token: &str) -> Presented {
        // People paste tokens with the line end.
        Presented::Token(Secret::from(token.trim()))
    }

    /// What a key proves, if it was used with an algorithm that is believed.
    pub(crate) fn key(
        &self,
        peer: Option<IpAddr>,
        key: &PublicKey,
        algorithm: &Algorithm,
    ) -> Option<Presented> {
        is_believed(algorithm).then_some(())?;
        let blob = wire(key.key_data())?;
        Some(Presented::SshKey(SshKeyProof::new(self.name.clone(), peer, blob)))
    }
}

/// Not SHA-1 (`ssh-rsa`), not DSA, nothing unknown.
pub(crate) fn is_believed(algorithm: &Algorithm) -> bool {
    match algorithm {
        Algorithm::Rsa { hash } => hash.is_some(),
        Algorithm::Ed25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::SkEd25519
        | Algorithm::SkEcdsaSha2NistP256 => true,
        _ => false,
    }
}

/// Shortest RSA modulus that counts, in bits: shorter ones are within reach (NIST SP 800-131A).
const MIN_RSA_BITS: u32 = 2048;

/// The wire form of a key, by which keys are compared; `None` for one that is too short to prove anything.
pub(crate) fn wire(key: &KeyData) -> Option<SshPublicKey> {
    if key.rsa().is_some_and(|key| key.key_size() < MIN_RSA_BITS) {
        return None;
    }
    PublicKey::from(key.clone()).to_bytes().ok().map(SshPublicKey::from_wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_stands_behind_the_last_percent_sign() {
        let parse = |user: &str| Login::parse(user).map(|l| (l.name, l.target));
        assert_eq!(parse("a%web1"), Some(("a".into(), Some("web1".into()))));
        assert_eq!(parse("a%b%web1"), Some(("a%b".into(), Some("web1".into()))));
        assert_eq!(parse("a"), Some(("a".into(), None)));
        assert_eq!(parse("a%"), Some(("a".into(), Some(String::new()))));
        for bad in ["", "%web1", "a\n%web1", &"a".repeat(513)] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn short_rsa_keys_prove_nothing() {
        use russh::keys::ssh_key::{Mpint, public::RsaPublicKey};
        let key = |bytes: usize| {
            let exponent = Mpint::from_positive_bytes(&[1, 0, 1]);
            let modulus = Mpint::from_positive_bytes(&vec![0xff; bytes]);
            KeyData::Rsa(RsaPublicKey::new(exponent, modulus).unwrap())
        };
        assert!(wire(&key(128)).is_none());
        assert!(wire(&key(255)).is_none());
        assert!(wire(&key(256)).is_some());
    }

    #[test]
    fn sha1_and_dsa_are_not_believed() {
        use russh::keys::HashAlg;
        assert!(!is_believed(&Algorithm::Rsa { hash: None }));
        assert!(!is_believed(&Algorithm::Dsa));
        assert!(is_believed(&Algorithm::Rsa { hash: Some(HashAlg::Sha256) }));
    }
}
