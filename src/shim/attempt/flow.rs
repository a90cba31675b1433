//! Moves output from the pipes into the log, one read and one frame at a time, up to the job's
//! bound; and input to stdin. `log` writes the frames to disk.

use std::time::Instant;

use super::Attempt;
use crate::{
    job::{Input, InputAnswer, Stream, WhenFull},
    shim::{
        context::ShimContext,
        log::{Obstacle, frame},
        process::pipes::PipeRead,
    },
    sys::disk_reserve::DrainPermission,
};

/// The streams of a process without a terminal.
const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Attempt {
    /// Reads each of the streams that are `ready` once; the one that was first is last next time.
    pub fn read_ready(&mut self, ready: &[Stream], context: &mut ShimContext, now: Instant) {
        for stream in self.order() {
            if !self.reads_output() || !ready.contains(&stream) {
                continue;
            }
            if let Err(why) = self.read_once(stream, false, context, now) {
                self.block(why, context, now);
            }
        }
        self.stderr_first = !self.stderr_first;
        self.emit_growth(context);
    }

    fn order(&self) -> [Stream; 2] {
        let [first, second] = BOTH;
        if self.stderr_first {
            [second, first]
        } else {
            [first, second]
        }
    }

    /// Stores what was in the pipes when the tree was gone, without waiting for more: a process
    /// that can still write is no longer part of the attempt. On a full disk only a part of the
    /// disk reserve is for this: the ends of attempts need the rest.
    pub(super) fn store_rest(
        &mut self,
        context: &mut ShimContext,
        now: Instant,
    ) -> Result<(), Obstacle> {
        if !context.frame.waiting().is_empty() {
            self.drain_step(None, context, now)?;
        }
        for stream in self.order().into_iter().cycle() {
            if !BOTH.into_iter().any(|stream| self.pipes.has_unread(stream)) {
                break;
            }
            if self.pipes.has_unread(stream) && !self.drain_step(Some(stream), context, now)? {
                self.pipes.mark_drained(stream);
            }
        }
        self.emit_growth(context);
        Ok(())
    }

    /// Writes the frame that waits, then reads a stream once and writes that; returns whether the
    /// read brought bytes.
    fn drain_step(
        &mut self,
        stream: Option<Stream>,
        context: &mut ShimContext,
        now: Instant,
    ) -> Result<bool, Obstacle> {
        let step = self.with_drain_share(false, context, |attempt, context| match stream {
            Some(stream) => attempt.read_once(stream, true, context, now),
            None => attempt
                .log
                .make_ready(&mut context.write_context(), true)
                .map(|()| true),
        });
        let Err(Obstacle::Full(_)) = step else {
            return step;
        };
        if context.frame.waiting().is_empty() {
            return step;
        }
        // `statvfs` does not show a quota: only the failed write does.
        let again = self.with_drain_share(true, context, |attempt, context| {
            attempt.log.make_ready(&mut context.write_context(), true)
        });
        if again.is_err() {
            // The space was released in vain.
            context.reserve.refill();
        }
        again.map(|()| true)
    }

    fn with_drain_share<T>(
        &mut self,
        failed: bool,
        context: &mut ShimContext,
        act: impl FnOnce(&mut Self, &mut ShimContext) -> Result<T, Obstacle>,
    ) -> Result<T, Obstacle> {
        if self.discards() {
            return act(self, context);
        }
        match context
            .reserve
            .drain_permission(frame::READ_BYTES as u64, failed)?
        {
            DrainPermission::Granted(_permit) => act(self, context),
            DrainPermission::Refused(why) => Err(Obstacle::Full(why)),
        }
    }

    /// Counts what was in the pipes, without storing it.
    pub(super) fn count_the_rest(&mut self, context: &mut ShimContext, now: Instant) {
        self.log.discard_waiting(&mut context.frame);
        for stream in BOTH {
            while let PipeRead::Bytes(length) = self.pipes.read(stream, context.frame.space()) {
                let taken = match self.spec.when_full {
                    WhenFull::Fail => self.log.fitting(&context.frame, length),
                    WhenFull::DropOldest | WhenFull::DropNewest => length,
                };
                self.log.count_unstored(&context.frame, 0, taken);
                if taken < length {
                    self.limit_reached(context, now);
                }
            }
        }
        self.emit_growth(context);
    }

    /// Reads a stream once; returns whether that brought bytes.
    fn read_once(
        &mut self,
        stream: Stream,
        urgent: bool,
        context: &mut ShimContext,
        now: Instant,
    ) -> Result<bool, Obstacle> {
        if !self.discards() {
            self.log.make_ready(&mut context.write_context(), urgent)?;
        }
        let PipeRead::Bytes(length) = self.pipes.read(stream, context.frame.space()) else {
            return Ok(false);
        };
        self.silence.reset(now);
        if self.phase.has_ended() {
            return Ok(true);
        }
        let kept = self.log.fitting(&context.frame, length);
        if kept < length {
            self.on_over_bound(kept, length, context, now);
        }
        if kept > 0 {
            self.log.write(&mut context.write_context(), stream, kept)?;
        }
        Ok(true)
    }

    /// Handles output over the bound: of `length` bytes only the first `kept` are stored.
    fn on_over_bound(
        &mut self,
        kept: usize,
        length: usize,
        context: &mut ShimContext,
        now: Instant,
    ) {
        match self.spec.when_full {
            WhenFull::DropNewest => self.log.count_unstored(&context.frame, kept, length),
            WhenFull::Fail | WhenFull::DropOldest => self.limit_reached(context, now),
        }
    }

    /// Whether what is read is not stored: at the bound, and after the end.
    fn discards(&self) -> bool {
        self.phase.has_ended() || self.log.is_at_bound()
    }

    /// Takes an input for stdin, or returns why not.
    pub fn input(&mut self, input: Input) -> InputAnswer {
        self.stdin.take(input)
    }

    /// Writes what the stdin pipe accepts.
    pub fn feed(&mut self) {
        self.stdin.flush();
    }

    /// The last reader of stdin is gone.
    pub fn stop_feeding(&mut self) {
        self.stdin.close();
    }
}
