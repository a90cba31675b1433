//! Backups: a copy of the data directory, made while jobs run, from which a server can be started
//! as it is (docs/design/backup.md).
//!
//! The order matters: first the spool's files are kept from being unlinked, then the database is
//! copied, then the segments that this copy names.

mod draft;

use std::{io, path::PathBuf, sync::Arc, time::Instant};

use serde_json::json;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use super::{Error, Executor};
use crate::{
    output::files::copy::{CopyTotals, SegmentCopier, leave_free, share_a_disk},
    spool::{Layout, SegmentName},
    store::{SegmentKey, Snapshot, SnapshotError},
    supervisor::Context,
    sys::threads::blocking,
};
use draft::{Draft, DraftRefused};

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its path.
    pub path: PathBuf,
    /// Its instance, which differs from the original's.
    pub instance: String,
    /// How many jobs it contains.
    pub jobs: u64,
    /// The sum of its files' lengths, bytes.
    pub bytes: u64,
    /// How much of that takes no disk space, because the files are links to the original's, bytes.
    pub shared_bytes: u64,
    /// How many segments the database names that were not there to be copied.
    pub missing_segments: u64,
    /// How long it took, milliseconds.
    pub elapsed_ms: u64,
}

/// Lets one backup be made at a time. A stop waits until it is interrupted.
#[derive(Debug, Clone, Default)]
pub(super) struct Backups(Arc<Mutex<()>>);

impl Backups {
    fn begin(&self) -> Result<OwnedMutexGuard<()>, BackupFailure> {
        let begun = Arc::clone(&self.0).try_lock_owned();
        begun.map_err(|_| BackupFailure::Another)
    }

