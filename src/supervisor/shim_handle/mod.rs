//! One task per shim: it passes commands on, watches the attempt that the shim runs, and settles it
//! when it ends. When the connection breaks it finds out whether the shim still lives.
//!
//! What runs next, and what becomes of an attempt whose shim is dead, is the scheduler's business.

mod on_command;
mod on_message;
mod reconcile;
mod refusals;
mod task;
mod unreachable;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, ShimEvent,
    attempt_watch::AttemptId,
    connection::ShimConnection,
    probe::{self, ProbeOutcome, ShimWelcome},
    registry::{Command, Commands, Registry, ShimWakeup},
    spawn,
};
use crate::{
    job::{InputAnswer, StopWish},
    spool::{AnyWelcome, ToShim, message::PROTOCOL},
    store::{ClaimedJob, OpenAttempt, ShimOffer, StartedAttempt},
};
use refusals::RefusedAttempts;
use task::ShimTask;

/// Between two attempts to reach a shim that lives and does not answer.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How long a handle may take to put its work down when the server stops.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// Starts the handle of a shim that answers, or that lives without answering.
pub fn start(
    ctx: Arc<Context>,
    registry: Registry,
    events: mpsc::UnboundedSender<ShimEvent>,
    shim: String,
    reached: ProbeOutcome,
    open: Option<OpenAttempt>,
) {
    let (commands, wakeup) = registry.enter(&shim);
    let (stopping, tasks) = (ctx.stopping.clone(), ctx.tasks.clone());
    let vital = ctx.vital.clone();
    let handle = ShimHandle {
        offer: ShimOffer {
            shim,
            version: String::new(),
        },
        ctx,
        registry,
        events,
        commands,
        wakeup,
        early: VecDeque::new(),
        run: None,
        stop: None,
        dismissed: false,
        refusals: RefusedAttempts::default(),
        task: ShimTask::None,
        offered: false,
        pauses: Vec::new(),
        unentered: None,
        inputs: PendingInputs::default(),
        started: None,
    };
    let run = async move {
        tokio::select! {
            () = handle.run(reached, open) => {}
            () = too_late(stopping) => {}
        }
    };
    tasks.spawn(vital.watched("keeping a shim", run));
}

/// A handle that is busy with its shim when the server stops is given up after a moment.
async fn too_late(stopping: CancellationToken) {
    stopping.cancelled().await;
    #[expect(clippy::disallowed_methods, reason = "this is the deadline itself")]
    tokio::time::sleep(STOP_WITHIN).await;
}

/// Resolves when something is to be entered.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct PauseAsked {
    pause: bool,
    actor: String,
    done: oneshot::Sender<Result<(), String>>,
}

/// A pause (`paused`) or the end of one that the ledger has not taken yet.
struct Unentered {
    paused: bool,
    actor: String,
    again_at: Instant,
}

/// Inputs that the shim has been sent and has not answered.
#[derive(Default)]
struct PendingInputs {
    /// Names the next one, over all connections.
    next: u64,
    asked: BTreeMap<u64, oneshot::Sender<InputAnswer>>,
}

struct ShimHandle {
    ctx: Arc<Context>,
    registry: Registry,
    events: mpsc::UnboundedSender<ShimEvent>,
    offer: ShimOffer,
    commands: Commands,
    wakeup: Arc<ShimWakeup>,
    /// Commands about an attempt that this shim has not been given yet.
    early: VecDeque<Command>,
    /// What the shim is to run as soon as it is connected.
    run: Option<Box<ClaimedJob>>,
    /// What is to be stopped as soon as the shim is connected.
    stop: Option<(AttemptId, StopWish)>,
    /// The shim is to leave as soon as it is connected.
    dismissed: bool,
    /// The attempts that the shim has refused lately.
    refusals: RefusedAttempts,
    task: ShimTask,
    /// The scheduler counts on this shim: it was told that it is free, and has not given it work
    /// since. It must not be told twice, or it would give it two jobs.
    offered: bool,
    pauses: Vec<PauseAsked>,
    unentered: Option<Unentered>,
    inputs: PendingInputs,
    /// A start that is entered at that moment, unless the end comes first and tells it too.
    started: Option<(StartedAttempt, Instant)>,
}

/// Whether the handle goes on.
enum Flow {
    Continue,
    /// Another shim is to be talked to first.
    Lent,
    /// The shim was sent away, or the server stops.
    Left,
}

