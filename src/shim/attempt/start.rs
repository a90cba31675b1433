//! How an attempt's process comes to be: room, fork, and what the child reports on its way to
//! exec. What runs in the child is `fork`'s business.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{Attempt, Phase, stopwatch::Stopwatch};
use crate::{
    job::SpawnError,
    shim::{
        context::ShimContext,
        log::Obstacle,
        process::{
            look,
            pipes::Pipes,
            plan,
            spawn::{self, Retry, SpawnFailure, Spawned},
            usage,
        },
        timestamps,
    },
    spool::record::StartPayload,
};

/// How long an exec is tried again that fails for a reason that may pass, but need not: a program
/// that is being written, a disk that does not answer, a program that is too large for the memory.
const EXEC_TRIES_FOR: Duration = Duration::from_secs(30);

impl Attempt {
    /// Starts the process. An attempt starts at most one that comes to its exec: this is called only
    /// in the phase `Opening`, which follows a start that failed only behind ECHILD
    /// ([`Self::start_again`]), and a child that fails exits.
    pub(in crate::shim) fn open(
        &mut self,
        kit: &mut ShimContext,
        now: Instant,
    ) -> Result<(), Obstacle> {
        self.log.begin(&kit.intent(&self.spec))?;
        self.log.prepare()?;
        self.log.has_room()?;
        let (fed, mark) = (self.stdin.wants_pipe(), kit.mark(&self.spec));
        match spawn::spawn(&self.spec, mark, fed, &self.log, &kit.null) {
            Ok(Spawned {
                pid,
                pipes,
                stdin,
                report,
            }) => {
                self.leader = Some(pid);
                self.gone = false;
                self.pipes = pipes;
                self.run_time = Stopwatch::started(now);
                self.silence = Stopwatch::started(now);
                self.phase = Phase::Starting { report, stdin };
                Ok(())
            }
            Err(failure) if self.may_pass(&failure, now) => Err(not_started(&failure.error)),
            Err(failure) => {
                self.never_started(failure.error);
                Ok(())
            }
        }
    }

    /// There is no process and there will be none.
    pub(super) fn never_started(&mut self, error: SpawnError) {
        self.spawn_error = Some(error);
        self.tree_gone();
    }

    /// Whether a start that failed so is tried again.
    fn may_pass(&mut self, failure: &SpawnFailure, now: Instant) -> bool {
        match failure.retry {
            Retry::Never => false,
            Retry::Always => true,
            Retry::ForAWhile => {
                let since = *self.exec_fails_since.get_or_insert(now);
                now.saturating_duration_since(since) < EXEC_TRIES_FOR
            }
        }
    }

    /// Looks at what a child between fork and exec has to report; the end of the file without a
    /// report means that its program runs (or that it was killed before).
    pub fn read_report(&mut self, kit: &mut ShimContext, now: Instant) {
        let Phase::Starting { report, .. } = &self.phase else {
            return;
        };
        let mut bytes = [0; plan::REPORT_BYTES];
        match nix::unistd::read(report, &mut bytes) {
            // Nothing yet, or nothing that could be read: whether its program runs is not guessed.
            Err(_) => {}
            Ok(0) => self.started(kit, now),
            Ok(length) => {
                let failure = spawn::read_report(&bytes[..length], &self.spec);
                self.on_report(failure.unwrap_or_else(SpawnFailure::unknown), now);
            }
        }
    }

    /// The child could not come to its exec, and exits.
    fn on_report(&mut self, failure: SpawnFailure, now: Instant) {
        if self.stop.is_none() && self.may_pass(&failure, now) {
            self.phase = Phase::Failing(failure.error);
            return;
        }
        self.spawn_error = Some(failure.error);
        if self.start_of_leader().is_none() {
            self.log.forget_start();
        }
        self.phase = Phase::Running;
    }

    /// The child that could not come to its exec is reaped, and no other is there: the next one may
    /// be started after a pause. Its start record stays until the next child writes its own at the
    /// same place; it names a process that nobody finds any more.
    pub(super) fn start_again(&mut self, error: &SpawnError, kit: &mut ShimContext, now: Instant) {
        self.phase = Phase::Opening;
        self.leader_status = None;
        self.pipes = Pipes::default();
        self.used = usage::Sum::default();
        if self.stop.is_some() {
            return self.never_started(spawn::failed(Errno::ECANCELED, "start"));
        }
        self.block(not_started(error), kit, now);
    }

    /// The start record of the leader, if that one has written it: at its place may stand the record
    /// of a child before it.
    fn start_of_leader(&self) -> Option<(StartPayload, i64)> {
        let start = self.log.read_start();
        start.filter(|(start, _)| Some(start.pid) == self.leader)
    }

    fn started(&mut self, kit: &mut ShimContext, now: Instant) {
        let before = std::mem::replace(&mut self.phase, Phase::Running);
        let Some(pid) = self.leader else { return };
        if let Phase::Starting {
            stdin: Some(stdin), ..
        } = before
        {
            self.stdin.attach(stdin);
        }
        // The process has it now; a shim stays small.
        self.spec.env = Vec::new();
        let (start, wall_us) = self.start_of_leader().unwrap_or_else(|| {
            // It was killed before it could write; a reader needs a record at that place.
            let start_ticks = look::start_ticks(pid).unwrap_or_default();
            let start = StartPayload { pid, start_ticks };
            if let Err(e) = self.log.write_start(start) {
                self.trouble(format!("write a start record: {e}"), kit);
            }
            (start, timestamps::wall_us())
        });
        self.started_at_us = Some(wall_us);
        self.start = Some(start);
        self.tell_flowing(kit);
        self.tell_start(kit);
        self.catch_up(kit, now);
    }
}

fn not_started(error: &SpawnError) -> Obstacle {
    let SpawnError { what, name, .. } = error;
    Obstacle::NotStarted(format!("its process failed to {what}: {name}"))
}
