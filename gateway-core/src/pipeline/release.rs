//! The way back: mask, count, record, release.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::budgets::{Budgets, Key, Subject, Taken};
use super::content::{Tally, content};
use super::guard::{Guard, GuardInner, recorder_failed};
use crate::error::{Denial, DenialCode};
use crate::masking::{
    CellFinding, ClassSet, Controls, FieldRule, Finding, KnownLiterals, MaskKey, MaskedField, Scanner,
    TerminalMasker, Transform, mask_field, readings,
};
use crate::operation::{Operation, OperationId, Resource};
use crate::policy::{Content, Obligation, PolicyInput, Revision};
use crate::recording::Record;

/// A field of the target that carries a class of sensitive values.
#[derive(Clone, Debug)]
pub struct Label {
    /// The field, for example `Target / Database / Schema / Table / Column`.
    pub resource: Resource,
    /// What it carries and how it is masked.
    pub rule: FieldRule,
}

/// What one principal may see, under one revision of the policies.
#[derive(Debug)]
pub(super) struct MaskPlan {
    revision: Revision,
    /// Classes of content that are shown.
    skip: ClassSet,
    /// For each label: shown?
    revealed: Vec<bool>,
}

impl MaskPlan {
    pub(super) fn reveals(&self, label: usize) -> bool {
        self.revealed.get(label).copied().unwrap_or(false)
    }
}

impl GuardInner {
    /// The plan in force; asked anew when the policies changed, and for every operation if it depends on the time.
    pub(super) async fn mask_plan(self: &Arc<Self>) -> Result<Arc<MaskPlan>, Denial> {
        let revision = self.pipeline.policy.revision();
        match self.plan() {
            Some(plan) if plan.revision == revision && !self.pipeline.policy.reveal_reads_time() => Ok(plan),
            _ => {
                let plan = Arc::new(self.ask_plan(revision).await?);
                self.set_plan(Arc::clone(&plan));
                Ok(plan)
            }
        }
    }

    async fn ask_plan(self: &Arc<Self>, revision: Revision) -> Result<MaskPlan, Denial> {
        let classes = self.pipeline.scanner.classes();
        let target = Resource::target(&self.info.target);
        let content = classes.iter().map(|class| target.child("DataClass", class.name()));
        let fields = self.labels.iter().map(|label| label.resource.clone());
        let questions: Vec<_> = content.chain(fields).collect();
        let shown = Guard(Arc::clone(self)).reveals(&questions).await?;
        let (by_class, by_field) = shown.split_at(classes.len());
        let mut skip = ClassSet::default();
        by_class.iter().enumerate().filter(|(_, shown)| **shown).for_each(|(i, _)| {
            skip.insert(i);
        });
        Ok(MaskPlan { revision, skip, revealed: by_field.to_vec() })
    }
}

impl Guard {
    /// For each resource: may the principal see its content unmasked, whatever is in it? Ask again when
    /// [`Results::is_stale`] says that the policies changed.
    ///
    /// # Errors
    /// The policies cannot be asked: show nothing.
    pub async fn reveals(&self, resources: &[Resource]) -> Result<Vec<bool>, Denial> {
        let reveal = Operation::new("reveal", "");
        let input = PolicyInput::new(&self.0.info, &reveal, self.0.pipeline.clock.now());
        let shown = self.0.pipeline.policy.reveal(&input, resources).await.map_err(|e| masking_failed(&e))?;
        if shown.len() == resources.len() {
            return Ok(shown);
        }
        Err(masking_failed(&"the engine answered another number of labels"))
    }
}

fn masking_failed(cause: &dyn std::fmt::Display) -> Denial {
    Denial::new(DenialCode::MaskingFailed, "it could not be decided what must be masked, so nothing is shown")
        .with_hint("tell the gateway's operator; the log has the cause")
        .with_cause(cause)
}

/// Bytes that may go to the downstream: masked and recorded, or worded by the gateway itself. Nothing else makes one.
#[derive(Clone, Debug)]
#[must_use]
pub struct Released(Bytes);

