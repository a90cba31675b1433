//! Which segments are kept under `drop_oldest`: the first one and the newest. This file only
//! counts; `sync` unlinks the segments.

use std::collections::VecDeque;

use crate::{
    job::{Gap, GapReason, Offset, WhenFull},
    spool::{DroppedRange, RunSpec, record::HEADER_BYTES},
};

/// How many times the bound the files may take, because of the headers of records: a process that
/// writes byte by byte adds 40 bytes to each.
const FILES_FACTOR: u64 = 2;

/// What a segment, or several, hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SegmentContent {
    bytes: u64,
    /// Bytes in the file, with the headers of records.
    file_bytes: u64,
    lines: u64,
}

impl SegmentContent {
    /// What a record with these bytes takes.
    fn of(data: &[u8]) -> Self {
        Self {
            bytes: data.len() as u64,
            file_bytes: (HEADER_BYTES + data.len()) as u64,
            lines: line_ends(data),
        }
    }

    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.file_bytes += other.file_bytes;
        self.lines += other.lines;
    }

    fn take(&mut self, other: Self) {
        self.bytes -= other.bytes;
        self.file_bytes -= other.file_bytes;
        self.lines -= other.lines;
    }
}

/// Segments to drop, and the range that is missing then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victims {
    /// The first offsets of the segments, in order.
    pub first_offsets: Vec<Offset>,
    /// Everything that has been dropped then, these segments included.
    pub dropped_range: DroppedRange,
}

/// How much output is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keep {
    /// Up to this many bytes; `None`: no bound on bytes.
    pub bytes_max: Option<u64>,
    /// Segments are dropped as long as at least this many lines are kept; `None`: no such rule.
    pub lines_min: Option<u64>,
}

impl Keep {
    /// Whether `oldest` must be dropped out of `kept`, the last `more` of which is not written yet.
    fn must_drop(
        &self,
        kept: SegmentContent,
        more: SegmentContent,
        oldest: SegmentContent,
    ) -> bool {
        let has_bytes = self.bytes_max.is_some_and(|max| {
            kept.bytes > max || kept.file_bytes > max.saturating_mul(FILES_FACTOR)
        });
        let written = kept.lines - more.lines;
        has_bytes
            || self
                .lines_min
                .is_some_and(|min| written - oldest.lines >= min)
    }
}

/// The segments of an attempt that keeps its first and its newest output.
#[derive(Debug)]
pub struct Retention {
    keep: Keep,
    /// All that is kept, with the current segment.
    kept: SegmentContent,
    /// Where the current segment begins, and what it holds.
    current: (Offset, SegmentContent),
    first_is_sealed: bool,
    /// Sealed segments after the first, oldest first: these may be dropped.
    sealed: VecDeque<(Offset, SegmentContent)>,
    /// The range whose drop is confirmed.
    dropped_range: Option<DroppedRange>,
    pending: Option<PendingDrop>,
}

/// Segments whose drop is requested and not yet confirmed or cancelled.
#[derive(Debug)]
struct PendingDrop {
    segments: Vec<(Offset, SegmentContent)>,
    /// The dropped range once they are gone.
    dropped_range: DroppedRange,
}

impl Retention {
    /// The retention of an attempt with `drop_oldest` and a bound; `None` for others.
    pub fn of(spec: &RunSpec) -> Option<Self> {
        let keep = Keep {
            bytes_max: spec.output_bytes_max,
            lines_min: spec.output_lines_max,
        };
        let is_bound = keep.bytes_max.is_some() || keep.lines_min.is_some();
        let drops_oldest = spec.when_full == WhenFull::DropOldest;
        (drops_oldest && is_bound).then(|| Self::new(keep, spec.start_offset))
    }

    /// Retention of output that begins at the offset `start`.
    pub fn new(keep: Keep, start: Offset) -> Self {
        Self {
            keep,
            kept: SegmentContent::default(),
            current: (start, SegmentContent::default()),
            first_is_sealed: false,
            sealed: VecDeque::new(),
            dropped_range: None,
            pending: None,
        }
    }

    /// Counts bytes that are about to be written into the current segment, and returns the segments
    /// that must be dropped for them: none while an earlier drop is unconfirmed. The bytes do not wait for
    /// the drop; the next segment does.
    pub fn add(&mut self, data: &[u8]) -> Option<Victims> {
        let more = SegmentContent::of(data);
        self.kept.add(more);
        self.current.1.add(more);
        match self.pending {
            None => self.make_room(more),
            Some(_) => None,
        }
    }

    /// Takes back the count of bytes that were not written.
    pub fn remove(&mut self, data: &[u8]) {
        let less = SegmentContent::of(data);
        self.kept.take(less);
        self.current.1.take(less);
    }

    fn make_room(&mut self, more: SegmentContent) -> Option<Victims> {
        let mut segments = Vec::new();
        let mut dropped_range = self.dropped_range;
        while let Some(&(first_offset, content)) = self.sealed.front()
            && self.keep.must_drop(self.kept, more, content)
        {
            self.sealed.pop_front();
            self.kept.take(content);
            extend(&mut dropped_range, first_offset, content);
            segments.push((first_offset, content));
        }
        let dropped_range = dropped_range.filter(|_| !segments.is_empty())?;
        let first_offsets = segments.iter().map(|(first, _)| *first).collect();
        self.pending = Some(PendingDrop {
            segments,
            dropped_range,
        });
        Some(Victims {
            first_offsets,
            dropped_range,
        })
    }

