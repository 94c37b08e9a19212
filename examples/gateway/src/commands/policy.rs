//! `gateway policy`: policies without a gateway.

use std::path::Path;
use std::process::ExitCode;

use gateway_core::policy::cases::{Case, CaseFile, CaseResult, run_cases};
use gateway_core::policy::cedar::{CedarEngine, Explanation, PolicyFile, Severity};

use crate::assemble::{engine, engine_builder, read_policies};
use crate::cli::{Policy, PolicyArg, PolicyCheck, PolicyExplain, PolicyTest};
use crate::config::ConfigFile;
use crate::output::{Escaped, EscapedLines, Failure, Outcome, json, line};

/// Runs one of the policy commands.
pub(crate) async fn run(command: Policy) -> Outcome {
    match command {
        Policy::Check(options) => check(&options),
        Policy::Test(options) => test(&options).await,
        Policy::Explain(options) => explain(&options).await,
    }
}

fn files(from: &PolicyArg) -> Result<Vec<PolicyFile>, Failure> {
    let Some(path) = &from.config else { return Ok(read_policies(&from.policy)?) };
    let config = ConfigFile::load(path)?;
    let paths: Vec<_> =
        config.config.policy.files.get_ref().iter().map(|path| config.resolve(path)).collect();
    Ok(read_policies(&paths)?)
}

fn loaded(from: &PolicyArg) -> Result<CedarEngine, Failure> {
    Ok(engine(&files(from)?)?)
}

fn check(options: &PolicyCheck) -> Outcome {
    let files = files(&options.policies)?;
    let findings = engine_builder(&files).validate();
    if options.json {
        json(&findings)?;
    } else {
        findings.iter().try_for_each(line)?;
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        line(format_args!("{} files, {errors} errors, {} warnings", files.len(), findings.len() - errors))?;
    }
    let bad = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn test(options: &PolicyTest) -> Outcome {
    let engine = loaded(&options.policies)?;
    let mut results = Vec::new();
    for path in &options.cases {
        results.extend(run_cases(&engine, &cases(path)?).await?);
    }
    if results.is_empty() {
        return Err(Failure::new("there are no cases, so nothing is tested; add a `[[case]]`"));
    }
    if options.json {
        json(&results)?;
    } else {
        results.iter().try_for_each(|result| line(result_line(result)))?;
        let passed = results.iter().filter(|result| result.passed).count();
        line(format_args!("{passed} of {} cases passed", results.len()))?;
    }
    let all = results.iter().all(|result| result.passed);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn result_line(result: &CaseResult) -> String {
    let name = Escaped(&result.name);
    if result.passed {
        return format!("ok: {name}");
    }
    let (expected, got) = (word(&result.expected), word(&result.got));
    let detail = result.detail.as_deref().unwrap_or_default();
    format!("FAILED: {name}: expected {expected}, got {got}; {}", Escaped(detail))
}

/// The lower-case word of a plain enum, as in its serialised form.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn cases(path: &Path) -> Result<Vec<Case>, Failure> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|e| Failure::new(format!("`{shown}` cannot be read: {e}")))?;
    let file: CaseFile = toml::from_str(&text).map_err(|e| {
        Failure::new(format!("`{shown}` is not a file of cases: {e}  `gateway policy test --help` shows one"))
    })?;
    Ok(file.into_cases())
}

async fn explain(options: &PolicyExplain) -> Outcome {
    let engine = loaded(&options.policies)?;
    let cases = cases(&options.cases)?;
    let case = chosen(&cases, options.case.as_deref())?;
    let question = case.question().await?;
    let explanation = engine.explain(&question.input())?;
    if options.json {
        json(&explanation)?;
    } else {
        line(shown(case, &explanation))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen<'a>(cases: &'a [Case], name: Option<&str>) -> Result<&'a Case, Failure> {
    let names = || cases.iter().map(|case| format!("`{}`", case.name)).collect::<Vec<_>>().join(", ");
    match (name, cases) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::new(format!("name one of the cases with `--case`: {}", names()))),
        (Some(name), _) => cases
            .iter()
            .find(|case| case.name == name)
            .ok_or_else(|| Failure::new(format!("there is no case `{name}`; there are {}", names()))),
    }
}

fn shown(case: &Case, explanation: &Explanation) -> String {
    use std::fmt::Write;
    let mut out = format!("case: {}\nanswer: {}", Escaped(&case.name), word(&explanation.answer));
    // Writing to a string cannot fail.
    let mut add = |text: std::fmt::Arguments<'_>| {
        let _ = write!(out, "\n{text}");
    };
    if let Some(denial) = &explanation.denial {
        add(format_args!("told to the agent: {}", Escaped(&denial.to_string())));
    }
    for rule in &explanation.approvals_needed {
        let ApprovalWords { reviewers, quorum, ttl } = ApprovalWords::of(rule);
        add(format_args!("needs approval `{}`: {quorum} of {reviewers} within {ttl}", Escaped(&rule.name)));
    }
    for obligation in &explanation.obligations {
        add(format_args!("duty: {obligation:?}"));
    }
    for access in &explanation.accesses {
        let answer = if access.allowed { "allowed" } else { "not allowed" };
        let what = access.access.resource.to_string();
        add(format_args!("\n{} on {}: {answer}", access.access.action, Escaped(&what)));
        if access.rules.is_empty() {
            add(format_args!("  no policy permits it"));
        }
        for rule in &access.rules {
            add(format_args!("  {} `{}` ({}:{})", rule.effect, Escaped(&rule.id), rule.file, rule.line));
            add(format_args!("{}", EscapedLines { text: rule.text.trim(), indent: "    " }));
        }
        for error in &access.errors {
            add(format_args!("  error: {}", Escaped(error)));
        }
    }
    out
}

/// An approval rule in words.
pub(super) struct ApprovalWords {
    pub(super) reviewers: String,
    pub(super) quorum: u32,
    pub(super) ttl: String,
}

impl ApprovalWords {
    pub(super) fn of(rule: &gateway_core::policy::ApprovalRule) -> Self {
        let seconds = rule.ttl.as_secs();
        let ttl =
            if seconds.is_multiple_of(60) { format!("{} min", seconds / 60) } else { format!("{seconds} s") };
        Self { reviewers: format!("group `{}`", Escaped(&rule.reviewers)), quorum: rule.quorum, ttl }
    }
}
