//! Removes chosen jobs, or their output, in small steps: rows first, in a transaction, then files.
//!
//! Between two steps other writes have their turn.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    executor::{Error, Executor, change::file_names},
    job::{Job, JobNumber, RetentionCandidate, RetentionScope},
    store::Removed,
};

/// The most jobs of one step; the store may take fewer.
const STEP_JOBS: usize = 16;
/// The longest pause between two steps. It is as long as the step was, so that removals take at most
/// half of the writer's time.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Pauses for as long as the work since `began` has taken.
pub(super) async fn pause_after(began: Instant) {
    let took = began.elapsed().min(PAUSE_MAX);
    sleep_until(Instant::now() + took).await;
}

impl Executor {
    /// Removes these jobs, or their output; returns those that were there.
    pub(super) async fn remove_all(
        &self,
        scope: RetentionScope,
        chosen: Vec<RetentionCandidate>,
    ) -> Result<Vec<RetentionCandidate>, Error> {
        let by_number: BTreeMap<JobNumber, RetentionCandidate> =
            chosen.iter().map(|job| (job.number, *job)).collect();
        let mut left: Vec<JobNumber> = chosen.iter().map(|job| job.number).collect();
        let mut removed = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let began = Instant::now();
            let later = left.split_off(left.len().min(STEP_JOBS));
            let step = self.remove_step(scope, left).await?;
            removed.extend(step.jobs.iter().filter_map(|number| by_number.get(number)));
            left = step.left;
            left.extend(later);
            pause_after(began).await;
        }
        Ok(removed)
    }

    /// One step. Once begun it is completed, even if the future is dropped. If a kill interrupts it,
    /// the next start unlinks the files.
    async fn remove_step(
        &self,
        scope: RetentionScope,
        numbers: Vec<JobNumber>,
    ) -> Result<Removed, Error> {
        let executor = self.clone();
        let whole = tokio::spawn(async move { executor.remove_whole(scope, numbers).await });
        whole.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a removal panicked");
            Err(Error::Internal(
                "the removal failed; see the server's log".to_owned(),
            ))
        })
    }

    async fn remove_whole(
        &self,
        scope: RetentionScope,
        numbers: Vec<JobNumber>,
    ) -> Result<Removed, Error> {
        let store = &self.inner.store;
        // Readers of a deleted job get its last view. A final job does not change, so it is read
        // before the writer is needed.
        let views = store.jobs(&numbers).await?;
        let mut views: BTreeMap<JobNumber, Job> =
            views.into_iter().map(|job| (job.number, job)).collect();
        // What is missing was deleted meanwhile, or did not fit on the page and is read next time.
        let (now, later): (Vec<_>, Vec<_>) = numbers
            .into_iter()
            .partition(|number| views.contains_key(number));
        if now.is_empty() {
            return Ok(Removed::default());
        }
        let mut removed = self.ledger().remove(scope, now).await?;
        removed.left.extend(later);
        self.inner
            .retention
            .has_deleted
            .store(true, Ordering::Relaxed);
        if scope == RetentionScope::Jobs {
            for number in &removed.jobs {
                if let Some(job) = views.remove(number) {
                    self.inner.hub.deleted(job);
                }
            }
        }
        let segments = removed.segments.iter();
        let names: Vec<String> = segments
            .flat_map(|(number, segments)| file_names(*number, segments))
            .collect();
        let unlinker = &self.inner.supervisor.context().unlinker;
        if let Err(error) = unlinker.unlink(names).await {
            tracing::warn!(%error, "a segment of a removed output could not be unlinked; the next \
                start tries again");
        }
        Ok(removed)
    }
}
