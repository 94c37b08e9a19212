//! The SSH adapter: stock clients log in with a certificate, a key or a token and reach a target through the gateway.
//!
//! Every channel request is an operation of its own: judged, held if a rule says so, recorded before it runs; what the target
//! answers is masked and recorded before the client sees it. Command lines are analysed and, where every word is known, sent
//! quoted anew, so that the target's shell runs exactly what was judged. Nothing is permitted unless a policy says so: no
//! shell, no terminal, no environment, no forwarding.
//!
//! Not here: tunnel devices, and forwards to what another listener of the gateway serves, which are refused whatever the policy says;
//! judging of keystrokes, which no gateway can do (a permitted shell is recorded and masked, not judged).

mod ahead;
mod algorithms;
mod channel;
mod check;
mod command;
mod denial;
mod gate;
mod greeting;
mod handler;
mod host_key;
mod login;
mod operation;
mod served;
mod server;
mod session;
pub mod sftp;
pub mod shell;
mod target;
mod upstream;

pub use channel::{INPUT_ENCODINGS, RECORD_ENCODINGS};
pub use check::CheckError;
pub use host_key::HostKey;
pub use operation::SCHEMA;
pub use served::Served;
pub use server::{ListenerLimits, PROTOCOL, SshGateway, SshGatewayBuilder};
pub use target::{BuildError, HostKeys, ShellMode, Target};
