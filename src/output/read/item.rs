//! What a read of output returns: items (bytes or gaps), or why it failed.

use std::io;

use crate::{
    job::{Chunk, Gap, GapReason, JobNumber, Offset},
    store::StoreError,
};

/// Why output cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A segment file cannot be read.
    #[error("reading a segment: {0}")]
    Segment(#[from] io::Error),
    /// The store says that bytes are there and they are not.
    #[error("output of job {0} at offset {1} is missing")]
    Missing(JobNumber, Offset),
}

/// A range of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Bytes that are there.
    Chunk(Chunk),
    /// Bytes that are not there, and why.
    Gap(Gap),
}

impl Item {
    pub(in crate::output) fn begin(&self) -> Offset {
        match self {
            Self::Chunk(chunk) => chunk.offset,
            Self::Gap(gap) => gap.from,
        }
    }

    pub(in crate::output) fn next_offset(&self) -> Offset {
        match self {
            Self::Chunk(chunk) => chunk.next_offset(),
            Self::Gap(gap) => gap.to,
        }
    }

    /// Cuts a chunk to `bytes` bytes; whether it was longer.
    pub(super) fn cut(&mut self, bytes: usize) -> bool {
        match self {
            Self::Chunk(chunk) if chunk.data.len() > bytes => {
                chunk.data.truncate(bytes);
                chunk.data.shrink_to_fit();
                true
            }
            _ => false,
        }
    }

    /// The part at or after `offset`; `None` if there is none.
    pub(in crate::output) fn from(self, offset: Offset) -> Option<Self> {
        if self.next_offset() <= offset {
            return None;
        }
        Some(match self {
            Self::Chunk(mut chunk) if chunk.offset < offset => {
                chunk.data.drain(..(offset - chunk.offset) as usize);
                chunk.offset = offset;
                Self::Chunk(chunk)
            }
            Self::Gap(gap) => Self::Gap(Gap {
                from: gap.from.max(offset),
                ..gap
            }),
            whole @ Self::Chunk(_) => whole,
        })
    }
}

/// What one read found.
#[derive(Debug, Default)]
pub struct ReadBatch {
    /// In offset order.
    pub items: Vec<Item>,
    /// Whether the current end of the output was reached.
    pub at_end: bool,
    /// When the last item read from a segment was captured, CLOCK_BOOTTIME (µs) of the boot of that
    /// time. `None` for rows, which do not keep it.
    pub boottime_us: Option<u64>,
}

/// A gap for bytes that the storage has lost.
pub(super) fn lost(from: Offset, to: Offset) -> Item {
    let reason = GapReason::Damaged;
    Item::Gap(Gap { from, to, reason })
}
