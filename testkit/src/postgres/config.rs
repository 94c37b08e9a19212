//! What a server may be asked to be, and the files that make it so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::locate::Installation;
use super::{Postgres, installation, launch_on_free_port, template};
use crate::ca::{Ca, Certificate, write_private};
use crate::canary::random_text;
use crate::error::{Context, Result};

/// How a role proves over TCP who it is (PostgreSQL documentation, "The pg_hba.conf File").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// SCRAM-SHA-256; over TLS the server offers channel binding, which the client may require.
    Scram,
    /// SCRAM-SHA-256, and TLS required.
    ScramTls,
    /// The challenge of MD5 hashes; the password is stored as such a hash.
    Md5,
    /// The password as it is.
    Password,
    /// The password as it is, and TLS required.
    PasswordTls,
    /// A client certificate with the role as its common name; needs [`PostgresBuilder::tls`].
    Certificate,
    /// Nothing at all.
    Trust,
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// The disk, as in production; for benches. The data is in the system's temporary folder.
    Full,
    /// The kernel: only a crash of the machine would lose the data, and no test does that. The data is in memory
    /// where there is room.
    None,
}

/// Options of a [`Postgres`] to be.
#[derive(Debug, Clone)]
#[must_use = "nothing runs until `start`"]
pub struct PostgresBuilder {
    durability: Durability,
    tls: Option<(PathBuf, Certificate)>,
    /// In the order they were asked for, `app` first.
    roles: Vec<(String, Auth)>,
    hba: Vec<String>,
    settings: Vec<(String, String)>,
    preload: Vec<String>,
}

impl PostgresBuilder {
    pub(super) fn new() -> Self {
        Self {
            durability: Durability::None,
            tls: None,
            roles: vec![("app".to_owned(), Auth::Scram)],
            hba: Vec::new(),
            settings: Vec::new(),
            preload: Vec::new(),
        }
    }

    /// What a commit waits for; default: the kernel.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Offers TLS with a loopback certificate of this authority, and trusts its client certificates.
    ///
    /// # Panics
    /// When the authority's folder cannot be written.
    pub fn tls(self, ca: &Ca) -> Self {
        let certificate = ca.server().unwrap_or_else(|error| panic!("no server certificate: {error}"));
        self.tls_with(ca, &certificate)
    }

    /// Offers TLS with this certificate, however wrong it is, and trusts this authority's client certificates.
    pub fn tls_with(mut self, ca: &Ca, certificate: &Certificate) -> Self {
        self.tls = Some((ca.path(), certificate.clone()));
        self
    }

    /// How `app` proves who it is; default: SCRAM.
    pub fn app_auth(mut self, auth: Auth) -> Self {
        self.roles[0].1 = auth;
        self
    }

    /// Makes one more role with the rights of `app` and its own way to log in.
    pub fn role(mut self, name: &str, auth: Auth) -> Self {
        self.roles.push((name.to_owned(), auth));
        self
    }

    /// A line of `pg_hba.conf`, put before those for the roles.
    pub fn hba_line(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// A line of `postgresql.conf`; the last one for a name counts, also over our defaults.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Loads a library at start, such as `pg_stat_statements`.
    pub fn preload(mut self, library: &str) -> Self {
        self.preload.push(library.to_owned());
        self
    }

    /// Writes every statement into the log, for [`Postgres::log_of_everything_so_far`].
    pub fn log_statements(self) -> Self {
        self.setting("log_statement", "all")
    }

    /// Starts the server and returns once it accepts connections.
    ///
    /// # Errors
    /// When PostgreSQL is not installed (the message names the package), or does not start (the message ends with
    /// its log).
    pub fn start(self) -> Result<Postgres> {
        let installation = installation()?;
        let place =
            if self.durability == Durability::Full { std::env::temp_dir() } else { template::scratch() };
        let folder = template::server_folder(&installation, &place, "testkit-pg-")?;
        let data = folder.path().join("data");
        template::copy_cluster(&installation, &data)?;
        append(&data.join("postgresql.conf"), &self.settings_text(folder.path()))?;
        write_owned(&installation, &data.join("pg_hba.conf"), &self.hba_text())?;
        self.write_tls(&installation, folder.path())?;
        let (server, port) = launch_on_free_port(&installation, folder.path())?;
        let passwords = self.passwords();
        let postgres = Postgres { server: Some(server), installation, passwords, port, folder };
        postgres.psql("shop", &self.roles_text(&postgres.passwords)).context("make the roles")?;
        Ok(postgres)
    }

    fn settings_text(&self, folder: &Path) -> String {
        let sync = if self.durability == Durability::Full { "on" } else { "off" };
        let folder = folder.display().to_string();
        let preload = self.preload.join(",");
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &folder),
            ("fsync", sync),
            ("full_page_writes", sync),
            // The data often lie in memory: logs of many copied databases would fill it.
            ("max_wal_size", "256MB"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("lc_messages", "C"),
            ("shared_preload_libraries", &preload),
        ];
        let (certificate, key, ca) =
            (format!("{folder}/server.crt"), format!("{folder}/server.key"), format!("{folder}/clients.crt"));
        if self.tls.is_some() {
            settings.extend([
                ("ssl", "on"),
                ("ssl_cert_file", &certificate),
                ("ssl_key_file", &key),
                ("ssl_ca_file", &ca),
            ]);
        }
        settings.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        settings
            .into_iter()
            .fold("\n".to_owned(), |text, (name, value)| text + &format!("{name} = {}\n", quote(value)))
    }

