//! The ready-made gateway: one configuration file, one process, and the commands around it.

mod admin;
mod assemble;
mod cli;
mod commands;
mod config;
mod output;
mod serve;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Parser) {
        return parser();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

async fn run(command: Command) -> output::Outcome {
    match command {
        Command::Serve(options) => serve::run(options).await,
        Command::Check(options) => commands::check::run(options).await,
        Command::Policy(command) => commands::policy::run(command).await,
        Command::Approvals(options) => commands::approvals::run(options).await,
        Command::Sessions(options) => commands::sessions::run(options).await,
        // Without a runtime; see `main`.
        Command::Parser => Ok(parser()),
    }
}

/// A parser for the gateway that started this process, until that is gone.
fn parser() -> ExitCode {
    match gateway_pg::analysis::serve_parser(std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    // An error may quote a file that nobody verified, or what an agent wrote.
    eprintln!("error: {}", output::EscapedLines { text: &error.to_string(), indent: "" });
    ExitCode::FAILURE
}
