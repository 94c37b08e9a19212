//! SSH end to end: the same stock clients against the server and the gateway.
//!
//! The gateway runs as a process of its own with everything on: Cedar policies, analysis of every command, masking by content, file
//! recording. A second one throws its records away, a third also masks nothing. Client, gateway and server share the cores.

mod clients;
pub(crate) mod serve;
mod subject;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use testkit::Sshd;

use self::clients::{Master, exec, idle, sftp, upload};
use self::subject::{BARE, Gateway, Keys, Subject};
use crate::machine::resident_kib;
use crate::report::{Report, progress};
use crate::rounds::{DIRECT, GATEWAY, Per, Run, Subject as _, measure};
use crate::sample::percentile;
use crate::{Result, Size, check};

/// Measures all cases; one that fails does not keep the others from being measured.
///
/// # Errors
/// The server cannot be started, or cases failed, or a check did not hold.
pub(crate) fn run(size: Size, only: &str, report: &mut Report) -> Result<()> {
    report.against(&[DIRECT, BARE]);
    let stage = Stage::new(size, only)?;
    let mut failures = Vec::new();
    let mut case = |name: &str, body: &dyn Fn(&mut Report, &[Subject]) -> Result<u64>| {
        if let Err(error) = stage.case(report, name, body) {
            progress(&format!("{name}: {error}"));
            failures.push(format!("{name}: {error}"));
        }
    };
    case("exec, new connection", &|report, subjects| stage.connects(report, subjects));
    case("exec, existing connection", &|report, subjects| stage.channels(report, subjects));
    case("download", &|report, subjects| stage.download(report, subjects));
    case("upload", &|report, subjects| stage.upload(report, subjects));
    case("sftp get", &|report, subjects| stage.sftp_get(report, subjects));
    case("sftp put", &|report, subjects| stage.sftp_put(report, subjects));
    case("sftp get, small files", &|report, subjects| stage.small_files(report, subjects));
    case("idle sessions", &|report, subjects| stage.idle(report, subjects));
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n       ").into()) }
}

/// A number that no gateway with masking may let through.
const CARD: &str = "4111 1111 1111 1111";

/// A server and what is copied from and to it.
struct Stage {
    size: Size,
    only: String,
    server: Sshd,
    keys: Keys,
    /// On the server.
    files: PathBuf,
    /// On the client.
    local: TempDir,
    bytes: u64,
}

impl Stage {
    fn new(size: Size, only: &str) -> Result<Self> {
        let server = Sshd::builder().setting("MaxStartups 4000").setting("MaxSessions 100").start()?;
        let local = tempfile::Builder::new().prefix("bench-ssh-").tempdir()?;
        let keys = Keys::new(local.path())?;
        let files = fs::canonicalize(server.home())?.join("files");
        fs::create_dir_all(files.join("small"))?;
        let text = lines(size.pick(64 << 20, 512 << 20));
        let bytes = text.len() as u64;
        fs::write(files.join("text"), &text)?;
        fs::write(local.path().join("text"), &text)?;
        fs::write(files.join("card"), format!("paid with {CARD}\n"))?;
        for n in 0..SMALL_FILES {
            fs::write(files.join(format!("small/{n}")), lines(SMALL_BYTES))?;
        }
        Ok(Self { size, only: only.to_owned(), server, keys, files, local, bytes })
    }

    /// Runs one case with gateways of its own; then checks what was recorded.
    fn case(
        &self,
        report: &mut Report,
        case: &str,
        body: &dyn Fn(&mut Report, &[Subject]) -> Result<u64>,
    ) -> Result<()> {
        if !case.contains(&self.only) {
            return Ok(());
        }
        let folder = tempfile::Builder::new().prefix("bench-recordings-").tempdir()?;
        let start = |recordings: Option<&Path>, masking| {
            Gateway::start(&self.server, &self.keys, &self.files, recordings, masking)
        };
        let (recording, unrecorded) = (start(Some(folder.path()), true)?, start(None, true)?);
        let bare = start(None, false)?;
        let subjects = [Subject::direct(&self.server), recording.subject.clone()];
        let subjects = [&subjects[..], &[unrecorded.subject.clone(), bare.subject.clone()]].concat();
        self.check_masked(&recording.subject)?;
        let least = body(report, &subjects)?;
        unrecorded.stop()?;
        bare.stop()?;
        let key = recording.key.ok_or("the gateway tells no key")?;
        let recorded = check::recorded(folder.path(), &key)?;
        recording.stop()?;
        if recorded.operations < least || recorded.masked == 0 {
            return Err(
                format!("at least {least} operations had to be recorded, and not {recorded:?}").into()
            );
        }
        report.add(case, GATEWAY, "recorded", recorded.operations as f64, "operations");
        report.add(case, GATEWAY, "recordings", recorded.bytes as f64 / 1e6, "MB");
        Ok(())
    }

    fn check_masked(&self, subject: &Subject) -> Result<()> {
        let mut ssh = subject.client("ssh");
        let told =
            ssh.arg(subject.place()).arg(format!("cat {}", self.files.join("card").display())).output()?;
        let text = String::from_utf8_lossy(&told.stdout);
        if text.starts_with("paid with ") && !text.contains(CARD) {
            Ok(())
        } else {
            Err(format!("a planted value came through: {text}").into())
        }
    }

    fn connects(&self, report: &mut Report, subjects: &[Subject]) -> Result<u64> {
        let count = self.size.pick(10, 50);
        let rounds = self.size.pick(3, 5);
        self.latencies(report, "exec, new connection", (subjects, rounds), |subject| {
            (0..count).map(|_| exec(subject, "true").map(|(seconds, _)| seconds)).collect()
        })
    }

