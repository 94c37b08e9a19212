//! The records every operation makes, in few bytes: numbers, and references to what the block has said before.
//! `docs/recording-format.md`, "Records", is the specification.

use std::borrow::Cow;
use std::sync::Arc;

use super::format::{Fields, put_varint};
use crate::approval::Digest;
use crate::operation::{Access, Effect, Facts, OperationId, Stage};
use crate::policy::Obligation;
use crate::recording::{Record, RecordedOperation};

/// Pieces of one block that may be referred to. 64: few statements repeat within one block, and looking for one of them is quick.
const MAX_PIECES: usize = 64;
/// Names longer than this many bytes are never referred to, so that a small block cannot unpack to much.
const MAX_NAME_BYTES: usize = 255;
/// Longest list in a compact record; longer ones are written as JSON. 4096: more than a batch has operations. It bounds what a reader
/// allocates for few bytes.
const MAX_LIST: usize = 4096;

/// The text follows and gets the next number.
const KEPT: u64 = 0;
/// The text follows and gets no number.
const LOOSE: u64 = 1;
/// Codes from here on are numbers of pieces.
const FIRST: u64 = 2;

const EXECUTE: u8 = 1;
const WRITE: u8 = 2;

/// A piece that a writer has written into its block, in the order of their numbers.
#[derive(Debug)]
enum Said {
    Accesses(Arc<[Access]>),
    Facts(Arc<Facts>),
    Rules(Arc<[String]>),
    Obligations(Arc<[Obligation]>),
    Statement(Arc<str>),
    Name(Box<str>),
}

/// What a block being written has said.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<Said>);

impl Written {
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets what was said after there were `len` pieces.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Writes which piece it is, if it was said before.
    fn again(&self, out: &mut Vec<u8>, is: impl Fn(&Said) -> bool) -> bool {
        let number = self.0.iter().position(is);
        number.inspect(|number| put_varint(out, *number as u64 + FIRST)).is_some()
    }

    /// Writes a piece that was not said before; `said` if it may come again.
    fn say(&mut self, out: &mut Vec<u8>, text: &[u8], said: Option<Said>) {
        let kept = said.filter(|_| self.0.len() < MAX_PIECES);
        put_varint(out, if kept.is_some() { KEPT } else { LOOSE });
        put_text(out, text);
        self.0.extend(kept);
    }

    fn shared<T: serde::Serialize + ?Sized>(
        &mut self,
        out: &mut Vec<u8>,
        value: &Arc<T>,
        said: fn(Arc<T>) -> Said,
    ) -> Result<(), String> {
        let this = said(Arc::clone(value));
        if !self.again(out, |known| known.is(&this)) {
            let text = serde_json::to_vec(value).map_err(|e| e.to_string())?;
            self.say(out, &text, Some(this));
        }
        Ok(())
    }

    fn name(&mut self, out: &mut Vec<u8>, name: &str) {
        if !self.again(out, |known| matches!(known, Said::Name(other) if **other == *name)) {
            let said = (name.len() <= MAX_NAME_BYTES).then(|| Said::Name(name.into()));
            self.say(out, name.as_bytes(), said);
        }
    }

    fn statement(&mut self, out: &mut Vec<u8>, statement: &Arc<str>) {
        // The pipeline keeps the text of a statement that comes again.
        let again = Arc::strong_count(statement) > 1;
        let this = Said::Statement(Arc::clone(statement));
        if !self.again(out, |known| known.is(&this)) {
            self.say(out, statement.as_bytes(), again.then_some(this));
        }
    }
}

impl Said {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Accesses(a), Self::Accesses(b)) => Arc::ptr_eq(a, b),
            (Self::Facts(a), Self::Facts(b)) => Arc::ptr_eq(a, b),
            (Self::Rules(a), Self::Rules(b)) => Arc::ptr_eq(a, b),
            (Self::Obligations(a), Self::Obligations(b)) => Arc::ptr_eq(a, b),
            (Self::Statement(a), Self::Statement(b)) => Arc::ptr_eq(a, b),
            (Self::Name(a), Self::Name(b)) => a == b,
            _ => false,
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn put_ids(out: &mut Vec<u8>, ids: &[OperationId]) {
    put_varint(out, ids.len() as u64);
    ids.iter().for_each(|id| put_varint(out, id.0));
}

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Json,
    Released,
    Presented,
    Allowed,
    Completed,
    Received,
}

impl Shape {
    pub(super) fn of(record: &Record) -> Self {
        match record {
            Record::Released { .. } => Self::Released,
            Record::Presented { operations, .. } if operations.len() <= MAX_LIST => Self::Presented,
            Record::Allowed { operations, approval: None, .. } if operations.len() <= MAX_LIST => {
                Self::Allowed
            }
            Record::Completed { masked, .. } if masked.len() <= MAX_LIST => Self::Completed,
            Record::Received { .. } => Self::Received,
            _ => Self::Json,
        }
    }
}

