//! Moves output from the pipes into the log, one read and one frame at a time, up to the job's
//! bound; and input to stdin. `redaction` masks secrets on the way, `log` writes the frames to disk.

use std::time::Instant;

use super::Attempt;
use crate::{
    job::{Input, InputAnswer, Stream, WhenFull},
    shim::{
        context::ShimContext,
        log::{Obstacle, frame},
        process::pipes::PipeRead,
        timestamps,
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
            let mut read = self.read_once(stream, false, context, now);
            while read.is_ok() && self.has_released(stream) {
                read = self.read_once(stream, false, context, now);
            }
            if let Err(why) = read {
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
        self.drain_streams(context, now)?;
        if let Some(redaction) = &mut self.redaction {
            // The processes are gone, so nothing follows.
            BOTH.into_iter().for_each(|stream| redaction.finish(stream));
            self.drain_streams(context, now)?;
        }
        self.emit_growth(context);
        Ok(())
    }

    fn drain_streams(&mut self, context: &mut ShimContext, now: Instant) -> Result<(), Obstacle> {
        for stream in self.order().into_iter().cycle() {
            if !BOTH.into_iter().any(|stream| self.has_rest(stream)) {
                break;
            }
            if self.has_rest(stream) && !self.drain_step(Some(stream), context, now)? {
                self.pipes.mark_drained(stream);
            }
        }
        Ok(())
    }

    /// Whether bytes of a stream are in its pipe, before the marked end, or on their way to the log.
    fn has_rest(&self, stream: Stream) -> bool {
        self.pipes.has_unread(stream) || self.has_released(stream)
    }

    /// Whether bytes are on their way from the masks to the log.
    fn has_released(&self, stream: Stream) -> bool {
        let redaction = self.redaction.as_ref();
        redaction.is_some_and(|redaction| redaction.has_released(stream))
    }

    /// Writes what the masks have released and the log could not take before.
    pub(super) fn write_released(
        &mut self,
        context: &mut ShimContext,
        now: Instant,
    ) -> Result<(), Obstacle> {
        for stream in BOTH {
            while self.has_released(stream) {
                self.read_once(stream, false, context, now)?;
            }
        }
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
            if let Some(redaction) = &mut self.redaction {
                redaction.finish(stream);
            }
            while let PipeRead::Bytes(length) = self.read_or_take(stream, context) {
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

    /// Reads a stream, or takes what was read of it before; masks stay out of this.
    fn read_or_take(&mut self, stream: Stream, context: &mut ShimContext) -> PipeRead {
        let into = context.frame.space();
        let redaction = self.redaction.as_mut();
        match redaction.map_or(0, |redaction| redaction.take(stream, into)) {
            0 => self.pipes.read(stream, into),
            taken => PipeRead::Bytes(taken),
        }
    }

    /// Reads a stream once, or takes what its masks have released, into the frame's space; at most one frame.
    /// Masked bytes may come from earlier reads, and none may come from this one: `Bytes(0)`.
    fn read_masked(&mut self, stream: Stream, context: &mut ShimContext, now: Instant) -> PipeRead {
        let Some(redaction) = &mut self.redaction else {
            return self.pipes.read(stream, context.frame.space());
        };
        if !redaction.has_released(stream) {
            match self.pipes.read(stream, context.frame.space()) {
                PipeRead::Bytes(length) => {
                    self.silence.reset(now);
                    self.last_sign_us = Some(timestamps::now().1);
                    redaction.push(stream, context.frame.payload(0..length));
                }
                PipeRead::Nothing => return PipeRead::Nothing,
                PipeRead::Ended => {
                    redaction.finish(stream);
                    if !redaction.has_released(stream) {
                        return PipeRead::Ended;
                    }
                }
            }
        }
        PipeRead::Bytes(redaction.take(stream, context.frame.space()))
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
        let PipeRead::Bytes(length) = self.read_masked(stream, context, now) else {
            return Ok(false);
        };
        if length == 0 {
            return Ok(true);
        }
        self.silence.reset(now);
        self.gave_sign();
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
        let is_repeated = self.stdin.has_taken(&input);
        let answer = self.stdin.take(input);
        if !is_repeated && matches!(answer, InputAnswer::Accepted { .. }) {
            self.gave_sign();
        }
        answer
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
