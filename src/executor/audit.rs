//! The audit trail of a running server: entries of what has no row of its own, refusals, old entries, and checkpoints
//! (docs/design/audit.md).
//!
//! The store writes the entries of everything else, in the transaction of the change itself.

mod key_file;
mod notary;
mod settings;
mod sink;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::notary::Notary;
pub use self::settings::{AuditSettings, CheckpointHealth};
use super::{Error, Executor};
use crate::{
    access::ClientOrigin,
    audit::{
        AuditEntry, RefusalTally,
        refusals::{FIRST_AFTER, RefusalKind},
    },
    config::CheckpointSink,
    job::Micros,
    store::{AuditKeyRow, AuditPage, Store, StoreError},
    sys::{clock, lock},
};

/// Time between two prunings.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// A day, µs.
const DAY_US: i64 = 86_400_000_000;
/// How long after a failure the next checkpoint is tried.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long a stop waits for the last checkpoint.
const LAST_WITHIN: Duration = Duration::from_millis(1500);

/// What the server keeps for the trail while it runs.
#[derive(Debug)]
pub(super) struct AuditRuns {
    settings: AuditSettings,
    refusals: Mutex<RefusalTally>,
    notary: tokio::sync::Mutex<Notary>,
    health: Mutex<CheckpointHealth>,
    /// Entries were pruned since the last checkpoint.
    pruned: Notify,
}

impl AuditRuns {
    pub fn new(settings: AuditSettings) -> Self {
        Self {
            refusals: Mutex::new(RefusalTally::new(settings.refusal_kinds_max)),
            notary: tokio::sync::Mutex::default(),
            health: Mutex::default(),
            pruned: Notify::new(),
            settings,
        }
    }
}

impl Executor {
    /// The same executor for a client: the audit trail names it with everything that it changes.
    pub fn by(&self, origin: Arc<ClientOrigin>) -> Self {
        Self {
            inner: self.inner.clone(),
            origin: Some(origin),
        }
    }

    /// The store for what is written for this executor's client.
    pub(super) fn ledger(&self) -> Store {
        match &self.origin {
            Some(origin) => self.inner.store.by(origin),
            None => self.inner.store.clone(),
        }
    }

    /// Adds an entry about something that has no other row. On a full disk the trail has to wait, as it does for a
    /// request to stop that cannot be stored: what the client asks for may make room.
    pub async fn note(
        &self,
        action: &'static str,
        target: Value,
        result: Value,
    ) -> Result<(), Error> {
        let origin = self.origin.clone();
        let origin = origin.unwrap_or_else(|| Arc::new(ClientOrigin::server()));
        let entry = AuditEntry::allowed(action, origin, target, result);
        match self.inner.store.add_audit_entries(vec![entry]).await {
            Err(StoreError::DiskFull) => {
                tracing::warn!(
                    action,
                    "the disk is full: the audit trail has no entry of this"
                );
                Ok(())
            }
            added => Ok(added?),
        }
    }

    /// Counts a refusal. It costs no commit: the counts are written by and by.
    pub fn count_refusal(&self, origin: ClientOrigin, action: &str, rule: &str) {
        let kind = RefusalKind {
            origin,
            action: action.to_owned(),
            rule: rule.to_owned(),
        };
        let now = std::time::Instant::now();
        lock(&self.inner.audit.refusals).count(kind, clock::now(), now);
    }

    /// Up to `limit` entries after the entry `after`; `since` leaves out those before a time.
    pub async fn audit_page(
        &self,
        after: u64,
        since: Option<Micros>,
        limit: u32,
    ) -> Result<AuditPage, Error> {
        let store = &self.inner.store;
        let after = match since {
            Some(since) => store.audit_before(since).await?.max(after),
            None => after,
        };
        Ok(store.audit_page(after, limit).await?)
    }

    /// Up to `limit` verifier's keys that were put in force after the entry `after` and up to the entry `through`.
    pub async fn audit_keys(
        &self,
        after: u64,
        through: u64,
        limit: u32,
    ) -> Result<Vec<AuditKeyRow>, Error> {
        Ok(self.inner.store.audit_keys(after, through, limit).await?)
    }

    /// The last checkpoint; `None`: none are made.
    pub fn checkpoint_health(&self) -> Option<CheckpointHealth> {
        let is_made = self.inner.audit.settings.sink != CheckpointSink::None;
        is_made.then(|| lock(&self.inner.audit.health).clone())
    }

