//! A complete adapter for a small line protocol: what a new protocol has to bring, and what it gets for it.
//!
//! ```text
//! client: AUTH <token>       gateway: OK | DENIED ...
//! client: GET <key>          answer:  VALUE <text> | NONE
//! client: SET <key> <text>   answer:  OK
//! client: DEL <key>          answer:  OK | NONE
//! client: KEYS               answer:  KEY <key> ... END
//! ```
//! The adapter brings the wire (`wire`), the meaning of a line (`operation`), its policy schema ([`SCHEMA`]), its words
//! for a refusal, and the loop that moves bytes ([`KvGateway`]). Identity, policy, holds, masking and recording are the core's.
//! It cannot leave them out: the upstream takes nothing but a permit, the downstream nothing but what was released.
//!
//! Not here: TLS, and therefore any network but loopback.

mod gateway;
mod operation;
mod server;
mod wire;

pub use gateway::KvGateway;
pub use operation::SCHEMA;
pub use server::KvServer;
