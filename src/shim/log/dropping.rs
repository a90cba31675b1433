//! What the log does not keep: segments that make way for newer output, and output that comes
//! behind the bound. Which of both a job wants is not decided here.

use super::{
    AttemptLog, WriteContext,
    frame::{self, FrameBuffer},
    retention::{Retention, Victims, line_ends},
    sync::{SyncWork, Syncer},
};
use crate::{
    job::{Dropped, Gap, GapReason, Offset, Stream, WhenFull},
    shim,
    spool::{
        DroppedRange, RecordKind, RunSpec, SegmentName,
        record::{self, HEADER_BYTES},
    },
};

/// The ring of an attempt that keeps its first and its newest output.
pub(super) fn ring(spec: &RunSpec) -> Option<Retention> {
    let bytes_max = spec.output_bytes_max?;
    (spec.when_full == WhenFull::DropOldest).then(|| Retention::new(bytes_max, spec.start_offset))
}

impl AttemptLog {
    /// Drops what has to go before `length` bytes of the frame's space are written.
    pub(super) fn make_way(&mut self, desk: &mut WriteContext<'_>, length: usize) {
        let data = desk.frame.payload(0..length);
        let Some(ring) = self.ring.as_mut().filter(|_| !self.syncing.keeps_all()) else {
            return;
        };
        if let Some(victims) = ring.take_in(data) {
            self.drop_segments(desk.syncer, victims);
        }
    }

    /// The sync thread does it; no further segment is begun before it is done.
    fn drop_segments(&mut self, syncer: &mut Syncer, victims: Victims) {
        let of = self.current.name();
        let names = victims.first_offsets.into_iter();
        let work = SyncWork::Drop {
            victims: names
                .map(|first_offset| SegmentName { first_offset, ..of })
                .collect(),
            hole: victims.hole,
        };
        self.request(syncer, work, false);
    }

    /// It is on disk that those segments are gone.
    pub(super) fn confirm_drop(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.confirm();
        }
    }

    pub(super) fn keep_what_was_to_go(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.take_back();
        }
    }

    /// Whether it is not known yet whether segments have gone.
    pub(super) fn is_dropping(&self) -> bool {
        self.ring.as_ref().is_some_and(Retention::is_leaving)
    }

    /// No output has room any more: the frame that waits, and what follows, is counted and not
    /// stored.
    pub fn cut(&mut self, frame: &mut FrameBuffer) {
        if self.forgotten == Dropped::default() {
            self.forgotten_for = GapReason::DiskFull;
        }
        let waiting = frame.waiting();
        if waiting.is_empty() {
            return;
        }
        let bytes = &waiting[HEADER_BYTES..];
        count(&mut self.forgotten, bytes);
        if let Some(ring) = &mut self.ring {
            ring.take_out(bytes);
        }
        frame.clear();
    }

    /// Counts what is behind the first `kept` of the frame's `length` bytes, and does not store it.
    pub fn forget(&mut self, frame: &FrameBuffer, kept: usize, length: usize) {
        count(&mut self.forgotten, frame.payload(kept..length));
    }

    /// Whether output was counted that is not stored.
    pub fn has_forgotten(&self) -> bool {
        self.forgotten.bytes > 0
    }

    /// What was dropped so far.
    pub fn dropped(&self) -> Dropped {
        let hole = self.ring.as_ref().and_then(Retention::hole);
        let oldest = hole.map(|hole| hole.dropped()).unwrap_or_default();
        Dropped {
            bytes: oldest.bytes + self.forgotten.bytes,
            lines: oldest.lines + self.forgotten.lines,
        }
    }

    /// Whether segments were dropped so far, or are about to be.
    pub fn has_hole(&self) -> bool {
        let ring = self.ring.as_ref();
        ring.is_some_and(|ring| ring.hole().is_some() || ring.is_leaving())
    }

    /// Where the output ends, with what came behind its bound.
    pub fn final_end(&self) -> Offset {
        self.end + self.forgotten.bytes
    }

    /// The record of what came behind the bound, if anything did.
    pub(super) fn last_hole(&self) -> Vec<u8> {
        if self.forgotten == Dropped::default() {
            return Vec::new();
        }
        let hole = DroppedRange {
            gap: Gap {
                from: self.end,
                to: self.final_end(),
                reason: self.forgotten_for,
            },
            lines: self.forgotten.lines,
        };
        let header = frame::header(RecordKind::Gap, Stream::Stdout, self.end);
        record::encode(&header, &shim::json(&hole))
    }
}

fn count(dropped: &mut Dropped, bytes: &[u8]) {
    dropped.bytes += bytes.len() as u64;
    dropped.lines += line_ends(bytes);
}
