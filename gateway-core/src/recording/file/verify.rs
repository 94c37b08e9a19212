//! Says what of a recording, or of a directory of them, is proven, given the signer's public key.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::format::{CHECKPOINT_BYTES, Checkpoint, EntryKind, Head, Item};
use super::frames::{Block, Frame, Frames, Stop};
use super::keys::{KeyId, PublicKey};
use super::ledger::{self, LEDGER_NAME, Listed};
use crate::clock::Timestamp;
use crate::recording::{Position, Record};
use crate::session::{CloseReason, SessionId};

/// Something that an honest gateway and honest disks do not leave behind, not even after a crash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The preamble names another key.
    #[error("it says it is signed by key {0}, not by the one given")]
    OtherKey(KeyId),
    /// A signature does not verify.
    #[error("the signature at byte {0} does not verify; nothing from there on is proven")]
    Signature(u64),
    /// A frame is wrong.
    #[error("damaged at byte {at}: {what}")]
    Damaged {
        /// Where the frame begins.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The head that was noted elsewhere is not among the signed ones.
    #[error("the expected head {0} is not in it: it was cut back or replaced")]
    HeadMissing(Head),
    /// The file's name and its content name different sessions.
    #[error("the file is named for another session than `{0}`, which it records")]
    Renamed(SessionId),
    /// The ledger lists a recording that is not there.
    #[error("the recording of session `{0}` was removed")]
    Removed(SessionId),
    /// A recording the ledger does not know, with more than the header an interrupted start may leave.
    #[error("the recording of session `{0}` is not in the ledger: it was added, or the ledger was cut back")]
    Unlisted(SessionId),
    /// The recording's header is not the one the ledger has.
    #[error("the recording of session `{0}` is not the one that the ledger lists")]
    Replaced(SessionId),
    /// The recording ends before what the ledger says was written.
    #[error("the recording of session `{session}` was cut back: {records} records were written")]
    CutBack {
        /// Whose.
        session: SessionId,
        /// How many records the ledger proves.
        records: u64,
    },
    /// Something stands behind the end that the ledger lists. The gateway leaves nothing there when it notes an end, and whoever has no key
    /// can forge it.
    #[error(
        "{records} records and {bytes} bytes stand behind the end of session `{session}`: they were added, and nobody signed them"
    )]
    BehindEnd {
        /// Whose.
        session: SessionId,
        /// How many records can be read there.
        records: u64,
        /// How many bytes of the file can be read as no record.
        bytes: u64,
    },
    /// An end without a beginning.
    #[error("the ledger has an end but no beginning of session `{0}`")]
    NeverOpened(SessionId),
    /// The directory has recordings but no ledger.
    #[error("there is no ledger, so nobody can say what was removed; restore it from a backup")]
    NoLedger,
    /// The ledger file is something else, or of an unknown version.
    #[error("the ledger is not one that this program knows")]
    NotALedger,
    /// A ledger entry is wrong; the rest of the ledger proves nothing.
    #[error("entry {0} of the ledger does not verify")]
    LedgerEntry(u64),
    /// No writer makes such a ledger.
    #[error("the ledger has {0} bytes, more than any writer makes")]
    LedgerTooLarge(u64),
}

/// The last record that is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Its position.
    pub position: Position,
    /// Its time.
    pub at: Timestamp,
}

/// What is proven of one recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Whose it says it is; proven only if `proven_records` is not 0.
    pub session: Option<SessionId>,
    /// How many records, the header included, the key's owner signed.
    pub proven_records: u64,
    /// The last of them.
    pub proven_until: Option<Proven>,
    /// The head of the first signed checkpoint, which is of the header.
    pub opening: Option<Head>,
    /// The head of the last signed checkpoint: it stands for everything proven.
    pub head: Option<Head>,
    /// Bytes up to the end of the last signed checkpoint: what stands behind them is not proven.
    pub proven_bytes: u64,
    /// Why it was closed, if the seal is proven: then nothing is missing.
    pub sealed: Option<CloseReason>,
    /// Intact records after the last signed checkpoint: not proven.
    pub unproven_records: u64,
    /// Bytes after the last intact frame.
    pub torn_bytes: u64,
    /// What cannot be explained by a crash.
    pub problems: Vec<Problem>,
}

