//! The stop ladder: TERM, grace, KILL; single signals; the limits of the job. Who wishes is not known
//! here.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{
    Attempt, pause,
    pause_state::PauseState,
    phase::{Later, Phase, StartStep},
};
use crate::{
    job::{StopCause, StopFacts, StopRequest, Survivor, signal},
    shim::{
        context::ShimContext,
        process::{
            fork,
            reach::{self, SignalOutcome},
            spawn, tree,
        },
    },
    spool::FromShim,
};

/// How long after a KILL the living are looked for again.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// The same where the kernel has refused all of them: they may become our user's again.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);

/// How many processes that could not be signalled are named at most.
const REFUSED_NAMED_MAX: usize = 100;

/// How many signals are kept for a process that has not come to its exec yet.
pub(super) const SIGNALS_MAX: usize = 64;

/// A stop that has begun.
#[derive(Debug)]
pub struct StopProgress {
    /// As it was asked first.
    pub wish: StopRequest,
    /// What has been done about it.
    pub facts: StopFacts,
    /// A signal of it has reached the leader.
    leader_reached: bool,
}

impl StopProgress {
    /// One that has done nothing yet.
    pub fn new(wish: StopRequest) -> Self {
        let facts = StopFacts {
            by: wish.by.clone(),
            cause: wish.cause,
            asked_at_us: wish.asked_at_us,
            signals: Vec::new(),
            killed: false,
            refused: Vec::new(),
            spared: false,
        };
        Self {
            wish,
            facts,
            leader_reached: false,
        }
    }

    fn sent(&mut self, number: i32) {
        self.facts.signals.push(signal::name(number));
    }

