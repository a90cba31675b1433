//! The last steps of an attempt whose tree is gone: the last bytes, the exit record, the disk, and
//! the acknowledgement. How the tree came to its end is not known here.

use std::time::Instant;

use super::{Attempt, Phase};
use crate::{
    job::{Exit, ExitFacts},
    shim::{
        context::ShimContext,
        log::{Obstacle, sync::Synced},
        process::pipes::Pipes,
    },
    spool::FromShim,
};

impl Attempt {
    /// Stores the last bytes and completes the facts.
    pub(super) fn drain(&mut self, kit: &mut ShimContext, now: Instant) -> Result<(), Obstacle> {
        self.take_the_rest(kit, now)?;
        self.log.settle_drops(&mut kit.syncer)?;
        if self.survivors.is_empty() {
            self.pipes = Pipes::default();
        } else {
            self.pipes.forget_end();
        }
        self.facts = Some(Box::new(self.complete_facts()));
        self.phase = Phase::Recording;
        self.record(kit)
    }

    /// Where the rest has no room it waits, unless somebody wants the attempt to end: then it is
    /// counted, and the log says that it is missing.
    fn take_the_rest(&mut self, kit: &mut ShimContext, now: Instant) -> Result<(), Obstacle> {
        if !self.is_cut {
            match self.store_the_rest(kit, now) {
                Err(Obstacle::Full(_)) if self.end_wanted || self.stop.is_some() => {}
                stored => return stored,
            }
            self.is_cut = true;
        }
        self.forget_the_rest(kit, now);
        Ok(())
    }

    /// Somebody wants the end of an attempt whose leader has exited: what waits for room is tried
    /// once more, at once.
    pub(super) fn want_end(&mut self, now: Instant) {
        self.end_wanted = true;
        if let (Phase::Draining, Some(blocked)) = (&self.phase, &mut self.blocked)
            && let Some(at) = &mut blocked.retry_at
        {
            *at = now;
        }
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
            end_offset: self.log.final_end(),
            dropped: self.log.dropped(),
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
    /// ledger; else when everything is on disk, and what was dropped is gone.
    pub(super) fn record(&mut self, kit: &mut ShimContext) -> Result<(), Obstacle> {
        let written = self.write_exit(kit);
        let is_little = self.log.end() <= self.spec.inline_bytes_max && !self.log.has_hole();
        // What is missing at the end is told by the record alone.
        if is_little && (written.is_ok() || !self.log.has_forgotten()) {
            self.tell(kit);
            return written;
        }
        written?;
        self.phase = Phase::Syncing;
        self.await_sync(kit)
    }

    fn write_exit(&mut self, kit: &ShimContext) -> Result<(), Obstacle> {
        if self.recorded {
            return Ok(());
        }
        self.log.begin(&kit.intent(&self.spec))?;
        if self.started_at_us.is_none() && self.log.read_start().is_none() {
            self.log.forget_start();
        }
        self.log.write_exit(&crate::shim::json(&self.facts))?;
        self.recorded = true;
        Ok(())
    }

    /// Waits for the sync thread, then tells.
    pub(super) fn await_sync(&mut self, kit: &mut ShimContext) -> Result<(), Obstacle> {
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
    pub fn make_durable(&mut self, kit: &mut ShimContext) -> Result<(), Obstacle> {
        self.write_exit(kit)?;
        self.tell_sync_error(kit);
        Ok(())
    }

    /// Has everything synced, once, because nobody is there to acknowledge the end.
    pub fn secure(&mut self, kit: &mut ShimContext) {
        if self.recorded && !std::mem::replace(&mut self.sync_asked, true) {
            self.log.sync_all(&mut kit.syncer);
        }
    }

    fn tell_sync_error(&mut self, kit: &mut ShimContext) {
        if let Some(Err(e)) = self.log.synced() {
            let what = format!("sync its output: {e}");
            self.trouble(what, kit);
        }
    }

    fn tell(&mut self, kit: &mut ShimContext) {
        self.phase = Phase::Told;
        self.tell_flowing(kit);
        let Some(facts) = self.facts.clone() else {
            return;
        };
        let reusable = *self
            .reusable
            .get_or_insert(self.survivors.is_empty() && self.gone);
        kit.said.push(FromShim::Exited {
            job: self.spec.job,
            attempt: self.spec.attempt,
            facts,
            synced: self.is_durable(),
            reusable,
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

    /// Its job and its number.
    pub fn key(&self) -> (i64, u32) {
        (self.spec.job, self.spec.attempt)
    }

    /// Whether this is the attempt.
    pub fn is(&self, job: i64, attempt: u32) -> bool {
        (self.spec.job, self.spec.attempt) == (job, attempt)
    }

    /// Whether the shim has said that it takes no more work: when the exit was told, processes were
    /// still ours, named as survivors or on their way out.
    pub fn retires_shim(&self) -> bool {
        self.reusable == Some(false)
    }

    /// A result of the sync thread.
    pub fn on_synced(&mut self, synced: Synced, kit: &mut ShimContext) {
        self.log.on_synced(synced);
        self.tell_sync_error(kit);
    }
}
