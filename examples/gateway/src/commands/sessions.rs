//! `gateway sessions`: the index of sessions and their recordings.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use gateway_core::clock::{SystemClock, Timestamp};
use gateway_core::operation::OperationId;
use gateway_core::recording::Header;
use gateway_core::recording::file::{
    End, PublicKey, RecordJson, RecordingReader, verify as verify_recording,
};
use gateway_store::{SessionFilter, SessionRow, Store};
use serde_json::json;

use super::{asciicast, replay, verify};
use crate::cli::{Export, ExportFormat, Sessions, SessionsCommand, SessionsList};
use crate::config::{ConfigFile, DataDir};
use crate::output::{Escaped, Failure, Outcome, json, json_line, line, table};

/// Runs one of the session commands.
pub(crate) async fn run(options: Sessions) -> Outcome {
    let place = Place { config: options.config, data_dir: options.data_dir };
    match options.command {
        SessionsCommand::List(filter) => list(&place, filter, options.json).await,
        SessionsCommand::Show { session } => show(&place, &session, options.json).await,
        SessionsCommand::Replay(replay) => {
            let reader = place.open(&place.recording(&replay.session).await?)?;
            replay::run(reader, replay.speed, options.json).await
        }
        SessionsCommand::Verify(options_of) => verify::run(&options_of, options.json),
        SessionsCommand::Export(export) => self::export(&place, &export).await,
    }
}

/// Where the gateway's data are.
pub(super) struct Place {
    config: Option<PathBuf>,
    data_dir: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> Result<DataDir, Failure> {
        match (&self.config, &self.data_dir) {
            (_, Some(path)) => Ok(DataDir(path.clone())),
            (Some(path), None) => Ok(ConfigFile::load(path)?.data_dir()),
            (None, None) => {
                Err(Failure::new("say where the sessions are: `--config FILE` or `--data-dir PATH`"))
            }
        }
    }

    async fn store(&self) -> Result<Store, Failure> {
        let database = self.folder()?.database();
        if !database.exists() {
            let shown = database.display();
            return Err(Failure::new(format!(
                "there is no `{shown}`; has a gateway with this data folder run yet?"
            )));
        }
        Ok(Store::open(database, Arc::new(SystemClock)).await?)
    }

    /// Opens a recording, with everything behind what is signed marked.
    pub(super) fn open(&self, path: &Path) -> Result<Opened, Failure> {
        let wrong = |e: &dyn std::fmt::Display| Failure::new(format!("`{}`: {e}", path.display()));
        let reader = RecordingReader::open(path).map_err(|e| wrong(&e))?;
        let Some(key) = self.key(path)? else { return Ok(Opened { reader, proven: None }) };
        let found = verify_recording(path, &key, None).map_err(|e| wrong(&e))?;
        Ok(Opened { reader: reader.proven(found.proven_records), proven: Some(found.proven_records) })
    }

    /// The public key in the data folder: the one that is named, or the one that the recording lies in.
    fn key(&self, recording: &Path) -> Result<Option<PublicKey>, Failure> {
        let folder = match (&self.config, &self.data_dir) {
            (Some(_), _) | (_, Some(_)) => self.folder()?,
            (None, None) => DataDir(recording.join("../..")),
        };
        let path = folder.recording_public_key();
        if !path.exists() {
            return Ok(None);
        }
        PublicKey::load(&path).map(Some).map_err(|e| Failure::new(e.to_string()))
    }

    async fn row(&self, id: &str) -> Result<SessionRow, Failure> {
        Ok(self.store().await?.sessions().show(id).await?)
    }

    /// The recording of a session that is named by id or by file.
    async fn recording(&self, session: &str) -> Result<PathBuf, Failure> {
        let path = PathBuf::from(session);
        if path.is_file() {
            return Ok(path);
        }
        if session.contains(['/', '.']) {
            return Err(Failure::new(format!("there is no file `{session}`")));
        }
        let row = self.row(session).await?;
        row.recording
            .ok_or_else(|| Failure::new(format!("session `{}` was not recorded into a file", row.id)))
    }
}

/// A recording, and how many of its records are proven; `None` if there is no key to tell.
pub(super) struct Opened {
    pub(super) reader: RecordingReader,
    proven: Option<u64>,
}

impl Opened {
    /// What is known of its signatures.
    pub(super) fn words(&self) -> String {
        match self.proven {
            Some(records) => format!("proven     {records} records; those behind them are marked"),
            None => "proven     not looked at: there is no `recording.pub`; name the gateway's folder with `--data-dir`".to_owned(),
        }
    }
}

