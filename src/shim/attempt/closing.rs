//! The last steps of an attempt whose tree is gone: the last bytes, the exit record, the sync, and
//! the acknowledgement. `ending` handles the end of the tree.

use std::time::Instant;

use super::{
    Attempt,
    phase::{Draining, EndStep, Ended, ExitRecord, Phase, Program, Reported, TreeEnd},
};
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
    pub(super) fn drain(
        &mut self,
        context: &mut ShimContext,
        now: Instant,
    ) -> Result<(), Obstacle> {
        self.finish_output(context, now)?;
        self.log.finish_drops(&mut context.syncer)?;
        let Phase::Draining(draining) = &self.phase else {
            return Ok(());
        };
        let (facts, gone) = (self.complete_facts(draining), draining.tree.gone);
        // What survivors write is discarded.
        self.redaction = None;
        if facts.survivors.is_empty() {
            self.pipes = Pipes::default();
        } else {
            self.pipes.forget_end();
        }
        self.phase = Phase::Ended(Ended {
            facts: Box::new(facts),
            gone,
            step: EndStep::Recording,
        });
        self.record(context)
    }

    /// Stores the rest of the output. Where the disk is full it waits, unless a stop was requested:
    /// then the rest is counted, and the log says that it is missing.
    fn finish_output(&mut self, context: &mut ShimContext, now: Instant) -> Result<(), Obstacle> {
        let is_truncated =
            matches!(&self.phase, Phase::Draining(draining) if draining.is_truncated);
        if !is_truncated {
            match self.store_rest(context, now) {
                Err(Obstacle::Full(_)) if self.end_wanted || self.stop.is_some() => {}
                stored => return stored,
            }
            if let Phase::Draining(draining) = &mut self.phase {
                draining.is_truncated = true;
            }
        }
        self.count_the_rest(context, now);
        Ok(())
    }

    /// A stop was requested for an attempt whose leader has exited: output that waits for disk
    /// space is tried once more, at once.
    pub(super) fn want_end(&mut self, now: Instant) {
        self.end_wanted = true;
        if let (Phase::Draining(_), Some(blocked)) = (&self.phase, &mut self.blocked)
            && let Some(at) = &mut blocked.retry_at
        {
            *at = now;
        }
    }

    fn complete_facts(&self, draining: &Draining) -> ExitFacts {
        let tree = &draining.tree;
        ExitFacts {
            exit: exit(tree),
            started_at_us: self.phase.started_at_us(),
            ended_at_us: draining.ended_at_us,
            stop: self.stop.as_ref().map(|stop| stop.facts.clone()),
            leaked: tree.leaked,
            survivors: tree.survivors.clone(),
            usage: self.used.total(),
            end_offset: self.log.final_end(),
            dropped: self.log.dropped(),
        }
    }

    /// Whether the exit record is the next step.
    pub(super) fn is_recording(&self) -> bool {
        matches!(&self.phase, Phase::Ended(ended) if matches!(ended.step, EndStep::Recording))
    }

    /// Writes the exit record. Where there is little output the exit is reported at once, because
    /// the server stores that output in its database; otherwise it is reported when everything is
    /// on disk and dropped segments are gone.
    pub(super) fn record(&mut self, context: &mut ShimContext) -> Result<(), Obstacle> {
        let written = self.write_exit(context);
        let is_little = self.log.end() <= self.spec.inline_bytes_max && !self.log.drops_segments();
        // Only the exit record says what is missing at the end, so then it must be written first.
        if is_little && (written.is_ok() || !self.log.has_unstored()) {
            let record = match written {
                Ok(()) => ExitRecord::Written,
                Err(_) => ExitRecord::Missing,
            };
            self.emit_exit(record, context);
            return written;
        }
        written?;
        if let Phase::Ended(ended) = &mut self.phase {
            ended.step = EndStep::Syncing;
        }
        self.log.sync_all(&mut context.syncer);
        self.await_sync(context)
    }

    fn write_exit(&mut self, context: &ShimContext) -> Result<(), Obstacle> {
        let Phase::Ended(ended) = &self.phase else {
            return Ok(());
        };
        self.log.begin(&context.intent(&self.spec))?;
        if ended.facts.started_at_us.is_none() && self.log.read_start().is_none() {
            self.log.forget_start();
        }
        self.log.write_exit(&crate::shim::json(&ended.facts))
    }

    /// Waits for the sync thread, then reports the exit.
    pub(super) fn await_sync(&mut self, context: &mut ShimContext) -> Result<(), Obstacle> {
        if self.log.synced().is_none() {
            return Err(Obstacle::Unsynced);
        }
        self.report_sync_error(context);
        self.emit_exit(ExitRecord::Syncing, context);
        Ok(())
    }

    /// Continues after the exit was reported: writes an exit record that the full disk has refused
    /// so far, and reports a failed sync.
    pub fn complete_record(&mut self, context: &mut ShimContext) -> Result<(), Obstacle> {
        if self.is_at(ExitRecord::Missing) {
            self.write_exit(context)?;
            self.advance_record(ExitRecord::Written);
        }
        self.report_sync_error(context);
        Ok(())
    }

    /// Asks for a sync of everything, once: no server is connected that could acknowledge the end.
    pub fn sync_end(&mut self, context: &mut ShimContext) {
        if self.is_at(ExitRecord::Written) {
            self.advance_record(ExitRecord::Syncing);
            self.log.sync_all(&mut context.syncer);
        }
    }

    /// Whether the exit was reported and its record is in this state.
    fn is_at(&self, record: ExitRecord) -> bool {
        self.phase
            .reported()
            .is_some_and(|reported| reported.record == record)
    }

    fn advance_record(&mut self, record: ExitRecord) {
        if let Some(reported) = self.phase.reported_mut() {
            reported.record = record;
        }
    }

    fn report_sync_error(&mut self, context: &mut ShimContext) {
        if let Some(Err(e)) = self.log.synced() {
            let what = format!("sync its output: {e}");
            self.report_trouble(what, context);
        }
    }

    fn emit_exit(&mut self, record: ExitRecord, context: &mut ShimContext) {
        let Phase::Ended(ended) = &mut self.phase else {
            return;
        };
        let facts = ended.facts.clone();
        let reusable = facts.survivors.is_empty() && ended.gone;
        ended.step = EndStep::Reported(Reported {
            record,
            reusable,
            acknowledged: false,
        });
        self.emit_flowing(context);
        context.outgoing.push(FromShim::Exited {
            job: self.spec.job,
            attempt: self.spec.attempt,
            facts,
            synced: self.is_durable(),
            reusable,
        });
    }

    /// Whether all segments, exit record included, are on disk.
    pub fn is_durable(&self) -> bool {
        self.is_at(ExitRecord::Syncing) && self.log.synced() == Some(Ok(()))
    }

    /// Whether the exit has been reported (or would have been, with a server connected).
    pub fn is_reported(&self) -> bool {
        self.phase.reported().is_some()
    }

    /// The server's final commit is durable.
    pub fn acknowledge(&mut self) {
        if let Some(reported) = self.phase.reported_mut() {
            reported.acknowledged = true;
        }
    }

    /// Whether the attempt may be forgotten: acknowledged, and no process of it is left.
    pub fn is_over(&self) -> bool {
        self.phase
            .reported()
            .is_some_and(|reported| reported.acknowledged)
            && self.phase.is_gone()
    }

    /// Whether nothing would be lost without this shim: no process, and the end is on disk.
    pub fn is_safe(&self) -> bool {
        self.phase.is_gone() && self.is_durable()
    }

    /// Its job number and attempt number.
    pub fn attempt_id(&self) -> (i64, u32) {
        (self.spec.job, self.spec.attempt)
    }

    /// Whether it is this attempt.
    pub fn is(&self, job: i64, attempt: u32) -> bool {
        (self.spec.job, self.spec.attempt) == (job, attempt)
    }

    /// Whether the exit message has said that the shim takes no more work: processes were still
    /// ours then, as survivors or not yet reaped.
    pub fn retires_shim(&self) -> bool {
        self.phase
            .reported()
            .is_some_and(|reported| !reported.reusable)
    }

    /// Handles a result of the sync thread.
    pub fn on_synced(&mut self, synced: Synced, context: &mut ShimContext) {
        self.log.on_synced(synced);
        self.report_sync_error(context);
    }
}

/// How the program ended, or that it was never started.
fn exit(tree: &TreeEnd) -> Exit {
    let status = tree.status;
    match &tree.program {
        Program::Failed(error) => Exit::SpawnFailed(error.clone()),
        Program::Started { .. } if libc::WIFSIGNALED(status) => {
            Exit::Signal(libc::WTERMSIG(status))
        }
        Program::Started { .. } => Exit::Code(libc::WEXITSTATUS(status)),
    }
}
