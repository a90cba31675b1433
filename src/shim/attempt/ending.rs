//! How an attempt's process tree ends: the leader's exit, the processes that outlive it, the
//! proof that nobody is left. Signals are sent by the stop ladder; what follows is `closing`'s.

use std::{
    io,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{Attempt, Phase};
use crate::{
    job::Leftover,
    shim::{
        context::ShimContext,
        process::{fork, look::Descendant, tree},
        timestamps,
    },
};

/// How long processes that outlive their leader have from TERM to KILL.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

/// How long until the processes are looked at again where that has failed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How many exited processes are reaped before everything else has its turn: a job can make them as
/// fast as they are reaped.
const REAPS_MAX: usize = 256;

impl Attempt {
    /// A child has changed its state: reaps what can be reaped, and notices the leader's exit.
    ///
    /// The leader itself is reaped last, because its number is its group's name. ECHILD is the
    /// proof that nobody is left.
    pub fn on_children(&mut self, kit: &mut ShimContext, now: Instant) {
        self.watch_soon(now);
        let mut left = REAPS_MAX;
        while left > 0 {
            left -= 1;
            let reaped = match fork::exited_child(None) {
                Err(Errno::ECHILD) => return self.on_gone(kit, now),
                Err(_) => false,
                Ok(None) => return self.on_straggler(kit, now),
                Ok(Some(pid)) if Some(pid) == self.leader => {
                    self.finish_start(kit, now);
                    match self.reap_others(pid, &mut left, kit, now) {
                        _ if matches!(self.phase, Phase::Starting { .. }) => false,
                        Ok(0) => self.reap(pid),
                        Ok(_) => return self.on_leader_exit(kit, now),
                        Err(_) => false,
                    }
                }
                Ok(Some(pid)) => self.reap(pid),
            };
            if !reaped {
                // No signal comes again for what could not be looked at or taken this time.
                return self.look_again(now);
            }
        }
        self.look_at = Some(now);
    }

    /// The processes are looked at again in a moment: this time it failed.
    fn look_again(&mut self, now: Instant) {
        self.look_at = Some(now + LOOK_AGAIN);
    }

    /// Reaps exited children other than the leader, at most so many; how many children of ours
    /// remain.
    fn reap_others(
        &mut self,
        leader: i32,
        left: &mut usize,
        kit: &ShimContext,
        now: Instant,
    ) -> io::Result<usize> {
        let mut remaining = 0;
        for pid in kit
            .tree
            .children()?
            .into_iter()
            .filter(|pid| *pid != leader)
        {
            if *left == 0 {
                self.look_at = Some(now);
                remaining += 1;
            } else if self.reap(pid) {
                *left -= 1;
            } else {
                remaining += 1;
            }
        }
        Ok(remaining)
    }

    /// Reaps a child if it has exited; whether it had.
    fn reap(&mut self, pid: i32) -> bool {
        let Ok(Some(reaped)) = fork::reap(pid) else {
            return false;
        };
        self.used.add(&reaped);
        if self.leader == Some(pid) {
            self.leader = None;
            self.leader_status = Some(reaped.status);
        }
        true
    }

    /// The leader has exited before its start was noticed: the report goes first.
    fn finish_start(&mut self, kit: &mut ShimContext, now: Instant) {
        if !matches!(self.phase, Phase::Starting { .. }) {
            return;
        }
        let later = std::mem::take(&mut self.later);
        self.read_report(kit, now);
        if matches!(self.phase, Phase::Failing(_)) {
            self.later = later;
        }
    }

    /// The leader has exited and others live: they end with it, or stay and are named.
    fn on_leader_exit(&mut self, kit: &mut ShimContext, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        if self.stop.is_none() && self.spec.leftover == Leftover::Keep {
            return self.leave_to_themselves(kit, now);
        }
        self.phase = Phase::Ending;
        self.stdin.close();
        let kill_at = now + LEFTOVER_GRACE;
        self.kill_at = self.kill_at.into_iter().chain([kill_at]).min();
        if self.stop.is_none() {
            self.leaked = self.others(kit).found.len() as u32;
            self.terminate(kit, now);
        }
    }

    /// What lives besides the leader stays: it goes on if it was paused, for nobody could let it go
    /// on later, and it is named. Where not all of them can be looked at, that waits.
    fn leave_to_themselves(&mut self, kit: &ShimContext, now: Instant) {
        if !self.let_go(kit, now) {
            return self.look_again(now);
        }
        let others = self.others(kit);
        if !others.is_whole() {
            return self.look_again(now);
        }
        self.leave(&others.found);
    }

    /// These are no longer part of the attempt.
    fn leave(&mut self, survivors: &[Descendant]) {
        self.survivors = tree::name_all(survivors);
        if let Some(leader) = self.leader {
            self.reap(leader);
        }
        self.tree_gone();
    }

    /// The leader is gone, and only processes are left that the kernel does not let us signal
    /// (they have become another user's): they survive.
    pub(super) fn give_up_on(&mut self, refused: &[Descendant], kit: &ShimContext) {
        if !matches!(self.phase, Phase::Ending) || refused.is_empty() {
            return;
        }
        let others = self.others(kit);
        let is_refused = |p: &Descendant| refused.iter().any(|r| r.identity() == p.identity());
        if others.is_whole() && others.found.iter().all(is_refused) {
            self.leave(&others.found);
            self.leaked = self.leaked.saturating_sub(self.survivors.len() as u32);
        }
    }

    /// In a stop the whole tree was asked to go with the leader; who has to be killed although
    /// the leader went is what outlived it.
    pub(super) fn count_leaked_in_stop(&mut self, kit: &ShimContext) {
        let first = self.stop.as_ref().is_some_and(|stop| !stop.facts.killed);
        if let (Phase::Ending, true) = (&self.phase, first) {
            self.leaked = self.others(kit).found.len() as u32;
        }
    }

    /// Whoever lives besides the leader.
    fn others(&self, kit: &ShimContext) -> tree::TreeScan {
        kit.tree.others(self.leader.unwrap_or_default())
    }

    /// Children are left and none of them has exited. The kernel's list of children may miss one
    /// while others exit: then the leader has been reaped too early, and it matters only now.
    fn on_straggler(&mut self, kit: &mut ShimContext, now: Instant) {
        if self.leader.is_none() && self.leader_status.is_some() {
            self.on_leader_exit(kit, now);
        }
    }

    /// There are no children any more.
    fn on_gone(&mut self, kit: &mut ShimContext, now: Instant) {
        let before = std::mem::replace(&mut self.gone, true);
        if let Phase::Failing(error) = &self.phase {
            let error = error.clone();
            return self.start_again(&error, kit, now);
        }
        if !before && matches!(self.phase, Phase::Running | Phase::Ending) {
            self.tree_gone();
        }
    }

    /// Nothing of the attempt runs any more (survivors aside).
    pub(super) fn tree_gone(&mut self) {
        self.stdin.close();
        self.pipes.mark_end();
        self.ended_at_us = timestamps::wall_us();
        self.kill_at = None;
        self.forget_pause();
        self.phase = Phase::Draining;
    }
}
