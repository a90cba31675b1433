//! The stop ladder: TERM, grace, KILL; single signals; the limits of the job.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{
    Attempt, pause,
    pause_state::PauseState,
    phase::{Deferred, Phase, StartStep},
};
use crate::{
    job::{StopCause, StopFacts, StopRequest, Survivor, signal},
    shim::{
        context::ShimContext,
        process::{
            fork,
            signal_tree::{self, SignalOutcome},
            spawn, tree,
        },
    },
    spool::FromShim,
};

/// How long after a KILL living processes are looked for again.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// The same where the kernel has refused all of them: they may become our user's again.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);

/// How many processes that could not be signalled are named at most.
const REFUSED_NAMED_MAX: usize = 100;

/// How many signals are kept for a process that has not reached its exec yet.
pub(super) const SIGNALS_MAX: usize = 64;

/// A stop that has begun.
#[derive(Debug)]
pub struct StopProgress {
    /// The first stop request.
    pub request: StopRequest,
    /// What has been done about it, for the exit record.
    pub facts: StopFacts,
    /// Whether one of its signals has reached the leader.
    leader_reached: bool,
}

impl StopProgress {
    /// A stop that has sent no signal yet.
    pub fn new(request: StopRequest) -> Self {
        let facts = StopFacts {
            by: request.by.clone(),
            cause: request.cause,
            asked_at_us: request.asked_at_us,
            signals: Vec::new(),
            killed: false,
            refused: Vec::new(),
            spared: false,
        };
        Self {
            request,
            facts,
            leader_reached: false,
        }
    }

    fn sent(&mut self, number: i32) {
        self.facts.signals.push(signal::name(number));
    }

    /// Records the result of a signal to every process. A leader that was reached once knows of the
    /// stop.
    fn record_result(&mut self, number: i32, reached: &SignalOutcome) {
        let again = number == libc::SIGKILL && self.facts.killed;
        if reached.is_delivered && !again {
            self.sent(number);
            self.facts.killed |= number == libc::SIGKILL;
        }
        if let Some(refused) = reached.leader_refused {
            self.leader_reached |= !refused;
            self.facts.spared = !self.leader_reached;
        }
        let named = reached.refused.len().min(REFUSED_NAMED_MAX);
        self.facts.refused = tree::name_all(&reached.refused[..named]);
    }
}

/// How long to wait before living processes are looked for again after a KILL.
fn kill_again(reached: &SignalOutcome) -> Duration {
    match (reached.is_quiet(), reached.is_delivered) {
        // There are always new ones: again as soon as other events have been handled.
        (false, _) => Duration::ZERO,
        (true, false) if !reached.refused.is_empty() => REFUSED_AGAIN,
        (true, _) => KILL_AGAIN,
    }
}

impl Attempt {
    /// Stops the attempt, for a request or a limit. After the leader's exit it sends no signal: it
    /// only ends the wait of output for disk space.
    pub fn stop(&mut self, request: StopRequest, context: &mut ShimContext, now: Instant) {
        if !self.leader_lives() {
            return self.want_end(now);
        }
        let grace = match request.cause {
            StopCause::Kill => Duration::ZERO,
            _ => Duration::from_millis(request.grace_ms),
        };
        // A repeated request never gives more time than the first.
        let kill_at = now.checked_add(grace);
        self.kill_at = self.kill_at.into_iter().chain(kill_at).min();
        if self.stop.is_some() {
            return;
        }
        let about = self.about();
        context.outgoing.push(FromShim::Stopping {
            about,
            request: request.clone(),
        });
        let gently = request.cause != StopCause::Kill;
        self.stop = Some(StopProgress::new(request));
        match &mut self.phase {
            Phase::Starting(starting) => {
                starting.deferred.pause = false;
                match starting.step {
                    StartStep::Fork => {
                        self.unblock(context, now);
                        self.never_started(spawn::failed(Errno::ECANCELED, "start"));
                    }
                    // Before exec TERM is still ignored, as the shim ignores it.
                    StartStep::Exec(_) => starting.deferred.term = gently,
                    // The attempt ends as soon as the child that failed is reaped.
                    StartStep::Failed { .. } => {}
                }
            }
            _ if gently => self.terminate(context, now),
            _ => {}
        }
    }

    /// Whether a stop would still come before the leader's exit. Asks the kernel: the exit may not
    /// have been noticed yet.
    fn leader_lives(&self) -> bool {
        let leader = match &self.phase {
            Phase::Starting(starting) => match &starting.step {
                StartStep::Fork | StartStep::Failed { .. } => return true,
                StartStep::Exec(forked) => Some(forked.leader),
            },
            Phase::Living(living) if living.is_running() => living.leader.pid(),
            _ => None,
        };
        leader.is_some_and(|pid| {
            // Any error except "no such child" leaves it open, and then the stop must not be lost.
            let exited = fork::exited_child(Some(pid));
            !matches!(exited, Ok(Some(_)) | Err(Errno::ECHILD))
        })
    }

