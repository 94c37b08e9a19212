//! Policies in Cedar: typed, checked at load, default deny, forbid wins.
//!
//! Every access of an operation is authorized by itself and the strictest answer wins. Unlike Cedar alone, a policy that
//! cannot be evaluated denies. `docs/policy.md` tells how to write policies.

mod annotations;
mod diagnostics;
mod duties;
mod explain;
mod judge;
mod load;
mod reads;
mod request;
mod schema;
mod slices;
#[cfg(test)]
mod tests;
mod verdicts;
mod wording;

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;

pub use diagnostics::{Diagnostic, LoadError, Severity};
pub use explain::{ExplainedAccess, ExplainedAnswer, ExplainedRule, Explanation};
pub use load::PolicyFile;
pub use schema::CORE_SCHEMA;

use self::judge::{Extent, Outcome, authorize};
use self::load::Loaded;
use self::request::Question;
use self::schema::GatewaySchema;
use self::verdicts::{Asking, Verdict};
use super::{Decision, PolicyEngine, PolicyError, PolicyInput, Revision};
use crate::operation::Resource;

/// Judges by Cedar policies. Cheap to share behind an `Arc`; [`reload`](Self::reload) takes effect for all holders.
///
/// ```
/// use gateway_core::policy::cedar::{CedarEngine, PolicyFile};
///
/// let engine = CedarEngine::builder()
///     .policy(PolicyFile::new("base.cedar", r#"
///         @id("agents-connect")
///         permit (principal, action == Action::"connect", resource)
///         when { principal.kind == Kind::"agent" };
///     "#))
///     .build()?;
/// assert!(engine.warnings().is_empty());
/// # Ok::<(), gateway_core::policy::cedar::LoadError>(())
/// ```
#[derive(Debug)]
pub struct CedarEngine {
    schema: Arc<GatewaySchema>,
    loaded: RwLock<Arc<Loaded>>,
    warnings: RwLock<Arc<[Diagnostic]>>,
}

/// How many policies are in force, by what they do: fewer after a reload are worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyCounts {
    /// Rules that permit.
    pub permits: usize,
    /// Rules that forbid, those that people may lift included.
    pub forbids: usize,
}

/// Collects schema fragments and policy files for a [`CedarEngine`].
#[derive(Clone, Debug)]
#[must_use]
pub struct CedarEngineBuilder {
    fragments: Vec<(String, String)>,
    files: Vec<PolicyFile>,
}

impl CedarEngineBuilder {
    /// Adds the schema fragment an adapter ships, in Cedar's schema syntax. `name` stands in diagnostics.
    pub fn schema_fragment(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.fragments.push((name.into(), text.into()));
        self
    }

    /// Adds a policy file.
    pub fn policy(mut self, file: PolicyFile) -> Self {
        self.files.push(file);
        self
    }

    /// Adds policy files.
    pub fn policies(mut self, files: impl IntoIterator<Item = PolicyFile>) -> Self {
        self.files.extend(files);
        self
    }

    /// Checks and loads everything. Without any file the engine denies everything.
    ///
    /// # Errors
    /// Fragments that do not parse or collide; files without a policy; policies that do not parse, do not fit the schema, can never fire, or
    /// carry annotations that are unknown or would do nothing.
    pub fn build(self) -> Result<CedarEngine, LoadError> {
        let schema = Arc::new(GatewaySchema::merge(&self.fragments)?);
        let (loaded, warnings) = load::load_all(&schema, &self.files)?;
        Ok(CedarEngine {
            schema,
            loaded: RwLock::new(Arc::new(loaded)),
            warnings: RwLock::new(warnings.into()),
        })
    }

    /// All findings, for a `policy check` command. It loads exactly if none is an error.
    pub fn validate(&self) -> Vec<Diagnostic> {
        match GatewaySchema::merge(&self.fragments) {
            Ok(schema) => load::load(&Arc::new(schema), &self.files).1,
            Err(error) => error.diagnostics,
        }
    }
}

impl CedarEngine {
    /// Starts with core's own schema fragment.
    pub fn builder() -> CedarEngineBuilder {
        let core = ("core.cedarschema".to_owned(), CORE_SCHEMA.to_owned());
        CedarEngineBuilder { fragments: vec![core], files: Vec::new() }
    }

