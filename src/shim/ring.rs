//! Which segments stay where only so much output may be kept: the first one and the newest.
//! Counting and nothing else; files, and when they go, are the log's business.

use std::collections::VecDeque;

use crate::{
    job::{Gap, GapReason, Offset},
    spool::{Hole, record::HEADER_BYTES},
};

/// How many times the bound the files may take, for the headers of their records: a process that
/// writes byte by byte makes forty of each.
const FILES_FACTOR: u64 = 2;

/// What a segment holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    bytes: u64,
    /// Headers included.
    file_bytes: u64,
    lines: u64,
}

impl Held {
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
    pub hole: Hole,
}

/// The segments of an attempt that keeps its first and its newest output.
#[derive(Debug)]
pub struct Ring {
    bytes_max: u64,
    /// All that is kept, the current segment included.
    kept: Held,
    /// The current segment, and where it begins.
    current: (Offset, Held),
    first_is_sealed: bool,
    /// Sealed ones behind the first, oldest first: what may go.
    sealed: VecDeque<(Offset, Held)>,
    hole: Option<Hole>,
}

impl Ring {
    /// Keeps at most `bytes_max` bytes of output that begins at `start`.
    pub fn new(bytes_max: u64, start: Offset) -> Self {
        Self {
            bytes_max,
            kept: Held::default(),
            current: (start, Held::default()),
            first_is_sealed: false,
            sealed: VecDeque::new(),
            hole: None,
        }
    }

    /// These bytes are to be written into the current segment: what has to go first.
    pub fn take_in(&mut self, data: &[u8]) -> Option<Victims> {
        let more = Held {
            bytes: data.len() as u64,
            file_bytes: (HEADER_BYTES + data.len()) as u64,
            lines: line_ends(data),
        };
        self.kept.add(more);
        self.current.1.add(more);
        self.make_room()
    }

    fn make_room(&mut self) -> Option<Victims> {
        let mut first_offsets = Vec::new();
        while self.is_over()
            && let Some((first_offset, held)) = self.sealed.pop_front()
        {
            self.kept.take(held);
            self.widen_hole(first_offset, held);
            first_offsets.push(first_offset);
        }
        let hole = self.hole.filter(|_| !first_offsets.is_empty())?;
        Some(Victims {
            first_offsets,
            hole,
        })
    }

    fn is_over(&self) -> bool {
        self.kept.bytes > self.bytes_max
            || self.kept.file_bytes > self.bytes_max.saturating_mul(FILES_FACTOR)
    }

    fn widen_hole(&mut self, from: Offset, held: Held) {
        let hole = self.hole.get_or_insert(Hole {
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

    /// The current segment has been sealed; the next one begins at `end`.
    pub fn roll(&mut self, end: Offset) {
        let sealed = std::mem::replace(&mut self.current, (end, Held::default()));
        if std::mem::replace(&mut self.first_is_sealed, true) {
            self.sealed.push_back(sealed);
        }
    }

    /// What has been dropped so far.
    pub fn hole(&self) -> Option<Hole> {
        self.hole
    }
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
    fn run(ring: &mut Ring, segments: u64, bytes: usize) -> Vec<Offset> {
        let mut line = vec![b'x'; bytes - 1];
        line.push(b'\n');
        let mut gone = Vec::new();
        for _ in 0..segments {
            let victims = ring.take_in(&line);
            gone.extend(victims.into_iter().flat_map(|v| v.first_offsets));
            ring.roll(ring.current.0 + bytes as u64);
        }
        gone
    }

    #[test]
    fn up_to_the_bound_nothing_goes() {
        let mut ring = Ring::new(1000, 0);
        assert!(run(&mut ring, 10, 100).is_empty());
        assert_eq!(ring.hole(), None);
    }

    #[test]
    fn the_first_stays_and_the_oldest_behind_it_go() {
        let mut ring = Ring::new(1000, 7);
        assert_eq!(run(&mut ring, 13, 100), [107, 207, 307]);
        let hole = ring.hole().expect("a hole");
        assert_eq!((hole.gap.from, hole.gap.to, hole.lines), (107, 407, 3));
        assert_eq!(ring.kept.bytes, 1000);
    }

    #[test]
    fn headers_may_take_as_much_again_and_no_more() {
        let mut ring = Ring::new(1000, 0);
        let gone = run(&mut ring, 100, 1);
        assert_eq!(gone.len() as u64, 100 - 2000 / 41);
        assert!(ring.kept.file_bytes <= 2000);
    }

    #[test]
    fn what_is_being_written_never_goes() {
        let mut ring = Ring::new(10, 0);
        for _ in 0..5 {
            assert_eq!(ring.take_in(&[0; 100]), None);
        }
    }
}
