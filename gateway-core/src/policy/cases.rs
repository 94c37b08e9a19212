//! Unit tests of policies as data: who wants what, and what should come of it.
//!
//! The types are read with serde from whatever format the caller likes; `docs/policy.md` shows them in TOML.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Decision, PolicyEngine, PolicyInput};
use crate::clock::{Clock, Timestamp};
use crate::credentials::Secret;
use crate::identity::{
    Actor, Authenticator, IdentityError, Phase, Presented, Principal, PrincipalKind, VerifiedPrincipal,
    verify,
};
use crate::operation::{Access, Action, Fact, Facts, Operation, Resource};
use crate::session::{SessionId, SessionInfo};

/// A file of cases.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CaseFile {
    /// Facts that every case's operation has unless it says otherwise.
    #[serde(default)]
    pub facts: BTreeMap<String, Fact>,
    /// The cases, under `case`.
    #[serde(default, rename = "case")]
    pub cases: Vec<Case>,
}

impl CaseFile {
    /// The cases with the common facts filled in.
    pub fn into_cases(self) -> Vec<Case> {
        let mut cases = self.cases;
        for case in &mut cases {
            if !case.operation.without_common_facts {
                for (name, fact) in &self.facts {
                    case.operation.facts.entry(name.clone()).or_insert_with(|| fact.clone());
                }
            }
        }
        cases
    }
}

/// One question and the answer it should get.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Who asks.
    pub principal: CasePrincipal,
    /// The target's name.
    pub target: String,
    /// The protocol; one of those the gateway knows. Default: `postgres`.
    #[serde(default = "default_protocol")]
    pub protocol: String,
    /// What inside the target the session is tied to (a database name).
    #[serde(default)]
    pub scope: Option<String>,
    /// The connecting side's address. Default: `in-process`.
    #[serde(default = "default_peer")]
    pub peer: String,
    /// What it wants to do.
    pub operation: CaseOperation,
    /// Approvals already given.
    #[serde(default)]
    pub approvals: BTreeSet<String>,
    /// Pattern sets that match the statement.
    #[serde(default)]
    pub patterns: BTreeSet<String>,
    /// When, in seconds since 1970-01-01T00:00:00Z. Default: 0, a Thursday at midnight.
    #[serde(default)]
    pub now: i64,
    /// The answer it should get.
    pub expect: Expectation,
    /// The rules that should have decided (for a hold: that ask for approval). Not checked if absent.
    #[serde(default)]
    pub rules: Option<BTreeSet<String>>,
}

/// Who asks in a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CasePrincipal {
    /// Default: agent.
    #[serde(default = "default_kind")]
    pub kind: PrincipalKind,
    /// Default: `https://issuer.example`.
    #[serde(default = "default_issuer")]
    pub issuer: String,
    /// What the issuer calls it.
    pub subject: String,
    /// Its groups.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Planner, executor or neither, the default.
    #[serde(default)]
    pub phase: Phase,
    /// The task it works on.
    #[serde(default)]
    pub task: Option<String>,
    /// The plan it carries out.
    #[serde(default)]
    pub plan: Option<String>,
    /// Who it acts for, nearest first.
    #[serde(default)]
    pub chain: Vec<Actor>,
    /// Its SPIFFE ID.
    #[serde(default)]
    pub workload: Option<String>,
    /// Further claims.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
}

/// What is asked for in a case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CaseOperation {
    /// The protocol's word for it, for example `delete`.
    pub kind: String,
    /// Its text; denials name only what stands in it.
    #[serde(default)]
    pub statement: String,
    /// Everything it touches.
    pub accesses: Vec<CaseAccess>,
    /// Its facts.
    #[serde(default)]
    pub facts: BTreeMap<String, Fact>,
    /// Leave the file's common facts out, for operations whose action declares none (`connect`).
    #[serde(default)]
    pub without_common_facts: bool,
}

