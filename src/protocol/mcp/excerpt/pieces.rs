//! What was read of an output: bytes at their offsets, and the ranges between them that were not read or
//! do not exist any more.

use std::{borrow::Cow, ops::Range};

/// Bytes of an output that were read.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Offset of the first byte in the job's output.
    pub from: u64,
    /// The bytes. An empty piece has no effect.
    pub bytes: &'a [u8],
}

/// What was read of a job's output, from one offset to its end. What lies in no piece and in no
/// dropped range counts as not read.
#[derive(Debug, Clone, Default)]
pub struct Pieces<'a> {
    /// In offset order. Bytes that an earlier piece has already are skipped.
    pub pieces: Vec<Piece<'a>>,
    /// Ranges whose bytes do not exist any more (the gaps of a read).
    pub dropped: Vec<Range<u64>>,
    /// Ranges in which only the pieces are of interest: the rest belongs to other streams.
    pub skipped: Vec<Range<u64>>,
    /// The offset from which on the output is of interest; bytes before it are not mentioned.
    pub from: u64,
    /// The length of the job's output, bytes. Pieces that reach further count.
    pub output_bytes: u64,
    /// Whether the output will not grow. If it can, a character or a terminal sequence that is cut off
    /// by the end is left for the next page.
    pub is_final: bool,
}

impl<'a> Pieces<'a> {
    /// Pieces of a final output of `output_bytes` bytes, nothing of which was dropped.
    pub fn new(pieces: Vec<Piece<'a>>, output_bytes: u64) -> Self {
        Self {
            pieces,
            dropped: Vec::new(),
            skipped: Vec::new(),
            from: 0,
            output_bytes,
            is_final: true,
        }
    }

    /// A whole final output.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self::new(vec![Piece { from: 0, bytes }], bytes.len() as u64)
    }

    /// The pieces joined where they meet, and what is between them: no byte from `self.from` to the
    /// end is left out.
    pub(super) fn parts(&self) -> Vec<Part<'a>> {
        let dropped = self.dropped_in_order();
        let mut at = self.from;
        let mut parts = Vec::new();
        for (from, slices) in self.joined() {
            self.push_absent(&mut parts, at..from, &dropped);
            let bytes = match slices[..] {
                [one] => Cow::Borrowed(one),
                _ => Cow::Owned(slices.concat()),
            };
            at = from + bytes.len() as u64;
            parts.push(Part::Bytes { from, bytes });
        }
        self.push_absent(&mut parts, at..self.output_bytes, &dropped);
        parts
    }

    fn push_absent(&self, parts: &mut Vec<Part<'a>>, range: Range<u64>, dropped: &[Range<u64>]) {
        let covers = |each: &Range<u64>| each.start <= range.start && range.end <= each.end;
        if !self.skipped.iter().any(covers) {
            push_absent(parts, range, dropped);
        }
    }

    /// The dropped ranges in order; those that overlap are one.
    fn dropped_in_order(&self) -> Vec<Range<u64>> {
        let mut ordered = self.dropped.clone();
        ordered.retain(|range| !range.is_empty());
        ordered.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in ordered {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        joined
    }

    /// Groups of slices without anything between them, with the offset of each group.
    fn joined(&self) -> Vec<(u64, Vec<&'a [u8]>)> {
        let mut ordered = self.pieces.clone();
        ordered.sort_by_key(|piece| piece.from);
        let mut groups: Vec<(u64, Vec<&[u8]>)> = Vec::new();
        let mut at = self.from;
        for Piece { from, bytes } in ordered {
            // A piece that reaches beyond the largest offset cannot be one of an output.
            let Some(end) = from.checked_add(bytes.len() as u64) else {
                continue;
            };
            if end <= at || bytes.is_empty() {
                continue;
            }
            let skipped = at.saturating_sub(from) as usize;
            let from = from + skipped as u64;
            match groups.last_mut() {
                Some((_, slices)) if from == at => slices.push(&bytes[skipped..]),
                _ => groups.push((from, vec![&bytes[skipped..]])),
            }
            at = end;
        }
        groups
    }
}

/// Adds a range without bytes, divided into what was dropped and what was not read.
fn push_absent(parts: &mut Vec<Part<'_>>, range: Range<u64>, dropped: &[Range<u64>]) {
    let mut push = |part: Range<u64>, why| {
        if !part.is_empty() {
            parts.push(Part::Absent(part, why));
        }
    };
    let mut at = range.start;
    let first = dropped.partition_point(|each| each.end <= range.start);
    for each in &dropped[first..] {
        if each.start >= range.end {
            break;
        }
        let (from, to) = (each.start.max(at), each.end.min(range.end));
        push(at..from, Absence::NotRead);
        push(from..to, Absence::Dropped);
        at = to;
    }
    push(at..range.end, Absence::NotRead);
}

/// Why bytes of a range are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// They were dropped, trimmed or lost.
    Dropped,
    /// The caller did not read them.
    NotRead,
}

impl Absence {
    /// The words for a reader.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::NotRead => "not scanned",
        }
    }
}

/// A range of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Its bytes.
    Bytes { from: u64, bytes: Cow<'a, [u8]> },
    /// Its bytes are not there.
    Absent(Range<u64>, Absence),
}

impl Part<'_> {
    pub(super) fn range(&self) -> Range<u64> {
        match self {
            Self::Bytes { from, bytes } => *from..*from + bytes.len() as u64,
            Self::Absent(range, _) => range.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &Pieces<'_>) -> Vec<String> {
        let parts = pieces.parts();
        parts
            .iter()
            .map(|part| match part {
                Part::Bytes { from, bytes } => format!("{from} {}", String::from_utf8_lossy(bytes)),
                Part::Absent(range, why) => format!("{range:?} {}", why.words()),
            })
            .collect()
    }

    fn pieces<'a>(list: &[(u64, &'a str)], output_bytes: u64) -> Pieces<'a> {
        let list = list.iter().map(|(from, text)| Piece {
            from: *from,
            bytes: text.as_bytes(),
        });
        Pieces::new(list.collect(), output_bytes)
    }

    #[test]
    fn pieces_that_meet_are_one_part() {
        let read = pieces(&[(0, "ab"), (2, "cd"), (4, "e")], 5);
        assert_eq!(shown(&read), ["0 abcde"]);
        assert!(shown(&pieces(&[], 0)).is_empty());
        assert!(shown(&pieces(&[(7, "")], 0)).is_empty());
    }

    #[test]
    fn what_is_between_pieces_is_dropped_or_not_read() {
        let mut read = pieces(&[(2, "ab"), (10, "cd")], 20);
        read.dropped = vec![12..15, 5..7, 0..1];
        let expected = [
            "0..1 dropped",
            "1..2 not scanned",
            "2 ab",
            "4..5 not scanned",
            "5..7 dropped",
            "7..10 not scanned",
            "10 cd",
            "12..15 dropped",
            "15..20 not scanned",
        ];
        assert_eq!(shown(&read), expected);
    }

    #[test]
    fn bytes_count_once_and_the_longest_end_counts() {
        let read = pieces(&[(3, "def"), (0, "abcd"), (1, "b")], 2);
        assert_eq!(shown(&read), ["0 abcdef"]);
        let mut read = pieces(&[(0, "abcdef")], 6);
        read.from = 4;
        assert_eq!(shown(&read), ["4 ef"]);
        read.from = 9;
        assert!(shown(&read).is_empty());
        assert_eq!(shown(&pieces(&[(u64::MAX, "ab")], 2)), ["0..2 not scanned"]);
    }
}
