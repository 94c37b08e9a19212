//! The data folder: keys, recordings, the store.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use gateway_core::clock::Clock;
use gateway_core::recording::file::{FileOptions, FileRecorder, RecordingKey};
use gateway_store::{IndexedRecorder, Store};

use crate::config::{ConfigFile, DataDir, Durability};
use crate::output::Failure;

/// What lasts, open.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) store: Store,
    pub(super) recorder: Arc<IndexedRecorder>,
}

impl Data {
    /// Opens everything in the data folder, and makes what is missing.
    pub(super) async fn open(file: &ConfigFile, clock: &Arc<dyn Clock>) -> Result<Self, Failure> {
        let folder = file.data_dir();
        make_private(&folder.0)?;
        let strict = file.config.recording.durability == Durability::Strict;
        let opened = folder.clone();
        let files = tokio::task::spawn_blocking(move || open_recorder(&opened, strict)).await??;
        let store = Store::open(folder.database(), Arc::clone(clock)).await?;
        let paths = files.clone();
        let recorder =
            store.recorder(Arc::new(files)).with_path(move |header| Some(paths.path(header.session)));
        Ok(Self { store, recorder: Arc::new(recorder) })
    }

    /// Writes what is still queued.
    pub(super) async fn close(self) {
        self.store.close().await;
        // The last recorder waits for its threads.
        let recorder = self.recorder;
        let _ = tokio::task::spawn_blocking(move || drop(recorder)).await;
    }
}

fn open_recorder(folder: &DataDir, strict: bool) -> Result<FileRecorder, Failure> {
    let key = RecordingKey::open_or_create(&folder.recording_key())?;
    key.public_key().save(&folder.recording_public_key())?;
    let mut options = FileOptions::default();
    options.strict = strict;
    Ok(FileRecorder::open(&folder.recordings(), key, options)?)
}

/// Makes the folder for its owner only; one that others may enter is refused.
fn make_private(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    let wrong = |e: std::io::Error| Failure::new(format!("cannot use the data folder `{shown}`: {e}"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    let mode = std::fs::metadata(folder).map_err(wrong)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "others may enter the data folder `{shown}` (mode {mode:04o}); run `chmod 700 {shown}`"
    )))
}
