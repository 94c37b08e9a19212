//! The demo's database as a process of its own: a real PostgreSQL with the shop in it, until standard input ends.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use testkit::{Postgres, Result};

/// Writes `port`, `app.password` (0600) and `admin.url` into the folder given, then waits for the end of standard input.
fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: demo-shop FOLDER");
        return ExitCode::from(2);
    };
    match run(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-shop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path) -> Result<()> {
    let server = Postgres::start()?;
    server.load_shop()?;
    write(folder, "app.password", server.password("app"));
    write(folder, "admin.url", &server.admin_url("shop"));
    write(folder, "port", &server.port().to_string());
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// A private file; a demo that cannot write its folder has nothing to go on with.
fn write(folder: &Path, name: &str, text: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(folder.join(name));
    if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
        eprintln!("demo-shop: cannot write `{name}`: {error}");
        std::process::exit(1);
    }
}
