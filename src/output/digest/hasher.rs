//! A task that hashes a running attempt's segments as they are sealed, and stores a row for each.
//!
//! Seals wake it, and growth does not: the bytes of an unsealed segment wait until the attempt ends.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{sync::mpsc, task::JoinHandle};

use super::Digest;
use crate::{
    job::JobNumber,
    output::files::durable::{is_sync_failure, sync_segment},
    spool::SegmentName,
    store::{SegmentRow, Store},
    sys::threads::blocking,
};

/// The handle of a task that follows one attempt.
#[derive(Debug)]
pub struct Hasher {
    seals: mpsc::UnboundedSender<()>,
    task: JoinHandle<Digest>,
}

impl Hasher {
    /// Follows an attempt from the offset of `digest`.
    pub fn start(
        store: Store,
        spool: PathBuf,
        job: JobNumber,
        attempt: u32,
        digest: Digest,
    ) -> Self {
        let (seals, mut sealed) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut digest = digest;
            while sealed.recv().await.is_some() {
                digest = catch_up(&store, &spool, job, attempt, digest).await;
            }
            digest
        });
        Self { seals, task }
    }

    /// A segment has been sealed.
    pub fn sealed(&self) {
        // The task lives as long as this sender, so this fails only after a panic in it.
        let _ = self.seals.send(());
    }

    /// Ends the task after the seals that it knows of, and returns its digest; `None` if it panicked.
    pub async fn finish(self) -> Option<Digest> {
        drop(self.seals);
        self.task.await.ok()
    }
}

/// Hashes every sealed segment that follows `digest`.
async fn catch_up(
    store: &Store,
    spool: &Path,
    job: JobNumber,
    attempt: u32,
    mut digest: Digest,
) -> Digest {
    loop {
        let before = digest.clone();
        match next_segment(spool.to_owned(), job, attempt, digest).await {
            Ok((after, Some(row))) => {
                if let Err(error) = store.segment_read(row).await {
                    // Without a row, the segment is read again when the attempt ends.
                    tracing::warn!(job, attempt, %error, "a segment's row could not be stored");
                    return before;
                }
                digest = after;
            }
            Ok((after, None)) => return after,
            // The shim dropped it before it was read: this output will have no digest.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return before,
            Err(error) if is_sync_failure(&error) => {
                store.distrust(&error);
                return before;
            }
            Err(error) => {
                tracing::warn!(job, attempt, %error, "a segment could not be hashed");
                return before;
            }
        }
    }
}

async fn next_segment(
    spool: PathBuf,
    job: JobNumber,
    attempt: u32,
    mut digest: Digest,
) -> io::Result<(Digest, Option<SegmentRow>)> {
    blocking(move || {
        let first_offset = digest.offset();
        let row = digest.sealed_segment(&spool, job, attempt)?;
        if row.is_some() {
            let name = SegmentName {
                job,
                attempt,
                first_offset,
            };
            // The store must not know more than the disk: a row that outlives its segment in a power
            // loss would promise bytes that are gone. If the shim has synced it, this is cheap.
            sync_segment(&spool, name)?;
        }
        Ok((digest, row))
    })
    .await
}
