//! One attempt from its first segment to its exit record: what it is doing, what was asked of it,
//! and which step comes next. Sockets are not known here: what the server should hear is said
//! into the kit.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    fork,
    log::{Desk, Frame, Log, Obstacle},
    pipes::Pipes,
    spawn::{self, Spawned},
    stamp,
    stop::Stop,
    stopwatch::Stopwatch,
    sync::Syncer,
    tree::Tree,
};
use crate::{
    job::{ExitFacts, Offset, SpawnError, StopCause, StopWish, Stream, Survivor},
    spool::{FromShim, RunSpec, ShimState, segment::Intent},
};

/// How often a full disk or a bound of the spool is looked at again.
const RETRY: Duration = Duration::from_millis(250);

/// What a shim keeps from one attempt to the next.
pub struct Kit {
    /// The shim's id.
    pub shim: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The data directory's instance, as the server told it.
    pub instance: String,
    /// The directory of the segments.
    pub spool: Arc<OwnedFd>,
    /// `/dev/null`.
    pub null: OwnedFd,
    /// The place where frames are made.
    pub frame: Frame,
    /// Syncs segments.
    pub syncer: Syncer,
    /// The processes below us.
    pub tree: Tree,
    /// What the server should hear.
    pub said: Vec<FromShim>,
    /// Counts attempts, so that a late result of a sync finds the right one.
    pub ticket: u64,
}

/// Where an attempt is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its first segment exists; nothing was started yet.
    Opening,
    /// Its process is between fork and exec.
    Starting { report: OwnedFd },
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

/// Why the output does not flow, and when to try again (`None`: when the sync thread says so).
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) why: Obstacle,
    pub(super) retry_at: Option<Instant>,
}

/// One attempt.
pub struct Attempt {
    pub(super) spec: RunSpec,
    pub(super) phase: Phase,
    pub(super) log: Log,
    pub(super) pipes: Pipes,
    /// Whose turn it is to be read first.
    pub(super) stderr_first: bool,
    /// The leader's process id, from the fork until it is reaped.
    pub(super) leader: Option<i32>,
    pub(super) leader_status: Option<i32>,
    pub(super) spawn_error: Option<SpawnError>,
    pub(super) started_at_us: Option<i64>,
    pub(super) stop: Option<Stop>,
    /// When everything that lives is killed, and killed again.
    pub(super) kill_at: Option<Instant>,
    pub(super) later: Later,
    pub(super) paused: bool,
    pub(super) run_time: Stopwatch,
    pub(super) silence: Stopwatch,
    pub(super) armed: Option<Offset>,
    pub(super) blocked: Option<Blocked>,
    pub(super) told_waiting: bool,
    pub(super) told_trouble: Option<String>,
    pub(super) leaked: u32,
    pub(super) survivors: Vec<Survivor>,
    pub(super) used: super::usage::Sum,
    pub(super) ended_at_us: i64,
    pub(super) facts: Option<Box<ExitFacts>>,
    pub(super) recorded: bool,
    pub(super) sync_asked: bool,
    /// No process is left.
    pub(super) gone: bool,
    pub(super) acknowledged: bool,
}

impl Attempt {
    /// Takes the right to start the attempt. On an error nothing has happened.
    pub fn begin(spec: RunSpec, kit: &mut Kit, now: Instant) -> std::io::Result<Self> {
        kit.ticket += 1;
        kit.frame.clear();
        let log = Log::create(Arc::clone(&kit.spool), &spec, kit.ticket)?;
        let mut attempt = Self {
            phase: Phase::Opening,
            log,
            pipes: Pipes::default(),
            stderr_first: false,
            leader: None,
            leader_status: None,
            spawn_error: None,
            started_at_us: None,
            stop: None,
            kill_at: None,
            later: Later::default(),
            paused: false,
            run_time: Stopwatch::started(now),
            silence: Stopwatch::started(now),
            armed: None,
            blocked: None,
            told_waiting: false,
            told_trouble: None,
            leaked: 0,
            survivors: Vec::new(),
            used: super::usage::Sum::default(),
            ended_at_us: 0,
            facts: None,
            recorded: false,
            sync_asked: false,
            gone: true,
            acknowledged: false,
            spec,
        };
        if let Some(wish) = attempt.spec.stop.clone() {
            attempt.stop(wish, kit, now);
        }
        attempt.advance(kit, now);
        Ok(attempt)
    }

