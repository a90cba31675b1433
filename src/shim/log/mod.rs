//! The attempt's output as it goes to disk: frames into segments, sealed one after the other. It
//! says why it cannot go on and never waits itself; who reads the pipes is not known here.

mod bound;
mod dropping;
pub(super) mod frame;
mod obstacle;
mod retention;
pub(super) mod space;
pub(super) mod sync;
mod syncing;

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
    sync::Arc,
};

use nix::unistd::{UnlinkatFlags, unlinkat};

pub use obstacle::Obstacle;

use super::process::fork::{self, START_BYTES};
use crate::{
    job::{Dropped, GapReason, Offset, Stream},
    spool::{
        RecordKind, RunSpec, SegmentName, SegmentWriter, dropped_range,
        record::{self, Decoded, HEADER_BYTES, StartPayload},
    },
    sys::disk_reserve::DiskReserve,
};
use bound::Bound;
use frame::FrameBuffer;
use retention::{Retention, line_ends};
use space::SpoolLimits;
use sync::{SyncWork, Syncer};
use syncing::Syncing;

/// How much is written before it is looked again whether the disk is full, bytes.
const CHECK_EVERY_BYTES: u64 = 256 << 10;

/// What the log needs from the shim for a step.
pub struct WriteContext<'a> {
    /// The frame that is being written.
    pub frame: &'a mut FrameBuffer,
    /// Where sealed segments go.
    pub syncer: &'a mut Syncer,
}

/// The segments of one attempt.
#[derive(Debug)]
pub struct AttemptLog {
    spool: Arc<OwnedFd>,
    current: SegmentWriter,
    /// Created, but the current one is not sealed yet.
    next: Option<SegmentWriter>,
    bounds: SpoolLimits,
    reserve: DiskReserve,
    /// What may still be written before it is looked whether the disk is full, bytes.
    unchecked_bytes: u64,
    segment_bytes: u64,
    start_at: u64,
    end: Offset,
    bound: Bound,
    /// Lines that are stored; counted where they are bounded.
    lines: u64,
    /// Where only the first and the newest output is kept.
    retention: Option<Retention>,
    /// What came behind `end` and was not taken any more, and why.
    unstored: Dropped,
    unstored_reason: GapReason,
    syncing: Syncing,
    sealed: Option<Offset>,
}

impl AttemptLog {
    /// Takes the right to start the attempt: creates its first segment. `AlreadyExists` where
    /// somebody else has it. Results of syncs come back under `ticket`.
    pub fn create(
        spool: Arc<OwnedFd>,
        reserve: DiskReserve,
        spec: &RunSpec,
        ticket: u64,
    ) -> io::Result<Self> {
        let name = SegmentName {
            job: spec.job,
            attempt: spec.attempt,
            first_offset: spec.start_offset,
        };
        Ok(Self {
            current: SegmentWriter::create(&spool, name)?,
            spool,
            next: None,
            bounds: SpoolLimits {
                spool_bytes_max: spec.spool_bytes_max,
                free_bytes_min: spec.free_bytes_min,
            },
            reserve,
            unchecked_bytes: CHECK_EVERY_BYTES,
            segment_bytes: spec.segment_bytes,
            start_at: 0,
            end: spec.start_offset,
            bound: Bound::of(spec),
            lines: 0,
            retention: Retention::of(spec),
            unstored: Dropped::default(),
            unstored_reason: GapReason::DropNewest,
            syncing: Syncing::new(ticket),
            sealed: None,
        })
    }

    /// Writes the intent (JSON) and keeps the place of the start record free behind it: zeros,
    /// so that the process need not ask the disk for room. Once done, there is nothing to do.
    pub fn begin(&mut self, intent: &[u8]) -> Result<(), Obstacle> {
        if self.start_at > 0 {
            return Ok(());
        }
        let header = frame::header(RecordKind::Intent, Stream::Stdout, self.end);
        let mut bytes = record::encode(&header, intent);
        bytes.resize(bytes.len() + START_BYTES, 0);
        self.current.begin(&bytes)?;
        self.start_at = self.current.length() - START_BYTES as u64;
        Ok(())
    }

    /// Takes now what dropping will need. Once done, there is nothing to do.
    pub fn prepare(&self) -> Result<(), Obstacle> {
        let SegmentName { job, attempt, .. } = self.current.name();
        if self.retention.is_some() {
            dropped_range::prepare(&self.spool, job, attempt)?;
        }
        Ok(())
    }

    /// The file and the byte in it for the start record.
    pub fn start_position(&self) -> (RawFd, u64) {
        (self.current.file().as_raw_fd(), self.start_at)
    }

    /// The start record at its place and its wall clock, if the child has written one.
    pub fn read_start(&self) -> Option<(StartPayload, i64)> {
        let mut bytes = [0; START_BYTES];
        let file = self.current.file();
        file.read_exact_at(&mut bytes, self.start_at).ok()?;
        match record::decode(&bytes) {
            Decoded::Record(header, payload, _) if header.kind == RecordKind::Start => {
                Some((StartPayload::from_bytes(payload)?, header.wall_us))
            }
            _ => None,
        }
    }

    /// Writes the start record for a child that died before it could.
    pub fn write_start(&mut self, start: StartPayload) -> io::Result<()> {
        let bytes = fork::start_record(self.end, start);
        self.current.file().write_all_at(&bytes, self.start_at)
    }

    /// There is no start record: the next record takes its place, and longer than that place
    /// it is.
    pub fn forget_start(&mut self) {
        self.current.rewind(self.start_at);
    }

