//! THE HOSPITAL: the server's side of the shims. It starts them, talks to them, watches one
//! attempt through each, and settles what an ended attempt leaves behind.
//!
//! Which job runs next, and what is to be done about an attempt whose shim is dead, is decided
//! above (`scheduler`); nothing here claims or rescues.

mod attempt_watch;
mod budget;
mod connection;
mod directory;
mod earlier_lines;
mod finalize;
mod looked;
mod orphans;
mod probe;
mod process;
mod registry;
mod shim_handle;
mod shim_search;
mod spawn;
mod spec;
mod wake;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use attempt_watch::{AttemptId, AttemptWatch, first_segment};
pub use budget::Budget;
pub use directory::Directory;
pub use finalize::{AttemptEnding, Finalized, finalize};
pub use looked::Looked;
pub use orphans::{Leader, Mark, OrphanSearcher, OrphanTree, SearchGuard};
pub use registry::{Command, Registry};
pub use shim_search::ShimSearch;
pub use spawn::{forget_all_traces, starting_max};
pub use spec::{RunLimits, home, look_up_user};

use crate::{
    job::{Input, InputAnswer, JobNumber, StopWish},
    output::{ArmRequest, Hub, Unlinker},
    spool::{Layout, ShimKey},
    store::{ClaimedJob, OpenAttempt, ShimOffer, Store},
    sys::vital::Vital,
};

/// How long after a shim could not be started the next one may be.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Output up to this size becomes rows also on a full disk, bytes: about what a segment of its own
/// takes.
const INLINE_BYTES_WHEN_SHORT: u64 = 4 << 10;

/// What every part of the hospital needs.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where things lie.
    pub layout: Layout,
    /// Where the shims' locks and sockets are.
    pub directory: Directory,
    /// Finds shims by their processes.
    pub shim_search: ShimSearch,
    /// Finds and ends what is left of trees.
    pub orphans: OrphanSearcher,
    /// How many shims may be talked to.
    pub budget: Budget,
    /// How many shims may be starting.
    pub starting: Arc<Semaphore>,
    /// The ledger.
    pub store: Store,
    /// Wakes readers.
    pub hub: Hub,
    /// Takes files out of the spool.
    pub unlinker: Unlinker,
    /// This server's epoch.
    pub epoch: u64,
    /// The data directory's instance.
    pub instance: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Bounds that go into every run.
    pub bounds: RunLimits,
    /// How long a shim may take to answer.
    pub answer: Duration,
    /// Ends all tasks of the supervisor; the shims and their jobs go on.
    pub stopping: CancellationToken,
    /// The handles, so that a stop can wait for them.
    pub tasks: TaskTracker,
    /// Where a panic ends the server.
    pub vital: Vital,
}

impl Context {
    /// Output up to this size becomes rows now, bytes. Where the disk reserve is needed, what would
    /// take new room stays in its segment: many that end at once could use up the rest.
    pub fn inline_bytes_max_now(&self) -> u64 {
        let max = self.bounds.inline_bytes_max;
        match self.store.ballast().is_needed() {
            true => max.min(INLINE_BYTES_WHEN_SHORT),
            false => max,
        }
    }

    /// The key of a shim.
    pub fn key_of(&self, shim: &str) -> ShimKey {
        ShimKey::of(self.store.shim_seed().bytes(), shim)
    }
}

/// What a shim's handle tells the scheduler.
#[derive(Debug)]
pub enum ShimEvent {
    /// The shim is free for work.
    Idle(ShimOffer),
    /// An attempt has ended and its output is finalized; `offer` is set where the shim takes work
    /// again once this is committed.
    Ended {
        /// What to commit, and what to unlink behind it.
        finalized: Box<Finalized>,
        /// The shim.
        shim: String,
        /// Set where the shim takes work again.
        offer: Option<ShimOffer>,
    },
    /// This attempt never ran in that shim: it answers, and knows nothing of it.
    NeverRan {
        /// The attempt.
        key: AttemptId,
        /// Set where the shim is free for work, once the attempt is rescued.
        offer: Option<ShimOffer>,
        /// How long it is to be left alone before it is given work: it has refused some.
        pause: Duration,
    },
    /// The shim is dead: its lock is free. The attempt that it may have had is open.
    Dead {
        /// The shim.
        shim: String,
        /// What it was last given.
        attempt: Option<AttemptId>,
    },
}

/// The server's side of all shims. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    ctx: Arc<Context>,
    registry: Registry,
    events: mpsc::UnboundedSender<ShimEvent>,
}

/// Whether an command found its shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the job's shim does not answer")]
pub struct Unreachable;

impl Supervisor {
    /// A supervisor that tells `events` what happens, and wakes readers when `arms` ask for it.
    pub fn new(
        ctx: Context,
        events: mpsc::UnboundedSender<ShimEvent>,
        arms: mpsc::UnboundedReceiver<ArmRequest>,
    ) -> Self {
        let registry = Registry::default();
        let forwarding = registry.clone().forward_arms(arms, ctx.stopping.clone());
        ctx.vital.spawn("waking readers", forwarding);
        Self {
            ctx: Arc::new(ctx),
            registry,
            events,
        }
    }

