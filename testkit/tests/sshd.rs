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

#[test]
fn a_dropped_server_leaves_no_process_and_no_folder() {
    let server = Sshd::start().unwrap();
    let (address, home) = (server.address(), server.home());
    drop(server);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(!home.exists());
}
