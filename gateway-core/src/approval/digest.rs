//! The digest that ties an approval to one exact batch of operations.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::credentials::Secret;
use crate::operation::{Argument, Batch, Operation};
use crate::session::SessionInfo;

/// A keyed BLAKE3 digest of everything that gives a batch its meaning.
///
/// Keyed, because plain digests of guessable values (a card number in a `WHERE`) would reveal them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From raw bytes, as stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from(self.0).to_hex().fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        blake3::Hash::from_hex(text).map(|hash| Self(hash.into())).map_err(serde::de::Error::custom)
    }
}

/// The per-install key of all digests.
#[derive(Clone, Debug)]
pub struct DigestKey(Secret<[u8; 32]>);

impl DigestKey {
    /// From 32 secret bytes, the same at every start of an install.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Secret::new(key))
    }

    /// A key for this process only: grants do not survive a restart.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub fn random() -> Result<Self, crate::random::NoRandomness> {
        crate::random::bytes().map(Self::new)
    }

    /// The digest of a batch as presented in `session`.
    ///
    /// Covers issuer, subject, actor chain, task, plan, phase, target, scope, and of every operation in order: kind, exact
    /// bytes, typed arguments and binding. Not the session, token or policy revision. Every part is length-prefixed, so no two
    /// different batches give the same input.
    pub fn batch(&self, session: &SessionInfo, batch: &Batch) -> Digest {
        self.batch_in(&self.session(session), batch)
    }

    /// What [`batch`](Self::batch) takes from a session: the same for every batch of it.
    pub fn session(&self, session: &SessionInfo) -> SessionDigest {
        let mut parts = Parts::new(self);
        parts.session(session);
        SessionDigest(parts.finish())
    }

    /// As [`batch`](Self::batch), for a session whose part is known.
    pub fn batch_in(&self, session: &SessionDigest, batch: &Batch) -> Digest {
        let mut parts = Parts::new(self);
        parts.part(&session.0);
        parts.count(batch.operations().len());
        batch.operations().iter().for_each(|operation| parts.operation(operation));
        Digest(parts.finish())
    }

    /// The keyed digest of any bytes, for records that must not hold them.
    pub fn bytes(&self, bytes: &[u8]) -> Digest {
        Digest(blake3::keyed_hash(self.0.expose(), bytes).into())
    }
}

/// A session's part in the digests of its batches.
#[derive(Clone, Copy, Debug)]
pub struct SessionDigest([u8; 32]);

/// Input gathered before it is hashed, in bytes: most batches are hashed at once, which costs a third of hashing them part by part.
const GATHERED: usize = 4 * 1024;

/// What is hashed, in order.
struct Parts<'k> {
    key: &'k [u8; 32],
    gathered: Vec<u8>,
    /// What was gathered before that.
    hashed: Option<Box<blake3::Hasher>>,
}

impl<'k> Parts<'k> {
    fn new(key: &'k DigestKey) -> Self {
        // Room for a short statement and its arguments.
        Self { key: key.0.expose(), gathered: Vec::with_capacity(512), hashed: None }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() <= GATHERED {
            return self.gathered.extend_from_slice(bytes);
        }
        let hasher = self.hashed.get_or_insert_with(|| Box::new(blake3::Hasher::new_keyed(self.key)));
        hasher.update(&self.gathered).update(bytes);
        self.gathered.clear();
    }

    fn finish(self) -> [u8; 32] {
        match self.hashed {
            None => blake3::keyed_hash(self.key, &self.gathered).into(),
            Some(mut hasher) => hasher.update(&self.gathered).finalize().into(),
        }
    }

    fn count(&mut self, n: usize) {
        self.put(&(n as u64).to_le_bytes());
    }

    fn part(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.put(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.put(&[u8::from(bytes.is_some())]);
        self.part(bytes.unwrap_or_default());
    }

    fn session(&mut self, session: &SessionInfo) {
        let principal = &session.principal;
        self.part(principal.actor.issuer.as_bytes());
        self.part(principal.actor.subject.as_bytes());
        self.count(principal.actor_chain.len());
        for actor in &principal.actor_chain {
            self.part(actor.issuer.as_bytes());
            self.part(actor.subject.as_bytes());
        }
        self.optional(principal.task.as_deref().map(str::as_bytes));
        self.optional(principal.plan.as_deref().map(str::as_bytes));
        self.part(principal.phase.as_str().as_bytes());
        self.part(session.protocol.as_bytes());
        self.part(session.target.as_bytes());
        self.optional(session.scope.as_deref().map(str::as_bytes));
    }

    fn operation(&mut self, operation: &Operation) {
        self.part(operation.kind.as_bytes());
        self.part(&operation.statement);
        self.count(operation.arguments.len());
        operation.arguments.iter().for_each(|argument| self.argument(argument));
        self.part(operation.binding.as_bytes());
    }

    fn argument(&mut self, argument: &Argument) {
        self.part(argument.kind.as_bytes());
        self.optional(argument.value.as_deref());
    }
}
