//! Finds the installed PostgreSQL and the account to run it as.

use std::cmp::Reverse;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::process::run;

/// The programs of one PostgreSQL installation, and the account its server runs as.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    programs: PathBuf,
    /// As the server prints it, such as `15.18`.
    pub(super) version: String,
    account: Account,
}

/// Who runs the server: PostgreSQL refuses to be root.
#[derive(Debug, Clone, Copy)]
struct Account {
    user: u32,
    group: u32,
    /// Whether this process has to become that account first.
    switch: bool,
}

impl Installation {
    /// The newest installation of this machine.
    pub(super) fn find() -> Result<Self> {
        let programs = first_with_server(candidates())?;
        let output =
            run(Command::new(programs.join("postgres")).arg("--version"), "", PROGRAM_DEADLINE)?.success()?;
        let version = output.split_whitespace().nth(2).unwrap_or_default().to_owned();
        Ok(Self { programs, version, account: Account::find()? })
    }

    /// The path of one of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// A command that runs as the server's account.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if self.account.switch {
            command.uid(self.account.user).gid(self.account.group);
        }
        // The caller's folder may be closed to that account; messages are matched, so they have to be English.
        command.current_dir("/").env("LC_ALL", "C").env_remove("LANGUAGE");
        command
    }

    /// The user id the server runs as.
    pub(super) fn user(&self) -> u32 {
        self.account.user
    }

    /// Gives a file or folder to the server's account.
    pub(super) fn own(&self, path: &Path) -> Result<()> {
        if !self.account.switch {
            return Ok(());
        }
        chown(path, Some(self.account.user), Some(self.account.group))
            .context(&format!("give `{}` to the server's account", path.display()))
    }
}

impl Account {
    fn find() -> Result<Self> {
        let own =
            fs::metadata("/proc/self").or_else(|_| tempfile::tempfile().and_then(|file| file.metadata()));
        let own = own.context("find out which user this is")?;
        if own.uid() != 0 {
            return Ok(Self { user: own.uid(), group: own.gid(), switch: false });
        }
        let accounts = fs::read_to_string("/etc/passwd").context("read `/etc/passwd`")?;
        let named = |name: &str| accounts.lines().find_map(|line| parse_account(line, name));
        let (user, group) = ["postgres", "nobody"].into_iter().find_map(named).ok_or_else(|| {
            Error::new(
                "PostgreSQL does not run as root and there is no account `postgres` or `nobody`, add one",
            )
        })?;
        Ok(Self { user, group, switch: true })
    }
}

/// `name:password:uid:gid:...` (passwd(5)).
fn parse_account(line: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    (user != 0).then_some((user, group))
}

/// A folder with the client alone, as `PATH` often has one, will not do.
fn first_with_server(folders: Vec<PathBuf>) -> Result<PathBuf> {
    folders.into_iter().find(|folder| folder.join("initdb").exists()).ok_or_else(|| {
        Error::new(
            "the PostgreSQL server is not installed, run `apt-get install postgresql` or scripts/install-tools.sh --test",
        )
    })
}

/// Folders that may hold the programs: the one in `TESTKIT_POSTGRES` alone, if that is set; else Debian's by version,
/// newest first, then what `pg_config` says, then `PATH`.
fn candidates() -> Vec<PathBuf> {
    if let Some(chosen) = std::env::var_os("TESTKIT_POSTGRES") {
        return vec![chosen.into()];
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| Reverse(*version));
    let mut folders: Vec<PathBuf> = versions.into_iter().map(|(_, folder)| folder).collect();
    if let Ok(told) =
        run(Command::new("pg_config").arg("--bindir"), "", PROGRAM_DEADLINE).and_then(|end| end.success())
    {
        folders.push(told.into());
    }
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    folders
}

/// For programs that only print something.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_server_is_named_with_its_package() {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let paths = || folders.iter().map(|folder| folder.path().to_owned()).collect();
        assert!(first_with_server(paths()).unwrap_err().to_string().contains("`apt-get install postgresql`"));
        fs::write(folders[0].path().join("psql"), "").unwrap();
        fs::write(folders[1].path().join("initdb"), "").unwrap();
        assert_eq!(first_with_server(paths()).unwrap(), folders[1].path());
    }

    #[test]
    fn accounts_are_read_by_exact_name_and_never_root() {
        assert_eq!(parse_account("nobody:x:65534:65534:nobody:/:/bin/false", "nobody"), Some((65534, 65534)));
        assert_eq!(parse_account("nobody2:x:1:1::/:/bin/false", "nobody"), None);
        assert_eq!(parse_account("postgres:x:0:0::/:/bin/sh", "postgres"), None);
        assert_eq!(parse_account("postgres:x", "postgres"), None);
    }
}
