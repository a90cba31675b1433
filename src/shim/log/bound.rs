//! How much output is stored before the newest is dropped or the job is ended.

use crate::{
    job::{Offset, WhenFull},
    spool::RunSpec,
};

/// How much output may be stored, from the beginning of the attempt on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Where it ends, as an offset.
    pub(super) bytes: Option<Offset>,
    /// After how many lines it ends.
    pub(super) lines: Option<u64>,
}

impl Bound {
    /// That of an attempt; none where the oldest output makes way instead.
    pub(super) fn of(spec: &RunSpec) -> Self {
        let is_fixed = spec.when_full != WhenFull::DropOldest;
        Self {
            bytes: spec.output_bytes_max.filter(|_| is_fixed),
            lines: spec.output_lines_max.filter(|_| is_fixed),
        }
    }

    pub(super) fn counts_lines(&self) -> bool {
        self.lines.is_some()
    }
}
