//! How an attempt's process tree ends: the leader's exit, the processes that outlive it, the
//! proof that nobody is left. Signals are sent by the stop ladder; what follows is `closing`'s.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{
    attempt::{Attempt, Phase},
    fork,
    kit::Kit,
    stamp, tree,
};
use crate::job::Leftover;

/// How long processes that outlive their leader have from TERM to KILL.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

impl Attempt {
    /// A child has changed its state: reaps what can be reaped, and notices the leader's exit.
    ///
    /// The leader itself is reaped last, because its number is its group's name. ECHILD is the
    /// proof that nobody is left.
    pub fn on_children(&mut self, kit: &mut Kit, now: Instant) {
        loop {
            match fork::exited_child(None) {
                Err(Errno::ECHILD) => return self.on_gone(),
                Err(_) => return,
                Ok(None) => return self.on_straggler(kit, now),
                Ok(Some(pid)) if Some(pid) == self.leader => {
                    self.finish_start(kit, now);
                    if self.reap_others(pid, kit) > 0 {
                        return self.on_leader_exit(kit, now);
                    }
                    self.reap(pid);
                }
                Ok(Some(pid)) => {
                    self.reap(pid);
                }
            }
        }
    }

    /// Reaps exited children other than the leader; how many children of ours remain.
    fn reap_others(&mut self, leader: i32, kit: &Kit) -> usize {
        let mut remaining = 0;
        for pid in kit.tree.children() {
            if pid != leader && !self.reap(pid) {
                remaining += 1;
            }
        }
        remaining
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
    fn finish_start(&mut self, kit: &mut Kit, now: Instant) {
        self.later = super::attempt::Later::default();
        self.read_report(kit, now);
    }

    /// The leader has exited and others live: they end with it, or stay and are named.
    fn on_leader_exit(&mut self, kit: &mut Kit, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        self.phase = Phase::Ending;
        self.stdin.close();
        if self.stop.is_none() && self.spec.leftover == Leftover::Keep {
            return self.leave_to_themselves(kit);
        }
        let kill_at = now + LEFTOVER_GRACE;
        self.kill_at = self.kill_at.into_iter().chain([kill_at]).min();
        if self.stop.is_none() {
            self.leaked = self.others(kit).len() as u32;
            self.terminate(kit, now);
        }
    }

    /// Whoever lives is named and no longer part of the attempt.
    fn leave_to_themselves(&mut self, kit: &Kit) {
        self.survivors = tree::name_all(&self.others(kit));
        if let Some(leader) = self.leader {
            self.reap(leader);
        }
        self.tree_gone();
    }

    /// The leader is gone, and only processes are left that the kernel does not let us signal
    /// (they have become another user's): they survive.
    pub(super) fn give_up_on(&mut self, refused: &[i32], kit: &Kit) {
        if !matches!(self.phase, Phase::Ending) || refused.is_empty() {
            return;
        }
        if self.others(kit).iter().all(|p| refused.contains(&p.pid)) {
            self.leave_to_themselves(kit);
            self.leaked = self.leaked.saturating_sub(self.survivors.len() as u32);
        }
    }

    /// In a stop the whole tree was asked to go with the leader; who has to be killed although
    /// the leader went is what outlived it.
    pub(super) fn count_leaked_in_stop(&mut self, kit: &Kit) {
        let first = self.stop.as_ref().is_some_and(|stop| !stop.facts.killed);
        if let (Phase::Ending, true) = (&self.phase, first) {
            self.leaked = self.others(kit).len() as u32;
        }
    }

    /// Whoever lives besides the leader.
    fn others(&self, kit: &Kit) -> Vec<tree::Process> {
        kit.tree.others(self.leader.unwrap_or_default())
    }

    /// Children are left and none of them has exited. The kernel's list of children may miss one
    /// while others exit: then the leader has been reaped too early, and it matters only now.
    fn on_straggler(&mut self, kit: &mut Kit, now: Instant) {
        if self.leader.is_none() && self.leader_status.is_some() {
            self.on_leader_exit(kit, now);
        }
    }

    /// There are no children any more.
    fn on_gone(&mut self) {
        let before = std::mem::replace(&mut self.gone, true);
        if !before && matches!(self.phase, Phase::Running | Phase::Ending) {
            self.tree_gone();
        }
    }

    /// Nothing of the attempt runs any more (survivors aside).
    pub(super) fn tree_gone(&mut self) {
        self.stdin.close();
        self.pipes.mark_end();
        self.ended_at_us = stamp::wall_us();
        self.kill_at = None;
        self.paused = false;
        self.phase = Phase::Draining;
    }
}
