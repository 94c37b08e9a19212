//! The configuration file: its types, as written. What they mean is the business of [`crate::assemble`].
//!
//! Unknown keys are errors everywhere: a misspelt mask that is silently ignored would be a leak.

mod problem;
mod ssh;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gateway_core::identity::oidc::{Algorithm, ClaimPath, Delegation};
use gateway_core::identity::{Phase, PrincipalKind, TrustDomain};
use serde::Deserialize;
use toml::Spanned;

pub(crate) use problem::{Problem, Problems, nearest};
pub(crate) use ssh::{SshAuthority, SshKey, SshLogin};
pub(crate) use values::{ColumnPath, Span, TransformText, ValidatorText};

/// Largest configuration file, in bytes. 1 MiB: thousands of labelled columns; more is some other file.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) gateway: Gateway,
    #[serde(default, rename = "issuer")]
    pub(crate) issuers: Vec<Spanned<Issuer>>,
    pub(crate) client_certificates: Option<Spanned<ClientCertificates>>,
    pub(crate) ssh_login: Option<Spanned<SshLogin>>,
    pub(crate) policy: Policy,
    #[serde(default)]
    pub(crate) patterns: Vec<Spanned<Patterns>>,
    #[serde(default)]
    pub(crate) masking: Masking,
    #[serde(default, rename = "target")]
    pub(crate) targets: Vec<Target>,
    #[serde(default, rename = "listener")]
    pub(crate) listeners: Vec<Listener>,
    #[serde(default)]
    pub(crate) recording: Recording,
    #[serde(default)]
    pub(crate) approval: Approval,
}

/// `[gateway]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gateway {
    pub(crate) data_dir: PathBuf,
    pub(crate) admin_socket: Option<PathBuf>,
    #[serde(default)]
    pub(crate) parser: Parser,
}

/// Where PostgreSQL's parser, which is C, runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Parser {
    /// In the gateway.
    #[default]
    Inside,
    /// In processes of its own, so that a crash of it ends no session.
    Process,
}

/// `[[issuer]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    pub(crate) issuer: String,
    pub(crate) audiences: BTreeSet<String>,
    pub(crate) algorithms: Option<BTreeSet<Algorithm>>,
    #[serde(default)]
    pub(crate) discovery: bool,
    pub(crate) jwks_url: Option<String>,
    pub(crate) jwks_file: Option<PathBuf>,
    pub(crate) ca_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(crate) plain_http_loopback: bool,
    #[serde(default)]
    pub(crate) keys_at_issuer_only: bool,
    pub(crate) leeway: Option<Span>,
    pub(crate) max_lifetime: Option<Span>,
    #[serde(default)]
    pub(crate) claims: Claims,
}

/// `[issuer.claims]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    pub(crate) kind: Option<PrincipalKind>,
    pub(crate) kind_claim: Option<ClaimPath>,
    pub(crate) groups: Option<ClaimPath>,
    #[serde(default)]
    pub(crate) group_prefix: String,
    pub(crate) phase: Option<ClaimPath>,
    pub(crate) task: Option<ClaimPath>,
    pub(crate) plan: Option<ClaimPath>,
    pub(crate) trust_domain: Option<TrustDomain>,
    #[serde(default)]
    pub(crate) delegation: Delegation,
    #[serde(default)]
    pub(crate) extra: BTreeMap<String, ClaimPath>,
}

/// `[client_certificates]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientCertificates {
    pub(crate) trust_domain: Option<TrustDomain>,
    pub(crate) common_name_issuer: Option<String>,
    pub(crate) max_session: Option<Span>,
    #[serde(default, rename = "rule")]
    pub(crate) rules: Vec<Spanned<CertificateRule>>,
}

/// `[[client_certificates.rule]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateRule {
    #[serde(default)]
    pub(crate) any: bool,
    pub(crate) exactly: Option<String>,
    pub(crate) path_under: Option<String>,
    pub(crate) kind: PrincipalKind,
    #[serde(default)]
    pub(crate) groups: BTreeSet<String>,
    #[serde(default)]
    pub(crate) phase: Phase,
    pub(crate) task: Option<String>,
}

/// `[policy]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    pub(crate) files: Spanned<Vec<PathBuf>>,
}

/// `[[patterns]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patterns {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) regexes: Vec<String>,
    #[serde(default)]
    pub(crate) literals: Vec<String>,
    #[serde(default)]
    pub(crate) case: Case,
}

/// How case counts in a pattern set.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Case {
    #[default]
    Insensitive,
    Sensitive,
}

/// `[masking]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Masking {
    #[serde(default)]
    pub(crate) disabled: Vec<Spanned<String>>,
    #[serde(default)]
    pub(crate) transforms: BTreeMap<Spanned<String>, TransformText>,
    #[serde(default, rename = "rule")]
    pub(crate) rules: Vec<Spanned<MaskingRule>>,
}

/// `[[masking.rule]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaskingRule {
    pub(crate) name: String,
    pub(crate) pattern: String,
    pub(crate) class: String,
    pub(crate) keyword: Option<String>,
    pub(crate) validator: Option<ValidatorText>,
}

