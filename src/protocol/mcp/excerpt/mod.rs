//! What a model is shown of a command's output: text from bytes. Nothing here reads or waits.
//!
//! A text never has more characters (Unicode scalar values) than the caller allows. What of the
//! output is not in it is named with its range of bytes, and each bound of such a range can be used as
//! an offset for the next read.

mod bounds;
mod characters;
mod choose;
mod clean_line;
mod clean_lines;
mod cut;
mod diagnose;
mod fold;
mod gather;
mod grep;
mod last_lines;
mod layout;
mod live_screen;
mod notes;
mod page;
mod pieces;
mod rows;
mod similar;
mod tokens;
mod unfinished;

pub use bounds::Bounds;
pub use clean_line::{CleanLine, Entry, Redrawn};
pub use diagnose::{Diagnostic, Diagnostics, Severity};
pub use fold::{Folded, Folder};
pub use grep::{Hit, Hits, ShownLinePattern, ShownLinePatternError, grep};
pub use last_lines::{LastLines, last_lines};
pub use page::{Page, page};
pub use pieces::{Absence, Piece, Pieces};

use clean_lines::CleanLines;
use diagnose::Collector;
use gather::{Gathered, Whole};
use layout::Laid;
use pieces::Part;

/// Calls `act` with each line of an output, and with what is between them.
pub fn clean(pieces: &Pieces<'_>, mut act: impl FnMut(&Entry<'_>)) {
    CleanLines::new(&pieces.parts()).for_each(|entry| act(&entry));
}

/// All diagnostics of an output.
pub fn diagnostics(pieces: &Pieces<'_>) -> Diagnostics {
    let parts = pieces.parts();
    let mut collector = Collector::default();
    for entry in CleanLines::new(&parts) {
        diagnose_entry(&mut collector, &entry);
    }
    collector.finish()
}

/// Whether an entry is part of a diagnostic.
fn diagnose_entry<'a>(collector: &mut Collector<'a>, entry: &Entry<'a>) -> bool {
    match entry {
        Entry::Line(line) => collector.push(line),
        Entry::Redrawn(rows) => {
            let found = rows.lines.iter().map(|line| collector.push(line));
            // All of them are looked at.
            found.fold(false, |any, each| any | each)
        }
        Entry::Absent(..) => {
            collector.interrupt();
            false
        }
    }
}

/// An excerpt of an output: all of its lines, with repeats folded, if they fit. Otherwise the
/// diagnostics in it, its first lines, a note about what is omitted, and its last lines.
///
/// Every byte is in a line that is shown, or in a range that a note names. Empty for an empty output.
pub fn excerpt(pieces: &Pieces<'_>, bounds: Bounds) -> String {
    lay(&pieces.parts(), bounds).text
}

fn lay(parts: &[Part<'_>], bounds: Bounds) -> Laid {
    whole(parts, bounds).unwrap_or_else(|| summary(parts, bounds))
}

/// All lines, if they fit.
fn whole(parts: &[Part<'_>], bounds: Bounds) -> Option<Laid> {
    let mut collector = Collector::default();
    let mut folder = Folder::new(false);
    let mut whole = Whole::new(bounds.chars_max);
    for entry in CleanLines::new(parts) {
        let is_diagnostic = diagnose_entry(&mut collector, &entry);
        folder.push(entry, is_diagnostic, &mut |folded| whole.push(&folded));
        if !whole.fits() {
            return None;
        }
    }
    folder.finish(&mut |folded| whole.push(&folded));
    whole.finish()
}

/// What there is room for. Lines that differ only in their digits are folded, too.
fn summary(parts: &[Part<'_>], bounds: Bounds) -> Laid {
    let mut collector = Collector::default();
    let mut folder = Folder::new(true);
    let mut gathered = Gathered::new(bounds);
    for entry in CleanLines::new(parts) {
        let is_diagnostic = diagnose_entry(&mut collector, &entry);
        folder.push(entry, is_diagnostic, &mut |folded| gathered.push(folded));
    }
    folder.finish(&mut |folded| gathered.push(folded));
    let layout = gathered.layout(parts, collector.finish());
    layout.whole().unwrap_or_else(|| layout.lay())
}

#[cfg(test)]
mod clean_lines_tests;
#[cfg(test)]
mod excerpt_tests;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod properties_tests;