/// Writes the body of a record of any shape but [`Shape::Json`]. The bytes of [`Record::Released`] and [`Record::Received`] are left to the caller: it comes last.
pub(super) fn encode(out: &mut Vec<u8>, record: &Record, said: &mut Written) -> Result<(), String> {
    match record {
        Record::Released { operation, encoding, masked, .. }
        | Record::Received { operation, encoding, masked, .. } => {
            put_varint(out, operation.0);
            put_varint(out, *masked);
            said.name(out, encoding);
            Ok(())
        }
        Record::Presented { digest, operations } => {
            out.extend_from_slice(digest.as_bytes());
            put_varint(out, operations.len() as u64);
            operations.iter().try_for_each(|operation| presented(out, operation, said))
        }
        Record::Allowed { operations, rules, obligations, .. } => {
            put_ids(out, operations);
            said.shared(out, rules, Said::Rules)?;
            said.shared(out, obligations, Said::Obligations)
        }
        Record::Completed { operation, outcome, rows, bytes, masked } => {
            put_varint(out, operation.0);
            put_text(out, outcome.as_bytes());
            put_varint(out, *rows);
            put_varint(out, *bytes);
            put_varint(out, masked.len() as u64);
            for (class, count) in masked {
                put_text(out, class.as_bytes());
                put_varint(out, *count);
            }
            Ok(())
        }
        _ => Err("this record has no compact form".to_owned()),
    }
}

fn presented(out: &mut Vec<u8>, operation: &RecordedOperation, said: &mut Written) -> Result<(), String> {
    put_varint(out, operation.id.0);
    let execute = if operation.stage == Stage::Execute { EXECUTE } else { 0 };
    let write = if operation.effect == Effect::Write { WRITE } else { 0 };
    out.push(execute | write);
    said.name(out, &operation.kind);
    said.statement(out, &operation.statement);
    put_varint(out, operation.statement_bytes);
    put_varint(out, operation.arguments);
    said.shared(out, &operation.accesses, Said::Accesses)?;
    said.shared(out, &operation.facts, Said::Facts)
}

/// A piece as a reader has it: its text, and what that was found to mean.
#[derive(Debug)]
struct Heard {
    text: Box<[u8]>,
    meaning: Option<Meaning>,
}

/// What a text means, as far as references to it are shared.
#[derive(Clone, Debug)]
enum Meaning {
    Accesses(Arc<[Access]>),
    Facts(Arc<Facts>),
    Rules(Arc<[String]>),
    Obligations(Arc<[Obligation]>),
    Statement(Arc<str>),
}

/// What a block being read has said so far.
#[derive(Debug, Default)]
pub(super) struct Read(Vec<Heard>);

impl Read {
    /// A piece by what `parse` makes of its text; `pick` takes that out of a meaning found before.
    fn piece<T>(
        &mut self,
        fields: &mut Fields<'_>,
        parse: impl Fn(&[u8]) -> Option<Meaning>,
        pick: impl Fn(&Meaning) -> Option<T>,
    ) -> Option<T> {
        let code = fields.varint()?;
        if let Some(number) = code.checked_sub(FIRST) {
            let heard = self.0.get_mut(usize::try_from(number).ok()?)?;
            if heard.meaning.is_none() {
                heard.meaning = Some(parse(&heard.text)?);
            }
            return heard.meaning.as_ref().and_then(pick);
        }
        let text = text(fields)?;
        let meaning = parse(text)?;
        let picked = pick(&meaning)?;
        self.keep(code, text, Some(meaning))?;
        Some(picked)
    }

    fn keep(&mut self, code: u64, text: &[u8], meaning: Option<Meaning>) -> Option<()> {
        if code == KEPT {
            (self.0.len() < MAX_PIECES).then_some(())?;
            self.0.push(Heard { text: text.into(), meaning });
        }
        Some(())
    }