impl Verification {
    /// Complete, sealed, and every byte proven.
    pub fn is_intact(&self) -> bool {
        self.sealed.is_some()
            && self.problems.is_empty()
            && self.unproven_records == 0
            && self.torn_bytes == 0
    }

    /// What a crash in the middle of opening leaves: part of a header, or exactly a header.
    fn is_interrupted_start(&self) -> bool {
        let rest = self.torn_bytes > 0 || self.unproven_records > 0;
        let header_only = self.proven_records == 0 && self.unproven_records <= 1;
        self.problems.is_empty() && (header_only || (self.proven_records == 1 && !rest))
    }
}

/// Verifies one recording with a key that came from elsewhere, never from the file. `expect_head`: a head that was noted
/// off the host and must be among the signed ones.
///
/// # Errors
/// The file cannot be read.
pub fn verify(path: &Path, key: &PublicKey, expect_head: Option<&Head>) -> io::Result<Verification> {
    verify_heads(path, key, expect_head).map(|(verification, _)| verification)
}

/// As [`verify`], from any source of bytes, which should be buffered.
///
/// # Errors
/// The source cannot be read.
pub fn verify_bytes(
    input: impl Read,
    key: &PublicKey,
    expect_head: Option<&Head>,
) -> io::Result<Verification> {
    let mut walk = Walk::new(key, expect_head);
    walk.all(input)?;
    Ok(walk.finish().0)
}

/// Also says whether the expected head was met.
fn verify_heads(path: &Path, key: &PublicKey, expect: Option<&Head>) -> io::Result<(Verification, bool)> {
    let file = File::open(path)?;
    let mut walk = Walk::new(key, expect);
    walk.all(BufReader::new(file))?;
    Ok(walk.finish())
}

struct Walk<'a> {
    key: &'a PublicKey,
    expect: Option<&'a Head>,
    expected: bool,
    found: Verification,
    last: Option<(Timestamp, Record)>,
    header_at: Timestamp,
}

impl<'a> Walk<'a> {
    fn new(key: &'a PublicKey, expect: Option<&'a Head>) -> Self {
        let found = Verification::default();
        Self { key, expect, expected: false, found, last: None, header_at: Timestamp::from_micros(0) }
    }

    fn all(&mut self, input: impl Read) -> io::Result<()> {
        let mut counted = Counted { input, bytes: 0 };
        let (outcome, good) = match Frames::new(&mut counted) {
            Err(stop) => (Err(stop), 0),
            Ok(mut frames) => {
                self.preamble(&frames);
                let outcome = self.frames(&mut frames);
                // A frame that was read but is not right is not good.
                (outcome, frames.offset())
            }
        };
        let good = match &outcome {
            Err(Stop::Damaged(at, _) | Stop::Torn(at)) => *at,
            _ => good,
        };
        match outcome {
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Damaged(at, what)) => self.found.problems.push(Problem::Damaged { at, what }),
            Err(Stop::Torn(_)) | Ok(()) => {}
        }
        io::copy(&mut counted, &mut io::sink())?;
        self.found.torn_bytes = counted.bytes.saturating_sub(good);
        Ok(())
    }

    fn preamble<R: Read>(&mut self, frames: &Frames<R>) {
        self.found.session = Some(frames.session());
        if frames.preamble.key != self.key.id() {
            self.found.problems.push(Problem::OtherKey(frames.preamble.key));
        }
    }

    fn frames<R: Read>(&mut self, frames: &mut Frames<R>) -> Result<(), Stop> {
        while let Some(frame) = frames.next()? {
            match frame {
                Frame::Block(block) => self.block(block, frames.session())?,
                Frame::Checkpoint { at, point, signature } => {
                    if !self.key.proves(&point.message(frames.session()), &signature) {
                        self.found.problems.push(Problem::Signature(at));
                        return Ok(());
                    }
                    self.checkpoint(at, &point)?;
                }
            }
        }
        Ok(())
    }

    /// Reads every record: what cannot be read is not proven, whoever signed it.
    fn block(&mut self, mut block: Block, session: SessionId) -> Result<(), Stop> {
        let start = block.start();
        while let Some((at, item)) = block.next()? {
            let first = self.found.proven_records + self.found.unproven_records == 0;
            match item {
                Item::Header(header) if first && header.session == session => self.header_at = at,
                Item::Record(record) if !first => self.last = Some((at, record)),
                _ => {
                    return Err(Stop::Damaged(
                        start,
                        "the header of this session is not its first record only",
                    ));
                }
            }
            self.found.unproven_records += 1;
        }
        Ok(())
    }

    fn checkpoint(&mut self, at: u64, point: &Checkpoint) -> Result<(), Stop> {
        let time = self.last.as_ref().map_or(self.header_at, |(time, _)| *time);
        let Some(last) = point.records.checked_sub(1).filter(|_| point.time == time) else {
            return Err(Stop::Damaged(at, "the checkpoint is not of what stands before it"));
        };
        if point.sealed {
            let Some((_, Record::Closed { reason })) = &self.last else {
                return Err(Stop::Damaged(at, "sealed without a reason"));
            };
            self.found.sealed = Some(reason.clone());
        }
        self.found.proven_records = point.records;
        self.found.unproven_records = 0;
        self.found.proven_until = Some(Proven { position: Position(last), at: time });
        self.found.opening.get_or_insert(point.head);
        self.found.head = Some(point.head);
        self.found.proven_bytes = at + CHECKPOINT_BYTES as u64;
        self.expected |= self.expect.is_some_and(|expect| *expect == point.head);
        Ok(())
    }

    fn finish(mut self) -> (Verification, bool) {
        if let Some(expect) = self.expect.filter(|_| !self.expected) {
            self.found.problems.push(Problem::HeadMissing(*expect));
        }
        (self.found, self.expected)
    }
}

