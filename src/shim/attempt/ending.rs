//! How an attempt's process tree ends: the leader's exit, the processes that outlive it, the proof
//! that no process is left. `stop` sends the signals; `closing` does what follows.

use std::{
    io,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    Attempt,
    phase::{Draining, LeaderProcess, Phase, StartStep, TreeEnd, TreeStage},
};
use crate::{
    job::Leftover,
    shim::{
        context::ShimContext,
        process::{fork, inspect::Descendant, tree},
        timestamps,
    },
};

/// How long processes that outlive their leader have from TERM to KILL.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

/// After how long the processes are looked at again where that has failed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How many exited processes are reaped before other events are handled: a job can create them as
/// fast as they are reaped.
const REAPS_MAX: usize = 256;

impl Attempt {
    /// Handles a change of a child's state: reaps what can be reaped, and notices the leader's
    /// exit.
    ///
    /// The leader itself is reaped last, because its number is also its group's. ECHILD is the
    /// proof that no process is left.
    pub fn on_children(&mut self, context: &mut ShimContext, now: Instant) {
        self.watch_soon(now);
        let mut left = REAPS_MAX;
        while left > 0 {
            left -= 1;
            let reaped = match fork::exited_child(None) {
                Err(Errno::ECHILD) => return self.on_gone(context, now),
                Err(_) => false,
                Ok(None) => return self.on_children_left(context, now),
                Ok(Some(pid)) if Some(pid) == self.phase.leader() => {
                    self.finish_start(context, now);
                    match self.reap_others(pid, &mut left, context, now) {
                        _ if self.phase.forked().is_some() => false,
                        Ok(0) => self.reap(pid),
                        Ok(_) => return self.on_leader_exit(context, now),
                        Err(_) => false,
                    }
                }
                Ok(Some(pid)) => self.reap(pid),
            };
            if !reaped {
                // The kernel sends no second SIGCHLD for a child that could not be looked at or
                // reaped now.
                return self.look_again(now);
            }
        }
        self.look_at = Some(now);
    }

    /// Looks at the processes again in a moment: this time it failed.
    fn look_again(&mut self, now: Instant) {
        self.look_at = Some(now + LOOK_AGAIN);
    }

