//! The server's side of the shims: it starts them, talks to them, watches one attempt through each,
//! and finalizes what an ended attempt leaves.
//!
//! The `scheduler` decides which job runs next, and what to do about an attempt whose shim is dead.

mod attempt_watch;
mod budget;
mod connection;
mod directory;
mod earlier_lines;
mod finalize;
mod isolation;
mod looked;
mod orphans;
mod policy;
mod probe;
mod process;
mod registry;
mod secrets;
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
pub use isolation::{Isolation, WantedLevel};
pub use looked::Looked;
pub use orphans::{Leader, Mark, OrphanSearcher, OrphanTree, SearchGuard};
pub use policy::{JudgedJob, JudgedReceiver, JudgedReceivers, PolicyRefusal, Taken};
pub use registry::{Registry, ShimCommand};
pub use shim_search::ShimSearch;
pub use spawn::{forget_all_traces, starting_max};
pub use spec::{RunLimits, base_environment, home, look_up_user};

use crate::{
    job::{Input, InputAnswer, JobNumber, StopRequest},
    output::{ArmRequest, Hub, Unlinker},
    policy::PolicyGuard,
    secrets::SecretSources,
    spool::{Layout, ShimKey},
    store::{ClaimedJob, OpenAttempt, ShimOffer, Store},
    sys::vital::Vital,
};

/// The pause after a shim could not be started, before the next one may be started.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Output up to this size becomes rows also on a full disk, bytes: a segment of its own takes about
/// as much.
const INLINE_BYTES_WHEN_SHORT: u64 = 4 << 10;

/// What every part of the supervisor needs.
#[derive(Debug, Clone)]
pub struct Context {
    /// The paths in the data directory.
    pub layout: Layout,
    /// The open directory of the shims' locks and sockets.
    pub directory: Directory,
    /// Finds the processes of living shims in `/proc`.
    pub shim_search: ShimSearch,
    /// How the processes of attempts are held together.
    pub isolation: Isolation,
    /// Finds and ends what is left of the process trees of dead shims.
    pub orphans: OrphanSearcher,
    /// Bounds how many shims are connected at the same time.
    pub budget: Budget,
    /// Bounds how many shims are starting at the same time.
    pub starting: Arc<Semaphore>,
    /// Bounds how many checks of what jobs expect compute at the same time, in short turns.
    pub check_slots: Arc<Semaphore>,
    /// How long one of them may compute, seconds, and as much again for each 4 GiB of the output.
    pub expect_timeout_s: u64,
    /// The database.
    pub store: Store,
    /// Wakes readers of output and of jobs.
    pub hub: Hub,
    /// Unlinks files in the spool.
    pub unlinker: Unlinker,
    /// This server's epoch: shims ignore servers with a lower one.
    pub epoch: u64,
    /// The data directory's instance: a copy of the directory gets another one.
    pub instance: String,
    /// The kernel's boot id: tells whether the machine was restarted since a claim.
    pub boot_id: String,
    /// Bounds that go into every run.
    pub bounds: RunLimits,
    /// The policy, if there is one.
    pub policy: Option<Arc<PolicyGuard>>,
    /// Where the values of secrets come from.
    pub secrets: Arc<SecretSources>,
    /// How long a shim may take to answer.
    pub answer: Duration,
    /// Ends all tasks of the supervisor; the shims and their jobs go on.
    pub stopping: CancellationToken,
    /// The tasks of the shim handles, so that a stop can wait for them.
    pub tasks: TaskTracker,
    /// Runs tasks whose panic ends the server.
    pub vital: Vital,
}

impl Context {
    /// Output up to this size becomes rows now, bytes. While the disk reserve is needed, output
    /// that would take new disk space stays in its segment: many jobs that end at once could use up
    /// the rest.
    pub fn inline_bytes_max_now(&self) -> u64 {
        let max = self.bounds.inline_bytes_max;
        match self.store.disk_reserve().is_needed() {
            true => max.min(INLINE_BYTES_WHEN_SHORT),
            false => max,
        }
    }

    /// The key with which the server proves itself to this shim.
    pub fn key_of(&self, shim: &str) -> ShimKey {
        ShimKey::of(self.store.shim_seed().bytes(), shim)
    }
}

