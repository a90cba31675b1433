//! The handle's methods for retention: its rules, the removal of jobs in small writes, the space
//! that is free then, and what takes the space.

use tokio::sync::{oneshot, watch};

use super::{
    Store, StoreError,
    retention_types::{
        EndedCursor, FreePages, LabelCursor, LabelStep, RemovableFilter, RemovablePage, Removed,
        RetentionWrite, RetentionWritten, UsageStep,
    },
    sqlite::{
        list,
        retention::{reclaim, rules, select},
        usage,
        writer::WriterRequest,
    },
    write::{Write, WriteResult},
};
use crate::job::{Job, JobNumber, RetentionRule, RetentionScope};

impl Store {
    /// All rules, by name.
    pub async fn retention_rules(&self) -> Result<Vec<RetentionRule>, StoreError> {
        Ok(rules::all(&self.inner.readers).await?)
    }

    /// Stores a rule, or replaces the one with its name. False where there are
    /// [`RetentionRule::COUNT_MAX`] others.
    pub async fn set_retention_rule(&self, rule: RetentionRule) -> Result<bool, StoreError> {
        let write = RetentionWrite::SetRule(rule);
        self.retention_write(write, |written| match written {
            RetentionWritten::RuleSet(set) => Some(set),
            _ => None,
        })
        .await
    }

    /// Deletes the rule with this name; false where there is none.
    pub async fn delete_retention_rule(&self, name: String) -> Result<bool, StoreError> {
        let write = RetentionWrite::DeleteRule(name);
        self.retention_write(write, |written| match written {
            RetentionWritten::RuleDeleted(deleted) => Some(deleted),
            _ => None,
        })
        .await
    }

    // The looks at many jobs take their turns among the lists (the semaphore is never closed).

    /// A page of jobs that may be removed, with numbers below `below`, the newest first.
    pub async fn removable_newest_first(
        &self,
        filter: &RemovableFilter,
        below: Option<JobNumber>,
    ) -> Result<RemovablePage<JobNumber>, StoreError> {
        let _turn = self.inner.lists.acquire().await;
        Ok(select::newest_first(&self.inner.readers, filter, below).await?)
    }

    /// A page of jobs that may be removed, those first that ended first.
    pub async fn removable_oldest_first(
        &self,
        filter: &RemovableFilter,
        after: &EndedCursor,
    ) -> Result<RemovablePage<EndedCursor>, StoreError> {
        let _turn = self.inner.lists.acquire().await;
        Ok(select::oldest_first(&self.inner.readers, filter, after).await?)
    }

    /// Removes the first of these final jobs, as many as a short transaction may. The caller unlinks
    /// the files of what was removed, and calls again with what is left; a start unlinks files that
    /// no row names, and goes on with a job that has lost only a part.
    pub async fn remove(
        &self,
        scope: RetentionScope,
        numbers: Vec<JobNumber>,
    ) -> Result<Removed, StoreError> {
        let write = RetentionWrite::Remove(scope, numbers);
        self.retention_write(write, |written| match written {
            RetentionWritten::Removed(removed) => Some(removed),
            _ => None,
        })
        .await
    }

    /// Jobs of which a removal has removed only a part.
    pub async fn begun_removals(&self) -> Result<Vec<(JobNumber, RetentionScope)>, StoreError> {
        Ok(rules::begun(&self.inner.readers).await?)
    }

    /// Jobs with these numbers, as many as a page may have. Numbers that no job has are missing.
    pub async fn jobs(&self, numbers: &[JobNumber]) -> Result<Vec<Job>, StoreError> {
        Ok(list::jobs(&self.inner.readers, numbers).await?)
    }

    /// Returns up to so many free pages to the file system, and says how many are left.
    pub async fn reclaim(&self, pages: u32) -> Result<FreePages, StoreError> {
        let write = RetentionWrite::Reclaim(pages);
        self.retention_write(write, |written| match written {
            RetentionWritten::Reclaimed(free) => Some(free),
            _ => None,
        })
        .await
    }

    /// How much of the database's file is free.
    pub async fn free_pages(&self) -> Result<FreePages, StoreError> {
        let mut reader = self.inner.readers.acquire().await?;
        Ok(reclaim::free_pages(&mut reader).await?)
    }

    /// Copies the write-ahead log into the database and empties its file: nothing that was deleted
    /// is left there. False where a reader prevents it now.
    pub async fn empty_log(&self) -> Result<bool, StoreError> {
        let (reply, emptied) = oneshot::channel();
        let request = WriterRequest::EmptyLog(reply);
        let sent = self.inner.requests.send(request).await;
        sent.map_err(|_| StoreError::Stopping)?;
        emptied.await.map_err(|_| StoreError::Stopping)
    }

    /// How many attempts have ended since the server started.
    pub fn ends(&self) -> watch::Receiver<u64> {
        self.inner.ends.subscribe()
    }

    /// What the jobs with numbers above `after`, up to `to`, store; with the `top` largest of them.
    pub async fn usage_of_jobs(
        &self,
        after: JobNumber,
        to: JobNumber,
        top: u32,
    ) -> Result<UsageStep, StoreError> {
        let _turn = self.inner.lists.acquire().await;
        Ok(usage::of_jobs(&self.inner.readers, after, to, top).await?)
    }

    /// What the jobs of the next few thousand labels after `after` store.
    pub async fn usage_of_labels(&self, after: &LabelCursor) -> Result<LabelStep, StoreError> {
        let _turn = self.inner.lists.acquire().await;
        Ok(usage::of_labels(&self.inner.readers, after).await?)
    }

    async fn retention_write<T>(
        &self,
        write: RetentionWrite,
        pick: fn(RetentionWritten) -> Option<T>,
    ) -> Result<T, StoreError> {
        let written = self.write(Write::Retention(write), |result| match result {
            WriteResult::Retention(written) => Some(written),
            _ => None,
        });
        pick(written.await?).ok_or(StoreError::WrongAnswer)
    }
}
