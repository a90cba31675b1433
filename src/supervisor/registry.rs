//! Finds the keeper of a shim or of a job, and carries orders to it.
//!
//! An order that finds nobody is not kept: wishes are committed and sent again after adoption.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Unreachable, attempt_watch::AttemptId};
use crate::{
    job::{Input, InputAnswer, JobNumber, Offset, StopRequest},
    output::ArmRequest,
    store::ClaimedJob,
    sys::lock,
};

/// What a keeper can be told.
#[derive(Debug)]
pub enum Order {
    /// Run this attempt.
    Run(Box<ClaimedJob>),
    /// The last attempt's end is committed.
    Release,
    /// No more work.
    Leave,
    /// Stop this attempt.
    Stop(AttemptId, StopRequest),
    /// Pause or resume this attempt; `done` is answered when that is committed.
    Pause {
        /// Which.
        key: AttemptId,
        /// Pause or resume.
        pause: bool,
        /// Who asked.
        actor: String,
        /// Answered when it is committed, or with a sentence why the shim cannot do it; dropped when
        /// neither will be.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Pass bytes on to the stdin of this attempt.
    Input {
        /// Which.
        key: AttemptId,
        /// The bytes, as long as somebody waits for the answer: a shim that does not answer must
        /// not pile them up.
        input: Weak<Input>,
        /// What the shim says.
        done: oneshot::Sender<InputAnswer>,
    },
    /// Send a signal to this attempt's group.
    Signal {
        /// Which.
        key: AttemptId,
        /// Its number.
        signal: i32,
        /// Answered when it is on its way.
        done: oneshot::Sender<()>,
    },
}

impl Order {
    /// The attempt that it is about, where it names one.
    pub fn key(&self) -> Option<AttemptId> {
        match self {
            Self::Run(claim) => Some(AttemptId::of_claim(claim)),
            Self::Stop(key, _)
            | Self::Pause { key, .. }
            | Self::Input { key, .. }
            | Self::Signal { key, .. } => Some(*key),
            Self::Release | Self::Leave => None,
        }
    }
}

/// The readers' wish to be woken, as a keeper finds it: however many ask and however long the
/// shim does not answer, it is one offset, the least.
#[derive(Debug, Default)]
pub struct ShimWakeup {
    wish: Mutex<Option<Offset>>,
    rung: Notify,
    overflow: Notify,
}

impl ShimWakeup {
    /// Asks for a wake-up when there is output behind `offset`.
    fn ring(&self, offset: Offset) {
        let mut wish = self.wish();
        *wish = Some(wish.map_or(offset, |before| before.min(offset)));
        drop(wish);
        self.rung.notify_one();
    }

    /// What was asked for since the last time; waits for it. Cancel-safe.
    pub async fn rung(&self) -> Offset {
        loop {
            if let Some(offset) = self.wish().take() {
                return offset;
            }
            self.rung.notified().await;
        }
    }

    /// Resolves when a committed wish has found no room in the mailbox. Cancel-safe.
    pub async fn overflowed(&self) {
        self.overflow.notified().await;
    }

    fn wish(&self) -> MutexGuard<'_, Option<Offset>> {
        lock(&self.wish)
    }
}

/// Most orders that wait for a keeper which is busy with its shim, apart from those that only follow
/// from each other (run, release, leave).
const ORDERS_MAX: usize = 256;

/// An order and its place in the mailbox.
#[derive(Debug)]
struct Posted {
    order: Order,
    _slot: Option<OwnedSemaphorePermit>,
}

/// What comes out of a mailbox.
#[derive(Debug)]
pub struct Orders(mpsc::UnboundedReceiver<Posted>);

impl Orders {
    /// The next order; `None` when there will be no more. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Order> {
        Some(self.0.recv().await?.order)
    }

    /// Takes no more orders; those that have come can still be received.
    pub fn close(&mut self) {
        self.0.close();
    }
}

/// The way to a keeper.
#[derive(Debug, Clone)]
struct Mailbox {
    orders: mpsc::UnboundedSender<Posted>,
    slots: Arc<Semaphore>,
    bell: Arc<ShimWakeup>,
}

#[derive(Debug, Default)]
struct Keepers {
    by_shim: HashMap<String, Mailbox>,
    /// With the attempt that runs.
    by_job: HashMap<JobNumber, (AttemptId, Mailbox)>,
}

/// All keepers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Keepers>>);

impl Registry {
    /// Enters a shim's keeper; its orders come out of the receiver, and its readers ring the bell.
    pub fn enter(&self, shim: &str) -> (Orders, Arc<ShimWakeup>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let bell = Arc::<ShimWakeup>::default();
        let mailbox = Mailbox {
            orders,
            slots: Arc::new(Semaphore::new(ORDERS_MAX)),
            bell: bell.clone(),
        };
        self.lock().by_shim.insert(shim.to_owned(), mailbox);
        (Orders(receiver), bell)
    }

