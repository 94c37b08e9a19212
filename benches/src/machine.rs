//! The machine it ran on, and what its processes used.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use serde::Serialize;

use crate::Result;

/// What numbers depend on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Over one minute, before the run: above a fraction of the cores, others were at work.
    load: f64,
    /// `release`, or a warning.
    profile: &'static str,
    /// Of the programs measured.
    pub(crate) versions: BTreeMap<&'static str, String>,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let first = |text: String, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let kib = first(read("/proc/meminfo"), "MemTotal");
        Self {
            cpu: first(read("/proc/cpuinfo"), "model name"),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0),
            profile: if cfg!(debug_assertions) { "debug: the numbers mean nothing" } else { "release" },
            versions: BTreeMap::new(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} cores, {} MiB, linux {}, load {} before, {}",
            self.cpu, self.cores, self.memory_mib, self.kernel, self.load, self.profile
        )?;
        self.versions.iter().try_for_each(|(of, version)| write!(f, ", {of} {version}"))
    }
}

/// CPU time a process has used in user and kernel mode, all threads, in seconds. Counted in ticks of 10 ms.
///
/// # Errors
/// There is no such process.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    cpu_time(pid).map(|(user, kernel)| user + kernel)
}

/// As [`cpu_seconds`], in user and in kernel mode.
///
/// # Errors
/// There is no such process.
pub(crate) fn cpu_time(pid: u32) -> Result<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| format!("/proc/{pid}/stat is not as expected"))?;
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second();
    Ok((seconds(ticks.0), seconds(ticks.1)))
}

/// Fields 14 and 15, proc(5); the second field may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some((next()?, next()?))
}

fn ticks_per_second() -> f64 {
    static TICKS: OnceLock<f64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let asked = Command::new("getconf").arg("CLK_TCK").output().ok();
        let told = asked.and_then(|out| String::from_utf8(out.stdout).ok()?.trim().parse().ok());
        // 100 on every Linux that is not built otherwise.
        told.unwrap_or(100.0)
    })
}

/// The most memory a process has had resident since [`forget_peak`], in KiB.
///
/// # Errors
/// There is no such process.
pub(crate) fn peak_kib(pid: u32) -> Result<f64> {
    status_kib(pid, "VmHWM:")
}

/// The memory a process has resident now, in KiB.
///
/// # Errors
/// There is no such process.
pub(crate) fn resident_kib(pid: u32) -> Result<f64> {
    status_kib(pid, "VmRSS:")
}

fn status_kib(pid: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    kib.ok_or_else(|| format!("/proc/{pid}/status does not tell `{name}`").into())
}

/// Starts the count of [`peak_kib`] anew (proc(5), clear_refs, 5). Where that is not allowed the peak is of the whole life.
pub(crate) fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_behind_any_name() {
        let stat = "42 (a ) b) R 1 42 42 0 -1 4194304 100 0 0 0 31 7 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_ticks(stat), Some((31, 7)));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(peak_kib(std::process::id()).unwrap() > 100.0);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
