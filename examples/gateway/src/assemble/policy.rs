//! Policies and patterns.

use std::path::{Path, PathBuf};

use gateway_core::policy::cedar::{CedarEngine, CedarEngineBuilder, LoadError, PolicyFile};
use gateway_core::policy::patterns::{Case, PatternSet, PatternSets};
use toml::Spanned;

use crate::config::{self, ConfigFile, Problem, Problems};

/// Where the policies are, to be read again at a reload.
#[derive(Clone, Debug)]
pub(crate) struct PolicySource(Vec<PathBuf>);

impl PolicySource {
    pub(super) fn of(file: &ConfigFile) -> Self {
        Self(file.config.policy.files.get_ref().iter().map(|path| file.resolve(path)).collect())
    }

    /// The files as they are now.
    pub(crate) fn read(&self) -> Result<Vec<PolicyFile>, Problem> {
        read_policies(&self.0)
    }
}

/// Reads policy files; each is named by its path.
pub(crate) fn read_policies(paths: &[PathBuf]) -> Result<Vec<PolicyFile>, Problem> {
    let file = |path: &PathBuf| {
        super::read(path, "a policy file").map(|text| PolicyFile::new(path.display().to_string(), text))
    };
    if paths.is_empty() {
        let help = "list at least one file of Cedar policies; without any everything is denied";
        return Err(Problem::whole(Path::new("policy.files"), "there is no policy", help));
    }
    paths.iter().map(file).collect()
}

/// The engine's builder with the schema of every protocol spoken here.
pub(crate) fn engine_builder(files: &[PolicyFile]) -> CedarEngineBuilder {
    CedarEngine::builder()
        .schema_fragment("postgres.cedarschema", gateway_pg::SCHEMA)
        .schema_fragment("ssh.cedarschema", gateway_ssh::SCHEMA)
        .policies(files.iter().cloned())
}

/// An engine with these policies in force.
pub(crate) fn engine(files: &[PolicyFile]) -> Result<CedarEngine, LoadError> {
    engine_builder(files).build()
}

pub(super) fn patterns(file: &ConfigFile) -> Result<PatternSets, Problems> {
    let written = &file.config.patterns;
    let help = "correct or remove the pattern; the syntax is that of the Rust crate `regex`";
    // Each by itself first, so that the message points at the right one.
    for set in written {
        PatternSets::compile([pattern_set(set.get_ref())])
            .map_err(|e| file.problem(set.span(), "patterns", e.to_string(), help))?;
    }
    let at = written.first().map_or(0..0, Spanned::span);
    PatternSets::compile(written.iter().map(|set| pattern_set(set.get_ref())))
        .map_err(|e| file.problem(at, "patterns", e.to_string(), help).into())
}

fn pattern_set(from: &config::Patterns) -> PatternSet {
    let mut set = PatternSet::new(&from.name).case(match from.case {
        config::Case::Insensitive => Case::Insensitive,
        config::Case::Sensitive => Case::Sensitive,
    });
    set.regexes.clone_from(&from.regexes);
    set.literals.clone_from(&from.literals);
    set
}
