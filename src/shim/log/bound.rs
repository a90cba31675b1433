//! The bound on stored output at which the newest output is dropped or the job is ended.

use crate::{
    job::{Offset, WhenFull},
    spool::RunSpec,
};

/// How much output may be stored, counted from the beginning of the attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// The offset at which it is reached; `None`: no bound on bytes.
    pub(super) bytes: Option<Offset>,
    /// The number of lines after which it is reached; `None`: no bound on lines.
    pub(super) lines: Option<u64>,
}

impl Bound {
    /// The bound of an attempt; none where the oldest output is dropped instead.
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
