//! Passes the server's orders on to the shim.

use std::io;

use super::{Flow, Keeper, PauseAsked, Task, task::Watched};
use crate::{
    spool::ToShim,
    supervisor::{Key, Ward, connection::Connection, registry::Order, spec},
};

/// Most orders that are kept for an attempt that the shim has not been given yet.
const EARLY_MAX: usize = 64;

impl Keeper {
    /// Does what the server wants.
    pub(super) async fn obey(
        &mut self,
        connection: &mut Connection,
        order: Order,
    ) -> io::Result<Flow> {
        match order {
            Order::Run(claim) => {
                let key = Key::of_claim(&claim);
                let Some(ward) = Ward::of_claim(&claim) else {
                    tracing::error!(job = key.job, "the digest's state is unreadable");
                    return Ok(Flow::Continue);
                };
                self.task = Task::Attempt(Box::new(Watched { ward, hasher: None }));
                self.pauses.clear();
                self.registry.attach(key.job, &self.offer.shim);
                let spec = spec::run_spec(&claim, &self.ctx.bounds);
                connection.send(&ToShim::Run(Box::new(spec))).await?;
                connection
                    .send(&ToShim::Arm {
                        offset: claim.start_offset,
                    })
                    .await?;
                self.ctx.hub.changed(key.job);
                for early in std::mem::take(&mut self.early) {
                    // What came too late for an attempt before is of no use to anybody.
                    if early.key() == Some(key) {
                        self.obey_about(connection, early).await?;
                    }
                }
            }
            Order::Release => {
                if let Task::Ended(Key { job, attempt }) = self.task {
                    connection.send(&ToShim::Release { job, attempt }).await?;
                    self.task = Task::None;
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
        connection: &mut Connection,
        order: Order,
    ) -> io::Result<()> {
        let current = self.task.key();
        match order {
            Order::Stop(key, _) | Order::Pause { key, .. } if Some(key) != current => {
                // Only what is in flight between a claim and its run can be early; the rest has
                // come too late, and goes first.
                if self.early.len() == EARLY_MAX {
                    self.early.pop_front();
                }
                self.early.push_back(order);
            }
            Order::Stop(_, wish) => connection.send(&ToShim::Stop(wish)).await?,
            Order::Pause {
                pause, actor, done, ..
            } => {
                self.pauses.push(PauseAsked { pause, actor, done });
                let message = if pause { ToShim::Pause } else { ToShim::Resume };
                connection.send(&message).await?;
            }
            // Whoever waits for output of an ended attempt is woken by its commit.
            Order::Arm(_) if self.task.open_key().is_none() => {}
            Order::Arm(offset) => connection.send(&ToShim::Arm { offset }).await?,
            Order::Signal { signal, done } => {
                connection.send(&ToShim::Signal { signal }).await?;
                let _ = done.send(());
            }
            Order::Run(_) | Order::Release | Order::Leave => {}
        }
        Ok(())
    }
}
