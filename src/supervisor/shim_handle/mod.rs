//! One task per shim: it passes commands on, watches the attempt that the shim runs, and finalizes
//! it when it ends. When the connection breaks it finds out whether the shim still lives.
//!
//! The scheduler decides what runs next, and what becomes of an attempt whose shim is dead.

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
    registry::{Commands, Registry, ShimCommand, ShimWakeup},
    spawn,
};
use crate::{
    job::{InputAnswer, StopRequest},
    spool::{AnyWelcome, ToShim, message::PROTOCOL},
    store::{ClaimedJob, OpenAttempt, ShimOffer, StartedAttempt},
};
use refusals::RefusedAttempts;
use task::ShimTask;

/// The pause between two tries to reach a shim that lives and does not answer.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How long a handle may take to finish its work when the server stops.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// Starts the handle of a shim that answers, or that lives without answering. `open` is the attempt
/// that the database names for it.
pub fn start(
    ctx: Arc<Context>,
    registry: Registry,
    events: mpsc::UnboundedSender<ShimEvent>,
    shim: String,
    reached: ProbeOutcome,
    open: Option<OpenAttempt>,
) {
    let (commands, wakeup) = registry.register(&shim);
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
        unrecorded: None,
        inputs: PendingInputs::default(),
        started: None,
        last_signs: VecDeque::new(),
        takes_secrets: false,
        tells_last_sign: false,
    };
    let run = async move {
        tokio::select! {
            () = handle.run(reached, open) => {}
            () = stop_deadline(stopping) => {}
        }
    };
    tasks.spawn(vital.watched("keeping a shim", run));
}

/// Resolves `STOP_WITHIN` after the server began to stop: a busy handle is dropped then.
async fn stop_deadline(stopping: CancellationToken) {
    stopping.cancelled().await;
    #[expect(clippy::disallowed_methods, reason = "this is the deadline itself")]
    tokio::time::sleep(STOP_WITHIN).await;
}

/// Resolves at this time; never without one.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A pause or resume that the shim was sent and has not confirmed.
struct PendingPause {
    pause: bool,
    actor: String,
    done: oneshot::Sender<Result<(), String>>,
}

/// A pause (`paused`) or resume that could not be written to the database yet.
struct UnrecordedPause {
    paused: bool,
    actor: String,
    again_at: Instant,
}

/// Inputs that the shim has been sent and has not answered.
#[derive(Default)]
struct PendingInputs {
    /// The number of the next one, counted over all connections.
    next: u64,
    pending: BTreeMap<u64, oneshot::Sender<InputAnswer>>,
}

struct ShimHandle {
    ctx: Arc<Context>,
    registry: Registry,
    events: mpsc::UnboundedSender<ShimEvent>,
    offer: ShimOffer,
    commands: Commands,
    wakeup: Arc<ShimWakeup>,
    /// Commands about an attempt that this shim was not given yet.
    early: VecDeque<ShimCommand>,
    /// What the shim is to run as soon as it is connected.
    run: Option<Box<ClaimedJob>>,
    /// What is to be stopped as soon as the shim is connected.
    stop: Option<(AttemptId, StopRequest)>,
    /// The shim is to leave as soon as it is connected.
    dismissed: bool,
    /// How many attempts the shim has refused in a row.
    refusals: RefusedAttempts,
    task: ShimTask,
    /// The scheduler was told that this shim is free, and has not given it work since. A second
    /// report would make it give the shim two jobs.
    offered: bool,
    pauses: Vec<PendingPause>,
    unrecorded: Option<UnrecordedPause>,
    inputs: PendingInputs,
    /// A start that is committed at this time, unless the end comes first and is committed with it.
    started: Option<(StartedAttempt, Instant)>,
    /// The waits for an answer about the last sign of life, in the order in which the shim was asked.
    last_signs: VecDeque<oneshot::Sender<Option<u64>>>,
    /// Whether the shim takes secrets, as its welcome has said.
    takes_secrets: bool,
    /// Whether it tells of the last sign of life.
    tells_last_sign: bool,
}

/// What follows after a command or a connection.
enum Flow {
    Continue,
    /// The connection is given up, so that another shim can be connected.
    Yielded,
    /// The shim was told to exit, or the server stops.
    Left,
}

