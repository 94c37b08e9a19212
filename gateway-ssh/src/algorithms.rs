//! The algorithms spoken on both sides: none that is weak, no compression (whose ratio would leak and which bombs could use).

use std::borrow::Cow;

use gateway_core::identity::SshPublicKey;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};

/// Post-quantum hybrid first; strict key exchange against prefix truncation (CVE-2023-48795) on both sides.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// No SHA-1 `ssh-rsa` and no DSA (RFC 8332, RFC 9142).
pub(crate) const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// The fastest authenticated cipher first: upstream the gateway chooses.
const CIPHERS: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR];

/// Encrypt-then-MAC only; authenticated ciphers need none.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// What is offered; with `certificates`, hosts may prove themselves by a certificate.
pub(crate) const fn preferred(certificates: bool) -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(KEYS),
        host_key_certificates: Cow::Borrowed(if certificates { KEYS } else { &[] }),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// What a target is offered whose keys are pinned: a host that has other keys besides presents one of these.
pub(crate) fn preferred_of(pinned: &[SshPublicKey], certificates: bool) -> Preferred {
    let names: Vec<&[u8]> = pinned.iter().filter_map(SshPublicKey::algorithm).collect();
    let named = |key: &&Algorithm| match key {
        Algorithm::Rsa { .. } => names.contains(&&b"ssh-rsa"[..]),
        key => names.contains(&key.as_str().as_bytes()),
    };
    let keys: Vec<Algorithm> = KEYS.iter().filter(named).cloned().collect();
    // None of them is spoken: the host's key is refused by the check.
    let key = if keys.is_empty() { Cow::Borrowed(KEYS) } else { Cow::Owned(keys) };
    Preferred { key, ..preferred(certificates) }
}

/// What is offered to clients that know the fastest cipher (see [`crate::greeting`]).
pub(crate) fn fastest() -> Preferred {
    Preferred { cipher: Cow::Borrowed(&[cipher::AES_256_GCM]), ..preferred(false) }
}

/// Flow-control window of a channel on both sides, in bytes: OpenSSH's own size.
pub(crate) const WINDOW_BYTES: u32 = 2 << 20;

/// Largest packet of channel data, in bytes: OpenSSH's own size.
pub(crate) const PACKET_BYTES: u32 = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(algorithm: &str) -> SshPublicKey {
        let length = u32::try_from(algorithm.len()).unwrap().to_be_bytes();
        SshPublicKey::from_wire([&length[..], algorithm.as_bytes(), b"rest"].concat())
    }

    #[test]
    fn a_host_is_asked_for_the_kinds_of_keys_that_are_pinned() {
        let of = |pinned: &[SshPublicKey]| preferred_of(pinned, false).key.into_owned();
        assert_eq!(of(&[key("ecdsa-sha2-nistp256")]), [Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }]);
        let rsa = [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) });
        assert_eq!(of(&[key("ssh-rsa")]), rsa);
        assert_eq!(of(&[key("ssh-rsa"), key("ssh-ed25519")])[0], Algorithm::Ed25519);
        assert_eq!(of(&[key("ssh-dss")]), KEYS);
    }
}
