//! `gateway approvals`: the reviewer's side of the admin socket.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gateway_core::approval::{AccessRequest, OperationSummary, Review};
use gateway_core::credentials::Secret;

use super::policy::ApprovalWords;
use crate::admin::{AdminClient, Answer, Ask};
use crate::cli::{Approvals, ApprovalsCommand};
use crate::config::ConfigFile;
use crate::output::{Escaped, EscapedLines, Failure, Outcome, json, line, table};

/// Largest token, in bytes, as in the gateway.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;
/// Statements in lists are cut to so many characters; `show` has all of it.
const LIST_CHARACTERS: usize = 60;

/// Runs one of the approval commands.
pub(crate) async fn run(options: Approvals) -> Outcome {
    let socket = socket(&options)?;
    let mut client = AdminClient::connect(&socket, token(&options)?).await?;
    let reviewing = matches!(options.command, ApprovalsCommand::Approve(_) | ApprovalsCommand::Reject(_));
    match client.ask(ask(options.command)).await? {
        Answer::Requests(requests) if options.json => json(&requests)?,
        Answer::Requests(requests) => line(listed(&requests))?,
        Answer::Request(request) if options.json => json(&request)?,
        Answer::Request(request) if reviewing => line(reviewed(&request))?,
        Answer::Request(request) => line(shown(&request))?,
        Answer::Refused(refusal) => return Err(Failure::new(refusal.message)),
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(command: ApprovalsCommand) -> Ask {
    match command {
        ApprovalsCommand::List => Ask::List,
        ApprovalsCommand::Show { id } => Ask::Show { id },
        ApprovalsCommand::Approve(review) => Ask::Approve { id: review.id, comment: review.comment },
        ApprovalsCommand::Reject(review) => Ask::Reject { id: review.id, comment: review.comment },
    }
}

fn socket(options: &Approvals) -> Result<PathBuf, Failure> {
    match (&options.socket, &options.config) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(path)) => Ok(ConfigFile::load(path)?.admin_socket()),
        (None, None) => Err(Failure::new(
            "say which gateway: `--socket PATH`, `--config FILE`, or GATEWAY_ADMIN_SOCKET in the environment",
        )),
    }
}

fn token(options: &Approvals) -> Result<Secret<String>, Failure> {
    if options.token_stdin {
        return read_token(std::io::stdin().lock(), "standard input");
    }
    let Some(path) = &options.token_file else {
        return Err(Failure::new(
            "say who you are: `--token-file FILE`, GATEWAY_TOKEN_FILE in the environment, or `--token-stdin`",
        ));
    };
    let shown = path.display().to_string();
    let file =
        std::fs::File::open(path).map_err(|e| Failure::new(format!("`{shown}` cannot be read: {e}")))?;
    check_private(&file, path)?;
    read_token(file, &shown)
}

/// Whoever can read a reviewer's token can approve in their name.
fn check_private(file: &std::fs::File, path: &Path) -> Result<(), Failure> {
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::new(format!("others may read `{path}` (mode {mode:04o}); run `chmod 600 {path}`")))
}

fn read_token(from: impl Read, name: &str) -> Result<Secret<String>, Failure> {
    let mut text = String::new();
    let read = from.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text);
    let text = Secret::new(text);
    read.map_err(|e| Failure::new(format!("the token in {name} cannot be read: {e}")))?;
    let token = text.expose().trim();
    if token.is_empty() || text.expose().len() as u64 > MAX_TOKEN_BYTES {
        return Err(Failure::new(format!("{name} holds no token, or more than {MAX_TOKEN_BYTES} bytes")));
    }
    Ok(Secret::new(token.to_owned()))
}

fn listed(requests: &[AccessRequest]) -> String {
    if requests.is_empty() {
        return "no requests".to_owned();
    }
    let row = |request: &AccessRequest| {
        [
            request.id.to_string(),
            request.state.as_str().to_owned(),
            request.expires.to_string(),
            Escaped(&request.requester.actor.subject).to_string(),
            Escaped(&request.target).to_string(),
            Escaped(&first_words(request)).to_string(),
        ]
    };
    let rows: Vec<_> = requests.iter().map(row).collect();
    table(["ID", "STATE", "EXPIRES", "REQUESTER", "TARGET", "STATEMENT (MASKED)"], &rows)
}

