//! Queues the jobs that wait for a time, when it has come.
//!
//! One task that sleeps until the earliest of those times, and is woken when there is another one.

use std::io;

use tokio_util::sync::CancellationToken;

use super::Wakeup;
use crate::{
    job::Micros,
    store::{Store, StoreError},
    sys::{alarm::Alarm, clock, retry},
};

/// The task.
#[derive(Debug)]
pub struct DueJobs {
    store: Store,
    alarm: Alarm,
    wakeup: Wakeup,
}

impl DueJobs {
    /// `wakeup` must be woken whenever a job begins to wait for a time.
    ///
    /// # Errors
    ///
    /// The kernel has no timer for it.
    pub fn new(store: Store, wakeup: Wakeup) -> io::Result<Self> {
        Ok(Self {
            store,
            alarm: Alarm::new()?,
            wakeup,
        })
    }

    /// Runs until the server stops.
    pub async fn run(self, stopping: CancellationToken) {
        loop {
            // After a failure it is tried again, after a stop never.
            let next = retry::until_some(|| async {
                match self.store.due(clock::now()).await {
                    Ok(due) => Some(due.next),
                    Err(StoreError::Stopping) => Some(None),
                    Err(error) => {
                        tracing::warn!(%error, "jobs whose time has come could not be queued; trying again");
                        None
                    }
                }
            });
            tokio::select! {
                () = stopping.cancelled() => return,
                () = async { self.wait(next.await).await } => {}
            }
        }
    }

    /// Until the time of the next jobs has come, or there may be earlier ones.
    async fn wait(&self, next: Option<Micros>) {
        let Some(next) = next else {
            return self.wakeup.wait().await;
        };
        tokio::select! {
            () = self.wakeup.wait() => {}
            () = self.until(next) => {}
        }
    }

    async fn until(&self, at: Micros) {
        let waited = retry::until_some(|| async {
            match self.alarm.wait_until(at).await {
                Ok(()) => Some(()),
                Err(error) => {
                    tracing::warn!(%error, "the timer cannot be set; trying again");
                    None
                }
            }
        });
        waited.await;
    }
}