    /// Goes on as far as it can without waiting.
    pub fn advance(&mut self, kit: &mut Kit, now: Instant) {
        if self.is_blocked(now) {
            return;
        }
        let step = match self.phase {
            Phase::Opening => self.open(kit, now),
            Phase::Draining => self.drain(kit, now),
            Phase::Recording => self.record(kit),
            Phase::Syncing => self.await_sync(kit),
            Phase::Told => self.make_durable(kit),
            Phase::Starting { .. } | Phase::Running | Phase::Ending => self.log_ready(kit),
        };
        match step {
            Ok(()) => self.unblock(kit, now),
            Err(why) => self.block(why, kit, now),
        }
    }

    fn is_blocked(&self, now: Instant) -> bool {
        match &self.blocked {
            Some(Blocked { retry_at, .. }) => retry_at.is_some_and(|at| now < at),
            None => false,
        }
    }

    /// Output that waits for the disk goes first; with nothing waiting there is nothing to do.
    fn log_ready(&mut self, kit: &mut Kit) -> Result<(), Obstacle> {
        if self.blocked.is_none() {
            return Ok(());
        }
        self.log.make_ready(&mut desk(kit), false)
    }

    fn open(&mut self, kit: &mut Kit, now: Instant) -> Result<(), Obstacle> {
        self.log.begin(&intent(&self.spec, kit))?;
        self.log.has_room()?;
        match spawn::spawn(&self.spec, &self.log, &kit.null) {
            Ok(Spawned { pid, pipes, report }) => {
                self.leader = Some(pid);
                self.gone = false;
                self.pipes = pipes;
                self.run_time = Stopwatch::started(now);
                self.silence = Stopwatch::started(now);
                self.phase = Phase::Starting { report };
            }
            Err(error) => self.never_started(error),
        }
        Ok(())
    }

    /// There is no process and there will be none.
    pub(super) fn never_started(&mut self, error: SpawnError) {
        self.spawn_error = Some(error);
        self.tree_gone();
    }

    /// Looks at what a child between fork and exec has to report; the end of the file without a
    /// report means that its program runs (or that it was killed before).
    pub fn read_report(&mut self, kit: &mut Kit, now: Instant) {
        let Phase::Starting { report } = &self.phase else {
            return;
        };
        let mut bytes = [0; fork::REPORT_BYTES];
        match nix::unistd::read(report, &mut bytes) {
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            Ok(0) => self.started(kit, now),
            read => {
                let length = read.unwrap_or_default();
                self.spawn_error = spawn::read_report(&bytes[..length], &self.spec)
                    .or_else(|| Some(spawn::failed(nix::errno::Errno::EIO, "hear of its exec")));
                if self.log.read_start().is_none() {
                    self.log.forget_start();
                }
                self.phase = Phase::Running;
            }
        }
    }

    fn started(&mut self, kit: &mut Kit, now: Instant) {
        self.phase = Phase::Running;
        let Some(pid) = self.leader else { return };
        let (start, wall_us) = self.log.read_start().unwrap_or_else(|| {
            // It was killed before it could write; a reader needs a record at that place.
            let start_ticks = super::tree::start_ticks(pid).unwrap_or_default();
            let start = crate::spool::record::StartPayload { pid, start_ticks };
            if let Err(e) = self.log.write_start(start) {
                self.trouble(format!("write a start record: {e}"), kit);
            }
            (start, stamp::wall_us())
        });
        self.started_at_us = Some(wall_us);
        kit.said.push(FromShim::Started {
            job: self.spec.job,
            attempt: self.spec.attempt,
            pid,
            start_ticks: start.start_ticks,
            started_at_us: wall_us,
        });
        self.catch_up(kit, now);
    }

    /// The process group of the leader, while that number is certainly ours.
    pub(super) fn group(&self) -> Option<i32> {
        self.leader
    }

