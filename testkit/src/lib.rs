//! Real servers, keys and certificates for the tests, the demo and the benches.
//!
//! Nothing here is a stand-in: [`Postgres`] starts the real server, [`Idp`] signs with real keys and answers over
//! real sockets, [`Ca`] issues real certificates. What is special is only that they live in a temporary folder, on
//! loopback, for as long as the value that owns them.
//!
//! ```no_run
//! # fn main() -> testkit::Result<()> {
//! let ca = testkit::Ca::new()?;
//! let pg = testkit::Postgres::builder().tls(&ca).start()?;
//! pg.load_shop()?;
//! assert_eq!(pg.psql("shop", "SELECT count(*) FROM customers")?, "200");
//!
//! let idp = testkit::Idp::start()?;
//! let token = idp.token().subject("agent-7").audience("gateway").group("planners").phase("plan").sign();
//! # drop(token);
//! # Ok(())
//! # }
//! ```
//!
//! All of it is gone with its owner; a server goes even when the owner is killed. What stays is the template of a fresh
//! cluster, in the system's temporary folder as `testkit-pg-template-*`: it makes the next start fast. PostgreSQL is the newest
//! one installed, or the one whose programs are in the folder that `TESTKIT_POSTGRES` names.
//!
//! It is not published and not part of the gateway: nothing outside tests, benches and the demo may depend on it.

// It serves tests: where setting up the stage is impossible, stopping the test with a clear message is right. Every
// use is documented under `# Panics` or carries its reason; whatever can fail on a healthy machine is an `Error`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod bypass;
mod ca;
mod canary;
mod error;
mod idp;
mod pg_double;
mod postgres;
mod process;
pub mod raw_pg;
mod sshd;

pub use ca::{Ca, CertRequest, Certificate};
pub use canary::{Canary, random_text};
pub use error::{Error, Result};
pub use idp::{Algorithm, Forgery, Idp, IdpBuilder, KeySet, TokenBuilder};

pub use pg_double::{Arrived, PgDouble, WAIT};
pub use postgres::{Auth, Durability, Postgres, PostgresBuilder, psql_command, psql_script};
pub use process::{Finished, Guard, free_port, run, wait_until};
pub use raw_pg::RawPg;
pub use sshd::{CertificateRequest, SshKeyPair, Sshd, SshdBuilder, client_options};
