//! Handles the messages of a shim, and commits what they report.

use std::time::Duration;

use tokio::time::Instant;

use super::{ShimHandle, ShimTask, UnrecordedPause};
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

/// The pause before another try to commit a pause or resume.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How long a start waits for the end of its attempt before it is committed by itself. Very short
/// jobs, of which there can be many, then cost one commit less.
const START_WAITS_FOR_END: Duration = Duration::from_millis(4);

/// The interval between two looks at a process that a shim has started as its sibling, and the most
/// looks.
const REAP_EVERY: Duration = Duration::from_millis(20);
const REAPS_MAX: u32 = 500;

/// Reaps a process that a shim has started as its sibling and that exits at once. It is a child of
/// this server, and no other part of the server knows it. If it is the child of another process,
/// that one reaps it.
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
    /// Handles one message of the shim.
    pub(super) async fn on_message(&mut self, message: FromShim) {
        if self.is_stale(&message) {
            tracing::info!(
                ?message,
                "a message of a shim is about an attempt that it no longer has"
            );
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
                self.refusals.reset();
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
                let pause = self.refusals.record_refusal();
                self.free_after(Some(AttemptId { job, attempt }), true, pause);
            }
            FromShim::Launched { pid, .. } => {
                tokio::spawn(reap_launched(pid));
            }
            FromShim::Input { request, answer } => self.on_input_answer(request, answer),
            FromShim::LastSign { boottime_us, .. } => self.on_last_sign(boottime_us),
            FromShim::Waiting { .. }
            | FromShim::Trouble { .. }
            | FromShim::Stopping { .. }
            | FromShim::Welcome { .. }
            | FromShim::Stale { .. } => {}
        }
    }

    fn on_input_answer(&mut self, request: u64, answer: InputAnswer) {
        if let Some(done) = self.inputs.pending.remove(&request) {
            let _ = done.send(answer);
        }
    }

    fn on_last_sign(&mut self, boottime_us: Option<u64>) {
        if let Some(done) = self.last_signs.pop_front() {
            let _ = done.send(boottime_us);
        }
    }

    /// Logs the messages that change nothing here.
    fn log_message(&self, message: &FromShim) {
        let job = self.task.key().map(|key| key.job);
        match message {
            FromShim::Waiting { waiting, why, .. } => {
                tracing::warn!(job, waiting, why, "a job waits");
            }
            FromShim::Trouble { message } => {
                tracing::error!(job, message, "a shim is in trouble");
            }
            FromShim::Stopping { request, .. } => {
                let cause = request.cause.name();
                tracing::debug!(job, cause, "an attempt is being stopped");
            }
            _ => {}
        }
    }

    /// Whether the message is about another attempt than the one that the shim was given last. It
    /// must not be committed for that one.
    fn is_stale(&self, message: &FromShim) -> bool {
        match (message.about(), self.task.key()) {
            (Some(about), Some(AttemptId { job, attempt })) => !about.is(job, attempt),
            _ => false,
        }
    }

    /// Commits the start in the background, if there is one. After an error it is tried again until
    /// it is committed or the attempt has ended: a client that waits for a start must learn of it
    /// also after a full disk.
    pub(super) fn commit_start(&mut self) {
        let Some((started, _)) = self.started.take() else {
            return;
        };
        let (store, hub) = (self.ctx.store.clone(), self.ctx.hub.clone());
        self.ctx.vital.spawn("committing a start", async move {
            let job = started.number;
            let is_recorded = retry::until_some(|| async {
                match store.started(started.clone()).await {
                    Ok(Fenced::Applied | Fenced::Requeued) => Some(true),
                    Ok(Fenced::Stale) | Err(StoreError::Stopping) => Some(false),
                    Err(error) => {
                        tracing::warn!(job, %error, "a start could not be committed yet");
                        None
                    }
                }
            });
            if is_recorded.await {
                hub.changed(job);
            }
        });
    }

    /// Commits that the tree was paused or resumed, and answers the clients that asked for it.
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
        self.record_pause(AttemptId { job, attempt }, paused, actor)
            .await;
        for asked in asked {
            let _ = asked.done.send(Ok(()));
        }
    }

    /// The shim cannot pause the tree, and it goes on. The request is withdrawn, or it would be
    /// sent again with every adoption; then the clients that asked are answered.
    async fn pause_refused(&mut self, why: String) {
        let Some(AttemptId { job, .. }) = self.task.key() else {
            return;
        };
        let (job_ref, actor) = (JobRef::Number(job), "shim".to_owned());
        let taken_back = self
            .ctx
            .store
            .request_pause(job_ref, false, actor, clock::now());
        if let Err(error) = taken_back.await {
            tracing::warn!(job, %error, "a request to pause could not be withdrawn; it is sent again");
        }
        let (asked, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pauses)
            .into_iter()
            .partition(|asked| asked.pause);
        self.pauses = others;
        for asked in asked {
            let _ = asked.done.send(Err(why.clone()));
        }
    }

    /// Commits which processes a stop could not signal. If that fails, the end reports them.
    async fn stop_refused(&self, refused: Vec<Survivor>) {
        let Some(AttemptId { job, attempt }) = self.task.open_key() else {
            return;
        };
        match self.ctx.store.stop_refused(job, attempt, refused).await {
            Ok(_) => self.ctx.hub.changed(job),
            Err(error) => {
                tracing::warn!(job, %error, "the processes that a stop could not signal are not recorded")
            }
        }
    }

    /// Tries again to commit a pause or resume.
    pub(super) async fn record_pause_again(&mut self) {
        if let (Some(key), Some(pause)) = (self.task.open_key(), self.unrecorded.take()) {
            self.record_pause(key, pause.paused, pause.actor).await;
        }
    }

    /// Commits a pause or resume. After an error it is tried again later, unless another one
    /// follows first: the row must show the present state.
    async fn record_pause(&mut self, key: AttemptId, paused: bool, actor: String) {
        let AttemptId { job, attempt } = key;
        let (store, by) = (&self.ctx.store, actor.clone());
        let recorded = if paused {
            store.paused(job, attempt, by, clock::now()).await
        } else {
            store.resumed(job, attempt, by, clock::now()).await
        };
        self.unrecorded = None;
        match recorded {
            Ok(Fenced::Applied | Fenced::Requeued) => self.ctx.hub.changed(job),
            Ok(Fenced::Stale) | Err(StoreError::Stopping) => {}
            Err(error) => {
                tracing::warn!(job, %error, "a pause could not be committed yet");
                let again_at = Instant::now() + AGAIN_AFTER;
                self.unrecorded = Some(UnrecordedPause {
                    paused,
                    actor,
                    again_at,
                });
            }
        }
    }

    /// Finalizes the attempt and hands it to the scheduler, which commits it.
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
        self.unrecorded = None;
        for (_, done) in std::mem::take(&mut self.inputs.pending) {
            let _ = done.send(InputAnswer::Closed);
        }
        self.last_signs.clear();
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
