//! A fresh cluster without the wait: `initdb` runs once per version and account, later starts copy its result.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::locate::Installation;
use crate::error::{Context, Result};
use crate::process::{private_folder, run};

/// Puts a fresh cluster into `data`, which does not exist yet, in a folder of the server's account.
pub(super) fn copy_cluster(installation: &Installation, data: &Path) -> Result<()> {
    let template = template(installation)?;
    let mut copy = installation.command("cp");
    copy.arg("-Rp").arg(template.join("data")).arg(data);
    run(&mut copy, "", INITDB_DEADLINE)?.success().map(drop).context("copy the template cluster")
}

/// The folder of the template, made when it is not there.
///
/// It is built under a name of its own and renamed when it is complete, so that starts side by side never see half
/// of one; the loser of that race drops its work.
fn template(installation: &Installation) -> Result<PathBuf> {
    // Within one process nobody has to lose the race.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let user = installation.user();
    let name = format!("testkit-pg-template-r{REVISION}-{}-{user}", installation.version);
    let place = std::env::temp_dir().join(name);
    if belongs_to(&place, user) {
        return Ok(place);
    }
    let fresh = server_folder(installation, &std::env::temp_dir(), "testkit-pg-initdb-")?;
    initialize(installation, &fresh.path().join("data"))?;
    let built = fresh.keep();
    match fs::rename(&built, &place) {
        Ok(()) => Ok(place),
        Err(_) if belongs_to(&place, user) => {
            fs::remove_dir_all(&built).context("remove a second template")?;
            Ok(place)
        }
        Err(error) => {
            // Somebody else's folder stands under that name: better an error than running what they prepared.
            let _ = fs::remove_dir_all(&built);
            Err(error).context(&format!("put the template at `{}`, remove what is there", place.display()))
        }
    }
}

/// A temporary folder only the server's account (and root) can enter.
pub(super) fn server_folder(installation: &Installation, place: &Path, prefix: &str) -> Result<TempDir> {
    let folder = private_folder(place, prefix)?;
    installation.own(folder.path())?;
    Ok(folder)
}

/// Where clusters live that need not survive: in memory where there is room, because making the thousand files of one
/// takes a disk up to seconds.
pub(super) fn scratch() -> PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let roomy = || free_kibibytes(SHARED_MEMORY).is_some_and(|free| free >= MIN_FREE_KIBIBYTES);
    PLACE.get_or_init(|| if roomy() { SHARED_MEMORY.into() } else { std::env::temp_dir() }).clone()
}

/// The fourth column of the line below the header (POSIX, `df -P`).
fn free_kibibytes(folder: &str) -> Option<u64> {
    let output = run(Command::new("df").args(["-Pk", folder]), "", DF_DEADLINE).ok()?.success().ok()?;
    output.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

/// `initdb`, then the database and the role every test starts with, through the single-user server.
fn initialize(installation: &Installation, data: &Path) -> Result<()> {
    let mut initdb = installation.command(installation.program("initdb"));
    initdb.arg("-D").arg(data).args(INITDB_OPTIONS);
    run(&mut initdb, "", INITDB_DEADLINE)?.success().context("run `initdb`")?;
    let mut single = installation.command(installation.program("postgres"));
    single.args(["--single", "-F", "-j", "-D"]).arg(data).arg("postgres");
    run(&mut single, SETUP, INITDB_DEADLINE)?.success().map(drop).context("prepare the template cluster")
}

/// A name in the shared temporary folder proves nothing; its owner and mode do.
fn belongs_to(place: &Path, user: u32) -> bool {
    fs::symlink_metadata(place)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == user && meta.mode() & 0o077 == 0)
}

/// To be raised when anything below changes what a template holds.
const REVISION: u32 = 1;
/// The C locale sorts the same everywhere; small WAL segments make the copy half as large. Nothing but the private
/// socket is open without a password, and the superuser has none until [`super::Postgres`] sets it.
const INITDB_OPTIONS: [&str; 7] = [
    "--username=postgres",
    "--encoding=UTF8",
    "--locale=C",
    "--no-sync",
    "--auth-local=trust",
    "--auth-host=scram-sha-256",
    "--wal-segsize=4",
];
/// With `-j` a statement ends at a semicolon and an empty line.
const SETUP: &str = "CREATE ROLE app LOGIN;\n\nCREATE DATABASE shop;\n\nREVOKE ALL ON DATABASE shop FROM PUBLIC;\n\n\
                     GRANT CONNECT, TEMPORARY ON DATABASE shop TO app;\n\n";
/// A slow disk under a loaded machine takes ten seconds.
const INITDB_DEADLINE: Duration = Duration::from_secs(90);
const DF_DEADLINE: Duration = Duration::from_secs(10);
/// A file system in memory on Linux, which containers often keep too small.
const SHARED_MEMORY: &str = "/dev/shm";
/// Room for some dozens of clusters of 40 MiB, and what tests write into them.
const MIN_FREE_KIBIBYTES: u64 = 2 << 20;
