//! Listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_pg::{ListenerLimits, TokenLogin};
use rustls::ServerConfig;
use toml::Spanned;

use crate::config::{self, ConfigFile, Problem, Problems, nearest};

/// A listener to be.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
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
    check_target(file, &from.target)?;
    let address = *from.address.get_ref();
    let wrong = |message: &str, help: &str| file.problem(from.address.span(), "listener", message, help);
    if from.tls.is_none() && from.require_tls {
        let help = "add `tls = { cert = \"...\", key = \"...\" }`, or remove `require_tls`";
        return Err(wrong("it requires TLS but has no certificate", help));
    }
    if from.tls.is_none() && !address.ip().is_loopback() {
        let help = "add `tls = { cert = \"...\", key = \"...\" }`, or listen on 127.0.0.1";
        return Err(wrong("tokens would cross the network without TLS, so they are refused there", help));
    }
    let tls = from.tls.as_ref().map(|tls| server_config(file, tls)).transpose()?;
    Ok(Endpoint {
        address,
        target: from.target.get_ref().clone(),
        tls,
        require_tls: from.require_tls,
        tokens: match from.token_login {
            config::TokenLogin::Password => TokenLogin::Password,
            config::TokenLogin::Oauthbearer => TokenLogin::OauthBearer,
        },
        limits: limits(&from.limits),
    })
}

fn check_target(file: &ConfigFile, name: &Spanned<String>) -> Result<(), Problem> {
    let names = || file.config.targets.iter().map(|target| target.name.get_ref().as_str());
    if names().any(|known| known == name.get_ref()) {
        return Ok(());
    }
    let help = match nearest(name.get_ref(), names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "add a `[[target]]` of this name, or use one of: {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    };
    Err(file.problem(
        name.span(),
        "listener.target",
        format!("there is no target `{}`", name.get_ref()),
        help,
    ))
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
