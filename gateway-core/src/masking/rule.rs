//! Rules: the built-in set and the deployer's own.

use super::class::{BadClassName, DataClass};
use super::transform::Transform;

/// What a scanner looks for: some of the built-in classes and the deployer's own rules.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    pub(super) built_in: bool,
    pub(super) without: Vec<DataClass>,
    pub(super) rules: Vec<Rule>,
    pub(super) transforms: Vec<(DataClass, Transform)>,
}

impl RuleSet {
    /// Every built-in class.
    pub fn builtin() -> Self {
        Self { built_in: true, ..Self::empty() }
    }

    /// No rule at all, to be filled with [`with_rule`](Self::with_rule).
    pub fn empty() -> Self {
        Self::default()
    }

    /// Leaves out one built-in class for every session. For single sessions use a [`ClassSet`](super::ClassSet).
    #[must_use]
    pub fn without(mut self, class: DataClass) -> Self {
        self.without.push(class);
        self
    }

    /// Adds a rule.
    #[must_use]
    pub fn with_rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Replaces the transform of a class.
    #[must_use]
    pub fn with_transform(mut self, class: DataClass, transform: Transform) -> Self {
        self.transforms.push((class, transform));
        self
    }
}

/// A rule of the deployer's own.
///
/// A match is at most [`CAP`](super::CAP) bytes long when it is first recognised; if the pattern could still go on
/// there, everything up to where it fails is masked. A pattern that begins with fixed text of three bytes or more costs
/// nothing on clean data; any other is tried wherever a word begins and costs about a nanosecond for each byte.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) name: String,
    pub(super) pattern: String,
    pub(super) class: DataClass,
    pub(super) validator: Option<Validator>,
    pub(super) keyword: Option<String>,
}

impl Rule {
    /// A rule called `name` that masks what `pattern` matches: a regular expression over bytes, Unicode off, without
    /// look-around except `(?-u:\b)`, `^` and `$`.
    pub fn new(name: impl Into<String>, pattern: impl Into<String>, class: DataClass) -> Self {
        Self { name: name.into(), pattern: pattern.into(), class, validator: None, keyword: None }
    }

    /// Also requires `validator` to accept the match.
    #[must_use]
    pub fn validated_by(mut self, validator: Validator) -> Self {
        self.validator = Some(validator);
        self
    }

    /// Also requires `keyword` in the 64 bytes before the match, in any case.
    #[must_use]
    pub fn after_keyword(mut self, keyword: impl Into<String>) -> Self {
        self.keyword = Some(keyword.into());
        self
    }
}

/// A check on what a custom pattern matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Validator {
    /// The digits end in a Luhn check digit.
    Luhn,
    /// The letters and digits hold ISO 7064 MOD 97-10, as in an IBAN.
    Mod97,
    /// At least this many different bytes: tells random keys from words.
    Distinct(u8),
}

/// A rule set that cannot be loaded. No part of it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The pattern does not parse or has no bounded automaton.
    #[error("rule `{rule}`: {reason}; rewrite the pattern")]
    Pattern {
        /// The rule's name.
        rule: String,
        /// What is wrong.
        reason: String,
    },
    /// The rule's automaton is larger than [`MAX_RULE_BYTES`](super::MAX_RULE_BYTES).
    #[error(
        "rule `{0}` needs an automaton over 64 KiB; use `+` instead of long counted repeats, or fewer alternatives"
    )]
    TooLarge(String),
    /// All automata together are larger than [`MAX_TOTAL_BYTES`](super::MAX_TOTAL_BYTES).
    #[error("rule `{0}` brings the automata over 4 MiB together; remove rules")]
    TotalTooLarge(String),
    /// The pattern matches the empty string.
    #[error("rule `{0}` matches the empty string; make part of the pattern mandatory")]
    MatchesEmpty(String),
    /// No match could be recognised within [`CAP`](super::CAP) bytes.
    #[error("rule `{0}` needs more than 512 bytes to match; shorten the pattern")]
    TooLong(String),
    /// A keyword that is empty or longer than 32 bytes.
    #[error("rule `{0}`: the keyword must have 1 to 32 bytes; shorten it")]
    Keyword(String),
    /// Hash or token on values found by content.
    #[error(
        "class `{0}`: hash and token are for fields only, in free text they answer guesses; use redact, partial or same length"
    )]
    KeyedTransform(DataClass),
    /// More than [`MAX_RULES`](super::MAX_RULES) rules or [`MAX_CLASSES`](super::MAX_CLASSES) classes.
    #[error("more than {0} rules or classes; remove some")]
    TooMany(usize),
    /// A class name that cannot stand in a tag.
    #[error(transparent)]
    Class(#[from] BadClassName),
}