    /// Takes over what became of a signal to everybody. A leader that it has reached once has heard of
    /// the stop.
    fn note(&mut self, number: i32, reached: &SignalOutcome) {
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

/// When the living are looked for again after a KILL.
fn kill_again(reached: &SignalOutcome) -> Duration {
    match (reached.is_quiet(), reached.is_delivered) {
        // There are always new ones: as soon as everything else has had its turn.
        (false, _) => Duration::ZERO,
        (true, false) if !reached.refused.is_empty() => REFUSED_AGAIN,
        (true, _) => KILL_AGAIN,
    }
}

impl Attempt {
    /// Somebody, or a limit, wants the attempt to end. Too late once the leader has exited, except
    /// for output that waits for room.
    pub fn stop(&mut self, wish: StopRequest, kit: &mut ShimContext, now: Instant) {
        if !self.leader_lives() {
            return self.want_end(now);
        }
        let grace = match wish.cause {
            StopCause::Kill => Duration::ZERO,
            _ => Duration::from_millis(wish.grace_ms),
        };
        // A repeated wish never gives more time than the first.
        let kill_at = now.checked_add(grace);
        self.kill_at = self.kill_at.into_iter().chain(kill_at).min();
        if self.stop.is_some() {
            return;
        }
        let about = self.about();
        kit.said.push(FromShim::Stopping {
            about,
            wish: wish.clone(),
        });
        let gently = wish.cause != StopCause::Kill;
        self.stop = Some(StopProgress::new(wish));
        match &mut self.phase {
            Phase::Starting(starting) => {
                starting.later.pause = false;
                match starting.step {
                    StartStep::Fork => {
                        self.unblock(kit, now);
                        self.never_started(spawn::failed(Errno::ECANCELED, "start"));
                    }
                    // Before exec TERM is still ignored, as the shim ignores it.
                    StartStep::Exec(_) => starting.later.term = gently,
                    // It ends as soon as the child that failed is reaped.
                    StartStep::Failed { .. } => {}
                }
            }
            _ if gently => self.terminate(kit, now),
            _ => {}
        }
    }

    /// Whether a stop would still come before the leader's exit. Asks the kernel: the exit may
    /// not have been noticed yet.
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
            // Another error than "no such child" says nothing: a stop must not be lost by it.
            let exited = fork::exited_child(Some(pid));
            !matches!(exited, Ok(Some(_)) | Err(Errno::ECHILD))
        })
    }

    /// TERM to everybody, and CONT where somebody could not act on it otherwise.
    pub(super) fn terminate(&mut self, kit: &mut ShimContext, now: Instant) {
        let group = self.phase.leader();
        let reached = kit.tree.terminate(group);
        self.note(libc::SIGTERM, &reached, kit);
        let any_held = self.phase.pause().is_some_and(PauseState::holds_any);
        if any_held || reached.any_stopped || !reached.is_whole() {
            kit.tree.wake(group);
            if let Some(stop) = self.stop.as_mut().filter(|_| reached.is_delivered) {
                stop.sent(libc::SIGCONT);
            }
        }
        self.forget_pause(now);
    }

    /// Enters what became of a signal of the stop, and tells of those that it could not reach.
    fn note(&mut self, number: i32, reached: &SignalOutcome, kit: &mut ShimContext) {
        let Some(stop) = &mut self.stop else { return };
        // A job that forks has others each time: those of the last try stand in its facts.
        let is_told = !stop.facts.refused.is_empty();
        stop.note(number, reached);
        let refused = stop.facts.refused.clone();
        if !refused.is_empty() && !is_told {
            self.tell_refused(refused, kit);
        }
    }

    fn tell_refused(&mut self, refused: Vec<Survivor>, kit: &mut ShimContext) {
        let names = pause::names(&refused);
        let what = format!(
            "stop these of its processes: {names}: the kernel refuses it (EPERM), for they have \
             become another user's"
        );
        self.trouble(what, kit);
        let about = self.about();
        kit.said.push(FromShim::StopRefused { about, refused });
    }

    /// KILL to everybody, now and again until nobody is left.
    fn kill(&mut self, kit: &mut ShimContext, now: Instant) {
        self.count_leaked_in_stop(kit);
        // Where somebody could not be looked at the next round does: only ECHILD ends them.
        let lives = !self.phase.is_ending();
        let reached = kit.tree.kill(self.phase.leader(), lives);
        self.kill_at = Some(now + kill_again(&reached));
        self.note(libc::SIGKILL, &reached, kit);
        self.give_up_on(&reached.refused, kit);
    }

    /// What is due at `now`.
    pub fn on_time(&mut self, kit: &mut ShimContext, now: Instant) {
        let due = self.limits().filter(|(at, _)| *at <= now);
        let limit = due.min_by_key(|(at, _)| *at);
        if let Some((_, cause)) = limit {
            self.stop(self.limit_wish(cause), kit, now);
        }
        if self.look_at.take_if(|at| *at <= now).is_some() {
            self.on_children(kit, now);
        }
        self.on_pause_time(kit, now);
        if self.kill_at.is_some_and(|at| at <= now) {
            match self.phase.forked().is_some() || matches!(self.phase, Phase::Living(_)) {
                true => self.kill(kit, now),
                false => self.kill_at = None,
            }
        }
    }

    /// One signal to the leader's group; nothing once the leader has exited. In a pause nobody is let
    /// go on or stopped by it: the pause would not hold, and the other is over with the pause.
    pub fn signal(&mut self, number: i32, kit: &mut ShimContext) {
        match &mut self.phase {
            Phase::Starting(starting) if starting.later.signals.len() < SIGNALS_MAX => {
                starting.later.signals.push(number);
            }
            Phase::Living(living) if living.is_running() => {
                let waits = living.pause.holds_any() && signal::is_of_job_control(number);
                if !waits && self.leader_lives() {
                    self.signal_now(number, kit);
                }
            }
            _ => {}
        }
    }

    fn signal_now(&mut self, number: i32, kit: &mut ShimContext) {
        if reach::signal_group(self.phase.leader(), number) == Err(Errno::EPERM) {
            let name = signal::name(number);
            let what = format!("send it {name}: the kernel refuses it (EPERM)");
            self.trouble(what, kit);
        }
    }

    /// The program runs: what was asked before is done now.
    pub(super) fn catch_up(&mut self, later: Later, kit: &mut ShimContext, now: Instant) {
        for number in later.signals {
            self.signal(number, kit);
        }
        if later.term {
            self.terminate(kit, now);
        }
        if later.pause {
            self.pause(kit, now);
        }
    }

    /// More was written than may be stored: the attempt is stopped, or, where its leader has
    /// exited already, at least says so: what it wrote is not all there.
    pub(super) fn limit_reached(&mut self, kit: &mut ShimContext, now: Instant) {
        if self.stop.is_some() {
            return;
        }
        let wish = self.limit_wish(StopCause::OutputLimit);
        self.stop(wish.clone(), kit, now);
        self.stop.get_or_insert_with(|| StopProgress::new(wish));
    }
}
