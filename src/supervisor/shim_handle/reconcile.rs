//! Brings what the ledger says and what a shim says together, whenever a connection begins.

use std::{io, time::Duration};

use super::{ShimHandle, ShimTask, on_command::about};
use crate::{
    job::JobState,
    spool::{ShimState, ToShim},
    store::OpenAttempt,
    supervisor::{AttemptId, ShimEvent, connection::ShimConnection},
};

impl ShimHandle {
    /// Brings what the ledger says and what the shim says together. The shim is believed.
    pub(super) async fn reconcile(
        &mut self,
        connection: &mut ShimConnection,
        state: ShimState,
        open: Option<OpenAttempt>,
    ) -> io::Result<()> {
        if let (ShimTask::None, Some(open)) = (&self.task, &open) {
            self.task = ShimTask::watching(open);
        }
        let expected = self.task.open_key();
        match state {
            ShimState::Running {
                job,
                attempt,
                paused,
                ..
            } if expected == Some(AttemptId { job, attempt }) => {
                return self
                    .adopt(connection, AttemptId { job, attempt }, paused, open)
                    .await;
            }
            ShimState::Exited {
                job,
                attempt,
                facts,
                synced,
                reusable,
            } if expected == Some(AttemptId { job, attempt }) => {
                let reusable = reusable.unwrap_or(facts.survivors.is_empty());
                self.ended(*facts, synced, reusable).await;
                return Ok(());
            }
            // Its end is on its way into the ledger; the acknowledgement follows.
            ShimState::Exited { job, attempt, .. } if matches!(self.task, ShimTask::Ended(key) if key == AttemptId { job, attempt }) =>
            {
                return Ok(());
            }
            // Committed by an earlier server that could not say so any more.
            ShimState::Exited {
                job,
                attempt,
                facts,
                reusable,
                ..
            } => {
                connection.send(&ToShim::Release { job, attempt }).await?;
                let reusable = reusable.unwrap_or(facts.survivors.is_empty());
                self.free(expected, reusable);
            }
            ShimState::Idle => self.free(expected, true),
            ShimState::Retired => self.free(expected, false),
            ShimState::Running { job, attempt, .. } => {
                let shim = &self.offer.shim;
                tracing::error!(
                    job,
                    attempt,
                    shim,
                    "a shim runs what the ledger does not know"
                );
                self.free(expected, false);
            }
        }
        Ok(())
    }

    /// The shim has nothing to do, and is offered if it is `usable`. An attempt that was `expected`
    /// never ran: the command did not reach the shim, and never will, because it was discarded with
    /// the connection that it was on.
    pub(super) fn free(&mut self, expected: Option<AttemptId>, usable: bool) {
        self.free_after(expected, usable, Duration::ZERO);
    }

    /// The same, but the shim is to be left alone for so long.
    pub(super) fn free_after(
        &mut self,
        expected: Option<AttemptId>,
        usable: bool,
        pause: Duration,
    ) {
        self.task = ShimTask::None;
        // Its shim calls what it never had closed; that is not the job's answer.
        self.inputs.asked.clear();
        let again = std::mem::replace(&mut self.offered, usable);
        let offer = (usable && !again).then(|| self.offer.clone());
        match (expected, offer) {
            (Some(key), offer) => {
                self.registry.detach(key.job);
                self.emit(ShimEvent::NeverRan { key, offer, pause });
            }
            (None, Some(offer)) => self.emit(ShimEvent::Idle(offer)),
            (None, None) => {}
        }
    }

    /// Goes on with a running attempt: wishes are sent again, readers are woken. Its start is told
    /// behind the welcome, if there was one yet.
    pub(super) async fn adopt(
        &mut self,
        connection: &mut ShimConnection,
        key: AttemptId,
        paused: bool,
        open: Option<OpenAttempt>,
    ) -> io::Result<()> {
        tracing::info!(
            job = key.job,
            attempt = key.attempt,
            shim = self.offer.shim,
            "adopted a running job"
        );
        self.registry.attach(key, &self.offer.shim);
        let about = about(key);
        if let Some(open) = &open {
            if let Some(wish) = &open.stop {
                let wish = wish.clone();
                connection.send(&ToShim::Stop { about, wish }).await?;
            }
            if open.pause {
                connection.send(&ToShim::Pause { about }).await?;
            } else if paused || open.state == JobState::Paused {
                // Nobody else is let go on: a job may have stopped itself.
                connection.send(&ToShim::Resume { about }).await?;
            }
        }
        connection.send(&ToShim::Arm { about, offset: 0 }).await?;
        if let Some(watched) = self.task.watched() {
            watched.hasher(&self.ctx).sealed();
        }
        self.ctx.hub.grew(key.job, 0);
        Ok(())
    }
}
