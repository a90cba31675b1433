//! One attempt from its first segment to its exit record: its state, what the server has asked of
//! it, and which step comes next. Messages for the server go into [`ShimContext::outgoing`]; the
//! event loop sends them.

mod backoff;
mod cgroup;
pub(super) mod closing;
mod emit;
pub(super) mod ending;
pub(super) mod feed;
pub(super) mod flow;
pub(super) mod halt;
pub(super) mod pause;
mod pause_state;
pub(super) mod pending;
pub(super) mod phase;
pub(super) mod start;
pub(super) mod stop;
mod stopwatch;

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    context::ShimContext,
    log::{AttemptLog, Obstacle},
    process::{pipes::Pipes, spawn, usage},
    redaction::Redaction,
    timestamps,
};
use crate::{
    job::{Offset, StopCause, StopRequest, Stream},
    spool::{AttemptRef, RunSpec},
    sys::cgroup::Cgroup,
};
use feed::Feed;
use pause_state::PauseState;
use phase::{Deferred, EndStep, Phase, StartStep, Starting};
use stop::StopProgress;
use stopwatch::Stopwatch;

/// The attempt cannot go on, and when to try again (`None`: when the sync thread has a result).
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) retry_at: Option<Instant>,
}

/// An attempt that has a segment.
pub struct Attempt {
    pub(super) spec: RunSpec,
    pub(super) phase: Phase,
    /// Its control group, if it has one.
    pub(super) cgroup: Option<Cgroup>,
    pub(super) log: AttemptLog,
    pub(super) pipes: Pipes,
    pub(super) stdin: Feed,
    /// Whether stderr is read before stdout next time.
    pub(super) stderr_first: bool,
    pub(super) stop: Option<StopProgress>,
    /// A stop was requested after the leader's exit: it is too late to change how the attempt
    /// ended, but the rest of its output is no longer waited for.
    pub(super) end_wanted: bool,
    /// When every living process is killed, and killed again.
    pub(super) kill_at: Option<Instant>,
    /// When the children are looked at again, because not all could be looked at or reaped.
    pub(super) look_at: Option<Instant>,
    pub(super) run_time: Stopwatch,
    pub(super) silence: Stopwatch,
    /// When it last gave a sign of life: CLOCK_BOOTTIME, µs; `None` before its start.
    pub(super) last_sign_us: Option<u64>,
    pub(super) armed: Option<Offset>,
    pub(super) blocked: Option<Blocked>,
    /// Why the process waits, while the server has been told so.
    pub(super) reported_waiting: Option<String>,
    pub(super) reported_trouble: Option<String>,
    pub(super) used: usage::UsageSum,
    /// The masks of its secrets; `None` where its output is not masked.
    pub(super) redaction: Option<Box<Redaction>>,
}

impl Attempt {
    /// Begins the attempt, whose right to start is taken: `log` has its first segment. `deferred`
    /// is what was requested before.
    pub fn begin(
        spec: RunSpec,
        stdin: Feed,
        deferred: Deferred,
        log: AttemptLog,
        context: &mut ShimContext,
        now: Instant,
    ) -> Self {
        let mut attempt = Self {
            phase: Phase::Starting(Starting {
                deferred,
                ..Starting::default()
            }),
            cgroup: None,
            log,
            pipes: Pipes::default(),
            stdin,
            stderr_first: false,
            stop: None,
            end_wanted: false,
            kill_at: None,
            look_at: None,
            run_time: Stopwatch::started(now),
            silence: Stopwatch::started(now),
            last_sign_us: None,
            armed: None,
            blocked: None,
            reported_waiting: None,
            reported_trouble: None,
            used: usage::UsageSum::default(),
            redaction: None,
            spec,
        };
        attempt.prepare_redaction();
        if let Some(request) = attempt.spec.stop.clone() {
            attempt.stop(request, context, now);
        }
        attempt.advance(context, now);
        attempt
    }

    /// Makes the masks. A job whose secrets could not be masked is not started.
    fn prepare_redaction(&mut self) {
        match Redaction::of(&self.spec) {
            Ok(redaction) => self.redaction = redaction.map(Box::new),
            Err(error) => {
                let what = format!("mask its secrets: {error}");
                self.spec.refusal = Some(spawn::failed(Errno::E2BIG, &what));
            }
        }
    }

    /// Does the next steps, as far as none of them waits.
    pub fn advance(&mut self, context: &mut ShimContext, now: Instant) {
        if self.is_blocked(now) {
            return;
        }
        let mut step = self.step(context, now);
        // The disk reserve is for the exit record; a drain takes its share of it by itself.
        while let Err(Obstacle::Full(_)) = step
            && self.is_recording()
            && context.reserve.release()
        {
            step = self.step(context, now);
        }
        match step {
            Ok(()) => self.unblock(context, now),
            Err(why) => self.block(why, context, now),
        }
    }

