//! A private certificate authority for servers and clients on loopback.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

use crate::error::{Context, Error, Result};
use crate::process::private_folder;

/// A private certificate authority; its key and all it issues are PEM files of mode 0600 in one folder.
///
/// Keys are ECDSA P-256 and signatures SHA-256, which every TLS library accepts and PostgreSQL can bind SCRAM to.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    folder: PathBuf,
    issued: AtomicUsize,
    // Dropped last, with everything in it; a folder the caller named is the caller's.
    _owned: Option<TempDir>,
}

/// What to certify; the defaults of each constructor are valid for all of this machine's loopback names.
#[derive(Debug, Clone)]
pub struct CertRequest {
    common_name: String,
    names: Vec<String>,
    uris: Vec<String>,
    purpose: ExtendedKeyUsagePurpose,
    validity: (SystemTime, SystemTime),
}

/// A certificate with its key: text for what takes text, files for what takes files.
///
/// The files last as long as the [`Ca`] that issued them.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate, PEM.
    pub pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
    /// The file that holds the certificate.
    pub path: PathBuf,
    /// The file that holds the key, mode 0600.
    pub key_path: PathBuf,
}

impl CertRequest {
    /// A server called `localhost`, `127.0.0.1` and `::1`, valid from an hour ago for a day.
    pub fn server() -> Self {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        Self { names, ..Self::new("localhost", ExtendedKeyUsagePurpose::ServerAuth) }
    }

    /// A client with this common name, valid from an hour ago for a day.
    pub fn client(common_name: &str) -> Self {
        Self::new(common_name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The DNS names and addresses to certify, instead of the defaults.
    #[must_use]
    pub fn names(mut self, names: &[&str]) -> Self {
        self.names = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Adds a URI name, such as a SPIFFE id (X509-SVID section 2: exactly one; several make a bad certificate).
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        self.uris.push(uri.to_owned());
        self
    }

    /// The time it is valid in, to the second.
    #[must_use]
    pub fn valid(mut self, from: SystemTime, until: SystemTime) -> Self {
        self.validity = (from, until);
        self
    }

    /// Valid once, but not since an hour ago.
    #[must_use]
    pub fn expired(self) -> Self {
        let now = SystemTime::now();
        self.valid(now - 2 * HOUR, now - HOUR)
    }

    fn new(common_name: &str, purpose: ExtendedKeyUsagePurpose) -> Self {
        let now = SystemTime::now();
        Self {
            common_name: common_name.to_owned(),
            names: Vec::new(),
            uris: Vec::new(),
            purpose,
            validity: (now - HOUR, now + 24 * HOUR),
        }
    }

    fn params(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::new(self.names.clone()).context("use the certificate's names")?;
        for uri in &self.uris {
            let uri = uri.as_str().try_into().context(&format!("use `{uri}` as a name"))?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.distinguished_name = common_name(&self.common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.purpose.clone()];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970(self.validity.0)?;
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970(self.validity.1)?;
        Ok(params)
    }
}

impl Ca {
    /// A new authority in a temporary folder that goes with it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new() -> Result<Self> {
        let owned = private_folder(&std::env::temp_dir(), "testkit-ca-")?;
        let mut ca = Self::open(owned.path())?;
        ca._owned = Some(owned);
        Ok(ca)
    }

    /// The authority kept in this folder, made when there is none yet.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or holds something else under the authority's file names.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context(&format!("make `{}`", folder.display()))?;
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        if !certificate.exists() {
            create(&certificate, &key)?;
        }
        let pem = fs::read_to_string(&certificate).context(&format!("read `{}`", certificate.display()))?;
        let key = fs::read_to_string(&key).context(&format!("read `{}`", key.display()))?;
        let key = KeyPair::from_pem(&key).context("read the CA's key")?;
        let issuer = Issuer::new(ca_params(), key);
        Ok(Self { issuer, pem, folder: folder.to_owned(), issued: AtomicUsize::new(0), _owned: None })
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The file that holds the authority's certificate, for `sslrootcert` and the like.
    pub fn path(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// A certificate for a server on loopback.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn server(&self) -> Result<Certificate> {
        self.issue(&CertRequest::server())
    }

    /// A certificate for a client with this common name.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn client(&self, common_name: &str) -> Result<Certificate> {
        self.issue(&CertRequest::client(common_name))
    }

    /// A certificate for a workload: an X509-SVID with this SPIFFE id and no other name.
    ///
    /// # Errors
    /// When the id is not ASCII, or the files cannot be written.
    pub fn workload(&self, spiffe_id: &str) -> Result<Certificate> {
        self.issue(&CertRequest::client("workload").uri(spiffe_id))
    }

    /// Issues whatever is asked for.
    ///
    /// # Errors
    /// When a name is not ASCII, a time is before 1970, or the files cannot be written.
    pub fn issue(&self, request: &CertRequest) -> Result<Certificate> {
        let key = KeyPair::generate().context("generate a key")?;
        let certificate = request.params()?.signed_by(&key, &self.issuer).context("sign a certificate")?;
        // A request may repeat, files may not: a test may rotate from one to the other.
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{}-{number}", std::process::id());
        let (path, key_path) =
            (self.folder.join(format!("{stem}.crt")), self.folder.join(format!("{stem}.key")));
        let (pem, key_pem) = (certificate.pem(), key.serialize_pem());
        write_private(&path, &pem)?;
        write_private(&key_path, &key_pem)?;
        Ok(Certificate { pem, key_pem, path, key_path })
    }

    /// A trust store with this authority alone.
    ///
    /// # Errors
    /// When the certificate does not parse.
    pub fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).context("read the CA's certificate")?;
        roots.add(der).context("trust the CA")?;
        Ok(roots)
    }

    /// TLS settings of a client that trusts this authority, with a certificate of its own or without.
    ///
    /// # Errors
    /// When the client's certificate does not parse.
    pub fn client_config(&self, identity: Option<&Certificate>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_root_certificates(self.roots()?);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(certificate) => builder
                .with_client_auth_cert(certificate.chain()?, certificate.key()?)
                .context("use the client's certificate")?,
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl Certificate {
    /// TLS settings of a server that shows this certificate and asks clients for none.
    ///
    /// # Errors
    /// When the certificate does not parse.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_no_client_auth()
            .with_single_cert(self.chain()?, self.key()?)
            .context("use the server's certificate")?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// The certificate for rustls.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        Ok(vec![CertificateDer::from_pem_slice(self.pem.as_bytes()).context("read a certificate")?])
    }

    /// The key for rustls.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).context("read a key")
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ca").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Certificate").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Writes a new or replaced file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let doing = format!("write `{}`", path.display());
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).context(&doing)?;
    // The mode above holds for a new file only.
    file.set_permissions(fs::Permissions::from_mode(0o600)).context(&doing)?;
    file.write_all(text.as_bytes()).context(&doing)
}