    fn name(&mut self, fields: &mut Fields<'_>) -> Option<Cow<'static, str>> {
        let code = fields.varint()?;
        if let Some(number) = code.checked_sub(FIRST) {
            let heard = self.0.get(usize::try_from(number).ok()?)?;
            let text = std::str::from_utf8(&heard.text).ok().filter(|text| text.len() <= MAX_NAME_BYTES)?;
            return Some(text.to_owned().into());
        }
        let text = std::str::from_utf8(text(fields)?).ok()?;
        self.keep(code, text.as_bytes(), None)?;
        Some(text.to_owned().into())
    }

    fn statement(&mut self, fields: &mut Fields<'_>) -> Option<Arc<str>> {
        let parse = |text: &[u8]| Some(Meaning::Statement(std::str::from_utf8(text).ok()?.into()));
        self.piece(fields, parse, |m| {
            if let Meaning::Statement(text) = m { Some(Arc::clone(text)) } else { None }
        })
    }

    fn accesses(&mut self, fields: &mut Fields<'_>) -> Option<Arc<[Access]>> {
        let parse = |text: &[u8]| serde_json::from_slice(text).ok().map(Meaning::Accesses);
        self.piece(
            fields,
            parse,
            |m| if let Meaning::Accesses(list) = m { Some(Arc::clone(list)) } else { None },
        )
    }

    fn facts(&mut self, fields: &mut Fields<'_>) -> Option<Arc<Facts>> {
        let parse = |text: &[u8]| serde_json::from_slice(text).ok().map(Meaning::Facts);
        self.piece(
            fields,
            parse,
            |m| if let Meaning::Facts(facts) = m { Some(Arc::clone(facts)) } else { None },
        )
    }

    fn rules(&mut self, fields: &mut Fields<'_>) -> Option<Arc<[String]>> {
        let parse = |text: &[u8]| serde_json::from_slice(text).ok().map(Meaning::Rules);
        self.piece(
            fields,
            parse,
            |m| if let Meaning::Rules(list) = m { Some(Arc::clone(list)) } else { None },
        )
    }

    fn obligations(&mut self, fields: &mut Fields<'_>) -> Option<Arc<[Obligation]>> {
        let parse = |text: &[u8]| serde_json::from_slice(text).ok().map(Meaning::Obligations);
        self.piece(fields, parse, |m| {
            if let Meaning::Obligations(list) = m { Some(Arc::clone(list)) } else { None }
        })
    }
}

fn text<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let length = fields.varint()?;
    fields.slice(length)
}

fn string(fields: &mut Fields<'_>) -> Option<String> {
    text(fields).and_then(|text| std::str::from_utf8(text).ok()).map(str::to_owned)
}

fn list<T>(fields: &mut Fields<'_>, mut item: impl FnMut(&mut Fields<'_>) -> Option<T>) -> Option<Vec<T>> {
    let count = usize::try_from(fields.varint()?).ok().filter(|count| *count <= MAX_LIST)?;
    (0..count).map(|_| item(fields)).collect()
}

/// Reads the body of a record. `None`: it is not one of that shape.
pub(super) fn decode(shape: Shape, mut fields: Fields<'_>, heard: &mut Read) -> Option<Record> {
    let fields = &mut fields;
    let record = match shape {
        Shape::Json => return serde_json::from_slice(fields.rest()).ok(),
        Shape::Released | Shape::Received => {
            let operation = OperationId(fields.varint()?);
            let masked = fields.varint()?;
            let encoding = heard.name(fields)?;
            let bytes = bytes::Bytes::copy_from_slice(fields.rest());
            return Some(if shape == Shape::Released {
                Record::Released { operation, encoding, bytes, masked }
            } else {
                Record::Received { operation, encoding, bytes, masked }
            });
        }
        Shape::Presented => Record::Presented {
            digest: Digest::from_bytes(fields.take()?),
            operations: list(fields, |fields| operation(fields, heard))?,
        },
        Shape::Allowed => Record::Allowed {
            operations: list(fields, |fields| fields.varint().map(OperationId))?,
            rules: heard.rules(fields)?,
            obligations: heard.obligations(fields)?,
            approval: None,
        },
        Shape::Completed => Record::Completed {
            operation: OperationId(fields.varint()?),
            outcome: string(fields)?,
            rows: fields.varint()?,
            bytes: fields.varint()?,
            masked: list(fields, |fields| Some((string(fields)?, fields.varint()?)))?,
        },
    };
    fields.rest().is_empty().then_some(record)
}

fn operation(fields: &mut Fields<'_>, heard: &mut Read) -> Option<RecordedOperation> {
    let id = OperationId(fields.varint()?);
    let flags = fields.u8().filter(|flags| flags & !(EXECUTE | WRITE) == 0)?;
    Some(RecordedOperation {
        id,
        kind: heard.name(fields)?,
        stage: if flags & EXECUTE == 0 { Stage::Prepare } else { Stage::Execute },
        statement: heard.statement(fields)?,
        statement_bytes: fields.varint()?,
        arguments: fields.varint()?,
        effect: if flags & WRITE == 0 { Effect::Read } else { Effect::Write },
        accesses: heard.accesses(fields)?,
        facts: heard.facts(fields)?,
    })
}
