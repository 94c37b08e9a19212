//! What an attack is and how it can end.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a trial ended.
#[derive(Debug)]
pub enum Outcome {
    /// No damage, and the harmless twin works.
    Held,
    /// The damage was done.
    Passed(String),
    /// It proves nothing: without the gateway no damage happens either, or the trial itself broke.
    Invalid(String),
    /// No damage, but the harmless twin does not work.
    TwinFailed(String),
}

/// Characters of an explanation that are told: what was received can be long.
const TOLD: usize = 2000;

impl Outcome {
    /// What is wrong, unless it held.
    pub fn why(&self) -> Option<String> {
        let (what, why) = match self {
            Self::Held => return None,
            Self::Passed(how) => ("NOT HELD", how),
            Self::Invalid(why) => ("INVALID", why),
            Self::TwinFailed(why) => ("TWIN FAILED", why),
        };
        Some(format!("{what}: {}", why.chars().take(TOLD).collect::<String>()))
    }
}

/// One attack.
pub struct Attack {
    pub name: String,
    pub class: u8,
    /// What it is a variant of.
    pub techniques: Vec<u8>,
    run: Box<dyn Fn() -> Outcome + Send>,
}

impl Attack {
    pub fn new(
        class: u8,
        name: &str,
        techniques: Vec<u8>,
        run: impl Fn() -> Outcome + Send + 'static,
    ) -> Self {
        Self { name: format!("{class:02} {name}"), class, techniques, run: Box::new(run) }
    }

    /// Runs it; a panic makes the trial invalid.
    pub fn attempt(&self) -> Outcome {
        catch_unwind(AssertUnwindSafe(|| (self.run)())).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
            Outcome::Invalid(format!("panicked: {}", text.unwrap_or_default()))
        })
    }
}