/// `[[target]]`; which keys may stand depends on the protocol, and is judged where the target is assembled.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) name: Spanned<String>,
    pub(crate) protocol: Protocol,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) database: Option<String>,
    #[serde(default)]
    pub(crate) sslmode: Option<SslMode>,
    pub(crate) sslnegotiation: Option<SslNegotiation>,
    pub(crate) max_protocol_version: Option<ProtocolVersion>,
    pub(crate) ca_file: Option<Spanned<PathBuf>>,
    pub(crate) host_keys: Option<Vec<Spanned<String>>>,
    pub(crate) host_authorities: Option<Vec<Spanned<String>>>,
    pub(crate) known_hosts: Option<Spanned<PathBuf>>,
    pub(crate) shell: Option<Shell>,
    pub(crate) credential: Spanned<Credential>,
    #[serde(default)]
    pub(crate) labels: Vec<Label>,
}

/// The wire protocols of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    Postgres,
    Ssh,
}

/// What asking for a shell gives on an SSH target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shell {
    Login,
    Commands,
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SslNegotiation {
    Postgres,
    Direct,
}

/// libpq's `max_protocol_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum ProtocolVersion {
    #[serde(rename = "3.0")]
    V3_0,
    #[serde(rename = "3.2")]
    V3_2,
}

/// `target.credential`: a user name, and one way to prove it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    /// For SSH alone too, where `key_file` reads better beside `password_file`.
    #[serde(alias = "key_file")]
    pub(crate) key: Option<PathBuf>,
    pub(crate) password_env: Option<String>,
    #[serde(default)]
    pub(crate) no_secret: bool,
}

/// One entry of `target.labels`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Label {
    pub(crate) column: Spanned<ColumnPath>,
    pub(crate) class: Spanned<String>,
    pub(crate) transform: Option<TransformText>,
}

/// `[[listener]]`; it speaks the protocol of its target or targets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    pub(crate) address: Spanned<SocketAddr>,
    pub(crate) target: Option<Spanned<String>>,
    pub(crate) targets: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) host_key: Option<Spanned<PathBuf>>,
    pub(crate) tls: Option<Spanned<Tls>>,
    #[serde(default)]
    pub(crate) require_tls: bool,
    pub(crate) token_login: Option<TokenLogin>,
    #[serde(default)]
    pub(crate) limits: Limits,
}

/// `listener.tls`: PEM files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

/// How clients hand over their token.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenLogin {
    Password,
    Oauthbearer,
}

/// `listener.limits`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) connections: Option<usize>,
    pub(crate) login: Option<Span>,
    pub(crate) frame_bytes: Option<usize>,
    pub(crate) attempts: Option<usize>,
    pub(crate) silence: Option<Span>,
}

/// `[recording]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recording {
    #[serde(default)]
    pub(crate) durability: Durability,
}

/// When records must be on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Durability {
    /// Writes before they are forwarded; reads at most 100 ms later.
    #[default]
    Default,
    /// Everything before it is forwarded or released.
    Strict,
}

/// `[approval]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Approval {
    #[serde(default)]
    pub(crate) delivery: Delivery,
}

/// What a client that has to wait for approval experiences.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Delivery {
    #[default]
    Hold,
    Retry,
}

/// A configuration that parsed, with what is needed to point into its text.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) config: Config,
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    /// Reads and parses a file.
    pub(crate) fn load(path: &Path) -> Result<Self, Problem> {
        Self::parse(path, read_text(path)?)
    }

    fn parse(path: &Path, text: String) -> Result<Self, Problem> {
        match toml::from_str(&text) {
            Ok(config) => Ok(Self { config, path: path.to_owned(), text }),
            Err(error) => Err(Problem::syntax(path, &text, error)),
        }
    }

    /// A problem at a place in the file. `key` is dotted, as `target.labels`.
    pub(crate) fn problem(
        &self,
        at: Range<usize>,
        key: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Problem {
        Problem::at(&self.path, &self.text, at, key, message, help)
    }

    /// A path as written, relative to the folder of the configuration file.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        match self.path.parent() {
            Some(folder) => folder.join(path),
            None => path.to_owned(),
        }
    }

    /// Where everything that lasts is kept.
    pub(crate) fn data_dir(&self) -> DataDir {
        DataDir(self.resolve(&self.config.gateway.data_dir))
    }

    /// Where reviewers reach the gateway.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        match &self.config.gateway.admin_socket {
            Some(path) => self.resolve(path),
            None => self.data_dir().default_socket(),
        }
    }
}

fn read_text(path: &Path) -> Result<String, Problem> {
    let wrong = |cause: String, help: &str| Problem::whole(path, cause, help);
    let help = "name an existing file with `--config`; `gateway serve --help` has an example";
    let meta = std::fs::metadata(path).map_err(|e| wrong(format!("cannot be read: {e}"), help))?;
    if meta.len() > MAX_CONFIG_BYTES {
        let help = "is this the right file? a configuration has a few kilobytes";
        return Err(wrong(format!("larger than {MAX_CONFIG_BYTES} bytes"), help));
    }
    std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}"), help))
}

/// The folder of everything that lasts.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(pub(crate) PathBuf);

impl DataDir {
    pub(crate) fn recordings(&self) -> PathBuf {
        self.0.join("recordings")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("gateway.sqlite")
    }

    pub(crate) fn recording_key(&self) -> PathBuf {
        self.0.join("recording.key")
    }

    /// The public half, for whoever verifies.
    pub(crate) fn recording_public_key(&self) -> PathBuf {
        self.0.join("recording.pub")
    }

    /// The key by which SSH clients know the gateway, unless a listener names another.
    pub(crate) fn ssh_host_key(&self) -> PathBuf {
        self.0.join("ssh_host_ed25519_key")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.0.join("audit.log")
    }

    fn default_socket(&self) -> PathBuf {
        self.0.join("admin").join("gateway.sock")
    }
}

#[cfg(test)]
mod tests;
