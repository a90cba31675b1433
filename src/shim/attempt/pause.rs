//! A pause: stops every process of the tree and keeps them stopped until it ends, whatever other
//! processes do; its end continues those that it has stopped.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    Attempt,
    pause_state::{HeldProcesses, PauseState, PauseStep},
    phase::Phase,
};
use crate::{
    job::Survivor,
    shim::{
        context::ShimContext,
        process::{inspect::Descendant, signal_tree::WAITS_END_WITHIN, tree},
    },
    spool::FromShim,
};

/// How long after a pause or a resume that could not reach every process it is tried again.
const REACH_AGAIN: Duration = Duration::from_millis(250);

/// How long after a scan that found a process that had not stopped yet the next one is made.
const REST_AGAIN: Duration = Duration::from_millis(2);

/// How often the shim checks that every process is still stopped: other processes may send SIGCONT,
/// and the kernel reports only of our children that they continue.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How long after a scan the next one is made at the soonest.
const WATCH_SOONEST: Duration = Duration::from_millis(50);

impl Attempt {
    /// Stops the whole tree, without a signal that a process could handle. Ignored once a stop has
    /// begun.
    pub fn pause(&mut self, context: &mut ShimContext, now: Instant) {
        if self.stop.is_some() {
            return;
        }
        match &mut self.phase {
            Phase::Starting(starting) => starting.deferred.pause = true,
            Phase::Living(living) if living.is_running() && living.pause.is_reached() => {
                self.emit_paused(context);
            }
            _ => self.hold(context, now),
        }
    }

    /// Ends the pause.
    pub fn resume(&mut self, context: &mut ShimContext, now: Instant) {
        if let Phase::Starting(starting) = &mut self.phase {
            starting.deferred.pause = false;
        }
        self.end_pause(context, now);
    }

    /// Does the step of a pause or a resume that is due.
    pub(super) fn on_pause_time(&mut self, context: &mut ShimContext, now: Instant) {
        let Phase::Living(living) = &mut self.phase else {
            return;
        };
        match living.pause.next.take_if(|next| next.at() <= now) {
            Some(PauseStep::Continue(_)) => self.end_pause(context, now),
            Some(PauseStep::Hold(_) | PauseStep::Watch { .. }) => self.hold(context, now),
            None => {}
        }
    }

    /// A child has stopped, continued or exited: the next check comes soon.
    pub(super) fn watch_soon(&mut self, now: Instant) {
        if let Phase::Living(living) = &mut self.phase
            && let Some(PauseStep::Watch { at, looked_at }) = &mut living.pause.next
        {
            let soon = (*looked_at + WATCH_SOONEST).max(now);
            *at = soon.min(*at);
        }
    }

    /// Stops every process that is not stopped. `paused` is sent once they all are; where a process
    /// could not be looked at, this is tried again. Where the kernel refuses a signal, the pause is
    /// refused and none stays stopped.
    fn hold(&mut self, context: &mut ShimContext, now: Instant) {
        let Some(living) = self.phase.running().filter(|_| self.stop.is_none()) else {
            return;
        };
        let (leader, mut halt) = (
            living.leader.pid(),
            living.pause.take_halt().unwrap_or_default(),
        );
        let frozen = self.freeze();
        let (members, rests) = match &frozen {
            Ok(group) => (&group.members, group.rests),
            Err(_) => (&HashSet::new(), false),
        };
        let reached = context.tree.halt(leader, members, &mut halt);
        let rests = rests || halt.age() >= WAITS_END_WITHIN;
        let Some(living) = self.phase.running() else {
            return;
        };
        if !reached.refused.is_empty() {
            living.pause.hold = HeldProcesses::Released(halt);
            return self.refuse_pause(&reached.refused, context, now);
        }
        // The stopwatches are held as soon as any process is stopped.
        living.pause.hold = HeldProcesses::Stopped(halt);
        let is_complete = reached.is_complete() && frozen.is_ok();
        let next = match (is_complete, reached.is_quiet() && rests) {
            (true, true) => PauseStep::Watch {
                at: now + WATCH_EVERY,
                looked_at: now,
            },
            (true, false) if reached.is_at_rest() && rests => PauseStep::Hold(now),
            (true, false) => PauseStep::Hold(now + REST_AGAIN),
            (false, _) => PauseStep::Hold(now + REACH_AGAIN),
        };
        living.pause.next = Some(next);
        let is_news = next.is_watch() && !living.pause.reported;
        self.run_clocks(now);
        if is_news {
            self.emit_paused(context);
        }
    }

