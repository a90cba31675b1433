//! The way of the output from the pipes into the log, one read and one frame at a time, up to the
//! job's bound; and of the input to stdin. How frames reach the disk is the log's business.

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

/// What a process without a terminal writes to.
const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Attempt {
    /// Reads each of the streams that are `ready` once; the one that was first is last next time.
    pub fn pump(&mut self, ready: &[Stream], kit: &mut ShimContext, now: Instant) {
        for stream in self.order() {
            if !self.flows() || !ready.contains(&stream) {
                continue;
            }
            if let Err(why) = self.read_once(stream, false, kit, now) {
                self.block(why, kit, now);
            }
        }
        self.stderr_first = !self.stderr_first;
        self.tell_growth(kit);
    }

    fn order(&self) -> [Stream; 2] {
        let [first, second] = BOTH;
        if self.stderr_first {
            [second, first]
        } else {
            [first, second]
        }
    }

    /// Stores what was in the pipes when the tree was gone, without waiting for more: whoever
    /// could still write is no longer part of the attempt. On a full disk only a part of the
    /// reserve is for this: ends need the rest.
    pub(super) fn store_the_rest(
        &mut self,
        kit: &mut ShimContext,
        now: Instant,
    ) -> Result<(), Obstacle> {
        if !kit.frame.waiting().is_empty() {
            self.drain_step(None, kit, now)?;
        }
        for stream in self.order().into_iter().cycle() {
            if !BOTH.into_iter().any(|stream| self.pipes.holds(stream)) {
                break;
            }
            if self.pipes.holds(stream) && !self.drain_step(Some(stream), kit, now)? {
                self.pipes.give_up(stream);
            }
        }
        self.tell_growth(kit);
        Ok(())
    }

    /// Writes the frame that waits, then reads a stream once and writes that; whether it brought
    /// bytes.
    fn drain_step(
        &mut self,
        stream: Option<Stream>,
        kit: &mut ShimContext,
        now: Instant,
    ) -> Result<bool, Obstacle> {
        let step = self.with_share(false, kit, |attempt, kit| match stream {
            Some(stream) => attempt.read_once(stream, true, kit, now),
            None => attempt.log.make_ready(&mut kit.desk(), true).map(|()| true),
        });
        let Err(Obstacle::Full(_)) = step else {
            return step;
        };
        if kit.frame.waiting().is_empty() {
            return step;
        }
        // A quota is told by no number: the write has shown it.
        let again = self.with_share(true, kit, |attempt, kit| {
            attempt.log.make_ready(&mut kit.desk(), true)
        });
        if again.is_err() {
            // It was given up for nothing.
            kit.ballast.refill();
        }
        again.map(|()| true)
    }

    fn with_share<T>(
        &mut self,
        failed: bool,
        kit: &mut ShimContext,
        act: impl FnOnce(&mut Self, &mut ShimContext) -> Result<T, Obstacle>,
    ) -> Result<T, Obstacle> {
        if self.discards() {
            return act(self, kit);
        }
        match kit
            .ballast
            .drain_permission(frame::READ_BYTES as u64, failed)?
        {
            DrainPermission::Granted(_permit) => act(self, kit),
            DrainPermission::Refused(why) => Err(Obstacle::Full(why)),
        }
    }

    /// Counts what was in the pipes, and does not store it.
    pub(super) fn forget_the_rest(&mut self, kit: &mut ShimContext, now: Instant) {
        self.log.cut(&mut kit.frame);
        for stream in BOTH {
            while let PipeRead::Bytes(length) = self.pipes.read(stream, kit.frame.space()) {
                let taken = match self.spec.when_full {
                    WhenFull::Fail => self.log.fitting(&kit.frame, length),
                    WhenFull::DropOldest | WhenFull::DropNewest => length,
                };
                self.log.forget(&kit.frame, 0, taken);
                if taken < length {
                    self.limit_reached(kit, now);
                }
            }
        }
        self.tell_growth(kit);
    }

    /// One read of a stream; whether it brought bytes.
    fn read_once(
        &mut self,
        stream: Stream,
        urgent: bool,
        kit: &mut ShimContext,
        now: Instant,
    ) -> Result<bool, Obstacle> {
        if !self.discards() {
            self.log.make_ready(&mut kit.desk(), urgent)?;
        }
        let PipeRead::Bytes(length) = self.pipes.read(stream, kit.frame.space()) else {
            return Ok(false);
        };
        self.silence.reset(now);
        if self.phase.has_ended() {
            return Ok(true);
        }
        let kept = self.log.fitting(&kit.frame, length);
        if kept < length {
            self.over_the_bound(kept, length, kit, now);
        }
        if kept > 0 {
            self.log.write(&mut kit.desk(), stream, kept)?;
        }
        Ok(true)
    }

    /// Of `length` bytes only the first `kept` are stored.
    fn over_the_bound(&mut self, kept: usize, length: usize, kit: &mut ShimContext, now: Instant) {
        match self.spec.when_full {
            WhenFull::DropNewest => self.log.forget(&kit.frame, kept, length),
            WhenFull::Fail | WhenFull::DropOldest => self.limit_reached(kit, now),
        }
    }

    /// Whether what is read is forgotten: at the bound, and behind the end.
    fn discards(&self) -> bool {
        self.phase.has_ended() || self.log.is_at_bound()
    }

    /// Takes an input for stdin, or says why not.
    pub fn input(&mut self, input: Input) -> InputAnswer {
        self.stdin.take(input)
    }

    /// Feeds stdin.
    pub fn feed(&mut self) {
        self.stdin.go_on();
    }

    /// Nobody reads stdin any more.
    pub fn stop_feeding(&mut self) {
        self.stdin.close();
    }
}
