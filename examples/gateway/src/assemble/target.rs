//! Targets and the credentials for them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use gateway_core::credentials::{
    CredentialError, CredentialSource, FileCredentials, Secret, StaticCredentials, UpstreamCredential,
};
use gateway_core::identity::VerifiedPrincipal;
use gateway_core::pipeline::Label;
use gateway_pg::{Address, ProtocolVersion, SslMode, SslNegotiation};

use super::{EnvSecrets, masking};
use crate::config::{self, ConfigFile, Problem, Problems};

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;

/// The targets by name, for each protocol.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) postgres: BTreeMap<String, gateway_pg::Target>,
    pub(crate) ssh: BTreeMap<String, gateway_ssh::Target>,
}

pub(super) fn targets(file: &ConfigFile) -> Result<Targets, Problems> {
    let (mut targets, mut names) = (Targets::default(), BTreeSet::new());
    for written in &file.config.targets {
        let name = written.name.get_ref().clone();
        if !names.insert(name.clone()) {
            let message = format!("two targets are called `{name}`");
            let help = "policies and records know a target by its name; give each its own";
            return Err(file.problem(written.name.span(), "target.name", message, help).into());
        }
        match written.protocol {
            config::Protocol::Postgres => {
                targets.postgres.insert(name, postgres(file, written)?);
            }
            config::Protocol::Ssh => {
                targets.ssh.insert(name, super::ssh::target(file, written)?);
            }
        }
    }
    if names.is_empty() {
        let help = "add a `[[target]]` with `name`, `protocol`, `host` and `credential`";
        return Err(file.problem(0..0, "target", "there is nothing to protect", help).into());
    }
    Ok(targets)
}

fn postgres(file: &ConfigFile, from: &config::Target) -> Result<gateway_pg::Target, Problem> {
    let foreign = [
        ("host_keys", from.host_keys.is_some()),
        ("host_authorities", from.host_authorities.is_some()),
        ("known_hosts", from.known_hosts.is_some()),
        ("shell", from.shell.is_some()),
    ];
    if let Some((key, _)) = foreign.into_iter().find(|(_, written)| *written) {
        let help = "remove it; a database is known by `sslmode` and `ca_file`";
        let message = "this is for SSH, not for databases";
        return Err(file.problem(from.name.span(), &format!("target.{key}"), message, help));
    }
    let name = from.name.get_ref().clone();
    let address = address(file, from)?;
    let ssl_mode = ssl_mode(file, from, &address)?;
    let ca_pem = match &from.ca_file {
        Some(path) => Some(super::read(&file.resolve(path.get_ref()), "`target.ca_file`")?),
        None => None,
    };
    let labels: Vec<Label> =
        from.labels.iter().map(|label| self::label(file, from, label)).collect::<Result<_, _>>()?;
    let database = from.database.clone();
    let mut target = gateway_pg::Target::new(name, address, ssl_mode).labels(labels);
    target.ssl_negotiation = ssl_negotiation(file, from, ssl_mode)?;
    target.max_protocol = match from.max_protocol_version {
        Some(config::ProtocolVersion::V3_2) => ProtocolVersion::V3_2,
        Some(config::ProtocolVersion::V3_0) | None => ProtocolVersion::V3_0,
    };
    (target.ca_pem, target.database) = (ca_pem, database);
    Ok(target)
}

fn label(file: &ConfigFile, target: &config::Target, from: &config::Label) -> Result<Label, Problem> {
    let written = &from.column.get_ref().database;
    if let Some(fixed) = target.database.as_ref().filter(|fixed| *fixed != written) {
        let message = format!("the label is for database `{written}`, the target's sessions use `{fixed}`");
        let help = format!("begin the column with `{fixed}.`, or remove the label");
        return Err(file.problem(from.column.span(), "target.labels.column", message, help));
    }
    masking::label(file, target.name.get_ref(), from)
}

fn address(file: &ConfigFile, from: &config::Target) -> Result<Address, Problem> {
    match (&from.host, &from.socket, from.port) {
        (Some(host), None, port) => Ok(Address::Tcp(host.clone(), port.unwrap_or(DEFAULT_PORT))),
        (None, Some(path), None) => Ok(Address::Unix(file.resolve(path))),
        _ => {
            let message = "it must be said exactly once where the server is";
            let help =
                "write `host = \"...\"` and `port = 5432`, or `socket = \"/run/postgresql/.s.PGSQL.5432\"`";
            Err(file.problem(from.name.span(), "target", message, help))
        }
    }
}

/// TLS with a verified name unless said otherwise; a Unix socket has no network to protect against.
fn ssl_mode(file: &ConfigFile, from: &config::Target, address: &Address) -> Result<SslMode, Problem> {
    if matches!(address, Address::Unix(_)) {
        if from.sslmode.is_some_and(|mode| mode != config::SslMode::Disable) {
            let help = "remove `sslmode`, or name the server by `host`";
            return Err(file.problem(
                from.name.span(),
                "target.sslmode",
                "there is no TLS on a socket",
                help,
            ));
        }
        return Ok(SslMode::Disable);
    }
    Ok(match from.sslmode {
        Some(config::SslMode::Disable) => SslMode::Disable,
        Some(config::SslMode::Prefer) => SslMode::Prefer,
        Some(config::SslMode::Require) => SslMode::Require,
        Some(config::SslMode::VerifyCa) => SslMode::VerifyCa,
        Some(config::SslMode::VerifyFull) | None => SslMode::VerifyFull,
    })
}

