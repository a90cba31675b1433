//! Takes what a shim says, and enters it in the ledger.

use std::time::Duration;

use tokio::time::Instant;

use super::{ShimHandle, ShimTask, Unentered};
use crate::{
    job::{ExitFacts, InputAnswer, JobRef, Micros, Survivor},
    output::files::durable::is_sync_failure,
    spool::FromShim,
    store::{Fenced, StartedAttempt, StoreError},
    supervisor::{
        AttemptId, ShimEvent,
        finalize::{AttemptEnding, finalize},
    },
    sys::{clock, retry, threads::blocking},
};

/// How long after a pause that could not be entered it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How long a start waits for the end of its attempt before it is entered by itself: very short
/// jobs, of which there can be many, then cost one commit less.
const START_WAITS_FOR_END: Duration = Duration::from_millis(4);

/// Between two looks at a process that a shim has started beside itself, and how many there are.
const REAP_EVERY: Duration = Duration::from_millis(20);
const REAPS_MAX: u32 = 500;

/// Takes the exit status of a process that a shim has started beside itself, and which leaves at once:
/// our child, of which nobody else knows. Where it is not ours, somebody else takes it.
async fn reap_launched(pid: i32) {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let mut looks = tokio::time::interval(REAP_EVERY);
    for _ in 0..REAPS_MAX {
        looks.tick().await;
        let child = nix::unistd::Pid::from_raw(pid);
        if waitpid(child, Some(WaitPidFlag::WNOHANG)) != Ok(WaitStatus::StillAlive) {
            return;
        }
    }
}

impl ShimHandle {
    /// Takes what the shim says.
    pub(super) async fn on_message(&mut self, message: FromShim) {
        if self.is_late(&message) {
            tracing::info!(?message, "a shim spoke of an attempt that it has no more");
            return;
        }
        self.log_message(&message);
        match message {
            FromShim::Started {
                job,
                attempt,
                pid,
                start_ticks,
                started_at_us,
            } => {
                let started = StartedAttempt {
                    number: job,
                    attempt,
                    pid,
                    start_ticks,
                    at: Micros(started_at_us),
                };
                self.refusals.none();
                self.started = Some((started, Instant::now() + START_WAITS_FOR_END));
            }
            FromShim::Grew { offset, .. } => {
                if let Some(key) = self.task.key() {
                    self.ctx.hub.grew(key.job, offset);
                }
            }
            FromShim::Sealed { .. } => {
                if let Some(watched) = self.task.watched() {
                    watched.hasher(&self.ctx).sealed();
                }
            }
            FromShim::PauseRefused { why, .. } => self.pause_refused(why).await,
            FromShim::StopRefused { refused, .. } => self.stop_refused(refused).await,
            FromShim::Paused { .. } => self.commit_pause(true).await,
            FromShim::Resumed { .. } => self.commit_pause(false).await,
            FromShim::Exited {
                facts,
                synced,
                reusable,
                ..
            } => {
                self.ended(*facts, synced, reusable).await;
            }
            FromShim::Refused { job, attempt, why } => {
                tracing::error!(job, attempt, why, "a shim refused an attempt");
                let pause = self.refusals.another();
                self.free_after(Some(AttemptId { job, attempt }), true, pause);
            }
            FromShim::Launched { pid, .. } => {
                tokio::spawn(reap_launched(pid));
            }
            FromShim::Input { request, answer } => {
                if let Some(done) = self.inputs.asked.remove(&request) {
                    let _ = done.send(answer);
                }
            }
            FromShim::Waiting { .. }
            | FromShim::Trouble { .. }
            | FromShim::Stopping { .. }
            | FromShim::Welcome { .. }
            | FromShim::Stale { .. } => {}
        }
    }

    /// Logs the messages that are for people only.
    fn log_message(&self, message: &FromShim) {
        let job = self.task.key().map(|key| key.job);
        match message {
            FromShim::Waiting { waiting, why, .. } => {
                tracing::warn!(job, waiting, why, "a job waits");
            }
            FromShim::Trouble { message } => {
                tracing::error!(job, message, "a shim is in trouble");
            }
            FromShim::Stopping { wish, .. } => {
                let cause = wish.cause.name();
                tracing::debug!(job, cause, "an attempt is being stopped");
            }
            _ => {}
        }
    }

    /// Whether this is about another attempt than the one that the shim was given last: nothing of
    /// it may be entered for that one.
    fn is_late(&self, message: &FromShim) -> bool {
        match (message.about(), self.task.key()) {
            (Some(about), Some(AttemptId { job, attempt })) => !about.is(job, attempt),
            _ => false,
        }
    }

    /// Enters the start, if there is one to enter; nobody waits for it. It is tried until the
    /// ledger takes it or the attempt has ended: who waits for a start must hear of it also after
    /// a full disk.
    pub(super) fn commit_start(&mut self) {
        let Some((started, _)) = self.started.take() else {
            return;
        };
        let (store, hub) = (self.ctx.store.clone(), self.ctx.hub.clone());
        self.ctx.vital.spawn("entering a start", async move {
            let job = started.number;
            let is_entered = retry::until_some(|| async {
                match store.started(started.clone()).await {
                    Ok(Fenced::Done | Fenced::Again) => Some(true),
                    Ok(Fenced::Stale) | Err(StoreError::Stopping) => Some(false),
                    Err(error) => {
                        tracing::warn!(job, %error, "a start could not be entered yet");
                        None
                    }
                }
            });
            if is_entered.await {
                hub.changed(job);
            }
        });
    }

