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
    /// Its key can be had with effort, whoever pinned it.
    Short { host: String },
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
            Self::Short { host } => write!(
                f,
                "`{host}` presented an RSA host key of fewer than 2048 bits, which is not believed; nothing was sent; give the \
                 host another key and pin that"
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
                let Some(presented) = wire(key.key_data()) else {
                    return Err(Refusal::Short { host: self.host.clone() });
                };
                let pinned = self.keys.keys.contains(&presented);
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
    wire(certificate.public_key()).ok_or("its RSA key has fewer than 2048 bits")?;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testkit::{CertificateRequest, SshKeyPair};

    use super::*;

    const HOST: &str = "web1.example";

    /// A host's key that `authority` signed like this.
    fn signed(request: &CertificateRequest, authority: &SshKeyPair) -> Certificate {
        let folder = tempfile::tempdir().unwrap();
        let key = SshKeyPair::generate(folder.path(), "host").unwrap();
        let file = request.sign(authority, &key).unwrap();
        Certificate::from_openssh(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    fn request() -> CertificateRequest {
        CertificateRequest::new("host").host().principal(HOST)
    }

    fn public(key: &SshKeyPair) -> SshPublicKey {
        SshPublicKey::from_line(&key.public_line().unwrap()).unwrap()
    }

    #[test]
    fn a_host_certificate_is_believed_for_what_it_says_only() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name| SshKeyPair::generate(folder.path(), name).unwrap();
        let (authority, stranger) = (make("authority"), make("stranger"));
        let (known, now) = ([public(&authority)], SystemTime::now());
        let judge = |request: CertificateRequest| certified(&signed(&request, &authority), HOST, &known, now);
        assert_eq!(judge(request()), Ok(()));
        assert_eq!(judge(request().principal("other")), Ok(()));
        let date = Err("it is out of date or its signature is wrong");
        assert_eq!(judge(request().validity("-2h:-1h")), date);
        assert_eq!(judge(request().validity("+1h:+2h")), date);
        assert_eq!(judge(CertificateRequest::new("user").principal(HOST)), Err("it is a user's"));
        assert_eq!(
            judge(CertificateRequest::new("host").host().principal("web2.example")),
            Err("it does not name the host")
        );
        assert_eq!(judge(CertificateRequest::new("host").host()), Err("it does not name the host"));
        assert_eq!(judge(request().option("critical:unknown@example.com=x")), Err("it has critical options"));
        let folder = tempfile::tempdir().unwrap();
        let key = SshKeyPair::generate_as(folder.path(), "short", &["-t", "rsa", "-b", "1024"]).unwrap();
        let short = std::fs::read_to_string(request().sign(&authority, &key).unwrap()).unwrap();
        let short = certified(&Certificate::from_openssh(&short).unwrap(), HOST, &known, now);
        assert_eq!(short, Err("its RSA key has fewer than 2048 bits"));
        let strange = signed(&request(), &stranger);
        assert_eq!(certified(&strange, HOST, &known, now), Err("its authority is not trusted"));
    }

    #[test]
    fn a_host_certificate_expires() {
        let folder = tempfile::tempdir().unwrap();
        let authority = SshKeyPair::generate(folder.path(), "authority").unwrap();
        let certificate = signed(&request().validity("-1h:+1h"), &authority);
        let at = |now| certified(&certificate, HOST, &[public(&authority)], now);
        let hours = |n: u64| Duration::from_secs(3600 * n);
        assert_eq!(at(SystemTime::now()), Ok(()));
        assert!(at(SystemTime::now() + hours(2)).is_err() && at(SystemTime::now() - hours(2)).is_err());
    }

    #[test]
    fn a_short_rsa_key_is_not_believed_although_it_is_pinned() {
        let folder = tempfile::tempdir().unwrap();
        let judge = |bits: &str| {
            let key = SshKeyPair::generate_as(folder.path(), bits, &["-t", "rsa", "-b", bits]).unwrap();
            let target = Target::new("web1", HOST, 22).host_key(public(&key));
            let (check, _) = HostCheck::new(&target, SystemTime::now(), Door::default());
            let key = russh::keys::PublicKey::from_openssh(&key.public_line().unwrap()).unwrap();
            check.judge(&PublicKeyOrCertificate::PublicKey { key, hash_alg: Some(HashAlg::Sha256) })
        };
        assert_eq!(judge("1024"), Err(Refusal::Short { host: HOST.to_owned() }));
        assert_eq!(judge("2048"), Ok(()));
    }
}
