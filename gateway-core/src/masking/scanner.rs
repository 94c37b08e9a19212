//! The shared scanner over whole buffers and over the cells of rows.

use std::fmt::Debug;
use std::ops::Range;

use super::class::{ClassSet, DataClass};
use super::compile::Program;
use super::known::KnownLiterals;
use super::rule::{RuleError, RuleSet};
use super::scan::{Bounds, KNOWN_RULE, Raw, Scan, merge};
use super::transform::{self, Transform};

/// A sensitive span of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: `0 <= start < end <= text.len()`.
    pub range: Range<usize>,
    /// What; if several spans overlapped, the class of the first.
    pub class: DataClass,
    /// Spans of several classes overlapped: no part of the value is shown.
    pub mixed: bool,
}

/// A sensitive span of one cell of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellFinding {
    /// Which cell: a position in the list of cells given.
    pub cell: usize,
    /// Where in the buffer, within the cell.
    pub range: Range<usize>,
    /// What.
    pub class: DataClass,
    /// Spans of several classes overlapped: no part of the value is shown.
    pub mixed: bool,
}

/// A text with its sensitive spans replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The text to send instead.
    pub text: Vec<u8>,
    /// How many spans were replaced, at least 1.
    pub spans: usize,
}

/// The list of cells is not ascending, overlaps or leaves the buffer; nothing was scanned, so nothing may be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cell {0} overlaps the one before it or leaves the buffer")]
pub struct BadCell(pub usize);

/// Finds sensitive spans in text.
///
/// Called for everything that goes to the client. Spans come in ascending order and do not overlap. An implementation
/// must leave out only classes in `skip`; missing a span releases it.
pub trait Detector: Debug + Send + Sync {
    /// Appends the spans of `text`, one whole record, to `out`.
    fn find(&self, text: &[u8], skip: &ClassSet, out: &mut Vec<Finding>);
}

/// The compiled rules, immutable and shared by all sessions in an `Arc`; about 1.4 MB.
///
/// ```
/// use gateway_core::masking::{ClassSet, RuleSet, Scanner};
///
/// let scanner = Scanner::new(RuleSet::builtin())?;
/// let mut out = Vec::new();
/// scanner.mask_into(b"write to ada@example.com", &ClassSet::default(), &mut out);
/// assert_eq!(out, b"write to [REDACTED:EMAIL]");
/// # Ok::<(), gateway_core::masking::RuleError>(())
/// ```
#[derive(Debug)]
pub struct Scanner {
    pub(super) program: Program,
}

impl Scanner {
    /// Compiles a rule set.
    ///
    /// # Errors
    /// [`RuleError`], naming the rule, if a pattern does not parse, has no small bounded automaton or matches nothing in
    /// particular, or if a transform would answer guesses.
    pub fn new(rules: RuleSet) -> Result<Self, RuleError> {
        Program::new(rules).map(|program| Self { program })
    }

    /// All classes, injected credentials first; a [`ClassSet`] holds positions in this list.
    pub fn classes(&self) -> &[DataClass] {
        &self.program.classes
    }