async fn list(place: &Place, filter: SessionsList, as_json: bool) -> Outcome {
    let SessionsList { principal, target, task, limit } = filter;
    let filter = SessionFilter { principal, target, task, limit, ..SessionFilter::default() };
    let rows = place.store().await?.sessions().list(filter).await?;
    if as_json {
        json(&rows)?;
    } else if rows.is_empty() {
        line("no sessions")?;
    } else {
        let headings =
            ["ID", "STATUS", "STARTED", "PRINCIPAL", "TARGET", "ALLOWED", "DENIED", "HELD", "ROWS", "MASKED"];
        let rows: Vec<_> = rows.iter().map(table_row).collect();
        line(table(headings, &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table_row(row: &SessionRow) -> [String; 10] {
    let counts = &row.counts;
    [
        row.id.to_string(),
        row.status.as_str().to_owned(),
        row.started.to_string(),
        Escaped(&row.principal.subject).to_string(),
        Escaped(&row.target).to_string(),
        counts.allowed.to_string(),
        counts.denied.to_string(),
        counts.held.to_string(),
        counts.rows.to_string(),
        counts.masked.values().sum::<u64>().to_string(),
    ]
}

async fn show(place: &Place, session: &str, as_json: bool) -> Outcome {
    let is_file = PathBuf::from(session).is_file();
    let row = if is_file { None } else { Some(place.row(session).await?) };
    let path = match &row {
        Some(row) => row.recording.clone(),
        None => Some(PathBuf::from(session)),
    };
    let opened = path.as_deref().map(|path| place.open(path)).transpose()?;
    if as_json {
        let header = opened.as_ref().map(|opened| opened.reader.header().clone());
        json(&json!({ "session": row, "header": header, "recording": path }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(row) = &row {
        line(row_facts(row))?;
    }
    let Some(opened) = opened else { return Ok(ExitCode::SUCCESS) };
    line(header_facts(opened.reader.header()))?;
    line(opened.words())?;
    let mut reader = opened.reader;
    let mut digest = replay::Digest::new(reader.header());
    for record in reader.by_ref() {
        if let Some(text) = digest.line(&record) {
            line(text)?;
        }
    }
    line(end_words(reader.end()))?;
    Ok(ExitCode::SUCCESS)
}

fn row_facts(row: &SessionRow) -> String {
    let ended = row.ended.map_or_else(|| "-".to_owned(), |at: Timestamp| at.to_string());
    let counts = &row.counts;
    let masked: Vec<String> = counts.masked.iter().map(|(class, n)| format!("{class} {n}")).collect();
    let recording = row.recording.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string());
    format!(
        "status     {}\nended      {ended}\noperations {} allowed, {} denied, {} held\nreleased   {} rows, {} bytes\n\
         masked     {}\nrecording  {recording}",
        row.status.as_str(),
        counts.allowed,
        counts.denied,
        counts.held,
        counts.rows,
        counts.bytes,
        if masked.is_empty() { "nothing".to_owned() } else { masked.join(", ") },
    )
}

/// Who, what, when, from a recording's header.
pub(super) fn header_facts(header: &Header) -> String {
    let who = &header.principal;
    let mut lines = vec![
        format!("session    {}", header.session),
        format!("started    {}", header.started),
        format!("principal  {} ({})", Escaped(&who.actor.to_string()), who.kind.as_str()),
    ];
    lines.extend(who.actor_chain.iter().map(|actor| format!("acts for   {}", Escaped(&actor.to_string()))));
    for (name, value) in [("task", &who.task), ("plan", &who.plan), ("workload", &who.workload)] {
        lines.extend(value.as_ref().map(|value| format!("{name:<10} {}", Escaped(value))));
    }
    let scope = header.scope.as_ref().map(|scope| format!(" / {scope}")).unwrap_or_default();
    lines.push(format!("phase      {}", who.phase.as_str()));
    lines.push(format!(
        "target     {}{} ({})",
        Escaped(&header.target),
        Escaped(&scope),
        Escaped(&header.protocol)
    ));
    lines.push(format!("from       {}", Escaped(&header.peer)));
    lines.push(format!("policies   {}", Escaped(&header.policy.0)));
    lines.join("\n")
}

/// How a recording ends, in words.
pub(super) fn end_words(end: Option<&End>) -> String {
    match end {
        Some(End::Sealed(_)) => "the recording is sealed; `sessions verify` proves it".to_owned(),
        Some(End::Unsealed) => "the recording has no end yet, or its gateway died".to_owned(),
        Some(End::Torn { at }) => format!("the recording breaks off at byte {at}"),
        Some(End::Damaged { at, what }) => format!("the recording is DAMAGED at byte {at}: {what}"),
        Some(End::Unreadable(cause)) => format!("the recording cannot be read further: {cause}"),
        _ => "the recording goes on".to_owned(),
    }
}

async fn export(place: &Place, options: &Export) -> Outcome {
    let path = place.recording(&options.session).await?;
    match (options.format, options.operation) {
        (ExportFormat::Asciicast, operation) => {
            return asciicast::export(place, &path, operation.map(OperationId));
        }
        (ExportFormat::Jsonl, Some(_)) => {
            return Err(Failure::new(
                "`--operation` is for `--format asciicast`; filter JSON lines with `jq`",
            ));
        }
        (ExportFormat::Jsonl, None) => {}
    }
    let mut reader = place.open(&path)?.reader;
    for record in RecordJson::new(&mut reader) {
        json_line(&record)?;
    }
    exported(reader.end())
}

/// An export that misses what is damaged must not pass for the whole.
pub(super) fn exported(end: Option<&End>) -> Outcome {
    match end {
        Some(End::Damaged { .. } | End::Unreadable(_)) => Err(Failure::new(end_words(end))),
        _ => Ok(ExitCode::SUCCESS),
    }
}