impl ShimHandle {
    async fn run(mut self, mut reached: ProbeOutcome, mut open: Option<OpenAttempt>) {
        let mut told = false;
        loop {
            match reached {
                ProbeOutcome::Answers(connection, welcome) => {
                    told = false;
                    match self.serve(*connection, welcome, open.take()).await {
                        Ok(Flow::Left) => break,
                        Ok(Flow::Lent | Flow::Continue) => self.disconnected(),
                        Err(error) => {
                            tracing::info!(shim = self.offer.shim, %error, "a shim's connection broke");
                            self.disconnected();
                        }
                    }
                }
                ProbeOutcome::Later => self.watch(&open),
                ProbeOutcome::Held => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            shim = self.offer.shim,
                            "a shim lives and does not answer; its job is left as it is"
                        );
                    }
                    self.pause(&open).await;
                }
                ProbeOutcome::Unknown(why) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            shim = self.offer.shim,
                            why,
                            "nobody can say whether a shim lives; its job is left as it is"
                        );
                    }
                    self.pause(&open).await;
                }
                ProbeOutcome::Foreign(welcome) => {
                    self.leave_alone(&welcome, &mut told, &open).await;
                    reached = probe::watch(&self.ctx, &self.offer.shim, welcome).await;
                    continue;
                }
                ProbeOutcome::Free => {
                    // Before it is told: who hears of it must not find a handle any more.
                    self.registry.remove(&self.offer.shim);
                    self.dead().await;
                    break;
                }
            }
            reached = self.reach().await;
            open = self.open_attempt().await;
        }
        self.registry.remove(&self.offer.shim);
        // What was ordered in the last moment is not lost either.
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            self.put_off(command);
        }
        if let Some(claim) = self.run.take() {
            self.emit(ShimEvent::Dead {
                shim: self.offer.shim.clone(),
                attempt: Some(AttemptId::of_claim(&claim)),
            });
        }
    }

    /// A shim that we cannot talk to keeps its job. What it writes is readable; how it ends is read
    /// from paper when it is gone.
    async fn leave_alone(
        &mut self,
        welcome: &AnyWelcome,
        told: &mut bool,
        open: &Option<OpenAttempt>,
    ) {
        if !std::mem::replace(told, true) {
            tracing::error!(
                shim = self.offer.shim,
                job = open.as_ref().map(|open| open.number),
                version = welcome.version,
                protocol = welcome.protocol,
                ours = PROTOCOL,
                "a shim of another version speaks a protocol that this one does not; its job is \
                 left as it is and cannot be controlled: start that version of cc-executor to \
                 have it adopted"
            );
        }
        self.pause(open).await;
    }

    async fn dead(&mut self) {
        // Before it is told: whoever hears of it must not count on this shim any more.
        self.registry.remove(&self.offer.shim);
        spawn::remove_traces(&self.ctx.layout, &self.offer.shim);
        let attempt = match &self.task {
            // Its end is on its way into the ledger already.
            ShimTask::None | ShimTask::Ended(_) => None,
            ShimTask::Attempt(watched) => Some(watched.watch.key),
        };
        if let Some(key) = attempt {
            self.registry.detach(key.job);
        }
        self.emit(ShimEvent::Dead {
            shim: self.offer.shim.clone(),
            attempt,
        });
    }

    fn emit(&self, event: ShimEvent) {
        // The scheduler outlives the handles, except in a stop, when nobody needs to know.
        let _ = self.events.send(event);
    }

    /// Serves one connection until the shim is sent away, the server stops, or another shim waits for
    /// its turn. An error is a broken connection.
    async fn serve(
        &mut self,
        mut connection: ShimConnection,
        welcome: ShimWelcome,
        open: Option<OpenAttempt>,
    ) -> io::Result<Flow> {
        self.offer.version = welcome.version;
        self.reconcile(&mut connection, welcome.state, open).await?;
        if let Flow::Left = self.catch_up(&mut connection).await? {
            return Ok(Flow::Left);
        }
        let (ctx, permit_time) = (Arc::clone(&self.ctx), connection.permit_time());
        let mut over = std::pin::pin!(permit_time.expired());
        let mut is_over = false;
        loop {
            if is_over && !self.is_asking() {
                return Ok(Flow::Lent);
            }
            let look_at = self.task.open_key().map(|_| connection.next_wake_check());
            tokio::select! {
                message = connection.receive() => self.on_message(message?).await,
                Some(command) = self.commands.recv() => {
                    if let Flow::Left = self.on_command(&mut connection, command).await? {
                        return Ok(Flow::Left);
                    }
                }
                () = &mut over, if !is_over => is_over = true,
                () = self.wakeup.overflowed() => {
                    // Wishes that found no room are in the ledger, and are sent again.
                    return Err(io::Error::other("more commands than it takes"));
                }
                offset = self.wakeup.requested() => self.arm(&mut connection, offset).await?,
                () = due(look_at) => connection.wake_if_stopped(),
                () = due(self.started.as_ref().map(|(_, at)| *at)) => self.commit_start(),
                () = due(self.unentered.as_ref().map(|pause| pause.again_at)) => {
                    self.enter_pause_again().await;
                }
                () = ctx.stopping.cancelled() => {
                    self.commit_start();
                    if matches!(self.task, ShimTask::None) {
                        connection.send(&ToShim::Leave).await?;
                    }
                    return Ok(Flow::Left);
                }
            }
        }
    }
}
