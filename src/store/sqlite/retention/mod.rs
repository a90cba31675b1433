//! Retention in the database: its rules, which jobs may go, their removal in small transactions,
//! and the space that is free then. Which jobs go is decided by the caller.

pub(in crate::store) mod reclaim;
mod remove;
pub(in crate::store) mod rules;
pub(in crate::store) mod select;
mod trim;

use super::job_snapshot::WriteBatch;
use crate::store::retention_types::{RetentionWrite, RetentionWritten};

/// Executes one write.
pub(super) async fn execute(
    batch: &mut WriteBatch<'_>,
    write: &RetentionWrite,
) -> sqlx::Result<RetentionWritten> {
    Ok(match write {
        RetentionWrite::SetRule(rule) => {
            RetentionWritten::RuleSet(rules::set(batch.conn, rule).await?)
        }
        RetentionWrite::DeleteRule(name) => {
            RetentionWritten::RuleDeleted(rules::delete(batch.conn, name).await?)
        }
        RetentionWrite::Remove(scope, numbers) => {
            RetentionWritten::Removed(remove::remove(batch, *scope, numbers).await?)
        }
        RetentionWrite::Reclaim(pages) => {
            RetentionWritten::Reclaimed(reclaim::reclaim(batch.conn, *pages).await?)
        }
    })
}
