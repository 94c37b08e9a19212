//! The PostgreSQL adapter: protocol 3.0 and 3.2, simple and extended query, COPY, cancel, TLS on both sides.
//!
//! Statements are analysed with PostgreSQL's own grammar, names are resolved by the server itself, every operation passes the
//! core's pipeline, results are masked by column origin and by content. What is not understood is refused: FunctionCall but for large objects,
//! replication, encodings other than UTF8, the binary `COPY` of a query.

pub mod analysis;
mod calls;
mod cancel;
mod carried;
mod catalog;
mod check;
pub mod codec;
mod definitions;
mod denial;
mod driver;
mod effects;
mod estimate;
mod fast_path;
mod io;
mod lineage;
mod login;
mod memo;
mod operation;
mod references;
mod rewriter;
mod scope;
mod server;
mod session;
mod statement;
pub mod tls;
mod types;

pub use io::{BoxedStream, Stream};
pub use login::downstream::TokenLogin;
pub use login::upstream::{Address, ProtocolVersion, SslMode, SslNegotiation};
pub use operation::{Place, SCHEMA};
pub use server::{CheckError, ListenerLimits, PROTOCOL, PROTOCOL_VERSIONS, PgGateway, Target};
pub use session::RECORD_ENCODING;