    /// The set that reveals `classes`; those this scanner does not know are left out. Injected credentials are masked
    /// even if revealed.
    pub fn reveal<'c>(&self, classes: impl IntoIterator<Item = &'c DataClass>) -> ClassSet {
        let mut set = ClassSet::default();
        classes.into_iter().filter_map(|class| self.index(class)).for_each(|index| {
            set.insert(index);
        });
        set
    }

    /// The class's position in [`classes`](Self::classes).
    pub fn index(&self, class: &DataClass) -> Option<usize> {
        self.program.classes.iter().position(|c| c == class)
    }

    /// The same scanner looking for a session's injected credentials as well.
    pub fn beside<'a>(&'a self, known: &'a KnownLiterals) -> WithKnown<'a> {
        WithKnown { scanner: self, known: Some(known) }
    }

    fn alone(&self) -> WithKnown<'_> {
        WithKnown { scanner: self, known: None }
    }

    /// Appends the spans of `text` to `out`.
    pub fn find(&self, text: &[u8], skip: &ClassSet, out: &mut Vec<Finding>) {
        self.alone().find(text, skip, out);
    }

    /// Appends `text` with its spans replaced to `out`; returns how many there were.
    pub fn mask_into(&self, text: &[u8], skip: &ClassSet, out: &mut Vec<u8>) -> usize {
        self.alone().mask_into(text, skip, out)
    }

    /// The masked text, or `None`, without copying or allocating, if there is nothing to mask.
    pub fn mask(&self, text: &[u8], skip: &ClassSet) -> Option<Masked> {
        self.alone().mask(text, skip)
    }

    /// Appends the spans of every cell to `out`; returns how many. See [`WithKnown::find_cells`].
    ///
    /// # Errors
    /// [`BadCell`] if the cells are not ascending ranges within the buffer.
    pub fn find_cells(
        &self,
        buffer: &[u8],
        cells: &[Range<usize>],
        skip: &ClassSet,
        out: &mut Vec<CellFinding>,
    ) -> Result<usize, BadCell> {
        self.alone().find_cells(buffer, cells, skip, out)
    }

    /// Appends what replaces `value`, which was found; of one merged from several classes no part is shown.
    pub fn replace(&self, finding: &Finding, value: &[u8], out: &mut Vec<u8>) {
        let class = &finding.class;
        let transform = self.index(class).and_then(|index| self.program.transforms.get(index)).copied();
        self.apply(transform.unwrap_or(class.default_transform()), class, finding.mixed, value, out);
    }

    fn apply(&self, transform: Transform, class: &DataClass, mixed: bool, value: &[u8], out: &mut Vec<u8>) {
        match transform {
            Transform::Partial { .. } if mixed => transform::tag(class, out),
            transform => transform.apply_content(class, value, out),
        }
    }

    /// How many bytes the verifier reads in `text`: the cost beyond the linear first pass, for tests and benches.
    pub fn verification_steps(&self, text: &[u8], skip: &ClassSet) -> u64 {
        let mut scan = Scan::new(&self.program, skip, text);
        let record = Bounds { low: 0, high: text.len(), complete: true };
        scan.run(0, None, |_| Some(record));
        scan.steps
    }

    /// Appends what replaces a span; see [`replace`](Self::replace).
    pub(super) fn replace_span(&self, rule: u16, mixed: bool, value: &[u8], out: &mut Vec<u8>) {
        self.apply(self.program.transform(rule), &self.class_of(rule), mixed, value, out);
    }

    pub(super) fn class_of(&self, rule: u16) -> DataClass {
        let class = self.program.classes.get(usize::from(self.program.class(rule)));
        class.cloned().unwrap_or(DataClass::INJECTED_CREDENTIAL)
    }
}

impl Detector for Scanner {
    fn find(&self, text: &[u8], skip: &ClassSet, out: &mut Vec<Finding>) {
        self.alone().find(text, skip, out);
    }
}

/// A shared scanner together with one session's injected credentials.
#[derive(Clone, Copy, Debug)]
pub struct WithKnown<'a> {
    scanner: &'a Scanner,
    known: Option<&'a KnownLiterals>,
}

