//! The stop ladder and the other wishes about a running tree: TERM, grace, KILL; pause, resume,
//! single signals; the limits of the job. Who wishes is not known here.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{
    attempt::{Attempt, Phase},
    fork,
    kit::Kit,
    spawn,
};
use crate::{
    job::{StopCause, StopFacts, StopWish, signal},
    spool::FromShim,
};

/// How long after a KILL the living are looked for again.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// How long after a pause or a resume that could not reach everybody it is tried again.
const REACH_AGAIN: Duration = Duration::from_millis(250);

/// How many signals are kept for a process that has not come to its exec yet.
pub(super) const SIGNALS_MAX: usize = 64;

/// A stop that has begun.
#[derive(Debug)]
pub struct Stop {
    /// As it was asked first.
    pub wish: StopWish,
    /// What has been done about it.
    pub facts: StopFacts,
}

impl Stop {
    /// One that has done nothing yet.
    pub fn new(wish: StopWish) -> Self {
        let facts = StopFacts {
            by: wish.by.clone(),
            cause: wish.cause,
            asked_at_us: wish.asked_at_us,
            signals: Vec::new(),
            killed: false,
        };
        Self { wish, facts }
    }

    fn sent(&mut self, number: i32) {
        self.facts.signals.push(signal::name(number));
    }
}

impl Attempt {
    /// Somebody, or a limit, wants the attempt to end. Too late once the leader has exited, except
    /// for output that waits for room.
    pub fn stop(&mut self, wish: StopWish, kit: &mut Kit, now: Instant) {
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
        self.stop = Some(Stop::new(wish));
        match self.phase {
            Phase::Opening => {
                self.unblock(kit, now);
                self.never_started(spawn::failed(Errno::ECANCELED, "start"));
            }
            // It ends as soon as the child that failed is reaped.
            Phase::Failing(_) => {}
            // Before exec TERM is still ignored, as the shim ignores it.
            Phase::Starting { .. } => self.later.term = gently,
            _ if gently => self.terminate(kit, now),
            _ => {}
        }
        self.later.pause = false;
    }

    /// Whether a stop would still come before the leader's exit. Asks the kernel: the exit may
    /// not have been noticed yet.
    fn leader_lives(&self) -> bool {
        match self.phase {
            Phase::Opening | Phase::Failing(_) => true,
            Phase::Starting { .. } | Phase::Running => self.leader.is_some_and(|pid| {
                // Another error than "no such child" says nothing: a stop must not be lost by it.
                let exited = fork::exited_child(Some(pid));
                !matches!(exited, Ok(Some(_)) | Err(Errno::ECHILD))
            }),
            _ => false,
        }
    }

    /// TERM to everybody, and CONT where somebody could not act on it otherwise.
    pub(super) fn terminate(&mut self, kit: &mut Kit, now: Instant) {
        let group = self.group();
        let mut sent = vec![libc::SIGTERM];
        kit.tree.signal(group, libc::SIGTERM);
        let everyone = kit.tree.everyone();
        let any_stopped = everyone.found.iter().any(|p| p.is_stopped());
        if self.paused || self.unreached.is_some() || any_stopped || !everyone.is_whole() {
            kit.tree.signal(group, libc::SIGCONT);
            sent.push(libc::SIGCONT);
        }
        self.unreached = None;
        self.set_paused(false, now);
        if let Some(stop) = &mut self.stop {
            sent.into_iter().for_each(|number| stop.sent(number));
        }
    }

    /// KILL to everybody, now and again until nobody is left.
    fn kill(&mut self, kit: &mut Kit, now: Instant) {
        self.kill_at = Some(now + KILL_AGAIN);
        self.count_leaked_in_stop(kit);
        // Where somebody could not be looked at the next round does: only ECHILD ends them.
        let reached = kit.tree.signal_until_quiet(self.group(), libc::SIGKILL);
        self.give_up_on(&reached.refused, kit);
        if let Some(stop) = &mut self.stop
            && !std::mem::replace(&mut stop.facts.killed, true)
        {
            stop.sent(libc::SIGKILL);
        }
    }

