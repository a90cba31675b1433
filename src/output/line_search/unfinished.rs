//! A line of one stream whose end has not been read yet: its bytes, as far as they are still needed, and
//! where in the output each of them is.

use super::position::{OpenLine, StreamPosition};
use crate::job::Offset;

/// How much of a line is searched at once, bytes. A longer line is searched in windows of this length.
pub(super) const WINDOW_BYTES: usize = 64 << 10;

/// Consecutive windows have this much in common, bytes: a match of up to this length lies in one of them.
pub const LINE_MATCH_BYTES_MAX: usize = 32 << 10;

/// A line that other streams interrupt with more than this ends there, bytes: a search that goes on in
/// the middle of it has to read that much again.
const INTERRUPTION_BYTES_MAX: u64 = 1 << 20;

/// Bytes that lie together in the output and in the line.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Where they begin in `bytes`.
    at: usize,
    /// Where they begin in the output.
    offset: Offset,
    /// Line ends before them in the output, if that is known.
    line_ends: Option<u64>,
}

/// What of the line can be searched now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing: more bytes follow.
    No,
    /// A window; more bytes follow.
    Window,
    /// The rest of the line.
    Rest,
}

/// The unfinished line of a stream.
#[derive(Debug)]
pub(super) struct UnfinishedLine {
    /// The line; `None` between two lines.
    pub(super) open: Option<OpenLine>,
    pub(super) due: Due,
    /// The first byte was searched already, and only says what precedes the others.
    pub(super) has_context: bool,
    pub(super) bytes: Vec<u8>,
    extents: Vec<Extent>,
}

impl UnfinishedLine {
    pub(super) fn new() -> Self {
        Self {
            open: None,
            due: Due::No,
            has_context: false,
            bytes: Vec::new(),
            extents: Vec::new(),
        }
    }

    /// Begins as a search was left.
    pub(super) fn restore(&mut self, stream: &StreamPosition) {
        self.end();
        self.open = stream.open;
        self.has_context = stream.open.is_some_and(|open| !open.is_found);
    }

    /// How a search that reads `next` next can be left.
    pub(super) fn position(&self, next: Offset) -> StreamPosition {
        let first = self.extents.first().map(|extent| extent.offset);
        StreamPosition {
            begin: first.unwrap_or(next),
            // A line that is searched from its beginning is begun again.
            open: self.open.filter(|open| open.is_found || self.has_context),
        }
    }

    /// The line ends before its first byte; `None` if it has no bytes or that is unknown.
    pub(super) fn line_ends_before(&self) -> Option<u64> {
        self.extents.first().and_then(|extent| extent.line_ends)
    }

    /// How many more bytes fit into the window.
    pub(super) fn room(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.bytes.len())
    }

    /// Adds bytes that begin at `offset` and have no line end in them.
    pub(super) fn push(&mut self, bytes: &[u8], offset: Offset, line_ends: Option<u64>) {
        let at = self.bytes.len();
        let follows = self.extents.last().is_some_and(|last| {
            last.offset + (at - last.at) as u64 == offset && last.line_ends == line_ends
        });
        if !follows && !bytes.is_empty() {
            self.extents.push(Extent {
                at,
                offset,
                line_ends,
            });
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The offset of the byte at `at`, or the one after the last byte.
    pub(super) fn offset_of(&self, at: usize) -> Offset {
        let holder = self.extents.partition_point(|extent| extent.at <= at);
        let holder = holder.checked_sub(1).map(|index| self.extents[index]);
        holder.map_or(0, |extent| extent.offset + (at - extent.at) as u64)
    }

    /// Whether other streams interrupt it for too long, if its next byte is not before `next`.
    pub(super) fn is_interrupted(&self, next: Offset) -> bool {
        self.extents.first().is_some_and(|first| {
            let own = self.bytes.len() as u64;
            next.saturating_sub(first.offset + own) > INTERRUPTION_BYTES_MAX
        })
    }

    /// Drops what no match needs that ends in the next window.
    pub(super) fn slide(&mut self) {
        self.due = Due::No;
        self.has_context = true;
        let drop = self.bytes.len().saturating_sub(LINE_MATCH_BYTES_MAX + 1);
        let holder = self.extents.partition_point(|extent| extent.at <= drop);
        self.extents.drain(..holder.saturating_sub(1));
        for extent in &mut self.extents {
            let before = drop.saturating_sub(extent.at);
            extent.offset += before as u64;
            extent.at = (extent.at + before) - drop;
        }
        self.bytes.drain(..drop);
    }

    /// The line has a match: its other bytes are not needed.
    pub(super) fn set_found(&mut self) {
        let open = self.open.take();
        self.end();
        self.open = open.map(|open| OpenLine {
            is_found: true,
            ..open
        });
    }

    /// The line is over.
    pub(super) fn end(&mut self) {
        self.open = None;
        self.due = Due::No;
        self.has_context = false;
        self.bytes.clear();
        self.extents.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> UnfinishedLine {
        let mut line = UnfinishedLine::new();
        line.open = Some(OpenLine {
            offset: 10,
            number: Some(1),
            is_found: false,
        });
        line
    }

    #[test]
    fn bytes_keep_their_offsets_when_the_window_slides() {
        let mut line = open();
        line.push(b"abc", 10, Some(0));
        line.push(b"d", 13, Some(0));
        line.push(&[b'x'; LINE_MATCH_BYTES_MAX], 20, Some(2));
        assert_eq!(line.extents.len(), 2);
        let offsets = |line: &UnfinishedLine| [0, 1, 2].map(|at| line.offset_of(at));
        assert_eq!(offsets(&line), [10, 11, 12]);
        assert_eq!(line.offset_of(4), 20);
        line.slide();
        assert_eq!(offsets(&line), [13, 20, 21]);
        assert_eq!(line.line_ends_before(), Some(0));
        assert_eq!(line.bytes.len(), LINE_MATCH_BYTES_MAX + 1);
        line.push(b"y", 20 + LINE_MATCH_BYTES_MAX as u64, Some(2));
        line.slide();
        assert_eq!(offsets(&line), [20, 21, 22]);
        assert_eq!(line.line_ends_before(), Some(2));
        assert_eq!(line.position(99).begin, 20);
    }

    #[test]
    fn other_streams_may_interrupt_a_line_for_a_while() {
        let mut line = open();
        line.push(b"abc", 10, Some(0));
        assert!(!line.is_interrupted(13 + INTERRUPTION_BYTES_MAX));
        assert!(line.is_interrupted(14 + INTERRUPTION_BYTES_MAX));
    }
}