impl WithKnown<'_> {
    /// Appends the spans of `text` to `out`.
    pub fn find(&self, text: &[u8], skip: &ClassSet, out: &mut Vec<Finding>) {
        out.extend(self.raws(text, skip).into_iter().map(|raw| self.finding(&raw)));
    }

    /// Appends `text` with its spans replaced to `out`; returns how many there were.
    pub fn mask_into(&self, text: &[u8], skip: &ClassSet, out: &mut Vec<u8>) -> usize {
        let raws = self.raws(text, skip);
        self.write(text, &raws, out);
        raws.len()
    }

    /// The masked text, or `None`, without copying or allocating, if there is nothing to mask.
    pub fn mask(&self, text: &[u8], skip: &ClassSet) -> Option<Masked> {
        let raws = self.raws(text, skip);
        if raws.is_empty() {
            return None;
        }
        let mut masked = Vec::with_capacity(text.len());
        self.write(text, &raws, &mut masked);
        Some(Masked { text: masked, spans: raws.len() })
    }

    /// Appends the spans of every cell to `out`; returns how many.
    ///
    /// The first pass runs over the whole buffer at once, so many small cells cost no more than one large one; no span
    /// crosses a cell's edge and no cell sees its neighbours. Bytes between cells are not reported.
    ///
    /// # Errors
    /// [`BadCell`] if the cells are not ascending ranges within the buffer.
    pub fn find_cells(
        &self,
        buffer: &[u8],
        cells: &[Range<usize>],
        skip: &ClassSet,
        out: &mut Vec<CellFinding>,
    ) -> Result<usize, BadCell> {
        check_cells(buffer, cells)?;
        let mut scan = Scan::new(&self.scanner.program, skip, buffer);
        let mut last = 0;
        scan.run(0, self.known, |at| {
            last = cell_at(cells, last, at)?;
            cells.get(last).map(|cell| Bounds { low: cell.start, high: cell.end, complete: true })
        });
        let raws = self.finish(scan.raws);
        let before = out.len();
        out.extend(raws.iter().filter_map(|raw| {
            last = cell_at(cells, last, raw.start)?;
            let Finding { range, class, mixed } = self.finding(raw);
            Some(CellFinding { cell: last, range, class, mixed })
        }));
        Ok(out.len() - before)
    }

    /// Appends the spans of the cells of a buffer to `out`, in order. As [`find_cells`](Self::find_cells), for callers that would
    /// rather find a cell when it is needed than list them all: `cell_at` tells the cell a place of the buffer is in, `None` for
    /// places that are in no cell or whose cell is not to be looked at. It is asked only where something could begin.
    ///
    /// # Errors
    /// [`BadCell`] with a place whose "cell" does not contain it or leaves the buffer.
    pub fn find_within(
        &self,
        buffer: &[u8],
        skip: &ClassSet,
        mut cell_at: impl FnMut(usize) -> Option<Range<usize>>,
        out: &mut Vec<Finding>,
    ) -> Result<(), BadCell> {
        let mut scan = Scan::new(&self.scanner.program, skip, buffer);
        let mut bad = None;
        scan.run(0, self.known, |at| {
            let cell = cell_at(at)?;
            if !cell.contains(&at) || cell.end > buffer.len() {
                bad = Some(at);
                return None;
            }
            Some(Bounds { low: cell.start, high: cell.end, complete: true })
        });
        if let Some(at) = bad {
            return Err(BadCell(at));
        }
        out.extend(self.finish(scan.raws).iter().map(|raw| self.finding(raw)));
        Ok(())
    }

    fn raws(&self, text: &[u8], skip: &ClassSet) -> Vec<Raw> {
        let mut scan = Scan::new(&self.scanner.program, skip, text);
        let record = Bounds { low: 0, high: text.len(), complete: true };
        scan.run(0, self.known, |_| Some(record));
        self.finish(scan.raws)
    }

    fn finish(&self, mut raws: Vec<Raw>) -> Vec<Raw> {
        if raws.is_empty() {
            return raws;
        }
        if let Some(known) = self.known {
            known.count(raws.iter().filter(|raw| raw.rule == KNOWN_RULE).count());
        }
        merge(&mut raws, &self.scanner.program);
        raws
    }

    fn finding(&self, raw: &Raw) -> Finding {
        Finding { range: raw.start..raw.end, class: self.scanner.class_of(raw.rule), mixed: raw.mixed }
    }

    fn write(&self, text: &[u8], raws: &[Raw], out: &mut Vec<u8>) {
        let mut from = 0;
        for raw in raws {
            out.extend_from_slice(text.get(from..raw.start).unwrap_or_default());
            let value = text.get(raw.start..raw.end).unwrap_or_default();
            self.scanner.replace_span(raw.rule, raw.mixed, value, out);
            from = raw.end;
        }
        out.extend_from_slice(text.get(from..).unwrap_or_default());
    }
}

impl Detector for WithKnown<'_> {
    fn find(&self, text: &[u8], skip: &ClassSet, out: &mut Vec<Finding>) {
        WithKnown::find(self, text, skip, out);
    }
}

fn check_cells(buffer: &[u8], cells: &[Range<usize>]) -> Result<(), BadCell> {
    let mut low = 0;
    for (index, cell) in cells.iter().enumerate() {
        if cell.start < low || cell.end < cell.start || cell.end > buffer.len() {
            return Err(BadCell(index));
        }
        low = cell.end;
    }
    Ok(())
}