    /// Returns when none is being made.
    pub async fn wait_until_none(&self) {
        drop(self.0.lock().await);
    }
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum BackupFailure {
    #[error("another backup is being made; wait until it is done")]
    Another,
    #[error(transparent)]
    Refused(#[from] DraftRefused),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is made, and the audit trail cannot say so.
    #[error("it is made, but {0}")]
    Unaudited(#[from] Error),
}

impl Executor {
    /// Makes a complete copy of the data directory at `to`, an absolute path where nothing is yet.
    /// Dropping the future interrupts it.
    ///
    /// # Errors
    ///
    /// `Invalid` and `Conflict` for an unsuitable path, `Unavailable` if its disk is full. Nothing
    /// is left then, and the original is not changed.
    pub async fn backup(&self, to: PathBuf) -> Result<Backup, Error> {
        let stop = self.inner.supervisor.context().stopping.child_token();
        let _given_up = stop.clone().drop_guard();
        let (executor, target) = (self.clone(), to.clone());
        // A task of its own, so that it removes what it has made even if the caller is gone.
        let made = tokio::spawn(async move { executor.make_backup(target, stop).await });
        match made.await {
            Ok(made) => made.map_err(|failure| failure.into_error(&to)),
            Err(error) => {
                tracing::error!(%error, "a backup panicked");
                let message = "the backup failed; see the server's log";
                Err(Error::Internal(message.to_owned()))
            }
        }
    }

    async fn make_backup(
        &self,
        to: PathBuf,
        stop: CancellationToken,
    ) -> Result<Backup, BackupFailure> {
        let _alone = self.inner.backups.begin()?;
        let began = Instant::now();
        let data_dir = self.inner.supervisor.context().layout.root().to_owned();
        let draft = blocking(move || Ok(Draft::begin(&to, &data_dir))).await??;
        let mut made = match self.fill(&draft, &stop).await {
            Ok(made) => made,
            Err(failure) => {
                blocking(move || draft.discard()).await?;
                return Err(failure);
            }
        };
        made.path = blocking(move || Ok(draft.publish())).await??;
        made.elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let target = json!({"path": made.path.display().to_string()});
        let result = json!({"instance": made.instance, "jobs": made.jobs});
        self.note("server.backup", target, result).await?;
        tracing::info!(path = %made.path.display(), jobs = made.jobs, bytes = made.bytes,
            elapsed_ms = made.elapsed_ms, "a backup is made");
        Ok(made)
    }

    async fn fill(&self, draft: &Draft, stop: &CancellationToken) -> Result<Backup, BackupFailure> {
        let ctx = self.inner.supervisor.context();
        let layout = draft.layout().clone();
        let free_bytes_min = self.check_space_for_database(&layout).await?;
        // From here on, everything that the database's copy will name stays in the spool.
        let hold = ctx.unlinker.hold();
        let mut ledger = self.inner.store.snapshot(&layout.database(), stop).await?;
        let open = ledger.open_attempts().await?;
        let (from, to, stop) = (ctx.layout.spool(), layout.spool(), stop.clone());
        let copier =
            blocking(move || SegmentCopier::new(from, to, open, free_bytes_min, stop)).await?;
        let spool = copy_segments(&mut ledger, copier).await?;
        drop(hold);
        let (jobs, instance) = (ledger.jobs().await?, ledger.instance.clone());
        ledger.close().await?;
        let data_dir = ctx.layout.root().to_owned();
        let draft = draft.clone();
        let others = blocking(move || draft.complete(&data_dir)).await?;
        Ok(Backup {
            path: PathBuf::new(),
            instance,
            jobs,
            bytes: others + spool.bytes,
            shared_bytes: spool.shared_bytes,
            missing_segments: spool.missing,
            elapsed_ms: 0,
        })
    }

    /// Checks that the database fits before it is copied; returns how much has to stay free there,
    /// bytes.
    async fn check_space_for_database(&self, copy: &Layout) -> io::Result<u64> {
        let Context { layout, bounds, .. } = self.inner.supervisor.context();
        let (ours, theirs) = (layout.clone(), copy.root().to_owned());
        let free_bytes_min = bounds.free_bytes_min;
        blocking(move || {
            let min = match share_a_disk(ours.root(), &theirs)? {
                true => free_bytes_min,
                false => 0,
            };
            let ledger_bytes = std::fs::metadata(ours.database())?.len();
            leave_free(&theirs, min + ledger_bytes)?;
            Ok(min)
        })
        .await
    }
}

/// Copies the segments that the copy of the database names.
async fn copy_segments(
    ledger: &mut Snapshot,
    mut copier: SegmentCopier,
) -> Result<CopyTotals, BackupFailure> {
    let mut last = None;
    loop {
        let segments = ledger.segments(last).await?;
        last = segments.last().copied();
        let is_end = segments.is_empty();
        copier = blocking(move || {
            let names: Vec<SegmentName> = segments.into_iter().map(name).collect();
            copier.complete(&names)?;
            if is_end {
                copier.incomplete()?;
                copier.finish()?;
            }
            Ok(copier)
        })
        .await?;
        if is_end {
            return Ok(copier.totals());
        }
    }
}

fn name(segment: SegmentKey) -> SegmentName {
    SegmentName {
        job: segment.number,
        attempt: segment.attempt,
        first_offset: segment.first_offset,
    }
}

impl BackupFailure {
    /// The error that the client gets.
    fn into_error(self, to: &std::path::Path) -> Error {
        let to = to.display();
        match self {
            Self::Another => Error::Conflict(self.to_string()),
            Self::Refused(DraftRefused::Conflict(message)) => Error::Conflict(message),
            Self::Refused(DraftRefused::Invalid(message)) => Error::Invalid {
                message: format!("to: {message}"),
                output_bytes: None,
            },
            Self::Snapshot(SnapshotError::Stopped) => Error::stopping(),
            Self::Io(error) if error.kind() == io::ErrorKind::Interrupted => Error::stopping(),
            Self::Snapshot(SnapshotError::DiskFull) => full(&to),
            Self::Snapshot(SnapshotError::LogTooLong(_)) => Error::Unavailable(
                "so much was written meanwhile that the database's log became too long, and the \
                 backup was stopped; try again when fewer jobs are submitted, or raise wal_bytes_max"
                    .to_owned(),
            ),
            Self::Refused(DraftRefused::Io(error)) | Self::Io(error) if is_full(&error) => {
                full(&to)
            }
            Self::Unaudited(error) => error,
            failure => {
                tracing::error!(to = %to, error = %failure, "a backup failed");
                Error::Internal(format!("the backup could not be written: {failure}"))
            }
        }
    }
}

fn full(to: &impl std::fmt::Display) -> Error {
    Error::Unavailable(format!(
        "the disk has no room for a backup at {to}; make room there, or name another place"
    ))
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