/// One access of a case: `{ action = "select", path = [["Database", "shop"], ["Schema", "public"], ["Table", "orders"]] }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CaseAccess {
    /// What is done.
    pub action: String,
    /// To what, below the target: kind and name of each step. Empty: the target itself.
    #[serde(default)]
    pub path: Vec<(String, String)>,
    /// Facts about the last step.
    #[serde(default)]
    pub attributes: BTreeMap<String, Fact>,
}

/// An answer in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Expectation {
    /// It may pass.
    Allow,
    /// It may not; errors count as this.
    Deny,
    /// It waits for people.
    Hold,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CaseResult {
    /// The case.
    pub name: String,
    /// As expected, in answer and rules?
    pub passed: bool,
    /// What was expected.
    pub expected: Expectation,
    /// What was answered.
    pub got: Expectation,
    /// The rules that decided.
    pub rules: BTreeSet<String>,
    /// The denial's words or the error, and what differs if it did not pass.
    pub detail: Option<String>,
}

/// A case that cannot be put as a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("case `{case}` cannot be asked: {cause}")]
pub struct CaseError {
    case: String,
    cause: String,
}

/// A case as an engine is asked it; for [`run_cases`] and for `policy explain`.
#[derive(Debug)]
pub struct CaseQuestion<'a> {
    case: &'a Case,
    session: SessionInfo,
    operation: Operation,
}

impl CaseQuestion<'_> {
    /// The question.
    pub fn input(&self) -> PolicyInput<'_> {
        PolicyInput::new(&self.session, &self.operation, Timestamp::from_seconds(self.case.now))
            .approved(&self.case.approvals)
            .matching(&self.case.patterns)
    }
}

impl Case {
    /// The case as a question.
    ///
    /// # Errors
    /// The case names a protocol that does not exist, or no randomness can be had.
    pub async fn question(&self) -> Result<CaseQuestion<'_>, CaseError> {
        let wrong = |cause: String| CaseError { case: self.name.clone(), cause };
        let protocol = PROTOCOLS.into_iter().find(|known| *known == self.protocol).ok_or_else(|| {
            wrong(format!("unknown protocol `{}`; known are {}", self.protocol, PROTOCOLS.join(", ")))
        })?;
        let session = SessionInfo {
            id: SessionId::random().map_err(|e| wrong(e.to_string()))?,
            principal: self.verified().await.map_err(|e| wrong(e.to_string()))?,
            protocol,
            target: self.target.clone(),
            scope: self.scope.clone(),
            peer: self.peer.clone(),
            started: Timestamp::from_seconds(self.now),
        };
        let operation = self.operation().map_err(|e| wrong(e.to_string()))?;
        Ok(CaseQuestion { case: self, session, operation })
    }

    async fn verified(&self) -> Result<VerifiedPrincipal, IdentityError> {
        let nothing = Presented::Token(Secret::new(String::new()));
        let who = AsWritten(self.principal.to_principal(), Timestamp::from_seconds(self.now));
        verify(&who, &nothing, &who).await
    }

    fn operation(&self) -> Result<Operation, serde_json::Error> {
        let case = &self.operation;
        let mut operation = Operation::new(case.kind.clone(), case.statement.clone());
        operation.facts = Arc::new(facts(&case.facts));
        operation.accesses =
            case.accesses.iter().map(|access| access.to_access(&self.target)).collect::<Result<_, _>>()?;
        Ok(operation)
    }
}

impl CasePrincipal {
    fn to_principal(&self) -> Principal {
        let mut principal =
            Principal::new(self.kind, self.issuer.clone(), self.subject.clone(), Timestamp::MAX);
        principal.groups.clone_from(&self.groups);
        principal.phase = self.phase;
        principal.task.clone_from(&self.task);
        principal.plan.clone_from(&self.plan);
        principal.actor_chain.clone_from(&self.chain);
        principal.workload.clone_from(&self.workload);
        principal.claims.clone_from(&self.claims);
        principal
    }
}

