//! The demo's identity provider as a process of its own, and the command that mints its tokens.
//!
//! Both share a folder: the server writes there who it is, the minter reads there what to sign with.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use testkit::{Algorithm, Ca, Error, Idp, KeySet, Result, TokenBuilder};

/// A demo identity provider: real keys and real tokens, on loopback only.
#[derive(Parser)]
#[command(name = "demo-idp", after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the discovery document and the key set over HTTPS until the process is ended
    Serve(Serve),
    /// Print a token for an agent or a human
    Token(Token),
}

#[derive(Args)]
struct Serve {
    /// Folder for the keys, the CA and the issuer's URL; made when missing
    #[arg(long)]
    dir: PathBuf,
    /// Port on 127.0.0.1; 0 takes the one used before, or any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[derive(Args)]
struct Token {
    /// Folder a server was started with
    #[arg(long)]
    dir: PathBuf,
    /// Who it is (`sub`)
    #[arg(long)]
    sub: String,
    /// A group it is in (`groups`); repeat for more
    #[arg(long)]
    group: Vec<String>,
    /// What it is (`kind`)
    #[arg(long, value_enum, default_value_t = Kind::Agent)]
    kind: Kind,
    /// What an agent is doing (`phase`)
    #[arg(long, value_enum)]
    phase: Option<Phase>,
    /// The task it works on (`task`)
    #[arg(long)]
    task: Option<String>,
    /// The plan it carries out (`plan`)
    #[arg(long)]
    plan: Option<String>,
    /// Who acts for the subject (`act`), the current actor first; repeat for a chain
    #[arg(long)]
    actor: Vec<String>,
    /// Whom it is for (`aud`)
    #[arg(long, default_value = "gateway")]
    audience: String,
    /// How long it is valid: a number and s, m or h
    #[arg(long, default_value = "15m", value_parser = parse_duration)]
    ttl: Duration,
    /// How it is signed
    #[arg(long, value_enum, default_value_t = Signature::Rs256)]
    algorithm: Signature,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Agent,
    Human,
    Service,
}

#[derive(Clone, Copy, ValueEnum)]
enum Phase {
    Plan,
    Execute,
}

#[derive(Clone, Copy, ValueEnum)]
enum Signature {
    Rs256,
    Es256,
    Eddsa,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => serve(&options),
        Command::Token(options) => token(&options).map(|token| println!("{token}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-idp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Serve) -> Result<()> {
    let ca = Ca::open(&options.dir)?;
    let port = if options.port == 0 { former_port(&options.dir) } else { options.port };
    let start = |port| {
        let builder = Idp::builder().tls(&ca)?.keys(KeySet::open(&options.dir.join("keys"))?);
        builder.port(port).start()
    };
    // The port used before keeps configurations and tokens valid, but only if it is still free.
    let idp = match start(port) {
        Err(_) if options.port == 0 && port != 0 => start(0)?,
        result => result?,
    };
    announce(&options.dir, idp.issuer())?;
    // Whoever started it may stop reading after the first line; the folder holds both facts anyway.
    let _ = writeln!(std::io::stdout(), "issuer {}\nca {}", idp.issuer(), ca.path().display());
    loop {
        std::thread::park();
    }
}

fn former_port(dir: &Path) -> u16 {
    let issuer = fs::read_to_string(issuer_file(dir)).unwrap_or_default();
    issuer.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
}

/// Whoever waits for the file sees all of it or none.
fn announce(dir: &Path, issuer: &str) -> Result<()> {
    let draft = dir.join("issuer.new");
    fs::write(&draft, format!("{issuer}\n")).and_then(|()| fs::rename(&draft, issuer_file(dir))).map_err(
        |error| Error::new(format!("could not write the issuer's URL into `{}`: {error}", dir.display())),
    )
}

fn token(options: &Token) -> Result<String> {
    let issuer = fs::read_to_string(issuer_file(&options.dir)).map_err(|error| {
        let dir = options.dir.display();
        Error::new(format!("no issuer in `{dir}`, start one with `demo-idp serve --dir {dir}`: {error}"))
    })?;
    let keys = KeySet::open(&options.dir.join("keys"))?;
    let actors: Vec<&str> = options.actor.iter().map(String::as_str).collect();
    let mut token = TokenBuilder::for_issuer(keys, issuer.trim())
        .algorithm(match options.algorithm {
            Signature::Rs256 => Algorithm::Rs256,
            Signature::Es256 => Algorithm::Es256,
            Signature::Eddsa => Algorithm::EdDsa,
        })
        .subject(&options.sub)
        .audience(&options.audience)
        .claim("kind", word(&options.kind))
        .lifetime(options.ttl)
        .actors(&actors);
    for group in &options.group {
        token = token.group(group);
    }
    let optional = [
        ("phase", options.phase.as_ref().map(word)),
        ("task", options.task.clone()),
        ("plan", options.plan.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            token = token.claim(name, value);
        }
    }
    Ok(token.sign())
}

/// The word the command line has for it is the one in the claim.
fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn issuer_file(dir: &Path) -> PathBuf {
    dir.join("issuer")
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a number followed by s, m or h, a year at most");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number
        .checked_mul(unit)
        .filter(|&seconds| seconds <= MAX_TTL_SECONDS)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// A year: beyond it a demo's token is a mistake.
const MAX_TTL_SECONDS: u64 = 365 * 24 * 3600;

const AFTER_HELP: &str = "\
Example:
  demo-idp serve --dir idp &
  demo-idp token --dir idp --sub agent-7 --group planners --phase plan --task T-1 --ttl 15m

The folder then holds `issuer` (the URL), `ca.crt` (what to trust it by) and the keys, which only you may read.
The keys are for trying things out: nothing that matters may trust this provider.";
