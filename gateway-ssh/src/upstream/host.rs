//! Whether the host is the one that is meant: pinned keys and host authorities.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use gateway_core::identity::SshPublicKey;
use russh::client::{ChannelOpenHandle, Handler, Msg, Session};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, HashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelOpenFailure};

use super::door::{Door, Origin};
use crate::login::{is_believed, wire};
use crate::target::{HostKeys, Target};

/// Why a host was not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has another key than the pinned ones.
    Changed { host: String, fingerprint: String },
    /// Its certificate does not do.
    Certificate { host: String, why: &'static str },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { host, fingerprint } => write!(
                f,
                "`{host}` presented the host key {fingerprint}, which is not pinned: it was changed, or somebody else answers; \
                 nothing was sent; compare the fingerprint on the host before pinning it"
            ),
            Self::Certificate { host, why } => {
                write!(
                    f,
                    "`{host}` presented a host certificate that is not believed: {why}; nothing was sent"
                )
            }
        }
    }
}

/// Where the check leaves its refusal, since the protocol's own error does not say why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict(Arc<Mutex<Option<Refusal>>>);

impl Verdict {
    pub(crate) fn take(&self) -> Option<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The client side's callbacks: checks the host, and takes no channel that the target opens unless its [`Door`] expects it.
#[derive(Debug)]
pub(crate) struct HostCheck {
    host: String,
    keys: HostKeys,
    now: SystemTime,
    verdict: Verdict,
    door: Door,
}

impl HostCheck {
    pub(crate) fn new(target: &Target, now: SystemTime, door: Door) -> (Self, Verdict) {
        let verdict = Verdict::default();
        let (host, keys) = (target.host.clone(), target.host_keys.clone());
        (Self { host, keys, now, verdict: verdict.clone(), door }, verdict)
    }

    fn judge(&self, presented: &PublicKeyOrCertificate) -> Result<(), Refusal> {
        match presented {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                let pinned = wire(key.key_data()).is_some_and(|key| self.keys.keys.contains(&key));
                let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
                if pinned { Ok(()) } else { Err(Refusal::Changed { host: self.host.clone(), fingerprint }) }
            }
            PublicKeyOrCertificate::Certificate(certificate) => {
                let judged = certified(certificate, &self.host, &self.keys.authorities, self.now);
                judged.map_err(|why| Refusal::Certificate { host: self.host.clone(), why })
            }
        }
    }
}

/// OpenSSH PROTOCOL.certkeys for host certificates: no critical options are defined, and principals are host names.
fn certified(
    certificate: &Certificate,
    host: &str,
    authorities: &[SshPublicKey],
    now: SystemTime,
) -> Result<(), &'static str> {
    let authority = wire(certificate.signature_key()).filter(|key| authorities.contains(key));
    authority.ok_or("its authority is not trusted")?;
    let fingerprint = certificate.signature_key().fingerprint(HashAlg::Sha256);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    certificate
        .validate_at(now, [&fingerprint])
        .map_err(|_| "it is out of date or its signature is wrong")?;
    if certificate.cert_type() != CertType::Host {
        return Err("it is a user's");
    }
    if !is_believed(&certificate.signature().algorithm()) {
        return Err("it is signed with an algorithm that is not believed");
    }
    if certificate.critical_options().iter().next().is_some() {
        return Err("it has critical options");
    }
    if !certificate.valid_principals().iter().any(|name| name == host) {
        return Err("it does not name the host");
    }
    Ok(())
}

impl Handler for HostCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let refusal = self.judge(presented).err();
        let believed = refusal.is_none();
        if refusal.is_some() {
            *self.verdict.0.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        }
        Ok(believed)
    }

    // The library accepts what the target opens unless told otherwise.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let origin = Origin::Tcp { address: address.to_owned(), port, from: from.to_owned(), from_port };
        self.door.knock(origin, channel, reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.door.knock(Origin::Socket(path.to_owned()), channel, reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.door.knock(Origin::Agent, channel, reply).await
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.door.knock(Origin::X11 { from: from.to_owned(), from_port }, channel, reply).await
    }
}

async fn refuse(reply: ChannelOpenHandle) -> Result<(), russh::Error> {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    Ok(())
}
