//! `gateway check`: would it start, and would every mask do something?

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::SystemClock;
use gateway_core::credentials::CredentialSource;
use gateway_core::pipeline::Pipeline;
use gateway_core::recording::MemoryRecorder;
use gateway_pg::CheckError;
use serde::Serialize;

use crate::assemble::{Endpoint, EnvSecrets, Parts, assemble};
use crate::cli::Check;
use crate::config::ConfigFile;
use crate::output::{Failure, Outcome, json, line};
use crate::serve::pg_gateway;

/// How long one target may take to answer.
const TARGET_TIME: Duration = Duration::from_secs(10);

/// Everything found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
    /// What was looked at and is in order.
    passed: Vec<String>,
}

/// Runs the checks and lists what they found.
pub(crate) async fn run(options: Check) -> Outcome {
    let mut findings = Findings::default();
    let loaded = ConfigFile::load(&options.config.config).map_err(Into::into);
    match loaded.and_then(|file| assemble(&file, EnvSecrets::from(&options.secrets))) {
        Err(problems) => findings.errors.extend(problems.0.iter().map(ToString::to_string)),
        Ok(parts) => {
            findings.passed.push("configuration, policies, patterns, masking rules, certificates".to_owned());
            let warnings = parts.engine.warnings();
            findings.warnings.extend(warnings.iter().map(ToString::to_string));
            check_targets(parts, &mut findings).await?;
        }
    }
    report(&findings, options.json)?;
    let bad = !findings.errors.is_empty() || options.strict && !findings.warnings.is_empty();
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn check_targets(parts: Parts, findings: &mut Findings) -> Result<(), Failure> {
    let Parts { authenticator, engine, credentials, targets, endpoints, .. } = parts;
    let clock = Arc::new(SystemClock);
    let credentials = Arc::new(credentials);
    let pipeline = Pipeline::builder(
        authenticator,
        engine,
        Arc::new(MemoryApprover::new(clock)),
        Arc::new(MemoryRecorder::default()),
        Arc::clone(&credentials) as Arc<dyn CredentialSource>,
    )
    .build()?;
    for (name, target) in targets {
        if let Err(error) = credentials.credential(&name, None).await {
            findings.errors.push(error.to_string());
            continue;
        }
        let labels = target.labels.len();
        let Some(endpoint) = endpoints.iter().find(|endpoint: &&Endpoint| endpoint.target == name) else {
            findings.warnings.push(format!("target `{name}` has no listener; add one, or remove the target"));
            continue;
        };
        let gateway = pg_gateway(&pipeline, target, endpoint);
        match tokio::time::timeout(TARGET_TIME, gateway.check()).await {
            Ok(Ok(())) if labels == 0 => {
                findings
                    .warnings
                    .push(format!("target `{name}` has no labelled columns; only content is masked"));
            }
            Ok(Ok(())) => {
                findings.passed.push(format!("target `{name}`: all {labels} labelled columns exist"))
            }
            Ok(Err(error @ CheckError::Labels { .. })) => findings.errors.push(error.to_string()),
            Ok(Err(error)) => findings.warnings.push(format!("{error}; its labels are not checked")),
            Err(_) => {
                let seconds = TARGET_TIME.as_secs();
                findings.warnings.push(format!(
                    "target `{name}` did not answer within {seconds} s; its labels are not checked"
                ));
            }
        }
    }
    Ok(())
}

fn report(findings: &Findings, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return json(findings);
    }
    for passed in &findings.passed {
        line(format_args!("ok: {passed}"))?;
    }
    for warning in &findings.warnings {
        line(format_args!("warning: {}", warning.trim_start_matches("warning: ")))?;
    }
    for error in &findings.errors {
        line(format_args!("error: {error}"))?;
    }
    line(format_args!("{} errors, {} warnings", findings.errors.len(), findings.warnings.len()))?;
    Ok(())
}