/// What a shim's handle reports to the scheduler.
#[derive(Debug)]
pub enum ShimEvent {
    /// The shim is free for work.
    Idle(ShimOffer),
    /// An attempt has ended and is finalized; the scheduler commits it.
    Ended {
        /// What to commit, and what to unlink after that.
        finalized: Box<Finalized>,
        /// The shim that ran it.
        shim: String,
        /// Set if the shim takes work again once the end is committed.
        offer: Option<ShimOffer>,
    },
    /// The shim answers, and was never given this attempt.
    NeverRan {
        /// The attempt that never ran.
        key: AttemptId,
        /// Set if the shim takes work once the attempt is rescued.
        offer: Option<ShimOffer>,
        /// How long the shim gets no work: above 0 after it refused an attempt.
        pause: Duration,
    },
    /// The shim is dead. The attempt that it may have had is still open in the database.
    Dead {
        /// The shim's id.
        shim: String,
        /// The attempt that it was last given, unless that one has ended.
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

/// A command could not be delivered, or the shim did not answer it in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the job's shim does not answer")]
pub struct Unreachable;

impl Supervisor {
    /// A supervisor that sends `events`, and has shims wake the readers that `arms` name.
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

    /// What the supervisor's parts share.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Starts one more shim in the background and returns its id. `Idle` follows when it is ready,
    /// or `Dead` if it could not be started.
    pub fn spawn_shim(&self) -> String {
        let (ctx, registry, events) = self.parts();
        let shim = spawn::new_id();
        let id = shim.clone();
        let vital = ctx.vital.clone();
        // A stop waits until a shim that was not ready is gone.
        let begun = ctx.tasks.token();
        vital.spawn("starting a shim", async move {
            let _begun = begun;
            match spawn::spawn(&ctx, &shim).await {
                Ok(reached) => shim_handle::start(ctx, registry, events, shim, reached, None),
                Err(_) if ctx.stopping.is_cancelled() => spawn::remove_failed(&ctx, &shim).await,
                Err(error) => {
                    tracing::error!(shim, %error, "a shim could not be started");
                    spawn::remove_failed(&ctx, &shim).await;
                    // The scheduler starts no other shim in its place before it receives `Dead`.
                    #[allow(clippy::disallowed_methods)]
                    let pause = tokio::time::sleep(START_AGAIN_AFTER);
                    ctx.stopping.run_until_cancelled(pause).await;
                    let attempt = None;
                    let _ = events.send(ShimEvent::Dead { shim, attempt });
                }
            }
        });
        id
    }

    /// Probes every shim that left a lock or a socket, all at once, and starts handles for those
    /// that live. `open` are the attempts that are not final. When this returns, every one of them
    /// whose shim answers, or lives without answering, has a handle; for the others an event was
    /// sent. If there are fewer connections than shims, the handles probe the rest.
    ///
    /// # Errors
    ///
    /// The directory of the shims cannot be listed, so it is unknown which shims there are.
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

    /// Stops all handles: idle shims exit, the others keep their jobs. Returns when that is done,
    /// after up to half a second.
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

    /// Gives a shim its next attempt. That also acknowledges the end of the one before.
    pub fn run(&self, claim: ClaimedJob) {
        let shim = claim.shim.clone();
        // The shim may have died since the claim: its handle is gone then, and a rescue has to
        // decide about the attempt.
        if self
            .registry
            .send(&shim, ShimCommand::Run(Box::new(claim.clone())))
            .is_err()
        {
            let _ = self.events.send(ShimEvent::Dead {
                shim,
                attempt: Some(AttemptId::of_claim(&claim)),
            });
        }
    }

    /// Whether a shim has a handle. One that was reported as `Dead` has none.
    pub fn has_handle(&self, shim: &str) -> bool {
        self.registry.has(shim)
    }

    /// Tells a shim that its last attempt's end is committed.
    pub fn release(&self, shim: &str) {
        let _ = self.registry.send(shim, ShimCommand::Release);
    }

    /// Makes an idle shim exit.
    pub fn leave(&self, shim: &str) {
        let _ = self.registry.send(shim, ShimCommand::Leave);
    }

    /// Passes a stop request on. If it is committed and cannot be delivered now, it is sent again
    /// when the shim is adopted.
    ///
    /// # Errors
    ///
    /// The shim has no handle, or its handle's queue of commands is full.
    pub fn stop_job(
        &self,
        shim: &str,
        key: AttemptId,
        request: StopRequest,
    ) -> Result<(), Unreachable> {
        self.registry.send(shim, ShimCommand::Stop(key, request))
    }

    /// Passes a committed pause (`true`) or resume on, and waits until the shim has done it and
    /// that is committed. Also returns `Ok` when the attempt ended first or the shim does not
    /// answer in time: the request stays committed.
    ///
    /// # Errors
    ///
    /// A sentence that says why the job cannot be paused. The job goes on, and the request is
    /// withdrawn.
    pub async fn pause(
        &self,
        shim: &str,
        key: AttemptId,
        pause: bool,
        actor: &str,
    ) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        let command = ShimCommand::Pause {
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

    /// Passes an input on to the stdin of a running attempt, and returns the shim's answer. If the
    /// shim does not answer in time, it is unknown whether it took the input; the `write_id` makes
    /// repeating it safe.
    pub async fn input(
        &self,
        shim: &str,
        key: AttemptId,
        input: Input,
    ) -> Result<InputAnswer, Unreachable> {
        let input = Arc::new(input);
        let (done, answer) = oneshot::channel();
        let command = ShimCommand::Input {
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

    /// When the process of a running job last gave a sign of life, by CLOCK_BOOTTIME, µs; `None` if its shim
    /// does not tell.
    pub async fn last_sign(&self, job: JobNumber) -> Option<u64> {
        let (done, answer) = oneshot::channel();
        let ask = |key| ShimCommand::LastSign { key, done };
        self.registry.send_to_job(job, ask).ok()?;
        tokio::time::timeout(self.ctx.answer, answer)
            .await
            .ok()?
            .ok()?
    }

    /// Sends one signal to the process group of a running job.
    pub async fn signal(&self, job: JobNumber, signal: i32) -> Result<(), Unreachable> {
        let (done, answer) = oneshot::channel();
        self.registry
            .send_to_job(job, |key| ShimCommand::Signal { key, signal, done })?;
        match tokio::time::timeout(self.ctx.answer, answer).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Unreachable),
        }
    }
}
