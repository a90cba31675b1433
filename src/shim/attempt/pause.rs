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
        process::{look::Descendant, tree},
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
    pub fn pause(&mut self, kit: &mut ShimContext, now: Instant) {
        if self.stop.is_some() {
            return;
        }
        match &mut self.phase {
            Phase::Starting(starting) => starting.later.pause = true,
            Phase::Living(living) if living.is_running() && living.pause.is_reached() => {
                self.tell_paused(kit);
            }
            _ => self.hold(kit, now),
        }
    }

    /// Lets the tree go on.
    pub fn resume(&mut self, kit: &mut ShimContext, now: Instant) {
        if let Phase::Starting(starting) = &mut self.phase {
            starting.later.pause = false;
        }
        self.go_on(kit, now);
    }

    /// Pauses and resumes that are due.
    pub(super) fn on_pause_time(&mut self, kit: &mut ShimContext, now: Instant) {
        let Phase::Living(living) = &mut self.phase else {
            return;
        };
        match living.pause.next.take_if(|next| next.at() <= now) {
            Some(PauseStep::LetGo(_)) => self.go_on(kit, now),
            Some(PauseStep::Hold(_) | PauseStep::Watch { .. }) => self.hold(kit, now),
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
    fn hold(&mut self, kit: &mut ShimContext, now: Instant) {
        let Some(living) = self.phase.running().filter(|_| self.stop.is_none()) else {
            return;
        };
        let mut halt = living.pause.take_halt().unwrap_or_default();
        let reached = kit.tree.halt(living.leader.pid(), &mut halt);
        if !reached.refused.is_empty() {
            living.pause.hold = Hold::Released(halt);
            return self.give_pause_up(&reached.refused, kit, now);
        }
        // The clocks stand still as soon as anybody does.
        living.pause.hold = Hold::Stopped(halt);
        let next = match (reached.is_whole(), reached.is_quiet()) {
            (true, true) => PauseStep::Watch {
                at: now + WATCH_EVERY,
                looked_at: now,
            },
            (true, false) if reached.is_at_rest() => PauseStep::Hold(now),
            (true, false) => PauseStep::Hold(now + REST_AGAIN),
            (false, _) => PauseStep::Hold(now + REACH_AGAIN),
        };
        living.pause.next = Some(next);
        let is_news = next.is_watch() && !living.pause.told;
        self.run_clocks(now);
        if is_news {
            self.tell_paused(kit);
        }
    }

    fn tell_paused(&mut self, kit: &mut ShimContext) {
        if let Phase::Living(living) = &mut self.phase {
            living.pause.told = true;
        }
        let about = self.about();
        kit.said.push(FromShim::Paused { about });
    }

    /// Ends a pause. It is told once everybody goes on.
    fn go_on(&mut self, kit: &mut ShimContext, now: Instant) {
        if self.stop.is_some() {
            return;
        }
        let all_go_on = self.let_go(kit, now);
        let Some(living) = self.phase.running() else {
            return;
        };
        living.pause.next = (!all_go_on).then_some(PauseStep::LetGo(now + REACH_AGAIN));
        if all_go_on {
            living.pause.told = false;
            let about = self.about();
            kit.said.push(FromShim::Resumed { about });
        }
    }

    /// Lets those go on that the pause has stopped; whether all of them were reached.
    pub(super) fn let_go(&mut self, kit: &ShimContext, now: Instant) -> bool {
        let Some(living) = self.phase.running() else {
            return true;
        };
        let pause = &mut living.pause;
        pause.next.take_if(|next| next.is_watch());
        if let Some(mut halt) = pause.take_halt()
            && !kit.tree.let_go(&mut halt)
        {
            pause.hold = Hold::Released(halt);
        }
        let all_go_on = !pause.holds_any();
        self.run_clocks(now);
        all_go_on
    }

    /// Some processes cannot be stopped, so that the job would go on: it is not paused at all.
    fn give_pause_up(&mut self, refused: &[Descendant], kit: &mut ShimContext, now: Instant) {
        let about = self.about();
        let names = names(&tree::name_all(refused));
        let why = format!(
            "the kernel does not let us stop these of its processes (EPERM), for they have become \
             another user's: {names}"
        );
        let all_go_on = self.let_go(kit, now);
        let Some(living) = self.phase.running() else {
            return;
        };
        living.pause.next = (!all_go_on).then_some(PauseStep::LetGo(now + REACH_AGAIN));
        if std::mem::take(&mut living.pause.told) {
            kit.said.push(FromShim::Resumed { about });
        }
        self.trouble(format!("be paused: {why}"), kit);
        kit.said.push(FromShim::PauseRefused { about, why });
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
