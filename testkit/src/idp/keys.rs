//! Signing keys: made, kept in files, published as JWKs.

use std::fmt;
use std::fs;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use serde_json::{Value, json};

use crate::ca::write_private;
use crate::canary::random_text;
use crate::error::{Context, Error, Result};

/// How a token is signed (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSA of 2048 bits, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// ECDSA on P-256, SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// One key of each algorithm.
#[derive(Debug)]
pub struct KeySet {
    keys: [Key; 3],
}

/// A private key, with the id its public half is published under.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) id: String,
    pair: KeyPair,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl KeySet {
    /// Fresh keys with ids of their own.
    ///
    /// # Errors
    /// When the system's random generator fails.
    pub fn generate() -> Result<Self> {
        let [rsa, ecdsa, edwards] = Algorithm::ALL.map(Key::generate);
        Ok(Self { keys: [rsa?, ecdsa?, edwards?] })
    }

    /// The keys kept in this folder, made when there are none yet; the files have mode 0600.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or holds something else under the keys' file names.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context(&format!("make `{}`", folder.display()))?;
        let open =
            |algorithm: Algorithm| Key::open(algorithm, &folder.join(format!("{}.key", algorithm.name())));
        let [rsa, ecdsa, edwards] = Algorithm::ALL.map(open);
        Ok(Self { keys: [rsa?, ecdsa?, edwards?] })
    }

    pub(super) fn key(&self, algorithm: Algorithm) -> &Key {
        match algorithm {
            Algorithm::Rs256 => &self.keys[0],
            Algorithm::Es256 => &self.keys[1],
            Algorithm::EdDsa => &self.keys[2],
        }
    }

    /// The public halves as JWKs.
    pub(super) fn jwks(&self) -> impl Iterator<Item = Value> + '_ {
        self.keys.iter().map(Key::jwk)
    }
}

impl Key {
    pub(super) fn generate(algorithm: Algorithm) -> Result<Self> {
        let pair = KeyPair::generate_for(rcgen_algorithm(algorithm)).context("generate a signing key")?;
        let id = format!("{}-{}", algorithm.name().to_lowercase(), random_text(8));
        Ok(Self { algorithm, id, pair })
    }

    /// A file holds the id in its first line and the key as PEM below.
    fn open(algorithm: Algorithm, path: &Path) -> Result<Self> {
        if !path.exists() {
            let key = Self::generate(algorithm)?;
            write_private(path, &format!("{}\n{}", key.id, key.pair.serialize_pem()))?;
            return Ok(key);
        }
        let doing = format!("read `{}`", path.display());
        let text = fs::read_to_string(path).context(&doing)?;
        let (id, pem) =
            text.split_once('\n').ok_or_else(|| Error::new(format!("could not {doing}: no key in it")))?;
        let pair = KeyPair::from_pkcs8_pem_and_sign_algo(pem, rcgen_algorithm(algorithm)).context(&doing)?;
        Ok(Self { algorithm, id: id.to_owned(), pair })
    }

    /// The signature as a token carries it: for ECDSA the two numbers side by side (RFC 7518 section 3.4).
    ///
    /// # Panics
    /// When the system's random generator fails.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let (der, random) = (self.pair.serialized_der(), SystemRandom::new());
        match self.algorithm {
            Algorithm::Rs256 => {
                let key = RsaKeyPair::from_pkcs8(der).expect("a key of our own is valid");
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signing works");
                signature
            }
            Algorithm::Es256 => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
                let signature = key.expect("a key of our own is valid").sign(&random, message);
                signature.expect("signing works").as_ref().to_vec()
            }
            Algorithm::EdDsa => {
                let key = Ed25519KeyPair::from_pkcs8(der).expect("a key of our own is valid");
                key.sign(message).as_ref().to_vec()
            }
        }
    }

    /// The public half (RFC 7517; RFC 7518 section 6; RFC 8037 section 2).
    pub(super) fn jwk(&self) -> Value {
        let public = self.pair.der_bytes();
        let mut jwk = match self.algorithm {
            Algorithm::Rs256 => {
                let (modulus, exponent) = rsa_numbers(public).expect("a key of our own is valid");
                json!({ "kty": "RSA", "n": base64(modulus), "e": base64(exponent) })
            }
            Algorithm::Es256 => {
                // An uncompressed point: 4, then both coordinates of 32 bytes (SEC 1 section 2.3.3).
                let (x, y) = public[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y) })
            }
            Algorithm::EdDsa => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(public) }),
        };
        jwk["kid"] = self.id.clone().into();
        jwk["alg"] = self.algorithm.name().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The public half as PEM, which a confused verifier may take for an HMAC secret.
    pub(super) fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rcgen_algorithm(algorithm: Algorithm) -> &'static rcgen::SignatureAlgorithm {
    match algorithm {
        Algorithm::Rs256 => &PKCS_RSA_SHA256,
        Algorithm::Es256 => &PKCS_ECDSA_P256_SHA256,
        Algorithm::EdDsa => &PKCS_ED25519,
    }
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017 appendix A.1.1), without the zero that keeps them positive.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = der_element(der, 0x30)?;
    let (modulus, rest) = der_element(sequence, 0x02)?;
    let (exponent, _) = der_element(rest, 0x02)?;
    Some((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent.strip_prefix(&[0]).unwrap_or(exponent)))
}

/// The content of the first element, and what follows it (X.690 section 8.1).
fn der_element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[actual, first], rest) = der.split_first_chunk()?;
    let size_of_length = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    let (length, rest) = rest.split_at_checked(size_of_length)?;
    let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    let length = if first < 0x80 { usize::from(first) } else { length };
    (actual == tag).then(|| rest.split_at_checked(length)).flatten()
}
