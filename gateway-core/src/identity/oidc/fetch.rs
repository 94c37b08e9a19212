//! Where keys come from: an issuer over HTTPS, or a file.
//!
//! Redirects are not followed, proxies not used, bodies not decompressed.

use std::error::Error;
use std::fmt::Write;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::http::uri::Scheme;
use hyper::{Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::config::{IssuerConfig, KeyHost, KeySource, PlainHttp, Roots};
use super::json;
use super::jwks::KeySet;

/// Largest discovery document, key set or file of roots, in bytes. Real ones have up to some ten KiB; the system's
/// whole list of roots about 200 KiB.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// Fetches one issuer's keys.
#[derive(Debug)]
pub(super) enum Source {
    Discovery { web: Web, issuer: String, document: Uri, key_host: KeyHost },
    Url(Web, Uri),
    File(PathBuf),
}

impl Source {
    /// Checks the URLs and reads the roots.
    pub(super) fn new(config: &IssuerConfig) -> Result<Self, String> {
        Ok(match &config.keys {
            KeySource::JwksFile(path) => Self::File(path.clone()),
            KeySource::JwksUrl(url) => {
                let web = Web::new(config)?;
                let url = web.allowed(url)?;
                Self::Url(web, url)
            }
            KeySource::Discovery => {
                let web = Web::new(config)?;
                let document = web.allowed(&discovery_url(&config.issuer)?)?;
                Self::Discovery { web, issuer: config.issuer.clone(), document, key_host: config.key_host }
            }
        })
    }

    /// The keys as they are now.
    pub(super) async fn fetch(&self) -> Result<KeySet, String> {
        let document = match self {
            Self::File(path) => read_file(path.clone()).await?,
            Self::Url(web, url) => web.download(url).await?,
            Self::Discovery { web, issuer, document, key_host } => {
                let described = web.download(document).await?;
                let keys = web.allowed(&key_url(&described, issuer)?)?;
                check_host(document, &keys, *key_host)?;
                web.download(&keys).await?
            }
        };
        KeySet::parse(&document).map_err(|cause| format!("the key set is unusable: {cause}"))
    }
}

/// OpenID Connect Discovery 1.0 section 4: the issuer without a trailing slash, then the well-known path.
fn discovery_url(issuer: &str) -> Result<String, String> {
    if issuer.contains(['?', '#']) {
        return Err(
            "an issuer with query or fragment cannot be discovered; give the URL of its keys".to_owned()
        );
    }
    Ok(format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
}

/// OpenID Connect Discovery 1.0 section 4.3: the document must name exactly the issuer it was asked for.
fn key_url(document: &[u8], issuer: &str) -> Result<String, String> {
    let document = json::object(document).ok_or("the discovery document is not a JSON object")?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err("the discovery document names another issuer".to_owned());
    }
    let url = document.get("jwks_uri").and_then(Value::as_str);
    url.map(str::to_owned).ok_or_else(|| "the discovery document has no `jwks_uri`".to_owned())
}

fn check_host(document: &Uri, keys: &Uri, allowed: KeyHost) -> Result<(), String> {
    if keys.scheme() == Some(&Scheme::HTTP) && document.scheme() != Some(&Scheme::HTTP) {
        return Err("`jwks_uri` leads from https to http".to_owned());
    }
    let same = keys.authority() == document.authority();
    match allowed {
        KeyHost::Issuer if !same => Err("`jwks_uri` is on another host than the issuer".to_owned()),
        _ => Ok(()),
    }
}

/// An HTTP client for one issuer.
#[derive(Debug)]
pub(super) struct Web {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    plain_http: PlainHttp,
}

impl Web {
    fn new(config: &IssuerConfig) -> Result<Self, String> {
        // Named, not the process default, which an embedder may have set to anything or not at all.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots(&config.roots)?)
            .with_no_client_auth();
        let schemes = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = match config.plain_http {
            PlainHttp::Refuse => schemes.https_only(),
            PlainHttp::Loopback => schemes.https_or_http(),
        };
        let mut client = Client::builder(TokioExecutor::new());
        // Minutes lie between two fetches: nothing to keep open.
        let client = client.pool_max_idle_per_host(0).build(connector.enable_http1().build());
        Ok(Self { client, plain_http: config.plain_http })
    }

    /// `url` if it may be fetched: https, or http on this host where that is configured.
    fn allowed(&self, url: &str) -> Result<Uri, String> {
        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is not a URL"))?;
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err(format!("`{url}` is not an absolute URL"));
        };
        if authority.as_str().contains('@') {
            return Err("a URL with user information is not fetched".to_owned());
        }
        match (uri.scheme_str(), self.plain_http) {
            (Some("https"), _) => Ok(uri),
            (Some("http"), PlainHttp::Loopback) if is_loopback(host) => Ok(uri),
            _ => {
                Err(format!("`{url}` is not https; plain http is only for loopback, and only where allowed"))
            }
        }
    }

    async fn download(&self, url: &Uri) -> Result<Bytes, String> {
        let at = |cause: &dyn std::fmt::Display| format!("`{url}`: {cause}");
        let request = Request::get(url.clone()).header(header::ACCEPT, "application/json").body(Empty::new());
        let request = request.map_err(|e| at(&e))?;
        let response = self.client.request(request).await.map_err(|e| at(&with_sources(&e)))?;
        if response.status() != StatusCode::OK {
            return Err(at(&format_args!("answered {}, not 200", response.status().as_u16())));
        }
        if response.headers().contains_key(header::CONTENT_ENCODING) {
            return Err(at(&"answered with an encoded body nobody asked for"));
        }
        let body = Limited::new(response.into_body(), MAX_DOCUMENT_BYTES).collect().await;
        body.map(|body| body.to_bytes()).map_err(|e| at(&with_sources(e.as_ref())))
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn roots(roots: &Roots) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
        Roots::PemFile(path) => {
            for certificate in CertificateDer::pem_slice_iter(&read_bounded(path)?) {
                let certificate = certificate.map_err(|e| format!("`{}`: {e:?}", path.display()))?;
                store.add(certificate).map_err(|e| format!("`{}`: {e}", path.display()))?;
            }
        }
    }
    if store.is_empty() {
        return Err("no root certificate was found; name a PEM file of roots".to_owned());
    }
    Ok(store)
}

