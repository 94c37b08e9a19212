//! From Cedar's answers on single accesses to one decision on the operation.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Authorizer, Decision as Answer};

use super::duties::{self, Contradiction};
use super::load::{Loaded, Rule, policy_set};
use super::request::{Prepared, Question};
use super::wording;
use crate::error::{Denial, DenialCode};
use crate::operation::Access;
use crate::policy::{Allowed, ApprovalRule, Decision, Obligation, PolicyError};

/// What Cedar says of one access. Positions of rules are ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Permitted by these.
    Allow(Vec<usize>),
    /// Forbidden by these; never empty.
    Forbid(Vec<usize>),
    /// Nothing permits it.
    NoPermit,
    /// These could not be evaluated. Cedar itself would go on without them; here that is a denial.
    Failed(Vec<(usize, String)>),
}

/// The accesses of an operation with their outcomes.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    pub(super) accesses: Vec<(&'a Access, Outcome)>,
    /// A policy that reads the time was among those asked.
    pub(super) reads_time: bool,
}

/// Which policies are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Those whose scope matches.
    Slice,
    /// All, as Cedar alone would: for explanations and as the yardstick of the slices.
    Everything,
}

/// One access: its outcome, and whether a policy that reads the time was asked.
pub(super) fn authorize(
    question: &Question<'_>,
    prepared: &Prepared,
    extent: Extent,
) -> Result<(Outcome, bool), PolicyError> {
    let loaded = question.loaded;
    let candidates = match extent {
        Extent::Slice => loaded.slices.candidates(&prepared.asked(question)),
        Extent::Everything => (0..loaded.rules.len()).collect(),
    };
    let chosen = || candidates.iter().filter_map(|index| loaded.rules.get(*index));
    let set = loaded.sets.of(&candidates, || policy_set(chosen())).map_err(PolicyError)?;
    let response = Authorizer::new().is_authorized(&prepared.request, &set, &prepared.entities);
    let reads_time = chosen().any(|rule| rule.reads_time);
    Ok((outcome(loaded, &response)?, reads_time))
}

fn outcome(loaded: &Loaded, response: &cedar_policy::Response) -> Result<Outcome, PolicyError> {
    let position = |id| {
        loaded
            .positions
            .get(id)
            .copied()
            .ok_or_else(|| PolicyError(format!("an unknown policy `{id}` decided")))
    };
    let mut failed = Vec::new();
    for error in response.diagnostics().errors() {
        let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
        failed.push((position(error.policy_id())?, error.inner().to_string()));
    }
    if !failed.is_empty() {
        failed.sort();
        return Ok(Outcome::Failed(failed));
    }
    let mut rules = response.diagnostics().reason().map(position).collect::<Result<Vec<_>, _>>()?;
    rules.sort_unstable();
    Ok(match response.decision() {
        Answer::Allow => Outcome::Allow(rules),
        Answer::Deny if rules.is_empty() => Outcome::NoPermit,
        Answer::Deny => Outcome::Forbid(rules),
    })
}

