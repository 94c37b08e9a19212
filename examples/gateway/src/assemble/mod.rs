//! From a configuration to the parts of a gateway. Opens no listener and makes no file.

mod identity;
mod known_hosts;
mod listener;
mod masking;
mod policy;
mod ssh;
mod target;

use std::path::Path;
use std::sync::Arc;

use gateway_core::identity::AnyAuthenticator;
use gateway_core::masking::Scanner;
use gateway_core::policy::cedar::CedarEngine;
use gateway_core::policy::patterns::PatternSets;

pub(crate) use listener::{Endpoint, PgEndpoint, Serves};
pub(crate) use policy::{PolicySource, engine, engine_builder, read_policies};
pub(crate) use ssh::SshEndpoint;
pub(crate) use target::{Credentials, Targets};

use crate::config::{ConfigFile, Problem, Problems};

/// Whether passwords may come from environment variables, which every process of the user can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvSecrets {
    Refuse,
    /// Asked for with `--demo-insecure-env`.
    Allow,
}

/// Everything the configuration says, as typed parts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) authenticator: Arc<AnyAuthenticator>,
    pub(crate) engine: Arc<CedarEngine>,
    pub(crate) policies: PolicySource,
    pub(crate) patterns: PatternSets,
    pub(crate) scanner: Scanner,
    pub(crate) credentials: Credentials,
    pub(crate) targets: Targets,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Builds the parts, or says everything that is wrong.
pub(crate) fn assemble(file: &ConfigFile, secrets: EnvSecrets) -> Result<Parts, Problems> {
    let mut problems = Vec::new();
    let authenticator = keep(identity::authenticator(file), &mut problems);
    let policies = PolicySource::of(file);
    let engine = keep(engine_of(file, &policies), &mut problems);
    let patterns = keep(policy::patterns(file), &mut problems);
    let scanner = keep(masking::scanner(file), &mut problems);
    let targets = keep(target::targets(file), &mut problems);
    let credentials = keep(target::credentials(file, secrets), &mut problems);
    let endpoints = keep(listener::endpoints(file), &mut problems);
    match (authenticator, engine, patterns, scanner, targets, credentials, endpoints) {
        (
            Some(authenticator),
            Some(engine),
            Some(patterns),
            Some(scanner),
            Some(targets),
            Some(credentials),
            Some(endpoints),
        ) if problems.is_empty() => Ok(Parts {
            authenticator: Arc::new(authenticator),
            engine: Arc::new(engine),
            policies,
            patterns,
            scanner,
            credentials,
            targets,
            endpoints,
        }),
        _ => Err(Problems(problems)),
    }
}

fn keep<T>(result: Result<T, Problems>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|found| problems.extend(found.0)).ok()
}

fn engine_of(file: &ConfigFile, source: &PolicySource) -> Result<CedarEngine, Problems> {
    let files = source.read()?;
    let at = file.config.policy.files.span();
    let help = "correct the policies; `gateway policy check` shows the findings one by one";
    engine(&files).map_err(|e| file.problem(at, "policy.files", e.to_string(), help).into())
}

/// The text of a file that the configuration names.
fn read(path: &Path, what: &str) -> Result<String, Problem> {
    std::fs::read_to_string(path).map_err(|e| {
        let help = format!("make the file readable for the gateway's user, or correct its path ({what})");
        Problem::whole(path, format!("cannot be read: {e}"), help)
    })
}