/// TLS from the first byte needs TLS.
fn ssl_negotiation(
    file: &ConfigFile,
    from: &config::Target,
    mode: SslMode,
) -> Result<SslNegotiation, Problem> {
    if from.sslnegotiation != Some(config::SslNegotiation::Direct) {
        return Ok(SslNegotiation::Postgres);
    }
    if !matches!(mode, SslMode::Disable | SslMode::Prefer) {
        return Ok(SslNegotiation::Direct);
    }
    let help = "write `sslmode = \"require\"` or stricter, or remove `sslnegotiation`";
    let message = "direct TLS cannot be done without";
    Err(file.problem(from.name.span(), "target.sslnegotiation", message, help))
}

/// Credentials from files, and from elsewhere for the targets that say so.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    files: FileCredentials,
    fixed: StaticCredentials,
    /// Which targets have a fixed one.
    fixed_targets: BTreeSet<String>,
}

#[async_trait]
impl CredentialSource for Credentials {
    async fn credential(
        &self,
        target: &str,
        principal: Option<&VerifiedPrincipal>,
    ) -> Result<UpstreamCredential, CredentialError> {
        if self.fixed_targets.contains(target) {
            return self.fixed.credential(target, principal).await;
        }
        self.files.credential(target, principal).await
    }
}

impl Credentials {
    fn fixed(mut self, target: &str, credential: UpstreamCredential) -> Self {
        self.fixed = self.fixed.with(target, credential);
        self.fixed_targets.insert(target.to_owned());
        self
    }
}

pub(super) fn credentials(file: &ConfigFile, secrets: EnvSecrets) -> Result<Credentials, Problems> {
    let mut targets = file.config.targets.iter();
    targets
        .try_fold(Credentials::default(), |all, target| add(all, file, target, secrets))
        .map_err(Into::into)
}

fn add(
    mut all: Credentials,
    file: &ConfigFile,
    target: &config::Target,
    secrets: EnvSecrets,
) -> Result<Credentials, Problem> {
    let from = target.credential.get_ref();
    let (name, username) = (target.name.get_ref(), from.username.clone());
    let ssh = target.protocol == config::Protocol::Ssh;
    match (&from.password_file, &from.certificate, &from.key, &from.password_env, from.no_secret) {
        (Some(path), None, None, None, false) => {
            all.files = all.files.password(name, username, secret_path(file, path));
        }
        (None, certificate, Some(key), None, false) if ssh => {
            let certificate = certificate.as_ref().map(|path| file.resolve(path));
            all.files = all.files.key(name, username, secret_path(file, key), certificate);
        }
        (None, Some(chain), Some(key), None, false) => {
            all.files = all.files.certificate(name, username, file.resolve(chain), secret_path(file, key));
        }
        (None, None, None, Some(variable), false) => {
            let password = from_environment(file, target, variable, secrets)?;
            return Ok(all.fixed(name, UpstreamCredential::Password { username, password }));
        }
        (None, None, None, None, true) => {
            return Ok(all.fixed(name, UpstreamCredential::None { username }));
        }
        _ => return Err(unclear_credential(file, target)),
    }
    Ok(all)
}

fn unclear_credential(file: &ConfigFile, target: &config::Target) -> Problem {
    let message = "it must be said exactly once how the gateway proves who it is";
    let help = match target.protocol {
        config::Protocol::Postgres => {
            "write one of `password_file = \"...\"`, `certificate = \"...\"` with `key = \"...\"`, `no_secret = true`"
        }
        config::Protocol::Ssh => {
            "write one of `key_file = \"...\"`, `certificate = \"...-cert.pub\"` with `key = \"...\"`, \
             `password_file = \"...\"`"
        }
    };
    file.problem(target.credential.span(), "target.credential", message, help)
}

/// Relative paths are the service manager's where it hands over credentials (systemd's `LoadCredential=`).
fn secret_path(file: &ConfigFile, path: &Path) -> PathBuf {
    if std::env::var_os("CREDENTIALS_DIRECTORY").is_some() { path.to_owned() } else { file.resolve(path) }
}

fn from_environment(
    file: &ConfigFile,
    target: &config::Target,
    variable: &str,
    secrets: EnvSecrets,
) -> Result<Secret<String>, Problem> {
    let wrong = |message: String, help: &str| {
        file.problem(target.credential.span(), "target.credential.password_env", message, help)
    };
    if secrets == EnvSecrets::Refuse {
        let message = "a password in an environment variable can be read by every process of this user";
        let help = "use `password_file`; for a demo only, start with `--demo-insecure-env`";
        return Err(wrong(message.to_owned(), help));
    }
    let help = "set it before starting the gateway";
    std::env::var(variable).map(Secret::new).map_err(|_| wrong(format!("`{variable}` is not set"), help))
}
