//! Verifies an exported trail, line by line.

use serde_json::Value;

use super::{
    chain::ChainHead,
    evidence::{TrailEvidence, TrailReport},
    exported::ExportedLine,
    findings::TrailFinding,
    trail::{TrailCheck, TrailRow},
};

/// A verification of a file in progress.
#[derive(Debug)]
pub struct TrailFileCheck {
    check: TrailCheck,
    end: Option<ChainHead>,
    has_entries: bool,
    lines: u64,
}

impl TrailFileCheck {
    /// Begins with the first line; `None` if it is not the first line of an export. Lines have their line ends.
    pub fn begin(line: &[u8], evidence: TrailEvidence) -> Option<Self> {
        let Some(ExportedLine::Begin(begin)) = read(line) else {
            return None;
        };
        Some(Self {
            check: TrailCheck::new(begin, evidence),
            end: None,
            has_entries: false,
            lines: 1,
        })
    }

    /// Verifies the next line; returns the entry, where it has one.
    pub fn add(&mut self, line: &[u8]) -> Option<Value> {
        self.lines += 1;
        if self.end.is_some() {
            self.find(TrailFinding::general("something follows the last line"));
        }
        match read(line) {
            Some(ExportedLine::Entry(exported)) => {
                self.has_entries = true;
                return self.check.add(TrailRow {
                    seq: None,
                    entry: &exported.entry,
                    hash: exported.hash,
                    prev: Some(exported.prev),
                });
            }
            Some(ExportedLine::Key(past)) if !self.has_entries => self.check.add_past_key(past),
            Some(ExportedLine::End(head)) => self.end = Some(head),
            Some(ExportedLine::Begin(_) | ExportedLine::Key(_)) | None => {
                let what = format!(
                    "line {} is not as an export writes it: it was changed",
                    self.lines
                );
                self.find(TrailFinding::general(what));
            }
        }
        None
    }

    /// Adds a finding of the caller's.
    pub fn find(&mut self, finding: TrailFinding) {
        self.check.find(finding);
    }

    /// Where the file says that the trail ends.
    pub fn end(&self) -> Option<ChainHead> {
        self.end
    }

    /// Ends the verification.
    pub fn finish(mut self) -> TrailReport {
        if self.end.is_none() {
            self.find(TrailFinding::general(
                "the file has no last line: it was cut off",
            ));
        }
        self.check.finish(self.end)
    }
}

/// A line ends with a line feed and nothing else.
fn read(line: &[u8]) -> Option<ExportedLine> {
    let line = line.strip_suffix(b"\n")?;
    ExportedLine::read(std::str::from_utf8(line).ok()?)
}