    /// TERM to every process, and CONT where a process could not act on it otherwise.
    pub(super) fn terminate(&mut self, context: &mut ShimContext, now: Instant) {
        let group = self.phase.leader();
        let reached = context.tree.terminate(group);
        self.record_result(libc::SIGTERM, &reached, context);
        let any_held = self.phase.pause().is_some_and(PauseState::holds_any);
        self.thaw();
        if any_held || reached.any_stopped || !reached.is_complete() {
            context.tree.send_continue(group);
            if let Some(stop) = self.stop.as_mut().filter(|_| reached.is_delivered) {
                stop.sent(libc::SIGCONT);
            }
        }
        self.forget_pause(now);
    }

    /// Records the result of a signal of the stop, and reports the processes that it could not
    /// reach.
    fn record_result(&mut self, number: i32, reached: &SignalOutcome, context: &mut ShimContext) {
        let Some(stop) = &mut self.stop else { return };
        // A job that forks has other processes each time, so only the first ones are reported; its
        // facts name those of the last try.
        let is_reported = !stop.facts.refused.is_empty();
        stop.record_result(number, reached);
        let refused = stop.facts.refused.clone();
        if !refused.is_empty() && !is_reported {
            self.report_refused(refused, context);
        }
    }

    fn report_refused(&mut self, refused: Vec<Survivor>, context: &mut ShimContext) {
        let names = pause::names(&refused);
        let what = format!(
            "stop all of its processes: the kernel refuses signals (EPERM) to these, which now belong \
             to another user: {names}"
        );
        self.report_trouble(what, context);
        let about = self.about();
        context
            .outgoing
            .push(FromShim::StopRefused { about, refused });
    }

    /// KILL to every process, now and again until none is left.
    fn kill(&mut self, context: &mut ShimContext, now: Instant) {
        self.count_leaked_in_stop(context);
        // Where a process could not be looked at, the next round tries again: only ECHILD ends the
        // rounds.
        let lives = !self.phase.is_ending();
        let leader = self.phase.leader();
        let members = self.kill_cgroup(context);
        let mut reached = context.tree.kill(leader, lives);
        reached.has_reached(&members, leader.filter(|_| lives));
        self.kill_at = Some(now + kill_again(&reached));
        self.record_result(libc::SIGKILL, &reached, context);
        self.leave_refused(&reached.refused, context);
    }

    /// Does what is due at `now`.
    pub fn on_time(&mut self, context: &mut ShimContext, now: Instant) {
        let due = self.limits().filter(|(at, _)| *at <= now);
        let limit = due.min_by_key(|(at, _)| *at);
        if let Some((_, cause)) = limit {
            self.stop(self.limit_request(cause), context, now);
        }
        if self.look_at.take_if(|at| *at <= now).is_some() {
            self.on_children(context, now);
        }
        self.on_pause_time(context, now);
        if self.kill_at.is_some_and(|at| at <= now) {
            match self.phase.forked().is_some() || matches!(self.phase, Phase::Living(_)) {
                true => self.kill(context, now),
                false => self.kill_at = None,
            }
        }
    }

    /// Sends one signal to the leader's group; nothing once the leader has exited. In a pause,
    /// signals that stop or continue processes are ignored: a CONT would break the pause, and a
    /// stop would end with it.
    pub fn signal(&mut self, number: i32, context: &mut ShimContext) {
        match &mut self.phase {
            Phase::Starting(starting) if starting.deferred.signals.len() < SIGNALS_MAX => {
                starting.deferred.signals.push(number);
            }
            Phase::Living(living) if living.is_running() => {
                let waits = living.pause.holds_any() && signal::is_of_job_control(number);
                if !waits && self.leader_lives() {
                    self.signal_now(number, context);
                }
            }
            _ => {}
        }
    }

    fn signal_now(&mut self, number: i32, context: &mut ShimContext) {
        if signal_tree::signal_group(self.phase.leader(), number) == Err(Errno::EPERM) {
            let name = signal::name(number);
            let what = format!("send it {name}: the kernel refuses it (EPERM)");
            self.report_trouble(what, context);
        }
    }

    /// The program runs: does what was requested before.
    pub(super) fn do_deferred(
        &mut self,
        deferred: Deferred,
        context: &mut ShimContext,
        now: Instant,
    ) {
        for number in deferred.signals {
            self.signal(number, context);
        }
        if deferred.term {
            self.terminate(context, now);
        }
        if deferred.pause {
            self.pause(context, now);
        }
    }

    /// More was written than may be stored: stops the attempt. Where its leader has exited already,
    /// the facts still name the limit, because its output is not complete.
    pub(super) fn limit_reached(&mut self, context: &mut ShimContext, now: Instant) {
        if self.stop.is_some() {
            return;
        }
        let request = self.limit_request(StopCause::OutputLimit);
        self.stop(request.clone(), context, now);
        self.stop.get_or_insert_with(|| StopProgress::new(request));
    }
}
