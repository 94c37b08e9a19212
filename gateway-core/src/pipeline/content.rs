//! What of an operation's content its recording keeps beside what was released: lengths, hashes, and what the client sent.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;

use super::guard::{GuardInner, recorder_failed};
use super::release::Results;
use crate::error::Denial;
use crate::masking::{ClassSet, Controls, TerminalMasker};
use crate::operation::OperationId;
use crate::policy::{Content, Obligation};
use crate::recording::Record;

/// Length and SHA-256 of content, taken as it passes.
#[derive(Clone)]
pub struct Tally {
    bytes: u64,
    hash: digest::Context,
}

impl Default for Tally {
    fn default() -> Self {
        Self { bytes: 0, hash: digest::Context::new(&digest::SHA256) }
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Tally {
    /// Takes the next piece.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// Bytes taken so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The hash of all of it, in lower-case hexadecimal digits, as `sha256sum` prints it.
    pub fn sha256(&self) -> String {
        self.hash.clone().finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What the determining permits say together.
pub(super) fn content(obligations: &[Obligation]) -> Content {
    let said = obligations.iter().filter_map(|duty| match duty {
        Obligation::Record(content) => Some(*content),
        _ => None,
    });
    said.max().unwrap_or_default()
}

/// Content on its way into the recording: what a client sends within one operation, for example a program's standard input, or a file.
///
/// Give it every piece before it is forwarded. By [`Content::All`] it records them masked, by any other rule their length and hash.
/// Dropped, it ends as with [`finish`](Self::finish).
#[derive(Debug)]
pub struct Input {
    ended: bool,
    guard: Arc<GuardInner>,
    operation: OperationId,
    name: &'static str,
    tally: Tally,
    masker: Option<TerminalMasker>,
}

impl Input {
    /// Bytes taken so far.
    pub const fn bytes(&self) -> u64 {
        self.tally.bytes()
    }

    /// Whether pieces are recorded: wait for the recorder before each, as before a release.
    pub const fn is_recorded(&self) -> bool {
        self.masker.is_some()
    }

    /// Notes a piece; it may be forwarded when this returns.
    ///
    /// # Errors
    /// The recorder failed: end the session.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Denial> {
        self.tally.add(bytes);
        let Some(masker) = &mut self.masker else { return Ok(()) };
        let mut out = Vec::with_capacity(bytes.len() + masker.held());
        masker.push(bytes, &mut out);
        self.record(out)
    }

    /// Ends it: what was held back is recorded, and the length and hash of all of it if there was any.
    ///
    /// # Errors
    /// The recorder failed: end the session.
    pub fn finish(mut self) -> Result<(), Denial> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Denial> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        if let Some(masker) = &mut self.masker {
            let mut out = Vec::with_capacity(masker.held());
            masker.record_boundary(&mut out);
            self.record(out)?;
        }
        if self.tally.bytes == 0 {
            return Ok(());
        }
        let record = digested(self.operation, self.name, &self.tally);
        self.guard.record(record).map(|_| ()).map_err(|e| recorder_failed(&e))
    }

    fn record(&mut self, out: Vec<u8>) -> Result<(), Denial> {
        if out.is_empty() {
            return Ok(());
        }
        let taken = self.masker.as_mut().map(TerminalMasker::take_classes).unwrap_or_default();
        let masked = taken.iter().map(|(_, count)| *count).sum();
        let (operation, encoding) = (self.operation, self.name.into());
        let record = Record::Received { operation, encoding, bytes: out.into(), masked };
        self.guard.record(record).map(|_| ()).map_err(|e| recorder_failed(&e))
    }
}

impl Drop for Input {
    /// A connection that is cut must not take along what is known of what passed.
    fn drop(&mut self) {
        // What cannot be recorded any more ends the session at its next operation.
        let _ = self.end();
    }
}

impl Results {
    /// What of the operation's content its recording keeps.
    pub const fn content(&self) -> Content {
        self.content
    }

    /// What the client sends within this operation, by the name it is to have in the recording, for example `ssh/stdin`.
    pub fn input(&self, name: &'static str) -> Input {
        let masker = (self.content == Content::All).then(|| {
            // Nobody's permit to see a class shows it to those who read recordings.
            let scanner = Arc::clone(&self.guard.pipeline.scanner);
            TerminalMasker::new(scanner, ClassSet::default(), Controls::AsSent)
                .beside(Arc::clone(self.guard.known()))
        });
        let (guard, operation) = (Arc::clone(&self.guard), self.first);
        Input { ended: false, guard, operation, name, tally: Tally::default(), masker }
    }

    /// Content of another kind that is only to be counted and hashed, by its name, for example `ssh/read`.
    pub fn passing(&self, name: &'static str) -> Input {
        let (guard, operation) = (Arc::clone(&self.guard), self.first);
        Input { ended: false, guard, operation, name, tally: Tally::default(), masker: None }
    }

    /// Records a command that an interactive session seems to have run, from what was released. Sensitive values are masked again: a line
    /// put together from what was drawn in pieces may show one that no piece did.
    ///
    /// # Errors
    /// The recorder failed: end the session.
    pub fn observed(&self, statement: String) -> Result<(), Denial> {
        // Where the rule wants none of the content, not this part of it either.
        if self.content == Content::Digest {
            return Ok(());
        }
        let scanner = self.guard.pipeline.scanner.beside(self.guard.known());
        let masked = scanner.mask(statement.as_bytes(), &ClassSet::default());
        let statement = masked.map_or(statement, |m| String::from_utf8_lossy(&m.text).into_owned());
        let record = Record::Observed { operation: self.first, statement };
        self.guard.record(record).map(|_| ()).map_err(|e| recorder_failed(&e))
    }

    /// For content that only passes through: unless a rule asks for all of it, its length and hash are recorded.
    #[must_use]
    pub fn only_passing(mut self) -> Self {
        if self.content != Content::All {
            self.content = Content::Digest;
            self.tally.get_or_insert_default();
        }
        self
    }

    pub(super) fn digested(&self, name: &'static str, tally: &Tally) -> Result<(), Denial> {
        let record = digested(self.first, name, tally);
        self.guard.record(record).map(|_| ()).map_err(|e| recorder_failed(&e))
    }
}

/// Shorter input is not hashed, only counted: a password could be found by trying. 64 bytes.
const MIN_HASHED_BYTES: u64 = 64;

fn digested(operation: OperationId, name: &'static str, tally: &Tally) -> Record {
    let sha256 = if tally.bytes < MIN_HASHED_BYTES { String::new() } else { tally.sha256() };
    Record::Digested { operation, content: name.into(), bytes: tally.bytes, sha256 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_what_sha256sum_says() {
        let mut tally = Tally::default();
        assert_eq!(tally.sha256(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        tally.add(b"a");
        tally.add(b"bc");
        assert_eq!(tally.bytes(), 3);
        assert_eq!(tally.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_fullest_rule_wins() {
        assert_eq!(content(&[]), Content::Output);
        assert_eq!(
            content(&[Obligation::LimitRows(1), Obligation::Record(Content::Digest)]),
            Content::Digest
        );
        let both = [Obligation::Record(Content::All), Obligation::Record(Content::Digest)];
        assert_eq!(content(&both), Content::All);
    }
}
