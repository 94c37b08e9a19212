//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gateway_core::approval::RequestId;
use gateway_core::recording::file::Head;

/// Stands between AI agents and your databases and hosts: verifies who asks, judges every statement, holds what people must approve,
/// masks what comes back, and records all of it.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, arg_required_else_help = true, after_help = OVERVIEW)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const OVERVIEW: &str = "\
First steps:
  gateway check --config gateway.toml     is everything in order?
  gateway serve --config gateway.toml     run it
  psql \"host=127.0.0.1 port=6432 user=agent dbname=shop\"     with the agent's token as the password
  ssh -p 2222 agent%web1@127.0.0.1                           with the token too, or a key or certificate
  gateway approvals list --config gateway.toml --token-file me.jwt
  gateway sessions list --config gateway.toml

Exit codes: 0 all is well, 1 something is not (the message says what to do), 2 the command line is wrong.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Serve),
    Check(Check),
    #[command(subcommand)]
    Policy(Policy),
    Approvals(Approvals),
    Sessions(Sessions),
    /// Parses statements for a gateway, which starts it itself.
    #[command(hide = true)]
    Parser,
}

/// Run the gateway.
///
/// Prints one line for each listener once it accepts connections, then `ready`. Logs go to standard error; GATEWAY_LOG
/// filters them (`info` by default, `gateway_pg=debug` and so on).
///
/// SIGHUP reads the policy files again: live sessions are judged by the new policies from their next statement on; policies
/// with mistakes change nothing. SIGTERM and SIGINT end all sessions and seal their recordings.
#[derive(Debug, Args)]
#[command(after_long_help = SERVE_HELP)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Print what happens as JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) secrets: SecretsArg,
}

const SERVE_HELP: &str = "\
Examples:
  gateway serve --config /etc/gateway/gateway.toml
  GATEWAY_LOG=debug gateway serve --config gateway.toml --log-format json 2>gateway.log
  systemctl reload gateway          with ExecReload=kill -HUP $MAINPID

The smallest configuration:
  [gateway]
  data_dir = \"data\"

  [[issuer]]
  issuer = \"https://idp.example.com\"
  audiences = [\"gateway\"]
  discovery = true

  [policy]
  files = [\"policies/base.cedar\"]

  [[target]]
  name = \"shop\"
  protocol = \"postgres\"
  host = \"db.internal\"
  credential = { username = \"app\", password_file = \"shop.password\" }

  [[listener]]
  address = \"127.0.0.1:6432\"
  target = \"shop\"";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArg {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SecretsArg {
    /// Allow `password_env` in the configuration; every process of this user can read such a password
    #[arg(long)]
    pub(crate) demo_insecure_env: bool,
}

/// Check a configuration, and everything it names.
///
/// Reads policies, patterns, masking rules, keys and certificates as `serve` does, without opening a listener; then asks each
/// target whether the labelled columns exist. Everything found is listed with its remedy.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  gateway check --config gateway.toml\n  gateway check --config gateway.toml --strict --json"
)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Fail on warnings too, such as a target that cannot be reached
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print findings as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) secrets: SecretsArg,
}

/// Check, test and explain policies.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    Check(PolicyCheck),
    Test(PolicyTest),
    Explain(PolicyExplain),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PolicyArg {
    /// A configuration file, for the policies it names
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A policy file; may be given several times
    #[arg(long, short, value_name = "FILE")]
    pub(crate) policy: Vec<PathBuf>,
}

/// Find mistakes in policies: syntax, types, rules that can never apply.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Example:\n  gateway policy check --policy policies/base.cedar --policy policies/dba.cedar"
)]
pub(crate) struct PolicyCheck {
    #[command(flatten)]
    pub(crate) policies: PolicyArg,
    /// Print findings as a JSON list
    #[arg(long)]
    pub(crate) json: bool,
}

/// Run test cases against policies; fails if any case fails.
#[derive(Debug, Args)]
#[command(after_long_help = TEST_HELP)]
pub(crate) struct PolicyTest {
    #[command(flatten)]
    pub(crate) policies: PolicyArg,
    /// Files of cases, TOML
    #[arg(required = true, value_name = "CASES")]
    pub(crate) cases: Vec<PathBuf>,
    /// Print results as a JSON list
    #[arg(long)]
    pub(crate) json: bool,
}

const TEST_HELP: &str = "\
Example:
  gateway policy test --policy policies/shop.cedar policies/shop.cases.toml

