//! Compares what the database says with what a shim says, whenever a connection begins.

use std::{io, time::Duration};

use super::{ShimHandle, ShimTask, on_command::about};
use crate::{
    job::JobState,
    spool::{ShimState, ToShim},
    store::OpenAttempt,
    supervisor::{AttemptId, ShimEvent, connection::ShimConnection},
};

impl ShimHandle {
    /// Compares the open attempt with the shim's state, and acts on it. Where they differ, the shim
    /// is right.
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
            // Its end is being committed; the acknowledgement follows.
            ShimState::Exited { job, attempt, .. } if matches!(self.task, ShimTask::Ended(key) if key == AttemptId { job, attempt }) =>
            {
                return Ok(());
            }
            // Committed by an earlier server that ended before it could acknowledge it.
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
                    "a shim runs an attempt that the database does not know"
                );
                self.free(expected, false);
            }
        }
        Ok(())
    }

    /// The shim has nothing to do, and is offered if it is `usable`. An attempt that was `expected`
    /// never ran: its command was lost with the connection, so it cannot arrive later.
    pub(super) fn free(&mut self, expected: Option<AttemptId>, usable: bool) {
        self.free_after(expected, usable, Duration::ZERO);
    }

    /// The same, but the shim gets no work during the pause.
    pub(super) fn free_after(
        &mut self,
        expected: Option<AttemptId>,
        usable: bool,
        pause: Duration,
    ) {
        self.task = ShimTask::None;
        // The shim answers that the stdin of an unknown attempt is closed. That is not the job's
        // answer.
        self.inputs.pending.clear();
        self.last_signs.clear();
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

    /// Goes on with a running attempt: sends the committed requests again and wakes readers. The
    /// shim reports the start after the welcome, if the attempt has started.
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
            if let Some(request) = &open.stop {
                let request = request.clone();
                connection.send(&ToShim::Stop { about, request }).await?;
            }
            if open.pause {
                connection.send(&ToShim::Pause { about }).await?;
            } else if paused || open.state == JobState::Paused {
                // Only what the server paused is resumed: a job may have stopped itself.
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
