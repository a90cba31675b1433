//! Bounds work that takes long and that clients ask for: how much of it runs at the same time, and how
//! much more may wait.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, turns::acquire};

/// How much work of one kind runs and waits.
#[derive(Debug)]
pub(super) struct Admission {
    /// The work in a message: `verifications`.
    what: &'static str,
    /// The name of the setting that bounds what waits.
    limit: &'static str,
    running_max: u64,
    waiting_max: u64,
    /// For what runs and what waits.
    admitted: Arc<Semaphore>,
    /// For what runs.
    slots: Arc<Semaphore>,
}

/// The right to work; dropping it ends it.
#[derive(Debug)]
pub(super) struct Admitted {
    _slots: [OwnedSemaphorePermit; 2],
}

impl Admission {
    pub(super) fn new(
        what: &'static str,
        limit: &'static str,
        running_max: u64,
        waiting_max: u64,
    ) -> Self {
        let slots = |n: u64| {
            let count = usize::try_from(n).unwrap_or(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
        };
        Self {
            what,
            limit,
            running_max,
            waiting_max,
            admitted: slots(running_max.saturating_add(waiting_max)),
            slots: slots(running_max),
        }
    }

    /// Waits until the work may begin.
    ///
    /// # Errors
    ///
    /// `Limit`: too much of it waits already.
    pub(super) async fn enter(&self) -> Result<Admitted, Error> {
        let admitted = self.admitted.clone().try_acquire_owned();
        let admitted = admitted.map_err(|_| Error::Limit {
            limit: self.limit.into(),
            message: format!(
                "{} {what} run and {} wait; try again in a moment",
                self.running_max,
                self.waiting_max,
                what = self.what,
            ),
        })?;
        Ok(Admitted {
            _slots: [admitted, acquire(&self.slots).await?],
        })
    }
}
