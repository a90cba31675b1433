//! What is known of a diagnostic, and those of an output that are kept.

use std::collections::VecDeque;

use super::rules::Severity;

/// How many diagnostics of each severity are kept of the first ones, and of the last ones.
const KEPT: usize = 32;

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

/// The diagnostics of one severity.
#[derive(Debug, Clone, Default)]
struct Kept {
    first: Vec<Diagnostic>,
    last: VecDeque<Diagnostic>,
    found: u64,
}

impl Kept {
    fn add(&mut self, diagnostic: Diagnostic) {
        self.found += 1;
        let same = self
            .first
            .iter_mut()
            .chain(&mut self.last)
            .find(|each| each.key == diagnostic.key);
        if let Some(same) = same {
            same.times += 1;
            return;
        }
        if self.first.len() < KEPT {
            return self.first.push(diagnostic);
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(diagnostic);
    }
}

/// The diagnostics of an output: all are counted, the first and the last 32 different ones of each
/// severity are kept.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    kept: [Kept; Severity::ALL.len()],
}

impl Diagnostics {
    pub(super) fn add(&mut self, diagnostic: Diagnostic) {
        self.kept[diagnostic.severity as usize].add(diagnostic);
    }

    /// How many were found of a severity, equal ones included.
    pub fn found(&self, severity: Severity) -> u64 {
        self.kept[severity as usize].found
    }

    /// How many were found of all.
    pub fn found_all(&self) -> u64 {
        self.kept.iter().map(|kept| kept.found).sum()
    }

    /// Those of a severity that are kept, in the order of the output.
    pub fn kept(&self, severity: Severity) -> impl DoubleEndedIterator<Item = &Diagnostic> {
        let kept = &self.kept[severity as usize];
        kept.first.iter().chain(&kept.last)
    }
}
