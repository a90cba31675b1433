//! What the log does not keep: segments that make way for newer output, and output that comes
//! behind the bound. Which of both a job wants is not decided here.

use super::{Desk, Log};
use crate::{
    job::{Dropped, Gap, GapReason, Offset, Stream, WhenFull},
    shim::{
        self,
        frame::{self, Frame},
        ring::{Ring, Victims, line_ends},
        sync::{Syncer, Work},
    },
    spool::{Hole, Kind, RunSpec, SegmentName, record},
};

/// The ring of an attempt that keeps its first and its newest output.
pub(super) fn ring(spec: &RunSpec) -> Option<Ring> {
    let bytes_max = spec.output_bytes_max?;
    (spec.when_full == WhenFull::DropOldest).then(|| Ring::new(bytes_max, spec.start_offset))
}

impl Log {
    /// Drops what has to go before `length` bytes of the frame's space are written.
    pub(super) fn make_way(&mut self, desk: &mut Desk<'_>, length: usize) {
        let data = desk.frame.payload(0..length);
        let victims = self.ring.as_mut().and_then(|ring| ring.take_in(data));
        if let Some(victims) = victims {
            self.drop_segments(desk.syncer, victims);
        }
    }

    /// The sync thread does it; no further segment is begun before it is done.
    fn drop_segments(&mut self, syncer: &mut Syncer, victims: Victims) {
        let of = self.current.name();
        let names = victims.first_offsets.into_iter();
        let work = Work::Drop {
            victims: names
                .map(|first_offset| SegmentName { first_offset, ..of })
                .collect(),
            hole: victims.hole,
        };
        self.request(syncer, work);
    }

    /// Counts what is behind the first `kept` of the frame's `length` bytes, and does not store it.
    pub fn forget(&mut self, frame: &Frame, kept: usize, length: usize) {
        let bytes = frame.payload(kept..length);
        self.forgotten.bytes += bytes.len() as u64;
        self.forgotten.lines += line_ends(bytes);
    }

    /// What was dropped so far.
    pub fn dropped(&self) -> Dropped {
        let hole = self.ring.as_ref().and_then(Ring::hole);
        hole.map_or(self.forgotten, |hole| hole.dropped())
    }

    /// Whether segments were dropped so far, or are about to be.
    pub fn has_hole(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.hole().is_some())
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
        let hole = Hole {
            gap: Gap {
                from: self.end,
                to: self.final_end(),
                reason: GapReason::DropNewest,
            },
            lines: self.forgotten.lines,
        };
        let header = frame::header(Kind::Gap, Stream::Stdout, self.end);
        record::encode(&header, &shim::json(&hole))
    }
}
