//! Finds the handle of a shim or of a job, and delivers commands to it.
//!
//! A command for which there is no handle is dropped. Stop and pause requests are committed before,
//! and are sent again after the shim is adopted.

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

/// A command to a shim's handle.
#[derive(Debug)]
pub enum ShimCommand {
    /// Run this attempt.
    Run(Box<ClaimedJob>),
    /// The last attempt's end is committed.
    Release,
    /// The shim gets no more work and is to exit.
    Leave,
    /// Stop this attempt.
    Stop(AttemptId, StopRequest),
    /// Pause or resume this attempt.
    Pause {
        /// The attempt to pause or resume.
        key: AttemptId,
        /// True to pause, false to resume.
        pause: bool,
        /// The actor that is recorded for it.
        actor: String,
        /// Answered when it is committed, or with a sentence why the shim cannot do it; dropped if
        /// neither comes.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Pass bytes on to the stdin of this attempt.
    Input {
        /// The attempt whose stdin it is.
        key: AttemptId,
        /// The bytes. Only the waiting client owns them, so that they do not fill the memory while
        /// a shim does not answer.
        input: Weak<Input>,
        /// Receives the shim's answer.
        done: oneshot::Sender<InputAnswer>,
    },
    /// Ask when this attempt's process last gave a sign of life.
    LastSign {
        /// The attempt that is asked about.
        key: AttemptId,
        /// Receives the shim's answer (`FromShim::LastSign`); dropped if there is none.
        done: oneshot::Sender<Option<u64>>,
    },
    /// Send a signal to this attempt's group.
    Signal {
        /// The attempt to signal.
        key: AttemptId,
        /// The signal's number.
        signal: i32,
        /// Answered when it was sent to the shim.
        done: oneshot::Sender<()>,
    },
}

impl ShimCommand {
    /// The attempt that it is about; `None` if it names none.
    pub fn key(&self) -> Option<AttemptId> {
        match self {
            Self::Run(claim) => Some(AttemptId::of_claim(claim)),
            Self::Stop(key, _)
            | Self::Pause { key, .. }
            | Self::Input { key, .. }
            | Self::LastSign { key, .. }
            | Self::Signal { key, .. } => Some(*key),
            Self::Release | Self::Leave => None,
        }
    }
}

/// The readers' request to be woken, for one handle. However many readers ask, and however long the
/// shim does not answer, it is one offset: the least.
#[derive(Debug, Default)]
pub struct ShimWakeup {
    offset: Mutex<Option<Offset>>,
    requested: Notify,
    overflow: Notify,
}

impl ShimWakeup {
    /// Asks for a wake-up when there is output beyond `offset`.
    fn request(&self, offset: Offset) {
        let mut least = self.least();
        *least = Some(least.map_or(offset, |before| before.min(offset)));
        drop(least);
        self.requested.notify_one();
    }

    /// Waits for a request; the least offset of all since the last time. Cancel-safe.
    pub async fn requested(&self) -> Offset {
        loop {
            if let Some(offset) = self.least().take() {
                return offset;
            }
            self.requested.notified().await;
        }
    }

    /// Resolves when a committed request did not fit into the mailbox. Cancel-safe.
    pub async fn overflowed(&self) {
        self.overflow.notified().await;
    }

    fn least(&self) -> MutexGuard<'_, Option<Offset>> {
        lock(&self.offset)
    }
}

/// Most commands that wait for a handle which is busy with its shim. Run, release and leave do not
/// count: each follows from the one before.
const COMMANDS_MAX: usize = 256;

/// A command and its slot in the mailbox.
#[derive(Debug)]
struct Posted {
    command: ShimCommand,
    _slot: Option<OwnedSemaphorePermit>,
}

/// What comes out of a mailbox.
#[derive(Debug)]
pub struct Commands(mpsc::UnboundedReceiver<Posted>);

impl Commands {
    /// The next command; `None` when there will be no more. Cancel-safe.
    pub async fn recv(&mut self) -> Option<ShimCommand> {
        Some(self.0.recv().await?.command)
    }

    /// Refuses further commands; those that have come can still be received.
    pub fn close(&mut self) {
        self.0.close();
    }
}

/// Delivers commands to one handle.
#[derive(Debug, Clone)]
struct Mailbox {
    commands: mpsc::UnboundedSender<Posted>,
    slots: Arc<Semaphore>,
    wakeup: Arc<ShimWakeup>,
}

#[derive(Debug, Default)]
struct Handles {
    by_shim: HashMap<String, Mailbox>,
    /// The handle of each running job, with the attempt that runs.
    by_job: HashMap<JobNumber, (AttemptId, Mailbox)>,
}

/// The mailboxes of all handles. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Handles>>);

impl Registry {
    /// Registers a shim's handle. It receives its commands and the wake-up requests of its readers.
    pub fn register(&self, shim: &str) -> (Commands, Arc<ShimWakeup>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let wakeup = Arc::<ShimWakeup>::default();
        let mailbox = Mailbox {
            commands,
            slots: Arc::new(Semaphore::new(COMMANDS_MAX)),
            wakeup: wakeup.clone(),
        };
        self.lock().by_shim.insert(shim.to_owned(), mailbox);
        (Commands(receiver), wakeup)
    }