    fn emit_paused(&mut self, context: &mut ShimContext) {
        if let Phase::Living(living) = &mut self.phase {
            living.pause.reported = true;
        }
        let about = self.about();
        context.outgoing.push(FromShim::Paused { about });
    }

    /// Ends a pause. `resumed` is sent once every process continues.
    fn end_pause(&mut self, context: &mut ShimContext, now: Instant) {
        if self.stop.is_some() {
            return;
        }
        let all_continue = self.continue_stopped(context, now);
        let Some(living) = self.phase.running() else {
            return;
        };
        living.pause.next = (!all_continue).then_some(PauseStep::Continue(now + REACH_AGAIN));
        if all_continue {
            living.pause.reported = false;
            self.gave_sign();
            let about = self.about();
            context.outgoing.push(FromShim::Resumed { about });
        }
    }

    /// Continues the processes that the pause has stopped; returns whether all of them were
    /// reached.
    pub(super) fn continue_stopped(&mut self, context: &ShimContext, now: Instant) -> bool {
        let Some(living) = self.phase.running() else {
            return true;
        };
        let pause = &mut living.pause;
        pause.next.take_if(|next| next.is_watch());
        if let Some(mut halt) = pause.take_halt()
            && !context.tree.continue_stopped(&mut halt)
        {
            pause.hold = HeldProcesses::Released(halt);
        }
        let all_continue = !pause.holds_any();
        // After the signals: what was sent SIGSTOP before it was seen to be in the group does not stop then.
        let thaws = self.thaw();
        self.run_clocks(now);
        all_continue && thaws
    }

    /// Some processes cannot be stopped, so the job would go on in part: it is not paused at all.
    fn refuse_pause(&mut self, refused: &[Descendant], context: &mut ShimContext, now: Instant) {
        let about = self.about();
        let names = names(&tree::name_all(refused));
        let why = format!(
            "the kernel refuses signals (EPERM) to these of its processes, which now belong to \
             another user: {names}"
        );
        let all_continue = self.continue_stopped(context, now);
        let Some(living) = self.phase.running() else {
            return;
        };
        living.pause.next = (!all_continue).then_some(PauseStep::Continue(now + REACH_AGAIN));
        if std::mem::take(&mut living.pause.reported) {
            context.outgoing.push(FromShim::Resumed { about });
        }
        self.report_trouble(format!("be paused: {why}"), context);
        context.outgoing.push(FromShim::PauseRefused { about, why });
    }

    /// Forgets the pause: no process is stopped by it any more.
    pub(super) fn forget_pause(&mut self, now: Instant) {
        if let Phase::Living(living) = &mut self.phase {
            living.pause = PauseState::default();
        }
        self.run_clocks(now);
    }
}

/// Some of these processes, for people: `123 (sudo), 124 (cat)`.
pub(super) fn names(processes: &[Survivor]) -> String {
    const SHOWN: usize = 8;
    let name = |process: &Survivor| format!("{} ({})", process.pid, process.comm);
    let mut names: Vec<_> = processes.iter().take(SHOWN).map(name).collect();
    if processes.len() > SHOWN {
        names.push(format!("and {} more", processes.len() - SHOWN));
    }
    names.join(", ")
}
