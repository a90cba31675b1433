//! Retention: removes final jobs, or their output alone, when a client asks for it and when a rule
//! says so (docs/design/retention.md).
//!
//! `selection` decides which jobs go, `removal` removes them in small steps, `space` returns what is
//! free then, `rounds` applies the rules.

mod removal;
mod rounds;
mod selection;
mod space;

use std::sync::atomic::AtomicBool;

use tokio::sync::{Mutex, Notify};

pub use self::selection::PruneOptions;
use self::selection::Selection;
use super::{Error, Executor};
use crate::{
    job::{JobNumber, RetentionRule},
    sys::clock,
};

/// When rules are applied. Each is a setting of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// So often, seconds.
    pub interval_s: u64,
    /// And each time that so many attempts have ended.
    pub after_ends: u64,
}

/// What retention keeps while the server runs.
#[derive(Debug)]
pub(super) struct RetentionRuns {
    settings: RetentionSettings,
    /// Held by a run: one removes at a time.
    running: Mutex<()>,
    /// Wakes the task that applies the rules.
    due: Notify,
    /// Something was deleted since the write-ahead log was last emptied.
    pub(super) has_deleted: AtomicBool,
}

impl RetentionRuns {
    pub(super) fn new(settings: RetentionSettings) -> Self {
        Self {
            settings,
            running: Mutex::default(),
            due: Notify::new(),
            has_deleted: AtomicBool::new(false),
        }
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many jobs.
    pub jobs: u64,
    /// Bytes of their stored output.
    pub bytes: u64,
    /// The first [`Pruned::LISTED_MAX`] of them, with the bytes of their stored output.
    pub listed: Vec<(JobNumber, u64)>,
}

impl Pruned {
    /// The most jobs that are listed; the others are counted.
    pub const LISTED_MAX: usize = 1000;
}

/// Dropped at the end of a run, also of one that was given up: the next round returns its space,
/// beside other work.
struct RoundAfter<'a>(&'a Notify);

impl Drop for RoundAfter<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Executor {
    /// Removes the jobs that `options` choose, or their output, or says what would be removed. The
    /// same jobs are chosen for both. Dropping the future ends it after the step that it is at.
    pub async fn prune(&self, options: PruneOptions) -> Result<Pruned, Error> {
        let retention = &self.inner.retention;
        let _alone = match options.dry_run {
            true => None,
            false => Some((retention.running.lock().await, RoundAfter(&retention.due))),
        };
        let mut selection = Selection::new(&options, clock::now());
        let mut pruned = Pruned::default();
        while let Some(page) = selection.next(&self.inner.store).await? {
            let removed = match options.dry_run {
                true => page,
                false => self.remove_all(options.scope, page).await?,
            };
            for job in removed {
                pruned.jobs += 1;
                pruned.bytes += job.stored_bytes;
                if pruned.listed.len() < Pruned::LISTED_MAX {
                    pruned.listed.push((job.number, job.stored_bytes));
                }
            }
        }
        if !options.dry_run {
            self.erase_log().await?;
        }
        Ok(pruned)
    }

    /// All rules, by name.
    pub async fn retention_rules(&self) -> Result<Vec<RetentionRule>, Error> {
        Ok(self.inner.store.retention_rules().await?)
    }

    /// Stores a rule, or replaces the one with its name. It is applied at once.
    pub async fn set_retention_rule(&self, rule: RetentionRule) -> Result<(), Error> {
        if self.ledger().set_retention_rule(rule).await? {
            self.inner.retention.due.notify_one();
            return Ok(());
        }
        let max = RetentionRule::COUNT_MAX;
        Err(Error::Limit {
            limit: "retention_rules_max".into(),
            message: format!("there are {max} rules, and no more will do; delete one first"),
        })
    }

    /// Deletes a rule.
    pub async fn delete_retention_rule(&self, name: &str) -> Result<(), Error> {
        match self.ledger().delete_retention_rule(name.to_owned()).await? {
            true => Ok(()),
            false => Err(Error::NotFound(format!(
                "there is no rule {name:?}; a list of the rules shows which there are"
            ))),
        }
    }
}
