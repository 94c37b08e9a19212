//! Masking of whole fields, where the protocol names them: no detector, the value goes as a whole.

use super::class::DataClass;
use super::key::MaskKey;
use super::transform::Transform;

/// What to do with one field, such as a column by its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// What the field holds.
    pub class: DataClass,
    /// What becomes of it. Hashes and tokens are allowed here: the field is known, so there is nothing to guess at.
    pub transform: Transform,
}

impl FieldRule {
    /// The class with its default transform.
    pub fn new(class: DataClass) -> Self {
        let transform = class.default_transform();
        Self { class, transform }
    }
}

/// What the carrier accepts in the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldKind {
    /// Text of any length.
    Text,
    /// An integer or decimal number written as text; only a number may replace it.
    Number,
    /// Anything else: dates, booleans, arrays, binary formats. Only null may replace it.
    Other,
}

/// What to send instead of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum MaskedField {
    /// These bytes.
    Value(Vec<u8>),
    /// Null; if the carrier has none here, refuse the result.
    Null,
}

/// Masks a whole field of text. `key` is the key of the session's scope, [`MaskKey::derive`].
pub fn mask_field(rule: &FieldRule, value: &[u8], key: &MaskKey) -> MaskedField {
    match rule.transform.apply_field(&rule.class, value, key) {
        Some(masked) => MaskedField::Value(masked),
        None => MaskedField::Null,
    }
}

/// Masks a whole field so that what replaces it is valid for its type: text as [`mask_field`], a number by `0`, and
/// null for everything else.
pub fn mask_typed_field(rule: &FieldRule, kind: FieldKind, value: &[u8], key: &MaskKey) -> MaskedField {
    match (kind, rule.transform) {
        (FieldKind::Text, _) => mask_field(rule, value, key),
        (FieldKind::Number, Transform::Null) | (FieldKind::Other, _) => MaskedField::Null,
        (FieldKind::Number, _) => MaskedField::Value(b"0".to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replacement_is_valid_for_the_type() {
        let key = MaskKey::new([0; 32]);
        let rule = FieldRule::new(DataClass::US_SSN);
        let mask = |kind| mask_typed_field(&rule, kind, b"123456789", &key);
        assert_eq!(mask(FieldKind::Text), MaskedField::Value(b"[REDACTED:US_SSN]".to_vec()));
        assert_eq!(mask(FieldKind::Number), MaskedField::Value(b"0".to_vec()));
        assert_eq!(mask(FieldKind::Other), MaskedField::Null);
    }
}
