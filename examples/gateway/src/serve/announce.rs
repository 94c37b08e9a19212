//! What `serve` tells on standard output: a line for each thing that happens, for people or for programs.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use gateway_core::policy::Revision;
use gateway_core::policy::cedar::PolicyCounts;
use gateway_ssh::HostKey;
use serde_json::{Value, json};

use crate::output::{Failure, line};

/// Tells what happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcer {
    json: bool,
}

impl Announcer {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    fn tell(self, text: &str, event: &Value) -> io::Result<()> {
        if self.json { line(event) } else { line(text) }
    }

    pub(super) fn listening(self, address: SocketAddr, targets: &[String], protocol: &str) -> io::Result<()> {
        let names = targets.join(", ");
        let what = if targets.len() == 1 { "target" } else { "targets" };
        let text = format!("listening on {address} for {what} {names} ({protocol})");
        let event = json!({
            "event": "listening", "address": address.to_string(), "target": names, "targets": targets, "protocol": protocol
        });
        self.tell(&text, &event)
    }

    /// By which key SSH clients know the gateway; loud when it is new, because they have to learn it.
    pub(super) fn host_key(self, path: &Path, key: &HostKey, made: bool) -> io::Result<()> {
        let (path, public, fingerprint) = (path.display().to_string(), key.public_line(), key.fingerprint());
        let text = if made {
            format!(
                "made a new SSH host key in {path}; clients pin it by: {public}\nSSH host key {fingerprint}"
            )
        } else {
            format!("SSH host key {fingerprint}")
        };
        let event = json!({
            "event": "host_key", "path": path, "public_key": public, "fingerprint": fingerprint, "made": made
        });
        self.tell(&text, &event)
    }

    pub(super) fn admin(self, socket: &Path) -> io::Result<()> {
        let socket = socket.display().to_string();
        self.tell(&format!("reviewers at {socket}"), &json!({"event": "admin", "socket": socket}))
    }

    pub(super) fn ready(self) -> io::Result<()> {
        self.tell("ready", &json!({"event": "ready"}))
    }

    pub(super) fn reloaded(self, before: &Revision, after: &Revision, has: PolicyCounts) -> io::Result<()> {
        let text = if before == after {
            format!("policies reloaded, nothing changed (revision {})", after.0)
        } else {
            let PolicyCounts { permits, forbids } = has;
            let (after, before) = (&after.0, &before.0);
            format!(
                "policies reloaded: revision {after} instead of {before}, {permits} permits, {forbids} forbids"
            )
        };
        let event = json!({
            "event": "reloaded", "before": &before.0, "after": &after.0, "permits": has.permits, "forbids": has.forbids
        });
        self.tell(&text, &event)
    }

    pub(super) fn reload_failed(self, in_force: &Revision, why: &Failure) -> io::Result<()> {
        let text = format!("policies not reloaded, revision {} stays in force: {why}", in_force.0);
        let event = json!({"event": "reload_failed", "in_force": &in_force.0, "error": why.to_string()});
        self.tell(&text, &event)
    }

    pub(super) fn stopped(self) -> io::Result<()> {
        self.tell("stopped", &json!({"event": "stopped"}))
    }
}