    /// Enters that the tree was stopped, or goes on, and answers who asked for it.
    pub(super) async fn commit_pause(&mut self, paused: bool) {
        let Some(AttemptId { job, attempt }) = self.task.key() else {
            return;
        };
        let (asked, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pauses)
            .into_iter()
            .partition(|asked| asked.pause == paused);
        self.pauses = others;
        let actor = asked
            .last()
            .map_or_else(|| "shim".to_owned(), |asked| asked.actor.clone());
        self.enter_pause(AttemptId { job, attempt }, paused, actor)
            .await;
        for asked in asked {
            let _ = asked.done.send(Ok(()));
        }
    }

    /// The shim cannot pause the tree, and it goes on: who asked for it is told, and the wish is taken
    /// back, or it would be sent again with every adoption.
    async fn pause_refused(&mut self, why: String) {
        let Some(AttemptId { job, .. }) = self.task.key() else {
            return;
        };
        let (job_ref, actor) = (JobRef::Number(job), "shim".to_owned());
        let taken_back = self
            .ctx
            .store
            .wish_pause(job_ref, false, actor, clock::now());
        if let Err(error) = taken_back.await {
            tracing::warn!(job, %error, "a wish to pause could not be taken back; it is sent again");
        }
        let (asked, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pauses)
            .into_iter()
            .partition(|asked| asked.pause);
        self.pauses = others;
        for asked in asked {
            let _ = asked.done.send(Err(why.clone()));
        }
    }

    /// Enters whom a stop could not reach. Where that fails the end tells it.
    async fn stop_refused(&self, refused: Vec<Survivor>) {
        let Some(AttemptId { job, attempt }) = self.task.open_key() else {
            return;
        };
        match self.ctx.store.stop_refused(job, attempt, refused).await {
            Ok(_) => self.ctx.hub.changed(job),
            Err(error) => tracing::warn!(job, %error, "whom a stop could not reach is not entered"),
        }
    }

    /// Tries to enter a pause that the ledger did not take.
    pub(super) async fn enter_pause_again(&mut self) {
        if let (Some(key), Some(pause)) = (self.task.open_key(), self.unentered.take()) {
            self.enter_pause(key, pause.paused, pause.actor).await;
        }
    }

    /// One that the ledger does not take is entered later, unless another one follows first: the
    /// row must say what is.
    async fn enter_pause(&mut self, key: AttemptId, paused: bool, actor: String) {
        let AttemptId { job, attempt } = key;
        let (store, by) = (&self.ctx.store, actor.clone());
        let entered = if paused {
            store.paused(job, attempt, by, clock::now()).await
        } else {
            store.resumed(job, attempt, by, clock::now()).await
        };
        self.unentered = None;
        match entered {
            Ok(Fenced::Done | Fenced::Again) => self.ctx.hub.changed(job),
            Ok(Fenced::Stale) | Err(StoreError::Stopping) => {}
            Err(error) => {
                tracing::warn!(job, %error, "a pause could not be entered yet");
                let again_at = Instant::now() + AGAIN_AFTER;
                self.unentered = Some(Unentered {
                    paused,
                    actor,
                    again_at,
                });
            }
        }
    }

    /// Settles the attempt and hands it to the scheduler, which commits it.
    pub(super) async fn ended(&mut self, facts: ExitFacts, synced: bool, reusable: bool) {
        let task = std::mem::replace(&mut self.task, ShimTask::None);
        let ShimTask::Attempt(watched) = task else {
            tracing::error!(
                shim = self.offer.shim,
                "a shim ended an attempt that it was not given"
            );
            return;
        };
        let key = watched.watch.key;
        self.registry.detach(key.job);
        self.pauses.clear();
        self.unentered = None;
        for (_, done) in std::mem::take(&mut self.inputs.asked) {
            let _ = done.send(InputAnswer::Closed);
        }
        let start = self.started.take().map(|(started, _)| started);
        self.task = ShimTask::Ended(key);
        let watch = watched.into_watch().await;
        let ending = AttemptEnding::Known {
            facts: Box::new(facts),
            synced,
        };
        let ctx = &self.ctx;
        let mut finalized = retry::until_some(|| async {
            let (spool, inline) = (ctx.layout.spool(), ctx.inline_bytes_max_now());
            let (watch, ending) = (watch.clone(), ending.clone());
            match blocking(move || finalize(&spool, inline, watch, ending)).await {
                Ok(finalized) => Some(finalized),
                Err(error) => {
                    if is_sync_failure(&error) {
                        ctx.store.distrust(&error);
                    }
                    tracing::error!(job = key.job, %error, "an ended job's output cannot be read; trying again");
                    None
                }
            }
        })
        .await;
        finalized.start = start;
        self.offered = reusable;
        self.emit(ShimEvent::Ended {
            finalized: Box::new(finalized),
            shim: self.offer.shim.clone(),
            offer: reusable.then(|| self.offer.clone()),
        });
    }
}