A case:
  [[case]]
  name = \"an executor's delete waits for a dba\"
  principal = { subject = \"agent-7\", phase = \"execute\", groups = [\"executors\"] }
  target = \"shop\"
  expect = \"hold\"
  [case.operation]
  kind = \"delete\"
  accesses = [{ action = \"delete\", path = [[\"Database\", \"shop\"], [\"Schema\", \"public\"], [\"Table\", \"orders\"]] }]";

/// Take the decision on one case apart: which rules, in which file and line, on which access.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Example:\n  gateway policy explain --config gateway.toml policies/shop.cases.toml --case \"a delete is held\""
)]
pub(crate) struct PolicyExplain {
    #[command(flatten)]
    pub(crate) policies: PolicyArg,
    /// A file of cases, TOML
    #[arg(value_name = "CASES")]
    pub(crate) cases: PathBuf,
    /// The case's name; needed if the file has several
    #[arg(long, value_name = "NAME")]
    pub(crate) case: Option<String>,
    /// Print the explanation as a JSON object, with the entities and the context Cedar was asked with
    #[arg(long)]
    pub(crate) json: bool,
}

/// List, read, approve and reject operations that wait for people.
///
/// Every command goes to the running gateway over its admin socket, with your own token: only people review, never the
/// requester, and only members of the group that the rule names. What you look at is recorded.
#[derive(Debug, Args)]
#[command(after_long_help = APPROVALS_HELP)]
pub(crate) struct Approvals {
    #[command(subcommand)]
    pub(crate) command: ApprovalsCommand,
    /// The gateway's admin socket
    #[arg(long, global = true, value_name = "PATH", env = "GATEWAY_ADMIN_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// The gateway's configuration file, to find its socket
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A file with your token, readable by you only
    #[arg(long, global = true, value_name = "FILE", env = "GATEWAY_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Read your token from standard input
    #[arg(long, global = true)]
    pub(crate) token_stdin: bool,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

const APPROVALS_HELP: &str = "\
Examples:
  export GATEWAY_ADMIN_SOCKET=/var/lib/gateway/admin/gateway.sock GATEWAY_TOKEN_FILE=~/.gateway-token
  gateway approvals list
  gateway approvals show 3f0c9d2b7a6e4b1f8c5d0e9a7b6c5d4e
  gateway approvals approve 3f0c9d2b7a6e4b1f8c5d0e9a7b6c5d4e --comment 'change 4711'
  my-login print-token | gateway approvals list --token-stdin";

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// The requests you may know of, newest first
    List,
    /// One request: who asks and for whom, the exact statement, what it touches, which rules hold it, until when
    Show {
        #[arg(value_name = "ID")]
        id: RequestId,
    },
    /// Let it run, once, exactly as it is
    Approve(Review),
    /// Refuse it
    Reject(Review),
}

#[derive(Debug, Args)]
pub(crate) struct Review {
    #[arg(value_name = "ID")]
    pub(crate) id: RequestId,
    /// Why; recorded
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
}

/// List, read, replay, verify and export recorded sessions.
#[derive(Debug, Args)]
#[command(after_long_help = SESSIONS_HELP)]
pub(crate) struct Sessions {
    #[command(subcommand)]
    pub(crate) command: SessionsCommand,
    /// The gateway's configuration file, to find its data
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The gateway's data folder
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "config")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

const SESSIONS_HELP: &str = "\
A session is named by its id, the beginning of it, or the path of its recording.

Examples:
  gateway sessions list --config gateway.toml --principal agent-7
  gateway sessions replay --config gateway.toml 3f0c
  gateway sessions verify /var/lib/gateway/recordings --key recording.pub
  gateway sessions export 3f0c --config gateway.toml | jq 'select(.event == \"denied\")'
  gateway sessions export 3f0c --config gateway.toml --format asciicast >3f0c.cast";

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// Sessions, newest first
    List(SessionsList),
    /// One session: who, what, when, and each operation with its decision
    Show {
        #[arg(value_name = "ID|FILE")]
        session: String,
    },
    /// Play a session back: times, decisions, statements and what was released: rows, output, terminals
    Replay(Replay),
    /// Prove that a recording, or a folder of them, is complete and unchanged
    Verify(Verify),
    /// Write a recording as JSON lines, or an SSH session as an asciicast
    Export(Export),
}

#[derive(Debug, Args)]
pub(crate) struct SessionsList {
    /// Only of this principal: a subject, or `issuer|subject`
    #[arg(long)]
    pub(crate) principal: Option<String>,
    /// Only to this target
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Only of this task
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[arg(value_name = "ID|FILE")]
    pub(crate) session: String,
    /// Wait between records as the session did, this many times faster; 1 at a terminal, otherwise no waiting
    #[arg(long, value_name = "N")]
    pub(crate) speed: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A recording, or a folder of recordings with its ledger
    #[arg(value_name = "FILE_OR_DIR")]
    pub(crate) path: PathBuf,
    /// The gateway's public key, kept from before; never one that lies with the recordings you doubt
    #[arg(long, value_name = "PUB")]
    pub(crate) key: PathBuf,
    /// A head noted earlier, off the host (of the ledger for a folder, of the recording for a file): it must still be there
    #[arg(long, value_name = "HEX")]
    pub(crate) expect_head: Option<Head>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[arg(value_name = "ID|FILE")]
    pub(crate) session: String,
    /// How
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub(crate) format: ExportFormat,
    /// Only this operation, by its number in `sessions show`: for sessions with several programs at once
    #[arg(long, value_name = "N")]
    pub(crate) operation: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Every record, one JSON object a line
    Jsonl,
    /// What an SSH session showed, for players of asciicast v2
    Asciicast,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
