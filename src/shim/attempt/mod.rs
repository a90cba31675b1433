//! One attempt from its first segment to its exit record: what it is doing, what was asked of it,
//! and which step comes next. Sockets are not known here: what the server should hear is said
//! into the kit.

mod backoff;
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

use super::{
    context::ShimContext,
    log::{AttemptLog, Obstacle},
    process::{pipes::Pipes, usage},
    timestamps,
};
use crate::{
    job::{Offset, StopCause, StopRequest, Stream},
    spool::{AttemptRef, RunSpec},
};
use feed::Feed;
use pause_state::PauseState;
use phase::{EndStep, Later, Phase, StartStep, Starting};
use stop::StopProgress;
use stopwatch::Stopwatch;

/// That the attempt cannot go on, and when to try again (`None`: when the sync thread says so).
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) retry_at: Option<Instant>,
}

/// One attempt.
pub struct Attempt {
    pub(super) spec: RunSpec,
    pub(super) phase: Phase,
    pub(super) log: AttemptLog,
    pub(super) pipes: Pipes,
    pub(super) stdin: Feed,
    /// Whose turn it is to be read first.
    pub(super) stderr_first: bool,
    pub(super) stop: Option<StopProgress>,
    /// A stop was asked for after the leader's exit: it is too late to change how the attempt
    /// ended, and what is left of its output is not to be waited for.
    pub(super) end_wanted: bool,
    /// When everything that lives is killed, and killed again.
    pub(super) kill_at: Option<Instant>,
    /// When the processes are looked at again, because they could not all be looked at.
    pub(super) look_at: Option<Instant>,
    pub(super) run_time: Stopwatch,
    pub(super) silence: Stopwatch,
    pub(super) armed: Option<Offset>,
    pub(super) blocked: Option<Blocked>,
    /// Why the process waits, while that is what was told.
    pub(super) told_waiting: Option<String>,
    pub(super) told_trouble: Option<String>,
    pub(super) used: usage::Sum,
}

impl Attempt {
    /// Begins the attempt, whose right to start is taken: `log` has its first segment. `later` is
    /// what was asked before.
    pub fn begin(
        spec: RunSpec,
        stdin: Feed,
        later: Later,
        log: AttemptLog,
        kit: &mut ShimContext,
        now: Instant,
    ) -> Self {
        let mut attempt = Self {
            phase: Phase::Starting(Starting {
                later,
                ..Starting::default()
            }),
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
            armed: None,
            blocked: None,
            told_waiting: None,
            told_trouble: None,
            used: usage::Sum::default(),
            spec,
        };
        if let Some(wish) = attempt.spec.stop.clone() {
            attempt.stop(wish, kit, now);
        }
        attempt.advance(kit, now);
        attempt
    }

    /// Goes on as far as it can without waiting.
    pub fn advance(&mut self, kit: &mut ShimContext, now: Instant) {
        if self.is_blocked(now) {
            return;
        }
        let mut step = self.step(kit, now);
        // The end of an attempt is what the ballast is for; a drain gets its share by itself.
        while let Err(Obstacle::Full(_)) = step
            && self.is_recording()
            && kit.ballast.release()
        {
            step = self.step(kit, now);
        }
        match step {
            Ok(()) => self.unblock(kit, now),
            Err(why) => self.block(why, kit, now),
        }
    }

    fn step(&mut self, kit: &mut ShimContext, now: Instant) -> Result<(), Obstacle> {
        match &self.phase {
            Phase::Starting(starting) => match starting.step {
                StartStep::Fork => self.open(kit, now),
                StartStep::Exec(_) => self.log_ready(kit),
                StartStep::Failed { .. } => Ok(()),
            },
            Phase::Living(_) => self.log_ready(kit),
            Phase::Draining(_) => self.drain(kit, now),
            Phase::Ended(ended) => match ended.step {
                EndStep::Recording => self.record(kit),
                EndStep::Syncing => self.await_sync(kit),
                EndStep::Told(_) => self.make_durable(kit),
            },
        }
    }

    fn is_blocked(&self, now: Instant) -> bool {
        match &self.blocked {
            Some(Blocked { retry_at }) => retry_at.is_some_and(|at| now < at),
            None => false,
        }
    }

    /// Output that waits for the disk goes first; with nothing waiting there is nothing to do.
    fn log_ready(&mut self, kit: &mut ShimContext) -> Result<(), Obstacle> {
        if self.blocked.is_none() {
            return Ok(());
        }
        let ready = self.log.make_ready(&mut kit.desk(), false);
        // A frame that had waited is output that no read of the pipes will tell of.
        self.tell_growth(kit);
        ready
    }

    /// Every bound, wish and retry that is due at a certain moment: the earliest of them.
    pub fn next_deadline(&self) -> Option<Instant> {
        let limits = self.limits().map(|(at, _)| at);
        let retry = self.blocked.as_ref().and_then(|b| b.retry_at);
        let pause = self.phase.pause().and_then(|pause| pause.next_at());
        let looks = self.look_at.into_iter().chain(pause);
        limits.chain(self.kill_at).chain(retry).chain(looks).min()
    }

    /// When which limit of the running process is reached.
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

    /// The streams that may be read now, and stdin while it is open.
    pub fn wants(&self) -> Wants<'_> {
        let source = |stream| self.pipes.source(stream).filter(|_| self.flows());
        Wants {
            report: self.phase.forked().map(|forked| &forked.report),
            stdout: source(Stream::Stdout),
            stderr: source(Stream::Stderr),
            stdin: self.stdin.sink(),
        }
    }

    /// Whether output is read. Survivors of an attempt that has ended are never made to wait:
    /// what they write is forgotten.
    pub(super) fn flows(&self) -> bool {
        match self.phase {
            Phase::Living(_) => self.blocked.is_none(),
            _ => self.is_told(),
        }
    }

    /// The run time stands still in a pause, the silence also while output waits.
    pub(super) fn run_clocks(&mut self, now: Instant) {
        let runs = !self.is_paused();
        self.run_time.run(runs, now);
        self.silence.run(runs && self.blocked.is_none(), now);
    }

    /// Whether a pause holds its processes.
    pub(super) fn is_paused(&self) -> bool {
        self.phase.pause().is_some_and(PauseState::is_on)
    }

    /// Names it in messages.
    pub(super) fn about(&self) -> AttemptRef {
        AttemptRef::attempt(self.spec.job, self.spec.attempt)
    }

    /// A wish of the shim itself.
    pub(super) fn limit_wish(&self, cause: StopCause) -> StopRequest {
        StopRequest {
            by: "shim".to_owned(),
            cause,
            asked_at_us: timestamps::wall_us(),
            grace_ms: self.spec.grace_ms,
        }
    }
}

/// What an attempt waits for.
#[derive(Default)]
pub struct Wants<'a> {
    /// The report of a starting child.
    pub report: Option<&'a OwnedFd>,
    /// Output.
    pub stdout: Option<&'a OwnedFd>,
    /// Output.
    pub stderr: Option<&'a OwnedFd>,
    /// Stdin, while it is open, and whether there is more to feed.
    pub stdin: Option<(&'a OwnedFd, bool)>,
}
