//! The SSH server of the tests is a real one.
#![allow(missing_docs, clippy::unwrap_used)]

use testkit::Sshd;

#[test]
fn runs_commands_in_a_home_of_its_own() {
    let server = Sshd::builder().host_certificate().start().unwrap();
    assert_eq!(server.ssh("echo $HOME; cat").unwrap(), server.home().display().to_string());
    assert!(server.ssh("exit 3").is_err());
    assert!(server.log().contains("Accepted publickey"));
}