    /// The pending drop is done.
    pub fn confirm(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.dropped_range = Some(pending.dropped_range);
        }
    }

    /// The pending drop is cancelled: its segments are kept.
    pub fn cancel(&mut self) {
        for (first_offset, content) in self
            .pending
            .take()
            .into_iter()
            .flat_map(|drop| drop.segments)
            .rev()
        {
            self.kept.add(content);
            self.sealed.push_front((first_offset, content));
        }
    }

    /// Whether a drop is pending.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The current segment is sealed; the next one begins at `end`.
    pub fn roll(&mut self, end: Offset) {
        let sealed = std::mem::replace(&mut self.current, (end, SegmentContent::default()));
        if std::mem::replace(&mut self.first_is_sealed, true) {
            self.sealed.push_back(sealed);
        }
    }

    /// The range that is dropped for certain.
    pub fn dropped_range(&self) -> Option<DroppedRange> {
        self.dropped_range
    }
}

fn extend(dropped_range: &mut Option<DroppedRange>, from: Offset, content: SegmentContent) {
    let dropped_range = dropped_range.get_or_insert(DroppedRange {
        gap: Gap {
            from,
            to: from,
            reason: GapReason::DropOldest,
        },
        lines: 0,
    });
    dropped_range.gap.to += content.bytes;
    dropped_range.lines += content.lines;
}

/// The number of line ends (0x0A) in `data`.
pub fn line_ends(data: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', data).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(max: u64) -> Keep {
        Keep {
            bytes_max: Some(max),
            lines_min: None,
        }
    }

    /// Writes segments of one line each, of that many bytes, and returns the first offsets of the
    /// dropped ones.
    fn run(retention: &mut Retention, segments: u64, bytes: usize) -> Vec<Offset> {
        let mut line = vec![b'x'; bytes - 1];
        line.push(b'\n');
        let mut gone = Vec::new();
        for _ in 0..segments {
            let victims = retention.add(&line);
            gone.extend(victims.into_iter().flat_map(|v| v.first_offsets));
            retention.confirm();
            retention.roll(retention.current.0 + bytes as u64);
        }
        gone
    }

    #[test]
    fn up_to_the_bound_nothing_goes() {
        let mut retention = Retention::new(bytes(1000), 0);
        assert!(run(&mut retention, 10, 100).is_empty());
        assert_eq!(retention.dropped_range(), None);
    }

    #[test]
    fn the_first_stays_and_the_oldest_behind_it_go() {
        let mut retention = Retention::new(bytes(1000), 7);
        assert_eq!(run(&mut retention, 13, 100), [107, 207, 307]);
        let dropped_range = retention.dropped_range().expect("a dropped range");
        assert_eq!(
            (
                dropped_range.gap.from,
                dropped_range.gap.to,
                dropped_range.lines
            ),
            (107, 407, 3)
        );
        assert_eq!(retention.kept.bytes, 1000);
    }

    #[test]
    fn headers_may_take_as_much_again_and_no_more() {
        let mut retention = Retention::new(bytes(1000), 0);
        let gone = run(&mut retention, 100, 1);
        assert_eq!(gone.len() as u64, 100 - 2000 / 41);
        assert!(retention.kept.file_bytes <= 2000);
    }

    #[test]
    fn until_one_is_gone_no_other_goes_and_nothing_counts() {
        let mut retention = Retention::new(bytes(1000), 0);
        assert!(run(&mut retention, 10, 100).is_empty());
        let line = [b'\n'; 100];
        let victims = retention.add(&line).expect("one has to go");
        assert_eq!(victims.first_offsets, [100]);
        assert_eq!(
            (retention.add(&line), retention.dropped_range()),
            (None, None)
        );
        retention.remove(&line);
        retention.cancel();
        assert_eq!(
            (retention.dropped_range(), retention.kept.bytes),
            (None, 1100)
        );
        let again = retention.add(&[]).expect("it has to go after all");
        assert_eq!(again, victims);
        retention.confirm();
        assert_eq!(retention.dropped_range(), Some(victims.dropped_range));
        retention.cancel();
        assert_eq!(
            (retention.dropped_range(), retention.kept.bytes),
            (Some(victims.dropped_range), 1000)
        );
    }

    #[test]
    fn what_is_being_written_never_goes() {
        let mut retention = Retention::new(bytes(10), 0);
        for _ in 0..5 {
            assert_eq!(retention.add(&[0; 100]), None);
        }
    }

    #[test]
    fn segments_go_as_long_as_enough_lines_stay() {
        let keep = Keep {
            bytes_max: None,
            lines_min: Some(5),
        };
        let mut retention = Retention::new(keep, 0);
        // Of one line each: the seventh goes into a segment that is not sealed.
        assert_eq!(run(&mut retention, 6, 100), Vec::<Offset>::new());
        assert_eq!(run(&mut retention, 1, 100), [100]);
        assert_eq!(run(&mut retention, 3, 100), [200, 300, 400]);
        assert_eq!(retention.kept.lines, 6);
        assert_eq!(retention.dropped_range().expect("a dropped range").lines, 4);
        // What is being written counts only when it is.
        assert_eq!(
            retention.add(&[b'x'; 50]).map(|v| v.first_offsets),
            Some(vec![500])
        );
    }

    #[test]
    fn what_does_not_fit_goes_although_too_few_lines_stay() {
        let keep = Keep {
            bytes_max: Some(300),
            lines_min: Some(1000),
        };
        let mut retention = Retention::new(keep, 0);
        assert_eq!(run(&mut retention, 5, 100), [100, 200]);
    }
}
