//! What a program reported: one diagnostic.

use super::rules::Severity;

/// Something that a program reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Number of its first line, from 1, where it is known.
    pub number: Option<u64>,
    /// Offset of its first byte.
    pub from: u64,
    /// Offset after its last byte.
    pub to: u64,
    /// Its lines, at least one: the first eight and the last four of more, with a note between
    /// them and the lines that matter most after it.
    pub text: Vec<String>,
    /// How often the same text was found; the place is that of the first time.
    pub times: u64,
    /// The same for the same text.
    pub(super) key: u64,
}
