//! Changes jobs that have not started, and deletes final ones. The store deletes a job's rows; its
//! segment files are unlinked here.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use super::{Actor, Error, Executor, judge::judge_change};
use crate::{
    job::{Job, JobChange, JobNumber, JobRef, Offset},
    spool::{SegmentName, dropped_range},
    store::{Deleted, DeletedJob, Updated},
};

impl Executor {
    /// Changes a job that has not started, and returns it.
    pub async fn update(
        &self,
        job: JobRef,
        mut change: JobChange,
        actor: &Actor,
    ) -> Result<Job, Error> {
        judge_change(&change, actor.principal())?;
        self.judge_change(job, &mut change, actor).await?;
        match self.ledger().update(job, change, actor).await? {
            Updated::Done(job) => {
                // It may precede other jobs now, or be in a queue with a free slot.
                self.inner.wakeup.wake();
                Ok(job)
            }
            Updated::Started(job) => Err(Error::Conflict(format!(
                "job {} is {}{}; only a job that has not started can be changed",
                job.number,
                job.state.name(),
                match job.state.is_final() || job.state.is_active() {
                    true => "",
                    false => " again after an attempt",
                }
            ))),
            Updated::UnknownQueue(queue) => Err(Error::no_such_queue(&queue)),
            Updated::QueueDrains(queue) => Err(Error::queue_drains(&queue)),
            Updated::NotFound => Err(Error::no_such_job(job)),
        }
    }

    /// Deletes a final job, its attempts, its output and its segment files; its events stay. Once
    /// begun it is completed, even if the future is dropped. If a kill interrupts it, the next
    /// start unlinks the rest.
    pub async fn delete(&self, job: JobRef) -> Result<(), Error> {
        let executor = self.clone();
        let whole = tokio::spawn(async move { executor.delete_whole(job).await });
        whole.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a deletion panicked");
            Err(Error::Internal(
                "the deletion failed; see the server's log".to_owned(),
            ))
        })
    }

    async fn delete_whole(&self, job: JobRef) -> Result<(), Error> {
        match self.ledger().delete(job).await? {
            Deleted::Done(deleted) => {
                let DeletedJob { job, segments } = *deleted;
                let number = job.number;
                let names = file_names(number, &segments);
                self.inner.hub.deleted(job);
                // The next round of retention returns its space.
                let has_deleted = &self.inner.retention.has_deleted;
                has_deleted.store(true, Ordering::Relaxed);
                let unlinker = &self.inner.supervisor.context().unlinker;
                if let Err(error) = unlinker.unlink(names).await {
                    tracing::warn!(job = number, %error, "a segment of a deleted job could not be \
                        unlinked; the next start tries again");
                }
                Ok(())
            }
            Deleted::NotFinal(job) => Err(Error::not_final(&job, "deleted")),
            Deleted::NotFound => Err(Error::no_such_job(job)),
        }
    }
}

/// The names of all files that a job may have in the spool.
pub(super) fn file_names(job: JobNumber, segments: &[(u32, Offset)]) -> BTreeSet<String> {
    let segment = |&(attempt, first_offset): &(u32, Offset)| {
        let name = SegmentName {
            job,
            attempt,
            first_offset,
        };
        [
            name.to_string(),
            dropped_range::draft_name(job, attempt),
            dropped_range::file_name(job, attempt),
        ]
    };
    segments.iter().flat_map(segment).collect()
}