/// The cell that contains `at`, looking at `last` first: places come in clusters.
fn cell_at(cells: &[Range<usize>], last: usize, at: usize) -> Option<usize> {
    if cells.get(last).is_some_and(|cell| cell.contains(&at)) {
        return Some(last);
    }
    let index = cells.partition_point(|cell| cell.end <= at);
    cells.get(index).filter(|cell| cell.contains(&at)).map(|_| index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Rule, RuleError, Validator};
    use super::*;

    fn badge() -> DataClass {
        DataClass::new("badge").unwrap()
    }

    fn custom(pattern: &str) -> Result<Scanner, RuleError> {
        Scanner::new(RuleSet::empty().with_rule(Rule::new("badge rule", pattern, badge())))
    }

    fn mask(scanner: &Scanner, text: &str) -> String {
        let mut out = Vec::new();
        scanner.mask_into(text.as_bytes(), &ClassSet::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn custom_rules_are_found_by_literal_and_by_word() {
        assert_eq!(mask(&custom(r"EMP-\d{6}").unwrap(), "x EMP-123456 y"), "x [REDACTED:BADGE] y");
        assert_eq!(
            mask(&custom(r"[A-Z]\d{6}").unwrap(), "x Q123456 yQ123456"),
            "x [REDACTED:BADGE] yQ123456"
        );
        assert_eq!(mask(&custom(r"(?i)emp-\d{6}").unwrap(), "Emp-123456"), "[REDACTED:BADGE]");
    }

    #[test]
    fn a_custom_match_over_the_cap_is_masked_to_its_end() {
        let scanner = custom(r"blob:[a-z]+").unwrap();
        assert_eq!(mask(&scanner, &format!("x blob:{} y", "a".repeat(5000))), "x [REDACTED:BADGE] y");
    }

    #[test]
    fn keyword_and_validator_are_required() {
        let rule = Rule::new("id", r"\d{8}", badge()).after_keyword("member").validated_by(Validator::Luhn);
        let scanner = Scanner::new(RuleSet::empty().with_rule(rule)).unwrap();
        assert_eq!(mask(&scanner, "Member 12345674"), "Member [REDACTED:BADGE]");
        assert_eq!(mask(&scanner, "Member 12345675"), "Member 12345675");
        assert_eq!(mask(&scanner, "order 12345674"), "order 12345674");
    }

    #[test]
    fn rules_without_a_small_automaton_are_refused_by_name() {
        for pattern in ["(", r"(?=a)abc", r"(a)\1", r"a*", &format!("x{{{CAP}}}", CAP = super::super::CAP)] {
            let error = custom(pattern).unwrap_err().to_string();
            assert!(error.contains("`badge rule`"), "{pattern}: {error}");
        }
        assert_eq!(custom("[ab]{0,400}a[ab]{12}c").unwrap_err(), RuleError::TooLarge("badge rule".into()));
    }

    #[test]
    fn keyed_transforms_of_content_are_refused() {
        let rules = RuleSet::builtin().with_transform(DataClass::EMAIL, Transform::Hash);
        assert_eq!(Scanner::new(rules).unwrap_err(), RuleError::KeyedTransform(DataClass::EMAIL));
    }

    #[test]
    fn revealed_classes_stay() {
        let scanner = Scanner::new(RuleSet::builtin()).unwrap();
        let skip = scanner.reveal(&[DataClass::EMAIL]);
        let mut out = Vec::new();
        assert_eq!(scanner.mask_into(b"a@example.com 10.1.2.3", &skip, &mut out), 1);
        assert_eq!(out, b"a@example.com [REDACTED:IPV4]");
    }

    #[test]
    fn spans_that_overlap_leave_nothing() {
        let scanner = Scanner::new(RuleSet::builtin()).unwrap();
        assert_eq!(
            mask(&scanner, "password=4111 1111 1111 1111 x"),
            "password=[REDACTED:PASSWORD_ASSIGNMENT] x"
        );
    }

    #[test]
    fn only_a_whole_tag_is_no_secret() {
        let scanner = Scanner::new(RuleSet::builtin()).unwrap();
        let masked = "password=[REDACTED:PASSWORD_ASSIGNMENT] x";
        assert_eq!(mask(&scanner, masked), masked);
        assert_eq!(mask(&scanner, "password=[REDACTED:hunter2 x"), masked);
        for hidden in ["[REDACTED:hunter2", "[REDACTED:A]hunter2", "[REDACTED:]hunter2"] {
            let text = format!("password='{hidden}' x");
            assert_eq!(mask(&scanner, &text), "password='[REDACTED:PASSWORD_ASSIGNMENT]' x", "{hidden}");
        }
    }

    #[test]
    fn a_rule_whose_literals_lie_in_two_packs_finds_values_in_any_order() {
        let between = (0..20).map(|n| Rule::new(format!("r{n}"), format!("m{n:02}-[a-z]+"), badge()));
        let rules = RuleSet::builtin().with_rule(Rule::new("two", "(?:zz1-|aa1-)[a-z]+", badge()));
        let scanner = Scanner::new(between.fold(rules, RuleSet::with_rule)).unwrap();
        let long = "q".repeat(600);
        for text in [format!("zz1-{long} aa1-{long}"), format!("aa1-{long} zz1-{long}")] {
            assert_eq!(mask(&scanner, &text), "[REDACTED:BADGE] [REDACTED:BADGE]");
        }
    }

    #[test]
    fn a_partial_mask_of_several_classes_shows_nothing() {
        let scanner = Scanner::new(RuleSet::builtin()).unwrap();
        let text = "4111-1111-1111-1111@example.com x";
        assert_eq!(mask(&scanner, text), "[REDACTED:PAYMENT_CARD] x");
        let (mut found, mut out) = (Vec::new(), Vec::new());
        scanner.find(text.as_bytes(), &ClassSet::default(), &mut found);
        found.iter().for_each(|f| scanner.replace(f, text[f.range.clone()].as_bytes(), &mut out));
        assert_eq!(out, b"[REDACTED:PAYMENT_CARD]");
    }

    #[test]
    fn same_length_keeps_the_length() {
        let rules = RuleSet::builtin().with_transform(DataClass::EMAIL, Transform::SameLength);
        assert_eq!(mask(&Scanner::new(rules).unwrap(), "x a@example.com y"), "x ************* y");
    }

    #[test]
    fn cells_out_of_order_are_refused() {
        let scanner = Scanner::new(RuleSet::builtin()).unwrap();
        let mut out = Vec::new();
        let mut check =
            |cells: &[Range<usize>]| scanner.find_cells(b"abc", cells, &ClassSet::default(), &mut out);
        assert_eq!(check(&[0..2, 1..3]), Err(BadCell(1)));
        assert_eq!(check(&[0..4, 4..4]), Err(BadCell(0)));
        assert_eq!(check(&[0..1, 1..1, 1..3]), Ok(0));
    }

    #[test]
    fn the_automata_fit_their_limit() {
        let scanner = Scanner::new(RuleSet::builtin()).unwrap();
        let size: usize = scanner.program.groups.iter().map(|group| group.machine.size()).sum();
        assert!(size < 2 << 20, "{size} bytes");
    }

    fn values() -> impl Strategy<Value = Vec<String>> {
        let value = prop_oneof![
            "[a-z0-9 .:@+(-]{0,40}",
            prop::sample::select(vec![
                "4111 1111 1111 1111",
                "4111111111111111",
                "call (415) 555-0132 now",
                "ada@example.com",
                "10.1.2.3",
                "2001:db8::1",
                "GB82WEST12345698765432",
                "password=hunter2",
                "536-22-8726",
                "1:2:3:4:5:6:7:8",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(value, 0..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn values_are_masked_the_same_however_they_are_looked_at(values in values(), between in "[\t\\x00a1@:.-]{0,3}") {
            static SCANNER: std::sync::OnceLock<Scanner> = std::sync::OnceLock::new();
            let scanner = SCANNER.get_or_init(|| Scanner::new(RuleSet::builtin()).unwrap());
            let skip = ClassSet::default();
            let (mut buffer, mut cells, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            for value in &values {
                let start = buffer.len();
                buffer.extend_from_slice(value.as_bytes());
                cells.push(start..buffer.len());
                buffer.extend_from_slice(between.as_bytes());
                let mut alone = Vec::new();
                scanner.find(value.as_bytes(), &skip, &mut alone);
                let moved = |f: Finding| Finding { range: f.range.start + start..f.range.end + start, ..f };
                expected.extend(alone.into_iter().map(moved));
            }
            let mut listed = Vec::new();
            scanner.find_cells(&buffer, &cells, &skip, &mut listed).unwrap();
            let listed: Vec<_> =
                listed.into_iter().map(|f| Finding { range: f.range, class: f.class, mixed: f.mixed }).collect();
            prop_assert_eq!(&listed, &expected);
            let mut asked = Vec::new();
            let cell_at = |at: usize| cells.iter().find(|cell| cell.contains(&at)).cloned();
            scanner.alone().find_within(&buffer, &skip, cell_at, &mut asked).unwrap();
            prop_assert_eq!(&asked, &expected);
        }
    }

    #[test]
    fn a_cell_that_is_none_refuses_the_whole() {
        let scanner = Scanner::new(RuleSet::builtin()).unwrap();
        let mut out = Vec::new();
        for cell in [0..1, 0..100, 13..14] {
            let found = scanner.alone().find_within(
                b"x ada@example.com",
                &ClassSet::default(),
                |_| Some(cell.clone()),
                &mut out,
            );
            assert_eq!(found, Err(BadCell(5)), "{cell:?}");
            assert!(out.is_empty());
        }
    }
}