    /// The shim is gone.
    pub fn remove(&self, shim: &str) {
        self.lock().by_shim.remove(shim);
    }

    /// Whether the shim has a keeper.
    pub fn knows(&self, shim: &str) -> bool {
        self.lock().by_shim.contains_key(shim)
    }

    /// The shim runs this attempt from now on.
    pub fn attach(&self, key: AttemptId, shim: &str) {
        let mut keepers = self.lock();
        if let Some(mailbox) = keepers.by_shim.get(shim).cloned() {
            keepers.by_job.insert(key.job, (key, mailbox));
        }
    }

    /// No shim runs this job any more.
    pub fn detach(&self, job: JobNumber) {
        self.lock().by_job.remove(&job);
    }

    /// Tells a shim's keeper.
    pub fn order(&self, shim: &str, order: Order) -> Result<(), Unreachable> {
        let mailbox = self.lock().by_shim.get(shim).cloned();
        send(mailbox, order)
    }

    /// Tells the keeper of a running job. Which attempt runs and who keeps it is found in one
    /// step: the order names that attempt, and can concern no later one.
    pub fn order_job(
        &self,
        job: JobNumber,
        order: impl FnOnce(AttemptId) -> Order,
    ) -> Result<(), Unreachable> {
        let found = self.lock().by_job.get(&job).cloned();
        let (key, mailbox) = found.ok_or(Unreachable)?;
        send(Some(mailbox), order(key))
    }

    /// Carries the readers' wishes to be woken to the shims that can fulfil them. A job without a
    /// shim needs none: its readers are woken when that changes.
    pub async fn forward_arms(
        self,
        mut arms: mpsc::UnboundedReceiver<ArmRequest>,
        stopping: CancellationToken,
    ) {
        while let Some(Some(arm)) = stopping.run_until_cancelled(arms.recv()).await {
            if let Some((_, mailbox)) = self.lock().by_job.get(&arm.job) {
                mailbox.bell.ring(arm.offset);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Keepers> {
        // Every use is one operation on a map: a panic leaves nothing half-done.
        lock(&self.0)
    }
}

fn send(mailbox: Option<Mailbox>, order: Order) -> Result<(), Unreachable> {
    let mailbox = mailbox.ok_or(Unreachable)?;
    let slot = match &order {
        Order::Run(_) | Order::Release | Order::Leave => None,
        order => {
            let Ok(slot) = Arc::clone(&mailbox.slots).try_acquire_owned() else {
                if matches!(order, Order::Stop(..) | Order::Pause { .. }) {
                    mailbox.bell.overflow.notify_one();
                }
                return Err(Unreachable);
            };
            Some(slot)
        }
    };
    let posted = Posted { order, _slot: slot };
    mailbox.orders.send(posted).map_err(|_| Unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_for_a_job_names_the_attempt_that_runs() {
        let registry = Registry::default();
        let (mut orders, _bell) = registry.enter("a");
        let signal = |key| Order::Signal {
            key,
            signal: 15,
            done: oneshot::channel().0,
        };
        assert_eq!(registry.order_job(7, signal), Err(Unreachable));
        for attempt in 1..=2 {
            registry.attach(AttemptId { job: 7, attempt }, "a");
            registry.order_job(7, signal).expect("a keeper");
            let order = orders.recv().await.expect("an order");
            assert_eq!(order.key(), Some(AttemptId { job: 7, attempt }));
        }
        registry.detach(7);
        assert_eq!(registry.order_job(7, signal), Err(Unreachable));
    }

    #[tokio::test]
    async fn a_bell_that_nobody_hears_keeps_one_wish_and_it_is_the_least() {
        let bell = ShimWakeup::default();
        for offset in [900, 5, 70] {
            bell.ring(offset);
        }
        assert_eq!(bell.rung().await, 5);
        bell.ring(1);
        assert_eq!(bell.rung().await, 1);
    }

    #[tokio::test]
    async fn a_mailbox_that_nobody_empties_is_bounded_and_asks_for_the_levels_again() {
        let registry = Registry::default();
        let (mut orders, bell) = registry.enter("s");
        let key = AttemptId { job: 1, attempt: 1 };
        registry.attach(key, "s");
        let signal = |key| Order::Signal {
            key,
            signal: 10,
            done: oneshot::channel().0,
        };
        for _ in 0..ORDERS_MAX {
            registry.order_job(1, signal).expect("room");
        }
        assert_eq!(registry.order_job(1, signal), Err(Unreachable));
        registry.order("s", Order::Leave).expect("always room");
        let (done, _) = oneshot::channel();
        let pause = Order::Pause {
            key,
            pause: true,
            actor: String::new(),
            done,
        };
        assert_eq!(registry.order("s", pause), Err(Unreachable));
        bell.overflowed().await;
        orders.recv().await.expect("an order");
        registry.order_job(1, signal).expect("room again");
    }
}