struct Counted<R> {
    input: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// What is proven of a directory of recordings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryVerification {
    /// Each recording that is there, by session.
    pub recordings: Vec<(SessionId, Verification)>,
    /// Sessions whose start was interrupted: a header at most, and not listed. Nothing passed in them.
    pub interrupted: Vec<SessionId>,
    /// Sessions whose end is not in the ledger: they go on, or a crash ended them and no gateway has started since. Whether their end was
    /// cut off, or something was added to it, cannot be said yet.
    pub unended: Vec<SessionId>,
    /// How many ledger entries are proven.
    pub ledger_entries: u64,
    /// The head of the ledger: note it elsewhere, and give it to the next verification.
    pub ledger_head: Option<Head>,
    /// Bytes of an incomplete entry at the end of the ledger.
    pub ledger_torn_bytes: u64,
    /// What is wrong with the directory as a whole.
    pub problems: Vec<Problem>,
}

impl DirectoryVerification {
    /// Nothing is wrong with the directory or any recording in it. Crashes and live sessions are not wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.recordings.iter().all(|(_, one)| one.problems.is_empty())
    }

    /// Records, in all recordings, that nobody signed: what a crash leaves at an end, or what somebody without the key added there.
    pub fn unproven_records(&self) -> u64 {
        self.recordings.iter().map(|(_, one)| one.unproven_records).sum()
    }
}

/// Verifies every recording in a directory against its ledger, also while a gateway writes to it. `expect_ledger_head`: a
/// head of the ledger that was noted off the host; it vouches for everything the ledger had when it was noted.
///
/// Without such a head, and for what came after it, whoever can write to the directory removes unnoticed:
/// - every recording begun since some moment, by cutting the ledger back to that moment, all of them included, or cuts them
///   back to their headers (they then count as [`interrupted`](DirectoryVerification::interrupted));
/// - the end of any session whose closing or recovery is among the last entries of the ledger, by cutting off those entries and
///   then the recording, which then looks like one that a crash ended.
///
/// # Errors
/// The directory or a file in it cannot be read.
pub fn verify_directory(
    directory: &Path,
    key: &PublicKey,
    expect_ledger_head: Option<&Head>,
) -> io::Result<DirectoryVerification> {
    let look = Look { directory, key, expect: expect_ledger_head };
    // Files before the ledger: a recording gets its file before its entry.
    let present = ledger::recordings(directory)?;
    let ledger = look.ledger()?;
    look.compare(present, ledger)
}

/// One verification of a directory.
struct Look<'a> {
    directory: &'a Path,
    key: &'a PublicKey,
    expect: Option<&'a Head>,
}

