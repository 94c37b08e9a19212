//! SSH: targets with their pinned hosts, logins by certificate and key, the listeners' own key.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gateway_core::clock::Timestamp;
use gateway_core::credentials::Secret;
use gateway_core::identity::{Principal, SshAuthenticator, SshAuthority, SshPublicKey};
use gateway_ssh::{HostKey, ListenerLimits};
use toml::Spanned;

use super::known_hosts;
use crate::config::{self, ConfigFile, Problem};

/// SSH's port (RFC 4253 section 4.1).
const DEFAULT_PORT: u16 = 22;

/// Largest private key file, in bytes. 64 KiB, as for every other secret.
const MAX_KEY_BYTES: u64 = 64 * 1024;

pub(super) fn target(file: &ConfigFile, from: &config::Target) -> Result<gateway_ssh::Target, Problem> {
    let name = from.name.get_ref();
    check_keys(file, from)?;
    check_name(file, &from.name)?;
    let Some(host) = &from.host else {
        let help = "write `host = \"...\"`, and `port` if it is not 22";
        return Err(file.problem(from.name.span(), "target", "it is not said where the server is", help));
    };
    let port = from.port.unwrap_or(DEFAULT_PORT);
    let mut target = gateway_ssh::Target::new(name, host, port);
    if from.shell == Some(config::Shell::Commands) {
        target = target.shell(gateway_ssh::ShellMode::CommandAtATime);
    }
    let mut known = false;
    for line in from.host_keys.iter().flatten() {
        target = target.host_key(public_key(file, line, "target.host_keys")?);
        known = true;
    }
    for line in from.host_authorities.iter().flatten() {
        target = target.host_authority(public_key(file, line, "target.host_authorities")?);
        known = true;
    }
    if let Some(path) = &from.known_hosts {
        let path = file.resolve(path.get_ref());
        let hosts = known_hosts::read(&path, &super::read(&path, "`target.known_hosts`")?, host, port)?;
        target = hosts.keys.into_iter().fold(target, gateway_ssh::Target::host_key);
        target = hosts.authorities.into_iter().fold(target, gateway_ssh::Target::host_authority);
        known = true;
    }
    if known {
        return Ok(target);
    }
    let message = format!("nothing tells target `{name}` from another host that answers in its place");
    let help = format!(
        "compare `ssh-keyscan -p {port} {host}` with the keys on the host itself, then write `host_keys = [\"ssh-ed25519 ...\"]`; \
         or `known_hosts = \"FILE\"`, or `host_authorities = [...]` for host certificates"
    );
    Err(file.problem(from.name.span(), "target.host_keys", message, help))
}

/// What is for other protocols would silently do nothing.
fn check_keys(file: &ConfigFile, from: &config::Target) -> Result<(), Problem> {
    let foreign = [
        ("socket", from.socket.is_some(), "name the server by `host` and `port`"),
        ("database", from.database.is_some(), "remove it"),
        ("sslmode", from.sslmode.is_some(), "remove it; SSH brings its own encryption"),
        ("sslnegotiation", from.sslnegotiation.is_some(), "remove it; SSH brings its own encryption"),
        ("max_protocol_version", from.max_protocol_version.is_some(), "remove it; SSH has one version"),
        ("ca_file", from.ca_file.is_some(), "write `host_authorities` with the authority's public key"),
        ("labels", !from.labels.is_empty(), "remove them; what SSH shows is masked by content"),
    ];
    match foreign.into_iter().find(|(_, written, _)| *written) {
        None => Ok(()),
        Some((key, _, help)) => {
            let message = "this is for databases, not for SSH";
            Err(file.problem(from.name.span(), &format!("target.{key}"), message, help))
        }
    }
}

/// User names carry it behind `%`.
fn check_name(file: &ConfigFile, name: &Spanned<String>) -> Result<(), Problem> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.get_ref().is_empty() && name.get_ref().chars().all(fits) {
        return Ok(());
    }
    let help =
        "use letters, digits, `-`, `_` and `.`: clients write it in their user name, as in `agent%web1`";
    let message = format!("`{}` cannot name an SSH target", name.get_ref());
    Err(file.problem(name.span(), "target.name", message, help))
}

fn public_key(file: &ConfigFile, line: &Spanned<String>, key: &str) -> Result<SshPublicKey, Problem> {
    SshPublicKey::from_line(line.get_ref()).map_err(|_| {
        let help = "write the line of a `.pub` file: `ssh-ed25519 AAAA... comment`";
        file.problem(line.span(), key, "this is not a public key", help)
    })
}

/// Believes the certificates and keys of `[ssh_login]`.
pub(super) fn authenticator(
    file: &ConfigFile,
    written: &Spanned<config::SshLogin>,
) -> Result<SshAuthenticator, Problem> {
    let from = written.get_ref();
    let mut ssh = SshAuthenticator::new();
    let mut seen = BTreeSet::new();
    if from.authorities.is_empty() && from.keys.is_empty() {
        let help = "add `[[ssh_login.authority]]` or `[[ssh_login.key]]`, or remove the section";
        return Err(file.problem(written.span(), "ssh_login", "nobody could log in by it", help));
    }
    if !file.config.targets.iter().any(|target| target.protocol == config::Protocol::Ssh) {
        let help = "add a `[[target]]` with `protocol = \"ssh\"`, or remove the section";
        return Err(file.problem(written.span(), "ssh_login", "there is no SSH target to log in to", help));
    }
    if let Some(span) = from.max_session {
        ssh = ssh.max_session(span.0);
    }
    for authority in &from.authorities {
        ssh = ssh.authority(self::authority(file, authority.get_ref(), &mut seen)?);
    }
    for key in &from.keys {
        let (key, principal) = self::key(file, key, &mut seen)?;
        ssh = ssh.key(key, principal);
    }
    Ok(ssh)
}

