//! What kind of sensitive value a span holds.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::transform::Transform;

/// A kind of sensitive value, such as `payment_card`. Cheap to clone; two are equal when their names are.
#[derive(Clone)]
pub struct DataClass(Name);

#[derive(Clone)]
enum Name {
    Known(&'static str),
    Defined(Arc<str>),
}

/// A class name that is empty, too long or has other characters than `a`-`z`, `0`-`9` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("class name `{0}` is not 1 to {MAX_CLASS_NAME} of a-z, 0-9 and _; rename the class")]
pub struct BadClassName(pub String);

/// Longest class name, in bytes: it is part of every tag written into results.
pub const MAX_CLASS_NAME: usize = 48;

macro_rules! built_in {
    ($($constant:ident = $name:literal, $doc:literal;)*) => {
        impl DataClass {
            $(#[doc = $doc] pub const $constant: Self = Self(Name::Known($name));)*

            /// Every built-in class.
            pub const BUILT_IN: &[Self] = &[$(Self::$constant),*];
        }
    };
}

built_in! {
    INJECTED_CREDENTIAL = "injected_credential", "A secret this gateway itself sent to the target; see [`KnownLiterals`](super::KnownLiterals).";
    PAYMENT_CARD = "payment_card", "A payment card number: issuer range, length and Luhn digit all hold.";
    IBAN = "iban", "An international bank account number (ISO 13616) with valid check digits.";
    US_SSN = "us_ssn", "A United States social security or taxpayer number, with separators.";
    EMAIL = "email", "An e-mail address.";
    PHONE = "phone", "A telephone number in North American or international form.";
    IPV4 = "ipv4", "An IPv4 host address.";
    IPV6 = "ipv6", "An IPv6 host address.";
    AWS_KEY = "aws_key", "An AWS access key id.";
    GITHUB_TOKEN = "github_token", "A GitHub token.";
    GITLAB_TOKEN = "gitlab_token", "A GitLab token.";
    SLACK_TOKEN = "slack_token", "A Slack token.";
    STRIPE_KEY = "stripe_key", "A Stripe secret or restricted key.";
    GOOGLE_KEY = "google_key", "A Google API key or OAuth secret.";
    OPENAI_KEY = "openai_key", "An OpenAI API key.";
    ANTHROPIC_KEY = "anthropic_key", "An Anthropic API key.";
    JWT = "jwt", "A JSON Web Token whose header decodes.";
    PRIVATE_KEY = "private_key", "A PEM private key, markers included.";
    URL_PASSWORD = "url_password", "The password inside `scheme://user:password@host`.";
    PASSWORD_ASSIGNMENT = "password_assignment", "The value assigned to a name such as `password` or `api_key`.";
    BEARER = "bearer", "The credential after `Bearer` or `Basic`.";
}

impl DataClass {
    /// A class of the deployer's own.
    ///
    /// # Errors
    /// [`BadClassName`] unless the name is 1 to [`MAX_CLASS_NAME`] of `a`-`z`, `0`-`9` and `_`.
    pub fn new(name: &str) -> Result<Self, BadClassName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > MAX_CLASS_NAME || !name.bytes().all(plain) {
            return Err(BadClassName(name.to_owned()));
        }
        Ok(Self(Name::Defined(name.into())))
    }

    /// The name, as in configuration and records.
    pub fn name(&self) -> &str {
        match &self.0 {
            Name::Known(name) => name,
            Name::Defined(name) => name,
        }
    }

    /// What happens to values of this class unless a rule says otherwise.
    pub fn default_transform(&self) -> Transform {
        if *self == Self::PAYMENT_CARD { Transform::Partial { keep_last: 4 } } else { Transform::Redact }
    }
}

impl PartialEq for DataClass {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for DataClass {}

impl Hash for DataClass {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialOrd for DataClass {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DataClass {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl fmt::Debug for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The classes a session may see unmasked: a set of positions in [`Scanner::classes`](super::Scanner::classes).
///
/// Empty by default, so everything is masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassSet([u64; MAX_CLASSES / 64]);

/// Most classes one scanner may have; the size of a [`ClassSet`] (32 bytes).
pub const MAX_CLASSES: usize = 256;

impl ClassSet {
    /// Adds the class at `index`; returns false, adding nothing, if `index` is at or over [`MAX_CLASSES`].
    pub fn insert(&mut self, index: usize) -> bool {
        match self.0.get_mut(index / 64) {
            Some(word) => {
                *word |= 1 << (index % 64);
                true
            }
            None => false,
        }
    }

    /// Whether the class at `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Whether no class is in the set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_interned_by_value() {
        assert_eq!(DataClass::new("email").unwrap(), DataClass::EMAIL);
        assert_ne!(DataClass::new("badge").unwrap(), DataClass::EMAIL);
    }

    #[test]
    fn every_built_in_class_has_a_rule() {
        let scanner = crate::masking::Scanner::new(crate::masking::RuleSet::builtin()).unwrap();
        let sorted = |classes: &[DataClass]| {
            let mut names: Vec<_> = classes.iter().map(|class| class.name().to_owned()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(sorted(DataClass::BUILT_IN), sorted(scanner.classes()));
    }

    #[test]
    fn names_that_could_break_a_tag_are_refused() {
        for bad in ["", "Email", "a b", "x]", &"a".repeat(MAX_CLASS_NAME + 1)] {
            assert_eq!(DataClass::new(bad), Err(BadClassName(bad.to_owned())));
        }
    }

    #[test]
    fn a_set_holds_only_what_was_inserted() {
        let mut set = ClassSet::default();
        assert!(set.insert(0) && set.insert(255) && !set.insert(256));
        assert!(set.contains(0) && set.contains(255) && !set.contains(1) && !set.contains(256));
    }
}
