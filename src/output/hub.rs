//! Wakes readers of a job when there may be more to read. It carries no bytes and no states: a
//! reader that is woken looks for itself. The one exception is a deleted job: nothing is left to look
//! at, so the hub hands its readers the job as it was.
//!
//! A reader registers interest first and looks second, so it misses nothing in between. The hub asks
//! the shims for wake-ups over a channel that [`Hub::new`] is given.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    job::{Job, JobNumber, Offset},
    sys::lock,
};

/// Asks for one wake-up of a job's readers as soon as it has output after `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArmRequest {
    /// The number of the job whose shim is asked.
    pub job: JobNumber,
    /// The first byte that the reader does not have yet.
    pub offset: Offset,
}

/// What a job's readers are told when they are woken.
#[derive(Debug, Clone, Default)]
struct HubSignal {
    /// How often the readers were woken.
    wakes: u64,
    /// How many of those times the job's row had changed.
    changes: u64,
    /// How far the output is known to reach.
    grown_to: Offset,
    /// Whether the job has become final.
    ended: bool,
    /// The job as it was when it was deleted.
    deleted: Option<Arc<Job>>,
}

/// The readers of all jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub {
    jobs: Arc<Mutex<HashMap<JobNumber, watch::Sender<HubSignal>>>>,
    arms: mpsc::UnboundedSender<ArmRequest>,
    closed: CancellationToken,
}

impl Hub {
    /// A hub that sends its requests for wake-ups to `arms`. The channel has no bound of its own:
    /// every waiting reader has at most one request in it.
    pub fn new(arms: mpsc::UnboundedSender<ArmRequest>) -> Self {
        Self {
            jobs: Arc::default(),
            arms,
            closed: CancellationToken::new(),
        }
    }

    /// Registers interest in a job. Costs the job nothing until [`Watch::woken`] is awaited.
    pub fn watch(&self, job: JobNumber) -> Watch {
        let mut jobs = self.lock();
        let sender = jobs
            .entry(job)
            .or_insert_with(|| watch::Sender::new(HubSignal::default()));
        let receiver = sender.subscribe();
        let changes_seen = receiver.borrow().changes;
        Watch {
            hub: self.clone(),
            job,
            receiver: Some(receiver),
            changes_seen,
            known_to: 0,
        }
    }

    /// The job may have more output; it has written up to `grown_to` at least. That also counts bytes
    /// that were dropped after the job's limit, which no reader can read before the job's end.
    pub fn grew(&self, job: JobNumber, grown_to: Offset) {
        self.wake(job, |signal| {
            signal.grown_to = signal.grown_to.max(grown_to);
        });
    }

    /// The job's row has changed (committed).
    pub fn changed(&self, job: JobNumber) {
        self.wake(job, |signal| signal.changes += 1);
    }

    /// The job has become final (committed).
    pub fn ended(&self, job: JobNumber) {
        self.wake(job, |signal| {
            signal.changes += 1;
            signal.ended = true;
        });
    }

    /// The job has been deleted (committed). `job` is what it was before.
    pub fn deleted(&self, job: Job) {
        self.wake(job.number, |signal| {
            signal.changes += 1;
            signal.ended = true;
            signal.deleted = Some(Arc::new(job));
        });
    }

    /// Ends every wait, now and later.
    pub fn close(&self) {
        self.closed.cancel();
    }

