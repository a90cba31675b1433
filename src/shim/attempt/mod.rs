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
pub(super) mod pending;
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
    job::{ExitFacts, Offset, SpawnError, StopCause, StopWish, Stream, Survivor},
    spool::{AttemptRef, RunSpec, record::StartPayload},
};
use backoff::Backoff;
use feed::Feed;
use halt::Halt;
use stop::StopProgress;
use stopwatch::Stopwatch;

/// Where an attempt is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its first segment exists; nothing was started yet.
    Opening,
    /// Its process is between fork and exec.
    Starting {
        report: OwnedFd,
        /// Our end of its stdin: nothing is fed before its program runs, for what a child that fails
        /// has in its pipe is lost.
        stdin: Option<OwnedFd>,
    },
    /// Its process has failed before its exec, for a reason that may pass. Once it is reaped the
    /// next one is started.
    Failing(SpawnError),
    /// Its leader runs.
    Running,
    /// Its leader has exited, other processes live.
    Ending,
    /// Its tree is gone (survivors aside); what is in the pipes is stored.
    Draining,
    /// Its facts are complete; the exit record is to be written.
    Recording,
    /// Everything is being synced before the exit is told.
    Syncing,
    /// The exit was told.
    Told,
}

/// What was asked before it could be done.
#[derive(Debug, Default)]
pub(super) struct Later {
    pub(super) pause: bool,
    pub(super) term: bool,
    pub(super) signals: Vec<i32>,
}

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
    /// The leader's process id, from the fork until it is reaped.
    pub(super) leader: Option<i32>,
    pub(super) leader_status: Option<i32>,
    pub(super) spawn_error: Option<SpawnError>,
    /// Between two tries to start the process.
    pub(super) backoff: Backoff,
    /// Since when its exec fails for a reason that may pass, but need not.
    pub(super) exec_fails_since: Option<Instant>,
    pub(super) started_at_us: Option<i64>,
    /// Which process that is.
    pub(super) start: Option<StartPayload>,
    pub(super) stop: Option<StopProgress>,
    /// When everything that lives is killed, and killed again.
    pub(super) kill_at: Option<Instant>,
    /// When the processes are looked at again, because they could not all be looked at.
    pub(super) look_at: Option<Instant>,
    pub(super) later: Later,
    pub(super) paused: bool,
    /// Whom the pause has stopped, until everybody goes on.
    pub(super) halt: Option<Halt>,
    /// That it is paused was told.
    pub(super) told_paused: bool,
    /// A pause or a resume (`false`) that has not reached everybody, and when it is tried again.
    pub(super) unreached: Option<(bool, Instant)>,
    /// When is looked whether everybody still stands still, and when that was done last.
    pub(super) watch_at: Option<Instant>,
    pub(super) watched_at: Instant,
    pub(super) run_time: Stopwatch,
    pub(super) silence: Stopwatch,
    pub(super) armed: Option<Offset>,
    pub(super) blocked: Option<Blocked>,
    /// Why the process waits, while that is what was told.
    pub(super) told_waiting: Option<String>,
    pub(super) told_trouble: Option<String>,
    pub(super) leaked: u32,
    pub(super) survivors: Vec<Survivor>,
    pub(super) used: usage::Sum,
    pub(super) ended_at_us: i64,
    pub(super) facts: Option<Box<ExitFacts>>,
    /// A stop was asked for after the leader's exit: it is too late to change how the attempt
    /// ended, and what is left of its output is not to be waited for.
    pub(super) end_wanted: bool,
    /// The rest of the output had no room and is only counted.
    pub(super) is_cut: bool,
    pub(in crate::shim) recorded: bool,
    pub(super) sync_asked: bool,
    /// No process is left.
    pub(super) gone: bool,
    /// What was told with the exit: whether the shim takes work again. It stays so, whatever becomes
    /// of the processes, because the server gives work to the one and none to the other.
    pub(super) reusable: Option<bool>,
    pub(super) acknowledged: bool,
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
            phase: Phase::Opening,
            log,
            pipes: Pipes::default(),
            stdin,
            stderr_first: false,
            leader: None,
            leader_status: None,
            spawn_error: None,
            backoff: Backoff::default(),
            exec_fails_since: None,
            started_at_us: None,
            start: None,
            stop: None,
            kill_at: None,
            look_at: None,
            later,
            paused: false,
            halt: None,
            told_paused: false,
            unreached: None,
            watch_at: None,
            watched_at: now,
            run_time: Stopwatch::started(now),
            silence: Stopwatch::started(now),
            armed: None,
            blocked: None,
            told_waiting: None,
            told_trouble: None,
            leaked: 0,
            survivors: Vec::new(),
            used: usage::Sum::default(),
            ended_at_us: 0,
            facts: None,
            end_wanted: false,
            is_cut: false,
            recorded: false,
            sync_asked: false,
            gone: true,
            reusable: None,
            acknowledged: false,
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
            && matches!(self.phase, Phase::Recording)
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
        match self.phase {
            Phase::Opening => self.open(kit, now),
            Phase::Draining => self.drain(kit, now),
            Phase::Recording => self.record(kit),
            Phase::Syncing => self.await_sync(kit),
            Phase::Told => self.make_durable(kit),
            Phase::Failing(_) => Ok(()),
            Phase::Starting { .. } | Phase::Running | Phase::Ending => self.log_ready(kit),
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

    /// The process group of the leader, while that number is certainly ours.
    pub(super) fn group(&self) -> Option<i32> {
        self.leader
    }

    /// Every bound, wish and retry that is due at a certain moment: the earliest of them.
    pub fn next_deadline(&self) -> Option<Instant> {
        let limits = self.limits().map(|(at, _)| at);
        let retry = self.blocked.as_ref().and_then(|b| b.retry_at);
        let unreached = self.unreached.map(|(_, at)| at);
        let looks = self.look_at.into_iter().chain(unreached);
        let looks = looks.chain(self.watch_at);
        limits.chain(self.kill_at).chain(retry).chain(looks).min()
    }

    /// When which limit of the running process is reached.
    pub(super) fn limits(&self) -> impl Iterator<Item = (Instant, StopCause)> + use<> {
        let running = matches!(self.phase, Phase::Running | Phase::Starting { .. });
        let open = running && self.stop.is_none();
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
            report: match &self.phase {
                Phase::Starting { report, .. } => Some(report),
                _ => None,
            },
            stdout: source(Stream::Stdout),
            stderr: source(Stream::Stderr),
            stdin: self.stdin.sink(),
        }
    }

    /// Whether output is read. Survivors of an attempt that has ended are never made to wait:
    /// what they write is forgotten.
    pub(super) fn flows(&self) -> bool {
        match self.phase {
            Phase::Running | Phase::Ending => self.blocked.is_none(),
            Phase::Told => true,
            _ => false,
        }
    }

    /// Names it in messages.
    pub(super) fn about(&self) -> AttemptRef {
        AttemptRef::attempt(self.spec.job, self.spec.attempt)
    }

    /// A wish of the shim itself.
    pub(super) fn limit_wish(&self, cause: StopCause) -> StopWish {
        StopWish {
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