    /// Every bound, wish and retry that is due at a certain moment: the earliest of them.
    pub fn next_deadline(&self) -> Option<Instant> {
        let limits = self.limits().map(|(at, _)| at);
        let retry = self.blocked.as_ref().and_then(|b| b.retry_at);
        limits.chain(self.kill_at).chain(retry).min()
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

    /// The output cannot flow: says so once, and holds the stall clock.
    pub(super) fn block(&mut self, why: Obstacle, kit: &mut Kit, now: Instant) {
        match &why {
            Obstacle::Full(text) if !self.told_waiting => {
                self.told_waiting = true;
                let why = text.clone();
                kit.said.push(FromShim::Waiting { waiting: true, why });
            }
            Obstacle::Broken(text) => self.trouble(text.clone(), kit),
            Obstacle::Full(_) | Obstacle::Unsynced => {}
        }
        let retry_at = (why != Obstacle::Unsynced).then(|| now + RETRY);
        self.blocked = Some(Blocked { why, retry_at });
        self.silence.run(false, now);
    }

    fn unblock(&mut self, kit: &mut Kit, now: Instant) {
        if self.blocked.take().is_none() {
            return;
        }
        self.silence.run(!self.paused, now);
        if std::mem::take(&mut self.told_waiting) {
            kit.said.push(FromShim::Waiting {
                waiting: false,
                why: "there is room again".to_owned(),
            });
        }
    }

    /// Tells of something that the operator should know; the same thing only once.
    pub(super) fn trouble(&mut self, what: String, kit: &mut Kit) {
        if self.told_trouble.as_ref() == Some(&what) {
            return;
        }
        let message = format!(
            "job {} attempt {}: {what}",
            self.spec.job, self.spec.attempt
        );
        kit.said.push(FromShim::Trouble { message });
        self.told_trouble = Some(what);
    }

    /// What a server that connects now has to know.
    pub fn state(&self) -> ShimState {
        let (job, attempt) = (self.spec.job, self.spec.attempt);
        match (&self.facts, &self.phase) {
            _ if self.acknowledged => ShimState::Retired,
            (Some(facts), Phase::Told) => ShimState::Exited {
                job,
                attempt,
                facts: facts.clone(),
                synced: self.is_durable(),
            },
            _ => ShimState::Running {
                job,
                attempt,
                paused: self.paused,
                started_at_us: self.started_at_us.unwrap_or_default(),
                stop: self.stop.as_ref().map(|stop| stop.wish.clone()),
            },
        }
    }

    /// A new server listens: what it is not told by [`Self::state`].
    pub fn on_hello(&mut self, kit: &mut Kit) {
        self.armed = None;
        if let (
            true,
            Some(Blocked {
                why: Obstacle::Full(why),
                ..
            }),
        ) = (self.told_waiting, &self.blocked)
        {
            let why = why.clone();
            kit.said.push(FromShim::Waiting { waiting: true, why });
        }
    }

    /// Says `grew` as soon as there is more than `offset`.
    pub fn arm(&mut self, offset: Offset, kit: &mut Kit) {
        self.armed = Some(offset);
        self.tell_growth(kit);
    }

    pub(super) fn tell_growth(&mut self, kit: &mut Kit) {
        let offset = self.log.end();
        if self.armed.is_some_and(|armed| offset > armed) {
            self.armed = None;
            kit.said.push(FromShim::Grew { offset });
        }
        if let Some(next_offset) = self.log.take_sealed() {
            kit.said.push(FromShim::Sealed { next_offset });
        }
    }

    /// The streams that may be read now, and stdin while it is fed.
    pub fn wants(&self) -> Wants<'_> {
        let flows = matches!(self.phase, Phase::Running | Phase::Ending | Phase::Told)
            && self.blocked.is_none();
        let source = |stream| self.pipes.source(stream).filter(|_| flows);
        Wants {
            report: match &self.phase {
                Phase::Starting { report } => Some(report),
                _ => None,
            },
            stdout: source(Stream::Stdout),
            stderr: source(Stream::Stderr),
            stdin: self.pipes.sink(),
        }
    }

    /// A wish of the shim itself.
    pub(super) fn limit_wish(&self, cause: StopCause) -> StopWish {
        StopWish {
            by: "shim".to_owned(),
            cause,
            asked_at_us: stamp::wall_us(),
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
    /// Stdin, while there is more to feed.
    pub stdin: Option<&'a OwnedFd>,
}

/// What the log needs of a kit.
pub(super) fn desk(kit: &mut Kit) -> Desk<'_> {
    Desk {
        frame: &mut kit.frame,
        syncer: &mut kit.syncer,
    }
}

pub(super) fn intent(spec: &RunSpec, kit: &Kit) -> Vec<u8> {
    let intent = Intent {
        job: spec.job_id,
        shim: kit.shim.clone(),
        boot_id: kit.boot_id.clone(),
        instance: kit.instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    super::json(&intent)
}
