//! Commands: judged, run exactly, masked, recorded.

use crate::support::{ALL, gateway};

#[test]
fn a_permitted_command_runs_with_its_streams_and_status() {
    let gateway = gateway(ALL);
    let done = gateway.ssh_with_input(&["cat; echo problem >&2; exit 7"], "some input\n");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("some input\n", "problem\n"));
    assert_eq!(done.status.code(), Some(7));
}