    fn channels(&self, report: &mut Report, subjects: &[Subject]) -> Result<u64> {
        let count = self.size.pick(40, 200);
        let rounds = self.size.pick(3, 5);
        self.latencies(report, "exec, existing connection", (subjects, rounds), |subject| {
            let master = Master::connect(subject, self.local.path())?;
            master.exec(subject, "true")?;
            (0..count).map(|_| master.exec(subject, "true")).collect()
        })
    }

    fn latencies(
        &self,
        report: &mut Report,
        case: &str,
        subjects: (&[Subject], usize),
        sample: impl Fn(&Subject) -> Result<Vec<f64>>,
    ) -> Result<u64> {
        let done = measure(report, case, subjects, Per::Million, |subject| {
            let mut times = sample(subject)?;
            times.sort_by(f64::total_cmp);
            let millis = |share: f64| percentile(&times, share) * 1000.0;
            let metrics = vec![("time, p50", millis(0.5), "ms"), ("time, p99", millis(0.99), "ms")];
            Ok(Run { metrics, work: times.len() as f64 })
        })?;
        Ok(done as u64)
    }

    fn download(&self, report: &mut Report, subjects: &[Subject]) -> Result<u64> {
        let command = format!("cat {}", self.files.join("text").display());
        self.bulk(report, "download", subjects, |subject| {
            let (seconds, bytes) = exec(subject, &command)?;
            // Text without anything to mask comes as it is.
            if bytes == self.bytes { Ok(seconds) } else { Err(format!("{bytes} bytes came").into()) }
        })
    }

    fn upload(&self, report: &mut Report, subjects: &[Subject]) -> Result<u64> {
        let from = self.local.path().join("text");
        self.bulk(report, "upload", subjects, |subject| {
            upload(subject, &from, "cat >/dev/null").map(|(seconds, _)| seconds)
        })
    }

    fn sftp_get(&self, report: &mut Report, subjects: &[Subject]) -> Result<u64> {
        let batch = format!("get {} /dev/null\n", self.files.join("text").display());
        self.bulk(report, "sftp get", subjects, |subject| sftp(subject, &batch, self.local.path()))
    }

    fn sftp_put(&self, report: &mut Report, subjects: &[Subject]) -> Result<u64> {
        let (from, to) = (self.local.path().join("text"), self.files.join("uploaded"));
        let batch = format!("put {} {}\n", from.display(), to.display());
        self.bulk(report, "sftp put", subjects, |subject| {
            let seconds = sftp(subject, &batch, self.local.path())?;
            let bytes = fs::metadata(&to)?.len();
            if bytes == self.bytes { Ok(seconds) } else { Err(format!("{bytes} bytes arrived").into()) }
        })
    }

    fn bulk(
        &self,
        report: &mut Report,
        case: &str,
        subjects: &[Subject],
        copy: impl Fn(&Subject) -> Result<f64>,
    ) -> Result<u64> {
        let rounds = self.size.pick(3, 5);
        measure(report, case, (subjects, rounds), Per::Gigabyte, |subject| {
            let seconds = copy(subject)?;
            let metrics = vec![("rate", self.bytes as f64 / seconds / 1e6, "MB/s")];
            Ok(Run { metrics, work: self.bytes as f64 })
        })?;
        Ok(rounds as u64)
    }

    fn small_files(&self, report: &mut Report, subjects: &[Subject]) -> Result<u64> {
        let rounds = self.size.pick(3, 5);
        measure(report, "sftp get, small files", (subjects, rounds), Per::Million, |subject| {
            let to = tempfile::tempdir_in(self.local.path())?;
            let batch = format!("get -R {}/small {}\n", self.files.display(), to.path().display());
            let seconds = sftp(subject, &batch, self.local.path())?;
            let came = fs::read_dir(to.path().join("small"))?.count();
            if came != SMALL_FILES {
                return Err(format!("{came} files came").into());
            }
            let metrics = vec![("rate", SMALL_FILES as f64 / seconds, "files/s")];
            Ok(Run { metrics, work: SMALL_FILES as f64 })
        })?;
        Ok((rounds * SMALL_FILES) as u64)
    }

    /// What a session takes that is logged in, with its connection to the target, and waits for nothing.
    fn idle(&self, report: &mut Report, subjects: &[Subject]) -> Result<u64> {
        let count = self.size.pick(100, 1_000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for subject in subjects {
            let Some(pid) = subject.pid() else { continue };
            // What is made once, at the first sessions.
            let first = runtime.block_on(idle(subject))?;
            let before = resident_kib(pid)?;
            let mut sessions = Vec::with_capacity(count);
            for _ in 0..count {
                sessions.push(runtime.block_on(idle(subject))?);
            }
            let each = (resident_kib(pid)? - before) / count as f64;
            report.add("idle sessions", subject.name(), "memory per idle session", each, "KiB");
            drop((first, sessions));
        }
        Ok(count as u64)
    }
}

/// Text as logs have it, with nothing to mask.
fn lines(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 128);
    let mut n = 0_u64;
    while text.len() < bytes {
        let line = format!(
            "2026-01-05T12:{:02}:{:02}Z web1 app[{}]: request {} took {} ms, status {} path /orders/list\n",
            n / 60 % 60,
            n % 60,
            n % 977,
            n,
            n * 7 % 1013,
            200 + n % 5
        );
        text.extend_from_slice(line.as_bytes());
        n += 1;
    }
    text.truncate(bytes);
    text
}

/// Files of one folder that are fetched one by one.
const SMALL_FILES: usize = 300;
/// Size of each. 2 KiB.
const SMALL_BYTES: usize = 2 << 10;
