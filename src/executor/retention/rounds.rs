//! Applies the rules: at the start, every few minutes, after many ends, and when a rule is set. Then
//! the space is returned. It also completes removals that a kill has interrupted.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::selection::{PruneOptions, Selection};
use crate::{
    executor::{Error, Executor},
    job::{Micros, RetentionCandidate, RetentionRule, RetentionScope},
    store::EndedCursor,
    sys::clock,
};

/// How long a rule whose jobs go by age may skip those that it has looked at. A clock that was set
/// back makes jobs end before others that have been looked at.
const SKIP_FOR: Duration = Duration::from_secs(24 * 3600);

/// How far a rule whose jobs go by age has come.
#[derive(Debug)]
struct RuleProgress {
    rule: RetentionRule,
    reached: EndedCursor,
    whole_at: Instant,
}

impl Executor {
    /// Applies the rules until the server stops.
    pub(in crate::executor) async fn apply_retention(self, stopping: CancellationToken) {
        stopping.run_until_cancelled(self.apply_for_ever()).await;
    }

    async fn apply_for_ever(&self) {
        let settings = self.inner.retention.settings;
        let mut ends = self.inner.store.ends();
        let mut progress = HashMap::new();
        loop {
            let has_rules = match self.round(&mut progress).await {
                Ok(has_rules) => has_rules,
                Err(Error::Stopping) => return,
                Err(error) => {
                    tracing::warn!(%error, "retention could not be applied now; it is tried again");
                    true
                }
            };
            let enough = ends.borrow_and_update().saturating_add(settings.after_ends);
            let due_at = Instant::now() + Duration::from_secs(settings.interval_s);
            tokio::select! {
                () = self.inner.retention.due.notified() => {}
                () = sleep_until(due_at) => {}
                _ = ends.wait_for(|ends| *ends >= enough), if has_rules => {}
            }
        }
    }

    /// Whether there are rules.
    async fn round(&self, progress: &mut HashMap<String, RuleProgress>) -> Result<bool, Error> {
        let alone = self.inner.retention.running.lock().await;
        self.complete_removals().await?;
        let rules = self.inner.store.retention_rules().await?;
        progress.retain(|name, _| rules.iter().any(|rule| rule.name == *name));
        let has_rules = !rules.is_empty();
        for rule in rules {
            self.apply(rule, progress).await?;
        }
        // Nobody has to wait for that.
        drop(alone);
        self.return_space().await?;
        Ok(has_rules)
    }

    /// Removes the rest of jobs that have lost a part.
    async fn complete_removals(&self) -> Result<(), Error> {
        for (number, scope) in self.inner.store.begun_removals().await? {
            let job = RetentionCandidate {
                number,
                finished_at: Micros(0),
                stored_bytes: 0,
            };
            self.remove_all(scope, vec![job]).await?;
        }
        Ok(())
    }

    async fn apply(
        &self,
        rule: RetentionRule,
        progress: &mut HashMap<String, RuleProgress>,
    ) -> Result<(), Error> {
        let options = PruneOptions {
            scope: rule.scope,
            filter: rule.filter.clone(),
            since: None,
            bounds: rule.bounds,
            dry_run: false,
        };
        let mut selection = Selection::new(&options, clock::now());
        let earlier = progress
            .get(&rule.name)
            .filter(|earlier| earlier.rule == rule && earlier.whole_at.elapsed() < SKIP_FOR);
        let mut whole_at = Instant::now();
        if let Some(earlier) = earlier {
            selection.skip_to(&earlier.reached);
            whole_at = earlier.whole_at;
        }
        let (mut jobs, mut bytes) = (0, 0);
        while let Some(page) = selection.next(&self.inner.store).await? {
            let removed = self.remove_all(rule.scope, page).await?;
            jobs += removed.len();
            bytes += removed.iter().map(|job| job.stored_bytes).sum::<u64>();
        }
        if jobs > 0 {
            let what = match rule.scope {
                RetentionScope::Jobs => "jobs",
                RetentionScope::Outputs => "outputs of jobs",
            };
            tracing::info!(
                rule = rule.name,
                jobs,
                bytes,
                "retention has removed {what}"
            );
        }
        if let Some(reached) = selection.reached().cloned() {
            let name = rule.name.clone();
            let now = RuleProgress {
                rule,
                reached,
                whole_at,
            };
            progress.insert(name, now);
        }
        Ok(())
    }
}