    /// The shim is gone.
    pub fn remove(&self, shim: &str) {
        self.lock().by_shim.remove(shim);
    }

    /// Whether the shim has a handle.
    pub fn has(&self, shim: &str) -> bool {
        self.lock().by_shim.contains_key(shim)
    }

    /// The shim runs this attempt from now on.
    pub fn attach(&self, key: AttemptId, shim: &str) {
        let mut handles = self.lock();
        if let Some(mailbox) = handles.by_shim.get(shim).cloned() {
            handles.by_job.insert(key.job, (key, mailbox));
        }
    }

    /// No shim runs this job any more.
    pub fn detach(&self, job: JobNumber) {
        self.lock().by_job.remove(&job);
    }

    /// Sends a command to a shim's handle.
    pub fn send(&self, shim: &str, command: ShimCommand) -> Result<(), Unreachable> {
        let mailbox = self.lock().by_shim.get(shim).cloned();
        send(mailbox, command)
    }

    /// Sends a command to the handle of a running job. The attempt and its handle are found in one
    /// step, so the command names the attempt that runs and can concern no later one.
    pub fn send_to_job(
        &self,
        job: JobNumber,
        command: impl FnOnce(AttemptId) -> ShimCommand,
    ) -> Result<(), Unreachable> {
        let found = self.lock().by_job.get(&job).cloned();
        let (key, mailbox) = found.ok_or(Unreachable)?;
        send(Some(mailbox), command(key))
    }

    /// Passes the readers' requests to be woken on to the handles of their jobs. A job without a
    /// shim has no output to wait for: its readers are woken when it gets one.
    pub async fn forward_arms(
        self,
        mut arms: mpsc::UnboundedReceiver<ArmRequest>,
        stopping: CancellationToken,
    ) {
        while let Some(Some(arm)) = stopping.run_until_cancelled(arms.recv()).await {
            if let Some((_, mailbox)) = self.lock().by_job.get(&arm.job) {
                mailbox.wakeup.request(arm.offset);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        // Every use is one operation on a map: a panic leaves nothing half-done.
        lock(&self.0)
    }
}

fn send(mailbox: Option<Mailbox>, command: ShimCommand) -> Result<(), Unreachable> {
    let mailbox = mailbox.ok_or(Unreachable)?;
    let slot = match &command {
        ShimCommand::Run(_) | ShimCommand::Release | ShimCommand::Leave => None,
        command => {
            let Ok(slot) = Arc::clone(&mailbox.slots).try_acquire_owned() else {
                if matches!(command, ShimCommand::Stop(..) | ShimCommand::Pause { .. }) {
                    mailbox.wakeup.overflow.notify_one();
                }
                return Err(Unreachable);
            };
            Some(slot)
        }
    };
    let posted = Posted {
        command,
        _slot: slot,
    };
    mailbox.commands.send(posted).map_err(|_| Unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_for_a_job_names_the_attempt_that_runs() {
        let registry = Registry::default();
        let (mut commands, _wakeup) = registry.register("a");
        let signal = |key| ShimCommand::Signal {
            key,
            signal: 15,
            done: oneshot::channel().0,
        };
        assert_eq!(registry.send_to_job(7, signal), Err(Unreachable));
        for attempt in 1..=2 {
            registry.attach(AttemptId { job: 7, attempt }, "a");
            registry.send_to_job(7, signal).expect("a handle");
            let command = commands.recv().await.expect("a command");
            assert_eq!(command.key(), Some(AttemptId { job: 7, attempt }));
        }
        registry.detach(7);
        assert_eq!(registry.send_to_job(7, signal), Err(Unreachable));
    }

    #[tokio::test]
    async fn a_wakeup_that_is_not_taken_keeps_one_request_and_it_is_the_least() {
        let wakeup = ShimWakeup::default();
        for offset in [900, 5, 70] {
            wakeup.request(offset);
        }
        assert_eq!(wakeup.requested().await, 5);
        wakeup.request(1);
        assert_eq!(wakeup.requested().await, 1);
    }

    #[tokio::test]
    async fn a_mailbox_that_nobody_empties_is_bounded_and_asks_for_the_levels_again() {
        let registry = Registry::default();
        let (mut commands, wakeup) = registry.register("s");
        let key = AttemptId { job: 1, attempt: 1 };
        registry.attach(key, "s");
        let signal = |key| ShimCommand::Signal {
            key,
            signal: 10,
            done: oneshot::channel().0,
        };
        for _ in 0..COMMANDS_MAX {
            registry.send_to_job(1, signal).expect("room");
        }
        assert_eq!(registry.send_to_job(1, signal), Err(Unreachable));
        registry.send("s", ShimCommand::Leave).expect("always room");
        let (done, _) = oneshot::channel();
        let pause = ShimCommand::Pause {
            key,
            pause: true,
            actor: String::new(),
            done,
        };
        assert_eq!(registry.send("s", pause), Err(Unreachable));
        wakeup.overflowed().await;
        commands.recv().await.expect("a command");
        registry.send_to_job(1, signal).expect("room again");
    }
}