impl Look<'_> {
    fn ledger(&self) -> io::Result<Option<ledger::Scan>> {
        match ledger::scan(&self.directory.join(LEDGER_NAME), self.key, self.expect) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn compare(
        &self,
        present: Vec<(SessionId, PathBuf)>,
        ledger: Option<ledger::Scan>,
    ) -> io::Result<DirectoryVerification> {
        let mut found = DirectoryVerification::default();
        let mut listed = ledger.as_ref().map(|ledger| ledger.sessions.clone()).unwrap_or_default();
        let mut unlisted = Vec::new();
        for (session, path) in present {
            match listed.remove(&session) {
                Some(listed) => found.recording(session, &path, self.key, Some(listed))?,
                None => unlisted.push((session, path)),
            }
        }
        for (session, listed) in listed {
            let path = self.directory.join(super::file_name(session));
            // It may have come since the directory was read.
            if path.try_exists()? {
                found.recording(session, &path, self.key, Some(listed))?;
            } else {
                found.problems.push(Problem::Removed(session));
            }
        }
        self.unlisted(&mut found, unlisted, ledger.as_ref())?;
        found.recordings.sort_by_key(|(session, _)| *session);
        match ledger {
            Some(ledger) => found.ledger(ledger, self.expect),
            None => {
                found.problems.push(Problem::NoLedger);
                found.problems.extend(self.expect.map(|head| Problem::HeadMissing(*head)));
            }
        }
        Ok(found)
    }

    /// Those that were not in the ledger when it was read. One may have begun just before and be listed by now: nothing but its
    /// header is written before that, so whoever has more is in a ledger that is read after the file.
    fn unlisted(
        &self,
        found: &mut DirectoryVerification,
        files: Vec<(SessionId, PathBuf)>,
        before: Option<&ledger::Scan>,
    ) -> io::Result<()> {
        let mut grown = Vec::new();
        for (session, path) in files {
            let one = verify(&path, self.key, None)?;
            if one.is_interrupted_start() {
                found.add(session, one, None, false);
            } else {
                grown.push((session, path, one));
            }
        }
        let now =
            before.filter(|_| !grown.is_empty()).map(|before| self.grown(before)).transpose()?.flatten();
        for (session, path, one) in grown {
            match now.as_ref().and_then(|now| now.sessions.get(&session)) {
                // Read again: the ledger may know of an end that came after the first reading.
                Some(listed) => found.recording(session, &path, self.key, Some(*listed))?,
                None => found.add(session, one, None, false),
            }
        }
        Ok(())
    }

    /// The ledger as it is now, if it only grew since it was read.
    fn grown(&self, before: &ledger::Scan) -> io::Result<Option<ledger::Scan>> {
        match ledger::scan(&self.directory.join(LEDGER_NAME), self.key, Some(&before.head)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => Ok(Some(other?).filter(|now| now.expected && now.problem.is_none())),
        }
    }
}

impl DirectoryVerification {
    fn ledger(&mut self, ledger: ledger::Scan, expect: Option<&Head>) {
        self.ledger_entries = ledger.entries;
        self.ledger_head = Some(ledger.head);
        self.ledger_torn_bytes = ledger.torn_bytes;
        self.problems.extend(ledger.problem);
        if let Some(expect) = expect.filter(|_| !ledger.expected) {
            self.problems.push(Problem::HeadMissing(*expect));
        }
    }

    fn recording(
        &mut self,
        session: SessionId,
        path: &Path,
        key: &PublicKey,
        listed: Option<Listed>,
    ) -> io::Result<()> {
        let ended = listed.and_then(|listed| listed.ended);
        let expect = ended.map(|(_, head, _)| head);
        let (one, met) = verify_heads(path, key, expect.as_ref())?;
        self.add(session, one, listed, met);
        Ok(())
    }

    /// `met`: whether the head that the ledger has of the end is in it.
    fn add(&mut self, session: SessionId, mut one: Verification, listed: Option<Listed>, met: bool) {
        one.problems.retain(|problem| !matches!(problem, Problem::HeadMissing(_)));
        if let Some(inside) = one.session.filter(|inside| *inside != session) {
            one.problems.push(Problem::Renamed(inside));
        }
        match listed {
            None if one.is_interrupted_start() => self.interrupted.push(session),
            None => self.problems.push(Problem::Unlisted(session)),
            Some(listed) => self.against(session, &one, &listed, met),
        }
        self.recordings.push((session, one));
    }

