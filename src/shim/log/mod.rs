//! The output of one attempt on disk: frames are written into segments, which are sealed one after
//! the other. When the log cannot go on it returns an [`Obstacle`] and never waits itself.
//! `attempt::flow` reads the pipes.

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

/// How many bytes are written before the free space is checked again.
const CHECK_EVERY_BYTES: u64 = 256 << 10;

/// What the log borrows from the shim for one step.
pub struct WriteContext<'a> {
    /// The frame that is being made or waits to be written.
    pub frame: &'a mut FrameBuffer,
    /// The thread that syncs sealed segments.
    pub syncer: &'a mut Syncer,
}

/// The segments of one attempt.
#[derive(Debug)]
pub struct AttemptLog {
    spool: Arc<OwnedFd>,
    current: SegmentWriter,
    /// The next segment, once it is created; the current one is not sealed yet.
    next: Option<SegmentWriter>,
    bounds: SpoolLimits,
    reserve: DiskReserve,
    /// How many bytes may still be written before the free space is checked.
    unchecked_bytes: u64,
    segment_bytes: u64,
    start_at: u64,
    end: Offset,
    bound: Bound,
    /// Lines that are stored; counted only where a bound on lines exists.
    lines: u64,
    /// Set where only the first and the newest output is kept (`drop_oldest`).
    retention: Option<Retention>,
    /// Output after `end` that was counted and not stored, and why.
    unstored: Dropped,
    unstored_reason: GapReason,
    syncing: Syncing,
    sealed: Option<Offset>,
}

impl AttemptLog {
    /// Takes the right to start the attempt: creates its first segment. `AlreadyExists` where
    /// another process has that right. Results of syncs come back under `ticket`.
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

    /// Writes the intent (JSON) and, after it, zeros in the space of the start record, so that the
    /// child process does not need new disk space. Does nothing when that is done.
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

    /// Reserves the files that dropping will need. Does nothing when that is done.
    pub fn prepare(&self) -> Result<(), Obstacle> {
        let SegmentName { job, attempt, .. } = self.current.name();
        if self.retention.is_some() {
            dropped_range::prepare(&self.spool, job, attempt)?;
        }
        Ok(())
    }

    /// The file of the start record and its position in it, bytes.
    pub fn start_position(&self) -> (RawFd, u64) {
        (self.current.file().as_raw_fd(), self.start_at)
    }

    /// The start record and its wall clock (µs since 1970), if the child has written one.
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

    /// Writes the start record for a child that was killed before it wrote it.
    pub fn write_start(&mut self, start: StartPayload) -> io::Result<()> {
        let bytes = fork::start_record(self.end, start);
        self.current.file().write_all_at(&bytes, self.start_at)
    }

    /// There is no start record: the next record overwrites the space that was kept for it, and is
    /// longer.
    pub fn forget_start(&mut self) {
        self.current.rewind(self.start_at);
    }

    /// Whether there is disk space for another segment.
    pub fn has_room(&self) -> Result<(), Obstacle> {
        self.has_room_for(0)
    }

    /// Whether `more_bytes` more also fit below the limit of the spool.
    fn has_room_for(&self, more_bytes: u64) -> Result<(), Obstacle> {
        let why = space::shortage(&self.spool, &self.bounds, &self.reserve, more_bytes)?;
        why.map_or(Ok(()), |why| Err(Obstacle::Full(why)))
    }

    /// Space that the reserve has released for the ends of attempts must not be filled with the
    /// output of running ones. Checked now and then, and before each write once the disk was full.
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
    /// segment where one is due. `urgent`: ignores the limits, as long as the disk takes the bytes.
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
            // The end of an attempt needs no further segment when space is short: the last one
            // becomes longer.
            Err(_) if urgent => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// A segment without output is never full: its successor would have the same name.
    fn is_full(&self) -> bool {
        self.current.length() >= self.segment_bytes && self.end > self.current.name().first_offset
    }

    /// Writes the first `length` bytes of the frame's space as output. After an error the frame
    /// waits and is written by the next [`Self::make_ready`].
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

    /// Seals the current segment. The next one exists first, so that a reader that sees the seal
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
        // Where segments are dropped, the server needs no message for each one.
        self.sealed = (!self.drops_segments()).then_some(self.end);
        if let Some(retention) = &mut self.retention {
            retention.roll(self.end);
        }
        self.request(syncer, SyncWork::Sync(old.shared_file()), urgent);
        Ok(())
    }

    fn create_next(&self, urgent: bool) -> Result<SegmentWriter, Obstacle> {
        if !urgent {
            // A file may become as long as a segment and one more record.
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

    /// Writes the attempt's last record, and before it, in the same write, the record of the output
    /// that is missing at the end.
    pub fn write_exit(&mut self, facts: &[u8]) -> Result<(), Obstacle> {
        let mut bytes = self.final_gap_record();
        let header = frame::header(RecordKind::Exit, Stream::Stdout, self.final_end());
        bytes.extend(record::encode(&header, facts));
        self.current.append(&bytes)?;
        if let Some(next) = self.next.take() {
            // It was created for output that found no space. A file that stays says nothing to a
            // reader.
            let name = next.name().to_string();
            let _ = unlinkat(&self.spool, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        Ok(())
    }

    /// Where the stored output ends, without a frame that waits.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The offset of the last seal, once; `None` until there is another.
    pub fn take_sealed(&mut self) -> Option<Offset> {
        self.sealed.take()
    }
}
