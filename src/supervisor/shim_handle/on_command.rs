//! Passes the server's commands on to the shim.

use std::io;

use tokio::sync::oneshot;

use super::{Flow, PauseAsked, ShimHandle, ShimTask, task::WatchedAttempt};
use crate::{
    job::{Input, InputAnswer, Offset},
    spool::{AttemptRef, ToShim},
    supervisor::{
        AttemptId, AttemptWatch, connection::ShimConnection, earlier_lines::lines_before,
        registry::Command, spec,
    },
};

/// Most commands that are kept for an attempt that the shim has not been given yet.
const EARLY_MAX: usize = 64;

impl ShimHandle {
    /// Does what the server wants.
    pub(super) async fn on_command(
        &mut self,
        connection: &mut ShimConnection,
        command: Command,
    ) -> io::Result<Flow> {
        match command {
            Command::Run(claim) => {
                let Some(lines_before) = lines_before(&self.ctx, &claim).await else {
                    // Nobody has run it: the next server takes it back.
                    return Ok(Flow::Continue);
                };
                let key = AttemptId::of_claim(&claim);
                let watch = AttemptWatch::of_claim(&claim);
                self.offered = false;
                self.task = ShimTask::Attempt(Box::new(WatchedAttempt {
                    watch,
                    hasher: None,
                }));
                self.pauses.clear();
                self.unentered = None;
                self.registry.attach(key, &self.offer.shim);
                let spec = spec::run_spec(
                    &claim,
                    lines_before,
                    &self.ctx.bounds,
                    &self.ctx.instance,
                    self.ctx.layout.root(),
                );
                connection.send(&ToShim::Run(Box::new(spec))).await?;
                connection
                    .send(&ToShim::Arm {
                        about: about(key),
                        offset: claim.start_offset,
                    })
                    .await?;
                self.ctx.hub.changed(key.job);
                // Those about another attempt came too late for it.
                let early = std::mem::take(&mut self.early).into_iter();
                for command in early.filter(|command| command.key() == Some(key)) {
                    self.on_attempt_command(connection, command).await?;
                }
            }
            Command::Release => {
                if let ShimTask::Ended(AttemptId { job, attempt }) = self.task {
                    // First forgotten, then told: a shim that does not hear it says so again.
                    self.task = ShimTask::None;
                    connection.send(&ToShim::Release { job, attempt }).await?;
                }
            }
            Command::Leave => {
                connection.send(&ToShim::Leave).await?;
                return Ok(Flow::Left);
            }
            command => self.on_attempt_command(connection, command).await?,
        }
        Ok(Flow::Continue)
    }

    /// Passes on what concerns one attempt, or keeps it until the shim is given that attempt.
    pub(super) async fn on_attempt_command(
        &mut self,
        connection: &mut ShimConnection,
        command: Command,
    ) -> io::Result<()> {
        let current = self.task.key();
        match command {
            Command::Stop(key, _) | Command::Pause { key, .. } | Command::Input { key, .. }
                if Some(key) != current =>
            {
                self.keep_early(command);
            }
            Command::Stop(key, wish) => {
                connection.wake_if_stopped();
                let about = about(key);
                connection.send(&ToShim::Stop { about, wish }).await?;
            }
            Command::Pause {
                key,
                pause,
                actor,
                done,
            } => {
                connection.wake_if_stopped();
                self.pauses.push(PauseAsked { pause, actor, done });
                let about = about(key);
                let message = match pause {
                    true => ToShim::Pause { about },
                    false => ToShim::Resume { about },
                };
                connection.send(&message).await?;
            }
            Command::Input { done, .. } if self.task.open_key().is_none() => {
                let _ = done.send(InputAnswer::Closed);
            }
            Command::Input { key, input, done } => {
                // Whoever has stopped waiting has taken the bytes along.
                if let Some(input) = input.upgrade() {
                    self.pass_on(connection, key, &input, done).await?;
                }
            }
            // Whoever has stopped waiting was told that it failed, and may try again.
            Command::Signal { done, .. } if done.is_closed() => {}
            // It was for an attempt that has ended meanwhile, and is for no other.
            Command::Signal { key, .. } if Some(key) != current => {}
            Command::Signal { key, signal, done } => {
                connection.wake_if_stopped();
                let about = about(key);
                connection.send(&ToShim::Signal { about, signal }).await?;
                let _ = done.send(());
            }
            Command::Run(_) | Command::Release | Command::Leave => {}
        }
        Ok(())
    }

    /// Keeps what concerns an attempt that the shim has not been given yet. Only what is in flight
    /// between a claim and its run can be early; the older ones are more likely about attempts that
    /// have ended.
    pub(super) fn keep_early(&mut self, command: Command) {
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(command);
    }

    async fn pass_on(
        &mut self,
        connection: &mut ShimConnection,
        AttemptId { job, attempt }: AttemptId,
        input: &Input,
        done: oneshot::Sender<InputAnswer>,
    ) -> io::Result<()> {
        let request = self.inputs.next;
        self.inputs.next += 1;
        self.inputs.asked.insert(request, done);
        connection.wake_if_stopped();
        let message = ToShim::Input {
            job,
            attempt,
            request,
            input: input.clone(),
        };
        connection.send(&message).await
    }

    /// Has the readers woken when there is output behind `offset`.
    pub(super) async fn arm(
        &mut self,
        connection: &mut ShimConnection,
        offset: Offset,
    ) -> io::Result<()> {
        // Whoever waits for output of an ended attempt is woken by its commit.
        let Some(key) = self.task.open_key() else {
            return Ok(());
        };
        let about = about(key);
        connection.send(&ToShim::Arm { about, offset }).await
    }
}

/// The same attempt in a shim's words.
pub(super) fn about(AttemptId { job, attempt }: AttemptId) -> AttemptRef {
    AttemptRef::attempt(job, attempt)
}
