//! Why a decision is what it is, for people and programs.

use serde::Serialize;

use super::judge::{Extent, Judged, Outcome};
use super::load::{Loaded, forbids};
use super::request::Question;
use crate::error::Denial;
use crate::operation::Access;
use crate::policy::{ApprovalRule, Decision, Obligation, PolicyError, PolicyInput, Revision};

/// One decision taken apart. For operators: it shows policies, facts and names that a denied agent must not see.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The set of policies that was asked.
    pub revision: Revision,
    /// What the whole operation gets.
    pub answer: ExplainedAnswer,
    /// Each access by itself.
    pub accesses: Vec<ExplainedAccess>,
    /// What people would have to agree to; empty if nobody needs to be asked or asking would not help.
    pub approvals_needed: Vec<ApprovalRule>,
    /// The duties that come with an allow.
    pub obligations: Vec<Obligation>,
    /// What the agent is told, if it is denied.
    pub denial: Option<Denial>,
}

/// The answer in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainedAnswer {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
    /// It waits for people.
    Hold,
}

/// One access with the policies that decided it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedAccess {
    /// What is done to what.
    pub access: Access,
    /// Whether Cedar allows it with the approvals given so far.
    pub allowed: bool,
    /// The determining policies; empty if nothing permits it.
    pub rules: Vec<ExplainedRule>,
    /// Policies that could not be evaluated, with the cause. Any of them denies.
    pub errors: Vec<String>,
    /// The entities of the question, in Cedar's JSON form.
    pub entities: serde_json::Value,
    /// The context of the question, in Cedar's JSON form.
    pub context: serde_json::Value,
}

/// One policy and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedRule {
    /// Its id.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// The file it was loaded from.
    pub file: String,
    /// Its line there, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// Takes the decision on `input` apart, asking every policy anew.
pub(super) fn explain(loaded: &Loaded, input: &PolicyInput<'_>) -> Result<Explanation, PolicyError> {
    let question = Question::new(loaded, input)?;
    let judged = question.judge(input.approvals, Extent::Everything)?;
    let decision = question.decide(&judged, Extent::Everything)?;
    let (answer, denial) = match &decision {
        Decision::Allow(_) => (ExplainedAnswer::Allow, None),
        Decision::Hold(_) => (ExplainedAnswer::Hold, None),
        Decision::Deny(denial) => (ExplainedAnswer::Deny, Some(denial.clone())),
    };
    Ok(Explanation {
        revision: loaded.revision.clone(),
        answer,
        accesses: accesses(&question, &judged)?,
        obligations: Question::obligations(&decision),
        approvals_needed: if let Decision::Hold(rules) = decision { rules } else { Vec::new() },
        denial,
    })
}

fn accesses(question: &Question<'_>, judged: &Judged<'_>) -> Result<Vec<ExplainedAccess>, PolicyError> {
    judged.accesses.iter().map(|(access, outcome)| one(question, access, outcome)).collect()
}

fn one(question: &Question<'_>, access: &Access, outcome: &Outcome) -> Result<ExplainedAccess, PolicyError> {
    let shown = |e: &dyn std::fmt::Display| PolicyError(format!("the question cannot be shown: {e}"));
    let prepared = question.access(access, question.input.approvals)?;
    let (rules, errors): (&[usize], Vec<String>) = match outcome {
        Outcome::Allow(rules) | Outcome::Forbid(rules) => (rules, Vec::new()),
        Outcome::NoPermit => (&[], Vec::new()),
        Outcome::Failed(failures) => {
            (&[], failures.iter().map(|failure| failed(question.loaded, failure)).collect())
        }
    };
    let context = prepared.request.context().map(cedar_policy::Context::to_json_value).transpose();
    Ok(ExplainedAccess {
        access: access.clone(),
        allowed: matches!(outcome, Outcome::Allow(_)),
        rules: question.loaded.rules_at(rules).map(rule).collect(),
        errors,
        entities: entities(&prepared.entities).map_err(|e| shown(&e))?,
        context: context.map_err(|e| shown(&e))?.unwrap_or_default(),
    })
}

/// Without the actions: they are the schema's, not the question's.
fn entities(all: &cedar_policy::Entities) -> Result<serde_json::Value, String> {
    let own = all.iter().filter(|entity| entity.uid().type_name().basename() != "Action");
    let shown: Result<Vec<_>, _> =
        own.map(|entity| entity.to_json_value().map_err(|e| e.to_string())).collect();
    shown.map(serde_json::Value::Array)
}

fn failed(loaded: &Loaded, (index, message): &(usize, String)) -> String {
    let rule = loaded.rules.get(*index);
    rule.map_or_else(
        || message.clone(),
        |rule| format!("{}:{}: rule `{}`: {message}", rule.place.file, rule.place.line, rule.id),
    )
}

fn rule(rule: &super::load::Rule) -> ExplainedRule {
    ExplainedRule {
        id: rule.id.clone(),
        effect: if forbids(rule) { "forbid" } else { "permit" },
        file: rule.place.file.clone(),
        line: rule.place.line,
        text: rule.source.clone(),
    }
}