impl<'a> Question<'a> {
    /// Every access of the operation, with these approvals given.
    pub(super) fn judge(
        &self,
        approvals: &BTreeSet<String>,
        extent: Extent,
    ) -> Result<Judged<'a>, PolicyError> {
        let accesses = &self.input.operation.accesses;
        if accesses.is_empty() {
            return Err(PolicyError(
                "the operation names nothing it touches; the adapter must list its accesses".to_owned(),
            ));
        }
        let mut judged = Judged { accesses: Vec::with_capacity(accesses.len()), reads_time: false };
        for access in accesses.iter() {
            let prepared = self.access(access, approvals)?;
            let (outcome, reads_time) = authorize(self, &prepared, extent)?;
            judged.accesses.push((access, outcome));
            judged.reads_time |= reads_time;
        }
        Ok(judged)
    }

    /// The decision on the operation: the strictest of its accesses.
    pub(super) fn decide(&self, judged: &Judged<'_>, extent: Extent) -> Result<Decision, PolicyError> {
        let needed = self.needed(judged);
        if needed.is_empty() {
            return Ok(self.conclude(judged));
        }
        // People are asked only if their yes would be enough.
        let granted = self.input.approvals.iter().chain(needed.keys()).cloned().collect();
        match self.conclude(&self.judge(&granted, extent)?) {
            Decision::Allow(_) => Ok(Decision::Hold(needed.into_values().collect())),
            deny => Ok(deny),
        }
    }

    /// The approvals that would lift every rule in the way; empty if some obstacle cannot be lifted, or there is none.
    pub(super) fn needed(&self, judged: &Judged<'_>) -> BTreeMap<String, ApprovalRule> {
        let mut needed: BTreeMap<String, ApprovalRule> = BTreeMap::new();
        for (_, outcome) in &judged.accesses {
            let rules = match outcome {
                Outcome::Allow(_) => continue,
                Outcome::Forbid(rules) => rules,
                Outcome::NoPermit | Outcome::Failed(_) => return BTreeMap::new(),
            };
            for rule in self.loaded.rules_at(rules) {
                let Some(approval) = &rule.annotations.approval else { return BTreeMap::new() };
                let entry = needed.entry(approval.name.clone()).or_insert_with(|| ApprovalRule {
                    name: approval.name.clone(),
                    reviewers: approval.reviewers.clone(),
                    quorum: approval.quorum,
                    ttl: approval.ttl,
                    rules: Vec::new(),
                });
                if !entry.rules.contains(&rule.id) {
                    entry.rules.push(rule.id.clone());
                }
            }
        }
        needed
    }

    /// Allow with duties, or deny; no holds.
    fn conclude(&self, judged: &Judged<'_>) -> Decision {
        let failed: Vec<_> =
            judged.accesses.iter().filter_map(|(_, outcome)| failures(outcome)).flatten().collect();
        if !failed.is_empty() {
            return Decision::Deny(wording::failed(self.loaded, &failed));
        }
        let mut permits = BTreeSet::new();
        let mut denied = Vec::new();
        for (access, outcome) in &judged.accesses {
            match outcome {
                Outcome::Allow(rules) => permits.extend(rules.iter().copied()),
                refused => denied.push((*access, refused)),
            }
        }
        if denied.is_empty() {
            self.allow(&permits, judged)
        } else {
            Decision::Deny(wording::denied(self, &denied))
        }
    }

    fn allow(&self, permits: &BTreeSet<usize>, judged: &Judged<'_>) -> Decision {
        let rules = permits.iter().filter_map(|index| self.loaded.rules.get(*index));
        let ids: Vec<_> = rules.clone().map(|rule| rule.id.clone()).collect();
        match duties::union(rules.map(|rule| &rule.annotations)) {
            Ok(obligations) => Decision::Allow(Allowed {
                rules: ids.into(),
                obligations: obligations.into(),
                lasts: (!judged.reads_time).then(|| self.loaded.revision.clone()),
            }),
            Err(Contradiction(a, b)) => Decision::Deny(
                Denial::new(
                    DenialCode::ObligationUnmet,
                    "the rules that permit this ask for rewrites that exclude each other",
                )
                .with_hint("ask the gateway's operators to correct these rules")
                .with_rules(ids)
                .with_cause(format!("`{a}` and `{b}`")),
            ),
        }
    }

    /// The duties that an allow carries, for explanations.
    pub(super) fn obligations(decision: &Decision) -> Vec<Obligation> {
        match decision {
            Decision::Allow(allowed) => allowed.obligations.to_vec(),
            _ => Vec::new(),
        }
    }
}

impl Loaded {
    pub(super) fn rules_at<'a>(&'a self, positions: &'a [usize]) -> impl Iterator<Item = &'a Rule> + 'a {
        positions.iter().filter_map(|index| self.rules.get(*index))
    }
}

fn failures(outcome: &Outcome) -> Option<&Vec<(usize, String)>> {
    match outcome {
        Outcome::Failed(failures) => Some(failures),
        _ => None,
    }
}
