//! The handle's methods for the audit trail.

use super::{
    audit_types::{AuditKeyRow, AuditPage, AuditWrite, EndedRow, PrunedTrail},
    handle::Store,
    sqlite::audit,
    types::StoreError,
    write::{Write, WriteResult},
};
use crate::{
    audit::{AuditEntry, ChainHead},
    job::{JobNumber, Micros},
};

impl Store {
    /// Adds entries of what has no other row. They share the commit of what else is written.
    pub async fn add_audit_entries(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        let write = Write::Audit(AuditWrite::Add(entries));
        self.write(write, |result| match result {
            WriteResult::Done => Some(()),
            _ => None,
        })
        .await
    }

    /// Removes the oldest entries that were made before `before`, as many as one transaction may; `None`: there are
    /// none.
    pub async fn prune_audit(&self, before: Micros) -> Result<Option<PrunedTrail>, StoreError> {
        let write = Write::Audit(AuditWrite::Prune(before));
        self.write(write, |result| match result {
            WriteResult::AuditPruned(pruned) => Some(pruned),
            _ => None,
        })
        .await
    }

    /// The last entry of the trail.
    pub async fn audit_head(&self) -> Result<ChainHead, StoreError> {
        let mut reader = self.inner.readers.acquire().await?;
        Ok(audit::head(&mut reader).await?)
    }

    /// The verifier's key that is in force and the one before it, newest first.
    pub async fn audit_last_keys(&self) -> Result<Vec<AuditKeyRow>, StoreError> {
        let mut reader = self.inner.readers.acquire().await?;
        Ok(audit::last_keys(&mut reader).await?)
    }

    /// Up to `limit` keys that were put in force after the entry `after`, and up to the entry `through`; oldest first.
    pub async fn audit_keys(
        &self,
        after: u64,
        through: u64,
        limit: u32,
    ) -> Result<Vec<AuditKeyRow>, StoreError> {
        let mut reader = self.inner.readers.acquire().await?;
        Ok(audit::keys(&mut reader, (after, through), limit).await?)
    }

    /// The number of the last entry before the first that was made at this time or later.
    pub async fn audit_before(&self, since: Micros) -> Result<u64, StoreError> {
        let mut reader = self.inner.readers.acquire().await?;
        Ok(audit::before(&mut reader, since).await?)
    }

    /// Up to `limit` entries after the entry `after`. What was pruned is left out.
    pub async fn audit_page(&self, after: u64, limit: u32) -> Result<AuditPage, StoreError> {
        let mut reader = self.inner.readers.acquire().await?;
        let page = audit::page(&mut reader, after, limit).await?;
        let follows = page
            .rows
            .first()
            .is_none_or(|row| row.seq == page.after.seq + 1);
        // If entries were pruned between two of its statements, the next look sees that.
        match follows {
            true => Ok(page),
            false => Ok(audit::page(&mut reader, after, limit).await?),
        }
    }

    /// What the rows of those of these jobs say that are final.
    pub async fn ended_rows(&self, jobs: &[JobNumber]) -> Result<Vec<EndedRow>, StoreError> {
        let mut reader = self.inner.readers.acquire().await?;
        Ok(audit::ended(&mut reader, jobs).await?)
    }

    /// Up to `limit` numbers of jobs after `after`, in order.
    pub async fn job_numbers(
        &self,
        after: JobNumber,
        limit: u32,
    ) -> Result<Vec<JobNumber>, StoreError> {
        let mut reader = self.inner.readers.acquire().await?;
        Ok(audit::job_numbers(&mut reader, after, limit).await?)
    }
}
