//! What the recordings prove was let through, to be compared with what the database has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gateway_core::operation::{OperationId, Stage};
use gateway_core::recording::Record;
use gateway_core::recording::file::{
    DirectoryVerification, Head, PublicKey, RecordingReader, Verification, recordings, verify_directory,
};

/// Begins every tag in a statement's text.
const TAG: &str = "'L";

/// A recorder's directory, looked at again and again.
#[derive(Debug)]
pub(crate) struct Evidence {
    directory: PathBuf,
    key: PublicKey,
    /// The ledger's head at the last look: it must still be among the heads at the next.
    head: Option<Head>,
    read: BTreeSet<PathBuf>,
    /// How often the statement with this tag was let through, by proven records.
    let_through: BTreeMap<String, u64>,
    /// Proven records so far.
    pub(crate) records: u64,
}

impl Evidence {
    pub(crate) fn new(directory: &Path, key: PublicKey) -> Self {
        Self {
            directory: directory.to_owned(),
            key,
            head: None,
            read: BTreeSet::new(),
            let_through: BTreeMap::new(),
            records: 0,
        }
    }

    /// Verifies everything, then reads what is new up to where it is proven. Nobody may be recording meanwhile.
    pub(crate) fn look(&mut self) {
        let found = verify_directory(&self.directory, &self.key, self.head.as_ref()).unwrap();
        assert!(found.is_sound(), "a crash was taken for tampering: {found:?}");
        self.head = found.ledger_head;
        for (session, path) in recordings(&self.directory).unwrap() {
            if self.read.insert(path.clone()) {
                let proven = of(&found, session);
                self.records += proven.proven_records;
                self.take(&path, proven.proven_records);
            }
        }
    }

    fn take(&mut self, path: &Path, proven: u64) {
        // Killed before the header: there is nothing in it.
        let Ok(reader) = RecordingReader::open(path) else { return assert_eq!(proven, 0) };
        let mut presented: BTreeMap<OperationId, std::sync::Arc<str>> = BTreeMap::new();
        for read in reader.take_while(|read| read.position.0 < proven) {
            match read.record {
                Record::Presented { operations, .. } => presented.extend(
                    operations.into_iter().filter(|o| o.stage == Stage::Execute).map(|o| (o.id, o.statement)),
                ),
                Record::Allowed { operations, .. } => {
                    operations.iter().filter_map(|id| presented.remove(id)).for_each(|sql| self.count(&sql));
                }
                _ => {}
            }
        }
    }

    fn count(&mut self, statement: &str) {
        for (at, _) in statement.match_indices(TAG) {
            let tag: String = statement[at + 1..].chars().take_while(char::is_ascii_alphanumeric).collect();
            *self.let_through.entry(tag).or_default() += 1;
        }
    }

    /// Which of these, by tag and number of the last execution, are not in any proven record.
    pub(crate) fn missing<'a>(&self, executed: &'a BTreeMap<String, u64>) -> Vec<&'a str> {
        let known = |tag: &str| self.let_through.get(tag).copied().unwrap_or(0);
        executed.iter().filter(|(tag, last)| known(tag) < **last).map(|(tag, _)| tag.as_str()).collect()
    }
}

fn of(found: &DirectoryVerification, session: gateway_core::session::SessionId) -> &Verification {
    found.recordings.iter().find(|(id, _)| *id == session).map(|(_, one)| one).unwrap()
}
