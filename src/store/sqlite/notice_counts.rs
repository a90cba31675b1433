//! How many notices wait and how many were given up, as of the last commit; and the wake-up of the
//! task that delivers them.
//!
//! Like `published_counts` for jobs: reading them costs no query.

use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::SqliteConnection;
use tokio::sync::Notify;

/// The counts after the last commit.
#[derive(Debug, Default)]
pub(in crate::store) struct NoticeCounts {
    waiting: AtomicI64,
    given_up: AtomicI64,
    due: Notify,
}

/// What a transaction changes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NoticesChanged {
    pub waiting: i64,
    pub given_up: i64,
    /// Whether one is due that was not.
    pub due: bool,
}

impl NoticesChanged {
    /// So many new ones wait.
    pub fn added(&mut self, notices: u64) {
        self.waiting += notices as i64;
        self.due |= notices > 0;
    }
}

impl NoticeCounts {
    /// Counts what is in the database.
    pub async fn load(conn: &mut SqliteConnection) -> sqlx::Result<Self> {
        let counted = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM notices WHERE state = 'waiting') AS "waiting!: i64",
                   (SELECT count(*) FROM notices WHERE state = 'given_up') AS "given_up!: i64""#
        )
        .fetch_one(conn)
        .await?;
        Ok(Self {
            waiting: counted.waiting.into(),
            given_up: counted.given_up.into(),
            due: Notify::new(),
        })
    }

    /// Adds what a transaction has changed, after its commit.
    pub(super) fn apply(&self, changed: NoticesChanged) {
        self.waiting.fetch_add(changed.waiting, Ordering::Relaxed);
        self.given_up.fetch_add(changed.given_up, Ordering::Relaxed);
        if changed.due {
            self.due.notify_one();
        }
    }

    /// How many wait for their delivery.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed).max(0) as u64
    }

    /// How many were given up and are still kept.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed).max(0) as u64
    }

    /// Returns when a notice has become due since the last call. There must be one caller at most.
    pub async fn due(&self) {
        self.due.notified().await;
    }
}