impl Released {
    pub(super) const fn originated(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes to send.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes to send.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl AsRef<[u8]> for Released {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The answer of one permitted batch on its way back. Comes out of a [`Permit`](super::Permit) only.
#[derive(Debug)]
pub struct Results {
    pub(super) guard: Arc<GuardInner>,
    pub(super) first: OperationId,
    pub(super) content: Content,
    /// Of what was released, where its recording keeps no more.
    pub(super) tally: Option<Box<Tally>>,
    plan: Arc<MaskPlan>,
    rows_left: u64,
    bytes_left: u64,
    rows: u64,
    bytes: u64,
    masked: BTreeMap<usize, u64>,
    /// What this is charged to, together with other operations.
    budgets: Arc<[Key]>,
    /// For each label the class as which its values are counted; empty if none are.
    counted: Arc<[Option<Arc<str>>]>,
}

/// One stream of an answer, masked piece by piece. Comes out of [`Results::stream`].
#[derive(Debug)]
pub struct ResultStream {
    masker: TerminalMasker,
}

/// Index under which values that were withheld whole are counted.
const WITHHELD: usize = usize::MAX;

impl Results {
    pub(super) fn new(
        guard: Arc<GuardInner>,
        first: OperationId,
        plan: Arc<MaskPlan>,
        obligations: &[Obligation],
    ) -> Self {
        let budgets = Self::accounts(&guard, obligations);
        let cap = |pick: fn(&Obligation) -> Option<u64>| {
            obligations.iter().filter_map(pick).min().unwrap_or(u64::MAX)
        };
        let content = content(obligations);
        let counted = Self::counted(&guard, obligations);
        Self {
            counted,
            guard,
            first,
            content,
            tally: (content == Content::Digest).then(Box::default),
            plan,
            rows_left: cap(|o| if let Obligation::LimitRows(n) = o { Some(*n) } else { None }),
            bytes_left: cap(|o| if let Obligation::LimitBytes(n) = o { Some(*n) } else { None }),
            rows: 0,
            bytes: 0,
            masked: BTreeMap::new(),
            budgets,
        }
    }

    /// The accounts that obligations name.
    pub(super) fn accounts(guard: &GuardInner, obligations: &[Obligation]) -> Arc<[Key]> {
        let mut budgets = obligations.iter().filter_map(|duty| match duty {
            Obligation::Budget(budget) => Some(Key::new(budget, &guard.info)),
            _ => None,
        });
        // Most operations have none: an empty list that is collected would be allocated.
        budgets.next().map_or_else(Arc::default, |first| std::iter::once(first).chain(budgets).collect())
    }

    /// Which labels are counted as subjects by budgets.
    fn counted(guard: &GuardInner, obligations: &[Obligation]) -> Arc<[Option<Arc<str>>]> {
        let classes: Vec<&str> = obligations
            .iter()
            .filter_map(|duty| match duty {
                Obligation::Budget(budget) => budget.subjects.as_ref().map(|subjects| &*subjects.of),
                _ => None,
            })
            .collect();
        if classes.is_empty() {
            return Arc::default();
        }
        let class = |label: &Label| {
            classes.iter().find(|class| **class == label.rule.class.name()).map(|class| Arc::from(*class))
        };
        guard.labels.iter().map(class).collect()
    }

    /// The number of the batch's first operation.
    pub const fn first(&self) -> OperationId {
        self.first
    }

    /// Results of the same batch for what the target sends on its account once it is answered, such as notifications after LISTEN.
    /// What is left of its caps is left to them. They need no [`complete`](Self::complete): each release is recorded by itself.
    #[must_use]
    pub fn afterwards(&self) -> Self {
        let (guard, plan) = (Arc::clone(&self.guard), Arc::clone(&self.plan));
        let (budgets, counted) = (Arc::clone(&self.budgets), Arc::clone(&self.counted));
        let tally = None;
        Self { guard, plan, budgets, counted, tally, masked: BTreeMap::new(), rows: 0, bytes: 0, ..*self }
    }

    /// Whether the policies changed since the masks were decided: have [`Guard::catch_up`](super::Guard::catch_up) ask
    /// anew and call [`adopt_masks`](Self::adopt_masks) before the next release.
    pub fn is_stale(&self) -> bool {
        self.plan.revision != self.guard.pipeline.policy.revision()
    }

    /// Takes over the masks that [`Guard::catch_up`](super::Guard::catch_up) asked for; what was shown before the change may be
    /// hidden now, never the reverse.
    pub fn adopt_masks(&mut self) {
        let Some(now) = self.guard.plan() else { return };
        let mut skip = ClassSet::default();
        let both = |i: &usize| now.skip.contains(*i) && self.plan.skip.contains(*i);
        (0..self.guard.pipeline.scanner.classes().len()).filter(both).for_each(|i| {
            skip.insert(i);
        });
        let revealed = now.revealed.iter().zip(&self.plan.revealed).map(|(a, b)| *a && *b).collect();
        self.plan = Arc::new(MaskPlan { revision: now.revision.clone(), skip, revealed });
    }

    /// Whether this label's values are shown unmasked.
    pub fn reveals(&self, label: usize) -> bool {
        self.plan.reveals(label)
    }

    /// Whether a budget counts this label's values as subjects: what cannot be given to [`Masker::subject`] as it is in the target, for
    /// example because it was computed, must not be shown.
    pub fn counts(&self, label: usize) -> bool {
        matches!(self.counted.get(label), Some(Some(_)))
    }

    /// Masks, counts, records and releases a piece of the answer that holds `rows` rows (records, lines).
    ///
    /// `mask` gets the target's bytes and returns what to send instead, or `None` to send them as they are.
    ///
    /// # Errors
    /// `mask`'s denial, a cap that is exceeded, or a recorder that failed: nothing of this piece may be sent.
    pub fn release(
        &mut self,
        encoding: &'static str,
        raw: Bytes,
        rows: u64,
        mask: impl FnOnce(&mut Masker<'_>, &Bytes) -> Result<Option<Bytes>, Denial>,
    ) -> Result<Released, Denial> {
        let mut masker = Masker {
            scanner: &self.guard.pipeline.scanner,
            known: self.guard.known(),
            plan: &self.plan,
            labels: &self.guard.labels,
            key: &self.guard.pipeline.mask_key,
            scope: self.guard.info.principal.task.as_deref().unwrap_or(""),
            masked: &mut self.masked,
            count: 0,
            counted: &self.counted,
            budgets: &self.guard.pipeline.budgets,
            subjects: Vec::new(),
        };
        let bytes = mask(&mut masker, &raw)?.unwrap_or(raw);
        let masked = masker.count;
        let subjects = std::mem::take(&mut masker.subjects);
        self.spend(Taken { rows, bytes: bytes.len() as u64, subjects: &subjects })?;
        if let Some(tally) = &mut self.tally {
            tally.add(&bytes);
            return Ok(Released(bytes));
        }
        let record = Record::Released {
            operation: self.first,
            encoding: encoding.into(),
            bytes: bytes.clone(),
            masked,
        };
        self.guard.record(record).map_err(|e| recorder_failed(&e))?;
        Ok(Released(bytes))
    }

    /// One more stream of this answer, for example standard error: masked across pieces and control sequences, however it is cut.
    /// Say by `controls` whether it is what a terminal shows.
    pub fn stream(&self, controls: Controls) -> ResultStream {
        let scanner = Arc::clone(&self.guard.pipeline.scanner);
        let masker =
            TerminalMasker::new(scanner, self.plan.skip, controls).beside(Arc::clone(self.guard.known()));
        ResultStream { masker }
    }

    /// Masks, counts, records and releases what is certain of a stream so far; lines count as rows. `None`: nothing yet, a value may
    /// be under way.
    ///
    /// # Errors
    /// A cap that is exceeded, or a recorder that failed: nothing of this piece may be sent.
    pub fn release_stream(
        &mut self,
        stream: &mut ResultStream,
        encoding: &'static str,
        raw: &[u8],
    ) -> Result<Option<Released>, Denial> {
        stream.masker.set_skip(self.plan.skip);
        let mut out = Vec::with_capacity(raw.len() + stream.masker.held());
        stream.masker.push(raw, &mut out);
        self.release_masked(stream, encoding, out)
    }

    /// Ends a stream: releases what was held back of it.
    ///
    /// # Errors
    /// Those of [`release_stream`](Self::release_stream).
    pub fn finish_stream(
        &mut self,
        mut stream: ResultStream,
        encoding: &'static str,
    ) -> Result<Option<Released>, Denial> {
        let mut out = Vec::with_capacity(stream.masker.held());
        stream.masker.set_skip(self.plan.skip);
        stream.masker.record_boundary(&mut out);
        self.release_masked(&mut stream, encoding, out)
    }

    fn release_masked(
        &mut self,
        stream: &mut ResultStream,
        encoding: &'static str,
        out: Vec<u8>,
    ) -> Result<Option<Released>, Denial> {
        if out.is_empty() {
            return Ok(None);
        }
        let lines = memchr::memchr_iter(b'\n', &out).count() as u64;
        let classes = stream.masker.take_classes();
        let index = |class| self.guard.pipeline.scanner.index(class).unwrap_or(WITHHELD);
        let counted: Vec<_> = classes.iter().map(|(class, count)| (index(class), *count)).collect();
        self.release(encoding, out.into(), lines, |masker, _| {
            counted.into_iter().for_each(|(class, count)| masker.note_many(class, count));
            Ok(None)
        })
        .map(Some)
    }

    fn spend(&mut self, taken: Taken<'_>) -> Result<(), Denial> {
        let Taken { rows, bytes, .. } = taken;
        self.rows += rows;
        self.bytes += bytes;
        let over = |what: &str| {
            Denial::new(
                DenialCode::LimitExceeded,
                format!("the policy's limit on {what} of this operation is reached"),
            )
            .with_hint("narrow the operation so that it returns less")
        };
        self.rows_left = self.rows_left.checked_sub(rows).ok_or_else(|| over("rows"))?;
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or_else(|| over("bytes"))?;
        self.charge(taken)
    }

    /// Charges budgets; what they do not cover is recorded as denied, and withheld.
    fn charge(&self, taken: Taken<'_>) -> Result<(), Denial> {
        if self.budgets.is_empty() {
            return Ok(());
        }
        let pipeline = &self.guard.pipeline;
        pipeline.budgets.charge(&self.budgets, taken, pipeline.clock.now()).map_err(|denial| {
            let record = Record::Denied { operations: vec![self.first], denial: (&denial).into() };
            self.guard.record(record).err().map_or(denial, |error| recorder_failed(&error))
        })
    }

    /// Records how it ended, in the protocol's own word.
    ///
    /// # Errors
    /// The recorder failed: end the session.
    pub fn complete(mut self, outcome: &str) -> Result<(), Denial> {
        self.tell_digest()?;
        let classes = self.guard.pipeline.scanner.classes();
        let name = |index: usize| classes.get(index).map_or("protected", |class| class.name()).to_owned();
        let record = Record::Completed {
            operation: self.first,
            outcome: outcome.to_owned(),
            rows: self.rows,
            bytes: self.bytes,
            masked: self.masked.iter().map(|(index, count)| (name(*index), *count)).collect(),
        };
        let masked: u64 = self.masked.values().sum();
        self.guard.counters.masked.increment(masked);
        self.guard.record(record).map(|_| ()).map_err(|e| recorder_failed(&e))
    }
}

impl Results {
    fn tell_digest(&mut self) -> Result<(), Denial> {
        let tally = self.tally.take().filter(|tally| tally.bytes() > 0);
        tally.map_or(Ok(()), |tally| self.digested("released", &tally))
    }
}

impl Drop for Results {
    /// An answer that is cut off must not leave no trace of what was released of it.
    fn drop(&mut self) {
        // What cannot be recorded any more ends the session at its next operation.
        let _ = self.tell_digest();
    }
}

/// Masks values of one piece of an answer and counts what it masks. Exists only inside [`Results::release`].
#[derive(Debug)]
pub struct Masker<'a> {
    scanner: &'a Scanner,
    known: &'a KnownLiterals,
    plan: &'a MaskPlan,
    labels: &'a [Label],
    key: &'a MaskKey,
    scope: &'a str,
    masked: &'a mut BTreeMap<usize, u64>,
    count: u64,
    counted: &'a [Option<Arc<str>>],
    budgets: &'a Budgets,
    subjects: Vec<Subject>,
}

impl Masker<'_> {
    /// Whether this label's values are shown, under the policies of now.
    pub fn reveals(&self, label: usize) -> bool {
        self.plan.reveals(label)
    }

    /// The text with sensitive content masked, or `None` if there is none in it.
    pub fn text(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let mut findings = Vec::new();
        self.scanner.beside(self.known).find(text, &self.plan.skip, &mut findings);
        (!findings.is_empty()).then(|| self.replace(text, &findings))
    }

    /// Like [`text`](Self::text) for a value whose label this principal may see: the label's own class is shown.
    pub fn text_revealing(&mut self, label: usize, text: &[u8]) -> Option<Vec<u8>> {
        let mut skip = self.plan.skip;
        let class = self.labels.get(label).and_then(|l| self.scanner.index(&l.rule.class));
        class.map(|index| skip.insert(index));
        let mut findings = Vec::new();
        self.scanner.beside(self.known).find(text, &skip, &mut findings);
        (!findings.is_empty()).then(|| self.replace(text, &findings))
    }

    /// Looks at many values lying in one buffer at once; values are hard boundaries. Findings are appended in order.
    ///
    /// # Errors
    /// The cells are not ascending ranges of the buffer: nothing may be released.
    pub fn cells(
        &self,
        buffer: &[u8],
        cells: &[Range<usize>],
        findings: &mut Vec<CellFinding>,
    ) -> Result<(), Denial> {
        let found = self.scanner.beside(self.known).find_cells(buffer, cells, &self.plan.skip, findings);
        found.map(|_| ()).map_err(|e| masking_failed(&e))
    }

    /// Looks at many values lying in one buffer at once, as [`cells`](Self::cells), for callers that find the value a place belongs to
    /// when it is asked for: `cell_at` gives its range, or `None` if it is not to be looked at.
    ///
    /// # Errors
    /// A range that does not contain the place: nothing may be released.
    pub fn within(
        &self,
        buffer: &[u8],
        cell_at: impl FnMut(usize) -> Option<Range<usize>>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Denial> {
        let found = self.scanner.beside(self.known).find_within(buffer, &self.plan.skip, cell_at, findings);
        found.map_err(|e| masking_failed(&e))
    }

    /// The text with these findings (ranges within it) replaced.
    pub fn replace(&mut self, text: &[u8], findings: &[Finding]) -> Vec<u8> {
        for finding in findings {
            self.note(self.scanner.index(&finding.class).unwrap_or(WITHHELD));
        }
        let mut out = Vec::with_capacity(text.len());
        let mut position = 0;
        for finding in findings {
            out.extend_from_slice(text.get(position..finding.range.start).unwrap_or_default());
            self.scanner.replace(finding, text.get(finding.range.clone()).unwrap_or_default(), &mut out);
            position = finding.range.end;
        }
        out.extend_from_slice(text.get(position..).unwrap_or_default());
        out
    }

    /// The text with sensitive content replaced by as many `*`, or `None` if there is none in it: for answers whose offsets count.
    /// Values are found although control sequences stand between their characters, as in streams.
    ///
    /// # Errors
    /// The text cannot be looked at: nothing may be released.
    pub fn text_of_same_length(&mut self, text: &[u8]) -> Result<Option<Vec<u8>>, Denial> {
        let mut found = self.found_in(text)?;
        for reading in readings(text).into_iter().flatten() {
            let across = self.found_in(&reading.text)?.into_iter();
            found.extend(across.map(|f| CellFinding { range: reading.hull(&f.range), ..f }));
        }
        if found.is_empty() {
            return Ok(None);
        }
        let mut out = text.to_vec();
        for finding in found {
            let value = out.get_mut(finding.range).unwrap_or_default();
            // Several readings may find the same one.
            if value.iter().any(|byte| *byte != b'*') {
                self.note(self.scanner.index(&finding.class).unwrap_or(WITHHELD));
                value.fill(b'*');
            }
        }
        Ok(Some(out))
    }

    fn found_in(&self, text: &[u8]) -> Result<Vec<CellFinding>, Denial> {
        let mut findings = Vec::new();
        self.cells(text, std::slice::from_ref(&(0..text.len())), &mut findings)?;
        Ok(findings)
    }

    /// Counts a value of a labelled field, shown or masked, where a budget counts subjects. Call it with the target's bytes for every
    /// such value that is not null.
    pub fn subject(&mut self, label: usize, value: &[u8]) {
        if let Some(Some(class)) = self.counted.get(label) {
            self.subjects.push(self.budgets.subject(class, value));
        }
    }

    /// A labelled text value masked by its rule; `None` is the protocol's null. A revealed label's value passes, masked by content.
    pub fn field(&mut self, label: usize, value: &[u8]) -> Option<Vec<u8>> {
        let Some(rule) = self.labels.get(label).map(|l| &l.rule) else {
            self.withheld();
            return None;
        };
        self.note(self.scanner.index(&rule.class).unwrap_or(WITHHELD));
        match mask_field(rule, value, &self.key.derive(self.scope)) {
            MaskedField::Value(masked) => Some(masked),
            _ => None,
        }
    }

    /// Counts a labelled value that is replaced by a number; false if the rule wants null.
    pub fn number(&mut self, label: usize) -> bool {
        let rule = self.labels.get(label).map(|l| &l.rule);
        self.note(rule.and_then(|r| self.scanner.index(&r.class)).unwrap_or(WITHHELD));
        rule.is_some_and(|r| r.transform != Transform::Null)
    }

    /// Counts a value that is withheld whole.
    pub fn withheld(&mut self) {
        self.note(WITHHELD);
    }

    fn note(&mut self, class: usize) {
        self.note_many(class, 1);
    }

    fn note_many(&mut self, class: usize, count: u64) {
        *self.masked.entry(class).or_default() += count;
        self.count += count;
    }
}
