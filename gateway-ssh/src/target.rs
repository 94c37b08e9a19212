//! Targets and the host keys by which they are known.

use gateway_core::identity::SshPublicKey;

/// A protected SSH server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// Its name in policies, records, and after the `%` of the clients' user names.
    pub name: String,
    /// Its host name or address; a host certificate must name it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The only host keys and authorities believed. Without any, every connection is refused.
    pub host_keys: HostKeys,
    /// What a client gets that asks for a shell.
    pub shell: ShellMode,
}

/// What a client gets that asks for a shell, if a policy permits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShellMode {
    /// The account's login shell, by the action `shell`. Nothing that is typed is judged; recordings show what the terminal showed.
    #[default]
    Login,
    /// A session of the gateway's own, by the action `command_shell`: each line is judged as `exec` and runs by itself. Needs an
    /// account whose shell is POSIX's.
    CommandAtATime,
}

impl Target {
    /// A target whose host keys are still to be given.
    pub fn new(name: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        Self {
            name: name.into(),
            host: host.into(),
            port,
            host_keys: HostKeys::default(),
            shell: ShellMode::Login,
        }
    }

    /// Pins a host key.
    #[must_use]
    pub fn host_key(mut self, key: SshPublicKey) -> Self {
        self.host_keys.keys.push(key);
        self
    }

    /// What a client gets that asks for a shell.
    #[must_use]
    pub const fn shell(mut self, mode: ShellMode) -> Self {
        self.shell = mode;
        self
    }

    /// Believes host certificates of this authority that name the target's host.
    #[must_use]
    pub fn host_authority(mut self, key: SshPublicKey) -> Self {
        self.host_keys.authorities.push(key);
        self
    }
}

/// The host keys and host authorities believed of one target.
#[derive(Clone, Debug, Default)]
pub struct HostKeys {
    pub(crate) keys: Vec<SshPublicKey>,
    pub(crate) authorities: Vec<SshPublicKey>,
}

impl HostKeys {
    pub(crate) const fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.authorities.is_empty()
    }
}

/// The gateway cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No target was added.
    #[error("no target is configured; add one")]
    NoTarget,
    /// Two targets have one name.
    #[error("two targets are called `{0}`; rename one")]
    SameName(String),
    /// Nothing tells the true target from another.
    #[error(
        "target `{0}` has neither a pinned host key nor a host authority; add one, for example out of `ssh-keyscan`"
    )]
    NoHostKey(String),
    /// A name that user names cannot carry.
    #[error("`{0}` cannot name a target; use letters, digits, `-`, `_` and `.`")]
    BadName(String),
    /// The gateway's own key is missing or unusable.
    #[error("the gateway's host key cannot be used: {0}")]
    HostKey(String),
}
