//! A line as a terminal would show it, and what else an output consists of.

use std::{borrow::Cow, ops::Range};

use super::pieces::Absence;

/// A line as a terminal shows it: without sequences, and after carriage returns and backspaces have
/// had their effect. Bytes that are no UTF-8 are U+FFFD, controls other than tabs are escapes.
#[derive(Debug, Clone)]
pub struct CleanLine<'a> {
    /// Offset of its first byte.
    pub from: u64,
    /// Offset after its last byte, its newline included.
    pub to: u64,
    /// Its number, from 1: how many newlines precede it. Known only where everything from offset 0 to
    /// here was read.
    pub number: Option<u64>,
    /// What is shown, without a newline.
    pub text: Cow<'a, str>,
    /// Whether the text is not simply its bytes in their order.
    pub(super) is_rewritten: bool,
    /// Its bytes. For a row that was drawn with others: the bytes of all of them.
    pub(super) bytes: &'a [u8],
}

/// Rows over which the cursor went up, so that their bytes cannot be told apart: their last state.
#[derive(Debug, Clone)]
pub struct Redrawn<'a> {
    /// Offset of the first byte that drew one of them.
    pub from: u64,
    /// Offset after the last byte that did.
    pub to: u64,
    /// How many times the cursor went up to one of them.
    pub times: u64,
    /// The rows. Each has the range of all.
    pub lines: Vec<CleanLine<'a>>,
}

/// A part of an output. The ranges of successive entries meet.
#[derive(Debug, Clone)]
pub enum Entry<'a> {
    /// A line.
    Line(CleanLine<'a>),
    /// Rows that were drawn several times.
    Redrawn(Redrawn<'a>),
    /// A range without bytes.
    Absent(Range<u64>, Absence),
}

impl Entry<'_> {
    /// The range of its bytes.
    pub fn range(&self) -> Range<u64> {
        match self {
            Self::Line(line) => line.from..line.to,
            Self::Redrawn(rows) => rows.from..rows.to,
            Self::Absent(range, _) => range.clone(),
        }
    }
}
