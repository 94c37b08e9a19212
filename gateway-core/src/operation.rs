//! What is judged: operations, what they touch, and the batches they come in.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A protocol's verb, for example `read` or `delete`. Adapters list theirs in their policy schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Action(Cow<'static, str>);

impl Action {
    /// Opening a session to a target; common to all protocols.
    pub const CONNECT: Self = Self::new("connect");
    /// Seeing a labelled value unmasked; common to all protocols.
    pub const REVEAL: Self = Self::new("reveal");

    /// An action known at compile time.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The verb.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value of a fact or attribute, as policies see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Long(i64),
    /// Text.
    String(String),
    /// A set of texts.
    Set(BTreeSet<String>),
}

impl Fact {
    /// The fact with every text that `change` answers for replaced.
    #[must_use]
    pub fn reworded(&self, change: impl Fn(&str) -> Option<String>) -> Self {
        let text = |text: &String| change(text).unwrap_or_else(|| text.clone());
        match self {
            Self::Bool(_) | Self::Long(_) => self.clone(),
            Self::String(old) => Self::String(text(old)),
            Self::Set(old) => Self::Set(old.iter().map(text).collect()),
        }
    }
}

/// Facts with every text that `change` answers for replaced.
pub(crate) fn reworded(facts: &Facts, change: impl Fn(&str) -> Option<String>) -> Facts {
    facts.iter().map(|(name, fact)| (name.clone(), fact.reworded(&change))).collect()
}

impl From<bool> for Fact {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Fact {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<String> for Fact {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<&str> for Fact {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl FromIterator<String> for Fact {
    fn from_iter<I: IntoIterator<Item = String>>(items: I) -> Self {
        Self::Set(items.into_iter().collect())
    }
}

/// Named facts. The names and types an adapter gives are those of its policy schema.
pub type Facts = BTreeMap<Cow<'static, str>, Fact>;

/// A thing in a target, as the path from the target down to it: `Target "shop" / Database "shop" / Table "orders"`.
///
/// Each step is an entity of its own for policy, and the parent of the next: a rule on the database covers its tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    path: Vec<(Cow<'static, str>, String)>,
    /// Facts about the last step, typed by the schema (for example whether a function is volatile).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: Facts,
}

impl Resource {
    /// The target itself, the root of every path.
    pub fn target(name: impl Into<String>) -> Self {
        Self { path: vec![(Cow::Borrowed("Target"), name.into())], attributes: Facts::new() }
    }

    /// One step further down.
    #[must_use]
    pub fn child(&self, kind: &'static str, name: impl Into<String>) -> Self {
        let mut path = self.path.clone();
        path.push((Cow::Borrowed(kind), name.into()));
        Self { path, attributes: Facts::new() }
    }

    /// Adds a fact about the last step.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Fact>) -> Self {
        self.attributes.insert(Cow::Borrowed(name), value.into());
        self
    }

    /// The same path and facts, with every name and text that `change` answers for replaced.
    #[must_use]
    pub fn renamed(&self, change: impl Fn(&str) -> Option<String>) -> Self {
        let mut out = self.clone();
        for (_, name) in &mut out.path {
            if let Some(new) = change(name) {
                *name = new;
            }
        }
        out.attributes = reworded(&out.attributes, &change);
        out
    }

    /// The steps from the target down, as (kind, name). Never empty.
    pub fn path(&self) -> &[(Cow<'static, str>, String)] {
        &self.path
    }

    /// The kind of the last step, for example `Table`.
    pub fn kind(&self) -> &str {
        self.path.last().map_or("", |(kind, _)| kind)
    }

    /// The name of the last step, for example `orders`.
    pub fn name(&self) -> &str {
        self.path.last().map_or("", |(_, name)| name)
    }

    /// The entity id of the first `depth` steps: their names joined by `/`, with `/` and `\` inside a name escaped by `\`.
    pub fn id_at(&self, depth: usize) -> String {
        let mut id = String::new();
        for (i, (_, name)) in self.path.iter().take(depth).enumerate() {
            if i > 0 {
                id.push('/');
            }
            for c in name.chars() {
                if matches!(c, '/' | '\\') {
                    id.push('\\');
                }
                id.push(c);
            }
        }
        id
    }

    /// The entity id of the whole path.
    pub fn id(&self) -> String {
        self.id_at(self.path.len())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::\"{}\"", self.kind(), self.id())
    }
}

/// One thing an operation touches and what it does to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Access {
    /// What is done.
    pub action: Action,
    /// To what.
    pub resource: Resource,
}

impl Access {
    /// Pairs an action with its resource.
    pub const fn new(action: Action, resource: Resource) -> Self {
        Self { action, resource }
    }
}

/// Whether an operation may change anything. What is not proven read-only is a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Proven to change nothing.
    Read,
    /// Changes something, or cannot be proven not to.
    Write,
}