    /// Reaps exited children other than the leader, at most so many; how many children of ours
    /// remain.
    fn reap_others(
        &mut self,
        leader: i32,
        left: &mut usize,
        context: &ShimContext,
        now: Instant,
    ) -> io::Result<usize> {
        let mut remaining = 0;
        for pid in context
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

    /// Reaps a child if it has exited; returns whether it had.
    fn reap(&mut self, pid: i32) -> bool {
        let Ok(Some(reaped)) = fork::reap(pid) else {
            return false;
        };
        self.used.add(&reaped);
        self.phase.on_reaped(pid, reaped.status);
        true
    }

    /// The leader has exited before its start was noticed: handles its report first.
    fn finish_start(&mut self, context: &mut ShimContext, now: Instant) {
        let Phase::Starting(starting) = &mut self.phase else {
            return;
        };
        if !matches!(starting.step, StartStep::Exec(_)) {
            return;
        }
        let deferred = std::mem::take(&mut starting.deferred);
        self.read_report(context, now);
        if let Phase::Starting(starting) = &mut self.phase
            && matches!(starting.step, StartStep::Failed { .. })
        {
            starting.deferred = deferred;
        }
    }

    /// The leader has exited and other processes live: they are ended, or stay as named survivors.
    fn on_leader_exit(&mut self, context: &mut ShimContext, now: Instant) {
        let Some(living) = self.phase.running() else {
            return;
        };
        if self.stop.is_none() && self.spec.leftover == Leftover::Keep {
            return self.keep_survivors(context, now);
        }
        living.stage = TreeStage::Ending { leaked: 0 };
        self.stdin.close();
        let kill_at = now + LEFTOVER_GRACE;
        self.kill_at = self.kill_at.into_iter().chain([kill_at]).min();
        if self.stop.is_none() {
            self.count_leaked(context);
            self.terminate(context, now);
        }
    }

    /// The other processes stay as named survivors. If they are paused they continue first, because
    /// no later message could continue them. Where not all of them can be looked at, this is tried
    /// again.
    fn keep_survivors(&mut self, context: &ShimContext, now: Instant) {
        if !self.continue_stopped(context, now) {
            return self.look_again(now);
        }
        let others = self.others(context);
        if !others.is_complete() {
            return self.look_again(now);
        }
        self.leave_survivors(&others.found);
    }

    /// Names these processes as survivors: they are no longer part of the attempt.
    fn leave_survivors(&mut self, survivors: &[Descendant]) {
        let named = tree::name_all(survivors);
        if let Some(leader) = self.phase.leader() {
            self.reap(leader);
        }
        let Phase::Living(living) = &self.phase else {
            return;
        };
        let end = living.end();
        self.tree_gone(TreeEnd {
            leaked: end.leaked.saturating_sub(named.len() as u32),
            survivors: named,
            gone: false,
            ..end
        });
    }

    /// The leader is gone, and only processes are left that the kernel does not let us signal (they
    /// have become another user's): they survive.
    pub(super) fn leave_refused(&mut self, refused: &[Descendant], context: &ShimContext) {
        if !self.phase.is_ending() || refused.is_empty() {
            return;
        }
        let others = self.others(context);
        let is_refused = |p: &Descendant| refused.iter().any(|r| r.identity() == p.identity());
        if others.is_complete() && others.found.iter().all(is_refused) {
            self.leave_survivors(&others.found);
        }
    }

    /// Counts leaked processes in a stop, once: the whole tree was asked to end with the leader, so
    /// those that must be killed after the leader's exit have outlived it.
    pub(super) fn count_leaked_in_stop(&mut self, context: &ShimContext) {
        let first = self.stop.as_ref().is_some_and(|stop| !stop.facts.killed);
        if first && self.phase.is_ending() {
            self.count_leaked(context);
        }
    }

    /// Counts the processes that live although their leader has exited.
    fn count_leaked(&mut self, context: &ShimContext) {
        let others = self.others(context).found.len() as u32;
        if let Phase::Living(living) = &mut self.phase {
            living.stage = TreeStage::Ending { leaked: others };
        }
    }

    /// The living processes other than the leader.
    fn others(&self, context: &ShimContext) -> tree::TreeScan {
        context.tree.others(self.phase.leader().unwrap_or_default())
    }

    /// Children are left and none of them has exited. The kernel's list of children may miss one
    /// while others exit: then the leader was reaped too early, and its exit is handled now.
    fn on_children_left(&mut self, context: &mut ShimContext, now: Instant) {
        let is_reaped = |leader| matches!(leader, LeaderProcess::Reaped(_));
        if matches!(&self.phase, Phase::Living(living) if is_reaped(living.leader)) {
            self.on_leader_exit(context, now);
        }
    }

    /// No child is left.
    fn on_gone(&mut self, context: &mut ShimContext, now: Instant) {
        match &mut self.phase {
            Phase::Starting(starting) => {
                if let StartStep::Failed { error, .. } = &starting.step {
                    let error = error.clone();
                    self.start_again(&error, context, now);
                }
            }
            Phase::Living(living) => {
                let end = living.end();
                self.tree_gone(end);
            }
            Phase::Draining(draining) => draining.tree.gone = true,
            Phase::Ended(ended) => ended.gone = true,
        }
    }

    /// No process of the attempt is left (survivors not counted).
    pub(super) fn tree_gone(&mut self, tree: TreeEnd) {
        self.stdin.close();
        self.pipes.mark_end();
        self.leave_cgroup();
        self.kill_at = None;
        self.phase = Phase::Draining(Draining {
            tree,
            ended_at_us: timestamps::wall_us(),
            is_truncated: false,
        });
    }
}
