//! Finds the handle of a shim or of a job, and carries commands to it.
//!
//! An command that finds nobody is not kept: wishes are committed and sent again after adoption.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Unreachable, attempt_watch::AttemptId};
use crate::{
    job::{Input, InputAnswer, JobNumber, Offset, StopWish},
    output::ArmRequest,
    store::ClaimedJob,
    sys::lock,
};

/// What a handle can be told.
#[derive(Debug)]
pub enum Command {
    /// Run this attempt.
    Run(Box<ClaimedJob>),
    /// The last attempt's end is committed.
    Release,
    /// No more work.
    Leave,
    /// Stop this attempt.
    Stop(AttemptId, StopWish),
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

impl Command {
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

/// The readers' wish to be woken, as a handle finds it: however many ask and however long the
/// shim does not answer, it is one offset, the least.
#[derive(Debug, Default)]
pub struct ShimWakeup {
    offset: Mutex<Option<Offset>>,
    requested: Notify,
    overflow: Notify,
}

impl ShimWakeup {
    /// Asks for a wake-up when there is output behind `offset`.
    fn request(&self, offset: Offset) {
        let mut least = self.least();
        *least = Some(least.map_or(offset, |before| before.min(offset)));
        drop(least);
        self.requested.notify_one();
    }

    /// What was asked for since the last time; waits for it. Cancel-safe.
    pub async fn requested(&self) -> Offset {
        loop {
            if let Some(offset) = self.least().take() {
                return offset;
            }
            self.requested.notified().await;
        }
    }

    /// Resolves when a committed wish has found no room in the mailbox. Cancel-safe.
    pub async fn overflowed(&self) {
        self.overflow.notified().await;
    }

    fn least(&self) -> MutexGuard<'_, Option<Offset>> {
        lock(&self.offset)
    }
}

/// Most commands that wait for a handle which is busy with its shim, apart from those that only follow
/// from each other (run, release, leave).
const COMMANDS_MAX: usize = 256;

/// An command and its place in the mailbox.
#[derive(Debug)]
struct Posted {
    command: Command,
    _slot: Option<OwnedSemaphorePermit>,
}

/// What comes out of a mailbox.
#[derive(Debug)]
pub struct Commands(mpsc::UnboundedReceiver<Posted>);

impl Commands {
    /// The next command; `None` when there will be no more. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Command> {
        Some(self.0.recv().await?.command)
    }

    /// Takes no more commands; those that have come can still be received.
    pub fn close(&mut self) {
        self.0.close();
    }
}

/// The way to a handle.
#[derive(Debug, Clone)]
struct Mailbox {
    commands: mpsc::UnboundedSender<Posted>,
    slots: Arc<Semaphore>,
    wakeup: Arc<ShimWakeup>,
}

#[derive(Debug, Default)]
struct Handles {
    by_shim: HashMap<String, Mailbox>,
    /// With the attempt that runs.
    by_job: HashMap<JobNumber, (AttemptId, Mailbox)>,
}

/// All handles. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Handles>>);

impl Registry {
    /// Enters a shim's handle; its commands come out of the receiver, and its readers ring the wakeup.
    pub fn enter(&self, shim: &str) -> (Commands, Arc<ShimWakeup>) {
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

    /// Tells a shim's handle.
    pub fn send(&self, shim: &str, command: Command) -> Result<(), Unreachable> {
        let mailbox = self.lock().by_shim.get(shim).cloned();
        send(mailbox, command)
    }

    /// Tells the handle of a running job. Which attempt runs and who keeps it is found in one
    /// step: the command names that attempt, and can concern no later one.
    pub fn send_to_job(
        &self,
        job: JobNumber,
        command: impl FnOnce(AttemptId) -> Command,
    ) -> Result<(), Unreachable> {
        let found = self.lock().by_job.get(&job).cloned();
        let (key, mailbox) = found.ok_or(Unreachable)?;
        send(Some(mailbox), command(key))
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
                mailbox.wakeup.request(arm.offset);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        // Every use is one operation on a map: a panic leaves nothing half-done.
        lock(&self.0)
    }
}

fn send(mailbox: Option<Mailbox>, command: Command) -> Result<(), Unreachable> {
    let mailbox = mailbox.ok_or(Unreachable)?;
    let slot = match &command {
        Command::Run(_) | Command::Release | Command::Leave => None,
        command => {
            let Ok(slot) = Arc::clone(&mailbox.slots).try_acquire_owned() else {
                if matches!(command, Command::Stop(..) | Command::Pause { .. }) {
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
        let (mut commands, _wakeup) = registry.enter("a");
        let signal = |key| Command::Signal {
            key,
            signal: 15,
            done: oneshot::channel().0,
        };
        assert_eq!(registry.send_to_job(7, signal), Err(Unreachable));
        for attempt in 1..=2 {
            registry.attach(AttemptId { job: 7, attempt }, "a");
            registry.send_to_job(7, signal).expect("a handle");
            let command = commands.recv().await.expect("an command");
            assert_eq!(command.key(), Some(AttemptId { job: 7, attempt }));
        }
        registry.detach(7);
        assert_eq!(registry.send_to_job(7, signal), Err(Unreachable));
    }

    #[tokio::test]
    async fn a_bell_that_nobody_hears_keeps_one_wish_and_it_is_the_least() {
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
        let (mut commands, wakeup) = registry.enter("s");
        let key = AttemptId { job: 1, attempt: 1 };
        registry.attach(key, "s");
        let signal = |key| Command::Signal {
            key,
            signal: 10,
            done: oneshot::channel().0,
        };
        for _ in 0..COMMANDS_MAX {
            registry.send_to_job(1, signal).expect("room");
        }
        assert_eq!(registry.send_to_job(1, signal), Err(Unreachable));
        registry.send("s", Command::Leave).expect("always room");
        let (done, _) = oneshot::channel();
        let pause = Command::Pause {
            key,
            pause: true,
            actor: String::new(),
            done,
        };
        assert_eq!(registry.send("s", pause), Err(Unreachable));
        wakeup.overflowed().await;
        commands.recv().await.expect("an command");
        registry.send_to_job(1, signal).expect("room again");
    }
}