    /// Whether there is room for another segment.
    pub fn has_room(&self) -> Result<(), Obstacle> {
        self.has_room_for(0)
    }

    /// Whether `more_bytes` fit below the spool's bound, too.
    fn has_room_for(&self, more_bytes: u64) -> Result<(), Obstacle> {
        let why = space::shortage(&self.spool, &self.bounds, &self.reserve, more_bytes)?;
        why.map_or(Ok(()), |why| Err(Obstacle::Full(why)))
    }

    /// Room that was given up for the ends of attempts is not to be filled with the output of those
    /// that run. Looked at now and then, and before each write once the disk was full.
    fn check_reserve(&mut self) -> Result<(), Obstacle> {
        if self.unchecked_bytes > 0 {
            return Ok(());
        }
        if self.reserve.missing()? > 0
            && let Some(why) = space::disk_shortage(&self.spool, &self.bounds, &self.reserve)?
        {
            return Err(Obstacle::Full(why));
        }
        self.unchecked_bytes = CHECK_EVERY_BYTES;
        Ok(())
    }

    /// Makes the log ready for more output: writes the frame that waits, and begins the next
    /// segment where one is due. `urgent`: whatever the bounds say, as long as the disk takes it.
    pub fn make_ready(
        &mut self,
        context: &mut WriteContext<'_>,
        urgent: bool,
    ) -> Result<(), Obstacle> {
        if !urgent {
            self.check_reserve()?;
        }
        self.write_waiting(context.frame)?;
        if !self.is_full() && self.next.is_none() {
            return Ok(());
        }
        self.continue_syncing(context.syncer, urgent)?;
        match self.next_segment(urgent) {
            Ok(next) => self.roll(next, context.syncer, urgent),
            // The end needs no other file, whatever is short: the last one becomes longer.
            Err(_) if urgent => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// A segment without output is never full, for its successor would have its name.
    fn is_full(&self) -> bool {
        self.current.length() >= self.segment_bytes && self.end > self.current.name().first_offset
    }

    /// Writes the first `length` bytes of the frame's space as output.
    pub fn write(
        &mut self,
        context: &mut WriteContext<'_>,
        stream: Stream,
        length: usize,
    ) -> Result<(), Obstacle> {
        self.drop_oldest_for(context, length);
        context.frame.complete(stream, self.end, length);
        self.write_waiting(context.frame)
    }

    fn write_waiting(&mut self, frame: &mut FrameBuffer) -> Result<(), Obstacle> {
        let bytes = frame.waiting();
        if bytes.is_empty() {
            return Ok(());
        }
        let length = bytes.len() as u64;
        if let Err(error) = self.current.append(bytes) {
            self.unchecked_bytes = 0;
            return Err(error.into());
        }
        self.unchecked_bytes = self.unchecked_bytes.saturating_sub(length);
        self.end += length - HEADER_BYTES as u64;
        if self.bound.counts_lines() {
            self.lines += line_ends(&frame.waiting()[HEADER_BYTES..]);
        }
        frame.clear();
        Ok(())
    }

    fn next_segment(&mut self, urgent: bool) -> Result<SegmentWriter, Obstacle> {
        match self.next.take() {
            Some(next) => Ok(next),
            None => self.create_next(urgent),
        }
    }

    /// Seals the current segment. The next one exists first, so that a reader who sees the seal
    /// finds it.
    fn roll(
        &mut self,
        mut next: SegmentWriter,
        syncer: &mut Syncer,
        urgent: bool,
    ) -> Result<(), Obstacle> {
        let sealed = next.begin(&[]).and_then(|()| self.write_seal());
        if let Err(e) = sealed {
            self.next = Some(next);
            return Err(e.into());
        }
        let old = std::mem::replace(&mut self.current, next);
        // Where segments are dropped nobody needs to hear of each.
        self.sealed = (!self.drops_segments()).then_some(self.end);
        if let Some(retention) = &mut self.retention {
            retention.roll(self.end);
        }
        self.request(syncer, SyncWork::Sync(old.shared_file()), urgent);
        Ok(())
    }

    fn create_next(&self, urgent: bool) -> Result<SegmentWriter, Obstacle> {
        if !urgent {
            // It may become as long as a segment and its last record.
            self.has_room_for(self.segment_bytes + frame::READ_BYTES as u64)?;
        }
        let name = SegmentName {
            first_offset: self.end,
            ..self.current.name()
        };
        Ok(SegmentWriter::create(&self.spool, name)?)
    }

    fn write_seal(&mut self) -> io::Result<()> {
        let header = frame::header(RecordKind::Seal, Stream::Stdout, self.end);
        self.current.append(&record::encode(&header, &[]))
    }

    /// Writes the attempt's last record, and before it, in the same write, what is missing at the
    /// end of its output.
    pub fn write_exit(&mut self, facts: &[u8]) -> Result<(), Obstacle> {
        let mut bytes = self.final_gap_record();
        let header = frame::header(RecordKind::Exit, Stream::Stdout, self.final_end());
        bytes.extend(record::encode(&header, facts));
        self.current.append(&bytes)?;
        if let Some(next) = self.next.take() {
            // It was made for output that found no room. Left behind, it says nothing to anybody.
            let name = next.name().to_string();
            let _ = unlinkat(&self.spool, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        Ok(())
    }

    /// Where the stored output ends, frames that wait aside.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The offset of the last seal, once.
    pub fn take_sealed(&mut self) -> Option<Offset> {
        self.sealed.take()
    }
}
