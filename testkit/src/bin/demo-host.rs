//! The demo's host as a process of its own: a real OpenSSH server with a few files in it, until standard input ends.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use testkit::{Error, Result, Sshd};

/// A command that must run exactly once writes a line here each time.
const RESTART: &str = "#!/bin/sh\ncd \"${0%/*}\" && echo restarted >>restarts\necho the shop was restarted\n";

const NOTES: &str = "customer 17 pays with 4111 1111 1111 1111\nand writes from jane.doe@example.com\n";

/// Writes `host.port`, `host.pub`, `host.user`, `host.home` and `host.key` (0600) into the folder given, then waits for the end
/// of standard input.
fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: demo-host FOLDER");
        return ExitCode::from(2);
    };
    match run(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path) -> Result<()> {
    let server = Sshd::start()?;
    let home = server.home();
    let set_up = || {
        fs::create_dir(home.join("inbox"))?;
        fs::create_dir(home.join("orders"))?;
        fs::write(home.join("orders/1"), "one order\n")?;
        fs::write(home.join("notes.txt"), NOTES)?;
        fs::write(home.join("restart-shop"), RESTART)?;
        fs::set_permissions(home.join("restart-shop"), fs::Permissions::from_mode(0o755))?;
        fs::canonicalize(&home)
    };
    let home = set_up().map_err(|error| Error::new(format!("could not set up the home folder: {error}")))?;
    write(folder, "host.home", &home.display().to_string())?;
    write(folder, "host.pub", server.host_key().public_line()?.trim())?;
    write(folder, "host.user", server.user())?;
    write(folder, "host.key", &server.client_key().pem()?)?;
    write(folder, "host.port", &server.port().to_string())?;
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// A private file.
fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(folder.join(name));
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| Error::new(format!("cannot write `{name}`: {error}")))
}
