//! How an attempt's process comes to be: room, fork, and what the child reports on its way to
//! exec. What runs in the child is `fork`'s business.

use std::time::Instant;

use nix::errno::Errno;

use super::{
    attempt::{Attempt, Phase},
    kit::Kit,
    log::Obstacle,
    plan,
    spawn::{self, Spawned},
    stamp,
    stopwatch::Stopwatch,
    tree,
};
use crate::{job::SpawnError, spool::record::StartPayload};

impl Attempt {
    pub(super) fn open(&mut self, kit: &mut Kit, now: Instant) -> Result<(), Obstacle> {
        self.log.begin(&kit.intent(&self.spec))?;
        self.log.prepare()?;
        self.log.has_room()?;
        match spawn::spawn(&self.spec, self.stdin.wants_pipe(), &self.log, &kit.null) {
            Ok(Spawned {
                pid,
                pipes,
                stdin,
                report,
            }) => {
                self.leader = Some(pid);
                self.gone = false;
                self.pipes = pipes;
                if let Some(stdin) = stdin {
                    self.stdin.attach(stdin);
                }
                self.run_time = Stopwatch::started(now);
                self.silence = Stopwatch::started(now);
                self.phase = Phase::Starting { report };
                // The process has it now; a shim stays small.
                self.spec.env = Vec::new();
            }
            Err(error) => self.never_started(error),
        }
        Ok(())
    }

    /// There is no process and there will be none.
    pub(super) fn never_started(&mut self, error: SpawnError) {
        self.spawn_error = Some(error);
        self.tree_gone();
    }

    /// Looks at what a child between fork and exec has to report; the end of the file without a
    /// report means that its program runs (or that it was killed before).
    pub fn read_report(&mut self, kit: &mut Kit, now: Instant) {
        let Phase::Starting { report } = &self.phase else {
            return;
        };
        let mut bytes = [0; plan::REPORT_BYTES];
        match nix::unistd::read(report, &mut bytes) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(0) => self.started(kit, now),
            read => {
                let length = read.unwrap_or_default();
                self.spawn_error = spawn::read_report(&bytes[..length], &self.spec)
                    .or_else(|| Some(spawn::failed(Errno::EIO, "hear of its exec")));
                if self.log.read_start().is_none() {
                    self.log.forget_start();
                }
                self.phase = Phase::Running;
            }
        }
    }

    fn started(&mut self, kit: &mut Kit, now: Instant) {
        self.phase = Phase::Running;
        let Some(pid) = self.leader else { return };
        let (start, wall_us) = self.log.read_start().unwrap_or_else(|| {
            // It was killed before it could write; a reader needs a record at that place.
            let start_ticks = tree::start_ticks(pid).unwrap_or_default();
            let start = StartPayload { pid, start_ticks };
            if let Err(e) = self.log.write_start(start) {
                self.trouble(format!("write a start record: {e}"), kit);
            }
            (start, stamp::wall_us())
        });
        self.started_at_us = Some(wall_us);
        self.start = Some(start);
        self.tell_start(kit);
        self.catch_up(kit, now);
    }
}
