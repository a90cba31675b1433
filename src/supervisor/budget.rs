//! Bounds how many shims are connected at the same time: each takes a descriptor while it is
//! connected, and the server needs some for itself. If there are fewer slots than shims, connected
//! shims give their slots to those that wait, in turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
};

use crate::sys::descriptors;

/// The shortest time that a connection is kept before it is given up for another one.
const HELD_AT_LEAST: Duration = Duration::from_secs(1);

/// Hands out connection slots, in the order in which they were asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    slots: Arc<Semaphore>,
    demand: watch::Sender<Demand>,
}

/// How many tasks wait for a slot, and how many connections have begun to give one up for them.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    waiting: usize,
    promised: usize,
}

/// The right to one connection; dropping it gives the slot to the next.
#[derive(Debug)]
pub struct ConnectionPermit {
    _slot: OwnedSemaphorePermit,
    time: PermitTime,
}

/// How long a permit may be kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PermitTime {
    since: Instant,
    demand: watch::Sender<Demand>,
    promised: Arc<AtomicBool>,
}

impl Budget {
    /// Half of what the limit of open files leaves, at least one slot; the other half is for
    /// clients. `None`: any number of files may be open.
    pub fn of(open_files_max: Option<u64>) -> Self {
        let slots = open_files_max.map_or(u64::MAX, |max| (descriptors::left_of(max) / 2).max(1));
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        Self {
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            demand: watch::Sender::new(Demand::default()),
        }
    }

    /// A slot, if one is free and no task waits for it.
    pub fn try_take(&self) -> Option<ConnectionPermit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        Some(self.permit(slot))
    }

    /// Waits for a slot.
    pub async fn take(&self) -> ConnectionPermit {
        if let Some(permit) = self.try_take() {
            return permit;
        }
        let _waiting = Waiting::begin(&self.demand);
        // The semaphore is never closed.
        match Arc::clone(&self.slots).acquire_owned().await {
            Ok(slot) => self.permit(slot),
            Err(_) => std::future::pending().await,
        }
    }

    fn permit(&self, slot: OwnedSemaphorePermit) -> ConnectionPermit {
        ConnectionPermit {
            _slot: slot,
            time: PermitTime {
                since: Instant::now(),
                demand: self.demand.clone(),
                promised: Arc::default(),
            },
        }
    }
}

impl ConnectionPermit {
    /// Tells when the permit is to be given up.
    pub fn time(&self) -> PermitTime {
        self.time.clone()
    }
}

impl PermitTime {
    /// Resolves when the slot is to be given to a task that waits, `HELD_AT_LEAST` after it was
    /// taken at the earliest. Cancel-safe.
    pub async fn expired(&self) {
        sleep_until(self.since + HELD_AT_LEAST).await;
        let mut demand = self.demand.subscribe();
        loop {
            // It cannot fail: the sender lives in this value.
            let _ = demand.wait_for(|d| d.waiting > d.promised).await;
            let promised = self.demand.send_if_modified(|demand| {
                let wanted = demand.waiting > demand.promised;
                demand.promised += usize::from(wanted);
                wanted
            });
            if promised {
                self.promised.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if self.time.promised.load(Ordering::Relaxed) {
            self.time.demand.send_modify(|demand| demand.promised -= 1);
        }
    }
}

/// Counts as one task that waits, for as long as this lives.
struct Waiting<'a>(&'a watch::Sender<Demand>);

impl<'a> Waiting<'a> {
    fn begin(demand: &'a watch::Sender<Demand>) -> Self {
        demand.send_modify(|demand| demand.waiting += 1);
        Self(demand)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|demand| demand.waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, poll};

    use super::*;

    #[test]
    fn a_low_limit_leaves_at_least_one_place() {
        for (limit, slots) in [
            (Some(0), 1),
            (Some(40), 2),
            (Some(56), 10),
            (Some(1024), 494),
            (None, Semaphore::MAX_PERMITS),
        ] {
            let budget = Budget::of(limit);
            assert_eq!(budget.slots.available_permits(), slots, "{limit:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_takes_one_place_and_not_all() {
        let budget = Budget::of(Some(40));
        let (one, two) = (budget.take().await, budget.take().await);
        assert!(budget.try_take().is_none());
        let mut waiting = Box::pin(budget.take());
        assert!(poll!(&mut waiting).is_pending());
        assert!(
            one.time().expired().now_or_never().is_none(),
            "not held yet"
        );
        one.time().expired().await;
        let second = two.time();
        assert!(second.expired().now_or_never().is_none(), "one is enough");
        drop(one);
        let third = waiting.await;
        assert!(second.expired().now_or_never().is_none(), "nobody waits");
        drop(third);
        assert!(budget.try_take().is_some());
    }
}