/// Whether an operation is only being prepared or really run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It cannot run yet (PostgreSQL Parse): judged to deny early, never held, nothing is redeemed.
    Prepare,
    /// It runs when it is forwarded.
    Execute,
}

/// One argument of an operation, exactly as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// The protocol's name or number for its type and encoding, for example `25/text`; part of the digest.
    pub kind: String,
    /// The bytes; `None` is the protocol's null.
    pub value: Option<Bytes>,
}

/// Numbers operations within a session, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub u64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Session facts and resolved objects that give a statement its meaning (search path, role, object ids). Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Binding(Option<Arc<[u8; 32]>>);

impl Binding {
    /// From named parts, in an order that is the same whenever they are the same.
    pub fn new(parts: impl IntoIterator<Item = (Cow<'static, str>, String)>) -> Self {
        let mut binding = Self::default();
        parts.into_iter().for_each(|part| binding.push(part));
        binding
    }

    /// Adds a named part.
    pub fn push(&mut self, (name, value): (Cow<'static, str>, String)) {
        let mut hasher = blake3::Hasher::new();
        for text in [self.as_bytes(), name.as_bytes(), value.as_bytes()] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        self.0 = Some(Arc::new(hasher.finalize().into()));
    }

    /// A BLAKE3 hash that stands for all parts in their order; empty if there are none.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], <[u8; 32]>::as_slice)
    }
}

/// The unit policy judges: a statement, an exec, an API call. What stays the same when a statement is run again is shared, so that a
/// copy of it costs little.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The protocol's word for it, lower case, for example `delete`.
    pub kind: Cow<'static, str>,
    /// The exact bytes that will be forwarded.
    pub statement: Bytes,
    /// What recordings show instead of `statement`, where literals must not be kept. `None`: `statement`, masked by content.
    pub recorded: Option<String>,
    /// Bind values, argv, headers: exactly as forwarded.
    pub arguments: Vec<Argument>,
    /// What policy may read in `context`.
    pub facts: Arc<Facts>,
    /// Everything it touches.
    pub accesses: Arc<[Access]>,
    /// Whether it may change anything.
    pub effect: Effect,
    /// What gives the statement its meaning; part of the digest.
    pub binding: Binding,
}

impl Operation {
    /// An operation of `kind` with the exact bytes; everything else empty and its effect a write until proven otherwise.
    pub fn new(kind: impl Into<Cow<'static, str>>, statement: impl Into<Bytes>) -> Self {
        Self {
            kind: kind.into(),
            statement: statement.into(),
            recorded: None,
            arguments: Vec::new(),
            facts: Arc::default(),
            accesses: Arc::default(),
            effect: Effect::Write,
            binding: Binding::default(),
        }
    }

    /// An operation that is one action on one resource.
    pub fn on(action: &'static str, effect: Effect, resource: Resource, statement: impl Into<Bytes>) -> Self {
        let accesses = [Access::new(Action::new(action), resource)].into();
        Self { accesses, effect, ..Self::new(action, statement) }
    }
}

/// What is judged together: all operations of one message, or all up to a synchronisation point. Never empty.
#[derive(Clone, Debug)]
pub struct Batch {
    operations: Vec<Operation>,
    stage: Stage,
}

impl Batch {
    /// A batch of at least one operation; `None` if there is none.
    pub fn new(stage: Stage, operations: Vec<Operation>) -> Option<Self> {
        (!operations.is_empty()).then_some(Self { operations, stage })
    }

    /// A batch of exactly one operation.
    pub fn one(stage: Stage, operation: Operation) -> Self {
        Self { operations: vec![operation], stage }
    }

    /// The operations in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Prepared only, or run.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Write if any operation is.
    pub fn effect(&self) -> Effect {
        self.operations.iter().map(|o| o.effect).max().unwrap_or(Effect::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_be_forged_by_names_with_separators() {
        let honest = Resource::target("t").child("Schema", "a").child("Table", "b");
        let forged = Resource::target("t").child("Table", "a/b");
        assert_eq!(honest.id(), "t/a/b");
        assert_eq!(forged.id(), "t/a\\/b");
        assert_eq!(honest.id_at(1), "t");
    }

    #[test]
    fn a_batch_is_a_write_if_any_operation_is() {
        let mut read = Operation::new("select", "select 1");
        read.effect = Effect::Read;
        let batch = Batch::new(Stage::Execute, vec![read, Operation::new("do", "do $$$$")]);
        assert_eq!(batch.map(|b| b.effect()), Some(Effect::Write));
    }
}
