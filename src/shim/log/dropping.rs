//! Output that the log does not keep: segments that are dropped for newer output, and output after
//! the bound.

use super::{
    AttemptLog, WriteContext,
    frame::{self, FrameBuffer},
    retention::{Retention, Victims, line_ends},
    sync::{SyncWork, Syncer},
};
use crate::{
    job::{Dropped, Gap, GapReason, Offset, Stream},
    shim,
    spool::{
        DroppedRange, RecordKind, SegmentName,
        record::{self, HEADER_BYTES},
    },
};

impl AttemptLog {
    /// Drops the segments that have to go before `length` bytes of the frame's space are written.
    pub(super) fn drop_oldest_for(&mut self, context: &mut WriteContext<'_>, length: usize) {
        let data = context.frame.payload(0..length);
        let Some(retention) = self
            .retention
            .as_mut()
            .filter(|_| !self.syncing.keeps_all())
        else {
            return;
        };
        if let Some(victims) = retention.add(data) {
            self.drop_segments(context.syncer, victims);
        }
    }

    /// Asks the sync thread to unlink the segments; no further segment is begun before that is
    /// done.
    fn drop_segments(&mut self, syncer: &mut Syncer, victims: Victims) {
        let of = self.current.name();
        let names = victims.first_offsets.into_iter();
        let work = SyncWork::Drop {
            victims: names
                .map(|first_offset| SegmentName { first_offset, ..of })
                .collect(),
            dropped_range: victims.dropped_range,
        };
        self.request(syncer, work, false);
    }

    /// It is on disk that those segments are dropped.
    pub(super) fn confirm_drop(&mut self) {
        if let Some(retention) = &mut self.retention {
            retention.confirm();
        }
    }

    pub(super) fn cancel_drop(&mut self) {
        if let Some(retention) = &mut self.retention {
            retention.cancel();
        }
    }

    /// Whether a drop is under way whose result is not known yet.
    pub(super) fn is_dropping(&self) -> bool {
        self.retention.as_ref().is_some_and(Retention::is_pending)
    }

    /// The disk takes no more output: the frame that waits, and what follows, is counted and not
    /// stored.
    pub fn discard_waiting(&mut self, frame: &mut FrameBuffer) {
        if self.unstored == Dropped::default() {
            self.unstored_reason = GapReason::DiskFull;
        }
        let waiting = frame.waiting();
        if waiting.is_empty() {
            return;
        }
        let bytes = &waiting[HEADER_BYTES..];
        count(&mut self.unstored, bytes);
        if let Some(retention) = &mut self.retention {
            retention.remove(bytes);
        }
        frame.clear();
    }

    /// Counts the bytes after the first `kept` of the frame's `length` bytes, without storing them.
    pub fn count_unstored(&mut self, frame: &FrameBuffer, kept: usize, length: usize) {
        count(&mut self.unstored, frame.payload(kept..length));
    }

    /// How many of the first `length` bytes in the frame's space fit below the bound.
    pub fn fitting(&self, frame: &FrameBuffer, length: usize) -> usize {
        let bytes = self.bound.bytes;
        let left = bytes.map_or(u64::MAX, |max| max.saturating_sub(self.final_end()));
        let length = usize::try_from(left).map_or(length, |left| length.min(left));
        let Some(lines) = self.lines_left() else {
            return length;
        };
        let data = frame.payload(0..length);
        let after = |last: u64| memchr::memchr_iter(b'\n', data).nth(last as usize);
        match lines.checked_sub(1) {
            None => 0,
            Some(last) => after(last).map_or(length, |at| at + 1),
        }
    }

    /// Whether the bound is reached.
    pub fn is_at_bound(&self) -> bool {
        let bytes = self.bound.bytes;
        bytes.is_some_and(|max| self.final_end() >= max) || self.lines_left() == Some(0)
    }

    fn lines_left(&self) -> Option<u64> {
        let lines = self.lines + self.unstored.lines;
        Some(self.bound.lines?.saturating_sub(lines))
    }

    /// Whether output was counted and not stored.
    pub fn has_unstored(&self) -> bool {
        self.unstored.bytes > 0
    }

    /// What was dropped so far, at the end of the output included.
    pub fn dropped(&self) -> Dropped {
        let dropped_range = self.retention.as_ref().and_then(Retention::dropped_range);
        let oldest = dropped_range
            .map(|dropped_range| dropped_range.dropped())
            .unwrap_or_default();
        Dropped {
            bytes: oldest.bytes + self.unstored.bytes,
            lines: oldest.lines + self.unstored.lines,
        }
    }

    /// Whether segments were dropped so far, or are about to be.
    pub fn drops_segments(&self) -> bool {
        let retention = self.retention.as_ref();
        retention
            .is_some_and(|retention| retention.dropped_range().is_some() || retention.is_pending())
    }

    /// Where the output ends, including what was not stored.
    pub fn final_end(&self) -> Offset {
        self.end + self.unstored.bytes
    }

    /// The gap record for output that was not stored; empty where all was.
    pub(super) fn final_gap_record(&self) -> Vec<u8> {
        if self.unstored == Dropped::default() {
            return Vec::new();
        }
        let dropped_range = DroppedRange {
            gap: Gap {
                from: self.end,
                to: self.final_end(),
                reason: self.unstored_reason,
            },
            lines: self.unstored.lines,
        };
        let header = frame::header(RecordKind::Gap, Stream::Stdout, self.end);
        record::encode(&header, &shim::json(&dropped_range))
    }
}

fn count(dropped: &mut Dropped, bytes: &[u8]) {
    dropped.bytes += bytes.len() as u64;
    dropped.lines += line_ends(bytes);
}