    fn step(&mut self, context: &mut ShimContext, now: Instant) -> Result<(), Obstacle> {
        match &self.phase {
            Phase::Starting(starting) => match starting.step {
                StartStep::Fork => self.start_process(context, now),
                StartStep::Exec(_) => self.log_ready(context, now),
                StartStep::Failed { .. } => Ok(()),
            },
            Phase::Living(_) => self.log_ready(context, now),
            Phase::Draining(_) => self.drain(context, now),
            Phase::Ended(ended) => match ended.step {
                EndStep::Recording => self.record(context),
                EndStep::Syncing => self.await_sync(context),
                EndStep::Reported(_) => self.complete_record(context),
            },
        }
    }

    fn is_blocked(&self, now: Instant) -> bool {
        match &self.blocked {
            Some(Blocked { retry_at }) => retry_at.is_some_and(|at| now < at),
            None => false,
        }
    }

    /// Writes output that waits for the disk; nothing to do where none waits.
    fn log_ready(&mut self, context: &mut ShimContext, now: Instant) -> Result<(), Obstacle> {
        if self.blocked.is_none() {
            return Ok(());
        }
        let ready = self.log.make_ready(&mut context.write_context(), false);
        let ready = ready.and_then(|()| self.write_released(context, now));
        // No read of the pipes reports a frame that had waited.
        self.emit_growth(context);
        ready
    }

    /// The earliest time at which a limit, a stop or a retry is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let limits = self.limits().map(|(at, _)| at);
        let retry = self.blocked.as_ref().and_then(|b| b.retry_at);
        let pause = self.phase.pause().and_then(|pause| pause.next_at());
        let looks = self.look_at.into_iter().chain(pause);
        limits.chain(self.kill_at).chain(retry).chain(looks).min()
    }

    /// The limits of the running process, each with the time at which it is reached.
    pub(super) fn limits(&self) -> impl Iterator<Item = (Instant, StopCause)> + use<> {
        let open = self.phase.has_limits() && self.stop.is_none();
        let at = |limit_ms: Option<u64>, watch: &Stopwatch, cause| {
            let limit = limit_ms.filter(|_| open).map(Duration::from_millis)?;
            Some((watch.shows_at(limit)?, cause))
        };
        let spec = &self.spec;
        [
            at(spec.timeout_ms, &self.run_time, StopCause::Timeout),
            at(spec.stall_timeout_ms, &self.silence, StopCause::Stalled),
        ]
        .into_iter()
        .flatten()
    }

    /// The descriptors to poll: streams that may be read now, and stdin while it is open.
    pub fn wants(&self) -> Wants<'_> {
        let source = |stream| self.pipes.source(stream).filter(|_| self.reads_output());
        Wants {
            report: self.phase.forked().map(|forked| &forked.report),
            stdout: source(Stream::Stdout),
            stderr: source(Stream::Stderr),
            stdin: self.stdin.sink(),
        }
    }

    /// Whether output is read. Survivors of an attempt that has ended never have to wait for a full
    /// pipe: what they write is discarded.
    pub(super) fn reads_output(&self) -> bool {
        match self.phase {
            Phase::Living(_) => self.blocked.is_none(),
            _ => self.is_reported(),
        }
    }

    /// Holds or runs both stopwatches: a pause holds the run time, a pause or blocked output holds
    /// the silence.
    pub(super) fn run_clocks(&mut self, now: Instant) {
        let runs = !self.is_paused();
        self.run_time.run(runs, now);
        self.silence.run(runs && self.blocked.is_none(), now);
    }

    /// Whether its processes are stopped by a pause.
    pub(super) fn is_paused(&self) -> bool {
        self.phase.pause().is_some_and(PauseState::is_on)
    }

    /// The process has written, was given input, or runs from now on.
    pub(super) fn gave_sign(&mut self) {
        self.last_sign_us = Some(timestamps::now().1);
    }

    /// Names this attempt in messages.
    pub(super) fn about(&self) -> AttemptRef {
        AttemptRef::attempt(self.spec.job, self.spec.attempt)
    }

    /// A stop request of the shim itself, for a limit.
    pub(super) fn limit_request(&self, cause: StopCause) -> StopRequest {
        StopRequest {
            by: "shim".to_owned(),
            cause,
            asked_at_us: timestamps::wall_us(),
            grace_ms: self.spec.grace_ms,
        }
    }
}

/// The descriptors that an attempt waits for.
#[derive(Default)]
pub struct Wants<'a> {
    /// The failure report of a starting child.
    pub report: Option<&'a OwnedFd>,
    /// The pipe of stdout, while it may be read.
    pub stdout: Option<&'a OwnedFd>,
    /// The pipe of stderr, while it may be read.
    pub stderr: Option<&'a OwnedFd>,
    /// The stdin pipe, while it is open, and whether bytes wait to be written.
    pub stdin: Option<(&'a OwnedFd, bool)>,
}