fn create(certificate: &Path, key: &Path) -> Result<()> {
    let pair = KeyPair::generate().context("generate the CA's key")?;
    let signed = ca_params().self_signed(&pair).context("sign the CA's certificate")?;
    write_private(key, &pair.serialize_pem())?;
    // Last, because its presence says that the authority is complete.
    write_private(certificate, &signed.pem())
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("testkit CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2049, 1, 1));
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn since_1970(time: SystemTime) -> Result<Duration> {
    let since =
        time.duration_since(UNIX_EPOCH).map_err(|_| Error::new("a certificate's time is before 1970"))?;
    // Certificates count whole seconds (RFC 5280 section 4.1.2.5).
    Ok(Duration::from_secs(since.as_secs()))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_gone_with_the_authority() {
        let ca = Ca::new().unwrap();
        let certificate = ca.server().unwrap();
        for path in [&certificate.key_path, &certificate.path, &ca.path(), &ca.folder.join("ca.key")] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&ca.folder).unwrap().permissions().mode() & 0o777, 0o700);
        let folder = ca.folder.clone();
        drop(ca);
        assert!(!folder.exists());
    }

    #[test]
    fn an_opened_authority_is_the_same_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = Ca::open(folder.path()).unwrap();
        let second = Ca::open(folder.path()).unwrap();
        assert_eq!(first.pem(), second.pem());
        // What the second one signs, the first one's certificate vouches for.
        handshake(&second.server().unwrap(), &first.client_config(None, &[]).unwrap()).unwrap();
    }

    #[test]
    fn handshakes_tell_good_certificates_from_bad_ones() {
        let ca = Ca::new().unwrap();
        let client = ca.client_config(None, &[]).unwrap();
        handshake(&ca.server().unwrap(), &client).unwrap();
        let expired = ca.issue(&CertRequest::server().expired()).unwrap();
        assert!(handshake(&expired, &client).unwrap_err().contains("certificate expired"));
        let elsewhere = ca.issue(&CertRequest::server().names(&["example.com"])).unwrap();
        assert!(handshake(&elsewhere, &client).unwrap_err().contains("not valid for name"));
        let client_only = ca.client("localhost").unwrap();
        assert!(handshake(&client_only, &client).is_err());
    }

    #[test]
    fn a_workload_has_its_spiffe_id_alone() {
        let certificate = Ca::new().unwrap().workload("spiffe://example.org/agent/7").unwrap();
        let der = certificate.chain().unwrap().remove(0);
        let names = CertRequest::client("workload").uri("spiffe://example.org/agent/7").params().unwrap();
        assert_eq!(names.subject_alt_names.len(), 1);
        assert!(memchr::memmem::find(&der, b"spiffe://example.org/agent/7").is_some());
    }

    /// A whole TLS handshake in memory, as `localhost`.
    fn handshake(server: &Certificate, client: &Arc<ClientConfig>) -> std::result::Result<(), String> {
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = rustls::ServerConnection::new(server.server_config(&[]).unwrap()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().map_err(|error| error.to_string())?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