    /// Replaces all policies, or none: on an error the set in force stays. Sessions are judged by the new set from their
    /// next operation on; a decision under way ends under the set it began with.
    ///
    /// # Errors
    /// As [`CedarEngineBuilder::build`], for policies.
    pub fn reload(&self, files: &[PolicyFile]) -> Result<Revision, LoadError> {
        let (loaded, warnings) = load::load_all(&self.schema, files)?;
        let revision = loaded.revision.clone();
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        *self.warnings.write().unwrap_or_else(PoisonError::into_inner) = warnings.into();
        Ok(revision)
    }

    /// All findings that `files` would give under this engine's schema; nothing is loaded.
    pub fn validate(&self, files: &[PolicyFile]) -> Vec<Diagnostic> {
        load::load(&self.schema, files).1
    }

    /// The warnings of the last load.
    pub fn warnings(&self) -> Arc<[Diagnostic]> {
        Arc::clone(&self.warnings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many permits and how many forbids are in force.
    pub fn counts(&self) -> PolicyCounts {
        let loaded = Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner));
        let forbids = loaded.rules.iter().filter(|rule| load::forbids(rule)).count();
        PolicyCounts { permits: loaded.rules.len() - forbids, forbids }
    }

    /// The merged schema in Cedar's syntax, for editors and `policy schema`.
    pub fn schema_text(&self) -> &str {
        &self.schema.text
    }

    /// Takes the decision on `input` apart. Slow: asks every policy and uses no cache.
    ///
    /// # Errors
    /// The question does not fit the schema, so it would be denied.
    pub fn explain(&self, input: &PolicyInput<'_>) -> Result<Explanation, PolicyError> {
        explain::explain(&self.current(), input)
    }

    fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl PolicyEngine for CedarEngine {
    async fn decide(&self, input: &PolicyInput<'_>) -> Result<Decision, PolicyError> {
        decide(&self.current(), input)
    }

    async fn reveal(&self, input: &PolicyInput<'_>, labels: &[Resource]) -> Result<Vec<bool>, PolicyError> {
        Ok(reveal(&self.current(), input, labels))
    }

    fn reveal_reads_time(&self) -> bool {
        self.current().reveal_reads_time
    }

    fn revision(&self) -> Revision {
        self.current().revision.clone()
    }
}

fn decide(loaded: &Loaded, input: &PolicyInput<'_>) -> Result<Decision, PolicyError> {
    let known = loaded.verdicts.find(&loaded.reads, input, Asking::Operation);
    if let Some(Verdict::Allow(allowed)) = known {
        return Ok(Decision::Allow(allowed));
    }
    let question = Question::new(loaded, input)?;
    let judged = question.judge(input.approvals, Extent::Slice)?;
    let decision = question.decide(&judged, Extent::Slice)?;
    if let (Decision::Allow(allowed), false) = (&decision, judged.reads_time) {
        loaded.verdicts.keep(&loaded.reads, input, Asking::Operation, Verdict::Allow(allowed.clone()));
    }
    Ok(decision)
}

/// Every doubt masks: a label outside the schema, a policy that fails, a principal that cannot be told.
fn reveal(loaded: &Loaded, input: &PolicyInput<'_>, labels: &[Resource]) -> Vec<bool> {
    let asking = Asking::Reveal(labels);
    if let Some(Verdict::Reveal(seen)) = loaded.verdicts.find(&loaded.reads, input, asking) {
        return seen;
    }
    let answers: Vec<_> =
        labels.iter().map(|label| reveal_one(loaded, input, label, Extent::Slice)).collect();
    let seen: Vec<bool> = answers.iter().map(|answer| matches!(answer, Ok((true, _)))).collect();
    if answers.iter().all(|answer| matches!(answer, Ok((_, false)))) {
        loaded.verdicts.keep(&loaded.reads, input, asking, Verdict::Reveal(seen.clone()));
    }
    seen
}

/// Whether one label may be seen, and whether the time was read. A failed policy is an error: never cached.
fn reveal_one(
    loaded: &Loaded,
    input: &PolicyInput<'_>,
    label: &Resource,
    extent: Extent,
) -> Result<(bool, bool), PolicyError> {
    let question = Question::new(loaded, input)?;
    let (outcome, reads_time) = authorize(&question, &question.reveal(label)?, extent)?;
    match outcome {
        Outcome::Allow(_) => Ok((true, reads_time)),
        Outcome::Failed(_) => Err(PolicyError("a policy on `reveal` cannot be evaluated".to_owned())),
        Outcome::Forbid(_) | Outcome::NoPermit => Ok((false, reads_time)),
    }
}