    /// What is due at `now`.
    pub fn on_time(&mut self, kit: &mut Kit, now: Instant) {
        let due = self.limits().filter(|(at, _)| *at <= now);
        let limit = due.min_by_key(|(at, _)| *at);
        if let Some((_, cause)) = limit {
            self.stop(self.limit_wish(cause), kit, now);
        }
        if self.look_at.take_if(|at| *at <= now).is_some() {
            self.on_children(kit, now);
        }
        if let Some((pause, _)) = self.unreached.take_if(|(_, at)| *at <= now) {
            self.set_flow(pause, kit, now);
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            match self.phase {
                Phase::Starting { .. } | Phase::Running | Phase::Ending => self.kill(kit, now),
                _ => self.kill_at = None,
            }
        }
    }

    /// Stops the whole tree, without anybody in it noticing. A stop that has begun goes first.
    pub fn pause(&mut self, kit: &mut Kit, now: Instant) {
        match self.phase {
            _ if self.stop.is_some() => {}
            Phase::Opening | Phase::Starting { .. } | Phase::Failing(_) => self.later.pause = true,
            Phase::Running => self.set_flow(true, kit, now),
            _ => {}
        }
    }

    /// Lets the tree go on.
    pub fn resume(&mut self, kit: &mut Kit, now: Instant) {
        self.later.pause = false;
        if matches!(self.phase, Phase::Running) && self.stop.is_none() {
            self.set_flow(false, kit, now);
        }
    }

    /// Stops everybody (`pause`) or lets everybody go on. It is told once it is so: where somebody
    /// could not be looked at, it is tried again.
    fn set_flow(&mut self, pause: bool, kit: &mut Kit, now: Instant) {
        if !matches!(self.phase, Phase::Running) || self.stop.is_some() {
            return;
        }
        let whole = match pause {
            true => {
                let reached = kit.tree.signal_until_quiet(self.group(), libc::SIGSTOP);
                reached.whole
            }
            false => kit.tree.signal(self.group(), libc::SIGCONT),
        };
        // The clocks stand still as soon as anybody does.
        self.set_paused(pause, now);
        self.unreached = (!whole).then_some((pause, now + REACH_AGAIN));
        if whole {
            let about = self.about();
            kit.said.push(match pause {
                true => FromShim::Paused { about },
                false => FromShim::Resumed { about },
            });
        }
    }

    /// One signal to the leader's group; nothing once the leader has exited.
    pub fn signal(&mut self, number: i32, kit: &Kit) {
        match self.phase {
            Phase::Running if self.leader_lives() => {
                kit.tree.signal_group(self.group(), number);
            }
            Phase::Opening | Phase::Starting { .. } | Phase::Failing(_)
                if self.later.signals.len() < SIGNALS_MAX =>
            {
                self.later.signals.push(number);
            }
            _ => {}
        }
    }

    /// The program runs: what was asked before is done now.
    pub(super) fn catch_up(&mut self, kit: &mut Kit, now: Instant) {
        let later = std::mem::take(&mut self.later);
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

    pub(super) fn set_paused(&mut self, paused: bool, now: Instant) {
        self.paused = paused;
        self.run_time.run(!paused, now);
        self.silence.run(!paused && self.blocked.is_none(), now);
    }

    /// More was written than may be stored: the attempt is stopped, or, where its leader has
    /// exited already, at least says so: what it wrote is not all there.
    pub(super) fn limit_reached(&mut self, kit: &mut Kit, now: Instant) {
        if self.stop.is_some() {
            return;
        }
        let wish = self.limit_wish(StopCause::OutputLimit);
        self.stop(wish.clone(), kit, now);
        self.stop.get_or_insert_with(|| Stop::new(wish));
    }
}