fn first_words(request: &AccessRequest) -> String {
    let masked = request.operations.first().map_or("", |operation| operation.masked.as_str());
    let mut words: String = masked.chars().take(LIST_CHARACTERS).collect();
    if masked.chars().nth(LIST_CHARACTERS).is_some() {
        words.push('…');
    }
    match request.operations.len() {
        0 | 1 => words,
        n => format!("{words} (and {} more)", n - 1),
    }
}

fn reviewed(request: &AccessRequest) -> String {
    let verdicts = request.reviews.len();
    format!("{} is {} ({verdicts} reviews)", request.id, request.state.as_str())
}

/// Everything a reviewer has to know, the statement as it would run.
fn shown(request: &AccessRequest) -> String {
    let who = &request.requester;
    let mut lines = vec![
        format!("request    {}", request.id),
        format!("state      {}, until {}", request.state.as_str(), request.expires),
        format!("requester  {} ({})", Escaped(&who.actor.to_string()), who.kind.as_str()),
    ];
    lines.extend(who.actor_chain.iter().map(|actor| format!("acts for   {}", Escaped(&actor.to_string()))));
    if !who.groups.is_empty() {
        let groups: Vec<&str> = who.groups.iter().map(String::as_str).collect();
        lines.push(format!("groups     {}", Escaped(&groups.join(", "))));
    }
    let optional = [("task", &who.task), ("plan", &who.plan), ("workload", &who.workload)];
    for (name, value) in optional {
        lines.extend(value.as_ref().map(|value| format!("{name:<10} {}", Escaped(value))));
    }
    lines.push(format!("phase      {}", who.phase.as_str()));
    lines.push(format!("target     {}", Escaped(&request.target)));
    lines.push(format!("session    {}", request.session));
    for rule in &request.rules {
        let ApprovalWords { reviewers, quorum, ttl } = ApprovalWords::of(rule);
        let name = Escaped(&rule.name);
        let policies = rule.rules.join(", ");
        lines.push(format!(
            "needs      `{name}`: {quorum} of {reviewers}, within {ttl} (rules {})",
            Escaped(&policies)
        ));
    }
    lines.extend(request.reviews.iter().map(review_line));
    for (i, operation) in request.operations.iter().enumerate() {
        lines.push(format!(
            "\noperation {} of {}: {}",
            i + 1,
            request.operations.len(),
            Escaped(&operation.kind)
        ));
        lines.extend(operation_lines(operation));
    }
    lines.join("\n")
}

fn review_line(review: &Review) -> String {
    let verdict = match review.verdict {
        gateway_core::approval::Verdict::Approve => "approved by",
        gateway_core::approval::Verdict::Reject => "rejected by",
    };
    let comment = review.comment.as_ref().map(|text| format!(": {}", Escaped(text))).unwrap_or_default();
    format!("{verdict} {}{comment}", Escaped(&review.reviewer.to_string()))
}

fn operation_lines(operation: &OperationSummary) -> Vec<String> {
    let (text, note) = match operation.exact.as_str() {
        "" => (operation.masked.as_str(), "statement (masked; you may not see it in full)"),
        exact => (exact, "statement (exact)"),
    };
    let mut lines = vec![format!("  {note}:"), EscapedLines { text, indent: "    " }.to_string()];
    lines.push("  touches:".to_owned());
    lines.extend(
        operation
            .accesses
            .iter()
            .map(|access| format!("    {} {}", access.action, Escaped(&access.resource.to_string()))),
    );
    let notes = &operation.estimate.notes;
    if !notes.is_empty() {
        lines.push("  expected (an estimate, not a promise):".to_owned());
        lines.extend(notes.iter().map(|note| format!("    {}", Escaped(note))));
    }
    lines
}