    /// What every part needs.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Starts one more shim and returns its id. It tells `Idle` when it is ready, or `Dead` if it
    /// could not be started.
    pub fn spawn_shim(&self) -> String {
        let (ctx, registry, events) = self.parts();
        let shim = spawn::new_id();
        let id = shim.clone();
        let vital = ctx.vital.clone();
        vital.spawn("starting a shim", async move {
            match spawn::spawn(&ctx, &shim).await {
                Ok(reached) => shim_handle::start(ctx, registry, events, shim, reached, None),
                Err(error) => {
                    tracing::error!(shim, %error, "a shim could not be started");
                    spawn::remove_failed(&ctx, &shim).await;
                    // Until this is told nobody tries to start another one for it.
                    #[allow(clippy::disallowed_methods)]
                    tokio::time::sleep(START_AGAIN_AFTER).await;
                    let attempt = None;
                    let _ = events.send(ShimEvent::Dead { shim, attempt });
                }
            }
        });
        id
    }

    /// Asks every shim that left a trace, all at once, and keeps those that live. `open` are the
    /// attempts that are not final. Every one of them whose shim answers, or lives without
    /// answering, is in its handle's hands when this returns; the others are told as events. Where
    /// there are fewer connections than shims, the rest is asked by its handles.
    ///
    /// # Errors
    ///
    /// Nobody can say which shims there are.
    pub async fn probe_all(&self, open: Vec<OpenAttempt>) -> std::io::Result<()> {
        let mut shims = spawn::traces(&self.ctx.layout).await?;
        shims.extend(open.iter().map(|attempt| attempt.shim.clone()));
        let asked = shims.into_iter().map(|shim| {
            let attempt = open.iter().find(|a| a.shim == shim).cloned();
            self.take_over(shim, attempt)
        });
        futures_util::future::join_all(asked).await;
        Ok(())
    }

    async fn take_over(&self, shim: String, attempt: Option<OpenAttempt>) {
        let (ctx, registry, events) = self.parts();
        match probe::reach_now(&ctx, &shim).await {
            probe::ProbeOutcome::Free => {
                spawn::remove_traces(&ctx.layout, &shim);
                let _ = events.send(ShimEvent::Dead {
                    shim,
                    attempt: attempt.as_ref().map(AttemptId::of_open),
                });
            }
            reached => shim_handle::start(ctx, registry, events, shim, reached, attempt),
        }
    }

    /// Puts everything down: idle shims leave, the others keep their jobs. Returns when that is
    /// done, after half a second at most.
    pub async fn stop(&self) {
        self.ctx.stopping.cancel();
        self.ctx.tasks.close();
        self.ctx.tasks.wait().await;
    }

    fn parts(&self) -> (Arc<Context>, Registry, mpsc::UnboundedSender<ShimEvent>) {
        (
            Arc::clone(&self.ctx),
            self.registry.clone(),
            self.events.clone(),
        )
    }

    /// Gives a shim its next attempt; acknowledges the one before.
    pub fn run(&self, claim: ClaimedJob) {
        let shim = claim.shim.clone();
        // A shim that died in between is told as `Dead` by its handle, with this attempt's row
        // naming it; the command is then answered by the rescue.
        if self
            .registry
            .send(&shim, Command::Run(Box::new(claim.clone())))
            .is_err()
        {
            let _ = self.events.send(ShimEvent::Dead {
                shim,
                attempt: Some(AttemptId::of_claim(&claim)),
            });
        }
    }

    /// Whether a shim is in somebody's hands: one that was told as `Dead` is not.
    pub fn has_handle(&self, shim: &str) -> bool {
        self.registry.has(shim)
    }

    /// Tells a shim that its last attempt's end is committed.
    pub fn release(&self, shim: &str) {
        let _ = self.registry.send(shim, Command::Release);
    }

    /// Sends an idle shim away.
    pub fn leave(&self, shim: &str) {
        let _ = self.registry.send(shim, Command::Leave);
    }

    /// Passes a stop wish on. One that is committed is sent again after adoption, if it finds nobody.
    ///
    /// # Errors
    ///
    /// The shim is not known, or has more commands than it takes.
    pub fn stop_job(&self, shim: &str, key: AttemptId, wish: StopWish) -> Result<(), Unreachable> {
        self.registry.send(shim, Command::Stop(key, wish))
    }

    /// Passes a committed pause (`true`) or resume on, and waits until the shim has done it and
    /// that is committed. Dropped answers mean that the attempt ended first.
    ///
    /// # Errors
    ///
    /// A sentence why the job cannot be paused: it goes on, and the wish is taken back.
    pub async fn pause(
        &self,
        shim: &str,
        key: AttemptId,
        pause: bool,
        actor: &str,
    ) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        let command = Command::Pause {
            key,
            pause,
            actor: actor.to_owned(),
            done,
        };
        if self.registry.send(shim, command).is_ok() {
            let answered = tokio::time::timeout(self.ctx.answer, answer).await;
            if let Ok(Ok(answer)) = answered {
                return answer;
            }
        }
        Ok(())
    }

    /// Passes an input on to the stdin of a running attempt; what its shim says. Where it does not
    /// answer in time, nobody knows whether the input was taken: its `write_id` makes repeating it
    /// safe.
    pub async fn input(
        &self,
        shim: &str,
        key: AttemptId,
        input: Input,
    ) -> Result<InputAnswer, Unreachable> {
        let input = Arc::new(input);
        let (done, answer) = oneshot::channel();
        let command = Command::Input {
            key,
            input: Arc::downgrade(&input),
            done,
        };
        self.registry.send(shim, command)?;
        match tokio::time::timeout(self.ctx.answer, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Unreachable),
        }
    }

    /// Sends one signal to the process group of a running job.
    pub async fn signal(&self, job: JobNumber, signal: i32) -> Result<(), Unreachable> {
        let (done, answer) = oneshot::channel();
        self.registry
            .send_to_job(job, |key| Command::Signal { key, signal, done })?;
        match tokio::time::timeout(self.ctx.answer, answer).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Unreachable),
        }
    }
}
