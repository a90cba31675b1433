//! Tells others how far a start is that brings the database up to date: the log, command lines that
//! wait for the server, the service manager.

use std::{
    sync::{Mutex, Once},
    time::Duration,
};

use sd_notify::NotifyState;

use crate::{
    cli::connect::starting::StartNote, data_dir::OwnDir, store::MigrationProgress, sys::lock,
};

/// Time between two lines in the log about one step.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How much more time the service manager is asked for with each report, microseconds. Reports come
/// every second, but not while the disk stands still.
const MORE_TIME_US: u32 = 60_000_000;

/// Reports the migrations of one start; the note is removed with it.
pub struct StartReport<'a> {
    directory: &'a OwnDir,
    /// The step of the newest line in the log, and when it was written.
    logged: Mutex<Option<(usize, Duration)>>,
    warned: Once,
}

impl<'a> StartReport<'a> {
    pub fn new(directory: &'a OwnDir) -> Self {
        Self {
            directory,
            logged: Mutex::new(None),
            warned: Once::new(),
        }
    }

    /// Reports how far it is.
    pub fn report(&self, progress: &MigrationProgress) {
        self.log(progress);
        let note = StartNote {
            pid: std::process::id(),
            doing: doing(progress),
        };
        if let Err(error) = note.write(self.directory) {
            self.warned.call_once(|| {
                tracing::warn!(%error, "command lines cannot be told that the start takes long");
            });
        }
        // Without a service manager this does nothing.
        let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(MORE_TIME_US)]);
    }

    fn log(&self, progress: &MigrationProgress) {
        let mut logged = lock(&self.logged);
        let is_news = match *logged {
            Some((step, at)) => step != progress.step || progress.elapsed >= at + LOG_EVERY,
            None => true,
        };
        if is_news {
            *logged = Some((progress.step, progress.elapsed));
            tracing::info!(
                step = progress.step,
                steps = progress.steps,
                name = progress.name,
                written_bytes = progress.written_bytes,
                database_bytes = progress.database_bytes,
                elapsed_s = progress.elapsed.as_secs(),
                "the database is brought up to date"
            );
        }
    }
}

impl Drop for StartReport<'_> {
    fn drop(&mut self) {
        if let Err(error) = StartNote::remove(self.directory) {
            tracing::warn!(%error, "the note of a start that took long could not be removed");
        }
    }
}

fn doing(progress: &MigrationProgress) -> String {
    format!(
        "brings the database up to date: step {} of {} ({}), {} MB written, the database has {} MB",
        progress.step,
        progress.steps,
        progress.name,
        progress.written_bytes / 1_000_000,
        progress.database_bytes / 1_000_000
    )
}
