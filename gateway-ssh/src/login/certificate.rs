//! OpenSSH user certificates: from the parsed certificate to what the core judges, and to what the session may do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;
use gateway_core::identity::{Presented, SshCertificateProof};
use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::CertType;

use super::wire;

/// What the proof of identity permits in the session, besides what policy does (OpenSSH PROTOCOL.certkeys, extensions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grants {
    /// `None`: not a certificate, nothing is taken away.
    extensions: Option<BTreeSet<String>>,
    /// Runs instead of whatever is asked for.
    pub(crate) force_command: Option<Bytes>,
}

impl Grants {
    /// For keys and tokens: policy alone decides.
    pub(crate) const ALL: Self = Self { extensions: None, force_command: None };

    fn has(&self, extension: &str) -> bool {
        self.extensions.as_ref().is_none_or(|extensions| extensions.contains(extension))
    }

    pub(crate) fn pty(&self) -> bool {
        self.has("permit-pty")
    }

    pub(crate) fn port_forwarding(&self) -> bool {
        self.has("permit-port-forwarding")
    }

    pub(crate) fn agent_forwarding(&self) -> bool {
        self.has("permit-agent-forwarding")
    }

    pub(crate) fn x11_forwarding(&self) -> bool {
        self.has("permit-X11-forwarding")
    }

    pub(crate) fn of(certificate: &Certificate) -> Self {
        let extensions = certificate.extensions().keys().cloned().collect();
        let options = certificate.critical_options();
        let force_command = options.iter().find(|(name, _)| name.as_str() == "force-command");
        let force_command = force_command.map(|(_, command)| Bytes::copy_from_slice(command.as_bytes()));
        Self { extensions: Some(extensions), force_command }
    }
}

/// Everything in a certificate that is to be judged; `None` if a key in it cannot be compared.
pub(crate) fn proof(name: &str, peer: Option<IpAddr>, certificate: &Certificate) -> Option<Presented> {
    wire(certificate.public_key())?;
    let options = certificate.critical_options().iter();
    let critical_options: BTreeMap<_, _> = options.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Some(Presented::SshCertificate(Box::new(SshCertificateProof {
        user: name.to_owned(),
        peer,
        authority: wire(certificate.signature_key())?,
        signature_algorithm: certificate.signature().algorithm().as_str().to_owned(),
        for_user: certificate.cert_type() == CertType::User,
        key_id: certificate.key_id().to_owned(),
        serial: certificate.serial(),
        principals: certificate.valid_principals().to_vec(),
        valid_after: certificate.valid_after(),
        valid_before: certificate.valid_before(),
        critical_options,
    })))
}
