//! A pause: everybody in the tree stands still until its end, whoever wants them to go on; and its
//! end lets those go on that it has stopped. Who wishes it is not known here.

use std::time::{Duration, Instant};

use super::{
    Attempt,
    pause_state::{Hold, PauseState, PauseStep},
    phase::Phase,
};
use crate::{
    job::Survivor,
    shim::{
        context::ShimContext,
        process::{inspect::Descendant, tree},
    },
    spool::FromShim,
};

/// How long after a pause or a resume that could not reach everybody it is tried again.
const REACH_AGAIN: Duration = Duration::from_millis(250);

/// How long after a look that has found somebody on the way to its stop the next one is taken.
const REST_AGAIN: Duration = Duration::from_millis(2);

/// How often is looked whether everybody still stands still: others may send SIGCONT, and only of
/// our children the kernel tells that they go on.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How long after a look the next one is taken at the soonest.
const WATCH_SOONEST: Duration = Duration::from_millis(50);

impl Attempt {
    /// Stops the whole tree, without anybody in it noticing. A stop that has begun goes first.
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

    /// Lets the tree go on.
    pub fn resume(&mut self, context: &mut ShimContext, now: Instant) {
        if let Phase::Starting(starting) = &mut self.phase {
            starting.deferred.pause = false;
        }
        self.end_pause(context, now);
    }

    /// Pauses and resumes that are due.
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

    /// A child has stopped, has gone on, or has exited: everybody is looked at soon.
    pub(super) fn watch_soon(&mut self, now: Instant) {
        if let Phase::Living(living) = &mut self.phase
            && let Some(PauseStep::Watch { at, looked_at }) = &mut living.pause.next
        {
            let soon = (*looked_at + WATCH_SOONEST).max(now);
            *at = soon.min(*at);
        }
    }

    /// Stops everybody who does not stand still. It is told once they all do: where somebody could
    /// not be looked at, it is tried again. Where the kernel does not let us, nobody stays stopped.
    fn hold(&mut self, context: &mut ShimContext, now: Instant) {
        let Some(living) = self.phase.running().filter(|_| self.stop.is_none()) else {
            return;
        };
        let mut halt = living.pause.take_halt().unwrap_or_default();
        let reached = context.tree.halt(living.leader.pid(), &mut halt);
        if !reached.refused.is_empty() {
            living.pause.hold = Hold::Released(halt);
            return self.refuse_pause(&reached.refused, context, now);
        }
        // The clocks stand still as soon as anybody does.
        living.pause.hold = Hold::Stopped(halt);
        let next = match (reached.is_complete(), reached.is_quiet()) {
            (true, true) => PauseStep::Watch {
                at: now + WATCH_EVERY,
                looked_at: now,
            },
            (true, false) if reached.is_at_rest() => PauseStep::Hold(now),
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

    /// Ends a pause. It is told once everybody goes on.
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
            let about = self.about();
            context.outgoing.push(FromShim::Resumed { about });
        }
    }

    /// Lets those go on that the pause has stopped; whether all of them were reached.
    pub(super) fn continue_stopped(&mut self, context: &ShimContext, now: Instant) -> bool {
        let Some(living) = self.phase.running() else {
            return true;
        };
        let pause = &mut living.pause;
        pause.next.take_if(|next| next.is_watch());
        if let Some(mut halt) = pause.take_halt()
            && !context.tree.continue_stopped(&mut halt)
        {
            pause.hold = Hold::Released(halt);
        }
        let all_continue = !pause.holds_any();
        self.run_clocks(now);
        all_continue
    }

    /// Some processes cannot be stopped, so that the job would go on: it is not paused at all.
    fn refuse_pause(&mut self, refused: &[Descendant], context: &mut ShimContext, now: Instant) {
        let about = self.about();
        let names = names(&tree::name_all(refused));
        let why = format!(
            "the kernel does not let us stop these of its processes (EPERM), for they have become \
             another user's: {names}"
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

    /// Nobody stands still because of the pause any more.
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