    fn against(&mut self, session: SessionId, one: &Verification, listed: &Listed, met: bool) {
        match (listed.opened, one.opening) {
            (None, _) => self.problems.push(Problem::NeverOpened(session)),
            (Some(listed), Some(opening)) if listed == opening => {}
            (Some(_), None) => self.problems.push(Problem::CutBack { session, records: 1 }),
            (Some(_), Some(_)) => self.problems.push(Problem::Replaced(session)),
        }
        let Some((kind, _, records)) = listed.ended else { return self.unended.push(session) };
        if !met || (kind == EntryKind::Closed && one.sealed.is_none()) {
            self.problems.push(Problem::CutBack { session, records });
        }
        // Behind a seal it is damage already.
        let (more, bytes) = (one.unproven_records, one.torn_bytes);
        if kind == EntryKind::Settled && met && (more > 0 || bytes > 0) {
            self.problems.push(Problem::BehindEnd { session, records: more, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Principal, PrincipalKind};
    use crate::policy::Revision;
    use crate::recording::file::session::Signed;
    use crate::recording::file::{FileOptions, FileRecorder, FileSystem, RecordingKey};
    use crate::recording::{Header, Recorder};

    fn header(session: SessionId) -> Header {
        Header {
            session,
            principal: Principal::new(PrincipalKind::Agent, "https://issuer", "agent", Timestamp::MAX),
            protocol: "test".to_owned(),
            target: "target".to_owned(),
            scope: None,
            peer: "peer".to_owned(),
            policy: Revision("r1".into()),
            started: Timestamp::from_micros(0),
        }
    }

    /// Versions before left what a crash had torn behind the end they noted: that is no problem, but not proven either.
    #[tokio::test]
    async fn ends_that_earlier_versions_noted_verify_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let key = || RecordingKey::open_or_create(&dir.path().join("recording.key")).unwrap();
        let recorder = FileRecorder::open(dir.path(), key(), FileOptions::default()).unwrap();
        let (session, public) = (SessionId::from_bytes([1; 16]), recorder.public_key());
        let open = recorder.open(header(session)).await.unwrap();
        let completed =
            Record::Observed { operation: crate::operation::OperationId(1), statement: "ls".into() };
        let position = open.append(Timestamp::from_micros(1), completed).unwrap();
        open.durable(position).await.unwrap();
        let path = recorder.path(session);
        drop((open, recorder));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - CHECKPOINT_BYTES]).unwrap();
        let one = verify(&path, &public, None).unwrap();
        let (mut ledger, _) = ledger::Ledger::open(dir.path(), key().into(), &FileSystem).unwrap();
        let time = one.proven_until.unwrap().at;
        let signed = Signed { head: one.head.unwrap(), records: one.proven_records, time };
        ledger.append(&[(EntryKind::Recovered, session, signed)]).unwrap();
        drop(FileRecorder::open(dir.path(), key(), FileOptions::default()).unwrap());
        let found = verify_directory(dir.path(), &public, None).unwrap();
        assert!(found.is_sound(), "{found:?}");
        assert_eq!((found.unproven_records(), found.unended.len(), found.ledger_entries), (1, 0, 2));
    }

    /// What is looked at while it grows: files are listed, then the ledger is read, then the files.
    #[tokio::test]
    async fn a_session_that_begins_and_ends_between_two_looks_is_no_problem() {
        let dir = tempfile::tempdir().unwrap();
        let key = RecordingKey::generate().unwrap();
        let recorder = FileRecorder::open(dir.path(), key, FileOptions::default()).unwrap();
        let public = recorder.public_key();
        let look = Look { directory: dir.path(), key: &public, expect: None };
        let before = look.ledger().unwrap();
        let session = SessionId::from_bytes([1; 16]);
        let open = recorder.open(header(session)).await.unwrap();
        open.close(Timestamp::from_micros(1), CloseReason::Downstream).await.unwrap();
        let present = ledger::recordings(dir.path()).unwrap();
        let found = look.compare(present.clone(), before).unwrap();
        assert_eq!((found.problems.as_slice(), found.recordings.len()), ([].as_slice(), 1));
        assert!(found.is_sound() && found.recordings[0].1.is_intact());
        // One that really is not in the ledger stays a problem.
        drop((open, recorder));
        let ledger = dir.path().join(LEDGER_NAME);
        let bytes = std::fs::read(&ledger).unwrap();
        std::fs::write(&ledger, &bytes[..super::super::format::PREAMBLE_BYTES]).unwrap();
        let found = look.compare(present, look.ledger().unwrap()).unwrap();
        assert_eq!(found.problems, [Problem::Unlisted(session)]);
    }
}