impl CaseAccess {
    // Through the serialised form: kinds of paths made in code are static.
    fn to_access(&self, target: &str) -> Result<Access, serde_json::Error> {
        let mut path = vec![("Target".to_owned(), target.to_owned())];
        path.extend(self.path.iter().cloned());
        let mut resource: Resource = serde_json::from_value(serde_json::json!({ "path": path }))?;
        let action: Action = serde_json::from_value(serde_json::Value::String(self.action.clone()))?;
        resource.attributes = facts(&self.attributes);
        Ok(Access::new(action, resource))
    }
}

/// Asks `engine` every case, in order. An error of the engine is a denial, as in the pipeline.
///
/// # Errors
/// A case cannot be put as a question at all.
pub async fn run_cases(engine: &dyn PolicyEngine, cases: &[Case]) -> Result<Vec<CaseResult>, CaseError> {
    let mut results = Vec::with_capacity(cases.len());
    for case in cases {
        let question = case.question().await?;
        let answer = match engine.decide(&question.input()).await {
            Ok(decision) => answer(&decision),
            Err(error) => (Expectation::Deny, BTreeSet::new(), Some(error.to_string())),
        };
        results.push(compare(case, answer));
    }
    Ok(results)
}

fn answer(decision: &Decision) -> (Expectation, BTreeSet<String>, Option<String>) {
    match decision {
        Decision::Allow(allowed) => (Expectation::Allow, allowed.rules.iter().cloned().collect(), None),
        Decision::Deny(denial) => {
            let cause = denial.cause().map(|cause| format!(" [{cause}]")).unwrap_or_default();
            (
                Expectation::Deny,
                denial.rules.iter().cloned().collect(),
                Some(format!("{}{cause}", denial.message)),
            )
        }
        Decision::Hold(rules) => {
            let names: Vec<_> = rules.iter().map(|rule| rule.name.as_str()).collect();
            let asking = rules.iter().flat_map(|rule| rule.rules.iter().cloned()).collect();
            (Expectation::Hold, asking, Some(format!("waits for {}", names.join(", "))))
        }
    }
}

fn compare(case: &Case, (got, rules, detail): (Expectation, BTreeSet<String>, Option<String>)) -> CaseResult {
    let right_rules = case.rules.as_ref().is_none_or(|expected| *expected == rules);
    let expected_rules = case.rules.as_ref().filter(|_| !right_rules);
    let detail = match expected_rules {
        Some(expected) => {
            Some(format!("rules should be {expected:?}, not {rules:?}; {}", detail.unwrap_or_default()))
        }
        None => detail,
    };
    let passed = got == case.expect && right_rules;
    CaseResult { name: case.name.clone(), passed, expected: case.expect, got, rules, detail }
}

fn facts(from: &BTreeMap<String, Fact>) -> Facts {
    from.iter().map(|(name, fact)| (name.clone().into(), fact.clone())).collect()
}

/// A session's protocol is a static word; these are the gateway's.
const PROTOCOLS: [&str; 5] = ["postgres", "ssh", "kubernetes", "http", "mcp"];

fn default_protocol() -> String {
    "postgres".to_owned()
}

fn default_peer() -> String {
    "in-process".to_owned()
}

fn default_issuer() -> String {
    "https://issuer.example".to_owned()
}

const fn default_kind() -> PrincipalKind {
    PrincipalKind::Agent
}

/// The principal of a case, believed; lives nowhere near a listener.
#[derive(Debug)]
struct AsWritten(Principal, Timestamp);

#[async_trait]
impl Authenticator for AsWritten {
    async fn authenticate(&self, _: &Presented, _: Timestamp) -> Result<Principal, IdentityError> {
        Ok(self.0.clone())
    }
}

impl Clock for AsWritten {
    fn now(&self) -> Timestamp {
        self.1
    }
}
