//! Which segments stay where only so much output may be kept: the first one and the newest.
//! Counting and nothing else; files, and when they go, are the log's business.

use std::collections::VecDeque;

use crate::{
    job::{Gap, GapReason, Offset},
    spool::{DroppedRange, record::HEADER_BYTES},
};

/// How many times the bound the files may take, for the headers of their records: a process that
/// writes byte by byte makes forty of each.
const FILES_FACTOR: u64 = 2;

/// What a segment holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SegmentContent {
    bytes: u64,
    /// Headers included.
    file_bytes: u64,
    lines: u64,
}

impl SegmentContent {
    /// What a record of these bytes takes.
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

/// Segments that go, and the hole that they leave with all that went before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victims {
    /// Their first offsets, in order.
    pub first_offsets: Vec<Offset>,
    /// Everything that has been dropped then.
    pub hole: DroppedRange,
}

/// The segments of an attempt that keeps its first and its newest output.
#[derive(Debug)]
pub struct Retention {
    bytes_max: u64,
    /// All that is kept, the current segment included.
    kept: SegmentContent,
    /// The current segment, and where it begins.
    current: (Offset, SegmentContent),
    first_is_sealed: bool,
    /// Sealed ones behind the first, oldest first: what may go.
    sealed: VecDeque<(Offset, SegmentContent)>,
    /// What is gone for certain.
    hole: Option<DroppedRange>,
    leaving: Option<Leaving>,
}

/// Segments that are to go, until it is known whether they have.
#[derive(Debug)]
struct Leaving {
    segments: Vec<(Offset, SegmentContent)>,
    /// Everything that is gone then.
    hole: DroppedRange,
}

impl Retention {
    /// Keeps at most `bytes_max` bytes of output that begins at `start`.
    pub fn new(bytes_max: u64, start: Offset) -> Self {
        Self {
            bytes_max,
            kept: SegmentContent::default(),
            current: (start, SegmentContent::default()),
            first_is_sealed: false,
            sealed: VecDeque::new(),
            hole: None,
            leaving: None,
        }
    }

    /// These bytes are to be written into the current segment: what has to go first. Nothing, as
    /// long as it is not known whether the ones before have gone.
    pub fn take_in(&mut self, data: &[u8]) -> Option<Victims> {
        let more = SegmentContent::of(data);
        self.kept.add(more);
        self.current.1.add(more);
        match self.leaving {
            None => self.make_room(),
            Some(_) => None,
        }
    }

    /// These bytes were not written after all.
    pub fn take_out(&mut self, data: &[u8]) {
        let less = SegmentContent::of(data);
        self.kept.take(less);
        self.current.1.take(less);
    }

    fn make_room(&mut self) -> Option<Victims> {
        let mut segments = Vec::new();
        let mut hole = self.hole;
        while self.is_over()
            && let Some((first_offset, held)) = self.sealed.pop_front()
        {
            self.kept.take(held);
            widen(&mut hole, first_offset, held);
            segments.push((first_offset, held));
        }
        let hole = hole.filter(|_| !segments.is_empty())?;
        let first_offsets = segments.iter().map(|(first, _)| *first).collect();
        self.leaving = Some(Leaving { segments, hole });
        Some(Victims {
            first_offsets,
            hole,
        })
    }

    /// What was to go is gone.
    pub fn confirm(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            self.hole = Some(leaving.hole);
        }
    }

    /// What was to go stays.
    pub fn take_back(&mut self) {
        for (first_offset, held) in self
            .leaving
            .take()
            .into_iter()
            .flat_map(|l| l.segments)
            .rev()
        {
            self.kept.add(held);
            self.sealed.push_front((first_offset, held));
        }
    }

    /// Whether it is not known yet whether segments have gone.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    fn is_over(&self) -> bool {
        self.kept.bytes > self.bytes_max
            || self.kept.file_bytes > self.bytes_max.saturating_mul(FILES_FACTOR)
    }

    /// The current segment has been sealed; the next one begins at `end`.
    pub fn roll(&mut self, end: Offset) {
        let sealed = std::mem::replace(&mut self.current, (end, SegmentContent::default()));
        if std::mem::replace(&mut self.first_is_sealed, true) {
            self.sealed.push_back(sealed);
        }
    }

    /// What is gone so far, for certain.
    pub fn hole(&self) -> Option<DroppedRange> {
        self.hole
    }
}

fn widen(hole: &mut Option<DroppedRange>, from: Offset, held: SegmentContent) {
    let hole = hole.get_or_insert(DroppedRange {
        gap: Gap {
            from,
            to: from,
            reason: GapReason::DropOldest,
        },
        lines: 0,
    });
    hole.gap.to += held.bytes;
    hole.lines += held.lines;
}

/// How many line ends there are in `data`.
pub fn line_ends(data: &[u8]) -> u64 {
    data.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes segments of one line each, of that many bytes, and returns the first offsets of
    /// those that went.
    fn run(ring: &mut Retention, segments: u64, bytes: usize) -> Vec<Offset> {
        let mut line = vec![b'x'; bytes - 1];
        line.push(b'\n');
        let mut gone = Vec::new();
        for _ in 0..segments {
            let victims = ring.take_in(&line);
            gone.extend(victims.into_iter().flat_map(|v| v.first_offsets));
            ring.confirm();
            ring.roll(ring.current.0 + bytes as u64);
        }
        gone
    }

    #[test]
    fn up_to_the_bound_nothing_goes() {
        let mut ring = Retention::new(1000, 0);
        assert!(run(&mut ring, 10, 100).is_empty());
        assert_eq!(ring.hole(), None);
    }

    #[test]
    fn the_first_stays_and_the_oldest_behind_it_go() {
        let mut ring = Retention::new(1000, 7);
        assert_eq!(run(&mut ring, 13, 100), [107, 207, 307]);
        let hole = ring.hole().expect("a hole");
        assert_eq!((hole.gap.from, hole.gap.to, hole.lines), (107, 407, 3));
        assert_eq!(ring.kept.bytes, 1000);
    }

    #[test]
    fn headers_may_take_as_much_again_and_no_more() {
        let mut ring = Retention::new(1000, 0);
        let gone = run(&mut ring, 100, 1);
        assert_eq!(gone.len() as u64, 100 - 2000 / 41);
        assert!(ring.kept.file_bytes <= 2000);
    }

    #[test]
    fn until_one_is_gone_no_other_goes_and_nothing_counts() {
        let mut ring = Retention::new(1000, 0);
        assert!(run(&mut ring, 10, 100).is_empty());
        let line = [b'\n'; 100];
        let victims = ring.take_in(&line).expect("one has to go");
        assert_eq!(victims.first_offsets, [100]);
        assert_eq!((ring.take_in(&line), ring.hole()), (None, None));
        ring.take_out(&line);
        ring.take_back();
        assert_eq!((ring.hole(), ring.kept.bytes), (None, 1100));
        let again = ring.take_in(&[]).expect("it has to go after all");
        assert_eq!(again, victims);
        ring.confirm();
        assert_eq!(ring.hole(), Some(victims.hole));
        ring.take_back();
        assert_eq!((ring.hole(), ring.kept.bytes), (Some(victims.hole), 1000));
    }

    #[test]
    fn what_is_being_written_never_goes() {
        let mut ring = Retention::new(10, 0);
        for _ in 0..5 {
            assert_eq!(ring.take_in(&[0; 100]), None);
        }
    }
}
