//! What has to happen to each column of a result, decided once per RowDescription.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::error::Denial;
use gateway_core::masking::Finding;
use gateway_core::pipeline::Masker;

use crate::types::{self, By, Format, Kind, Masked};

/// How a column's values are encoded, as far as masking must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Text bytes, in text format or a binary format that is the same bytes.
    Text,
    /// Anything else: a replacement must be of its type.
    Typed(Arc<Kind>, Format),
}

/// What to do with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Nothing can be in it that must not be seen.
    Pass,
    /// Look at the content of each value.
    Scan(Encoding),
    /// Mask every value by its label (a position in the label list).
    Label(usize, Encoding),
    /// Labelled, and this principal may see it: content of other classes is still masked.
    Reveal(usize, Encoding),
    /// Computed from protected values in a way that is not known: nothing of it may be seen.
    Withhold(Encoding),
}

/// The columns of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) columns: Vec<Column>,
    /// True if every column passes: rows are not even looked into.
    pub(crate) passes: bool,
    /// True if values of some column are looked at one by one; else rows in which the scan finds nothing pass as they are.
    pub(crate) looks_at_every_value: bool,
    /// Labels that were shown when this was decided, and which its computed columns may tell: once one of them is hidden, nothing of
    /// the result may be seen any more.
    pub(crate) relied: BTreeSet<usize>,
}

impl Column {
    /// Whether the bytes of its values are scanned as they come.
    pub(crate) fn is_scanned(&self) -> bool {
        match self {
            Self::Scan(Encoding::Text) => true,
            Self::Scan(Encoding::Typed(kind, format)) => match **kind {
                Kind::Json | Kind::Jsonb => true,
                _ => *format == Format::Text && kind.is_plain_text(),
            },
            _ => false,
        }
    }

    /// Whether the bytes of its values tell all that is in them.
    fn tells_all(&self) -> bool {
        // JSON may have escapes, which jsonb has no more; what is not known may be either or the digits of bytes.
        let coded = |kind: &Kind| matches!(kind, Kind::Json | Kind::Unknown);
        let escapes = matches!(self, Self::Scan(Encoding::Typed(kind, _)) if coded(kind));
        *self == Self::Pass || (self.is_scanned() && !escapes)
    }
}

impl Shape {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        let passes = columns.iter().all(|c| *c == Column::Pass);
        let looks_at_every_value = !columns.iter().all(Column::tells_all);
        Self { columns, passes, looks_at_every_value, relied: BTreeSet::new() }
    }
}

/// Shapes made lately, by the body of their RowDescription. For sessions without labels: there nothing else counts.
#[derive(Debug, Default)]
pub(crate) struct Shapes(VecDeque<Known>);

#[derive(Debug)]
struct Known {
    description: Bytes,
    /// The state of the catalog it holds for; `None`: for any.
    generation: Option<u64>,
    shape: Arc<Shape>,
}

/// Shapes remembered for a session, each with a description of at most [`MAX_DESCRIPTION`] bytes.
const MAX_SHAPES: usize = 16;

/// A longer description is not remembered: bytes.
const MAX_DESCRIPTION: usize = 4 * 1024;

impl Shapes {
    /// The shape of what is described so in this state of the catalog. `make` says also whether it holds for any.
    ///
    /// # Errors
    /// As `make`.
    pub(crate) fn of<E>(
        &mut self,
        description: &[u8],
        generation: u64,
        make: impl FnOnce() -> Result<(Shape, bool), E>,
    ) -> Result<Arc<Shape>, E> {
        let holds = |known: &&Known| known.generation.is_none_or(|at| at == generation);
        if let Some(known) = self.0.iter().filter(holds).find(|known| known.description == description) {
            return Ok(Arc::clone(&known.shape));
        }
        let (shape, always) = make()?;
        let shape = Arc::new(shape);
        if description.len() <= MAX_DESCRIPTION {
            self.0.retain(|known| known.description != description);
            self.0.truncate(MAX_SHAPES - 1);
            self.0.push_front(Known {
                description: Bytes::copy_from_slice(description),
                generation: (!always).then_some(generation),
                shape: Arc::clone(&shape),
            });
        }
        Ok(shape)
    }
}

/// How values of a type are encoded in the format they will come in.
pub(crate) fn encoding(kind: Arc<Kind>, format: i16) -> Encoding {
    if *kind == Kind::Text { Encoding::Text } else { Encoding::Typed(kind, Format::of(format)) }
}

/// What to do with a column that carries no label.
pub(crate) fn unlabelled(encoding: Encoding) -> Column {
    match &encoding {
        // A column of addresses says so by its type: that is a matter of labels. Among other values they are found.
        Encoding::Typed(kind, _) if matches!(**kind, Kind::Inet | Kind::Cidr) => Column::Pass,
        Encoding::Typed(kind, _) if !kind.is_scannable() => Column::Pass,
        _ => Column::Scan(encoding),
    }
}

