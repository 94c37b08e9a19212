//! What was recorded: that it verifies, and how much was masked.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gateway_core::recording::Record;
use gateway_core::recording::file::{PublicKey, RecordingReader, recordings, verify_directory};

use crate::Result;

/// What the recordings of one gateway say.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) sessions: usize,
    pub(crate) operations: u64,
    pub(crate) masked: u64,
    /// Of which class how many.
    pub(crate) classes: BTreeMap<String, u64>,
    /// On disk.
    pub(crate) bytes: u64,
}

/// Verifies every recording in the directory, each complete and sealed, and adds up what they say.
///
/// # Errors
/// One does not verify, or is not sealed some time after its session's end.
pub(crate) fn recorded(directory: &Path, key: &[u8; 32]) -> Result<Recorded> {
    let key = PublicKey::from_bytes(*key);
    let mut last = Err("nothing was recorded".into());
    // A session is sealed just after its client has gone; nothing else tells when.
    let sound = testkit::wait_until(
        || {
            last = verified(directory, &key);
            last.is_ok()
        },
        SEALED_DEADLINE,
    );
    last.and_then(|()| if sound { sum(directory) } else { Err("the recordings are not sealed".into()) })
}

fn verified(directory: &Path, key: &PublicKey) -> Result<()> {
    let found = verify_directory(directory, key, None)?;
    if !found.is_sound() || found.recordings.is_empty() {
        return Err(format!("the recordings do not verify: {:?}", found.problems).into());
    }
    match found.recordings.iter().find(|(_, one)| !one.is_intact()) {
        Some((session, one)) => {
            Err(format!("the recording of session {session} is not intact: {one:?}").into())
        }
        None => Ok(()),
    }
}

fn sum(directory: &Path) -> Result<Recorded> {
    let mut recorded = Recorded::default();
    for (_, path) in recordings(directory)? {
        recorded.sessions += 1;
        recorded.bytes += path.metadata()?.len();
        for read in RecordingReader::open(&path)? {
            match read.record {
                Record::Presented { operations, .. } => recorded.operations += operations.len() as u64,
                Record::Completed { masked, .. } => {
                    for (class, count) in masked {
                        recorded.masked += count;
                        *recorded.classes.entry(class).or_default() += count;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(recorded)
}

/// Sealing takes a sync of the disk, and verifying some seconds for gigabytes.
const SEALED_DEADLINE: Duration = Duration::from_secs(15);