    /// Adds what the start has put in force; the start itself has an entry with its epoch.
    pub(super) async fn note_start(&self) -> Result<(), Error> {
        if self.inner.supervisor.context().policy.is_none() {
            return Ok(());
        }
        self.note_policy("policy.load", &self.policy_status()).await
    }

    /// Writes refusals, prunes, and makes checkpoints, until the server stops. A checkpoint that takes long delays nothing
    /// else.
    pub(super) async fn keep_audit(self, stopping: CancellationToken) {
        let keeping = async { tokio::join!(self.keep_entries(), self.keep_checkpoints()) };
        stopping.run_until_cancelled(keeping).await;
    }

    async fn keep_entries(&self) {
        let mut prune_at = Instant::now();
        let mut looks = interval(FIRST_AFTER);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = looks.tick().await;
            let due = lock(&self.inner.audit.refusals).due(now.into_std());
            self.write_refusals(due).await;
            if now >= prune_at {
                self.prune_audit().await;
                prune_at = now + PRUNE_EVERY;
            }
        }
    }

    async fn keep_checkpoints(&self) {
        let audit = &self.inner.audit;
        let every = Duration::from_secs(audit.settings.checkpoint_s);
        loop {
            let pause = match self.checkpoint().await {
                true => every,
                false => every.min(RETRY_AFTER),
            };
            // What was pruned is confirmed by a checkpoint of the entry that says so.
            let _ = tokio::time::timeout(pause, audit.pruned.notified()).await;
        }
    }

    async fn write_refusals(&self, entries: Vec<AuditEntry>) {
        if entries.is_empty() {
            return;
        }
        let count = entries.len();
        if let Err(error) = self.inner.store.add_audit_entries(entries).await {
            tracing::warn!(%error, count, "refusals could not be written into the audit trail");
        }
    }

    async fn prune_audit(&self) {
        let Some(days) = self.inner.audit.settings.days else {
            return;
        };
        let age = i64::try_from(days)
            .unwrap_or(i64::MAX)
            .saturating_mul(DAY_US);
        let before = Micros(clock::now().0.saturating_sub(age));
        loop {
            match self.inner.store.prune_audit(before).await {
                Ok(Some(pruned)) => {
                    tracing::info!(
                        through = pruned.through,
                        "old entries of the audit trail are pruned"
                    );
                    self.inner.audit.pruned.notify_one();
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the audit trail could not be pruned now; it is tried again");
                    return;
                }
            }
        }
    }

    /// Makes a checkpoint if there are new entries; whether that has worked.
    async fn checkpoint(&self) -> bool {
        let audit = &self.inner.audit;
        if audit.settings.sink == CheckpointSink::None {
            return true;
        }
        let mut notary = audit.notary.lock().await;
        let ctx = self.inner.supervisor.context();
        let made = notary.checkpoint(
            &ctx.store,
            ctx.layout.root(),
            &ctx.instance,
            &audit.settings,
        );
        let made = made.await;
        let mut health = lock(&audit.health);
        match made {
            Ok(Some(head)) => {
                if health.error.is_some() {
                    tracing::info!("checkpoints of the audit trail are delivered again");
                }
                *health = CheckpointHealth {
                    entries: Some(head.seq),
                    at: Some(clock::now()),
                    error: None,
                };
                true
            }
            Ok(None) => true,
            Err(error) => {
                let error = error.to_string();
                if health.error.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "no checkpoint of the audit trail could be made; it is tried again"
                    );
                }
                health.error = Some(error);
                false
            }
        }
    }

    /// Writes what is left, and makes the last checkpoint.
    pub(super) async fn end_audit(&self) {
        let rest = lock(&self.inner.audit.refusals).rest();
        self.write_refusals(rest).await;
        let epoch = self.inner.supervisor.context().epoch;
        let target = json!({"instance": self.inner.supervisor.context().instance});
        if let Err(error) = self
            .note("server.stop", target, json!({"epoch": epoch}))
            .await
        {
            tracing::warn!(%error, "the stop could not be written into the audit trail");
        }
        if tokio::time::timeout(LAST_WITHIN, self.checkpoint())
            .await
            .is_err()
        {
            tracing::warn!("the last checkpoint of the audit trail took too long");
        }
    }
}