/// Each key once: of two entries one would silently do nothing.
fn once(
    file: &ConfigFile,
    line: &Spanned<String>,
    name: &str,
    seen: &mut BTreeSet<SshPublicKey>,
) -> Result<SshPublicKey, Problem> {
    let key = public_key(file, line, name)?;
    if seen.insert(key.clone()) {
        return Ok(key);
    }
    let help = "remove one of the two entries, or use a key of its own for each";
    Err(file.problem(line.span(), name, "this key stands here twice", help))
}

fn authority(
    file: &ConfigFile,
    from: &config::SshAuthority,
    seen: &mut BTreeSet<SshPublicKey>,
) -> Result<SshAuthority, Problem> {
    let key = once(file, &from.public_key, "ssh_login.authority.public_key", seen)?;
    let mut authority = SshAuthority::new(key, &from.issuer, from.kind);
    authority.groups.clone_from(&from.groups);
    authority.phase = from.phase;
    authority.task.clone_from(&from.task);
    authority.revoked.clone_from(&from.revoked);
    Ok(authority)
}

fn key(
    file: &ConfigFile,
    written: &Spanned<config::SshKey>,
    seen: &mut BTreeSet<SshPublicKey>,
) -> Result<(SshPublicKey, Principal), Problem> {
    let from = written.get_ref();
    let key = once(file, &from.public_key, "ssh_login.key.public_key", seen)?;
    // Cut to the longest session at each login.
    let mut principal = Principal::new(from.kind, &from.issuer, &from.user, Timestamp::MAX);
    principal.groups.clone_from(&from.groups);
    principal.phase = from.phase;
    principal.task.clone_from(&from.task);
    Ok((key, principal))
}

/// What an SSH listener needs besides its address.
#[derive(Clone, Debug)]
pub(crate) struct SshEndpoint {
    pub(crate) targets: Vec<String>,
    pub(crate) host_key: HostKeyFile,
    pub(crate) limits: ListenerLimits,
}

pub(super) fn endpoint(
    file: &ConfigFile,
    from: &config::Listener,
    targets: Vec<String>,
) -> Result<SshEndpoint, Problem> {
    let at = from.address.span();
    let foreign = [
        ("tls", from.tls.is_some(), "remove it; SSH brings its own encryption"),
        ("require_tls", from.require_tls, "remove it; SSH brings its own encryption"),
        ("token_login", from.token_login.is_some(), "remove it; SSH takes the token as password"),
        (
            "limits.frame_bytes",
            from.limits.frame_bytes.is_some(),
            "remove it; SSH packets have a fixed limit",
        ),
    ];
    if let Some((key, _, help)) = foreign.into_iter().find(|(_, written, _)| *written) {
        return Err(file.problem(at, &format!("listener.{key}"), "this is for databases, not for SSH", help));
    }
    let path = match &from.host_key {
        Some(path) => file.resolve(path.get_ref()),
        None => file.data_dir().ssh_host_key(),
    };
    let host_key = HostKeyFile(path);
    let written = from.host_key.as_ref().map_or(at, Spanned::span);
    let help = "name a private key that only the gateway's user may read, or a file that is not there yet: it is made";
    host_key.read().map_err(|cause| file.problem(written, "listener.host_key", cause, help))?;
    Ok(SshEndpoint { targets, host_key, limits: limits(&from.limits) })
}

fn limits(from: &config::Limits) -> ListenerLimits {
    let default = ListenerLimits::default();
    ListenerLimits {
        connections: from.connections.unwrap_or(default.connections),
        login: from.login.map_or(default.login, |span| span.0),
        attempts: from.attempts.unwrap_or(default.attempts),
        silence: from.silence.map_or(default.silence, |span| span.0),
        ..default
    }
}

/// The file of a listener's host key.
#[derive(Clone, Debug)]
pub(crate) struct HostKeyFile(PathBuf);

impl HostKeyFile {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The key, if the file is there already.
    fn read(&self) -> Result<Option<HostKey>, String> {
        let shown = self.0.display();
        let meta = match fs::metadata(&self.0) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("`{shown}` cannot be read: {e}")),
        };
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!("others may read `{shown}` (mode {mode:04o}); run `chmod 600` on it"));
        }
        if meta.len() > MAX_KEY_BYTES {
            return Err(format!("`{shown}` is larger than {MAX_KEY_BYTES} bytes"));
        }
        let text = fs::read_to_string(&self.0).map_err(|e| format!("`{shown}` cannot be read: {e}"))?;
        HostKey::from_pem(&Secret::new(text)).map(Some).map_err(|e| format!("`{shown}`: {e}"))
    }

    /// The key; a new one if the file is not there. The second value tells which.
    pub(crate) fn open_or_create(&self) -> Result<(HostKey, bool), String> {
        if let Some(key) = self.read()? {
            return Ok((key, false));
        }
        let key = HostKey::generate().map_err(|e| e.to_string())?;
        let pem = key.pem().map_err(|e| e.to_string())?;
        create(&self.0, pem.expose()).map_err(|e| format!("cannot write `{}`: {e}", self.0.display()))?;
        let mut public = self.0.clone().into_os_string();
        public.push(".pub");
        fs::write(&public, format!("{}\n", key.public_line()))
            .map_err(|e| format!("cannot write `{}`: {e}", Path::new(&public).display()))?;
        Ok((key, true))
    }
}

/// Writes a new private file, durably; one that appeared meanwhile is not overwritten.
fn create(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