/// A value as it may be seen, or `None` if it may pass as it is. `found`: what the scan of its bytes found, if they were scanned.
pub(super) fn masked(
    masker: &mut Masker<'_>,
    column: &Column,
    value: &[u8],
    found: &[Finding],
) -> Option<Masked> {
    if let Column::Label(label, _) | Column::Reveal(label, _) = column {
        masker.subject(*label, value);
    }
    match column {
        Column::Pass => None,
        Column::Scan(encoding) => scanned(masker, column, encoding, value, found),
        Column::Label(label, encoding) => Some(labelled(masker, *label, encoding, value)),
        // The shape was made when it could be shown; the policies may have changed since.
        Column::Reveal(label, encoding) if !masker.reveals(*label) => {
            Some(labelled(masker, *label, encoding, value))
        }
        Column::Reveal(label, Encoding::Text) => masker.text_revealing(*label, value).map(Some),
        Column::Reveal(label, Encoding::Typed(kind, format)) => {
            types::scan(&mut By { masker, label: Some(*label) }, kind, *format, value)
        }
        Column::Withhold(encoding) => Some(withheld(masker, encoding)),
    }
}

/// As [`masked`], for a value that is scanned by itself; also NULL.
///
/// # Errors
/// It is too long to be scanned.
pub(super) fn masked_alone(
    masker: &mut Masker<'_>,
    column: &Column,
    value: Option<&[u8]>,
) -> Result<Option<Masked>, Denial> {
    let Some(value) = value else { return Ok(masked_null(masker, column)) };
    let mut found = Vec::new();
    if column.is_scanned() {
        masker.within(value, |_| Some(0..value.len()), &mut found)?;
    }
    Ok(masked(masker, column, value, &found))
}

fn scanned(
    masker: &mut Masker<'_>,
    column: &Column,
    encoding: &Encoding,
    value: &[u8],
    found: &[Finding],
) -> Option<Masked> {
    let seen = column.is_scanned();
    match encoding {
        Encoding::Text if found.is_empty() => None,
        Encoding::Text => Some(Some(masker.replace(value, found))),
        Encoding::Typed(kind, _) if seen && found.is_empty() => {
            let coded = match **kind {
                Kind::Json | Kind::Unknown => memchr::memchr(b'\\', value).is_some(),
                _ => false,
            };
            coded.then(|| types::scan(&mut By { masker, label: None }, kind, Format::Text, value)).flatten()
        }
        // What was found but cannot be replaced takes the whole value along.
        Encoding::Typed(kind, format) => types::scan(&mut By { masker, label: None }, kind, *format, value)
            .or_else(|| seen.then_some(None)),
    }
}

/// The value of a labelled column, masked by its label's rule and still valid for its type.
fn labelled(masker: &mut Masker<'_>, label: usize, encoding: &Encoding, value: &[u8]) -> Masked {
    match encoding {
        Encoding::Text => masker.field(label, value),
        Encoding::Typed(kind, format) => {
            types::label(&mut By { masker, label: Some(label) }, kind, *format, value)
        }
    }
}

/// What stands for a value of which nothing may be seen, not even whether it is NULL.
fn withheld(masker: &mut Masker<'_>, encoding: &Encoding) -> Masked {
    masker.withheld();
    match encoding {
        Encoding::Text => Some(WITHHELD.to_vec()),
        Encoding::Typed(..) => None,
    }
}

/// What stands for NULL, where even that may not be seen.
pub(super) fn masked_null(masker: &mut Masker<'_>, column: &Column) -> Option<Masked> {
    match column {
        Column::Withhold(encoding) => withheld(masker, encoding).map(Some),
        _ => None,
    }
}

const WITHHELD: &[u8] = b"[REDACTED:PROTECTED]";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::builtin;

    #[test]
    fn what_user_types_are_made_of_is_asked_again() {
        let mut shapes = Shapes::default();
        let column = |oid| Shape::new(vec![unlabelled(encoding(builtin(oid), 0))]);
        let mut of = |generation, shape: Shape, always| {
            shapes.of(b"d", generation, || Ok::<_, ()>((shape, always))).unwrap().passes
        };
        assert!(of(1, column(23), false));
        assert!(of(1, column(25), false), "known");
        assert!(!of(2, column(25), true));
        assert!(!of(3, column(23), true), "known for good");
    }

    #[test]
    fn small_and_fixed_types_are_not_scanned() {
        let column = |oid, format| unlabelled(encoding(builtin(oid), format));
        let typed = |oid| Column::Scan(Encoding::Typed(builtin(oid), Format::Binary));
        assert_eq!(column(23, 0), Column::Pass);
        assert_eq!(column(1007, 1), Column::Pass);
        assert_eq!(column(25, 1), Column::Scan(Encoding::Text));
        assert!(column(1009, 0).is_scanned() && !column(1009, 1).is_scanned());
        assert_eq!(column(1009, 1), typed(1009));
        assert_eq!(column(20, 1), typed(20));
    }
}
