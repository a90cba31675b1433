//! How an attempt's process is started: disk space, fork, and what the child reports on its way to
//! exec. The code that runs in the child is in `process::fork`.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{
    Attempt,
    phase::{Forked, Living, Phase, Program, StartStep, Starting, TreeEnd},
    stopwatch::Stopwatch,
};
use crate::{
    job::SpawnError,
    shim::{
        context::ShimContext,
        log::Obstacle,
        process::{
            inspect,
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
/// file that is being written, a disk error, a program that is too large for the memory.
const EXEC_TRIES_FOR: Duration = Duration::from_secs(30);

impl Attempt {
    /// Starts the process. At most one child of an attempt reaches its exec: this is called only in
    /// the step `Fork`, which follows a failed start only after ECHILD ([`Self::start_again`]), and
    /// a child that fails exits.
    pub(super) fn start_process(
        &mut self,
        context: &mut ShimContext,
        now: Instant,
    ) -> Result<(), Obstacle> {
        if !matches!(self.phase, Phase::Starting(_)) {
            return Ok(());
        }
        self.log.begin(&context.intent(&self.spec))?;
        self.log.prepare()?;
        self.log.has_room()?;
        let spawned = self.spawn_process(context);
        let Phase::Starting(starting) = &mut self.phase else {
            return Ok(());
        };
        match spawned {
            Ok(Spawned {
                pid,
                pipes,
                stdin,
                report,
            }) => {
                self.pipes = pipes;
                self.run_time = Stopwatch::started(now);
                self.silence = Stopwatch::started(now);
                starting.step = StartStep::Exec(Forked {
                    leader: pid,
                    report,
                    stdin,
                });
                Ok(())
            }
            Err(failure) if starting.is_retried(&failure, now) => {
                Err(starting.not_started(&failure.error))
            }
            Err(failure) => {
                self.never_started(failure.error);
                Ok(())
            }
        }
    }

    /// Forks the process, in its control group if it has one. Where it cannot begin there and need not, it begins
    /// without.
    fn spawn_process(&mut self, context: &mut ShimContext) -> Result<Spawned, SpawnFailure> {
        self.make_cgroup(context)?;
        match self.spawn_in_cgroup(context) {
            Err(failure) if failure.is_final_of_fork() && self.may_leave_cgroup() => {
                let name = &failure.error.name;
                self.report_trouble(format!("fork into its control group: {name}"), context);
                self.leave_cgroup();
                self.spec.cgroup = None;
                self.spawn_in_cgroup(context)
            }
            spawned => spawned,
        }
    }

    fn spawn_in_cgroup(&self, context: &ShimContext) -> Result<Spawned, SpawnFailure> {
        spawn::spawn(
            &self.spec,
            context.mark(&self.spec),
            self.stdin.wants_pipe(),
            self.cgroup.as_ref(),
            &self.log,
            &context.null,
        )
    }

    /// There is no process and will be none: ends the attempt.
    pub(super) fn never_started(&mut self, error: SpawnError) {
        self.tree_gone(TreeEnd::never_started(error));
    }

    /// Reads the report of a child between fork and exec; the end of the file without a report
    /// means that its program runs (or that it was killed before).
    pub fn read_report(&mut self, context: &mut ShimContext, now: Instant) {
        let Some(Forked { report, .. }) = self.phase.forked() else {
            return;
        };
        let mut bytes = [0; plan::REPORT_BYTES];
        match nix::unistd::read(report, &mut bytes) {
            // No report yet, or an error: whether its program runs stays open until the next read.
            Err(_) => {}
            Ok(0) => self.started(context, now),
            Ok(length) => {
                let failure = spawn::read_report(&bytes[..length], &self.spec);
                self.on_report(failure.unwrap_or_else(SpawnFailure::unknown), now);
            }
        }
    }

    /// Handles the report of a child that could not reach its exec; it exits.
    fn on_report(&mut self, failure: SpawnFailure, now: Instant) {
        let Phase::Starting(starting) = &mut self.phase else {
            return;
        };
        let StartStep::Exec(Forked { leader, .. }) = starting.step else {
            return;
        };
        if self.stop.is_none() && starting.is_retried(&failure, now) {
            starting.step = StartStep::Failed {
                error: failure.error,
                leader: Some(leader),
            };
            return;
        }
        if self.start_of(leader).is_none() {
            self.log.forget_start();
        }
        let program = Program::Failed(failure.error);
        self.phase = Phase::Living(Living::new(leader, program));
    }

    /// The child that could not reach its exec is reaped, and no other is left: the next one may be
    /// started after a pause. Its start record stays until the next child overwrites it; it names a
    /// process that no longer exists.
    pub(super) fn start_again(
        &mut self,
        error: &SpawnError,
        context: &mut ShimContext,
        now: Instant,
    ) {
        let Phase::Starting(starting) = &mut self.phase else {
            return;
        };
        starting.step = StartStep::Fork;
        self.pipes = Pipes::default();
        self.used = usage::UsageSum::default();
        if self.stop.is_some() {
            return self.never_started(spawn::failed(Errno::ECANCELED, "start"));
        }
        let why = starting.not_started(error);
        self.block(why, context, now);
    }

    /// The start record of the leader, if the leader has written it: it may still be the record of
    /// a child before it.
    fn start_of(&self, leader: i32) -> Option<(StartPayload, i64)> {
        let start = self.log.read_start();
        start.filter(|(start, _)| start.pid == leader)
    }

    /// Handles the success of the exec: the program runs.
    fn started(&mut self, context: &mut ShimContext, now: Instant) {
        let Phase::Starting(starting) = &mut self.phase else {
            return;
        };
        let StartStep::Exec(forked) = &mut starting.step else {
            return;
        };
        let pid = forked.leader;
        let deferred = std::mem::take(&mut starting.deferred);
        if let Some(stdin) = forked.stdin.take() {
            self.stdin.attach(stdin);
        }
        // The process has its environment now; the shim frees the memory.
        self.spec.env = Vec::new();
        self.spec.secret_env = Vec::new();
        let (process, at_us) = self.start_of(pid).unwrap_or_else(|| {
            // It was killed before it could write its record; readers need one at that position.
            let start_ticks = inspect::start_ticks(pid).unwrap_or_default();
            let start = StartPayload { pid, start_ticks };
            if let Err(e) = self.log.write_start(start) {
                self.report_trouble(format!("write a start record: {e}"), context);
            }
            (start, timestamps::wall_us())
        });
        let program = Program::Started { process, at_us };
        let living = Phase::Living(Living::new(pid, program));
        // Drops the old phase, and with it the report pipe, at the end of this function, after
        // everything that was requested before is done.
        let _starting = std::mem::replace(&mut self.phase, living);
        self.gave_sign();
        self.emit_flowing(context);
        self.emit_started(context);
        self.do_deferred(deferred, context, now);
    }
}

impl Starting {
    /// Whether the start is tried again after this failure.
    fn is_retried(&mut self, failure: &SpawnFailure, now: Instant) -> bool {
        match failure.retry {
            Retry::Never => false,
            Retry::Always => true,
            Retry::ForAWhile => {
                let since = *self.exec_fails_since.get_or_insert(now);
                now.saturating_duration_since(since) < EXEC_TRIES_FOR
            }
        }
    }

    /// The obstacle of a failed start, with the pause before the next try.
    fn not_started(&mut self, error: &SpawnError) -> Obstacle {
        let SpawnError { what, name, .. } = error;
        let why = format!("its process failed to {what}: {name}");
        Obstacle::NotStarted(why, self.backoff.pause())
    }
}