    fn wake(&self, job: JobNumber, update: impl FnOnce(&mut HubSignal)) {
        if let Some(sender) = self.lock().get(&job) {
            sender.send_modify(|signal| {
                signal.wakes += 1;
                update(signal);
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobNumber, watch::Sender<HubSignal>>> {
        // A panic cannot leave the map half-changed: every use is one operation on it.
        lock(&self.jobs)
    }
}

/// One reader's interest in one job; dropping it ends the interest.
#[derive(Debug)]
pub struct Watch {
    hub: Hub,
    job: JobNumber,
    receiver: Option<watch::Receiver<HubSignal>>,
    changes_seen: u64,
    /// How far the output was known to reach at the last look.
    known_to: Offset,
}

/// The hub is closed: the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct HubClosed;

impl Watch {
    /// Call this before reading the job: what happens from here on wakes [`Self::woken`]. Returns
    /// whether the job's row has changed since the last look.
    pub fn look(&mut self) -> bool {
        let Some(receiver) = &mut self.receiver else {
            return false;
        };
        let (changes, grown_to) = {
            let signal = receiver.borrow_and_update();
            (signal.changes, signal.grown_to)
        };
        self.known_to = grown_to;
        std::mem::replace(&mut self.changes_seen, changes) != changes
    }

    /// Whether the job has become final since the interest began.
    pub fn has_ended(&self) -> bool {
        self.receiver
            .as_ref()
            .is_some_and(|receiver| receiver.borrow().ended)
    }

    /// How far the job's output is known to reach. It may reach further.
    pub fn grown_to(&self) -> Offset {
        self.receiver
            .as_ref()
            .map_or(0, |receiver| receiver.borrow().grown_to)
    }

    /// A deleted job as it was; waits for [`Hub::deleted`], which is called after the commit. Only
    /// for a job whose row is known to be gone: for another one it waits for ever. Cancel-safe.
    pub async fn deleted(&mut self) -> Result<Arc<Job>, HubClosed> {
        loop {
            let receiver = self.receiver.as_ref();
            if let Some(job) = receiver.and_then(|signal| signal.borrow().deleted.clone()) {
                return Ok(job);
            }
            self.changed().await?;
        }
    }

    /// Waits until the job may have output after `offset`, or its row has changed, since the last
    /// [`Self::look`]. Cancel-safe.
    pub async fn woken(&mut self, offset: Offset) -> Result<(), HubClosed> {
        // A reader that knows of more bytes and cannot read them (a record is damaged) would be woken
        // at once, again and again. It waits for the job's row to change instead.
        if offset >= self.known_to {
            self.arm(offset)?;
        }
        self.changed().await
    }

    /// Asks for one wake-up when there is output after `offset`, and does not wait for it.
    pub fn arm(&self, offset: Offset) -> Result<(), HubClosed> {
        let job = self.job;
        // The receiving end lives as long as the server serves.
        let sent = self.hub.arms.send(ArmRequest { job, offset });
        sent.map_err(|_| HubClosed)
    }

    /// Waits until the job's readers are woken, without asking for a wake-up when output comes.
    /// Cancel-safe.
    pub async fn changed(&mut self) -> Result<(), HubClosed> {
        let Some(receiver) = &mut self.receiver else {
            return Err(HubClosed);
        };
        tokio::select! {
            woken = receiver.changed() => woken.map_err(|_| HubClosed),
            () = self.hub.closed.cancelled() => Err(HubClosed),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut jobs = self.hub.lock();
        self.receiver = None;
        if jobs
            .get(&self.job)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            jobs.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_happens_after_the_look_wakes() {
        let (arms, mut armed) = mpsc::unbounded_channel();
        let hub = Hub::new(arms);
        let mut watch = hub.watch(7);
        assert!(!watch.look());
        hub.changed(7);
        watch.woken(5).await.expect("open");
        assert!(watch.look());
        assert_eq!(armed.recv().await, Some(ArmRequest { job: 7, offset: 5 }));
        hub.grew(7, 9);
        hub.grew(7, 0);
        watch.woken(5).await.expect("open");
        assert!(!watch.look());
        assert_eq!(watch.grown_to(), 9);
    }

    #[tokio::test]
    async fn a_reader_that_cannot_read_what_is_there_asks_no_more_for_it() {
        let (arms, mut armed) = mpsc::unbounded_channel();
        let hub = Hub::new(arms);
        let mut watch = hub.watch(7);
        hub.grew(7, 9);
        watch.look();
        hub.changed(7);
        watch.woken(5).await.expect("open");
        assert!(armed.try_recv().is_err());
        hub.changed(7);
        watch.woken(9).await.expect("open");
        assert_eq!(armed.recv().await, Some(ArmRequest { job: 7, offset: 9 }));
    }

    #[tokio::test]
    async fn a_closed_hub_ends_waits_and_forgets_nothing() {
        let (arms, _armed) = mpsc::unbounded_channel();
        let hub = Hub::new(arms);
        let mut watch = hub.watch(1);
        hub.close();
        assert_eq!(watch.woken(0).await, Err(HubClosed));
        drop(watch);
        assert!(hub.lock().is_empty());
    }
}
