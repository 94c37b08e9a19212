//! Listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_pg::{ListenerLimits, TokenLogin};
use rustls::ServerConfig;
use toml::Spanned;

use super::ssh::{self, SshEndpoint};
use crate::config::{self, ConfigFile, Problem, Problems, nearest};

/// A listener to be.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) serves: Serves,
}

/// What a listener speaks.
#[derive(Debug)]
pub(crate) enum Serves {
    Postgres(Box<PgEndpoint>),
    Ssh(SshEndpoint),
}

impl Endpoint {
    /// The names of the targets behind it.
    pub(crate) fn targets(&self) -> &[String] {
        match &self.serves {
            Serves::Postgres(pg) => std::slice::from_ref(&pg.target),
            Serves::Ssh(ssh) => &ssh.targets,
        }
    }

    /// The protocol's name, as in policies and records.
    pub(crate) const fn protocol(&self) -> &'static str {
        match &self.serves {
            Serves::Postgres(_) => "postgres",
            Serves::Ssh(_) => gateway_ssh::PROTOCOL,
        }
    }
}

/// What a PostgreSQL listener needs besides its address.
#[derive(Debug)]
pub(crate) struct PgEndpoint {
    pub(crate) target: String,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) require_tls: bool,
    pub(crate) tokens: TokenLogin,
    pub(crate) limits: ListenerLimits,
}

pub(super) fn endpoints(file: &ConfigFile) -> Result<Vec<Endpoint>, Problems> {
    let listeners = &file.config.listeners;
    if listeners.is_empty() {
        let help = "add a `[[listener]]` with `address` and `target`";
        return Err(file.problem(0..0, "listener", "nobody could connect", help).into());
    }
    let endpoints: Result<_, Problem> = listeners.iter().map(|listener| endpoint(file, listener)).collect();
    endpoints.map_err(Into::into)
}

fn endpoint(file: &ConfigFile, from: &config::Listener) -> Result<Endpoint, Problem> {
    let names = named_targets(file, from)?;
    let targets = names.iter().map(|name| find_target(file, name)).collect::<Result<Vec<_>, _>>()?;
    let is_ssh = |target: &&config::Target| target.protocol == config::Protocol::Ssh;
    let serves = match targets.as_slice() {
        all if all.iter().all(is_ssh) => {
            let names = names.iter().map(|name| name.get_ref().clone()).collect();
            Serves::Ssh(ssh::endpoint(file, from, names)?)
        }
        [only] => Serves::Postgres(Box::new(postgres(file, from, only.name.get_ref())?)),
        _ => {
            let message = "only SSH targets can share a listener";
            let help = "give each database a `[[listener]]` of its own, with `target = \"...\"`";
            let at = from.targets.as_ref().map_or(from.address.span(), Spanned::span);
            return Err(file.problem(at, "listener.targets", message, help));
        }
    };
    Ok(Endpoint { address: *from.address.get_ref(), serves })
}

/// The targets of a listener: `target` or `targets`, at least one.
fn named_targets<'a>(
    file: &ConfigFile,
    from: &'a config::Listener,
) -> Result<&'a [Spanned<String>], Problem> {
    match (&from.target, &from.targets) {
        (Some(one), None) => Ok(std::slice::from_ref(one)),
        (None, Some(several)) if !several.get_ref().is_empty() => Ok(several.get_ref()),
        _ => {
            let message = "it must be said exactly once where it leads";
            let help = "write `target = \"...\"`, or for SSH `targets = [\"...\", \"...\"]`";
            Err(file.problem(from.address.span(), "listener.target", message, help))
        }
    }
}

fn postgres(file: &ConfigFile, from: &config::Listener, target: &str) -> Result<PgEndpoint, Problem> {
    let address = *from.address.get_ref();
    let wrong = |key: &str, message: &str, help: &str| file.problem(from.address.span(), key, message, help);
    let foreign = [
        ("listener.host_key", from.host_key.is_some(), "remove it; databases are known by `tls`"),
        ("listener.limits.attempts", from.limits.attempts.is_some(), "remove it; a login has one attempt"),
        ("listener.limits.silence", from.limits.silence.is_some(), "remove it; idle sessions live on"),
    ];
    if let Some((key, _, help)) = foreign.into_iter().find(|(_, written, _)| *written) {
        return Err(wrong(key, "this is for SSH, not for databases", help));
    }
    if from.tls.is_none() && from.require_tls {
        let help = "add `tls = { cert = \"...\", key = \"...\" }`, or remove `require_tls`";
        return Err(wrong("listener", "it requires TLS but has no certificate", help));
    }
    if from.tls.is_none() && !address.ip().is_loopback() {
        let help = "add `tls = { cert = \"...\", key = \"...\" }`, or listen on 127.0.0.1";
        let message = "tokens would cross the network without TLS, so they are refused there";
        return Err(wrong("listener", message, help));
    }
    let tls = from.tls.as_ref().map(|tls| server_config(file, tls)).transpose()?;
    Ok(PgEndpoint {
        target: target.to_owned(),
        tls,
        require_tls: from.require_tls,
        tokens: match from.token_login {
            None | Some(config::TokenLogin::Password) => TokenLogin::Password,
            Some(config::TokenLogin::Oauthbearer) => TokenLogin::OauthBearer,
        },
        limits: limits(&from.limits),
    })
}

fn find_target<'a>(file: &'a ConfigFile, name: &Spanned<String>) -> Result<&'a config::Target, Problem> {
    let mut targets = file.config.targets.iter();
    if let Some(found) = targets.find(|target| target.name.get_ref() == name.get_ref()) {
        return Ok(found);
    }
    let names = || file.config.targets.iter().map(|target| target.name.get_ref().as_str());
    let help = match nearest(name.get_ref(), names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "add a `[[target]]` of this name, or use one of: {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    };
    let message = format!("there is no target `{}`", name.get_ref());
    Err(file.problem(name.span(), "listener.target", message, help))
}

fn server_config(file: &ConfigFile, written: &Spanned<config::Tls>) -> Result<Arc<ServerConfig>, Problem> {
    let tls = written.get_ref();
    let chain = super::read(&file.resolve(&tls.cert), "`listener.tls.cert`")?;
    let key = super::read(&file.resolve(&tls.key), "`listener.tls.key`")?;
    let client_ca = match &tls.client_ca {
        Some(path) => Some(super::read(&file.resolve(path), "`listener.tls.client_ca`")?),
        None => None,
    };
    if client_ca.is_some() && file.config.client_certificates.is_none() {
        let help = "add `[client_certificates]` with rules, or remove `client_ca`";
        let message = "client certificates are asked for, but none would be accepted";
        return Err(file.problem(written.span(), "listener.tls.client_ca", message, help));
    }
    let help = "name a PEM certificate chain and its unencrypted PEM key";
    gateway_pg::tls::server_config(&chain, &key, client_ca.as_deref())
        .map_err(|e| file.problem(written.span(), "listener.tls", e.to_string(), help))
}

fn limits(from: &config::Limits) -> ListenerLimits {
    let default = ListenerLimits::default();
    ListenerLimits {
        connections: from.connections.unwrap_or(default.connections),
        login: from.login.map_or(default.login, |span| span.0),
        frame_bytes: from.frame_bytes.unwrap_or(default.frame_bytes),
    }
}