impl ShimHandle {
    async fn run(mut self, mut reached: ProbeOutcome, mut open: Option<OpenAttempt>) {
        let mut warned = false;
        loop {
            match reached {
                ProbeOutcome::Answers(connection, welcome) => {
                    warned = false;
                    match self.serve(*connection, welcome, open.take()).await {
                        Ok(Flow::Left) => break,
                        Ok(Flow::Yielded | Flow::Continue) => self.disconnected(),
                        Err(error) => {
                            tracing::info!(shim = self.offer.shim, %error, "a shim's connection broke");
                            self.disconnected();
                        }
                    }
                }
                ProbeOutcome::Later => self.watch(&open),
                ProbeOutcome::Held => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(
                            shim = self.offer.shim,
                            "a shim lives and does not answer; its job is left as it is"
                        );
                    }
                    self.pause(&open).await;
                }
                ProbeOutcome::Unknown(why) => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(
                            shim = self.offer.shim,
                            why,
                            "it is unknown whether a shim lives; its job is left as it is"
                        );
                    }
                    self.pause(&open).await;
                }
                ProbeOutcome::Foreign(welcome) => {
                    self.leave_alone(&welcome, &mut warned, &open).await;
                    reached = probe::watch(&self.ctx, &self.offer.shim, welcome).await;
                    continue;
                }
                ProbeOutcome::Free => {
                    self.registry.remove(&self.offer.shim);
                    self.dead().await;
                    break;
                }
            }
            reached = self.reach().await;
            open = self.open_attempt().await;
        }
        self.registry.remove(&self.offer.shim);
        // A claim that was sent meanwhile is not lost: it is reported with its shim.
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            self.defer(command);
        }
        if let Some(claim) = self.run.take() {
            self.emit(ShimEvent::Dead {
                shim: self.offer.shim.clone(),
                attempt: Some(AttemptId::of_claim(&claim)),
            });
        }
    }

    /// A shim whose protocol this version does not speak keeps its job. Its output can be read; how
    /// the job ended is read from the spool when the shim is gone.
    async fn leave_alone(
        &mut self,
        welcome: &AnyWelcome,
        warned: &mut bool,
        open: &Option<OpenAttempt>,
    ) {
        if !std::mem::replace(warned, true) {
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
        // Before the report: the scheduler must not find a handle of this shim any more.
        self.registry.remove(&self.offer.shim);
        spawn::remove_traces(&self.ctx.layout, &self.offer.shim);
        let attempt = match &self.task {
            // Its end is already being committed.
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
        // The scheduler outlives the handles, except in a stop, when the event does not matter.
        let _ = self.events.send(event);
    }

    /// Serves one connection until the shim is told to exit, the server stops, or another shim
    /// waits for a connection. An error is a broken connection.
    async fn serve(
        &mut self,
        mut connection: ShimConnection,
        welcome: ShimWelcome,
        open: Option<OpenAttempt>,
    ) -> io::Result<Flow> {
        self.offer.version = welcome.version;
        self.takes_secrets = welcome.takes_secrets;
        self.tells_last_sign = welcome.tells_last_sign;
        self.reconcile(&mut connection, welcome.state, open).await?;
        if let Flow::Left = self.run_deferred(&mut connection).await? {
            return Ok(Flow::Left);
        }
        let (ctx, permit_time) = (Arc::clone(&self.ctx), connection.permit_time());
        let mut over = std::pin::pin!(permit_time.expired());
        let mut is_over = false;
        loop {
            if is_over && !self.awaits_answer() {
                return Ok(Flow::Yielded);
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
                    // Requests that did not fit are in the database. They are sent again after a
                    // reconnect.
                    return Err(io::Error::other("its queue of commands is full"));
                }
                offset = self.wakeup.requested() => self.arm(&mut connection, offset).await?,
                () = due(look_at) => connection.wake_if_stopped(),
                () = due(self.started.as_ref().map(|(_, at)| *at)) => self.commit_start(),
                () = due(self.unrecorded.as_ref().map(|pause| pause.again_at)) => {
                    self.record_pause_again().await;
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
