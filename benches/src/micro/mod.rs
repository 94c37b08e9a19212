//! The parts by themselves, in this process.

mod analysis;
mod approval;
mod policy;
mod record;
mod scan;

use crate::report::Report;
use crate::{Result, Size};

/// Measures every part.
///
/// # Errors
/// A part cannot be set up, or does not do what is measured.
pub(crate) fn run(size: Size, report: &mut Report) -> Result<()> {
    report.against(&["memcpy", "regex", "uncached"]);
    scan::run(size, report)?;
    policy::run(size, report)?;
    analysis::run(size, report)?;
    record::run(size, report)?;
    approval::run(size, report)
}
