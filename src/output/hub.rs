//! Wakes readers of a job when there may be more to read. It carries no bytes and no states: a
//! reader that is woken looks for itself. Only of a job that was deleted there is nothing to look
//! at any more, so its readers are handed its last view.
//!
//! A reader registers interest first and looks second, so nothing can fall between. The hub does
//! not know shims; it asks for a wake-up over a channel that it is given.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::job::{Job, JobNumber, Offset};

/// Asks for one wake-up of a job's readers as soon as it has output behind `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArmRequest {
    /// The job.
    pub job: JobNumber,
    /// What has been read.
    pub offset: Offset,
}

/// How often a job's readers were woken, how many of those times its row had changed, how far its
/// output is known to reach, whether it has become final, and what it was when it was deleted.
#[derive(Debug, Clone, Default)]
struct HubSignal {
    wakes: u64,
    changes: u64,
    grown_to: Offset,
    ended: bool,
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
    /// A hub that sends its wishes to be woken to `arms`. The channel has no bound of its own:
    /// every waiting reader has at most one wish in it.
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
            told: 0,
        }
    }

    /// The job may have more output; it has written up to `grown_to` in any case. What came behind
    /// a bound is counted in that, and nowhere to be read before the end.
    pub fn grew(&self, job: JobNumber, grown_to: Offset) {
        self.pulse(job, |pulse| {
            pulse.grown_to = pulse.grown_to.max(grown_to);
        });
    }

    /// The job's row has changed (committed).
    pub fn changed(&self, job: JobNumber) {
        self.pulse(job, |pulse| pulse.changes += 1);
    }

    /// The job has become final (committed).
    pub fn ended(&self, job: JobNumber) {
        self.pulse(job, |pulse| {
            pulse.changes += 1;
            pulse.ended = true;
        });
    }

    /// The job has been deleted (committed); it was this one.
    pub fn deleted(&self, job: Job) {
        self.pulse(job.number, |pulse| {
            pulse.changes += 1;
            pulse.ended = true;
            pulse.deleted = Some(Arc::new(job));
        });
    }

    /// Ends every wait, now and later.
    pub fn close(&self) {
        self.closed.cancel();
    }

    fn pulse(&self, job: JobNumber, happened: impl FnOnce(&mut HubSignal)) {
        if let Some(sender) = self.lock().get(&job) {
            sender.send_modify(|pulse| {
                pulse.wakes += 1;
                happened(pulse);
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobNumber, watch::Sender<HubSignal>>> {
        // A panic cannot leave the map half-changed: every use is one operation on it.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's interest in one job; dropping it ends the interest.
#[derive(Debug)]
pub struct Watch {
    hub: Hub,
    job: JobNumber,
    receiver: Option<watch::Receiver<HubSignal>>,
    changes_seen: u64,
    /// How far the output reached at the last look.
    told: Offset,
}

/// The hub is closed: the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct HubClosed;

impl Watch {
    /// To be called before looking: what happens from here on wakes [`Self::woken`]. Returns
    /// whether the job's row has changed since the last look.
    pub fn look(&mut self) -> bool {
        let Some(receiver) = &mut self.receiver else {
            return false;
        };
        let (changes, grown_to) = {
            let pulse = receiver.borrow_and_update();
            (pulse.changes, pulse.grown_to)
        };
        self.told = grown_to;
        std::mem::replace(&mut self.changes_seen, changes) != changes
    }

    /// Whether the job has become final since the interest began.
    pub fn has_ended(&self) -> bool {
        self.receiver
            .as_ref()
            .is_some_and(|receiver| receiver.borrow().ended)
    }

    /// How far the job's output reaches, as far as its readers were told.
    pub fn grown_to(&self) -> Offset {
        self.receiver
            .as_ref()
            .map_or(0, |receiver| receiver.borrow().grown_to)
    }

    /// The last view of a job that has been deleted; waits for the word of it, which follows the
    /// commit. Only for a job whose row is known to be gone. Cancel-safe.
    pub async fn deleted(&mut self) -> Result<Arc<Job>, HubClosed> {
        loop {
            let deleted = self.receiver.as_ref();
            if let Some(job) = deleted.and_then(|pulse| pulse.borrow().deleted.clone()) {
                return Ok(job);
            }
            self.changed().await?;
        }
    }

    /// Waits until the job may have output behind `offset`, or its row has changed, since the last
    /// [`Self::look`]. Cancel-safe.
    pub async fn woken(&mut self, offset: Offset) -> Result<(), HubClosed> {
        // Whoever knew of more and could not read it (a record is damaged) would be woken at once,
        // again and again. It is woken when the job's row changes.
        if offset >= self.told {
            self.ask(offset)?;
        }
        self.changed().await
    }

    /// Asks for one wake-up when there is output behind `offset`, and does not wait for it.
    pub fn ask(&self, offset: Offset) -> Result<(), HubClosed> {
        let job = self.job;
        // The receiving end lives as long as the server serves.
        let sent = self.hub.arms.send(ArmRequest { job, offset });
        sent.map_err(|_| HubClosed)
    }

    /// Waits until the job's readers are woken, without asking for it when output comes.
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
    async fn who_cannot_read_what_is_there_asks_no_more_for_it() {
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
