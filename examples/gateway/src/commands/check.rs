//! `gateway check`: would it start, and would every mask do something?

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::MemoryApprover;
use gateway_core::clock::SystemClock;
use gateway_core::credentials::{CredentialSource, UpstreamCredential};
use gateway_core::pipeline::Pipeline;
use gateway_core::recording::MemoryRecorder;
use gateway_pg::{CheckError as PgCheckError, PgGateway};
use gateway_ssh::CheckError as SshCheckError;
use serde::Serialize;

use crate::assemble::{Credentials, Endpoint, EnvSecrets, Parts, Serves, assemble};
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
    let used = |name: &str| endpoints.iter().find(|endpoint| endpoint.targets().iter().any(|t| t == name));
    for (name, target) in targets.postgres {
        let usable = ready(&name, used(&name), &credentials, findings).await.is_some();
        let serves = used(&name).map(|endpoint| &endpoint.serves);
        if let (true, Some(Serves::Postgres(endpoint))) = (usable, serves) {
            let labels = target.labels.len();
            check_postgres(&name, pg_gateway(&pipeline, target, endpoint), labels, findings).await;
        }
    }
    for (name, target) in targets.ssh {
        if let Some(credential) = ready(&name, used(&name), &credentials, findings).await {
            check_ssh(&target, &credential, findings).await;
        }
    }
    Ok(())
}

/// The credential for a target that is worth asking.
async fn ready(
    name: &str,
    endpoint: Option<&Endpoint>,
    credentials: &Credentials,
    findings: &mut Findings,
) -> Option<UpstreamCredential> {
    match credentials.credential(name, None).await {
        Err(error) => {
            findings.errors.push(error.to_string());
            None
        }
        Ok(_) if endpoint.is_none() => {
            findings.warnings.push(format!("target `{name}` has no listener; add one, or remove the target"));
            None
        }
        Ok(credential) => Some(credential),
    }
}

async fn check_postgres(name: &str, gateway: PgGateway, labels: usize, findings: &mut Findings) {
    match tokio::time::timeout(TARGET_TIME, gateway.check()).await {
        Ok(Ok(())) if labels == 0 => {
            findings
                .warnings
                .push(format!("target `{name}` has no labelled columns; only content is masked"));
        }
        Ok(Ok(())) => findings.passed.push(format!("target `{name}`: all {labels} labelled columns exist")),
        Ok(Err(error @ PgCheckError::Labels { .. })) => findings.errors.push(error.to_string()),
        Ok(Err(error)) => findings.warnings.push(format!("{error}; its labels are not checked")),
        Err(_) => {
            let seconds = TARGET_TIME.as_secs();
            findings.warnings.push(format!(
                "target `{name}` did not answer within {seconds} s; its labels are not checked"
            ));
        }
    }
}

async fn check_ssh(target: &gateway_ssh::Target, credential: &UpstreamCredential, findings: &mut Findings) {
    let name = &target.name;
    match tokio::time::timeout(TARGET_TIME, target.check(credential)).await {
        Ok(Ok(())) => {
            findings.passed.push(format!("target `{name}`: its host key is pinned, the gateway can log in"));
        }
        Ok(Err(error @ SshCheckError::Refused { .. })) => findings.errors.push(error.to_string()),
        Ok(Err(error)) => findings.warnings.push(error.to_string()),
        Err(_) => {
            let seconds = TARGET_TIME.as_secs();
            findings.warnings.push(format!("target `{name}` did not answer within {seconds} s"));
        }
    }
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
