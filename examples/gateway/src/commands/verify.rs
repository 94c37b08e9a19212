//! `gateway sessions verify`: what is proven, and up to where.

use std::path::Path;
use std::process::ExitCode;

use gateway_core::recording::file::{
    DirectoryVerification, Head, PublicKey, Verification, verify, verify_directory,
};
use serde_json::{Value, json};

use crate::cli::Verify;
use crate::output::{Failure, Outcome, json, line};

/// Verifies a recording or a folder of them; success only if nothing is missing and nothing was changed.
pub(super) fn run(options: &Verify, as_json: bool) -> Outcome {
    let key = PublicKey::load(&options.key)
        .map_err(|e| Failure::new(format!("{e}; name the `recording.pub` you kept with `--key`")))?;
    let head = options.expect_head.as_ref();
    if options.path.is_dir() {
        folder(&options.path, &key, head, as_json)
    } else {
        file(&options.path, &key, head, as_json)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("`{}` cannot be read: {error}", path.display()))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn file(path: &Path, key: &PublicKey, head: Option<&Head>, as_json: bool) -> Outcome {
    let found = verify(path, key, head).map_err(|e| unreadable(path, &e))?;
    if as_json {
        json(&as_value(&found))?;
    } else {
        line(words(&found))?;
        line(if found.is_intact() { "INTACT: complete, sealed and unchanged" } else { "NOT INTACT" })?;
    }
    Ok(code(found.is_intact()))
}

fn words(found: &Verification) -> String {
    let mut lines = Vec::new();
    match (&found.session, &found.proven_until) {
        (Some(session), Some(proven)) => lines.push(format!(
            "session {session}: {} records are proven, up to record {} of {}",
            found.proven_records, proven.position.0, proven.at
        )),
        _ => lines.push("nothing is proven: no record is signed by this key".to_owned()),
    }
    lines.extend(found.head.map(|head| format!("head {head}")));
    match &found.sealed {
        Some(reason) => lines.push(format!("sealed: {reason:?}")),
        None => lines
            .push("not sealed: the session goes on, or its gateway died, or the end was cut off".to_owned()),
    }
    if found.unproven_records > 0 {
        lines.push(format!(
            "{} records after that are NOT PROVEN: nobody signed them",
            found.unproven_records
        ));
    }
    if found.torn_bytes > 0 {
        lines.push(format!("{} bytes at the end are incomplete", found.torn_bytes));
    }
    lines.extend(found.problems.iter().map(|problem| format!("PROBLEM: {problem}")));
    lines.join("\n")
}

fn as_value(found: &Verification) -> Value {
    json!({
        "intact": found.is_intact(),
        "session": found.session,
        "proven_records": found.proven_records,
        "proven_until": found.proven_until.map(|proven| json!({
            "position": proven.position.0,
            "at": proven.at,
        })),
        "head": found.head.map(|head| head.to_string()),
        "sealed": found.sealed,
        "unproven_records": found.unproven_records,
        "torn_bytes": found.torn_bytes,
        "problems": problems(&found.problems),
    })
}

fn problems(list: &[impl ToString]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn folder(path: &Path, key: &PublicKey, head: Option<&Head>, as_json: bool) -> Outcome {
    let found = verify_directory(path, key, head).map_err(|e| unreadable(path, &e))?;
    if as_json {
        json(&folder_value(&found))?;
    } else {
        line(folder_words(&found))?;
        line(judgement(&found))?;
    }
    Ok(code(found.is_sound()))
}

/// Sound is what is proven; what is not is said in the same breath.
fn judgement(found: &DirectoryVerification) -> String {
    match (found.is_sound(), found.unended.len(), found.unproven_records()) {
        (false, ..) => "NOT SOUND".to_owned(),
        (true, 0, 0) => "SOUND: nothing was removed or changed".to_owned(),
        (true, 0, unproven) => format!("SOUND, but {unproven} records are NOT PROVEN: nobody signed them"),
        (true, open, unproven) => format!(
            "SOUND as far as it is signed: {open} recordings have no end yet, so one cut off would not show, and \
             {unproven} records are NOT PROVEN"
        ),
    }
}

fn folder_words(found: &DirectoryVerification) -> String {
    let sealed = found.recordings.iter().filter(|(_, one)| one.is_intact()).count();
    let mut lines = vec![
        format!("{} recordings, {sealed} of them complete and sealed", found.recordings.len()),
        format!("{} entries of the ledger are proven", found.ledger_entries),
    ];
    for (session, one) in found.recordings.iter().filter(|(_, one)| !one.is_intact()) {
        lines.push(format!("\n{session}"));
        lines.push(words(one));
    }
    lines.extend(
        found.interrupted.iter().map(|id| format!("{id} was interrupted at its start; nothing passed in it")),
    );
    lines.extend(found.problems.iter().map(|problem| format!("PROBLEM: {problem}")));
    lines.extend(found.ledger_head.map(|head| {
        format!("ledger head {head}; note it elsewhere and give it to `--expect-head` next time")
    }));
    lines.join("\n")
}

fn folder_value(found: &DirectoryVerification) -> Value {
    let recordings: Vec<Value> = found.recordings.iter().map(|(_, one)| as_value(one)).collect();
    json!({
        "sound": found.is_sound(),
        "recordings": recordings,
        "interrupted": found.interrupted,
        "unended": found.unended,
        "unproven_records": found.unproven_records(),
        "ledger_entries": found.ledger_entries,
        "ledger_head": found.ledger_head.map(|head| head.to_string()),
        "problems": problems(&found.problems),
    })
}
