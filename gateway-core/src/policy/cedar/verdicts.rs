//! Verdicts already reached, by everything they may depend on.
//!
//! The key is the question itself, written without ambiguity and compared in full: no hash stands for it. Only what some
//! policy of the set reads is written, so that a thousand connections from different ports share a verdict where no
//! policy looks at the peer. Denials, holds and errors are not kept, nor anything that read the time: they are rare, or
//! must be asked again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{PoisonError, RwLock};

use super::reads::Reads;
use crate::operation::{Fact, Facts, Resource};
use crate::policy::{Allowed, PolicyInput};

/// Independent locks, so that sessions on different cores rarely wait for each other.
const SHARDS: usize = 16;
/// Bytes of keys one shard keeps before it starts afresh: 32 MiB in all.
const MAX_SHARD_BYTES: usize = 2 << 20;
/// A longer question is not worth keeping: bytes.
const MAX_KEY: usize = 8 << 10;
/// What one entry costs beside its key, estimated for the budget: bytes.
const ENTRY_OVERHEAD: usize = 256;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow(Allowed),
    /// For each label: may it be seen?
    Reveal(Vec<bool>),
}

/// Which question a key is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asking<'a> {
    Operation,
    Reveal(&'a [Resource]),
}

/// A bounded map from questions to verdicts. Belongs to one revision.
#[derive(Default)]
pub(super) struct Verdicts {
    state: RandomState,
    shards: [RwLock<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    // One entry per 64-bit keyed hash: a collision overwrites, and is a miss because the key differs.
    entries: HashMap<u64, (Box<[u8]>, Verdict), BuildHasherDefault<Prehashed>>,
    bytes: usize,
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdicts").finish_non_exhaustive()
    }
}

impl Verdicts {
    /// The verdict on exactly this question, if it is known.
    pub(super) fn find(&self, reads: &Reads, input: &PolicyInput<'_>, asking: Asking<'_>) -> Option<Verdict> {
        with_key(reads, input, asking, |key| {
            let hash = self.state.hash_one(key);
            let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
            let (known, verdict) = shard.entries.get(&hash)?;
            (**known == *key).then(|| verdict.clone())
        })
    }

    /// Remembers a verdict that depends on nothing but what [`Verdicts::find`] looks at.
    pub(super) fn keep(&self, reads: &Reads, input: &PolicyInput<'_>, asking: Asking<'_>, verdict: Verdict) {
        with_key(reads, input, asking, |key| {
            let hash = self.state.hash_one(key);
            self.shard(hash).write().unwrap_or_else(PoisonError::into_inner).insert(
                hash,
                key.into(),
                verdict,
            );
            Some(())
        });
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        let [first, ..] = &self.shards;
        // The top bits: the map inside uses the low ones.
        usize::try_from(hash >> 60).ok().and_then(|index| self.shards.get(index)).unwrap_or(first)
    }
}

impl Shard {
    fn insert(&mut self, hash: u64, key: Box<[u8]>, verdict: Verdict) {
        let cost = key.len() + ENTRY_OVERHEAD;
        if self.bytes + cost > MAX_SHARD_BYTES {
            *self = Self::default();
        }
        self.bytes += cost;
        if let Some((old, _)) = self.entries.insert(hash, (key, verdict)) {
            self.bytes -= old.len() + ENTRY_OVERHEAD;
        }
    }
}

/// Passes an already computed hash on.
#[derive(Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only `write_u64` is called for a `u64` key; this keeps the trait's promise all the same.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Writes the key into a buffer of this thread, so that a hit allocates nothing for it.
fn with_key<T>(
    reads: &Reads,
    input: &PolicyInput<'_>,
    asking: Asking<'_>,
    use_key: impl FnOnce(&[u8]) -> Option<T>,
) -> Option<T> {
    thread_local!(static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    KEY.with_borrow_mut(|buffer| {
        buffer.clear();
        let mut key = Key { buffer, full: false };
        key.session(reads, input);
        key.question(input, asking);
        if key.full { None } else { use_key(key.buffer) }
    })
}

/// Every item is written with its length, every list with its count: different questions give different keys.
struct Key<'a> {
    buffer: &'a mut Vec<u8>,
    full: bool,
}

impl Key<'_> {
    fn session(&mut self, reads: &Reads, input: &PolicyInput<'_>) {
        let session = input.session;
        let principal = &*session.principal;
        self.text(&principal.actor.issuer);
        self.text(&principal.actor.subject);
        self.texts(principal.groups.iter());
        self.buffer.extend([principal.kind as u8, principal.phase as u8]);
        for (name, value) in
            [("task", &principal.task), ("plan", &principal.plan), ("workload", &principal.workload)]
        {
            // `principal has task` reads it too: whether it is there is part of the question.
            self.optional(value.as_deref().filter(|_| reads.attribute(name)));
        }
        let chain = if reads.attribute("chain") { principal.actor_chain.as_slice() } else { &[] };
        self.count(chain.len());
        chain.iter().for_each(|actor| {
            self.text(&actor.issuer);
            self.text(&actor.subject);
        });
        self.count(if reads.tags() { principal.claims.len() } else { 0 });
        for (name, value) in principal.claims.iter().filter(|_| reads.tags()) {
            self.text(name);
            self.text(value);
        }
        self.text(session.protocol);
        self.text(&session.target);
        self.optional(session.scope.as_deref());
        self.text(if reads.attribute("peer") { &session.peer } else { "" });
        self.texts(input.approvals.iter());
        self.texts(input.patterns.iter());
    }

    fn question(&mut self, input: &PolicyInput<'_>, asking: Asking<'_>) {
        match asking {
            Asking::Operation => {
                self.count(0);
                self.facts(&input.operation.facts);
                self.count(input.operation.accesses.len());
                for access in input.operation.accesses.iter() {
                    self.text(access.action.as_str());
                    self.resource(&access.resource);
                }
            }
            Asking::Reveal(labels) => {
                self.count(1);
                self.count(labels.len());
                labels.iter().for_each(|label| self.resource(label));
            }
        }
    }

    fn resource(&mut self, resource: &Resource) {
        self.count(resource.path().len());
        for (kind, name) in resource.path() {
            self.text(kind);
            self.text(name);
        }
        self.facts(&resource.attributes);
    }

    fn facts(&mut self, facts: &Facts) {
        self.count(facts.len());
        for (name, fact) in facts {
            self.text(name);
            match fact {
                Fact::Bool(value) => self.buffer.extend([0, u8::from(*value)]),
                Fact::Long(value) => {
                    self.buffer.push(1);
                    self.buffer.extend(value.to_le_bytes());
                }
                Fact::String(value) => {
                    self.buffer.push(2);
                    self.text(value);
                }
                Fact::Set(values) => {
                    self.buffer.push(3);
                    self.texts(values.iter());
                }
            }
        }
    }

    fn texts<'t>(&mut self, items: impl ExactSizeIterator<Item = &'t String>) {
        self.count(items.len());
        items.for_each(|item| self.text(item));
    }

    fn optional(&mut self, text: Option<&str>) {
        self.buffer.push(u8::from(text.is_some()));
        self.text(text.unwrap_or(""));
    }

    fn text(&mut self, text: &str) {
        if self.buffer.len() + text.len() > MAX_KEY {
            self.full = true;
            return;
        }
        self.count(text.len());
        self.buffer.extend_from_slice(text.as_bytes());
    }

    fn count(&mut self, count: usize) {
        self.full |= self.buffer.len() > MAX_KEY;
        if !self.full {
            self.buffer.extend((count as u64).to_le_bytes());
        }
    }
}