    fn hba_text(&self) -> String {
        let mut text = "local all postgres trust\nlocal all all scram-sha-256\n".to_owned();
        for line in &self.hba {
            let _ = writeln!(text, "{line}");
        }
        for (role, auth) in &self.roles {
            let _ = writeln!(text, "{}", hba_line(role, *auth));
        }
        text + "host all all 127.0.0.1/32 scram-sha-256\n"
    }

    fn write_tls(&self, installation: &Installation, folder: &Path) -> Result<()> {
        let Some((ca, certificate)) = &self.tls else { return Ok(()) };
        let ca = fs::read_to_string(ca).context("read the CA's certificate")?;
        write_owned(installation, &folder.join("server.crt"), &certificate.pem)?;
        write_owned(installation, &folder.join("server.key"), &certificate.key_pem)?;
        write_owned(installation, &folder.join("clients.crt"), &ca)
    }

    fn passwords(&self) -> BTreeMap<String, String> {
        let names = self.roles.iter().map(|(name, _)| name.as_str()).chain(["postgres"]);
        names.map(|name| (name.to_owned(), random_text(PASSWORD_LENGTH))).collect()
    }

    fn roles_text(&self, passwords: &BTreeMap<String, String>) -> String {
        let mut text = String::new();
        let mut set = |role: &str, encryption: &str| {
            let password = &passwords[role];
            let _ = writeln!(text, "SET password_encryption = '{encryption}';");
            let _ = writeln!(text, "ALTER ROLE {} PASSWORD '{password}';", identifier(role));
        };
        set("postgres", "scram-sha-256");
        for (role, auth) in &self.roles {
            set(role, if *auth == Auth::Md5 { "md5" } else { "scram-sha-256" });
        }
        let create =
            |(role, _): &(String, Auth)| format!("CREATE ROLE {} LOGIN IN ROLE app;\n", identifier(role));
        self.roles.iter().skip(1).map(create).collect::<String>() + &text
    }
}

fn hba_line(role: &str, auth: Auth) -> String {
    let (connection, method) = match auth {
        Auth::Scram => ("host", "scram-sha-256"),
        Auth::ScramTls => ("hostssl", "scram-sha-256"),
        Auth::Md5 => ("host", "md5"),
        Auth::Password => ("host", "password"),
        Auth::PasswordTls => ("hostssl", "password"),
        Auth::Certificate => ("hostssl", "cert"),
        Auth::Trust => ("host", "trust"),
    };
    // The first line that fits decides, so the second one keeps a role from the way of the others.
    let role = identifier(role);
    format!("{connection} all {role} 127.0.0.1/32 {method}\nhost all {role} 0.0.0.0/0 reject")
}

/// Quoted as in SQL, and as `pg_hba.conf` takes it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn append(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).context(&format!("write `{}`", path.display()))
}

fn write_owned(installation: &Installation, path: &Path, text: &str) -> Result<()> {
    write_private(path, text)?;
    installation.own(path)
}

/// 190 bits, as long as a managed service's.
const PASSWORD_LENGTH: usize = 32;
