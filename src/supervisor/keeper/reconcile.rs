//! Brings what the ledger says and what a shim says together, whenever a connection begins.

use std::io;

use super::{Keeper, Task};
use crate::{
    job::{JobState, Micros},
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
        let expected = self.task.open_key();
        match state {
            ShimState::Running {
                job,
                attempt,
                paused,
                started_at_us,
                ..
            } if expected == Some(Key { job, attempt }) => {
                return self
                    .adopt(
                        connection,
                        Key { job, attempt },
                        paused,
                        started_at_us,
                        open,
                    )
                    .await;
            }
            ShimState::Exited {
                job,
                attempt,
                facts,
                synced,
            } if expected == Some(Key { job, attempt }) => {
                let reusable = facts.survivors.is_empty();
                self.ended(*facts, synced, reusable).await;
                return Ok(());
            }
            // Its end is on its way into the ledger; the acknowledgement follows.
            ShimState::Exited { job, attempt, .. } if matches!(self.task, Task::Ended(key) if key == Key { job, attempt }) =>
            {
                return Ok(());
            }
            // Committed by an earlier server that could not say so any more.
            ShimState::Exited {
                job,
                attempt,
                facts,
                ..
            } => {
                connection.send(&ToShim::Release { job, attempt }).await?;
                self.never_ran(expected);
                if facts.survivors.is_empty() {
                    self.idle();
                }
            }
            ShimState::Idle => {
                self.never_ran(expected);
                self.idle();
            }
            ShimState::Retired => self.never_ran(expected),
            ShimState::Running { job, attempt, .. } => {
                let shim = &self.offer.shim;
                tracing::error!(
                    job,
                    attempt,
                    shim,
                    "a shim runs what the ledger does not know"
                );
                self.never_ran(expected);
            }
        }
        Ok(())
    }

    /// The order to run this attempt did not reach the shim, and never will: it was discarded with
    /// the connection that it was on.
    fn never_ran(&mut self, expected: Option<Key>) {
        if let Some(key) = expected {
            self.registry.detach(key.job);
            self.task = Task::None;
            self.tell(ShimEvent::NeverRan(key));
        }
    }

    pub(super) fn idle(&mut self) {
        self.task = Task::None;
        if !std::mem::replace(&mut self.free, true) {
            self.tell(ShimEvent::Idle(self.offer.clone()));
        }
    }

    /// Goes on with a running attempt: wishes are sent again, readers are woken.
    pub(super) async fn adopt(
        &mut self,
        connection: &mut Connection,
        key: Key,
        paused: bool,
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
            // One that waits for room, or is on its way to exec, tells its start when it comes.
            if open.started_at.is_none() && started_at_us > 0 {
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
            if open.pause {
                connection.send(&ToShim::Pause).await?;
            } else if paused || open.state == JobState::Paused {
                // Nobody else is let go on: a job may have stopped itself.
                connection.send(&ToShim::Resume).await?;
            }
        }
        connection.send(&ToShim::Arm { offset: 0 }).await?;
        if let Some(watched) = self.task.watched() {
            watched.hasher(&self.ctx).sealed();
        }
        self.ctx.hub.grew(key.job);
        Ok(())
    }
}
