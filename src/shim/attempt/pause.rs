//! A pause: everybody in the tree stands still until its end, whoever wants them to go on; and its
//! end lets those go on that it has stopped. Who wishes it is not known here.

use std::time::{Duration, Instant};

use super::{Attempt, Phase};
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
        match self.phase {
            _ if self.stop.is_some() => {}
            Phase::Opening | Phase::Starting { .. } | Phase::Failing(_) => self.later.pause = true,
            Phase::Running if self.told_paused && self.unreached.is_none() => self.tell_paused(kit),
            Phase::Running => self.hold(kit, now),
            _ => {}
        }
    }

    /// Lets the tree go on.
    pub fn resume(&mut self, kit: &mut ShimContext, now: Instant) {
        self.later.pause = false;
        self.go_on(kit, now);
    }

    /// Pauses and resumes that are due.
    pub(super) fn on_pause_time(&mut self, kit: &mut ShimContext, now: Instant) {
        let due = self.unreached.take_if(|(_, at)| *at <= now);
        let watch = self.watch_at.take_if(|at| *at <= now).is_some();
        match due {
            Some((false, _)) => self.go_on(kit, now),
            Some((true, _)) => self.hold(kit, now),
            None if watch => self.hold(kit, now),
            None => {}
        }
    }

    /// A child has stopped, has gone on, or has exited: everybody is looked at soon.
    pub(super) fn watch_soon(&mut self, now: Instant) {
        let soon = (self.watched_at + WATCH_SOONEST).max(now);
        self.watch_at = self.watch_at.map(|at| at.min(soon));
    }

    /// Stops everybody who does not stand still. It is told once they all do: where somebody could
    /// not be looked at, it is tried again. Where the kernel does not let us, nobody stays stopped.
    fn hold(&mut self, kit: &mut ShimContext, now: Instant) {
        if !matches!(self.phase, Phase::Running) || self.stop.is_some() {
            return;
        }
        let reached = kit
            .tree
            .halt(self.group(), self.halt.get_or_insert_default());
        if !reached.refused.is_empty() {
            return self.give_pause_up(&reached.refused, kit, now);
        }
        // The clocks stand still as soon as anybody does.
        self.set_paused(true, now);
        self.watched_at = now;
        let again = match (reached.is_whole(), reached.is_quiet()) {
            (true, true) => None,
            (true, false) if reached.is_at_rest() => Some(now),
            (true, false) => Some(now + REST_AGAIN),
            (false, _) => Some(now + REACH_AGAIN),
        };
        self.unreached = again.map(|at| (true, at));
        self.watch_at = again.is_none().then_some(now + WATCH_EVERY);
        if again.is_none() && !self.told_paused {
            self.tell_paused(kit);
        }
    }

    fn tell_paused(&mut self, kit: &mut ShimContext) {
        self.told_paused = true;
        let about = self.about();
        kit.said.push(FromShim::Paused { about });
    }

    /// Ends a pause. It is told once everybody goes on.
    fn go_on(&mut self, kit: &mut ShimContext, now: Instant) {
        if !matches!(self.phase, Phase::Running) || self.stop.is_some() {
            return;
        }
        if self.let_go(kit, now) {
            self.told_paused = false;
            self.unreached = None;
            let about = self.about();
            kit.said.push(FromShim::Resumed { about });
        } else {
            self.unreached = Some((false, now + REACH_AGAIN));
        }
    }

    /// Lets those go on that the pause has stopped; whether all of them were reached.
    pub(super) fn let_go(&mut self, kit: &ShimContext, now: Instant) -> bool {
        self.watch_at = None;
        let reached = self.halt.as_mut().is_none_or(|halt| kit.tree.let_go(halt));
        if reached {
            self.halt = None;
        }
        self.set_paused(false, now);
        reached
    }

    /// Some processes cannot be stopped, so that the job would go on: it is not paused at all.
    fn give_pause_up(&mut self, refused: &[Descendant], kit: &mut ShimContext, now: Instant) {
        let about = self.about();
        let names = names(&tree::name_all(refused));
        let why = format!(
            "the kernel does not let us stop these of its processes (EPERM), for they have become \
             another user's: {names}"
        );
        let reached = self.let_go(kit, now);
        self.unreached = (!reached).then_some((false, now + REACH_AGAIN));
        if std::mem::take(&mut self.told_paused) {
            kit.said.push(FromShim::Resumed { about });
        }
        self.trouble(format!("be paused: {why}"), kit);
        kit.said.push(FromShim::PauseRefused { about, why });
    }

    pub(super) fn set_paused(&mut self, paused: bool, now: Instant) {
        self.paused = paused;
        self.run_time.run(!paused, now);
        self.silence.run(!paused && self.blocked.is_none(), now);
    }

    /// Nobody stands still because of the pause any more.
    pub(super) fn forget_pause(&mut self) {
        self.paused = false;
        self.halt = None;
        self.told_paused = false;
        self.unreached = None;
        self.watch_at = None;
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
