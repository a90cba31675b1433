//! How an attempt ends: its leader's exit, the processes that outlive it, the last bytes, the
//! exit record, and the acknowledgement. Signals are sent by the stop ladder.

use std::time::{Duration, Instant};

use super::{
    attempt::{Attempt, Kit, Phase},
    fork,
    log::Obstacle,
    stamp, tree,
};
use crate::{
    job::{Exit, ExitFacts, Leftover},
    spool::FromShim,
};

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
                Err(_) => return self.on_gone(),
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
        self.pipes.stop_feeding();
        if self.stop.is_none() && self.spec.leftover == Leftover::Keep {
            self.survivors = tree::name_all(&self.others(kit));
            self.leader.map(|leader| self.reap(leader));
            self.tree_gone();
            return;
        }
        let kill_at = now + LEFTOVER_GRACE;
        self.kill_at = self.kill_at.into_iter().chain([kill_at]).min();
        if self.stop.is_none() {
            self.leaked = self.others(kit).len() as u32;
            self.terminate(kit, now);
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
        self.pipes.stop_feeding();
        self.ended_at_us = stamp::wall_us();
        self.kill_at = None;
        self.paused = false;
        self.phase = Phase::Draining;
    }

    /// Stores the last bytes and completes the facts.
    pub(super) fn drain(&mut self, kit: &mut Kit, now: Instant) -> Result<(), Obstacle> {
        self.log.make_ready(&mut super::attempt::desk(kit), true)?;
        self.empty_pipes(kit, now)?;
        if self.survivors.is_empty() {
            self.pipes = super::pipes::Pipes::default();
        }
        self.facts = Some(Box::new(self.complete_facts()));
        self.phase = Phase::Recording;
        self.record(kit)
    }

    fn complete_facts(&mut self) -> ExitFacts {
        ExitFacts {
            exit: self.exit(),
            started_at_us: self.started_at_us,
            ended_at_us: self.ended_at_us,
            stop: self.stop.as_ref().map(|stop| stop.facts.clone()),
            leaked: self.leaked,
            survivors: self.survivors.clone(),
            usage: self.used.total(),
            end_offset: self.log.end(),
        }
    }

    fn exit(&self) -> Exit {
        if let Some(error) = &self.spawn_error {
            return Exit::SpawnFailed(error.clone());
        }
        let status = self.leader_status.unwrap_or_default();
        if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        }
    }

    /// Writes the exit record. Little output: the exit is told at once, for it goes into the
    /// ledger; else when everything is on disk.
    pub(super) fn record(&mut self, kit: &mut Kit) -> Result<(), Obstacle> {
        let written = self.write_exit(kit);
        if self.log.end() <= self.spec.inline_bytes_max {
            self.tell(kit);
            return written;
        }
        written?;
        self.phase = Phase::Syncing;
        self.await_sync(kit)
    }

    fn write_exit(&mut self, kit: &Kit) -> Result<(), Obstacle> {
        if self.recorded {
            return Ok(());
        }
        self.log.begin(&super::attempt::intent(&self.spec, kit))?;
        if self.started_at_us.is_none() && self.log.read_start().is_none() {
            self.log.forget_start();
        }
        self.log.write_exit(&super::json(&self.facts))?;
        self.recorded = true;
        Ok(())
    }

    /// Waits for the sync thread, then tells.
    pub(super) fn await_sync(&mut self, kit: &mut Kit) -> Result<(), Obstacle> {
        if !std::mem::replace(&mut self.sync_asked, true) {
            self.log.sync_all(&mut kit.syncer);
        }
        if self.log.synced().is_none() {
            return Err(Obstacle::Unsynced);
        }
        self.tell_sync_error(kit);
        self.tell(kit);
        Ok(())
    }

    /// Where no server is there to make the end durable, the shim does.
    pub fn make_durable(&mut self, kit: &mut Kit) -> Result<(), Obstacle> {
        self.write_exit(kit)?;
        self.tell_sync_error(kit);
        Ok(())
    }

    /// Has everything synced, once, because nobody is there to acknowledge the end.
    pub fn secure(&mut self, kit: &mut Kit) {
        if self.recorded && !std::mem::replace(&mut self.sync_asked, true) {
            self.log.sync_all(&mut kit.syncer);
        }
    }

    fn tell_sync_error(&mut self, kit: &mut Kit) {
        if let Some(Err(e)) = self.log.synced() {
            let what = format!("sync its output: {e}");
            self.trouble(what, kit);
        }
    }

    fn tell(&mut self, kit: &mut Kit) {
        self.phase = Phase::Told;
        let Some(facts) = self.facts.clone() else {
            return;
        };
        kit.said.push(FromShim::Exited {
            job: self.spec.job,
            attempt: self.spec.attempt,
            facts,
            synced: self.is_durable(),
            reusable: self.survivors.is_empty() && self.gone,
        });
    }

    /// Whether all segments, exit record included, are on disk.
    pub fn is_durable(&self) -> bool {
        self.recorded && self.sync_asked && self.log.synced() == Some(Ok(()))
    }

    /// Whether the end has been told (or would have been, had anybody listened).
    pub fn is_told(&self) -> bool {
        matches!(self.phase, Phase::Told)
    }

    /// The final commit is durable.
    pub fn acknowledge(&mut self) {
        self.acknowledged = self.is_told();
    }

    /// Whether the attempt may be forgotten: acknowledged, and no process of it is left.
    pub fn is_over(&self) -> bool {
        self.acknowledged && self.gone
    }

    /// Whether nothing would be lost without this shim: no process, and the end is on disk.
    pub fn is_safe(&self) -> bool {
        self.is_told() && self.gone && self.is_durable()
    }

    /// Whether this is the attempt.
    pub fn is(&self, job: i64, attempt: u32) -> bool {
        (self.spec.job, self.spec.attempt) == (job, attempt)
    }

    /// Whether other processes than the job's could still be ours: the shim takes no more work.
    pub fn has_survivors(&self) -> bool {
        !self.survivors.is_empty()
    }

    /// A result of the sync thread.
    pub fn on_synced(&mut self, synced: super::sync::Synced) {
        self.log.on_synced(synced);
    }
}
