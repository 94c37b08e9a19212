//! Masking: finding sensitive values in results and replacing them before they are released.
//!
//! A [`Scanner`] compiles a [`RuleSet`] once; every session shares it. It works on whole buffers, on the cells of rows and,
//! through [`StreamMasker`], on streams of any cut; [`TerminalMasker`] does so across terminals' control sequences. Fields that the protocol names are masked whole by [`mask_field`].
//! [`KnownLiterals`] adds the credentials the gateway itself injected.
//!
//! Vector searches find the few places where a match could begin, anchored automata verify them, validators such as
//! check digits decide. The work is linear in the text whatever it contains.
//!
//! Not done here: names, addresses and other values without a shape (use field rules); decoding of compressed or
//! base64-encoded text other than for injected credentials; input and output.

mod automaton;
mod builtin;
mod class;
mod compile;
mod field;
mod key;
mod known;
mod rule;
mod scan;
mod scanner;
mod stream;
mod tail;
mod terminal;
mod text;
mod transform;
mod trigger;
mod validate;

pub use automaton::CAP;
pub use class::{BadClassName, ClassSet, DataClass, MAX_CLASS_NAME, MAX_CLASSES};
pub use compile::{MAX_RULE_BYTES, MAX_RULES, MAX_TOTAL_BYTES};
pub use field::{FieldKind, FieldRule, MaskedField, mask_field, mask_typed_field};
pub use key::MaskKey;
pub use known::{KnownLiterals, KnownLiteralsError, MAX_KNOWN_BYTES, MAX_KNOWN_VALUES, MIN_KNOWN_BYTES};
pub use rule::{Rule, RuleError, RuleSet, Validator};
pub use scanner::{BadCell, CellFinding, Detector, Finding, Masked, Scanner, WithKnown};
pub use stream::StreamMasker;
pub(crate) use terminal::readings;
pub use terminal::{Controls, TerminalMasker};
pub use transform::Transform;
