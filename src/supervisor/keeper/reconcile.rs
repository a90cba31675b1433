//! Brings what the ledger says and what a shim says together, whenever a connection begins.

use std::io;

use super::{Keeper, Task};
use crate::{
    job::Micros,
    spool::{ShimState, ToShim},
    store::{OpenAttempt, Started},
    supervisor::{Key, ShimEvent, connection::Connection},
};

impl Keeper {
    /// Brings what the ledger says and what the shim says together. The shim is believed.
    pub(super) async fn reconcile(
        &mut self,
        connection: &mut Connection,
        state: ShimState,
        open: Option<OpenAttempt>,
    ) -> io::Result<()> {
        if let (Task::None, Some(open)) = (&self.task, &open) {
            self.task = Task::watching(open);
        }
        match (state, self.task.open_key()) {
            (
                ShimState::Running {
                    job,
                    attempt,
                    started_at_us,
                    ..
                },
                Some(key),
            ) if key == (Key { job, attempt }) => {
                self.adopt(connection, key, started_at_us, open).await
            }
            (
                ShimState::Exited {
                    job,
                    attempt,
                    facts,
                    synced,
                },
                Some(key),
            ) if key == (Key { job, attempt }) => {
                self.ended(*facts, synced, true).await;
                Ok(())
            }
            (ShimState::Exited { job, attempt, .. }, None) => {
                // Committed by an earlier server that could not say so any more; or its end is on
                // its way, and the acknowledgement will follow.
                if !matches!(self.task, Task::Ended(_)) {
                    connection.send(&ToShim::Release { job, attempt }).await?;
                    self.idle();
                }
                Ok(())
            }
            // A finish and the next claim share a transaction: a server that was killed right
            // behind it could neither acknowledge the one nor send the other.
            (ShimState::Exited { job, attempt, .. }, Some(key)) => {
                connection.send(&ToShim::Release { job, attempt }).await?;
                self.never_ran(Some(key));
                Ok(())
            }
            (ShimState::Idle, expected) => {
                self.never_ran(expected);
                Ok(())
            }
            (ShimState::Retired, None) => Ok(()),
            (state, expected) => {
                tracing::error!(
                    shim = self.offer.shim,
                    ?state,
                    ?expected,
                    "a shim does something else than the ledger says"
                );
                Ok(())
            }
        }
    }

    /// The shim is idle and knows nothing of the attempt that the ledger gave it.
    fn never_ran(&mut self, expected: Option<Key>) {
        if let Some(key) = expected {
            self.registry.detach(key.job);
            self.tell(ShimEvent::NeverRan(key));
        }
        self.idle();
    }

    pub(super) fn idle(&mut self) {
        self.task = Task::None;
        self.tell(ShimEvent::Idle(self.offer.clone()));
    }

    /// Goes on with a running attempt: wishes are sent again, readers are woken.
    pub(super) async fn adopt(
        &mut self,
        connection: &mut Connection,
        key: Key,
        started_at_us: i64,
        open: Option<OpenAttempt>,
    ) -> io::Result<()> {
        tracing::info!(
            job = key.job,
            attempt = key.attempt,
            shim = self.offer.shim,
            "adopted a running job"
        );
        self.registry.attach(key.job, &self.offer.shim);
        if let Some(open) = &open {
            if open.started_at.is_none() {
                let started = Started {
                    number: key.job,
                    attempt: key.attempt,
                    pid: open.pid.unwrap_or_default(),
                    start_ticks: open.start_ticks.unwrap_or_default(),
                    at: Micros(started_at_us),
                };
                self.commit_start(started);
            }
            if let Some(wish) = &open.stop {
                connection.send(&ToShim::Stop(wish.clone())).await?;
            }
            let pause = if open.pause {
                ToShim::Pause
            } else {
                ToShim::Resume
            };
            connection.send(&pause).await?;
        }
        connection.send(&ToShim::Arm { offset: 0 }).await?;
        if let Some(watched) = self.task.watched() {
            watched.hasher(&self.ctx).sealed();
        }
        self.ctx.hub.grew(key.job);
        Ok(())
    }
}
