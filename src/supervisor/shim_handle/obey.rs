//! Passes the server's orders on to the shim.

use std::io;

use tokio::sync::oneshot;

use super::{Flow, PauseAsked, ShimHandle, ShimTask, task::WatchedAttempt};
use crate::{
    job::{Input, InputAnswer, Offset},
    spool::{AttemptRef, ToShim},
    supervisor::{
        AttemptId, AttemptWatch, connection::ShimConnection, registry::Order, spec,
        written::lines_before,
    },
};

/// Most orders that are kept for an attempt that the shim has not been given yet.
const EARLY_MAX: usize = 64;

impl ShimHandle {
    /// Does what the server wants.
    pub(super) async fn obey(
        &mut self,
        connection: &mut ShimConnection,
        order: Order,
    ) -> io::Result<Flow> {
        match order {
            Order::Run(claim) => {
                let Some(lines_before) = lines_before(&self.ctx, &claim).await else {
                    // Nobody has run it: the next server takes it back.
                    return Ok(Flow::Continue);
                };
                let key = AttemptId::of_claim(&claim);
                let ward = AttemptWatch::of_claim(&claim);
                self.offered = false;
                self.task = ShimTask::Attempt(Box::new(WatchedAttempt { ward, hasher: None }));
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
                for order in early.filter(|order| order.key() == Some(key)) {
                    self.obey_about(connection, order).await?;
                }
            }
            Order::Release => {
                if let ShimTask::Ended(AttemptId { job, attempt }) = self.task {
                    // First forgotten, then told: a shim that does not hear it says so again.
                    self.task = ShimTask::None;
                    connection.send(&ToShim::Release { job, attempt }).await?;
                }
            }
            Order::Leave => {
                connection.send(&ToShim::Leave).await?;
                return Ok(Flow::Left);
            }
            order => self.obey_about(connection, order).await?,
        }
        Ok(Flow::Continue)
    }

    /// Passes on what concerns one attempt, or keeps it until the shim is given that attempt.
    pub(super) async fn obey_about(
        &mut self,
        connection: &mut ShimConnection,
        order: Order,
    ) -> io::Result<()> {
        let current = self.task.key();
        match order {
            Order::Stop(key, _) | Order::Pause { key, .. } | Order::Input { key, .. }
                if Some(key) != current =>
            {
                self.keep_early(order);
            }
            Order::Stop(key, wish) => {
                connection.keep_awake();
                let about = about(key);
                connection
                    .send(&ToShim::Stop {
                        about,
                        request: wish,
                    })
                    .await?;
            }
            Order::Pause {
                key,
                pause,
                actor,
                done,
            } => {
                connection.keep_awake();
                self.pauses.push(PauseAsked { pause, actor, done });
                let about = about(key);
                let message = match pause {
                    true => ToShim::Pause { about },
                    false => ToShim::Resume { about },
                };
                connection.send(&message).await?;
            }
            Order::Input { done, .. } if self.task.open_key().is_none() => {
                let _ = done.send(InputAnswer::Closed);
            }
            Order::Input { key, input, done } => {
                // Whoever has stopped waiting has taken the bytes along.
                if let Some(input) = input.upgrade() {
                    self.pass_on(connection, key, &input, done).await?;
                }
            }
            // Whoever has stopped waiting was told that it failed, and may try again.
            Order::Signal { done, .. } if done.is_closed() => {}
            // It was for an attempt that has ended meanwhile, and is for no other.
            Order::Signal { key, .. } if Some(key) != current => {}
            Order::Signal { key, signal, done } => {
                connection.keep_awake();
                let about = about(key);
                connection.send(&ToShim::Signal { about, signal }).await?;
                let _ = done.send(());
            }
            Order::Run(_) | Order::Release | Order::Leave => {}
        }
        Ok(())
    }

    /// Keeps what concerns an attempt that the shim has not been given yet. Only what is in flight
    /// between a claim and its run can be early; the older ones are more likely about attempts that
    /// have ended.
    pub(super) fn keep_early(&mut self, order: Order) {
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(order);
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
        connection.keep_awake();
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
