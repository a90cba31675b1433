//! Passes commands on to the shim.

use std::io;

use tokio::sync::oneshot;

use super::{Flow, PendingPause, ShimHandle, ShimTask, task::WatchedAttempt};
use crate::{
    job::{Input, InputAnswer, Offset},
    spool::{AttemptRef, ToShim},
    supervisor::{
        AttemptId, AttemptWatch, connection::ShimConnection, earlier_lines::lines_before, policy,
        registry::ShimCommand, secrets, spec,
    },
};

/// Most commands that are kept for attempts that the shim was not given yet.
const EARLY_MAX: usize = 64;

impl ShimHandle {
    /// Executes one command.
    pub(super) async fn on_command(
        &mut self,
        connection: &mut ShimConnection,
        command: ShimCommand,
    ) -> io::Result<Flow> {
        match command {
            ShimCommand::Run(claim) => {
                let Some(lines_before) = lines_before(&self.ctx, &claim).await else {
                    // The server stops. The attempt never ran, and the next server rescues it.
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
                self.unrecorded = None;
                self.registry.attach(key, &self.offer.shim);
                let mut spec = spec::run_spec(
                    &claim,
                    lines_before,
                    &self.ctx.bounds,
                    &self.ctx.instance,
                    self.ctx.layout.root(),
                );
                spec.cgroup = self.ctx.isolation.group_of(key.job, key.attempt);
                if let Some(guard) = &self.ctx.policy {
                    policy::apply(&mut spec, guard, &claim).await;
                }
                secrets::resolve(&mut spec, &self.ctx.secrets, &claim).await;
                if !spec.secret_env.is_empty() && !self.takes_secrets {
                    return Err(self.dismiss_without_secrets(connection, key).await?);
                }
                connection.send(&ToShim::Run(Box::new(spec))).await?;
                connection
                    .send(&ToShim::Arm {
                        about: about(key),
                        offset: claim.start_offset,
                    })
                    .await?;
                self.ctx.hub.changed(key.job);
                // Commands about other attempts came too late.
                let early = std::mem::take(&mut self.early).into_iter();
                for command in early.filter(|command| command.key() == Some(key)) {
                    self.on_attempt_command(connection, command).await?;
                }
            }
            ShimCommand::Release => {
                if let ShimTask::Ended(AttemptId { job, attempt }) = self.task {
                    // If the message is lost, the shim reports the end again.
                    self.task = ShimTask::None;
                    connection.send(&ToShim::Release { job, attempt }).await?;
                }
            }
            ShimCommand::Leave => {
                connection.send(&ToShim::Leave).await?;
                return Ok(Flow::Left);
            }
            command => self.on_attempt_command(connection, command).await?,
        }
        Ok(Flow::Continue)
    }

    /// The shim is of a version before secrets: it would start the job without them. It is sent away, and
    /// the attempt is rescued like that of a shim that died before it was given one.
    async fn dismiss_without_secrets(
        &self,
        connection: &mut ShimConnection,
        key: AttemptId,
    ) -> io::Result<io::Error> {
        let AttemptId { job, attempt } = key;
        tracing::warn!(
            job,
            attempt,
            shim = self.offer.shim,
            version = self.offer.version,
            "a shim of an earlier version takes no secrets and is sent away; the job waits for another one"
        );
        connection.send(&ToShim::Leave).await?;
        Ok(io::Error::other("it takes no secrets"))
    }

    /// Passes a command about one attempt on, or keeps it until the shim is given that attempt.
    pub(super) async fn on_attempt_command(
        &mut self,
        connection: &mut ShimConnection,
        command: ShimCommand,
    ) -> io::Result<()> {
        let current = self.task.key();
        match command {
            ShimCommand::Stop(key, _)
            | ShimCommand::Pause { key, .. }
            | ShimCommand::Input { key, .. }
                if Some(key) != current =>
            {
                self.keep_early(command);
            }
            ShimCommand::Stop(key, request) => {
                connection.wake_if_stopped();
                let about = about(key);
                connection.send(&ToShim::Stop { about, request }).await?;
            }
            ShimCommand::Pause {
                key,
                pause,
                actor,
                done,
            } => {
                connection.wake_if_stopped();
                self.pauses.push(PendingPause { pause, actor, done });
                let about = about(key);
                let message = match pause {
                    true => ToShim::Pause { about },
                    false => ToShim::Resume { about },
                };
                connection.send(&message).await?;
            }
            ShimCommand::Input { done, .. } if self.task.open_key().is_none() => {
                let _ = done.send(InputAnswer::Closed);
            }
            ShimCommand::Input { key, input, done } => {
                // The bytes are gone if the client no longer waits.
                if let Some(input) = input.upgrade() {
                    self.send_input(connection, key, &input, done).await?;
                }
            }
            ShimCommand::LastSign { key, done } => {
                // Without an answer, what the server knows by itself counts.
                if Some(key) == self.task.open_key() && self.tells_last_sign {
                    connection.wake_if_stopped();
                    self.last_signs.push_back(done);
                    let about = about(key);
                    connection.send(&ToShim::AskLastSign { about }).await?;
                }
            }
            // The client no longer waits: it was told that the signal failed, and may send another.
            ShimCommand::Signal { done, .. } if done.is_closed() => {}
            // Its attempt has ended meanwhile, and no other may get the signal.
            ShimCommand::Signal { key, .. } if Some(key) != current => {}
            ShimCommand::Signal { key, signal, done } => {
                connection.wake_if_stopped();
                let about = about(key);
                connection.send(&ToShim::Signal { about, signal }).await?;
                let _ = done.send(());
            }
            ShimCommand::Run(_) | ShimCommand::Release | ShimCommand::Leave => {}
        }
        Ok(())
    }

    /// Keeps a command about an attempt that the shim was not given yet. Only commands that are
    /// sent between a claim and its run are early. The oldest is dropped first: it is more likely
    /// about an attempt that has ended.
    pub(super) fn keep_early(&mut self, command: ShimCommand) {
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(command);
    }

    async fn send_input(
        &mut self,
        connection: &mut ShimConnection,
        AttemptId { job, attempt }: AttemptId,
        input: &Input,
        done: oneshot::Sender<InputAnswer>,
    ) -> io::Result<()> {
        let request = self.inputs.next;
        self.inputs.next += 1;
        self.inputs.pending.insert(request, done);
        connection.wake_if_stopped();
        let message = ToShim::Input {
            job,
            attempt,
            request,
            input: input.clone(),
        };
        connection.send(&message).await
    }

    /// Asks the shim to report output beyond `offset`, so that readers are woken.
    pub(super) async fn arm(
        &mut self,
        connection: &mut ShimConnection,
        offset: Offset,
    ) -> io::Result<()> {
        // Readers of an ended attempt are woken by its commit.
        let Some(key) = self.task.open_key() else {
            return Ok(());
        };
        let about = about(key);
        connection.send(&ToShim::Arm { about, offset }).await
    }
}

/// The attempt as the shim protocol names it.
pub(super) fn about(AttemptId { job, attempt }: AttemptId) -> AttemptRef {
    AttemptRef::attempt(job, attempt)
}