async fn read_file(path: PathBuf) -> Result<Bytes, String> {
    let read = tokio::task::spawn_blocking(move || read_bounded(&path)).await;
    read.map_err(|e| e.to_string()).and_then(|read| read).map(Bytes::from)
}

/// Reads a regular file of at most [`MAX_DOCUMENT_BYTES`]; a pipe or device would block or never end.
fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let at = |cause: &dyn std::fmt::Display| format!("`{}`: {cause}", path.display());
    if !std::fs::metadata(path).map_err(|e| at(&e))?.is_file() {
        return Err(at(&"not a regular file"));
    }
    let file = std::fs::File::open(path).map_err(|e| at(&e))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| at(&e))?;
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(at(&format_args!("larger than {MAX_DOCUMENT_BYTES} bytes")));
    }
    Ok(bytes)
}

/// An error with what caused it: the outermost alone says only "client error".
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(plain_http: PlainHttp) -> Web {
        let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ca.cert.pem()).unwrap();
        let mut config = IssuerConfig::new("https://idp.example", "a", KeySource::Discovery);
        config.roots = Roots::PemFile(file.path().to_owned());
        config.plain_http = plain_http;
        Web::new(&config).unwrap()
    }

    #[test]
    fn only_https_or_chosen_loopback_http() {
        let (strict, loopback) = (web(PlainHttp::Refuse), web(PlainHttp::Loopback));
        for url in ["https://idp.example/keys", "https://127.0.0.1:1/"] {
            assert!(strict.allowed(url).is_ok() && loopback.allowed(url).is_ok(), "{url}");
        }
        for url in ["http://127.0.0.1:8080/k", "http://localhost/k", "http://[::1]:1/k", "http://127.9.9.9/"]
        {
            assert!(strict.allowed(url).is_err() && loopback.allowed(url).is_ok(), "{url}");
        }
        for url in [
            "http://idp.example/k",
            "http://localhost.evil.example/k",
            "http://127.0.0.1.evil.example/k",
            "http://127.0.0.1@evil.example/k",
            "https://user:pw@idp.example/k",
            "http://0.0.0.0/k",
            "http://10.0.0.1/k",
            "file:///etc/passwd",
            "ftp://idp.example/",
            "/keys",
            "idp.example",
            "",
        ] {
            assert!(strict.allowed(url).is_err() && loopback.allowed(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_discovery_document_must_name_the_issuer() {
        let document = br#"{"issuer":"https://a","jwks_uri":"https://a/k"}"#;
        assert_eq!(key_url(document, "https://a").as_deref(), Ok("https://a/k"));
        assert!(key_url(document, "https://a/").is_err());
        assert!(key_url(br#"{"issuer":"https://a"}"#, "https://a").is_err());
        assert!(key_url(br#"{"jwks_uri":"https://a/k"}"#, "https://a").is_err());
        assert!(discovery_url("https://a/?x").is_err());
        assert_eq!(discovery_url("https://a/t/").unwrap(), "https://a/t/.well-known/openid-configuration");
    }

    #[test]
    fn pinned_hosts_and_downgrades() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        let issuer = uri("https://a/.well-known/openid-configuration");
        assert!(check_host(&issuer, &uri("https://a/k"), KeyHost::Issuer).is_ok());
        assert!(check_host(&issuer, &uri("https://b/k"), KeyHost::Any).is_ok());
        for other in ["https://b/k", "https://a:8443/k", "https://a.b/k"] {
            assert!(check_host(&issuer, &uri(other), KeyHost::Issuer).is_err(), "{other}");
        }
        assert!(check_host(&issuer, &uri("http://127.0.0.1/k"), KeyHost::Any).is_err());
    }

    #[test]
    fn files_are_bounded_and_regular() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b' '; MAX_DOCUMENT_BYTES + 1]).unwrap();
        assert!(read_bounded(file.path()).unwrap_err().contains("larger than"));
        assert!(read_bounded(Path::new("/dev/zero")).unwrap_err().contains("regular"));
        assert!(read_bounded(file.path().parent().unwrap()).is_err());
    }
}
